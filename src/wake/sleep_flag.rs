//! The handshake between a thread that goes to sleep and the threads that may have work for it: a flag and two fences.
//!
//! The sleeper raises the flag, checks once more for work, then sleeps. A waker publishes the work, then checks the
//! flag. Both have a full fence between their write and their check, so at least one of them sees the other's write
//! (Dekker's algorithm): no wake-up is lost.
//!
//! What it does not do: sleep or wake; [`ShardWaker`](super::ShardWaker) does. It names its atomics by `crate::sync`
//! alone, so that `tests/loom/` checks this very source.
//!
//! Cost: a fence and a load for a waker while the other thread is awake.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether a thread sleeps, or is about to.
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
    /// For a thread that is awake.
    pub fn new() -> Self {
        Self { flag: AtomicBool::new(false) }
    }

    /// The thread is about to sleep. It has to check for work once more before it does.
    pub fn raise(&self) {
        // Relaxed: ordered by the SeqCst fence below, whose partner is the one in `claim`.
        self.flag.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake.
    pub fn lower(&self) {
        // Relaxed: a waker that sees the flag late wakes once too often, which costs a tick.
        self.flag.store(false, Ordering::Relaxed);
    }

    /// True if the thread sleeps and this caller has to wake it. To be called after the work is published.
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the SeqCst fence above, whose partner is the one in `raise`. Of several wakers, the swap
        // lets one return true.
        self.flag.load(Ordering::Relaxed) && self.flag.swap(false, Ordering::Relaxed)
    }
}
