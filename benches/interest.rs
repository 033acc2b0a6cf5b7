//! The cost of the subscription index: subscribing, changing, unsubscribing, and finding the audiences of a record.
//!
//! Method: one thread, `shard::subscription_index` alone, quotes only. The index has 10,000 instruments and 10,000
//! audiences of ten symbols each, so that tables have a realistic size and caches miss. Requests are timed in batches
//! of a thousand clients, which are added before and removed after the timed part; the sets of every client are then
//! counted. The floor of subscribing pushes the same keys into a vector and the client into as many lists, and removes
//! them again; the floor of a match reads as many audience numbers from one list.
//!
//! Not measured: parsing and answering the request (`shard.rs` measures the whole), the members of an audience, and the
//! records that are gathered for them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;
use tickcast::shard::Encoding;
use tickcast::shard::subscription_index::{AudienceId, Change, Key, SubscriptionIndex, Target};
use tickcast_protocol::{Channel, ConflationInterval};

const INSTRUMENTS: u32 = 10_000;
const RESIDENT: u32 = 10_000;
const BATCH: u32 = 1_000;
/// Symbols of a long list.
const MANY: u32 = 100;
/// The client whose list of [`MANY`] symbols is the audience of [`shared`]; no client of a batch.
const SHARED: u32 = 5_000;

fn symbol(instrument: u32) -> String {
    format!("S{instrument:05}")
}

fn key(target: Target) -> Key {
    Key::new(target, Channel::Quote)
}

/// The names of all instruments are interned once, in order.
fn name_of(instrument: u32) -> Target {
    Target::Name(instrument - 1)
}

fn want(instrument: u32) -> Change {
    Change::Want(key(name_of(instrument)), ConflationInterval::IMMEDIATE)
}

fn want_pattern(interest: &mut SubscriptionIndex, prefix: &str) -> Change {
    Change::Want(key(interest.intern_prefix(prefix)), ConflationInterval::IMMEDIATE)
}

/// The symbol at this index of a client's list: scattered, and no two clients of a batch have the same list.
fn scattered(client: u32, index: u32) -> u32 {
    (client * 7 + index * 97) % INSTRUMENTS + 1
}

fn many(client: u32) -> Vec<Change> {
    (0..MANY).map(|index| want(scattered(client, index))).collect()
}

fn with_instruments(instruments: u32) -> SubscriptionIndex {
    let mut interest = SubscriptionIndex::default();
    for id in 1..=instruments {
        interest.add_instrument(id, &symbol(id));
        assert_eq!(interest.intern_name(&symbol(id)), name_of(id), "names are numbered in order");
    }
    interest
}

fn join(interest: &mut SubscriptionIndex, changes: &[Change]) -> AudienceId {
    let audience = interest.enter(Encoding::PLAIN);
    interest.change(audience, changes)
}

/// The index with its instruments and resident audiences.
fn resident_index() -> SubscriptionIndex {
    let mut interest = with_instruments(INSTRUMENTS);
    let mut random = Pcg64Mcg::seed_from_u64(1);
    for _ in 0..RESIDENT {
        let watched = sample(&mut random, INSTRUMENTS as usize, 10);
        join(&mut interest, &watched.iter().map(|index| want(index as u32 + 1)).collect::<Vec<_>>());
    }
    assert_eq!(interest.audiences(), RESIDENT as usize, "no two of the resident audiences are alike");
    interest
}

/// The same with an audience that many clients share.
fn shared() -> SubscriptionIndex {
    let mut interest = resident_index();
    join(&mut interest, &many(SHARED));
    interest
}

/// A client of a batch, and the changes that it will request.
struct Staged {
    audience: AudienceId,
    changes: Vec<Change>,
}

impl Staged {
    /// Adds a client with this set, which will request these changes.
    fn new(interest: &mut SubscriptionIndex, set: &[Change], changes: Vec<Change>) -> Self {
        Self { audience: join(interest, set), changes }
    }

    fn subscribe(&self, interest: &mut SubscriptionIndex) -> AudienceId {
        interest.change(self.audience, &self.changes)
    }
}

/// The time in which so many clients do `work`, which returns their audience. All are removed afterwards, untimed.
fn time_changes(
    clients: u64,
    interest: &mut SubscriptionIndex,
    items_after: usize,
    mut stage: impl FnMut(&mut SubscriptionIndex, u32) -> Staged,
    mut work: impl FnMut(&mut SubscriptionIndex, u32, &Staged) -> AudienceId,
) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = clients;
    while left > 0 {
        let batch = left.min(BATCH.into()) as u32;
        let mut staged: Vec<Staged> = (0..batch).map(|client| stage(interest, client)).collect();
        let start = Instant::now();
        for (client, staged) in (0..).zip(&mut staged) {
            staged.audience = work(interest, client, staged);
        }
        took += start.elapsed();
        for Staged { audience, .. } in staged {
            assert_eq!(interest.items(audience), items_after, "a client's set after its request");
            interest.leave(audience);
        }
        interest.maintain(&mut { usize::MAX });
        left -= u64::from(batch);
    }
    took
}

/// The time in which so many clients are removed, each with such a set.
fn time_leaving(clients: u64, interest: &mut SubscriptionIndex, set: impl Fn(u32) -> Vec<Change>) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = clients;
    while left > 0 {
        let batch = left.min(BATCH.into()) as u32;
        let audiences: Vec<AudienceId> = (0..batch).map(|client| join(interest, &set(client))).collect();
        let resident = interest.audiences();
        let start = Instant::now();
        audiences.into_iter().for_each(|audience| interest.leave(audience));
        interest.maintain(&mut { usize::MAX });
        took += start.elapsed();
        assert!(interest.audiences() <= resident, "removing a client creates no audience");
        left -= u64::from(batch);
    }
    took
}

fn subscribing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/subscribe");
    for (name, symbols) in [("one symbol", 1), ("100 symbols", MANY)] {
        let mut lists = vec![Vec::<AudienceId>::with_capacity(64); INSTRUMENTS as usize];
        group.bench_function(BenchmarkId::new("floor: push", name), |bencher| {
            let wanted: Vec<u32> = (0..symbols).map(|index| scattered(SHARED, index) - 1).collect();
            bencher.iter(|| {
                let mut keys = Vec::new();
                for instrument in black_box(&wanted) {
                    keys.push(u64::from(*instrument));
                    lists[*instrument as usize].push(black_box(7));
                }
                for instrument in &wanted {
                    lists[*instrument as usize].pop();
                }
                keys
            });
        });
        group.bench_function(BenchmarkId::new("a set of its own", name), |bencher| {
            let mut interest = resident_index();
            let stage = |interest: &mut SubscriptionIndex, client| {
                Staged::new(interest, &[], many(client).into_iter().take(symbols as usize).collect())
            };
            bencher.iter_custom(|clients| {
                let work = |interest: &mut SubscriptionIndex, _, staged: &Staged| staged.subscribe(interest);
                time_changes(clients, &mut interest, symbols as usize, stage, work)
            });
        });
    }
    group.bench_function("a set that others have/100 symbols", |bencher| {
        let mut interest = shared();
        let stage = |interest: &mut SubscriptionIndex, _| Staged::new(interest, &[], many(SHARED));
        bencher.iter_custom(|clients| {
            let work = |interest: &mut SubscriptionIndex, _, staged: &Staged| staged.subscribe(interest);
            time_changes(clients, &mut interest, MANY as usize, stage, work)
        });
    });
    // The request finds or creates a pattern; for later clients the set exists already.
    for (name, prefixes) in
        [("a pattern that others have", 1), ("a pattern of its own, which covers one symbol", BATCH)]
    {
        group.bench_function(name, |bencher| {
            let mut interest = resident_index();
            let prefixes: Vec<String> = (1..=prefixes).map(symbol).collect();
            let common = want_pattern(&mut interest, "S0");
            join(&mut interest, &[common]);
            let prefix = |client: u32| if prefixes.len() == 1 { "S0" } else { &prefixes[client as usize] };
            bencher.iter_custom(|clients| {
                let work = |interest: &mut SubscriptionIndex, client, staged: &Staged| {
                    let change = want_pattern(interest, prefix(client));
                    interest.change(staged.audience, &[change])
                };
                time_changes(clients, &mut interest, 1, |interest, _| Staged::new(interest, &[], vec![]), work)
            });
        });
    }
    group.finish();
}

fn changing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/change");
    let work = |interest: &mut SubscriptionIndex, _, staged: &Staged| staged.subscribe(interest);
    group.bench_function("one of 100 symbols for another, alone in its audience", |bencher| {
        let mut interest = resident_index();
        let stage = |interest: &mut SubscriptionIndex, client| {
            let old = Change::Drop(key(name_of(scattered(client, 0))));
            Staged::new(interest, &many(client), vec![old, want(scattered(client, MANY))])
        };
        bencher.iter_custom(|clients| time_changes(clients, &mut interest, MANY as usize, stage, work));
    });
    group.bench_function("one symbol more than the 100 that others have, too", |bencher| {
        let mut interest = shared();
        let had: Vec<u32> = (0..MANY).map(|index| scattered(SHARED, index)).collect();
        let others: Vec<u32> = (1..=INSTRUMENTS).filter(|id| !had.contains(id)).collect();
        let stage = |interest: &mut SubscriptionIndex, client| {
            Staged::new(interest, &many(SHARED), vec![want(others[client as usize])])
        };
        bencher.iter_custom(|clients| time_changes(clients, &mut interest, MANY as usize + 1, stage, work));
    });
    group.finish();
}

fn leaving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/leave");
    group.bench_function("the only one with its one symbol", |bencher| {
        let mut interest = resident_index();
        bencher.iter_custom(|clients| time_leaving(clients, &mut interest, |client| vec![want(scattered(client, 0))]));
        assert_eq!(interest.audiences(), RESIDENT as usize, "audiences without clients are dissolved");
    });
    group.bench_function("the only one with its 100 symbols", |bencher| {
        let mut interest = resident_index();
        bencher.iter_custom(|clients| time_leaving(clients, &mut interest, many));
        assert_eq!(interest.audiences(), RESIDENT as usize, "audiences without clients are dissolved");
    });
    group.bench_function("one of many with the same 100 symbols", |bencher| {
        let mut interest = shared();
        bencher.iter_custom(|clients| time_leaving(clients, &mut interest, |_| many(SHARED)));
        assert_eq!(interest.audiences(), RESIDENT as usize + 1, "the remaining clients keep the audience");
    });
    group.finish();
}

/// An index in which so many audiences want instrument 7, by name, by patterns, or both, and a symbol of their own.
fn watched(audiences: u32, by_name: bool, prefixes: &[&str]) -> SubscriptionIndex {
    let mut interest = with_instruments(2 * INSTRUMENTS);
    for client in 0..audiences {
        let mut set = vec![want(INSTRUMENTS + client + 1)];
        set.extend(by_name.then(|| want(7)));
        set.extend(prefixes.iter().map(|prefix| want_pattern(&mut interest, prefix)));
        join(&mut interest, &set);
    }
    assert_eq!(interest.audiences(), audiences as usize, "every audience has its own set");
    interest
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/match");
    let ways: [(&str, bool, &[&str]); 3] = [
        ("by name", true, &[]),
        ("by two patterns that overlap", false, &["S", "S00"]),
        ("by name and two patterns", true, &["S", "S00"]),
    ];
    for audiences in [1, 250, 10_000] {
        group.throughput(Throughput::Elements(audiences.into()));
        group.bench_function(BenchmarkId::new("floor: one list", audiences), |bencher| {
            let list: Vec<AudienceId> = (0..audiences).collect();
            bencher.iter(|| {
                for audience in black_box(&list) {
                    black_box(*audience);
                }
            });
        });
        for (name, by_name, prefixes) in ways {
            group.bench_function(BenchmarkId::new(name, audiences), |bencher| {
                let interest = watched(audiences, by_name, prefixes);
                let mut count = 0;
                interest.each_watcher(7, Channel::Quote, ConflationInterval::IMMEDIATE, |_| count += 1);
                assert_eq!(count, audiences, "every audience once, however many of its items cover the record");
                bencher.iter(|| {
                    interest.each_watcher(black_box(7), Channel::Quote, ConflationInterval::IMMEDIATE, |audience| {
                        black_box(audience);
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, subscribing, changing, leaving, matching);
criterion_main!(benches);
