//! What a simulated client reads its socket with: tungstenite for frames, a reader of its own for events, serde_json for
//! what is in them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use serde_json::Value;
use tickcast::shard::Format;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::text;
use tickcast_test_support::deflate::FrameInflater;
use tickcast_test_support::sse::SseParser;

/// The head of the answer to a reader of events.
pub const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// What tungstenite takes for a socket.
#[derive(Default)]
pub struct Pipe {
    input: VecDeque<u8>,
    ended: bool,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(out)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One thing that came.
pub enum Came {
    /// The text of an answer.
    Answer(String),
    /// A packet as bytes.
    Packet(Vec<u8>),
    /// A packet as JSON.
    Message(Value),
    Ping,
    /// The code of a close frame and its reason, or what the last event said in their place.
    Close(u16, String),
    /// The stream has ended; with what is wrong about how it did.
    End(Option<String>),
}

/// One connection's stream.
pub enum Stream {
    Frames { unpack: FrameInflater, websocket: Box<WebSocket<Pipe>>, is_json: bool },
    Events { head: Vec<u8>, events: SseParser, ready: VecDeque<Came>, ended: bool, closed: bool },
}

impl Stream {
    pub fn new(format: Format) -> Self {
        match format {
            Format::Events => Self::Events {
                head: Vec::new(),
                events: SseParser::default(),
                ready: VecDeque::new(),
                ended: false,
                closed: false,
            },
            _ => Self::Frames {
                unpack: FrameInflater::default(),
                websocket: Box::new(WebSocket::from_raw_socket(Pipe::default(), Role::Client, None)),
                is_json: format == Format::Json,
            },
        }
    }

    /// Takes what the socket delivered.
    pub fn feed(&mut self, bytes: &[u8], end: bool) {
        match self {
            Self::Frames { unpack, websocket, .. } => {
                let pipe = websocket.get_mut();
                pipe.input.extend(unpack.push(bytes));
                pipe.ended |= end;
            }
            Self::Events { head, events, ready, ended, closed } => {
                *ended |= end;
                let had = head.len();
                let of_head = bytes.len().min(HEAD.len() - had);
                head.extend_from_slice(&bytes[..of_head]);
                assert_eq!(head[..], HEAD[..head.len()], "the head of the answer");
                for event in events.push(&bytes[of_head..]) {
                    assert!(!*closed, "something after the last event: {event:?}");
                    ready.extend(came(&event.data, event.id.as_deref(), event.retry, closed));
                }
            }
        }
    }

    /// The next thing that has come, if it is whole.
    pub fn next(&mut self) -> Option<Came> {
        match self {
            Self::Frames { websocket, is_json, .. } => loop {
                return Some(match websocket.read() {
                    Ok(Message::Text(text)) if *is_json => {
                        let message: Value = serde_json::from_str(&text).expect("JSON");
                        if text::is_data(&message) { Came::Message(message) } else { Came::Answer(text.to_string()) }
                    }
                    Ok(Message::Text(text)) => Came::Answer(text.to_string()),
                    Ok(Message::Binary(bytes)) => {
                        assert!(!*is_json, "a binary frame for a client that agreed on JSON");
                        Came::Packet(bytes.to_vec())
                    }
                    Ok(Message::Ping(_)) => Came::Ping,
                    Ok(Message::Close(frame)) => {
                        let frame = frame.expect("the server says why");
                        Came::Close(frame.code.into(), frame.reason.to_string())
                    }
                    Ok(_) => continue,
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(Error::ConnectionClosed) => Came::End(None),
                    Err(error) => Came::End(Some(error.to_string())),
                });
            },
            Self::Events { events, ready, ended, closed, .. } => {
                let came = ready.pop_front();
                if came.is_some() || !*ended {
                    return came;
                }
                let torn = events.has_partial_event().then(|| "an event is torn".to_owned());
                Some(Came::End(torn.or_else(|| (!*closed).then(|| "no last event".to_owned()))))
            }
        }
    }

    /// What tungstenite wants to be sent: pongs and the answer to a close frame.
    pub fn output(&mut self) -> Vec<u8> {
        let Self::Frames { websocket, .. } = self else { return Vec::new() };
        let _ = websocket.flush();
        std::mem::take(&mut websocket.get_mut().output)
    }

    /// How many frames came compressed.
    pub fn compressed(&self) -> u64 {
        match self {
            Self::Frames { unpack, .. } => unpack.counts().compressed_frames as u64,
            Self::Events { .. } => 0,
        }
    }

    /// The id that a browser would come back with.
    pub fn last_event_id(&self) -> Option<&str> {
        match self {
            Self::Events { events, .. } => events.last_id(),
            Self::Frames { .. } => None,
        }
    }
}

/// What an event says; its id and retry are held to the rules.
fn came(data: &str, id: Option<&str>, retry: Option<u64>, closed: &mut bool) -> Option<Came> {
    let message: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data:?}"));
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    let has_retry = matches!(kind, "welcome" | "closing");
    assert_eq!(retry.is_some(), has_retry, "retry of {data}");
    if text::is_data(&message) {
        let header = text::header_of(&message);
        // 0x01 SNAPSHOT without 0x04 CAUGHT_UP: a place in the middle of a snapshot is none to go on from.
        let token = (header.flags & 5 != 1).then(|| format!("{}-{}", header.epoch, header.position));
        assert_eq!(id, token.as_deref(), "the id of {data}");
        return Some(Came::Message(message));
    }
    assert_eq!(id, None, "an answer has no id: {data}");
    if kind != "closing" {
        return Some(Came::Answer(data.to_owned()));
    }
    *closed = true;
    assert_eq!(message["reconnect_ms"].as_u64(), retry, "{data}");
    let reason = message["reason"].as_str().expect("a word");
    let code = match reason {
        "going_away" => 1001,
        "slow_consumer" => 4002,
        "policy" => 1008,
        other => panic!("reason {other:?}"),
    };
    Some(Came::Close(code, reason.to_owned()))
}
