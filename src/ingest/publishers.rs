//! The registry of connected publishers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sequencer::SourceId;

/// Who publishes: counts them, and gives each a source id of its own.
#[derive(Debug)]
pub struct Publishers {
    next: AtomicU32,
    connected: AtomicU32,
    /// From where, as far as that is known.
    addresses: Mutex<BTreeMap<SourceId, Option<SocketAddr>>>,
    refused: AtomicU32,
    handed_in: AtomicU32,
    crowded: AtomicU32,
    slowed_us: AtomicU64,
}

impl Publishers {
    /// With ids from `first` on; those below are the feeds'.
    pub fn after(first: SourceId) -> Self {
        Self {
            next: AtomicU32::new(first),
            connected: AtomicU32::new(0),
            addresses: Mutex::default(),
            refused: AtomicU32::new(0),
            handed_in: AtomicU32::new(0),
            crowded: AtomicU32::new(0),
            slowed_us: AtomicU64::new(0),
        }
    }

    /// How many are connected.
    pub fn connected(&self) -> u32 {
        // Relaxed, here and below: the numbers stand for themselves.
        self.connected.load(Ordering::Relaxed)
    }

    /// Who is connected, and from where.
    pub fn addresses(&self) -> BTreeMap<SourceId, Option<SocketAddr>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, Option<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were turned away since the start because too many were connected.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many requests to define were refused since the start as the connection would have had too many instruments.
    pub fn crowded(&self) -> u32 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// For how long publishers had to wait since the start, as they were faster than they may be.
    pub fn slowed(&self) -> Duration {
        Duration::from_micros(self.slowed_us.load(Ordering::Relaxed))
    }

    pub(super) fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_slowed(&self, wait: Duration) {
        self.slowed_us.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn enter(&self, max: u32, from: Option<SocketAddr>) -> Option<SourceId> {
        let more = |connected: u32| (connected < max).then_some(connected + 1);
        if self.connected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let source = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(source, from);
        Some(source)
    }

    /// True once all that publishers had handed in when the server began to stop is sequenced.
    pub fn have_handed_in(&self) -> bool {
        self.handed_in.load(Ordering::Relaxed) >= self.connected()
    }

    pub(super) fn count_handed_in(&self) {
        self.handed_in.fetch_add(1, Ordering::Relaxed);
    }

    pub fn leave(&self, source: SourceId, handed_in: bool) {
        self.lock().remove(&source);
        self.handed_in.fetch_sub(handed_in.into(), Ordering::Relaxed);
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
