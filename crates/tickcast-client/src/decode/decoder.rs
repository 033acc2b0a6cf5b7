//! One stream, packet by packet.
//!
//! Pure: bytes in, records out, no clock and no socket. What always holds: the counters cover every record that was
//! handed on; an instrument is that of its newest Definition, and is forgotten when it is released; after a packet that
//! breaks the layout nothing more of it is used; a violation is counted once, and the stream continues from the new
//! sequence.
//!
//! Cost: one hash lookup for each record, about 10 ns; 64 to 128 bytes for each instrument that was seen, and its
//! definition where that is kept.

use foldhash::{HashMap, HashMapExt};

use super::counters::DecodeCounters;
use super::rules::{
    DecodeError, SequenceViolation, body_is_complete, highest_sequence, sequence_violation, sequences_covered,
    split_record,
};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, RecordHeader, flags};
use tickcast_protocol::{Channel, FeedState, GapReason, Instrument, RecordKind, Sequence};

/// Decodes the packets of one connection, or of several connections that continue one stream.
#[derive(Debug)]
pub struct Decoder {
    keeps_definitions: bool,
    epoch: Option<u32>,
    streams: HashMap<u32, InstrumentState>,
    counters: DecodeCounters,
    first_violation: Option<SequenceViolation>,
    /// The stream continues over another connection, and what it missed is being replayed.
    is_resuming: bool,
    missed: Vec<Gap>,
}

/// What is known of one instrument.
#[derive(Debug, Default)]
struct InstrumentState {
    is_defined: bool,
    instrument: Option<Box<Instrument>>,
    /// The last sequence of each channel.
    last: [Sequence; Channel::COUNT],
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder that keeps definitions, and hands them on with the records.
    pub fn new() -> Self {
        Self {
            keeps_definitions: true,
            epoch: None,
            streams: HashMap::new(),
            counters: DecodeCounters::default(),
            first_violation: None,
            is_resuming: false,
            missed: Vec::new(),
        }
    }

    /// A decoder that applies the same rule and keeps no definitions: for thousands of connections in one process.
    pub fn without_names() -> Self {
        Self { keeps_definitions: false, ..Self::new() }
    }

    /// Decodes one packet and hands each record of a known type to `on`, the oldest first, with its instrument where
    /// that is defined (and kept).
    ///
    /// # Errors
    /// Where the packet breaks the layout. The records before the error have been handed on.
    pub fn packet(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Option<&Instrument>, &RecordHeader, &[u8]),
    ) -> Result<PacketHeader, DecodeError> {
        let packet = PacketHeader::read(bytes)?;
        self.missed.clear();
        if self.epoch.replace(packet.epoch) != Some(packet.epoch) {
            self.streams.clear();
        }
        self.counters.packets += 1;
        let mut rest = &bytes[packet::HEADER_BYTES..];
        for index in 0..packet.count {
            let (header, record) = split_record(rest, index)?;
            rest = &rest[record.len()..];
            match RecordKind::from_wire(header.kind) {
                Some(kind) if body_is_complete(kind, record) => {
                    let sequence = highest_sequence(kind, &header, record);
                    if !sequence.is_plausible() {
                        return Err(DecodeError::Sequence { index, sequence });
                    }
                    if !self.is_resuming || self.is_new(kind, &header) {
                        on(self.record(kind, &header, record), &header, record);
                        if kind == RecordKind::Status && record::read_status(record) == Some(FeedState::Released) {
                            self.streams.remove(&header.instrument);
                        }
                    }
                }
                Some(_) => return Err(DecodeError::Body { index, kind: header.kind, bytes: record.len() }),
                None => self.counters.skipped += 1,
            }
        }
        if rest.is_empty() { Ok(packet) } else { Err(DecodeError::Trailing(rest.len())) }
    }

    /// The instrument with this id, where it was defined in this epoch.
    pub fn instrument(&self, id: u32) -> Option<&Instrument> {
        self.streams.get(&id)?.instrument.as_deref()
    }

    /// While it is set, the packets of another connection continue the stream: records that the stream already had are
    /// skipped, and a hole in a log channel is reported by [`Self::missed`] and is no violation.
    pub fn set_resuming(&mut self, is_resuming: bool) {
        self.is_resuming = is_resuming;
    }

    /// The client may not see these names and patterns any more, or only a part of them: the next record of each of their
    /// channels follows on nothing.
    pub(crate) fn forget(&mut self, names: &[String]) {
        let covers = |name: &String, symbol: &str| match name.strip_suffix('*') {
            Some(prefix) => symbol.starts_with(prefix),
            None => name == symbol,
        };
        for state in self.streams.values_mut() {
            let symbol = state.instrument.as_deref().map_or("", |instrument| &instrument.symbol);
            if names.iter().any(|name| covers(name, symbol)) {
                state.last = Default::default();
            }
        }
    }

    /// The holes that the last packet had while the stream was resuming, with [`GapReason::Reconnect`].
    pub fn missed(&self) -> &[Gap] {
        &self.missed
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &DecodeCounters {
        &self.counters
    }

    /// The first break of the rule.
    pub fn first_violation(&self) -> Option<SequenceViolation> {
        self.first_violation
    }

    /// Counts a record whose body is complete, and returns its instrument where that is known.
    fn record(&mut self, kind: RecordKind, header: &RecordHeader, record: &[u8]) -> Option<&Instrument> {
        match kind {
            RecordKind::Definition => {
                if let Some(instrument) = record::read_definition(record) {
                    self.define(instrument);
                }
            }
            RecordKind::Gap => match Gap::read(record) {
                Some(gap) => self.gap(&gap),
                // A channel that this version does not know.
                None => self.counters.skipped += 1,
            },
            RecordKind::Heartbeat | RecordKind::Status => {}
            RecordKind::Quote => return self.sequenced(Channel::Quote, header),
            RecordKind::Trade => return self.sequenced(Channel::Trade, header),
            RecordKind::Ticker => return self.sequenced(Channel::Ticker, header),
            RecordKind::Book => return self.sequenced(Channel::Book, header),
            RecordKind::Raw => return self.sequenced(Channel::Raw, header),
        }
        self.instrument(header.instrument)
    }

    /// False for a record that the stream already had before the connection was lost.
    fn is_new(&mut self, kind: RecordKind, header: &RecordHeader) -> bool {
        let Some(channel) = kind.channel() else { return true };
        let instrument = header.instrument;
        let last = self.streams.get(&instrument).map_or(Sequence::NONE, |state| state.last[channel as usize]);
        let repeats_state = header.flags & flags::SNAPSHOT != 0 && !channel.is_log();
        if header.sequence < last || (header.sequence == last && !last.is_none() && !repeats_state) {
            return false;
        }
        if channel.is_log() && !last.is_none() && header.sequence.previous() > last {
            let (from_sequence, to_sequence) = (last.next(), header.sequence.previous());
            let gap = Gap { instrument, channel, from_sequence, to_sequence, reason: GapReason::Reconnect };
            self.gap(&gap);
            self.missed.push(gap);
        }
        true
    }

    fn define(&mut self, instrument: Instrument) {
        let state = self.streams.entry(instrument.id).or_default();
        state.is_defined = true;
        if self.keeps_definitions {
            state.instrument = Some(Box::new(instrument));
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let Gap { instrument, channel, from_sequence: from, to_sequence: to, .. } = *gap;
        let last = &mut self.streams.entry(instrument).or_default().last[channel as usize];
        let before = *last;
        *last = before.max(to);
        if !self.counters.count_gap(gap, before) {
            self.violation(SequenceViolation::Gap { instrument, channel, last: before, from, to });
        }
    }

    /// Checks a channel's record against the rule, and returns its instrument.
    fn sequenced(&mut self, channel: Channel, header: &RecordHeader) -> Option<&Instrument> {
        self.counters.count_record(channel, header.flags);
        let instrument = header.instrument;
        let state = self.streams.entry(instrument).or_default();
        let (is_defined, last) = (state.is_defined, state.last[channel as usize]);
        state.last[channel as usize] = last.max(header.sequence);
        let violation = sequence_violation(channel, header, last);
        self.counters.count_covered(sequences_covered(header, last, violation.is_some()));
        if let Some(violation) = violation {
            self.violation(violation);
        }
        if !is_defined {
            self.violation(SequenceViolation::Undefined { instrument, channel });
        }
        // A second lookup, only where definitions are kept.
        if self.keeps_definitions { self.instrument(instrument) } else { None }
    }

    fn violation(&mut self, violation: SequenceViolation) {
        self.counters.violations += 1;
        self.first_violation.get_or_insert(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::packet::PacketError;
    use tickcast_protocol::record::{Quote, flags};
    use tickcast_test_support::packets::PacketBuilder;

    fn violations(packets: &[PacketBuilder]) -> (DecodeCounters, Option<SequenceViolation>) {
        let mut decoder = Decoder::new();
        for packet in packets {
            decoder.packet(&packet.bytes(), |_, _, _| {}).expect("well-formed");
        }
        (*decoder.counters(), decoder.first_violation())
    }

    fn start() -> PacketBuilder {
        PacketBuilder::new().definition(1, "BTC-USD")
    }

    #[test]
    fn records_are_decoded_with_their_instrument_and_counted_by_channel() {
        let packet = start().quote(7, flags::SNAPSHOT).trade(3, 0).quote(8, 0).heartbeat();
        let mut seen = Vec::new();
        let mut decoder = Decoder::new();
        let header = decoder
            .packet(&packet.bytes(), |instrument, header, record| {
                seen.push((instrument.map(|i| i.symbol.clone()), header.kind, header.sequence.get(), record.len()));
            })
            .expect("well-formed");
        assert_eq!(header.count, 5);
        let name = Some("BTC-USD".to_owned());
        assert_eq!(seen[1..4], [(name.clone(), 1, 7, 64), (name.clone(), 2, 3, 64), (name, 1, 8, 64)]);
        assert_eq!((seen[0].1, seen[4].1), (16, 17));
        let counters = decoder.counters();
        assert_eq!((counters.records, counters.by_channel, counters.snapshots), (3, [2, 1, 0, 0, 0], 1));
        assert_eq!(counters.violations, 0);
    }

    #[test]
    fn a_definition_replaces_the_former_one_and_a_released_instrument_is_forgotten() {
        let finer = Instrument::new(1, "BTC-USD", "sim", -4, -3);
        let packet = start().trade(1, 0).definition_of(&finer).trade(2, 0).status_of(1, FeedState::Released);
        let mut seen = Vec::new();
        let mut decoder = Decoder::new();
        decoder
            .packet(&packet.bytes(), |instrument, header, _| {
                seen.push((header.kind, instrument.map(|known| known.px_exp)));
            })
            .expect("well-formed");
        assert_eq!(seen[1], (2, Some(-2)));
        assert_eq!(seen[3..], [(2, Some(-4)), (19, Some(-4))], "the notice still has its name");
        assert_eq!(decoder.instrument(1), None);
        assert_eq!(decoder.counters().violations, 0);
    }

    #[test]
    fn an_unannounced_jump_is_one_violation() {
        let (counters, first) = violations(&[start().trade(3, 0), PacketBuilder::new().trade(5, 0).trade(6, 0)]);
        assert_eq!(counters.violations, 1);
        assert_eq!(
            first,
            Some(SequenceViolation::Jump {
                instrument: 1,
                channel: Channel::Trade,
                last: Sequence::new(3),
                got: Sequence::new(5)
            })
        );
        assert_eq!(
            first.map(|violation| violation.to_string()).as_deref(),
            Some("trade of instrument 1 jumps from 3 to 5 without a Gap or CONFLATED")
        );
    }

    #[test]
    fn a_gap_covers_exactly_its_range() {
        let covered = start().trade(3, 0).gap(Channel::Trade, 4, 9).trade(10, 0);
        let (counters, first) = violations(&[covered]);
        assert_eq!((counters.violations, counters.gaps, counters.lost), (0, 1, 6), "{first:?}");
        for (from, to, next) in [(4, 8, 10), (5, 9, 10), (4, 9, 11), (3, 9, 10), (4, 9, 9)] {
            let (counters, _) = violations(&[start().trade(3, 0).gap(Channel::Trade, from, to).trade(next, 0)]);
            assert_eq!(counters.violations, 1, "gap {from} to {to}, then {next}");
        }
    }

    #[test]
    fn a_sequence_that_no_server_assigns_is_an_error_and_is_not_followed() {
        for packet in [
            PacketBuilder::new().gap(Channel::Trade, 4, 1 << 53),
            PacketBuilder::new().trade(1 << 48, 0),
            PacketBuilder::new().quote(u64::MAX, flags::CONFLATED),
        ] {
            let mut decoder = Decoder::new();
            decoder.packet(&start().trade(3, 0).quote(1, 0).bytes(), |_, _, _| {}).expect("well-formed");
            let error = decoder.packet(&packet.bytes(), |_, _, _| {}).expect_err("not plausible");
            assert!(matches!(error, DecodeError::Sequence { index: 0, .. }), "{error}");
            decoder.packet(&PacketBuilder::new().trade(4, 0).quote(2, 0).bytes(), |_, _, _| {}).expect("well-formed");
            assert_eq!(decoder.counters().violations, 0, "the stream goes on where it was");
        }
    }

    #[test]
    fn conflated_covers_a_jump_on_state_channels_only() {
        let (counters, _) = violations(&[start().quote(3, 0).quote(9, flags::CONFLATED).quote(10, 0)]);
        assert_eq!((counters.violations, counters.conflated), (0, 1));
        let (counters, _) = violations(&[start().trade(3, 0).trade(9, flags::CONFLATED)]);
        assert_eq!(counters.violations, 1);
    }

    #[test]
    fn only_a_snapshot_may_repeat_the_newest_sequence() {
        let (counters, _) = violations(&[start().quote(5, 0).quote(5, flags::SNAPSHOT).quote(6, 0)]);
        assert_eq!(counters.violations, 0);
        for (second, flags) in [(5, 0), (4, 0), (4, flags::SNAPSHOT), (0, flags::SNAPSHOT), (4, flags::CONFLATED)] {
            let (counters, _) = violations(&[start().quote(5, 0).quote(second, flags).quote(6, 0)]);
            assert_eq!(counters.violations, 1, "5, then {second} with flags {flags:#x}, then 6");
        }
    }

    #[test]
    fn a_record_before_its_definition_is_a_violation() {
        let (counters, first) = violations(&[PacketBuilder::new().quote(1, 0)]);
        assert_eq!(counters.violations, 1);
        assert_eq!(first, Some(SequenceViolation::Undefined { instrument: 1, channel: Channel::Quote }));
    }

    #[test]
    fn a_new_epoch_clears_definitions_and_sequences() {
        let packets = [start().quote(5, 0), start().epoch(2).quote(1, 0)];
        assert_eq!(violations(&packets).0.violations, 0);
        let packets = [start().quote(5, 0), PacketBuilder::new().epoch(2).quote(6, 0)];
        assert_eq!(violations(&packets).0.violations, 1, "the old epoch's definition does not count");
    }

    #[test]
    fn a_decoder_without_names_applies_the_same_rule() {
        let mut decoder = Decoder::without_names();
        let packet = start().quote(5, 0).quote(7, 0);
        decoder.packet(&packet.bytes(), |instrument, _, _| assert_eq!(instrument, None)).expect("well-formed");
        assert_eq!((decoder.counters().records, decoder.counters().violations), (2, 1));
    }

    #[test]
    fn unknown_types_are_skipped_and_longer_records_are_read() {
        let mut longer = start().quote(5, 0).bytes();
        // Eight bytes more in the quote, as a later version may have.
        let quote_at = longer.len() - Quote::BYTES;
        longer[quote_at] += 1;
        longer.extend_from_slice(&[0; 8]);
        let mut unknown = start().quote(5, 0).bytes();
        unknown[quote_at + 2] = 99;
        for (bytes, records, skipped) in [(longer, 1, 0), (unknown, 0, 1)] {
            let mut decoder = Decoder::new();
            decoder.packet(&bytes, |_, _, _| {}).expect("a later version's packet");
            assert_eq!((decoder.counters().records, decoder.counters().skipped), (records, skipped));
        }
    }

    #[test]
    fn a_broken_layout_is_an_error() {
        let good = start().quote(5, 0).bytes();
        let quote_at = good.len() - Quote::BYTES;
        let decode = |bytes: &[u8]| Decoder::new().packet(bytes, |_, _, _| {}).expect_err("malformed");
        assert!(matches!(decode(&good[..20]), DecodeError::Packet(PacketError::Short { have: 20 })));
        assert_eq!(decode(&good[..good.len() - 8]), DecodeError::Cut { index: 1, bytes: 64, have: 56 });
        let mut trailing = good.clone();
        trailing.extend_from_slice(&[0; 8]);
        assert_eq!(decode(&trailing), DecodeError::Trailing(8));
        let mut zero_length = good.clone();
        zero_length[quote_at..quote_at + 2].copy_from_slice(&[0, 0]);
        assert_eq!(decode(&zero_length), DecodeError::Cut { index: 1, bytes: 0, have: 64 });
        let mut short_trade = good[..good.len() - 8].to_vec();
        short_trade[quote_at..quote_at + 3].copy_from_slice(&[7, 0, 2]);
        assert_eq!(decode(&short_trade), DecodeError::Body { index: 1, kind: 2, bytes: 56 });
    }
}
