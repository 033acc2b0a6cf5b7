//! Server-Sent Events as the HTML standard defines them: a parser, and an SSE client on a connection of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::http::{self, Response};

/// A dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The field `id`, if the event has it.
    pub id: Option<String>,
    /// The field `retry`, if the event has it.
    pub retry: Option<u64>,
    pub data: String,
}

impl Event {
    /// The messages of the event: one object, or the objects of an array.
    pub fn messages(&self) -> Vec<Value> {
        match serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data)) {
            Value::Array(list) => list,
            object => vec![object],
        }
    }
}

/// Parses an event stream, in any pieces.
#[derive(Debug, Default)]
pub struct SseParser {
    /// An incomplete line.
    rest: Vec<u8>,
    id: Option<String>,
    retry: Option<u64>,
    data: Vec<String>,
    last_id: Option<String>,
}

impl SseParser {
    /// Takes the next bytes, and returns the events that are complete by now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end]).expect("an event stream is UTF-8");
            events.extend(self.push_line(line));
        }
        events
    }

    /// True if an event has begun and is incomplete.
    pub fn has_partial_event(&self) -> bool {
        !self.rest.is_empty() || self.id.is_some() || self.retry.is_some() || !self.data.is_empty()
    }

    /// The id of the last event with one: a browser sends it as `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn push_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (id, retry) = (self.id.take(), self.retry.take());
            self.last_id = id.clone().or(self.last_id.take());
            assert!(!self.data.is_empty(), "a browser ignores an event without data");
            return Some(Event { id, retry, data: std::mem::take(&mut self.data).join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "retry" => self.retry = Some(value.parse().expect("digits")),
            "data" => self.data.push(value.to_owned()),
            other => panic!("field {other:?}: the server sends id, retry and data"),
        }
        None
    }
}

/// An SSE client.
pub struct SseClient {
    pub tcp: TcpStream,
    /// The head of the response.
    pub head: Response,
    parser: SseParser,
    ready: VecDeque<Event>,
    /// Messages of the last event that [`Self::until_message`] has not reached.
    rest: VecDeque<Value>,
}

impl SseClient {
    /// Requests this path, with `header_lines` that each end with CRLF, and reads the head of the response.
    pub fn connect(address: SocketAddr, path: &str, header_lines: &str) -> Self {
        let mut tcp = http::connect(address);
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n{header_lines}\r\n");
        tcp.write_all(request.as_bytes()).expect("the server reads");
        let head = Response::parse(&http::read_head(&mut tcp));
        assert_eq!(head.status, 200, "{path}");
        Self { tcp, head, parser: SseParser::default(), ready: VecDeque::new(), rest: VecDeque::new() }
    }

    /// The next event; `None` at the end of the stream, which must not be within an event.
    #[track_caller]
    pub fn next_event(&mut self) -> Option<Event> {
        self.rest.clear();
        while self.ready.is_empty() {
            let mut buffer = [0; 4096];
            let read = self.tcp.read(&mut buffer).expect("an event, or the end");
            self.ready.extend(self.parser.push(&buffer[..read]));
            if read == 0 {
                assert!(!self.parser.has_partial_event(), "the stream ends within an event");
                return None;
            }
        }
        self.ready.pop_front()
    }

    /// The next message of this type; other messages before it are skipped.
    #[track_caller]
    pub fn until_message(&mut self, kind: &str) -> Value {
        /// More heartbeats than this mean that the message does not come: a test must not wait forever.
        const HEARTBEATS_MAX: u32 = 6;
        let mut heartbeats = 0;
        loop {
            while let Some(message) = self.rest.pop_front() {
                if message["type"] == kind {
                    return message;
                }
                heartbeats += u32::from(message["type"] == "heartbeat");
            }
            assert!(heartbeats < HEARTBEATS_MAX, "the stream has heartbeats and no {kind}");
            let event = self.next_event().unwrap_or_else(|| panic!("the stream ends without a {kind}"));
            self.rest = event.messages().into();
        }
    }

    /// The id with which a browser resumes.
    pub fn last_event_id(&self) -> &str {
        self.parser.last_id().expect("no event had an id")
    }
}
