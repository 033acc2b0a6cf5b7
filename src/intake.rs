//! The way in: from feeds and publishers to the sequencer, a bounded queue of batches.
//!
//! A batch is whole wire records with the source's own instrument ids. Whoever fills the queue waits; the sequencer never
//! does. [`Pace`] lets a source that can wait (a recording, a publisher) keep behind the slowest shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};
use futures_channel::oneshot;

use crate::market::DefineError;
use crate::ring::Gauge;
use crate::sequencer::SourceId;

/// Batches that wait at the most: with [`BATCH_BYTES_MAX`] some 8 MiB.
const BATCHES_MAX: usize = 128;
/// A batch is at most this long but for its last record, so that the rings publish often.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What the sequencer is told.
#[derive(Debug)]
pub enum Input {
    /// Records of a source.
    Batch(Batch),
    /// A source has gone; its instrument ids end.
    SourceClosed(SourceId),
    /// A shard was overrun and needs the whole state.
    Resync { core: usize },
    /// The server stops.
    Stop,
}

/// Records on their way to the sequencer.
#[derive(Debug)]
pub struct Batch {
    pub source: SourceId,
    pub bytes: Vec<u8>,
    /// Told how each Definition of the batch ended.
    pub reply: Option<oneshot::Sender<Vec<Result<u32, DefineError>>>>,
    /// Raised by the batch's length when it has been sequenced.
    pub sequenced: Arc<AtomicU64>,
}

/// The queue, both ends.
pub fn intake() -> (Sender<Input>, Receiver<Input>) {
    bounded(BATCHES_MAX)
}

/// Where a source stands: what it has handed over, and how far the rings are behind.
pub struct Pace {
    gauges: Vec<Gauge>,
    handed_over: u64,
    sequenced: Arc<AtomicU64>,
}

impl Pace {
    /// For a source that has handed nothing over yet.
    pub fn new(gauges: Vec<Gauge>) -> Self {
        Self { gauges, handed_over: 0, sequenced: Arc::default() }
    }

    /// Makes a batch, and counts it as handed over.
    pub fn batch(&mut self, source: SourceId, bytes: Vec<u8>) -> Batch {
        self.handed_over += bytes.len() as u64;
        Batch { source, bytes, reply: None, sequenced: self.sequenced.clone() }
    }

    /// True while what is under way fits into a quarter of every ring: the rest is left to live feeds.
    pub fn has_room(&self) -> bool {
        // Relaxed: a stale value only delays; the records themselves are ordered by queue and ring.
        let queued = self.handed_over - self.sequenced.load(Ordering::Relaxed);
        // An entry of the ring is up to a third longer than its record.
        self.gauges.iter().all(|gauge| gauge.backlog_bytes() + queued * 4 / 3 < gauge.capacity_bytes() / 4)
    }
}
