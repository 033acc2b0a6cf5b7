//! The time: one clock for timestamps and for deadlines.
//!
//! It is the wall clock at the start of the process plus the monotonic clock since then. When the wall clock steps (it
//! is set, or a virtual machine resumes), this clock does not, so that no deadline fires early and no connection counts
//! as idle. It follows in steps of at most a millisecond each 50 ms ([`steer`]), which no deadline notices. So it can
//! go back by a millisecond. Two clocks would avoid that, but then every tick would have two times that can be
//! confused.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The shortest interval between two calls of [`steer`].
pub const STEER_INTERVAL_NS: u64 = 50_000_000;
/// The largest correction by one call of [`steer`].
const STEP_NS_MAX: i64 = STEER_INTERVAL_NS as i64 / 50;

struct Clock {
    started: Instant,
    /// The wall clock at `started`, ns since the Unix epoch.
    started_ns: u64,
    /// Sum of the corrections since.
    steered_ns: AtomicI64,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(|| Clock { started: Instant::now(), started_ns: wall_ns(), steered_ns: AtomicI64::new(0) })
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The time, ns since the Unix epoch.
pub fn now_ns() -> u64 {
    let clock = clock();
    // Relaxed: the number is read by itself, and orders nothing.
    let steered_ns = clock.steered_ns.load(Ordering::Relaxed);
    (clock.started_ns + clock.started.elapsed().as_nanos() as u64).saturating_add_signed(steered_ns)
}

/// Corrects the time by a step towards the wall clock. One thread of the process calls it.
pub fn steer() {
    // Relaxed: as in `now_ns`.
    clock().steered_ns.fetch_add(step(now_ns(), wall_ns()), Ordering::Relaxed);
}

fn step(now_ns: u64, wall_ns: u64) -> i64 {
    (wall_ns as i64 - now_ns as i64).clamp(-STEP_NS_MAX, STEP_NS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_of_wall_clock_is_followed_slowly() {
        const HOUR_NS: u64 = 3_600_000_000_000;
        assert_eq!(step(10 * HOUR_NS, 9 * HOUR_NS), -1_000_000);
        assert_eq!(step(10 * HOUR_NS, 11 * HOUR_NS), 1_000_000);
        assert_eq!(step(10 * HOUR_NS, 10 * HOUR_NS + 300), 300);
    }

    #[test]
    fn without_steps_it_equals_the_wall_clock() {
        let before = wall_ns();
        steer();
        let now = now_ns();
        assert!(now + 1_000_000_000 > before && now < wall_ns() + 1_000_000_000);
    }
}
