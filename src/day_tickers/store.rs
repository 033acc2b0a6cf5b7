//! The store between the thread that makes bars, which adds trades, and the resync thread, which has tickers numbered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{ComputedTicker, DayTickers, PastMinute, TickerOutcome};
use crate::ring::Batch;

/// The tickers, shared by these threads and that of the archive. None has another lock while it has this one.
#[derive(Debug)]
pub struct TickerStore {
    tickers: Mutex<DayTickers>,
    bytes: AtomicU64,
    sequenced: AtomicU64,
}

impl TickerStore {
    pub fn new(tickers: DayTickers) -> Self {
        Self { tickers: Mutex::new(tickers), bytes: AtomicU64::new(0), sequenced: AtomicU64::new(0) }
    }

    /// Adds the records of a batch, which came about now.
    pub fn fold(&self, batch: &Batch, now_ns: u64) {
        let mut tickers = self.lock();
        batch.entries.iter().for_each(|entry| tickers.fold(batch.payload(entry), now_ns));
        tickers.share();
    }

    /// Notes that records were lost.
    pub fn lose(&self) {
        self.lock().lose();
    }

    /// Puts trades of before the start in front, see [`DayTickers::seed`].
    pub fn seed(&self, instrument: u32, exponents: (i8, i8), past: &[PastMinute], now_ns: u64) {
        let mut tickers = self.lock();
        tickers.seed(instrument, exponents, past, now_ns);
        tickers.share();
    }

    /// Takes the tickers that are due, see [`DayTickers::take`].
    pub fn take(&self, now_ns: u64) -> Vec<ComputedTicker> {
        let mut tickers = self.lock();
        let due = tickers.take(now_ns);
        // Relaxed, here and below: only the number is wanted.
        self.bytes.store(tickers.bytes() as u64, Ordering::Relaxed);
        due
    }

    /// Notes what became of tickers that were taken, in their order.
    pub fn settle(&self, taken: &[ComputedTicker], outcomes: &[TickerOutcome]) {
        let mut tickers = self.lock();
        let settled = taken.iter().zip(outcomes);
        settled.for_each(|(computed, outcome)| tickers.settle(computed.instrument, *outcome));
        let sequenced = outcomes.iter().filter(|outcome| **outcome == TickerOutcome::Sequenced).count();
        self.sequenced.fetch_add(sequenced as u64, Ordering::Relaxed);
    }

    /// Memory of the windows, in bytes, as of the last second.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Tickers that were numbered.
    pub fn sequenced(&self) -> u64 {
        self.sequenced.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, DayTickers> {
        self.tickers.lock().expect("a panic of either thread ends the process")
    }
}
