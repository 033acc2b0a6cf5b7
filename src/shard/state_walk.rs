//! How far a client has been sent the values: a walk over the instruments in the order of ids, in pieces.
//!
//! A value that was sent early in a walk may change before its end. So each piece has the cursor of its tick, and the
//! next walk compares against it.
//!
//! Memory: one cursor a tick of a walk.

use super::market_view::RingCursor;
use super::tick_records::Now;
use crate::ring::RingOffset;

/// Up to where a client has had the values of some instruments.
///
/// * A member of its audience has had what was dispatched by the end of `tick`. Values that were pending at their
///   conflation interval are missing. `floor` is what it had had when it became a member.
/// * A client that was sent the values one by one (`is_explicit`) has had everything up to `read`, pending values
///   included. `floor` is the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateCursor {
    pub(super) tick: u64,
    /// What had been read from the ring in that tick.
    pub(super) read: RingCursor,
    /// The values were sent to this client one by one: it has had them up to `read`, also those that were still
    /// pending at their conflation interval.
    pub(super) is_explicit: bool,
    /// Up to this ring offset the client has had every value in any case, dispatched or not.
    pub(super) floor: RingOffset,
}

impl StateCursor {
    /// The cursor of a member: it has had what was dispatched, and all values up to `floor`.
    pub(super) fn dispatched(tick: u64, read: RingCursor, floor: RingOffset) -> Self {
        Self { tick, read, is_explicit: false, floor }
    }

    /// The cursor of a client that has had all values up to `read`.
    pub(super) fn explicit(now: Now, read: RingCursor) -> Self {
        Self { tick: now.tick, read, is_explicit: true, floor: read.offset }
    }
}

/// The last id of a walk that has come to its end.
pub(super) const LAST_INSTRUMENT: u32 = u32::MAX;

/// The walks of one client over the instruments.
#[derive(Debug)]
pub(super) struct StateWalk {
    /// Cursors of the last walk: (last id, cursor), in ascending order; the last id of all is [`LAST_INSTRUMENT`].
    before: Vec<(u32, StateCursor)>,
    /// Cursors of this walk, up to `next`.
    after: Vec<(u32, StateCursor)>,
    /// Next instrument of this walk.
    pub(super) next: u32,
    /// Walks that have come to their end, of those that took more than a tick.
    pub(super) walks: u32,
}

impl StateWalk {
    /// The client has had all instruments up to `cursor`.
    pub(super) fn at(cursor: StateCursor) -> Self {
        Self { before: vec![(LAST_INSTRUMENT, cursor)], after: Vec::new(), next: 1, walks: 0 }
    }

    /// The cursor that holds for an instrument.
    pub(super) fn cursor_of(&self, instrument: u32) -> StateCursor {
        let at = self.before.partition_point(|(last, _)| *last < instrument);
        self.before[at].1
    }

    /// The cursor that holds for instruments that are yet to be defined.
    pub(super) fn last_cursor(&self) -> StateCursor {
        self.cursor_of(LAST_INSTRUMENT)
    }

    /// Up to where the client has had the values of all instruments: records of log channels before it do not overtake
    /// a value.
    pub(super) fn read(&self) -> RingCursor {
        let cursors = self.before.iter().filter(|(last, _)| *last >= self.next).chain(&self.after);
        let oldest = cursors.map(|(_, cursor)| cursor.read).min_by_key(|read| read.offset);
        oldest.unwrap_or_else(|| self.last_cursor().read)
    }

    /// True if no instrument's cursor is older than this tick.
    pub(super) fn is_at(&self, tick: u64) -> bool {
        self.after.is_empty() && self.next == 1 && self.before.iter().all(|(_, cursor)| cursor.tick == tick)
    }

    /// True if the client has also had the values that are still pending at their conflation interval.
    pub(super) fn is_explicit(&self) -> bool {
        self.before.iter().all(|(_, cursor)| cursor.is_explicit)
    }

    /// Notes that the walk has come to `last`, with values up to `cursor`.
    pub(super) fn advance(&mut self, last: u32, cursor: StateCursor) {
        match self.after.last_mut() {
            Some((end, same)) if *same == cursor => *end = last,
            _ => self.after.push((last, cursor)),
        }
        if last == LAST_INSTRUMENT {
            self.before = std::mem::take(&mut self.after);
            self.next = 1;
            self.walks += u32::from(self.before.len() > 1);
        } else {
            self.next = last + 1;
        }
    }
}
