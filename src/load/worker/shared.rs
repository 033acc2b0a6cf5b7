//! What a worker process shares with its threads: the stage of the run, and how far the threads have come.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::messages::{PublishedCount, WorkerProgress};

/// The stage of the run, which the threads follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum RunStage {
    /// Connecting, then warming up.
    Before = 0,
    Measuring = 1,
    /// Measured; records under way are still read.
    Tail = 2,
    Done = 3,
}

/// State that a process shares with its threads. The counters are Relaxed: numbers for people; the results travel with
/// the end of a thread.
#[derive(Debug, Default)]
pub struct WorkerShared {
    stage: AtomicU8,
    /// Records and instruments of the publisher; set before the stage is [`RunStage::Done`].
    published: [AtomicU64; 2],
    connected: AtomicU64,
    settled: AtomicU64,
    records: AtomicU64,
}

impl WorkerShared {
    /// Sets the stage for all threads.
    pub fn set_stage(&self, stage: RunStage) {
        // Release: the partner is the Acquire in `stage`; with Done comes what was published.
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Ends all threads, which then compare what their clients received with what was published.
    pub fn finish(&self, published: PublishedCount) {
        self.published[0].store(published.records, Ordering::Relaxed);
        self.published[1].store(published.instruments, Ordering::Relaxed);
        self.set_stage(RunStage::Done);
    }

    /// How far the threads have come.
    pub fn progress(&self) -> WorkerProgress {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        WorkerProgress { connected: read(&self.connected), settled: read(&self.settled), records: read(&self.records) }
    }

    pub fn stage(&self) -> RunStage {
        // Acquire: the partner is the Release in `set_stage`.
        match self.stage.load(Ordering::Acquire) {
            0 => RunStage::Before,
            1 => RunStage::Measuring,
            2 => RunStage::Tail,
            _ => RunStage::Done,
        }
    }

    /// What the publisher has published, once the stage is [`RunStage::Done`].
    pub fn published(&self) -> PublishedCount {
        let [records, instruments] = self.published.each_ref().map(|number| number.load(Ordering::Relaxed));
        PublishedCount { records, instruments }
    }

    /// One more client is upgraded.
    pub fn add_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// One more client was refused.
    pub fn add_refused(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more records have come; messages, where the server is of another kind.
    pub fn add_records(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }
}
