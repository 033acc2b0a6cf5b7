//! Patterns: prefixes that cover any number of instruments, and names whose instrument may be defined later. Both are
//! interned, and removed with the last item that uses them.

use std::ops::Bound;

use super::SubscriptionIndex;
use super::watch_lists::WatchLists;

#[derive(Debug)]
pub(super) struct PatternRow {
    /// The prefix of the symbols; of a name, all of it.
    pub(super) prefix: String,
    pub(super) is_name: bool,
    /// Items that use it; 0: the row is free.
    pub(super) uses: u32,
    pub(super) instruments: Vec<u32>,
    pub(super) watches: WatchLists,
}

impl PatternRow {
    /// The greater of two is the more specific.
    fn rank(&self) -> (bool, usize) {
        (self.is_name, self.prefix.len())
    }
}

impl SubscriptionIndex {
    /// The pattern with this prefix, interned. It lives as long as an item uses it; one that no item came to use is
    /// removed by [`Self::release_unused`].
    pub fn intern(&mut self, prefix: &str) -> u32 {
        if let Some(pattern) = self.by_prefix.get(prefix) {
            return *pattern;
        }
        let from = self.by_symbol.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let covered = from.take_while(|(symbol, _)| symbol.starts_with(prefix));
        let mut instruments: Vec<u32> = covered.map(|(_, id)| *id).collect();
        instruments.sort_unstable();
        let pattern = self.add_pattern(prefix, false, instruments);
        self.by_prefix.insert(prefix.to_owned(), pattern);
        pattern
    }

    /// The pattern of this one name, interned likewise. It covers the instrument as soon as that is defined, and is
    /// more specific than all prefixes that do.
    pub fn intern_name(&mut self, name: &str) -> u32 {
        if let Some(pattern) = self.by_name.get(name) {
            return *pattern;
        }
        let instruments = self.by_symbol.get(name).copied().into_iter().collect();
        let pattern = self.add_pattern(name, true, instruments);
        self.by_name.insert(name.to_owned(), pattern);
        pattern
    }

    fn add_pattern(&mut self, prefix: &str, is_name: bool, instruments: Vec<u32>) -> u32 {
        let row =
            PatternRow { prefix: prefix.to_owned(), is_name, uses: 0, instruments, watches: WatchLists::default() };
        let rank = (is_name, prefix.len());
        let pattern = self.free_patterns.pop().unwrap_or(self.patterns.len() as u32);
        let patterns = &self.patterns;
        for id in &row.instruments {
            let covering = &mut self.instruments[*id as usize - 1].patterns;
            let at = covering.partition_point(|other| patterns[*other as usize].rank() >= rank);
            covering.insert(at, pattern);
        }
        match self.patterns.get_mut(pattern as usize) {
            Some(free) => *free = row,
            None => self.patterns.push(row),
        }
        pattern
    }

    /// The pattern with this prefix, if an item uses it.
    pub fn find_pattern(&self, prefix: &str) -> Option<u32> {
        self.by_prefix.get(prefix).copied()
    }

    /// The pattern of this one name, if an item uses it.
    pub fn find_name(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Removes a pattern that no item uses.
    pub fn release_unused(&mut self, pattern: u32) {
        let row = &mut self.patterns[pattern as usize];
        let interned = if row.is_name { &mut self.by_name } else { &mut self.by_prefix };
        if row.uses > 0 || interned.get(&row.prefix) != Some(&pattern) {
            return;
        }
        interned.remove(&row.prefix);
        for id in std::mem::take(&mut row.instruments) {
            self.instruments[id as usize - 1].patterns.retain(|other| *other != pattern);
        }
        self.free_patterns.push(pattern);
    }

    /// True if a pattern is that of one name.
    pub fn is_name(&self, pattern: u32) -> bool {
        self.patterns[pattern as usize].is_name
    }

    /// The prefix of a pattern; of one name, all of it.
    pub fn prefix(&self, pattern: u32) -> &str {
        &self.patterns[pattern as usize].prefix
    }
}
