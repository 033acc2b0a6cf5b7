//! The time: one clock for deadlines, and one for stamps.
//!
//! * [`now_ns`] is for deadlines. It is the wall clock's reading at the start of the process plus what the monotonic clock
//!   has counted since, without the time in which the process did not run (SIGSTOP, a pause of the virtual machine, see
//!   [`RunningTime`]). It never steps and never goes back, so that no deadline fires early and no connection counts as
//!   idle when the wall clock is set or the process was stopped. It does not count while the machine is suspended.
//! * [`wall_ns`] is for stamps, which others compare with their own clocks. It is [`now_ns`] plus an offset that follows
//!   the wall clock: at once where the two differ by more than a second (the clock was set, or the machine was
//!   suspended), and by at most a fiftieth otherwise ([`steer`]), so that small corrections do not turn the order of
//!   stamps by more than 10 ms.
//!
//! Cost: [`now_ns`] reads one clock, [`wall_ns`] two; some 25 ns each.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
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
    running: RunningTime,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(|| Clock {
        started: Instant::now(),
        started_ns: system_ns(),
        offset: Offset::default(),
        running: RunningTime::default(),
    })
}

fn system_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The time for deadlines: ns since the Unix epoch, as the wall clock was at the start of the process.
pub fn now_ns() -> u64 {
    let clock = clock();
    let (ns, has_paused) = clock.running.read(|| clock.started.elapsed().as_nanos() as u64);
    let now_ns = clock.started_ns + ns;
    if has_paused {
        // Stamps go on with the wall clock. This is no step of it.
        clock.offset.set(difference(now_ns, system_ns()));
    }
    now_ns
}

/// From now on, time in which no thread reads the clock for more than a second does not count. The caller sees to it that
/// one reads it at least every [`STEER_INTERVAL`] while the process runs.
pub fn watch_pauses() {
    clock().running.watch(clock().started.elapsed().as_nanos() as u64);
}

/// How often the process did not run for more than a second, and for how long in all.
pub fn pauses() -> (u64, Duration) {
    clock().running.pauses()
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
    if let Some(pauses) = clock().running.pauses_to_log() {
        let seconds = clock().running.pauses().1.as_secs_f64();
        tracing::warn!(
            "the process did not run {pauses} time(s), {seconds:.1} s since its start: no deadline counts it"
        );
    }
    if let Some(Step { steps, offset_ns }) = offset.step_to_log(now_ns()) {
        let offset_s = offset_ns as f64 / 1e9;
        tracing::warn!(
            "the wall clock was set {steps} time(s): stamps followed at once and are {offset_s:+.3} s from the time that \
             deadlines are counted in; is the clock synchronised before the start (time-sync.target)?"
        );
    }
}

/// Time that a process has run: what a clock counts, without the gaps in which nothing read it. The clock is an argument.
///
/// A gap shows in the first read after it, whichever thread makes it. That read must not return the time before the gap is
/// taken off, and no other may return it afterwards without. So a read is fast only while the last one that was noted is
/// less than [`NOTE_INTERVAL_NS`] old; others take a lock and note theirs.
#[derive(Debug)]
pub struct RunningTime {
    /// The clock as last noted; the end of time before [`Self::watch`], so that no read is too far from it.
    noted_ns: AtomicU64,
    /// What is taken off.
    paused_ns: AtomicU64,
    pauses: AtomicU64,
    logged: AtomicU64,
    noting: Mutex<()>,
}

/// A read notes the clock if that was not done for so long: twenty times a second, some 50 ns.
const NOTE_INTERVAL_NS: u64 = 50_000_000;
/// A gap beyond this is a pause, and counts as this.
const GAP_NS_MAX: u64 = 1_000_000_000;

impl Default for RunningTime {
    fn default() -> Self {
        Self {
            noted_ns: AtomicU64::new(u64::MAX),
            paused_ns: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            noting: Mutex::new(()),
        }
    }
}

impl RunningTime {
    /// From now on gaps are taken off.
    pub fn watch(&self, clock_ns: u64) {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        // Release: its partner is the load in `read`.
        self.noted_ns.store(clock_ns, Ordering::Release);
    }

    /// The time, and whether this read has found a pause.
    pub fn read(&self, clock_ns: impl Fn() -> u64) -> (u64, bool) {
        // Acquire: its partners are the stores in `note` and `watch`. A read that sees what was noted after a pause sees
        // the pause as well.
        let noted_ns = self.noted_ns.load(Ordering::Acquire);
        // Relaxed: ordered by the load above. Read before the clock: a pause that ends in between shows in the clock.
        let paused_ns = self.paused_ns.load(Ordering::Relaxed);
        let now_ns = clock_ns();
        if now_ns.saturating_sub(noted_ns) < NOTE_INTERVAL_NS {
            return (now_ns.saturating_sub(paused_ns), false);
        }
        self.note(clock_ns)
    }

    #[cold]
    fn note(&self, clock_ns: impl Fn() -> u64) -> (u64, bool) {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = clock_ns();
        // Relaxed, here and below: both are written under the lock only.
        let gap_ns = now_ns.saturating_sub(self.noted_ns.load(Ordering::Relaxed));
        let lost_ns = gap_ns.saturating_sub(GAP_NS_MAX);
        if lost_ns > 0 {
            self.paused_ns.fetch_add(lost_ns, Ordering::Relaxed);
            self.pauses.fetch_add(1, Ordering::Relaxed);
        }
        // Release: its partner is the load in `read`, which must see the pause above.
        self.noted_ns.store(now_ns, Ordering::Release);
        (now_ns.saturating_sub(self.paused_ns.load(Ordering::Relaxed)), lost_ns > 0)
    }

    /// The number of pauses, and what was taken off.
    pub fn pauses(&self) -> (u64, Duration) {
        // Relaxed, here and below: the numbers are read by themselves.
        let paused_ns = self.paused_ns.load(Ordering::Relaxed);
        (self.pauses.load(Ordering::Relaxed), Duration::from_nanos(paused_ns))
    }

    /// The number of pauses since the last call, if any.
    fn pauses_to_log(&self) -> Option<u64> {
        let pauses = self.pauses.load(Ordering::Relaxed);
        let logged = self.logged.swap(pauses, Ordering::Relaxed);
        (pauses > logged).then_some(pauses - logged)
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

    /// The process has not run for a while, in which the clock of deadlines did not count.
    fn set(&self, offset_ns: i64) {
        self.ns.store(offset_ns, Ordering::Relaxed);
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
    fn a_gap_counts_as_a_second_in_the_first_read_after_it_and_in_all_later_ones() {
        const MS: u64 = 1_000_000;
        let time = RunningTime::default();
        assert_eq!(time.read(|| 90 * S), (90 * S, false), "before the watch no gap is taken off");
        time.watch(100 * S);
        for (clock_ns, expected) in [
            (100 * S + 49 * MS, (100 * S + 49 * MS, false)),
            (100 * S + 900 * MS, (100 * S + 900 * MS, false)),
            (101 * S + 900 * MS, (101 * S + 900 * MS, false)),
            // SIGSTOP for 50 s.
            (151 * S + 900 * MS, (102 * S + 900 * MS, true)),
            (151 * S + 901 * MS, (102 * S + 901 * MS, false)),
            (152 * S + 800 * MS, (103 * S + 800 * MS, false)),
            (156 * S + 800 * MS, (104 * S + 800 * MS, true)),
        ] {
            assert_eq!(time.read(|| clock_ns), expected, "{clock_ns}");
        }
        assert_eq!(time.pauses(), (2, Duration::from_secs(52)));
        assert_eq!((time.pauses_to_log(), time.pauses_to_log()), (Some(2), None));
    }

    #[test]
    fn threads_that_read_across_gaps_agree_on_the_time() {
        let (time, clock, newest) = (RunningTime::default(), AtomicU64::new(S), AtomicU64::new(0));
        time.watch(S);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (time, clock, newest) = (&time, &clock, &newest);
                scope.spawn(move || {
                    for nth in 0..2_000 {
                        if thread == 0 && nth % 20 == 0 {
                            clock.fetch_add(50 * S, Ordering::SeqCst);
                        }
                        // No read is behind one that had ended before, by more than it took itself.
                        let before_ns = newest.load(Ordering::SeqCst);
                        let (now_ns, _) = time.read(|| clock.fetch_add(1000, Ordering::SeqCst));
                        assert!(now_ns >= before_ns, "{now_ns} after {before_ns}");
                        newest.fetch_max(now_ns, Ordering::SeqCst);
                    }
                });
            }
        });
        let (pauses, paused) = time.pauses();
        // What was not noted before a gap is part of it: up to NOTE_INTERVAL_NS.
        assert!(pauses == 100 && (4900..=4905).contains(&paused.as_secs()), "{pauses}, {paused:?}");
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
