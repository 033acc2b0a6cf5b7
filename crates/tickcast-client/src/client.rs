//! The client: subscriptions on a stream that continues over as many connections as it takes.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::backoff::Backoff;
use crate::connection::{Connection, Received, random_seed};
use crate::decode::Decoder;
use crate::error::Error;
use crate::packet::Packet;
use crate::subscription::{ActiveSubscription, Subscription, requests};
use crate::target::Target;
use crate::token::{TokenSource, Tokens};
use tickcast_protocol::Token;
use tickcast_protocol::control::{Reply, Secret, auth_text, ping_text, unsubscribe_text};
use tickcast_protocol::packet::{PacketHeader, flags};

/// A connection that has lasted this long ends a series of failed attempts.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// How long the server may be silent, beside two heartbeat intervals.
const SILENCE: Duration = Duration::from_secs(5);
/// The heartbeat interval until the server's welcome names its own.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// Requests that go out at once after a reconnect; the rest keeps to the server's rate limit.
const REQUESTS_AT_ONCE: usize = 10;

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Offers permessage-deflate, for networks where bytes cost more than time.
    pub compression: bool,
    /// Waits between attempts to reconnect. With `None` every loss is an error of [`Client::next`].
    pub reconnect: Option<Backoff>,
    /// The file with the authorities that the server's certificate is verified with, PEM, for `wss://`; those of the
    /// system without one.
    pub ca: Option<PathBuf>,
    /// A token, an API key, or a function for tokens, for a server that identifies its clients.
    pub token: Option<TokenSource>,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: false, reconnect: Some(Backoff::default()), ca: None, token: None }
    }
}

/// What [`Client::next`] returns.
#[derive(Debug)]
pub enum Event<'a> {
    /// A packet, without the records that the client already had.
    Packet(Packet<'a>),
    /// An answer, or a message about the connection. An error that does not answer a subscription is among them.
    Reply(Reply),
    /// The connection is lost.
    Disconnected {
        /// Why.
        error: Error,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The client is connected again, and has requested all subscriptions again.
    Reconnected,
    /// There is no next token, or the server did not accept it: the token function is called again after this time,
    /// until the connection ends.
    TokenFailed {
        /// Why.
        error: Error,
        /// When the function is called again.
        retry_in: Duration,
    },
}

/// One step of the client. The bytes of a packet stay in the client.
enum ClientStep {
    Packet(PacketHeader),
    Reply(Reply),
    Disconnected(Error, Duration),
    Reconnected,
    TokenFailed(Error, Duration),
}

enum Link {
    Up { connection: Box<Connection>, since: Instant, last_message: Instant },
    Down { retry_at: Instant },
}

/// A subscriber. [`crate`] shows how to use it.
pub struct Client {
    target: Target,
    options: Options,
    link: Link,
    subscriptions: Vec<ActiveSubscription>,
    /// Requests that wait for the rate limit of this connection, the next one last, and when it may be sent.
    waiting_requests: Vec<String>,
    next_request_at: Instant,
    request_interval: Duration,
    last_id: u64,
    decoder: Decoder,
    token: Option<Token>,
    /// The last packet as it came, and its records that are new.
    packet: Vec<u8>,
    new_records: Vec<u8>,
    heartbeat: Duration,
    /// The wait that the server has requested before the next attempt.
    requested_wait: Duration,
    attempt: u32,
    reconnects: u64,
    tokens: Tokens,
    random: Pcg64Mcg,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_connected = matches!(self.link, Link::Up { .. });
        f.debug_struct("Client")
            .field("target", &self.target)
            .field("is_connected", &is_connected)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `ws://HOST[:PORT][/PATH]`, `wss://` or `HOST[:PORT]`; the default path is `/v1/stream`. The first
    /// connection is tried once, and again with other tokens where they are refused; a lost one is replaced as
    /// [`Options::reconnect`] says.
    ///
    /// # Errors
    /// When the URL is invalid, no server listens there, or the upgrade is refused.
    pub fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let target = Target::parse(url)?;
        let mut random = Pcg64Mcg::seed_from_u64(random_seed());
        let mut tokens = Tokens::new(options.token.clone());
        let mut attempt = 0;
        let connection = loop {
            match open(&target, &options, &tokens) {
                Err(error) if tokens.may_follow(&error) && options.reconnect.is_some() => {
                    let wait = options.reconnect.unwrap_or_default().wait(attempt, Duration::ZERO, &mut random);
                    std::thread::sleep(wait);
                    attempt += 1;
                }
                opened => break opened?,
            }
        };
        let now = Instant::now();
        Ok(Self {
            target,
            options,
            link: Link::Up { connection: Box::new(connection), since: now, last_message: now },
            subscriptions: Vec::new(),
            waiting_requests: Vec::new(),
            next_request_at: now,
            request_interval: Duration::from_millis(50),
            last_id: 0,
            decoder: Decoder::new(),
            token: None,
            packet: Vec::new(),
            new_records: Vec::new(),
            heartbeat: DEFAULT_HEARTBEAT,
            requested_wait: Duration::ZERO,
            attempt: 0,
            reconnects: 0,
            tokens,
            random,
        })
    }

    /// Requests a subscription, which lasts over reconnects. The answer comes as [`Reply::Subscribed`] with the id that
    /// this returns. A refusal comes as [`Error::Rejected`] of [`Self::next`]; the client continues without it.
    pub fn subscribe(&mut self, subscription: Subscription) -> u64 {
        self.add(subscription, None)
    }

    /// The same, continuing after the record at which another stream stopped, such as that of this program's last run.
    /// The answer is [`Reply::Resumed`]: it says whether the missed records are replayed or a snapshot comes in their
    /// place.
    pub fn resume(&mut self, token: Token, subscription: Subscription) -> u64 {
        self.add(subscription, Some(token))
    }

    /// Ends a subscription. Ending a pattern ends all instruments that it covers, also where another subscription names
    /// them.
    pub fn unsubscribe(&mut self, id: u64) {
        if let Some(at) = self.subscriptions.iter().position(|active| active.id == id) {
            let ended = self.subscriptions.remove(at).subscription;
            self.request(unsubscribe_text(id, ended.channel_set(), &ended.symbol_list()));
        }
    }

    /// Requests the server's time: [`Reply::Pong`] with the id that this returns.
    pub fn ping(&mut self) -> u64 {
        self.last_id += 1;
        self.request(ping_text(self.last_id));
        self.last_id
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`Error::Rejected`] when a request is refused; the client continues. Any other error ends the stream: it is one
    /// that another attempt would not change ([`Error::is_final`]), or the first loss without [`Options::reconnect`].
    #[expect(clippy::should_implement_trait, reason = "an event borrows the client, an iterator's item cannot")]
    pub fn next(&mut self) -> Result<Event<'_>, Error> {
        loop {
            if let Some(step) = self.step(Duration::from_secs(1))? {
                return Ok(self.event(step));
            }
        }
    }

    /// The same, and `None` where nothing comes within this time.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Event<'_>>, Error> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(step) = self.step(left)? {
                return Ok(Some(self.event(step)));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// The token of the last packet, for [`Self::resume`]. It is valid once the first snapshot is complete.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// The instruments that are known, and the counters of the stream.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How many times the client has reconnected.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Whether the server has agreed to compress packets on this connection.
    pub fn is_compressed(&self) -> bool {
        matches!(&self.link, Link::Up { connection, .. } if connection.is_compressed())
    }

    /// Closes with 1000, and waits up to a second for the server's answer. A client that is dropped sends no close
    /// frame.
    pub fn close(self) {
        if let Link::Up { connection, .. } = self.link {
            // The client is leaving in any case.
            let _ = connection.close();
        }
    }

    fn add(&mut self, subscription: Subscription, token: Option<Token>) -> u64 {
        self.last_id += 1;
        let active = ActiveSubscription::new(self.last_id, subscription, token);
        let request = active.request();
        self.subscriptions.push(active);
        self.request(request);
        self.last_id
    }

    /// Sends a request behind those that wait. A failed write loses nothing: the next read reports the lost connection,
    /// and the next connection requests all subscriptions again.
    fn request(&mut self, request: String) {
        if !self.waiting_requests.is_empty() {
            self.waiting_requests.insert(0, request);
        } else if let Link::Up { connection, .. } = &mut self.link {
            let _ = connection.send_text(&request);
        }
    }

    fn event(&mut self, step: ClientStep) -> Event<'_> {
        match step {
            ClientStep::Packet(header) => {
                let (bytes, records, decoder) = (self.packet.len(), self.new_records.as_slice(), &self.decoder);
                Event::Packet(Packet { header, bytes, records, decoder })
            }
            ClientStep::Reply(reply) => Event::Reply(reply),
            ClientStep::Disconnected(error, retry_in) => Event::Disconnected { error, retry_in },
            ClientStep::Reconnected => Event::Reconnected,
            ClientStep::TokenFailed(error, retry_in) => Event::TokenFailed { error, retry_in },
        }
    }

    /// Waits for one step for at most this long.
    fn step(&mut self, limit: Duration) -> Result<Option<ClientStep>, Error> {
        if let Some(step) = self.renew() {
            return Ok(Some(step));
        }
        self.send_waiting_request();
        let wait = if self.waiting_requests.is_empty() { limit } else { limit.min(self.request_interval) };
        let wait = self.tokens.due_in().map_or(wait, |due_in| wait.min(due_in));
        let silence_max = 2 * self.heartbeat + SILENCE;
        let received = match &mut self.link {
            Link::Down { retry_at } => {
                let left = retry_at.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(limit));
                return if left <= limit { self.reconnect().map(Some) } else { Ok(None) };
            }
            Link::Up { connection, last_message, .. } => {
                let received = connection.receive(wait, &mut self.packet);
                if matches!(received, Ok(Received::Packet | Received::Text(_))) {
                    *last_message = Instant::now();
                }
                match received {
                    Ok(Received::Nothing) if last_message.elapsed() > silence_max => {
                        Err(Error::HeartbeatTimeout { silent_ms: silence_max.as_millis() as u64 })
                    }
                    received => received,
                }
            }
        };
        match received {
            Ok(Received::Nothing) => Ok(None),
            Ok(Received::Packet) => self.on_packet().map(|header| Some(ClientStep::Packet(header))),
            Ok(Received::Text(text)) => self.on_reply(&text).map(Some),
            Err(error) => self.on_loss(error).map(Some),
        }
    }

    fn send_waiting_request(&mut self) {
        let Link::Up { connection, .. } = &mut self.link else { return };
        if self.next_request_at <= Instant::now()
            && let Some(request) = self.waiting_requests.pop()
        {
            // Where it fails, the next read reports the loss.
            let _ = connection.send_text(&request);
            self.next_request_at = Instant::now() + self.request_interval;
        }
    }

    fn on_packet(&mut self) -> Result<PacketHeader, Error> {
        self.new_records.clear();
        let new_records = &mut self.new_records;
        let header = self.decoder.packet(&self.packet, |_, _, record| new_records.extend_from_slice(record))?;
        self.token = Some(Token { epoch: header.epoch, position: header.position });
        if header.flags & flags::CAUGHT_UP != 0 {
            self.subscriptions.iter_mut().for_each(ActiveSubscription::set_caught_up);
            let is_resuming = !self.subscriptions.iter().all(ActiveSubscription::is_caught_up);
            self.decoder.set_resuming(is_resuming && self.reconnects > 0);
        }
        Ok(header)
    }

    fn on_reply(&mut self, text: &str) -> Result<ClientStep, Error> {
        let reply = Reply::parse(text).map_err(|error| Error::Protocol(format!("invalid reply {text:?}: {error}")))?;
        match &reply {
            Reply::Welcome { heartbeat_ms, limits, expires_in_s, .. } => {
                self.tokens.accepted(*expires_in_s);
                self.heartbeat = Duration::from_millis(*heartbeat_ms);
                // Half of the server's rate limit, because pings count as well.
                self.request_interval =
                    Duration::from_secs(2) / u32::try_from(limits.requests_per_s.max(1)).unwrap_or(u32::MAX);
            }
            Reply::Subscribed { id, denied, limited, .. } | Reply::Resumed { id, denied, limited, .. } => {
                let is_restricted = !(denied.is_empty() && limited.is_empty());
                let accepted = self.subscriptions.iter_mut().filter(|active| active.id == *id);
                accepted.for_each(|active| active.set_accepted(is_restricted));
            }
            Reply::Expiring { .. } if self.tokens.can_change() => {
                self.tokens.expiring(&mut self.random);
            }
            Reply::Authenticated { id, expires_in_s, dropped, .. } if self.tokens.is_answer(*id) => {
                self.tokens.accepted(*expires_in_s);
                self.request_by_other_rights(dropped);
            }
            Reply::Error { id: Some(id), code, message } if self.tokens.is_answer(*id) => {
                return self.on_refused_token(Error::Rejected { code: code.clone(), message: message.clone() });
            }
            Reply::Closing { reconnect_ms, .. } => self.requested_wait = Duration::from_millis(*reconnect_ms),
            Reply::Error { id: Some(id), code, message } => {
                if let Some(at) = self.subscriptions.iter().position(|active| active.id == *id) {
                    self.subscriptions.remove(at);
                    return Err(Error::Rejected { code: code.clone(), message: message.clone() });
                }
            }
            _ => {}
        }
        Ok(ClientStep::Reply(reply))
    }

    /// Presents the next token on the open connection, if it is time.
    fn renew(&mut self) -> Option<ClientStep> {
        if self.tokens.due_in() != Some(Duration::ZERO) {
            return None;
        }
        match self.tokens.obtain() {
            Ok(token) => {
                self.last_id += 1;
                self.tokens.sent(self.last_id);
                self.request(auth_text(self.last_id, token.as_ref().map_or("", Secret::reveal)));
                None
            }
            Err(error) => Some(self.fail_token(error)),
        }
    }

    fn fail_token(&mut self, error: Error) -> ClientStep {
        ClientStep::TokenFailed(error, self.tokens.again(&mut self.random))
    }

    /// The server did not accept the next token of the open connection.
    fn on_refused_token(&mut self, error: Error) -> Result<ClientStep, Error> {
        let is_invalid = matches!(&error, Error::Rejected { code, .. } if code == "unauthorized");
        if is_invalid && !self.tokens.may_follow(&error) {
            return Err(error);
        }
        Ok(self.fail_token(error))
    }

    /// Subscribes again to what the client did not get, or has lost, wholly or in part. What the server holds goes on
    /// without a snapshot, and what the new rights allow begins with one.
    fn request_by_other_rights(&mut self, dropped: &[String]) {
        // What is not sent meanwhile is not missing.
        self.decoder.forget(dropped);
        let concerned = self.subscriptions.iter().filter(|active| active.depends_on_rights(dropped));
        let requests: Vec<String> = concerned.map(|active| active.subscription.request(active.id)).collect();
        requests.into_iter().for_each(|request| self.request(request));
    }

    fn on_loss(&mut self, error: Error) -> Result<ClientStep, Error> {
        if let Link::Up { since, .. } = &self.link
            && since.elapsed() >= STABLE_AFTER
        {
            self.attempt = 0;
        }
        self.tokens.disconnected();
        let is_final = error.is_final() && !self.tokens.may_follow(&error);
        let Some(backoff) = self.options.reconnect.filter(|_| !is_final) else { return Err(error) };
        for active in &mut self.subscriptions {
            active.disconnected(self.token);
        }
        self.waiting_requests.clear();
        if let Error::Refused(refusal) = &error {
            self.requested_wait = Duration::from_secs(refusal.retry_after_s.unwrap_or(0));
        }
        let wait = backoff.wait(self.attempt, std::mem::take(&mut self.requested_wait), &mut self.random);
        self.attempt += 1;
        self.link = Link::Down { retry_at: Instant::now() + wait };
        Ok(ClientStep::Disconnected(error, wait))
    }

    fn reconnect(&mut self) -> Result<ClientStep, Error> {
        let mut connection = match open(&self.target, &self.options, &self.tokens) {
            Ok(connection) => connection,
            Err(error) => return self.on_loss(error),
        };
        let mut at_once = requests(&self.subscriptions);
        let later = at_once.split_off(at_once.len().min(REQUESTS_AT_ONCE));
        for request in at_once {
            if let Err(error) = connection.send_text(&request) {
                return self.on_loss(error);
            }
        }
        let now = Instant::now();
        self.waiting_requests = later.into_iter().rev().collect();
        self.next_request_at = now + self.request_interval;
        self.link = Link::Up { connection: Box::new(connection), since: now, last_message: now };
        self.decoder.set_resuming(true);
        self.reconnects += 1;
        Ok(ClientStep::Reconnected)
    }
}

/// Connects with a token, if the client has one.
fn open(target: &Target, options: &Options, tokens: &Tokens) -> Result<Connection, Error> {
    let bearer = tokens.obtain()?.map(|token| format!("Bearer {}", token.reveal()));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    Connection::open(target, &headers, options.compression, options.ca.as_deref())
}
