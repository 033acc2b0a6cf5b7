//! The time: one clock for stamps and for deadlines.
//!
//! It is the wall clock's reading at the start plus what the monotonic clock has counted since. A step of the wall clock
//! (somebody sets it, a virtual machine wakes up) is no step here, so that no deadline fires early and no connection is
//! taken for idle; it is made up for in steps of a millisecond, at most one each 50 ms, which a deadline does not notice.
//! So it may go back by a millisecond where the wall clock was set back. Two clocks would keep deadlines exact to that, but
//! then every turn has two times to confuse.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How often [`steer`] is to be called at the most.
pub const STEER_INTERVAL_NS: u64 = 50_000_000;
/// What it makes up for at a time.
const STEP_NS_MAX: i64 = STEER_INTERVAL_NS as i64 / 50;

struct Clock {
    started: Instant,
    /// The wall clock at that moment, ns since the Unix epoch.
    started_ns: u64,
    /// What has been made up for since.
    steered_ns: AtomicI64,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(|| Clock { started: Instant::now(), started_ns: wall_ns(), steered_ns: AtomicI64::new(0) })
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// ns since the Unix epoch.
pub fn now_ns() -> u64 {
    let clock = clock();
    // Relaxed: the number stands for itself.
    let steered_ns = clock.steered_ns.load(Ordering::Relaxed);
    (clock.started_ns + clock.started.elapsed().as_nanos() as u64).saturating_add_signed(steered_ns)
}

/// Brings the time a step nearer to the wall clock. One thread does it.
pub fn steer() {
    clock().steered_ns.fetch_add(step(now_ns(), wall_ns()), Ordering::Relaxed);
}

fn step(now_ns: u64, wall_ns: u64) -> i64 {
    (wall_ns as i64 - now_ns as i64).clamp(-STEP_NS_MAX, STEP_NS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_made_up_for_slowly() {
        const HOUR_NS: u64 = 3_600_000_000_000;
        assert_eq!(step(10 * HOUR_NS, 9 * HOUR_NS), -1_000_000);
        assert_eq!(step(10 * HOUR_NS, 11 * HOUR_NS), 1_000_000);
        assert_eq!(step(10 * HOUR_NS, 10 * HOUR_NS + 300), 300);
    }

    #[test]
    fn it_is_the_wall_clock_where_nobody_steps_that() {
        let before = wall_ns();
        steer();
        let now = now_ns();
        assert!(now + 1_000_000_000 > before && now < wall_ns() + 1_000_000_000);
    }
}
