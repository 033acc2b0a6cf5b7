//! The receiving half of a connection: the same bytes in pieces of any size give the same events and the same
//! violation, with bounded memory, and the same as tungstenite.
//!
//! Input: a byte for the role, the limit and compression, a byte for the pieces, then the peer's bytes. tungstenite has
//! no compression, so it gets only streams without.
//!
//! Where tungstenite may differ:
//! * It refuses close code 1014, which was registered later.
//! * It accepts lengths that are not minimal, and detects invalid UTF-8 only at the end of a message: a stream that is
//!   refused here may continue there, after the same events.

use std::io::{ErrorKind, Read, Write};

use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{Role, Session, SessionEvent, SessionLimits, Violation};
use tungstenite::protocol::{WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::Script;

const LIMITS: [usize; 4] = [0, 10, 300, 100_000];
/// Memory that a session may use beside the message.
const PARTIAL_BYTES_MAX: usize = 300;
/// The largest control frame, which the limit of messages does not affect.
const CONTROL_BYTES_MAX: usize = 125;
/// The largest allowed ratio of inflated to compressed bytes.
const RATIO_MAX: u32 = 20;
/// A close code that tungstenite does not know.
const BAD_GATEWAY: u16 = 1014;

/// An owned copy of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedEvent {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<SessionEvent<'_>> for OwnedEvent {
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

fn compare((events, violation): &(Vec<OwnedEvent>, Option<Violation>), theirs: &[OwnedEvent]) {
    if matches!(events.last(), Some(OwnedEvent::Close(Some((BAD_GATEWAY, _))))) {
        return;
    }
    match violation {
        None => assert_eq!(events, theirs, "tungstenite on the right"),
        Some(violation) => {
            assert!(theirs.starts_with(events), "{events:?}, then {violation:?}; tungstenite {theirs:?}")
        }
    }
}

/// Feeds a stream in pieces; returns the events, and the violation that ended them.
fn read(role: Role, deflate: bool, limits: &SessionLimits, pieces: &[&[u8]]) -> (Vec<OwnedEvent>, Option<Violation>) {
    let mut session = if deflate { Session::with_deflate(role) } else { Session::new(role) };
    let mut inflater = Inflater::new(RATIO_MAX);
    let held_bytes_max = PARTIAL_BYTES_MAX
        + if deflate { Inflater::compressed_bytes_max(limits.message_bytes_max) } else { limits.message_bytes_max };
    let (mut events, mut violation) = (Vec::new(), None);
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut consumed = 0;
        loop {
            match session.next_inflating(limits, &mut inflater, &mut input, &mut consumed) {
                Ok(Some(event)) => {
                    assert_eq!(violation, None, "a session ignores input after a violation");
                    events.push(event.into());
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(violation.replace(fault), None, "there is one violation");
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
    (events, violation)
}

/// The input of a tungstenite connection; its output is dropped.
struct InputOnly<'a> {
    input: &'a [u8],
}

impl Read for InputOnly<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.input.read(out)
    }
}

impl Write for InputOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// tungstenite's events, up to the close or the first error.
fn tungstenite_reads(role: Role, limits: &SessionLimits, pieces: &[&[u8]]) -> Vec<OwnedEvent> {
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max.max(CONTROL_BYTES_MAX)));
    let mut context = WebSocketContext::new(role, Some(config));
    let mut events = Vec::new();
    for piece in pieces {
        let mut wire = InputOnly { input: piece };
        loop {
            match context.read(&mut wire) {
                Ok(Message::Text(text)) => events.push(OwnedEvent::Text(text.as_bytes().to_vec())),
                Ok(Message::Binary(bytes)) => events.push(OwnedEvent::Binary(bytes.to_vec())),
                Ok(Message::Ping(payload)) => events.push(OwnedEvent::Ping(payload.to_vec())),
                Ok(Message::Pong(payload)) => events.push(OwnedEvent::Pong(payload.to_vec())),
                Ok(Message::Close(frame)) => {
                    events.push(OwnedEvent::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))));
                    return events;
                }
                Ok(Message::Frame(_)) => unreachable!("read never returns one"),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return events,
            }
        }
    }
    events
}
