//! The client: subscriptions on a stream that goes on over as many connections as it takes.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::backoff::Backoff;
use super::connection::{Connection, Received};
use super::decode::Decoder;
use super::error::Error;
use super::packet::Packet;
use super::subscription::{Subscription, Wanted, requests};
use super::target::Target;
use tickcast_protocol::Token;
use tickcast_protocol::control::{Reply, ping_text, unsubscribe_text};
use tickcast_protocol::packet::{PacketHeader, flags};

/// A connection that has held for so long has ended a series of failures.
const HELD: Duration = Duration::from_secs(5);
/// Beside two heartbeats that did not come.
const SILENCE: Duration = Duration::from_secs(5);
/// What the server says where it says nothing yet.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A request that is asked for anew goes out at once with so many others; the rest keeps to the server's limit.
const REQUESTS_AT_ONCE: usize = 10;

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Offers permessage-deflate, for networks where bytes cost more than time.
    pub compression: bool,
    /// Waits between tries to come back after a loss; `None` makes every loss an error.
    pub reconnect: Option<Backoff>,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: false, reconnect: Some(Backoff::default()) }
    }
}

/// What comes out of a client.
#[derive(Debug)]
pub enum Event<'a> {
    /// What is new in a packet.
    Packet(Packet<'a>),
    /// An answer, or news of the connection. An error that answers no subscription is among them.
    Reply(Reply),
    /// The connection is lost, for this reason; the next try is made after this time.
    Lost { why: Error, retry_in: Duration },
    /// The connection is back, and all subscriptions have been asked for again.
    Back,
}

/// What has happened; the packet itself stays in the client.
enum Happened {
    Packet(PacketHeader),
    Reply(Reply),
    Lost(Error, Duration),
    Back,
}

enum Link {
    Up { connection: Box<Connection>, since: Instant, heard: Instant },
    Down { due: Instant },
}

/// A subscriber. See [`crate`] for how it is used.
pub struct Client {
    target: Target,
    options: Options,
    link: Link,
    wanted: Vec<Wanted>,
    /// Requests that are still to be made on this connection, the next one last, and when.
    to_ask: Vec<String>,
    ask_at: Instant,
    ask_every: Duration,
    last_id: u64,
    decoder: Decoder,
    token: Option<Token>,
    /// The last packet as it came, and the records of it that are new.
    packet: Vec<u8>,
    news: Vec<u8>,
    heartbeat: Duration,
    /// What the server asks for before the next try.
    asked: Duration,
    attempt: u32,
    reconnects: u64,
    chance: Pcg64Mcg,
}

impl Client {
    /// Connects to `ws://HOST[:PORT][/PATH]` or `HOST[:PORT]`; the path is `/v1/stream` where none is given. The first
    /// connection is tried once; later ones come back by themselves, as [`Options::reconnect`] says.
    ///
    /// # Errors
    /// When the URL is wrong, nobody listens there, or the upgrade is refused.
    pub fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let target = Target::parse(url)?;
        let connection = Connection::open(&target, options.compression)?;
        let seed = std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), 0);
        let now = Instant::now();
        Ok(Self {
            target,
            options,
            link: Link::Up { connection: Box::new(connection), since: now, heard: now },
            wanted: Vec::new(),
            to_ask: Vec::new(),
            ask_at: now,
            ask_every: Duration::from_millis(50),
            last_id: 0,
            decoder: Decoder::new(),
            token: None,
            packet: Vec::new(),
            news: Vec::new(),
            heartbeat: HEARTBEAT,
            asked: Duration::ZERO,
            attempt: 0,
            reconnects: 0,
            chance: Pcg64Mcg::seed_from_u64(seed),
        })
    }

    /// Asks for a subscription, which lasts over reconnects. The answer comes as [`Reply::Subscribed`] with the id that
    /// this returns; a refusal is [`Error::Rejected`] of [`Self::next`], after which the client goes on without it.
    pub fn subscribe(&mut self, subscription: Subscription) -> u64 {
        self.want(subscription, None)
    }

    /// The same from where another stream has stopped, such as that of this program's last run: the answer is
    /// [`Reply::Resumed`], and says whether what came since is replayed or a snapshot is sent in its place.
    pub fn resume(&mut self, token: Token, subscription: Subscription) -> u64 {
        self.want(subscription, Some(token))
    }

    /// Ends a subscription. A pattern takes all that it covers with it, other subscriptions' names included.
    pub fn unsubscribe(&mut self, id: u64) {
        if let Some(at) = self.wanted.iter().position(|wanted| wanted.id == id) {
            let of = self.wanted.remove(at).subscription;
            self.say(unsubscribe_text(id, of.channels(), &of.symbols()));
        }
    }

    /// Asks for the server's time: [`Reply::Pong`] with the id that this returns.
    pub fn ping(&mut self) -> u64 {
        self.last_id += 1;
        self.say(ping_text(self.last_id));
        self.last_id
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When a subscription is refused, after which the client goes on; and when the stream has ended: for what another
    /// try would not change ([`Error::is_final`]), and without [`Options::reconnect`] at the first loss.
    #[expect(clippy::should_implement_trait, reason = "what it lends cannot be an iterator's item")]
    pub fn next(&mut self) -> Result<Event<'_>, Error> {
        loop {
            if let Some(happened) = self.step(Duration::from_secs(1))? {
                return Ok(self.event(happened));
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
            if let Some(happened) = self.step(left)? {
                return Ok(Some(self.event(happened)));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// The token of the last packet: where [`Self::resume`] goes on from, once the first snapshot has come to its end.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// What is known of instruments, and what has been counted.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How often the connection came back.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Whether the server has agreed to compress packets on this connection.
    pub fn is_compressed(&self) -> bool {
        matches!(&self.link, Link::Up { connection, .. } if connection.is_compressed())
    }

    /// Says goodbye with 1000, and waits a moment for the server's answer. A client that is dropped says nothing.
    pub fn close(self) {
        if let Link::Up { connection, .. } = self.link {
            connection.close();
        }
    }

    fn want(&mut self, subscription: Subscription, token: Option<Token>) -> u64 {
        self.last_id += 1;
        let wanted = Wanted::new(self.last_id, subscription, token);
        let request = wanted.request();
        self.wanted.push(wanted);
        self.say(request);
        self.last_id
    }

    /// Sends a request behind those that wait. One that the connection does not take is not lost: what is wanted is
    /// asked for on the next, and that this one is gone the next read tells.
    fn say(&mut self, request: String) {
        if !self.to_ask.is_empty() {
            self.to_ask.insert(0, request);
        } else if let Link::Up { connection, .. } = &mut self.link {
            let _ = connection.say(&request);
        }
    }

    fn event(&mut self, happened: Happened) -> Event<'_> {
        match happened {
            Happened::Packet(header) => {
                let (bytes, records, decoder) = (self.packet.len(), self.news.as_slice(), &self.decoder);
                Event::Packet(Packet { header, bytes, records, decoder })
            }
            Happened::Reply(reply) => Event::Reply(reply),
            Happened::Lost(why, retry_in) => Event::Lost { why, retry_in },
            Happened::Back => Event::Back,
        }
    }

    /// Waits for something for at most this long.
    fn step(&mut self, limit: Duration) -> Result<Option<Happened>, Error> {
        self.ask_next();
        let wait = if self.to_ask.is_empty() { limit } else { limit.min(self.ask_every) };
        let quiet_max = 2 * self.heartbeat + SILENCE;
        let received = match &mut self.link {
            Link::Down { due } => {
                let left = due.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(limit));
                return if left <= limit { self.come_back().map(Some) } else { Ok(None) };
            }
            Link::Up { connection, heard, .. } => {
                let received = connection.receive(wait, &mut self.packet);
                if matches!(received, Ok(Received::Packet | Received::Text(_))) {
                    *heard = Instant::now();
                }
                match received {
                    Ok(Received::Quiet) if heard.elapsed() > quiet_max => {
                        Err(Error::Quiet(quiet_max.as_millis() as u64))
                    }
                    received => received,
                }
            }
        };
        match received {
            Ok(Received::Quiet) => Ok(None),
            Ok(Received::Packet) => self.take_packet().map(|header| Some(Happened::Packet(header))),
            Ok(Received::Text(text)) => self.take_reply(&text).map(|reply| Some(Happened::Reply(reply))),
            Err(why) => self.lose(why).map(Some),
        }
    }

    fn ask_next(&mut self) {
        let Link::Up { connection, .. } = &mut self.link else { return };
        if self.ask_at <= Instant::now()
            && let Some(request) = self.to_ask.pop()
        {
            // Where it fails, the next read tells.
            let _ = connection.say(&request);
            self.ask_at = Instant::now() + self.ask_every;
        }
    }

    fn take_packet(&mut self) -> Result<PacketHeader, Error> {
        self.news.clear();
        let news = &mut self.news;
        let header = self.decoder.packet(&self.packet, |_, _, record| news.extend_from_slice(record))?;
        self.token = Some(Token { epoch: header.epoch, position: header.position });
        if header.flags & flags::CAUGHT_UP != 0 {
            self.wanted.iter_mut().for_each(Wanted::caught_up);
            let rejoins = !self.wanted.iter().all(Wanted::is_caught_up);
            self.decoder.set_rejoining(rejoins && self.reconnects > 0);
        }
        Ok(header)
    }

    fn take_reply(&mut self, text: &str) -> Result<Reply, Error> {
        let reply = Reply::parse(text)
            .map_err(|error| Error::Protocol(format!("reply {text:?} is not understood: {error}")))?;
        match &reply {
            Reply::Welcome { heartbeat_ms, limits, .. } => {
                self.heartbeat = Duration::from_millis(*heartbeat_ms);
                // Half of what the server takes: pings count as well.
                self.ask_every =
                    Duration::from_secs(2) / u32::try_from(limits.requests_per_s.max(1)).unwrap_or(u32::MAX);
            }
            Reply::Subscribed { id, .. } | Reply::Resumed { id, .. } => {
                self.wanted.iter_mut().filter(|wanted| wanted.id == *id).for_each(Wanted::answered);
            }
            Reply::Closing { reconnect_ms, .. } => self.asked = Duration::from_millis(*reconnect_ms),
            Reply::Error { id: Some(id), code, message } => {
                if let Some(at) = self.wanted.iter().position(|wanted| wanted.id == *id) {
                    self.wanted.remove(at);
                    return Err(Error::Rejected { code: code.clone(), message: message.clone() });
                }
            }
            _ => {}
        }
        Ok(reply)
    }

    fn lose(&mut self, why: Error) -> Result<Happened, Error> {
        if let Link::Up { since, .. } = &self.link
            && since.elapsed() >= HELD
        {
            self.attempt = 0;
        }
        let Some(backoff) = self.options.reconnect.filter(|_| !why.is_final()) else { return Err(why) };
        for wanted in &mut self.wanted {
            wanted.lost(self.token);
        }
        self.to_ask.clear();
        if let Error::Refused(refusal) = &why {
            self.asked = Duration::from_secs(refusal.retry_after_s.unwrap_or(0));
        }
        let wait = backoff.wait(self.attempt, std::mem::take(&mut self.asked), &mut self.chance);
        self.attempt += 1;
        self.link = Link::Down { due: Instant::now() + wait };
        Ok(Happened::Lost(why, wait))
    }

    fn come_back(&mut self) -> Result<Happened, Error> {
        let mut connection = match Connection::open(&self.target, self.options.compression) {
            Ok(connection) => connection,
            Err(why) => return self.lose(why),
        };
        let mut to_ask = requests(&self.wanted);
        let later = to_ask.split_off(to_ask.len().min(REQUESTS_AT_ONCE));
        for request in to_ask {
            if let Err(why) = connection.say(&request) {
                return self.lose(why);
            }
        }
        let now = Instant::now();
        self.to_ask = later.into_iter().rev().collect();
        self.ask_at = now + self.ask_every;
        self.link = Link::Up { connection: Box::new(connection), since: now, heard: now };
        self.decoder.set_rejoining(true);
        self.reconnects += 1;
        Ok(Happened::Back)
    }
}
