//! A rate limiter: permits at a rate, with a burst of a tenth of a second. A caller that is too early gets the time to
//! wait.
//!
//! It holds one timestamp and no queue: the caller waits by itself.

use std::time::Duration;

/// The burst, as a part of a second: 1/10 of a second's permits may be taken at once.
const BURST: u64 = 10;

/// Permits at a rate, one after another. The rate is an argument, as it may change at any time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimiter {
    /// When the permit after the last one is due, ns.
    next_ns: u64,
}

impl RateLimiter {
    /// Takes the next permit if it is due within `wait_max`. Returns the time to wait for it; as an error, without a
    /// permit, if that exceeds `wait_max`. A rate of 0 is no limit.
    pub fn take(&mut self, per_second: u32, now_ns: u64, wait_max: Duration) -> Result<Duration, Duration> {
        self.take_many(1, per_second, now_ns, wait_max)
    }

    /// Takes `permits` at once: the wait is that for the first of them, and the next caller waits for all.
    pub fn take_many(
        &mut self,
        permits: u64,
        per_second: u32,
        now_ns: u64,
        wait_max: Duration,
    ) -> Result<Duration, Duration> {
        let Some(step_ns) = 1_000_000_000u64.checked_div(per_second.into()) else { return Ok(Duration::ZERO) };
        // Permits that were not used lately may be used at once, up to the burst.
        let burst_ns = (1_000_000_000 / BURST).max(step_ns) - step_ns;
        let permit_ns = self.next_ns.max(now_ns.saturating_sub(burst_ns));
        let wait = Duration::from_nanos(permit_ns.saturating_sub(now_ns));
        if wait > wait_max {
            return Err(wait);
        }
        self.next_ns = permit_ns + permits * 1_000_000_000 / u64::from(per_second);
        Ok(wait)
    }

    /// True if earlier permits no longer matter: a new limiter would behave the same.
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
    fn burst_is_immediate_then_permits_wait_then_are_refused() {
        let mut limiter = RateLimiter::default();
        let taken: Vec<_> = (0..40).map(|_| limiter.take(100, SECOND, MOST)).collect();
        let wait = |nth: u64| Duration::from_millis(10 * nth);
        assert!(taken[..10].iter().all(|taken| *taken == Ok(Duration::ZERO)), "{taken:?}");
        assert_eq!(taken[10..30], (1..=20).map(|nth| Ok(wait(nth))).collect::<Vec<_>>());
        assert!(taken[30..].iter().all(|taken| *taken == Err(wait(21))), "a refused caller takes no permit");
        assert_eq!(limiter.take(100, SECOND + 210_000_000, MOST), Ok(Duration::ZERO));
    }

    #[test]
    fn rate_of_0_is_no_limit_and_rate_of_1_permits_one() {
        let mut limiter = RateLimiter::default();
        assert!((0..1000).all(|_| limiter.take(0, SECOND, Duration::ZERO) == Ok(Duration::ZERO)));
        assert_eq!(limiter.take(1, SECOND, Duration::ZERO), Ok(Duration::ZERO));
        assert_eq!(limiter.take(1, SECOND, Duration::ZERO), Err(Duration::from_secs(1)));
        assert!(!limiter.is_idle(2 * SECOND) && limiter.is_idle(3 * SECOND));
    }
}
