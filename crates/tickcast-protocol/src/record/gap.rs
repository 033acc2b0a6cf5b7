//! Gap: announces missing records of a log channel.

use super::bytes::{put, u64_at};
use super::header::{HEADER_BYTES, RecordHeader};
use super::kind::{Channel, RecordKind};
use super::letters::GapReason;
use crate::numbering::Sequence;

/// Where the kind of the channel's records begins.
pub(super) const CHANNEL_AT: usize = 48;
/// Where the reason begins.
const REASON_AT: usize = 49;

/// A sequence gap of a log channel, 56 bytes.
///
/// ```text
/// 32 u64 from_sequence   40 u64 to_sequence   48 u8 kind of the channel's records   49 u8 reason   50 u8[6] 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Instrument id of the epoch, from the header.
    pub instrument: u32,
    /// The channel whose records are missing.
    pub channel: Channel,
    /// First sequence that is missing.
    pub from_sequence: Sequence,
    /// Last sequence that is missing.
    pub to_sequence: Sequence,
    /// Why they are missing.
    pub reason: GapReason,
}

impl Gap {
    /// Length on the wire.
    pub const BYTES: usize = 56;

    /// How many records are missing; 1 for a range that ends before it begins.
    pub fn missing(&self) -> u64 {
        self.to_sequence.get().saturating_sub(self.from_sequence.get()).saturating_add(1)
    }

    /// Appends the record.
    pub fn encode(&self, ts_recv: u64, out: &mut Vec<u8>) {
        let header = RecordHeader { ts_recv, ..RecordHeader::of_feed(RecordKind::Gap, self.instrument, 0) };
        header.write(Self::BYTES, out);
        put(out, &[self.from_sequence.get() as i64, self.to_sequence.get() as i64]);
        out.extend_from_slice(&[self.channel.kind().to_wire(), self.reason.to_wire(), 0, 0, 0, 0, 0, 0]);
    }

    /// Reads a whole record; `None` also for a channel that this version does not know.
    pub fn read(record: &[u8]) -> Option<Self> {
        let header = RecordHeader::read(record)?;
        let body = record.get(HEADER_BYTES..Self::BYTES)?;
        Some(Self {
            instrument: header.instrument,
            channel: RecordKind::from_wire(body[CHANNEL_AT - HEADER_BYTES])?.channel()?,
            from_sequence: Sequence::new(u64_at(body, 0)),
            to_sequence: Sequence::new(u64_at(body, 8)),
            reason: GapReason::from_wire(body[REASON_AT - HEADER_BYTES]),
        })
    }
}
