//! A recording may have the trades one by one (`trade`), aggregated (`aggTrade`), or both. Both have the same ids, so a
//! trade is published once: as what comes first.
//!
//! Ids have no holes: the venue numbers all trades of an instrument. So a hole shows that trades were lost, as messages
//! that are missing or could not be read, and how many. An `aggTrade` of futures leaves out what is no trade of the
//! market, so before it no hole is counted. Trades with lower ids are passed on as they are.

use super::message::Trade;

/// Ids that are further apart than this are not of one numbering: the venue has begun another, or one of them is wrong.
const DISTANCE_MAX: u64 = 1_000_000;

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
            None => self.aggregated.is_some_and(|id| is_at_most(trade.trade_id, id)),
            Some(first) => self.single.is_some_and(|id| is_at_most(first, id)),
        }
    }

    /// How many records were lost before this one.
    pub(super) fn lost_before(&self, trade: &Trade<'_>, is_futures: bool) -> u64 {
        let Some(newest) = self.single.max(self.aggregated) else { return 0 };
        match trade.aggregated_from {
            None => match trade.trade_id.saturating_sub(newest.saturating_add(1)) {
                lost if lost < DISTANCE_MAX => lost,
                _ => 0,
            },
            Some(_) if is_futures => 0,
            // As many as were aggregated: at least one.
            Some(first) => u64::from(first > newest.saturating_add(1)),
        }
    }

    /// Notes a number that is no trade of the market.
    pub(super) fn skip(&mut self, trade_id: u64) {
        raise(&mut self.single, trade_id);
    }

    /// Notes a published trade.
    pub(super) fn note(&mut self, trade: &Trade<'_>) {
        let (highest, other) = match trade.aggregated_from {
            Some(_) => (&mut self.aggregated, &mut self.single),
            None => (&mut self.single, &mut self.aggregated),
        };
        raise(highest, trade.trade_id);
        // That of another numbering says nothing any more.
        *other = other.filter(|id| id.abs_diff(trade.trade_id) < DISTANCE_MAX);
    }
}

/// True if an id is not above another of the same numbering.
fn is_at_most(id: u64, other: u64) -> bool {
    id <= other && other - id < DISTANCE_MAX
}

/// Raises the highest id to this one, or begins anew with it where it is of another numbering.
fn raise(highest: &mut Option<u64>, id: u64) {
    let held = highest.filter(|held| held.abs_diff(id) < DISTANCE_MAX);
    *highest = held.max(Some(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(trade_id: u64, aggregated_from: Option<u64>) -> Trade<'static> {
        let (symbol, px, sz) = ("AB", "1", "1");
        Trade { symbol, ts_event: 0, trade_id, aggregated_from, px, sz, buyer_is_maker: true }
    }

    /// What was lost before each trade; `None` for one that is known.
    fn lost(trades: &[(u64, Option<u64>)]) -> Vec<Option<u64>> {
        let mut ids = TradeIds::default();
        let mut take = |trade: &Trade<'_>| {
            if ids.is_known(trade) {
                return None;
            }
            let lost = ids.lost_before(trade, false);
            ids.note(trade);
            Some(lost)
        };
        trades.iter().map(|(id, from)| take(&trade(*id, *from))).collect()
    }

    #[test]
    fn id_of_another_numbering_neither_hides_trades_nor_makes_a_hole() {
        assert_eq!(lost(&[(5, None), (u64::MAX, None), (6, None), (8, None)]), [Some(0), Some(0), Some(0), Some(1)]);
        let aggregate = (u64::MAX, Some(u64::MAX - 1));
        assert_eq!(lost(&[(5, None), aggregate, (6, None), (7, None)]), [Some(0), Some(1), Some(0), Some(0)]);
        assert_eq!(
            lost(&[(9_000_000, Some(9_000_000)), (1, None), (2, None), (2, Some(1))])[1..],
            [Some(0), Some(0), None]
        );
    }
}
