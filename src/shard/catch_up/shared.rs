//! Lagging members: one send for each, of what it has not taken of what its audience was sent.
//!
//! Nothing is encoded here: the bytes are those of [`sent_history`](super::super::sent_history). A member that has taken
//! all of them is on the live path again; at the end of a tick that includes the flush of the same tick.

use super::super::client_context::ClientContext;
use super::super::outbox::{SEND_COST_BYTES, taken};
use super::super::sent_history::LaggingCursor;
use super::super::subscription_index::AudienceId;
use super::Budget;
use crate::io::{Io, SendOp, SlotId};
use crate::stats::Counter;

/// Members that are served in one batch of sends.
const BATCH: usize = 64;
/// Bytes of one send: more than a socket takes at once, as a rule.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// A member that is served in this batch.
struct Served {
    audience: AudienceId,
    slot_id: SlotId,
    cursor: LaggingCursor,
}

/// Serves the queued lagging members as far as the budget goes. True if there were any.
pub(super) fn serve_lagging<I: Io>(clients: &mut ClientContext<'_, I>, mut budget: Budget) -> bool {
    let mut waiting = clients.backlog.lagging_queue.len();
    let had_any = waiting > 0;
    while waiting > 0 && budget.has_left() {
        let mut batch = Vec::new();
        while batch.len() < BATCH.min(budget.sends_left()) && waiting > 0 {
            waiting -= 1;
            let Some(slot_id) = clients.backlog.pop_lagging() else {
                waiting = 0;
                break;
            };
            let audience = clients.connections.get(slot_id).map(|client| client.audience);
            let cursor = clients.backlog.lagging_mut(slot_id).copied();
            if let (Some(audience), Some(cursor)) = (audience, cursor) {
                batch.push(Served { audience, slot_id, cursor });
            }
        }
        // Stable: members of an audience keep the order in which they became ready.
        batch.sort_by_key(|served| served.audience);
        for same in batch.chunk_by(|one, other| one.audience == other.audience) {
            budget.spend(serve_audience(clients, same));
        }
    }
    had_any
}

/// Serves members of one audience; returns the cost in bytes.
fn serve_audience<I: Io>(clients: &mut ClientContext<'_, I>, members: &[Served]) -> usize {
    let Some(history) = clients.fan_out.histories.get(members[0].audience) else { return 0 };
    let (end, bytes) = (history.end(), history.bytes_at(history.end()).0);
    let send = |served: &Served| {
        let start = history.bytes_at(served.cursor.offset).1;
        let len = (bytes.len() - start).min(SEND_BYTES_MAX);
        SendOp { slot_id: served.slot_id, start: start as u32, len: len as u32 }
    };
    let sends: Vec<SendOp> = members.iter().map(send).collect();
    let short = clients.outbox.send_kept(bytes, &sends, clients.counters);
    // `None`: broken. A send that was cut may have been taken whole: then its rest is kept below.
    let mut took: Vec<Option<(usize, bool)>> = sends.iter().map(|send| Some((send.len as usize, false))).collect();
    for short in &short {
        took[short.index as usize] = taken(short).map(|taken| (taken, true));
    }
    let all: usize = took.iter().flatten().map(|(taken, _)| taken).sum();
    clients.counters.add(Counter::LaggingSends, sends.len() as u64);
    clients.counters.add(Counter::LaggingBytes, all as u64);
    for (served, took) in members.iter().zip(took) {
        match took {
            None => clients.drop_client(served.slot_id),
            Some((took, is_cut)) => clients.advance_lagging(served, end, took, is_cut),
        }
    }
    all + sends.len() * SEND_COST_BYTES
}

impl<I: Io> ClientContext<'_, I> {
    /// Notes what a lagging member took. At the end of the history it is on the live path again.
    fn advance_lagging(&mut self, served: &Served, end: u64, took: usize, is_cut: bool) {
        let Served { audience, slot_id, cursor } = *served;
        let offset = cursor.offset + took as u64;
        let Some(history) = self.fan_out.histories.get(audience) else { return };
        let count = history.count_at(offset);
        self.count_sent(&cursor, count);
        let now_ns = self.now.ns;
        let Some(backlog) = self.backlog.get_mut(slot_id) else { return };
        if took > 0 {
            backlog.progress_ns = backlog.progress_ns.max(now_ns);
        }
        backlog.is_blocked = is_cut;
        if let Some(lagging) = self.backlog.lagging_mut(slot_id) {
            lagging.offset = offset;
            lagging.counted = lagging.counted.max(count);
        }
        if is_cut {
            self.outbox.io.want_writable(slot_id);
        } else if offset == end {
            self.join_live_path(slot_id);
        } else {
            self.backlog.enqueue(slot_id);
        }
    }
}
