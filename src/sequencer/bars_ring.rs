//! The ring of those who want trades and quotes alone, and of all instruments: bars. As with the cores' rings, nobody waits
//! for who reads it.

use crate::ring;

/// Counts what it has written.
pub(super) struct BarsRing {
    ring: ring::Writer,
    written: u64,
}

impl BarsRing {
    pub(super) fn new(ring: ring::Writer) -> Self {
        Self { ring, written: 0 }
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        self.ring.push(self.written, record);
        self.written += 1;
    }

    pub(super) fn publish(&mut self) {
        self.ring.publish();
    }
}
