//! Phase 4, every tenth of a second: heartbeats, pings, deadlines, levels. It comes before the catch-up phase, so that who
//! is sent a ping is a member again at the end of the same turn, and misses nothing.

use super::Shard;
use super::connections::{Client, Ending};
use super::drain::push_last_words;
use super::encoding::Format;
use super::flush::PORTION_BYTES;
use super::packets::Packing;
use crate::io::{Io, SendOp};
use crate::stats::Counter;
use tickcast_protocol::record;
use tickcast_protocol::ws::close::CloseCode;
use tickcast_protocol::ws::frame::Opcode;

/// How often the house is kept.
const INTERVAL_NS: u64 = 100_000_000;
/// Clients are looked at in so many portions, one each time: a deadline is seen at the latest a second after it.
const PORTIONS: usize = 10;

/// What the time that has passed asks to be done with a client.
enum Due {
    /// It was given time to answer the close frame.
    Drop,
    /// It takes nothing.
    Slow,
    /// It takes something, and is behind for too long.
    Behind,
    /// It is silent: is it there?
    Ping,
    /// It was silent for too long.
    Idle,
    /// It has not answered a ping.
    Pong,
    /// It has come and subscribed to nothing.
    Subscribe,
}

impl<I: Io> Shard<I> {
    /// True if something was sent, or is to be: the turn after this does it.
    pub(super) fn keep_house(&mut self) -> bool {
        if self.tick.now_ns < self.housekeeping_ns {
            return false;
        }
        self.housekeeping_ns = self.tick.now_ns + INTERVAL_NS;
        let now_ns = self.tick.now_ns;
        self.fresh.retain(|_, fresh| fresh.until_ns > now_ns);
        let clients_before = self.clients_len;
        // Before the pings: who is sent one is not behind.
        self.set_levels();
        self.check_deadlines();
        let sent = self.send_heartbeats();
        sent || self.clients_len != clients_before || !self.waiting.is_empty()
    }

    /// Audiences that have had nothing for a while get a heartbeat: silence then means a broken connection.
    fn send_heartbeats(&mut self) -> bool {
        let interval_ns = u64::from(self.settings.heartbeat_ms) * 1_000_000;
        let Some(before_ns) = self.tick.now_ns.checked_sub(interval_ns) else { return false };
        // In portions, the more the longer the interval: silence is seen at the latest a fifth of it after it is due.
        let portions = (self.settings.heartbeat_ms as usize / 500).clamp(1, PORTIONS);
        let portion = self.audiences.len().div_ceil(portions);
        let from = self.housekeeping_round % portions * portion;
        let silent: Vec<_> = self.audiences.silent_since(before_ns, from..from + portion).collect();
        if silent.is_empty() {
            return false;
        }
        let mut heartbeat = Vec::new();
        record::encode_heartbeat(self.tick.now_ns, &mut heartbeat);
        let position = self.tick.position;
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.tick.now_ns,
            flags: 0,
            last_flags: 0,
            from_position: position,
            to_position: position,
        };
        for audience in silent {
            let start = self.scratch.arena.len();
            let record = std::iter::once((position, heartbeat.as_slice()));
            let encoding = self.audiences.encoding(audience);
            self.encoder.push_packets(encoding, &packing, &self.directory, record, &mut self.scratch.arena);
            let len = (self.scratch.arena.len() - start) as u32;
            let send = |slot_id| SendOp { slot_id, start: start as u32, len };
            self.scratch.sends.extend(self.audiences.members(audience).map(send));
            self.audiences.served(audience, self.tick.now_ns);
            self.counters.add(Counter::Heartbeats, self.audiences.members_len(audience) as u64);
            if self.scratch.arena.len() >= PORTION_BYTES {
                self.send_portion();
            }
        }
        self.send_portion();
        true
    }

    fn check_deadlines(&mut self) {
        // Counted, not taken from the clock: a round that comes late must not leave a portion out.
        self.housekeeping_round = self.housekeeping_round.wrapping_add(1);
        let portion = self.housekeeping_round % PORTIONS;
        for slot in (portion..self.clients.len()).step_by(PORTIONS) {
            self.check_client(slot as u32);
            self.note_if_slow(slot as u32);
        }
        // Who is alone may leave before the round is over.
        if portion == PORTIONS - 1 || self.clients_len == 0 {
            self.list_slowest();
        }
    }

    fn check_client(&mut self, slot: u32) {
        let Some(client) = self.client(slot) else { return };
        let Some(due) = self.due(client) else { return };
        match due {
            Due::Drop => self.drop_client(slot),
            Due::Slow => {
                self.counters.add(Counter::SlowClosed, 1);
                self.close_slow(slot, "nothing was taken for too long");
            }
            Due::Behind => {
                self.counters.add(Counter::BehindClosed, 1);
                self.close_slow(slot, "too slow for what it subscribed to: behind for too long");
            }
            Due::Ping => {
                self.answer_frame(slot, Opcode::Ping, b"");
                let now_ns = self.tick.now_ns;
                self.clients[slot as usize].as_mut().expect("looked up above").pinged_ns = now_ns;
            }
            Due::Idle => {
                self.counters.add(Counter::IdleClosed, 1);
                self.say_farewell(slot, CloseCode::POLICY, "nothing was received for too long, not even a pong");
            }
            Due::Pong => {
                self.counters.add(Counter::PingTimeouts, 1);
                let reason = format!("a ping was not answered within {} ms", self.settings.ping_timeout_ms);
                self.say_farewell(slot, CloseCode::POLICY, &reason);
            }
            Due::Subscribe => {
                self.counters.add(Counter::SubscribeTimeouts, 1);
                let reason = format!("nothing was subscribed within {} ms", self.settings.subscribe_timeout_ms);
                self.say_farewell(slot, CloseCode::POLICY, &reason);
            }
        }
    }

    /// What has to be done with a client now, if anything.
    fn due(&self, client: &Client) -> Option<Due> {
        let (now_ns, settings) = (self.tick.now_ns, &self.settings);
        let passed = |since_ns: u64, ms: u32| now_ns.saturating_sub(since_ns) >= u64::from(ms) * 1_000_000;
        if let Ending::Lingering { until_ns } = client.ending {
            return (now_ns >= until_ns).then_some(Due::Drop);
        }
        // A reader of events has nothing to say: that it has gone is found out by what it is sent, heartbeats at the
        // least, which nobody acknowledges any more (TCP_USER_TIMEOUT, set at the door).
        let speaks = self.interest.encoding(client.audience).format.is_websocket();
        if let Some(catch_up) = &client.catch_up {
            if catch_up.blocked && passed(catch_up.progress_ns, settings.slow_timeout_ms) {
                return Some(Due::Slow);
            }
            if passed(catch_up.since_ns, settings.backlog_ms_max) {
                return Some(Due::Behind);
            }
            // Who is owed something is not read; that it takes what it is owed is a sign of life, too.
            let heard_ns = catch_up.progress_ns.max(client.received_ns);
            let is_idle = speaks && client.ending == Ending::No && passed(heard_ns, settings.idle_timeout_ms);
            return is_idle.then_some(Due::Idle);
        }
        if client.ending != Ending::No || !speaks {
            return None;
        }
        let waits_for_pong = client.pinged_ns != 0;
        // Of one that was owed something since, an answer may only now be read.
        let asked_ns = client.pinged_ns.max(client.received_ns);
        let never_subscribed = settings.subscribe_timeout_ms != 0 && client.unsubscribed_since_ns != 0;
        if passed(client.received_ns, settings.idle_timeout_ms) {
            Some(Due::Idle)
        } else if waits_for_pong && passed(asked_ns, settings.ping_timeout_ms) {
            Some(Due::Pong)
        } else if never_subscribed && passed(client.unsubscribed_since_ns, settings.subscribe_timeout_ms) {
            Some(Due::Subscribe)
        } else if !waits_for_pong && passed(client.received_ns, settings.ping_interval_ms) {
            Some(Due::Ping)
        } else {
            None
        }
    }

    /// A client that takes nothing is told, if its socket takes that, and closed. Nobody waits for its answer.
    fn close_slow(&mut self, slot: u32, reason: &str) {
        let format = self.format(slot);
        let Some(client) = self.clients[slot as usize].as_mut() else { return };
        // One that is on its way out has been told already.
        if let Some(catch_up) = client.catch_up.as_ref().filter(|_| client.ending == Ending::No) {
            let arena = &mut self.scratch.arena;
            arena.extend_from_slice(&catch_up.tail);
            arena.extend_from_slice(&catch_up.control);
            push_last_words(format, CloseCode::SLOW_CONSUMER, reason, slot, arena);
            let send = SendOp { slot_id: client.slot_id, start: 0, len: arena.len() as u32 };
            self.io.send_batch(arena, &[send], &mut Vec::new());
            arena.clear();
        }
        self.drop_client(slot);
    }

    fn set_levels(&mut self) {
        self.counters.set(Counter::Clients, self.clients_len as u64);
        self.counters.set(Counter::JsonClients, self.formats[Format::Json as usize] as u64);
        self.counters.set(Counter::EventClients, self.formats[Format::Events as usize] as u64);
        self.counters.set(Counter::Audiences, self.interest.audiences() as u64);
        self.counters.set(Counter::CatchingUp, self.catching_up as u64);
        self.history.forget(self.ring.oldest(), self.tick.now_ns);
        let (bytes, ns) = self.history.depth(self.tick.ring_position, self.tick.now_ns);
        self.counters.set(Counter::HistoryBytes, bytes);
        self.counters.set(Counter::HistoryMs, ns / 1_000_000);
        let compressed = self.encoder.compressed();
        self.counters.set(Counter::Compressed, compressed.packets);
        self.counters.set(Counter::CompressedBytesBefore, compressed.bytes_before);
        self.counters.set(Counter::CompressedBytesAfter, compressed.bytes_after);
    }
}
