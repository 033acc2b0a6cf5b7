//! The thread that makes bars from the sequencer's bars ring, and the store in which the HTTP servers find them.
//!
//! The thread is not pinned, and neither a source nor a shard waits for it: records that it is too slow for are missing
//! from the bars, counted, and reported as a hole. While the ring is empty it sleeps, and the sequencer's next record
//! wakes it. While records come it reads the ring every tenth of a second, so that the sequencer wakes it no more often.
//!
//! The newest trades and the sums of tickers have stores of their own, which it fills as well, one lock after the other.
//! The resync thread waits for the lock of the latter, for one portion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::affinity::keep_current_thread_on;
use crate::bars::{BarQuery, Bars, FoundBars};
use crate::clock::now_ns;
use crate::day_tickers::TickerStore;
use crate::fault;
use crate::lifecycle::Lifecycle;
use crate::recent_trades::TradeStore;
use crate::ring::{Batch, Gauge, Overrun, Reader};
use crate::wake::SleepFlag;
use tickcast_protocol::Position;
use tickcast_protocol::record::RecordHeader;

/// How often the ring is read while records come: the newest bar is that late.
const POLL: Duration = Duration::from_millis(100);
/// How often the ring is read while one read brings more than an eighth of it.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// Bytes of records that are added under one lock: some 50 µs.
const PORTION_BYTES: usize = 128 * 1024;

/// The bars, shared by the thread that makes them and the HTTP servers.
pub struct BarStore {
    bars: Mutex<Bars>,
    bytes: AtomicU64,
    records_lost: AtomicU64,
    sleep_flag: SleepFlag,
    thread: OnceLock<Thread>,
    gauge: Gauge,
    trades: Option<TradeStore>,
    tickers: Option<TickerStore>,
}

impl BarStore {
    /// `gauge` is that of the bars ring.
    pub fn new(bars: Bars, gauge: Gauge) -> Self {
        Self {
            bars: Mutex::new(bars),
            bytes: AtomicU64::new(0),
            records_lost: AtomicU64::new(0),
            sleep_flag: SleepFlag::new(),
            thread: OnceLock::new(),
            gauge,
            trades: None,
            tickers: None,
        }
    }

    /// Without a thread that makes bars.
    #[cfg(test)]
    pub(crate) fn unfilled(bars: Bars) -> Self {
        Self::new(bars, crate::ring::ring(1024).0.gauge())
    }

    /// Fills the store of trades as well.
    pub fn with_trades(self, trades: Option<TradeStore>) -> Self {
        Self { trades, ..self }
    }

    /// Fills the store of tickers as well.
    pub fn with_tickers(self, tickers: Option<TickerStore>) -> Self {
        Self { tickers, ..self }
    }

    /// The tickers, if they are computed.
    pub fn tickers(&self) -> Option<&TickerStore> {
        self.tickers.as_ref()
    }

    /// The newest trades, if they are kept.
    pub fn trades(&self) -> Option<&TradeStore> {
        self.trades.as_ref()
    }

    /// The bars that a query asks for; `None` if the bars are locked at the moment. A shard must not wait for the
    /// thread that holds the lock, which may have lost its core.
    pub fn try_find(&self, instrument: u32, query: &BarQuery) -> Option<FoundBars> {
        match self.bars.try_lock() {
            Ok(bars) => Some(bars.find(instrument, query)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("{PANICKED}"),
        }
    }

    /// Trades and quotes that were overwritten before they were added to the bars.
    pub fn records_lost(&self) -> u64 {
        // Relaxed, here and below: each number is read by itself; they order nothing.
        self.records_lost.load(Ordering::Relaxed)
    }

    /// Memory of the bars, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that the clock of the stamps was set, see [`Bars::step`].
    pub fn step(&self, from_ns: u64, to_ns: u64) {
        self.lock().step(from_ns, to_ns);
    }

    /// The times of the oldest bars of instruments, where there are any. Waits for the thread that makes bars, which a
    /// shard must not.
    pub fn first_s(&self, instruments: impl Iterator<Item = u32>) -> Vec<Option<u32>> {
        let bars = self.lock();
        instruments.map(|instrument| bars.first_s(instrument)).collect()
    }

    /// A number that changes with an answer of [`first_s`](Self::first_s); `None` if the bars are locked at the moment.
    pub fn try_first_changes(&self) -> Option<u64> {
        self.bars.try_lock().ok().map(|bars| bars.first_changes())
    }

    /// How full the bars ring is.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Wakes the thread if it sleeps and the ring has records. To be called after the ring is published.
    pub fn wake(&self) {
        if self.gauge.backlog_bytes() > 0 && self.sleep_flag.claim() {
            self.unpark();
        }
    }

    /// Wakes the thread so that it ends. To be called after the lifecycle is at its stopping stage.
    pub fn stop(&self) {
        self.unpark();
    }

    /// Has the thread read the ring now, for an answer that waits for it.
    pub fn hurry(&self) {
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The bars, for the thread of the archive, which may wait for the one that makes them.
    pub(crate) fn lock_for_archive(&self) -> MutexGuard<'_, Bars> {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Bars> {
        self.bars.lock().expect(PANICKED)
    }
}

const PANICKED: &str = "the thread that makes bars has panicked, which ends the process";

/// Starts the thread, on any of these cores, that makes bars from the ring until the server stops.
pub fn spawn(
    store: Arc<BarStore>,
    bars_ring: Reader,
    lifecycle: Arc<Lifecycle>,
    cores: Vec<usize>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("bars".to_owned()).spawn(move || {
        keep_current_thread_on(&cores);
        let _guard = lifecycle.fail_on_panic("the thread that makes bars");
        let _ = store.thread.set(thread::current());
        let mut folding = Folding {
            store: &store,
            bars_ring,
            batch: Batch::default(),
            next: Position::ZERO,
            newest_ns: 0,
            has_lost: false,
        };
        while !lifecycle.is_stopping() {
            fault::point("bars");
            let bytes = folding.fold_all();
            if bytes == 0 {
                folding.sleep(|| lifecycle.is_stopping());
            }
            thread::park_timeout(if bytes > store.gauge.capacity_bytes() / 8 { POLL_BUSY } else { POLL });
        }
    })
}

/// State of the thread.
struct Folding<'a> {
    store: &'a BarStore,
    bars_ring: Reader,
    batch: Batch,
    /// Position of the next record in the bars ring, unless records are lost.
    next: Position,
    /// `ts_recv` of the newest record so far.
    newest_ns: u64,
    /// Records after that one were lost; the next record ends the hole.
    has_lost: bool,
}

impl Folding<'_> {
    /// Adds all records of the ring to the bars; returns how many bytes they took in the ring.
    fn fold_all(&mut self) -> u64 {
        let from = self.bars_ring.offset();
        while !self.bars_ring.is_empty() {
            self.batch.clear();
            let read = self.bars_ring.read(PORTION_BYTES, &mut self.batch);
            let mut bars = self.store.lock();
            if let Err(Overrun { .. }) = read {
                // Their number follows from the next record's position, the end of the hole from its `ts_recv`.
                self.has_lost = true;
                drop(bars);
                self.store.trades.iter().for_each(|trades| trades.lose(self.bars_ring.offset()));
                self.store.tickers.iter().for_each(TickerStore::lose);
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
            self.store.trades.iter().for_each(|trades| trades.fold(&self.batch, self.bars_ring.offset()));
            self.store.tickers.iter().for_each(|tickers| tickers.fold(&self.batch, now_ns()));
            self.count_lost();
        }
        let bytes = self.bars_ring.offset() - from;
        if bytes > 0 {
            // Relaxed: see `records_lost`.
            self.store.bytes.store(self.store.lock().bytes() as u64, Ordering::Relaxed);
        }
        bytes
    }

    fn count_lost(&mut self) {
        if let (Some(first), Some(last)) = (self.batch.entries.first(), self.batch.entries.last()) {
            // Relaxed: see `BarStore::records_lost`.
            self.store.records_lost.fetch_add(first.position.get() - self.next.get(), Ordering::Relaxed);
            self.next = last.position.next();
        }
    }

    /// Sleeps until the ring has records or the server stops.
    fn sleep(&self, is_stopping: impl Fn() -> bool) {
        self.store.sleep_flag.raise();
        if self.bars_ring.is_empty() && !is_stopping() {
            thread::park();
        }
        self.store.sleep_flag.lower();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Writer, ring};
    use tickcast_protocol::record::Trade;
    use tickcast_protocol::{RecordKind, Side};

    const SECOND_NS: u64 = 1_000_000_000;

    fn push(writer: &mut Writer, position: u64, at_s: u64) {
        let header = RecordHeader { ts_recv: at_s * SECOND_NS, ..RecordHeader::of_feed(RecordKind::Trade, 1, 0) };
        let mut record = Vec::new();
        Trade { px: 1, sz: 1, trade_id: 0, side: Side::Unknown }.encode(&header, &mut record);
        writer.push(position.into(), &record);
        writer.publish();
    }

    #[test]
    fn overwritten_records_are_counted_and_reported_as_a_hole() {
        let (mut writer, bars_ring) = ring(1024);
        let store = BarStore::new(Bars::new(1 << 20, 0), writer.gauge());
        let mut folding = Folding {
            store: &store,
            bars_ring,
            batch: Batch::default(),
            next: Position::ZERO,
            newest_ns: 0,
            has_lost: false,
        };
        push(&mut writer, 0, 10);
        assert!(folding.fold_all() > 0);
        (1..=100).for_each(|position| push(&mut writer, position, 10 + position));
        folding.fold_all();
        assert_eq!(store.records_lost(), 0, "the number follows from the next record");
        push(&mut writer, 101, 111);
        folding.fold_all();
        assert_eq!(store.records_lost(), 100);
        let found = store
            .try_find(1, &BarQuery { interval_s: 1, limit: 10, to_s: u32::MAX, session: None })
            .expect("the bars are not locked");
        assert_eq!(found.bars.iter().map(|bar| bar.time_s).collect::<Vec<_>>(), [10, 111]);
        assert_eq!(found.holes, [(10, 111)]);
        assert!(store.bytes() > 0);
    }

    #[test]
    fn sleeping_thread_is_woken_by_records_and_by_the_stop() {
        let (mut writer, bars_ring) = ring(1 << 16);
        let store = Arc::new(BarStore::new(Bars::new(1 << 20, 0), writer.gauge()));
        let lifecycle = Arc::new(Lifecycle::begin().0);
        let thread = spawn(store.clone(), bars_ring, lifecycle.clone(), vec![0]).expect("a thread");
        let began = std::time::Instant::now();
        for position in 0..3 {
            push(&mut writer, position, position);
            store.wake();
            let query = BarQuery { interval_s: 1, limit: 10, to_s: u32::MAX, session: None };
            let is_there = || store.try_find(1, &query).is_some_and(|found| found.bars.len() as u64 == position + 1);
            while !is_there() {
                assert!(began.elapsed() < Duration::from_secs(40), "it still sleeps although there is a record");
                thread::yield_now();
            }
        }
        lifecycle.enter(crate::lifecycle::Stage::Stopping);
        store.stop();
        thread.join().expect("it ends");
    }
}
