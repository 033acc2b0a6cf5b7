//! What a client makes of packets: definitions, records in order, and a check that nothing is missing silently.
//!
//! Pure: bytes in, records out, no clock and no socket. What always holds: the counters cover every record that was
//! handed on; a packet that breaks the layout is an error and is never half-trusted afterwards; a break in a stream is
//! counted once, then the stream is followed from where it is.
//!
//! The rule that is checked, per instrument and channel: the next sequence is the last one plus one, or the jump is
//! announced: by CONFLATED or SNAPSHOT on a state channel, by a Gap record on any. And every instrument is defined
//! before its first use.
//!
//! Cost: one hash lookup a record, some 10 ns; about 64 to 128 bytes per instrument seen, and the definition where
//! it is kept.

use foldhash::{HashMap, HashMapExt};
use serde::{Deserialize, Serialize};

use tickcast_protocol::packet::{self, PacketError, PacketHeader};
use tickcast_protocol::record::{self, Gap, HEADER_BYTES, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{Channel, GapReason, Instrument, RecordKind, Sequence};

/// Follows one connection's packets, or those of several that go on from one another.
#[derive(Debug)]
pub struct Decoder {
    keeps_definitions: bool,
    epoch: Option<u32>,
    streams: HashMap<u32, Streams>,
    counters: Counters,
    first_violation: Option<Violation>,
    /// The stream goes on over another connection, and is brought what it missed.
    rejoining: bool,
    missed: Vec<Gap>,
}

/// What is known of one instrument.
#[derive(Debug, Default)]
struct Streams {
    defined: bool,
    instrument: Option<Box<Instrument>>,
    /// The last sequence of each channel; 0 before the first.
    last: [Sequence; Channel::COUNT],
}

/// What a decoder has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub packets: u64,
    /// Records of channels: all but definitions, heartbeats, gaps, status, and types unknown to this version.
    pub records: u64,
    /// Of these, by channel, in the order of [`Channel::ALL`].
    pub by_channel: [u64; Channel::COUNT],
    /// Of these, marked SNAPSHOT.
    pub snapshots: u64,
    /// Of these, marked CONFLATED.
    pub conflated: u64,
    /// Gap records.
    pub gaps: u64,
    /// Records that the Gap records say are missing.
    pub lost: u64,
    /// Breaks of the sequence rule, see [`Violation`].
    pub violations: u64,
    /// Records of types that this version does not know.
    pub skipped: u64,
    /// Sequences that live records account for: each its own, those merged into it, and those of Gap records.
    pub covered: u64,
}

impl Counters {
    /// Adds what another connection has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// What has been counted since `before`.
    pub fn since(mut self, before: &Self) -> Self {
        for (now, then) in self.numbers().into_iter().zip(before.clone().numbers()) {
            *now -= *then;
        }
        self
    }

    /// Counts a record of a channel.
    #[inline]
    pub fn record(&mut self, channel: Channel, record_flags: u8) {
        self.records += 1;
        self.by_channel[channel as usize] += 1;
        self.snapshots += u64::from(record_flags & flags::SNAPSHOT != 0);
        self.conflated += u64::from(record_flags & flags::CONFLATED != 0);
    }

    /// Counts a Gap record after the sequence `last`; false where it does not continue from there.
    pub fn gap(&mut self, gap: &Gap, last: Sequence) -> bool {
        let missing = gap.missing();
        self.gaps += 1;
        // A server may say anything: the numbers stop at the greatest.
        self.lost = self.lost.saturating_add(missing);
        self.cover(missing);
        let is_range = !gap.from_sequence.is_none() && gap.to_sequence >= gap.from_sequence;
        is_range && (last.is_none() || gap.from_sequence.previous() == last)
    }

    /// Counts sequences that are accounted for.
    #[inline]
    pub fn cover(&mut self, sequences: u64) {
        self.covered = self.covered.saturating_add(sequences);
    }

    fn numbers(&mut self) -> [&mut u64; 9 + Channel::COUNT] {
        let Self { packets, records, by_channel, snapshots, conflated, gaps, lost, violations, skipped, covered } =
            self;
        let [quote, trade, ticker, book, raw] = by_channel;
        [
            packets, records, quote, trade, ticker, book, raw, snapshots, conflated, gaps, lost, violations, skipped,
            covered,
        ]
    }
}

/// How a stream broke its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Records are missing, and nothing said so.
    #[error("{} of instrument {instrument} jumps from {last} to {got} without a Gap or CONFLATED", channel.name())]
    Jump { instrument: u32, channel: Channel, last: Sequence, got: Sequence },
    /// A sequence came again, or an older one.
    #[error("{} of instrument {instrument} goes back from {last} to {got}", channel.name())]
    Back { instrument: u32, channel: Channel, last: Sequence, got: Sequence },
    /// A record of an instrument that no Definition announced.
    #[error("{} of instrument {instrument} comes before its Definition", channel.name())]
    Undefined { instrument: u32, channel: Channel },
    /// A Gap that does not begin where the stream stopped, or ends before it begins.
    #[error("a Gap for {} of instrument {instrument} says {from} to {to}, after {last}", channel.name())]
    Gap { instrument: u32, channel: Channel, last: Sequence, from: Sequence, to: Sequence },
}

/// Why bytes are not a packet of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The packet's own header.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A record goes beyond the end of the packet, or is shorter than its header.
    #[error("record {index} says {bytes} bytes, {have} are left in the packet")]
    Cut { index: u16, bytes: usize, have: usize },
    /// A record is shorter than what its type holds.
    #[error("record {index} of type {kind} has a malformed body of {bytes} bytes")]
    Body { index: u16, kind: u8, bytes: usize },
    /// Bytes after the last record.
    #[error("{0} bytes follow the last record of the packet")]
    Trailing(usize),
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
            counters: Counters::default(),
            first_violation: None,
            rejoining: false,
            missed: Vec::new(),
        }
    }

    /// A decoder that checks and counts the same, but keeps no names: for thousands of connections in one process.
    pub fn without_names() -> Self {
        Self { keeps_definitions: false, ..Self::new() }
    }

    /// Decodes one packet and hands each record of a known type to `on`, the oldest first, with its instrument where
    /// that is defined (and kept). Records before an error have been handed on.
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
                Some(kind) if body_is_whole(kind, record) => {
                    if !self.rejoining || self.rejoin(kind, &header) {
                        on(self.record(kind, &header, record), &header, record);
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

    /// While it is set, the stream is brought what it missed between two connections: a record that it has is passed over
    /// in silence, and a hole of a log channel is told by [`Self::missed`] and is no violation.
    pub fn set_rejoining(&mut self, rejoining: bool) {
        self.rejoining = rejoining;
    }

    /// The holes that the last packet had while the stream was rejoining, with the reason `'R'`.
    pub fn missed(&self) -> &[Gap] {
        &self.missed
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The first break of the rule: the one to look at.
    pub fn first_violation(&self) -> Option<Violation> {
        self.first_violation
    }

    /// Takes note of a record whose body is whole, and returns its instrument where that is known.
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
            RecordKind::Quote | RecordKind::Trade | RecordKind::Ticker | RecordKind::Book | RecordKind::Raw => {
                let channel = kind.channel().expect("these five kinds are the channels' own");
                return self.follow(channel, header);
            }
        }
        self.instrument(header.instrument)
    }

    /// False for a record that was had before the connection was lost.
    fn rejoin(&mut self, kind: RecordKind, header: &RecordHeader) -> bool {
        let Some(channel) = kind.channel() else { return true };
        let instrument = header.instrument;
        let last = self.streams.get(&instrument).map_or(Sequence::NONE, |streams| streams.last[channel as usize]);
        let says_again = header.flags & flags::SNAPSHOT != 0 && !channel.is_log();
        if header.sequence < last || (header.sequence == last && !last.is_none() && !says_again) {
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
        let streams = self.streams.entry(instrument.id).or_default();
        streams.defined = true;
        if self.keeps_definitions {
            streams.instrument = Some(Box::new(instrument));
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let Gap { instrument, channel, from_sequence: from, to_sequence: to, .. } = *gap;
        let last = &mut self.streams.entry(instrument).or_default().last[channel as usize];
        let before = *last;
        *last = before.max(to);
        if !self.counters.gap(gap, before) {
            self.violation(Violation::Gap { instrument, channel, last: before, from, to });
        }
    }

    /// Holds a channel's record against the rule, and returns its instrument.
    fn follow(&mut self, channel: Channel, header: &RecordHeader) -> Option<&Instrument> {
        self.counters.record(channel, header.flags);
        let instrument = header.instrument;
        let streams = self.streams.entry(instrument).or_default();
        let (defined, last) = (streams.defined, streams.last[channel as usize]);
        streams.last[channel as usize] = last.max(header.sequence);
        let violation = broken(channel, header, last);
        self.counters.cover(covered(header, last, violation.is_some()));
        if let Some(violation) = violation {
            self.violation(violation);
        }
        if !defined {
            self.violation(Violation::Undefined { instrument, channel });
        }
        // Looked up a second time only where names are kept: a load generator does without.
        if self.keeps_definitions { self.instrument(instrument) } else { None }
    }

    fn violation(&mut self, violation: Violation) {
        self.counters.violations += 1;
        self.first_violation.get_or_insert(violation);
    }
}

/// Sequences that a record accounts for after `last`: what was there before it came is not of the live stream, and a
/// hole that nothing announced stays one.
pub fn covered(header: &RecordHeader, last: Sequence, is_broken: bool) -> u64 {
    match header.sequence.get().checked_sub(last.get()) {
        None | Some(0) => 0,
        Some(_) if last.is_none() => u64::from(header.flags & flags::SNAPSHOT == 0),
        Some(_) if is_broken => 1,
        Some(advance) => advance,
    }
}

/// How a record breaks the rule after `last`, if it does.
pub fn broken(channel: Channel, header: &RecordHeader, last: Sequence) -> Option<Violation> {
    let (instrument, got) = (header.instrument, header.sequence);
    let snapshot = header.flags & flags::SNAPSHOT != 0;
    let conflated = header.flags & flags::CONFLATED != 0 && !channel.is_log();
    // A stream is joined at any sequence, but 0 is none.
    if !got.is_none() && (last.is_none() || got.previous() == last) {
        return None;
    }
    if got > last {
        return (!snapshot && !conflated).then_some(Violation::Jump { instrument, channel, last, got });
    }
    // A snapshot may say again what the client has: the state after a second subscription, or in several records.
    (got.is_none() || !snapshot || got < last).then_some(Violation::Back { instrument, channel, last, got })
}

/// The record at the start of `bytes`.
#[inline]
pub fn split_record(bytes: &[u8], index: u16) -> Result<(RecordHeader, &[u8]), DecodeError> {
    let header = RecordHeader::read(bytes).ok_or(DecodeError::Cut { index, bytes: HEADER_BYTES, have: bytes.len() })?;
    let cut = DecodeError::Cut { index, bytes: header.bytes(), have: bytes.len() };
    if header.bytes() < HEADER_BYTES {
        return Err(cut);
    }
    Ok((header, bytes.get(..header.bytes()).ok_or(cut)?))
}

/// Whether a record holds all that its type has. Longer ones are fine: fields are appended in later versions.
#[inline]
pub fn body_is_whole(kind: RecordKind, record: &[u8]) -> bool {
    match kind {
        RecordKind::Quote => record.len() >= Quote::BYTES,
        RecordKind::Trade => record.len() >= Trade::BYTES,
        RecordKind::Ticker => record.len() >= Ticker::BYTES,
        RecordKind::Book => record::read_book(record).is_some(),
        RecordKind::Raw => record::read_raw(record).is_some(),
        RecordKind::Definition => record::read_definition(record).is_some(),
        RecordKind::Gap => record.len() >= Gap::BYTES,
        RecordKind::Heartbeat => true,
        RecordKind::Status => record.len() >= 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_test_support::packets::PacketBuilder;

    fn violations(packets: &[PacketBuilder]) -> (Counters, Option<Violation>) {
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
    fn records_come_with_their_instrument_and_are_counted_by_channel() {
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
    fn a_jump_that_nothing_announced_is_a_violation_and_is_counted_once() {
        let (counters, first) = violations(&[start().trade(3, 0), PacketBuilder::new().trade(5, 0).trade(6, 0)]);
        assert_eq!(counters.violations, 1);
        assert_eq!(
            first,
            Some(Violation::Jump {
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
    fn a_gap_record_covers_exactly_its_hole() {
        let covered = start().trade(3, 0).gap(Channel::Trade, 4, 9).trade(10, 0);
        let (counters, first) = violations(&[covered]);
        assert_eq!((counters.violations, counters.gaps, counters.lost), (0, 1, 6), "{first:?}");
        for (from, to, next) in [(4, 8, 10), (5, 9, 10), (4, 9, 11), (3, 9, 10), (4, 9, 9)] {
            let (counters, _) = violations(&[start().trade(3, 0).gap(Channel::Trade, from, to).trade(next, 0)]);
            assert_eq!(counters.violations, 1, "gap {from} to {to}, then {next}");
        }
    }

    #[test]
    fn conflated_covers_a_jump_on_a_state_channel_and_never_on_a_log() {
        let (counters, _) = violations(&[start().quote(3, 0).quote(9, flags::CONFLATED).quote(10, 0)]);
        assert_eq!((counters.violations, counters.conflated), (0, 1));
        let (counters, _) = violations(&[start().trade(3, 0).trade(9, flags::CONFLATED)]);
        assert_eq!(counters.violations, 1);
    }

    #[test]
    fn sequences_never_go_back_but_a_snapshot_may_repeat_the_newest() {
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
        assert_eq!(first, Some(Violation::Undefined { instrument: 1, channel: Channel::Quote }));
    }

    #[test]
    fn a_new_epoch_starts_definitions_and_sequences_anew() {
        let packets = [start().quote(5, 0), start().epoch(2).quote(1, 0)];
        assert_eq!(violations(&packets).0.violations, 0);
        let packets = [start().quote(5, 0), PacketBuilder::new().epoch(2).quote(6, 0)];
        assert_eq!(violations(&packets).0.violations, 1, "the old epoch's definition does not count");
    }

    #[test]
    fn a_decoder_without_names_checks_the_same() {
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
    fn bytes_that_break_the_layout_are_errors() {
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
