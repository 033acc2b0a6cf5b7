//! A price book: levels by price, both sides, best first.
//!
//! Levels hold absolute sizes; a size of 0 removes. Cost: a BTreeMap step a level, some 50 to 100 ns.

use std::collections::BTreeMap;

use super::record::{BOOK_SNAPSHOT, Level};

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    Bid,
    Ask,
}

impl Side {
    /// `'B'` or `'A'`.
    pub fn wire(self) -> u8 {
        match self {
            Self::Bid => b'B',
            Self::Ask => b'A',
        }
    }

    /// The side with this letter.
    pub fn from_wire(letter: u8) -> Option<Self> {
        match letter {
            b'B' => Some(Self::Bid),
            b'A' => Some(Self::Ask),
            _ => None,
        }
    }
}

/// Both sides of one instrument's book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Book {
    /// Applies a record's levels: `'S'` replaces both sides first.
    pub fn apply(&mut self, kind: u8, levels: impl Iterator<Item = Level>) {
        if kind == BOOK_SNAPSHOT {
            self.clear();
        }
        for level in levels {
            if let Some(side) = Side::from_wire(level.side) {
                self.set(side, level.px, level.sz);
            }
        }
    }

    /// Sets one level to an absolute size; 0 removes it. Removing an unknown level is normal.
    pub fn set(&mut self, side: Side, px: i64, sz: i64) {
        let levels = match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        };
        if sz == 0 {
            levels.remove(&px);
        } else {
            levels.insert(px, sz);
        }
    }

    /// Forgets all levels.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// The size at a price; 0 where there is no such level.
    pub fn size(&self, side: Side, px: i64) -> i64 {
        let levels = match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        };
        levels.get(&px).copied().unwrap_or(0)
    }

    /// Levels of both sides together.
    pub fn len(&self) -> usize {
        self.bids.len() + self.asks.len()
    }

    /// True where neither side has a level.
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

    /// The best `levels_max` levels, both sides drawn from evenly, each side best first: what a snapshot record holds.
    pub fn levels(&self, levels_max: usize) -> Vec<Level> {
        let half = levels_max / 2;
        let bids = self.bids.len().min(half.max(levels_max.saturating_sub(self.asks.len())));
        let asks = self.asks.len().min(levels_max - bids);
        let bid = self.bids().take(bids).map(|(px, sz)| Level { px, sz, side: b'B' });
        let ask = self.asks().take(asks).map(|(px, sz)| Level { px, sz, side: b'A' });
        bid.chain(ask).collect()
    }
}
