//! Where the sequences of log channels went on: what a Gap starts from, for a client whose records have been overwritten.
//!
//! While a client is behind, every log record that is read leaves an entry: its instrument and channel, its ring offset,
//! and the first sequence that it stands for. The first entry of a channel behind a client's ring offset so is the first
//! record that the client has not had. No client has a copy of the sequences of all instruments.
//!
//! What always holds: entries are in the order of their ring offsets, and none is missing behind [`LogTrail::from`].
//!
//! Memory: 24 bytes a log record since the client that is furthest behind, at most [`ENTRIES_MAX`] of them; nothing while
//! no client is behind. Cost: a comparison a log record, or the entry.

use std::collections::{BTreeMap, VecDeque};

use crate::ring::RingOffset;
use tickcast_protocol::Sequence;
use tickcast_protocol::record::Channel;

/// Entries that are kept: 24 MiB. A client that is further behind, and whose records are no longer in the ring, is
/// closed with 4002.
const ENTRIES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// End of the record in the ring.
    offset: RingOffset,
    first: Sequence,
    instrument: u32,
    channel: Channel,
}

/// The trail does not reach back to a client's ring offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooOld;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LogTrail {
    entries: VecDeque<Entry>,
    /// Entries are complete behind this ring offset; `None` while no client is behind.
    from: Option<RingOffset>,
}

impl LogTrail {
    /// Keeps entries from `offset` on, unless that has begun earlier.
    pub(super) fn begin(&mut self, offset: RingOffset) {
        self.from.get_or_insert(offset);
    }

    /// Notes a record or Gap that ends at `offset` and stands for the sequences from `first` on.
    #[inline]
    pub(super) fn note(&mut self, offset: RingOffset, instrument: u32, channel: Channel, first: Sequence) {
        if self.from.is_none() {
            return;
        }
        if self.entries.len() == ENTRIES_MAX {
            self.from = self.entries.pop_front().map(|oldest| oldest.offset);
        }
        self.entries.push_back(Entry { offset, first, instrument, channel });
    }

    /// The first sequence behind a ring offset, of each log channel that has gone on since.
    pub(super) fn firsts_after(&self, offset: RingOffset) -> Result<BTreeMap<(u32, Channel), Sequence>, TooOld> {
        if self.from.is_none_or(|from| offset < from) {
            return Err(TooOld);
        }
        let at = self.entries.partition_point(|entry| entry.offset <= offset);
        let mut firsts = BTreeMap::new();
        for entry in self.entries.range(at..) {
            firsts.entry((entry.instrument, entry.channel)).or_insert(entry.first);
        }
        Ok(firsts)
    }

    /// Forgets what no client needs: `oldest` is the lowest ring offset of all that are behind, `None` if none is.
    pub(super) fn forget(&mut self, oldest: Option<RingOffset>) {
        let Some(oldest) = oldest else {
            *self = Self::default();
            return;
        };
        let unneeded = self.entries.partition_point(|entry| entry.offset <= oldest);
        self.entries.drain(..unneeded);
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        self.from = self.from.map(|from| from.max(oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> RingOffset {
        RingOffset::new(offset)
    }

    fn trail() -> LogTrail {
        let mut trail = LogTrail::default();
        trail.note(at(8), 1, Channel::Trade, Sequence::new(1));
        trail.begin(at(10));
        trail.note(at(16), 1, Channel::Trade, Sequence::new(2));
        trail.note(at(24), 2, Channel::Raw, Sequence::new(7));
        trail.note(at(32), 1, Channel::Trade, Sequence::new(3));
        trail
    }

    fn firsts(trail: &LogTrail, offset: u64) -> Result<Vec<(u32, Channel, u64)>, TooOld> {
        let flat = |((instrument, channel), first): ((u32, Channel), Sequence)| (instrument, channel, first.get());
        trail.firsts_after(at(offset)).map(|firsts| firsts.into_iter().map(flat).collect())
    }

    #[test]
    fn first_sequence_behind_an_offset_is_found_for_each_channel() {
        let trail = trail();
        assert_eq!(firsts(&trail, 10), Ok(vec![(1, Channel::Trade, 2), (2, Channel::Raw, 7)]));
        assert_eq!(firsts(&trail, 16), Ok(vec![(1, Channel::Trade, 3), (2, Channel::Raw, 7)]));
        assert_eq!(firsts(&trail, 24), Ok(vec![(1, Channel::Trade, 3)]));
        assert_eq!(firsts(&trail, 32), Ok(vec![]));
    }

    #[test]
    fn offsets_before_the_trail_are_too_old() {
        let mut trail = trail();
        assert_eq!(firsts(&trail, 9), Err(TooOld));
        trail.forget(Some(at(16)));
        assert_eq!(firsts(&trail, 15), Err(TooOld));
        assert_eq!(firsts(&trail, 16), Ok(vec![(1, Channel::Trade, 3), (2, Channel::Raw, 7)]));
        trail.forget(None);
        assert_eq!(firsts(&trail, 32), Err(TooOld));
    }

    #[test]
    fn oldest_entries_are_forgotten_at_the_limit() {
        let mut trail = LogTrail::default();
        trail.begin(at(0));
        (1..=ENTRIES_MAX as u64 + 1).for_each(|n| trail.note(at(8 * n), 1, Channel::Raw, Sequence::new(n)));
        assert_eq!(firsts(&trail, 7), Err(TooOld));
        assert_eq!(firsts(&trail, 8), Ok(vec![(1, Channel::Raw, 2)]));
    }
}
