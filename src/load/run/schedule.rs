//! When each record is published: a fixed schedule that nothing delays. Pure: time is an argument.
//!
//! The due time of record `n` follows from `n` alone. A record that is late is sent at once and carries its due time,
//! so that every wait is part of the latency: the publisher's own, the server's, the kernel's. This avoids coordinated
//! omission. Lateness is recorded by cause: the publisher itself, or the server's backpressure.

use crate::load::latency::LatencyHistogram;

/// A rate in bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishSchedule {
    start_ns: u64,
    /// Records a second.
    rate: u64,
    /// Records that are due at once.
    burst: u64,
}

impl PublishSchedule {
    /// The first burst is due at `start_ns`; rate and burst are at least 1.
    pub fn new(start_ns: u64, rate: u64, burst: u64) -> Self {
        assert!(rate > 0 && burst > 0, "a rate of {rate} in bursts of {burst}");
        Self { start_ns, rate, burst }
    }

    /// The due time of record `n`, ns since the Unix epoch.
    pub fn due_ns(&self, n: u64) -> u64 {
        let into = u128::from(n / self.burst) * u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate);
        self.start_ns + into as u64
    }

    /// How many records are due by `now_ns`.
    pub fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let estimate = u128::from(elapsed) * u128::from(self.rate) / 1_000_000_000 / u128::from(self.burst);
        let mut bursts = estimate as u64;
        // The division in `due_ns` rounds down, so that the estimate may be one burst short.
        while self.due_ns(bursts * self.burst) <= now_ns {
            bursts += 1;
        }
        bursts * self.burst
    }
}

/// The records that a publisher has to send now, and how late they are.
#[derive(Debug)]
pub struct Pacer {
    schedule: PublishSchedule,
    next: u64,
    /// Records that were due before this are late because of backpressure.
    blocked_until_ns: u64,
    lateness: Lateness,
}

/// How late records were sent.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    /// Because of the publisher itself; records in time are among them.
    pub own: LatencyHistogram,
    /// Because of the server's backpressure.
    pub blocked: LatencyHistogram,
}

impl Pacer {
    /// Begins with the first record.
    pub fn new(schedule: PublishSchedule) -> Self {
        Self { schedule, next: 0, blocked_until_ns: 0, lateness: Lateness::default() }
    }

    /// The records that are due and not taken yet, at most `max` of them.
    pub fn take_due(&mut self, now_ns: u64, max: u64) -> std::ops::Range<u64> {
        let first = self.next;
        self.next = self.schedule.due_count(now_ns).clamp(first, first + max);
        for n in first..self.next {
            let due_ns = self.schedule.due_ns(n);
            let late_ns = now_ns.saturating_sub(due_ns);
            if due_ns < self.blocked_until_ns {
                self.lateness.blocked.record(late_ns);
            } else {
                self.lateness.own.record(late_ns);
            }
        }
        first..self.next
    }

    /// When the next record is due.
    pub fn next_due_ns(&self) -> u64 {
        self.schedule.due_ns(self.next)
    }

    /// The schedule, for due times.
    pub fn schedule(&self) -> &PublishSchedule {
        &self.schedule
    }

    /// Until now the server's backpressure blocked the publisher.
    pub fn set_blocked_until(&mut self, now_ns: u64) {
        self.blocked_until_ns = now_ns;
    }

    /// How many records have been taken.
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// The lateness of the records since the last call.
    pub fn take_lateness(&mut self) -> Lateness {
        std::mem::take(&mut self.lateness)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_NS: u64 = 1_763_691_200_000_000_000;
    const MS: u64 = 1_000_000;

    #[test]
    fn bursts_are_due_together_and_evenly() {
        let schedule = PublishSchedule::new(START_NS, 1_000, 10);
        assert_eq!(schedule.due_count(START_NS - 1), 0);
        assert_eq!((schedule.due_count(START_NS), schedule.due_count(START_NS + 10 * MS - 1)), (10, 10));
        assert_eq!(schedule.due_count(START_NS + 10 * MS), 20);
        assert_eq!((schedule.due_ns(9), schedule.due_ns(10)), (START_NS, START_NS + 10 * MS));
    }

    proptest! {
        #[test]
        fn due_count_and_due_time_agree(rate in 1u64..50_000_000, burst in 1u64..5_000, after in 0u64..100_000_000_000) {
            let schedule = PublishSchedule::new(START_NS, rate, burst);
            let count = schedule.due_count(START_NS + after);
            prop_assert!(count.is_multiple_of(burst) && count > 0);
            prop_assert!(schedule.due_ns(count - 1) <= START_NS + after);
            prop_assert!(schedule.due_ns(count) > START_NS + after);
        }
    }

    /// A publisher on a clock with steps of 1 ms, except one of `stall_ms` at 100 ms.
    fn run(stall_ms: u64, is_blocked: bool) -> (u64, Vec<u64>, Lateness) {
        let mut pacer = Pacer::new(PublishSchedule::new(START_NS, 1_000, 1));
        let (mut now_ns, mut stamps) = (START_NS, Vec::new());
        while now_ns < START_NS + 2_000 * MS {
            stamps.extend(pacer.take_due(now_ns, 64).map(|n| pacer.schedule().due_ns(n)));
            let step = if now_ns == START_NS + 100 * MS { stall_ms } else { 1 };
            now_ns += step * MS;
            if step > 1 && is_blocked {
                pacer.set_blocked_until(now_ns);
            }
        }
        (pacer.taken(), stamps, pacer.take_lateness())
    }

    #[test]
    fn a_stall_omits_no_record_and_no_wait() {
        let (taken, stamps, lateness) = run(1_000, false);
        // Nothing is skipped, and each record carries its own due time, whenever it was sent.
        assert_eq!(taken, 2_000);
        assert!(stamps.iter().enumerate().all(|(n, stamp)| *stamp == START_NS + n as u64 * MS));
        // The thousand records of the stall are late by 1 ms to 1 s.
        let own = lateness.own.summary();
        assert_eq!((own.count, lateness.blocked.summary().count), (2_000, 0));
        assert!(own.max_ns >= 998 * MS && own.p90_ns > 700 * MS, "{own:?}");
    }

    #[test]
    fn backpressure_is_not_the_publishers_own_lateness() {
        let (taken, _, lateness) = run(1_000, true);
        assert_eq!(taken, 2_000);
        let (own, blocked) = (lateness.own.summary(), lateness.blocked.summary());
        assert!((990..=1_000).contains(&blocked.count) && blocked.max_ns >= 998 * MS, "{blocked:?}");
        // Catching up 64 at a time takes some steps, in which later records wait behind those.
        assert!(own.p50_ns < MS && own.max_ns < 40 * MS, "{own:?}");
    }
}
