//! Sockets whose bytes are sealed by the bare TLS of [`crate::tls`]: the least work of a server over TLS.
//!
//! A connection that begins with a record of a handshake is secured, another one is not: a publisher may be plain. Each
//! send is sealed by itself, two records at a time, into an arena that stays in the cache, and goes out by the sockets
//! below. What a socket does not take of that is kept as it is and goes first; the loop above learns of a short send that
//! took all of it, and waits until the socket has room.

use std::io;

use rustix::io::Errno;

use super::sockets::{ReadBuffer, SocketEvent, Sockets};
use crate::tls::{BareServer, BareSession, sealed_bytes_max};

/// Plaintext that is sealed at once for one connection.
const PART_BYTES: usize = 32 * 1024;
/// Sealed bytes of one batch.
const ARENA_BYTES: usize = 256 * 1024;
/// One read of a secured connection.
const READ_BYTES: usize = 16 * 1024;
/// First byte of a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// See the module.
pub(super) struct SecuredSockets<K> {
    sockets: K,
    server: BareServer,
    /// By slot.
    sessions: Vec<Session>,
    arena: Vec<u8>,
    /// Events of the sockets below, while they are looked at.
    below: Vec<SocketEvent>,
    /// Short sends, as the loop above is to see them.
    short: Vec<SocketEvent>,
}

/// The state of a slot.
#[derive(Debug, Default)]
enum Session {
    /// Nothing has come yet.
    #[default]
    New,
    Plain,
    Secured(Box<SecuredSlot>),
}

#[derive(Debug)]
struct SecuredSlot {
    session: BareSession,
    /// Sealed bytes that the socket has not taken.
    tail: Vec<u8>,
    /// The loop above waits for room.
    wants_room: bool,
    /// Plaintext that the loop above has not consumed.
    unread: Vec<u8>,
}

/// A part of a send in the arena.
#[derive(Clone, Copy)]
struct Part {
    slot: u32,
    /// Of the arena.
    start: usize,
    end: usize,
    /// Bytes of the send up to its end.
    taken: usize,
    /// The send of the round.
    nth: usize,
}

impl<K: Sockets> SecuredSockets<K> {
    pub(super) fn new(sockets: K, server: BareServer, connections_max: u32) -> Self {
        let sessions = std::iter::repeat_with(Session::default).take(connections_max as usize).collect();
        let arena = vec![0; ARENA_BYTES + sealed_bytes_max(PART_BYTES)];
        Self { sockets, server, sessions, arena, below: Vec::new(), short: Vec::new() }
    }

    /// Sends all of these, a part of each at a time.
    fn send_all<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        let mut parts = Vec::new();
        // How much of each send was taken; the first round reads them from the iterator.
        let (mut round, mut at): (Vec<(u32, &[u8], usize)>, _) = (Vec::new(), 0);
        for (slot, bytes) in sends {
            round.push((slot, bytes, 0));
            let nth = round.len() - 1;
            self.seal(&mut round, nth, &mut parts, &mut at);
            if at >= ARENA_BYTES {
                self.send_parts(&mut parts, &mut round);
                at = 0;
                // What is done needs no second round.
                round.retain(|(_, bytes, taken)| *taken < bytes.len());
            }
        }
        self.send_parts(&mut parts, &mut round);
        while !round.is_empty() {
            round.retain(|(_, bytes, taken)| *taken < bytes.len());
            at = 0;
            for nth in 0..round.len() {
                self.seal(&mut round, nth, &mut parts, &mut at);
                if at >= ARENA_BYTES {
                    self.send_parts(&mut parts, &mut round);
                    at = 0;
                }
            }
            self.send_parts(&mut parts, &mut round);
        }
        self.sockets.events().append(&mut self.short);
    }

    /// Seals the next part of a send into the arena, or copies it for a plain connection. Nothing is sealed for a socket
    /// that has not taken its tail: the send is over.
    fn seal(&mut self, round: &mut [(u32, &[u8], usize)], nth: usize, parts: &mut Vec<Part>, at: &mut usize) {
        let (slot, bytes, taken) = round[nth];
        let part = &bytes[taken..];
        let part = &part[..part.len().min(PART_BYTES)];
        if part.is_empty() {
            return;
        }
        let out = &mut self.arena[*at..];
        let len = match &mut self.sessions[slot as usize] {
            Session::Secured(secured) if !secured.tail.is_empty() => {
                round[nth].2 = usize::MAX;
                return self.short.push(SocketEvent::ShortSend { slot, result: Ok(taken) });
            }
            Session::Secured(secured) => secured.session.seal(part, out).unwrap_or(0),
            Session::New | Session::Plain => {
                out[..part.len()].copy_from_slice(part);
                part.len()
            }
        };
        parts.push(Part { slot, start: *at, end: *at + len, taken: taken + part.len(), nth });
        *at += len;
    }

    /// Sends the arena. A send that its socket has not taken whole is over.
    fn send_parts(&mut self, parts: &mut Vec<Part>, round: &mut [(u32, &[u8], usize)]) {
        if parts.is_empty() {
            return;
        }
        let Self { sockets, arena, sessions, below, short, .. } = self;
        sockets.send(parts.iter().map(|part| (part.slot, &arena[part.start..part.end])));
        for part in parts.iter() {
            round[part.nth].2 = part.taken;
        }
        let first = below.len();
        sockets.events().retain(|event| match *event {
            SocketEvent::ShortSend { slot, result } => {
                below.push(SocketEvent::ShortSend { slot, result });
                false
            }
            _ => true,
        });
        for event in below.drain(first..) {
            let SocketEvent::ShortSend { slot, result } = event else { continue };
            let Some(part) = parts.iter().find(|part| part.slot == slot) else { continue };
            let bytes = &arena[part.start..part.end];
            let result = match (&mut sessions[slot as usize], result) {
                (Session::Secured(secured), Ok(_) | Err(Errno::AGAIN)) => {
                    secured.tail.extend_from_slice(&bytes[result.unwrap_or(0)..]);
                    sockets.notify_writable(slot);
                    Ok(part.taken)
                }
                (_, Ok(sent)) => Ok(part.taken - bytes.len() + sent),
                (_, Err(error)) => Err(error),
            };
            // Nothing more of it in this round.
            round[part.nth].2 = usize::MAX;
            short.push(SocketEvent::ShortSend { slot, result });
        }
        parts.clear();
    }

    /// What a connection has sent. `None` while the loop above has nothing to read.
    fn on_read(&mut self, slot: u32, buffer: ReadBuffer, result: Result<usize, Errno>) -> Option<SocketEvent> {
        let session = &mut self.sessions[slot as usize];
        if matches!(session, Session::New) && matches!(result, Ok(1..)) {
            *session = match buffer.bytes().first() {
                Some(&HANDSHAKE_RECORD) => {
                    let session = self.server.begin();
                    let [tail, unread] = [const { Vec::new() }; 2];
                    Session::Secured(Box::new(SecuredSlot { session, tail, wants_room: false, unread }))
                }
                _ => Session::Plain,
            };
        }
        let (Session::Secured(secured), Ok(1..)) = (session, result) else {
            return Some(SocketEvent::Read { slot, buffer, result });
        };
        let (mut plain, mut output) = (std::mem::take(&mut secured.unread), Vec::new());
        let before = plain.len();
        let is_open = secured.session.receive(buffer.bytes(), &mut plain, &mut output);
        if !output.is_empty() {
            // A socket that does not take a flight of the handshake is not waited for.
            self.sockets.send(std::iter::once((slot, &output[..])));
            self.sockets.events().retain(|event| !matches!(event, SocketEvent::ShortSend { .. }));
        }
        if !is_open {
            let result = Ok(0);
            return Some(SocketEvent::Read { slot, buffer, result });
        }
        if plain.len() == before {
            secured.unread = plain;
            self.sockets.read(slot, ReadBuffer::new(READ_BYTES));
            return None;
        }
        let mut buffer = ReadBuffer::new(plain.len() + 1);
        buffer.room()[..plain.len()].copy_from_slice(&plain);
        buffer.fill(plain.len());
        Some(SocketEvent::Read { slot, buffer, result: Ok(plain.len()) })
    }

    /// The socket has room: sends its tail. True if the loop above may send.
    fn on_writable(&mut self, slot: u32) -> bool {
        let Session::Secured(secured) = &mut self.sessions[slot as usize] else { return true };
        if !secured.tail.is_empty() {
            let tail = std::mem::take(&mut secured.tail);
            self.sockets.send(std::iter::once((slot, &tail[..])));
            let mut short = None;
            self.sockets.events().retain(|event| match *event {
                SocketEvent::ShortSend { slot: of, result } if of == slot => {
                    short = Some(result);
                    false
                }
                _ => true,
            });
            if let Some(Ok(_) | Err(Errno::AGAIN)) = short {
                let sent = short.and_then(Result::ok).unwrap_or(0);
                secured.tail = tail[sent..].to_vec();
                self.sockets.notify_writable(slot);
                return false;
            }
        }
        std::mem::take(&mut secured.wants_room)
    }
}

impl<K: Sockets> Sockets for SecuredSockets<K> {
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.send_all(sends);
    }

    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.send_all(sends);
        self.sockets.send_and_wait(std::iter::empty());
    }

    fn take_events(&mut self, out: &mut Vec<SocketEvent>) -> io::Result<()> {
        let mut below = std::mem::take(&mut self.below);
        let taken = self.sockets.take_events(&mut below);
        for event in below.drain(..) {
            match event {
                SocketEvent::Read { slot, buffer, result } => out.extend(self.on_read(slot, buffer, result)),
                SocketEvent::Writable { slot } if !self.on_writable(slot) => {}
                event => out.push(event),
            }
        }
        self.below = below;
        taken
    }

    fn events(&mut self) -> &mut Vec<SocketEvent> {
        self.sockets.events()
    }

    fn read(&mut self, slot: u32, input: ReadBuffer) {
        let Session::Secured(secured) = &mut self.sessions[slot as usize] else {
            return self.sockets.read(slot, input);
        };
        secured.unread = input.bytes().to_vec();
        self.sockets.read(slot, ReadBuffer::new(READ_BYTES));
    }

    fn stop_reading(&mut self, slot: u32) {
        self.sockets.stop_reading(slot);
    }

    fn notify_writable(&mut self, slot: u32) {
        if let Session::Secured(secured) = &mut self.sessions[slot as usize] {
            secured.wants_room = true;
            if !secured.tail.is_empty() {
                // It is waited for already.
                return;
            }
        }
        self.sockets.notify_writable(slot);
    }

    fn close(&mut self, slot: u32) {
        self.sessions[slot as usize] = Session::New;
        self.sockets.close(slot);
    }
}
