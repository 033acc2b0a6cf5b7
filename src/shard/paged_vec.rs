//! A vector in pages: it grows without moving its entries.
//!
//! A plain vector of a million clients copies 90 MB whenever it doubles, which delays all clients, and leaves as much
//! memory unused. Cost: one more look-up, in a short list that stays in the cache.

use std::ops::{Index, IndexMut};

/// Entries of a page: some tens of KiB, so that the last one wastes little.
const PAGE_ENTRIES: usize = 512;

/// Entries by index, from 0.
#[derive(Debug)]
pub(crate) struct PagedVec<T> {
    pages: Vec<Box<[T]>>,
}

impl<T> Default for PagedVec<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Default> PagedVec<T> {
    /// Makes entries for all indices below `count`, new ones with their default.
    pub(crate) fn grow(&mut self, count: usize) {
        while self.len() < count {
            self.pages.push((0..PAGE_ENTRIES).map(|_| T::default()).collect());
        }
    }

    /// One above the highest index: whole pages.
    pub(crate) fn len(&self) -> usize {
        self.pages.len() * PAGE_ENTRIES
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE_ENTRIES).map(|page| &page[index % PAGE_ENTRIES])
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pages.get_mut(index / PAGE_ENTRIES).map(|page| &mut page[index % PAGE_ENTRIES])
    }
}

impl<T> Index<usize> for PagedVec<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.pages[index / PAGE_ENTRIES][index % PAGE_ENTRIES]
    }
}

impl<T> IndexMut<usize> for PagedVec<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.pages[index / PAGE_ENTRIES][index % PAGE_ENTRIES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_does_not_move_entries() {
        let mut pages = PagedVec::<Option<usize>>::default();
        assert_eq!((pages.len(), pages.get(0)), (0, None));
        assert_eq!(pages.get_mut(0), None);
        pages.grow(1);
        pages[0] = Some(7);
        let first = std::ptr::from_ref(&pages[0]);
        pages.grow(3 * PAGE_ENTRIES + 1);
        assert_eq!((pages[0], std::ptr::from_ref(&pages[0])), (Some(7), first));
        assert_eq!((pages.len(), pages.get(4 * PAGE_ENTRIES)), (4 * PAGE_ENTRIES, None));
        pages[2 * PAGE_ENTRIES] = Some(8);
        assert_eq!((pages[2 * PAGE_ENTRIES], pages[PAGE_ENTRIES]), (Some(8), None));
    }
}
