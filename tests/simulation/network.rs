//! How fast clients read: at once, at a rate of their own, or at the rate of a link that all clients of a shard share.

use crate::world::MS;

/// A token bucket of bytes. It saves hardly anything, so that its rate holds at any time.
#[derive(Clone, Copy, Debug)]
pub struct ByteRate {
    bytes_per_ms: u32,
    /// Millionths of a byte.
    credit: u64,
    earned_ns: u64,
}

impl ByteRate {
    /// Bytes that may be saved while there is nothing to read.
    const SAVED_MAX: u64 = 64;

    pub fn new(bytes_per_ms: u32, now_ns: u64) -> Self {
        Self { bytes_per_ms, credit: 0, earned_ns: now_ns }
    }

    /// Bytes that may be read now.
    pub fn allowed(&mut self, now_ns: u64) -> usize {
        self.credit += u64::from(self.bytes_per_ms) * (now_ns - self.earned_ns);
        self.earned_ns = now_ns;
        (self.credit / MS) as usize
    }

    /// Bytes have been read; what is left beyond a little is lost.
    pub fn spend(&mut self, bytes: usize) {
        self.credit = (self.credit - bytes as u64 * MS).min(Self::SAVED_MAX * MS);
    }
}

/// One step's share of a link: equal parts for the clients that have something to read; what one does not take goes to
/// the others.
#[derive(Debug, Default)]
pub struct LinkShare {
    /// Bytes that are left; `None` without a limit.
    left: Option<usize>,
    /// Clients that have not read yet.
    readers: usize,
    pub used: usize,
}

impl LinkShare {
    pub fn new(allowed: Option<usize>, readers: usize) -> Self {
        Self { left: allowed, readers, used: 0 }
    }

    /// What the next client may read of these bytes.
    pub fn cap(&mut self, bytes: usize) -> usize {
        let Some(left) = &mut self.left else { return bytes };
        let taken = bytes.min(left.div_ceil(self.readers.max(1)));
        self.readers = self.readers.saturating_sub(1);
        *left -= taken;
        self.used += taken;
        taken
    }
}
