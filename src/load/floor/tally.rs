//! What a floor did.

use serde::Serialize;

/// What a floor did; one line of JSON at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FloorTally {
    /// Messages sent, one a subscriber.
    pub sent: u64,
    /// Messages not sent, because a socket was full, a channel was lapped, or nobody was there.
    pub dropped: u64,
    /// Times that what had gathered was sent; 0 where each connection sweeps by itself.
    pub flushes: u64,
    /// Subscribers at the end.
    pub subscribers: u64,
}
