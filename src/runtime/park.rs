//! How a shard sleeps, and is woken: a flag and an eventfd.
//!
//! The shard raises the flag, then looks once more for work, then sleeps. Who has work for it publishes the work, then
//! looks at the flag. Both have a full fence between their write and their look, so at least one of them sees the other
//! (Dekker): no wake-up is lost, and a shard that is awake costs its wakers one load.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Shared by one shard and all who may wake it.
#[derive(Debug)]
pub struct Parking {
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Parking {
    /// Around the eventfd that the shard sleeps on.
    pub fn new(event: OwnedFd) -> Self {
        Self { asleep: AtomicBool::new(false), event }
    }

    /// The shard is about to sleep. It has to look for work once more before it does.
    pub fn prepare(&self) {
        // Relaxed: ordered by the fence below, whose partner is the one in `wake`.
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub fn awake(&self) {
        // Relaxed: a waker that sees the flag late writes to the eventfd once too often, which costs a turn.
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Wakes the shard if it sleeps. To be called after the work was published.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence above, whose partner is the one in `prepare`; the swap makes one waker write.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // The counter of an eventfd does not overflow by ones, so the write neither fails nor blocks.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}
