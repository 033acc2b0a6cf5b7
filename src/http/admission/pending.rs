//! Pending connections of one shard: connections that are not clients of the shard and not publishers. They wait for a
//! request, are being answered, read their response, or are echoes.
//!
//! What always holds: a connection that waits for its peer, for a request or for its response to be read, keeps no other
//! out. At the limit one of them is evicted: of the address that has most of them the one that has waited longest. A good
//! client sends its request and reads its response within round trips, so it is not evicted. A connection that the server
//! is working for (a handshake that waits for a permit, an echo) is never evicted; `max_of_address` bounds how many of
//! them one address has.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;

use crate::allowance::AddressKey;

/// The pending connections of one shard.
#[derive(Default)]
pub(crate) struct PendingConnections(RefCell<PendingTable>);

#[derive(Default)]
struct PendingTable {
    next_id: u64,
    len: usize,
    of_address: HashMap<AddressKey, usize, RandomState>,
    waiting: WaitingConnections,
    echoes: BTreeMap<u64, Rc<EndSignal>>,
}

/// The connections that wait for their peer, in the order in which they are evicted. Those without a known address are
/// of one address.
#[derive(Default)]
struct WaitingConnections {
    len: usize,
    /// Of each address in order of arrival.
    by_address: HashMap<Option<AddressKey>, BTreeMap<u64, Rc<EndSignal>>, RandomState>,
    /// Number of connections, and the one that has waited longest: the greatest entry is evicted from first.
    order: BTreeSet<(usize, Reverse<u64>, Option<AddressKey>)>,
}

/// The limits of a shard that apply to a new pending connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingLimits {
    pub(crate) max: usize,
    /// Of the connection's address; 0 for no limit.
    pub(crate) max_of_address: usize,
}

/// Why a connection cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingFull {
    /// The shard has its maximum, and works for all of them.
    Shard,
    /// The address has its maximum, and the server works for all of them.
    Address,
}

/// A new pending connection.
pub(crate) struct Entered {
    pub(crate) connection: PendingConnection,
    /// Another connection was evicted for it.
    pub(crate) evicted: bool,
}

impl PendingConnections {
    /// Adds a connection if the limits have room for it, or one can be evicted.
    pub(crate) fn enter(
        self: &Rc<Self>,
        address: Option<AddressKey>,
        limits: PendingLimits,
    ) -> Result<Entered, PendingFull> {
        let mut table = self.0.borrow_mut();
        let of_address = table.make_room_of_address(address, limits.max_of_address)?;
        let evicted = match of_address {
            Some(evicted) => Some(evicted),
            None if table.len < limits.max => None,
            None => Some(table.waiting.pop().ok_or(PendingFull::Shard)?),
        };
        let id = table.next_id;
        table.next_id += 1;
        table.len += 1;
        if let Some(address) = address {
            *table.of_address.entry(address).or_default() += 1;
        }
        let signal = Rc::new(EndSignal::default());
        table.waiting.insert(address, id, signal.clone());
        drop(table);
        if let Some(evicted) = &evicted {
            evicted.send();
        }
        let connection = PendingConnection { all: self.clone(), id, address: Cell::new(address), signal };
        Ok(Entered { connection, evicted: evicted.is_some() })
    }

    /// Evicts the connection of this address that has waited longest; false if none waits.
    pub(crate) fn evict_of(&self, address: AddressKey) -> bool {
        let evicted = self.0.borrow_mut().waiting.pop_of(Some(address));
        evicted.is_some_and(|evicted| {
            evicted.send();
            true
        })
    }

    /// Number of connections, including evicted ones that have not ended yet.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len
    }

    /// Number of connections that the server works for and that cannot be evicted.
    pub(crate) fn serving(&self) -> usize {
        let table = self.0.borrow();
        table.len - table.waiting.len
    }

    /// Number of echoes.
    pub(crate) fn echoes(&self) -> usize {
        self.0.borrow().echoes.len()
    }

    /// Asks all echoes to end.
    pub(crate) fn end_echoes(&self) {
        self.0.borrow().echoes.values().for_each(|signal| signal.send());
    }
}

impl PendingTable {
    /// Evicts a connection of this address if it has its maximum, and returns its signal.
    fn make_room_of_address(
        &mut self,
        address: Option<AddressKey>,
        max: usize,
    ) -> Result<Option<Rc<EndSignal>>, PendingFull> {
        let pending = address.and_then(|address| self.of_address.get(&address)).copied().unwrap_or(0);
        if max == 0 || pending < max {
            return Ok(None);
        }
        self.waiting.pop_of(address).map(Some).ok_or(PendingFull::Address)
    }

    fn forget_address(&mut self, address: Option<AddressKey>) {
        let Some(address) = address else { return };
        if let Some(pending) = self.of_address.get_mut(&address) {
            *pending -= 1;
            if *pending == 0 {
                self.of_address.remove(&address);
            }
        }
    }
}

impl WaitingConnections {
    fn insert(&mut self, address: Option<AddressKey>, id: u64, signal: Rc<EndSignal>) {
        self.change(address, |waiting| waiting.insert(id, signal));
    }

    fn remove(&mut self, address: Option<AddressKey>, id: u64) {
        self.change(address, |waiting| waiting.remove(&id));
    }

    /// Takes the connection that is evicted first.
    fn pop(&mut self) -> Option<Rc<EndSignal>> {
        let (_, _, address) = *self.order.last()?;
        self.pop_of(address)
    }

    /// Takes the connection of this address that has waited longest.
    fn pop_of(&mut self, address: Option<AddressKey>) -> Option<Rc<EndSignal>> {
        self.change(address, |waiting| waiting.pop_first()).map(|(_, signal)| signal)
    }

    /// Changes the connections of an address, and keeps the order.
    fn change<R>(
        &mut self,
        address: Option<AddressKey>,
        change: impl FnOnce(&mut BTreeMap<u64, Rc<EndSignal>>) -> R,
    ) -> R {
        let waiting = self.by_address.entry(address).or_default();
        let entry = |waiting: &BTreeMap<u64, _>| Some((waiting.len(), Reverse(*waiting.first_key_value()?.0), address));
        let (before, len_before) = (entry(waiting), waiting.len());
        let outcome = change(waiting);
        let after = entry(waiting);
        self.len = self.len - len_before + waiting.len();
        if waiting.is_empty() {
            self.by_address.remove(&address);
        }
        if before != after {
            if let Some(before) = before {
                self.order.remove(&before);
            }
            self.order.extend(after);
        }
        outcome
    }
}

/// One pending connection, counted until it is dropped.
pub(crate) struct PendingConnection {
    all: Rc<PendingConnections>,
    id: u64,
    address: Cell<Option<AddressKey>>,
    signal: Rc<EndSignal>,
}

impl PendingConnection {
    /// The connection waits for its peer, and may be evicted.
    pub(crate) fn set_waiting(&self) {
        let mut table = self.all.0.borrow_mut();
        table.echoes.remove(&self.id);
        if !self.signal.sent.get() {
            table.waiting.insert(self.address.get(), self.id, self.signal.clone());
        }
    }

    /// The request has arrived and is being served.
    pub(crate) fn set_serving(&self) {
        self.all.0.borrow_mut().waiting.remove(self.address.get(), self.id);
    }

    /// The connection is an echo until the server drains.
    pub(crate) fn set_echo(&self) {
        let mut table = self.all.0.borrow_mut();
        table.waiting.remove(self.address.get(), self.id);
        table.echoes.insert(self.id, self.signal.clone());
    }

    /// The connection is of another address, which a trusted proxy has named. Returns true if another connection of that
    /// address was evicted for it.
    pub(crate) fn set_address(&self, address: AddressKey, max: usize) -> Result<bool, PendingFull> {
        let mut table = self.all.0.borrow_mut();
        let evicted = table.make_room_of_address(Some(address), max)?;
        table.waiting.remove(self.address.get(), self.id);
        table.forget_address(self.address.replace(Some(address)));
        *table.of_address.entry(address).or_default() += 1;
        if !self.signal.sent.get() {
            table.waiting.insert(Some(address), self.id, self.signal.clone());
        }
        drop(table);
        if let Some(evicted) = &evicted {
            evicted.send();
        }
        Ok(evicted.is_some())
    }

    /// True if the connection has to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.signal.sent.get()
    }

    /// Completes when the connection has to end: it is evicted, or the server drains.
    pub(crate) async fn must_end(&self) {
        poll_fn(|context| {
            if self.signal.sent.get() {
                return Poll::Ready(());
            }
            self.signal.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        let mut table = self.all.0.borrow_mut();
        table.len -= 1;
        table.forget_address(self.address.get());
        table.waiting.remove(self.address.get(), self.id);
        table.echoes.remove(&self.id);
    }
}

/// Asks the task of a connection to end it.
#[derive(Default)]
struct EndSignal {
    sent: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl EndSignal {
    fn send(&self) {
        self.sent.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PendingLimits = PendingLimits { max: 2, max_of_address: 0 };

    fn must_end(connection: &PendingConnection) -> bool {
        futures_lite::future::block_on(futures_lite::future::poll_once(connection.must_end())).is_some()
    }

    fn enter(pending: &Rc<PendingConnections>) -> (PendingConnection, bool) {
        enter_from(pending, None, LIMITS)
    }

    fn enter_from(
        pending: &Rc<PendingConnections>,
        address: Option<AddressKey>,
        limits: PendingLimits,
    ) -> (PendingConnection, bool) {
        let entered = pending.enter(address, limits);
        let Entered { connection, evicted } = entered.unwrap_or_else(|full| panic!("{full:?}: none can be evicted"));
        (connection, evicted)
    }

    #[test]
    fn at_the_limit_the_longest_waiting_is_evicted() {
        let pending = Rc::new(PendingConnections::default());
        let ((first, _), (second, _)) = (enter(&pending), enter(&pending));
        let (third, evicted) = enter(&pending);
        assert!(evicted && must_end(&first) && !must_end(&second) && !must_end(&third));
        drop(first);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn served_connections_and_echoes_are_not_evicted() {
        let pending = Rc::new(PendingConnections::default());
        let ((served, _), (echo, _)) = (enter(&pending), enter(&pending));
        served.set_serving();
        echo.set_echo();
        assert_eq!(pending.enter(None, LIMITS).err(), Some(PendingFull::Shard));
        served.set_waiting();
        let (newest, evicted) = enter(&pending);
        assert!(evicted && must_end(&served) && !must_end(&echo));
        served.set_waiting();
        newest.set_serving();
        let refused = pending.enter(None, LIMITS).err();
        assert_eq!(refused, Some(PendingFull::Shard), "an evicted connection is not evicted twice");
        pending.end_echoes();
        assert!(must_end(&echo) && !must_end(&newest));
    }

    #[test]
    fn the_address_with_most_waiting_connections_is_evicted_from_first() {
        let pending = Rc::new(PendingConnections::default());
        let limits = PendingLimits { max: 5, max_of_address: 0 };
        let [one, many, new] = [1, 2, 3].map(|address| Some(AddressKey::V4(address)));
        let (oldest, _) = enter_from(&pending, one, limits);
        let flood: Vec<_> = (0..4).map(|_| enter_from(&pending, many, limits).0).collect();
        let newer: Vec<_> = (0..3).map(|_| enter_from(&pending, new, limits).0).collect();
        let ended: Vec<_> = flood.iter().map(must_end).collect();
        assert_eq!(ended, [true, true, true, false], "of as many, the one that has waited longest");
        assert!(!must_end(&oldest) && !newer.iter().any(must_end));
        drop((flood, newer));
        assert_eq!((pending.len(), pending.serving()), (1, 0));
    }

    #[test]
    fn an_address_evicts_its_own_connections_at_its_limit_and_is_refused_if_none_waits() {
        let pending = Rc::new(PendingConnections::default());
        let limits = PendingLimits { max: 100, max_of_address: 2 };
        let [one, other] = [1, 2].map(|address| Some(AddressKey::V4(address)));
        let ((first, _), (second, _)) = (enter_from(&pending, one, limits), enter_from(&pending, one, limits));
        let (third, evicted) = enter_from(&pending, one, limits);
        assert!(evicted && must_end(&first) && !must_end(&second));
        drop(first);
        second.set_serving();
        third.set_serving();
        assert_eq!(pending.enter(one, limits).err(), Some(PendingFull::Address));
        assert!(!enter_from(&pending, other, limits).1, "another address has room");
        drop(second);
        assert!(!enter_from(&pending, one, limits).1, "a connection that has ended does not count");
    }

    #[test]
    fn a_connection_counts_for_the_address_that_a_proxy_names() {
        let pending = Rc::new(PendingConnections::default());
        let limits = PendingLimits { max: 100, max_of_address: 0 };
        let [proxy, client] = [AddressKey::V4(1), AddressKey::V4(2)];
        let (first, _) = enter_from(&pending, Some(proxy), limits);
        let (second, _) = enter_from(&pending, Some(proxy), limits);
        assert_eq!(first.set_address(client, 1), Ok(false));
        assert_eq!(second.set_address(client, 1), Ok(true), "the first is evicted");
        assert!(must_end(&first) && !must_end(&second) && !pending.evict_of(proxy));
        drop(first);
        second.set_serving();
        let (third, _) = enter_from(&pending, Some(proxy), limits);
        assert_eq!(third.set_address(client, 1), Err(PendingFull::Address));
        drop((second, third));
        assert!(pending.0.borrow().of_address.is_empty() && pending.0.borrow().waiting.by_address.is_empty());
    }
}
