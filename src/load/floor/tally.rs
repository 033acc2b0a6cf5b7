//! What a floor did.

use serde::Serialize;

/// The counts of a floor, which it prints as one line of JSON at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FloorTally {
    /// Messages sent, counted for each subscriber.
    pub sent: u64,
    /// Messages not sent because the backlog was full, a channel was lapped, or the subscriber did not exist.
    pub dropped: u64,
    /// How often gathered messages were sent; 0 where each connection flushes by itself.
    pub flushes: u64,
    /// Subscribers at the end.
    pub subscribers: u64,
}
