//! What the shard has read from its ring: the instruments, the newest values, and how far it has come.
//!
//! Written by the phase that reads the ring. The others read it.

use tickcast_protocol::{Directory, Position, Sequence};

use super::log_trail::LogTrail;
use crate::last_value::LastValues;
use crate::ring::RingOffset;

/// How far the ring has been read: by the shard, or for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingCursor {
    /// No record up to this position is missing.
    pub(super) position: Position,
    /// Where reading goes on.
    pub(super) offset: RingOffset,
}

/// The ring has lapped the shard, and the sequencer sends the whole state again.
#[derive(Debug, Default)]
pub(super) struct ShardResync {
    /// It has not been requested yet.
    pub(super) is_wanted: bool,
    /// Something is missing until the end of the last one that was requested.
    pub(super) is_running: bool,
    /// How many were requested.
    pub(super) requests: Sequence,
}

impl ShardResync {
    /// The shard was overrun.
    pub(super) fn begin(&mut self) {
        (self.is_wanted, self.is_running) = (true, true);
    }

    /// It was requested.
    pub(super) fn note_requested(&mut self) {
        (self.is_wanted, self.requests) = (false, self.requests.next());
    }

    /// One has ended, the n-th that was requested. An earlier one may miss what a later overrun has lost.
    pub(super) fn end(&mut self, request: Sequence) {
        self.is_running &= self.is_wanted || request != self.requests;
    }
}

/// Instruments, newest values, and how far the ring has been read.
#[derive(Debug, Default)]
pub(super) struct MarketView {
    pub(super) directory: Directory,
    /// Each value with the end of its record in the ring.
    pub(super) values: LastValues<RingOffset>,
    /// No record up to this position is missing: what packets state, and clients resume from. The newest position that
    /// was read; while values that an overrun has lost are sent again, the one before the overrun.
    pub(super) position: Position,
    /// Position of the newest record that was read.
    pub(super) newest: Position,
    /// The same at the end of the last tick.
    pub(super) last_position: Position,
    /// End of what was read.
    pub(super) offset: RingOffset,
    pub(super) resync: ShardResync,
    /// What the log channels have had since the client that is furthest behind.
    pub(super) log_trail: LogTrail,
}

impl MarketView {
    /// Nothing is known yet; the ring will be read from `offset` on.
    pub(super) fn new(offset: RingOffset) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Notes the position of a record that was read.
    pub(super) fn advance(&mut self, position: Position) {
        self.newest = self.newest.max(position);
    }

    /// At the end of what is read in a tick: nothing up to the newest position is missing, unless it was lost to an
    /// overrun.
    pub(super) fn settle(&mut self) {
        if !self.resync.is_running {
            self.position = self.newest;
        }
    }

    /// The end of what was read: the cursor of a client that has had everything up to now.
    pub(super) fn cursor(&self) -> RingCursor {
        RingCursor { position: self.position, offset: self.offset }
    }
}
