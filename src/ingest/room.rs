//! Room in the rings: how long a publisher waits for shards that are behind.
//!
//! What always holds:
//! * A publisher waits while a ring is more than a quarter full, but at most [`WAITS_MAX`] times for a batch. A ring that
//!   has no room then is left behind: no publisher waits for it any more, and its shard is overrun if it stays behind. It
//!   gets the state of all instruments afterwards, see `sequencer_handle.rs`.
//! * A ring that has room again is waited for again.
//! * Of one publisher, about twice [`UNREAD_BYTES_MAX`] are in a ring that its shard has not read, see [`Unread`]. So the
//!   records of one publisher wait behind little of what another one floods the ring with.
//!
//! So a shard that stands still delays each publisher once, and the other shards not at all from then on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::ring::Gauge;

/// Waits for one batch at the most. A wait is half a millisecond, so this is 20 ms.
pub const WAITS_MAX: u32 = 40;

/// Bytes that a publisher sends between two waits for the shards to have read what it sent before.
pub const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// What a publisher has sent and a shard may not have read.
#[derive(Debug, Default)]
pub struct Unread {
    /// Bytes of this publisher since the mark.
    since: usize,
    /// Bytes that each ring had been given by all at that time.
    mark: Vec<u64>,
}

/// The rings of the shards, as publishers see them.
pub(super) struct Room {
    rings: Vec<RingRoom>,
    left_behind: AtomicU64,
}

struct RingRoom {
    gauge: Gauge,
    is_left_behind: AtomicBool,
}

impl RingRoom {
    /// At least three quarters are empty.
    fn has_room(&self) -> bool {
        self.gauge.backlog_bytes() < self.gauge.capacity_bytes() / 4
    }
}

impl Room {
    pub(super) fn new(gauges: Vec<Gauge>) -> Self {
        let ring = |gauge| RingRoom { gauge, is_left_behind: AtomicBool::new(false) };
        Self { rings: gauges.into_iter().map(ring).collect(), left_behind: AtomicU64::new(0) }
    }

    /// True while every ring has room.
    pub(super) fn has_room(&self) -> bool {
        self.rings.iter().all(RingRoom::has_room)
    }

    /// Calls `wait` until the rings that are not left behind have room, or it returns false, or it was called
    /// [`WAITS_MAX`] times; then those without room are left behind.
    pub(super) fn wait_for_room(&self, mut wait: impl FnMut() -> bool) {
        let mut waits = 0;
        while !self.is_room_awaited() {
            if waits == WAITS_MAX {
                return self.leave_behind();
            }
            if !wait() {
                return;
            }
            waits += 1;
        }
    }

    /// Counts a batch of a publisher. If it has sent much since it last waited here, calls `wait` until the rings that
    /// are not left behind have been read up to there, or it returns false, or it was called [`WAITS_MAX`] times.
    pub(super) fn wait_until_read(&self, unread: &mut Unread, batch_bytes: usize, mut wait: impl FnMut() -> bool) {
        unread.since += batch_bytes;
        if unread.since < UNREAD_BYTES_MAX {
            return;
        }
        let is_read = |(ring, mark): (&RingRoom, &u64)| {
            ring.is_left_behind.load(Ordering::Relaxed) || ring.gauge.read_bytes() >= *mark
        };
        let mut waits = 0;
        while !self.rings.iter().zip(&unread.mark).all(is_read) && waits < WAITS_MAX && wait() {
            waits += 1;
        }
        unread.since = batch_bytes;
        unread.mark = self.rings.iter().map(|ring| ring.gauge.published_bytes()).collect();
    }

    /// How often a ring was left behind.
    pub(super) fn left_behind(&self) -> u64 {
        self.left_behind.load(Ordering::Relaxed)
    }

    pub(super) fn gauges(&self) -> impl Iterator<Item = &Gauge> {
        self.rings.iter().map(|ring| &ring.gauge)
    }

    /// True if each ring has room or is left behind.
    fn is_room_awaited(&self) -> bool {
        let mut all = true;
        for ring in &self.rings {
            // Relaxed, here and below: the flag is a hint that orders nothing.
            if ring.has_room() {
                ring.is_left_behind.store(false, Ordering::Relaxed);
            } else {
                all &= ring.is_left_behind.load(Ordering::Relaxed);
            }
        }
        all
    }

    fn leave_behind(&self) {
        for ring in self.rings.iter().filter(|ring| !ring.has_room()) {
            if !ring.is_left_behind.swap(true, Ordering::Relaxed) {
                self.left_behind.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
