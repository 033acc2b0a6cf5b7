//! A price book of fixed depth: two short sorted arrays, best first, prices in ticks and sizes in lots.
//!
//! Each side always holds exactly `depth` levels: a new top removes the last level, and a removed top adds one at the
//! end. Every change is recorded in a [`Delta`], so that a receiver that applies the deltas has the same levels.
//! Always: both sides sorted, sizes above 0, and the best bid below the best ask. Cost: a move of `depth` levels of 16
//! bytes at most, some 10 ns at a depth of 10.

use tickcast_protocol::BookSide;

/// A level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) ticks: i64,
    pub(super) lots: i64,
}

/// Both sides of one instrument.
pub(super) struct Ladder {
    bids: Box<[Rung]>,
    asks: Box<[Rung]>,
}

/// The changes of one event: side, price in ticks, new size in lots (0 = removed).
#[derive(Default)]
pub(super) struct Delta {
    changes: [(bool, i64, i64); Delta::MAX],
    len: usize,
}

impl Delta {
    /// One event removes a level from one side and adds one to the other, and both sides keep their depth.
    const MAX: usize = 4;

    fn note(&mut self, side: BookSide, ticks: i64, lots: i64) {
        self.changes[self.len] = (side == BookSide::Ask, ticks, lots);
        self.len += 1;
    }

    /// The changes, in order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (BookSide, Rung)> {
        self.changes[..self.len].iter().map(|&(ask, ticks, lots)| {
            let side = if ask { BookSide::Ask } else { BookSide::Bid };
            (side, Rung { ticks, lots })
        })
    }
}

impl Ladder {
    /// A ladder from its best levels outward.
    ///
    /// # Panics
    /// When a side is empty or the sides cross.
    pub(super) fn new(bids: Box<[Rung]>, asks: Box<[Rung]>) -> Self {
        let ladder = Self { bids, asks };
        assert!(ladder.spread() > 0, "a ladder starts uncrossed");
        ladder
    }

    /// The levels of a side, best first.
    pub(super) fn side(&self, side: BookSide) -> &[Rung] {
        if side == BookSide::Bid { &self.bids } else { &self.asks }
    }

    /// The best level of a side.
    pub(super) fn best(&self, side: BookSide) -> Rung {
        self.side(side)[0]
    }

    /// Ticks from the best bid to the best ask.
    pub(super) fn spread(&self) -> i64 {
        self.asks[0].ticks - self.bids[0].ticks
    }

    /// Sets the size of a level that stays.
    pub(super) fn resize(&mut self, side: BookSide, at: usize, lots: i64, delta: &mut Delta) {
        debug_assert!(lots > 0, "a level that stays has a size");
        let rung = &mut self.side_mut(side)[at];
        rung.lots = lots;
        delta.note(side, rung.ticks, lots);
    }

    /// Removes the best level; the side is filled up at its far end, `gap` ticks beyond its last level.
    pub(super) fn retreat(&mut self, side: BookSide, gap: i64, lots: i64, delta: &mut Delta) {
        let away = if side == BookSide::Bid { -gap } else { gap };
        let rungs = self.side_mut(side);
        let last = rungs.len() - 1;
        let (gone, far) = (rungs[0].ticks, rungs[last].ticks + away);
        rungs.copy_within(1.., 0);
        rungs[last] = Rung { ticks: far, lots };
        delta.note(side, gone, 0);
        delta.note(side, far, lots);
    }

    /// Adds a new best level to a side, `spread` ticks from the other side's best; the side's last level is removed.
    pub(super) fn improve(&mut self, side: BookSide, spread: i64, lots: i64, delta: &mut Delta) {
        debug_assert!(spread > 0 && spread < self.spread(), "a better price lies inside the spread");
        let ticks = if side == BookSide::Bid { self.asks[0].ticks - spread } else { self.bids[0].ticks + spread };
        let rungs = self.side_mut(side);
        let last = rungs.len() - 1;
        let gone = rungs[last].ticks;
        rungs.copy_within(..last, 1);
        rungs[0] = Rung { ticks, lots };
        delta.note(side, ticks, lots);
        delta.note(side, gone, 0);
    }

    fn side_mut(&mut self, side: BookSide) -> &mut [Rung] {
        if side == BookSide::Bid { &mut self.bids } else { &mut self.asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(depth: i64) -> Ladder {
        let rungs = |step: i64| (0..depth).map(|i| Rung { ticks: 100 + step * (i + 1), lots: 10 + i }).collect();
        Ladder::new(rungs(-1), rungs(1))
    }

    fn prices(ladder: &Ladder, side: BookSide) -> Vec<i64> {
        ladder.side(side).iter().map(|rung| rung.ticks).collect()
    }

    #[test]
    fn both_sides_keep_their_depth_and_the_delta_has_every_change() {
        let (mut book, mut delta) = (ladder(3), Delta::default());
        book.retreat(BookSide::Ask, 2, 7, &mut delta);
        book.improve(BookSide::Bid, 2, 5, &mut delta);
        assert_eq!(prices(&book, BookSide::Ask), [102, 103, 105]);
        assert_eq!(prices(&book, BookSide::Bid), [100, 99, 98]);
        let changes: Vec<_> = delta.iter().map(|(side, rung)| (side, rung.ticks, rung.lots)).collect();
        assert_eq!(
            changes,
            [(BookSide::Ask, 101, 0), (BookSide::Ask, 105, 7), (BookSide::Bid, 100, 5), (BookSide::Bid, 97, 0)]
        );
    }

    #[test]
    fn depth_of_one_works() {
        let (mut book, mut delta) = (ladder(1), Delta::default());
        book.retreat(BookSide::Bid, 1, 4, &mut delta);
        book.improve(BookSide::Ask, 1, 6, &mut delta);
        assert_eq!((book.best(BookSide::Bid).ticks, book.best(BookSide::Ask).ticks, book.spread()), (98, 99, 1));
        book.resize(BookSide::Bid, 0, 9, &mut Delta::default());
        assert_eq!(book.best(BookSide::Bid), Rung { ticks: 98, lots: 9 });
    }
}
