//! How other threads wake a sleeping shard: a flag ([`SleepFlag`], by which no wake-up is lost) and an eventfd.

mod sleep_flag;

use std::os::fd::OwnedFd;

pub use self::sleep_flag::SleepFlag;

/// Wakes one shard. Shared by the shard and the threads that may have work for it.
#[derive(Debug)]
pub struct ShardWaker {
    sleep_flag: SleepFlag,
    event: OwnedFd,
}

impl ShardWaker {
    /// `event` is the eventfd that the shard sleeps on.
    pub fn new(event: OwnedFd) -> Self {
        Self { sleep_flag: SleepFlag::new(), event }
    }

    /// Announces that the shard is about to sleep. The shard has to check for work once more before it does.
    pub fn prepare_sleep(&self) {
        self.sleep_flag.raise();
    }

    /// Announces that the shard is awake.
    pub fn end_sleep(&self) {
        self.sleep_flag.lower();
    }

    /// Wakes the shard if it sleeps. To be called after the work is published.
    pub fn wake(&self) {
        if self.sleep_flag.claim() {
            // The counter of an eventfd does not overflow by ones, so the write neither fails nor blocks.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}
