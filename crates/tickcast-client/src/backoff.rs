//! When to try again: full jitter, so that the many whom one event has cut off do not come back as one.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Waits between tries: 0 to `first`, then up to twice that, up to `most`, each even in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest of all.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before try `attempt`, from 0, which is no shorter than `asked`: what the server has asked for.
    pub fn wait(&self, attempt: u32, asked: Duration, chance: &mut impl Rng) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX));
        asked + doubled.min(self.most).mul_f64(chance.random_range(0.0..1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn waits_are_even_in_a_range_that_doubles_and_no_shorter_than_asked_for() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(8) };
        let mut chance = Pcg64Mcg::seed_from_u64(1);
        for (attempt, ceiling) in [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 8.0), (40, 8.0), (u32::MAX, 8.0)] {
            let waits: Vec<f64> =
                (0..500).map(|_| backoff.wait(attempt, Duration::ZERO, &mut chance).as_secs_f64()).collect();
            let (least, most) =
                (waits.iter().copied().fold(f64::MAX, f64::min), waits.iter().copied().fold(0.0, f64::max));
            assert!(least < ceiling * 0.05 && most > ceiling * 0.95 && most <= ceiling, "{attempt}: {least} to {most}");
        }
        assert!(backoff.wait(0, Duration::from_secs(3), &mut chance) >= Duration::from_secs(3));
    }
}
