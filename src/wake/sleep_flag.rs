//! The handshake between a shard that goes to sleep and those who may have work for it: a flag, and two fences.
//!
//! The shard raises the flag, then looks once more for work, then sleeps. Who has work for it publishes the work, then
//! looks at the flag. Both have a full fence between their write and their look, so at least one of them sees the other
//! (Dekker): no wake-up is lost, and a shard that is awake costs its wakers one load.
//!
//! What it does not do: sleep, or wake; that is [`ShardWaker`](super::ShardWaker)'s. It names its atomics by `crate::sync`
//! only, so that `tests/loom/sleep_model.rs` checks this very source.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether a shard sleeps, or is about to.
#[derive(Debug)]
pub struct SleepFlag {
    flag: AtomicBool,
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}

impl SleepFlag {
    /// Of a shard that is awake.
    pub fn new() -> Self {
        Self { flag: AtomicBool::new(false) }
    }

    /// The shard is about to sleep. It has to look for work once more before it does.
    pub fn raise(&self) {
        // Relaxed: ordered by the fence below, whose partner is the one in `claim`.
        self.flag.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub fn lower(&self) {
        // Relaxed: a waker that sees the flag late wakes once too often, which costs a turn.
        self.flag.store(false, Ordering::Relaxed);
    }

    /// True if the shard sleeps and it is the caller who has to wake it. To be asked after the work was published.
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence above, whose partner is the one in `raise`; the swap makes one waker wake.
        self.flag.load(Ordering::Relaxed) && self.flag.swap(false, Ordering::Relaxed)
    }
}
