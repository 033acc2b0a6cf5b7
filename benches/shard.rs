//! The cost of the shard without the kernel: flushes to many clients, subscribing, conflation.
//!
//! Method: one thread, a real sequencer and ring before the shard, and behind it an `Io` that accepts every send and
//! does nothing with it (`node/`). All figures are of user space: numbering, encoding, the ring, audiences, packets,
//! the list of sends. The floor `no client` is the same ticks without a client. Time is an argument and advances by a
//! microsecond a flush, so that heartbeats and pings are rare. A node is created for its first figure.
//!
//! Not measured: the kernel's 4 to 7 µs a send and its memory of a socket, full sockets and catching up, sleeping and
//! waking, cold caches. The million clients exceed every cache, and show the cost of memory.

mod node;

use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use tickcast::io::SlotId;
use tickcast::shard::Encoding;
use tickcast_protocol::ws::deflate::WindowBits;

use self::node::shapes::Shape;
use self::node::{Node, subscribe, symbol};

/// Creates a shape, and checks that a flush reaches the right number of clients.
fn proven(make: impl FnOnce() -> Shape, is_right: impl FnOnce(u64) -> bool) -> Shape {
    let mut shape = make();
    let sends = shape.sent_by(Shape::flush).sends;
    assert!(is_right(sends), "{sends} sends in one flush");
    shape
}

/// A quote to all clients, the same bytes for each.
fn one_audience(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/one audience, a quote a flush");
    for (name, clients) in [("no client", 0), ("100", 100), ("10,000", 10_000), ("1,000,000", 1_000_000)] {
        let mut shape = None;
        let make = || proven(|| Shape::one_audience(clients, 1), |sends| sends == u64::from(clients));
        group.throughput(Throughput::Elements(u64::from(clients.max(1))));
        group.bench_function(name, |bencher| {
            let shape = shape.get_or_insert_with(make);
            bencher.iter(|| shape.flush());
        });
    }
    group.finish();
}

/// The same quotes to a thousand clients, in every encoding: an encoding other than binary is made once for all of
/// them.
fn encodings(criterion: &mut Criterion) {
    const CLIENTS: u32 = 1_000;
    const QUOTES: u32 = 100;
    let mut group = criterion.benchmark_group("shard/one audience of 1,000, 100 quotes a flush");
    group.throughput(Throughput::Elements(u64::from(CLIENTS)));
    for (name, encoding) in [
        ("binary", Encoding::PLAIN),
        ("JSON", Encoding::JSON),
        ("JSON, compressed", Encoding { deflate: Some(WindowBits::MOST), ..Encoding::JSON }),
        ("Server-Sent Events", Encoding::EVENTS),
    ] {
        let mut shape = None;
        let make = || proven(|| Shape::one_audience_as(encoding, CLIENTS, QUOTES), |sends| sends == u64::from(CLIENTS));
        group.bench_function(name, |bencher| {
            let shape = shape.get_or_insert_with(make);
            bencher.iter(|| shape.flush());
        });
    }
    group.finish();
}

/// Each client is an audience of one.
fn one_symbol_each(criterion: &mut Criterion) {
    const CLIENTS: u32 = 10_000;
    const QUOTES: u32 = 1_000;
    let mut group = criterion.benchmark_group("shard/10,000 clients with a symbol each");
    let mut shape = None;
    let make = || proven(|| Shape::one_symbol_each(CLIENTS, CLIENTS, QUOTES), |sends| sends == u64::from(QUOTES));
    group.throughput(Throughput::Elements(u64::from(QUOTES)));
    group.bench_function("1,000 quotes a flush", |bencher| {
        let shape = shape.get_or_insert_with(make);
        bencher.iter(|| shape.flush());
    });
    group.finish();
}

/// Overlapping interests, no two alike.
fn watchlists(criterion: &mut Criterion) {
    const INSTRUMENTS: u32 = 1_000;
    const WATCHED: usize = 50;
    const QUOTES: u32 = 100;
    const CLIENTS: u32 = 5_000;
    let mut group = criterion.benchmark_group("shard/5,000 watchlists of 50 of 1,000");
    let mut shape = None;
    let make = || {
        let nearly_all = |sends| sends > u64::from(CLIENTS) * 9 / 10;
        let make = || Shape::watchlists(CLIENTS, WATCHED, INSTRUMENTS, QUOTES);
        proven(make, nearly_all)
    };
    group.throughput(Throughput::Elements(u64::from(QUOTES) * u64::from(CLIENTS) * WATCHED as u64 / 1_000));
    group.bench_function("100 quotes a flush, a record delivered", |bencher| {
        let shape = shape.get_or_insert_with(make);
        bencher.iter(|| shape.flush());
    });
    group.finish();
}

/// As many audiences as clients, and far more than any cache holds.
fn interests_of_their_own(criterion: &mut Criterion) {
    const INSTRUMENTS: u32 = 10_000;
    const WATCHED: usize = 10;
    const QUOTES: u32 = 1_000;
    const CLIENTS: u32 = 100_000;
    let mut group = criterion.benchmark_group("shard/100,000 watchlists of 10 of 10,000");
    let mut shape = None;
    let make = || {
        // A list of ten misses all of a tenth of the symbols with a probability of 0.9^10, that is 35 %.
        let two_thirds = |sends| (60_000..70_000).contains(&sends);
        let make = || Shape::watchlists(CLIENTS, WATCHED, INSTRUMENTS, QUOTES);
        proven(make, two_thirds)
    };
    group.throughput(Throughput::Elements(u64::from(CLIENTS) * WATCHED as u64 * u64::from(QUOTES) / 10_000));
    group.sample_size(20);
    group.bench_function("1,000 quotes a flush, a record delivered", |bencher| {
        let shape = shape.get_or_insert_with(make);
        bencher.iter(|| shape.flush());
    });
    group.finish();
}

/// The time in which 10,000 clients subscribe to one more symbol, again and again up to 100 each.
fn subscribe_rounds(rounds: u64) -> Duration {
    const CLIENTS: u32 = 10_000;
    const INSTRUMENTS: u32 = 1_000;
    const SYMBOLS: u32 = 100;
    let mut took = Duration::ZERO;
    let mut left = rounds;
    while left > 0 {
        let mut node = Node::with_clients(INSTRUMENTS, CLIENTS, |_| Vec::new());
        for round in 0..left.min(SYMBOLS.into()) as u32 {
            let inbox = (0..CLIENTS).map(|slot| {
                let request = subscribe(&[symbol((slot * 7 + round * 13) % INSTRUMENTS + 1)], 0);
                (SlotId { index: slot, generation: 0 }, request)
            });
            node.shard.io_mut().inbox = inbox.collect();
            // Four seconds later, so that the rate limit of requests does not apply.
            node.now_ns += 4_000_000_000;
            let start = Instant::now();
            node.settle();
            took += start.elapsed();
            left -= 1;
        }
    }
    took
}

fn subscribing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/subscribe");
    group.throughput(Throughput::Elements(10_000)).sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("10,000 clients, one of 100 symbols each", |bencher: &mut Bencher| {
        bencher.iter_custom(subscribe_rounds);
    });
    group.finish();
}

/// A tenth of a second: ten batches of a thousand quotes, and one client that wants all symbols.
fn conflation(criterion: &mut Criterion) {
    const INSTRUMENTS: u32 = 1_000;
    const BATCHES: u64 = 10;
    let mut group = criterion.benchmark_group("shard/conflation, 10 x 1,000 quotes in 100 ms");
    group.throughput(Throughput::Elements(BATCHES * u64::from(INSTRUMENTS)));
    for (name, conflate_ms) in [("every update", 0), ("100 ms", 100)] {
        let mut node = None;
        group.bench_function(name, |bencher| {
            let request = subscribe(&["*".to_owned()], conflate_ms);
            let node = node.get_or_insert_with(|| Node::with_clients(INSTRUMENTS, 1, |_| request.clone()));
            bencher.iter(|| {
                for _ in 0..BATCHES {
                    node.now_ns += 10_000_000;
                    (1..=INSTRUMENTS).for_each(|id| node.quote(id));
                    node.flush();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    one_audience,
    encodings,
    one_symbol_each,
    watchlists,
    interests_of_their_own,
    subscribing,
    conflation
);
criterion_main!(benches);
