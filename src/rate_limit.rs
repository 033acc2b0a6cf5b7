//! How many a second: who comes too early is told how long to wait for its turn.

use std::time::Duration;

/// Part of a second whose share may come at once.
const BURST: u64 = 10;

/// Turns at a rate, one after another. It holds a moment and no queue: who was given a turn waits by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimiter {
    /// When the turn after the last one is, ns.
    next_ns: u64,
}

impl RateLimiter {
    /// Takes the next turn where it is at most `wait_max` away, and says how far; else says how far it would be, and takes
    /// nothing. A rate of 0 is no limit.
    pub fn take(&mut self, per_second: u32, now_ns: u64, wait_max: Duration) -> Result<Duration, Duration> {
        self.take_many(1, per_second, now_ns, wait_max)
    }

    /// The same for `turns` that follow each other: they wait for the first of them.
    pub fn take_many(
        &mut self,
        turns: u64,
        per_second: u32,
        now_ns: u64,
        wait_max: Duration,
    ) -> Result<Duration, Duration> {
        let Some(step_ns) = 1_000_000_000u64.checked_div(per_second.into()) else { return Ok(Duration::ZERO) };
        // What was not used lately may be used at once, up to the burst.
        let burst_ns = (1_000_000_000 / BURST).max(step_ns) - step_ns;
        let turn_ns = self.next_ns.max(now_ns.saturating_sub(burst_ns));
        let wait = Duration::from_nanos(turn_ns.saturating_sub(now_ns));
        if wait > wait_max {
            return Err(wait);
        }
        self.next_ns = turn_ns + turns * 1_000_000_000 / u64::from(per_second);
        Ok(wait)
    }

    /// True where nothing is left of turns that were taken: a new one would be the same.
    pub fn is_idle(&self, now_ns: u64) -> bool {
        self.next_ns <= now_ns.saturating_sub(1_000_000_000 / BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MOST: Duration = Duration::from_millis(200);

    #[test]
    fn a_tenth_of_a_second_comes_at_once_then_turns_are_waited_for_then_refused() {
        let mut limiter = RateLimiter::default();
        let taken: Vec<_> = (0..40).map(|_| limiter.take(100, SECOND, MOST)).collect();
        let wait = |nth: u64| Duration::from_millis(10 * nth);
        assert!(taken[..10].iter().all(|taken| *taken == Ok(Duration::ZERO)), "{taken:?}");
        assert_eq!(taken[10..30], (1..=20).map(|nth| Ok(wait(nth))).collect::<Vec<_>>());
        assert!(taken[30..].iter().all(|taken| *taken == Err(wait(21))), "who is refused takes no turn");
        assert_eq!(limiter.take(100, SECOND + 210_000_000, MOST), Ok(Duration::ZERO));
    }

    #[test]
    fn a_rate_of_0_is_no_limit_and_one_below_the_burst_still_lets_one_through() {
        let mut limiter = RateLimiter::default();
        assert!((0..1000).all(|_| limiter.take(0, SECOND, Duration::ZERO) == Ok(Duration::ZERO)));
        assert_eq!(limiter.take(1, SECOND, Duration::ZERO), Ok(Duration::ZERO));
        assert_eq!(limiter.take(1, SECOND, Duration::ZERO), Err(Duration::from_secs(1)));
        assert!(!limiter.is_idle(2 * SECOND) && limiter.is_idle(3 * SECOND));
    }
}
