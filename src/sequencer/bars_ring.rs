//! The bars ring: trades and quotes of all instruments, for the thread that makes bars. As with the rings of the
//! shards, the sequencer does not wait for the reader.

use tickcast_protocol::Position;

use crate::ring;

/// Positions of this ring are its own: the number of records before each, so that a reader that was overrun knows how
/// many it lost.
pub(super) struct BarsRing {
    ring: ring::Writer,
    next: Position,
}

impl BarsRing {
    pub(super) fn new(ring: ring::Writer) -> Self {
        Self { ring, next: Position::ZERO }
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        self.ring.push(self.next, record);
        self.next = self.next.next();
    }

    pub(super) fn publish(&mut self) {
        self.ring.publish();
    }
}
