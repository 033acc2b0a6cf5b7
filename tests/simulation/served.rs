//! The time that a shard has served, as the oracle knows it. The boundaries of conflation intervals are multiples of the
//! interval in this time: a shard that was not run for longer than [`PAUSE_NS_MAX`] has other boundaries afterwards.

/// The longest pause that counts whole.
const PAUSE_NS_MAX: u64 = 2_000_000_000;

/// The times at which a shard was run, as far as they matter.
#[derive(Default)]
pub struct Served {
    seen_ns: u64,
    /// What is not counted from this time on.
    lost: Vec<(u64, u64)>,
}

impl Served {
    /// The shard runs now.
    pub fn see(&mut self, now_ns: u64) {
        let paused_ns = now_ns - if self.seen_ns > 0 { self.seen_ns } else { now_ns };
        self.seen_ns = now_ns;
        if paused_ns > PAUSE_NS_MAX {
            let before_ns = self.lost.last().map_or(0, |(_, lost_ns)| *lost_ns);
            self.lost.push((now_ns, before_ns + paused_ns - PAUSE_NS_MAX));
        }
    }

    /// The time served when the clock was at `at_ns`.
    pub fn time_ns(&self, at_ns: u64) -> u64 {
        let until = self.lost.partition_point(|(from_ns, _)| *from_ns <= at_ns);
        at_ns - self.lost[..until].last().map_or(0, |(_, lost_ns)| *lost_ns)
    }
}

#[test]
fn pauses_count_up_to_their_limit() {
    let mut served = Served::default();
    for ms in [9_000, 10_000, 12_000, 14_077, 14_100, 20_100] {
        served.see(ms * 1_000_000);
    }
    let times = [12_000, 14_076, 14_077, 20_099, 20_100].map(|ms| served.time_ns(ms * 1_000_000) / 1_000_000);
    assert_eq!(times, [12_000, 14_076, 14_000, 20_022, 16_023]);
}
