//! The statistics of one instrument's day: the values of a ticker.
//!
//! A day starts with a history, as if trading had begun hours ago. It is reset after 24 h, or when a sum comes near
//! 2^53, where a mantissa would no longer fit a JavaScript number: that happens only at rates far beyond real ones.

use super::dice::Dice;
use tickcast_protocol::Instrument;

const NS_PER_S: u64 = 1_000_000_000;
const DAY_NS: u64 = 24 * 3600 * NS_PER_S;
/// Least time between two tickers of an instrument.
const TICKER_NS: u64 = NS_PER_S;
/// Sums are reset here: one more trade still stays below 2^53.
const SUM_MAX: i64 = 1 << 52;

/// Prices and sums in mantissa units.
pub(super) struct Day {
    pub(super) last_px: i64,
    pub(super) open_px: i64,
    pub(super) high_px: i64,
    pub(super) low_px: i64,
    pub(super) volume: i64,
    pub(super) turnover: i64,
    pub(super) trade_id: u64,
    lot: i64,
    /// One lot is `lot_units` units of the base, or one of `lot_parts` parts of a unit.
    lot_units: i64,
    lot_parts: i64,
    ends_at_ns: u64,
    ticker_at_ns: u64,
    traded: bool,
}

impl Day {
    /// A day with `trades` trades of `typical_lots`, and an open up to 4 % from `px`.
    pub(super) fn new(instrument: &Instrument, px: i64, typical_lots: i64, trades: u64, dice: &mut Dice) -> Self {
        let steps =
            |px: i64, ten_thousandths: i64| px / instrument.tick_size * ten_thousandths / 10_000 * instrument.tick_size;
        let open_px = steps(px, i64::from(dice.between(9_600, 10_400)));
        let high_px = steps(px.max(open_px), i64::from(dice.between(10_010, 10_100))).max(px).max(open_px);
        let low_px = steps(px.min(open_px), i64::from(dice.between(9_900, 9_990)));
        let unit = 10i64.pow(u32::from((-instrument.sz_exp).unsigned_abs()));
        let lot = instrument.lot_size;
        let mut day = Self {
            last_px: px,
            open_px,
            high_px,
            low_px,
            volume: 0,
            turnover: 0,
            trade_id: trades,
            lot,
            lot_units: (lot / unit).max(1),
            lot_parts: (unit / lot).max(1),
            ends_at_ns: DAY_NS,
            ticker_at_ns: 0,
            traded: false,
        };
        let lots = typical_lots * trades as i64 * 13 / 8;
        day.volume = lots * lot;
        day.turnover = day.value(i64::midpoint(low_px, high_px), lots);
        day
    }

    /// Counts a trade; its id is [`Day::trade_id`] afterwards.
    pub(super) fn trade(&mut self, at_ns: u64, px: i64, lots: i64) {
        if at_ns >= self.ends_at_ns || self.volume.max(self.turnover) >= SUM_MAX {
            (self.open_px, self.high_px, self.low_px) = (self.last_px, self.last_px, self.last_px);
            (self.volume, self.turnover) = (0, 0);
            self.ends_at_ns = at_ns + DAY_NS;
        }
        self.trade_id += 1;
        self.last_px = px;
        self.high_px = self.high_px.max(px);
        self.low_px = self.low_px.min(px);
        self.volume += lots * self.lot;
        self.turnover += self.value(px, lots);
        self.traded = true;
    }

    /// True if a ticker is due: there was a trade since the last one, and the least time has passed.
    pub(super) fn take_ticker(&mut self, at_ns: u64) -> bool {
        let due = self.traded && at_ns >= self.ticker_at_ns;
        if due {
            self.traded = false;
            self.ticker_at_ns = at_ns + TICKER_NS;
        }
        due
    }

    fn value(&self, px: i64, lots: i64) -> i64 {
        // In 128 bits: the history of a cheap coin is 2^34 lots, and a lot's price may be 2^30.
        let value = i128::from(px) * i128::from(lots) * i128::from(self.lot_units) / i128::from(self.lot_parts);
        i64::try_from(value).unwrap_or(SUM_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(trades: u64) -> Day {
        let mut instrument = Instrument::new(1, "BTC-USD", "SIM", -2, -8);
        (instrument.tick_size, instrument.lot_size) = (10, 1_000);
        Day::new(&instrument, 6_000_000, 100, trades, &mut Dice::new(1, 0))
    }

    #[test]
    fn trade_counts_into_every_statistic() {
        let mut day = day(0);
        assert_eq!((day.volume, day.turnover), (0, 0));
        day.trade(5, 7_000_000, 2_000);
        // 2,000 lots are 0.02 coins; 0.02 × 70,000.00 are 1,400.00.
        assert_eq!((day.volume, day.turnover, day.trade_id), (2_000_000, 140_000, 1));
        assert_eq!((day.last_px, day.high_px), (7_000_000, 7_000_000));
        assert!(day.low_px < 6_000_000 && day.open_px != 6_000_000);
    }

    #[test]
    fn ticker_is_due_after_a_trade_and_at_most_once_a_second() {
        let mut day = day(10);
        assert!(!day.take_ticker(0));
        day.trade(1, 6_000_000, 1);
        assert!(day.take_ticker(1) && !day.take_ticker(2));
        day.trade(2, 6_000_000, 1);
        assert!(!day.take_ticker(NS_PER_S));
        assert!(day.take_ticker(NS_PER_S + 1));
    }

    #[test]
    fn day_is_reset_after_24_hours_or_before_a_sum_leaves_53_bits() {
        let mut first = day(10);
        first.trade(DAY_NS - 1, 6_000_000, 1);
        assert!(first.volume > 1_000);
        first.trade(DAY_NS, 6_100_000, 1);
        assert_eq!((first.volume, first.open_px, first.high_px), (1_000, 6_000_000, 6_100_000));
        let mut full = day(10);
        full.volume = SUM_MAX;
        full.trade(1, 6_000_000, 1);
        assert_eq!(full.volume, 1_000);
    }
}
