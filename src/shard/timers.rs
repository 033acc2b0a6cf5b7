//! Phase 4, ten times a second: counters, deadlines of clients, pings, heartbeats.
//!
//! It comes before the catch-up phase, so that a client that is sent a ping is a member again at the end of the same
//! tick and misses nothing.
//!
//! Slow clients are closed here, see [`Due::Stalled`] and [`Due::Behind`].

use super::Settings;
use super::backlog::ClientBacklog;
use super::client_context::ClientContext;
use super::connections::{Client, CloseState};
use super::credentials::{AuthDue, auth_due};
use super::encoding::Format;
use super::packets::Packing;
use super::slow_clients::SlowClients;
use super::tick_records::Now;
use crate::io::{Io, SendOp, SlotId};
use crate::ring::RingOffset;
use crate::stats::Counter;
use tickcast_protocol::control::reply;
use tickcast_protocol::record;
use tickcast_protocol::ws::{CloseCode, Opcode};

const INTERVAL_NS: u64 = 100_000_000;
/// Clients are checked in so many portions, one each time: a deadline is noticed at the latest a second after it.
const PORTIONS: usize = 10;

/// Accounts of addresses without clients are looked for once in so many rounds: ten seconds.
const EXPIRY_ROUNDS: usize = 100;

/// When the timers run next.
#[derive(Debug, Default)]
pub(super) struct Timers {
    next_ns: u64,
    /// How often they have run.
    round: usize,
    /// The lowest ring offset of the clients that are behind, of those that this round has checked.
    trail_needed: RingOffset,
}

/// What a client's timers ask for.
enum Due {
    /// It has not answered the close frame.
    Drop,
    /// Its socket takes nothing.
    Stalled,
    /// Its socket takes something, but it has been behind for too long.
    Behind,
    /// It has sent nothing for a while.
    Ping,
    /// It has sent nothing for too long.
    Idle,
    /// It has not answered a ping.
    PingTimeout,
    /// It has not subscribed to anything.
    SubscribeTimeout,
    /// It has begun a message and not ended it.
    MessageTimeout,
    /// What its credential asks for.
    Auth(AuthDue),
}

impl Timers {
    /// When the timers run next.
    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Runs the timers that are due. True if something was sent or is to be sent: then the next tick follows at once.
    pub(super) fn run<I: Io>(&mut self, clients: &mut ClientContext<'_, I>, slow_clients: &mut SlowClients) -> bool {
        if clients.now.ns < self.next_ns {
            return false;
        }
        self.next_ns = clients.now.ns + INTERVAL_NS;
        clients.fan_out.join_marks.expire(clients.now);
        let clients_before = clients.connections.len();
        // Before the pings: a client that is sent one is not behind.
        clients.set_levels();
        self.check_clients(clients, slow_clients);
        if self.round.is_multiple_of(EXPIRY_ROUNDS) {
            clients.accounts.expire(clients.now.ns);
        }
        let sent = self.send_heartbeats(clients);
        sent || clients.connections.len() != clients_before || !clients.backlog.queue.is_empty()
    }

    fn check_clients<I: Io>(&mut self, clients: &mut ClientContext<'_, I>, slow_clients: &mut SlowClients) {
        // Counted, not taken from the clock: a round that comes late must not leave a portion out.
        self.round = self.round.wrapping_add(1);
        let portion = self.round % PORTIONS;
        for index in (portion..clients.connections.slots()).step_by(PORTIONS) {
            let Some(slot_id) = clients.connections.slot_id(index) else { continue };
            clients.check_client(slot_id);
            if let Some(backlog) = clients.backlog.get(slot_id) {
                slow_clients.note(slot_id, backlog, clients.now);
                let needed = clients.ring_offset_of(slot_id, backlog);
                self.trail_needed = self.trail_needed.min(needed.unwrap_or(self.trail_needed));
            }
        }
        // The last client may leave before the round is over.
        if portion == PORTIONS - 1 || clients.connections.len() == 0 {
            slow_clients.finish_round(clients.connections, clients.backlog, &clients.fan_out.index, clients.market);
            // Clients that have left the live path since the round began are not behind its offset.
            let needed = (clients.backlog.len() > 0).then_some(self.trail_needed);
            clients.market.log_trail.forget(needed);
            self.trail_needed = clients.market.offset;
        }
    }

    /// Audiences that were sent nothing for a while get a heartbeat, so that silence means a broken connection.
    fn send_heartbeats<I: Io>(&self, clients: &mut ClientContext<'_, I>) -> bool {
        let heartbeat_ms = clients.settings.heartbeat_ms;
        let Some(before_ns) = clients.now.ns.checked_sub(u64::from(heartbeat_ms) * 1_000_000) else { return false };
        // In portions, the more the longer the interval: a heartbeat is late by a fifth of it at the most.
        let portions = (heartbeat_ms as usize / 500).clamp(1, PORTIONS);
        let audiences = &clients.fan_out.audiences;
        let portion = audiences.len().div_ceil(portions);
        let from = self.round % portions * portion;
        let silent: Vec<_> = audiences.silent_since(before_ns, from..from + portion).collect();
        if silent.is_empty() {
            return false;
        }
        let mut heartbeat = Vec::new();
        record::encode_heartbeat(clients.now.wall_ns(), &mut heartbeat);
        for audience in silent {
            clients.push_heartbeat(audience, &heartbeat);
            if clients.outbox.is_portion_full() {
                clients.outbox.send_heartbeats(clients.counters);
            }
        }
        clients.outbox.send_heartbeats(clients.counters);
        clients.handle_stopped();
        true
    }
}

impl<I: Io> ClientContext<'_, I> {
    fn push_heartbeat(&mut self, audience: u32, heartbeat: &[u8]) {
        let (audiences, batch) = (&mut self.fan_out.audiences, &mut self.outbox.batch);
        let position = self.market.position;
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.now.wall_ns(),
            flags: 0,
            last_flags: 0,
            from_position: position,
            to_position: position,
        };
        let start = batch.arena.len();
        let encoding = audiences.encoding(audience);
        let record = std::iter::once((position, heartbeat));
        self.fan_out.encoder.push_packets(encoding, None, &packing, &self.market.directory, record, &mut batch.arena);
        let len = (batch.arena.len() - start) as u32;
        batch.sends.extend(audiences.members(audience).map(|slot_id| SendOp { slot_id, start: start as u32, len }));
        audiences.note_sent(audience, self.now.ns);
        self.counters.add(Counter::Heartbeats, audiences.members_len(audience) as u64);
    }

    fn check_client(&mut self, slot_id: SlotId) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        let Some(due) = due(client, self.backlog.get(slot_id), self.settings, self.now) else { return };
        match due {
            Due::Drop => self.drop_client(slot_id),
            Due::Stalled => {
                self.counters.add(Counter::SlowClosed, 1);
                self.close_slow(slot_id, "nothing was taken for too long");
            }
            Due::Behind => {
                self.counters.add(Counter::BehindClosed, 1);
                self.close_slow(slot_id, "too slow for what it subscribed to: behind for too long");
            }
            Due::Auth(due) => self.handle_auth_due(slot_id, &due),
            Due::Ping => {
                client.pinged_ns = self.now.ns;
                client.expects_pong = true;
                self.push_control_frame(slot_id, Opcode::Ping, b"");
            }
            Due::Idle => {
                let reason = "nothing was received for too long, not even a pong".to_owned();
                self.close_late(slot_id, Counter::IdleClosed, &reason);
            }
            Due::PingTimeout => {
                let reason = format!("a ping was not answered within {} ms", self.settings.ping_timeout_ms);
                self.close_late(slot_id, Counter::PingTimeouts, &reason);
            }
            Due::SubscribeTimeout => {
                let reason = format!("nothing was subscribed within {} ms", self.settings.subscribe_timeout_ms);
                self.close_late(slot_id, Counter::SubscribeTimeouts, &reason);
            }
            Due::MessageTimeout => {
                let reason = format!("a message was not complete within {} ms", self.settings.message_timeout_ms);
                self.close_late(slot_id, Counter::MessageTimeouts, &reason);
            }
        }
    }

    fn handle_auth_due(&mut self, slot_id: SlotId, due: &AuthDue) {
        let reason = match due {
            AuthDue::Expiring(in_s) => {
                if let Some(client) = self.connections.get_mut(slot_id) {
                    client.is_told_expiring = true;
                }
                return self.answer(slot_id, |out| reply::expiring(out, *in_s));
            }
            AuthDue::Expired => "the token has expired".to_owned(),
            AuthDue::Timeout => format!("no token within {} ms", self.settings.auth_timeout_ms),
        };
        self.counters.add(Counter::CredentialsClosed, 1);
        self.close(slot_id, CloseCode::CREDENTIALS_EXPIRED, &reason);
    }

    fn close_late(&mut self, slot_id: SlotId, counter: Counter, reason: &str) {
        self.counters.add(counter, 1);
        self.close(slot_id, CloseCode::POLICY, reason);
    }

    fn set_levels(&mut self) {
        let (connections, counters) = (&self.connections, &mut *self.counters);
        counters.set(Counter::Clients, connections.len() as u64);
        counters.set(Counter::JsonClients, connections.len_of(Format::Json) as u64);
        counters.set(Counter::EventClients, connections.len_of(Format::Events) as u64);
        counters.set(Counter::Audiences, self.fan_out.index.audiences() as u64);
        counters.set(Counter::Rights, self.fan_out.index.rights() as u64);
        counters.set(Counter::CatchingUp, self.backlog.len() as u64);
        counters.set(Counter::Lagging, self.fan_out.histories.lagging() as u64);
        counters.set(Counter::SentHistoryBytes, self.fan_out.histories.bytes() as u64);
        counters.set(Counter::InputBytes, self.accounts.input_bytes() as u64);
        counters.set(Counter::RequestsPending, (self.operations.len() + connections.throttled_len()) as u64);
        let history = &mut self.backlog.history;
        history.forget(self.ring.oldest(), self.now.ns);
        let (bytes, ns) = history.depth(self.market.offset, self.now.ns);
        counters.set(Counter::HistoryBytes, bytes);
        counters.set(Counter::HistoryMs, ns / 1_000_000);
        let compressed = self.fan_out.encoder.compressed();
        counters.set(Counter::Compressed, compressed.packets);
        counters.set(Counter::CompressedBytesBefore, compressed.bytes_before);
        counters.set(Counter::CompressedBytesAfter, compressed.bytes_after);
    }
}

/// What has to be done with a client now, if anything.
fn due(client: &Client, backlog: Option<&ClientBacklog>, settings: &Settings, now: Now) -> Option<Due> {
    let passed = |since_ns: u64, ms: u32| now.ns.saturating_sub(since_ns) >= u64::from(ms) * 1_000_000;
    match client.close_state {
        CloseState::Lingering { until_ns } => return (now.ns >= until_ns).then_some(Due::Drop),
        CloseState::Closing { until_ns, .. } if until_ns != u64::MAX => {
            return (now.ns >= until_ns).then_some(Due::Drop);
        }
        CloseState::Closing { .. } | CloseState::Open => {}
    }
    // An SSE client sends nothing. That it is gone shows in heartbeats that are not acknowledged: TCP_USER_TIMEOUT, set
    // by the HTTP server.
    let is_checked = client.is_open() && client.is_websocket();
    let (notice_s, grace_s) = (settings.token_notice_s, settings.token_grace_s);
    if let Some(due) = auth_due(client, now.ns, now.wall_ns(), notice_s, grace_s).filter(|_| client.is_open()) {
        return Some(Due::Auth(due));
    }
    if let Some(backlog) = backlog {
        if backlog.is_blocked && passed(backlog.progress_ns, settings.slow_timeout_ms) {
            return Some(Due::Stalled);
        }
        if passed(backlog.since.ns, settings.backlog_ms_max) {
            return Some(Due::Behind);
        }
        // Its input is not read while something is pending. That its socket takes bytes is a sign of life, too.
        let heard_ns = backlog.progress_ns.max(client.received_ns);
        return (is_checked && passed(heard_ns, settings.idle_timeout_ms)).then_some(Due::Idle);
    }
    // Nor is it read while a request of its own is under way, or its allowance is spent.
    if !is_checked || client.waits {
        return None;
    }
    let awaits_pong = client.pinged_ns != 0;
    // If something was pending since the ping, the pong may be read only now.
    let asked_ns = client.pinged_ns.max(client.received_ns);
    let never_subscribed = settings.subscribe_timeout_ms != 0 && client.unsubscribed_since_ns != 0;
    let is_mid_message = client.message_since_ns != 0;
    if is_mid_message && passed(client.message_since_ns, settings.message_timeout_ms) {
        Some(Due::MessageTimeout)
    } else if passed(client.received_ns, settings.idle_timeout_ms) {
        Some(Due::Idle)
    } else if awaits_pong && passed(asked_ns, settings.ping_timeout_ms) {
        Some(Due::PingTimeout)
    } else if never_subscribed && passed(client.unsubscribed_since_ns, settings.subscribe_timeout_ms) {
        Some(Due::SubscribeTimeout)
    } else if !awaits_pong && passed(client.received_ns, settings.ping_interval_ms) {
        Some(Due::Ping)
    } else {
        None
    }
}
