//! The venue as a whole, without I/O: connections, what they have subscribed, the session that plays, and the faults.
//!
//! Everything happens in a call with the time; what is to be sent waits in the queue of its connection. [`Hub::advance`]
//! plays what is due and says when to call it again.

pub mod connection;
pub mod faults;
pub mod limits;
mod play;
mod rest;
mod timers;

use std::collections::BTreeMap;

use connection::{Connection, Flow, Out, Subscription};
use faults::{Class, Fault, FaultPlace, Faults};
use limits::Window;

use crate::dialect::{self, Action, Channel, Dialect, Stream, Target};
use crate::market::step::Step;
use crate::market::view::{View, WHOLE};
use crate::market::{Listed, Market, Session};
use crate::options::{Options, Speed};
use crate::truth::Truth;

/// Messages that may wait for a client. One that reads slower is disconnected, or waited for at the greatest speed.
const QUEUE_MAX: usize = 50_000;
/// At the greatest speed, the session waits while more messages than this wait for a client.
const QUEUE_HIGH: usize = 2_000;

/// A venue.
pub struct Hub {
    options: Options,
    market: Market,
    session: Session,
    dialect: Box<dyn Dialect>,
    /// The next event, which is not due yet.
    ahead: Option<Step>,
    clock: SessionClock,
    views: BTreeMap<Stream, View>,
    /// When statistics of an instrument are due, ns of the session.
    tickers: BTreeMap<usize, u64>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// The market some seconds ago, for snapshots that are stale.
    former: [Vec<Listed>; 2],
    former_ns: u64,
    connects: Window,
    rest_weight: Window,
    /// REST and new connections are refused until then.
    limited_ns: Option<u64>,
    refused: u32,
    /// Down for maintenance until then.
    down_ns: Option<u64>,
    heartbeat_ns: u64,
    quoted_ns: BTreeMap<usize, u64>,
    faults: Faults,
    /// When an instrument changes by the script.
    script: Vec<(u64, ScriptedChange)>,
    steps: u64,
    rest_requests: u64,
}

/// A change of an instrument while the session plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptedChange {
    /// Its tick becomes ten times as large.
    Tick(String),
    /// It is delisted.
    Delist(String),
}

/// The time of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SessionClock {
    /// When it began; it begins with the first subscription.
    began_ns: Option<u64>,
    /// Time that it stood still.
    stood_ns: u64,
    /// Since when it stands still.
    stands_since_ns: Option<u64>,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Seconds of the header Retry-After.
    pub retry_after_s: Option<u64>,
}

impl Hub {
    /// A venue before its first client.
    pub fn new(options: Options, market: Market, session: Session) -> Self {
        let with_checksums = options.with_checksums;
        let dialect = dialect::dialect(options.venue, with_checksums);
        let faults = Faults::new(options.venue, options.faults.clone());
        let former = [market.listed.clone(), market.listed.clone()];
        Self {
            market,
            session,
            dialect,
            ahead: None,
            clock: SessionClock::default(),
            views: BTreeMap::new(),
            tickers: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            former,
            former_ns: 0,
            connects: Window::default(),
            rest_weight: Window::default(),
            limited_ns: None,
            refused: 0,
            down_ns: None,
            heartbeat_ns: 0,
            quoted_ns: BTreeMap::new(),
            faults,
            script: options.script.clone(),
            steps: 0,
            rest_requests: 0,
            options,
        }
    }

    /// Opens a WebSocket at a path.
    ///
    /// # Errors
    /// There is none at this path, or the venue does not accept connections now.
    pub fn connect(&mut self, target: &str, now_ns: u64) -> Result<u64, Refusal> {
        let target = Target::parse(target);
        let upgrade = self.dialect.upgrade(&target).ok_or(Refusal { status: 404, retry_after_s: None })?;
        self.check_open(now_ns)?;
        if !self.connects.admit(self.options.limits.connects, 1, now_ns) {
            return Err(Refusal { status: 429, retry_after_s: Some(1) });
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let mut connection = Connection::new(id, &upgrade, self.options.limits.clone(), now_ns);
        for text in self.dialect.greeting(&self.market, id, now_ns) {
            connection.send(text, now_ns);
        }
        self.connections.insert(id, connection);
        for request in upgrade.requests {
            self.ask(id, &request, now_ns);
        }
        Ok(id)
    }

    /// Takes a text of a client.
    pub fn text(&mut self, id: u64, text: &str, now_ns: u64) {
        if self.note_frame(id, now_ns) {
            self.ask(id, text, now_ns);
        }
    }

    /// Takes a ping or pong frame of a client.
    pub fn control_frame(&mut self, id: u64, is_pong: bool, now_ns: u64) {
        if self.note_frame(id, now_ns)
            && is_pong
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.pinged_ns = None;
        }
    }

    /// Forgets a connection.
    pub fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// What is to be sent on a connection; `None` if it is gone.
    pub fn take_out(&mut self, id: u64) -> Option<Vec<Out>> {
        Some(self.connections.get_mut(&id)?.out.drain(..).collect())
    }

    /// The connections with something to be sent.
    pub fn ready(&self) -> impl Iterator<Item = u64> {
        self.connections.values().filter(|connection| !connection.out.is_empty()).map(|connection| connection.id)
    }

    /// Makes a fault happen at the next message, request or subscription of its class.
    pub fn inject(&mut self, fault: Fault, class: Class) {
        self.faults.arm(fault, class);
    }

    /// True while a fault waits for its place.
    pub fn is_fault_armed(&self) -> bool {
        self.faults.is_armed()
    }

    /// How many subscriptions are open on all connections.
    pub fn open_subscriptions(&self) -> usize {
        self.connections.values().map(|connection| connection.subscriptions.len()).sum()
    }

    /// Everything that it truly was until now.
    pub fn truth(&self) -> Truth {
        Truth {
            venue: self.options.venue.name(),
            instruments: Truth::of(&self.market),
            faults: self.faults.log.clone(),
            connections: self.next_connection - 1,
            rest_requests: self.rest_requests,
            steps: self.steps,
        }
    }

    /// Changes an instrument now.
    pub fn change(&mut self, change: &ScriptedChange, now_ns: u64) {
        let (ScriptedChange::Tick(symbol) | ScriptedChange::Delist(symbol)) = change;
        let Some(index) = self.market.find(symbol) else { return };
        match change {
            ScriptedChange::Tick(_) => self.widen_tick(index, now_ns),
            ScriptedChange::Delist(_) => {
                self.market.listed[index].instrument.status = crate::market::instrument::Status::Delisted
            }
        }
        self.announce_listing(index, now_ns);
    }

    fn check_open(&mut self, now_ns: u64) -> Result<(), Refusal> {
        let left = |until_ns: u64| Some(until_ns.saturating_sub(now_ns).div_ceil(1_000_000_000).max(1));
        if let Some(until_ns) = self.limited_ns.filter(|until_ns| now_ns < *until_ns) {
            self.refused += 1;
            // "Repeatedly violating rate limits" is answered with 418.
            let status = if self.refused > 3 && self.options.venue.is_binance() { 418 } else { 429 };
            return Err(Refusal { status, retry_after_s: left(until_ns) });
        }
        match self.down_ns.filter(|until_ns| now_ns < *until_ns) {
            Some(until_ns) => Err(Refusal { status: 503, retry_after_s: left(until_ns) }),
            None => Ok(()),
        }
    }

    /// Counts a frame of a client; false if it exceeds the limit, for which the connection is closed.
    fn note_frame(&mut self, id: u64, now_ns: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        connection.heard_ns = now_ns;
        let is_admitted = connection.messages.admit(connection.limits.messages, 1, now_ns);
        if !is_admitted {
            connection.close(1008, "Too many requests");
        }
        is_admitted && !connection.is_closed
    }

    fn ask(&mut self, id: u64, text: &str, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.has_asked = true;
        let actions = self.dialect.request(text, connection, &self.market, now_ns);
        let subscribes = |action: &&Action| {
            matches!(action, Action::Subscribe { .. } | Action::Unsubscribe { .. } | Action::Accept { .. })
        };
        let requests = actions.iter().filter(subscribes).count();
        if let Some(rate) = connection.limits.requests
            && requests > 0
            && !connection.requests.admit(rate, 1, now_ns)
        {
            connection.close(1008, "Too many subscriptions");
            return;
        }
        for action in actions {
            self.act(id, action, now_ns);
        }
    }

    fn act(&mut self, id: u64, action: Action, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match action {
            Action::Send(text) => connection.send(text, now_ns),
            Action::Accept { name } => {
                connection.accepted.insert(name);
            }
            Action::Unsubscribe { stream, name } => {
                connection.subscriptions.remove(&stream);
                connection.accepted.remove(&name);
            }
            Action::SetCombined(is_combined) => connection.is_combined = is_combined,
            Action::Subscribe { stream, name, with_snapshot } => {
                self.subscribe(id, stream, &name, with_snapshot, now_ns);
            }
        }
    }

    fn subscribe(&mut self, id: u64, stream: Stream, name: &str, with_snapshot: bool, now_ns: u64) {
        self.clock.began_ns.get_or_insert(now_ns);
        self.open_view(stream, now_ns);
        let at = FaultPlace { now_ns, connection: Some(id), place: name };
        let mut flow = Flow::Open;
        let mut first = Vec::new();
        if let Some(class) = class_of(stream.channel) {
            let has_snapshot = with_snapshot && class == Class::Book && !self.options.venue.is_binance();
            if self.faults.take(&[Fault::Silent], class, at).is_some() {
                flow = Flow::Muted;
            } else if has_snapshot && self.faults.take(&[Fault::LateSnapshot], class, at).is_some() {
                flow = Flow::Late(now_ns + self.options.late_ms * 1_000_000);
            } else if has_snapshot && self.faults.take(&[Fault::StaleSnapshot], class, at).is_some() {
                flow = Flow::Stale(self.first(stream, name, now_ns));
            }
        }
        if flow == Flow::Open && with_snapshot {
            first = self.first(stream, name, now_ns);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.subscriptions.insert(stream, Subscription { name: name.to_owned(), flow });
        for text in first {
            connection.send(text, now_ns);
        }
    }

    /// The first messages of a stream. Its view is up to date.
    fn first(&self, stream: Stream, name: &str, now_ns: u64) -> Vec<String> {
        self.dialect.first(&self.market, stream, name, self.views.get(&stream), now_ns)
    }

    /// Makes the view of a book, and publishes its changes, so that a snapshot of it is followed by later ones alone.
    fn open_view(&mut self, stream: Stream, now_ns: u64) {
        let (levels, interval_ms) = match stream.channel {
            Channel::Book(depth) => (depth.levels, depth.interval_ms),
            Channel::BestLevels(levels) => (levels, 100),
            _ => return,
        };
        if self.views.contains_key(&stream) {
            self.publish_view(stream, now_ns);
            return;
        }
        let depth = if levels == 0 { WHOLE } else { levels as usize };
        let interval_ms = if matches!(self.session, Session::Recorded(_)) { 0 } else { u64::from(interval_ms) };
        let with_leaving = self.dialect.removes_leaving_levels();
        let of = &self.market.listed[stream.instrument];
        self.views.insert(stream, View::new(of, depth, interval_ms * 1_000_000, with_leaving));
    }

    /// True at the greatest speed, and a client has not read what it has got.
    fn is_held_up(&self) -> bool {
        self.options.speed == Speed::Max && self.connections.values().any(|of| of.out.len() > QUEUE_HIGH)
    }
}

/// The class of a channel.
fn class_of(channel: Channel) -> Option<Class> {
    match channel {
        Channel::Book(_) | Channel::BestLevels(_) => Some(Class::Book),
        Channel::Trade | Channel::AggTrade => Some(Class::Trade),
        Channel::Quote => Some(Class::Quote),
        Channel::Ticker => Some(Class::Ticker),
        Channel::Heartbeat | Channel::Listing | Channel::Status => None,
    }
}

impl SessionClock {
    fn stand(&mut self, now_ns: u64) {
        self.stands_since_ns.get_or_insert(now_ns);
    }

    fn go_on(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.stands_since_ns.take() {
            self.stood_ns += now_ns.saturating_sub(since_ns.max(self.began_ns.unwrap_or(now_ns)));
        }
    }

    /// Time of the session that has passed; `None` while it stands still.
    fn position_ns(&self, now_ns: u64, speed: Speed) -> Option<u64> {
        let began_ns = self.began_ns.filter(|_| self.stands_since_ns.is_none())?;
        let passed_ns = now_ns.saturating_sub(began_ns).saturating_sub(self.stood_ns);
        Some(match speed {
            Speed::Max => u64::MAX,
            Speed::Times(times) => (passed_ns as f64 * times) as u64,
        })
    }

    /// When a time of the session comes.
    fn wall_ns(&self, session_ns: u64, speed: Speed) -> u64 {
        let began_ns = self.began_ns.unwrap_or(0) + self.stood_ns;
        match speed {
            Speed::Max => began_ns,
            Speed::Times(times) => began_ns + (session_ns as f64 / times) as u64 + 1,
        }
    }
}
