//! What happens to one client: it is opened, answered, taken off the live path, made a member again, dropped.

use std::sync::Arc;

use bytes::Bytes;

use super::Settings;
use super::accounts::Accounts;
use super::backlog::{Backlog, ClientBacklog, Missed, OwnBacklog};
use super::connections::{Client, ConnectionTable, reconnect_ms};
use super::credentials::{Credentials, expires_in_s};
use super::encoding::Encoding;
use super::fan_out::FanOut;
use super::market_view::MarketView;
use super::operations::Operations;
use super::outbox::{Outbox, Stopped};
use super::state_walk::{StateCursor, StateWalk};
use super::tick_records::Now;
use crate::identity::{Kind, Principal, Rights};
use crate::io::{Io, SlotId};
use crate::ring;
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::control::reply;
use tickcast_protocol::sse;
use tickcast_protocol::ws::{CloseCode, Opcode, push_frame};

/// The parts that an operation on one client may touch. Phases that deal with clients get it; those that only read the
/// ring or make packets get the parts that they need.
pub(super) struct ClientContext<'a, I: Io> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) ring: &'a ring::Reader,
    pub(super) market: &'a mut MarketView,
    pub(super) fan_out: &'a mut FanOut,
    pub(super) connections: &'a mut ConnectionTable,
    pub(super) backlog: &'a mut Backlog,
    pub(super) outbox: &'a mut Outbox<I>,
    pub(super) operations: &'a mut Operations,
    pub(super) accounts: &'a mut Accounts,
    pub(super) credentials: &'a mut Credentials,
    pub(super) counters: &'a mut ShardCounters,
}

/// A connection that the shard takes over.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    pub encoding: Encoding,
    /// Who it is; `None` for a client that has to authenticate itself by its first message.
    pub principal: Option<Arc<Principal>>,
    /// The response to its handshake, which has not been sent yet.
    pub upgrade: &'a [u8],
    /// What the client has sent after its handshake.
    pub input: &'a [u8],
}

impl<I: Io> ClientContext<'_, I> {
    /// Takes over a connection. `upgrade` is the response to its handshake, which has not been sent yet; `input` is
    /// what the client has sent after its handshake.
    pub(super) fn open(&mut self, slot_id: SlotId, Opening { encoding, principal, upgrade, input }: Opening<'_>) {
        let audience = match &principal {
            Some(principal) => self.fan_out.index.enter_with(encoding, &principal.rights),
            None => self.fan_out.index.enter_with(encoding, &Arc::new(Rights::none())),
        };
        self.fan_out.audiences.grow(self.fan_out.index.audience_ids());
        let mut client = Client::new(slot_id, audience, encoding, self.settings.requests_per_s, self.now.ns);
        match principal {
            Some(principal) => client.set_principal(principal),
            None => client.auth_until_ns = self.now.ns + u64::from(self.settings.auth_timeout_ms) * 1_000_000,
        }
        self.connections.insert(client);
        self.counters.add(Counter::ClientsAccepted, 1);
        self.leave_live_path(slot_id).answers.extend_from_slice(upgrade);
        if let Some(backlog) = self.backlog.get_mut(slot_id) {
            backlog.deferred_input.extend_from_slice(input);
        }
        self.welcome(slot_id, encoding);
    }

    fn welcome(&mut self, slot_id: SlotId, encoding: Encoding) {
        let Settings { epoch, delay_s, heartbeat_ms, subscriptions_max, requests_per_s, .. } = *self.settings;
        let limits = reply::WelcomeLimits { symbols: subscriptions_max as u64, requests_per_s: requests_per_s.into() };
        if !encoding.format.is_websocket() {
            // If the stream breaks without a close event, clients come back spread over time all the same.
            self.push_bytes(slot_id, |out| sse::push_retry(reconnect_ms(slot_id), out));
        }
        let principal = self.connections.get(slot_id).and_then(|client| client.principal.clone());
        let user = principal.as_deref().filter(|principal| principal.kind != Kind::Anonymous);
        // A server that identifies no clients asks for no token, and is sent none.
        let auth = match &principal {
            None => Some("required"),
            Some(principal) => (user.is_none() && !principal.rights.is_open()).then_some("optional"),
        };
        let greeting = reply::Welcome {
            epoch,
            version: env!("CARGO_PKG_VERSION"),
            heartbeat_ms: heartbeat_ms.into(),
            limits,
            user: user.map(|principal| &*principal.user),
            expires_in_s: user.and_then(|principal| expires_in_s(principal, self.now.wall_ns())),
            auth,
            delay_s,
        };
        self.answer(slot_id, |out| reply::welcome(out, &greeting));
    }

    /// Answers a client.
    pub(super) fn answer(&mut self, slot_id: SlotId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(format) = self.connections.get(slot_id).map(|client| client.encoding.format) else { return };
        let mut text = Vec::new();
        write(&mut text);
        self.push_bytes(slot_id, |out| format.push_answer(&text, out));
    }

    /// Sends a client a control frame.
    pub(super) fn push_control_frame(&mut self, slot_id: SlotId, opcode: Opcode, payload: &[u8]) {
        self.push_bytes(slot_id, |out| push_frame(opcode, payload, out));
    }

    /// Adds to the pending answers of a client. One that sends requests and does not read the answers is closed at the
    /// limit. An SSE client has sent one request, and has no limit.
    fn push_bytes(&mut self, slot_id: SlotId, push: impl FnOnce(&mut Vec<u8>)) {
        // Nothing follows a close frame: neither the end of a request that was under way, nor the answer about a token.
        let Some(client) = self.connections.get(slot_id).filter(|client| client.is_open()) else { return };
        let limit = if client.is_websocket() { self.settings.answers_bytes_max } else { usize::MAX };
        let backlog = self.leave_live_path(slot_id);
        let pending = backlog.answers.len();
        push(&mut backlog.answers);
        self.backlog.enqueue(slot_id);
        if pending > limit {
            self.counters.add(Counter::Floods, 1);
            let reason = format!("more than {limit} bytes of answers were not read");
            self.close(slot_id, CloseCode::POLICY, &reason);
        }
    }

    /// Takes a client off the live path because something is pending for it; it has had all that was dispatched up to
    /// now. A lagging member goes on alone. Returns what is pending, also for a client that is off the live path already.
    pub(super) fn leave_live_path(&mut self, slot_id: SlotId) -> &mut OwnBacklog {
        self.connections.leave_audience(slot_id, &mut self.fan_out.audiences);
        self.go_alone(slot_id);
        let (now, market, join_marks) = (self.now, &mut *self.market, &self.fan_out.join_marks);
        let own = || {
            market.log_trail.begin(market.offset);
            let floor = join_marks.get(slot_id).unwrap_or_default();
            let cursor = StateCursor::dispatched(now.tick, market.cursor(), floor);
            OwnBacklog::new(market.directory.len() as u32, StateWalk::at(cursor), market.cursor())
        };
        self.backlog.own_or_insert_with(slot_id, now, own)
    }

    /// Forgets what is pending for a client.
    pub(super) fn remove_backlog(&mut self, slot_id: SlotId) -> Option<Box<ClientBacklog>> {
        let backlog = self.backlog.remove(slot_id)?;
        if let (Missed::Shared(cursor), Some(client)) = (&backlog.missed, self.connections.get(slot_id)) {
            let audience = client.audience;
            let departure = self.fan_out.histories.get(audience).and_then(|history| history.departure(cursor));
            if let Some(count) = departure.map(|departure| departure.count) {
                self.count_sent(cursor, count);
            }
            self.remove_lagging(audience, cursor);
        }
        Some(backlog)
    }

    /// Makes a client for which nothing is pending a member of its audience, from the next tick on.
    pub(super) fn join_live_path(&mut self, slot_id: SlotId) {
        let Some(backlog) = self.remove_backlog(slot_id) else { return };
        self.connections.join_audience(slot_id, &mut self.fan_out.audiences, self.now.ns);
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        // Its input was not read in the backlog. That its socket took what was pending is a sign of life.
        client.received_ns = client.received_ns.max(backlog.progress_ns);
        if client.message_since_ns != 0 {
            client.message_since_ns = self.now.ns;
        }
        // A client that only had an answer has not had the values that are pending at its conflation interval.
        let is_explicit = backlog.own().is_some_and(|own| own.state.is_explicit());
        if is_explicit && self.fan_out.index.conflates(client.audience) {
            self.fan_out.join_marks.set(slot_id, self.market.offset, self.now);
        }
        self.note_held_input(slot_id);
        if backlog.deferred_input.is_empty() {
            self.receive_if_ready(slot_id);
        } else {
            // Its requests continue in the next tick. Only the bytes are kept until then, not the backlog.
            self.connections.deferred_input.push_back((slot_id, backlog.deferred_input));
        }
    }

    /// Asks for input if there is some and nothing is pending for the client; until then TCP slows it down.
    pub(super) fn receive_if_ready(&mut self, slot_id: SlotId) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        let is_behind = client.is_open() && self.backlog.get(slot_id).is_some();
        if client.readable && !client.receiving && !is_behind && !client.waits {
            client.readable = false;
            client.receiving = true;
            self.outbox.io.receive(client.slot_id);
        }
    }

    /// Takes the clients whose sends stopped off the live path, or drops them.
    pub(super) fn handle_stopped(&mut self) {
        while let Some(stopped) = self.outbox.stopped.pop_front() {
            match stopped {
                Stopped::Lagging { slot_id, offset, took } => self.lag(slot_id, offset, took),
                Stopped::Full { slot_id, rest, boundary, took } => self.block(slot_id, rest, boundary, took),
                Stopped::Broken { slot_id } => self.drop_client(slot_id),
            }
        }
    }

    /// A socket is full: the rest is kept, and the client is served again once there is room.
    fn block(&mut self, slot_id: SlotId, rest: Bytes, boundary: usize, took: bool) {
        if self.connections.get_mut(slot_id).is_none() {
            return;
        }
        let now_ns = self.now.ns;
        self.leave_live_path(slot_id).keep_unsent(rest, boundary);
        let Some(backlog) = self.backlog.get_mut(slot_id) else { return };
        // A full socket that takes nothing makes no progress, however often it reports room.
        if took {
            backlog.progress_ns = backlog.progress_ns.max(now_ns);
        }
        self.wait_for_room(slot_id);
    }

    /// Has a client wait until its socket has room; it is served on its own.
    pub(super) fn wait_for_room(&mut self, slot_id: SlotId) {
        let Some(backlog) = self.backlog.get_mut(slot_id) else { return };
        backlog.is_blocked = true;
        if let Some(own) = backlog.own_mut() {
            own.full_tick = Some(self.now.tick);
        }
        self.outbox.io.want_writable(slot_id);
    }

    /// Closes the connection of a client and forgets the client.
    pub(super) fn drop_client(&mut self, slot_id: SlotId) {
        self.connections.leave_audience(slot_id, &mut self.fan_out.audiences);
        self.remove_backlog(slot_id);
        let Some(client) = self.connections.remove(slot_id) else { return };
        self.fan_out.index.leave(client.audience);
        if let Some((operation, _)) = self.operations.remove(slot_id) {
            operation.abandon(&mut self.fan_out.index);
        }
        self.close_account(&client);
        self.fan_out.join_marks.remove(slot_id);
        self.outbox.io.close(client.slot_id);
        self.counters.add(Counter::ClientsClosed, 1);
    }
}
