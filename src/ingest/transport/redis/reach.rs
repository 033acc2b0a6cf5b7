//! How far a stream is read, and what of it was trimmed before it was read.
//!
//! Redis trims the oldest entries, and says the id of the first one that it has. While that is not above the newest one
//! that was read, nothing is missing. Where it is, the numbers of entries decide: Redis counts those that were ever added
//! (since version 7), so it is known how many there were up to the last one that was read now. Where the count is not
//! known, one is taken as lost.

/// What Redis says of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamNow {
    /// The last id that it gave.
    pub last: u128,
    /// The id of the first entry that it has; `None` if it has none.
    pub first: Option<u128>,
    /// Entries that it has.
    pub length: u64,
    /// Entries that were ever added.
    pub added: Option<u64>,
}

/// How far a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The newest id that was read.
    pub newest: u128,
    /// Entries that were ever added up to there, if that is known.
    count: Option<u64>,
}

impl Reach {
    /// Reading begins behind this id. `read` is how many entries were added up to there, if Redis says so. With
    /// `is_fresh` nothing was read before, and what was trimmed is no loss.
    pub fn begin(newest: u128, read: Option<u64>, is_fresh: bool, now: &StreamNow) -> Self {
        let is_before_all = now.first.is_none_or(|first| newest < first);
        let count = if newest >= now.last {
            now.added
        } else if is_fresh && is_before_all {
            now.added.map(|added| added.saturating_sub(now.length))
        } else {
            read
        };
        Self { newest, count }
    }

    /// Takes entries with these ids, which grow, and what Redis said after they were read. Returns how many entries were
    /// lost before the last of them.
    pub fn advance(&mut self, ids: &[u128], now: &StreamNow) -> u64 {
        let Some(last) = ids.last().copied() else { return 0 };
        let read = ids.len() as u64;
        let is_whole = now.first.is_some_and(|first| first <= self.newest);
        self.newest = self.newest.max(last);
        if is_whole {
            let known = if last >= now.last { now.added } else { None };
            self.count = known.or(self.count.map(|count| count + read));
            return 0;
        }
        // Of the entries that there are, those up to the last one are all among these.
        let kept = now.first.map_or(0, |first| ids.iter().filter(|id| **id >= first).count() as u64);
        let truth = now.added.map(|added| added.saturating_sub(now.length.saturating_sub(kept)));
        let lost = match (truth, self.count) {
            (Some(truth), Some(count)) => truth.saturating_sub(count + read),
            _ => 1,
        };
        self.count = truth;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that is trimmed to so many entries, with a reader.
    struct Model {
        added: u64,
        kept: u64,
    }

    impl Model {
        fn now(&self) -> StreamNow {
            let length = self.added.min(self.kept);
            let first = (length > 0).then(|| u128::from(self.added - length + 1));
            StreamNow { last: self.added.into(), first, length, added: Some(self.added) }
        }

        /// What a read of at most `count` entries behind `newest` brings.
        fn read(&self, newest: u128, count: usize) -> Vec<u128> {
            let first = self.now().first.unwrap_or(u128::MAX).max(newest + 1);
            (first..=u128::from(self.added)).take(count).collect()
        }
    }

    #[test]
    fn losses_are_counted_exactly_whatever_is_added_between_reads() {
        for kept in [1, 3, 10, 1000] {
            let mut stream = Model { added: 5, kept };
            let mut reach = Reach::begin(0, None, true, &stream.now());
            let (mut read, mut lost) = (0, 0);
            let before = stream.added - stream.now().length;
            for added in [0, 1, 0, 2, 12, 3, 40, 1, 1, 5, 2000, 0, 1] {
                stream.added += added;
                let ids = stream.read(reach.newest, 7);
                read += ids.len() as u64;
                lost += reach.advance(&ids, &stream.now());
                let seen = u64::try_from(reach.newest).expect("small");
                assert_eq!(before + read + lost, seen, "kept {kept}, added {added}");
            }
        }
    }

    #[test]
    fn loss_without_counts_is_one() {
        let state = |first, last| StreamNow { last, first: Some(first), length: 1, added: None };
        let mut reach = Reach::begin(5, None, false, &state(1, 9));
        assert_eq!(reach.advance(&[6, 7], &state(3, 9)), 0);
        assert_eq!(reach.advance(&[9], &state(9, 9)), 1);
        assert_eq!(reach.advance(&[], &state(12, 12)), 0);
    }

    #[test]
    fn what_was_trimmed_while_a_group_was_away_is_counted() {
        let stream = Model { added: 100, kept: 10 };
        let mut reach = Reach::begin(50, Some(50), false, &stream.now());
        assert_eq!(reach.advance(&stream.read(50, 100), &stream.now()), 40);
    }
}
