//! At most so many lines a second of each place of the code, so that a loop that logs neither fills a disk nor hides the
//! other lines.
//!
//! What does not hold: places whose addresses have one hash share their limit. With some hundred places and 1024 counters
//! that is seldom, and drops lines rather than passing too many.
//!
//! Cost: an atomic addition for each line; nothing for a line that the filter refuses.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::{Cause, DROPPED};
use crate::clock;

const COUNTERS: usize = 1024;

/// Counts the lines of each place in the present second.
#[derive(Debug)]
pub(super) struct LineLimit {
    /// 0 for no limit.
    lines_per_s: AtomicU32,
    hasher: RandomState,
    /// The second in the upper half, the lines of that second in the lower one.
    counters: Box<[AtomicU64]>,
}

// Relaxed, in all of these: each number is read by itself and orders nothing.
impl LineLimit {
    pub(super) fn new(lines_per_s: u32) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self { lines_per_s: AtomicU32::new(lines_per_s), hasher: RandomState::new(), counters }
    }

    pub(super) fn set(&self, lines_per_s: u32) {
        self.lines_per_s.store(lines_per_s, Ordering::Relaxed);
    }

    /// True if the place may log one more line now.
    fn admit(&self, place: &Identifier, now_ns: u64) -> bool {
        let most = self.lines_per_s.load(Ordering::Relaxed);
        if most == 0 {
            return true;
        }
        let counter = &self.counters[self.hasher.hash_one(place) as usize % COUNTERS];
        let second = (now_ns / 1_000_000_000) << 32;
        let next = |held: u64| {
            let count = if held & !u64::from(u32::MAX) == second { held & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(most)).then_some(second | (count + 1))
        };
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Drops the lines beyond the limit before they are formatted.
pub(super) struct LimitLayer(pub(super) Arc<LineLimit>);

impl<S: Subscriber> Layer<S> for LimitLayer {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let is_admitted = self.0.admit(&event.metadata().callsite(), clock::now_ns());
        if !is_admitted {
            DROPPED.add(Cause::Rate);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;
    use tracing::subscriber::Interest;

    use super::*;

    struct Place;

    impl Callsite for Place {
        fn set_interest(&self, _interest: Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("the limit reads the identity only")
        }
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_place_logs_so_many_lines_in_each_second() {
        static PLACE: Place = Place;
        let place = Identifier(&PLACE);
        let limit = LineLimit::new(3);
        let admitted = |from_ns: u64| (0..100).filter(|nth| limit.admit(&place, from_ns + nth)).count();
        assert_eq!([admitted(7 * S), admitted(8 * S - 200), admitted(8 * S), admitted(60 * S)], [3, 0, 3, 3]);
        limit.set(50);
        assert_eq!(admitted(60 * S), 47, "a new limit holds at once");
        limit.set(0);
        assert_eq!(admitted(60 * S), 100);
    }

    #[test]
    fn a_second_that_ends_in_zero_bits_is_no_second_of_the_past() {
        static PLACE: Place = Place;
        let limit = LineLimit::new(1);
        assert!(limit.admit(&Identifier(&PLACE), 0));
        assert!(!limit.admit(&Identifier(&PLACE), 0));
    }
}
