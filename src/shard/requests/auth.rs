//! Auth requests: a client says who it is, or brings the next token before the last one expires.
//!
//! The shard verifies no token. A client's token is handed out ([`Shard::take_auth_request`]), and the client's next
//! requests wait until the answer is there. A client whose rights have changed keeps the items that it may still have, and
//! the others are dropped, in portions like any change of its set.
//!
//! [`Shard::take_auth_request`]: super::super::Shard::take_auth_request

use std::ops::Range;
use std::sync::Arc;

use super::super::backlog::InitialValue;
use super::super::client_context::ClientContext;
use super::super::credentials::{AuthRefusal, AuthRequest, expires_in_s};
use super::super::operations::{Kind, NewIdentity, Operation, Stage};
use super::super::reselect::Reselecting;
use super::super::subscription_index::{Key, Target};
use crate::identity::{Kind as CredentialKind, Principal, Verdict};
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::control::{ChannelSet, RequestError, Secret, reply};
use tickcast_protocol::ws::CloseCode;
use tickcast_protocol::{Channel, ConflationInterval};

/// Units of work of a token: what its verification takes.
const VERIFY_UNITS: u64 = 1000;

impl<I: Io> ClientContext<'_, I> {
    /// Has the token of a client verified. Its next requests wait for the answer.
    pub(in crate::shard) fn begin_auth(&mut self, slot_id: SlotId, id: u64, token: Secret) {
        self.spend(slot_id, VERIFY_UNITS);
        // The other requests of the tick wait: a token takes as much time as they may have together.
        self.operations.units = self.operations.units.saturating_sub(VERIFY_UNITS as usize);
        self.credentials.push(AuthRequest { slot_id, token });
        if let Some(client) = self.connections.get_mut(slot_id) {
            client.waits = true;
        }
        let (channels, interval) = (ChannelSet::default(), ConflationInterval::IMMEDIATE);
        let operation = Operation { kind: Kind::Auth, id, channels, interval, stage: Stage::Verify };
        self.operations.park(slot_id, operation);
    }

    /// Goes on with a client whose token was verified.
    pub(in crate::shard) fn authenticated(&mut self, slot_id: SlotId, outcome: Result<Arc<Principal>, AuthRefusal>) {
        let Some((mut operation, input)) = self.operations.remove(slot_id) else { return };
        let is_done = match outcome {
            Err(AuthRefusal { code, message }) => {
                self.answer_error(slot_id, &RequestError { id: Some(operation.id), code, message });
                true
            }
            Ok(principal) => self.identify(slot_id, &mut operation, principal),
        };
        if is_done {
            self.resume_input(slot_id, input);
        } else {
            self.operations.push(slot_id, operation, input);
        }
    }

    /// Gives a client its new identity. False if its items have to be compared with its rights in further ticks.
    fn identify(&mut self, slot_id: SlotId, operation: &mut Operation, principal: Arc<Principal>) -> bool {
        let Some(client) = self.connections.get(slot_id).filter(|client| client.is_open()) else { return true };
        if let Some(before) = &client.principal
            && before.kind != CredentialKind::Anonymous
            && before.user != principal.user
        {
            self.counters.add(Counter::NotEntitledClosed, 1);
            self.close(slot_id, CloseCode::NOT_ENTITLED, "the token is of another user than the connection");
            return true;
        }
        operation.stage = Stage::Reselect(Reselecting::new(principal));
        self.reselect(slot_id, operation)
    }

    /// Begins to compare the items of a client with its new rights. False if that goes on in further ticks.
    fn reselect(&mut self, slot_id: SlotId, operation: &mut Operation) -> bool {
        // Like any request, it waits while something of an earlier tick is pending for the client: what patterns cover from
        // then on begins behind what the client has had.
        let is_behind = self.backlog.get(slot_id).is_some_and(|backlog| backlog.defers_requests(self.now));
        !is_behind && self.advance(slot_id, operation)
    }

    /// Begins to change the items of a client to those that its new rights allow.
    pub(in crate::shard) fn begin_reselected(
        &mut self,
        slot_id: SlotId,
        operation: &Operation,
        reselecting: Reselecting,
    ) -> Stage {
        let (principal, changes, dropped) = reselecting.finish(&self.fan_out.index);
        let Some(client) = self.connections.get(slot_id) else { return Stage::Done };
        let is_same = client.principal.as_ref().is_some_and(|before| before.rights == principal.rights);
        let identity = NewIdentity { principal, dropped, has_changed: !is_same };
        if is_same && changes.is_empty() {
            self.complete_auth(slot_id, operation.id, identity);
            return Stage::Done;
        }
        let rights = identity.principal.rights.clone();
        self.begin_change_of_rights(slot_id, operation, &rights, &changes, identity)
    }

    /// The client has its new identity, and only what that may have.
    pub(in crate::shard) fn complete_auth(&mut self, slot_id: SlotId, id: u64, identity: NewIdentity) {
        let NewIdentity { principal, dropped, has_changed } = identity;
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        let audience = client.audience;
        let had_depth = client.principal.as_ref().is_some_and(|before| before.rights.limits_depth());
        let expires_in_s = expires_in_s(&principal, self.now.wall_ns());
        client.set_principal(principal.clone());
        self.counters.add(Counter::Authenticated, 1);
        let names: Vec<&str> = dropped.iter().map(String::as_str).collect();
        self.answer(slot_id, |out| reply::authenticated(out, id, &principal.user, expires_in_s, &names));
        if !dropped.is_empty() && self.fan_out.index.items(audience) == 0 {
            self.counters.add(Counter::NotEntitledClosed, 1);
            self.close(slot_id, CloseCode::NOT_ENTITLED, "the token allows nothing of what was subscribed to");
            return;
        }
        // Patterns may cover instruments that the client may see from now on, and books may have another depth: they begin
        // with their newest values.
        let limits_depth = had_depth || principal.rights.limits_depth();
        let begins =
            |key: &Key| matches!(key.target(), Target::Prefix(_)) || (limits_depth && key.channel() == Channel::Book);
        let keys: Vec<Key> = self.fan_out.index.keys(audience).filter(|key| has_changed && begins(key)).collect();
        if keys.is_empty() {
            return;
        }
        let Some(backlog) = self.backlog.own_mut(slot_id) else { return };
        backlog.snapshot = true;
        backlog.request(keys.into_iter().map(|key| (key, InitialValue::Snapshot)));
    }

    /// Refuses a request of a client that has not authenticated itself. False if it has.
    pub(in crate::shard) fn refuse_unknown(&mut self, slot_id: SlotId, id: u64) -> bool {
        if self.connections.get(slot_id).is_none_or(|client| client.principal.is_some()) {
            return false;
        }
        let message = "not authenticated: expected {\"op\":\"auth\",\"id\":1,\"token\":\"…\"} first".to_owned();
        self.answer_error(slot_id, &RequestError { id: Some(id), code: "unauthorized", message });
        true
    }

    /// Asks about the credentials of some clients, from a slot on, and does what the verdict says.
    pub(in crate::shard) fn review(&mut self, slots: Range<usize>, mut verdict: impl FnMut(&Principal) -> Verdict) {
        for index in slots {
            if let Some(slot_id) = self.connections.slot_id(index) {
                self.review_client(slot_id, &mut verdict);
            }
        }
    }

    /// Asks about some of those whose requests were under way. True if any of these is done.
    pub(in crate::shard) fn review_postponed(&mut self, mut verdict: impl FnMut(&Principal) -> Verdict) -> bool {
        /// Some 0.1 ms.
        const CLIENTS: usize = 32;
        let waiting = self.credentials.postponed.len().min(CLIENTS);
        let mut is_any_done = false;
        for slot_id in self.credentials.postponed.drain(..waiting).collect::<Vec<_>>() {
            if self.operations.has(slot_id) {
                self.credentials.postponed.push_back(slot_id);
            } else {
                self.review_client(slot_id, &mut verdict);
                is_any_done = true;
            }
        }
        is_any_done
    }

    fn review_client(&mut self, slot_id: SlotId, verdict: &mut impl FnMut(&Principal) -> Verdict) {
        let client = self.connections.get(slot_id).filter(|client| client.is_open());
        let Some(principal) = client.and_then(|client| client.principal.as_deref()) else { return };
        match verdict(principal) {
            Verdict::Keep => {}
            Verdict::Close(reason) => {
                self.counters.add(Counter::CredentialsClosed, 1);
                self.close(slot_id, CloseCode::CREDENTIALS_EXPIRED, reason);
            }
            Verdict::Renew(_) if self.operations.has(slot_id) => self.credentials.postponed.push_back(slot_id),
            Verdict::Renew(principal) => self.renew(slot_id, principal),
        }
    }

    /// Gives a client other rights that it has not asked for: the answer has the id 0.
    fn renew(&mut self, slot_id: SlotId, principal: Arc<Principal>) {
        let (channels, interval) = (ChannelSet::default(), ConflationInterval::IMMEDIATE);
        let stage = Stage::Reselect(Reselecting::new(principal));
        let mut operation = Operation { kind: Kind::Auth, id: 0, channels, interval, stage };
        if !self.reselect(slot_id, &mut operation) {
            if let Some(client) = self.connections.get_mut(slot_id) {
                client.waits = true;
            }
            self.operations.push(slot_id, operation, Vec::new());
        }
    }
}
