//! The whole core without sockets: feed, sequencer, ring and shard on one thread, stepped by a seed, with virtual time
//! and simulated sockets; an oracle on every client's stream, which tungstenite has parsed.
//!
//! `TICKCAST_SIM_SEED=n` replays one seed, `TICKCAST_SIM_SEEDS=n` runs so many.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod feed;
mod io;
mod oracle;
mod world;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use world::{Plan, World};

/// A seeded source of chance.
#[derive(Debug)]
pub struct Dice(Pcg64Mcg);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.0.next_u64() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True `chances` times in 1024.
    pub fn chance(&mut self, chances: u32) -> bool {
        self.below(1024) < chances
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// What the checks have met: proves that they ran.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub gaps: u64,
    pub conflated: u64,
    pub snapshot_pieces: u64,
    pub heartbeats: u64,
    pub statuses: u64,
    pub pings: u64,
    pub profile_changes: u64,
    pub overruns: u64,
    pub stragglers: u64,
    pub resets: u64,
    pub slow_closed: u64,
    /// Subscriptions that were found whole at rest.
    pub whole: u64,
    /// Frames that came compressed.
    pub compressed: u64,
    /// Values of a conflated subscription whose interval was checked.
    pub calm_values: u64,
}

impl Seen {
    fn numbers(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("gaps", &mut self.gaps),
            ("conflated", &mut self.conflated),
            ("snapshot pieces", &mut self.snapshot_pieces),
            ("heartbeats", &mut self.heartbeats),
            ("statuses", &mut self.statuses),
            ("pings", &mut self.pings),
            ("profile changes", &mut self.profile_changes),
            ("overruns", &mut self.overruns),
            ("stragglers", &mut self.stragglers),
            ("resets", &mut self.resets),
            ("slow closed", &mut self.slow_closed),
            ("whole", &mut self.whole),
            ("compressed frames", &mut self.compressed),
            ("calm values", &mut self.calm_values),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *more;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, plan: Plan) -> (u64, Seen) {
    let mut world = World::new(seed, plan);
    let trace = world.run();
    (trace, world.seen)
}

/// Runs a seed; says how to replay it where it fails.
fn run_or_tell(test: &str, seed: u64, plan: Plan) -> (u64, Seen) {
    std::panic::catch_unwind(|| run(seed, plan)).unwrap_or_else(|panic| {
        eprintln!("seed {seed}: {plan:?}\nreplay: TICKCAST_SIM_SEED={seed} cargo test --test simulation {test}");
        std::panic::resume_unwind(panic)
    })
}

fn seeds(many: u64) -> std::ops::Range<u64> {
    match number("TICKCAST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("TICKCAST_SIM_SEEDS").unwrap_or(many) + 1,
    }
}

#[test]
fn a_client_on_a_calm_day_gets_what_it_asked_for() {
    for seed in seeds(8) {
        run_or_tell("calm", seed, Plan::calm());
    }
}

#[test]
fn every_stream_is_whole_under_any_faults() {
    let mut seen = Seen::default();
    let seeds = seeds(60);
    let enough = seeds.end - seeds.start >= 60;
    for seed in seeds {
        let plan = Plan::of_seed(&mut Dice::new(seed));
        seen.add(&run_or_tell("every_stream", seed, plan).1);
    }
    println!("{seen:?}");
    for (name, number) in seen.numbers() {
        assert!(!enough || *number > 0, "no {name} in any seed: the checks are vacuous");
    }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    for seed in 1..4 {
        let trace = || run(seed, Plan::of_seed(&mut Dice::new(seed))).0;
        assert_eq!(trace(), trace());
    }
}
