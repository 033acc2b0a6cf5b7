//! A hash table in parts that grow and shrink by themselves: with a million entries no insertion or removal moves more
//! than some thousands of them, so none takes long.
//!
//! Memory: 8 bytes an entry and the room of a hash table, and 32 KiB.

use hashbrown::HashTable;

/// Parts of the table.
const PARTS: usize = 1024;

/// An entry: growing a part reads nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) hash: u32,
    pub(super) id: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct SplitTable {
    parts: Box<[HashTable<Entry>]>,
    len: usize,
}

impl Default for SplitTable {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), len: 0 }
    }
}

impl SplitTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The id with this hash for which `is_same` is true.
    pub(super) fn find(&self, hash: u32, is_same: impl Fn(u32) -> bool) -> Option<u32> {
        let is_same = |entry: &Entry| entry.hash == hash && is_same(entry.id);
        self.parts[part_of(hash)].find(spread(hash), is_same).map(|entry| entry.id)
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.parts[part_of(entry.hash)].insert_unique(spread(entry.hash), entry, |entry| spread(entry.hash));
        self.len += 1;
    }

    /// Removes an id if it is there.
    pub(super) fn remove(&mut self, entry: Entry) {
        let part = &mut self.parts[part_of(entry.hash)];
        let Ok(found) = part.find_entry(spread(entry.hash), |found| found.id == entry.id) else { return };
        found.remove();
        self.len -= 1;
        if part.capacity() > 8 * part.len() {
            let room = 2 * part.len();
            part.shrink_to(room, |entry| spread(entry.hash));
        }
    }

    /// Entries for which there is room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.parts.iter().map(HashTable::capacity).sum()
    }

    /// Of the part with most room.
    #[cfg(test)]
    pub(super) fn largest_part(&self) -> usize {
        self.parts.iter().map(HashTable::capacity).max().unwrap_or(0)
    }
}

/// Bits of the hash that choose neither the bucket nor the tag within a part of up to 4,096 entries.
fn part_of(hash: u32) -> usize {
    hash as usize >> 12 & (PARTS - 1)
}

/// A hash for a part, whose high bits count, from the half that the entries keep.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
