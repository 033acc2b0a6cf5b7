//! What the shard costs above the kernel: sweeps to many clients, subscribing, conflation.
//!
//! Method: one thread, a real sequencer and ring before the shard, and behind it an `Io` that takes every send and does
//! nothing with it. So the figures are all of user space: number, encode, ring, drain, audiences, packets, the list of
//! sends. `no client` is the floor: the same ticks with nobody to send to. Time is an argument, and goes on by a
//! microsecond a sweep, so that heartbeats and pings hardly ever fall into it.
//!
//! Not measured: the kernel's 4 to 7 µs a send, full sockets and catching up, sleeping and waking, cold caches; the
//! million clients are larger than any cache, and say what memory costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;
use tickcast::io::{Completion, Completions, Io, Seat, Send, Short};
use tickcast::market::Instrument;
use tickcast::market::record::{self, Header, Kind, Quote};
use tickcast::ring::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Settings, Shard};
use tickcast::ws::frame::{Opcode, push_masked_frame};

const RING_BYTES: usize = 64 << 20;
const SWEEP_NS: u64 = 1_000;
const START_NS: u64 = 1_763_700_000_000_000_000;

/// A kernel that takes everything at once.
#[derive(Default)]
struct NullIo {
    /// Input that the next reaps deliver.
    inbox: Vec<(Seat, Vec<u8>)>,
    sends: u64,
}

impl Io for NullIo {
    fn send_batch(&mut self, bytes: &[u8], sends: &[Send], _short: &mut Vec<Short>) {
        black_box(bytes);
        self.sends += black_box(sends).len() as u64;
    }

    fn receive(&mut self, _seat: Seat) {}

    fn want_writable(&mut self, _seat: Seat) {}

    fn close(&mut self, seat: Seat) {
        panic!("no client of a bench is to be closed, but {seat:?} is");
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        let from = self.inbox.len().saturating_sub(completions_max);
        for (seat, bytes) in self.inbox.drain(from..) {
            let (start, len) = (out.input.len() as u32, bytes.len() as u32);
            out.input.extend_from_slice(&bytes);
            out.list.push(Completion::Received { seat, start, len, more: false });
        }
    }
}

fn symbol(instrument: u32) -> String {
    format!("S{instrument:05}")
}

fn subscribe(symbols: &[String], conflate_ms: u32) -> Vec<u8> {
    let names = serde_json::to_string(symbols).expect("names are text");
    let request = format!(
        r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":{names},"conflate_ms":{conflate_ms},"snapshot":false}}"#
    );
    let mut frame = Vec::new();
    push_masked_frame(Opcode::Text, request.as_bytes(), [1, 2, 3, 4], &mut frame);
    frame
}

/// A sequencer, its ring, a shard, and the clock that they are told.
struct Node {
    sequencer: Sequencer,
    shard: Shard<NullIo>,
    now_ns: u64,
    batch: Vec<u8>,
    quotes: u64,
}

impl Node {
    fn new(instruments: u32) -> Self {
        let (writer, reader) = ring(RING_BYTES);
        let never = u32::MAX;
        let settings = Settings {
            ping_interval_ms: never,
            idle_timeout_ms: never,
            slow_timeout_ms: never,
            requests_per_s: 1_000_000,
            turn_bytes_max: RING_BYTES,
            ..Settings::default()
        };
        let mut node = Self {
            sequencer: Sequencer::new(vec![writer], instruments as usize),
            shard: Shard::new(settings, NullIo::default(), reader),
            now_ns: START_NS,
            batch: Vec::new(),
            quotes: 0,
        };
        for id in 1..=instruments {
            record::encode_definition(&Instrument::new(id, &symbol(id), "bench", -2, -2), &mut node.batch);
        }
        node.sweep();
        node.settle();
        node
    }

    /// As many clients, each with its own request.
    fn with_clients(instruments: u32, clients: u32, mut request: impl FnMut(u32) -> Vec<u8>) -> Self {
        let mut node = Self::new(instruments);
        for slot in 0..clients {
            node.shard.open(Seat { slot, generation: 0 }, &[], &request(slot), node.now_ns);
        }
        node.settle();
        node
    }

    fn quote(&mut self, instrument: u32) {
        self.quotes += 1;
        let px = 10_000 + (self.quotes % 100) as i64;
        let quote = Quote { bid_px: px, bid_sz: 100, ask_px: px + 1, ask_sz: 200 };
        quote.encode(&Header::of_feed(Kind::Quote, instrument, self.now_ns), &mut self.batch);
    }

    /// Sequences what has gathered and sends it out.
    fn sweep(&mut self) {
        self.now_ns += SWEEP_NS;
        self.sequencer.accept(0, &mut self.batch, self.now_ns);
        self.batch.clear();
        self.shard.turn(self.now_ns);
    }

    fn settle(&mut self) {
        while self.shard.turn(self.now_ns) || !self.shard.io().inbox.is_empty() {}
    }

    /// Sends of one sweep.
    fn sends_of(&mut self, sweep: impl FnOnce(&mut Self)) -> u64 {
        let before = self.shard.io().sends;
        sweep(self);
        self.shard.io().sends - before
    }
}

/// A quote to everybody, the same bytes for all.
fn one_audience(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/one audience, a quote a sweep");
    for (name, clients) in [("no client", 0), ("100", 100), ("10,000", 10_000), ("1,000,000", 1_000_000)] {
        let request = subscribe(&["*".to_owned()], 0);
        let mut node = Node::with_clients(100, clients, |_| request.clone());
        let sweep = |node: &mut Node| {
            node.quote(7);
            node.sweep();
        };
        assert_eq!(node.sends_of(sweep), u64::from(clients), "every client gets every sweep");
        group.throughput(Throughput::Elements(u64::from(clients.max(1))));
        group.bench_function(name, |bencher| bencher.iter(|| sweep(&mut node)));
    }
    group.finish();
}

/// Everybody an audience of one.
fn one_symbol_each(criterion: &mut Criterion) {
    const CLIENTS: u32 = 10_000;
    const QUOTES: u32 = 1_000;
    let mut node = Node::with_clients(CLIENTS, CLIENTS, |slot| subscribe(&[symbol(slot + 1)], 0));
    let mut next = 0;
    let mut sweep = |node: &mut Node| {
        for _ in 0..QUOTES {
            next = (next + 7) % CLIENTS;
            node.quote(next + 1);
        }
        node.sweep();
    };
    assert_eq!(node.sends_of(&mut sweep), u64::from(QUOTES));
    let mut group = criterion.benchmark_group("shard/10,000 clients with a symbol each");
    group.throughput(Throughput::Elements(u64::from(QUOTES)));
    group.bench_function("1,000 quotes a sweep", |bencher| bencher.iter(|| sweep(&mut node)));
    group.finish();
}

/// Interests that overlap, none like another.
fn watchlists(criterion: &mut Criterion) {
    const CLIENTS: u32 = 5_000;
    const INSTRUMENTS: u32 = 1_000;
    const WATCHED: usize = 50;
    const QUOTES: u32 = 100;
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut node = Node::with_clients(INSTRUMENTS, CLIENTS, |_| {
        let watched = sample(&mut random, INSTRUMENTS as usize, WATCHED);
        subscribe(&watched.iter().map(|index| symbol(index as u32 + 1)).collect::<Vec<_>>(), 0)
    });
    let mut next = 0;
    let mut sweep = |node: &mut Node| {
        for _ in 0..QUOTES {
            next = (next + 7) % INSTRUMENTS;
            node.quote(next + 1);
        }
        node.sweep();
    };
    assert!(node.sends_of(&mut sweep) > u64::from(CLIENTS) * 9 / 10, "nearly every list holds one of 100 symbols");
    let mut group = criterion.benchmark_group("shard/5,000 watchlists of 50 of 1,000");
    group.throughput(Throughput::Elements(u64::from(QUOTES) * u64::from(CLIENTS) * WATCHED as u64 / 1_000));
    group.bench_function("100 quotes a sweep, a record delivered", |bencher| bencher.iter(|| sweep(&mut node)));
    group.finish();
}

/// The time in which 10,000 clients subscribe to one symbol more, again and again up to 100 each.
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
                (Seat { slot, generation: 0 }, request)
            });
            node.shard.io_mut().inbox = inbox.collect();
            // Four seconds later, so that the limit of requests does not count.
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

/// A tenth of a second: ten batches of a thousand quotes, one client that wants all symbols.
fn conflation(criterion: &mut Criterion) {
    const INSTRUMENTS: u32 = 1_000;
    const BATCHES: u64 = 10;
    let mut group = criterion.benchmark_group("shard/conflation, 10 x 1,000 quotes in 100 ms");
    group.throughput(Throughput::Elements(BATCHES * u64::from(INSTRUMENTS)));
    for (name, conflate_ms) in [("every update", 0), ("100 ms", 100)] {
        let request = subscribe(&["*".to_owned()], conflate_ms);
        let mut node = Node::with_clients(INSTRUMENTS, 1, |_| request.clone());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCHES {
                    node.now_ns += 10_000_000;
                    (1..=INSTRUMENTS).for_each(|id| node.quote(id));
                    node.sweep();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, one_audience, one_symbol_each, watchlists, subscribing, conflation);
criterion_main!(benches);
