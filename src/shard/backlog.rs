//! What is pending for the clients that are not on the live path: answers, snapshots, replays, and all that a slow
//! client has not been sent.
//!
//! What always holds:
//! * An open client is either a member of its audience or has a [`ClientBacklog`], never both.
//! * A client's backlog takes constant memory, whatever happens meanwhile: the rest of one send, the answers to its
//!   requests, and cursors. Missed values are read from the last values and from the ring when there is room for them.
//!
//! Memory: 8 bytes a slot, some 300 a client that is behind, and its pending bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::history::History;
use super::market_view::LogCursor;
use super::paged_vec::PagedVec;
use super::state_walk::StateWalk;
use super::subscription_index::Key;
use super::tick_records::Now;
use crate::io::SlotId;
use crate::ring::{self, RingOffset};
use tickcast_protocol::Position;

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog {
    /// By slot.
    clients: PagedVec<Option<Box<ClientBacklog>>>,
    len: usize,
    /// Clients to be served in the catch-up phase; some may be gone or have been served.
    pub(super) queue: VecDeque<SlotId>,
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
    /// Rest of a send that did not take all its bytes; goes first. Members that were cut in one packet share it.
    pub(super) unsent: Bytes,
    /// Answers and control frames, which go next.
    pub(super) answers: Vec<u8>,
    /// Input that waits until nothing is pending.
    pub(super) deferred_input: Vec<u8>,
    /// The tick and time at which the client left the live path.
    pub(super) since: Now,
    /// When its socket last took something.
    pub(super) progress_ns: u64,
    /// Waits for room in the socket.
    pub(super) is_blocked: bool,
    /// Is in the queue.
    pub(super) is_queued: bool,
    /// Instruments with a higher id have not been announced to it.
    pub(super) announced: u32,
    /// What a resume replays from the ring before anything newer.
    pub(super) replay: Option<Replay>,
    pub(super) state: StateWalk,
    pub(super) log: LogCursor,
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
        Self { clients: PagedVec::default(), len: 0, queue: VecDeque::new(), history, buffers: Buffers::default() }
    }

    /// How many clients are not on the live path.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, slot_id: SlotId) -> Option<&ClientBacklog> {
        self.clients.get(slot_id.index as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot_id: SlotId) -> Option<&mut ClientBacklog> {
        self.clients.get_mut(slot_id.index as usize)?.as_deref_mut()
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

    pub(super) fn remove(&mut self, slot_id: SlotId) -> Option<Box<ClientBacklog>> {
        let removed = self.clients.get_mut(slot_id.index as usize)?.take();
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Queues a client for the next catch-up phase, unless it waits for room in its socket.
    pub(super) fn enqueue(&mut self, slot_id: SlotId) {
        let Some(client) = self.clients.get_mut(slot_id.index as usize).and_then(Option::as_deref_mut) else { return };
        if !client.is_queued && !client.is_blocked {
            client.is_queued = true;
            self.queue.push_back(slot_id);
        }
    }

    /// The backlog of a client that was in the queue, with what serving it needs besides; `None` if the client is gone
    /// or was served already.
    pub(super) fn dequeued(&mut self, slot_id: SlotId) -> Option<(&mut ClientBacklog, &History, &mut Buffers)> {
        let client = self.clients.get_mut(slot_id.index as usize)?.as_deref_mut()?;
        std::mem::take(&mut client.is_queued).then_some((client, &self.history, &mut self.buffers))
    }
}

impl ClientBacklog {
    /// The backlog of a client that leaves the live path now.
    pub(super) fn new(now: Now, announced: u32, state: StateWalk, log: LogCursor) -> Self {
        Self {
            unsent: Bytes::new(),
            answers: Vec::new(),
            deferred_input: Vec::new(),
            since: now,
            progress_ns: now.ns,
            is_blocked: false,
            is_queued: false,
            announced,
            replay: None,
            state,
            log,
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

    /// Moves the bytes that are ready to be sent to `out`.
    pub(super) fn take_pending_bytes(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.unsent);
        out.extend_from_slice(&self.answers);
        (self.unsent, self.answers) = (Bytes::new(), Vec::new());
    }

    /// True if further requests have to wait: something of an earlier tick is pending, or a replay, of which there is
    /// one at a time.
    pub(super) fn defers_requests(&self, now: Now) -> bool {
        self.since.tick != now.tick || self.is_blocked || self.replay.is_some()
    }
}
