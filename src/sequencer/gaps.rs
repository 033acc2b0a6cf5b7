//! Losses that sources report. Their number of sequences is skipped, so the number is bounded by what was seen.
//!
//! What always holds: of an instrument and channel at most [`SKIPPED_FREE`] sequences are skipped, and
//! [`SKIPPED_PER_RECORD`] more for each record that was sequenced. So sequences stay near the number of records, far below
//! 2⁵³, and no Gap record makes later records look old to a client.

use super::{Sequencer, SourceId};
use tickcast_protocol::record::{Channel, Gap};
use tickcast_protocol::{GapReason, Sequence};

/// Sequences that may be skipped before anything was seen: a source may have been away for a while.
pub const SKIPPED_FREE: u64 = 1_000_000;
/// Sequences that may be skipped for each record seen.
pub const SKIPPED_PER_RECORD: u64 = 10;

/// A Gap record that skips more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedGap {
    /// The source's own id of the instrument.
    pub instrument: u32,
    pub channel: Channel,
    /// Records that it says are missing.
    pub missing: u64,
    /// Records that it may say are missing.
    pub allowed: u64,
}

/// How many sequences were skipped so far. Cost: 16 bytes an instrument that has lost records.
#[derive(Debug, Default)]
pub(super) struct GapAllowances {
    /// By instrument id: of trades and raw payloads.
    skipped: Vec<[u64; 2]>,
}

impl GapAllowances {
    /// Sequences that may be skipped after `newest`.
    fn allowed(&self, id: u32, channel: Channel, newest: Sequence) -> u64 {
        let skipped = self.skipped.get(id as usize).map_or(0, |skipped| skipped[index(channel)]);
        let seen = newest.get().saturating_sub(skipped);
        SKIPPED_FREE.saturating_add(seen.saturating_mul(SKIPPED_PER_RECORD)).saturating_sub(skipped)
    }

    fn note(&mut self, id: u32, channel: Channel, count: u64) {
        if self.skipped.len() <= id as usize {
            self.skipped.resize(id as usize + 1, [0; 2]);
        }
        self.skipped[id as usize][index(channel)] += count;
    }
}

/// Log channels are trades and raw payloads.
fn index(channel: Channel) -> usize {
    usize::from(channel == Channel::Raw)
}

impl Sequencer {
    /// A source reports that it lost records of a log channel. Their number of sequences is skipped; the source's own
    /// sequences mean nothing here. A publisher's Gap beyond the bound is refused, and a feed's is cut to it.
    pub(super) fn accept_gap(&mut self, source: SourceId, bytes: &[u8], now_ns: u64) {
        let gap = Gap::read(bytes).filter(|gap| gap.channel.is_log() && gap.to_sequence >= gap.from_sequence);
        let Some(gap) = gap else {
            self.counters.undefined += 1;
            return;
        };
        let Some(id) = self.route(source, gap.instrument) else { return };
        let newest = self.values.sequence(id, gap.channel);
        let (missing, allowed) = (gap.missing(), self.gaps.allowed(id, gap.channel, newest));
        let count = if missing <= allowed {
            missing
        } else {
            self.counters.gaps_refused += 1;
            if !self.sources.identity(source).owner.is_feed() {
                let Gap { instrument, channel, .. } = gap;
                self.faults.gap.get_or_insert(RefusedGap { instrument, channel, missing, allowed });
                return;
            }
            allowed
        };
        if count == 0 {
            return;
        }
        self.skip(id, gap.channel, count, now_ns);
    }

    /// A source has lost messages, and does not know how many of them were of which instrument and channel. Each of these
    /// instruments, or of all that the source has defined if the list is empty, gets a Gap of one record for each log
    /// channel that it has had records of, and its book may be wrong until a snapshot.
    pub fn note_loss(&mut self, source: SourceId, instruments: &[u32], now_ns: u64) {
        let all = if instruments.is_empty() { self.sources.defined(source) } else { Vec::new() };
        for local in instruments.iter().chain(&all) {
            let Some(id) = self.route(source, *local) else { continue };
            for channel in [Channel::Trade, Channel::Raw] {
                let newest = self.values.sequence(id, channel);
                if !newest.is_none() && self.gaps.allowed(id, channel, newest) > 0 {
                    self.skip(id, channel, 1, now_ns);
                }
            }
            self.suspect_book(id, now_ns);
        }
        self.publish();
    }

    /// Skips sequences, and reports it to all subscribers.
    fn skip(&mut self, id: u32, channel: Channel, count: u64, now_ns: u64) {
        self.gaps.note(id, channel, count);
        self.counters.lost += count;
        let newest = self.values.sequence(id, channel);
        let from_sequence = newest.next();
        let to_sequence = (newest.get() + count).into();
        let gap = Gap { instrument: id, channel, from_sequence, to_sequence, reason: GapReason::Feed };
        self.values.apply_gap(&gap, ());
        let mut bytes = Vec::new();
        gap.encode(now_ns, &mut bytes);
        self.write(&bytes);
    }
}
