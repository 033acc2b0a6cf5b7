//! [`Sealed`] is an [`Io`] above another one: connections that are secured by TLS look like plain ones to the shard.
//!
//! ```text
//!  shard   plaintext: one packet for all members of an audience, plain or secured
//!  Sealed  secured: a record for each of them, in an arena; plain: as it came
//!  Io      ciphertext and plaintext: sends in batches
//! ```
//!
//! What always holds:
//! * The bytes of a plain connection are not touched. It costs one look at its slot, and that only while there are secured
//!   connections.
//! * Nothing is sealed for a socket that is known to be full. What a socket does not take of what was sealed is kept as
//!   ciphertext, its *tail*, and goes first. So a tail is at most [`SEAL_BYTES_MAX`] of plaintext, sealed; then the socket
//!   counts as full until it has taken the tail.
//! * A [`ShortSend`] says how much plaintext was taken, the tail included: it may be all of the send.
//! * What is held of a client's input is less than a record ([`Io::held_input`]).
//!
//! Memory: 8 bytes a slot up to the highest that was secured, which stay: a slot is used again before a higher one, so
//! that the table has as many as there were connections at once; 3.9 KB each secured one, without a tail and held input,
//! of which 2.4 KB are in the library, beside the struct; and an arena of 0.3 MB.
//! Cost: that of sealing, see [`crate::tls::Session`].

use super::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use crate::tls::{Session, sealed_bytes_max};

/// Plaintext that is sealed at once for one connection: two full records. More is sealed once the socket has taken it.
pub const SEAL_BYTES_MAX: usize = 32 * 1024;
/// Sealed bytes that are sent in one batch: they are still in the cache when the kernel copies them.
const ARENA_BYTES: usize = 256 * 1024;
/// Bytes of a close_notify, and what may go before it.
const CLOSE_BYTES: usize = 256;

/// What was sealed and opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedCounts {
    /// Secured connections.
    pub connections: u64,
    /// Sends that were sealed, and their plaintext.
    pub sends: u64,
    pub bytes: u64,
    /// Connections that have ended because of what they had sent.
    pub faults: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Sealed<I> {
    io: I,
    /// By slot.
    connections: Vec<Option<Box<Secured>>>,
    counts: SealedCounts,
    /// Completions of this layer, for the next reap.
    own: Vec<Completion>,
    buffers: Buffers,
}

/// A secured connection.
#[derive(Debug)]
struct Secured {
    generation: u32,
    /// Part of a send is under way in this batch; a second one to the same connection waits.
    is_sending: bool,
    /// The shard waits for room.
    wants_room: bool,
    /// A wait for room is under way.
    awaits_room: bool,
    /// The peer sends nothing more.
    has_ended: bool,
    /// Nothing can be sent any more: the connection is broken, or the session.
    is_broken: bool,
    /// Sealed bytes that the socket has not taken.
    tail: Vec<u8>,
    /// In one piece with the rest: what sealing touches is together, and there is no second block of memory.
    session: Session,
}

impl Secured {
    /// Asks for a notification when the socket has room, unless that is under way.
    fn await_room(&mut self, io: &mut impl Io, slot_id: SlotId) {
        if !std::mem::replace(&mut self.awaits_room, true) {
            io.want_writable(slot_id);
        }
    }
}

/// A send of the shard's batch, and how much of it was taken.
#[derive(Clone, Copy, Debug)]
struct Unsent {
    index: u32,
    taken: u32,
}

/// Sealed bytes in the arena, and how much plaintext they are.
#[derive(Clone, Copy, Debug)]
struct SealedPart {
    unsent: Unsent,
    len: u32,
}

/// Memory that is used again for each batch.
#[derive(Debug, Default)]
struct Buffers {
    arena: Vec<u8>,
    /// What goes to plain connections, and its indices in the batch.
    plain: Vec<SendOp>,
    plain_indices: Vec<u32>,
    /// What is still to be sealed.
    queue: Vec<Unsent>,
    next_queue: Vec<Unsent>,
    /// What was sealed, and is to be sent.
    parts: Vec<SealedPart>,
    sends: Vec<SendOp>,
    short: Vec<ShortSend>,
    reaped: Vec<Completion>,
    opened: Vec<u8>,
    /// Connections whose tail may go on.
    writable: Vec<SlotId>,
}

impl<I: Io> Sealed<I> {
    pub fn new(io: I) -> Self {
        Self {
            io,
            connections: Vec::new(),
            counts: SealedCounts::default(),
            own: Vec::new(),
            buffers: Buffers::default(),
        }
    }

    /// The layer below.
    pub fn io(&self) -> &I {
        &self.io
    }

    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    pub fn counts(&self) -> SealedCounts {
        self.counts
    }

    /// True if the next reap has a completion that the layer below does not know of.
    pub fn has_own_completions(&self) -> bool {
        !self.own.is_empty()
    }

    /// Secures a connection that the layer below has just taken over.
    pub fn secure(&mut self, slot_id: SlotId, session: Box<Session>) {
        let index = slot_id.index as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.counts.connections += 1;
        self.connections[index] = Some(Box::new(Secured {
            generation: slot_id.generation,
            is_sending: false,
            wants_room: false,
            awaits_room: false,
            has_ended: false,
            is_broken: false,
            tail: Vec::new(),
            session: *session,
        }));
    }

    /// Sealed bytes that are kept for a connection.
    pub fn tail_bytes(&self, slot_id: SlotId) -> usize {
        of_slot(&self.connections, slot_id).map_or(0, |secured| secured.tail.len())
    }

    /// Sends a batch in which some connections are secured; their sends are in the queue.
    fn send_secured(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        if self.buffers.arena.is_empty() {
            self.buffers.arena = vec![0; ARENA_BYTES + sealed_bytes_max(SEAL_BYTES_MAX)];
        }
        while !self.buffers.queue.is_empty() {
            let mut queue = std::mem::take(&mut self.buffers.queue);
            let mut at = 0;
            for unsent in queue.drain(..) {
                self.seal(unsent, bytes, sends, &mut at, short);
                if at >= ARENA_BYTES {
                    self.send_arena(sends, short);
                    at = 0;
                }
            }
            self.send_arena(sends, short);
            // The parts behind those that were taken whole, in the order of the batch.
            self.buffers.queue = std::mem::replace(&mut self.buffers.next_queue, queue);
        }
    }

    /// Seals the next part of a send at `at` in the arena, unless its socket is full.
    fn seal(&mut self, unsent: Unsent, bytes: &[u8], sends: &[SendOp], at: &mut usize, short: &mut Vec<ShortSend>) {
        let Unsent { index, taken } = unsent;
        let send = sends[index as usize];
        let Some(secured) = of_slot_mut(&mut self.connections, send.slot_id) else { return };
        if secured.is_sending {
            return self.buffers.next_queue.push(unsent);
        }
        let part = &bytes[(send.start + taken) as usize..(send.start + send.len) as usize];
        let part = &part[..part.len().min(SEAL_BYTES_MAX)];
        if secured.is_broken {
            return short.push(ShortSend { index, outcome: SendOutcome::Failed });
        }
        if !secured.tail.is_empty() {
            return short.push(ShortSend { index, outcome: SendOutcome::Took(taken) });
        }
        if part.is_empty() {
            // A client that has taken everything: it was only waited for its tail.
            return;
        }
        match secured.session.seal(part, &mut self.buffers.arena[*at..]) {
            Ok(len) => {
                secured.is_sending = true;
                self.counts.sends += 1;
                self.counts.bytes += part.len() as u64;
                self.buffers.sends.push(SendOp { slot_id: send.slot_id, start: *at as u32, len: len as u32 });
                self.buffers.parts.push(SealedPart { unsent, len: part.len() as u32 });
                *at += len;
            }
            Err(_) => {
                secured.is_broken = true;
                short.push(ShortSend { index, outcome: SendOutcome::Failed });
            }
        }
    }

    /// Sends what was sealed, in one batch. Keeps the tails, and queues the sends that are not done.
    fn send_arena(&mut self, sends: &[SendOp], short: &mut Vec<ShortSend>) {
        let Self { io, connections, buffers, .. } = self;
        let Buffers { arena, next_queue, parts, sends: ops, short: cut, .. } = buffers;
        if ops.is_empty() {
            return;
        }
        io.send_batch(arena, ops, cut);
        // They come in any order.
        cut.sort_unstable_by_key(|short| short.index);
        let mut cut = cut.drain(..).peekable();
        let mut others = std::mem::take(next_queue);
        for (nth, (part, op)) in (0..).zip(parts.drain(..).zip(ops.drain(..))) {
            let outcome = cut.next_if(|short| short.index == nth).map(|short| short.outcome);
            let Some(secured) = of_slot_mut(connections, op.slot_id) else { continue };
            secured.is_sending = false;
            let Unsent { index, taken } = part.unsent;
            let taken = taken + part.len;
            match outcome {
                None if taken < sends[index as usize].len => next_queue.push(Unsent { index, taken }),
                None => {}
                Some(SendOutcome::Took(len)) => {
                    secured.tail.extend_from_slice(&arena[(op.start + len) as usize..(op.start + op.len) as usize]);
                    secured.await_room(io, op.slot_id);
                    short.push(ShortSend { index, outcome: SendOutcome::Took(taken) });
                }
                Some(SendOutcome::Failed) => {
                    secured.is_broken = true;
                    short.push(ShortSend { index, outcome: SendOutcome::Failed });
                }
            }
        }
        // Second sends to one connection, behind the first.
        next_queue.append(&mut others);
    }

    /// Opens what was received; `start..start + len` of the input is replaced by its plaintext at the end of it.
    fn open(&mut self, out: &mut Completions, slot_id: SlotId, start: u32, len: u32, more: bool) {
        let Some(secured) = of_slot_mut(&mut self.connections, slot_id) else { return };
        let Buffers { opened, writable, .. } = &mut self.buffers;
        opened.clear();
        let input = &mut out.input[start as usize..][..len as usize];
        let had_tail = !secured.tail.is_empty();
        let outcome = secured.session.open(input, opened, &mut secured.tail);
        if !had_tail && !secured.tail.is_empty() {
            // An alert, or an answer of the session.
            writable.push(slot_id);
        }
        let (start, len) = (out.input.len() as u32, opened.len() as u32);
        match outcome {
            Err(_) => {
                self.counts.faults += 1;
                secured.has_ended = true;
                out.list.push(Completion::Ended { slot_id });
            }
            Ok(is_end) if len > 0 => {
                secured.has_ended |= is_end;
                out.input.extend_from_slice(opened);
                out.list.push(Completion::Received { slot_id, start, len, more: more || is_end });
            }
            Ok(true) => {
                secured.has_ended = true;
                out.list.push(Completion::Ended { slot_id });
            }
            Ok(false) => {
                out.list.push(Completion::Nothing { slot_id });
                if more {
                    out.list.push(Completion::Readable { slot_id });
                }
            }
        }
    }

    /// Sends the tails of the connections whose sockets have room.
    fn send_tails(&mut self, out: &mut Completions) {
        let Self { io, connections, buffers, .. } = self;
        let Buffers { writable, sends, short, .. } = buffers;
        if writable.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        for slot_id in writable.drain(..) {
            let Some(secured) = of_slot_mut(connections, slot_id) else { continue };
            if !secured.tail.is_empty() {
                let (start, len) = (bytes.len() as u32, secured.tail.len() as u32);
                bytes.extend_from_slice(&secured.tail);
                sends.push(SendOp { slot_id, start, len });
            } else if std::mem::take(&mut secured.wants_room) {
                out.list.push(Completion::Writable { slot_id });
            }
        }
        if !sends.is_empty() {
            io.send_batch(&bytes, sends, short);
        }
        short.sort_unstable_by_key(|short| short.index);
        let mut short = short.drain(..).peekable();
        for (nth, op) in (0..).zip(sends.drain(..)) {
            let outcome = short.next_if(|short| short.index == nth).map(|short| short.outcome);
            let Some(secured) = of_slot_mut(connections, op.slot_id) else { continue };
            match outcome {
                None => {
                    secured.tail = Vec::new();
                    out.list.push(Completion::Progress { slot_id: op.slot_id });
                    if std::mem::take(&mut secured.wants_room) {
                        out.list.push(Completion::Writable { slot_id: op.slot_id });
                    }
                }
                Some(SendOutcome::Took(taken)) => {
                    secured.tail.drain(..taken as usize);
                    secured.await_room(io, op.slot_id);
                    if taken > 0 {
                        out.list.push(Completion::Progress { slot_id: op.slot_id });
                    }
                }
                Some(SendOutcome::Failed) => {
                    secured.is_broken = true;
                    if !secured.has_ended {
                        secured.has_ended = true;
                        out.list.push(Completion::Ended { slot_id: op.slot_id });
                    }
                }
            }
        }
    }
}

impl<I: Io> Io for Sealed<I> {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        if self.counts.connections == 0 {
            return self.io.send_batch(bytes, sends, short);
        }
        let Self { io, connections, buffers, .. } = self;
        let Buffers { plain, plain_indices, queue, .. } = buffers;
        for (index, send) in (0..).zip(sends) {
            if of_slot(connections, send.slot_id).is_some() {
                queue.push(Unsent { index, taken: 0 });
            } else {
                plain.push(*send);
                plain_indices.push(index);
            }
        }
        if !plain.is_empty() {
            let first = short.len();
            io.send_batch(bytes, plain, short);
            for short in &mut short[first..] {
                short.index = plain_indices[short.index as usize];
            }
            plain.clear();
            plain_indices.clear();
        }
        self.send_secured(bytes, sends, short);
    }

    fn receive(&mut self, slot_id: SlotId) {
        match of_slot(&self.connections, slot_id) {
            Some(secured) if secured.has_ended => self.own.push(Completion::Ended { slot_id }),
            _ => self.io.receive(slot_id),
        }
    }

    fn want_writable(&mut self, slot_id: SlotId) {
        match of_slot_mut(&mut self.connections, slot_id) {
            None => self.io.want_writable(slot_id),
            Some(secured) => {
                secured.wants_room = true;
                secured.await_room(&mut self.io, slot_id);
            }
        }
    }

    fn close(&mut self, slot_id: SlotId) {
        if let Some(secured) = of_slot_mut(&mut self.connections, slot_id) {
            // RFC 8446 section 6.1: "Each party MUST send a "close_notify" alert before closing its write side of the
            // connection, unless it has already sent some error alert."
            let mut out = [0; CLOSE_BYTES];
            if secured.tail.is_empty() && !secured.is_broken {
                let len = secured.session.close(&mut out) as u32;
                if len > 0 {
                    // A socket that does not take it is closed without.
                    self.io.send_batch(&out, &[SendOp { slot_id, start: 0, len }], &mut self.buffers.short);
                    self.buffers.short.clear();
                }
            }
            self.connections[slot_id.index as usize] = None;
            self.counts.connections -= 1;
            self.own.retain(|own| own.slot_id() != slot_id);
        }
        self.io.close(slot_id);
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        if self.counts.connections == 0 && self.own.is_empty() {
            return self.io.reap(completions_max, out);
        }
        self.io.reap(completions_max, out);
        let mut reaped = std::mem::replace(&mut out.list, std::mem::take(&mut self.buffers.reaped));
        for completion in reaped.drain(..).chain(std::mem::take(&mut self.own)) {
            let Some(secured) = of_slot_mut(&mut self.connections, completion.slot_id()) else {
                out.list.push(completion);
                continue;
            };
            match completion {
                Completion::Received { slot_id, start, len, more } => self.open(out, slot_id, start, len, more),
                Completion::Writable { slot_id } => {
                    secured.awaits_room = false;
                    self.buffers.writable.push(slot_id);
                }
                Completion::Ended { .. } => {
                    secured.has_ended = true;
                    out.list.push(completion);
                }
                Completion::Readable { .. } | Completion::Nothing { .. } | Completion::Progress { .. } => {
                    out.list.push(completion);
                }
            }
        }
        self.buffers.reaped = reaped;
        self.send_tails(out);
    }

    fn held_input(&self, slot_id: SlotId) -> usize {
        of_slot(&self.connections, slot_id).map_or(0, |secured| secured.session.held_bytes())
    }
}

fn of_slot(connections: &[Option<Box<Secured>>], slot_id: SlotId) -> Option<&Secured> {
    let secured = connections.get(slot_id.index as usize)?.as_deref()?;
    (secured.generation == slot_id.generation).then_some(secured)
}

fn of_slot_mut(connections: &mut [Option<Box<Secured>>], slot_id: SlotId) -> Option<&mut Secured> {
    let secured = connections.get_mut(slot_id.index as usize)?.as_deref_mut()?;
    (secured.generation == slot_id.generation).then_some(secured)
}
