//! A connection of a client: what it has subscribed, and what waits to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::limits::{Limits, Window};
use crate::dialect::{Route, Stream, Upgrade};

/// What is sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// A text message.
    Text(String),
    /// A ping frame.
    Ping,
    /// A close frame, then the end.
    Close(u16, String),
    /// The end without a close frame, after a part of this message.
    Cut(String),
}

/// How a subscription goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Messages are sent.
    Open,
    /// Nothing is sent, although it was acknowledged.
    Muted,
    /// The first messages are sent at this time, and nothing before them.
    Late(u64),
    /// These first messages are sent in the place of the next one.
    Stale(Vec<String>),
}

/// A subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// How messages name it.
    pub name: String,
    /// How it goes on.
    pub flow: Flow,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Its number.
    pub id: u64,
    /// Which channels its address carries.
    pub route: Route,
    /// Messages are wrapped in the name of their stream.
    pub is_combined: bool,
    /// The limits of the venue.
    pub limits: Limits,
    /// What it has subscribed.
    pub subscriptions: BTreeMap<Stream, Subscription>,
    /// Names that were accepted, and that nothing belongs to.
    pub accepted: BTreeSet<String>,
    /// What waits to be sent.
    pub out: VecDeque<Out>,
    /// Messages that are sent again after so many others.
    pub repeats: Vec<(u32, String)>,
    /// When it was opened.
    pub opened_ns: u64,
    /// When the client sent something.
    pub heard_ns: u64,
    /// When something was sent to it.
    pub sent_ns: u64,
    /// When it was pinged, and the answer has not come.
    pub pinged_ns: Option<u64>,
    /// When it was pinged last.
    pub last_ping_ns: u64,
    /// When it is to be closed.
    pub closes_ns: Option<u64>,
    /// The client has asked for something.
    pub has_asked: bool,
    /// It was closed by the venue.
    pub is_closed: bool,
    /// Messages of the client.
    pub messages: Window,
    /// Its requests.
    pub requests: Window,
}

impl Connection {
    /// A connection without a subscription.
    pub fn new(id: u64, upgrade: &Upgrade, limits: Limits, now_ns: u64) -> Self {
        Self {
            id,
            route: upgrade.route,
            is_combined: upgrade.is_combined,
            limits,
            subscriptions: BTreeMap::new(),
            accepted: BTreeSet::new(),
            out: VecDeque::new(),
            repeats: Vec::new(),
            opened_ns: now_ns,
            heard_ns: now_ns,
            sent_ns: now_ns,
            pinged_ns: None,
            last_ping_ns: now_ns,
            closes_ns: None,
            has_asked: false,
            is_closed: false,
            messages: Window::default(),
            requests: Window::default(),
        }
    }

    /// The streams and their names.
    pub fn named(&self) -> BTreeMap<Stream, String> {
        self.subscriptions.iter().map(|(stream, of)| (*stream, of.name.clone())).collect()
    }

    /// The streams that messages are sent on.
    pub fn audible(&self) -> Vec<Stream> {
        let open = self.subscriptions.iter().filter(|(_, of)| of.flow == Flow::Open);
        open.map(|(stream, _)| *stream).collect()
    }

    /// All names, those that nothing belongs to included.
    pub fn all_names(&self) -> Vec<String> {
        let names = self.subscriptions.values().map(|of| of.name.clone());
        names.chain(self.accepted.iter().cloned()).collect()
    }

    /// True if the name is subscribed.
    pub fn has_name(&self, name: &str) -> bool {
        self.accepted.contains(name) || self.subscriptions.values().any(|of| of.name == name)
    }

    /// How many names are subscribed.
    pub fn names(&self) -> usize {
        self.subscriptions.len() + self.accepted.len()
    }

    /// Queues a text, and after it what is to be repeated now.
    pub fn send(&mut self, text: String, now_ns: u64) {
        if self.is_closed {
            return;
        }
        self.sent_ns = now_ns;
        self.out.push_back(Out::Text(text));
        for (left, _) in &mut self.repeats {
            *left = left.saturating_sub(1);
        }
        let due = self.repeats.extract_if(.., |(left, _)| *left == 0);
        let texts: Vec<_> = due.map(|(_, text)| Out::Text(text)).collect();
        self.out.extend(texts);
    }

    /// Closes it after what is queued.
    pub fn close(&mut self, code: u16, reason: &str) {
        if !self.is_closed {
            self.out.push_back(Out::Close(code, reason.to_owned()));
            self.is_closed = true;
        }
    }

    /// Ends it without a close frame, within a message.
    pub fn cut(&mut self, text: String) {
        if !self.is_closed {
            self.out.push_back(Out::Cut(text));
            self.is_closed = true;
        }
    }
}
