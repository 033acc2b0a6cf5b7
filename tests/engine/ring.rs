//! The ring: on one thread against a model that predicts every result, and on two threads with entries whose bytes follow
//! from their offset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use tickcast::ring::{Batch, Entry, Gauge, Overrun, Reader, Writer, ring, ring_at};

const HEADER_BYTES: u64 = tickcast::ring::HEADER_BYTES as u64;

#[derive(Clone, Debug)]
enum Step {
    Push { tag: u64, words: usize },
    Publish,
    Read { bytes_max: usize },
    History { entries_back: usize, span: u64, bytes_max: usize, modulus: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u64>(), prop_oneof![0..12usize, 0..512usize]).prop_map(|(tag, words)| Step::Push { tag, words }),
        4 => Just(Step::Publish),
        3 => prop_oneof![0..64usize, 0..6000usize, Just(usize::MAX)].prop_map(|bytes_max| Step::Read { bytes_max }),
        2 => (0..40usize, prop_oneof![1..500u64, Just(u64::MAX)], 0..3000usize, 1..4u64).prop_map(
            |(entries_back, span, bytes_max, modulus)| Step::History { entries_back, span, bytes_max, modulus }
        ),
    ];
    prop::collection::vec(step, 1..200)
}

fn firsts() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just((1 << 32) - 104), (0..1u64 << 60).prop_map(|words| words * 8)]
}

/// One entry of the model.
#[derive(Clone, Debug, PartialEq)]
struct Pushed {
    position: u64,
    tag: u64,
    payload: Vec<u8>,
}

impl Pushed {
    fn bytes(&self) -> u64 {
        HEADER_BYTES + self.payload.len() as u64
    }

    fn first_word(&self) -> u64 {
        self.payload.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }
}

/// Whether an entry can still be read: the ring may give up the oldest bytes a little early.
#[derive(PartialEq)]
enum Alive {
    Yes,
    No,
    Either,
}

/// All entries that were ever pushed, and the reader's expected offset.
struct Model {
    capacity: u64,
    first: u64,
    head: u64,
    published: u64,
    position: u64,
    pushed: Vec<Pushed>,
    writer: Writer,
    reader: Reader,
}

impl Model {
    fn new(capacity: u64, first: u64) -> Self {
        let (writer, reader) = ring_at(capacity as usize, first);
        Self { capacity, first, head: first, published: first, position: first, pushed: Vec::new(), writer, reader }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Push { tag, words } => self.push(tag, words % (self.capacity / 16 - 1) as usize),
            Step::Publish => {
                self.writer.publish();
                self.published = self.head;
            }
            Step::Read { bytes_max } => self.read(bytes_max),
            Step::History { entries_back, span, bytes_max, modulus } => {
                self.history(entries_back, span, bytes_max, modulus);
            }
        }
        assert_eq!(self.reader.position(), self.position);
        assert_eq!(self.reader.is_empty(), self.position == self.published);
        assert_eq!(self.writer.gauge().backlog_bytes(), self.published - self.position);
    }

    fn push(&mut self, tag: u64, words: usize) {
        let payload: Vec<u8> = (0..words as u64).flat_map(|i| mix(self.head + i).to_le_bytes()).collect();
        self.writer.push(tag, &payload);
        let pushed = Pushed { position: self.head, tag, payload };
        self.head += pushed.bytes();
        self.pushed.push(pushed);
    }

    fn read(&mut self, bytes_max: usize) {
        let mut batch = used_batch();
        let result = self.reader.read(bytes_max, &mut batch);
        let available = self.published - self.position;
        match result {
            Ok(()) => {
                assert!(available == 0 || self.alive(self.position) != Alive::No, "an overrun was not reported");
                let expected = self.next_entries(bytes_max as u64);
                self.position += expected.iter().map(Pushed::bytes).sum::<u64>();
                assert_eq!(read_entries(&batch), expected);
            }
            Err(Overrun { lost }) => {
                assert!(
                    available > 0 && self.alive(self.position) != Alive::Yes,
                    "an overrun was reported without cause"
                );
                assert_eq!(lost, available);
                self.position = self.published;
                assert_eq!(read_entries(&batch), []);
            }
        }
    }

    /// The entries that a read has to return: at least one, and as many as fit.
    fn next_entries(&self, bytes_max: u64) -> Vec<Pushed> {
        let fits = |pushed: &&Pushed| {
            let end = pushed.position + pushed.bytes();
            end <= self.published && (pushed.position == self.position || end - self.position <= bytes_max)
        };
        self.pushed.iter().skip_while(|pushed| pushed.position < self.position).take_while(fits).cloned().collect()
    }

    fn history(&mut self, entries_back: usize, span: u64, bytes_max: usize, modulus: u64) {
        let read: Vec<&Pushed> = self.pushed.iter().filter(|pushed| pushed.position < self.position).collect();
        let Some(from) = read.iter().rev().nth(entries_back).map(|pushed| pushed.position) else { return };
        let end = from.saturating_add(span).min(self.position);
        let mut batch = used_batch();
        let mut checked = Vec::new();
        let wanted = |tag: u64, first: u64| {
            checked.push((tag, first));
            tag.is_multiple_of(modulus)
        };
        match self.reader.history(from..end, bytes_max, wanted, &mut batch) {
            Ok(next) => {
                assert!(self.alive(from) != Alive::No, "an overrun was not reported");
                let scanned: Vec<&Pushed> =
                    read.into_iter().filter(|pushed| (from..end).contains(&pushed.position)).collect();
                let expected = history_entries(&scanned, bytes_max, modulus);
                assert_eq!(next, expected.next);
                assert_eq!(read_entries(&batch), expected.wanted);
                assert_eq!(checked, expected.checked);
            }
            Err(Overrun { lost }) => {
                assert!(self.alive(from) != Alive::Yes, "an overrun was reported without cause");
                assert_eq!(read_entries(&batch), []);
                let least = (self.head - self.capacity).min(self.position);
                assert!((least..=least + self.capacity / 8).contains(&(from + lost)) && from + lost <= self.position);
            }
        }
    }

    fn alive(&self, position: u64) -> Alive {
        let written = self.head - self.first;
        let back = self.head - position;
        if written <= self.capacity || back <= self.capacity - self.capacity / 8 {
            Alive::Yes
        } else if back > self.capacity {
            Alive::No
        } else {
            Alive::Either
        }
    }
}

/// The expected result of reading history.
struct HistoryExpected {
    wanted: Vec<Pushed>,
    checked: Vec<(u64, u64)>,
    next: u64,
}

fn history_entries(scanned: &[&Pushed], bytes_max: usize, modulus: u64) -> HistoryExpected {
    let mut expected = HistoryExpected { wanted: Vec::new(), checked: Vec::new(), next: 0 };
    let mut gathered = 0;
    for pushed in scanned {
        expected.next = pushed.position + pushed.bytes();
        expected.checked.push((pushed.tag, pushed.first_word()));
        if pushed.tag.is_multiple_of(modulus) {
            expected.wanted.push((*pushed).clone());
            gathered += pushed.payload.len();
            if gathered >= bytes_max {
                break;
            }
        }
    }
    expected
}

/// A batch that contains an entry already, which must stay unchanged.
fn used_batch() -> Batch {
    Batch { bytes: vec![7; 8], entries: vec![Entry { position: 1, tag: 2, start: 0, len: 8 }] }
}

/// The entries that were added to a [`used_batch`].
fn read_entries(batch: &Batch) -> Vec<Pushed> {
    let pushed =
        |entry: &Entry| Pushed { position: entry.position, tag: entry.tag, payload: batch.payload(entry).to_vec() };
    let mut all = batch.entries.iter().map(pushed);
    assert_eq!(all.next(), Some(Pushed { position: 1, tag: 2, payload: vec![7; 8] }));
    let added: Vec<Pushed> = all.collect();
    let end = batch.entries.last().map_or(0, |entry| entry.start as usize + entry.len as usize);
    assert_eq!(batch.bytes.len(), end, "bytes without an entry");
    added
}

/// A word that differs for each seed (splitmix64's finalizer).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ring_behaves_like_its_model(bits in 6..14u32, first in firsts(), steps in steps()) {
        let mut model = Model::new(1 << bits, first);
        for step in steps {
            model.run(step);
        }
    }
}

/// Offset of the stress test's first entry: the test crosses 2^32.
const STRESS_FIRST: u64 = (1 << 32) - (1 << 24) - 8;
/// So large that the producer often overtakes the reader during the copy of a whole ring.
const STRESS_CAPACITY: usize = 1 << 20;
/// At first the producer waits for the reader, so that some reads succeed under any scheduling.
const STRESS_PACED_BYTES: u64 = 2 * STRESS_CAPACITY as u64;
/// The producer stops here even if the reader has not seen enough.
const STRESS_BYTES_MAX: u64 = 1 << 30;

/// The entry of an offset: length, tag and every word follow from the offset.
fn stress_payload(position: u64, payload: &mut Vec<u8>) -> u64 {
    payload.clear();
    let words = mix(position) % 24;
    payload.extend((0..words).flat_map(|i| mix(position + i).to_le_bytes()));
    mix(!position)
}

fn stress_produce(mut writer: Writer, stop: &AtomicBool, finished: &AtomicBool) -> u64 {
    let mut position = STRESS_FIRST;
    let mut payload = Vec::new();
    let gauge = writer.gauge();
    while position - STRESS_FIRST < STRESS_BYTES_MAX && !stop.load(Ordering::Relaxed) {
        for _ in 0..1 + mix(position) % 8 {
            let tag = stress_payload(position, &mut payload);
            writer.push(tag, &payload);
            position += HEADER_BYTES + payload.len() as u64;
        }
        writer.publish();
        // With fewer free cores than threads, this lets the two alternate.
        if mix(position).is_multiple_of(16) {
            thread::yield_now();
        }
        let is_paced = position - STRESS_FIRST < STRESS_PACED_BYTES;
        while is_paced && gauge.backlog_bytes() > 0 && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
    finished.store(true, Ordering::Release);
    position
}

/// Ends the producer if an assertion of the reader fails, so that the test fails instead of hanging.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts of the reading thread.
#[derive(Debug, Default)]
struct ReadCounts {
    reads: u64,
    overruns: u64,
    histories: u64,
    histories_overrun: u64,
    delivered_bytes: u64,
    lost_bytes: u64,
}

impl ReadCounts {
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

    fn history(&mut self, reader: &Reader, from: u64, batch: &mut Batch) {
        batch.clear();
        let wanted = |tag: u64, _first: u64| tag.is_multiple_of(2);
        match reader.history(from..reader.position(), STRESS_CAPACITY, wanted, batch) {
            Ok(next) => {
                assert!(from < next && next <= reader.position());
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

/// Asserts every byte of every entry, and returns the bytes that they took in the ring.
fn stress_check(batch: &Batch) -> u64 {
    let mut expected = Vec::new();
    let mut bytes = 0;
    for entry in &batch.entries {
        let tag = stress_payload(entry.position, &mut expected);
        assert_eq!((entry.tag, batch.payload(entry)), (tag, &expected[..]), "torn at {}", entry.position);
        bytes += HEADER_BYTES + u64::from(entry.len);
    }
    bytes
}

/// Waits until the backlog has so many bytes: 0, almost the whole ring, or more than the ring.
fn wait_for_backlog(gauge: &Gauge, backlog_bytes: u64, finished: &AtomicBool) {
    // Mostly without a system call, to be back just before the producer overtakes the reader.
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
fn entries_are_never_torn_while_the_producer_overruns_the_reader() {
    let (writer, mut reader) = ring_at(STRESS_CAPACITY, STRESS_FIRST);
    let gauge = writer.gauge();
    let (stop, finished) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut counts = ReadCounts::default();
    let mut batch = Batch::default();
    let end = thread::scope(|scope| {
        let producer = scope.spawn(|| stress_produce(writer, &stop, &finished));
        let stop = StopOnDrop(&stop);
        let mut remembered = STRESS_FIRST;
        for tick in 1u64.. {
            if finished.load(Ordering::Acquire) && reader.is_empty() {
                break;
            }
            let before = reader.position();
            counts.read(&mut reader, &mut batch);
            if reader.position() > remembered {
                counts.history(&reader, remembered, &mut batch);
            }
            if tick.is_multiple_of(2) {
                remembered = before;
            }
            if tick.is_multiple_of(4) && before - STRESS_FIRST > STRESS_PACED_BYTES {
                wait_for_backlog(&gauge, mix(tick) % (gauge.capacity_bytes() * 3 / 2), &finished);
            }
            stop.0.store(counts.enough(), Ordering::Relaxed);
        }
        producer.join().expect("the producer does not panic")
    });
    assert_eq!(reader.position(), end);
    assert_eq!(counts.delivered_bytes + counts.lost_bytes, end - STRESS_FIRST);
    assert!(counts.reads > 0 && counts.overruns > 0, "{counts:?}");
    assert!(counts.histories > 0 && counts.histories_overrun > 0, "{counts:?}");
}

#[test]
#[should_panic(expected = "want a power of two")]
fn capacity_must_be_a_power_of_two() {
    ring(96);
}

#[test]
#[should_panic(expected = "want a multiple of 8")]
fn payload_must_be_whole_words() {
    ring(64).0.push(0, &[0; 12]);
}

#[test]
#[should_panic(expected = "want half")]
fn entry_must_fit_half_of_the_ring() {
    ring(64).0.push(0, &[0; 24]);
}

#[test]
#[should_panic(expected = "the reader stands at 0")]
fn history_must_have_been_read() {
    let (mut writer, reader) = ring(64);
    writer.push(1, &[]);
    writer.publish();
    let _ = reader.history(16..16, 0, |_, _| true, &mut Batch::default());
}

#[test]
#[should_panic(expected = "no entry begins at 8")]
fn history_must_start_at_an_entry() {
    let (mut writer, mut reader) = ring(64);
    writer.push(1 << 40, &[]);
    writer.publish();
    let mut batch = Batch::default();
    reader.read(64, &mut batch).expect("nothing was overwritten");
    let _ = reader.history(8..reader.position(), 0, |_, _| true, &mut batch);
}
