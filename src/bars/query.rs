//! A query for bars of an instrument, and its result.

use std::sync::Arc;

use super::series::Series;
use super::{Bar, INTERVALS_S, Session};

/// The newest `limit` bars of `interval_s` seconds that begin before `to_s`. Bars begin at multiples of their length,
/// counted from the Unix epoch, or from the open of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarQuery {
    pub interval_s: u32,
    pub limit: usize,
    /// Seconds since the Unix epoch.
    pub to_s: u32,
    /// With one, what is outside of it is in no bar, and a day's bar is one of a session.
    pub session: Option<Arc<Session>>,
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
    /// False while the archive's part of the newest bars is not taken over.
    pub is_seeded: bool,
    /// The archive has older bars than those in memory.
    pub has_older: bool,
}

/// Makes bars of a length from shorter ones, both oldest first.
pub fn merge(shorter: impl IntoIterator<Item = Bar>, interval_s: u32) -> Vec<Bar> {
    merge_by(shorter, |time_s| Some(time_s - time_s % interval_s))
}

/// Makes bars from shorter ones, both oldest first, by a function that says where the bar of a second begins, if any.
fn merge_by(shorter: impl IntoIterator<Item = Bar>, begin_of: impl Fn(u32) -> Option<u32>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for bar in shorter {
        let Some(time_s) = begin_of(bar.time_s) else { continue };
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
        // A session opens at a minute.
        let longest = if self.session.is_some() { INTERVALS_S[1] } else { u32::MAX };
        let divides = |kept: &u32| *kept <= longest && self.interval_s > 0 && self.interval_s.is_multiple_of(*kept);
        INTERVALS_S.iter().rposition(divides)
    }

    /// Where the bar begins that contains a second; `None` if none does.
    fn grid(&self) -> impl Fn(u32) -> Option<u32> + '_ {
        let session = self.session.as_ref().map(|session| session.grid(self.interval_s));
        move |time_s| match &session {
            Some(session) => session.begin_of(time_s),
            None => Some(time_s - time_s % self.interval_s),
        }
    }

    /// The bars of this query from kept ones, both oldest first.
    pub fn make(&self, kept: impl IntoIterator<Item = Bar>) -> Vec<Bar> {
        let mut bars = merge_by(kept, self.grid());
        bars.truncate(bars.partition_point(|bar| bar.time_s < self.to_s));
        bars
    }

    /// Before this second begin all kept bars of which this query's are made.
    pub fn kept_before_s(&self) -> u32 {
        // A session is no longer than a day, and a bar no longer than a session.
        let longest_s = if self.session.is_some() { self.interval_s.min(86_400) } else { self.interval_s };
        match self.session {
            Some(_) => self.to_s.saturating_add(longest_s),
            None => self.to_s.checked_next_multiple_of(self.interval_s).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn find(&self, series: &Series, holes: &[(u32, u32)]) -> FoundBars {
        let kept = series.bars();
        let end = kept.partition_point(|bar| bar.time_s < self.kept_before_s());
        let bars = self.make(kept.range(self.first_before(series, end)..end).copied());
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
        let begin_of = self.grid();
        let (mut first, mut made, mut begin) = (end, 0, None);
        for bar in series.bars().range(..end).rev() {
            if let Some(time_s) = begin_of(bar.time_s).filter(|time_s| *time_s < self.to_s) {
                made += usize::from(begin != Some(time_s));
                begin = Some(time_s);
                if made > self.limit {
                    break;
                }
            }
            first -= 1;
        }
        first
    }
}
