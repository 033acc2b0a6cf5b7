//! Records that a publisher sends together. Pure.

use tickcast_protocol::packet::{PacketHeader, RECORDS_MAX};
use tickcast_protocol::record::{Level, Quote, RecordHeader, Ticker, Trade, encode_book, encode_heartbeat, encode_raw};
use tickcast_protocol::{BookAction, RecordKind};

/// A packet of a publisher: records of defined instruments, in the order in which they are pushed.
///
/// `ts_event` is the venue's time in ns since the Unix epoch, 0 for none. The server numbers the records and sets
/// `ts_recv`. A packet has at most 65,535 records ([`Self::is_full`]), and at most as many bytes as the server's
/// `packet_bytes_max` (16 MiB by default).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishPacket {
    bytes: Vec<u8>,
    records: u16,
}

impl Default for PublishPacket {
    fn default() -> Self {
        Self::new()
    }
}

impl PublishPacket {
    /// A packet without records.
    pub fn new() -> Self {
        let mut packet = Self { bytes: Vec::new(), records: 0 };
        packet.clear();
        packet
    }

    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.records = 0;
        self.bytes.clear();
        self.bytes.extend_from_slice(&self.header());
    }

    /// Appends a best bid and offer.
    pub fn quote(&mut self, instrument: u32, ts_event: u64, quote: &Quote) -> &mut Self {
        self.push(|out| quote.encode(&RecordHeader::of_feed(RecordKind::Quote, instrument, ts_event), out))
    }

    /// Appends a trade.
    pub fn trade(&mut self, instrument: u32, ts_event: u64, trade: &Trade) -> &mut Self {
        self.push(|out| trade.encode(&RecordHeader::of_feed(RecordKind::Trade, instrument, ts_event), out))
    }

    /// Appends 24 h statistics.
    pub fn ticker(&mut self, instrument: u32, ts_event: u64, ticker: &Ticker) -> &mut Self {
        self.push(|out| ticker.encode(&RecordHeader::of_feed(RecordKind::Ticker, instrument, ts_event), out))
    }

    /// Appends levels of a book, which replace both sides or change levels by absolute size.
    ///
    /// # Panics
    /// When the levels do not fit into a record, see [`tickcast_protocol::record::BOOK_LEVELS_MAX`].
    pub fn book(&mut self, instrument: u32, ts_event: u64, action: BookAction, levels: &[Level]) -> &mut Self {
        let header = RecordHeader::of_feed(RecordKind::Book, instrument, ts_event);
        self.push(|out| encode_book(&header, action, levels.iter().copied(), out))
    }

    /// Appends a payload that the server does not read.
    ///
    /// # Panics
    /// When the payload does not fit into a record, see [`tickcast_protocol::record::RECORD_BYTES_MAX`].
    pub fn raw(&mut self, instrument: u32, ts_event: u64, payload: &[u8]) -> &mut Self {
        self.push(|out| encode_raw(&RecordHeader::of_feed(RecordKind::Raw, instrument, ts_event), payload, out))
    }

    /// Appends a heartbeat. A publisher that sends nothing for the server's `stale_ms` counts as stale.
    pub fn heartbeat(&mut self) -> &mut Self {
        self.push(|out| encode_heartbeat(0, out))
    }

    /// Appends one record that `encode` writes, for a header of one's own.
    ///
    /// # Panics
    /// When the packet is full.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        assert!(!self.is_full(), "a packet has at most {RECORDS_MAX} records");
        encode(&mut self.bytes);
        self.records += 1;
        let header = self.header();
        self.bytes[..header.len()].copy_from_slice(&header);
        self
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        usize::from(self.records)
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether no further record fits.
    pub fn is_full(&self) -> bool {
        self.len() == RECORDS_MAX
    }

    /// The packet as it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Epoch, position and time of sending are the server's to set.
    fn header(&self) -> [u8; tickcast_protocol::packet::HEADER_BYTES] {
        let count = self.records;
        PacketHeader { flags: 0, count, epoch: 0, position: 0.into(), ts_send: 0 }.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoder;

    #[test]
    fn records_keep_their_order_and_the_header_counts_them() {
        let mut packet = PublishPacket::new();
        assert!(packet.is_empty());
        packet.quote(1, 9, &Quote { bid_px: 1, bid_sz: 2, ask_px: 3, ask_sz: 4 }).raw(2, 8, b"abc").heartbeat();
        let mut seen = Vec::new();
        let header = Decoder::new()
            .packet(packet.bytes(), |_, header, _| seen.push((header.kind, header.instrument, header.ts_event)))
            .expect("a packet");
        assert_eq!((header.count, packet.len()), (3, 3));
        assert_eq!(seen, [(1, 1, 9), (5, 2, 8), (17, 0, 0)]);
        packet.clear();
        assert_eq!((packet.len(), packet), (0, PublishPacket::new()));
    }

    #[test]
    fn a_full_packet_says_so() {
        let mut packet = PublishPacket::new();
        for _ in 0..RECORDS_MAX {
            assert!(!packet.is_full());
            packet.heartbeat();
        }
        assert!(packet.is_full());
    }
}
