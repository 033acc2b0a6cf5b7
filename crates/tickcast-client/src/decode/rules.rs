//! The layout of a packet and the sequence rule, record by record.

use tickcast_protocol::packet::PacketError;
use tickcast_protocol::record::{self, Gap, HEADER_BYTES, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{Channel, RecordKind, Sequence};

/// How a stream broke the sequence rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceViolation {
    /// Records are missing, and nothing announced it.
    #[error("{} of instrument {instrument} jumps from {last} to {got} without a Gap or CONFLATED", channel.name())]
    Jump {
        /// Its id.
        instrument: u32,
        /// The channel.
        channel: Channel,
        /// The sequence before.
        last: Sequence,
        /// The record's sequence.
        got: Sequence,
    },
    /// A sequence came again, or an older one.
    #[error("{} of instrument {instrument} goes back from {last} to {got}", channel.name())]
    Back {
        /// Its id.
        instrument: u32,
        /// The channel.
        channel: Channel,
        /// The sequence before.
        last: Sequence,
        /// The record's sequence.
        got: Sequence,
    },
    /// A record of an instrument that no Definition announced.
    #[error("{} of instrument {instrument} comes before its Definition", channel.name())]
    Undefined {
        /// Its id.
        instrument: u32,
        /// The channel.
        channel: Channel,
    },
    /// A Gap that does not begin where the stream stopped, or ends before it begins.
    #[error("a Gap for {} of instrument {instrument} covers {from} to {to}, after {last}", channel.name())]
    Gap {
        /// Its id.
        instrument: u32,
        /// The channel.
        channel: Channel,
        /// The sequence before.
        last: Sequence,
        /// The first sequence that the Gap names.
        from: Sequence,
        /// The last one.
        to: Sequence,
    },
}

/// Why bytes are not a packet of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The packet's own header.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A record goes beyond the end of the packet, or is shorter than its header.
    #[error("record {index} states {bytes} bytes, and {have} are left in the packet")]
    Cut {
        /// Which record of the packet, from 0.
        index: u16,
        /// The length that it states.
        bytes: usize,
        /// The bytes that are left.
        have: usize,
    },
    /// A record is shorter than what its type holds.
    #[error("record {index} of type {kind} has a malformed body of {bytes} bytes")]
    Body {
        /// Which record of the packet, from 0.
        index: u16,
        /// The wire number of its type.
        kind: u8,
        /// Its length.
        bytes: usize,
    },
    /// A sequence that no server assigns: all later records would look old.
    #[error("record {index} has the sequence {sequence}: expected less than 2^48")]
    Sequence {
        /// Which record of the packet, from 0.
        index: u16,
        /// The sequence, or the last one of a Gap.
        sequence: Sequence,
    },
    /// Bytes after the last record.
    #[error("{0} bytes follow the last record of the packet")]
    Trailing(usize),
}

/// The record at the start of `bytes`; `index` is for the error.
///
/// # Errors
/// [`DecodeError::Cut`].
#[inline]
pub fn split_record(bytes: &[u8], index: u16) -> Result<(RecordHeader, &[u8]), DecodeError> {
    let header = RecordHeader::read(bytes).ok_or(DecodeError::Cut { index, bytes: HEADER_BYTES, have: bytes.len() })?;
    let cut = DecodeError::Cut { index, bytes: header.bytes(), have: bytes.len() };
    if header.bytes() < HEADER_BYTES {
        return Err(cut);
    }
    Ok((header, bytes.get(..header.bytes()).ok_or(cut)?))
}

/// Whether a record holds all that its type has. A longer one is complete: later versions append fields.
#[inline]
pub fn body_is_complete(kind: RecordKind, record: &[u8]) -> bool {
    match kind {
        RecordKind::Quote => record.len() >= Quote::BYTES,
        RecordKind::Trade => record.len() >= Trade::BYTES,
        RecordKind::Ticker => record.len() >= Ticker::BYTES,
        RecordKind::Book => record::read_book(record).is_some(),
        RecordKind::Raw => record::read_raw(record).is_some(),
        RecordKind::Definition => record::read_definition(record).is_some(),
        RecordKind::Gap => record.len() >= Gap::BYTES,
        RecordKind::Heartbeat => true,
        RecordKind::Status => record.len() >= 40,
    }
}

/// The highest sequence that a record has; for a Gap, the last that is missing.
#[inline]
pub fn highest_sequence(kind: RecordKind, header: &RecordHeader, record: &[u8]) -> Sequence {
    let of_gap = |gap: Gap| gap.from_sequence.max(gap.to_sequence);
    if kind == RecordKind::Gap { Gap::read(record).map_or(Sequence::NONE, of_gap) } else { header.sequence }
}

/// How a channel's record breaks the rule after `last`, if it does. Definitions are for the caller to check.
pub fn sequence_violation(channel: Channel, header: &RecordHeader, last: Sequence) -> Option<SequenceViolation> {
    let (instrument, got) = (header.instrument, header.sequence);
    let snapshot = header.flags & flags::SNAPSHOT != 0;
    let conflated = header.flags & flags::CONFLATED != 0 && !channel.is_log();
    // A stream begins at any sequence but 0.
    if !got.is_none() && (last.is_none() || got.previous() == last) {
        return None;
    }
    if got > last {
        return (!snapshot && !conflated).then_some(SequenceViolation::Jump { instrument, channel, last, got });
    }
    // A snapshot may repeat the newest value: after a second subscription, or in several records.
    (got.is_none() || !snapshot || got < last).then_some(SequenceViolation::Back { instrument, channel, last, got })
}

/// How many sequences of the live stream a record accounts for after `last`: not those before the first live record,
/// and not those of a jump that nothing announced (`is_violation`).
pub fn sequences_covered(header: &RecordHeader, last: Sequence, is_violation: bool) -> u64 {
    match header.sequence.get().checked_sub(last.get()) {
        None | Some(0) => 0,
        Some(_) if last.is_none() => u64::from(header.flags & flags::SNAPSHOT == 0),
        Some(_) if is_violation => 1,
        Some(advance) => advance,
    }
}
