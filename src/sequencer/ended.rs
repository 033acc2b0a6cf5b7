//! Instruments that have ended, in the order in which they did: the first makes room for a new one.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

/// See the module. Each instrument is in it once. Cost: a tree step.
#[derive(Debug, Default)]
pub(super) struct EndedInstruments {
    /// Ids by when they ended.
    by_order: BTreeMap<u64, u32>,
    ranks: HashMap<u32, u64, RandomState>,
    next: u64,
}

impl EndedInstruments {
    pub(super) fn len(&self) -> usize {
        self.ranks.len()
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.ranks.contains_key(&id)
    }

    /// Adds an instrument as the newest, unless it is there.
    pub(super) fn add(&mut self, id: u32) {
        if !self.contains(id) {
            self.ranks.insert(id, self.next);
            self.by_order.insert(self.next, id);
            self.next += 1;
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(rank) = self.ranks.remove(&id) {
            self.by_order.remove(&rank);
        }
    }

    /// Takes the one that ended first.
    pub(super) fn take_first(&mut self) -> Option<u32> {
        let (_, id) = self.by_order.pop_first()?;
        self.ranks.remove(&id);
        Some(id)
    }
}
