//! What is pending for the clients that are not on the live path: answers, snapshots, replays, and all that a slow
//! client has not been sent.
//!
//! A slow client is served in one of two ways, see [`Missed`]: from the bytes that its audience was sent and that are kept
//! for all of its lagging members, or, once those are gone or too old, on its own.
//!
//! What always holds:
//! * An open client is either a member of its audience or has a [`ClientBacklog`], never both.
//! * A client's backlog takes constant memory, whatever happens meanwhile: the rest of one piece, the answers to its
//!   requests, and cursors. Nothing is made for a client while it has an unsent rest. Missed values are read from the
//!   last values and from the ring when there is room for them.
//!
//! Memory: 8 bytes a slot, some 80 a lagging member, 300 more a client that is served on its own, and its pending bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::boundary::boundary_after;
use super::history::History;
use super::market_view::RingCursor;
use super::paged_vec::PagedVec;
use super::sent_history::LaggingCursor;
use super::state_walk::StateWalk;
use super::subscription_index::Key;
use super::tick_records::Now;
use crate::io::SlotId;
use crate::ring::{self, RingOffset};
use tickcast_protocol::Position;
use tickcast_protocol::record::Channel;

/// How the head of a response starts, which comes before all frames and events.
const HEAD_START: &[u8] = b"HTTP/";

/// A socket that has room again within so many ticks is not slow. A poll that finds room completes in the next tick.
const ROOM_TICKS: u64 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    /// By slot.
    clients: PagedVec<Option<Box<ClientBacklog>>>,
    len: usize,
    /// Clients to be served on their own in the catch-up phase; some may be gone or have been served.
    pub(super) queue: VecDeque<SlotId>,
    /// Likewise, the lagging members.
    pub(super) lagging_queue: VecDeque<SlotId>,
    pub(super) history: History,
    pub(super) buffers: Buffers,
}

/// Memory that is used again for each client.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) records: Vec<u8>,
    pub(super) batch: ring::Batch,
}

/// What is pending for one client.
#[derive(Debug)]
pub(super) struct ClientBacklog {
    /// Of the client's slot: the queues may still hold a former client of the slot.
    generation: u32,
    /// The tick and time at which the client left the live path.
    pub(super) since: Now,
    /// When its socket last took something.
    pub(super) progress_ns: u64,
    /// Waits for room in the socket.
    pub(super) is_blocked: bool,
    /// Is in one of the queues.
    pub(super) is_queued: bool,
    /// Input that waits until nothing is pending.
    pub(super) deferred_input: Vec<u8>,
    pub(super) missed: Missed,
}

/// Where what a client has missed comes from.
#[derive(Debug)]
pub(super) enum Missed {
    /// A lagging member: from what its audience was sent.
    Shared(LaggingCursor),
    /// From the last values and the ring, for this client alone.
    Own(Box<OwnBacklog>),
}

/// What is pending for a client that is served on its own.
#[derive(Debug)]
pub(super) struct OwnBacklog {
    /// Rest of a send that did not take all its bytes; goes first. Members that were cut in one packet share it.
    pub(super) unsent: Bytes,
    /// The first boundary of a frame or event in `unsent`.
    pub(super) unsent_boundary: usize,
    /// The tick in which its socket was last full, or is likely to be: after each piece it waits for room. `None` for a
    /// client whose socket has taken all so far, or had room again at once.
    pub(super) full_tick: Option<u64>,
    /// Answers and control frames, which go next.
    pub(super) answers: Vec<u8>,
    /// Instruments with a higher id have not been announced to it.
    pub(super) announced: u32,
    /// What a resume replays from the ring before anything newer.
    pub(super) replay: Option<Replay>,
    pub(super) state: StateWalk,
    pub(super) log: RingCursor,
    /// Whether its log records come closer to the present, while they are late.
    pub(super) log_lag: Option<LogLag>,
    /// Gaps that are being sent, in several pieces.
    pub(super) gaps: Option<GapWalk>,
    /// It cannot be told which log records are missing: the client is closed.
    pub(super) has_lost_log: bool,
    /// Items that were subscribed to and have not been served, sorted by key, and how each begins.
    pub(super) requested: Vec<(Key, InitialValue)>,
    /// The client waits for the end of a snapshot, even an empty one.
    pub(super) snapshot: bool,
}

/// How a subscribed item begins. Of several that apply to one channel of an instrument, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InitialValue {
    /// With the Definition only: the client asked for no snapshot.
    Definition,
    /// With the present value, flagged CONFLATED: it was pending at the interval that the client has left.
    Conflated,
    /// With the present value as a snapshot.
    Snapshot,
}

/// How late the log records of a client were.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLag {
    /// By how much, ns, and when.
    pub(super) lag_ns: u64,
    pub(super) at_ns: u64,
    /// When the client was last served.
    pub(super) served_ns: u64,
}

/// Gaps of many channels, in several pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct GapWalk {
    /// They cover what is missing up to here.
    pub(super) to: RingCursor,
    /// The next channel of an instrument.
    pub(super) next: (u32, Channel),
}

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replay {
    /// Of the request, for a second answer.
    pub(super) id: u64,
    pub(super) conflate_ms: u32,
    pub(super) count: usize,
    /// The items that are replayed, sorted.
    pub(super) keys: Vec<Key>,
    /// The client has no other items.
    pub(super) has_only_these_items: bool,
    /// The token: records with a higher position are replayed.
    pub(super) after: Position,
    /// The part of the ring that is still to be read.
    pub(super) range: Range<RingOffset>,
    /// Position of the newest record before the range's end.
    pub(super) end_position: Position,
    /// The next instrument to be announced; `None` when all are.
    pub(super) announce: Option<u32>,
}

impl Replay {
    pub(super) fn is_done(&self) -> bool {
        self.announce.is_none() && self.range.is_empty()
    }
}

impl Backlog {
    pub(super) fn new(history: History) -> Self {
        Self {
            clients: PagedVec::default(),
            len: 0,
            queue: VecDeque::new(),
            lagging_queue: VecDeque::new(),
            history,
            buffers: Buffers::default(),
        }
    }

    /// How many clients are not on the live path.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, slot_id: SlotId) -> Option<&ClientBacklog> {
        self.clients.get(slot_id.index as usize)?.as_deref().filter(|client| client.generation == slot_id.generation)
    }

    pub(super) fn get_mut(&mut self, slot_id: SlotId) -> Option<&mut ClientBacklog> {
        of_slot(&mut self.clients, slot_id)
    }

    /// The client's backlog; `make` makes one for a client that has none.
    pub(super) fn get_or_insert_with(
        &mut self,
        slot_id: SlotId,
        make: impl FnOnce() -> ClientBacklog,
    ) -> &mut ClientBacklog {
        self.clients.grow(slot_id.index as usize + 1);
        let len = &mut self.len;
        self.clients[slot_id.index as usize].get_or_insert_with(|| {
            *len += 1;
            Box::new(make())
        })
    }

    /// What is pending for a client that is served on its own; `make` makes it for a client that has no backlog.
    pub(super) fn own_or_insert_with(
        &mut self,
        slot_id: SlotId,
        now: Now,
        make: impl FnOnce() -> OwnBacklog,
    ) -> &mut OwnBacklog {
        let backlog =
            self.get_or_insert_with(slot_id, || ClientBacklog::new(slot_id, now, Missed::Own(Box::new(make()))));
        backlog.own_mut().expect("the caller has taken the client off the lagging members")
    }

    pub(super) fn remove(&mut self, slot_id: SlotId) -> Option<Box<ClientBacklog>> {
        of_slot(&mut self.clients, slot_id)?;
        self.len -= 1;
        self.clients.get_mut(slot_id.index as usize)?.take()
    }

    /// What is pending for a client that is served on its own.
    pub(super) fn own_mut(&mut self, slot_id: SlotId) -> Option<&mut OwnBacklog> {
        self.get_mut(slot_id)?.own_mut()
    }

    /// Where a lagging member is in what its audience was sent.
    pub(super) fn lagging_mut(&mut self, slot_id: SlotId) -> Option<&mut LaggingCursor> {
        match &mut self.get_mut(slot_id)?.missed {
            Missed::Shared(cursor) => Some(cursor),
            Missed::Own(_) => None,
        }
    }

    /// A client's socket has room again.
    pub(super) fn unblock(&mut self, slot_id: SlotId, tick: u64) {
        let Some(client) = self.get_mut(slot_id) else { return };
        client.is_blocked = false;
        if let Some(own) = client.own_mut() {
            own.full_tick = own.full_tick.filter(|full| tick > full + ROOM_TICKS);
        }
        self.enqueue(slot_id);
    }

    /// Queues a client for the next catch-up phase, unless it waits for room in its socket.
    pub(super) fn enqueue(&mut self, slot_id: SlotId) {
        let Some(client) = of_slot(&mut self.clients, slot_id) else { return };
        if !client.is_queued && !client.is_blocked {
            client.is_queued = true;
            match client.missed {
                Missed::Shared(_) => self.lagging_queue.push_back(slot_id),
                Missed::Own(_) => self.queue.push_back(slot_id),
            }
        }
    }

    /// Takes the next client that is to be served on its own out of the queue.
    pub(super) fn pop_own(&mut self) -> Option<SlotId> {
        while let Some(slot_id) = self.queue.pop_front() {
            if self.get_mut(slot_id).is_some_and(|client| client.own_mut().is_some() && client.take_queued()) {
                return Some(slot_id);
            }
        }
        None
    }

    /// Takes the next lagging member out of its queue.
    pub(super) fn pop_lagging(&mut self) -> Option<SlotId> {
        while let Some(slot_id) = self.lagging_queue.pop_front() {
            if self.get_mut(slot_id).is_some_and(|client| client.own_mut().is_none() && client.take_queued()) {
                return Some(slot_id);
            }
        }
        None
    }

    /// What serving a client on its own needs.
    pub(super) fn served_mut(&mut self, slot_id: SlotId) -> Option<(&mut OwnBacklog, &History, &mut Buffers)> {
        let client = of_slot(&mut self.clients, slot_id)?;
        Some((client.own_mut()?, &self.history, &mut self.buffers))
    }
}

fn of_slot(clients: &mut PagedVec<Option<Box<ClientBacklog>>>, slot_id: SlotId) -> Option<&mut ClientBacklog> {
    let client = clients.get_mut(slot_id.index as usize)?.as_deref_mut()?;
    (client.generation == slot_id.generation).then_some(client)
}

impl ClientBacklog {
    /// The backlog of a client that leaves the live path now.
    pub(super) fn new(slot_id: SlotId, now: Now, missed: Missed) -> Self {
        Self {
            generation: slot_id.generation,
            since: now,
            progress_ns: now.ns,
            is_blocked: false,
            is_queued: false,
            deferred_input: Vec::new(),
            missed,
        }
    }

    pub(super) fn own(&self) -> Option<&OwnBacklog> {
        match &self.missed {
            Missed::Shared(_) => None,
            Missed::Own(own) => Some(own),
        }
    }

    pub(super) fn own_mut(&mut self) -> Option<&mut OwnBacklog> {
        match &mut self.missed {
            Missed::Shared(_) => None,
            Missed::Own(own) => Some(own),
        }
    }

    /// Bytes that are kept for this client and are ready to be sent.
    pub(super) fn pending_bytes(&self) -> usize {
        self.own().map_or(0, OwnBacklog::pending_bytes)
    }

    /// True if further requests have to wait: something of an earlier tick is pending, or a replay, of which there is
    /// one at a time.
    pub(super) fn defers_requests(&self, now: Now) -> bool {
        self.since.tick != now.tick || self.is_blocked || self.own().is_none_or(|own| own.replay.is_some())
    }

    fn take_queued(&mut self) -> bool {
        std::mem::take(&mut self.is_queued)
    }
}

impl OwnBacklog {
    /// Nothing is pending for a client that has had everything up to these cursors.
    pub(super) fn new(announced: u32, state: StateWalk, log: RingCursor) -> Self {
        Self {
            unsent: Bytes::new(),
            unsent_boundary: 0,
            full_tick: None,
            answers: Vec::new(),
            announced,
            replay: None,
            state,
            log,
            log_lag: None,
            gaps: None,
            has_lost_log: false,
            requested: Vec::new(),
            snapshot: false,
        }
    }

    /// Adds items that are to be served.
    pub(super) fn request(&mut self, items: impl IntoIterator<Item = (Key, InitialValue)>) {
        self.requested.extend(items);
        self.requested.sort_unstable_by_key(|(key, initial)| (*key, std::cmp::Reverse(*initial)));
        self.requested.dedup_by_key(|(key, _)| *key);
    }

    /// Bytes that are ready to be sent.
    pub(super) fn pending_bytes(&self) -> usize {
        self.unsent.len() + self.answers.len()
    }

    /// Keeps the rest of a send; `boundary` is the first boundary of a frame or event in it.
    pub(super) fn keep_unsent(&mut self, rest: Bytes, boundary: usize) {
        self.unsent = rest;
        self.unsent_boundary = boundary;
    }

    /// Moves the bytes that are ready to be sent to `out`. Returns the first boundary in them.
    pub(super) fn take_pending_bytes(&mut self, out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(&self.unsent);
        out.extend_from_slice(&self.answers);
        (self.unsent, self.answers) = (Bytes::new(), Vec::new());
        std::mem::take(&mut self.unsent_boundary)
    }

    /// Drops what is pending behind the frame or event that was cut, but for the head of a response.
    pub(super) fn drop_pending(&mut self) {
        let head_bytes = |bytes: &[u8]| match bytes.starts_with(HEAD_START) {
            true => boundary_after(bytes, 0, HEAD_START.len()),
            false => 0,
        };
        self.unsent.truncate(self.unsent_boundary.max(head_bytes(&self.unsent)));
        self.answers.truncate(head_bytes(&self.answers));
    }
}

#[cfg(test)]
mod tests {
    use super::super::state_walk::StateCursor;
    use super::*;

    const NOW: Now = Now { tick: 1, ns: 0, wall_offset_ns: 0 };

    fn slot(generation: u32) -> SlotId {
        SlotId { index: 3, generation }
    }

    fn own() -> OwnBacklog {
        let log = RingCursor { position: Position::ZERO, offset: RingOffset::new(0) };
        let state = StateWalk::at(StateCursor::explicit(NOW, log));
        OwnBacklog::new(0, state, log)
    }

    #[test]
    fn former_client_of_a_slot_in_the_queue_is_not_served_in_place_of_the_next() {
        let (_, reader) = ring::ring(1 << 16);
        let mut backlog = Backlog::new(History::new(&reader, 0));
        backlog.own_or_insert_with(slot(1), NOW, own);
        backlog.enqueue(slot(1));
        backlog.remove(slot(1));
        backlog.own_or_insert_with(slot(2), NOW, own);
        backlog.enqueue(slot(2));
        assert!(backlog.get(slot(1)).is_none() && backlog.remove(slot(1)).is_none());
        assert_eq!((backlog.pop_own(), backlog.pop_own(), backlog.len()), (Some(slot(2)), None, 1));
    }
}
