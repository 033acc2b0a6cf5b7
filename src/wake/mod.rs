//! How other threads wake a sleeping shard: flags ([`SleepFlag`], by which no wake-up is lost) and eventfds, one of each
//! for each place where it sleeps.

mod sleep_flag;

use std::os::fd::OwnedFd;

pub use self::sleep_flag::SleepFlag;

/// Where a shard sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepPlace {
    /// In the wait for its own ring, which polls the eventfd.
    Ring,
    /// In its executor, which reads the eventfd. A completion of the ring by a write to its eventfd would reach the
    /// executor late: the kernel does not signal an eventfd from within the write to another one, but milliseconds
    /// later.
    Executor,
}

/// Wakes one shard. Shared by the shard and the threads that may have work for it.
#[derive(Debug)]
pub struct ShardWaker {
    in_ring: Sleeper,
    in_executor: Sleeper,
}

/// The flag and the eventfd of one place. The shard sleeps at one of them at a time.
#[derive(Debug)]
struct Sleeper {
    flag: SleepFlag,
    event: OwnedFd,
}

impl Sleeper {
    fn new(event: OwnedFd) -> Self {
        Self { flag: SleepFlag::new(), event }
    }

    /// True if the shard slept here.
    fn wake(&self) -> bool {
        let sleeps = self.flag.claim();
        if sleeps {
            // The counter of an eventfd does not overflow by ones, so the write neither fails nor blocks.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        sleeps
    }
}

impl ShardWaker {
    /// The eventfds that end a sleep in the ring and in the executor.
    pub fn new(ring: OwnedFd, executor: OwnedFd) -> Self {
        Self { in_ring: Sleeper::new(ring), in_executor: Sleeper::new(executor) }
    }

    /// Announces that the shard is about to sleep there. The shard has to check for work once more before it does.
    pub fn prepare_sleep(&self, place: SleepPlace) {
        self.sleeper(place).flag.raise();
    }

    /// Announces that the shard is awake.
    pub fn end_sleep(&self, place: SleepPlace) {
        self.sleeper(place).flag.lower();
    }

    /// Wakes the shard if it sleeps. To be called after the work is published.
    pub fn wake(&self) {
        let _ = self.in_ring.wake() || self.in_executor.wake();
    }

    fn sleeper(&self, place: SleepPlace) -> &Sleeper {
        match place {
            SleepPlace::Ring => &self.in_ring,
            SleepPlace::Executor => &self.in_executor,
        }
    }
}
