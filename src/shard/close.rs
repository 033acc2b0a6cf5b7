//! How a connection ends: what a client is sent last, and the states up to the end.
//!
//! A close frame goes behind all that is pending for the client. Then the peer's close frame is awaited, for a while.

use super::client_context::ClientContext;
use super::connections::{CloseState, new_session, reconnect_ms};
use super::encoding::Format;
use crate::io::{Io, SlotId};
use tickcast_protocol::control::reply;
use tickcast_protocol::sse;
use tickcast_protocol::ws::{CloseCode, push_close};

/// How long a slow client has to take the rest of the frame that was cut and the reason for its close.
const SLOW_CLOSE_NS: u64 = 10_000_000_000;
/// When a stream of events comes back that was ended in favour of another one: an `EventSource` cannot be told not to.
const RECONNECT_LATE_MS: u64 = 3_600_000;
/// For a close without a time of its own: the limits of slow clients hold.
const NEVER: u64 = u64::MAX;

/// Appends what a client is sent last: the reason, and when to come back. A client that is closed for what it did gets
/// the close frame alone. A stream of events has no close frame, and would reconnect at once by itself.
fn push_close_notice(format: Format, code: CloseCode, reason: &str, slot_id: SlotId, out: &mut Vec<u8>) {
    let may_come_back = [CloseCode::GOING_AWAY, CloseCode::SLOW_CONSUMER, CloseCode::CREDENTIALS_EXPIRED];
    let comes_back = may_come_back.contains(&code) || !format.is_websocket();
    if comes_back {
        let mut text = Vec::new();
        // At once, it would end the session in whose favour it was ended.
        let reconnect_ms = if code == CloseCode::SESSION_LIMIT { RECONNECT_LATE_MS } else { reconnect_ms(slot_id) };
        reply::closing(&mut text, code.word(), reconnect_ms);
        if !format.is_websocket() {
            sse::push_retry(reconnect_ms, out);
        }
        format.push_answer(&text, out);
    }
    if format.is_websocket() {
        push_close(code, reason, out);
    }
}

impl<I: Io> ClientContext<'_, I> {
    /// Closes a connection from this side.
    pub(super) fn close(&mut self, slot_id: SlotId, code: CloseCode, reason: &str) {
        if self.connections.get(slot_id).is_none_or(|client| !client.is_open()) {
            return;
        }
        self.note_end(slot_id, code.word(), reason);
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        let format = client.encoding.format;
        client.close_state = CloseState::Closing { is_answered: !format.is_websocket(), until_ns: NEVER };
        push_close_notice(format, code, reason, slot_id, &mut self.leave_live_path(slot_id).answers);
        self.backlog.enqueue(slot_id);
    }

    /// The peer has sent a close frame first.
    pub(super) fn answer_close(&mut self, slot_id: SlotId, code: CloseCode) {
        self.note_end(slot_id, "closed_by_client", "");
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.close_state = CloseState::Closing { is_answered: true, until_ns: NEVER };
        push_close(code, "", &mut self.leave_live_path(slot_id).answers);
        self.backlog.enqueue(slot_id);
    }

    /// The close frame is out.
    pub(super) fn finish_close(&mut self, slot_id: SlotId) {
        let until_ns = self.now.ns + u64::from(self.settings.close_timeout_ms) * 1_000_000;
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        if matches!(client.close_state, CloseState::Closing { is_answered: true, .. }) {
            // Both close frames are exchanged, and the server ends the connection.
            self.drop_client(slot_id);
            return;
        }
        client.close_state = CloseState::Lingering { until_ns };
        // A session that met a violation must not continue; what comes is only searched for a close frame.
        client.session = new_session(client.encoding);
        self.remove_backlog(slot_id);
        self.receive_if_ready(slot_id);
    }

    /// Closes a slow client. What is pending is dropped behind the frame that was cut, so that the reason follows at
    /// once; the client has [`SLOW_CLOSE_NS`] to take both.
    pub(super) fn close_slow(&mut self, slot_id: SlotId, reason: &str) {
        let Some(client) = self.connections.get(slot_id) else { return };
        if !client.is_open() {
            // It has not taken its reason in time.
            self.drop_client(slot_id);
            return;
        }
        self.leave_live_path(slot_id).drop_pending();
        self.close(slot_id, CloseCode::SLOW_CONSUMER, reason);
        let until_ns = self.now.ns + SLOW_CLOSE_NS;
        if let Some(client) = self.connections.get_mut(slot_id)
            && let CloseState::Closing { is_answered, .. } = client.close_state
        {
            client.close_state = CloseState::Closing { is_answered, until_ns };
        }
    }
}
