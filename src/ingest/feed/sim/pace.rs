//! Arrival times of events, with the bursts of real feeds, on an axis of elapsed nanoseconds.
//!
//! Intensity is a multiple of the mean that changes every millisecond. Merged real feeds have a busiest second of 3 to
//! 6 times their mean and a busiest 10 ms of near 70 times; so it is the sum of three parts:
//!
//! * a tide that drifts between 0.5 and 1.5 of its mean within seconds,
//! * flurries, twice a second: 2 to 12 times the mean for 5 ms, then fading by 8 % a millisecond,
//! * storms, every 22 s or so one to three within a second: 60 to 75 times the mean for 10 ms, then fading likewise.
//!
//! The long-run mean is exact by construction, not by luck: the axis is work in records, an event that was worth `n`
//! records is followed by a wait for about `n` records of work, and what bursts took in advance the tide gives back.
//! Always: times never decrease, and depend on the seed and the records only. Floats are not sent; only
//! their four basic operations are used, which every machine rounds alike. Cost: some 5 ns an event and 3 ns a
//! millisecond of the axis.

use super::dice::Dice;

/// The shape of the intensity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Tide, flurries and storms.
    #[default]
    Bursty,
    /// Constantly the mean.
    Even,
}

const TICK_NS: u64 = 1_000_000;
/// The factor of fading in a tick. A burst at height 1 that holds `h` ticks is worth `h + 0.92 / 0.08` ticks in all.
const FADE: f64 = 0.92;
/// A storm of mean height 67.5 is worth 67.5 × 21.5 = 1451 ticks; two of them (one, and one follower in the mean)
/// every 22.23 s are 13.1 % of the work.
const STORM: Kind = Kind { least: 60, most: 75, hold_ticks: 10 };
/// A flurry of mean height 7 is worth 7 × 16.5 = 115.5 ticks; one every 500 ms is 23.1 %.
const FLURRY: Kind = Kind { least: 2, most: 12, hold_ticks: 5 };
/// The tide's share of the work: 1 - 0.131 - 0.231.
const TIDE: f64 = 0.638;
/// Work done early or late is compensated within about this time.
const REPAY_TICKS: f64 = 10_000.0;
/// Ticks from one level of the tide to the next.
const TIDE_TICKS: u32 = 2_000;

/// The arrival process.
pub(super) struct Pace {
    dice: Dice,
    shape: Shape,
    /// Records a nanosecond in the mean, and in this tick.
    mean: f64,
    now: f64,
    /// Work to be done before the next event, in records.
    pending: f64,
    at_ns: u64,
    tick_end_ns: u64,
    /// Work done beyond the mean so far, in ticks at the mean.
    ahead_ticks: f64,
    tide: Tide,
    flurry: Burst,
    storm: Burst,
    storm_followers: u32,
}

impl Pace {
    /// A process of `rate` records a second in the mean.
    pub(super) fn new(rate: u32, shape: Shape, seed: u64) -> Self {
        let mut dice = Dice::new(seed, 2);
        let mean = f64::from(rate) / 1e9;
        let flurry = Burst::starting_in(dice.between(100, 900));
        let storm = Burst::starting_in(dice.between(2_000, 8_000));
        let mut pace = Self {
            dice,
            shape,
            mean,
            now: mean,
            pending: 0.0,
            at_ns: 0,
            tick_end_ns: 0,
            ahead_ticks: 0.0,
            tide: Tide { level: 1.0, step: 0.0, ticks_left: 0 },
            flurry,
            storm,
            storm_followers: 0,
        };
        pace.begin_tick();
        pace
    }

    /// The time of the next event, ns from the start, given the records of the one before it.
    pub(super) fn next_event_ns(&mut self, records: u32) -> u64 {
        // Uniform around its mean: arrivals inside a millisecond are neither a comb nor clumps of their own.
        self.pending += f64::from(records) * f64::from(self.dice.below(1 << 16)) / f64::from(1u32 << 15);
        loop {
            let work = self.now * (self.tick_end_ns - self.at_ns) as f64;
            if self.pending < work {
                // Whole nanoseconds; the remainder stays pending, so that rounding never adds up.
                let step = (self.pending / self.now) as u64;
                self.at_ns += step;
                self.pending = (self.pending - step as f64 * self.now).max(0.0);
                return self.at_ns;
            }
            self.pending -= work;
            self.at_ns = self.tick_end_ns;
            self.begin_tick();
        }
    }

    fn begin_tick(&mut self) {
        self.tick_end_ns += TICK_NS;
        if self.shape == Shape::Even {
            return;
        }
        let compensation = 1.0 - self.ahead_ticks / REPAY_TICKS / TIDE;
        let tide = TIDE * self.tide.advance(&mut self.dice) * compensation.clamp(0.3, 1.6);
        let flurry = self.flurry.advance(&FLURRY, &mut self.dice);
        let storm = self.storm.advance(&STORM, &mut self.dice);
        if self.flurry.due() {
            self.flurry.wait_ticks = self.dice.between(100, 900);
        }
        if self.storm.due() {
            self.storm.wait_ticks = self.storm_gap();
        }
        let intensity = tide + flurry + storm;
        self.ahead_ticks += intensity - 1.0;
        self.now = self.mean * intensity;
    }

    /// Ticks to the next storm. Storms come in groups of one to three, as after news.
    fn storm_gap(&mut self) -> u32 {
        if self.storm_followers > 0 {
            self.storm_followers -= 1;
            return self.dice.between(60, 400);
        }
        self.storm_followers = self.dice.below(3);
        self.dice.between(12_000, 32_000)
    }
}

/// The slow part: straight lines between random levels.
struct Tide {
    level: f64,
    step: f64,
    ticks_left: u32,
}

impl Tide {
    fn advance(&mut self, dice: &mut Dice) -> f64 {
        if self.ticks_left == 0 {
            let next = f64::from(dice.between(512, 1536)) / 1024.0;
            self.step = (next - self.level) / f64::from(TIDE_TICKS);
            self.ticks_left = TIDE_TICKS;
        }
        self.ticks_left -= 1;
        self.level += self.step;
        self.level
    }
}

/// The parameters of a kind of burst: heights in multiples of the mean.
struct Kind {
    least: u32,
    most: u32,
    hold_ticks: u32,
}

/// Bursts of one kind, one after another.
struct Burst {
    height: f64,
    hold_ticks: u32,
    /// Ticks until the next one; 0 while not set.
    wait_ticks: u32,
}

impl Burst {
    fn starting_in(wait_ticks: u32) -> Self {
        Self { height: 0.0, hold_ticks: 0, wait_ticks }
    }

    /// True after a burst has begun, until the wait for its successor is set.
    fn due(&self) -> bool {
        self.wait_ticks == 0
    }

    /// The height in this tick.
    fn advance(&mut self, kind: &Kind, dice: &mut Dice) -> f64 {
        self.wait_ticks -= 1;
        if self.wait_ticks == 0 {
            self.height = f64::from(dice.between(kind.least, kind.most));
            self.hold_ticks = kind.hold_ticks;
        }
        if self.hold_ticks > 0 {
            self.hold_ticks -= 1;
        } else {
            self.height *= FADE;
        }
        self.height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of `records` each in every 10 ms of `seconds`, by whole bins.
    fn bins(rate: u32, shape: Shape, seed: u64, records: u32, seconds: u64) -> Vec<u64> {
        let mut pace = Pace::new(rate, shape, seed);
        let mut bins = vec![0; seconds as usize * 100];
        let mut at = pace.next_event_ns(records);
        while let Some(bin) = bins.get_mut((at / 10_000_000) as usize) {
            *bin += u64::from(records);
            at = pace.next_event_ns(records);
        }
        bins
    }

    #[test]
    fn long_run_mean_is_the_rate_for_any_records_per_event() {
        for (seed, records) in [(1, 1), (2, 2), (3, 5)] {
            let total: u64 = bins(20_000, Shape::Bursty, seed, records, 600).iter().sum();
            assert!((11_820_000..=12_180_000).contains(&total), "{total} records in 600 s at 20,000/s");
        }
    }

    #[test]
    fn bursts_are_as_high_as_on_real_feeds() {
        for seed in 0..8 {
            let bins = bins(20_000, Shape::Bursty, seed, 2, 120);
            let busiest = bins.iter().max().expect("there are bins") / 200;
            let second = bins.chunks(100).map(|second| second.iter().sum::<u64>()).max().expect("bins") as f64 / 2e4;
            assert!((40..=100).contains(&busiest), "seed {seed}: busiest 10 ms is {busiest} times the mean");
            assert!((2.0..=8.0).contains(&second), "seed {seed}: busiest second is {second} times the mean");
        }
    }

    #[test]
    fn even_shape_has_no_bursts() {
        let bins = bins(20_000, Shape::Even, 1, 2, 20);
        assert!(bins.iter().all(|&bin| (150..=250).contains(&bin)), "about 200 records in each 10 ms");
    }

    #[test]
    fn seeds_differ_in_their_times_too() {
        let times = |seed| {
            let mut pace = Pace::new(20_000, Shape::Even, seed);
            (0..100).map(|_| pace.next_event_ns(2)).collect::<Vec<_>>()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn slowest_and_fastest_rates_keep_their_mean() {
        let slow: u64 = bins(1, Shape::Bursty, 5, 1, 3_600).iter().sum();
        assert!((3_350..=3_850).contains(&slow), "{slow} in an hour at 1/s");
        let fast: u64 = bins(5_000_000, Shape::Even, 5, 2, 2).iter().sum();
        assert!((9_950_000..=10_050_000).contains(&fast), "{fast} in 2 s at 5,000,000/s");
    }
}
