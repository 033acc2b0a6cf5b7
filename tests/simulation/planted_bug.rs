//! Bugs that are planted on purpose: the checks have to find each of them within a few seeds, or they are worth nothing.

use std::collections::VecDeque;

use tickcast::ring::{self, Batch, Reader, Writer};

/// What goes wrong, once in a seed, where nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A send is told as taken, and nothing arrives.
    LostSend,
    /// A send arrives twice.
    DoubledSend,
    /// The last byte of a send does not arrive.
    TornSend,
    /// A byte of a record arrives as another.
    ChangedByte,
    /// A cut send is told as cut one byte further.
    MiscountedSend,
    /// That a socket has room again is never told.
    LostRoom,
    /// What a client says is never told.
    LostInput,
    /// A record is missing in one shard's ring.
    LostRecord,
    /// Two records of one shard's ring have changed places.
    SwappedRecords,
}

impl Canary {
    pub const ALL: [Self; 9] = [
        Self::LostSend,
        Self::DoubledSend,
        Self::TornSend,
        Self::ChangedByte,
        Self::MiscountedSend,
        Self::LostRoom,
        Self::LostInput,
        Self::LostRecord,
        Self::SwappedRecords,
    ];

    /// True for what happens between the sequencer and a shard.
    pub fn is_of_ring(self) -> bool {
        matches!(self, Self::LostRecord | Self::SwappedRecords)
    }
}

/// Lets a canary sing once, after so many occasions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fuse {
    canary: Option<Canary>,
    left: u32,
    blown: bool,
}

impl Fuse {
    pub fn new(canary: Option<Canary>, left: u32) -> Self {
        Self { canary, left, blown: false }
    }

    /// True at the one occasion at which this canary sings.
    pub fn blows(&mut self, canary: Canary) -> bool {
        if self.blown || self.canary != Some(canary) {
            return false;
        }
        self.blown = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.blown
    }

    /// Delivers what a socket took.
    pub fn deliver(&mut self, socket: &mut VecDeque<u8>, taken: &[u8]) {
        /// A frame, a packet and a record have headers of 66 bytes together: such a send has records.
        const WITH_RECORDS: usize = 100;
        if taken.len() < WITH_RECORDS {
            return socket.extend(taken);
        }
        if self.blows(Canary::LostSend) {
            return;
        }
        if self.blows(Canary::TornSend) {
            return socket.extend(&taken[..taken.len() - 1]);
        }
        socket.extend(taken);
        if self.blows(Canary::DoubledSend) {
            socket.extend(taken);
        }
        if self.blows(Canary::ChangedByte) {
            *socket.back_mut().expect("bytes were just put in") ^= 1;
        }
    }

    /// What is told of a cut send.
    pub fn miscounts(&mut self, taken: usize, asked: usize) -> bool {
        taken > 0 && taken + 1 < asked && self.blows(Canary::MiscountedSend)
    }
}

/// Stands between the sequencer's ring and a shard's where the canary sings in a ring.
pub struct Relay {
    from: Reader,
    to: Writer,
    fuse: Fuse,
    batch: Batch,
}

impl Relay {
    /// A relay from a ring to one of these bytes, whose reader is returned.
    pub fn new(from: Reader, fuse: Fuse, ring_bytes: usize) -> (Self, Reader) {
        let (to, reader) = ring::ring(ring_bytes);
        (Self { from, to, fuse, batch: Batch::default() }, reader)
    }

    pub fn pump(&mut self) {
        self.batch.clear();
        self.from.read(usize::MAX / 2, &mut self.batch).expect("it is pumped after every step, and its ring is large");
        let mut entries: VecDeque<_> = self.batch.entries.iter().copied().collect();
        while let Some(entry) = entries.pop_front() {
            if self.fuse.blows(Canary::LostRecord) {
                continue;
            }
            if let Some(next) = entries.front().copied()
                && self.fuse.blows(Canary::SwappedRecords)
            {
                self.to.push(entry.position, self.batch.payload(&next));
                self.to.push(next.position, self.batch.payload(&entry));
                entries.pop_front();
                continue;
            }
            self.to.push(entry.position, self.batch.payload(&entry));
        }
        self.to.publish();
    }
}
