//! Parsers of a simulated client's stream: tungstenite for frames, an SSE parser for events, serde_json for their
//! content.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use serde_json::Value;
use tickcast::shard::Format;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::text;
use tickcast_test_support::deflate::FrameInflater;
use tickcast_test_support::sse::SseParser;

/// The head of the response to an SSE client.
pub const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// The socket that tungstenite reads from.
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

/// One item of a stream.
pub enum StreamItem {
    /// The text of an answer.
    Answer(String),
    /// A packet as bytes.
    Packet(Vec<u8>),
    /// A packet as JSON.
    Message(Value),
    Ping,
    /// The code and reason of a close frame, or of the last event.
    Close(u16, String),
    /// The stream has ended; with what was wrong about its end.
    End(Option<String>),
}

/// One connection's stream.
pub enum Stream {
    Frames { unpack: FrameInflater, websocket: Box<WebSocket<Pipe>>, is_json: bool },
    Events { head: Vec<u8>, events: SseParser, ready: VecDeque<StreamItem>, ended: bool, closed: bool },
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

    /// Adds what the socket delivered.
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
                assert_eq!(head[..], HEAD[..head.len()], "the head of the response");
                for event in events.push(&bytes[of_head..]) {
                    assert!(!*closed, "an event after the last one: {event:?}");
                    ready.extend(message_of(&event.data, event.id.as_deref(), event.retry, closed));
                }
            }
        }
    }

    /// The next message, if it is whole.
    pub fn next(&mut self) -> Option<StreamItem> {
        match self {
            Self::Frames { websocket, is_json, .. } => loop {
                return Some(match websocket.read() {
                    Ok(Message::Text(text)) if *is_json => {
                        let message: Value = serde_json::from_str(&text).expect("JSON");
                        if text::is_data(&message) {
                            StreamItem::Message(message)
                        } else {
                            StreamItem::Answer(text.to_string())
                        }
                    }
                    Ok(Message::Text(text)) => StreamItem::Answer(text.to_string()),
                    Ok(Message::Binary(bytes)) => {
                        assert!(!*is_json, "a binary frame for a client that negotiated JSON");
                        StreamItem::Packet(bytes.to_vec())
                    }
                    Ok(Message::Ping(_)) => StreamItem::Ping,
                    Ok(Message::Close(frame)) => {
                        let frame = frame.expect("a close frame has a reason");
                        StreamItem::Close(frame.code.into(), frame.reason.to_string())
                    }
                    Ok(_) => continue,
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(Error::ConnectionClosed) => StreamItem::End(None),
                    Err(error) => StreamItem::End(Some(error.to_string())),
                });
            },
            Self::Events { events, ready, ended, closed, .. } => {
                let came = ready.pop_front();
                if came.is_some() || !*ended {
                    return came;
                }
                let torn = events.has_partial_event().then(|| "an event is torn".to_owned());
                Some(StreamItem::End(torn.or_else(|| (!*closed).then(|| "no last event".to_owned()))))
            }
        }
    }

    /// What tungstenite wants to send: pongs and the answer to a close frame.
    pub fn output(&mut self) -> Vec<u8> {
        let Self::Frames { websocket, .. } = self else { return Vec::new() };
        let _ = websocket.flush();
        std::mem::take(&mut websocket.get_mut().output)
    }

    /// How many frames were compressed.
    pub fn compressed(&self) -> u64 {
        match self {
            Self::Frames { unpack, .. } => unpack.counts().compressed_frames as u64,
            Self::Events { .. } => 0,
        }
    }

    /// The id with which a browser would reconnect.
    pub fn last_event_id(&self) -> Option<&str> {
        match self {
            Self::Events { events, .. } => events.last_id(),
            Self::Frames { .. } => None,
        }
    }
}

/// The message of an event; its id and retry are checked.
fn message_of(data: &str, id: Option<&str>, retry: Option<u64>, closed: &mut bool) -> Option<StreamItem> {
    let message: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data:?}"));
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    let has_retry = matches!(kind, "welcome" | "closing");
    assert_eq!(retry.is_some(), has_retry, "retry of {data}");
    if text::is_data(&message) {
        let header = text::header_of(&message);
        // 0x01 SNAPSHOT without 0x04 CAUGHT_UP: a stream cannot be resumed in the middle of a snapshot.
        let token = (header.flags & 5 != 1).then(|| format!("{}-{}", header.epoch, header.position));
        assert_eq!(id, token.as_deref(), "the id of {data}");
        return Some(StreamItem::Message(message));
    }
    assert_eq!(id, None, "an answer has no id: {data}");
    if kind != "closing" {
        return Some(StreamItem::Answer(data.to_owned()));
    }
    *closed = true;
    assert_eq!(message["reconnect_ms"].as_u64(), retry, "{data}");
    let reason = message["reason"].as_str().expect("a word");
    let code = match reason {
        "going_away" => 1001,
        "credentials_expired" => 4001,
        "slow_consumer" => 4002,
        "not_entitled" => 4003,
        "policy" => 1008,
        other => panic!("reason {other:?}"),
    };
    Some(StreamItem::Close(code, reason.to_owned()))
}
