//! An order book by price: both sides, best first.
//!
//! Levels hold absolute sizes; a size of 0 removes one. Cost: a BTreeMap operation a level, some 50 to 100 ns.

use std::collections::BTreeMap;

use super::record::{BookAction, BookSide, Level};

/// Both sides of one instrument's book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Book {
    /// Applies a record's levels: a snapshot replaces both sides.
    pub fn apply(&mut self, action: BookAction, levels: impl Iterator<Item = Level>) {
        if action == BookAction::Snapshot {
            return self.replace(levels);
        }
        for level in levels {
            self.set(level.side, level.px, level.sz);
        }
    }

    /// Replaces both sides. Of 20,000 levels this takes an eighth of what setting them one by
    /// one does, of 10 a half.
    fn replace(&mut self, levels: impl Iterator<Item = Level>) {
        let (mut bids, mut asks) = (Vec::new(), Vec::new());
        for Level { px, sz, side } in levels {
            match side {
                BookSide::Bid => bids.push((px, sz)),
                BookSide::Ask => asks.push((px, sz)),
                BookSide::Other(_) => {}
            }
        }
        let side = |levels: Vec<(i64, i64)>| {
            let has_removals = levels.iter().any(|(_, sz)| *sz == 0);
            // Of several levels with one price, the last one is kept.
            let mut side: BTreeMap<i64, i64> = levels.into_iter().collect();
            if has_removals {
                side.retain(|_, sz| *sz != 0);
            }
            side
        };
        (self.bids, self.asks) = (side(bids), side(asks));
    }

    /// Sets one level to an absolute size; 0 removes it. Removing an unknown level is normal; a side that is not known
    /// has no levels.
    pub fn set(&mut self, side: BookSide, px: i64, sz: i64) {
        let levels = match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
            BookSide::Other(_) => return,
        };
        if sz == 0 {
            levels.remove(&px);
        } else {
            levels.insert(px, sz);
        }
    }

    /// The number of levels after applying a record's levels, or more if the record removes some.
    pub fn len_after(&self, action: BookAction, levels: impl ExactSizeIterator<Item = Level>) -> usize {
        if action == BookAction::Snapshot {
            return levels.filter(|level| level.sz != 0).count();
        }
        let is_new = |level: &Level| level.sz != 0 && level.side.is_known() && self.size(level.side, level.px) == 0;
        self.len() + levels.filter(is_new).count()
    }

    /// Removes all levels.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// The size at a price; 0 if there is no such level.
    pub fn size(&self, side: BookSide, px: i64) -> i64 {
        let levels = match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
            BookSide::Other(_) => return 0,
        };
        levels.get(&px).copied().unwrap_or(0)
    }

    /// Number of levels, both sides together.
    pub fn len(&self) -> usize {
        self.bids.len() + self.asks.len()
    }

    /// True if neither side has a level.
    pub fn is_empty(&self) -> bool {
        self.bids.is_empty() && self.asks.is_empty()
    }

    /// Bids from the highest price down, as `(px, sz)`.
    pub fn bids(&self) -> impl Iterator<Item = (i64, i64)> {
        self.bids.iter().rev().map(|(px, sz)| (*px, *sz))
    }

    /// Asks from the lowest price up, as `(px, sz)`.
    pub fn asks(&self) -> impl Iterator<Item = (i64, i64)> {
        self.asks.iter().map(|(px, sz)| (*px, *sz))
    }

    /// The best levels of each side, at most `depth` of each, bids before asks, each best first.
    pub fn best(&self, depth: usize) -> Vec<Level> {
        let bid = self.bids().take(depth).map(|(px, sz)| Level { px, sz, side: BookSide::Bid });
        let ask = self.asks().take(depth).map(|(px, sz)| Level { px, sz, side: BookSide::Ask });
        bid.chain(ask).collect()
    }

    /// The best `levels_max` levels for a snapshot record: evenly from both sides, each best first. If one side has fewer
    /// than half, the other fills up.
    pub fn levels(&self, levels_max: usize) -> Vec<Level> {
        let half = levels_max / 2;
        let bids = self.bids.len().min(half.max(levels_max.saturating_sub(self.asks.len())));
        let asks = self.asks.len().min(levels_max - bids);
        let bid = self.bids().take(bids).map(|(px, sz)| Level { px, sz, side: BookSide::Bid });
        let ask = self.asks().take(asks).map(|(px, sz)| Level { px, sz, side: BookSide::Ask });
        bid.chain(ask).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(px: i64, sz: i64, side: BookSide) -> Level {
        Level { px, sz, side }
    }

    fn book_of(bids: i64, asks: i64) -> Book {
        let mut book = Book::default();
        (0..bids).for_each(|depth| book.set(BookSide::Bid, 99 - depth, 1 + depth));
        (0..asks).for_each(|depth| book.set(BookSide::Ask, 101 + depth, 1 + depth));
        book
    }

    #[test]
    fn delta_changes_levels_and_snapshot_replaces_the_book() {
        let mut book = Book::default();
        book.apply(
            BookAction::Delta,
            [level(99, 5, BookSide::Bid), level(98, 6, BookSide::Bid), level(101, 7, BookSide::Ask)].into_iter(),
        );
        book.apply(
            BookAction::Delta,
            [level(99, 3, BookSide::Bid), level(98, 0, BookSide::Bid), level(97, 0, BookSide::Bid)].into_iter(),
        );
        assert_eq!(book.bids().collect::<Vec<_>>(), [(99, 3)]);
        assert_eq!(book.asks().collect::<Vec<_>>(), [(101, 7)]);
        assert_eq!((book.size(BookSide::Bid, 99), book.size(BookSide::Ask, 99), book.len()), (3, 0, 2));
        book.apply(BookAction::Snapshot, [level(102, 1, BookSide::Ask)].into_iter());
        assert_eq!((book.bids().count(), book.asks().collect::<Vec<_>>()), (0, vec![(102, 1)]));
        book.apply(BookAction::Snapshot, [].into_iter());
        assert!(book.is_empty());
    }

    #[test]
    fn sides_are_listed_best_first() {
        let book = book_of(3, 3);
        assert_eq!(book.bids().map(|(px, _)| px).collect::<Vec<_>>(), [99, 98, 97]);
        assert_eq!(book.asks().map(|(px, _)| px).collect::<Vec<_>>(), [101, 102, 103]);
    }

    #[test]
    fn best_levels_are_the_same_number_of_each_side_and_no_other() {
        let best = |bids, asks, depth| book_of(bids, asks).best(depth).iter().map(|level| level.px).collect::<Vec<_>>();
        assert_eq!(best(9, 9, 2), [99, 98, 101, 102]);
        assert_eq!(best(1, 9, 2), [99, 101, 102]);
        assert_eq!(best(0, 1, 2), [101]);
        assert!(best(9, 9, 0).is_empty());
    }

    #[test]
    fn cut_takes_evenly_from_both_sides_and_fills_up() {
        for (bids, asks, levels_max, bids_kept, asks_kept) in [
            (9, 9, 4, 2, 2),
            (9, 1, 4, 3, 1),
            (1, 9, 4, 1, 3),
            (1, 1, 4, 1, 1),
            (0, 9, 4, 0, 4),
            (9, 0, 4, 4, 0),
            (9, 9, 0, 0, 0),
        ] {
            let levels = book_of(bids, asks).levels(levels_max);
            let kept = |side| levels.iter().filter(|level| level.side == side).count();
            assert_eq!(
                (kept(BookSide::Bid), kept(BookSide::Ask)),
                (bids_kept, asks_kept),
                "{levels_max} of {bids} and {asks}"
            );
        }
    }

    proptest! {
        #[test]
        fn book_rebuilt_from_its_levels_is_equal(
            changes in prop::collection::vec((0i64..40, 0i64..4, any::<bool>()), 0..200), levels_max in 0usize..100,
        ) {
            let mut book = Book::default();
            for (px, sz, bid) in changes {
                book.set(if bid { BookSide::Bid } else { BookSide::Ask }, px, sz);
            }
            let cut = book.levels(levels_max);
            prop_assert_eq!(cut.len(), book.len().min(levels_max));
            let mut rebuilt = book_of(5, 5);
            rebuilt.apply(BookAction::Snapshot, book.levels(book.len()).into_iter());
            prop_assert_eq!(rebuilt, book);
        }

        #[test]
        fn snapshot_is_what_its_levels_make_one_by_one(
            levels in prop::collection::vec((0i64..20, 0i64..3, 0u8..3), 0..60),
        ) {
            let side = |side| [BookSide::Bid, BookSide::Ask, BookSide::Other(b'X')][usize::from(side)];
            let levels = || levels.iter().map(|&(px, sz, nth)| level(px, sz, side(nth)));
            let (mut book, mut expected) = (book_of(5, 5), Book::default());
            book.apply(BookAction::Snapshot, levels());
            levels().for_each(|level| expected.set(level.side, level.px, level.sz));
            prop_assert_eq!(book, expected);
        }
    }
}
