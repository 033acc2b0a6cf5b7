//! Simulated sockets: bounded both ways, with the faults of one seed.

use std::collections::VecDeque;
use std::ops::Range;

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast::shard::Format;

use crate::Dice;
use crate::frames;
use crate::plan::Faults;
use crate::planted_bug::{PlantedBug, Trigger};
use crate::sends::Sends;
use crate::trail::IoEvent;

/// One connection. It outlives its slot until the client has read what was sent.
#[derive(Debug)]
pub struct Conn {
    pub slot_id: Option<SlotId>,
    format: Format,
    /// What the socket is sent is sealed: it has no frames that can be seen here.
    pub is_secured: bool,
    pub to_client: VecDeque<u8>,
    pub to_server: VecDeque<u8>,
    pub reset: bool,
    /// The client has ended its side.
    pub finished: bool,
    /// When the server did something other than send what the audience gets: cut sends, their rests, answers, pending
    /// records. Ascending.
    pub disturbed_ns: Vec<u64>,
    /// When that was last.
    pub out_ns: u64,
    /// What the socket was sent.
    pub socket: Sends,
    /// Of a secured connection: what the shard has sent, before it was sealed.
    plain: Sends,
    /// The tick in which that was.
    pub out_tick: u64,
    pub was_cut: bool,
    /// When the socket last took a byte, and the longest time for which it took none.
    took_ns: u64,
    pub stalled_ns: u64,
    /// Since when the server sends it other things than its audience, and the longest time for which it did.
    behind_since_ns: Option<u64>,
    pub behind_ns: u64,
    /// When the server last received something from the client, and the longest time for which it received nothing.
    heard_ns: u64,
    /// When there was input that the server had not received.
    quiet_ns: u64,
    pub silent_ns: u64,
    pub capacity: usize,
    pub wants_room: bool,
    receiving: bool,
    ended: bool,
    /// A planted bug has swallowed the completion that the shard waits for.
    deaf: bool,
    /// A planted bug has its socket take everything.
    hoards: bool,
}

impl Conn {
    /// What the shard has sent.
    pub fn of_shard(&self) -> &Sends {
        if self.is_secured { &self.plain } else { &self.socket }
    }

    fn note_times(&mut self, now_ns: u64) {
        self.stalled_ns = self.stalled_ns.max(now_ns - self.took_ns);
        self.behind_ns = self.behind_ns.max(now_ns - self.behind_since_ns.unwrap_or(now_ns));
        if !self.to_server.is_empty() {
            self.quiet_ns = now_ns;
        }
        self.silent_ns = self.silent_ns.max(now_ns - self.quiet_ns.max(self.heard_ns));
    }

    /// Where the first whole frame behind a rest is.
    fn second_frame(&self, payload: &[u8], taken: usize) -> Option<Range<usize>> {
        let start = Some(self.socket.rest()).filter(|rest| self.socket.cut && !self.is_secured && *rest < taken)?;
        let end = start + frames::first_len(self.format, &payload[start..]);
        (end <= taken).then_some(start..end)
    }

    fn note_send(&mut self, payload: &[u8], taken: usize, is_piece: bool) {
        match self.is_secured {
            true => self.socket.note_sealed(payload, taken),
            false => self.socket.note(self.format, payload, taken, is_piece),
        }
    }
}

/// Number of a batch in its tick, start and length.
pub type SendRange = (u32, u32, u32);

/// What one flush sent to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushedSend {
    pub conn: usize,
    /// The same for all members of an audience.
    pub range: SendRange,
}

/// Counts of what the shard did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub opened: u64,
    pub refused: u64,
    pub closed: u64,
    pub short_sends: u64,
    pub stale: u64,
    pub kept_back: u64,
    /// Connections over TLS.
    pub secured: u64,
}

#[derive(Default)]
pub struct SimIo {
    pub now_ns: u64,
    pub conns: Vec<Conn>,
    pub faults: Faults,
    pub tally: Tally,
    pub events: Vec<IoEvent>,
    pub flushed: Vec<FlushedSend>,
    pub trigger: Trigger,
    dice: Dice,
    slots_max: u32,
    /// Conn and generation of each slot.
    slots: Vec<(usize, u32)>,
    free: Vec<u32>,
    /// Slots that were closed and are not free yet.
    closing: Vec<u32>,
    /// Completions for a later reap.
    reported: VecDeque<Completion>,
    /// Connections with a receive or a wait for room under way, in the order of the calls.
    busy: Vec<usize>,
    batch: u32,
    tick: u64,
    /// This tick has reaped: what is sent now is for clients in the backlog, or a heartbeat.
    reaped: bool,
}

impl SimIo {
    pub fn new(faults: Faults, slots_max: u32, trigger: Trigger, seed: u64) -> Self {
        Self { faults, slots_max, trigger, dice: Dice::new(seed), ..Self::default() }
    }

    /// A new connection whose socket holds `capacity` bytes; `None` if all slots are taken.
    pub fn open(&mut self, capacity: usize, format: Format) -> Option<(usize, SlotId)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.slots.len() as u32) < self.slots_max => {
                self.slots.push((0, 0));
                self.slots.len() as u32 - 1
            }
            None => {
                self.tally.refused += 1;
                return None;
            }
        };
        let conn = self.conns.len();
        let entry = &mut self.slots[slot as usize];
        *entry = (conn, entry.1 + 1);
        let slot_id = SlotId { index: slot, generation: entry.1 };
        self.conns.push(Conn {
            slot_id: Some(slot_id),
            format,
            is_secured: false,
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
            reset: false,
            finished: false,
            disturbed_ns: Vec::new(),
            out_ns: self.now_ns,
            socket: Sends::default(),
            plain: Sends::default(),
            out_tick: self.tick,
            was_cut: false,
            took_ns: self.now_ns,
            stalled_ns: 0,
            // Until its welcome is sent, which may be late if the shard is not scheduled.
            behind_since_ns: Some(self.now_ns),
            behind_ns: 0,
            heard_ns: self.now_ns,
            quiet_ns: self.now_ns,
            silent_ns: 0,
            capacity,
            wants_room: false,
            receiving: false,
            ended: false,
            deaf: false,
            hoards: false,
        });
        self.tally.opened += 1;
        Some((conn, slot_id))
    }

    pub fn begin_tick(&mut self, now_ns: u64, tick: u64) {
        (self.now_ns, self.tick) = (now_ns, tick);
        self.reaped = false;
        self.batch = 0;
        self.flushed.clear();
    }

    /// True if a reap could return something.
    pub fn is_due(&self) -> bool {
        let due = |conn: &usize| {
            let conn = &self.conns[*conn];
            conn.receiving || (conn.wants_room && (conn.reset || conn.to_client.len() < conn.capacity))
        };
        !self.reported.is_empty() || self.busy.iter().any(due)
    }

    /// The client writes.
    pub fn write(&mut self, conn: usize, bytes: &[u8]) {
        self.conns[conn].to_server.extend(bytes);
        self.push_readable(conn);
    }

    /// The client ends its side.
    pub fn finish(&mut self, conn: usize) {
        self.conns[conn].finished = true;
        self.push_readable(conn);
    }

    /// The connection breaks: bytes under way are lost.
    pub fn reset(&mut self, conn: usize) {
        let broken = &mut self.conns[conn];
        broken.reset = true;
        broken.to_server.clear();
        self.push_readable(conn);
    }

    /// Slots and operations that are held: none, once all clients are gone.
    pub fn held(&self) -> (usize, usize, usize) {
        let slot_ids = self.conns.iter().filter(|conn| conn.slot_id.is_some()).count();
        let slots = self.slots.len() - self.free.len() - self.closing.len();
        let wishes = self.busy.iter().filter(|conn| self.conns[**conn].slot_id.is_some()).count();
        (slot_ids, slots, wishes)
    }

    /// The shard has sent this to a secured connection. A send that is short may have been taken whole.
    pub fn note_plain(&mut self, slot_id: SlotId, payload: &[u8], short: Option<SendOutcome>) {
        let (at, is_piece) = (self.conn_of(slot_id), self.reaped);
        let conn = &mut self.conns[at];
        let taken = match short {
            Some(SendOutcome::Failed) => return,
            Some(SendOutcome::Took(taken)) => taken as usize,
            None => payload.len(),
        };
        if conn.is_secured {
            conn.plain.note(conn.format, payload, taken, is_piece);
            conn.plain.cut = short.is_some();
        }
    }

    /// The shard of a secured connection learns that there is room.
    pub fn note_plain_room(&mut self, slot_id: SlotId) {
        let (conn, tick) = (self.slots[slot_id.index as usize].0, self.tick);
        let Conn { plain, .. } = &mut self.conns[conn];
        plain.room_tick = plain.cut.then_some(tick);
    }

    fn push_readable(&mut self, conn: usize) {
        if let Some(slot_id) = self.conns[conn].slot_id
            && !self.conns[conn].deaf
        {
            self.reported.push_back(Completion::Readable { slot_id });
        }
    }

    fn conn_of(&mut self, slot_id: SlotId) -> usize {
        let (conn, generation) = self.slots[slot_id.index as usize];
        assert_eq!(generation, slot_id.generation, "the shard uses a slot of another client");
        assert_eq!(self.conns[conn].slot_id, Some(slot_id), "the shard uses a slot that it has closed");
        conn
    }

    fn takes(&mut self, len: usize, room: usize) -> usize {
        let taken = len.min(room);
        if self.dice.chance(self.faults.refused) {
            return 0;
        }
        if taken > 0 && self.dice.chance(self.faults.cut) {
            return match self.dice.below(4) {
                0 => 1,
                1 => taken - 1,
                2 => taken.min(2 + self.dice.below(40) as usize),
                _ => self.dice.below(taken as u32) as usize,
            };
        }
        taken
    }

    fn send(&mut self, send: &SendOp, payload: &[u8]) -> SendOutcome {
        let at = self.conn_of(send.slot_id);
        if self.conns[at].reset {
            return SendOutcome::Failed;
        }
        let mut room = self.conns[at].capacity.saturating_sub(self.conns[at].to_client.len());
        if room < payload.len() && (self.conns[at].hoards || self.trigger.fires(PlantedBug::GrowingRest)) {
            self.conns[at].hoards = true;
            room = usize::MAX;
        }
        let taken = self.takes(payload.len(), room);
        let conn = &mut self.conns[at];
        let second = conn.second_frame(payload, taken);
        conn.note_send(payload, taken, self.reaped);
        self.trigger.deliver(&mut conn.to_client, &payload[..taken], second);
        let was_cut = std::mem::replace(&mut conn.socket.cut, taken < payload.len());
        let is_for_members = || !conn.is_secured && frames::is_for_members(conn.format, payload);
        let out = was_cut || conn.socket.cut || (self.reaped && !is_for_members());
        if out {
            (conn.out_ns, conn.out_tick) = (self.now_ns, self.tick);
            conn.was_cut |= conn.socket.cut;
            conn.disturbed_ns.push(self.now_ns);
        } else if !self.reaped && !conn.is_secured {
            assert!(frames::is_packet(conn.format, payload), "a flush sends packets");
            self.flushed.push(FlushedSend { conn: at, range: (self.batch, send.start, send.len) });
        }
        let conn = &mut self.conns[at];
        conn.note_times(self.now_ns);
        conn.behind_since_ns = out.then_some(conn.behind_since_ns.unwrap_or(self.now_ns));
        if taken > 0 {
            conn.took_ns = self.now_ns;
        }
        let miscounted = self.trigger.miscounts(taken, payload.len());
        SendOutcome::Took(taken as u32 + u32::from(miscounted))
    }

    /// The answer to a receive.
    fn input(&mut self, at: usize, out: &mut Completions) {
        let Some(slot_id) = self.conns[at].slot_id else { return };
        self.conns[at].receiving = false;
        let held = self.conns[at].to_server.len();
        if held == 0 {
            let gone = self.conns[at].reset || self.conns[at].finished;
            if gone && !self.conns[at].ended {
                self.conns[at].ended = true;
                out.list.push(Completion::Ended { slot_id });
            } else {
                out.list.push(Completion::Nothing { slot_id });
            }
            return;
        }
        if self.dice.chance(self.faults.nothing) {
            out.list.push(Completion::Nothing { slot_id });
            self.push_readable(at);
            return;
        }
        let piecemeal = self.dice.chance(self.faults.piecemeal);
        let len = match piecemeal {
            true if self.dice.chance(300) => 1,
            true => 1 + self.dice.below(held.min(50) as u32) as usize,
            false => held.min(1024),
        };
        let start = out.input.len() as u32;
        out.input.extend(self.conns[at].to_server.drain(..len));
        let rest = len < held;
        let more = rest && self.dice.chance(512);
        let conn = &mut self.conns[at];
        conn.silent_ns = conn.silent_ns.max(self.now_ns - conn.heard_ns);
        conn.heard_ns = self.now_ns;
        if rest && !more || self.conns[at].finished {
            self.push_readable(at);
        }
        out.list.push(Completion::Received { slot_id, start, len: len as u32, more });
    }

    fn room(&mut self, at: usize, out: &mut Completions) {
        let Some(slot_id) = self.conns[at].slot_id else { return };
        let broken = self.conns[at].reset && !self.conns[at].ended;
        let room = self.conns[at].capacity.saturating_sub(self.conns[at].to_client.len());
        if broken && self.dice.chance(512) {
            self.conns[at].wants_room = false;
            self.conns[at].ended = true;
            out.list.push(Completion::Ended { slot_id });
        } else if broken || room > 0 || self.dice.chance(self.faults.false_room) {
            self.conns[at].wants_room = false;
            // A client without a rest may have nothing to be sent.
            self.conns[at].socket.room_tick = self.conns[at].socket.cut.then_some(self.tick);
            // Only now can the client become a member.
            (self.conns[at].out_ns, self.conns[at].out_tick) = (self.now_ns, self.tick);
            if !self.trigger.fires(PlantedBug::LostRoom) {
                out.list.push(Completion::Writable { slot_id });
            }
        }
    }

    /// Completes operations, as far as this reap has room.
    fn answer(&mut self, most: usize, out: &mut Completions) {
        let buffers = if self.faults.buffers == 0 { usize::MAX } else { self.faults.buffers as usize };
        let mut received = 0;
        let mut busy = std::mem::take(&mut self.busy);
        busy.sort_unstable();
        busy.dedup();
        // Operations do not always complete in the order of the calls.
        let tick = if busy.is_empty() { 0 } else { self.dice.below(busy.len() as u32) as usize };
        busy.rotate_left(tick);
        busy.retain(|&at| {
            let late = self.dice.chance(self.faults.late);
            if self.conns[at].receiving && !late && out.list.len() < most && received < buffers {
                received += 1;
                self.input(at, out);
            }
            if self.conns[at].wants_room && !late && out.list.len() < most {
                self.room(at, out);
            }
            let conn = &self.conns[at];
            conn.slot_id.is_some() && (conn.receiving || conn.wants_room)
        });
        self.busy = busy;
    }

    fn note(&mut self, out: &Completions) {
        for completion in &out.list {
            let slot_id = completion.slot_id();
            let (conn, generation) = self.slots[slot_id.index as usize];
            let is_stale = generation != slot_id.generation || self.conns[conn].slot_id.is_none();
            self.tally.stale += u64::from(is_stale);
            self.events.push(IoEvent::Reported { conn, what: completion.into() });
        }
    }
}

impl Io for SimIo {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        let first = short.len();
        self.batch += 1;
        for (index, send) in sends.iter().enumerate() {
            let payload = &bytes[send.start as usize..][..send.len as usize];
            assert!(!payload.is_empty(), "an empty send");
            let outcome = self.send(send, payload);
            let is_short = outcome != SendOutcome::Took(send.len);
            let conn = self.slots[send.slot_id.index as usize].0;
            self.events.push(IoEvent::Sent { conn, bytes: send.len, short: is_short.then(|| outcome.into()) });
            if is_short {
                self.tally.short_sends += 1;
                short.push(ShortSend { index: index as u32, outcome });
            }
        }
        if self.faults.shuffled {
            self.dice.shuffle(&mut short[first..]);
        }
    }

    fn receive(&mut self, slot_id: SlotId) {
        let at = self.conn_of(slot_id);
        assert!(!self.conns[at].receiving, "two receives at once");
        if self.trigger.fires(PlantedBug::LostInput) {
            self.conns[at].deaf = true;
            return;
        }
        self.conns[at].receiving = true;
        self.busy.push(at);
    }

    fn want_writable(&mut self, slot_id: SlotId) {
        let at = self.conn_of(slot_id);
        assert!(!self.conns[at].wants_room, "two waits for room at once");
        self.conns[at].wants_room = true;
        self.busy.push(at);
    }

    fn close(&mut self, slot_id: SlotId) {
        let at = self.conn_of(slot_id);
        if self.dice.chance(self.faults.stale) {
            let stale = [
                Completion::Readable { slot_id },
                Completion::Nothing { slot_id },
                Completion::Writable { slot_id },
                Completion::Ended { slot_id },
            ];
            self.reported.push_back(stale[self.dice.below(4) as usize]);
        } else {
            self.reported.retain(|completion| completion.slot_id() != slot_id);
        }
        self.events.push(IoEvent::Closed { conn: at });
        self.conns[at].slot_id = None;
        let conn = &mut self.conns[at];
        conn.note_times(self.now_ns);
        conn.silent_ns = conn.silent_ns.max(self.now_ns - conn.heard_ns);
        self.closing.push(slot_id.index);
        self.tally.closed += 1;
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        self.reaped = true;
        let trickle = if self.faults.trickle == 0 { usize::MAX } else { self.faults.trickle as usize };
        let most = completions_max.min(trickle);
        let (dice, faults) = (&mut self.dice, self.faults);
        let free = &mut self.free;
        self.closing.retain(|slot| {
            let stays = dice.chance(faults.slow_close);
            if !stays {
                free.push(*slot);
            }
            stays
        });
        for _ in 0..self.reported.len() {
            let Some(completion) = self.reported.pop_front() else { break };
            // A completion that was reported stays reported, even if another client has the slot by now.
            if out.list.len() >= most || self.dice.chance(self.faults.late) {
                self.reported.push_back(completion);
            } else {
                out.list.push(completion);
            }
        }
        self.answer(most, out);
        if self.faults.shuffled {
            self.dice.shuffle(&mut out.list);
        }
        self.tally.kept_back += u64::from(out.list.len() >= most);
        self.note(out);
    }
}
