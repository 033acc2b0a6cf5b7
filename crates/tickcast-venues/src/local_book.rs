//! A book that is kept here, for venues that state a checksum or whose books end at a depth.
//!
//! Each level keeps how many decimals its texts had, since a checksum is of the digits as they were written. A side is
//! bounded by the caller with [`LocalBook::cut`]. Cost: a look-up in a tree for a level; 20 to 50 levels are formatted for
//! a checksum.

use std::collections::BTreeMap;

use tickcast_protocol::record::Level;
use tickcast_protocol::{BookSide, decimal};

use crate::scale::Scale;

/// How many decimals the texts of a level had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decimals {
    /// Of its price.
    pub px: u8,
    /// Of its size.
    pub sz: u8,
}

impl Decimals {
    /// As many as these texts have.
    pub fn of(px: &str, sz: &str) -> Self {
        let written = |text| decimal::decimals(text).unsigned_abs();
        Self { px: written(px), sz: written(sz) }
    }
}

/// Both sides of a book.
#[derive(Clone, Debug, Default)]
pub struct LocalBook {
    bids: BTreeMap<i64, (i64, Decimals)>,
    asks: BTreeMap<i64, (i64, Decimals)>,
}

impl LocalBook {
    /// Sets a level to an absolute size; 0 removes it.
    pub fn set(&mut self, level: Level, decimals: Decimals) {
        let side = if level.side == BookSide::Bid { &mut self.bids } else { &mut self.asks };
        if level.sz == 0 {
            side.remove(&level.px);
        } else {
            side.insert(level.px, (level.sz, decimals));
        }
    }

    /// Removes all levels.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// The levels of the longer side.
    pub fn depth(&self) -> usize {
        self.bids.len().max(self.asks.len())
    }

    /// Removes the worst levels of each side beyond `depth`, and calls `each` with their removal.
    pub fn cut(&mut self, depth: usize, mut each: impl FnMut(Level)) {
        while self.bids.len() > depth
            && let Some((px, _)) = self.bids.pop_first()
        {
            each(Level { px, sz: 0, side: BookSide::Bid });
        }
        while self.asks.len() > depth
            && let Some((px, _)) = self.asks.pop_last()
        {
            each(Level { px, sz: 0, side: BookSide::Ask });
        }
    }

    /// All levels, bids first, each side best first.
    pub fn levels(&self) -> impl Iterator<Item = Level> {
        let bids = self.bids.iter().rev().map(|(px, (sz, _))| Level { px: *px, sz: *sz, side: BookSide::Bid });
        bids.chain(self.asks.iter().map(|(px, (sz, _))| Level { px: *px, sz: *sz, side: BookSide::Ask }))
    }

    /// Carries the levels over to other exponents; true if a level is not exact there and was dropped.
    pub fn rescale(&mut self, from: Scale, to: Scale) -> bool {
        let before = self.bids.len() + self.asks.len();
        for side in [&mut self.bids, &mut self.asks] {
            *side = std::mem::take(side)
                .into_iter()
                .filter_map(|(px, (sz, decimals))| {
                    let px = decimal::rescale(px, from.px_exp, to.px_exp)?;
                    Some((px, (decimal::rescale(sz, from.sz_exp, to.sz_exp)?, decimals)))
                })
                .collect();
        }
        self.bids.len() + self.asks.len() < before
    }

    /// Kraken's checksum (docs.kraken.com, "Book Checksum (v2)"): of the ten best asks and then the ten best bids, the
    /// digits of price and size without the point and without zeros before; CRC-32 of all of them in a row. `decimals`
    /// are those of the instrument, else those that were written.
    pub fn kraken_checksum(&self, scale: Scale, decimals: Option<Decimals>, text: &mut String) -> u32 {
        text.clear();
        let asks = self.asks.iter().take(10);
        for (px, (sz, written)) in asks.chain(self.bids.iter().rev().take(10)) {
            let decimals = decimals.unwrap_or(*written);
            push_digits(*px, scale.px_exp, decimals.px, text);
            push_digits(*sz, scale.sz_exp, decimals.sz, text);
        }
        crc32fast::hash(text.as_bytes())
    }

    /// OKX's checksum (OKX v5, "Checksum"): `price:size` of the 25 best levels, bid and ask in turns while both sides have
    /// one, with colons between; CRC-32.
    pub fn okx_checksum(&self, scale: Scale, text: &mut String) -> u32 {
        text.clear();
        let (mut bids, mut asks) = (self.bids.iter().rev().take(25), self.asks.iter().take(25));
        loop {
            let pair = [bids.next(), asks.next()];
            if pair == [None, None] {
                break;
            }
            for (px, (sz, written)) in pair.into_iter().flatten() {
                for (mantissa, exponent, decimals) in [(*px, scale.px_exp, written.px), (*sz, scale.sz_exp, written.sz)]
                {
                    if !text.is_empty() {
                        text.push(':');
                    }
                    push_decimal(mantissa, exponent, decimals, text);
                }
            }
        }
        crc32fast::hash(text.as_bytes())
    }
}

/// Appends the digits of a value that is written with this many decimals, without the point and without zeros before.
fn push_digits(mantissa: i64, exponent: i8, decimals: u8, text: &mut String) {
    push_at(mantissa, exponent, decimals, |_| 0, text);
}

/// Appends a value as it is written with this many decimals.
fn push_decimal(mantissa: i64, exponent: i8, decimals: u8, text: &mut String) {
    push_at(mantissa, exponent, decimals, |to| to, text);
}

/// Of a value that has more decimals, or whose digits are too many, a sign is appended that no venue writes, so that the
/// checksum differs.
fn push_at(mantissa: i64, exponent: i8, decimals: u8, shown: fn(i8) -> i8, text: &mut String) {
    let to = i8::try_from(decimals).ok().map(|decimals| -decimals);
    match to.and_then(|to| Some((decimal::rescale(mantissa, exponent, to)?, to))) {
        Some((digits, to)) => decimal::format(digits, shown(to), text),
        None => text.push('?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(scale: Scale, levels: &[(BookSide, &str, &str)]) -> LocalBook {
        let mut book = LocalBook::default();
        for (side, px, sz) in levels {
            let level = Level {
                px: decimal::parse(px, scale.px_exp).expect("a price"),
                sz: decimal::parse(sz, scale.sz_exp).expect("a size"),
                side: *side,
            };
            book.set(level, Decimals::of(px, sz));
        }
        book
    }

    #[test]
    fn cut_removes_the_worst_levels_and_reports_them() {
        let scale = Scale { px_exp: 0, sz_exp: 0 };
        let (bid, ask) = (BookSide::Bid, BookSide::Ask);
        let mut book =
            book(scale, &[(bid, "9", "1"), (bid, "8", "1"), (bid, "7", "1"), (ask, "10", "1"), (ask, "11", "2")]);
        let mut removed = Vec::new();
        book.cut(1, |level| removed.push((level.side, level.px, level.sz)));
        assert_eq!(removed, [(bid, 7, 0), (bid, 8, 0), (ask, 11, 0)]);
        let left: Vec<_> = book.levels().map(|level| (level.px, level.sz)).collect();
        assert_eq!((left, book.depth()), (vec![(9, 1), (10, 1)], 1));
    }

    #[test]
    fn checksum_is_of_the_digits_as_written_at_any_exponents() {
        let levels = [
            (BookSide::Bid, "3366.1", "7"),
            (BookSide::Bid, "3366", "6.50"),
            (BookSide::Ask, "3366.8", "9"),
            (BookSide::Ask, "3368", "8"),
            (BookSide::Ask, "3372", "8"),
        ];
        for (px_exp, sz_exp) in [(-1, -2), (-8, -8), (-1, -1)] {
            let scale = Scale { px_exp, sz_exp };
            let mut text = String::new();
            let sum = book(scale, &levels).okx_checksum(scale, &mut text);
            assert_eq!(text, "3366.1:7:3366.8:9:3366:6.50:3368:8:3372:8");
            assert_eq!(sum, crc32fast::hash(text.as_bytes()));
            book(scale, &levels).kraken_checksum(scale, Some(Decimals { px: 1, sz: 2 }), &mut text);
            assert_eq!(text, ["33668900", "33680800", "33720800", "33661700", "33660650"].concat());
        }
    }

    #[test]
    fn rescale_keeps_the_checksum_and_reports_what_does_not_fit() {
        let (from, to) = (Scale { px_exp: -2, sz_exp: -3 }, Scale { px_exp: -4, sz_exp: -3 });
        let mut book = book(from, &[(BookSide::Bid, "1.25", "0.5"), (BookSide::Ask, "1.26", "2")]);
        let mut text = String::new();
        let before = book.okx_checksum(from, &mut text);
        assert!(!book.rescale(from, to));
        assert_eq!(book.okx_checksum(to, &mut text), before);
        assert!(book.rescale(to, Scale { px_exp: -1, sz_exp: -3 }));
        assert_eq!(book.depth(), 0);
    }
}
