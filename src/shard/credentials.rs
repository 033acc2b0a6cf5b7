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
    if client.auth_until_ns != 0 {
        return (now_ns >= client.auth_until_ns).then_some(AuthDue::Timeout);
    }
    let principal = client.principal.as_ref()?;
    let (expires_s, wall_s) = (principal.expires_s?, wall_ns / 1_000_000_000);
    if wall_s >= expires_s.saturating_add(grace_s.into()) {
        return Some(AuthDue::Expired);
    }
    let announced_s = announced_s(principal, client.slot_id.index, notice_s)?;
    let is_soon = !client.is_told_expiring && wall_s >= announced_s;
    is_soon.then(|| AuthDue::Expiring(expires_s.saturating_sub(wall_s)))
}

/// When the end of a token is announced to its client, if it is.
fn announced_s(principal: &Principal, slot: u32, notice_s: u32) -> Option<u64> {
    /// Clients with tokens from one second do not ask for new ones in one second.
    const SPREAD_S: u64 = 16;
    if notice_s == 0 {
        return None;
    }
    let expires_s = principal.expires_s?;
    let notice_s = u64::from(notice_s) + u64::from(slot) % SPREAD_S;
    if principal.answered_s == 0 {
        return Some(expires_s.saturating_sub(notice_s));
    }
    // That of a short answer is not announced at once: the client would have the authorizer asked without end.
    let life_s = expires_s.saturating_sub(principal.answered_s);
    Some(expires_s.saturating_sub(notice_s.min(life_s / 2)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{Kind, Rights};

    #[test]
    fn end_is_announced_in_time_but_for_answers_not_at_once_and_without_a_notice_never() {
        let token = |expires_s, answered_s| {
            let principal = Principal::new(Kind::Token, "u", Arc::new(Rights::none()));
            Principal { expires_s, answered_s, ..principal }
        };
        for (principal, slot, notice_s, expected) in [
            (token(Some(1000), 0), 0, 60, Some(940)),
            (token(Some(1000), 0), 19, 60, Some(937)),
            (token(Some(1000), 0), 3, 0, None),
            (token(None, 0), 3, 60, None),
            (token(Some(1000), 500), 3, 60, Some(937)),
            (token(Some(1000), 980), 3, 60, Some(990)),
            (token(Some(1000), 980), 3, 0, None),
            (token(Some(1000), 999), 3, 60, Some(1000)),
        ] {
            assert_eq!(announced_s(&principal, slot, notice_s), expected, "{principal:?}");
        }
    }
}
