//! Book: levels of an order book.
//!
//! ```text
//! 40 + 24n bytes
//! 32 u16 n   34 u8 kind 'S' 'D' (BookAction)   35 u8[5] 0
//! 40 n × level:   0 i64 px   8 i64 sz (0 removes the level)   16 u8 side 'B' 'A'   17 u8[7] 0
//! ```

use super::bytes::{put, u16_at, u64_at};
use super::header::{HEADER_BYTES, RECORD_BYTES_MAX, RecordHeader};
use super::letters::{BookAction, BookSide};

/// Where the number of levels begins.
pub(super) const COUNT_AT: usize = 32;
/// Where the action begins.
pub(super) const ACTION_AT: usize = 34;
/// Where the levels begin.
pub(super) const LEVELS_AT: usize = 40;
/// Where the side begins, within a level.
pub(super) const LEVEL_SIDE_AT: usize = 16;
/// Bytes of one book level.
pub const LEVEL_BYTES: usize = 24;
/// Levels that fit into one Book record.
pub const BOOK_LEVELS_MAX: usize = (RECORD_BYTES_MAX - LEVELS_AT) / LEVEL_BYTES;

/// One level of a book.
///
/// ```text
///  0 i64 px   8 i64 sz   16 u8 side   17 u8[7] 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Price.
    pub px: i64,
    /// Absolute size; 0 removes the level.
    pub sz: i64,
    /// Bid or ask.
    pub side: BookSide,
}

/// Appends a Book record.
///
/// # Panics
/// When there are more than [`BOOK_LEVELS_MAX`] levels: the caller splits what it encodes.
pub fn encode_book(
    header: &RecordHeader,
    action: BookAction,
    levels: impl ExactSizeIterator<Item = Level>,
    out: &mut Vec<u8>,
) {
    let count = levels.len();
    assert!(count <= BOOK_LEVELS_MAX, "a book of {count} levels does not fit into a record");
    header.write(LEVELS_AT + count * LEVEL_BYTES, out);
    out.extend_from_slice(&(count as u16).to_le_bytes());
    out.extend_from_slice(&[action.to_wire(), 0, 0, 0, 0, 0]);
    for level in levels {
        put(out, &[level.px, level.sz]);
        out.extend_from_slice(&[level.side.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
    }
}

/// The action and the levels of a whole Book record.
pub fn read_book(record: &[u8]) -> Option<(BookAction, impl ExactSizeIterator<Item = Level>)> {
    let head = record.get(HEADER_BYTES..LEVELS_AT)?;
    let count = usize::from(u16_at(head, COUNT_AT - HEADER_BYTES));
    let body = record.get(LEVELS_AT..LEVELS_AT + count * LEVEL_BYTES)?;
    let levels = body.chunks_exact(LEVEL_BYTES).map(|level| Level {
        px: u64_at(level, 0) as i64,
        sz: u64_at(level, 8) as i64,
        side: BookSide::from_wire(level[LEVEL_SIDE_AT]),
    });
    Some((BookAction::from_wire(head[ACTION_AT - HEADER_BYTES]), levels))
}
