//! The check of what publishers send. After it every reader of this module succeeds, and every letter is known.

use super::bytes::{u16_at, u32_at};
use super::header::{HEADER_BYTES, RecordHeader};
use super::kind::RecordKind;
use super::letters::{BookAction, BookSide, FeedState, Side};
use super::{Gap, Quote, Ticker, Trade, book, gap, raw, status, trade};

/// Why bytes are not a record that a publisher may send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the header has, or than its length says.
    #[error("record: cut short at {have} bytes: expected {need}")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that are needed.
        need: usize,
    },
    /// The length is not what this kind has.
    #[error("record of type {kind}: length {given}: expected {want}")]
    Length {
        /// Wire number of the kind.
        kind: u8,
        /// Bytes that the header says.
        given: usize,
        /// Bytes that the kind has.
        want: usize,
    },
    /// Not a kind that publishers send.
    #[error("record of type {0}: expected 1 to 5, or 17 to 19")]
    Kind(u8),
    /// A field with few possible values has another.
    #[error("{field}: invalid value {given:#04x}: expected {want}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its byte.
        given: u8,
        /// The possible values.
        want: &'static str,
    },
}

/// Checks the record at the start of `bytes`, and returns its header. Afterwards its length is that of its kind, its
/// counts fit the length, and its letters are known.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
    let header = RecordHeader::read(bytes).ok_or(RecordError::Short { have: bytes.len(), need: HEADER_BYTES })?;
    let kind = header.known_kind().ok_or(RecordError::Kind(header.kind))?;
    check_length(kind, &header, bytes)?;
    let short = RecordError::Short { have: bytes.len(), need: header.bytes() };
    check_letters(kind, bytes.get(..header.bytes()).ok_or(short)?)?;
    Ok(header)
}

/// Holds the length against the kind and the counts.
fn check_length(kind: RecordKind, header: &RecordHeader, bytes: &[u8]) -> Result<(), RecordError> {
    let given = header.bytes();
    let short = RecordError::Short { have: bytes.len(), need: given.max(HEADER_BYTES) };
    let want = match kind {
        RecordKind::Quote => Quote::BYTES,
        RecordKind::Trade => Trade::BYTES,
        RecordKind::Ticker => Ticker::BYTES,
        RecordKind::Gap => Gap::BYTES,
        RecordKind::Status => status::STATUS_BYTES,
        RecordKind::Heartbeat => HEADER_BYTES,
        // Publishers define instruments by a request.
        RecordKind::Definition => return Err(RecordError::Kind(header.kind)),
        // A record that ends before its count has none, whatever bytes follow it.
        RecordKind::Book if given < book::LEVELS_AT => book::LEVELS_AT,
        RecordKind::Raw if given < raw::PAYLOAD_AT => raw::PAYLOAD_AT,
        RecordKind::Book => {
            let count = bytes.get(book::COUNT_AT..book::ACTION_AT).ok_or(short)?;
            book::LEVELS_AT + usize::from(u16_at(count, 0)) * book::LEVEL_BYTES
        }
        RecordKind::Raw => {
            let payload = bytes.get(raw::PAYLOAD_BYTES_AT..raw::PAYLOAD_BYTES_AT + 4).ok_or(short)?;
            (raw::PAYLOAD_AT + u32_at(payload, 0) as usize).next_multiple_of(8)
        }
    };
    if given == want { Ok(()) } else { Err(RecordError::Length { kind: header.kind, given, want }) }
}

/// A source may not report that an instrument is released: the server decides on that.
fn is_state_of_source(state: FeedState) -> bool {
    state.is_known() && state != FeedState::Released
}

fn check_letters(kind: RecordKind, record: &[u8]) -> Result<(), RecordError> {
    let invalid = |field, given, want| Err(RecordError::Field { field, given, want });
    match kind {
        RecordKind::Trade if !Side::from_wire(record[trade::SIDE_AT]).is_known() => {
            invalid("trade side", record[trade::SIDE_AT], "'B', 'S' or 'N'")
        }
        RecordKind::Status if !is_state_of_source(FeedState::from_wire(record[status::STATE_AT])) => {
            invalid("status", record[status::STATE_AT], "'L', 'S', 'H' or 'E'")
        }
        RecordKind::Gap if Gap::read(record).is_none_or(|gap| !gap.channel.is_log()) => {
            invalid("gap channel", record[gap::CHANNEL_AT], "2 (trade) or 5 (raw)")
        }
        RecordKind::Book if !BookAction::from_wire(record[book::ACTION_AT]).is_known() => {
            invalid("book action", record[book::ACTION_AT], "'S' or 'D'")
        }
        RecordKind::Book => {
            let mut sides = record[book::LEVELS_AT..].chunks_exact(book::LEVEL_BYTES).map(|l| l[book::LEVEL_SIDE_AT]);
            match sides.find(|side| !BookSide::from_wire(*side).is_known()) {
                Some(side) => invalid("level side", side, "'B' or 'A'"),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
