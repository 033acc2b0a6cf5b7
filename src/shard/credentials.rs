//! Tokens that clients have sent on live connections and that are to be verified, outside of the shard; and what is due
//! because of a client's credential.
//!
//! Memory: a token for each client whose token is being verified.

use std::collections::VecDeque;

use super::connections::Client;
use crate::identity::Principal;
use crate::io::SlotId;
use tickcast_protocol::control::Secret;

/// A token that a client has sent.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    pub slot_id: SlotId,
    pub token: Secret,
}

/// Why a token is refused, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRefusal {
    /// For programs.
    pub code: &'static str,
    pub message: String,
}

/// Tokens that are being verified.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    requests: VecDeque<AuthRequest>,
    /// Clients that are to be asked about once their requests are done.
    pub(super) postponed: VecDeque<SlotId>,
}

impl Credentials {
    pub(super) fn push(&mut self, request: AuthRequest) {
        self.requests.push_back(request);
    }

    pub(super) fn take(&mut self) -> Option<AuthRequest> {
        self.requests.pop_front()
    }
}

/// Seconds until a client's token expires, if it does.
pub(super) fn expires_in_s(principal: &Principal, wall_ns: u64) -> Option<u64> {
    principal.expires_s.map(|expires_s| expires_s.saturating_sub(wall_ns / 1_000_000_000))
}

/// What has to be done with a client because of its credential.
pub(super) enum AuthDue {
    /// It has not authenticated itself in time.
    Timeout,
    /// Its token expires soon, in so many seconds.
    Expiring(u64),
    /// Its token has expired a while ago.
    Expired,
}

/// The same for a client at this time. `grace_s`: how long it may go on with an expired token.
pub(super) fn auth_due(client: &Client, now_ns: u64, wall_ns: u64, notice_s: u32, grace_s: u32) -> Option<AuthDue> {
    /// Clients with tokens from one second do not ask for new ones in one second.
    const SPREAD_S: u64 = 16;
    if client.auth_until_ns != 0 {
        return (now_ns >= client.auth_until_ns).then_some(AuthDue::Timeout);
    }
    let principal = client.principal.as_ref()?;
    let (expires_s, answered_s) = (principal.expires_s?, principal.answered_s);
    let wall_s = wall_ns / 1_000_000_000;
    if wall_s >= expires_s.saturating_add(grace_s.into()) {
        return Some(AuthDue::Expired);
    }
    let is_told = notice_s > 0;
    let notice_s = u64::from(notice_s) + u64::from(client.slot_id.index) % SPREAD_S;
    // The end of a short answer is not announced at once: the client would have the authorizer asked without end.
    let of_answer = (answered_s > 0).then(|| expires_s.saturating_sub(answered_s) / 2);
    let notice_s = of_answer.map_or(notice_s, |half_s| notice_s.min(half_s));
    let is_soon = is_told && !client.is_told_expiring && wall_s.saturating_add(notice_s) >= expires_s;
    is_soon.then(|| AuthDue::Expiring(expires_s.saturating_sub(wall_s)))
}
