//! The book of one instrument, with prices and sizes as the texts that the venue sends.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

use rust_decimal::Decimal;

/// A side of a book, or of a trade: that of the taker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Buyers.
    Bid,
    /// Sellers.
    Ask,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        if self == Self::Bid { Self::Ask } else { Self::Bid }
    }
}

/// A level at its new size; size 0 removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The side.
    pub side: Side,
    /// The price.
    pub px: String,
    /// The size.
    pub sz: String,
}

impl Change {
    /// True if it removes the level.
    pub fn is_removal(&self) -> bool {
        number(&self.sz).is_zero()
    }
}

/// A level of a book: price and size.
pub type Level = (String, String);

/// Both sides of a book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    bids: BTreeMap<Decimal, Level>,
    asks: BTreeMap<Decimal, Level>,
}

impl Book {
    /// Sets a level to its new size.
    pub fn apply(&mut self, change: &Change) {
        let px = number(&change.px);
        let side = self.side_mut(change.side);
        if change.is_removal() {
            side.remove(&px);
        } else {
            side.insert(px, (change.px.clone(), change.sz.clone()));
        }
    }

    /// The best `count` levels of a side.
    pub fn best(&self, side: Side, count: usize) -> Vec<&Level> {
        match side {
            Side::Bid => self.bids.values().rev().take(count).collect(),
            Side::Ask => self.asks.values().take(count).collect(),
        }
    }

    /// The size at a price; `None` if there is no such level.
    pub fn size(&self, side: Side, px: &str) -> Option<&str> {
        let levels = if side == Side::Bid { &self.bids } else { &self.asks };
        levels.get(&number(px)).map(|(_, sz)| sz.as_str())
    }

    /// The levels of a side.
    pub fn len(&self, side: Side) -> usize {
        if side == Side::Bid { self.bids.len() } else { self.asks.len() }
    }

    /// True without a level.
    pub fn is_empty(&self) -> bool {
        self.bids.is_empty() && self.asks.is_empty()
    }

    /// Removes the worst levels of each side beyond `depth`.
    pub fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    /// What changes this book's best `depth` levels to those of `to`. A level that leaves them and still exists in `to`
    /// is removed where `with_leaving` says so: some venues let the client cut its book instead.
    pub fn changes_to(&self, to: &Self, depth: usize, with_leaving: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for side in [Side::Bid, Side::Ask] {
            let zero = |px: &str, sz: &str| Change { side, px: px.to_owned(), sz: zero_like(sz) };
            let new = to.best(side, depth);
            let kept: HashSet<&str> = new.iter().map(|(px, _)| px.as_str()).collect();
            for (px, sz) in self.best(side, depth) {
                let is_gone = to.size(side, px).is_none();
                let has_left = with_leaving && !kept.contains(px.as_str());
                if is_gone || has_left {
                    changes.push(zero(px, sz));
                }
            }
            for (px, sz) in new {
                if self.size(side, px) != Some(sz) {
                    changes.push(Change { side, px: px.clone(), sz: sz.clone() });
                }
            }
        }
        changes
    }

    /// A book of the best `depth` levels.
    pub fn top(&self, depth: usize) -> Self {
        let mut top = self.clone();
        top.cut(depth);
        top
    }

    fn side_mut(&mut self, side: Side) -> &mut BTreeMap<Decimal, Level> {
        if side == Side::Bid { &mut self.bids } else { &mut self.asks }
    }
}

/// The number of a text; 0 if it is none, which no text of a session is.
pub fn number(text: &str) -> Decimal {
    Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).unwrap_or_default()
}

/// Zero with as many decimals as a text.
pub fn zero_like(text: &str) -> String {
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    if decimals == 0 { "0".to_owned() } else { format!("0.{}", "0".repeat(decimals)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(levels: &[(Side, &str, &str)]) -> Book {
        let mut book = Book::default();
        for (side, px, sz) in levels {
            book.apply(&Change { side: *side, px: (*px).to_owned(), sz: (*sz).to_owned() });
        }
        book
    }

    #[test]
    fn levels_are_ordered_as_numbers_and_kept_as_text() {
        let mut book = book(&[(Side::Bid, "9.5", "1"), (Side::Bid, "10.10", "2.0"), (Side::Ask, "10.2", "3")]);
        assert_eq!(
            book.best(Side::Bid, 2),
            [&("10.10".to_owned(), "2.0".to_owned()), &("9.5".to_owned(), "1".to_owned())]
        );
        assert_eq!(book.size(Side::Bid, "10.1"), Some("2.0"));
        book.apply(&Change { side: Side::Bid, px: "10.100".to_owned(), sz: "0.00".to_owned() });
        assert_eq!(book.len(Side::Bid), 1);
    }

    #[test]
    fn changes_of_the_best_levels_rebuild_them() {
        let from = book(&[(Side::Bid, "5", "1"), (Side::Bid, "4", "1"), (Side::Bid, "3", "1"), (Side::Bid, "2", "1")]);
        let mut to = from.clone();
        to.apply(&Change { side: Side::Bid, px: "6".to_owned(), sz: "9".to_owned() });
        to.apply(&Change { side: Side::Bid, px: "5".to_owned(), sz: "0".to_owned() });
        for with_leaving in [false, true] {
            let mut client = from.top(2);
            for change in client.clone().changes_to(&to, 2, with_leaving) {
                client.apply(&change);
            }
            client.cut(2);
            assert_eq!(client, to.top(2));
        }
        // 5 stays second: nothing is said of 4, which has left, unless the venue does.
        to.apply(&Change { side: Side::Bid, px: "5".to_owned(), sz: "1".to_owned() });
        assert_eq!(from.top(2).changes_to(&to, 2, false).len(), 1);
        assert_eq!(from.top(2).changes_to(&to, 2, true).len(), 2);
    }
}
