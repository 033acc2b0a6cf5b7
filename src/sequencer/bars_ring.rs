//! The bars ring: trades and quotes of all instruments, for the thread that makes bars. As with the rings of the shards,
//! the sequencer does not wait for the reader.

use crate::ring;

/// Tags each record with the number of records before it, so that a reader that was overrun knows how many it lost.
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
