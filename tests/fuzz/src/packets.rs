//! Publishers' packets: records that pass the check also pass the sequencer, the ring, the last values and a shard with
//! a subscriber, with contiguous sequences.
//!
//! Input: a byte for the number of defined instruments, then packets, each after its length in two bytes.

use std::collections::HashMap;

use tickcast::last_value::{Applied, LastValues};
use tickcast::ring::{Batch, Reader, ring};
use tickcast::sequencer::{Sequencer, SourceEnd};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::{Channel, Instrument, RecordKind, Sequence};

use super::Script;
use tickcast_test_support::node::{Message, Node};

const INSTRUMENTS_MAX: u32 = 4;
/// More than the input's records, definitions and status records can take.
const RING_BYTES: usize = 1 << 22;
const INPUT_BYTES_MAX: usize = 1 << 16;
const NOW_NS: u64 = 1_763_700_000_000_000_000;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let instruments = u32::from(script.byte()) % (INSTRUMENTS_MAX + 1);
    let mut batches = Vec::new();
    while !script.is_done() {
        let length = script.short().into();
        batches.push(records_of(script.bytes(length), instruments));
    }
    check_ring(instruments, &batches);
    check_subscriber(instruments, batches);
}

/// The records of a packet up to the first invalid one, as a publisher's connection accepts them.
fn records_of(bytes: &[u8], instruments: u32) -> Vec<u8> {
    let mut taken = Vec::new();
    let Ok(header) = PacketHeader::read(bytes) else { return taken };
    let mut rest = &bytes[packet::HEADER_BYTES..];
    for _ in 0..header.count {
        let Ok(header) = record::check(rest) else { break };
        let (record, tail) = rest.split_at(header.bytes());
        check_views(&header, record);
        if header.instrument > instruments {
            break;
        }
        taken.extend_from_slice(record);
        rest = tail;
    }
    taken
}

/// A record that passed the check can be read.
fn check_views(header: &RecordHeader, record: &[u8]) {
    let kind = RecordKind::from_wire(header.kind).expect("a kind that is known");
    let readable = match kind {
        RecordKind::Quote => Quote::read(record).is_some(),
        RecordKind::Trade => Trade::read(record).is_some_and(|trade| trade.side.is_known()),
        RecordKind::Ticker => Ticker::read(record).is_some(),
        RecordKind::Book => {
            record::read_book(record).is_some_and(|(_, mut levels)| levels.all(|level| level.side.is_known()))
        }
        RecordKind::Raw => record::read_raw(record).is_some(),
        RecordKind::Gap => Gap::read(record).is_some_and(|gap| gap.channel.is_log()),
        RecordKind::Heartbeat | RecordKind::Status => true,
        RecordKind::Definition => false,
    };
    assert!(readable, "{header:?}");
}

fn definitions(instruments: u32) -> Vec<u8> {
    let mut batch = Vec::new();
    for id in 1..=instruments {
        record::encode_definition(&Instrument::new(id, &format!("S{id}"), "test", -2, -2), &mut batch);
    }
    batch
}

/// Checks that the ring has contiguous positions and sequences, and that last values can follow it.
fn check_ring(instruments: u32, batches: &[Vec<u8>]) {
    let (writer, mut reader) = ring(RING_BYTES);
    let mut sequencer = Sequencer::new(vec![writer], INSTRUMENTS_MAX as usize);
    sequencer.accept(1, &mut definitions(instruments), NOW_NS);
    let mut state = RingState::default();
    for batch in batches {
        sequencer.accept(1, &mut batch.clone(), NOW_NS);
        state.follow(&mut reader);
        assert_eq!(state.position, sequencer.position().get());
    }
    sequencer.close_source(1, SourceEnd::Lost, NOW_NS + 1);
    state.follow(&mut reader);
    assert_eq!(state.position, sequencer.position().get());
    sequencer.request_resync(0);
    while sequencer.advance_resyncs() {}
    state.follow_resync(&mut reader);
}

/// The state of a reader of the ring.
#[derive(Default)]
struct RingState {
    position: u64,
    sequences: HashMap<(u32, Channel), Sequence>,
    values: LastValues<()>,
}

impl RingState {
    fn follow(&mut self, reader: &mut Reader) {
        for (position, record) in read_out(reader) {
            self.position += 1;
            assert_eq!(position, self.position, "positions are contiguous");
            self.take(&record);
        }
    }

    fn take(&mut self, record: &[u8]) {
        let header = RecordHeader::read(record).expect("a record");
        match RecordKind::from_wire(header.kind).expect("a kind that is known") {
            RecordKind::Definition => self.values.add(record::read_definition(record).expect("a definition").id),
            RecordKind::Gap => {
                let gap = Gap::read(record).expect("a gap");
                let last = self.sequences.entry((gap.instrument, gap.channel)).or_default();
                assert_eq!(gap.from_sequence, last.next(), "a gap begins where the records end");
                assert!(gap.to_sequence >= gap.from_sequence);
                *last = gap.to_sequence;
                self.values.apply_gap(&gap, ());
            }
            RecordKind::Status => drop(self.values.apply_status(&header, record, ())),
            RecordKind::Heartbeat => panic!("a heartbeat of a source is not written to the ring"),
            kind => {
                let channel = kind.channel().expect("all other kinds of record belong to a channel");
                assert_eq!(record::check(record), Ok(header), "a sequenced record is well-formed");
                let last = self.sequences.entry((header.instrument, channel)).or_default();
                *last = last.next();
                assert_eq!(header.sequence, *last, "sequences are contiguous");
                let applied = self.values.apply(&header, channel, record, ());
                assert_eq!(applied, Applied::Next, "{header:?}");
            }
        }
    }

    /// The records of a resynchronisation have exactly the known sequences.
    fn follow_resync(&mut self, reader: &mut Reader) {
        let mut sent = HashMap::new();
        for (position, record) in read_out(reader) {
            assert_eq!(position, self.position);
            let header = RecordHeader::read(&record).expect("a record");
            let kind = RecordKind::from_wire(header.kind).expect("a kind that is known");
            let is_snapshot = header.flags & record::flags::SNAPSHOT != 0;
            assert!(
                is_snapshot || kind == RecordKind::Definition,
                "a record of a resynchronisation has the flag SNAPSHOT: {header:?}"
            );
            if let Some(gap) = Gap::read(&record).filter(|_| kind == RecordKind::Gap) {
                sent.insert((gap.instrument, gap.channel), gap.to_sequence);
            } else if let Some(channel) = kind.channel() {
                sent.insert((header.instrument, channel), header.sequence);
            }
        }
        assert_eq!(sent, self.sequences);
    }
}

fn read_out(reader: &mut Reader) -> Vec<(u64, Vec<u8>)> {
    let mut batch = Batch::default();
    while !reader.is_empty() {
        reader.read(RING_BYTES, &mut batch).expect("the ring has room for all");
    }
    batch.entries.iter().map(|entry| (entry.position.get(), batch.payload(entry).to_vec())).collect()
}

/// Checks that a subscriber of everything receives every trade and raw record, or a Gap, up to the last values.
fn check_subscriber(instruments: u32, batches: Vec<Vec<u8>>) {
    let mut node = Node::new(instruments);
    let all = r#"{"op":"subscribe","id":1,"channels":["quote","trade","ticker","book","raw"],"symbols":["*"]}"#;
    let client = node.client(all);
    node.advance_ms(1);
    for batch in batches {
        node.accept(batch);
        node.advance_ms(1);
    }
    let mut logs: HashMap<(u32, Channel), Sequence> = HashMap::new();
    for message in node.received(client) {
        let Message::Packet { header, records } = message else { continue };
        assert_eq!(usize::from(header.count), records.len(), "a packet counts its records");
        for (header, record) in records {
            let (instrument, channel, from, to) = match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Gap) => {
                    let gap = Gap::read(&record).expect("a gap");
                    (gap.instrument, gap.channel, gap.from_sequence, gap.to_sequence)
                }
                Some(kind @ (RecordKind::Trade | RecordKind::Raw)) => {
                    let channel = kind.channel().expect("both belong to a channel");
                    (header.instrument, channel, header.sequence, header.sequence)
                }
                _ => continue,
            };
            let last = logs.entry((instrument, channel)).or_default();
            assert_eq!(from, last.next(), "{channel:?} of {instrument}: sequences are contiguous");
            *last = to;
        }
    }
    for ((instrument, channel), last) in logs {
        assert_eq!(last, node.shard.values().sequence(instrument, channel), "{channel:?} of {instrument}");
    }
}
