//! A recording may have the trades one by one (`trade`), aggregated (`aggTrade`), or both. Both have the same ids, so a
//! trade is published once: as what comes first.
//!
//! Ids are compared only between the two streams. Trades of one stream are passed on as they are.

use super::message::Trade;

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

    /// Notes a published trade.
    pub(super) fn note(&mut self, trade: &Trade<'_>) {
        let highest = if trade.aggregated_from.is_some() { &mut self.aggregated } else { &mut self.single };
        *highest = (*highest).max(Some(trade.trade_id));
    }
}
