//! The receiving half of a connection: the same bytes in any pieces give the same events and the same violation, hold
//! bounded memory, and mean to tungstenite what they mean here.
//!
//! Input: a byte for the role, the limit and whether compression was agreed on, a byte for the pieces, then what the peer
//! sends. tungstenite knows no compression, and so sees only streams without.
//!
//! Where tungstenite may differ:
//! * It refuses close code 1014, which was registered after it was written.
//! * It takes lengths that are not minimal, and text that is broken until its message ends: so what is refused here may
//!   go on there, with what was seen here in front.

use std::io::{ErrorKind, Read, Write};

use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{Role, Session, SessionEvent, SessionLimits, Violation};
use tungstenite::protocol::{WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::Script;

const LIMITS: [usize; 4] = [0, 10, 300, 100_000];
/// What a session may hold beside the message.
const PARTIAL_BYTES_MAX: usize = 300;
/// Bytes that a control frame carries whatever the limit of messages.
const CONTROL_BYTES_MAX: usize = 125;
/// A compressed message inflates to no more than so many times its bytes.
const RATIO_MAX: u32 = 20;
/// A close code that is known here and not to tungstenite.
const BAD_GATEWAY: u16 = 1014;

/// An event that outlives its session.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<SessionEvent<'_>> for Seen {
    fn from(event: SessionEvent<'_>) -> Self {
        match event {
            SessionEvent::Text(text) => Self::Text(text.to_vec()),
            SessionEvent::Binary(bytes) => Self::Binary(bytes.to_vec()),
            SessionEvent::Ping(payload) => Self::Ping(payload.to_vec()),
            SessionEvent::Pong(payload) => Self::Pong(payload.to_vec()),
            SessionEvent::Close(frame) => Self::Close(frame.map(|frame| (frame.code.0, frame.reason.to_owned()))),
        }
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.byte();
    let seed = script.byte();
    let role = if kind & 1 == 0 { Role::Server } else { Role::Client };
    let limits = SessionLimits { message_bytes_max: LIMITS[usize::from(kind >> 1) % LIMITS.len()] };
    let deflate = kind & 8 == 8;
    let stream = script.rest;
    let whole = read(role, deflate, &limits, &[stream]);
    let pieces = super::pieces(stream, seed);
    assert_eq!(read(role, deflate, &limits, &pieces), whole, "in pieces");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(role, deflate, &limits, &bytes), whole, "byte by byte");
    if !deflate {
        compare(&whole, &tungstenite_reads(role, &limits, &pieces));
    }
}

fn compare((seen, violation): &(Vec<Seen>, Option<Violation>), theirs: &[Seen]) {
    if matches!(seen.last(), Some(Seen::Close(Some((BAD_GATEWAY, _))))) {
        return;
    }
    match violation {
        None => assert_eq!(seen, theirs, "tungstenite on the right"),
        Some(violation) => assert!(theirs.starts_with(seen), "{seen:?}, then {violation:?}; tungstenite {theirs:?}"),
    }
}

/// Feeds a stream in pieces; the events, and the violation that ended them.
fn read(role: Role, deflate: bool, limits: &SessionLimits, pieces: &[&[u8]]) -> (Vec<Seen>, Option<Violation>) {
    let mut session = if deflate { Session::with_deflate(role) } else { Session::new(role) };
    let mut inflater = Inflater::new(RATIO_MAX);
    let held_bytes_max = PARTIAL_BYTES_MAX
        + if deflate { Inflater::compressed_bytes_max(limits.message_bytes_max) } else { limits.message_bytes_max };
    let (mut seen, mut violation) = (Vec::new(), None);
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut consumed = 0;
        loop {
            match session.next_inflating(limits, &mut inflater, &mut input, &mut consumed) {
                Ok(Some(event)) => {
                    assert_eq!(violation, None, "a session is deaf after a violation");
                    seen.push(event.into());
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(violation.replace(fault), None, "one violation is the end");
                    break;
                }
            }
        }
        assert!(session.held_bytes() <= held_bytes_max, "{} held", session.held_bytes());
        assert!(violation.is_some() || consumed == input.len(), "all input is consumed");
    }
    if violation.is_some() {
        assert_eq!(session.held_bytes(), 0, "nothing is held after a violation");
    }
    (seen, violation)
}

/// The wire of a connection of tungstenite's: its answers go nowhere.
struct Wire<'a> {
    input: &'a [u8],
}

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.input.read(out)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of the stream, to its close or its first error.
fn tungstenite_reads(role: Role, limits: &SessionLimits, pieces: &[&[u8]]) -> Vec<Seen> {
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max.max(CONTROL_BYTES_MAX)));
    let mut context = WebSocketContext::new(role, Some(config));
    let mut seen = Vec::new();
    for piece in pieces {
        let mut wire = Wire { input: piece };
        loop {
            match context.read(&mut wire) {
                Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
                Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
                Ok(Message::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
                Ok(Message::Pong(payload)) => seen.push(Seen::Pong(payload.to_vec())),
                Ok(Message::Close(frame)) => {
                    seen.push(Seen::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))));
                    return seen;
                }
                Ok(Message::Frame(_)) => unreachable!("read never returns one"),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return seen,
            }
        }
    }
    seen
}
