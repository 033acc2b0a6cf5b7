//! The bars of one instrument and length, in the order of time.

use std::collections::VecDeque;

use tickcast_protocol::record::{PRICE_NONE, Quote, Trade};

/// One bar, 72 bytes. Mantissas at the exponents of its instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its first second, since the Unix epoch.
    pub time_s: u32,
    /// Trades with a price. Without any, the four prices are [`PRICE_NONE`] and the volume is 0.
    pub trades: u32,
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    /// Sum of the sizes; `i64::MAX` is said of all that is more than fits. A size that is absent or below 0 adds nothing.
    pub volume: i64,
    /// Of the last quote; [`PRICE_NONE`] where that side was empty, or where there was none.
    pub bid_px: i64,
    pub ask_px: i64,
    /// There was a quote.
    pub is_quoted: bool,
}

impl Bar {
    /// Nothing has happened yet.
    pub(super) fn empty(time_s: u32) -> Self {
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

    pub(super) fn trade(&mut self, trade: &Trade) {
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

    /// Goes on with what happened after it.
    pub(super) fn add(&mut self, later: &Self) {
        if later.trades > 0 {
            if self.trades == 0 {
                (self.open, self.high, self.low) = (later.open, later.high, later.low);
            }
            self.high = self.high.max(later.high);
            self.low = self.low.min(later.low);
            self.close = later.close;
            self.trades = self.trades.saturating_add(later.trades);
            // What has come to the greatest number stays there: volumes are not negative.
            self.volume = self.volume.saturating_add(later.volume);
        }
        if later.is_quoted {
            (self.bid_px, self.ask_px, self.is_quoted) = (later.bid_px, later.ask_px, true);
        }
    }
}

/// Bars in the order of their times, each there once.
#[derive(Debug)]
pub(super) struct Series {
    bars: VecDeque<Bar>,
    /// From this second on nothing was given up.
    since_s: u32,
    /// It has never had a bar.
    is_new: bool,
}

impl Series {
    pub(super) fn new(began_s: u32) -> Self {
        Self { bars: VecDeque::new(), since_s: began_s, is_new: true }
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

    /// Changes the bar that begins at `time_s`; where there is none, one more of the `capacity` is taken, in the place of
    /// the oldest if need be.
    pub(super) fn change(&mut self, time_s: u32, interval_s: u32, capacity: usize, change: impl FnOnce(&mut Bar)) {
        self.is_new = false;
        let at = match self.bars.back() {
            Some(newest) if newest.time_s >= time_s => self.bars.partition_point(|bar| bar.time_s < time_s),
            _ => self.bars.len(),
        };
        if let Some(bar) = self.bars.get_mut(at).filter(|bar| bar.time_s == time_s) {
            return change(bar);
        }
        let is_full = self.bars.len() >= capacity;
        if is_full && at == 0 {
            // Older than all that is kept, or nothing can be kept at all.
            self.since_s = self.since_s.max(time_s.saturating_add(interval_s));
            return;
        }
        if is_full {
            self.give_up(1, interval_s);
        }
        let at = at - usize::from(is_full);
        self.reserve(capacity);
        let mut bar = Bar::empty(time_s);
        change(&mut bar);
        self.bars.insert(at, bar);
    }

    /// Keeps at most so many bars, and gives their memory back.
    pub(super) fn shrink(&mut self, interval_s: u32, capacity: usize) {
        if let Some(more) = self.bars.len().checked_sub(capacity) {
            self.give_up(more, interval_s);
        }
        if self.bars.capacity() > capacity {
            self.bars.shrink_to(capacity);
        }
    }

    /// Drops the oldest.
    fn give_up(&mut self, count: usize, interval_s: u32) {
        if let Some(last) = self.bars.drain(..count).next_back() {
            self.since_s = self.since_s.max(last.time_s.saturating_add(interval_s));
        }
    }

    /// Room for one more. It grows by doubling, but never beyond its share.
    fn reserve(&mut self, capacity: usize) {
        /// Of an instrument that is traded once and never again.
        const FIRST: usize = 4;
        let len = self.bars.len();
        if len == self.bars.capacity() {
            self.bars.reserve_exact(len.max(FIRST).min(capacity - len));
        }
    }
}
