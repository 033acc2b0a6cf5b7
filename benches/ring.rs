//! What the ring costs: pushing, publishing and reading quotes, on one thread and across two, and skipping history.
//!
//! Method: batches of 64 entries with 64 payload bytes, as the sequencer makes them under load; the figure is the time
//! of one entry. `floor` copies the same bytes into a vector and out of it. Beside it stands crossbeam's `ArrayQueue`,
//! which moves whole values, one at a time, and keeps no history. Across threads both producers wait for room, so that
//! every entry arrives, and both readers yield where there is none; the figure counts only where two cores are free.
//! What is not measured: the wake of a sleeping reader, and a reader that is lapped.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use tickcast::ring::{Batch, HEADER_BYTES, Writer, ring};

const PAYLOAD: [u8; 64] = [0x5a; 64];
const ENTRY_BYTES: usize = HEADER_BYTES + PAYLOAD.len();
const BATCH_ENTRIES: u64 = 64;
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

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/one_thread");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    group.bench_function("floor", |bencher| {
        let (mut there, mut back) = (Vec::<u8>::new(), Vec::<u8>::new());
        bencher.iter(|| {
            there.clear();
            back.clear();
            for tag in 0..BATCH_ENTRIES {
                there.extend_from_slice(&black_box(tag).to_le_bytes());
                there.extend_from_slice(&black_box(tag).to_le_bytes());
                there.extend_from_slice(black_box(&PAYLOAD));
            }
            back.extend_from_slice(black_box(&there));
        });
    });
    group.bench_function("push_publish", |bencher| {
        let (mut writer, _reader) = ring(CAPACITY_BYTES);
        bencher.iter(|| push_batch(&mut writer));
    });
    group.bench_function("push_publish_read", |bencher| {
        let (mut writer, mut reader) = ring(CAPACITY_BYTES);
        let mut batch = Batch::default();
        bencher.iter(|| {
            push_batch(&mut writer);
            batch.clear();
            reader.read(READ_BYTES_MAX, &mut batch).expect("read after each batch");
            assert_eq!(batch.entries.len() as u64, BATCH_ENTRIES);
        });
    });
    group.bench_function("array_queue", |bencher| {
        let queue = ArrayQueue::<Queued>::new(QUEUE_ENTRIES);
        let mut batch = Vec::new();
        bencher.iter(|| {
            for tag in 0..BATCH_ENTRIES {
                queue.push((black_box(tag), *black_box(&PAYLOAD))).expect("popped after each batch");
            }
            batch.clear();
            while let Some(value) = queue.pop() {
                batch.push(value);
            }
        });
    });
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

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/two_threads");
    group.throughput(Throughput::Elements(BATCH_ENTRIES));
    group.bench_function("ring", |bencher| bencher.iter_custom(ring_across));
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
                reader.history(0, usize::MAX, wanted, &mut batch).expect("nothing was overwritten")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, one_thread, two_threads, history);
criterion_main!(benches);
