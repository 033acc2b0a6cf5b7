//! Pending connections of one shard: connections that are not clients of the shard and not publishers. They wait for a
//! request, are being answered, read their response, or are echoes.
//!
//! What always holds: a connection that has sent no complete request keeps no other out. At the limit the one that has
//! waited longest is evicted; a good client sends its request within a round trip, so it is not evicted. A connection that
//! is being served (a handshake that waits for a permit, an echo) is never evicted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The pending connections of one shard, in order of arrival.
#[derive(Default)]
pub(crate) struct PendingConnections(RefCell<PendingTable>);

#[derive(Default)]
struct PendingTable {
    next_id: u64,
    len: usize,
    /// They wait for their peer: for a request, or until a response is read.
    waiting: BTreeMap<u64, Rc<EndSignal>>,
    echoes: BTreeMap<u64, Rc<EndSignal>>,
}

/// A new pending connection.
pub(crate) struct Entered {
    pub(crate) connection: PendingConnection,
    /// Another connection was evicted for it.
    pub(crate) evicted: bool,
}

impl PendingConnections {
    /// Adds a connection if fewer than `max` are pending or one of them can be evicted.
    pub(crate) fn enter(self: &Rc<Self>, max: usize) -> Option<Entered> {
        let mut table = self.0.borrow_mut();
        let oldest = if table.len < max { None } else { Some(table.waiting.pop_first()?.1) };
        let id = table.next_id;
        table.next_id += 1;
        table.len += 1;
        let signal = Rc::new(EndSignal::default());
        table.waiting.insert(id, signal.clone());
        drop(table);
        if let Some(oldest) = &oldest {
            oldest.send();
        }
        let connection = PendingConnection { all: self.clone(), id, signal };
        Some(Entered { connection, evicted: oldest.is_some() })
    }

    /// Number of connections, including evicted ones that have not ended yet.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len
    }

    /// Number of connections that are being served and cannot be evicted.
    pub(crate) fn serving(&self) -> usize {
        let table = self.0.borrow();
        table.len - table.waiting.len()
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

/// One pending connection, counted until it is dropped.
pub(crate) struct PendingConnection {
    all: Rc<PendingConnections>,
    id: u64,
    signal: Rc<EndSignal>,
}

impl PendingConnection {
    /// The connection waits for its peer, and may be evicted.
    pub(crate) fn set_waiting(&self) {
        let mut table = self.all.0.borrow_mut();
        table.echoes.remove(&self.id);
        if !self.signal.sent.get() {
            table.waiting.insert(self.id, self.signal.clone());
        }
    }

    /// The request has arrived and is being served.
    pub(crate) fn set_serving(&self) {
        self.all.0.borrow_mut().waiting.remove(&self.id);
    }

    /// The connection is an echo until the server drains.
    pub(crate) fn set_echo(&self) {
        let mut table = self.all.0.borrow_mut();
        table.waiting.remove(&self.id);
        table.echoes.insert(self.id, self.signal.clone());
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
        table.waiting.remove(&self.id);
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

    fn must_end(connection: &PendingConnection) -> bool {
        futures_lite::future::block_on(futures_lite::future::poll_once(connection.must_end())).is_some()
    }

    fn enter(pending: &Rc<PendingConnections>) -> (PendingConnection, bool) {
        let Entered { connection, evicted } = pending.enter(2).expect("one can be evicted");
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
        assert!(pending.enter(2).is_none());
        served.set_waiting();
        let (newest, evicted) = enter(&pending);
        assert!(evicted && must_end(&served) && !must_end(&echo));
        served.set_waiting();
        newest.set_serving();
        assert!(pending.enter(2).is_none(), "an evicted connection is not evicted twice");
        pending.end_echoes();
        assert!(must_end(&echo) && !must_end(&newest));
    }
}
