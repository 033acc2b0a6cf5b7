//! The store in which the HTTP servers find the newest trades. The thread that makes bars fills it from the bars ring.
//!
//! What always holds: what is found reaches up to the records that were in the ring when the query began. So trades that
//! a subscriber has been sent before its query are in the answer, unless newer ones have displaced them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use super::{FoundTrades, RecentTrades};
use crate::ring::{Batch, RingOffset};

const PANICKED: &str = "the thread that makes bars has panicked, which ends the process";

/// The newest trades, shared by the thread that fills it and the HTTP servers.
#[derive(Debug)]
pub struct TradeStore {
    locked: Mutex<Locked>,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Locked {
    trades: RecentTrades,
    /// Up to here the ring was read.
    read_to: RingOffset,
}

impl TradeStore {
    pub fn new(trades: RecentTrades) -> Self {
        Self { locked: Mutex::new(Locked { trades, read_to: RingOffset::START }), bytes: AtomicU64::new(0) }
    }

    /// The newest `limit` trades of an instrument. `None` if the ring is not read up to `from_bytes` yet, or if the store
    /// is locked at the moment: a shard must not wait for the thread that holds the lock, which may have lost its core.
    pub fn try_find(&self, instrument: u32, limit: usize, from_bytes: u64) -> Option<FoundTrades> {
        match self.locked.try_lock() {
            Ok(locked) if locked.read_to.get() < from_bytes => None,
            Ok(locked) => Some(locked.trades.find(instrument, limit)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("{PANICKED}"),
        }
    }

    /// Memory of the trades, in bytes.
    pub fn bytes(&self) -> u64 {
        // Relaxed: only the number is wanted; the same below.
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds the records of a batch, with which the ring is read up to `read_to`.
    pub fn fold(&self, batch: &Batch, read_to: RingOffset) {
        let mut locked = self.lock();
        for entry in &batch.entries {
            locked.trades.fold(batch.payload(entry));
        }
        locked.trades.share();
        locked.read_to = read_to;
        self.bytes.store(locked.trades.bytes() as u64, Ordering::Relaxed);
    }

    /// Notes that records between the last batch and `read_to` were lost.
    pub fn lose(&self, read_to: RingOffset) {
        let mut locked = self.lock();
        locked.trades.lose();
        locked.read_to = read_to;
    }

    /// The trades, for the thread of the archive: the one that makes bars waits meanwhile.
    pub(crate) fn for_archive<T>(&self, used: impl FnOnce(&mut RecentTrades) -> T) -> T {
        let mut locked = self.lock();
        let result = used(&mut locked.trades);
        self.bytes.store(locked.trades.bytes() as u64, Ordering::Relaxed);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().expect(PANICKED)
    }
}
