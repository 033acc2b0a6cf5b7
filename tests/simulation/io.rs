//! Simulated sockets: bounded both ways, with the faults of one seed.

use std::collections::VecDeque;

use tickcast::io::{Completion, Completions, Io, Outcome, Seat, Send, Short};

use crate::Dice;

/// First byte of a whole binary message.
const BINARY: u8 = 0x82;

/// How often what goes wrong, in 1024ths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A send is cut although there is room.
    pub cut: u32,
    /// A send is refused although there is room.
    pub refused: u32,
    /// A receive finds nothing although something is there.
    pub nothing: u32,
    /// A receive brings less than is there.
    pub piecemeal: u32,
    /// A completion waits for a later reap.
    pub late: u32,
    /// Room is announced where there is none.
    pub false_room: u32,
    /// A connection is reset, a client and step.
    pub reset: u32,
    /// Completions and short sends come in another order.
    pub shuffled: bool,
}

/// One connection, which outlives its seat until the client has read what was sent.
#[derive(Debug)]
pub struct Conn {
    pub seat: Option<Seat>,
    pub to_client: VecDeque<u8>,
    pub to_server: VecDeque<u8>,
    pub reset: bool,
    /// The client has ended its side.
    pub finished: bool,
    /// When the server did something else than send what its audience gets: cut sends, their rests, answers. Ascending.
    pub disturbed_ns: Vec<u64>,
    /// The last send was cut, so that the next begins with its rest.
    cut: bool,
    capacity: usize,
    wants_room: bool,
    receiving: bool,
    ended: bool,
}

pub struct SimIo {
    pub now_ns: u64,
    pub conns: Vec<Conn>,
    pub faults: Faults,
    pub opened: u64,
    pub closed: u64,
    dice: Dice,
    /// Conn and generation of each slot.
    slots: Vec<(usize, u32)>,
    free: Vec<u32>,
    /// What has to be told at some reap.
    told: VecDeque<Completion>,
}

impl SimIo {
    pub fn new(faults: Faults, seed: u64) -> Self {
        let (opened, closed) = (0, 0);
        let (conns, slots, free, told) = (vec![], vec![], vec![], VecDeque::new());
        Self { now_ns: 0, conns, faults, opened, closed, dice: Dice::new(seed), slots, free, told }
    }

    /// A new connection whose socket holds `capacity` bytes.
    pub fn open(&mut self, capacity: usize) -> (usize, Seat) {
        let conn = self.conns.len();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, 0));
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        *entry = (conn, entry.1 + 1);
        let seat = Seat { slot, generation: entry.1 };
        self.conns.push(Conn {
            seat: Some(seat),
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
            reset: false,
            finished: false,
            disturbed_ns: Vec::new(),
            cut: false,
            capacity,
            wants_room: false,
            receiving: false,
            ended: false,
        });
        self.opened += 1;
        (conn, seat)
    }

    /// The client writes.
    pub fn write(&mut self, conn: usize, bytes: &[u8]) {
        self.conns[conn].to_server.extend(bytes);
        self.tell_readable(conn);
    }

    /// The client ends its side.
    pub fn finish(&mut self, conn: usize) {
        self.conns[conn].finished = true;
        self.tell_readable(conn);
    }

    /// The connection breaks: what is under way is lost.
    pub fn reset(&mut self, conn: usize) {
        let broken = &mut self.conns[conn];
        broken.reset = true;
        broken.to_server.clear();
        self.tell_readable(conn);
    }

    fn tell_readable(&mut self, conn: usize) {
        if let Some(seat) = self.conns[conn].seat {
            self.told.push_back(Completion::Readable { seat });
        }
    }

    fn conn_of(&mut self, seat: Seat) -> &mut Conn {
        let (conn, generation) = self.slots[seat.slot as usize];
        assert_eq!(generation, seat.generation, "the shard uses a seat of somebody else");
        let conn = &mut self.conns[conn];
        assert_eq!(conn.seat, Some(seat), "the shard uses a seat that it has closed");
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

    /// The answer to a receive.
    fn input(&mut self, conn: usize, out: &mut Completions) {
        let Some(seat) = self.conns[conn].seat else { return };
        self.conns[conn].receiving = false;
        let held = self.conns[conn].to_server.len();
        if held == 0 {
            let gone = self.conns[conn].reset || self.conns[conn].finished;
            if gone && !self.conns[conn].ended {
                self.conns[conn].ended = true;
                out.list.push(Completion::Ended { seat });
            } else {
                out.list.push(Completion::Nothing { seat });
            }
            return;
        }
        if self.dice.chance(self.faults.nothing) {
            out.list.push(Completion::Nothing { seat });
            self.tell_readable(conn);
            return;
        }
        let piecemeal = self.dice.chance(self.faults.piecemeal);
        let len = if piecemeal { 1 + self.dice.below(held.min(50) as u32) as usize } else { held.min(4096) };
        let start = out.input.len() as u32;
        out.input.extend(self.conns[conn].to_server.drain(..len));
        let rest = len < held;
        let more = rest && self.dice.chance(512);
        if rest && !more || self.conns[conn].finished {
            self.tell_readable(conn);
        }
        out.list.push(Completion::Received { seat, start, len: len as u32, more });
    }

    fn room(&mut self, conn: usize, out: &mut Completions) {
        let Some(seat) = self.conns[conn].seat else { return };
        let broken = self.conns[conn].reset && !self.conns[conn].ended;
        let room = self.conns[conn].capacity - self.conns[conn].to_client.len();
        if broken && self.dice.chance(512) {
            self.conns[conn].wants_room = false;
            self.conns[conn].ended = true;
            out.list.push(Completion::Ended { seat });
        } else if broken || room > 0 || self.dice.chance(self.faults.false_room) {
            self.conns[conn].wants_room = false;
            out.list.push(Completion::Writable { seat });
        }
    }
}

impl Io for SimIo {
    fn send_batch(&mut self, bytes: &[u8], sends: &[Send], short: &mut Vec<Short>) {
        let (first, now_ns) = (short.len(), self.now_ns);
        for (index, send) in sends.iter().enumerate() {
            let payload = &bytes[send.start as usize..][..send.len as usize];
            assert!(!payload.is_empty(), "an empty send");
            let conn = self.conn_of(send.seat);
            let (reset, room) = (conn.reset, conn.capacity - conn.to_client.len());
            let index = index as u32;
            if reset {
                short.push(Short { index, outcome: Outcome::Failed });
                continue;
            }
            let taken = self.takes(payload.len(), room);
            let conn = self.conn_of(send.seat);
            conn.to_client.extend(&payload[..taken]);
            let was_cut = std::mem::replace(&mut conn.cut, taken < payload.len());
            if was_cut || conn.cut || payload[0] != BINARY {
                conn.disturbed_ns.push(now_ns);
            }
            if conn.cut {
                short.push(Short { index, outcome: Outcome::Took(taken as u32) });
            }
        }
        if self.faults.shuffled {
            self.dice.shuffle(&mut short[first..]);
        }
    }

    fn receive(&mut self, seat: Seat) {
        let conn = self.conn_of(seat);
        assert!(!conn.receiving, "two receives at a time");
        conn.receiving = true;
    }

    fn want_writable(&mut self, seat: Seat) {
        let conn = self.conn_of(seat);
        assert!(!conn.wants_room, "room is asked for twice");
        conn.wants_room = true;
    }

    fn close(&mut self, seat: Seat) {
        self.conn_of(seat).seat = None;
        self.free.push(seat.slot);
        self.closed += 1;
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        for _ in 0..self.told.len() {
            let Some(told) = self.told.pop_front() else { break };
            // What was told of a seat stays told, even if somebody else holds the slot by now.
            if self.dice.chance(self.faults.late) {
                self.told.push_back(told);
            } else {
                out.list.push(told);
            }
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].receiving && !self.dice.chance(self.faults.late) {
                self.input(conn, out);
            }
            if self.conns[conn].wants_room && !self.dice.chance(self.faults.late) {
                self.room(conn, out);
            }
        }
        assert!(out.list.len() <= completions_max, "the simulation is small");
        if self.faults.shuffled {
            self.dice.shuffle(&mut out.list);
        }
    }
}
