//! The sequencer with real rings, read as a shard reads them.

use tickcast::last_value::LastValues;
use tickcast::ring::{Batch, Reader, ring};
use tickcast::sequencer::{Sequencer, SourceEnd};
use tickcast_protocol::record::{self, Channel, Gap, Level, Quote, RecordHeader, RecordKind, Trade, flags};
use tickcast_protocol::{BookAction, BookSide, DefineError, Directory, GapReason, Instrument, Sequence, Side};
use tickcast_test_support::node::shared_identity;

const RING_BYTES: usize = 1 << 16;

fn definition(local: u32, symbol: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_definition(&Instrument::new(local, symbol, "v", -2, -8), &mut bytes);
    bytes
}

fn quote(local: u32, bid_px: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let quote = Quote { bid_px, bid_sz: 1, ask_px: bid_px + 1, ask_sz: 1 };
    quote.encode(&RecordHeader::of_feed(RecordKind::Quote, local, 7), &mut bytes);
    bytes
}

fn trade(local: u32, px: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Trade { px, sz: 1, trade_id: 1, side: Side::Buy }
        .encode(&RecordHeader::of_feed(RecordKind::Trade, local, 7), &mut bytes);
    bytes
}

fn raw(local: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_raw(&RecordHeader::of_feed(RecordKind::Raw, local, 7), b"abc", &mut bytes);
    bytes
}

fn book(local: u32, action: BookAction, px: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let levels = [Level { px, sz: 1 + px, side: BookSide::Bid }, Level { px: px + 10, sz: 2, side: BookSide::Ask }];
    record::encode_book(&RecordHeader::of_feed(RecordKind::Book, local, 7), action, levels.into_iter(), &mut bytes);
    bytes
}

/// Reads a ring as a shard does, and keeps the state.
struct RingFollower {
    reader: Reader,
    directory: Directory,
    values: LastValues<()>,
    overruns: usize,
    /// Numbers of the resynchronisations whose end was read.
    ended: Vec<u64>,
}

impl RingFollower {
    fn new(reader: Reader) -> Self {
        Self { reader, directory: Directory::default(), values: LastValues::default(), overruns: 0, ended: Vec::new() }
    }

    /// Reads all records, with their positions.
    fn read(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::new();
        let mut batch = Batch::default();
        while !self.reader.is_empty() {
            batch.clear();
            if self.reader.read(1 << 20, &mut batch).is_err() {
                self.overruns += 1;
            }
            for entry in &batch.entries {
                records.push((entry.position.get(), batch.payload(entry).to_vec()));
                self.apply(batch.payload(entry));
            }
        }
        records
    }

    fn apply(&mut self, bytes: &[u8]) {
        let header = RecordHeader::read(bytes).unwrap();
        if header.known_kind() == Some(RecordKind::Heartbeat) {
            self.ended.push(header.sequence.get());
            return;
        }
        match RecordKind::from_wire(header.kind).unwrap() {
            RecordKind::Definition => {
                let instrument = record::read_definition(bytes).unwrap();
                let id = instrument.id;
                if id as usize <= self.directory.len() + 1 && self.directory.insert(instrument) {
                    self.values.add(id);
                }
            }
            RecordKind::Status => drop(self.values.apply_status(&header, bytes, ())),
            RecordKind::Gap => drop(self.values.apply_gap(&Gap::read(bytes).unwrap(), ())),
            kind => drop(self.values.apply(&header, kind.channel().unwrap(), bytes, ())),
        }
    }

    /// Everything that a client could be sent, without the flag SNAPSHOT.
    fn state(&self) -> Vec<Vec<u8>> {
        let mut state = Vec::new();
        for instrument in self.directory.iter() {
            let row = self.values.row(instrument.id).unwrap();
            let mut bytes = Vec::new();
            record::encode_definition(instrument, &mut bytes);
            bytes.push(self.values.status(instrument.id).state.into());
            for channel in Channel::ALL {
                let start = bytes.len();
                if row.push(instrument.id, channel, 0, &mut bytes) {
                    let shown = RecordHeader::read(&bytes[start..]).unwrap().flags & !flags::SNAPSHOT;
                    record::patch_flags(&mut bytes[start..], shown);
                }
                bytes.extend_from_slice(&row.sequence(channel).get().to_le_bytes());
            }
            state.push(bytes);
        }
        state
    }
}

fn two_rings() -> (Sequencer, RingFollower, RingFollower) {
    two_rings_of(RING_BYTES)
}

fn two_rings_of(bytes: usize) -> (Sequencer, RingFollower, RingFollower) {
    let (one, one_end) = ring(bytes);
    let (two, two_end) = ring(bytes);
    (Sequencer::new(vec![one, two], 100), RingFollower::new(one_end), RingFollower::new(two_end))
}

fn accept(sequencer: &mut Sequencer, source: u32, records: &[Vec<u8>]) -> Vec<Result<u32, DefineError>> {
    sequencer.accept(source, &mut records.concat(), 99)
}

#[test]
fn sequences_are_contiguous_and_all_rings_have_the_same_bytes() {
    let (mut sequencer, mut one, mut two) = two_rings();
    let outcomes = accept(&mut sequencer, 0, &[definition(1, "A"), quote(1, 5), trade(1, 6), quote(1, 7)]);
    assert_eq!(outcomes, [Ok(1)]);
    accept(&mut sequencer, 0, &[definition(2, "B"), trade(1, 8), quote(2, 9), raw(2)]);
    let records = one.read();
    assert_eq!(records, two.read());
    let positions: Vec<u64> = records.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=8).collect::<Vec<u64>>());
    assert_eq!(sequencer.position().get(), 8);
    let numbered: Vec<(u8, u32, u64, u64)> = records
        .iter()
        .map(|(_, bytes)| RecordHeader::read(bytes).unwrap())
        .map(|header| (header.kind, header.instrument, header.sequence.get(), header.ts_recv))
        .collect();
    let expected = [(16, 1, 0), (1, 1, 1), (2, 1, 1), (1, 1, 2), (16, 2, 0), (2, 1, 2), (1, 2, 1), (5, 2, 1)];
    assert_eq!(numbered, expected.map(|(kind, instrument, sequence)| (kind, instrument, sequence, 99)));
}

#[test]
fn source_that_is_the_first_to_be_live_is_not_counted_the_state_of_all_instruments() {
    let (mut sequencer, mut one, _) = two_rings();
    accept(&mut sequencer, 0, &[definition(1, "A"), quote(1, 5)]);
    sequencer.close_source(0, SourceEnd::Lost, 99);
    one.read();
    accept(&mut sequencer, 1, &[definition(1, "B"), quote(1, 5)]);
    assert_eq!(one.read().len(), 3, "the definition, the Status of all, the quote");
    let records: Vec<_> = sequencer.sources().iter().map(|source| (source.id, source.records)).collect();
    assert_eq!(records, [(1, 2)]);
}

#[test]
fn batch_of_many_copies_is_whole_in_all_rings() {
    let (mut sequencer, mut one, mut two) = two_rings_of(1 << 21);
    let mut longest = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Raw, 1, 7);
    record::encode_raw(&header, &vec![7; record::RECORD_BYTES_MAX - 40], &mut longest);
    let mut records = vec![definition(1, "A")];
    for round in 0..3 {
        records.extend((0..2000).map(|nth| quote(1, 2000 * round + nth)));
        records.push(if round == 1 { longest.clone() } else { raw(1) });
    }
    accept(&mut sequencer, 0, &records);
    let written = one.read();
    assert!(written == two.read(), "both rings have the same records");
    assert_eq!((one.overruns, two.overruns), (0, 0));
    let unnumbered = |mut bytes: Vec<u8>| {
        record::patch_sequenced(&mut bytes, 1, Sequence::NONE, 0);
        bytes
    };
    let expected: Vec<_> = (1..).zip(records.into_iter().map(unnumbered)).collect();
    let found: Vec<_> = written.into_iter().map(|(position, bytes)| (position, unnumbered(bytes))).collect();
    assert!(found == expected, "the rings have the records of the batch in its order");
}

#[test]
fn batch_longer_than_the_ring_is_an_overrun_and_the_next_one_is_whole() {
    let (mut sequencer, mut one, _) = two_rings();
    let records: Vec<_> = (0..2000).map(|nth| quote(1, nth)).collect();
    accept(&mut sequencer, 0, &[definition(1, "A"), records.concat()]);
    assert_eq!((one.read(), one.overruns), (vec![], 1));
    accept(&mut sequencer, 0, &[trade(1, 6), raw(1)]);
    let positions: Vec<u64> = one.read().into_iter().map(|(position, _)| position).collect();
    assert_eq!((positions, one.overruns), (vec![2002, 2003], 1));
}

#[test]
fn each_source_has_its_own_ids() {
    let (mut sequencer, mut one, _) = two_rings();
    sequencer.open_source(0, shared_identity(0));
    sequencer.open_source(1, shared_identity(0));
    accept(&mut sequencer, 0, &[definition(1, "A"), definition(2, "B")]);
    assert_eq!(accept(&mut sequencer, 1, &[definition(1, "B"), definition(5, "C")]), [Ok(2), Ok(3)]);
    one.read();
    accept(&mut sequencer, 0, &[quote(2, 1)]);
    accept(&mut sequencer, 1, &[quote(1, 2), quote(5, 3)]);
    let headers: Vec<(u32, u64)> = one
        .read()
        .iter()
        .map(|(_, bytes)| RecordHeader::read(bytes).unwrap())
        .map(|header| (header.instrument, header.sequence.get()))
        .collect();
    assert_eq!(headers, [(2, 1), (2, 2), (3, 1)], "two sources of one instrument share its sequence");
}

#[test]
fn records_of_undefined_instruments_are_counted_and_dropped() {
    let (mut sequencer, mut one, _) = two_rings();
    accept(&mut sequencer, 0, &[definition(1, "A")]);
    accept(&mut sequencer, 0, &[quote(2, 1), quote(0, 1)]);
    accept(&mut sequencer, 1, &[quote(1, 1)]);
    sequencer.close_source(0, SourceEnd::Lost, 9);
    accept(&mut sequencer, 0, &[quote(1, 1)]);
    assert_eq!(sequencer.counters().undefined, 4);
    let written = one.read().into_iter().filter(|(_, bytes)| record::kind_of(bytes) != Some(RecordKind::Status));
    assert_eq!(written.count(), 1);
}

#[test]
fn symbol_of_another_source_with_another_precision_is_refused() {
    let (mut sequencer, mut one, _) = two_rings();
    sequencer.open_source(0, shared_identity(0));
    sequencer.open_source(1, shared_identity(0));
    accept(&mut sequencer, 0, &[definition(1, "A")]);
    let mut other = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "v", -3, -8), &mut other);
    let outcomes = accept(&mut sequencer, 1, &[other, quote(1, 1)]);
    let known = Instrument::new(1, "A", "v", -2, -8).into();
    assert_eq!(outcomes, [Err(DefineError::Taken { known })]);
    assert_eq!((sequencer.counters().refused, sequencer.counters().undefined), (1, 1));
    assert_eq!(one.read().len(), 1);
}

#[test]
fn snapshot_flag_of_a_source_is_removed() {
    let (mut sequencer, mut one, _) = two_rings();
    let mut marked = trade(1, 5);
    record::patch_flags(&mut marked, flags::LAST | flags::SNAPSHOT);
    accept(&mut sequencer, 0, &[definition(1, "A"), marked]);
    assert_eq!(RecordHeader::read(&one.read()[1].1).unwrap().flags, flags::LAST);
}

#[test]
fn resynchronisation_restores_the_state_after_an_overrun() {
    let (mut sequencer, mut overrun, mut whole) = two_rings();
    accept(&mut sequencer, 0, &[definition(1, "A"), book(1, BookAction::Snapshot, 5), quote(1, 5)]);
    overrun.read();
    whole.read();
    for round in 0..2000 {
        let mut records = vec![quote(1, round), trade(1, round), book(1, BookAction::Delta, round % 50), raw(1)];
        if round % 500 == 0 {
            let local = 2 + round as u32 / 500;
            records.extend([definition(local, &format!("S{local}")), quote(local, 1), trade(local, 2)]);
        }
        accept(&mut sequencer, 0, &records);
        whole.read();
    }
    overrun.read();
    assert_eq!((overrun.overruns, whole.overruns), (1, 0));
    assert_ne!(overrun.state(), whole.state());
    sequencer.request_resync(0);
    while sequencer.advance_resyncs() {
        accept(&mut sequencer, 0, &[quote(1, 77), trade(1, 78), definition(9, "LATE"), book(1, BookAction::Delta, 3)]);
        overrun.read();
        whole.read();
    }
    overrun.read();
    whole.read();
    assert_eq!(overrun.state(), whole.state());
    assert_eq!((overrun.overruns, whole.overruns), (1, 0));
    assert_eq!(sequencer.counters().resyncs, 1);
    assert_eq!((overrun.ended, whole.ended), (vec![1], vec![]));
}

#[test]
fn resynchronisation_is_in_one_ring_between_the_records_of_its_position() {
    let (mut sequencer, mut one, mut two) = two_rings_of(1 << 14);
    for id in 1..=90 {
        accept(&mut sequencer, 0, &[definition(id, &format!("S{id}")), quote(id, 1), trade(id, 2)]);
        one.read();
        two.read();
    }
    let mut last = sequencer.position().get();
    let (mut pieces, mut resynced) = (0, 0);
    sequencer.request_resync(0);
    while sequencer.advance_resyncs() {
        pieces += 1;
        accept(&mut sequencer, 0, &[quote(1, 77), trade(2, 78), book(3, BookAction::Delta, 3)]);
        let mut live = two.read().into_iter().peekable();
        for (position, bytes) in one.read() {
            match live.next_if_eq(&(position, bytes)) {
                Some((position, _)) => last = position,
                None => {
                    assert_eq!(position, last, "a record of the state is after all records up to its position");
                    resynced += 1;
                }
            }
        }
        assert_eq!(live.next(), None, "the ring of the resynchronisation has all live records");
        assert_eq!(last, sequencer.position().get());
    }
    assert!(pieces >= 2, "the state takes more than one piece: {pieces}");
    assert!(resynced >= 90 * 3, "{resynced} records of the state");
    assert_eq!((one.overruns, two.overruns), (0, 0));
}

#[test]
fn resynchronisation_includes_losses_after_the_newest_trade() {
    let (mut sequencer, mut overrun, mut whole) = two_rings();
    let gap = |local: u32| {
        let mut bytes = Vec::new();
        let lost = Gap {
            instrument: local,
            channel: Channel::Trade,
            from_sequence: 5.into(),
            to_sequence: 7.into(),
            reason: GapReason::Feed,
        };
        lost.encode(0, &mut bytes);
        bytes
    };
    accept(&mut sequencer, 0, &[definition(1, "A"), trade(1, 1), gap(1), definition(2, "ONLY-LOSSES"), gap(2)]);
    for round in 0..5000 {
        accept(&mut sequencer, 0, &[quote(1, round), quote(2, round)]);
        whole.read();
    }
    overrun.read();
    assert_eq!((overrun.overruns, whole.overruns), (1, 0));
    sequencer.request_resync(0);
    while sequencer.advance_resyncs() {
        overrun.read();
    }
    overrun.read();
    whole.read();
    assert_eq!(
        (overrun.values.sequence(1, Channel::Trade), overrun.values.sequence(2, Channel::Trade)),
        (4.into(), 3.into())
    );
    assert_eq!(overrun.state(), whole.state());
}
