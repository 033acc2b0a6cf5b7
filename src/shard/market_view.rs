//! What the shard has read from its ring: the instruments, the newest values, and how far it has come.
//!
//! Written by the phase that reads the ring. The others read it; catch-up also fills the cache of log sequences.

use std::sync::Arc;

use tickcast_protocol::{Directory, Position, Sequence};

use crate::last_value::LastValues;
use crate::ring::RingOffset;

/// Sequences of the log channels (trade, raw) by instrument, from instrument 1.
pub(super) type LogSequences = Arc<[[Sequence; 2]]>;

/// Up to where a client has had its log channels.
#[derive(Clone, Debug)]
pub(super) struct LogCursor {
    /// No log record up to this position is missing.
    pub(super) position: Position,
    /// Where the client continues in the ring.
    pub(super) offset: RingOffset,
    /// Sequences at that offset: what a Gap starts from, should the ring be overwritten. Clients that left the live
    /// path between two changes share one copy; a client in the middle of the history has its own.
    pub(super) sequences: LogSequences,
}

/// Instruments, newest values, and how far the ring has been read.
#[derive(Debug, Default)]
pub(super) struct MarketView {
    pub(super) directory: Directory,
    /// Each value with the end of its record in the ring.
    pub(super) values: LastValues<RingOffset>,
    /// Position of the newest record that was read.
    pub(super) position: Position,
    /// The same at the end of the last tick.
    pub(super) last_position: Position,
    /// End of what was read.
    pub(super) offset: RingOffset,
    /// The ring has lapped the shard: the sequencer has to send the whole state again.
    pub(super) resync_wanted: bool,
    /// The log sequences, and the count of changes at which they were collected.
    log_sequences: (u64, LogSequences),
}

impl MarketView {
    /// Nothing is known yet; the ring will be read from `offset` on.
    pub(super) fn new(offset: RingOffset) -> Self {
        Self { offset, ..Self::default() }
    }

    /// The cursor of a client that has had everything up to now.
    pub(super) fn log_cursor(&mut self) -> LogCursor {
        LogCursor { position: self.position, offset: self.offset, sequences: self.log_sequences() }
    }

    /// The present sequences of all log channels. They are collected once for all that ask between two changes.
    pub(super) fn log_sequences(&mut self) -> LogSequences {
        let changes = self.values.log_changes();
        if self.log_sequences.0 != changes {
            self.log_sequences = (changes, self.values.log_sequences().collect());
        }
        self.log_sequences.1.clone()
    }
}
