//! Bugs that are planted on purpose: the checks have to find each of them within a few seeds.

use std::collections::VecDeque;
use std::ops::Range;

use tickcast::ring::{self, Batch, Reader, Writer};

/// A bug that occurs once in a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A send is reported as taken, and nothing arrives.
    LostSend,
    /// A send arrives twice.
    DoubledSend,
    /// The last byte of a send does not arrive.
    TornSend,
    /// A byte of a record arrives changed.
    ChangedByte,
    /// A cut send is reported as cut one byte further on.
    MiscountedSend,
    /// Room in a socket is never reported.
    LostRoom,
    /// The packet behind the rest of a cut send does not arrive: an offset into what was sent that is off by one packet.
    SkippedAtRejoin,
    /// It arrives twice.
    RepeatedAtRejoin,
    /// A full socket takes everything from now on, as if it were kept elsewhere.
    GrowingRest,
    /// Input of a client is never reported.
    LostInput,
    /// A record is missing in one shard's ring.
    LostRecord,
    /// Two records of one shard's ring are swapped.
    SwappedRecords,
    /// One shard's ring is late for a second: its values are stale.
    LateRecords,
}

impl PlantedBug {
    pub const ALL: [Self; 13] = [
        Self::LostSend,
        Self::DoubledSend,
        Self::TornSend,
        Self::ChangedByte,
        Self::MiscountedSend,
        Self::LostRoom,
        Self::SkippedAtRejoin,
        Self::RepeatedAtRejoin,
        Self::GrowingRest,
        Self::LostInput,
        Self::LostRecord,
        Self::SwappedRecords,
        Self::LateRecords,
    ];

    /// True for bugs between the sequencer and a shard.
    pub fn is_of_ring(self) -> bool {
        matches!(self, Self::LostRecord | Self::SwappedRecords | Self::LateRecords)
    }

    /// True for bugs that concern clients that are behind.
    pub fn is_of_slow_clients(self) -> bool {
        matches!(self, Self::SkippedAtRejoin | Self::RepeatedAtRejoin | Self::GrowingRest | Self::LateRecords)
    }
}

/// Lets a planted bug occur once, after so many occasions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trigger {
    bug: Option<PlantedBug>,
    left: u32,
    has_fired: bool,
}

impl Trigger {
    pub fn new(bug: Option<PlantedBug>, left: u32) -> Self {
        Self { bug, left, has_fired: false }
    }

    /// True at the one occasion at which this bug occurs.
    pub fn fires(&mut self, bug: PlantedBug) -> bool {
        if self.has_fired || self.bug != Some(bug) {
            return false;
        }
        self.has_fired = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.has_fired
    }

    /// Delivers what a socket took; `second` is where the first whole frame behind a rest is in it.
    pub fn deliver(&mut self, socket: &mut VecDeque<u8>, taken: &[u8], second: Option<Range<usize>>) {
        /// A frame, a packet and a record have headers of 66 bytes together: such a send has records.
        const WITH_RECORDS: usize = 100;
        if let Some(Range { start, end }) = second.filter(|second| second.len() >= WITH_RECORDS) {
            let jump = match () {
                () if self.fires(PlantedBug::SkippedAtRejoin) => Some((start, end)),
                () if self.fires(PlantedBug::RepeatedAtRejoin) => Some((end, start)),
                () => None,
            };
            if let Some((until, from)) = jump {
                socket.extend(&taken[..until]);
                return socket.extend(&taken[from..]);
            }
        }
        if taken.len() < WITH_RECORDS {
            return socket.extend(taken);
        }
        if self.fires(PlantedBug::LostSend) {
            return;
        }
        if self.fires(PlantedBug::TornSend) {
            return socket.extend(&taken[..taken.len() - 1]);
        }
        socket.extend(taken);
        if self.fires(PlantedBug::DoubledSend) {
            socket.extend(taken);
        }
        if self.fires(PlantedBug::ChangedByte) {
            *socket.back_mut().expect("bytes were just added") ^= 1;
        }
    }

    /// True if a cut send is to be reported wrongly.
    pub fn miscounts(&mut self, taken: usize, asked: usize) -> bool {
        taken > 0 && taken + 1 < asked && self.fires(PlantedBug::MiscountedSend)
    }
}

/// Copies from the sequencer's ring to a shard's, for bugs of the ring.
pub struct Relay {
    from: Reader,
    to: Writer,
    trigger: Trigger,
    batch: Batch,
    /// Number of the step in which it is late; 0 if it is not.
    late: u32,
}

impl Relay {
    /// A relay to a new ring of `ring_bytes`, whose reader is returned.
    pub fn new(from: Reader, trigger: Trigger, ring_bytes: usize) -> (Self, Reader) {
        let (to, reader) = ring::ring(ring_bytes);
        (Self { from, to, trigger, batch: Batch::default(), late: 0 }, reader)
    }

    pub fn pump(&mut self) {
        /// Twice in a step, of some milliseconds.
        const LATE: u32 = 300;
        if self.late > 0 || self.trigger.fires(PlantedBug::LateRecords) {
            self.late = (self.late + 1) % LATE;
            return;
        }
        self.batch.clear();
        self.from.read(usize::MAX / 2, &mut self.batch).expect("it is pumped after every step, and its ring is large");
        let mut entries: VecDeque<_> = self.batch.entries.iter().copied().collect();
        while let Some(entry) = entries.pop_front() {
            if self.trigger.fires(PlantedBug::LostRecord) {
                continue;
            }
            if let Some(next) = entries.front().copied()
                && self.trigger.fires(PlantedBug::SwappedRecords)
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
