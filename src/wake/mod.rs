//! How a shard sleeps, and is woken: a flag and an eventfd. That no wake-up is lost is the flag's part, see [`SleepFlag`].

mod sleep_flag;

use std::os::fd::OwnedFd;

pub use self::sleep_flag::SleepFlag;

/// Shared by one shard and all who may wake it.
#[derive(Debug)]
pub struct ShardWaker {
    sleep_flag: SleepFlag,
    event: OwnedFd,
}

impl ShardWaker {
    /// Around the eventfd that the shard sleeps on.
    pub fn new(event: OwnedFd) -> Self {
        Self { sleep_flag: SleepFlag::new(), event }
    }

    /// The shard is about to sleep. It has to look for work once more before it does.
    pub fn prepare(&self) {
        self.sleep_flag.raise();
    }

    /// The shard is awake.
    pub fn awake(&self) {
        self.sleep_flag.lower();
    }

    /// Wakes the shard if it sleeps. To be called after the work was published.
    pub fn wake(&self) {
        if self.sleep_flag.claim() {
            // The counter of an eventfd does not overflow by ones, so the write neither fails nor blocks.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}
