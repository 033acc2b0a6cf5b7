//! The records of one tick and the bytes that they are in: records read from the ring, and records that the shard makes
//! from its state (conflated values, gaps).
//!
//! Audiences refer to a record by its index, so a record exists once, however many audiences want it.

use tickcast_protocol::Position;

use crate::ring::{self, RingOffset};

/// Number and time of a tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// Counts ticks from 1.
    pub(super) tick: u64,
    /// For deadlines.
    pub(super) ns: u64,
    /// The time for stamps minus `ns`.
    pub(super) wall_offset_ns: i64,
}

impl Now {
    /// For stamps.
    pub(super) fn wall_ns(self) -> u64 {
        self.ns.saturating_add_signed(self.wall_offset_ns)
    }
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Position in the node's order, for the header of the packet that carries the record.
    pub(super) position: Position,
    /// End of the record in the ring; for a conflated value, of the newest record that it stands for. Ring offsets are
    /// unique, positions are not: all records of a resynchronisation have the position at which it was sent.
    pub(super) ring_end: RingOffset,
}

/// Where the bytes of a record are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) len: usize,
}

#[derive(Clone, Copy, Debug)]
struct TickRecord {
    start: u32,
    len: u32,
    origin: Origin,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TickRecords {
    /// Filled by the ring's reader. Records made by the shard are appended to its bytes.
    pub(super) batch: ring::Batch,
    records: Vec<TickRecord>,
}

impl TickRecords {
    /// Removes all records, keeping the memory.
    pub(super) fn clear(&mut self) {
        self.batch.clear();
        self.records.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Position and bytes of a record.
    pub(super) fn get(&self, index: u32) -> (Position, &[u8]) {
        let TickRecord { start, len, origin } = self.records[index as usize];
        (origin.position, &self.batch.bytes[start as usize..][..len as usize])
    }

    /// See [`Origin::ring_end`].
    pub(super) fn ring_end(&self, index: u32) -> RingOffset {
        self.records[index as usize].origin.ring_end
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.batch.bytes[span.start..][..span.len]
    }

    pub(super) fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.batch.bytes[span.start..][..span.len]
    }

    /// Adds a record that was read from the ring; returns its index.
    pub(super) fn add(&mut self, span: Span, origin: Origin) -> u32 {
        self.records.push(TickRecord { start: span.start as u32, len: span.len as u32, origin });
        self.records.len() as u32 - 1
    }

    /// Adds a record that `encode` appends, if it returns true.
    pub(super) fn make_if(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<u32> {
        let start = self.batch.bytes.len();
        let is_made = encode(&mut self.batch.bytes);
        is_made.then(|| self.add(Span { start, len: self.batch.bytes.len() - start }, origin))
    }

    /// Adds a record that `encode` appends; returns its index.
    pub(super) fn make(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let start = self.batch.bytes.len();
        encode(&mut self.batch.bytes);
        self.add(Span { start, len: self.batch.bytes.len() - start }, origin)
    }
}
