//! What an audience was sent lately, kept for its members that have not taken all of it.
//!
//! A member whose socket took a packet in part becomes a *lagging member*: an offset into the bytes that its audience is
//! sent. They are kept once for all lagging members of the audience, framed and compressed as they were sent. When a
//! socket has room, one send takes the bytes from the member's offset to the end, and at the end it is a member like the
//! others again. So falling behind and catching up cost no more a byte than the live path.
//!
//! ```text
//!            start                                    end
//!  bytes      ├──────────┬──────┬─────────────┬────────┤      each flush appends
//!  marks               mark   mark          mark     mark     what a member has had up to here
//!  members          ▲ offset        ▲ offset      ▲ offset
//! ```
//!
//! A lagging member can go on alone from any mark: a mark has the cursors that a member has there.
//!
//! What always holds:
//! * At the end of a tick, a history has lagging members; without one it is freed.
//! * It starts at a mark, so the boundaries of frames can be found from its start.
//! * At the end of a tick, the bytes of an audience and of all together are within their limits (`lagging.rs`).
//!
//! Memory: the bytes, and 72 for each 4 KiB of them or flush. Cost: a copy of the packet for an audience and flush.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::boundary::boundary_after;
use super::subscription_index::AudienceId;
use crate::io::SlotId;
use crate::ring::RingOffset;
use tickcast_protocol::Position;

/// Bytes between two marks, unless a flush is larger: the largest rest that a member takes along which goes on alone.
const MARK_BYTES: u64 = 4096;
/// Flushes that are further apart than this have a mark each.
const MARK_NS: u64 = 10_000_000;
/// Bytes for each member, up to the limit of an audience: about what the kernel holds for a connection besides.
const MEMBER_BYTES: usize = 64 * 1024;
/// One audience may take this part of all bytes.
const AUDIENCE_PART: usize = 4;

/// What a member that has had everything up to a mark continues with.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarkPoint {
    /// The tick whose flush ends here.
    pub(super) tick: u64,
    /// End of what had been read from the ring in that tick.
    pub(super) ring_offset: RingOffset,
    /// Position of the newest record before it.
    pub(super) position: Position,
    /// Instruments that had been announced.
    pub(super) announced: u32,
}

/// Records, and Gaps among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SentCount {
    pub(super) records: u64,
    pub(super) gaps: u64,
}

impl SentCount {
    /// The greater one; both grow together.
    pub(super) fn max(self, other: Self) -> Self {
        if other.records > self.records || other.gaps > self.gaps { other } else { self }
    }
}

/// A flush.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentFlush {
    pub(super) ns: u64,
    /// Where a member is that has had it.
    pub(super) point: MarkPoint,
    /// Limit of the histories of all audiences.
    pub(super) history_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    /// When the first of the flushes before it was made.
    ns: u64,
    point: MarkPoint,
    /// Since the beginning of the history.
    count: SentCount,
}

/// Where a lagging member is in the history of its audience.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaggingCursor {
    /// It has taken everything before this offset.
    pub(super) offset: u64,
    /// Its index among the lagging members.
    pub(super) index: u32,
    /// What was counted for it: it was a member when the flush that it did not take was counted.
    pub(super) counted: SentCount,
}

/// How a lagging member goes on alone.
#[derive(Debug)]
pub(super) struct Departure<'a> {
    /// What it still has to take.
    pub(super) rest: &'a [u8],
    /// The first boundary of a frame or event in it.
    pub(super) boundary: usize,
    pub(super) point: MarkPoint,
    pub(super) count: SentCount,
}

/// The history of one audience.
#[derive(Debug)]
pub(super) struct SentHistory {
    bytes: Vec<u8>,
    /// Offset of the first byte.
    start: u64,
    marks: VecDeque<Mark>,
    lagging: Vec<SlotId>,
    /// The tick of the newest flush, and where it starts.
    newest: (u64, u64),
    count: SentCount,
    /// The audience gets state channels, whose old values are not worth sending for long.
    pub(super) has_state: bool,
    /// When it has grown beyond this, bytes that no member needs are searched.
    trim_bytes: usize,
}

impl SentHistory {
    fn new(has_state: bool) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            marks: VecDeque::new(),
            lagging: Vec::new(),
            newest: (0, 0),
            count: SentCount::default(),
            has_state,
            trim_bytes: MEMBER_BYTES,
        }
    }

    /// The offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Memory of the bytes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn lagging(&self) -> &[SlotId] {
        &self.lagging
    }

    /// All bytes, and the index of an offset in them.
    pub(super) fn bytes_at(&self, offset: u64) -> (&[u8], usize) {
        (&self.bytes, (offset - self.start) as usize)
    }

    /// What has been counted for a member that has taken everything before `offset`.
    pub(super) fn count_at(&self, offset: u64) -> SentCount {
        let passed = self.marks.partition_point(|mark| mark.end <= offset);
        passed.checked_sub(1).map_or(SentCount::default(), |at| self.marks[at].count)
    }

    /// What was counted for a member that is cut in the newest flush.
    pub(super) fn count(&self) -> SentCount {
        self.count
    }

    /// The ring offset that no member is behind.
    pub(super) fn oldest_ring_offset(&self) -> Option<RingOffset> {
        self.marks.front().map(|mark| mark.point.ring_offset)
    }

    /// How a lagging member goes on alone, at the next mark. One that took nothing of the flush in which it was cut, and
    /// so is at the mark before it, takes that flush along: it may have joined after the tick of that mark.
    pub(super) fn departure(&self, cursor: &LaggingCursor) -> Option<Departure<'_>> {
        let offset = cursor.offset;
        let is_before =
            |mark: &Mark| mark.end < offset || (mark.end == offset && mark.count != mark.count.max(cursor.counted));
        let at = self.marks.partition_point(is_before);
        let mark = self.marks.get(at)?;
        let from = at.checked_sub(1).map_or(self.start, |before| self.marks[before].end);
        let span = &self.bytes[(from - self.start) as usize..(mark.end - self.start) as usize];
        let taken = (offset - from) as usize;
        let boundary = boundary_after(span, 0, taken) - taken;
        Some(Departure { rest: &span[taken..], boundary, point: mark.point, count: mark.count })
    }

    /// True if bytes may have to be given up: members are further behind than `limit` bytes or `oldest_ns`, or bytes
    /// are no longer needed.
    pub(super) fn needs_trim(&self, limit: usize, oldest_ns: u64) -> bool {
        self.bytes.len() > limit.min(self.trim_bytes) || self.cutoff(limit, oldest_ns) > self.start
    }

    /// Members that have not taken everything before this offset are too far behind.
    pub(super) fn cutoff(&self, limit: usize, oldest_ns: u64) -> u64 {
        let by_bytes = self.start + self.bytes.len().saturating_sub(limit) as u64;
        let too_old = if self.has_state { self.marks.partition_point(|mark| mark.ns < oldest_ns) } else { 0 };
        let by_age = too_old.checked_sub(1).map_or(self.start, |at| self.marks[at].end);
        by_bytes.max(by_age)
    }

    /// Drops the bytes before the last mark at or before `needed`.
    fn trim(&mut self, needed: u64) {
        let unneeded = self.marks.partition_point(|mark| mark.end <= needed);
        if let Some(last) = unneeded.checked_sub(1) {
            let end = self.marks[last].end;
            self.bytes.drain(..(end - self.start) as usize);
            self.start = end;
            // That mark itself stays if a member is exactly there.
            self.marks.drain(..if end == needed { last } else { unneeded });
        }
        self.trim_bytes = self.bytes.len() * 3 / 2 + MEMBER_BYTES;
        if self.bytes.capacity() > 2 * self.trim_bytes {
            self.bytes.shrink_to(self.trim_bytes);
        }
    }

    fn append(&mut self, packet: &[u8], count: SentCount, flush: &SentFlush) {
        self.newest = (flush.point.tick, self.end());
        // In steps of a quarter: the memory is at most that much larger than the bytes.
        let missing = (self.bytes.len() + packet.len()).saturating_sub(self.bytes.capacity());
        if missing > 0 {
            self.bytes.reserve_exact(packet.len().max(self.bytes.len() / 4).max(MARK_BYTES as usize));
        }
        self.bytes.extend_from_slice(packet);
        self.count.records += count.records;
        self.count.gaps += count.gaps;
        let (end, count) = (self.end(), self.count);
        let before = self.marks.len().checked_sub(2).map_or(self.start, |at| self.marks[at].end);
        let joins = |last: &Mark| {
            last.end > self.start && end - before <= MARK_BYTES && flush.ns.saturating_sub(last.ns) <= MARK_NS
        };
        match self.marks.back_mut().filter(|last| joins(last)) {
            Some(last) => *last = Mark { end, ns: last.ns, point: flush.point, count },
            None => self.marks.push_back(Mark { end, ns: flush.ns, point: flush.point, count }),
        }
    }
}

/// The histories of all audiences that have lagging members.
#[derive(Debug, Default)]
pub(super) struct SentHistories {
    /// Ids are the shard's own, so that they need no random hash; the order of walks is the same in each run.
    by_audience: HashMap<AudienceId, SentHistory, FixedState>,
    /// Memory of all.
    bytes: usize,
    lagging: usize,
}

/// The limit of the bytes of one audience with so many members.
pub(super) fn audience_limit(bytes_max: usize, members: usize) -> usize {
    (bytes_max / AUDIENCE_PART).min(members.saturating_mul(MEMBER_BYTES))
}

impl SentHistories {
    pub(super) fn is_empty(&self) -> bool {
        self.by_audience.is_empty()
    }

    /// Memory of all histories.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many lagging members there are.
    pub(super) fn lagging(&self) -> usize {
        self.lagging
    }

    pub(super) fn get(&self, audience: AudienceId) -> Option<&SentHistory> {
        self.by_audience.get(&audience)
    }

    pub(super) fn audiences(&self) -> impl Iterator<Item = (AudienceId, &SentHistory)> {
        self.by_audience.iter().map(|(audience, history)| (*audience, history))
    }

    /// Appends the packets of a flush to the history of an audience, if it has one.
    pub(super) fn append(&mut self, audience: AudienceId, packets: &[u8], count: SentCount, flush: &SentFlush) {
        if let Some(history) = self.by_audience.get_mut(&audience) {
            self.bytes -= history.memory();
            history.append(packets, count, flush);
            self.bytes += history.memory();
        }
    }

    /// The offset at which the packets of this flush start in the history of an audience. Begins a history with them if
    /// there is none; `None` if they exceed a limit, of which `limit` is that of the audience.
    pub(super) fn offset_of(
        &mut self,
        audience: AudienceId,
        packets: &[u8],
        (count, has_state): (SentCount, bool),
        flush: &SentFlush,
        limit: usize,
    ) -> Option<u64> {
        if let Some(history) = self.by_audience.get(&audience) {
            return (history.newest.0 == flush.point.tick).then_some(history.newest.1);
        }
        if packets.len() > limit || self.bytes + packets.len() > flush.history_bytes_max {
            return None;
        }
        self.by_audience.insert(audience, SentHistory::new(has_state));
        self.append(audience, packets, count, flush);
        Some(0)
    }

    /// Adds a lagging member that has taken everything before `offset`. The audience has a history: it was begun in this
    /// tick or earlier, see [`Self::offset_of`], and is freed at the end of a tick only.
    pub(super) fn add_lagging(&mut self, audience: AudienceId, slot_id: SlotId, offset: u64) -> LaggingCursor {
        let history = self.by_audience.get_mut(&audience).expect("a history is freed at the end of a tick only");
        history.lagging.push(slot_id);
        self.lagging += 1;
        LaggingCursor { offset, index: history.lagging.len() as u32 - 1, counted: history.count() }
    }

    /// Removes a lagging member; returns the one that has its index now.
    pub(super) fn remove_lagging(&mut self, audience: AudienceId, index: u32) -> Option<SlotId> {
        let history = self.by_audience.get_mut(&audience)?;
        history.lagging.swap_remove(index as usize);
        self.lagging -= 1;
        history.lagging.get(index as usize).copied()
    }

    /// Frees the histories without lagging members, at the end of a tick.
    pub(super) fn free_unused(&mut self) {
        let bytes = &mut self.bytes;
        self.by_audience.retain(|_, history| {
            let is_used = !history.lagging.is_empty();
            if !is_used {
                *bytes -= history.memory();
            }
            is_used
        });
    }

    /// Frees the memory of an audience that its bytes do not take.
    pub(super) fn shrink(&mut self, audience: AudienceId) {
        if let Some(history) = self.by_audience.get_mut(&audience) {
            self.bytes -= history.memory();
            history.bytes.shrink_to_fit();
            self.bytes += history.memory();
        }
    }

    /// Drops the bytes of an audience that no member needs: `needed` is the lowest offset of its members.
    pub(super) fn trim(&mut self, audience: AudienceId, needed: u64) {
        if let Some(history) = self.by_audience.get_mut(&audience) {
            self.bytes -= history.memory();
            history.trim(needed);
            self.bytes += history.memory();
        }
    }
}

#[cfg(test)]
mod tests;
