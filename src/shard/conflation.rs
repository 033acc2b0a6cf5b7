//! Conflation, once a core and interval: at most one value per instrument and channel in that interval, the newest.
//!
//! A profile above 0 keeps, for each state channel of an instrument, how many values came since the last one that was
//! dispatched; the value itself is the last value that the shard holds anyway. At the profile's tick (aligned to
//! multiples of its interval) each of them is encoded once and goes to all who watch it. Of a book, the levels that
//! changed are kept, and the tick sends their present sizes.
//!
//! The trade-safe rule: a pending quote is sent before the trade that follows it, to those who get the trade. From then
//! on, those have had the quote and the others have not; hence two counts, plain and safe.
//!
//! Memory: 40 bytes an instrument and state channel for each profile in use, 16 a changed level.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::record::{Channel, Level};
use tickcast_protocol::{Book, BookAction, BookSide};

/// Changed levels of one book that are kept before the whole book is sent instead.
const LEVELS_MAX: usize = 4096;

/// Those who get trades of the instrument, too, have had early what the others still wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Plain,
    Safe,
}

/// What is pending of one instrument and channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Values since the last dispatch, for the plain and the safe.
    counts: [u32; 2],
    /// Turn of the last dispatch.
    dispatched: [u64; 2],
    queued: bool,
}

impl Pending {
    /// Values that wait for a lane.
    pub(super) fn count(&self, lane: Lane) -> u32 {
        self.counts[lane as usize]
    }

    /// True if both lanes wait for the same.
    pub(super) fn is_even(&self) -> bool {
        self.counts[0] == self.counts[1]
    }
}

/// The levels of a book that changed since the last tick.
#[derive(Debug, Default)]
pub(super) struct Changed {
    levels: Vec<(BookSide, i64)>,
    whole: bool,
}

impl Changed {
    fn note(&mut self, action: BookAction, levels: impl Iterator<Item = Level>) {
        self.whole |= action == BookAction::Snapshot;
        if !self.whole {
            self.levels.extend(levels.filter(|level| level.side.is_known()).map(|level| (level.side, level.px)));
            // Looked at afterwards: one record may bring more levels than another can hold beside those that are here.
            self.whole = self.levels.len() > LEVELS_MAX;
        }
        if self.whole {
            self.levels = Vec::new();
        }
    }

    /// The present sizes of the changed levels, each once; `None` where the whole book has to be sent.
    pub(super) fn present(mut self, book: &Book) -> Option<Vec<Level>> {
        if self.whole {
            return None;
        }
        self.levels.sort_unstable();
        self.levels.dedup();
        let level = |(side, px): (BookSide, i64)| Level { px, sz: book.size(side, px), side };
        Some(self.levels.into_iter().map(level).collect())
    }
}

#[derive(Debug, Default)]
struct IntervalState {
    tick_ns: u64,
    pending: Vec<Pending>,
    queue: Vec<(u32, Channel)>,
    books: HashMap<u32, Changed, RandomState>,
}

/// The state channels in the order in which they are kept.
const CHANNELS: [Channel; 3] = [Channel::Quote, Channel::Ticker, Channel::Book];

fn index(instrument: u32, channel: Channel) -> usize {
    let offset = CHANNELS.iter().position(|state| *state == channel).expect("only state channels are conflated");
    (instrument as usize - 1) * CHANNELS.len() + offset
}

/// All profiles of a shard.
#[derive(Debug, Default)]
pub(super) struct Conflator {
    intervals: [IntervalState; ConflationInterval::COUNT],
}

impl Conflator {
    /// Notes that a newer value is there; `jumped`: and that it stands for some that never came.
    pub(super) fn note(&mut self, interval: ConflationInterval, instrument: u32, channel: Channel, jumped: bool) {
        let state = &mut self.intervals[interval.index()];
        let at = index(instrument, channel);
        if state.pending.len() <= at {
            state.pending.resize(at + 1, Pending::default());
        }
        let pending = &mut state.pending[at];
        pending.counts = pending.counts.map(|count| count.saturating_add(1 + u32::from(jumped)));
        if !pending.queued {
            pending.queued = true;
            state.queue.push((instrument, channel));
        }
    }

    /// Notes which levels of a book changed.
    pub(super) fn note_levels(
        &mut self,
        interval: ConflationInterval,
        instrument: u32,
        action: BookAction,
        levels: impl Iterator<Item = Level>,
    ) {
        self.intervals[interval.index()].books.entry(instrument).or_default().note(action, levels);
    }

    /// The profiles whose tick has come, in ascending order of interval; their next tick is set.
    pub(super) fn due(&mut self, now_ns: u64) -> impl Iterator<Item = ConflationInterval> + use<> {
        let mut due = [false; ConflationInterval::COUNT];
        for (at, state) in self.intervals.iter_mut().enumerate().skip(1) {
            if now_ns >= state.tick_ns {
                let interval_ns = ConflationInterval::from_index(at).interval_ns();
                state.tick_ns = (now_ns / interval_ns + 1) * interval_ns;
                due[at] = !state.queue.is_empty();
            }
        }
        (1..ConflationInterval::COUNT).filter(move |at| due[*at]).map(ConflationInterval::from_index)
    }

    /// When the next pending value is due; `None` if nothing is pending.
    pub(super) fn next_tick_ns(&self) -> Option<u64> {
        self.intervals.iter().filter(|state| !state.queue.is_empty()).map(|state| state.tick_ns).min()
    }

    /// What is pending, in the order in which it first came; the queue is empty afterwards.
    pub(super) fn take_queue(&mut self, interval: ConflationInterval) -> Vec<(u32, Channel)> {
        std::mem::take(&mut self.intervals[interval.index()].queue)
    }

    /// Gives the memory of a queue back.
    pub(super) fn return_queue(&mut self, interval: ConflationInterval, mut queue: Vec<(u32, Channel)>) {
        queue.clear();
        let state = &mut self.intervals[interval.index()];
        if state.queue.is_empty() {
            state.queue = queue;
        }
    }

    /// Takes what is pending of one value, and notes the turn of its dispatch.
    pub(super) fn take(
        &mut self,
        interval: ConflationInterval,
        instrument: u32,
        channel: Channel,
        tick: u64,
    ) -> Pending {
        let Some(pending) = self.intervals[interval.index()].pending.get_mut(index(instrument, channel)) else {
            return Pending::default();
        };
        let taken = *pending;
        for lane in [Lane::Plain, Lane::Safe] {
            if pending.counts[lane as usize] > 0 {
                pending.dispatched[lane as usize] = tick;
            }
        }
        pending.counts = [0, 0];
        pending.queued = false;
        taken
    }

    /// Takes what is pending for the safe lane alone: the quote that goes before a trade. Returns the count.
    pub(super) fn take_safe(&mut self, interval: ConflationInterval, instrument: u32, tick: u64) -> u32 {
        let pending = self.intervals[interval.index()].pending.get_mut(index(instrument, Channel::Quote));
        let Some(pending) = pending else { return 0 };
        let count = std::mem::take(&mut pending.counts[Lane::Safe as usize]);
        if count > 0 {
            pending.dispatched[Lane::Safe as usize] = tick;
        }
        count
    }

    /// Takes the changed levels of a book.
    pub(super) fn take_levels(&mut self, interval: ConflationInterval, instrument: u32) -> Changed {
        self.intervals[interval.index()].books.remove(&instrument).unwrap_or_default()
    }

    /// The values that wait for a profile's tick.
    pub(super) fn queue(&self, interval: ConflationInterval) -> &[(u32, Channel)] {
        &self.intervals[interval.index()].queue
    }

    /// True if a value waits for the tick.
    pub(super) fn is_pending(
        &self,
        interval: ConflationInterval,
        instrument: u32,
        channel: Channel,
        lane: Lane,
    ) -> bool {
        self.at(interval, instrument, channel).is_some_and(|pending| pending.count(lane) > 0)
    }

    /// True if the value was dispatched after this turn, or waits to be.
    pub(super) fn is_news(
        &self,
        interval: ConflationInterval,
        instrument: u32,
        channel: Channel,
        lane: Lane,
        tick: u64,
    ) -> bool {
        let news = |pending: &Pending| pending.count(lane) > 0 || pending.dispatched[lane as usize] > tick;
        self.at(interval, instrument, channel).is_some_and(news)
    }

    fn at(&self, interval: ConflationInterval, instrument: u32, channel: Channel) -> Option<&Pending> {
        self.intervals[interval.index()].pending.get(index(instrument, channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(ms: u64) -> ConflationInterval {
        ConflationInterval::round_up(ms).expect("an offered interval")
    }

    fn levels(px: std::ops::Range<i64>) -> impl Iterator<Item = Level> {
        px.map(|px| Level { px, sz: 1, side: BookSide::Bid })
    }

    #[test]
    fn values_are_counted_until_they_are_taken_and_queued_once() {
        let mut conflator = Conflator::default();
        for _ in 0..3 {
            conflator.note(interval(100), 7, Channel::Ticker, false);
        }
        conflator.note(interval(100), 2, Channel::Ticker, false);
        conflator.note(interval(250), 2, Channel::Quote, false);
        assert_eq!(conflator.take_queue(interval(100)), [(7, Channel::Ticker), (2, Channel::Ticker)]);
        let taken = conflator.take(interval(100), 7, Channel::Ticker, 5);
        assert_eq!((taken.count(Lane::Plain), taken.count(Lane::Safe), taken.is_even()), (3, 3, true));
        assert_eq!(conflator.take(interval(100), 7, Channel::Ticker, 6).count(Lane::Plain), 0);
        assert!(conflator.is_pending(interval(250), 2, Channel::Quote, Lane::Plain), "another interval's is its own");
        assert!(!conflator.is_pending(interval(100), 2, Channel::Quote, Lane::Plain), "another channel's, too");
    }

    #[test]
    fn a_quote_taken_before_a_trade_still_waits_for_those_without_trades() {
        let mut conflator = Conflator::default();
        conflator.note(interval(100), 1, Channel::Quote, false);
        conflator.note(interval(100), 1, Channel::Quote, false);
        assert_eq!(conflator.take_safe(interval(100), 1, 3), 2);
        assert_eq!(conflator.take_safe(interval(100), 1, 4), 0);
        conflator.note(interval(100), 1, Channel::Quote, false);
        let taken = conflator.take(interval(100), 1, Channel::Quote, 5);
        assert_eq!((taken.count(Lane::Plain), taken.count(Lane::Safe), taken.is_even()), (3, 1, false));
    }

    #[test]
    fn news_is_what_waits_or_was_dispatched_after_the_turn() {
        let mut conflator = Conflator::default();
        let is_news =
            |conflator: &Conflator, lane, tick| conflator.is_news(interval(100), 1, Channel::Quote, lane, tick);
        assert!(!is_news(&conflator, Lane::Plain, 0));
        conflator.note(interval(100), 1, Channel::Quote, false);
        assert!(is_news(&conflator, Lane::Plain, 9));
        conflator.take_safe(interval(100), 1, 10);
        assert!(is_news(&conflator, Lane::Safe, 9) && !is_news(&conflator, Lane::Safe, 10));
        assert!(is_news(&conflator, Lane::Plain, 10));
        conflator.take(interval(100), 1, Channel::Quote, 12);
        assert!(is_news(&conflator, Lane::Plain, 11) && !is_news(&conflator, Lane::Plain, 12));
        assert!(!is_news(&conflator, Lane::Safe, 10), "nothing of the safe lane was dispatched at the tick");
    }

    #[test]
    fn ticks_are_multiples_of_the_interval_and_due_only_where_something_waits() {
        const MS: u64 = 1_000_000;
        let mut conflator = Conflator::default();
        let due = |conflator: &mut Conflator, now_ns| conflator.due(now_ns).collect::<Vec<_>>();
        assert_eq!(due(&mut conflator, 1234 * MS), []);
        assert_eq!(conflator.next_tick_ns(), None);
        conflator.note(interval(100), 1, Channel::Quote, false);
        conflator.note(interval(50), 1, Channel::Quote, false);
        assert_eq!(conflator.next_tick_ns(), Some(1250 * MS));
        assert_eq!(due(&mut conflator, 1250 * MS - 1), []);
        assert_eq!(due(&mut conflator, 1250 * MS), [interval(50)]);
        assert_eq!(due(&mut conflator, 1300 * MS), [interval(50), interval(100)]);
        for interval in [interval(50), interval(100)] {
            let queue = conflator.take_queue(interval);
            conflator.return_queue(interval, queue);
        }
        assert_eq!(due(&mut conflator, 5000 * MS), []);
        assert_eq!(conflator.next_tick_ns(), None);
    }

    #[test]
    fn changed_levels_come_once_each_at_their_present_size() {
        let mut conflator = Conflator::default();
        let mut book = Book::default();
        for round in [levels(5..8), levels(6..9)] {
            let round: Vec<Level> = round.collect();
            book.apply(BookAction::Delta, round.iter().copied());
            conflator.note_levels(interval(100), 1, BookAction::Delta, round.into_iter());
        }
        book.set(BookSide::Bid, 6, 0);
        book.set(BookSide::Bid, 7, 44);
        let present = conflator.take_levels(interval(100), 1).present(&book).expect("not whole");
        let present: Vec<(i64, i64)> = present.iter().map(|level| (level.px, level.sz)).collect();
        assert_eq!(present, [(5, 1), (6, 0), (7, 44), (8, 1)]);
        assert_eq!(conflator.take_levels(interval(100), 1).present(&book), Some(vec![]), "they were taken");
    }

    #[test]
    fn a_book_is_sent_whole_once_a_snapshot_or_too_many_levels_came() {
        let whole = |records: &[(BookAction, std::ops::Range<i64>)]| {
            let mut conflator = Conflator::default();
            for (action, px) in records {
                conflator.note_levels(interval(10), 1, *action, levels(px.clone()));
            }
            conflator.take_levels(interval(10), 1).present(&Book::default()).is_none()
        };
        let most = LEVELS_MAX as i64;
        assert!(whole(&[(BookAction::Delta, 0..3), (BookAction::Snapshot, 0..3), (BookAction::Delta, 0..3)]));
        assert!(!whole(&[(BookAction::Delta, 0..most)]));
        assert!(whole(&[(BookAction::Delta, 0..most + 1)]));
        assert!(whole(&[(BookAction::Delta, 0..most), (BookAction::Delta, most..most + 1), (BookAction::Delta, 0..1)]));
    }
}
