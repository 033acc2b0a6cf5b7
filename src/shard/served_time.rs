//! The time that a shard has served. Deadlines of clients are counted in it.
//!
//! It follows the clock, but from one look to the next it advances by [`STEP_NS_MAX`] at most. A shard that was not run
//! for longer (its core was taken away, a tick took very long, the process was stopped) has not read what its clients
//! sent meanwhile, and what it missed is no client's silence. So a pause of any length costs a client two seconds of its
//! deadlines.
//!
//! A shard with clients looks ten times a second, and every shard twice a second as the server wakes it.

/// The most by which the time advances at once.
pub(super) const STEP_NS_MAX: u64 = 2_000_000_000;

/// Translates the clock into the time served. Both are ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServedTime {
    /// The clock at the last look; 0 before the first.
    seen_ns: u64,
    /// The clock minus the time served.
    lost_ns: u64,
}

impl ServedTime {
    /// The time served when the clock is at `now_ns`. A clock that goes back counts as one that stands.
    pub(super) fn look(&mut self, now_ns: u64) -> u64 {
        let now_ns = now_ns.max(self.seen_ns);
        if self.seen_ns > 0 {
            self.lost_ns += (now_ns - self.seen_ns).saturating_sub(STEP_NS_MAX);
        }
        self.seen_ns = now_ns;
        now_ns - self.lost_ns
    }

    /// The clock minus the time served.
    pub(super) fn lost_ns(&self) -> u64 {
        self.lost_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn only_a_step_of_a_pause_counts() {
        let mut time = ServedTime::default();
        assert_eq!(time.look(1_700_000_000 * S), 1_700_000_000 * S, "the first look is no pause");
        let mut at = |ns: u64| time.look(1_700_000_000 * S + ns) - 1_700_000_000 * S;
        assert_eq!([at(2 * S), at(3 * S), at(53 * S), at(54 * S)], [2 * S, 3 * S, 5 * S, 6 * S]);
        assert_eq!([at(50 * S), at(54 * S), at(55 * S)], [6 * S, 6 * S, 7 * S], "back and forth");
        assert_eq!(time.lost_ns(), 48 * S);
    }
}
