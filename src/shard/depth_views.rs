//! Books of a limited depth, for audiences whose rights give them no more.
//!
//! A view is the best levels of both sides of one instrument's book, so many of each. Each change of the book is compared
//! with it: levels that have another size, that have come among the best because another one left, and that have left
//! them. All audiences with that depth share the outcome, whatever rights they have; for conflated ones it is gathered
//! until their interval's boundary, as the changes of whole books are.
//!
//! What always holds:
//! * What a view gives for sending has no level beyond its depth, but for the removal of one that was within it.
//! * A view that has not followed every change of its book is read anew, and gives the whole of it: so views need not be
//!   there before they are used, and may be forgotten at any time.
//! * Who has been sent the view as of any time, and each outcome since, has the view.
//!
//! Cost: for a change beyond the depth, a comparison a level; else twice the depth. Nothing where no rights limit books.
//! Memory: 32 bytes a level of depth for each instrument and depth in use.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::conflation::ChangedLevels;
use crate::last_value::BookState;
use tickcast_protocol::record::{self, Level, flags};
use tickcast_protocol::{Book, BookAction, BookSide, ConflationInterval, Sequence};

/// Changes of its book after which a view is forgotten that nothing was sent of.
const IDLE_MAX: u32 = 4096;

/// What is sent of a change: levels to set, or the whole view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) action: BookAction,
    pub(super) levels: Vec<Level>,
}

/// What is sent at once, and whether it stands for changes that were not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Immediate {
    pub(super) outcome: Outcome,
    pub(super) is_merged: bool,
}

/// What has changed in a view since the last boundary of an interval.
#[derive(Debug)]
struct Gathered {
    interval: ConflationInterval,
    levels: ChangedLevels,
    /// The flags of the book have changed.
    is_flagged: bool,
}

/// See the module.
#[derive(Debug)]
struct View {
    depth: usize,
    /// Of the change up to which it has followed the book.
    sequence: Sequence,
    /// Those of the book.
    flags: u8,
    /// Both best first.
    bids: Vec<(i64, i64)>,
    asks: Vec<(i64, i64)>,
    /// What the newest change came to.
    newest: Outcome,
    /// It also changed the flags of the book.
    is_flagged: bool,
    /// The newest change of which something was sent at once, and whether its event goes on after it.
    sent: Sequence,
    is_open: bool,
    gathered: Vec<Gathered>,
    /// Changes since something was sent.
    idle: u32,
}

impl View {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            sequence: Sequence::NONE,
            flags: 0,
            bids: Vec::new(),
            asks: Vec::new(),
            newest: Outcome { action: BookAction::Delta, levels: Vec::new() },
            is_flagged: false,
            sent: Sequence::NONE,
            is_open: false,
            gathered: Vec::new(),
            idle: 0,
        }
    }

    /// Follows a change of the book, which `state` is after.
    fn follow(&mut self, change: &BookChange<'_>) {
        let BookChange { before, sequence, action, record, state } = *change;
        self.idle += 1;
        self.is_flagged = self.flags != state.flags;
        if action == BookAction::Snapshot || self.sequence != before {
            self.read_anew(&state.levels);
        } else {
            let mut levels = Vec::new();
            for side in [BookSide::Bid, BookSide::Ask] {
                if self.concerns(side, record) {
                    self.compare(side, &state.levels, &mut levels);
                }
            }
            self.newest = match levels.len() {
                0..=record::BOOK_LEVELS_MAX => Outcome { action: BookAction::Delta, levels },
                _ => self.whole(),
            };
        }
        (self.sequence, self.flags) = (sequence, state.flags);
        for gathered in &mut self.gathered {
            gathered.levels.note(self.newest.action, self.newest.levels.iter().copied());
            gathered.is_flagged |= self.is_flagged;
        }
    }

    /// Has the view show the book as it is, where it has not followed it.
    fn catch_up(&mut self, sequence: Sequence, state: &BookState) {
        if self.sequence == sequence {
            return;
        }
        self.read_anew(&state.levels);
        (self.sequence, self.flags) = (sequence, state.flags);
        self.gathered.iter_mut().for_each(|gathered| gathered.levels.note(BookAction::Snapshot, [].into_iter()));
    }

    fn read_anew(&mut self, book: &Book) {
        self.bids = book.bids().take(self.depth).collect();
        self.asks = book.asks().take(self.depth).collect();
        self.newest = self.whole();
    }

    fn whole(&self) -> Outcome {
        let of = |side| move |(px, sz): &(i64, i64)| Level { px: *px, sz: *sz, side };
        let levels = self.bids.iter().map(of(BookSide::Bid)).chain(self.asks.iter().map(of(BookSide::Ask)));
        Outcome { action: BookAction::Snapshot, levels: levels.collect() }
    }

    /// True if a changed level of a side is among the best ones, or would be.
    fn concerns(&self, side: BookSide, record: &[u8]) -> bool {
        let levels = if side == BookSide::Bid { &self.bids } else { &self.asks };
        let last = levels.last().filter(|_| levels.len() == self.depth);
        let is_beyond = |px: i64| last.is_some_and(|(worst, _)| is_better(side, *worst, px));
        let changed = record::read_book(record).into_iter().flat_map(|(_, levels)| levels);
        changed.filter(|level| level.side == side).any(|level| !is_beyond(level.px))
    }

    /// Takes the best levels of a side from the book; appends what is different.
    fn compare(&mut self, side: BookSide, book: &Book, out: &mut Vec<Level>) {
        let (best, new): (&mut Vec<_>, Vec<_>) = match side {
            BookSide::Bid => (&mut self.bids, book.bids().take(self.depth).collect()),
            _ => (&mut self.asks, book.asks().take(self.depth).collect()),
        };
        let old = std::mem::replace(best, new);
        let (mut old, mut new) = (old.iter().peekable(), best.iter().peekable());
        loop {
            let level = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some((px, sz)), Some((new_px, new_sz))) if px == new_px => {
                    let change = (sz != new_sz).then_some((*px, *new_sz));
                    old.next();
                    new.next();
                    let Some(change) = change else { continue };
                    change
                }
                (Some((px, _)), other) if other.is_none_or(|(new_px, _)| is_better(side, *px, *new_px)) => {
                    let removed = (*px, 0);
                    old.next();
                    removed
                }
                (_, Some((px, sz))) => {
                    let added = (*px, *sz);
                    new.next();
                    added
                }
                (Some(_), None) => unreachable!("it is removed above"),
            };
            out.push(Level { px: level.0, sz: level.1, side });
        }
    }

    /// The size at a price; 0 if that is not in the view.
    fn size(&self, side: BookSide, px: i64) -> i64 {
        let levels = if side == BookSide::Bid { &self.bids } else { &self.asks };
        let at = levels.partition_point(|(other, _)| is_better(side, *other, px));
        levels.get(at).filter(|(other, _)| *other == px).map_or(0, |(_, sz)| *sz)
    }

    /// What is sent at once of the newest change, whose record has these flags; `None` if its clients see nothing of it.
    fn take_newest(&mut self, record_flags: u8) -> Option<Immediate> {
        self.idle = 0;
        let is_last = record_flags & flags::LAST != 0;
        let has_news = self.is_flagged || self.newest.action == BookAction::Snapshot || !self.newest.levels.is_empty();
        // The end of an event, of which something was sent, is told.
        let is_end = is_last && self.is_open;
        if !has_news && !is_end {
            return None;
        }
        self.is_open = !is_last;
        let is_merged = self.sent != self.sequence.previous();
        self.sent = self.sequence;
        Some(Immediate { outcome: self.newest.clone(), is_merged })
    }

    /// What is sent at the boundary of an interval; `None` if nothing has changed since the last one.
    fn take_gathered(&mut self, interval: ConflationInterval) -> Option<Outcome> {
        self.idle = 0;
        let known = self.gathered.iter_mut().find(|gathered| gathered.interval == interval);
        let Some(gathered) = known else {
            self.gathered.push(Gathered { interval, levels: ChangedLevels::default(), is_flagged: false });
            return Some(self.whole());
        };
        let is_flagged = std::mem::take(&mut gathered.is_flagged);
        let levels = std::mem::take(&mut gathered.levels);
        if levels.is_empty() && !is_flagged {
            return None;
        }
        let levels = levels.present(|side, px| self.size(side, px));
        let fitting = levels.filter(|levels| levels.len() <= record::BOOK_LEVELS_MAX);
        Some(fitting.map_or_else(|| self.whole(), |levels| Outcome { action: BookAction::Delta, levels }))
    }
}

/// True if a price is nearer to the middle of the book than another one.
fn is_better(side: BookSide, px: i64, other: i64) -> bool {
    if side == BookSide::Bid { px > other } else { px < other }
}

/// A change of a book.
#[derive(Clone, Copy, Debug)]
pub(super) struct BookChange<'a> {
    /// The sequence of the change before.
    pub(super) before: Sequence,
    pub(super) sequence: Sequence,
    pub(super) action: BookAction,
    /// The whole record.
    pub(super) record: &'a [u8],
    /// The book after it.
    pub(super) state: &'a BookState,
}

/// The views of a shard.
#[derive(Debug, Default)]
pub(super) struct DepthViews {
    by_instrument: HashMap<u32, Vec<View>, RandomState>,
}

impl DepthViews {
    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_instrument.is_empty()
    }

    /// Has the views of an instrument follow a change of its book.
    pub(super) fn follow(&mut self, instrument: u32, change: &BookChange<'_>) {
        let Some(views) = self.by_instrument.get_mut(&instrument) else { return };
        views.retain_mut(|view| {
            view.follow(change);
            view.idle < IDLE_MAX
        });
        if views.is_empty() {
            self.by_instrument.remove(&instrument);
        }
    }

    /// What is sent at once of the newest change, whose record has these flags, to clients with this depth; `None` if they
    /// see nothing of it.
    pub(super) fn take_newest(
        &mut self,
        instrument: u32,
        depth: usize,
        (sequence, state): (Sequence, &BookState),
        record_flags: u8,
    ) -> Option<Immediate> {
        let view = self.view(instrument, depth);
        view.catch_up(sequence, state);
        view.take_newest(record_flags)
    }

    /// What is sent at the boundary of an interval to clients with this depth; `None` if they see nothing new.
    pub(super) fn take_gathered(
        &mut self,
        instrument: u32,
        depth: usize,
        (sequence, state): (Sequence, &BookState),
        interval: ConflationInterval,
    ) -> Option<Outcome> {
        let view = self.view(instrument, depth);
        view.catch_up(sequence, state);
        view.take_gathered(interval)
    }

    /// Forgets the views of an instrument: its prices have other exponents now, or there are none any more.
    pub(super) fn forget(&mut self, instrument: u32) {
        self.by_instrument.remove(&instrument);
    }

    fn view(&mut self, instrument: u32, depth: usize) -> &mut View {
        let views = self.by_instrument.entry(instrument).or_default();
        let at = views.iter().position(|view| view.depth == depth).unwrap_or_else(|| {
            views.push(View::new(depth));
            views.len() - 1
        });
        &mut views[at]
    }
}

#[cfg(test)]
mod tests;
