//! Instruments that have ended, in the order in which they did: the first makes room for a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::owners::OwnerId;

/// See the module. Each instrument is in it once. Cost: three tree steps.
#[derive(Debug, Default)]
pub(super) struct EndedInstruments {
    /// Ids by when they ended.
    by_order: BTreeMap<u64, u32>,
    /// The same for each owner.
    by_owner: HashMap<OwnerId, BTreeSet<(u64, u32)>, RandomState>,
    ranks: HashMap<u32, (u64, OwnerId), RandomState>,
    next: u64,
}

impl EndedInstruments {
    pub(super) fn len(&self) -> usize {
        self.ranks.len()
    }

    /// How many of an owner have ended.
    pub(super) fn len_of(&self, owner: OwnerId) -> usize {
        self.by_owner.get(&owner).map_or(0, BTreeSet::len)
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.ranks.contains_key(&id)
    }

    /// Adds an instrument as the newest, unless it is there.
    pub(super) fn add(&mut self, id: u32, owner: OwnerId) {
        if !self.contains(id) {
            self.ranks.insert(id, (self.next, owner));
            self.by_order.insert(self.next, id);
            self.by_owner.entry(owner).or_default().insert((self.next, id));
            self.next += 1;
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some((rank, owner)) = self.ranks.remove(&id) else { return };
        self.by_order.remove(&rank);
        if let Some(of_owner) = self.by_owner.get_mut(&owner) {
            of_owner.remove(&(rank, id));
            if of_owner.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    /// The one that ended first.
    pub(super) fn first(&self) -> Option<u32> {
        self.by_order.first_key_value().map(|(_, id)| *id)
    }

    /// The first of an owner's.
    pub(super) fn first_of(&self, owner: OwnerId) -> Option<u32> {
        self.by_owner.get(&owner)?.first().map(|(_, id)| *id)
    }
}
