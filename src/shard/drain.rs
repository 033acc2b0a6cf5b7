//! Sending all clients away, one after another over a while, so that those who take them over are not stormed.
//!
//! What always holds: a client has had everything that was in the ring when the drain began, and is told only when it is
//! owed nothing more: a straggler, and one whose values wait for a tick, come last. Until it is told, it is served as ever.

use super::Shard;
use super::connections::reconnect_ms;
use super::encoding::Format;
use crate::io::Io;
use crate::stats::Counter;
use tickcast_protocol::control::reply;
use tickcast_protocol::sse;
use tickcast_protocol::ws::close::{CloseCode, push_close};

/// How often some are told.
const STEP_NS: u64 = 10_000_000;
/// How often those are looked at again who were owed something.
const LOOK_NS: u64 = 100_000_000;
/// The longest interval of merged values: after it none of them waits for a tick that was before the drain.
const LONGEST_TICK_NS: u64 = 1_000_000_000;

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    from_ns: u64,
    until_ns: u64,
    /// All that was in the ring when it began has been read.
    is_read: bool,
    next_ns: u64,
    look_ns: u64,
    /// Slots below it have been told, or stand among the postponed.
    cursor: usize,
    postponed: Vec<u32>,
}

impl<I: Io> Shard<I> {
    /// Begins to send all clients away, spread over this time. Nobody may be opened afterwards.
    pub fn begin_drain(&mut self, over_ms: u32, now_ns: u64) {
        if self.leaving.is_some() {
            return;
        }
        let until_ns = now_ns + u64::from(over_ms) * 1_000_000;
        let (is_read, cursor, postponed) = (false, 0, Vec::new());
        let drain = Drain { from_ns: now_ns, until_ns, is_read, next_ns: now_ns, look_ns: now_ns, cursor, postponed };
        self.leaving = Some(drain);
    }

    /// When the next are to be told.
    pub(super) fn farewell_ns(&self) -> Option<u64> {
        self.leaving.as_ref().filter(|_| self.clients_len > 0).map(|drain| drain.next_ns)
    }

    /// Tells those whose time has come. True if somebody was told.
    pub(super) fn send_away(&mut self) -> bool {
        let now_ns = self.tick.now_ns;
        let Some(mut drain) = self.leaving.take_if(|drain| drain.next_ns <= now_ns) else { return false };
        drain.next_ns = now_ns + STEP_NS;
        let is_last = now_ns >= drain.until_ns;
        drain.is_read |= self.ring.is_empty() || is_last;
        let told_before = self.counters.get(Counter::Drained);
        if drain.is_read {
            let due = drain.due(self.clients.len(), now_ns);
            for slot in drain.cursor..due {
                self.tell_or_postpone(slot as u32, is_last, &mut drain);
            }
            drain.cursor = due;
            if is_last || now_ns >= drain.look_ns {
                drain.look_ns = now_ns + LOOK_NS;
                for slot in std::mem::take(&mut drain.postponed) {
                    self.tell_or_postpone(slot, is_last, &mut drain);
                }
            }
        }
        self.leaving = Some(drain);
        self.counters.get(Counter::Drained) > told_before
    }

    fn tell_or_postpone(&mut self, slot: u32, is_last: bool, drain: &mut Drain) {
        let Some(client) = self.client(slot) else { return };
        let waits_for_tick =
            self.interest.merges(client.audience) && self.tick.now_ns < drain.from_ns + LONGEST_TICK_NS;
        if !is_last && (client.catch_up.is_some() || waits_for_tick) {
            drain.postponed.push(slot);
            return;
        }
        self.counters.add(Counter::Drained, 1);
        self.say_farewell(slot, CloseCode::GOING_AWAY, "the server is stopping");
    }
}

/// Appends what a client is told last: why, and when to come back. One that is sent away for what it did is told by the
/// close frame alone; in a stream of events there is none, and it would come back by itself, at once.
pub(super) fn push_last_words(format: Format, code: CloseCode, reason: &str, slot: u32, out: &mut Vec<u8>) {
    let announced = matches!(code, CloseCode::GOING_AWAY | CloseCode::SLOW_CONSUMER) || !format.is_websocket();
    if announced {
        let mut text = Vec::new();
        let reconnect_ms = reconnect_ms(slot);
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

impl Drain {
    /// How many slots are to have been told by now.
    fn due(&self, slots: usize, now_ns: u64) -> usize {
        let (passed, whole) = (now_ns.saturating_sub(self.from_ns), self.until_ns - self.from_ns);
        if passed >= whole {
            return slots;
        }
        let due = (slots as u128 * u128::from(passed)).div_ceil(u128::from(whole)) as usize;
        due.max(self.cursor)
    }
}
