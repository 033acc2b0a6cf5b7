//! How a shard sleeps, and is woken: a flag and an eventfd. That no wake-up is lost is the flag's part, see [`Asleep`].

use std::os::fd::OwnedFd;

use super::asleep::Asleep;

/// Shared by one shard and all who may wake it.
#[derive(Debug)]
pub struct Parking {
    asleep: Asleep,
    event: OwnedFd,
}

impl Parking {
    /// Around the eventfd that the shard sleeps on.
    pub fn new(event: OwnedFd) -> Self {
        Self { asleep: Asleep::new(), event }
    }

    /// The shard is about to sleep. It has to look for work once more before it does.
    pub fn prepare(&self) {
        self.asleep.raise();
    }

    /// The shard is awake.
    pub fn awake(&self) {
        self.asleep.lower();
    }

    /// Wakes the shard if it sleeps. To be called after the work was published.
    pub fn wake(&self) {
        if self.asleep.claim() {
            // The counter of an eventfd does not overflow by ones, so the write neither fails nor blocks.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}
