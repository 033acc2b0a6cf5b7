//! When to reconnect: full jitter, so that many clients that lose their connections at once do not return at once.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The waits between reconnect attempts. Attempt `n` waits a random time from 0 to `initial × 2^n`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first attempt.
    pub initial: Duration,
    /// The longest wait before any attempt.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(250), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before attempt `attempt`, counted from 0; never shorter than `requested`, the server's own wish.
    pub fn wait(&self, attempt: u32, requested: Duration, random: &mut impl Rng) -> Duration {
        requested + self.longest(attempt).mul_f64(random.random_range(0.0..1.0))
    }

    /// The longest wait before attempt `attempt`.
    pub(crate) fn longest(&self, attempt: u32) -> Duration {
        self.initial.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn waits_are_uniform_in_a_doubling_range() {
        let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(8) };
        let mut random = Pcg64Mcg::seed_from_u64(1);
        for (attempt, ceiling) in [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 8.0), (40, 8.0), (u32::MAX, 8.0)] {
            let waits: Vec<f64> =
                (0..500).map(|_| backoff.wait(attempt, Duration::ZERO, &mut random).as_secs_f64()).collect();
            let (least, most) =
                (waits.iter().copied().fold(f64::MAX, f64::min), waits.iter().copied().fold(0.0, f64::max));
            assert!(least < ceiling * 0.05 && most > ceiling * 0.95 && most <= ceiling, "{attempt}: {least} to {most}");
        }
    }

    #[test]
    fn a_wait_is_never_shorter_than_requested() {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let requested = Duration::from_secs(3);
        assert!((0..500).all(|_| Backoff::default().wait(0, requested, &mut random) >= requested));
    }
}
