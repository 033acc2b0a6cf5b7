//! What the shard has read from its ring: the instruments, the newest values, and how far it has come.
//!
//! Written by the phase that reads the ring. The others read it.

use tickcast_protocol::{Directory, Position};

use super::log_trail::LogTrail;
use crate::last_value::LastValues;
use crate::ring::RingOffset;

/// Up to where a client has had its log channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogCursor {
    /// No log record up to this position is missing.
    pub(super) position: Position,
    /// Where the client continues in the ring.
    pub(super) offset: RingOffset,
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
    /// What the log channels have had since the client that is furthest behind.
    pub(super) log_trail: LogTrail,
}

impl MarketView {
    /// Nothing is known yet; the ring will be read from `offset` on.
    pub(super) fn new(offset: RingOffset) -> Self {
        Self { offset, ..Self::default() }
    }

    /// The cursor of a client that has had everything up to now.
    pub(super) fn log_cursor(&self) -> LogCursor {
        LogCursor { position: self.position, offset: self.offset }
    }
}
