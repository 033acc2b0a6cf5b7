//! The cost of the rings: pushing, publishing and reading entries on one thread and across two, skipping history, and
//! sequencing quotes into 1 to 16 rings.
//!
//! Method: batches of 64 entries with 64 payload bytes, as the sequencer makes them under load. The figure is the time
//! of one entry; with several readers, of one entry to one reader. `floor` copies the same bytes into a vector and out
//! of it. Beside the ring are queues with as much memory, which keep no history and whose producer waits or fails when
//! they are full: `rtrb`, like the ring for one producer and one reader, value by value and in chunks of a batch, which
//! is the fastest it offers; and crossbeam's `ArrayQueue`, for any number of both, value by value.
//!
//! A shard's ring has one reader. So several readers have one ring, or one queue, each, and the producer writes every
//! entry to all of them: to rings as the sequencer does, which stages a batch once and copies it to each. They alternate
//! on one thread: the producer writes a batch to all, then each reads. With more threads than cores the figure would be
//! the scheduler's. `shared_ring` is the prototype of another design: one ring, which all readers read (`shared_ring/`).
//!
//! `writing` and `writing_and_reading` compare three ways to bring a batch to all readers, with rings of the default
//! size: `pushed` writes each entry to each ring, `staged` is the sequencer's way, `shared` writes to one ring for all.
//! The figure is the time of one entry, for all readers together. `writing` has no readers.
//!
//! `sequencing` is `Sequencer::accept` with batches of 64 quotes of 100 instruments, into rings of the default size
//! without readers: more than a cache holds, as in the server. The figure is the time of one record.
//!
//! On one thread, time is the thread's CPU time, which other processes lengthen only through caches and shared cores.
//! Across two threads it is wall time, valid only if two cores are free: all producers wait for room, so that every
//! entry arrives, and all readers yield if there is none. Not measured: the wake-up of a sleeping reader, an overrun, and
//! what several readers on cores of their own cost each other and the producer in caches.

mod shared_ring;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use rustix::time::{ClockId, clock_gettime};
use tickcast::ring::{Batch, HEADER_BYTES, RingOffset, StagedEntries, Writer, ring};
use tickcast::sequencer::Sequencer;
use tickcast_protocol::record::{self, Quote, RecordHeader, RecordKind};
use tickcast_protocol::{Instrument, Position};

use self::shared_ring::{SharedWriter, shared_ring};

const PAYLOAD: [u8; 64] = [0x5a; 64];
const ENTRY_BYTES: usize = HEADER_BYTES + PAYLOAD.len();
const BATCH_ENTRIES: u64 = 64;
const READERS: [usize; 5] = [1, 2, 4, 8, 16];
const CAPACITY_BYTES: usize = 1 << 20;
const READ_BYTES_MAX: usize = 64 * 1024;
const QUEUE_ENTRIES: usize = CAPACITY_BYTES / ENTRY_BYTES;
/// The default of `ring_bytes`.
const SERVER_RING_BYTES: usize = 32 << 20;
const INSTRUMENTS: u32 = 100;

type Queued = (u64, [u8; 64]);

/// Measures the CPU time of the thread.
struct ThreadTime;

impl ThreadTime {
    fn now() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
}

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, time: &Duration) -> f64 {
        time.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn push_batch(writer: &mut Writer) {
    for number in 0..BATCH_ENTRIES {
        writer.push(Position::new(black_box(number)), black_box(&PAYLOAD));
    }
    writer.publish();
}

fn push_chunk(producer: &mut rtrb::Producer<Queued>) -> bool {
    let Ok(chunk) = producer.write_chunk_uninit(BATCH_ENTRIES as usize) else { return false };
    chunk.fill_from_iter((0..BATCH_ENTRIES).map(|number| (black_box(number), *black_box(&PAYLOAD))));
    true
}

/// As the sequencer writes a batch to all rings.
fn stage_batch(staged: &mut StagedEntries, writers: &mut [Writer]) {
    for number in 0..BATCH_ENTRIES {
        staged.push(Position::new(black_box(number)), black_box(&PAYLOAD));
    }
    for writer in writers {
        writer.push_entries(staged);
        writer.publish();
    }
    staged.clear();
}

fn push_batch_shared(writer: &mut SharedWriter) {
    for number in 0..BATCH_ENTRIES {
        writer.push(Position::new(black_box(number)), black_box(&PAYLOAD));
    }
    writer.publish();
}

/// Pushes without a reader, which only the ring allows.
fn writing(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("ring/one_thread");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    group.bench_function("push_publish", |bencher| {
        let (mut writer, _reader) = ring(CAPACITY_BYTES);
        bencher.iter(|| push_batch(&mut writer));
    });
    group.finish();
}

/// One round of a bench: a batch is written to all readers, and read by each.
type Round = Box<dyn FnMut()>;
/// Makes a round for a number of readers.
type MakeRound = fn(usize) -> Round;

fn round_of_copies(readers: usize) -> Round {
    let mut written = vec![Vec::<u8>::new(); readers];
    let mut read = written.clone();
    Box::new(move || {
        written.iter_mut().for_each(Vec::clear);
        for number in 0..BATCH_ENTRIES {
            for written in &mut written {
                written.extend_from_slice(&black_box(number).to_le_bytes());
                written.extend_from_slice(&black_box(number).to_le_bytes());
                written.extend_from_slice(black_box(&PAYLOAD));
            }
        }
        for (written, read) in written.iter().zip(&mut read) {
            read.clear();
            read.extend_from_slice(black_box(written));
        }
    })
}

fn round_of_rings(readers: usize) -> Round {
    round_of_own_rings(readers, CAPACITY_BYTES)
}

fn round_of_own_rings(readers: usize, capacity_bytes: usize) -> Round {
    let (mut writers, mut readers): (Vec<_>, Vec<_>) = (0..readers).map(|_| ring(capacity_bytes)).unzip();
    let (mut staged, mut batch) = (StagedEntries::default(), Batch::default());
    Box::new(move || {
        stage_batch(&mut staged, &mut writers);
        for reader in &mut readers {
            batch.clear();
            reader.read(READ_BYTES_MAX, &mut batch).expect("read after each batch");
            assert_eq!(batch.entries.len() as u64, BATCH_ENTRIES);
        }
    })
}

fn round_of_shared_ring(readers: usize) -> Round {
    round_of_one_ring(readers, CAPACITY_BYTES)
}

fn round_of_one_ring(readers: usize, capacity_bytes: usize) -> Round {
    let (mut writer, mut readers) = shared_ring(capacity_bytes, readers);
    let mut batch = Batch::default();
    Box::new(move || {
        push_batch_shared(&mut writer);
        for reader in &mut readers {
            batch.clear();
            reader.read(READ_BYTES_MAX, &mut batch).expect("read after each batch");
            assert_eq!(batch.entries.len() as u64, BATCH_ENTRIES);
        }
    })
}

fn round_of_rtrb(readers: usize) -> Round {
    let queues = (0..readers).map(|_| rtrb::RingBuffer::<Queued>::new(QUEUE_ENTRIES));
    let (mut producers, mut consumers): (Vec<_>, Vec<_>) = queues.unzip();
    let mut batch = Vec::new();
    Box::new(move || {
        for number in 0..BATCH_ENTRIES {
            for producer in &mut producers {
                producer.push((black_box(number), *black_box(&PAYLOAD))).expect("popped after each batch");
            }
        }
        for consumer in &mut consumers {
            batch.clear();
            while let Ok(value) = consumer.pop() {
                batch.push(value);
            }
            assert_eq!(batch.len() as u64, BATCH_ENTRIES);
        }
    })
}

fn round_of_rtrb_chunks(readers: usize) -> Round {
    let queues = (0..readers).map(|_| rtrb::RingBuffer::<Queued>::new(QUEUE_ENTRIES));
    let (mut producers, mut consumers): (Vec<_>, Vec<_>) = queues.unzip();
    let mut batch = Vec::new();
    Box::new(move || {
        for producer in &mut producers {
            assert!(push_chunk(producer), "popped after each batch");
        }
        for consumer in &mut consumers {
            batch.clear();
            let chunk = consumer.read_chunk(BATCH_ENTRIES as usize).expect("a batch was written");
            batch.extend(chunk);
        }
    })
}

fn round_of_array_queues(readers: usize) -> Round {
    let queues: Vec<_> = (0..readers).map(|_| ArrayQueue::<Queued>::new(QUEUE_ENTRIES)).collect();
    let mut batch = Vec::new();
    Box::new(move || {
        for number in 0..BATCH_ENTRIES {
            for queue in &queues {
                queue.push((black_box(number), *black_box(&PAYLOAD))).expect("popped after each batch");
            }
        }
        for queue in &queues {
            batch.clear();
            while let Some(value) = queue.pop() {
                batch.push(value);
            }
            assert_eq!(batch.len() as u64, BATCH_ENTRIES);
        }
    })
}

fn alternating_readers(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("ring/alternating_readers");
    let rounds: [(&str, MakeRound); 6] = [
        ("floor", round_of_copies),
        ("ring", round_of_rings),
        ("shared_ring", round_of_shared_ring),
        ("rtrb", round_of_rtrb),
        ("rtrb_in_chunks", round_of_rtrb_chunks),
        ("array_queue", round_of_array_queues),
    ];
    for readers in READERS {
        group.throughput(Throughput::Elements(BATCH_ENTRIES * readers as u64));
        for (name, round) in rounds {
            group.bench_function(BenchmarkId::new(name, readers), |bencher| bencher.iter(round(readers)));
        }
    }
    group.finish();
}

/// The ways of a batch to all rings, in rings of the server's size and without readers.
fn ways_of_writing(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("ring/writing");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    for rings in READERS {
        let (mut writers, _readers): (Vec<_>, Vec<_>) = (0..rings).map(|_| ring(SERVER_RING_BYTES)).unzip();
        group.bench_function(BenchmarkId::new("pushed", rings), |bencher| {
            bencher.iter(|| {
                for number in 0..BATCH_ENTRIES {
                    let position = Position::new(black_box(number));
                    writers.iter_mut().for_each(|writer| writer.push(position, black_box(&PAYLOAD)));
                }
                writers.iter_mut().for_each(Writer::publish);
            });
        });
        let mut staged = StagedEntries::default();
        group.bench_function(BenchmarkId::new("staged", rings), |bencher| {
            bencher.iter(|| stage_batch(&mut staged, &mut writers));
        });
    }
    let (mut writer, _readers) = shared_ring(SERVER_RING_BYTES, 1);
    group.bench_function("shared", |bencher| bencher.iter(|| push_batch_shared(&mut writer)));
    group.finish();
}

/// The same with readers, which alternate.
fn ways_of_writing_and_reading(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("ring/writing_and_reading");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    for readers in READERS {
        let mut round = round_of_own_rings(readers, SERVER_RING_BYTES);
        group.bench_function(BenchmarkId::new("staged", readers), |bencher| bencher.iter(&mut round));
        let mut round = round_of_one_ring(readers, SERVER_RING_BYTES);
        group.bench_function(BenchmarkId::new("shared", readers), |bencher| bencher.iter(&mut round));
    }
    group.finish();
}

/// A batch of quotes of all instruments in turn, with ids that the sequencer maps to themselves.
fn batch_of_quotes() -> Vec<u8> {
    let mut batch = Vec::new();
    for nth in 0..BATCH_ENTRIES as u32 {
        let quote = Quote { bid_px: 10_000, bid_sz: 100, ask_px: 10_001, ask_sz: 200 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, 1 + nth * 7 % INSTRUMENTS, 1), &mut batch);
    }
    batch
}

/// A record of a batch that is sequenced into 1 to 16 rings.
fn sequencing(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("ring/sequencing");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    for rings in READERS {
        let (writers, _readers): (Vec<_>, Vec<_>) = (0..rings).map(|_| ring(SERVER_RING_BYTES)).unzip();
        let mut sequencer = Sequencer::new(writers, INSTRUMENTS as usize);
        let mut definitions = Vec::new();
        for id in 1..=INSTRUMENTS {
            record::encode_definition(&Instrument::new(id, &format!("S{id}"), "bench", -2, -2), &mut definitions);
        }
        sequencer.accept(0, &mut definitions, 1);
        let (mut batch, mut now_ns) = (batch_of_quotes(), 1);
        group.bench_function(BenchmarkId::new("rings", rings), |bencher| {
            bencher.iter(|| {
                now_ns += 1;
                sequencer.accept(0, black_box(&mut batch), now_ns)
            });
        });
        let records = u64::from(INSTRUMENTS) + (now_ns - 1) * BATCH_ENTRIES;
        assert_eq!(sequencer.position().get(), records, "all were sequenced");
    }
    group.finish();
}

/// The time in which `batches` cross to a reader on another thread.
fn ring_across(batches: u64) -> Duration {
    let (mut writer, mut reader) = ring(CAPACITY_BYTES);
    let gauge = writer.gauge();
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            for _ in 0..batches {
                while gauge.backlog_bytes() > CAPACITY_BYTES as u64 / 4 * 3 {
                    thread::yield_now();
                }
                push_batch(&mut writer);
            }
        });
        let mut batch = Batch::default();
        let mut entries = 0;
        while entries < batches * BATCH_ENTRIES {
            batch.clear();
            reader.read(READ_BYTES_MAX, &mut batch).expect("the producer obeys the gauge");
            entries += black_box(&batch).entries.len() as u64;
            if batch.entries.is_empty() {
                thread::yield_now();
            }
        }
        start.elapsed()
    })
}

/// The same through a queue of values.
fn queue_across(batches: u64) -> Duration {
    let queue = ArrayQueue::<Queued>::new(QUEUE_ENTRIES);
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(|| {
            for number in 0..batches * BATCH_ENTRIES {
                while queue.push((black_box(number), *black_box(&PAYLOAD))).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut entries = 0;
        while entries < batches * BATCH_ENTRIES {
            match queue.pop() {
                Some(value) => {
                    black_box(&value);
                    entries += 1;
                }
                None => thread::yield_now(),
            }
        }
        start.elapsed()
    })
}

/// The same through rtrb's queue, a batch at a time as the ring's.
fn rtrb_across(batches: u64) -> Duration {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Queued>::new(QUEUE_ENTRIES);
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            for _ in 0..batches {
                while !push_chunk(&mut producer) {
                    thread::yield_now();
                }
            }
        });
        let mut batch = Vec::new();
        let mut entries = 0;
        while entries < batches * BATCH_ENTRIES {
            batch.clear();
            let count = consumer.slots().min(READ_BYTES_MAX / ENTRY_BYTES);
            batch.extend(consumer.read_chunk(count).expect("the queue has as many"));
            entries += black_box(&batch).len() as u64;
            if batch.is_empty() {
                thread::yield_now();
            }
        }
        start.elapsed()
    })
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/two_threads");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    group.bench_function("ring", |bencher| bencher.iter_custom(ring_across));
    group.bench_function("rtrb_in_chunks", |bencher| bencher.iter_custom(rtrb_across));
    group.bench_function("array_queue", |bencher| bencher.iter_custom(queue_across));
    group.finish();
}

fn history(criterion: &mut Criterion<ThreadTime>) {
    let (mut writer, mut reader) = ring(CAPACITY_BYTES);
    let mut batch = Batch::default();
    for _ in 0..CAPACITY_BYTES / 2 / (ENTRY_BYTES * BATCH_ENTRIES as usize) {
        push_batch(&mut writer);
    }
    reader.read(usize::MAX, &mut batch).expect("half a ring was written");
    let mut group = criterion.benchmark_group("ring/history");
    group.throughput(Throughput::Elements(batch.entries.len() as u64));
    for (name, every) in [("skip_all", u64::MAX), ("take_one_in_64", BATCH_ENTRIES), ("take_all", 1)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                batch.clear();
                let wanted = |position: Position, _first: u64| (position.get() + 1).is_multiple_of(every);
                let range = RingOffset::START..reader.offset();
                reader.history(range, usize::MAX, wanted, &mut batch).expect("nothing was overwritten")
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = one_thread;
    config = Criterion::default().with_measurement(ThreadTime);
    targets = writing, ways_of_writing, ways_of_writing_and_reading, alternating_readers, sequencing, history
}
criterion_group!(across_threads, two_threads);
criterion_main!(one_thread, across_threads);
