//! Which part of the ring can be replayed: the ring offset of a position, and the offset from which the log is complete.
//!
//! Entries of the ring have no index of their own; only a walk from an entry's beginning finds the next. So the shard
//! notes a mark every so many bytes: the position of the newest record that was read, and the ring offset of its end.
//!
//! What always holds: records behind a mark's offset have its position or a newer one, records before it have its
//! position or an older one. Marks are in the order of both. A mark whose offset was overwritten is not returned.
//!
//! Memory: 24 bytes a mark, at most some [`MARKS`] of them. Cost: a comparison a tick.

use std::collections::VecDeque;

use crate::ring::{self, RingOffset};
use tickcast_protocol::{ConflationInterval, Position};

/// Marks that a ring is divided by: a resume scans at the most the bytes between two of them in vain.
const MARKS: u64 = 1024;
/// At least so many bytes are between two marks: that much is scanned in some 0.2 µs.
const STRETCH_BYTES_MIN: u64 = 4096;

/// A value may have been pending for longer than its interval: a boundary is noticed by a tick, and a tick may be late.
/// And the token may be another shard's, which was ahead of this one or behind it. Both together take this long at the
/// most.
const LAG_NS: u64 = 5_000_000_000;

/// A ring offset whose position is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Of the newest record before it.
    position: Position,
    /// End of that record.
    offset: RingOffset,
    /// When that was.
    time_ns: u64,
}

/// The records after a token are no longer there, or are older than the history reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooOld;

/// Marks that find the ring offset of a position.
#[derive(Debug)]
pub(super) struct History {
    marks: VecDeque<Mark>,
    stretch_bytes: u64,
    keep_ns: u64,
    /// The first mark is before the first record that there ever was.
    is_whole: bool,
    /// Above the newest position at which a resynchronisation was sent.
    resent_end: Position,
    /// Log records before this ring offset are incomplete.
    log_floor: RingOffset,
    /// Records before this ring offset have other exponents than the present Definitions state.
    replay_floor: RingOffset,
}

impl History {
    /// The history of a ring that is read from its start, for tokens up to `keep_ms` old.
    pub(super) fn new(ring: &ring::Reader, keep_ms: u32) -> Self {
        let stretch_bytes = (ring.capacity_bytes() / MARKS).max(STRETCH_BYTES_MIN);
        let first = Mark { position: Position::ZERO, offset: ring.offset(), time_ns: 0 };
        Self {
            marks: [first].into(),
            stretch_bytes,
            keep_ns: u64::from(keep_ms) * 1_000_000,
            is_whole: true,
            resent_end: Position::ZERO,
            log_floor: RingOffset::START,
            replay_floor: RingOffset::START,
        }
    }

    /// Notes that all records up to `position` end at or before `offset`.
    pub(super) fn note(&mut self, position: Position, offset: RingOffset, now_ns: u64) {
        if self.marks.back().is_none_or(|last| offset - last.offset >= self.stretch_bytes) {
            self.marks.push_back(Mark { position, offset, time_ns: now_ns });
        }
    }

    /// Notes that a record of a resynchronisation has this position.
    pub(super) fn note_resent(&mut self, position: Position) {
        self.resent_end = position.next();
    }

    /// Notes that log records are missing before this ring offset, which clients have to learn by a Gap.
    pub(super) fn raise_log_floor(&mut self, offset: RingOffset) {
        self.log_floor = offset;
    }

    /// Notes that a Definition at this ring offset has changed the exponents of an instrument.
    pub(super) fn raise_replay_floor(&mut self, offset: RingOffset) {
        self.replay_floor = offset;
    }

    /// The ring offset from which on a replay may begin.
    pub(super) fn replay_floor(&self) -> RingOffset {
        self.replay_floor
    }

    /// The ring offset from which on log records are complete.
    pub(super) fn log_floor(&self) -> RingOffset {
        self.log_floor
    }

    /// Forgets marks that can no longer be used. The last one before the oldest that is needed stays, as long as its
    /// own offset can be read.
    pub(super) fn forget(&mut self, oldest: RingOffset, now_ns: u64) {
        let too_old_ns = now_ns.saturating_sub(self.keep_ns);
        while let Some(first) = self.marks.front() {
            let is_superseded = self.marks.get(1).is_some_and(|next| next.time_ns < too_old_ns);
            if first.offset >= oldest && !is_superseded {
                return;
            }
            self.marks.pop_front();
            self.is_whole = false;
        }
    }

    /// Forgets everything: the ring has lapped the shard, and its bytes do not continue what was noted.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.is_whole = false;
    }

    /// The ring offset from which a token is replayed, the start of an entry: all records behind the position, and
    /// values that may have been pending at the token's interval, come after it. `None` if they are not all there.
    pub(super) fn find(&self, position: Position, interval: ConflationInterval) -> Option<RingOffset> {
        let mark = self.after(position).and_then(|mark| self.pending_at(mark, interval)).ok()?;
        (mark.offset >= self.log_floor).then_some(mark.offset)
    }

    /// The last mark before the records after `position`.
    ///
    /// Records of a resynchronisation have the position at which it was sent, and may be on both sides of a mark with
    /// that position: a token from then needs a mark that is strictly older.
    fn after(&self, position: Position) -> Result<Mark, TooOld> {
        let is_strict = position < self.resent_end;
        let is_older = |mark: &Mark| mark.position < position || (mark.position == position && !is_strict);
        let at = self.marks.partition_point(is_older).checked_sub(1).ok_or(TooOld)?;
        Ok(self.marks[at])
    }

    /// A client with a token as new as `mark` may still miss values that were pending then. Returns the last mark before
    /// the oldest of them.
    fn pending_at(&self, mark: Mark, interval: ConflationInterval) -> Result<Mark, TooOld> {
        if interval == ConflationInterval::IMMEDIATE {
            return Ok(mark);
        }
        let since_ns = mark.time_ns.saturating_sub(u64::from(interval.interval_ms()) * 1_000_000 + LAG_NS);
        match self.marks.partition_point(|mark| mark.time_ns < since_ns).checked_sub(1) {
            Some(at) => Ok(self.marks[at]),
            None if self.is_whole => Ok(self.marks[0]),
            None => Err(TooOld),
        }
    }

    /// Up to when the records before a ring offset were read, to within the distance of two marks; `None` if that is no
    /// longer known.
    pub(super) fn time_of(&self, offset: RingOffset) -> Option<u64> {
        let at = self.marks.partition_point(|mark| mark.offset <= offset).checked_sub(1)?;
        Some(self.marks[at].time_ns)
    }

    /// How far back a client can resume: bytes of the ring up to `offset`, and ns.
    pub(super) fn depth(&self, offset: RingOffset, now_ns: u64) -> (u64, u64) {
        let Some(first) = self.marks.front() else { return (0, 0) };
        let since_ns = match first.time_ns {
            0 => self.marks.get(1).map_or(now_ns, |next| next.time_ns),
            time_ns => time_ns,
        };
        (offset - first.offset, now_ns.saturating_sub(since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const START: u64 = 1_000 * S;

    /// A history with a mark every second, ten positions and a stretch apart.
    fn history(marks: u64, keep_ms: u32) -> History {
        let (_, reader) = ring::ring(1 << 22);
        let mut history = History::new(&reader, keep_ms);
        (1..=marks).for_each(|n| note(&mut history, n * 10, n, START + n * S));
        history
    }

    fn note(history: &mut History, position: u64, stretch: u64, now_ns: u64) {
        history.note(Position::new(position), RingOffset::new(stretch * STRETCH_BYTES_MIN), now_ns);
    }

    fn after(history: &History, position: u64) -> Result<Mark, TooOld> {
        history.after(Position::new(position))
    }

    fn second() -> ConflationInterval {
        ConflationInterval::round_up(1000).expect("the longest")
    }

    fn stretch(mark: Result<Mark, TooOld>) -> Result<u64, TooOld> {
        mark.map(|mark| mark.offset.get() / STRETCH_BYTES_MIN)
    }

    #[test]
    fn token_is_found_at_the_last_mark_before_it() {
        let history = history(5, 60_000);
        assert_eq!(stretch(after(&history, 0)), Ok(0));
        assert_eq!(stretch(after(&history, 9)), Ok(0));
        assert_eq!(stretch(after(&history, 10)), Ok(1));
        assert_eq!(stretch(after(&history, 1_000)), Ok(5));
    }

    #[test]
    fn overwritten_records_are_too_old() {
        let mut history = history(5, 60_000);
        history.forget(RingOffset::new(STRETCH_BYTES_MIN + 8), START + 5 * S);
        assert_eq!(after(&history, 0), Err(TooOld));
        assert_eq!(after(&history, 19), Err(TooOld));
        assert_eq!(stretch(after(&history, 20)), Ok(2));
        assert_eq!(history.pending_at(after(&history, 20).unwrap(), second()), Err(TooOld));
    }

    #[test]
    fn pending_values_are_searched_from_an_interval_and_a_lag_before_the_token() {
        let history = history(20, 60_000);
        assert_eq!(stretch(history.pending_at(after(&history, 185).unwrap(), second())), Ok(11));
        assert_eq!(stretch(history.pending_at(after(&history, 185).unwrap(), ConflationInterval::IMMEDIATE)), Ok(18));
        assert_eq!(stretch(history.pending_at(after(&history, 40).unwrap(), second())), Ok(0), "the ring is whole");
    }

    #[test]
    fn tokens_beyond_the_history_are_too_old_but_never_the_newest() {
        let mut history = history(5, 3_000);
        history.forget(RingOffset::START, START + 7 * S);
        assert_eq!(after(&history, 25), Err(TooOld));
        assert_eq!(stretch(after(&history, 35)), Ok(3), "superseded at most three seconds ago");
        history.forget(RingOffset::START, START + 1_000 * S);
        assert_eq!(after(&history, 49), Err(TooOld));
        assert_eq!(stretch(after(&history, 50)), Ok(5), "no record came after it");
    }

    #[test]
    fn overrun_clears_the_history() {
        let mut history = history(5, 60_000);
        history.clear();
        assert_eq!(after(&history, 50), Err(TooOld));
        note(&mut history, 90, 9, START + 9 * S);
        assert_eq!(after(&history, 0), Err(TooOld));
        assert_eq!(stretch(after(&history, 90)), Ok(9));
    }

    #[test]
    fn token_from_a_resynchronisation_is_found_before_it() {
        let mut history = history(5, 60_000);
        history.note_resent(Position::new(50));
        note(&mut history, 50, 6, START + 6 * S);
        assert_eq!(stretch(after(&history, 50)), Ok(4));
        assert_eq!(stretch(after(&history, 51)), Ok(6));
    }
}
