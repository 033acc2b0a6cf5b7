//! Whether the shards run: each counts its ticks, and a watch finds those whose count stays the same.
//!
//! A shard sleeps while it has nothing to do. So the owner of the watch wakes all shards before each look: one that answers
//! has ticked until the next look.
//!
//! The watch counts looks and does not read a clock. While the whole process is stopped (SIGSTOP, a pause of the virtual
//! machine) there are no looks, and no shard counts as stalled for it.
//!
//! Cost: a store to a cache line of its own for each tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// The tick counts of all shards, and which shards are stalled.
#[derive(Debug)]
pub struct Heartbeats(Box<[CachePadded<Heartbeat>]>);

#[derive(Debug, Default)]
struct Heartbeat {
    ticks: AtomicU64,
    is_stalled: AtomicBool,
}

// Relaxed, in all of these: each number is read by itself and orders nothing.
impl Heartbeats {
    /// For this many shards, none of which is stalled.
    pub fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| CachePadded::default()).collect())
    }

    /// Counts a tick. The thread of the shard is the only caller.
    pub fn beat(&self, shard: usize) {
        let ticks = &self.0[shard].ticks;
        ticks.store(ticks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The first shard that is stalled.
    pub fn stalled(&self) -> Option<usize> {
        self.0.iter().position(|shard| shard.is_stalled.load(Ordering::Relaxed))
    }
}

/// Finds stalled shards by looking at their counts again and again. It has one owner.
#[derive(Debug)]
pub struct HeartbeatWatch {
    /// For each shard its count at the last look, and in how many looks it has been the same.
    seen: Vec<(u64, u32)>,
    /// In so many looks.
    looks_max: u32,
}

/// A shard that has stalled, or that runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub shard: usize,
    pub is_stalled: bool,
}

impl HeartbeatWatch {
    /// A shard is stalled once its count has been the same in `looks_max` looks after one another.
    pub fn new(heartbeats: &Heartbeats, looks_max: u32) -> Self {
        Self { seen: vec![(0, 0); heartbeats.0.len()], looks_max }
    }

    /// Looks at all counts, and returns the shards that have changed.
    pub fn look(&mut self, heartbeats: &Heartbeats) -> Vec<Change> {
        let mut changes = Vec::new();
        for (shard, (beats, (ticks, same))) in heartbeats.0.iter().zip(&mut self.seen).enumerate() {
            let now = beats.ticks.load(Ordering::Relaxed);
            *same = if now == *ticks { same.saturating_add(1) } else { 0 };
            *ticks = now;
            let is_stalled = *same >= self.looks_max;
            if beats.is_stalled.swap(is_stalled, Ordering::Relaxed) != is_stalled {
                changes.push(Change { shard, is_stalled });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_stalled_after_so_many_looks_without_a_tick_and_runs_again_after_one() {
        let heartbeats = Heartbeats::new(2);
        let mut watch = HeartbeatWatch::new(&heartbeats, 3);
        for look in 1..=4 {
            heartbeats.beat(1);
            let changes = watch.look(&heartbeats);
            let expected = if look == 3 { vec![Change { shard: 0, is_stalled: true }] } else { vec![] };
            assert_eq!((changes, heartbeats.stalled()), (expected, (look >= 3).then_some(0)), "look {look}");
        }
        heartbeats.beat(0);
        heartbeats.beat(1);
        assert_eq!(watch.look(&heartbeats), [Change { shard: 0, is_stalled: false }]);
        assert_eq!(heartbeats.stalled(), None);
    }

    #[test]
    fn a_shard_that_ticks_between_the_looks_is_never_stalled() {
        let heartbeats = Heartbeats::new(1);
        let mut watch = HeartbeatWatch::new(&heartbeats, 2);
        for look in 0..20 {
            if look % 2 == 0 {
                heartbeats.beat(0);
            }
            assert_eq!(watch.look(&heartbeats), []);
        }
    }
}
