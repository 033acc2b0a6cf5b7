//! Names and prefixes that clients have subscribed to, interned: one row for all clients, removed with the last use.
//!
//! Memory: 48 bytes a row and its text, 9 in a hash table. Rows are in pages; a page without rows is freed, and new rows
//! go to the first page with room.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::split_table::{Entry, SplitTable};
use super::watch_lists::WatchLists;

const PAGE_ROWS: usize = 256;
/// [`PatternRow::instrument`] of a prefix.
const PREFIX: u32 = u32::MAX;

/// A name or a prefix.
#[derive(Debug)]
pub(super) struct PatternRow {
    pub(super) text: Box<str>,
    /// Items that have it, and requests that are being carried out.
    pub(super) uses: u32,
    /// Of a name: the id of the newest instrument that has it, or 0. Of a prefix: [`PREFIX`].
    instrument: u32,
    pub(super) watches: WatchLists,
}

// One per name and pattern that clients have, of which there may be millions.
const _: () = assert!(size_of::<Option<PatternRow>>() == 48);

impl PatternRow {
    pub(super) fn is_name(&self) -> bool {
        self.instrument != PREFIX
    }

    /// Of a name: the newest instrument that has it, released ones included.
    pub(super) fn instrument(&self) -> Option<u32> {
        (self.is_name() && self.instrument != 0).then_some(self.instrument)
    }
}

#[derive(Debug)]
struct Page {
    rows: Box<[Option<PatternRow>]>,
    used: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PatternTable {
    pages: Vec<Option<Page>>,
    /// No page before it has room.
    first_with_room: usize,
    names: SplitTable,
    prefixes: SplitTable,
    /// How many prefixes have a length, bytes.
    prefix_lengths: BTreeMap<usize, u32>,
    /// Changes with each prefix that is added or removed.
    prefix_version: u32,
    /// Instruments that had a name before its newest one and were released.
    former: HashMap<u32, Vec<u32>, RandomState>,
    hasher: RandomState,
}

impl PatternTable {
    pub(super) fn row(&self, id: u32) -> &PatternRow {
        let page = self.pages[id as usize / PAGE_ROWS].as_ref();
        page.and_then(|page| page.rows[id as usize % PAGE_ROWS].as_ref()).expect("items and requests keep their rows")
    }

    pub(super) fn row_mut(&mut self, id: u32) -> &mut PatternRow {
        let page = self.pages[id as usize / PAGE_ROWS].as_mut();
        page.and_then(|page| page.rows[id as usize % PAGE_ROWS].as_mut()).expect("items and requests keep their rows")
    }

    /// How many names and prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.prefixes.len()
    }

    /// The version of the prefixes, for lists that are derived from them.
    pub(super) fn prefix_version(&self) -> u32 {
        self.prefix_version
    }

    pub(super) fn find_name(&self, name: &str) -> Option<u32> {
        self.find(&self.names, name)
    }

    pub(super) fn find_prefix(&self, prefix: &str) -> Option<u32> {
        self.find(&self.prefixes, prefix)
    }

    fn find(&self, table: &SplitTable, text: &str) -> Option<u32> {
        table.find(self.hasher.hash_one(text) as u32, |id| &*self.row(id).text == text)
    }

    /// The prefixes of a symbol that have at least so many bytes, the longest first.
    pub(super) fn covering<'a>(&'a self, symbol: &'a str, bytes_min: usize) -> impl Iterator<Item = u32> + 'a {
        let lengths = self
            .prefix_lengths
            .range(..=symbol.len())
            .rev()
            .take_while(move |(length, _)| **length >= bytes_min)
            .map(|(length, _)| *length);
        lengths.filter(|length| symbol.is_char_boundary(*length)).filter_map(|end| self.find_prefix(&symbol[..end]))
    }

    /// Adds a name that is not there; `instrument` is the one that has it, or 0.
    pub(super) fn add_name(&mut self, name: &str, instrument: u32) -> u32 {
        let id = self.add(name, instrument);
        let hash = self.hasher.hash_one(name) as u32;
        self.names.insert(Entry { hash, id });
        id
    }

    /// Adds a prefix that is not there.
    pub(super) fn add_prefix(&mut self, prefix: &str) -> u32 {
        let id = self.add(prefix, PREFIX);
        let hash = self.hasher.hash_one(prefix) as u32;
        self.prefixes.insert(Entry { hash, id });
        *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
        self.prefix_version = self.prefix_version.wrapping_add(1);
        id
    }

    fn add(&mut self, text: &str, instrument: u32) -> u32 {
        let has_room = |page: &Option<Page>| page.as_ref().is_none_or(|page| page.used < PAGE_ROWS);
        let from = self.first_with_room;
        let at = self.pages[from..].iter().position(has_room).map_or(self.pages.len(), |after| from + after);
        if at == self.pages.len() {
            self.pages.push(None);
        }
        self.first_with_room = at;
        let page = self.pages[at].get_or_insert_with(|| Page { rows: (0..PAGE_ROWS).map(|_| None).collect(), used: 0 });
        // Rows of a page are mostly added one after another.
        let free = (page.used..PAGE_ROWS).chain(0..page.used).find(|row| page.rows[*row].is_none());
        let free = free.expect("the page has room");
        page.used += 1;
        page.rows[free] = Some(PatternRow { text: text.into(), uses: 0, instrument, watches: WatchLists::Empty });
        (at * PAGE_ROWS + free) as u32
    }

    /// Removes a row; returns it.
    pub(super) fn remove(&mut self, id: u32) -> PatternRow {
        let at = id as usize / PAGE_ROWS;
        let page = self.pages[at].as_mut().expect("the row exists");
        let row = page.rows[id as usize % PAGE_ROWS].take().expect("the row exists");
        page.used -= 1;
        if page.used == 0 {
            self.pages[at] = None;
        }
        self.first_with_room = self.first_with_room.min(at);
        while self.pages.last().is_some_and(Option::is_none) {
            self.pages.pop();
        }
        self.first_with_room = self.first_with_room.min(self.pages.len());
        let hash = self.hasher.hash_one(&*row.text) as u32;
        let table = if row.is_name() { &mut self.names } else { &mut self.prefixes };
        table.remove(Entry { hash, id });
        if row.is_name() {
            self.former.remove(&id);
        } else {
            let count = self.prefix_lengths.entry(row.text.len()).or_default();
            *count -= 1;
            if *count == 0 {
                self.prefix_lengths.remove(&row.text.len());
            }
            self.prefix_version = self.prefix_version.wrapping_add(1);
        }
        row
    }

    /// Notes that a name has a new instrument.
    pub(super) fn set_instrument(&mut self, name: u32, instrument: u32) {
        let row = self.row_mut(name);
        let before = std::mem::replace(&mut row.instrument, instrument);
        if before != 0 {
            self.former.entry(name).or_default().push(before);
        }
    }

    /// The instruments of a name, released ones included.
    pub(super) fn instruments_of_name(&self, name: u32) -> impl Iterator<Item = u32> + '_ {
        let former = self.former.get(&name).map_or(&[][..], Vec::as_slice);
        former.iter().copied().chain(self.row(name).instrument())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_removed_give_their_memory_back() {
        let mut table = PatternTable::default();
        let kept = table.add_name("KEPT", 0);
        let ids: Vec<u32> = (0..10_000).map(|nth| table.add_name(&format!("N{nth}"), 0)).collect();
        assert!(ids.iter().enumerate().all(|(nth, id)| table.find_name(&format!("N{nth}")) == Some(*id)));
        let (pages, capacity) = (table.pages.len(), table.names.capacity());
        ids.iter().for_each(|id| drop(table.remove(*id)));
        assert!(table.pages.len() * 10 < pages && table.names.capacity() * 4 < capacity);
        assert_eq!((table.find_name("KEPT"), table.find_name("N7")), (Some(kept), None));
        let again = table.add_name("N7", 0);
        assert!((again as usize) < PAGE_ROWS, "the first page with room is used again");
    }

    #[test]
    fn no_name_moves_more_than_a_few_thousand_others() {
        let mut table = PatternTable::default();
        for nth in 0..300_000 {
            table.add_name(&format!("N{nth}"), 0);
        }
        let names = &table.names;
        assert!(names.largest_part() <= 2_000 && names.capacity() < 1_000_000, "{}", names.largest_part());
    }

    #[test]
    fn names_and_prefixes_of_the_same_text_are_told_apart() {
        let mut table = PatternTable::default();
        let (name, prefix) = (table.add_name("A", 0), table.add_prefix("A"));
        assert_eq!((table.find_name("A"), table.find_prefix("A")), (Some(name), Some(prefix)));
        let (long, all) = (table.add_prefix("AB€"), table.add_prefix(""));
        assert_eq!(table.covering("AB€-X", 0).collect::<Vec<_>>(), [long, prefix, all]);
        drop(table.remove(prefix));
        assert_eq!(table.covering("AB€-X", 0).collect::<Vec<_>>(), [long, all]);
        assert_eq!((table.find_name("A"), table.find_prefix("A")), (Some(name), None));
    }
}
