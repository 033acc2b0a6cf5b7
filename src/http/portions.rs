//! Long work on a shard's core in short portions, between which the fan-out runs.

use std::time::Duration;

use crate::clock::now_ns;

/// How long a portion of work may hold the core: a tick of the shard waits no longer.
const PORTION_NS: u64 = 100_000;
/// A pause between two portions. While a task of the executor is ready, the executor does not look for the events that
/// wake the shard, so a mere yield is not enough.
const PAUSE: Duration = Duration::from_micros(20);

/// Measures the present portion.
#[derive(Debug)]
pub(super) struct Portions {
    began_ns: u64,
}

impl Portions {
    pub(super) fn begin() -> Self {
        Self { began_ns: now_ns() }
    }

    /// Lets the shard run if the portion is over. Called between two pieces of work, each much shorter than a portion.
    pub(super) async fn pause_if_over(&mut self) {
        if now_ns().saturating_sub(self.began_ns) >= PORTION_NS {
            glommio::timer::sleep(PAUSE).await;
            self.began_ns = now_ns();
        }
    }
}
