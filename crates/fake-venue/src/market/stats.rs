//! Statistics of the trades of a session, which stand for those of 24 hours.

use rust_decimal::Decimal;

use super::book::number;
use super::step::Trade;

/// Statistics of one instrument. Prices are texts as they were traded.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// The first price.
    pub open: String,
    /// The highest one.
    pub high: String,
    /// The lowest one.
    pub low: String,
    /// The last one.
    pub last: String,
    /// The size of the last trade.
    pub last_sz: String,
    /// The sum of sizes.
    pub volume: Decimal,
    /// The sum of prices times sizes.
    pub turnover: Decimal,
    /// How many trades there were.
    pub count: u64,
}

impl Stats {
    /// Statistics before the first trade, at this price.
    pub fn at(px: &str) -> Self {
        let px = || px.to_owned();
        Self { open: px(), high: px(), low: px(), last: px(), last_sz: "0".to_owned(), ..Self::default() }
    }

    /// Adds a trade.
    pub fn add(&mut self, trade: &Trade) {
        let px = number(&trade.px);
        if px > number(&self.high) {
            self.high.clone_from(&trade.px);
        }
        if px < number(&self.low) {
            self.low.clone_from(&trade.px);
        }
        self.last.clone_from(&trade.px);
        self.last_sz.clone_from(&trade.sz);
        let sz = number(&trade.sz);
        self.volume = self.volume.saturating_add(sz);
        self.turnover = self.turnover.saturating_add(px.checked_mul(sz).unwrap_or_default());
        self.count += 1;
    }

    /// The last price minus the first one.
    pub fn change(&self) -> Decimal {
        number(&self.last) - number(&self.open)
    }
}
