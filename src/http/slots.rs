//! What HTTP keeps for each slot of the shard: the address guard of its client, and the client's address.

use super::admission::addresses::AddressGuard;
use crate::shard::paged_vec::PagedVec;
use crate::state::ClientAddress;

/// By slot index. Cost: some 56 bytes a slot, and 24 more unless all addresses are exempt.
#[derive(Default)]
pub(super) struct SlotTable {
    /// Of clients that are connected.
    guards: PagedVec<Option<AddressGuard>>,
    /// Of the client that has the slot, or had it last: a list of slow clients may still name it.
    addresses: PagedVec<Option<ClientAddress>>,
}

impl SlotTable {
    /// Sets the address of the client that gets the slot.
    pub(super) fn set_address(&mut self, slot: u32, address: Option<ClientAddress>) {
        put(&mut self.addresses, slot, address);
    }

    /// Keeps the guard until the client closes.
    pub(super) fn set_guard(&mut self, slot: u32, guard: AddressGuard) {
        put(&mut self.guards, slot, Some(guard));
    }

    /// Drops the guards of clients that have closed.
    pub(super) fn release(&mut self, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            if let Some(guard) = self.guards.get_mut(slot as usize) {
                *guard = None;
            }
        }
    }

    pub(super) fn address(&self, slot: u32) -> Option<ClientAddress> {
        self.addresses.get(slot as usize).copied().flatten()
    }
}

fn put<T>(entries: &mut PagedVec<Option<T>>, slot: u32, value: Option<T>) {
    entries.grow(slot as usize + 1);
    entries[slot as usize] = value;
}
