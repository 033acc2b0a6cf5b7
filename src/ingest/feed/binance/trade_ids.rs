//! A recording may have the trades one by one (`trade`), aggregated (`aggTrade`), or both. Both have the same ids, so a
//! trade is published once: as what comes first.
//!
//! Ids have no holes: the venue numbers all trades of an instrument. So a hole shows that trades were lost, as messages
//! that are missing or could not be read, and how many. An `aggTrade` of futures leaves out what is no trade of the
//! market, so before it no hole is counted. Trades with lower ids are passed on as they are.

use super::message::Trade;

/// The most trades that a hole stands for: beyond it the venue has begun another numbering.
const LOST_MAX: u64 = 1_000_000;

/// The ids of the published trades of one instrument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TradeIds {
    /// The highest id that came alone.
    single: Option<u64>,
    /// The highest id that came in an aggregate.
    aggregated: Option<u64>,
}

impl TradeIds {
    /// True if the trade, or one of the trades of an aggregate, was published by the other stream. An aggregate of which
    /// one trade was published is left out: the others follow one by one.
    pub(super) fn is_known(&self, trade: &Trade<'_>) -> bool {
        match trade.aggregated_from {
            None => self.aggregated.is_some_and(|id| trade.trade_id <= id),
            Some(first) => self.single.is_some_and(|id| first <= id),
        }
    }

    /// How many records were lost before this one.
    pub(super) fn lost_before(&self, trade: &Trade<'_>, is_futures: bool) -> u64 {
        let Some(newest) = self.single.max(self.aggregated) else { return 0 };
        match trade.aggregated_from {
            None => trade.trade_id.saturating_sub(newest.saturating_add(1)).min(LOST_MAX),
            Some(_) if is_futures => 0,
            // As many as were aggregated: at least one.
            Some(first) => u64::from(first > newest.saturating_add(1)),
        }
    }

    /// Notes a number that is no trade of the market.
    pub(super) fn skip(&mut self, trade_id: u64) {
        self.single = self.single.max(Some(trade_id));
    }

    /// Notes a published trade.
    pub(super) fn note(&mut self, trade: &Trade<'_>) {
        let highest = if trade.aggregated_from.is_some() { &mut self.aggregated } else { &mut self.single };
        *highest = (*highest).max(Some(trade.trade_id));
    }
}
