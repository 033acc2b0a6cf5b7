//! Statistics from the trades seen so far, for recordings without the venue's own 24 h ticker.
//!
//! Sums are exact: turnover is summed in 128 bits at the exponent of price times size, and cut to the price exponent in
//! the record. A sum that does not fit is absent, never wrong.

use crate::scale::Scale;
use tickcast_protocol::decimal;
use tickcast_protocol::record::PRICE_NONE;

/// Open, high, low, last and sums since the first trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeWindow {
    pub open_px: i64,
    pub high_px: i64,
    pub low_px: i64,
    pub last_px: i64,
    /// Venue time of the last trade, ns.
    pub ts_event: u64,
    volume: Option<i64>,
    turnover: Option<i128>,
}

impl TradeWindow {
    /// The window that begins with this trade.
    pub fn new(px: i64, sz: i64, ts_event: u64) -> Self {
        let turnover = Some(i128::from(px) * i128::from(sz));
        Self { open_px: px, high_px: px, low_px: px, last_px: px, ts_event, volume: Some(sz), turnover }
    }

    /// Adds a trade.
    pub fn add(&mut self, px: i64, sz: i64, ts_event: u64) {
        self.high_px = self.high_px.max(px);
        self.low_px = self.low_px.min(px);
        self.last_px = px;
        self.ts_event = ts_event;
        self.volume = self.volume.and_then(|volume| volume.checked_add(sz));
        let product = i128::from(px) * i128::from(sz);
        self.turnover = self.turnover.and_then(|turnover| turnover.checked_add(product));
    }

    /// The window at other exponents; `None` if a price is not exact there.
    pub fn rescaled(&self, from: Scale, to: Scale) -> Option<Self> {
        let px = |px: i64| decimal::rescale(px, from.px_exp, to.px_exp);
        let shift = i32::from(from.px_exp) + i32::from(from.sz_exp) - i32::from(to.px_exp) - i32::from(to.sz_exp);
        let factor = 10i128.checked_pow(shift.unsigned_abs());
        let rescaled = |sum: i128| match factor? {
            factor if shift >= 0 => sum.checked_mul(factor),
            factor => (sum % factor == 0).then(|| sum / factor),
        };
        Some(Self {
            open_px: px(self.open_px)?,
            high_px: px(self.high_px)?,
            low_px: px(self.low_px)?,
            last_px: px(self.last_px)?,
            ts_event: self.ts_event,
            volume: self.volume.and_then(|volume| decimal::rescale(volume, from.sz_exp, to.sz_exp)),
            turnover: self.turnover.and_then(rescaled),
        })
    }

    /// Base volume at the size exponent.
    pub fn volume(&self) -> i64 {
        self.volume.unwrap_or(PRICE_NONE)
    }

    /// Turnover at the price exponent, cut off below it.
    pub fn turnover(&self, sz_exp: i8) -> i64 {
        let unit = 10i128.checked_pow(sz_exp.unsigned_abs().into());
        let scaled = match (self.turnover, unit) {
            (Some(turnover), Some(unit)) if sz_exp < 0 => Some(turnover / unit),
            (Some(turnover), Some(unit)) => turnover.checked_mul(unit),
            _ => None,
        };
        scaled.and_then(|turnover| i64::try_from(turnover).ok()).unwrap_or(PRICE_NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_turnover_is_cut_at_the_price_exponent() {
        // 0.03 × 1.10 + 0.09 × 1.25 + 0.01 × 0.99 = 0.1554, at two decimals 0.15.
        let mut window = TradeWindow::new(110, 3, 1);
        window.add(125, 9, 2);
        window.add(99, 1, 3);
        assert_eq!((window.open_px, window.high_px, window.low_px, window.last_px), (110, 125, 99, 99));
        assert_eq!((window.volume(), window.turnover(-2), window.ts_event), (13, 15, 3));
        assert_eq!(window.turnover(0), 1554);
        assert_eq!(window.turnover(1), 15_540);
    }

    #[test]
    fn sum_that_does_not_fit_is_absent() {
        let mut window = TradeWindow::new(i64::MAX, i64::MAX, 0);
        window.add(i64::MAX, i64::MAX, 0);
        assert_eq!(window.volume(), PRICE_NONE);
        assert_eq!(window.turnover(-8), PRICE_NONE);
        window.add(i64::MAX, i64::MAX, 0);
        assert_eq!(window.turnover(-8), PRICE_NONE);
    }
}
