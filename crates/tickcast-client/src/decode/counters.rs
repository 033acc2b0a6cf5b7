//! What a decoder counts.

use serde::{Deserialize, Serialize};

use tickcast_protocol::record::{Gap, flags};
use tickcast_protocol::{Channel, Sequence};

/// What a stream has contained since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeCounters {
    /// Packets.
    pub packets: u64,
    /// Records of channels: all but definitions, heartbeats, gaps, status, and types unknown to this version.
    pub records: u64,
    /// The same by channel, in the order of [`Channel::ALL`].
    pub by_channel: [u64; Channel::COUNT],
    /// Those of `records` that are marked SNAPSHOT.
    pub snapshots: u64,
    /// Those of `records` that are marked CONFLATED.
    pub conflated: u64,
    /// Gap records.
    pub gaps: u64,
    /// Records that the Gap records announce as missing.
    pub lost: u64,
    /// Breaks of the rule, see [`SequenceViolation`](super::SequenceViolation).
    pub violations: u64,
    /// Records of types that this version does not know.
    pub skipped: u64,
    /// Sequences that live records account for: their own, those merged into them, and those of Gap records.
    pub covered: u64,
}

impl DecodeCounters {
    /// Adds the counters of another connection.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// What has been counted since `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (now, then) in self.numbers().into_iter().zip(before.clone().numbers()) {
            *now -= *then;
        }
        self
    }

    /// Counts a record of a channel.
    #[inline]
    pub fn count_record(&mut self, channel: Channel, record_flags: u8) {
        self.records += 1;
        self.by_channel[channel as usize] += 1;
        self.snapshots += u64::from(record_flags & flags::SNAPSHOT != 0);
        self.conflated += u64::from(record_flags & flags::CONFLATED != 0);
    }

    /// Counts a Gap record after the sequence `last`; false where it does not continue from there.
    pub fn count_gap(&mut self, gap: &Gap, last: Sequence) -> bool {
        let missing = gap.missing();
        self.gaps += 1;
        // A server may send any numbers: the sums stop at the greatest.
        self.lost = self.lost.saturating_add(missing);
        self.count_covered(missing);
        let is_range = !gap.from_sequence.is_none() && gap.to_sequence >= gap.from_sequence;
        is_range && (last.is_none() || gap.from_sequence.previous() == last)
    }

    /// Counts sequences that are accounted for.
    #[inline]
    pub fn count_covered(&mut self, sequences: u64) {
        self.covered = self.covered.saturating_add(sequences);
    }

    fn numbers(&mut self) -> [&mut u64; 9 + Channel::COUNT] {
        let Self { packets, records, by_channel, snapshots, conflated, gaps, lost, violations, skipped, covered } =
            self;
        let [quote, trade, ticker, book, raw] = by_channel;
        [
            packets, records, quote, trade, ticker, book, raw, snapshots, conflated, gaps, lost, violations, skipped,
            covered,
        ]
    }
}
