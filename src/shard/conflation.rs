//! Conflation, once a core and interval: at most one value per instrument and channel in an interval, the newest.
//!
//! For each interval in use and each state channel of an instrument, the conflator counts the values since the last one
//! that was dispatched. The value itself is the last value that the shard holds anyway. At the interval's boundary (a
//! multiple of the interval, in the time served) each pending value is encoded once and goes to all audiences that want
//! it. Of a book the changed levels are kept, and their present sizes are sent at the boundary.
//!
//! Quotes before trades: a pending quote is sent before the trade that follows it, to the audiences that get the trade.
//! From then on these have had the quote and the others have not, so there are two counts, see [`QuoteOrder`].
//!
//! Memory: 40 bytes an instrument and state channel for each interval in use, 16 a changed level.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use tickcast_protocol::record::{Channel, Level};
use tickcast_protocol::{BookAction, BookSide, ConflationInterval};

/// Changed levels of one book that are kept before the whole book is sent instead.
const LEVELS_MAX: usize = 4096;

/// How an audience gets the pending quotes of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuoteOrder {
    /// At the interval's boundary only. Holds for the other channels as well.
    Free,
    /// Also before each trade: the audience gets the trades of the instrument.
    BeforeTrade,
}

/// How many values of one instrument and channel are pending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Values since the last dispatch, by [`QuoteOrder`].
    counts: [u32; 2],
    /// Tick of the last dispatch, likewise.
    dispatched: [u64; 2],
    is_queued: bool,
}

impl Pending {
    /// Values that are pending in this order.
    pub(super) fn count(&self, order: QuoteOrder) -> u32 {
        self.counts[order as usize]
    }

    /// True if the same values are pending in both orders.
    pub(super) fn is_even(&self) -> bool {
        self.counts[0] == self.counts[1]
    }
}

/// A value that is taken at its interval's boundary.
#[derive(Debug)]
pub(super) struct PendingValue {
    pub(super) instrument: u32,
    pub(super) channel: Channel,
    pub(super) pending: Pending,
    /// Of a book.
    pub(super) levels: Option<ChangedLevels>,
}

/// The levels of a book that changed since the last boundary.
#[derive(Debug, Default)]
pub(super) struct ChangedLevels {
    levels: Vec<(BookSide, i64)>,
    /// The whole book is sent instead.
    is_whole: bool,
}

impl ChangedLevels {
    pub(super) fn note(&mut self, action: BookAction, levels: impl Iterator<Item = Level>) {
        self.is_whole |= action == BookAction::Snapshot;
        if !self.is_whole {
            self.levels.extend(levels.filter(|level| level.side.is_known()).map(|level| (level.side, level.px)));
            // Checked afterwards: one record may bring more levels than another can hold beside those that are here.
            self.is_whole = self.levels.len() > LEVELS_MAX;
        }
        if self.is_whole {
            self.levels = Vec::new();
        }
    }

    /// True if nothing has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty() && !self.is_whole
    }

    /// The present sizes of the changed levels, each once; `None` if the whole book has to be sent.
    pub(super) fn present(mut self, size: impl Fn(BookSide, i64) -> i64) -> Option<Vec<Level>> {
        if self.is_whole {
            return None;
        }
        self.levels.sort_unstable();
        self.levels.dedup();
        let level = |(side, px): (BookSide, i64)| Level { px, sz: size(side, px), side };
        Some(self.levels.into_iter().map(level).collect())
    }
}

#[derive(Debug, Default)]
struct IntervalState {
    /// The next boundary.
    boundary_ns: u64,
    pending: Vec<Pending>,
    queue: Vec<(u32, Channel)>,
    /// Values at the beginning of the queue that are due.
    due: usize,
    /// Of those, values that have been taken.
    taken: usize,
    books: HashMap<u32, ChangedLevels, RandomState>,
}

/// The state channels in the order in which they are kept.
const CHANNELS: [Channel; 3] = [Channel::Quote, Channel::Ticker, Channel::Book];

fn index(instrument: u32, channel: Channel) -> usize {
    let offset = CHANNELS.iter().position(|state| *state == channel).expect("only state channels are conflated");
    (instrument as usize - 1) * CHANNELS.len() + offset
}

/// The pending values of a shard, by interval.
#[derive(Debug, Default)]
pub(super) struct Conflator {
    intervals: [IntervalState; ConflationInterval::COUNT],
}

impl Conflator {
    /// Notes that a newer value has come; `jumped`: it stands for values that were lost.
    pub(super) fn note(&mut self, interval: ConflationInterval, instrument: u32, channel: Channel, jumped: bool) {
        let state = &mut self.intervals[interval.index()];
        let at = index(instrument, channel);
        if state.pending.len() <= at {
            state.pending.resize(at + 1, Pending::default());
        }
        let pending = &mut state.pending[at];
        pending.counts = pending.counts.map(|count| count.saturating_add(1 + u32::from(jumped)));
        if !pending.is_queued {
            pending.is_queued = true;
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

    /// The intervals that have values due, the shortest first: those whose boundary has come, whose next boundaries are
    /// set, and those whose due values have not all been taken.
    pub(super) fn due(&mut self, now_ns: u64) -> impl Iterator<Item = ConflationInterval> + use<> {
        let mut due = [false; ConflationInterval::COUNT];
        for (at, state) in self.intervals.iter_mut().enumerate().skip(1) {
            if now_ns >= state.boundary_ns {
                let interval_ns = ConflationInterval::from_index(at).interval_ns();
                state.boundary_ns = (now_ns / interval_ns + 1) * interval_ns;
                state.due = state.queue.len();
            }
            due[at] = state.due > 0;
        }
        (1..ConflationInterval::COUNT).filter(move |at| due[*at]).map(ConflationInterval::from_index)
    }

    /// When the next pending value is due, 0 if one is due already; `None` if nothing is pending.
    pub(super) fn next_boundary_ns(&self) -> Option<u64> {
        let waiting = self.intervals.iter().filter(|state| !state.queue.is_empty());
        waiting.map(|state| if state.due > 0 { 0 } else { state.boundary_ns }).min()
    }

    /// The values that wait for an interval's boundary, in the order in which they first came.
    pub(super) fn queue(&self, interval: ConflationInterval) -> &[(u32, Channel)] {
        let state = &self.intervals[interval.index()];
        &state.queue[state.taken..]
    }

    /// Has the book of an instrument sent whole: the levels that changed have other prices now.
    pub(super) fn forget_levels(&mut self, instrument: u32) {
        let changed = self.intervals.iter_mut().filter_map(|state| state.books.get_mut(&instrument));
        changed.for_each(|levels| levels.note(BookAction::Snapshot, std::iter::empty()));
    }

    /// Takes the next due value of an interval, and notes the tick of its dispatch; `None` if all have been taken.
    pub(super) fn take_due(&mut self, interval: ConflationInterval, tick: u64) -> Option<PendingValue> {
        let state = &mut self.intervals[interval.index()];
        if state.taken == state.due {
            state.queue.drain(..state.due);
            (state.due, state.taken) = (0, 0);
            return None;
        }
        let (instrument, channel) = state.queue[state.taken];
        state.taken += 1;
        let pending = &mut state.pending[index(instrument, channel)];
        let taken = *pending;
        for order in [QuoteOrder::Free, QuoteOrder::BeforeTrade] {
            if pending.counts[order as usize] > 0 {
                pending.dispatched[order as usize] = tick;
            }
        }
        pending.counts = [0, 0];
        pending.is_queued = false;
        let levels = (channel == Channel::Book).then(|| state.books.remove(&instrument).unwrap_or_default());
        Some(PendingValue { instrument, channel, pending: taken, levels })
    }

    /// Takes the quote that goes before a trade. Returns how many values it stands for.
    pub(super) fn take_before_trade(&mut self, interval: ConflationInterval, instrument: u32, tick: u64) -> u32 {
        let pending = self.intervals[interval.index()].pending.get_mut(index(instrument, Channel::Quote));
        let Some(pending) = pending else { return 0 };
        let order = QuoteOrder::BeforeTrade as usize;
        let count = std::mem::take(&mut pending.counts[order]);
        if count > 0 {
            pending.dispatched[order] = tick;
        }
        count
    }

    /// True if a value waits for the boundary.
    pub(super) fn is_pending(
        &self,
        interval: ConflationInterval,
        instrument: u32,
        channel: Channel,
        order: QuoteOrder,
    ) -> bool {
        self.at(interval, instrument, channel).is_some_and(|pending| pending.count(order) > 0)
    }

    /// True if a value is pending, or was dispatched after this tick.
    pub(super) fn changed_since(
        &self,
        interval: ConflationInterval,
        instrument: u32,
        channel: Channel,
        order: QuoteOrder,
        tick: u64,
    ) -> bool {
        let changed = |pending: &Pending| pending.count(order) > 0 || pending.dispatched[order as usize] > tick;
        self.at(interval, instrument, channel).is_some_and(changed)
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

    /// Takes all that is pending at an interval.
    fn take_all(conflator: &mut Conflator, interval: ConflationInterval, tick: u64) -> Vec<PendingValue> {
        conflator.intervals[interval.index()].due = conflator.queue(interval).len();
        std::iter::from_fn(|| conflator.take_due(interval, tick)).collect()
    }

    #[test]
    fn values_are_queued_once_and_counted_until_taken() {
        let mut conflator = Conflator::default();
        for _ in 0..3 {
            conflator.note(interval(100), 7, Channel::Ticker, false);
        }
        conflator.note(interval(100), 2, Channel::Ticker, false);
        conflator.note(interval(250), 2, Channel::Quote, false);
        assert_eq!(conflator.queue(interval(100)), [(7, Channel::Ticker), (2, Channel::Ticker)]);
        let taken = take_all(&mut conflator, interval(100), 5);
        let (value, pending) = (&taken[0], taken[0].pending);
        assert_eq!((value.instrument, value.channel, taken.len()), (7, Channel::Ticker, 2));
        let counts = (pending.count(QuoteOrder::Free), pending.count(QuoteOrder::BeforeTrade), pending.is_even());
        assert_eq!(counts, (3, 3, true));
        assert!(!conflator.is_pending(interval(100), 7, Channel::Ticker, QuoteOrder::Free), "taken");
        assert!(conflator.is_pending(interval(250), 2, Channel::Quote, QuoteOrder::Free), "another interval");
        assert!(!conflator.is_pending(interval(100), 2, Channel::Quote, QuoteOrder::Free), "another channel");
    }

    #[test]
    fn quote_taken_before_trade_stays_pending_without_trades() {
        let mut conflator = Conflator::default();
        conflator.note(interval(100), 1, Channel::Quote, false);
        conflator.note(interval(100), 1, Channel::Quote, false);
        assert_eq!(conflator.take_before_trade(interval(100), 1, 3), 2);
        assert_eq!(conflator.take_before_trade(interval(100), 1, 4), 0);
        conflator.note(interval(100), 1, Channel::Quote, false);
        let pending = take_all(&mut conflator, interval(100), 5)[0].pending;
        let counts = (pending.count(QuoteOrder::Free), pending.count(QuoteOrder::BeforeTrade), pending.is_even());
        assert_eq!(counts, (3, 1, false));
    }

    #[test]
    fn changed_since_is_pending_or_dispatched_later() {
        let mut conflator = Conflator::default();
        let changed =
            |conflator: &Conflator, order, tick| conflator.changed_since(interval(100), 1, Channel::Quote, order, tick);
        assert!(!changed(&conflator, QuoteOrder::Free, 0));
        conflator.note(interval(100), 1, Channel::Quote, false);
        assert!(changed(&conflator, QuoteOrder::Free, 9));
        conflator.take_before_trade(interval(100), 1, 10);
        assert!(changed(&conflator, QuoteOrder::BeforeTrade, 9) && !changed(&conflator, QuoteOrder::BeforeTrade, 10));
        assert!(changed(&conflator, QuoteOrder::Free, 10));
        take_all(&mut conflator, interval(100), 12);
        assert!(changed(&conflator, QuoteOrder::Free, 11) && !changed(&conflator, QuoteOrder::Free, 12));
        assert!(!changed(&conflator, QuoteOrder::BeforeTrade, 10), "nothing was pending at the boundary");
    }

    #[test]
    fn values_that_become_pending_while_others_are_due_wait_for_the_next_boundary() {
        const MS: u64 = 1_000_000;
        let mut conflator = Conflator::default();
        let due = |conflator: &mut Conflator, now_ns| conflator.due(now_ns).collect::<Vec<_>>();
        for instrument in [1, 2] {
            conflator.note(interval(100), instrument, Channel::Quote, false);
        }
        assert_eq!(due(&mut conflator, 100 * MS), [interval(100)]);
        let take = |conflator: &mut Conflator| conflator.take_due(interval(100), 7).map(|value| value.instrument);
        assert_eq!(take(&mut conflator), Some(1));
        conflator.note(interval(100), 1, Channel::Quote, false);
        assert_eq!(conflator.next_boundary_ns(), Some(0), "the second value is due");
        assert_eq!(due(&mut conflator, 101 * MS), [interval(100)]);
        assert_eq!((take(&mut conflator), take(&mut conflator)), (Some(2), None));
        assert_eq!(due(&mut conflator, 102 * MS), []);
        assert_eq!(conflator.next_boundary_ns(), Some(200 * MS));
        assert_eq!(due(&mut conflator, 200 * MS), [interval(100)]);
        assert_eq!((take(&mut conflator), take(&mut conflator)), (Some(1), None));
    }

    #[test]
    fn boundaries_are_multiples_of_the_interval_and_due_only_if_pending() {
        const MS: u64 = 1_000_000;
        let mut conflator = Conflator::default();
        let due = |conflator: &mut Conflator, now_ns| conflator.due(now_ns).collect::<Vec<_>>();
        assert_eq!(due(&mut conflator, 1234 * MS), []);
        assert_eq!(conflator.next_boundary_ns(), None);
        conflator.note(interval(100), 1, Channel::Quote, false);
        conflator.note(interval(50), 1, Channel::Quote, false);
        assert_eq!(conflator.next_boundary_ns(), Some(1250 * MS));
        assert_eq!(due(&mut conflator, 1250 * MS - 1), []);
        assert_eq!(due(&mut conflator, 1250 * MS), [interval(50)]);
        assert_eq!(due(&mut conflator, 1300 * MS), [interval(50), interval(100)]);
        take_all(&mut conflator, interval(50), 1);
        take_all(&mut conflator, interval(100), 1);
        assert_eq!(due(&mut conflator, 5000 * MS), []);
        assert_eq!(conflator.next_boundary_ns(), None);
    }

    /// Notes changes of one book and takes its levels.
    fn taken_levels(records: &[(BookAction, std::ops::Range<i64>)]) -> ChangedLevels {
        let mut conflator = Conflator::default();
        conflator.note(interval(10), 1, Channel::Book, false);
        for (action, px) in records {
            conflator.note_levels(interval(10), 1, *action, levels(px.clone()));
        }
        let levels = take_all(&mut conflator, interval(10), 1).remove(0).levels.expect("of a book");
        conflator.note(interval(10), 1, Channel::Book, false);
        let again = take_all(&mut conflator, interval(10), 2).remove(0).levels.expect("of a book");
        assert_eq!(again.present(|_, _| 0), Some(vec![]), "they were taken");
        levels
    }

    #[test]
    fn changed_levels_come_once_each_with_their_present_size() {
        let mut book = tickcast_protocol::Book::default();
        for px in [5..8, 6..9] {
            book.apply(BookAction::Delta, levels(px));
        }
        book.set(BookSide::Bid, 6, 0);
        book.set(BookSide::Bid, 7, 44);
        let present = taken_levels(&[(BookAction::Delta, 5..8), (BookAction::Delta, 6..9)])
            .present(|side, px| book.size(side, px))
            .expect("not whole");
        let present: Vec<(i64, i64)> = present.iter().map(|level| (level.px, level.sz)).collect();
        assert_eq!(present, [(5, 1), (6, 0), (7, 44), (8, 1)]);
    }

    #[test]
    fn book_is_sent_whole_after_a_snapshot_or_too_many_levels() {
        let is_whole = |records: &[_]| taken_levels(records).present(|_, _| 0).is_none();
        let most = LEVELS_MAX as i64;
        assert!(is_whole(&[(BookAction::Delta, 0..3), (BookAction::Snapshot, 0..3), (BookAction::Delta, 0..3)]));
        assert!(!is_whole(&[(BookAction::Delta, 0..most)]));
        assert!(is_whole(&[(BookAction::Delta, 0..most + 1)]));
        assert!(is_whole(&[
            (BookAction::Delta, 0..most),
            (BookAction::Delta, most..most + 1),
            (BookAction::Delta, 0..1)
        ]));
    }
}
