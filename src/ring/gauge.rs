//! How far the reader of a ring is behind.

use super::Shared;
use crate::sync::{Arc, Ordering};

/// A view, from any thread, of how far the reader lags.
#[derive(Clone)]
pub struct Gauge {
    pub(super) shared: Arc<Shared>,
    pub(super) capacity: u64,
}

impl Gauge {
    /// Published bytes that the reader has not read yet; more than the capacity if it is being lapped.
    ///
    /// On the producer's thread this is never too low, and bytes that count as read may be overwritten without harm to
    /// the reader: a producer that keeps the sum of this and of what it is about to push below half of the capacity
    /// laps no reader.
    pub fn backlog_bytes(&self) -> u64 {
        // Acquire: partner of the Release store in `Reader::move_to`. What the reader has copied was copied before
        // anything that this thread stores from now on; and `published` below is not older than what the reader saw,
        // so the difference is never negative.
        let read = self.shared.read.load(Ordering::Acquire);
        // Relaxed: only the number is wanted, and the line above makes it new enough.
        self.shared.published.load(Ordering::Relaxed) - read
    }

    /// Bytes published so far.
    pub fn published_bytes(&self) -> u64 {
        // Relaxed: only the number is wanted.
        self.shared.published.load(Ordering::Relaxed)
    }

    /// Bytes that the reader has read so far, or has lost.
    pub fn read_bytes(&self) -> u64 {
        // Relaxed: only the number is wanted.
        self.shared.read.load(Ordering::Relaxed)
    }

    /// The ring's memory, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }
}
