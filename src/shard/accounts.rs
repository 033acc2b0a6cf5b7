//! What clients cost: work and held input, of each client, of each address, and of all.
//!
//! *Work* is counted in units of some 0.1 µs: symbols that are looked up, items that change, bytes that are read and
//! inflated, instruments that a snapshot covers. A client and an address have an allowance of work that refills with
//! time. One that has spent it is not closed: its input is not read until the allowance has refilled, and TCP slows it
//! down. The allowance of an address lives on when its clients are gone, so that connecting again gains nothing. All
//! clients of a shard together have one as well: while it is spent, all requests of the shard wait, and deliveries have
//! its time.
//!
//! *Held input* is what a client has sent and the shard keeps: messages that are incomplete, requests that wait. All
//! clients of a shard together have a limit, and an address has a quarter of it. Over the limit of its address the
//! client that sent more is closed, over the limit of all the client that has most.
//!
//! What always holds: an exempt address has no account; its clients have allowances of their own like all others.
//!
//! Memory: 64 bytes an address with clients, or with an allowance that has not refilled.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::io::SlotId;

/// Time of its rate that an allowance has when it is full.
const BURST_NS: u64 = 2_000_000_000;
/// The same for the allowance of all clients of a shard: so much that a few clients that subscribe do not wait.
const SHARE_BURST_NS: u64 = 250_000_000;
/// An address has the work of so many clients.
pub(super) const ADDRESS_CLIENTS: u32 = 4;
/// The part of all held input, and of all subscriptions, that one address may have.
pub(super) const ADDRESS_PART: usize = 4;
/// Clients that hold less are not ordered by it: a request mostly comes whole.
const HEAVY_BYTES: u32 = 4096;

/// Units of work of each part of a request.
pub(super) mod cost {
    /// A frame, whatever it holds.
    pub(in crate::shard) const FRAME: u64 = 4;
    /// A request and its answer.
    pub(in crate::shard) const REQUEST: u64 = 32;
    /// Bytes of text, and inflated bytes, for one unit.
    pub(in crate::shard) const TEXT_BYTES: u64 = 16;
    pub(in crate::shard) const INFLATED_BYTES: u64 = 32;
    /// An instrument that a snapshot covers.
    pub(in crate::shard) const COVERED: u64 = 2;
}

/// An allowance of work: a rate, with a burst. The rate is an argument, as it may change at any time; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// When all of it has refilled.
    full_ns: u64,
}

impl Allowance {
    /// Spends work, which has been done already.
    pub(super) fn spend(&mut self, units: u64, per_s: u32, now_ns: u64) {
        if let Some(ns) = units.saturating_mul(1_000_000_000).checked_div(per_s.into()) {
            self.full_ns = self.full_ns.max(now_ns).saturating_add(ns);
        }
    }

    /// When there is work left again; `None` if there is now.
    pub(super) fn due_ns(self, now_ns: u64) -> Option<u64> {
        self.due_with(BURST_NS, now_ns)
    }

    /// The same for the allowance of all clients of a shard.
    pub(super) fn share_due_ns(self, now_ns: u64) -> Option<u64> {
        self.due_with(SHARE_BURST_NS, now_ns)
    }

    fn due_with(self, burst_ns: u64, now_ns: u64) -> Option<u64> {
        let due_ns = self.full_ns.saturating_sub(burst_ns);
        (due_ns > now_ns).then_some(due_ns)
    }

    fn is_full(self, now_ns: u64) -> bool {
        self.full_ns <= now_ns
    }
}

/// Index of the account of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AccountId(u32);

#[derive(Debug)]
struct Account {
    key: u64,
    clients: u32,
    work: Allowance,
    input_bytes: usize,
    subscriptions: Subscriptions,
}

/// What clients have subscribed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    pub(super) items: u32,
    /// Names that no instrument had, and patterns.
    pub(super) names: u32,
}

impl Subscriptions {
    /// Memory of an item, and of a name or pattern, about.
    const ITEM_BYTES: usize = 20;
    const NAME_BYTES: usize = 80;

    /// Their memory, if no client has the same.
    pub(super) fn bytes(self) -> usize {
        Self::ITEM_BYTES * self.items as usize + Self::NAME_BYTES * self.names as usize
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: Vec<Account>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, RandomState>,
    /// Of all clients, with an account or without.
    input_bytes: usize,
    /// Clients that hold much, by how much.
    heavy: BTreeSet<(u32, u32)>,
    /// The process is short of memory: no client gets more.
    pub(super) is_short: bool,
}

/// Whether the held input is within its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Within,
    /// The address of the client has more than its part.
    OverAddress,
    /// All clients together have more than the limit. The client in this slot has most.
    Over {
        heaviest: u32,
    },
}

impl Accounts {
    /// Counts a client of an address.
    pub(super) fn enter(&mut self, key: u64) -> AccountId {
        let (accounts, free) = (&mut self.accounts, &mut self.free);
        let index = *self.by_key.entry(key).or_insert_with(|| {
            let account = Account {
                key,
                clients: 0,
                work: Allowance::default(),
                input_bytes: 0,
                subscriptions: Subscriptions::default(),
            };
            match free.pop() {
                Some(index) => {
                    accounts[index as usize] = account;
                    index
                }
                None => {
                    accounts.push(account);
                    accounts.len() as u32 - 1
                }
            }
        });
        self.accounts[index as usize].clients += 1;
        AccountId(index)
    }

    /// A client of an address is gone. Its account stays until the allowance is full.
    pub(super) fn leave(&mut self, account: AccountId) {
        self.accounts[account.0 as usize].clients -= 1;
    }

    /// Removes the accounts without clients whose allowance is full.
    pub(super) fn expire(&mut self, now_ns: u64) {
        let (accounts, free) = (&mut self.accounts, &mut self.free);
        self.by_key.retain(|_, index| {
            let account = &accounts[*index as usize];
            let is_used = account.clients > 0 || !account.work.is_full(now_ns);
            if !is_used {
                free.push(*index);
            }
            is_used
        });
        if self.by_key.is_empty() {
            accounts.clear();
            accounts.shrink_to(64);
            free.clear();
            free.shrink_to(64);
            self.by_key.shrink_to(64);
        }
        debug_assert!(self.by_key.iter().all(|(key, index)| self.accounts[*index as usize].key == *key));
    }

    /// Spends work of an address.
    pub(super) fn spend(&mut self, account: AccountId, units: u64, client_per_s: u32, now_ns: u64) {
        let per_s = client_per_s.saturating_mul(ADDRESS_CLIENTS);
        self.accounts[account.0 as usize].work.spend(units, per_s, now_ns);
    }

    /// See [`Allowance::due_ns`].
    pub(super) fn due_ns(&self, account: AccountId, now_ns: u64) -> Option<u64> {
        self.accounts[account.0 as usize].work.due_ns(now_ns)
    }

    /// Notes how much a client holds, and how much it held before.
    pub(super) fn hold(
        &mut self,
        slot_id: SlotId,
        account: Option<AccountId>,
        (before, now): (u32, u32),
        bytes_max: usize,
    ) -> Held {
        if before == now {
            return Held::Within;
        }
        self.input_bytes = self.input_bytes - before as usize + now as usize;
        if before >= HEAVY_BYTES {
            self.heavy.remove(&(before, slot_id.index));
        }
        if now >= HEAVY_BYTES {
            self.heavy.insert((now, slot_id.index));
        }
        let of_address = account.map(|account| {
            let held = &mut self.accounts[account.0 as usize].input_bytes;
            *held = *held - before as usize + now as usize;
            *held
        });
        if now <= before {
            Held::Within
        } else if of_address.is_some_and(|held| held > bytes_max / ADDRESS_PART) {
            Held::OverAddress
        } else if self.input_bytes > bytes_max {
            Held::Over { heaviest: self.heaviest().unwrap_or(slot_id.index) }
        } else {
            Held::Within
        }
    }

    /// Notes what a client has subscribed to, and what it had before.
    pub(super) fn subscribe(&mut self, account: AccountId, before: Subscriptions, now: Subscriptions) {
        let held = &mut self.accounts[account.0 as usize].subscriptions;
        held.items = held.items - before.items + now.items;
        held.names = held.names - before.names + now.names;
    }

    /// What the clients of an address have subscribed to.
    pub(super) fn subscriptions(&self, account: AccountId) -> Subscriptions {
        self.accounts[account.0 as usize].subscriptions
    }

    /// The slot of the client that holds most, if it holds much.
    pub(super) fn heaviest(&self) -> Option<u32> {
        self.heavy.last().map(|(_, slot)| *slot)
    }

    /// Held input of all clients.
    pub(super) fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// How many addresses have an account.
    #[cfg(test)]
    fn addresses(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn slot(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    #[test]
    fn allowance_has_a_burst_and_refills_with_time() {
        let mut work = Allowance::default();
        work.spend(200, 100, SECOND);
        assert_eq!(work.due_ns(SECOND), None, "two seconds' worth at once");
        work.spend(100, 100, SECOND);
        assert_eq!(work.due_ns(SECOND), Some(2 * SECOND));
        assert_eq!(work.due_ns(2 * SECOND), None);
        work.spend(u64::MAX, 0, SECOND);
        assert_eq!(work.due_ns(2 * SECOND), None, "a rate of 0 is no limit");
        work.spend(u64::MAX, 1, SECOND);
        assert!(work.due_ns(2 * SECOND).is_some_and(|due| due > 1000 * SECOND));
    }

    #[test]
    fn connecting_again_gains_no_work() {
        let mut accounts = Accounts::default();
        let first = accounts.enter(7);
        accounts.spend(first, 3 * 400, 100, SECOND);
        assert_eq!(accounts.due_ns(first, SECOND), Some(2 * SECOND));
        accounts.leave(first);
        accounts.expire(2 * SECOND);
        let again = accounts.enter(7);
        assert_eq!(accounts.due_ns(again, SECOND), Some(2 * SECOND), "the account lives on");
        accounts.leave(again);
        accounts.expire(4 * SECOND);
        assert_eq!(accounts.addresses(), 0, "until its allowance is full");
        let other = accounts.enter(8);
        assert_eq!(accounts.due_ns(other, 0), None);
    }

    #[test]
    fn heaviest_client_is_found_and_an_address_has_a_quarter() {
        const MAX: usize = 1 << 20;
        let mut accounts = Accounts::default();
        for index in 0..8 {
            assert_eq!(accounts.hold(slot(index), None, (0, 100_000 + index), MAX), Held::Within);
        }
        let account = accounts.enter(1);
        assert_eq!(accounts.hold(slot(8), Some(account), (0, 200_000), MAX), Held::Within);
        assert_eq!(accounts.hold(slot(9), Some(account), (0, 63_000), MAX), Held::OverAddress);
        assert_eq!(accounts.hold(slot(9), Some(account), (63_000, 0), MAX), Held::Within);
        assert_eq!(accounts.hold(slot(9), None, (0, 60_000), MAX), Held::Over { heaviest: 8 });
        assert_eq!(accounts.hold(slot(8), Some(account), (200_000, 0), MAX), Held::Within);
        assert_eq!(accounts.input_bytes(), 8 * 100_000 + 28 + 60_000);
    }
}
