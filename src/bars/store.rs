//! The thread that makes bars of the sequencer's tape, and the store where the door finds them.
//!
//! The thread is pinned nowhere and nobody waits for it: what it is too slow for is lost to the bars, counted, and told as
//! a hole. It sleeps while nothing comes, and is woken by the sequencer with the first record after that; while records
//! come it looks every tenth of a second, so that the sequencer wakes it no more often than that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::bars::{BarQuery, Bars, FoundBars};
use crate::lifecycle::Lifecycle;
use crate::ring::{Batch, Gauge, Overrun, Reader};
use crate::wake::SleepFlag;
use tickcast_protocol::record::RecordHeader;

/// How often the tape is read while something comes. It is how late the newest bar is.
const POLL: Duration = Duration::from_millis(100);
/// How often while much comes: an eighth of the tape at a time.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// Bytes that are folded under one lock: some 50 us.
const PORTION_BYTES: usize = 128 * 1024;

/// The bars, shared by the thread that makes them and the doors.
pub struct BarStore {
    bars: Mutex<Bars>,
    bytes: AtomicU64,
    records_lost: AtomicU64,
    asleep: SleepFlag,
    thread: OnceLock<Thread>,
    gauge: Gauge,
}

impl BarStore {
    /// Of bars that are made of the tape that this gauge is of.
    pub fn new(bars: Bars, gauge: Gauge) -> Self {
        Self {
            bars: Mutex::new(bars),
            bytes: AtomicU64::new(0),
            records_lost: AtomicU64::new(0),
            asleep: SleepFlag::new(),
            thread: OnceLock::new(),
            gauge,
        }
    }

    /// Looks for bars; `None` if it has to be asked again in a moment. A shard must not wait for the thread that folds,
    /// which may have lost its core.
    pub fn try_find(&self, instrument: u32, query: &BarQuery) -> Option<FoundBars> {
        match self.bars.try_lock() {
            Ok(bars) => Some(bars.find(instrument, query)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("{PANICKED}"),
        }
    }

    /// Trades and quotes that were overwritten before they became bars.
    pub fn records_lost(&self) -> u64 {
        // Relaxed, here and below: the numbers stand for themselves.
        self.records_lost.load(Ordering::Relaxed)
    }

    /// Memory of the bars.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How full the tape is.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Has the thread look at what was sequenced. To be called after the tape was published.
    pub fn wake(&self) {
        if self.gauge.backlog_bytes() > 0 && self.asleep.claim() {
            self.unpark();
        }
    }

    /// Has the thread look whether the server is_stopping.
    pub fn stop(&self) {
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bars> {
        self.bars.lock().expect(PANICKED)
    }
}

const PANICKED: &str = "a panic amid folding ends the process, and nobody reads what it has left";

/// Makes bars of the tape until the server is_stopping.
pub fn spawn(store: Arc<BarStore>, bars_ring: Reader, lifecycle: Arc<Lifecycle>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("bars".to_owned()).spawn(move || {
        let _watch = lifecycle.watch("the thread that makes bars");
        let _ = store.thread.set(thread::current());
        let mut folding =
            Folding { store: &store, bars_ring, batch: Batch::default(), next_tag: 0, newest_ns: 0, has_lost: false };
        while !lifecycle.is_stopping() {
            let bytes = folding.fold_all();
            if bytes == 0 {
                folding.sleep(|| lifecycle.is_stopping());
            }
            thread::park_timeout(if bytes > store.gauge.capacity_bytes() / 8 { POLL_BUSY } else { POLL });
        }
    })
}

/// What the thread works with.
struct Folding<'a> {
    store: &'a BarStore,
    bars_ring: Reader,
    batch: Batch,
    /// Tag of the next record, if none is lost.
    next_tag: u64,
    /// When the newest record so far was received.
    newest_ns: u64,
    /// Records after that one were lost; the next one that is read ends the hole.
    has_lost: bool,
}

impl Folding<'_> {
    /// Folds what is on the tape; returns how many bytes that was.
    fn fold_all(&mut self) -> u64 {
        let from = self.bars_ring.position();
        while !self.bars_ring.is_empty() {
            self.batch.clear();
            let read = self.bars_ring.read(PORTION_BYTES, &mut self.batch);
            let mut bars = self.store.lock();
            if let Err(Overrun { .. }) = read {
                // How many they were, the next tag tells, and until when, its record.
                self.has_lost = true;
                continue;
            }
            for entry in &self.batch.entries {
                let record = self.batch.payload(entry);
                let read_ns = RecordHeader::read(record).map_or(self.newest_ns, |header| header.ts_recv);
                if std::mem::take(&mut self.has_lost) {
                    bars.lose(self.newest_ns, read_ns);
                }
                bars.fold(record);
                self.newest_ns = read_ns;
            }
            bars.share();
            drop(bars);
            self.count_lost();
        }
        let bytes = self.bars_ring.position() - from;
        if bytes > 0 {
            // Relaxed: the number stands for itself.
            self.store.bytes.store(self.store.lock().bytes() as u64, Ordering::Relaxed);
        }
        bytes
    }

    fn count_lost(&mut self) {
        if let (Some(first), Some(last)) = (self.batch.entries.first(), self.batch.entries.last()) {
            // Relaxed: the number stands for itself.
            self.store.records_lost.fetch_add(first.tag - self.next_tag, Ordering::Relaxed);
            self.next_tag = last.tag + 1;
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&self, is_stopping: impl Fn() -> bool) {
        self.store.asleep.raise();
        if self.bars_ring.is_empty() && !is_stopping() {
            thread::park();
        }
        self.store.asleep.lower();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Writer, ring};
    use tickcast_protocol::RecordKind;
    use tickcast_protocol::record::Trade;

    const SECOND_NS: u64 = 1_000_000_000;

    fn push(writer: &mut Writer, tag: u64, at_s: u64) {
        let header = RecordHeader { ts_recv: at_s * SECOND_NS, ..RecordHeader::of_feed(RecordKind::Trade, 1, 0) };
        let mut record = Vec::new();
        Trade { px: 1, sz: 1, trade_id: 0, side: b'N' }.encode(&header, &mut record);
        writer.push(tag, &record);
        writer.publish();
    }

    #[test]
    fn what_was_overwritten_before_it_was_read_is_counted_and_told() {
        let (mut writer, bars_ring) = ring(1024);
        let store = BarStore::new(Bars::new(1 << 20, 0), writer.gauge());
        let mut folding =
            Folding { store: &store, bars_ring, batch: Batch::default(), next_tag: 0, newest_ns: 0, has_lost: false };
        push(&mut writer, 0, 10);
        assert!(folding.fold_all() > 0);
        (1..=100).for_each(|tag| push(&mut writer, tag, 10 + tag));
        folding.fold_all();
        assert_eq!(store.records_lost(), 0, "how many, only a record after them can tell");
        push(&mut writer, 101, 111);
        folding.fold_all();
        assert_eq!(store.records_lost(), 100);
        let found = store.try_find(1, &BarQuery { interval_s: 1, limit: 10, to_s: u32::MAX }).expect("nobody folds");
        assert_eq!(found.bars.iter().map(|bar| bar.time_s).collect::<Vec<_>>(), [10, 111]);
        assert_eq!(found.holes, [(10, 111)]);
        assert!(store.bytes() > 0);
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_by_what_is_sequenced_and_by_the_end() {
        let (mut writer, bars_ring) = ring(1 << 16);
        let store = Arc::new(BarStore::new(Bars::new(1 << 20, 0), writer.gauge()));
        let lifecycle = Arc::new(Lifecycle::begin().0);
        let thread = spawn(store.clone(), bars_ring, lifecycle.clone()).expect("a thread");
        let began = std::time::Instant::now();
        for tag in 0..3 {
            push(&mut writer, tag, tag);
            store.wake();
            let query = BarQuery { interval_s: 1, limit: 10, to_s: u32::MAX };
            let is_there = || store.try_find(1, &query).is_some_and(|found| found.bars.len() as u64 == tag + 1);
            while !is_there() {
                assert!(began.elapsed() < Duration::from_secs(40), "it sleeps on, though there is a record");
                thread::yield_now();
            }
        }
        lifecycle.enter(crate::lifecycle::Stage::Stopping);
        store.stop();
        thread.join().expect("it ends");
    }
}
