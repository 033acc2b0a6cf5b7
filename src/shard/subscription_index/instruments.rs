//! The instruments of the index: by id, by symbol, and in the order of symbols.
//!
//! Which prefixes cover an instrument is found when a record comes, and kept until a prefix is added or removed. So a
//! new prefix costs nothing for each instrument that it covers.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::patterns::PatternTable;
use crate::identity::{PRIVATE_FOLDER, owner_folder};

/// [`InstrumentRow::name`] of an instrument whose name no client has.
pub(super) const NO_NAME: u32 = u32::MAX;
/// Ids of one chunk of the order at most.
const CHUNK_IDS: usize = 1024;

#[derive(Debug)]
pub(super) struct InstrumentRow {
    pub(super) symbol: Box<str>,
    /// The row of its name among the patterns, or [`NO_NAME`].
    pub(super) name: u32,
    /// Its id carries nothing more. Items still cover it, so that clients that are behind learn that.
    pub(super) is_released: bool,
    /// Prefixes that are shorter do not cover it: those of a private symbol that are not of its user's folder.
    prefix_bytes_min: u16,
    prefixes: Prefixes,
}

/// The prefixes that cover an instrument, the longest first, as of a version of the patterns.
#[derive(Debug, Default)]
struct Prefixes {
    version: u32,
    ids: Vec<u32>,
}

impl InstrumentRow {
    /// The prefixes that cover the instrument, the longest first.
    pub(super) fn prefixes(&self, patterns: &PatternTable) -> Cow<'_, [u32]> {
        if self.prefixes.version == patterns.prefix_version() {
            Cow::Borrowed(&self.prefixes.ids)
        } else {
            Cow::Owned(self.covering(patterns).collect())
        }
    }

    /// Finds the prefixes that cover the instrument anew, if any has changed.
    pub(super) fn refresh(&mut self, patterns: &PatternTable) {
        let version = patterns.prefix_version();
        if self.prefixes.version != version {
            self.prefixes.version = version;
            self.prefixes.ids.clear();
            let covering: Vec<u32> = self.covering(patterns).collect();
            self.prefixes.ids.extend(covering);
        }
    }

    fn covering<'a>(&'a self, patterns: &'a PatternTable) -> impl Iterator<Item = u32> + 'a {
        patterns.covering(&self.symbol, self.prefix_bytes_min.into())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Instruments {
    rows: Vec<InstrumentRow>,
    /// Those that are not released.
    by_symbol: HashMap<Box<str>, u32, RandomState>,
    order: SymbolOrder,
    /// Symbols below `user/` are private.
    has_private: bool,
}

impl Instruments {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, id: u32) -> &InstrumentRow {
        &self.rows[id as usize - 1]
    }

    pub(super) fn row_mut(&mut self, id: u32) -> &mut InstrumentRow {
        &mut self.rows[id as usize - 1]
    }

    pub(super) fn get(&self, id: u32) -> Option<&InstrumentRow> {
        self.rows.get((id as usize).checked_sub(1)?)
    }

    /// The instrument with this symbol, unless it is released.
    pub(super) fn find(&self, symbol: &str) -> Option<u32> {
        self.by_symbol.get(symbol).copied()
    }

    pub(super) fn add(&mut self, symbol: &str, name: u32) {
        let mut row = row(symbol, name, false);
        if let Some(folder) = owner_folder(symbol).filter(|_| self.has_private) {
            // Without an owner, no prefix is long enough.
            row.prefix_bytes_min = if folder.is_empty() { u16::MAX } else { folder.len() as u16 };
        }
        self.rows.push(row);
        let id = self.rows.len() as u32;
        self.by_symbol.insert(symbol.into(), id);
        self.order.insert(id, &self.rows);
    }

    /// Adds an id whose instrument was released already.
    pub(super) fn add_released(&mut self) {
        self.rows.push(row("", NO_NAME, true));
    }

    pub(super) fn release(&mut self, id: u32) {
        let row = &mut self.rows[id as usize - 1];
        row.is_released = true;
        if self.by_symbol.get(&row.symbol) == Some(&id) {
            self.by_symbol.remove(&row.symbol);
            self.order.remove(id, &self.rows);
        }
    }

    /// Has symbols below `user/` be private. Called before the first instrument.
    pub(super) fn set_private(&mut self) {
        self.has_private = true;
    }

    /// True if a symbol or prefix is in the private folder.
    pub(super) fn is_private(&self, text: &str) -> bool {
        self.has_private && owner_folder(text).is_some()
    }

    /// How many instruments a prefix covers, without released ones.
    pub(super) fn count(&self, prefix: &str) -> usize {
        let all = self.order.count(prefix, &self.rows);
        match owner_folder(prefix) {
            _ if !self.has_private => all,
            // A folder without an owner.
            Some("") => 0,
            Some(_) => all,
            None if PRIVATE_FOLDER.starts_with(prefix) => all - self.order.count(PRIVATE_FOLDER, &self.rows),
            None => all,
        }
    }

    /// The instruments whose symbols begin with a prefix, in the order of these and behind one of them; true for those
    /// that the prefix covers.
    pub(super) fn below<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> impl Iterator<Item = (u32, bool)> + 'a {
        let covers = |id: u32| prefix.len() >= self.row(id).prefix_bytes_min.into();
        self.order.below(prefix, after, &self.rows).map(move |id| (id, covers(id)))
    }
}

fn row(symbol: &str, name: u32, is_released: bool) -> InstrumentRow {
    InstrumentRow { symbol: symbol.into(), name, is_released, prefix_bytes_min: 0, prefixes: Prefixes::default() }
}

/// Ids in the order of symbols, in chunks: an insertion moves one chunk, a count reads two.
#[derive(Debug, Default)]
struct SymbolOrder {
    chunks: Vec<Vec<u32>>,
}

impl SymbolOrder {
    fn insert(&mut self, id: u32, rows: &[InstrumentRow]) {
        let symbol = symbol_of(id, rows);
        let (chunk, at) = self.find(rows, |other| other.cmp(symbol));
        match self.chunks.get_mut(chunk) {
            None => self.chunks.push(vec![id]),
            Some(ids) => {
                ids.insert(at, id);
                if ids.len() > CHUNK_IDS {
                    let tail = ids.split_off(CHUNK_IDS / 2);
                    self.chunks.insert(chunk + 1, tail);
                }
            }
        }
    }

    fn remove(&mut self, id: u32, rows: &[InstrumentRow]) {
        let symbol = symbol_of(id, rows);
        let (mut chunk, mut at) = self.find(rows, |other| other.cmp(symbol));
        if self.chunks.get(chunk).is_some_and(|ids| at == ids.len()) {
            (chunk, at) = (chunk + 1, 0);
        }
        let Some(ids) = self.chunks.get_mut(chunk) else { return };
        if ids.get(at) == Some(&id) {
            ids.remove(at);
        }
        if ids.is_empty() {
            self.chunks.remove(chunk);
        }
    }

    /// How many symbols begin with a prefix.
    fn count(&self, prefix: &str, rows: &[InstrumentRow]) -> usize {
        let before = self.rank(rows, |symbol| symbol.cmp(prefix));
        let covered = |symbol: &str| if symbol.starts_with(prefix) { Ordering::Less } else { symbol.cmp(prefix) };
        self.rank(rows, covered) - before
    }

    /// The ids whose symbols begin with a prefix, in their order, behind one of them.
    fn below<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
        rows: &'a [InstrumentRow],
    ) -> impl Iterator<Item = u32> + 'a {
        let (chunk, at) = self.find(rows, |symbol| match after {
            None => symbol.cmp(prefix),
            Some(after) if symbol <= after => Ordering::Less,
            Some(_) => Ordering::Greater,
        });
        let ids = self.chunks[chunk.min(self.chunks.len())..].iter().flatten().skip(at);
        ids.copied().take_while(move |id| symbol_of(*id, rows).starts_with(prefix))
    }

    fn rank(&self, rows: &[InstrumentRow], compare: impl Fn(&str) -> Ordering) -> usize {
        let (chunk, at) = self.find(rows, compare);
        self.chunks[..chunk].iter().map(Vec::len).sum::<usize>() + at
    }

    /// The place behind all symbols that `compare` calls less: a chunk and an index in it.
    fn find(&self, rows: &[InstrumentRow], compare: impl Fn(&str) -> Ordering) -> (usize, usize) {
        let is_less = |id: &u32| compare(symbol_of(*id, rows)) == Ordering::Less;
        let after = self.chunks.partition_point(|chunk| is_less(&chunk[0]));
        let chunk = after.saturating_sub(1);
        (chunk, self.chunks.get(chunk).map_or(0, |ids| ids.partition_point(is_less)))
    }
}

fn symbol_of(id: u32, rows: &[InstrumentRow]) -> &str {
    &rows[id as usize - 1].symbol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_a_walk_over_all_symbols() {
        let mut instruments = Instruments::default();
        let symbol = |nth: u32| format!("{}{}", ["A", "AB", "B", "€", "Z"][nth as usize % 5], nth * 7919 % 5003);
        (0..5000).for_each(|nth| instruments.add(&symbol(nth), NO_NAME));
        (1..=5000).filter(|id| id % 3 == 0).for_each(|id| instruments.release(id));
        assert!(instruments.order.chunks.len() > 3);
        for prefix in ["", "A", "AB", "AB1", "AC", "B", "B12", "€", "€4", "Z5", "Z9999", "~"] {
            let live = instruments.rows.iter().filter(|row| !row.is_released);
            let covered = live.filter(|row| row.symbol.starts_with(prefix)).count();
            assert_eq!(instruments.count(prefix), covered, "{prefix:?}");
        }
    }
}
