//! Lagging members: how a client becomes one, goes on alone, and what limits the histories that they read from, see
//! [`sent_history`](super::sent_history).
//!
//! A lagging member goes on alone ([`OwnBacklog`]) where the history does not reach back to it or is not worth sending:
//! * it is further behind than the limit of its audience, or all histories together exceed theirs;
//! * its audience gets state channels, and it is behind for longer than [`STATE_LAG_NS`]: the newest values are fewer
//!   and fresher;
//! * it is answered, pinged or closed, or its subscriptions change.

use bytes::Bytes;

use super::backlog::{ClientBacklog, Missed, OwnBacklog};
use super::client_context::ClientContext;
use super::market_view::RingCursor;
use super::sent_history::{Departure, LaggingCursor, SentCount, audience_limit};
use super::state_walk::{StateCursor, StateWalk};
use super::subscription_index::AudienceId;
use crate::io::{Io, SlotId};
use crate::ring::RingOffset;
use crate::stats::Counter;

/// How long a member that gets state channels may lag: longer than a delay of the scheduler, shorter than a person notices.
const STATE_LAG_NS: u64 = 100_000_000;

/// The rest of a span between two marks, shared by the members that leave a history in it.
#[derive(Default)]
struct SharedSpan {
    /// The mark's tick, and the span's bytes from the lowest offset that was asked for.
    span: Option<(u64, Bytes)>,
}

impl SharedSpan {
    fn rest(&mut self, departure: &Departure<'_>) -> Bytes {
        let len = departure.rest.len();
        match &self.span {
            Some((tick, bytes)) if *tick == departure.point.tick && bytes.len() >= len => {
                bytes.slice(bytes.len() - len..)
            }
            _ => {
                let bytes = Bytes::copy_from_slice(departure.rest);
                self.span = Some((departure.point.tick, bytes.clone()));
                bytes
            }
        }
    }
}

impl<I: Io> ClientContext<'_, I> {
    /// A member's socket took a flush in part: it goes on in the history of its audience, from this offset.
    pub(super) fn lag(&mut self, slot_id: SlotId, offset: u64, took: bool) {
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return };
        self.connections.leave_audience(slot_id, &mut self.fan_out.audiences);
        let cursor = self.fan_out.histories.add_lagging(audience, slot_id, offset);
        self.fan_out.audiences.add_lagging(audience);
        let now = self.now;
        let backlog =
            self.backlog.get_or_insert_with(slot_id, || ClientBacklog::new(slot_id, now, Missed::Shared(cursor)));
        backlog.is_blocked = true;
        // A full socket that takes nothing makes no progress, however often it reports room.
        if took {
            backlog.progress_ns = backlog.progress_ns.max(now.ns);
        }
        self.market.log_trail.begin(self.market.offset);
        self.outbox.io.want_writable(slot_id);
        // Members that joined in the middle of an interval are not sent what the others are.
        if self.fan_out.join_marks.get(slot_id).is_some() {
            self.go_alone(slot_id);
        }
    }

    /// Has a lagging member served on its own from now on.
    pub(super) fn go_alone(&mut self, slot_id: SlotId) {
        self.go_alone_sharing(slot_id, &mut SharedSpan::default());
    }

    fn go_alone_sharing(&mut self, slot_id: SlotId, span: &mut SharedSpan) {
        let Some(cursor) = self.backlog.lagging_mut(slot_id).copied() else { return };
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return };
        let departure = self.fan_out.histories.get(audience).and_then(|history| history.departure(&cursor));
        let Some(departure) = departure else { return };
        let point = departure.point;
        let floor = self.fan_out.join_marks.get(slot_id).unwrap_or_default();
        let read = RingCursor { position: point.position, offset: point.ring_offset };
        let state = StateCursor::dispatched(point.tick, read, floor);
        let mut own = OwnBacklog::new(point.announced, StateWalk::at(state), read);
        own.keep_unsent(span.rest(&departure), departure.boundary);
        own.full_tick = self.backlog.get(slot_id).filter(|backlog| backlog.is_blocked).map(|_| self.now.tick);
        let count = departure.count;
        self.count_sent(&cursor, count);
        self.remove_lagging(audience, &cursor);
        if let Some(backlog) = self.backlog.get_mut(slot_id) {
            backlog.missed = Missed::Own(Box::new(own));
            // It may be in the queue of the lagging members.
            backlog.is_queued = false;
        }
        self.backlog.enqueue(slot_id);
    }

    /// Counts what a lagging member was sent since it was last counted.
    pub(super) fn count_sent(&mut self, cursor: &LaggingCursor, count: SentCount) {
        self.counters.add(Counter::Records, count.records.saturating_sub(cursor.counted.records));
        self.counters.add(Counter::GapsSent, count.gaps.saturating_sub(cursor.counted.gaps));
    }

    /// Takes a client off the lagging members of its audience.
    pub(super) fn remove_lagging(&mut self, audience: AudienceId, cursor: &LaggingCursor) {
        self.fan_out.audiences.remove_lagging(audience);
        let moved = self.fan_out.histories.remove_lagging(audience, cursor.index);
        if let Some(moved) = moved.and_then(|moved| self.backlog.lagging_mut(moved)) {
            moved.index = cursor.index;
        }
    }

    /// Keeps the histories within their limits: members that are too far behind go on alone, and bytes that no member
    /// needs are freed.
    pub(super) fn limit_histories(&mut self) {
        if self.fan_out.histories.is_empty() {
            return;
        }
        let bytes_max = self.settings.sent_history_bytes;
        let oldest_ns = self.now.ns.saturating_sub(STATE_LAG_NS);
        let limit =
            |clients: &Self, audience| audience_limit(bytes_max, clients.fan_out.audiences.served_len(audience));
        let due: Vec<AudienceId> = (self.fan_out.histories.audiences())
            .filter(|(audience, history)| history.needs_trim(limit(self, *audience), oldest_ns))
            .map(|(audience, _)| audience)
            .collect();
        for audience in due {
            self.limit_history(audience, limit(self, audience), oldest_ns);
        }
        self.fan_out.histories.free_unused();
        while self.fan_out.histories.bytes() > bytes_max && self.halve_largest(oldest_ns) {}
    }

    /// Gives up the older half of the largest history, or all of it where that frees nothing: a single flush may be the
    /// larger part of it. True if that has freed memory.
    fn halve_largest(&mut self, oldest_ns: u64) -> bool {
        let largest =
            self.fan_out.histories.audiences().max_by_key(|(audience, history)| (history.memory(), *audience));
        let Some((audience, len)) = largest.map(|(audience, history)| (audience, history.len())) else {
            return false;
        };
        let before = self.fan_out.histories.bytes();
        [len / 2, 0].into_iter().any(|limit| {
            self.limit_history(audience, limit, oldest_ns);
            self.fan_out.histories.shrink(audience);
            self.fan_out.histories.free_unused();
            self.fan_out.histories.bytes() < before
        })
    }

    /// Has the members of an audience that are too far behind served on their own, and frees what the others do not
    /// need.
    fn limit_history(&mut self, audience: AudienceId, limit: usize, oldest_ns: u64) {
        let Some(history) = self.fan_out.histories.get(audience) else { return };
        let (cutoff, mut needed) = (history.cutoff(limit, oldest_ns), history.end());
        let mut span = SharedSpan::default();
        for index in (0..history.lagging().len()).rev() {
            let Some(history) = self.fan_out.histories.get(audience) else { return };
            let slot_id = history.lagging()[index];
            let Some(offset) = self.backlog.lagging_mut(slot_id).map(|cursor| cursor.offset) else { continue };
            if offset < cutoff {
                self.counters.add(Counter::SentHistoryLeft, 1);
                self.go_alone_sharing(slot_id, &mut span);
            } else {
                needed = needed.min(offset);
            }
        }
        self.fan_out.histories.trim(audience, needed);
    }

    /// The ring offset up to which a client that is behind has had everything.
    pub(super) fn ring_offset_of(&self, slot_id: SlotId, backlog: &ClientBacklog) -> Option<RingOffset> {
        match &backlog.missed {
            Missed::Own(own) => Some(own.log.offset),
            Missed::Shared(_) => {
                self.fan_out.histories.get(self.connections.get(slot_id)?.audience)?.oldest_ring_offset()
            }
        }
    }
}
