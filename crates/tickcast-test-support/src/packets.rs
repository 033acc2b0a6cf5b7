//! Packets with values that tests can recognise.

use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::{BookAction, Channel, FeedState, GapReason, Instrument, Position, RecordKind, Side};
use tungstenite::Message;

/// 2025-11-21 02:13:20.123456789 UTC.
pub const TS_EVENT: u64 = 1_763_691_200_123_456_789;
/// Fifty microseconds later.
pub const TS_RECV: u64 = TS_EVENT + 50_000;

/// Builds a packet record by record. Records are of instrument 1 where no other is given.
#[derive(Clone)]
pub struct PacketBuilder {
    head: PacketHeader,
    records: Vec<u8>,
}

impl Default for PacketBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuilder {
    pub fn new() -> Self {
        let head = PacketHeader { flags: 0, count: 0, epoch: 1, position: Position::new(1), ts_send: TS_RECV + 10_000 };
        Self { head, records: Vec::new() }
    }

    pub fn epoch(mut self, epoch: u32) -> Self {
        self.head.epoch = epoch;
        self
    }

    /// Ends a snapshot or a replay.
    pub fn caught_up(mut self) -> Self {
        self.head.flags |= packet::flags::CAUGHT_UP;
        self
    }

    pub fn position(mut self, position: u64) -> Self {
        self.head.position = position.into();
        self
    }

    pub fn definition(self, id: u32, symbol: &str) -> Self {
        self.definition_of(&Instrument::new(id, symbol, "sim", -2, -3))
    }

    pub fn definition_of(self, instrument: &Instrument) -> Self {
        self.push(|out| record::encode_definition(instrument, out))
    }

    pub fn quote(self, sequence: u64, flags: u8) -> Self {
        self.quote_of(1, sequence, flags)
    }

    pub fn quote_of(self, instrument: u32, sequence: u64, flags: u8) -> Self {
        let quote = Quote { bid_px: 6_183_763, bid_sz: 3788, ask_px: 6_183_764, ask_sz: 1200 };
        self.push(|out| quote.encode(&header(RecordKind::Quote, instrument, sequence, flags), out))
    }

    pub fn trade(self, sequence: u64, flags: u8) -> Self {
        let trade = Trade { px: 6_183_764, sz: 10, trade_id: 77, side: Side::Buy };
        self.push(|out| trade.encode(&header(RecordKind::Trade, 1, sequence, flags), out))
    }

    pub fn ticker(self, sequence: u64, ticker: Ticker) -> Self {
        self.push(|out| ticker.encode(&header(RecordKind::Ticker, 1, sequence, 0), out))
    }

    pub fn book(self, sequence: u64, action: BookAction, levels: &[Level]) -> Self {
        let header = header(RecordKind::Book, 1, sequence, 0);
        self.push(|out| record::encode_book(&header, action, levels.iter().copied(), out))
    }

    pub fn raw(self, sequence: u64, payload: &[u8]) -> Self {
        self.push(|out| record::encode_raw(&header(RecordKind::Raw, 1, sequence, 0), payload, out))
    }

    pub fn heartbeat(self) -> Self {
        self.push(|out| record::encode_heartbeat(TS_RECV, out))
    }

    pub fn status(self, state: FeedState) -> Self {
        self.status_of(0, state)
    }

    pub fn status_of(self, instrument: u32, state: FeedState) -> Self {
        self.push(|out| record::encode_status(&header(RecordKind::Status, instrument, 0, 0), state, out))
    }

    pub fn gap(self, channel: Channel, from_sequence: u64, to_sequence: u64) -> Self {
        let gap = Gap {
            instrument: 1,
            channel,
            from_sequence: from_sequence.into(),
            to_sequence: to_sequence.into(),
            reason: GapReason::Slow,
        };
        self.push(|out| gap.encode(TS_RECV, out))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.encode().to_vec();
        bytes.extend_from_slice(&self.records);
        bytes
    }

    pub fn message(&self) -> Message {
        Message::binary(self.bytes())
    }

    fn push(mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Self {
        encode(&mut self.records);
        self.head.count += 1;
        self
    }
}

fn header(kind: RecordKind, instrument: u32, sequence: u64, flags: u8) -> RecordHeader {
    let mut header = RecordHeader::of_feed(kind, instrument, TS_EVENT).with_flags(flags);
    header.sequence = sequence.into();
    header.ts_recv = TS_RECV;
    header
}
