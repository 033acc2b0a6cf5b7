//! The venue's local-book procedure, as a state machine over update ids. It holds updates, never the book itself: a
//! snapshot and the updates after it are passed on unchanged, and the subscriber applies them.
//!
//! The procedure (Binance, "How to manage a local order book correctly"): hold the updates until a snapshot; drop those
//! that it covers; the first remaining one must follow it, else the snapshot is too old; from then on each update must
//! follow the previous one, else an update was missed and the procedure starts again.
//!
//! Succession: in spot an update from `U` to `u` follows id `x` when `U <= x + 1 <= u`. In futures the first after a
//! snapshot `x` has `U <= x <= u`, and every later one names its predecessor's `u` in `pu`.
//!
//! The held updates are bounded: [`HELD_UPDATES_MAX`] updates and [`HELD_LEVELS_MAX`] levels, at most 1.6 MB an
//! instrument. Beyond that the oldest are dropped, and a snapshot that would need them is too old.

use std::collections::VecDeque;

use tickcast_protocol::record::Level;

/// Updates held for a snapshot: 100 s at the venue's usual 100 ms.
pub const HELD_UPDATES_MAX: usize = 1024;
/// Total levels of the held updates.
pub const HELD_LEVELS_MAX: usize = 65_536;

/// The ids of one depth update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// `U`
    pub first: u64,
    /// `u`
    pub last: u64,
    /// `pu`, in futures only.
    pub previous: Option<u64>,
}

/// An update held for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub ids: Ids,
    /// Venue time, ns.
    pub ts_event: u64,
    pub levels: Vec<Level>,
}

/// The verdict on a depth update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It follows the previous update: publish it now.
    Apply,
    /// The book already contains it.
    Old,
    /// It was held; there is no book yet.
    Held,
    /// Updates before it are missing: the book is void. It was held for the next snapshot.
    Gap,
}

/// The synchronisation state of one instrument's book.
#[derive(Debug)]
pub struct BookSync {
    futures: bool,
    state: State,
    /// Consecutive updates without a gap.
    held: VecDeque<Held>,
    held_levels: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No book: updates are held.
    Waiting,
    /// The book is the snapshot of this id; no update has followed yet.
    Snapshot(u64),
    /// The book is valid up to the update that ended with this id.
    Live(u64),
}

impl BookSync {
    /// A book that waits for its first snapshot.
    pub fn new(futures: bool) -> Self {
        Self { futures, state: State::Waiting, held: VecDeque::new(), held_levels: 0 }
    }

    /// The same for another connection.
    pub fn successor(&self) -> Self {
        Self::new(self.futures)
    }

    /// True while there is no book.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// The id up to which the book is valid.
    pub fn last_id(&self) -> Option<u64> {
        match self.state {
            State::Waiting => None,
            State::Snapshot(id) | State::Live(id) => Some(id),
        }
    }

    /// True once an update was held for a snapshot, or a book was there.
    pub fn has_begun(&self) -> bool {
        !self.is_waiting() || !self.held.is_empty()
    }

    /// Forgets the book and the held updates.
    pub fn clear(&mut self) {
        *self = Self::new(self.futures);
    }

    /// Carries the held updates over to other exponents. Levels that do not fit there are left out; true if there are any.
    pub fn rescale(&mut self, rescale: impl Fn(&Level) -> Option<Level>) -> bool {
        let before = self.held_levels;
        for held in &mut self.held {
            held.levels = held.levels.iter().filter_map(&rescale).collect();
        }
        self.held_levels = self.held.iter().map(|held| held.levels.len()).sum();
        self.held_levels < before
    }

    /// Processes an update of the stream.
    pub fn update(&mut self, ids: Ids, ts_event: u64, levels: &[Level]) -> Verdict {
        let follows = match self.state {
            State::Waiting => {
                self.hold(ids, ts_event, levels);
                return Verdict::Held;
            }
            State::Snapshot(id) if self.covers(id, ids) => return Verdict::Old,
            State::Snapshot(id) => self.joins_snapshot(id, ids),
            State::Live(last) if ids.last <= last => return Verdict::Old,
            State::Live(last) => self.joins_update(last, ids),
        };
        if follows {
            self.state = State::Live(ids.last);
            return Verdict::Apply;
        }
        self.state = State::Waiting;
        self.hold(ids, ts_event, levels);
        Verdict::Gap
    }

    /// True if a snapshot replaces the book: it is not older than that or than the first held update.
    pub fn is_next(&self, id: u64) -> bool {
        match self.state {
            State::Snapshot(have) | State::Live(have) if id <= have => return false,
            _ => {}
        }
        let first = self.held.iter().find(|held| !self.covers(id, held.ids));
        first.is_none_or(|first| self.joins_snapshot(id, first.ids))
    }

    /// Processes a snapshot, and returns the held updates that follow it. `None` if it is to be skipped, see
    /// [`Self::is_next`].
    pub fn snapshot(&mut self, id: u64) -> Option<VecDeque<Held>> {
        if !self.is_next(id) {
            return None;
        }
        let mut following = std::mem::take(&mut self.held);
        self.held_levels = 0;
        following.retain(|held| !self.covers(id, held.ids));
        self.state = following.back().map_or(State::Snapshot(id), |last| State::Live(last.ids.last));
        Some(following)
    }

    /// True where the snapshot contains the whole update. Futures apply the update that ends with the same id again:
    /// sizes are absolute, so it changes nothing, and it is the link to the next one's `pu`.
    fn covers(&self, snapshot: u64, ids: Ids) -> bool {
        if self.futures { ids.last < snapshot } else { ids.last <= snapshot }
    }

    fn joins_snapshot(&self, snapshot: u64, ids: Ids) -> bool {
        if self.futures {
            // An update with `pu` equal to the snapshot's id follows it directly, even if `U` is greater.
            ids.first <= snapshot && snapshot <= ids.last || ids.previous == Some(snapshot)
        } else {
            ids.first <= snapshot.saturating_add(1)
        }
    }

    fn joins_update(&self, last: u64, ids: Ids) -> bool {
        if self.futures { ids.previous == Some(last) } else { ids.first <= last.saturating_add(1) }
    }

    fn hold(&mut self, ids: Ids, ts_event: u64, levels: &[Level]) {
        if let Some(newest) = self.held.back() {
            if ids.last <= newest.ids.last {
                return;
            }
            if !self.joins_update(newest.ids.last, ids) {
                // Updates before a gap are useless after it.
                self.held.clear();
                self.held_levels = 0;
            }
        }
        self.held_levels += levels.len();
        self.held.push_back(Held { ids, ts_event, levels: levels.to_vec() });
        while self.held.len() > HELD_UPDATES_MAX || self.held_levels > HELD_LEVELS_MAX {
            let oldest = self.held.pop_front().expect("only held updates have counted levels");
            self.held_levels -= oldest.levels.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(first: u64, last: u64) -> Ids {
        Ids { first, last, previous: None }
    }

    fn futures(previous: u64, first: u64, last: u64) -> Ids {
        Ids { first, last, previous: Some(previous) }
    }

    fn feed(sync: &mut BookSync, all: &[Ids]) -> Vec<Verdict> {
        all.iter().map(|ids| sync.update(*ids, 0, &[])).collect()
    }

    fn following(sync: &mut BookSync, id: u64) -> Option<Vec<u64>> {
        sync.snapshot(id).map(|held| held.iter().map(|held| held.ids.last).collect())
    }

    #[test]
    fn spot_snapshot_keeps_the_updates_it_does_not_cover() {
        let mut sync = BookSync::new(false);
        assert!(!sync.has_begun());
        assert_eq!(feed(&mut sync, &[spot(1, 5), spot(6, 9), spot(10, 12)]), [Verdict::Held; 3]);
        assert!(sync.is_waiting() && sync.has_begun());
        assert_eq!(following(&mut sync, 7), Some(vec![9, 12]));
        assert_eq!(
            feed(&mut sync, &[spot(13, 13), spot(11, 13), spot(15, 16)]),
            [Verdict::Apply, Verdict::Old, Verdict::Gap]
        );
        assert!(sync.is_waiting());
        assert_eq!(following(&mut sync, 14), Some(vec![16]), "the update that revealed the gap was held");
    }

    #[test]
    fn spot_snapshot_may_end_right_before_the_first_update_or_after_the_last() {
        let mut sync = BookSync::new(false);
        feed(&mut sync, &[spot(6, 9)]);
        assert_eq!(following(&mut sync, 5), Some(vec![9]));
        let mut sync = BookSync::new(false);
        feed(&mut sync, &[spot(6, 9)]);
        assert_eq!(following(&mut sync, 20), Some(vec![]));
        assert_eq!(feed(&mut sync, &[spot(10, 20), spot(21, 22)]), [Verdict::Old, Verdict::Apply]);
    }

    #[test]
    fn snapshot_older_than_the_held_updates_is_skipped() {
        for (ids, too_old, good) in [(spot(6, 9), 4, 5), (futures(4, 6, 9), 5, 6)] {
            let mut sync = BookSync::new(ids.previous.is_some());
            feed(&mut sync, &[ids]);
            assert_eq!(following(&mut sync, too_old), None);
            assert!(sync.is_waiting());
            assert_eq!(following(&mut sync, good), Some(vec![9]));
        }
    }

    #[test]
    fn futures_join_the_snapshot_by_range_and_then_by_the_previous_id() {
        let mut sync = BookSync::new(true);
        feed(&mut sync, &[futures(1, 3, 7), futures(7, 9, 12), futures(12, 15, 20)]);
        assert_eq!(following(&mut sync, 12), Some(vec![12, 20]), "the update that ends at the snapshot is the link");
        // The ids between two updates belong to other instruments: only `pu` shows a gap.
        assert_eq!(feed(&mut sync, &[futures(20, 25, 30), futures(31, 32, 33)]), [Verdict::Apply, Verdict::Gap]);
    }

    #[test]
    fn futures_updates_join_a_snapshot_ahead_of_the_stream() {
        let mut sync = BookSync::new(true);
        assert_eq!(following(&mut sync, 12), Some(vec![]));
        assert_eq!(feed(&mut sync, &[futures(1, 3, 7), futures(7, 9, 14)]), [Verdict::Old, Verdict::Apply]);
        let mut sync = BookSync::new(true);
        following(&mut sync, 12);
        assert_eq!(feed(&mut sync, &[futures(12, 14, 15)]), [Verdict::Apply]);
        let mut sync = BookSync::new(true);
        following(&mut sync, 12);
        assert_eq!(feed(&mut sync, &[futures(13, 14, 15)]), [Verdict::Gap]);
    }

    #[test]
    fn snapshot_replaces_a_valid_book_only_if_it_is_newer() {
        let mut sync = BookSync::new(false);
        following(&mut sync, 5);
        feed(&mut sync, &[spot(6, 9)]);
        assert_eq!(following(&mut sync, 9), None);
        assert_eq!(following(&mut sync, 11), Some(vec![]));
        assert_eq!(feed(&mut sync, &[spot(10, 11), spot(12, 13)]), [Verdict::Old, Verdict::Apply]);
    }

    #[test]
    fn gap_in_held_updates_drops_those_before_it() {
        let mut sync = BookSync::new(false);
        feed(&mut sync, &[spot(1, 5), spot(8, 9)]);
        assert_eq!(following(&mut sync, 4), None);
        assert_eq!(following(&mut sync, 7), Some(vec![9]));
    }

    #[test]
    fn held_updates_stay_bounded_without_a_snapshot() {
        let levels = vec![Level { px: 1, sz: 1, side: tickcast_protocol::BookSide::Bid }; 1000];
        let mut sync = BookSync::new(false);
        for id in 1..=5000 {
            sync.update(spot(id, id), 0, if id < 3000 { &[] } else { &levels });
            assert!(sync.held.len() <= HELD_UPDATES_MAX && sync.held_levels <= HELD_LEVELS_MAX);
        }
        assert_eq!(sync.held.len(), HELD_LEVELS_MAX / 1000);
        assert_eq!(following(&mut sync, 4000), None, "its updates were dropped");
        assert_eq!(following(&mut sync, 4998), Some(vec![4999, 5000]));
        assert_eq!(sync.held_levels, 0);
    }
}
