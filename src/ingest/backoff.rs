//! How long a failed source waits before it is opened again: exponential back-off with full jitter.
//!
//! The window doubles with each failure in a row, and the pause is uniform over the whole window. So many servers that
//! lost one broker do not come back to it in step, which a fixed pause, or one with a little jitter, makes them do.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// The windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackoffSettings {
    /// Of the first failure.
    pub(super) first: Duration,
    pub(super) max: Duration,
    /// A source that ran this long before it failed starts with the first window again.
    pub(super) reset_after: Duration,
}

/// The back-off of one source.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: BackoffSettings,
    window: Duration,
    random: Pcg64Mcg,
}

impl Backoff {
    pub(super) fn new(settings: BackoffSettings, seed: u64) -> Self {
        Self { settings, window: settings.first, random: Pcg64Mcg::seed_from_u64(seed) }
    }

    /// The pause after a failure of a source that ran for so long: from `least` to `least` and the window.
    pub(super) fn pause(&mut self, ran: Duration, least: Duration) -> Duration {
        if ran >= self.settings.reset_after {
            self.window = self.settings.first;
        }
        let window = self.window;
        self.window = (window * 2).min(self.settings.max);
        // The bias of the product is below 2^-32 of the window.
        let share = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        least.saturating_add(window.mul_f64(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BackoffSettings = BackoffSettings {
        first: Duration::from_secs(1),
        max: Duration::from_secs(30),
        reset_after: Duration::from_secs(60),
    };
    const SHORT: Duration = Duration::from_secs(59);

    fn pauses(seed: u64) -> Vec<Duration> {
        let mut backoff = Backoff::new(SETTINGS, seed);
        (0..8).map(|_| backoff.pause(SHORT, Duration::ZERO)).collect()
    }

    #[test]
    fn windows_double_to_the_maximum_and_pauses_fill_them() {
        let windows = [1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs);
        let mut low = [0; 8];
        let mut high = [0; 8];
        for seed in 0..1000 {
            for (nth, (pause, window)) in pauses(seed).into_iter().zip(windows).enumerate() {
                assert!(pause <= window, "seed {seed}: {pause:?} after {} failures", nth + 1);
                low[nth] += u32::from(pause < window / 10);
                high[nth] += u32::from(pause > window * 9 / 10);
            }
        }
        // A tenth of each, with six standard deviations.
        for count in low.into_iter().chain(high) {
            assert!((43..=157).contains(&count), "{low:?} {high:?}");
        }
    }

    #[test]
    fn same_seed_gives_the_same_pauses() {
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn stable_run_starts_with_the_first_window() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(SETTINGS, seed);
            for _ in 0..6 {
                backoff.pause(SHORT, Duration::ZERO);
            }
            assert!(backoff.pause(SETTINGS.reset_after, Duration::ZERO) <= SETTINGS.first, "seed {seed}");
        }
    }

    #[test]
    fn pause_that_the_other_side_asked_for_comes_before_the_jitter() {
        let least = Duration::from_secs(120);
        let mut longest = Duration::ZERO;
        for seed in 0..100 {
            let pause = Backoff::new(SETTINGS, seed).pause(SHORT, least);
            assert!((least..=least + SETTINGS.first).contains(&pause), "seed {seed}: {pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest > least + SETTINGS.first / 2, "{longest:?}");
    }
}
