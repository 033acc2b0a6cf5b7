//! What happens to the sessions of a shard: they begin, change, and end; and what there is to log of it.
//!
//! What always holds: no call waits. The table of all shards is locked for a moment, and the log has a queue.

use std::net::IpAddr;
use std::sync::Arc;

use super::refusal::{RETRY_AFTER, Refusal};
use super::server::{HttpServer, ShardIo};
use super::sessions::{Caller, LocalSession, SESSION_LIMIT};
use crate::access::{SessionPlace, TooManySessions};
use crate::clock::{now_ns, wall_ns};
use crate::identity::Principal;
use crate::io::SlotId;
use crate::shard::{AuthRefusal, SessionNews, Shard};
use crate::usage::{Change, Security, What};

/// How often what was denied to one session is logged.
const DENIED_INTERVAL_NS: u64 = 10_000_000_000;

fn now_ms() -> u64 {
    wall_ns() / 1_000_000
}

impl HttpServer {
    /// A place for a session; `None` for a client that is no user, or not yet.
    pub(super) fn enter_session(
        &self,
        caller: &Caller,
        address: Option<IpAddr>,
    ) -> Result<Option<SessionPlace>, Refusal> {
        let Some(principal) = &caller.principal else { return Ok(None) };
        self.try_enter(principal, address).map_err(|refused| {
            Refusal::new(429, SESSION_LIMIT, refused.to_string())
                .with_header("Retry-After", RETRY_AFTER.as_secs().to_string())
        })
    }

    fn try_enter(
        &self,
        principal: &Principal,
        address: Option<IpAddr>,
    ) -> Result<Option<SessionPlace>, TooManySessions> {
        let access = &self.state().access;
        access.begin_session(principal, &self.sessions.orders, now_ms()).inspect_err(|refused| {
            access.usage().security(Security {
                event: "session_refused",
                user: Some(principal.user.to_string()),
                address,
                cause: SESSION_LIMIT,
                count: refused.max.into(),
                ..Security::default()
            });
        })
    }

    /// Begins the session of a client that the shard has taken over.
    pub(super) fn begin_session(
        &self,
        shard: &mut Shard<ShardIo>,
        slot_id: SlotId,
        place: SessionPlace,
        caller: &Caller,
        address: Option<IpAddr>,
    ) {
        let Some(principal) = caller.principal.clone() else { return };
        shard.begin_session(slot_id, place.share());
        let is_in = place.set_slot(slot_id);
        let (transport, from_ms) = (caller.transport, now_ms());
        let session = LocalSession {
            slot_id,
            place,
            principal,
            address,
            transport,
            delay_s: self.state().delay_s(),
            from_ms,
            ended_ms: None,
            denied: 0,
            denied_ns: 0,
        };
        self.state().access.usage().push(from_ms, What::Session { session: session.facts(), change: Change::Opened });
        let mut by_slot = self.sessions.by_slot.borrow_mut();
        by_slot.grow(slot_id.index as usize + 1);
        by_slot[slot_id.index as usize] = Some(Box::new(session));
        drop(by_slot);
        if !is_in {
            shard.end_session(slot_id, "a newer session of this user has begun", now_ns());
        }
    }

    /// Counts a client whose token was accepted on its open connection, or notes its new rights.
    pub(super) fn admit(
        &self,
        slot_id: SlotId,
        address: Option<IpAddr>,
        principal: Arc<Principal>,
    ) -> Result<Arc<Principal>, AuthRefusal> {
        let mut shard = self.shard.borrow_mut();
        if !shard.is_open(slot_id) || self.has_changed(slot_id, &principal) {
            return Ok(principal);
        }
        let place = self.try_enter(&principal, address);
        let place = place.map_err(|refused| AuthRefusal { code: SESSION_LIMIT, message: refused.to_string() })?;
        if let Some(place) = place {
            let caller = Caller { principal: Some(principal.clone()), transport: "websocket" };
            self.begin_session(&mut shard, slot_id, place, &caller, address);
        }
        Ok(principal)
    }

    /// True if this client is a user already.
    pub(super) fn has_session(&self, slot_id: SlotId) -> bool {
        let by_slot = self.sessions.by_slot.borrow();
        by_slot.get(slot_id.index as usize).and_then(Option::as_ref).is_some_and(|session| session.slot_id == slot_id)
    }

    /// Notes the new rights of a session. False if the client has none yet.
    fn has_changed(&self, slot_id: SlotId, principal: &Arc<Principal>) -> bool {
        let mut by_slot = self.sessions.by_slot.borrow_mut();
        let session = by_slot.get_mut(slot_id.index as usize).and_then(Option::as_mut);
        let Some(session) = session.filter(|session| session.slot_id == slot_id) else { return false };
        if session.principal.user != principal.user {
            // The shard closes it.
            return true;
        }
        let before = std::mem::replace(&mut session.principal, principal.clone());
        if before.rights != principal.rights || before.contract != principal.contract {
            session.from_ms = now_ms();
            let what = What::Session { session: session.facts(), change: Change::Changed { before } };
            self.state().access.usage().push(session.from_ms, what);
        }
        true
    }

    /// Ends the sessions whose places others have. True if there were any.
    pub(super) fn end_ordered_sessions(&self) -> bool {
        let orders = self.sessions.orders.take();
        for order in &orders {
            let mut by_slot = self.sessions.by_slot.borrow_mut();
            let session = by_slot.get_mut(order.slot_id.index as usize).and_then(Option::as_mut);
            let Some(session) = session.filter(|session| session.slot_id == order.slot_id) else { continue };
            session.ended_ms = Some(order.at_ms);
            drop(by_slot);
            let reason = format!("a newer session of this user has begun: at most {} at a time", order.max);
            self.shard.borrow_mut().end_session(order.slot_id, &reason, now_ns());
        }
        !orders.is_empty()
    }

    /// Has the sessions leave that have ended, and logs what is new.
    pub(crate) fn settle_sessions(&self, shard: &mut Shard<ShardIo>) {
        for (slot_id, news) in shard.take_session_news() {
            let mut by_slot = self.sessions.by_slot.borrow_mut();
            let Some(entry) = by_slot.get_mut(slot_id.index as usize) else { continue };
            if entry.as_ref().is_none_or(|session| session.slot_id != slot_id) {
                continue;
            }
            match news {
                SessionNews::Denied { names, count } => {
                    if let Some(session) = entry {
                        self.log_denied(session, names, count as u64);
                    }
                }
                SessionNews::Ended { reason, detail } => {
                    let ended = entry.take();
                    drop(by_slot);
                    if let Some(session) = ended {
                        self.log_ended(&session, reason, detail);
                    }
                }
            }
        }
    }

    fn log_denied(&self, session: &mut LocalSession, names: Vec<String>, count: u64) {
        session.denied += count;
        if now_ns() < session.denied_ns {
            return;
        }
        session.denied_ns = now_ns() + DENIED_INTERVAL_NS;
        let count = std::mem::take(&mut session.denied);
        let cause = "not_allowed";
        self.state().access.usage().security(Security { cause, names, count, ..session.security("rights_refused") });
    }

    fn log_ended(&self, session: &LocalSession, reason: &'static str, detail: String) {
        let usage = self.state().access.usage();
        if !usage.is_on() {
            return;
        }
        if session.denied > 0 {
            let (cause, count) = ("not_allowed", session.denied);
            usage.security(Security { cause, count, ..session.security("rights_refused") });
        }
        if matches!(reason, "credentials_expired" | "not_entitled" | SESSION_LIMIT) {
            let detail = detail.clone();
            usage.security(Security { cause: reason, detail, ..session.security("session_ended") });
        }
        let change = Change::Closed { reason, detail };
        usage.push(session.ended_ms.unwrap_or_else(now_ms), What::Session { session: session.facts(), change });
    }
}
