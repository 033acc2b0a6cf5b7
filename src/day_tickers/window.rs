//! The trades of one instrument in the last 24 hours, added up in buckets of some minutes.

use std::collections::VecDeque;

use super::PastMinute;
use tickcast_protocol::decimal;
use tickcast_protocol::record::{PRICE_NONE, Ticker, Trade};

pub(super) const DAY_MINUTES: u32 = 24 * 60;
/// A sum that 128 bits did not hold, or that is not known.
const OVERFLOWN: i128 = i128::MAX;

/// Trades that came in neighbouring minutes, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// The minutes of its first and its last trade.
    begin: u32,
    last: u32,
    open: i64,
    high: i64,
    low: i64,
    volume: i128,
    /// Sum of price times size, at the sum of both exponents.
    turnover: i128,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    /// In the order of time, none empty.
    buckets: VecDeque<Bucket>,
    /// All of them together; `None` without one.
    total: Option<Bucket>,
    /// When the first trade came.
    pub(super) first_ns: u64,
    last_px: i64,
    /// There is something that no ticker has had yet.
    pub(super) is_changed: bool,
}

impl Bucket {
    /// Adds a later one.
    fn add(&mut self, later: &Self) {
        self.last = later.last;
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.volume = sum(self.volume, later.volume);
        self.turnover = sum(self.turnover, later.turnover);
    }

    /// `None` if a value is not exact at the other exponents.
    fn rescaled(&self, from: (i8, i8), to: (i8, i8)) -> Option<Self> {
        let px = |px: i64| decimal::rescale(px, from.0, to.0);
        Some(Self {
            open: px(self.open)?,
            high: px(self.high)?,
            low: px(self.low)?,
            volume: scaled(self.volume, i32::from(from.1) - i32::from(to.1)).filter(|sum| sum.1)?.0,
            turnover: scaled(self.turnover, i32::from(from.0) + i32::from(from.1) - i32::from(to.0) - i32::from(to.1))
                .filter(|sum| sum.1)?
                .0,
            ..*self
        })
    }
}

impl Window {
    pub(super) const BUCKET_BYTES: usize = size_of::<Bucket>();

    pub(super) fn new(now_ns: u64) -> Self {
        Self { buckets: VecDeque::new(), total: None, first_ns: now_ns, last_px: PRICE_NONE, is_changed: false }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.buckets.capacity() * Self::BUCKET_BYTES
    }

    /// Adds a trade that came in this minute; a bucket has `step` of them.
    pub(super) fn add(&mut self, trade: &Trade, minute: u32, step: u32) {
        let Trade { px, .. } = *trade;
        let sz = trade.sz.max(0);
        let (volume, turnover) = (i128::from(sz), i128::from(px) * i128::from(sz));
        let one = Bucket { begin: minute, last: minute, open: px, high: px, low: px, volume, turnover };
        (self.last_px, self.is_changed) = (px, true);
        match &mut self.total {
            Some(total) => total.add(&one),
            None => self.total = Some(one),
        }
        match self.buckets.back_mut().filter(|newest| newest.begin / step == minute / step) {
            Some(newest) => newest.add(&one),
            None => {
                self.reserve(step);
                self.buckets.push_back(one);
            }
        }
    }

    /// Puts earlier trades in front, oldest first, as seen from `minute`.
    pub(super) fn prepend(&mut self, past: &[PastMinute], minute: u32, step: u32) {
        let bucket = |past: &PastMinute| {
            let begin = minute.saturating_sub(past.minutes_ago);
            let PastMinute { open, high, low, volume, .. } = *past;
            Bucket { begin, last: begin, open, high, low, volume: volume.into(), turnover: OVERFLOWN }
        };
        let own = std::mem::take(&mut self.buckets);
        self.buckets = past.iter().map(bucket).chain(own).collect();
        self.merge(step);
        if self.last_px == PRICE_NONE {
            self.last_px = past.last().map_or(PRICE_NONE, |last| last.close);
        }
        self.is_changed = true;
        self.add_up();
    }

    /// Drops the buckets whose last trade is more than 24 hours old.
    pub(super) fn expire(&mut self, minute: u32) {
        let count = self.buckets.iter().take_while(|bucket| minute.saturating_sub(bucket.last) > DAY_MINUTES).count();
        if count > 0 {
            self.buckets.drain(..count);
            if self.buckets.len() < self.buckets.capacity() / 4 {
                self.buckets.shrink_to(2 * self.buckets.len());
            }
            self.is_changed = true;
            self.add_up();
        }
    }

    /// Merges the buckets of `step` minutes each.
    pub(super) fn merge(&mut self, step: u32) {
        let mut merged: VecDeque<Bucket> = VecDeque::new();
        for bucket in self.buckets.drain(..) {
            match merged.back_mut().filter(|last| last.begin / step == bucket.begin / step) {
                Some(last) => last.add(&bucket),
                None => merged.push_back(bucket),
            }
        }
        merged.shrink_to_fit();
        self.buckets = merged;
    }

    /// Carries the values over to other exponents. False if one is not exact there: then nothing is changed.
    pub(super) fn rescale(&mut self, from: (i8, i8), to: (i8, i8)) -> bool {
        let buckets: Option<VecDeque<Bucket>> = self.buckets.iter().map(|bucket| bucket.rescaled(from, to)).collect();
        let (Some(buckets), Some(last_px)) = (buckets, decimal::rescale(self.last_px, from.0, to.0)) else {
            return false;
        };
        (self.buckets, self.last_px) = (buckets, last_px);
        self.add_up();
        true
    }

    /// The ticker, without bid and offer.
    pub(super) fn ticker(&self, sz_exp: i8) -> Ticker {
        let whole = |sum: Option<i128>| sum.and_then(|sum| i64::try_from(sum).ok()).unwrap_or(PRICE_NONE);
        let total = self.total;
        let price = |of: fn(&Bucket) -> i64| total.as_ref().map_or(PRICE_NONE, of);
        let turnover = total.map_or(Some(0), |total| scaled(total.turnover, i32::from(sz_exp)).map(|sum| sum.0));
        Ticker {
            last_px: self.last_px,
            open_px: price(|total| total.open),
            high_px: price(|total| total.high),
            low_px: price(|total| total.low),
            volume: whole(Some(total.map_or(0, |total| total.volume))),
            turnover: whole(turnover),
            bid_px: PRICE_NONE,
            ask_px: PRICE_NONE,
        }
    }

    fn add_up(&mut self) {
        self.total = None;
        for bucket in &self.buckets {
            match &mut self.total {
                Some(total) => total.add(bucket),
                None => self.total = Some(*bucket),
            }
        }
    }

    /// Makes room for one more: doubles, but never beyond the buckets of a day, the one that begins and the one that ends.
    fn reserve(&mut self, step: u32) {
        /// Small, for instruments that are traded once and never again.
        const FIRST: usize = 4;
        let (len, most) = (self.buckets.len(), (DAY_MINUTES / step) as usize + 2);
        if len == self.buckets.capacity() {
            self.buckets.reserve_exact(len.max(FIRST).min(most.saturating_sub(len).max(1)));
        }
    }
}

fn sum(one: i128, other: i128) -> i128 {
    if one == OVERFLOWN || other == OVERFLOWN { OVERFLOWN } else { one.checked_add(other).unwrap_or(OVERFLOWN) }
}

/// `sum` times 10 to the power of `exponent`, rounded to the nearest, and whether that is exact; `None` if it is too large.
fn scaled(sum: i128, exponent: i32) -> Option<(i128, bool)> {
    if sum == OVERFLOWN {
        return None;
    }
    let factor = 10i128.checked_pow(exponent.unsigned_abs());
    match (factor, exponent < 0) {
        _ if sum == 0 => Some((0, true)),
        (Some(factor), false) => Some((sum.checked_mul(factor)?, true)),
        (None, false) => None,
        (Some(factor), true) => {
            let (quotient, rest) = (sum / factor, sum % factor);
            let is_up = rest.unsigned_abs() >= factor.unsigned_abs().div_ceil(2);
            Some((quotient + if is_up { sum.signum() } else { 0 }, rest == 0))
        }
        (None, true) => Some((0, false)),
    }
}
