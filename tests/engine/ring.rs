//! The ring against a model on one thread, where every result is known, and under two threads, where the expected bytes
//! of every entry follow from its offset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use tickcast::ring::{Batch, Entry, Gauge, Overrun, Reader, RingOffset, StagedEntries, Writer, ring, ring_at};
use tickcast_protocol::Position;

const HEADER_BYTES: u64 = tickcast::ring::HEADER_BYTES as u64;

#[derive(Clone, Debug)]
enum RingStep {
    Push {
        position: u64,
        words: usize,
    },
    /// Entries that are staged and pushed as one range: positions and words.
    PushStaged(Vec<(u64, usize)>),
    Publish,
    Read {
        bytes_max: usize,
    },
    History {
        entries_back: usize,
        span: u64,
        bytes_max: usize,
        modulus: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<RingStep>> {
    let entry = || (any::<u64>(), prop_oneof![0..12usize, 0..512usize]);
    let step = prop_oneof![
        6 => entry().prop_map(|(position, words)| RingStep::Push { position, words }),
        4 => prop::collection::vec(entry(), 0..12).prop_map(RingStep::PushStaged),
        4 => Just(RingStep::Publish),
        3 => prop_oneof![0..64usize, 0..6000usize, Just(usize::MAX)].prop_map(|bytes_max| RingStep::Read { bytes_max }),
        2 => (0..40usize, prop_oneof![1..500u64, Just(u64::MAX)], 0..3000usize, 1..4u64).prop_map(
            |(entries_back, span, bytes_max, modulus)| RingStep::History { entries_back, span, bytes_max, modulus }
        ),
    ];
    prop::collection::vec(step, 1..200)
}

fn firsts() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just((1 << 32) - 104), (0..1u64 << 60).prop_map(|words| words * 8)]
}

/// One entry of the model.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    offset: u64,
    position: u64,
    payload: Vec<u8>,
}

impl Made {
    fn bytes(&self) -> u64 {
        HEADER_BYTES + self.payload.len() as u64
    }

    fn first_word(&self) -> u64 {
        self.payload.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }
}

/// Whether an entry may still be read: near the limit the ring may give it up a little early.
#[derive(PartialEq)]
enum Alive {
    Yes,
    No,
    Either,
}

/// All pushed entries, and the expected offset of the reader.
struct Model {
    capacity: u64,
    first: u64,
    head: u64,
    published: u64,
    read: u64,
    made: Vec<Made>,
    writer: Writer,
    reader: Reader,
    staged: StagedEntries,
}

impl Model {
    fn new(capacity: u64, first: u64) -> Self {
        let (writer, reader) = ring_at(capacity as usize, RingOffset::new(first));
        let (made, staged) = (Vec::new(), StagedEntries::default());
        Self { capacity, first, head: first, published: first, read: first, made, writer, reader, staged }
    }

    fn run(&mut self, step: RingStep) {
        match step {
            RingStep::Push { position, words } => self.push(position, words),
            RingStep::PushStaged(entries) => self.push_staged(entries),
            RingStep::Publish => {
                self.writer.publish();
                self.published = self.head;
            }
            RingStep::Read { bytes_max } => self.read_once(bytes_max),
            RingStep::History { entries_back, span, bytes_max, modulus } => {
                self.history(entries_back, span, bytes_max, modulus);
            }
        }
        assert_eq!(self.reader.offset(), RingOffset::new(self.read));
        assert_eq!(self.reader.is_empty(), self.read == self.published);
        assert_eq!(self.writer.gauge().backlog_bytes(), self.published - self.read);
    }

    fn push(&mut self, position: u64, words: usize) {
        let payload = self.make(position, words);
        self.writer.push(Position::new(position), &payload);
    }

    fn push_staged(&mut self, entries: Vec<(u64, usize)>) {
        let head_before = self.head;
        for (position, words) in entries {
            let payload = self.make(position, words);
            self.staged.push(Position::new(position), &payload);
        }
        assert_eq!(self.staged.bytes() as u64, self.head - head_before);
        self.writer.push_entries(&self.staged);
        self.staged.clear();
    }

    /// The next entry of the model; returns its payload, of at most half of the ring with its header.
    fn make(&mut self, position: u64, words: usize) -> Vec<u8> {
        let words = words % (self.capacity / 16 - 1) as usize;
        let payload: Vec<u8> = (0..words as u64).flat_map(|i| mix(self.head + i).to_le_bytes()).collect();
        let made = Made { offset: self.head, position, payload: payload.clone() };
        self.head += made.bytes();
        self.made.push(made);
        payload
    }

    fn read_once(&mut self, bytes_max: usize) {
        let mut batch = used_batch();
        let result = self.reader.read(bytes_max, &mut batch);
        let available = self.published - self.read;
        match result {
            Ok(()) => {
                assert!(available == 0 || self.alive(self.read) != Alive::No, "an overrun was not reported");
                let expected = self.next_entries(bytes_max as u64);
                self.read += expected.iter().map(Made::bytes).sum::<u64>();
                assert_eq!(read_entries(&batch), expected);
            }
            Err(Overrun { lost }) => {
                assert!(
                    available > 0 && self.alive(self.read) != Alive::Yes,
                    "an overrun was reported where there was none"
                );
                assert_eq!(lost, available);
                self.read = self.published;
                assert_eq!(read_entries(&batch), []);
            }
        }
    }

    /// The entries of the next read: at least one, and as many as fit.
    fn next_entries(&self, bytes_max: u64) -> Vec<Made> {
        let fits = |made: &&Made| {
            let end = made.offset + made.bytes();
            end <= self.published && (made.offset == self.read || end - self.read <= bytes_max)
        };
        self.made.iter().skip_while(|made| made.offset < self.read).take_while(fits).cloned().collect()
    }

    fn history(&mut self, entries_back: usize, span: u64, bytes_max: usize, modulus: u64) {
        let read: Vec<&Made> = self.made.iter().filter(|made| made.offset < self.read).collect();
        let Some(from) = read.iter().rev().nth(entries_back).map(|made| made.offset) else { return };
        let end = from.saturating_add(span).min(self.read);
        let mut batch = used_batch();
        let mut checked = Vec::new();
        let filter = |position: Position, first: u64| {
            checked.push((position.get(), first));
            position.get().is_multiple_of(modulus)
        };
        match self.reader.history(RingOffset::new(from)..RingOffset::new(end), bytes_max, filter, &mut batch) {
            Ok(next) => {
                assert!(self.alive(from) != Alive::No, "an overrun was not reported");
                let scanned: Vec<&Made> = read.into_iter().filter(|made| (from..end).contains(&made.offset)).collect();
                let expected = history_entries(&scanned, bytes_max, modulus);
                assert_eq!(next.get(), expected.next);
                assert_eq!(read_entries(&batch), expected.wanted);
                assert_eq!(checked, expected.checked);
            }
            Err(Overrun { lost }) => {
                assert!(self.alive(from) != Alive::Yes, "an overrun was reported where there was none");
                assert_eq!(read_entries(&batch), []);
                let least = (self.head - self.capacity).min(self.read);
                assert!((least..=least + self.capacity / 8).contains(&(from + lost)) && from + lost <= self.read);
            }
        }
    }

    fn alive(&self, offset: u64) -> Alive {
        let written = self.head - self.first;
        let back = self.head - offset;
        if written <= self.capacity || back <= self.capacity - self.capacity / 8 {
            Alive::Yes
        } else if back > self.capacity {
            Alive::No
        } else {
            Alive::Either
        }
    }
}

/// The result of reading history again.
struct HistoryExpected {
    wanted: Vec<Made>,
    checked: Vec<(u64, u64)>,
    next: u64,
}

fn history_entries(scanned: &[&Made], bytes_max: usize, modulus: u64) -> HistoryExpected {
    let mut expected = HistoryExpected { wanted: Vec::new(), checked: Vec::new(), next: 0 };
    let mut gathered = 0;
    for made in scanned {
        expected.next = made.offset + made.bytes();
        expected.checked.push((made.position, made.first_word()));
        if made.position.is_multiple_of(modulus) {
            expected.wanted.push((*made).clone());
            gathered += made.payload.len();
            if gathered >= bytes_max {
                break;
            }
        }
    }
    expected
}

/// A batch that already holds an entry, which has to stay as it is.
fn used_batch() -> Batch {
    Batch {
        bytes: vec![7; 8],
        entries: vec![Entry { offset: RingOffset::new(1), position: Position::new(2), start: 0, len: 8 }],
    }
}

/// The entries that were added to a [`used_batch`].
fn read_entries(batch: &Batch) -> Vec<Made> {
    let made = |entry: &Entry| Made {
        offset: entry.offset.get(),
        position: entry.position.get(),
        payload: batch.payload(entry).to_vec(),
    };
    let mut all = batch.entries.iter().map(made);
    assert_eq!(all.next(), Some(Made { offset: 1, position: 2, payload: vec![7; 8] }));
    let added: Vec<Made> = all.collect();
    let end = batch.entries.last().map_or(0, |entry| entry.start as usize + entry.len as usize);
    assert_eq!(batch.bytes.len(), end, "bytes without an entry");
    added
}

/// A pseudo-random word (splitmix64's finalizer).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ring_agrees_with_the_model(bits in 6..14u32, first in firsts(), steps in steps()) {
        let mut model = Model::new(1 << bits, first);
        for step in steps {
            model.run(step);
        }
    }
}

/// Offset of the stress test's first entry: 2^32 is crossed on the way.
const STRESS_FIRST: u64 = (1 << 32) - (1 << 24) - 8;
/// So large that the producer can overtake the copy of a whole ring.
const STRESS_CAPACITY: usize = 1 << 20;
/// At first the producer waits for the reader, so that some reads are whole regardless of scheduling.
const STRESS_PACED_BYTES: u64 = 2 * STRESS_CAPACITY as u64;
/// The producer stops here even if the reader has not seen enough.
const STRESS_BYTES_MAX: u64 = 1 << 30;

/// The entry at an offset: its length, position and words follow from the offset. Returns the position.
fn stress_payload(offset: u64, payload: &mut Vec<u8>) -> u64 {
    payload.clear();
    let words = mix(offset) % 24;
    payload.extend((0..words).flat_map(|i| mix(offset + i).to_le_bytes()));
    mix(!offset)
}

fn stress_produce(mut writer: Writer, stop: &AtomicBool, finished: &AtomicBool) -> u64 {
    let mut offset = STRESS_FIRST;
    let (mut payload, mut staged) = (Vec::new(), StagedEntries::default());
    let gauge = writer.gauge();
    while offset - STRESS_FIRST < STRESS_BYTES_MAX && !stop.load(Ordering::Relaxed) {
        let is_staged = mix(offset) & 8 == 0;
        for _ in 0..1 + mix(offset) % 8 {
            let position = Position::new(stress_payload(offset, &mut payload));
            match is_staged {
                true => staged.push(position, &payload),
                false => writer.push(position, &payload),
            }
            offset += HEADER_BYTES + payload.len() as u64;
        }
        writer.push_entries(&staged);
        staged.clear();
        writer.publish();
        // If there are fewer free cores than threads, this lets both make progress.
        if mix(offset).is_multiple_of(16) {
            thread::yield_now();
        }
        let is_paced = offset - STRESS_FIRST < STRESS_PACED_BYTES;
        while is_paced && gauge.backlog_bytes() > 0 && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
    finished.store(true, Ordering::Release);
    offset
}

/// Stops the producer if an assertion of the reader fails, so that the test fails instead of hanging.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Statistics of the reading side.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    overruns: u64,
    histories: u64,
    histories_overrun: u64,
    delivered_bytes: u64,
    lost_bytes: u64,
}

impl Seen {
    fn enough(&self) -> bool {
        self.reads > 500 && self.overruns > 50 && self.histories > 200 && self.histories_overrun > 20
    }

    fn read(&mut self, reader: &mut Reader, batch: &mut Batch) {
        batch.clear();
        match reader.read(STRESS_CAPACITY, batch) {
            Ok(()) => {
                self.reads += u64::from(!batch.entries.is_empty());
                self.delivered_bytes += stress_check(batch);
            }
            Err(Overrun { lost }) => {
                assert!(batch.entries.is_empty() && batch.bytes.is_empty());
                self.overruns += 1;
                self.lost_bytes += lost;
            }
        }
    }

    fn history(&mut self, reader: &Reader, from: RingOffset, batch: &mut Batch) {
        batch.clear();
        let filter = |position: Position, _first: u64| position.get().is_multiple_of(2);
        match reader.history(from..reader.offset(), STRESS_CAPACITY, filter, batch) {
            Ok(next) => {
                assert!(from < next && next <= reader.offset());
                stress_check(batch);
                self.histories += u64::from(!batch.entries.is_empty());
            }
            Err(Overrun { lost }) => {
                assert!(batch.entries.is_empty() && lost > 0);
                self.histories_overrun += 1;
            }
        }
    }
}

/// Asserts every byte of every entry, and returns what they took in the ring.
fn stress_check(batch: &Batch) -> u64 {
    let mut expected = Vec::new();
    let mut bytes = 0;
    for entry in &batch.entries {
        let position = stress_payload(entry.offset.get(), &mut expected);
        let read = (entry.position.get(), batch.payload(entry));
        assert_eq!(read, (position, &expected[..]), "torn at {}", entry.offset);
        bytes += HEADER_BYTES + u64::from(entry.len);
    }
    bytes
}

/// Lets the producer run ahead: not at all, until it is about to lap the reader, or beyond that.
fn wait_for_backlog(gauge: &Gauge, backlog_bytes: u64, finished: &AtomicBool) {
    // Mostly without a system call, to be back when the producer is just about to lap the reader.
    for tick in 1u64.. {
        if gauge.backlog_bytes() >= backlog_bytes || finished.load(Ordering::Acquire) {
            return;
        }
        if tick.is_multiple_of(1024) {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[test]
fn no_entry_is_torn_while_the_producer_laps_the_reader() {
    let first = RingOffset::new(STRESS_FIRST);
    let (writer, mut reader) = ring_at(STRESS_CAPACITY, first);
    let gauge = writer.gauge();
    let (stop, finished) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut seen = Seen::default();
    let mut batch = Batch::default();
    let end = thread::scope(|scope| {
        let producer = scope.spawn(|| stress_produce(writer, &stop, &finished));
        let stop = StopOnDrop(&stop);
        let mut remembered = first;
        for tick in 1u64.. {
            if finished.load(Ordering::Acquire) && reader.is_empty() {
                break;
            }
            let before = reader.offset();
            seen.read(&mut reader, &mut batch);
            if reader.offset() > remembered {
                seen.history(&reader, remembered, &mut batch);
            }
            if tick.is_multiple_of(2) {
                remembered = before;
            }
            if tick.is_multiple_of(4) && before - first > STRESS_PACED_BYTES {
                wait_for_backlog(&gauge, mix(tick) % (gauge.capacity_bytes() * 3 / 2), &finished);
            }
            stop.0.store(seen.enough(), Ordering::Relaxed);
        }
        producer.join().expect("the producer asserts nothing")
    });
    assert_eq!(reader.offset().get(), end);
    assert_eq!(seen.delivered_bytes + seen.lost_bytes, end - STRESS_FIRST);
    assert!(seen.reads > 0 && seen.overruns > 0, "{seen:?}");
    assert!(seen.histories > 0 && seen.histories_overrun > 0, "{seen:?}");
}

#[test]
#[should_panic(expected = "expected a power of two")]
fn capacity_must_be_a_power_of_two() {
    ring(96);
}

#[test]
#[should_panic(expected = "expected a multiple of 8")]
fn payload_must_be_a_multiple_of_8() {
    ring(64).0.push(Position::ZERO, &[0; 12]);
}

#[test]
#[should_panic(expected = "expected at most half")]
fn entry_must_fit_in_half_of_the_ring() {
    ring(64).0.push(Position::ZERO, &[0; 24]);
}

#[test]
#[should_panic(expected = "a payload of 12 bytes: expected a multiple of 8")]
fn staged_payload_must_be_a_multiple_of_8() {
    StagedEntries::default().push(Position::ZERO, &[0; 12]);
}

#[test]
#[should_panic(expected = "an entry of 40 bytes in a ring of 64: expected at most half")]
fn staged_entry_must_fit_in_half_of_the_ring() {
    let mut staged = StagedEntries::default();
    for payload in [[0; 24].as_slice(), &[]] {
        staged.push(Position::ZERO, payload);
    }
    ring(64).0.push_entries(&staged);
}

#[test]
fn staged_range_longer_than_the_ring_is_an_overrun() {
    let (mut writer, mut reader) = ring(128);
    let (mut staged, mut batch) = (StagedEntries::default(), Batch::default());
    (0..9).for_each(|number| staged.push(Position::new(number), &[1; 8]));
    writer.push_entries(&staged);
    writer.publish();
    assert_eq!(reader.read(1024, &mut batch), Err(Overrun { lost: 9 * 24 }));
    staged.clear();
    staged.push(Position::new(9), &[2; 8]);
    writer.push_entries(&staged);
    writer.publish();
    assert_eq!(reader.read(1024, &mut batch), Ok(()));
    let read: Vec<_> = batch.entries.iter().map(|entry| (entry.position.get(), batch.payload(entry))).collect();
    assert_eq!(read, [(9, [2; 8].as_slice())]);
}

#[test]
#[should_panic(expected = "the reader is at 0")]
fn history_must_have_been_read() {
    let (mut writer, reader) = ring(64);
    writer.push(Position::new(1), &[]);
    writer.publish();
    let _ = reader.history(RingOffset::new(16)..RingOffset::new(16), 0, |_, _| true, &mut Batch::default());
}

#[test]
#[should_panic(expected = "no entry begins at 8")]
fn history_must_begin_at_an_entry() {
    let (mut writer, mut reader) = ring(64);
    writer.push(Position::new(1 << 40), &[]);
    writer.publish();
    let mut batch = Batch::default();
    reader.read(64, &mut batch).expect("nothing was overwritten");
    let _ = reader.history(RingOffset::new(8)..reader.offset(), 0, |_, _| true, &mut batch);
}
