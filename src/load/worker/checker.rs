//! The sequence rule of [`tickcast_client::decode`] at the speed of very many connections: the same result, with less
//! memory and without names.
//!
//! What always holds: on every stream a [`FastChecker`] counts what a [`tickcast_client::decode::Decoder`] counts, except
//! that a record before its Definition counts once for each instrument and channel. It allocates only for instruments
//! that it has not seen.
//!
//! Cost: about 15 ns a record in packets of many, the histogram of its age included (`benches/load_reader.rs`). Memory:
//! 0.3 KB, and for each channel 8 bytes an instrument of the whole market ([`SequenceTable::Dense`]), or about 20 bytes
//! for each instrument that was seen ([`SequenceTable::Sparse`]).

use foldhash::{HashMap, HashMapExt};

use tickcast_client::decode::{
    DecodeCounters, DecodeError, SequenceViolation, body_is_complete, highest_sequence, sequence_violation,
    sequences_covered, split_record,
};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{Gap, RecordHeader};
use tickcast_protocol::{Channel, RecordKind, Sequence};

/// Ids above this do not belong to a dense market: a table for them would be larger than what it saves.
const DENSE_IDS_MAX: u32 = 1 << 18;
/// The row of a table that says which instruments are defined, behind those of the channels.
const DEFINED: usize = Channel::COUNT;

/// How a connection keeps the last sequence of each instrument and channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceTable {
    /// A row for each channel, indexed by the instrument's id: for clients that receive most of a market.
    Dense,
    /// A hash map: for watchlists.
    Sparse,
}

/// Checks the packets of one connection.
#[derive(Debug)]
pub struct FastChecker {
    epoch: Option<u32>,
    /// Whether a record must come after its instrument's Definition; servers of another kind send none.
    wants_definitions: bool,
    sequences: LastSequences,
    counters: DecodeCounters,
    first_violation: Option<SequenceViolation>,
}

/// The last sequence of each instrument and channel.
#[derive(Debug)]
struct LastSequences {
    dense: Option<Box<[Vec<Sequence>; Channel::COUNT + 1]>>,
    /// By instrument and row.
    sparse: HashMap<(u32, u8), Sequence>,
}

impl LastSequences {
    fn new(table: SequenceTable) -> Self {
        Self { dense: (table == SequenceTable::Dense).then(Box::default), sparse: HashMap::new() }
    }

    #[inline]
    fn at(&mut self, row: usize, instrument: u32) -> &mut Sequence {
        let index = instrument as usize;
        match &mut self.dense {
            Some(rows) if instrument < DENSE_IDS_MAX => {
                let row = &mut rows[row];
                if index >= row.len() {
                    row.resize(index.next_power_of_two().max(index + 1), Sequence::NONE);
                }
                &mut row[index]
            }
            _ => self.sparse.entry((instrument, row as u8)).or_default(),
        }
    }

    fn clear(&mut self) {
        for row in self.dense.iter_mut().flat_map(|rows| rows.iter_mut()) {
            row.fill(Sequence::NONE);
        }
        self.sparse.clear();
    }
}

impl FastChecker {
    /// A checker that has seen nothing.
    pub fn new(table: SequenceTable, wants_definitions: bool) -> Self {
        Self {
            epoch: None,
            wants_definitions,
            sequences: LastSequences::new(table),
            counters: DecodeCounters::default(),
            first_violation: None,
        }
    }

    /// Checks one packet and hands the header of each record of a channel to `on`, the oldest first. Records before an
    /// error have been handed on.
    #[inline]
    pub fn packet(&mut self, bytes: &[u8], mut on: impl FnMut(&RecordHeader)) -> Result<PacketHeader, DecodeError> {
        let packet = PacketHeader::read(bytes)?;
        self.begin_packet(packet.epoch);
        let mut rest = &bytes[packet::HEADER_BYTES..];
        for index in 0..packet.count {
            let (header, record) = split_record(rest, index)?;
            rest = &rest[record.len()..];
            let Some(kind) = RecordKind::from_wire(header.kind) else {
                self.counters.skipped += 1;
                continue;
            };
            if !body_is_complete(kind, record) {
                return Err(DecodeError::Body { index, kind: header.kind, bytes: record.len() });
            }
            let sequence = highest_sequence(kind, &header, record);
            if !sequence.is_plausible() {
                return Err(DecodeError::Sequence { index, sequence });
            }
            match kind.channel() {
                Some(channel) => {
                    self.record(channel, &header);
                    on(&header);
                }
                None => self.unsequenced(kind, &header, record),
            }
        }
        if rest.is_empty() { Ok(packet) } else { Err(DecodeError::Trailing(rest.len())) }
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &DecodeCounters {
        &self.counters
    }

    /// The first break of the rule.
    pub fn first_violation(&self) -> Option<SequenceViolation> {
        self.first_violation
    }

    /// Begins a packet, whose records follow in order.
    #[inline]
    pub fn begin_packet(&mut self, epoch: u32) {
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.sequences.clear();
        }
        self.counters.packets += 1;
    }

    /// Checks a record of a channel.
    #[inline]
    pub fn record(&mut self, channel: Channel, header: &RecordHeader) {
        self.counters.count_record(channel, header.flags);
        let last = self.sequences.at(channel as usize, header.instrument);
        let before = *last;
        if !before.is_none() && header.sequence.get().wrapping_sub(before.get()) == 1 {
            *last = header.sequence;
            self.counters.count_covered(1);
        } else {
            *last = before.max(header.sequence);
            self.judge(channel, header, before);
        }
    }

    /// The first record of a stream, and every record that does not simply continue it.
    #[cold]
    fn judge(&mut self, channel: Channel, header: &RecordHeader, last: Sequence) {
        let violation = sequence_violation(channel, header, last);
        self.counters.count_covered(sequences_covered(header, last, violation.is_some()));
        if let Some(violation) = violation {
            self.violation(violation);
        }
        let instrument = header.instrument;
        if last.is_none() && self.wants_definitions && self.sequences.at(DEFINED, instrument).is_none() {
            self.violation(SequenceViolation::Undefined { instrument, channel });
        }
    }

    /// A record that belongs to no channel.
    #[cold]
    fn unsequenced(&mut self, kind: RecordKind, header: &RecordHeader, record: &[u8]) {
        match kind {
            RecordKind::Definition => self.define(header.instrument),
            RecordKind::Gap => match Gap::read(record) {
                Some(gap) => self.gap(&gap),
                None => self.counters.skipped += 1,
            },
            _ => {}
        }
    }

    /// Notes that an instrument is defined.
    pub fn define(&mut self, instrument: u32) {
        *self.sequences.at(DEFINED, instrument) = Sequence::new(1);
    }

    /// Checks a Gap record.
    pub fn gap(&mut self, gap: &Gap) {
        let Gap { instrument, channel, from_sequence: from, to_sequence: to, .. } = *gap;
        let last = self.sequences.at(channel as usize, instrument);
        let before = *last;
        *last = before.max(to);
        if !self.counters.count_gap(gap, before) {
            self.violation(SequenceViolation::Gap { instrument, channel, last: before, from, to });
        }
    }

    fn violation(&mut self, violation: SequenceViolation) {
        self.counters.violations += 1;
        self.first_violation.get_or_insert(violation);
    }
}

/// Whether bytes have the layout of a packet, for servers that send other messages as well. Bodies are not read.
pub fn is_packet(bytes: &[u8]) -> bool {
    let Ok(packet) = PacketHeader::read(bytes) else { return false };
    let mut rest = &bytes[packet::HEADER_BYTES..];
    for index in 0..packet.count {
        match split_record(rest, index) {
            Ok((header, record))
                if RecordKind::from_wire(header.kind).is_none_or(|kind| {
                    body_is_complete(kind, record) && highest_sequence(kind, &header, record).is_plausible()
                }) =>
            {
                rest = &rest[record.len()..];
            }
            _ => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::latency::channel_of;
    use tickcast_client::decode::Decoder;
    use tickcast_protocol::record::flags;
    use tickcast_test_support::packets::PacketBuilder;

    /// Streams: for each record its type, instrument, sequence step and flags.
    fn packets() -> impl Strategy<Value = Vec<Vec<(u8, u32, u64, u8)>>> {
        let flags = prop_oneof![6 => Just(0u8), 1 => Just(flags::CONFLATED), 1 => Just(flags::SNAPSHOT)];
        let step = prop_oneof![8 => Just(1u64), 1 => Just(0), 1 => 2u64..9];
        let record = (0u8..10, 1u32..5, step, flags);
        prop::collection::vec(prop::collection::vec(record, 0..12), 1..12)
    }

    fn build(plan: &[Vec<(u8, u32, u64, u8)>]) -> Vec<Vec<u8>> {
        let mut sequences = [[0u64; 2]; 8];
        let mut defined = PacketBuilder::new();
        for id in 1..5 {
            defined = defined.definition(id, "SOME");
        }
        let mut out = vec![defined.bytes()];
        for records in plan {
            let mut packet = PacketBuilder::new();
            for &(what, instrument, step, flags) in records {
                let sequence = &mut sequences[instrument as usize];
                packet = match what {
                    0..6 => {
                        sequence[0] += step;
                        packet.quote_of(instrument, sequence[0].max(1), flags)
                    }
                    6..8 => {
                        sequences[1][1] += step;
                        packet.trade(sequences[1][1].max(1), flags)
                    }
                    8 => {
                        let from = sequences[1][1] + 1;
                        sequences[1][1] += step;
                        packet.gap(Channel::Trade, from, sequences[1][1])
                    }
                    _ => packet.heartbeat(),
                };
            }
            out.push(packet.bytes());
        }
        out
    }

    proptest! {
        #[test]
        fn the_fast_checker_finds_what_the_decoder_finds(plan in packets()) {
            let packets = build(&plan);
            for table in [SequenceTable::Dense, SequenceTable::Sparse] {
                let mut fast = FastChecker::new(table, true);
                let mut slow = Decoder::without_names();
                for packet in &packets {
                    let (mut seen, mut want) = (Vec::new(), Vec::new());
                    let fast_result = fast.packet(packet, |header| seen.push(*header));
                    let decoder_result = slow.packet(packet, |_, header, _| {
                        if channel_of(header).is_some() {
                            want.push(*header);
                        }
                    });
                    prop_assert_eq!(fast_result, decoder_result);
                    prop_assert_eq!(seen, want);
                    prop_assert!(is_packet(packet));
                }
                prop_assert_eq!(fast.counters(), slow.counters());
                prop_assert_eq!(fast.first_violation(), slow.first_violation());
            }
        }

        #[test]
        fn arbitrary_bytes_get_the_same_result_and_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..200, to in any::<u8>(),
        ) {
            let good = PacketBuilder::new().definition(1, "A").quote(1, 0).raw(3, b"abc").bytes();
            let mut bent = good.clone();
            bent[at % good.len()] = to;
            if let Some(version) = bytes.first_mut() {
                *version = 1;
            }
            for bytes in [bytes, bent] {
                let fast_result = FastChecker::new(SequenceTable::Dense, false).packet(&bytes, |_| {});
                let decoder_result = Decoder::without_names().packet(&bytes, |_, _, _| {});
                prop_assert_eq!(&fast_result, &decoder_result);
                prop_assert_eq!(is_packet(&bytes), fast_result.is_ok());
            }
        }
    }

    #[test]
    fn a_record_before_its_definition_is_found_where_definitions_are_expected() {
        let packet = PacketBuilder::new().quote(1, 0).quote(2, 0).bytes();
        for (wants, violations) in [(true, 1), (false, 0)] {
            let mut checker = FastChecker::new(SequenceTable::Sparse, wants);
            checker.packet(&packet, |_| {}).expect("well-formed");
            assert_eq!(checker.counters().violations, violations);
        }
    }

    #[test]
    fn a_huge_id_does_not_allocate_a_huge_table() {
        let mut checker = FastChecker::new(SequenceTable::Dense, false);
        let packet = PacketBuilder::new().quote_of(u32::MAX, 1, 0).quote_of(u32::MAX, 3, 0).bytes();
        checker.packet(&packet, |_| {}).expect("well-formed");
        assert_eq!((checker.counters().violations, checker.sequences.sparse.len()), (1, 1));
    }

    #[test]
    fn merged_and_lost_sequences_are_covered_and_unannounced_holes_are_not() {
        let packet = PacketBuilder::new()
            .definition(1, "A")
            .quote(5, flags::SNAPSHOT)
            .quote(6, 0)
            .quote(9, flags::CONFLATED)
            .trade(3, 0)
            .gap(Channel::Trade, 4, 9)
            .trade(10, 0)
            .trade(15, 0);
        let mut checker = FastChecker::new(SequenceTable::Dense, true);
        checker.packet(&packet.bytes(), |_| {}).expect("well-formed");
        // Quotes 6 to 9, trades 3 to 10 and 15: nothing accounts for 11 to 14.
        assert_eq!((checker.counters().covered, checker.counters().violations), (4 + 8 + 1, 1));
    }
}
