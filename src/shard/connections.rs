//! What a shard knows of one client.

use std::sync::Arc;

use bytes::Bytes;

use super::replay::Replay;
use super::subscription_index::{AudienceId, Key};
use crate::io::SlotId;
use tickcast_protocol::Sequence;
use tickcast_protocol::ws::session::Session;

/// `Client::place` of one that is not among the members of its audience.
pub(super) const ABSENT: u32 = u32::MAX;

/// One seat's client. Some 100 bytes; what it is owed lives in a box of its own.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) slot_id: SlotId,
    pub(super) audience: AudienceId,
    /// Its place among the members, or [`ABSENT`].
    pub(super) place: u32,
    pub(super) session: Session,
    pub(super) received_ns: u64,
    pub(super) request_bucket: TokenBucket,
    /// Input was seen that has not been asked for.
    pub(super) readable: bool,
    /// A receive is under way.
    pub(super) receiving: bool,
    /// When it was pinged, if nothing has come from it since; else 0.
    pub(super) pinged_ns: u64,
    /// When it came, until it has subscribed for the first time; then 0.
    pub(super) unsubscribed_since_ns: u64,
    /// Its end is to be told to whoever seated it.
    pub(super) reported: bool,
    pub(super) catch_up: Option<Box<CatchUp>>,
    pub(super) ending: Ending,
}

/// How far a connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Open.
    No,
    /// A close frame, or the last event, is among what it is owed. `echo`: nothing more will come of the peer, which
    /// asked first or only listens.
    Closing { echo: bool },
    /// The close frame is out; the peer's answer or its end is awaited until then.
    Lingering { until_ns: u64 },
}

/// A token bucket: requests a second, with a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    /// Thousandths of a request.
    millis: u64,
    refilled_ns: u64,
}

impl TokenBucket {
    /// Seconds of its rate that a client may use at once: a dashboard subscribes to all its rows when it opens.
    const BURST_SECONDS: u64 = 4;

    pub(super) fn new(per_second: u32, now_ns: u64) -> Self {
        Self { millis: Self::BURST_SECONDS * u64::from(per_second) * 1000, refilled_ns: now_ns }
    }

    /// Takes one request; false when there is none left.
    pub(super) fn take(&mut self, per_second: u32, now_ns: u64) -> bool {
        let elapsed_us = now_ns.saturating_sub(self.refilled_ns) / 1000;
        let gained = elapsed_us.saturating_mul(u64::from(per_second)) / 1000;
        if gained > 0 {
            let most = Self::BURST_SECONDS * u64::from(per_second) * 1000;
            self.millis = (self.millis + gained).min(most);
            self.refilled_ns = now_ns;
        }
        let had = self.millis >= 1000;
        self.millis = self.millis.saturating_sub(1000);
        had
    }
}

/// Up to where a client has had its state: everything dispatched by the end of that turn, or, where the values were sent
/// to it one by one (`explicit`), everything up to that place of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateMark {
    pub(super) tick: u64,
    pub(super) place: u64,
    pub(super) explicit: bool,
    /// Up to this place it has had everything in any case, dispatched or not.
    pub(super) floor: u64,
}

/// Up to where a client has had its log channels.
#[derive(Clone, Debug)]
pub(super) struct LogMark {
    /// Place in the node's order up to which nothing of its log channels is missing.
    pub(super) position: u64,
    /// Where the ring goes on for it.
    pub(super) ring_position: u64,
    /// Sequences (trade, raw) of all instruments at that place: what a Gap starts from, should the ring be overwritten.
    /// Shared by all who came to it in the same turn; one that stands amid the history has a copy of its own.
    pub(super) sequences: Arc<[[Sequence; 2]]>,
}

/// What a client that is not among the members of its audience is owed. Constant memory, whatever happens meanwhile: the
/// rest of one send, the answers to its requests, and marks.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Unsent rest of what was being sent; goes first. Shared by all members that were cut in the same packet.
    pub(super) tail: Bytes,
    /// Control frames that go next.
    pub(super) control: Vec<u8>,
    /// Input that waits until the client is owed nothing.
    pub(super) held_input: Vec<u8>,
    /// The turn in which it left the members.
    pub(super) since_tick: u64,
    /// When it left the members.
    pub(super) since_ns: u64,
    /// When something last left for it.
    pub(super) progress_ns: u64,
    /// Waits for the socket to have room.
    pub(super) blocked: bool,
    /// Stands in the shard's list of those to be served.
    pub(super) queued: bool,
    /// Instruments above this have not been announced to it.
    pub(super) directory_len: u32,
    /// What is read from the ring after a resume, before anything newer.
    pub(super) replay: Option<Replay>,
    pub(super) state: StatePass,
    pub(super) log: LogMark,
    /// Newly wanted items: keys, sorted, and whether their present value is sent as a snapshot (or as a merged value).
    pub(super) job: Vec<(Key, Owed)>,
    pub(super) snapshot: bool,
}

/// Why an item is owed its present value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    /// Only the Definition: the client wants no snapshot.
    Definition,
    /// The value, merged: it was pending at the interval that the client has left.
    Merged,
    /// The value, as a snapshot.
    Snapshot,
}

/// A walk over the instruments in the order of ids, in pieces. A value that was sent early in the walk may change before
/// its end, so each piece has the mark of its turn; the next walk looks from there.
#[derive(Debug)]
pub(super) struct StatePass {
    /// Marks of the last walk: (last id, mark), in ascending order; the last id of all is `u32::MAX`.
    pub(super) before: Vec<(u32, StateMark)>,
    /// Marks of this walk, up to `cursor`.
    pub(super) after: Vec<(u32, StateMark)>,
    /// Next instrument of this walk.
    pub(super) cursor: u32,
    /// Walks that have come to their end.
    pub(super) walks: u32,
}

impl StatePass {
    /// Everything is known up to `mark`.
    pub(super) fn at(mark: StateMark) -> Self {
        Self { before: vec![(u32::MAX, mark)], after: Vec::new(), cursor: 1, walks: 0 }
    }

    /// The mark that holds for an instrument.
    pub(super) fn mark_of(&self, instrument: u32) -> StateMark {
        let at = self.before.partition_point(|(last, _)| *last < instrument);
        self.before[at].1
    }

    /// True if no instrument's mark is older than this turn.
    pub(super) fn is_at(&self, tick: u64) -> bool {
        self.after.is_empty() && self.cursor == 1 && self.before.iter().all(|(_, mark)| mark.tick == tick)
    }

    /// True if every value up to the marks was sent, also those that still wait for a tick.
    pub(super) fn is_explicit(&self) -> bool {
        self.before.iter().all(|(_, mark)| mark.explicit)
    }

    /// Notes that the walk has come to `last`, with values as of `mark`.
    pub(super) fn advance(&mut self, last: u32, mark: StateMark) {
        match self.after.last_mut() {
            Some((end, of)) if *of == mark => *end = last,
            _ => self.after.push((last, mark)),
        }
        if last == u32::MAX {
            self.before = std::mem::take(&mut self.after);
            self.cursor = 1;
            self.walks += 1;
        } else {
            self.cursor = last + 1;
        }
    }
}

impl CatchUp {
    /// Adds items whose present value is owed; of several claims to one, the greatest counts.
    pub(super) fn owe(&mut self, items: impl IntoIterator<Item = (Key, Owed)>) {
        self.job.extend(items);
        self.job.sort_unstable_by_key(|(key, owed)| (*key, std::cmp::Reverse(*owed)));
        self.job.dedup_by_key(|(key, _)| *key);
    }

    /// True if an answer or a rest of a send is still owed.
    pub(super) fn owes_bytes(&self) -> bool {
        !self.tail.is_empty() || !self.control.is_empty()
    }
}

/// When a client that is sent away should come back, ms: spread over two seconds, so that not all come at once.
pub(super) fn reconnect_ms(slot: u32) -> u64 {
    /// A prime stride visits the whole range.
    const STRIDE: u64 = 619;
    500 + u64::from(slot) * STRIDE % 2000
}
