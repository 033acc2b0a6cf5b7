//! The sequencer's counters as other threads read them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::SequencerCounters;

/// The sequencer's numbers, where other threads read them.
#[derive(Debug, Default)]
pub struct SequencerStats {
    /// Place of the newest record.
    pub position: AtomicU64,
    /// Records written to the rings.
    pub records: AtomicU64,
    /// Records of instruments that their source had not defined.
    pub undefined: AtomicU64,
    /// Definitions refused.
    pub refused: AtomicU64,
    /// Resynchronisations of overrun shards.
    pub resyncs: AtomicU64,
    /// Records that sources have said to have lost.
    pub lost: AtomicU64,
    /// Times a source fell silent for too long.
    pub silences: AtomicU64,
    /// SourceTable that went without having ended.
    pub losses: AtomicU64,
    /// Feeds that died and were opened again, or are to be.
    pub restarts: AtomicU64,
    /// SourceTable that are there now, and not silent.
    pub sources: AtomicU64,
    /// Instruments whose values are stale or ended now.
    pub stale: AtomicU64,
    /// Book records refused because the book would have had too many levels.
    pub books_refused: AtomicU64,
}

impl SequencerStats {
    /// Shows the present numbers.
    pub fn publish(&self, counters: &SequencerCounters, position: u64) {
        // Relaxed: each number stands for itself.
        self.position.store(position, Ordering::Relaxed);
        self.records.store(counters.records, Ordering::Relaxed);
        self.undefined.store(counters.undefined, Ordering::Relaxed);
        self.refused.store(counters.refused, Ordering::Relaxed);
        self.resyncs.store(counters.resyncs, Ordering::Relaxed);
        self.lost.store(counters.lost, Ordering::Relaxed);
        self.silences.store(counters.silences, Ordering::Relaxed);
        self.losses.store(counters.losses, Ordering::Relaxed);
        self.sources.store(counters.sources, Ordering::Relaxed);
        self.stale.store(counters.stale, Ordering::Relaxed);
        self.books_refused.store(counters.books_refused, Ordering::Relaxed);
    }
}
