//! A query for bars of an instrument, and its result.

use super::series::Series;
use super::{Bar, INTERVALS_S};

/// The newest `limit` bars of `interval_s` seconds that begin before `to_s`. Bars begin at multiples of their length,
/// counted from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarQuery {
    pub interval_s: u32,
    pub limit: usize,
    /// Seconds since the Unix epoch.
    pub to_s: u32,
}

/// The result of a [`BarQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundBars {
    /// From this second on every record is in a bar. Earlier bars were dropped, or it is the start of the server.
    pub since_s: u32,
    /// In the order of their times, none for a time without records. The last may not be complete yet; the first may
    /// lack the part before `since_s`.
    pub bars: Vec<Bar>,
    /// When records were lost before they were added to the bars: first and last second of each time, the oldest first.
    pub holes: Vec<(u32, u32)>,
    /// Of the prices and sizes; `None` if the instrument's Definition was lost before it came to the bars.
    pub exponents: Option<(i8, i8)>,
    /// False while the history's part of the newest bars is not taken over.
    pub is_seeded: bool,
    /// The history has older bars than those in memory.
    pub has_older: bool,
}

/// Makes bars of a length from shorter ones, both oldest first.
pub fn merge(shorter: impl IntoIterator<Item = Bar>, interval_s: u32) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for bar in shorter {
        let time_s = bar.time_s - bar.time_s % interval_s;
        match bars.last_mut() {
            Some(last) if last.time_s == time_s => last.add(&bar),
            _ => bars.push(Bar { time_s, ..bar }),
        }
    }
    bars
}

impl BarQuery {
    /// True if bars of this length can be made from the kept ones.
    pub fn is_served(&self) -> bool {
        self.level().is_some()
    }

    /// Index of the longest kept interval that divides the wanted one: it reaches back furthest, and is the least work.
    pub fn level(&self) -> Option<usize> {
        let divides = |kept: &u32| self.interval_s > 0 && self.interval_s.is_multiple_of(*kept);
        INTERVALS_S.iter().rposition(divides)
    }

    /// Where the bar begins that contains a second.
    pub fn begin_of(&self, time_s: u32) -> u32 {
        time_s - time_s % self.interval_s
    }

    pub(super) fn find(&self, series: &Series, holes: &[(u32, u32)]) -> FoundBars {
        let kept = series.bars();
        let end = kept.partition_point(|bar| self.begin_of(bar.time_s) < self.to_s);
        let bars = merge(kept.range(self.first_before(series, end)..end).copied(), self.interval_s);
        // With fewer bars than the limit, all of them are returned, so a hole since `since_s` may be among them.
        let first_s = bars.first().map(|bar| bar.time_s).filter(|_| bars.len() >= self.limit);
        let since_s = series.since_s();
        let holes = self.touched(holes, first_s.unwrap_or(since_s));
        FoundBars { since_s, holes, bars, exponents: None, is_seeded: false, has_older: series.has_older() }
    }

    /// The holes between `from_s` and the query's `to_s`.
    pub fn touched(&self, holes: &[(u32, u32)], from_s: u32) -> Vec<(u32, u32)> {
        holes.iter().filter(|hole| hole.1 >= from_s && hole.0 < self.to_s).copied().collect()
    }

    /// Index of the first kept bar that belongs to the newest `limit` wanted ones before `end`.
    fn first_before(&self, series: &Series, end: usize) -> usize {
        let (mut first, mut made, mut begin) = (end, 0, None);
        for bar in series.bars().range(..end).rev() {
            let time_s = self.begin_of(bar.time_s);
            made += usize::from(begin != Some(time_s));
            begin = Some(time_s);
            if made > self.limit {
                break;
            }
            first -= 1;
        }
        first
    }
}
