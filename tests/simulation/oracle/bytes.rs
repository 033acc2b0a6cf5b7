//! Compares the bytes of a value with the feed's.

use tickcast_protocol::record::{self, Level, RecordHeader, flags};
use tickcast_protocol::{BookAction, BookSide, ConflationInterval, RecordKind};

use super::Track;
use crate::feed::{Levels, Value, apply, best};

/// How the client gets a channel.
pub(super) struct Way {
    pub(super) interval: ConflationInterval,
    pub(super) sides_apart: bool,
    /// Levels of each side of its book that it may see; `None`: all.
    pub(super) depth: Option<usize>,
    /// Where the values are that it may not see.
    pub(super) hidden: Vec<usize>,
}

/// The record is the feed's, to the byte; a book is compared by its state after the record.
pub(super) fn check_bytes(
    track: &mut Track,
    header: &RecordHeader,
    bytes: &[u8],
    Way { interval, sides_apart, depth, hidden }: Way,
    value: &Value,
    about: &dyn Fn() -> String,
) {
    let is_conflated = header.flags & (flags::SNAPSHOT | flags::CONFLATED) != 0;
    let mut plain = bytes.to_vec();
    record::patch_flags(&mut plain, header.flags & !(flags::SNAPSHOT | flags::CONFLATED));
    if header.kind != RecordKind::Book as u8 {
        let mut expected = value.record.clone();
        for at in hidden {
            expected[at..at + 8].copy_from_slice(&i64::MIN.to_le_bytes());
        }
        assert_eq!(plain, expected, "{}", about());
        return;
    }
    let (action, levels) = record::read_book(bytes).expect("a whole book");
    let whole = action == BookAction::Snapshot;
    const DOUBT: u8 = flags::CONFLATED | flags::MAYBE_BAD_BOOK;
    // A merged change may be empty, and the source may have flagged the book itself, which may have begun without a
    // snapshot.
    let expected = value.book.as_deref().map(|book| best(book, depth));
    let is_merged_change = (interval != ConflationInterval::IMMEDIATE || depth.is_some())
        && value.record[3] & flags::MAYBE_BAD_BOOK != 0
        && track.book.as_ref().is_none_or(|book| Some(book) == expected.as_ref());
    if !whole && header.flags & DOUBT == DOUBT && levels.count() == 0 && !is_merged_change {
        // The server has lost changes of it and has flagged it: nothing comes before the whole book.
        (track.book, track.doubted) = (None, true);
        return;
    }
    assert!(whole || !track.doubted, "a change of a book that is in doubt: {}", about());
    track.doubted = false;
    if whole {
        track.book = Some(Levels::new());
    }
    if let Some(book) = &mut track.book {
        apply(book, bytes);
        assert_eq!(Some(&*book), expected.as_ref(), "{}", about());
    }
    if depth.is_some() {
        let (_, levels) = record::read_book(bytes).expect("a whole book");
        for Level { px, sz, side } in levels {
            let is_best = sz == 0 || expected.as_ref().is_some_and(|best| best.get(&(side, px)) == Some(&sz));
            assert!(is_best, "a level beyond the depth of {depth:?}: {px}, {}", about());
        }
    }
    assert_eq!(bytes[8..32], value.record[8..32], "{}", about());
    const KEPT: u8 = flags::MAYBE_BAD_BOOK | flags::DELAYED;
    assert_eq!(bytes[3] & KEPT, value.record[3] & KEPT, "{}", about());
    // A conflated book, or one of a resynchronisation, lists its levels in the book's order, not the feed's.
    if !is_conflated && !whole && interval == ConflationInterval::IMMEDIATE && depth.is_none() {
        let expected = if sides_apart { with_sides_apart(&value.record) } else { value.record.clone() };
        assert_eq!(plain, expected, "{}", about());
    }
}

/// The same book record with its bids before its asks.
fn with_sides_apart(book: &[u8]) -> Vec<u8> {
    let header = RecordHeader::read(book).expect("a record");
    let (action, levels) = record::read_book(book).expect("a whole book");
    let (mut bids, asks): (Vec<_>, Vec<_>) = levels.partition(|level| level.side == BookSide::Bid);
    bids.extend(asks);
    let mut out = Vec::new();
    record::encode_book(&header, action, bids.into_iter(), &mut out);
    out
}
