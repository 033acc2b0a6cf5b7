//! What the ring costs: pushing, publishing and reading quotes, on one thread and across two, and skipping history.
//!
//! Method: batches of 64 entries with 64 payload bytes, as the sequencer makes them under load; the figure is the time
//! of one entry, with several readers that of one entry to one reader. `floor` copies the same bytes into a vector and
//! out of it. Beside the ring stand queues with as much memory, which keep no history and whose producer waits or
//! refuses when they are full: `rtrb`, like the ring for one producer and one reader, value by value and in chunks of a
//! batch, which is the fastest it offers; and crossbeam's `ArrayQueue`, for any number of both, value by value.
//!
//! A core's ring has one reader. So several readers are one ring, or one queue, each, and the producer writes every
//! entry to all of them, as the sequencer does for its cores. They take turns on one thread: the producer writes a batch
//! to all, then each reads. With more threads than cores the figure would be the scheduler's.
//!
//! Across two threads all producers wait for room, so that every entry arrives, and all readers yield where there is
//! none; the figure counts only where two cores are free. What is not measured: the wake of a sleeping reader, and a
//! reader that is lapped.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use tickcast::ring::{Batch, HEADER_BYTES, Writer, ring};

const PAYLOAD: [u8; 64] = [0x5a; 64];
const ENTRY_BYTES: usize = HEADER_BYTES + PAYLOAD.len();
const BATCH_ENTRIES: u64 = 64;
const READERS_MAX: usize = 8;
const CAPACITY_BYTES: usize = 1 << 20;
const READ_BYTES_MAX: usize = 64 * 1024;
const QUEUE_ENTRIES: usize = CAPACITY_BYTES / ENTRY_BYTES;

type Queued = (u64, [u8; 64]);

fn push_batch(writer: &mut Writer) {
    for tag in 0..BATCH_ENTRIES {
        writer.push(black_box(tag), black_box(&PAYLOAD));
    }
    writer.publish();
}

fn push_chunk(producer: &mut rtrb::Producer<Queued>) -> bool {
    let Ok(chunk) = producer.write_chunk_uninit(BATCH_ENTRIES as usize) else { return false };
    chunk.fill_from_iter((0..BATCH_ENTRIES).map(|tag| (black_box(tag), *black_box(&PAYLOAD))));
    true
}

/// Pushes without a reader, which only the ring allows.
fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/one_thread");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    group.bench_function("push_publish", |bencher| {
        let (mut writer, _reader) = ring(CAPACITY_BYTES);
        bencher.iter(|| push_batch(&mut writer));
    });
    group.finish();
}

/// One round of a bench with this many readers: a batch is written for all, and read by each.
type Round = Box<dyn FnMut()>;
/// Makes one for so many readers.
type MakeRound = fn(usize) -> Round;

fn round_of_copies(readers: usize) -> Round {
    let mut there = vec![Vec::<u8>::new(); readers];
    let mut back = there.clone();
    Box::new(move || {
        there.iter_mut().for_each(Vec::clear);
        for tag in 0..BATCH_ENTRIES {
            for there in &mut there {
                there.extend_from_slice(&black_box(tag).to_le_bytes());
                there.extend_from_slice(&black_box(tag).to_le_bytes());
                there.extend_from_slice(black_box(&PAYLOAD));
            }
        }
        for (there, back) in there.iter().zip(&mut back) {
            back.clear();
            back.extend_from_slice(black_box(there));
        }
    })
}

fn round_of_rings(readers: usize) -> Round {
    let (mut writers, mut readers): (Vec<_>, Vec<_>) = (0..readers).map(|_| ring(CAPACITY_BYTES)).unzip();
    let mut batch = Batch::default();
    Box::new(move || {
        for tag in 0..BATCH_ENTRIES {
            writers.iter_mut().for_each(|writer| writer.push(black_box(tag), black_box(&PAYLOAD)));
        }
        writers.iter_mut().for_each(Writer::publish);
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
        for tag in 0..BATCH_ENTRIES {
            for producer in &mut producers {
                producer.push((black_box(tag), *black_box(&PAYLOAD))).expect("popped after each batch");
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
        for tag in 0..BATCH_ENTRIES {
            for queue in &queues {
                queue.push((black_box(tag), *black_box(&PAYLOAD))).expect("popped after each batch");
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

fn readers_in_turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/readers_in_turns");
    let rounds: [(&str, MakeRound); 5] = [
        ("floor", round_of_copies),
        ("ring", round_of_rings),
        ("rtrb", round_of_rtrb),
        ("rtrb_in_chunks", round_of_rtrb_chunks),
        ("array_queue", round_of_array_queues),
    ];
    for readers in 1..=READERS_MAX {
        group.throughput(Throughput::Elements(BATCH_ENTRIES * readers as u64));
        for (name, round) in rounds {
            group.bench_function(BenchmarkId::new(name, readers), |bencher| bencher.iter(round(readers)));
        }
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
            reader.read(READ_BYTES_MAX, &mut batch).expect("the producer heeds the gauge");
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
            for tag in 0..batches * BATCH_ENTRIES {
                while queue.push((black_box(tag), *black_box(&PAYLOAD))).is_err() {
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
            let there = consumer.slots().min(READ_BYTES_MAX / ENTRY_BYTES);
            batch.extend(consumer.read_chunk(there).expect("so many are there"));
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

fn history(criterion: &mut Criterion) {
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
                let wanted = |tag: u64, _first: u64| (tag + 1).is_multiple_of(every);
                reader.history(0..reader.position(), usize::MAX, wanted, &mut batch).expect("nothing was overwritten")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, writing, readers_in_turns, two_threads, history);
criterion_main!(benches);
