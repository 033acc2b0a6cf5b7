//! Where in the ring a position of the node stands: what a resume looks its token up in.
//!
//! The ring's entries have no index of their own, and only a walk from an entry's beginning finds the next. So the shard
//! notes a mark every so many bytes: the position that it had come to, and the place in the ring where that was.
//!
//! What always holds: what the ring holds from a mark's place on is as new as its position or newer; what it held before
//! is as old or older. Marks come in the order of both. A mark whose place was overwritten is not given out.
//!
//! Memory: 24 bytes a mark, at most some [`MARKS`] of them. Cost: a comparison a turn.

use std::collections::VecDeque;

use crate::ring;
use tickcast_protocol::conflation::ConflationInterval;

/// A ring is divided into so many stretches: a resume reads at the most one of them in vain.
const MARKS: u64 = 1024;
/// A stretch is at least this long: that much is read in some 0.2 µs.
const STRETCH_BYTES_MIN: u64 = 4096;

/// A value may have waited for longer than its interval: a tick comes with a turn, and a turn may come late. And the token
/// may be another shard's, which was ahead of this one or behind it, by so much at the most.
const LAG_NS: u64 = 5_000_000_000;

/// A place in the ring whose position is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of the newest record before it, in the node's order.
    pub(super) position: u64,
    /// Where the ring goes on after that record.
    pub(super) place: u64,
    /// When that was.
    pub(super) time_ns: u64,
}

/// What came after a token is no longer there, or was longer ago than the history may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooOld;

/// The marks of a ring.
#[derive(Debug)]
pub(super) struct History {
    marks: VecDeque<Mark>,
    stretch_bytes: u64,
    keep_ns: u64,
    /// The first mark stands before the first record that there ever was.
    whole: bool,
    /// Above the newest position at which something was sent again.
    resent_end: u64,
}

impl History {
    /// The history of a ring that is read from its start, and tokens up to `keep_ms` old.
    pub(super) fn new(ring: &ring::Reader, keep_ms: u32) -> Self {
        let stretch_bytes = (ring.capacity_bytes() / MARKS).max(STRETCH_BYTES_MIN);
        let first = Mark { position: 0, place: ring.position(), time_ns: 0 };
        Self {
            marks: [first].into(),
            stretch_bytes,
            keep_ns: u64::from(keep_ms) * 1_000_000,
            whole: true,
            resent_end: 0,
        }
    }

    /// Notes that everything up to `position` lies before `place`.
    pub(super) fn note(&mut self, position: u64, place: u64, now_ns: u64) {
        if self.marks.back().is_none_or(|last| place - last.place >= self.stretch_bytes) {
            self.marks.push_back(Mark { position, place, time_ns: now_ns });
        }
    }

    /// Notes that the sequencer sent something again at this position.
    pub(super) fn note_sent_again(&mut self, position: u64) {
        self.resent_end = position + 1;
    }

    /// Forgets what can no longer be read. The last mark before it stays, as long as its own place is there.
    pub(super) fn forget(&mut self, oldest_place: u64, now_ns: u64) {
        let too_old_ns = now_ns.saturating_sub(self.keep_ns);
        while let Some(first) = self.marks.front() {
            let is_superseded = self.marks.get(1).is_some_and(|next| next.time_ns < too_old_ns);
            if first.place >= oldest_place && !is_superseded {
                return;
            }
            self.marks.pop_front();
            self.whole = false;
        }
    }

    /// Forgets everything: the ring has lapped the shard, and what it holds is not contiguous with what was noted.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.whole = false;
    }

    /// Where the records after `position` begin, or somewhat before them.
    ///
    /// What is sent again has the position of the moment, and may lie on both sides of a mark with that position: a token
    /// from then needs a mark that is strictly older.
    pub(super) fn after(&self, position: u64) -> Result<Mark, TooOld> {
        let strictly = position < self.resent_end;
        let is_older = |mark: &Mark| mark.position < position || (mark.position == position && !strictly);
        let at = self.marks.partition_point(is_older).checked_sub(1).ok_or(TooOld)?;
        Ok(self.marks[at])
    }

    /// Where the state begins that a client may not have had although its token is as new as `mark`: values that waited for
    /// the tick of its interval.
    pub(super) fn pending_at(&self, mark: Mark, interval: ConflationInterval) -> Result<Mark, TooOld> {
        if interval == ConflationInterval::IMMEDIATE {
            return Ok(mark);
        }
        let since_ns = mark.time_ns.saturating_sub(u64::from(interval.interval_ms()) * 1_000_000 + LAG_NS);
        match self.marks.partition_point(|mark| mark.time_ns < since_ns).checked_sub(1) {
            Some(at) => Ok(self.marks[at]),
            None if self.whole => Ok(self.marks[0]),
            None => Err(TooOld),
        }
    }

    /// How far back a client can resume: bytes of the ring up to `place`, and ns.
    pub(super) fn depth(&self, place: u64, now_ns: u64) -> (u64, u64) {
        let Some(first) = self.marks.front() else { return (0, 0) };
        let since_ns = match first.time_ns {
            0 => self.marks.get(1).map_or(now_ns, |next| next.time_ns),
            time_ns => time_ns,
        };
        (place - first.place, now_ns.saturating_sub(since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const START: u64 = 1_000 * S;

    /// A history of a second a mark, ten positions and a stretch each.
    fn history(marks: u64, keep_ms: u32) -> History {
        let (_, reader) = ring::ring(1 << 22);
        let mut history = History::new(&reader, keep_ms);
        (1..=marks).for_each(|n| history.note(n * 10, n * STRETCH_BYTES_MIN, START + n * S));
        history
    }

    fn second() -> ConflationInterval {
        ConflationInterval::round_up(1000).expect("the longest")
    }

    fn place(mark: Result<Mark, TooOld>) -> Result<u64, TooOld> {
        mark.map(|mark| mark.place / STRETCH_BYTES_MIN)
    }

    #[test]
    fn a_token_is_found_at_the_last_mark_before_it() {
        let history = history(5, 60_000);
        assert_eq!(place(history.after(0)), Ok(0));
        assert_eq!(place(history.after(9)), Ok(0));
        assert_eq!(place(history.after(10)), Ok(1));
        assert_eq!(place(history.after(1_000)), Ok(5));
    }

    #[test]
    fn what_was_overwritten_is_too_old() {
        let mut history = history(5, 60_000);
        history.forget(STRETCH_BYTES_MIN + 8, START + 5 * S);
        assert_eq!(history.after(0), Err(TooOld));
        assert_eq!(history.after(19), Err(TooOld));
        assert_eq!(place(history.after(20)), Ok(2));
        assert_eq!(history.pending_at(history.after(20).unwrap(), second()), Err(TooOld));
    }

    #[test]
    fn what_may_have_waited_for_a_tick_is_searched_for_an_interval_and_a_lag_before_the_token() {
        let history = history(20, 60_000);
        assert_eq!(place(history.pending_at(history.after(185).unwrap(), second())), Ok(11));
        assert_eq!(place(history.pending_at(history.after(185).unwrap(), ConflationInterval::IMMEDIATE)), Ok(18));
        assert_eq!(place(history.pending_at(history.after(40).unwrap(), second())), Ok(0), "the ring is whole");
    }

    #[test]
    fn what_is_older_than_the_history_may_reach_is_too_old_and_the_newest_token_never_is() {
        let mut history = history(5, 3_000);
        history.forget(0, START + 7 * S);
        assert_eq!(history.after(25), Err(TooOld));
        assert_eq!(place(history.after(35)), Ok(3), "superseded at most three seconds ago");
        history.forget(0, START + 1_000 * S);
        assert_eq!(history.after(49), Err(TooOld));
        assert_eq!(place(history.after(50)), Ok(5), "nothing came after it: it is as good as ever");
    }

    #[test]
    fn a_ring_that_lapped_its_reader_has_no_history_before_that() {
        let mut history = history(5, 60_000);
        history.clear();
        assert_eq!(history.after(50), Err(TooOld));
        history.note(90, 9 * STRETCH_BYTES_MIN, START + 9 * S);
        assert_eq!(history.after(0), Err(TooOld));
        assert_eq!(place(history.after(90)), Ok(9));
    }

    #[test]
    fn a_token_from_while_state_was_sent_again_is_found_before_that() {
        let mut history = history(5, 60_000);
        history.note_sent_again(50);
        history.note(50, 6 * STRETCH_BYTES_MIN, START + 6 * S);
        assert_eq!(place(history.after(50)), Ok(4));
        assert_eq!(place(history.after(51)), Ok(6));
    }
}
