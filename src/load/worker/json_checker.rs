//! Reads packets that are JSON, and applies the rule of the [`FastChecker`] to their records.
//!
//! What always holds: the counters are those that the same packets in binary would have, except that records of unknown
//! types are not told from each other. Prices, sizes and payloads are not read. Cost: about 1 µs a record; the symbols
//! of the instruments that were seen.

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt};
use serde::Deserialize;

use super::checker::{FastChecker, SequenceTable};
use tickcast_client::decode::{DecodeCounters, SequenceViolation};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{Gap, RecordHeader, flags};
use tickcast_protocol::{Channel, GapReason, RecordKind};

/// Checks the packets of one connection.
#[derive(Debug)]
pub struct JsonChecker {
    /// Ids that stand for the symbols.
    ids: HashMap<String, u32>,
    checker: FastChecker,
}

/// The fields of a record that are needed.
#[derive(Debug, Deserialize)]
struct JsonRecord<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    /// It may have escapes.
    symbol: Option<Cow<'a, str>>,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    ts_event: u64,
    #[serde(default)]
    ts_recv: u64,
    #[serde(borrow, default)]
    flags: Vec<&'a str>,
    channel: Option<&'a str>,
    from_sequence: Option<u64>,
    to_sequence: Option<u64>,
    packet: Option<JsonPacket<'a>>,
}

/// The header of a packet, in its last record.
#[derive(Debug, Deserialize)]
struct JsonPacket<'a> {
    epoch: u32,
    position: u64,
    ts_send: u64,
    #[serde(borrow, default)]
    flags: Vec<&'a str>,
}

impl JsonChecker {
    /// A checker that has seen nothing.
    pub fn new() -> Self {
        Self { ids: HashMap::new(), checker: FastChecker::new(SequenceTable::Sparse, true) }
    }

    /// Checks one message and hands the header of each record of a channel to `on`, the oldest first. `None` is a
    /// message that is not a packet, such as a reply.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub fn message(&mut self, text: &str, on: impl FnMut(&RecordHeader)) -> Result<Option<PacketHeader>, String> {
        let records: Vec<JsonRecord<'_>> = if text.starts_with('[') {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        } else {
            match serde_json::from_str::<JsonRecord<'_>>(text) {
                Ok(record) if record.packet.is_some() => vec![record],
                // Replies have other fields.
                _ => return Ok(None),
            }
        };
        let packet = records.last().and_then(|last| last.packet.as_ref()).ok_or("a list without a packet's header")?;
        let header = PacketHeader {
            flags: packet.bits(),
            count: u16::try_from(records.len()).unwrap_or(u16::MAX),
            epoch: packet.epoch,
            position: packet.position.into(),
            ts_send: packet.ts_send,
        };
        self.packet(header.epoch, &records, on)?;
        Ok(Some(header))
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &DecodeCounters {
        self.checker.counters()
    }

    /// The first break of the rule.
    pub fn first_violation(&self) -> Option<SequenceViolation> {
        self.checker.first_violation()
    }

    fn packet(
        &mut self,
        epoch: u32,
        records: &[JsonRecord<'_>],
        mut on: impl FnMut(&RecordHeader),
    ) -> Result<(), String> {
        self.checker.begin_packet(epoch);
        for record in records {
            let instrument = record.symbol.as_ref().map_or(0, |symbol| self.id(symbol));
            match Channel::from_name(record.kind) {
                Some(channel) => {
                    let header = record.header(channel.kind(), instrument);
                    self.checker.record(channel, &header);
                    on(&header);
                }
                None if record.kind == "definition" => self.checker.define(instrument),
                None if record.kind == "gap" => self.checker.gap(&record.gap(instrument).ok_or("an incomplete gap")?),
                None => {}
            }
        }
        Ok(())
    }

    fn id(&mut self, symbol: &str) -> u32 {
        if let Some(id) = self.ids.get(symbol) {
            return *id;
        }
        let id = self.ids.len() as u32 + 1;
        self.ids.insert(symbol.to_owned(), id);
        id
    }
}

impl JsonRecord<'_> {
    fn header(&self, kind: RecordKind, instrument: u32) -> RecordHeader {
        let bits = self.flags.iter().map(|word| match *word {
            "snapshot" => flags::SNAPSHOT,
            "conflated" => flags::CONFLATED,
            "delayed" => flags::DELAYED,
            "maybe_bad_book" => flags::MAYBE_BAD_BOOK,
            "computed" => flags::COMPUTED,
            _ => 0,
        });
        let mut header =
            RecordHeader::of_feed(kind, instrument, self.ts_event).with_flags(bits.fold(0, |all, bit| all | bit));
        (header.sequence, header.ts_recv) = (self.sequence.into(), self.ts_recv);
        header
    }

    fn gap(&self, instrument: u32) -> Option<Gap> {
        Some(Gap {
            instrument,
            channel: Channel::from_name(self.channel?)?,
            from_sequence: self.from_sequence?.into(),
            to_sequence: self.to_sequence?.into(),
            // Not counted.
            reason: GapReason::Slow,
        })
    }
}

impl JsonPacket<'_> {
    fn bits(&self) -> u8 {
        let bits = self.flags.iter().map(|word| match *word {
            "snapshot" => packet::flags::SNAPSHOT,
            "replay" => packet::flags::REPLAY,
            "caught_up" => packet::flags::CAUGHT_UP,
            _ => 0,
        });
        bits.fold(0, |all, bit| all | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::json::push_packet;
    use tickcast_protocol::record::records;
    use tickcast_protocol::{Directory, Instrument};
    use tickcast_test_support::packets::PacketBuilder;

    fn json(packet: &[u8]) -> String {
        let mut directory = Directory::default();
        for (id, symbol) in [(1, "BTC-USD"), (2, "a \"name\""), (3, "€")] {
            directory.insert(Instrument::new(id, symbol, "sim", -2, -3));
        }
        let header = PacketHeader::read(packet).expect("well-formed");
        let mut text = String::new();
        let all = records(&packet[packet::HEADER_BYTES..]).map(|(_, record)| record);
        push_packet(&header, all, &directory, &mut text);
        text
    }

    #[test]
    fn json_gives_the_counters_of_the_same_packets_in_binary() {
        let start = PacketBuilder::new().definition(1, "BTC-USD").definition(2, "a \"name\"");
        let packets = [
            start.quote(5, flags::SNAPSHOT).quote_of(2, 1, 0).caught_up(),
            PacketBuilder::new().quote(6, 0).quote(9, flags::CONFLATED).trade(3, 0).heartbeat(),
            PacketBuilder::new().gap(Channel::Trade, 4, 9).trade(10, 0).raw(1, b"abc"),
            PacketBuilder::new(),
            // A jump, a repetition, and a record before its definition.
            PacketBuilder::new().quote(12, 0).quote(12, 0).quote_of(3, 1, 0),
            PacketBuilder::new().epoch(2).definition(1, "BTC-USD").quote(1, 0),
        ];
        let mut binary = FastChecker::new(SequenceTable::Sparse, true);
        let mut text = JsonChecker::new();
        for packet in packets {
            let (mut wanted, mut found) = (Vec::new(), Vec::new());
            let stamps = |header: &RecordHeader| (header.kind, header.sequence, header.ts_event, header.ts_recv);
            let packet = packet.bytes();
            let want = binary.packet(&packet, |header| wanted.push(stamps(header))).expect("well-formed");
            let header = text.message(&json(&packet), |header| found.push(stamps(header))).expect("well-formed");
            let header = header.expect("a packet");
            assert_eq!((header.flags, header.epoch, header.position), (want.flags, want.epoch, want.position));
            assert_eq!((header.ts_send, found), (want.ts_send, wanted));
        }
        assert_eq!(text.counters(), binary.counters());
        assert!(text.counters().violations > 2 && text.first_violation().is_some());
    }

    #[test]
    fn replies_are_no_packets_and_broken_lists_are_errors() {
        let mut checker = JsonChecker::new();
        for reply in [r#"{"type":"subscribed","id":1}"#, r#"{"type":"error","id":1,"code":"x","message":"y"}"#] {
            assert!(matches!(checker.message(reply, |_| {}), Ok(None)), "{reply}");
        }
        for broken in ["[", "[]", r#"[{"type":"quote"}]"#, r#"[{"type":7}]"#] {
            assert!(checker.message(broken, |_| {}).is_err(), "{broken}");
        }
        let gap = r#"{"type":"gap","symbol":"A","packet":{"epoch":1,"position":1,"ts_send":1}}"#;
        assert_eq!(checker.message(gap, |_| {}).map(|_| ()), Err("an incomplete gap".to_owned()));
    }
}
