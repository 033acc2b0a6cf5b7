//! The connected publishers: their number, source ids and addresses, and counters of all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sequencer::SourceId;

/// The connected publishers.
#[derive(Debug)]
pub struct Publishers {
    next_id: AtomicU32,
    connected: AtomicU32,
    /// `None` for an address that could not be read.
    addresses: Mutex<BTreeMap<SourceId, Option<SocketAddr>>>,
    /// Of the connected ones: those whose data of before the drain is sequenced.
    handed_in: AtomicU32,
    refused: AtomicU32,
    definitions_refused: AtomicU32,
    slowed_us: AtomicU64,
}

impl Publishers {
    /// Source ids start at `first_id`; lower ones belong to feeds.
    pub fn new(first_id: SourceId) -> Self {
        Self {
            next_id: AtomicU32::new(first_id),
            connected: AtomicU32::new(0),
            addresses: Mutex::default(),
            handed_in: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            definitions_refused: AtomicU32::new(0),
            slowed_us: AtomicU64::new(0),
        }
    }

    /// Adds a publisher, unless `max` are connected; returns its source id.
    pub fn enter(&self, max: u32, address: Option<SocketAddr>) -> Option<SourceId> {
        let more = |connected: u32| (connected < max).then_some(connected + 1);
        // Relaxed, here and below: the numbers order nothing.
        if self.connected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let source = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(source, address);
        Some(source)
    }

    /// Removes a publisher. `handed_in`: it had called [`Self::count_handed_in`].
    pub fn leave(&self, source: SourceId, handed_in: bool) {
        self.lock().remove(&source);
        self.handed_in.fetch_sub(handed_in.into(), Ordering::Relaxed);
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Number of connected publishers.
    pub fn connected(&self) -> u32 {
        self.connected.load(Ordering::Relaxed)
    }

    /// The connected publishers and their addresses.
    pub fn addresses(&self) -> BTreeMap<SourceId, Option<SocketAddr>> {
        self.lock().clone()
    }

    /// True once everything that publishers had sent when the drain began is sequenced.
    pub fn all_handed_in(&self) -> bool {
        self.handed_in.load(Ordering::Relaxed) >= self.connected()
    }

    pub(super) fn count_handed_in(&self) {
        self.handed_in.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishers refused because `publishers_max` were connected.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Requests refused because the connection would have had more than `publisher_instruments_max`.
    pub fn definitions_refused(&self) -> u32 {
        self.definitions_refused.load(Ordering::Relaxed)
    }

    pub(super) fn count_definitions_refused(&self) {
        self.definitions_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Time that publishers were delayed by their rate limit.
    pub fn slowed(&self) -> Duration {
        Duration::from_micros(self.slowed_us.load(Ordering::Relaxed))
    }

    pub(super) fn count_slowed(&self, wait: Duration) {
        self.slowed_us.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, Option<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
