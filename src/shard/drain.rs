//! Phase 5: when the server stops, all clients are closed, spread over a while, so that the servers that take them over
//! do not get them all at once.
//!
//! What always holds: a client has had everything that was in the ring when the drain began. It is closed only when
//! nothing is pending for it: slow clients, and those whose values wait for an interval boundary, come last. Until then
//! it is served as ever.

use super::client_context::ClientContext;
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::ws::CloseCode;

/// How often some clients are closed.
const STEP_NS: u64 = 10_000_000;
/// How often clients are checked again that had something pending.
const RETRY_NS: u64 = 100_000_000;
/// The longest conflation interval: after it no value is pending that was there when the drain began.
const INTERVAL_NS_MAX: u64 = 1_000_000_000;

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    from_ns: u64,
    until_ns: u64,
    /// All that was in the ring when it began has been read.
    is_ring_read: bool,
    next_ns: u64,
    retry_ns: u64,
    /// Index of the next slot: clients of slots below it were closed or are postponed.
    cursor: usize,
    postponed: Vec<SlotId>,
}

impl Drain {
    pub(super) fn new(over_ms: u32, now_ns: u64) -> Self {
        Self {
            from_ns: now_ns,
            until_ns: now_ns + u64::from(over_ms) * 1_000_000,
            is_ring_read: false,
            next_ns: now_ns,
            retry_ns: now_ns,
            cursor: 0,
            postponed: Vec::new(),
        }
    }

    /// When the next clients are to be closed.
    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Closes the clients whose time has come. True if there were any.
    pub(super) fn run<I: Io>(&mut self, clients: &mut ClientContext<'_, I>) -> bool {
        let now_ns = clients.now.ns;
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns = now_ns + STEP_NS;
        let is_last = now_ns >= self.until_ns;
        self.is_ring_read |= clients.ring.is_empty() || is_last;
        if !self.is_ring_read {
            return false;
        }
        let closed_before = clients.counters.get(Counter::Drained);
        let due = self.due(clients.connections.slots(), now_ns);
        for index in self.cursor..due {
            let Some(slot_id) = clients.connections.slot_id(index) else { continue };
            if !close_if_due(slot_id, self.from_ns, is_last, clients) {
                self.postponed.push(slot_id);
            }
        }
        self.cursor = due;
        if is_last || now_ns >= self.retry_ns {
            self.retry_ns = now_ns + RETRY_NS;
            let from_ns = self.from_ns;
            self.postponed.retain(|slot_id| !close_if_due(*slot_id, from_ns, is_last, clients));
        }
        clients.counters.get(Counter::Drained) > closed_before
    }

    /// The slot up to which clients are to be closed by now.
    fn due(&self, slots: usize, now_ns: u64) -> usize {
        let (passed, whole) = (now_ns.saturating_sub(self.from_ns), self.until_ns - self.from_ns);
        if passed >= whole {
            return slots;
        }
        let due = (slots as u128 * u128::from(passed)).div_ceil(u128::from(whole)) as usize;
        due.max(self.cursor)
    }
}

/// Closes a client if nothing is pending for it, or if this is the last chance. False if it has to be tried again.
fn close_if_due<I: Io>(slot_id: SlotId, from_ns: u64, is_last: bool, clients: &mut ClientContext<'_, I>) -> bool {
    let Some(client) = clients.connections.get(slot_id) else { return true };
    let may_have_pending_value =
        clients.fan_out.index.conflates(client.audience) && clients.now.ns < from_ns + INTERVAL_NS_MAX;
    if !is_last && (clients.backlog.get(slot_id).is_some() || may_have_pending_value) {
        return false;
    }
    clients.counters.add(Counter::Drained, 1);
    clients.close(slot_id, CloseCode::GOING_AWAY, "the server is stopping");
    true
}
