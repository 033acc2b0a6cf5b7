//! A reader of Server-Sent Events as the HTML standard describes it, from the bytes after the head of the answer,
//! and a connection with one.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::http::{self, Answer};

/// A dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What `id` said, if it was there.
    pub id: Option<String>,
    /// What `retry` said.
    pub retry: Option<u64>,
    pub data: String,
}

/// Goes through a stream as it comes.
#[derive(Debug, Default)]
pub struct Events {
    /// Less than a line.
    rest: Vec<u8>,
    id: Option<String>,
    retry: Option<u64>,
    data: Vec<String>,
    /// The id of the last event that had one: what a browser sends as `Last-Event-ID`.
    pub last_id: Option<String>,
}

impl Events {
    /// Takes what came; the events that are whole come out.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end]).expect("UTF-8");
            events.extend(self.line(line));
        }
        events
    }

    /// True where an event has begun and is not whole.
    pub fn is_amid_event(&self) -> bool {
        !self.rest.is_empty() || self.id.is_some() || self.retry.is_some() || !self.data.is_empty()
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (id, retry) = (self.id.take(), self.retry.take());
            self.last_id = id.clone().or(self.last_id.take());
            assert!(!self.data.is_empty(), "an event without data is none");
            return Some(Event { id, retry, data: std::mem::take(&mut self.data).join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "retry" => self.retry = Some(value.parse().expect("digits")),
            "data" => self.data.push(value.to_owned()),
            other => panic!("field {other:?}; this server sends id, retry and data"),
        }
        None
    }
}

/// A stream of events over a connection of its own.
pub struct Source {
    stream: TcpStream,
    pub head: Answer,
    events: Events,
    ready: VecDeque<Event>,
    /// Messages of the last event that [`Self::until`] has not come to.
    rest: VecDeque<Value>,
}

impl Source {
    /// Asks for this path, with more header lines, and reads the head of the answer.
    pub fn open(address: SocketAddr, path: &str, lines: &str) -> Self {
        let mut stream = http::connect(address);
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let head = Answer::parse(&http::read_head(&mut stream));
        assert_eq!(head.status, 200, "{path}");
        Self { stream, head, events: Events::default(), ready: VecDeque::new(), rest: VecDeque::new() }
    }

    /// The next event; `None` at the end of the stream, which is amid none.
    #[track_caller]
    pub fn next(&mut self) -> Option<Event> {
        self.rest.clear();
        while self.ready.is_empty() {
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer).expect("something comes, or the end");
            self.ready.extend(self.events.feed(&buffer[..read]));
            if read == 0 {
                assert!(!self.events.is_amid_event(), "an event is torn");
                return None;
            }
        }
        self.ready.pop_front()
    }

    /// The next message of this type, among others or alone; others are passed over.
    #[track_caller]
    pub fn until(&mut self, kind: &str) -> Value {
        /// A stream that only lives is one that nothing more comes of, and would be read for ever.
        const HEARTBEATS_MAX: u32 = 6;
        let mut heartbeats = 0;
        loop {
            while let Some(message) = self.rest.pop_front() {
                if message["type"] == kind {
                    return message;
                }
                heartbeats += u32::from(message["type"] == "heartbeat");
            }
            assert!(heartbeats < HEARTBEATS_MAX, "the stream brings heartbeats, and no {kind}");
            let event = self.next().unwrap_or_else(|| panic!("the stream ends, and no {kind} has come"));
            self.rest = event.messages().into();
        }
    }

    /// What a browser would come back with.
    pub fn last_event_id(&self) -> &str {
        self.events.last_id.as_deref().expect("some event had an id")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Event {
    /// The objects of its message.
    pub fn messages(&self) -> Vec<Value> {
        match serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data)) {
            Value::Array(list) => list,
            object => vec![object],
        }
    }
}
