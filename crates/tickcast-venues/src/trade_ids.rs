//! Which trades were published already, and how many were lost.
//!
//! A venue that numbers all trades of an instrument shows by a hole that trades were lost, as messages that are missing
//! or could not be read, and how many. A source may have the trades one by one, aggregated, or both: Binance's `trade`
//! and `aggTrade` have the same ids, so a trade is published once, as what comes first.

/// The ids of one message: a trade, or the trades of one order at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeRange {
    /// The id of the last trade.
    pub last: u64,
    /// The id of the first trade, where they are aggregated.
    pub aggregated_from: Option<u64>,
    /// The number of the aggregate, where they are numbered without holes.
    pub aggregate: Option<u64>,
}

impl TradeRange {
    /// A trade that comes alone.
    pub fn single(id: u64) -> Self {
        Self { last: id, aggregated_from: None, aggregate: None }
    }
}

/// Ids that are further apart than this are not of one numbering: the venue has begun another, or one of them is wrong.
const DISTANCE_MAX: u64 = 1_000_000;

/// The ids of the published trades of one instrument.
#[derive(Clone, Copy, Debug, Default)]
pub struct TradeIds {
    /// The highest id that came alone.
    single: Option<u64>,
    /// The highest id that came in an aggregate.
    aggregated: Option<u64>,
    /// The highest number of an aggregate.
    aggregate: Option<u64>,
}

impl TradeIds {
    /// The id of the newest trade that was published.
    pub fn newest(&self) -> Option<u64> {
        self.single.max(self.aggregated)
    }

    /// True if a trade is not newer than the newest one: a venue that sends the last trades again after a subscription
    /// repeats it.
    pub fn is_repeated(&self, id: u64) -> bool {
        self.newest().is_some_and(|newest| is_at_most(id, newest))
    }

    /// How many trades behind the newest one up to this one were not published; they are noted as lost.
    pub fn lost_up_to(&mut self, id: u64) -> u64 {
        let Some(newest) = self.newest() else { return 0 };
        let lost = id.saturating_sub(newest);
        raise(&mut self.single, id);
        if lost < DISTANCE_MAX { lost } else { 0 }
    }

    /// True if the trade, or one of the trades of an aggregate, was published: by the other stream, or as the message is
    /// repeated. An aggregate of which one trade was published is left out: the others follow one by one.
    pub fn is_known(&self, trade: TradeRange) -> bool {
        let first = trade.aggregated_from.unwrap_or(trade.last);
        self.newest().is_some_and(|id| is_at_most(first, id))
    }

    /// How many records were lost before this one. `has_others` says that aggregates leave out ids which are no trades of
    /// the market, so that before them a hole in the numbers of aggregates counts, and none in the ids.
    pub fn lost_before(&self, trade: TradeRange, has_others: bool) -> u64 {
        let Some(newest) = self.newest() else { return 0 };
        match trade.aggregated_from {
            None => match trade.last.saturating_sub(newest.saturating_add(1)) {
                lost if lost < DISTANCE_MAX => lost,
                _ => 0,
            },
            Some(_) if has_others => match trade.aggregate.zip(self.aggregate) {
                // Trades that came one by one are in no hole.
                Some((number, before)) if self.single.is_none() => {
                    let lost = number.saturating_sub(before.saturating_add(1));
                    if lost < DISTANCE_MAX { lost } else { 0 }
                }
                _ => 0,
            },
            // As many as were aggregated: at least one.
            Some(first) => u64::from(first > newest.saturating_add(1)),
        }
    }

    /// Notes a number that is no trade of the market.
    pub fn skip(&mut self, trade_id: u64) {
        raise(&mut self.single, trade_id);
    }

    /// Notes a published trade.
    pub fn note(&mut self, trade: TradeRange) {
        let (highest, other) = match trade.aggregated_from {
            Some(_) => (&mut self.aggregated, &mut self.single),
            None => (&mut self.single, &mut self.aggregated),
        };
        raise(highest, trade.last);
        self.aggregate = trade.aggregate.or(self.aggregate);
        // That of another numbering says nothing any more.
        *other = other.filter(|id| id.abs_diff(trade.last) < DISTANCE_MAX);
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

    /// What was lost before each trade; `None` for one that is known.
    fn lost(trades: &[(u64, Option<u64>)]) -> Vec<Option<u64>> {
        let mut ids = TradeIds::default();
        let mut take = |trade: TradeRange| {
            if ids.is_known(trade) {
                return None;
            }
            let lost = ids.lost_before(trade, false);
            ids.note(trade);
            Some(lost)
        };
        trades
            .iter()
            .map(|(id, from)| take(TradeRange { last: *id, aggregated_from: *from, aggregate: None }))
            .collect()
    }

    #[test]
    fn repeated_trades_are_known_and_lost_ones_are_counted() {
        let mut ids = TradeIds::default();
        assert!(!ids.is_repeated(7) && ids.lost_up_to(7) == 0, "nothing is known before the first");
        ids.note(TradeRange::single(7));
        assert!(ids.is_repeated(7) && ids.is_repeated(6) && !ids.is_repeated(8));
        assert_eq!([ids.lost_up_to(9), ids.lost_up_to(9), ids.lost_up_to(u64::MAX)], [2, 0, 0]);
    }

    #[test]
    fn repeated_message_is_known() {
        assert_eq!(
            lost(&[(5, None), (6, None), (6, None), (5, None), (7, None)]),
            [Some(0), Some(0), None, None, Some(0)]
        );
        let aggregate = (9, Some(7));
        assert_eq!(lost(&[(6, Some(5)), aggregate, aggregate, (10, Some(10))]), [Some(0), Some(0), None, Some(0)]);
    }

    #[test]
    fn numbers_of_aggregates_show_what_is_lost_where_ids_have_holes() {
        let mut ids = TradeIds::default();
        let mut lost = |last, first, number| {
            let trade = TradeRange { last, aggregated_from: Some(first), aggregate: Some(number) };
            let lost = ids.lost_before(trade, true);
            ids.note(trade);
            lost
        };
        assert_eq!([lost(12, 10, 1), lost(19, 15, 2), lost(40, 40, 5), lost(41, 41, 6)], [0, 0, 2, 0]);
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
