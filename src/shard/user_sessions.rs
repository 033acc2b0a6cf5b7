//! Clients that are sessions of users: how they begin and end, and what the clients of a user may have together.

use super::client_context::ClientContext;
use super::session_news::SessionNews;
use crate::identity::UserShare;
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::control::RequestError;
use tickcast_protocol::ws::CloseCode;

impl<I: Io> ClientContext<'_, I> {
    /// Makes an open client a session of a user, with this share of what the user may have.
    pub(super) fn begin_session(&mut self, slot_id: SlotId, share: UserShare) {
        if let Some(client) = self.connections.get_mut(slot_id).filter(|client| client.is_open()) {
            share.set(client.subscriptions.items.into());
            client.share = Some(Box::new(share));
        }
    }

    /// Ends a session in favour of another one of its user.
    pub(super) fn end_session(&mut self, slot_id: SlotId, reason: &str) {
        if self.connections.get(slot_id).is_some_and(|client| client.is_open()) {
            self.counters.add(Counter::SessionLimitClosed, 1);
            self.close(slot_id, CloseCode::SESSION_LIMIT, reason);
        }
    }

    /// Notes that a session has ended, if it was one.
    pub(super) fn note_end(&mut self, slot_id: SlotId, reason: &'static str, detail: &str) {
        if self.connections.get_mut(slot_id).is_some_and(|client| client.share.take().is_some()) {
            self.connections.news.push((slot_id, SessionNews::ended(reason, detail)));
        }
    }

    /// Notes what was denied to a session.
    pub(super) fn note_denied(&mut self, slot_id: SlotId, denied: &[String]) {
        if !denied.is_empty() && self.connections.get(slot_id).is_some_and(|client| client.share.is_some()) {
            self.connections.news.push((slot_id, SessionNews::denied(denied)));
        }
    }

    /// Counts new subscriptions of a client for its user.
    pub(super) fn reserve_for_user(&self, slot_id: SlotId, id: u64, new: usize) -> Result<(), RequestError> {
        let max = self.settings.subscriptions_per_user_max;
        let share = self.connections.get(slot_id).and_then(|client| client.share.as_ref());
        let Some(share) = share.filter(|_| max > 0) else { return Ok(()) };
        share.reserve(new as u64, max as u64).map_err(|total| {
            let message = format!(
                "symbols: {total} subscriptions of this user on all connections: expected at most {max} \
                 (subscriptions_per_user_max)"
            );
            RequestError { id: Some(id), code: "limit", message }
        })
    }
}
