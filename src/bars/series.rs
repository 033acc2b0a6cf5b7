//! The bars of one instrument and length, in the order of their times.

use std::collections::VecDeque;

use tickcast_protocol::decimal;
use tickcast_protocol::record::{PRICE_NONE, Quote, Trade};

/// One bar, 72 bytes. Mantissas at the exponents of its instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its first second, counted from the Unix epoch.
    pub time_s: u32,
    /// Trades with a price. Without any, the four prices are [`PRICE_NONE`] and the volume is 0.
    pub trades: u32,
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    /// Sum of the sizes, saturating at `i64::MAX`. A size that is absent or below 0 adds nothing.
    pub volume: i64,
    /// Of the last quote; [`PRICE_NONE`] if that side was empty or there was no quote.
    pub bid_px: i64,
    pub ask_px: i64,
    /// There was at least one quote.
    pub is_quoted: bool,
}

impl Bar {
    /// Without a trade or a quote.
    pub(crate) fn empty(time_s: u32) -> Self {
        Self {
            time_s,
            trades: 0,
            open: PRICE_NONE,
            high: PRICE_NONE,
            low: PRICE_NONE,
            close: PRICE_NONE,
            volume: 0,
            bid_px: PRICE_NONE,
            ask_px: PRICE_NONE,
            is_quoted: false,
        }
    }

    /// Adds a trade.
    pub(crate) fn trade(&mut self, trade: &Trade) {
        let px = trade.px;
        self.add(&Self {
            trades: 1,
            open: px,
            high: px,
            low: px,
            close: px,
            volume: trade.sz.max(0),
            ..Self::empty(0)
        });
    }

    pub(super) fn quote(&mut self, quote: &Quote) {
        (self.bid_px, self.ask_px, self.is_quoted) = (quote.bid_px, quote.ask_px, true);
    }

    /// At other exponents; `None` if a value is not exact there, or too large.
    pub(crate) fn rescaled(&self, from: (i8, i8), to: (i8, i8)) -> Option<Self> {
        let px = |px: i64| if px == PRICE_NONE { Some(px) } else { decimal::rescale(px, from.0, to.0) };
        // A sum that overflowed has no value.
        let volume = if self.volume == i64::MAX { Some(i64::MAX) } else { decimal::rescale(self.volume, from.1, to.1) };
        Some(Self {
            open: px(self.open)?,
            high: px(self.high)?,
            low: px(self.low)?,
            close: px(self.close)?,
            volume: volume?,
            bid_px: px(self.bid_px)?,
            ask_px: px(self.ask_px)?,
            ..*self
        })
    }

    /// Merges a later bar into this one.
    pub(crate) fn add(&mut self, later: &Self) {
        if later.trades > 0 {
            if self.trades == 0 {
                (self.open, self.high, self.low) = (later.open, later.high, later.low);
            }
            self.high = self.high.max(later.high);
            self.low = self.low.min(later.low);
            self.close = later.close;
            self.trades = self.trades.saturating_add(later.trades);
            // Volumes are not negative, so a saturated sum stays saturated.
            self.volume = self.volume.saturating_add(later.volume);
        }
        if later.is_quoted {
            (self.bid_px, self.ask_px, self.is_quoted) = (later.bid_px, later.ask_px, true);
        }
    }
}

/// What the archive knows of an instrument, by length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest bars, oldest first, at these exponents.
    pub bars: Vec<Bar>,
    /// There are older ones.
    pub has_older: bool,
    /// From this second on there are bars; `None` without any.
    pub since_s: Option<u32>,
    /// The time of the first bar that the archive does not have: it was made from shorter ones.
    pub made_s: Option<u32>,
}

/// Bars in the order of their times, one for each time.
#[derive(Debug)]
pub(super) struct Series {
    bars: VecDeque<Bar>,
    /// From this second on no bar was dropped.
    since_s: u32,
    /// It has never had a bar.
    is_new: bool,
    /// The time of the oldest bar that has changed since it was taken to be written.
    changed_s: u32,
    /// The archive has older bars than these.
    has_older: bool,
    /// From this second on there are bars, in memory or in the archive.
    archive_since_s: u32,
}

/// No bar has changed.
const UNCHANGED: u32 = u32::MAX;

impl Series {
    pub(super) fn new(began_s: u32) -> Self {
        Self {
            bars: VecDeque::new(),
            since_s: began_s,
            is_new: true,
            changed_s: UNCHANGED,
            has_older: false,
            archive_since_s: began_s,
        }
    }

    pub(super) fn bars(&self) -> &VecDeque<Bar> {
        &self.bars
    }

    pub(super) fn since_s(&self) -> u32 {
        self.since_s
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(super) fn bytes(&self) -> usize {
        self.bars.capacity() * size_of::<Bar>()
    }

    pub(super) fn archive_since_s(&self) -> u32 {
        self.archive_since_s
    }

    pub(super) fn has_older(&self) -> bool {
        self.has_older
    }

    /// Changes the bar that begins at `time_s`. If there is none, adds one, and drops the oldest if there are
    /// `capacity` already, which is returned if it was not taken.
    pub(super) fn change(
        &mut self,
        time_s: u32,
        interval_s: u32,
        capacity: usize,
        change: impl FnOnce(&mut Bar),
    ) -> Option<Bar> {
        self.is_new = false;
        self.changed_s = self.changed_s.min(time_s);
        let at = match self.bars.back() {
            Some(newest) if newest.time_s >= time_s => self.bars.partition_point(|bar| bar.time_s < time_s),
            _ => self.bars.len(),
        };
        if let Some(bar) = self.bars.get_mut(at).filter(|bar| bar.time_s == time_s) {
            change(bar);
            return None;
        }
        let is_full = self.bars.len() >= capacity;
        if is_full && at == 0 {
            // It is older than every kept bar, or nothing can be kept.
            self.since_s = self.since_s.max(time_s.saturating_add(interval_s));
            self.has_older = true;
            return None;
        }
        let dropped = if is_full { self.drop_oldest(1, interval_s).pop() } else { None };
        let at = at - usize::from(is_full);
        self.reserve(capacity);
        let mut bar = Bar::empty(time_s);
        change(&mut bar);
        self.bars.insert(at, bar);
        dropped
    }

    /// The changed bars that are complete at `now_s`, oldest first; they count as written.
    pub(super) fn take_changed(&mut self, interval_s: u32, now_s: u32, out: &mut Vec<Bar>) {
        let first = self.bars.partition_point(|bar| bar.time_s < self.changed_s);
        let complete = self.bars.partition_point(|bar| bar.time_s.saturating_add(interval_s) <= now_s);
        out.extend(self.bars.range(first.min(complete)..complete));
        let next_s = self.bars.get(complete).map_or(UNCHANGED, |bar| bar.time_s);
        self.changed_s = self.changed_s.max(next_s);
    }

    /// Takes bars over from the archive, oldest first, from `since_s` on. Bars that have changed here
    /// stay; where `is_first`, what they have is added to the part of the archive. Returns those that are
    /// dropped and not written.
    pub(super) fn seed(&mut self, known: Known, since_s: u32, capacity: usize, is_first: bool) -> Vec<Bar> {
        let own = std::mem::take(&mut self.bars);
        let mut bars = VecDeque::from(known.bars);
        for bar in own.into_iter().filter(|bar| bar.time_s >= self.changed_s) {
            let at = bars.partition_point(|seed| seed.time_s < bar.time_s);
            match bars.get_mut(at).filter(|seed| seed.time_s == bar.time_s) {
                Some(seed) if is_first => seed.add(&bar),
                Some(seed) => *seed = bar,
                None => bars.insert(at, bar),
            }
        }
        let more = bars.len().saturating_sub(capacity);
        self.changed_s = self.changed_s.min(known.made_s.unwrap_or(UNCHANGED));
        let dropped = bars.drain(..more).filter(|bar| bar.time_s >= self.changed_s).collect();
        bars.shrink_to_fit();
        self.has_older = known.has_older || more > 0;
        self.archive_since_s = since_s;
        self.since_s = if self.has_older { bars.front().map_or(since_s, |bar| bar.time_s) } else { since_s };
        self.is_new &= bars.is_empty();
        self.bars = bars;
        dropped
    }

    /// Drops the bars after `last_s`.
    pub(super) fn truncate_after(&mut self, last_s: u32) {
        self.bars.truncate(self.bars.partition_point(|bar| bar.time_s <= last_s));
        self.since_s = self.since_s.min(last_s);
    }

    /// Keeps at most `capacity` bars, and frees the memory of the others. Returns those that were not taken.
    pub(super) fn shrink(&mut self, interval_s: u32, capacity: usize) -> Vec<Bar> {
        let more = self.bars.len().saturating_sub(capacity);
        let dropped = self.drop_oldest(more, interval_s);
        if self.bars.capacity() > capacity {
            self.bars.shrink_to(capacity);
        }
        dropped
    }

    /// Carries the bars over from one pair of exponents to another. If a value is not exact there, or too large, all bars
    /// are dropped, and `time_s` is where they begin again. Returns those that were dropped and not taken.
    pub(super) fn rescale(&mut self, from: (i8, i8), to: (i8, i8), time_s: u32) -> Vec<Bar> {
        let rescaled: Option<VecDeque<Bar>> = self.bars.iter().map(|bar| bar.rescaled(from, to)).collect();
        if let Some(rescaled) = rescaled {
            self.bars = rescaled;
            return Vec::new();
        }
        self.since_s = self.since_s.max(time_s);
        self.has_older = true;
        let changed_s = std::mem::replace(&mut self.changed_s, UNCHANGED);
        self.bars.drain(..).filter(|bar| bar.time_s >= changed_s).collect()
    }

    /// Drops the oldest bars. Returns those of them that were not taken.
    fn drop_oldest(&mut self, count: usize, interval_s: u32) -> Vec<Bar> {
        let Some(last) = count.checked_sub(1).and_then(|at| self.bars.get(at)) else { return Vec::new() };
        self.since_s = self.since_s.max(last.time_s.saturating_add(interval_s));
        self.has_older = true;
        self.bars.drain(..count).filter(|bar| bar.time_s >= self.changed_s).collect()
    }

    /// Makes room for one more: doubles, but never beyond `capacity`.
    fn reserve(&mut self, capacity: usize) {
        /// Small, for instruments that are traded once and never again.
        const FIRST: usize = 4;
        let len = self.bars.len();
        if len == self.bars.capacity() {
            self.bars.reserve_exact(len.max(FIRST).min(capacity - len));
        }
    }
}
