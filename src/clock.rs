//! The time: one clock for deadlines, and one for stamps.
//!
//! * [`now_ns`] is for deadlines. It is the wall clock's reading at the start of the process plus what the monotonic clock
//!   has counted since. It never steps and never goes back, so that no deadline fires early and no connection counts as
//!   idle when the wall clock is set. It does not count while the machine is suspended.
//! * [`wall_ns`] is for stamps, which others compare with their own clocks. It is [`now_ns`] plus an offset that follows
//!   the wall clock: at once where the two differ by more than a second (the clock was set, or the machine was
//!   suspended), and by at most a fiftieth otherwise ([`steer`]), so that small corrections do not turn the order of
//!   stamps by more than 10 ms.
//!
//! Cost: [`now_ns`] reads one clock, [`wall_ns`] two; some 25 ns each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often [`steer`] is to be called.
pub const STEER_INTERVAL: Duration = Duration::from_millis(500);
/// The largest correction by one call of [`steer`]: a fiftieth of its interval.
const SLEW_NS_MAX: i64 = STEER_INTERVAL.as_nanos() as i64 / 50;
/// A difference beyond this is made up for at once.
const STEP_NS_MIN: u64 = 1_000_000_000;
/// At most one line of the log in this time.
const LOG_INTERVAL_NS: u64 = 60_000_000_000;

struct Clock {
    started: Instant,
    /// The wall clock at `started`, ns since the Unix epoch.
    started_ns: u64,
    offset: Offset,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(|| Clock { started: Instant::now(), started_ns: system_ns(), offset: Offset::default() })
}

fn system_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The time for deadlines: ns since the Unix epoch, as the wall clock was at the start of the process.
pub fn now_ns() -> u64 {
    let clock = clock();
    clock.started_ns + clock.started.elapsed().as_nanos() as u64
}

/// The time for stamps, ns since the Unix epoch.
pub fn wall_ns() -> u64 {
    now_ns().saturating_add_signed(wall_offset_ns())
}

/// The time for stamps minus the time for deadlines, ns. A step of the wall clock is followed by this call.
pub fn wall_offset_ns() -> i64 {
    clock().offset.follow(now_ns(), system_ns())
}

/// How often the wall clock was set by more than a second.
pub fn steps() -> u64 {
    // Relaxed: the number orders nothing.
    clock().offset.steps.load(Ordering::Relaxed)
}

/// Corrects the time for stamps towards the wall clock, and logs steps. One thread of the process calls it, each
/// [`STEER_INTERVAL`].
pub fn steer() {
    let offset = &clock().offset;
    offset.slew(now_ns(), system_ns());
    if let Some(Step { steps, offset_ns }) = offset.step_to_log(now_ns()) {
        let offset_s = offset_ns as f64 / 1e9;
        tracing::warn!(
            "the wall clock was set {steps} time(s): stamps followed at once and are {offset_s:+.3} s from the time that \
             deadlines are counted in; is the clock synchronised before the start (time-sync.target)?"
        );
    }
}

/// The difference between the wall clock and the clock of deadlines. Both times are arguments.
#[derive(Debug, Default)]
pub struct Offset {
    ns: AtomicI64,
    steps: AtomicU64,
    logged_steps: AtomicU64,
    /// When the log had the last line; 0 for never.
    logged_ns: AtomicU64,
}

/// Steps that the log has not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Their number.
    pub steps: u64,
    /// The offset after the last of them.
    pub offset_ns: i64,
}

// Relaxed, in all of these: each number is read by itself and orders nothing.
impl Offset {
    /// The offset, after it has followed a step: a difference of more than a second.
    pub fn follow(&self, now_ns: u64, system_ns: u64) -> i64 {
        let (offset_ns, difference_ns) = (self.ns.load(Ordering::Relaxed), difference(now_ns, system_ns));
        if offset_ns.abs_diff(difference_ns) <= STEP_NS_MIN {
            return offset_ns;
        }
        // Of several threads that notice a step at a time, one counts it.
        match self.ns.compare_exchange(offset_ns, difference_ns, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                self.steps.fetch_add(1, Ordering::Relaxed);
                difference_ns
            }
            Err(followed_ns) => followed_ns,
        }
    }

    /// Moves the offset towards the wall clock by at most 10 ms.
    pub fn slew(&self, now_ns: u64, system_ns: u64) {
        let offset_ns = self.follow(now_ns, system_ns);
        let missing_ns = difference(now_ns, system_ns).saturating_sub(offset_ns);
        self.ns.fetch_add(missing_ns.clamp(-SLEW_NS_MAX, SLEW_NS_MAX), Ordering::Relaxed);
    }

    /// The steps since the last line of the log, at most once a minute.
    pub fn step_to_log(&self, now_ns: u64) -> Option<Step> {
        let (steps, logged_ns) = (self.steps.load(Ordering::Relaxed), self.logged_ns.load(Ordering::Relaxed));
        let new = steps - self.logged_steps.load(Ordering::Relaxed);
        if new == 0 || logged_ns != 0 && now_ns.saturating_sub(logged_ns) < LOG_INTERVAL_NS {
            return None;
        }
        self.logged_steps.store(steps, Ordering::Relaxed);
        self.logged_ns.store(now_ns, Ordering::Relaxed);
        Some(Step { steps: new, offset_ns: self.ns.load(Ordering::Relaxed) })
    }
}

/// The wall clock minus the clock of deadlines.
fn difference(now_ns: u64, system_ns: u64) -> i64 {
    system_ns.wrapping_sub(now_ns) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * S;
    const T0: u64 = 1_795_000_000 * S;

    #[test]
    fn a_step_is_followed_at_once_in_both_directions_and_counted() {
        let offset = Offset::default();
        assert_eq!(offset.follow(T0, T0), 0);
        // Set forward, as by NTP after a boot or after a suspend.
        assert_eq!(offset.follow(T0 + S, T0 + S + 7 * HOUR), 7 * HOUR as i64);
        assert_eq!(offset.follow(T0 + 2 * S, T0 + 2 * S + 7 * HOUR), 7 * HOUR as i64);
        // Set back, beyond the start.
        assert_eq!(offset.follow(T0 + 3 * S, T0 - 2 * HOUR), -(2 * HOUR as i64) - 3 * S as i64);
        assert_eq!(offset.steps.load(Ordering::Relaxed), 2);
        // A clock without a battery begins in 1970.
        let fresh = Offset::default();
        assert_eq!(fresh.follow(5 * S, T0), (T0 - 5 * S) as i64);
        assert_eq!(fresh.follow(T0, 0), -(T0 as i64));
    }

    #[test]
    fn a_small_difference_is_made_up_for_slowly_and_is_no_step() {
        for sign in [1, -1] {
            let offset = Offset::default();
            let wall = |now_ns: u64| now_ns.saturating_add_signed(sign * 900_000_000);
            assert_eq!(offset.follow(T0, wall(T0)), 0);
            for call in 1..=90 {
                offset.slew(T0 + call * S / 2, wall(T0 + call * S / 2));
                assert_eq!(offset.follow(T0 + call * S / 2, wall(T0 + call * S / 2)), sign * 10_000_000 * call as i64);
            }
            offset.slew(T0 + 46 * S, wall(T0 + 46 * S));
            assert_eq!(offset.follow(T0 + 46 * S, wall(T0 + 46 * S)), sign * 900_000_000);
            assert_eq!(offset.steps.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn steps_are_logged_once_a_minute_with_their_number() {
        let offset = Offset::default();
        assert_eq!(offset.step_to_log(T0), None);
        offset.follow(T0, T0 + HOUR);
        assert_eq!(offset.step_to_log(T0), Some(Step { steps: 1, offset_ns: HOUR as i64 }));
        for second in 1..=4 {
            offset.follow(T0 + second * S, T0 + second * HOUR);
            assert_eq!(offset.step_to_log(T0 + second * S), None);
        }
        let last_ns = offset.follow(T0 + 60 * S, T0 + 60 * S);
        assert_eq!(offset.step_to_log(T0 + 60 * S), Some(Step { steps: 4, offset_ns: last_ns }));
        assert_eq!(offset.step_to_log(T0 + 500 * S), None);
    }

    #[test]
    fn without_steps_both_clocks_equal_the_wall_clock() {
        let before = system_ns();
        steer();
        for time_ns in [now_ns(), wall_ns()] {
            assert!(time_ns + S > before && time_ns < system_ns() + S);
        }
        assert_eq!(steps(), 0);
    }
}
