//! The events of a run: hashed, so that two runs of a seed can be compared, and the last of them kept for reading.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use tickcast::io::{Completion, SendOutcome};

/// Events that are kept, and how many are printed after a failure, of all and of the connection concerned.
const KEPT: usize = 5000;
const SHOWN: usize = 40;

/// One event.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    Step { now_ns: u64 },
    Feed { records: u32, position: u64 },
    FeedFault { source: u32, what: &'static str },
    Defined { symbol: String },
    Opened { node: usize, conn: usize, slot: u32 },
    Refused { node: usize },
    Asked { node: usize, conn: usize, text: String },
    Garbage { node: usize, conn: usize, what: &'static str },
    Pause { node: usize, conn: usize, until_ns: u64 },
    EveryoneStalls { until_ns: u64 },
    Leaves { node: usize, conn: usize, politely: bool },
    Reset { node: usize, conn: usize },
    Asleep { node: usize, ticks: u32 },
    Revoked { user: u32 },
    Reloaded { user: u32, rights: usize },
    Io { node: usize, event: IoEvent },
    Read { node: usize, conn: usize, bytes: usize, hash: u64 },
}

impl Event {
    fn is_of(&self, node: usize, conn: usize) -> bool {
        let at = match self {
            Self::Opened { node, conn, .. }
            | Self::Asked { node, conn, .. }
            | Self::Garbage { node, conn, .. }
            | Self::Pause { node, conn, .. }
            | Self::Leaves { node, conn, .. }
            | Self::Reset { node, conn }
            | Self::Read { node, conn, .. } => (*node, *conn),
            Self::Io { node, event } => match event {
                IoEvent::Sent { conn, .. } | IoEvent::Reported { conn, .. } | IoEvent::Closed { conn } => {
                    (*node, *conn)
                }
            },
            _ => return false,
        };
        at == (node, conn)
    }
}

/// An operation between a shard and its sockets.
#[derive(Clone, Debug, Hash)]
pub enum IoEvent {
    Sent { conn: usize, bytes: u32, short: Option<Took> },
    Reported { conn: usize, what: Reported },
    Closed { conn: usize },
}

/// An outcome that can be hashed.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Took {
    Bytes(u32),
    Failed,
}

impl From<SendOutcome> for Took {
    fn from(outcome: SendOutcome) -> Self {
        match outcome {
            SendOutcome::Took(bytes) => Self::Bytes(bytes),
            SendOutcome::Failed => Self::Failed,
        }
    }
}

/// A completion that can be hashed.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Reported {
    Readable,
    Received(u32),
    Nothing,
    Writable,
    Ended,
}

impl From<&Completion> for Reported {
    fn from(completion: &Completion) -> Self {
        match completion {
            Completion::Readable { .. } => Self::Readable,
            Completion::Received { len, .. } => Self::Received(*len),
            Completion::Nothing { .. } => Self::Nothing,
            Completion::Writable { .. } | Completion::Progress { .. } => Self::Writable,
            Completion::Ended { .. } => Self::Ended,
        }
    }
}

#[derive(Default)]
pub struct Trail {
    hasher: DefaultHasher,
    last: VecDeque<(u64, Event)>,
    count: u64,
}

impl Trail {
    pub fn add(&mut self, event: Event) {
        event.hash(&mut self.hasher);
        self.count += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back((self.count, event));
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// The last events, a line each, and those of one connection of a shard.
    pub fn tail(&self, about: Option<(usize, usize)>) -> String {
        let mut text = String::from("the last events:\n");
        let shown = self.last.len().saturating_sub(SHOWN);
        push_lines(self.last.iter().skip(shown), &mut text);
        if let Some((node, conn)) = about {
            writeln!(text, "and of connection {conn} of shard {node}:").expect("a String takes all text");
            let own: Vec<_> = self.last.iter().filter(|(_, event)| event.is_of(node, conn)).collect();
            push_lines(own.iter().skip(own.len().saturating_sub(SHOWN)).copied(), &mut text);
        }
        text
    }
}

fn push_lines<'a>(events: impl Iterator<Item = &'a (u64, Event)>, text: &mut String) {
    for (number, event) in events {
        writeln!(text, "  {number:>7} {event:?}").expect("a String takes all text");
    }
}
