//! A simulated client: libraries read its stream, the oracle checks it, and the seed decides what it requests.

use std::rc::Rc;

use tickcast::io::SlotId;
use tickcast::shard::{Encoding, Format};
use tickcast_protocol::control::{self, ChannelSet, Pattern, Request, RequestLimits};
use tickcast_protocol::ws::{Opcode, push_masked_frame};
use tickcast_protocol::{Channel, ConflationInterval, Token, sse};

use crate::Dice;
use crate::feed::name_of;
use crate::io::Conn;
use crate::network::ByteRate;
use crate::node::{SLOW_CLOSE_MS, settings};
use crate::oracle::{Ask, Oracle, Resume, Truth};
use crate::plan::Plan;
use crate::rights::Entitled;
use crate::secured::Peer;
use crate::slow_clients::Pending;
use crate::stream::{Stream, StreamItem};
use crate::text::TextReader;
use crate::world::MS;
use tickcast_test_support::deflate::deflate;

/// When a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Always,
    Not { until_ns: u64 },
}

/// A subscription that several clients may have.
#[derive(Clone, Debug)]
pub struct Wish {
    pub channels: ChannelSet,
    pub symbols: Vec<String>,
    pub interval: ConflationInterval,
}

impl Wish {
    pub fn any(symbols: &[String], dice: &mut Dice) -> Self {
        let mut channels: ChannelSet = Channel::ALL.into_iter().filter(|_| dice.chance(512)).collect();
        if channels.is_empty() {
            channels.insert(Channel::ALL[dice.below(5) as usize]);
        }
        let symbols = (0..1 + dice.below(4)).map(|_| any_symbol(symbols, dice)).collect();
        let interval = ConflationInterval::from_index(if dice.chance(400) { 0 } else { dice.below(7) as usize });
        Self { channels, symbols, interval }
    }

    fn patterns(&self) -> Vec<Pattern> {
        self.symbols.iter().map(|name| Pattern::parse(name).expect("a pattern")).collect()
    }
}

pub struct Client {
    pub node: usize,
    pub conn: usize,
    pub slot_id: SlotId,
    /// Its format, and the window of the compression that it negotiated.
    pub encoding: Encoding,
    /// Whose connection it is.
    pub user: u32,
    pub oracle: Oracle,
    opened_ns: u64,
    pub reading: Reading,
    /// Of a client that reads slowly as long as it is there.
    pub rate: Option<ByteRate>,
    pub pending: Pending,
    /// Did not read for a time.
    pub paused: bool,
    /// Took a close frame, or its connection ended.
    pub over: bool,
    /// Its end needs no close frame: it was reset, or has ended its side.
    pub may_break: bool,
    /// Close codes that its behaviour may be answered with.
    pub deserves: Vec<u16>,
    /// It has done something that ends the connection.
    pub leaving: bool,
    /// Bytes that are not a frame have been sent: what follows them is lost.
    pub speechless: bool,
    pub closed_with: Option<u16>,
    /// Another client has taken its place.
    pub replaced: bool,
    /// The request of an SSE client.
    wish: Option<Wish>,
    stream: Stream,
    text: TextReader,
    next_id: u64,
    /// Its end of a secured connection.
    pub peer: Option<Peer>,
}

impl Client {
    pub fn new(
        node: usize,
        (conn, slot_id): (usize, SlotId),
        encoding: Encoding,
        opened_ns: u64,
        (user, entitled): (u32, Rc<Entitled>),
    ) -> Self {
        let mut oracle = Oracle::new(entitled);
        oracle.sides_apart = encoding.format != Format::Binary;
        Self {
            node,
            conn,
            slot_id,
            encoding,
            user,
            oracle,
            opened_ns,
            reading: Reading::Always,
            rate: None,
            pending: Pending::default(),
            paused: false,
            over: false,
            may_break: false,
            deserves: Vec::new(),
            leaving: false,
            speechless: false,
            closed_with: None,
            replaced: false,
            wish: None,
            stream: Stream::new(encoding.format),
            text: TextReader::default(),
            next_id: 1,
            peer: None,
        }
    }

    /// True if it reads, and nothing has ended it.
    pub fn is_there(&self) -> bool {
        !self.over && self.reading == Reading::Always
    }

    /// True if its connection is open and it reads at this time: one that has stopped goes on when its time has come.
    pub fn is_reading(&self, now_ns: u64) -> bool {
        let stopped = matches!(self.reading, Reading::Not { until_ns } if now_ns < until_ns);
        !self.over && !stopped
    }

    /// Bytes that it reads now at the most.
    pub fn allowed(&mut self, now_ns: u64) -> usize {
        self.rate.as_mut().map_or(usize::MAX, |rate| rate.allowed(now_ns))
    }

    /// Notes how many it has read.
    pub fn spend(&mut self, bytes: usize) {
        if let Some(rate) = &mut self.rate {
            rate.spend(bytes);
        }
    }

    /// True for a WebSocket client, false for an SSE client.
    pub fn is_websocket(&self) -> bool {
        self.encoding.format != Format::Events
    }

    /// Notes the timeouts for which it may be closed.
    pub fn note_timeouts(&mut self, conn: &Conn, plan: &Plan, now_ns: u64) {
        let settings = settings(plan);
        let passed = |ns: u64, ms: u32| ns >= u64::from(ms) * MS;
        let stalled = passed(conn.stalled_ns, settings.slow_timeout_ms) && (self.paused || plan.stalls());
        // What is sent before it is behind for the shard may come in an earlier step.
        let behind = passed(conn.behind_ns + 1000 * MS, settings.backlog_ms_max);
        // One that is being closed for another reason has no more time than others to take it.
        let is_revoked = self.deserves.iter().any(|code| [4001, 4003].contains(code));
        self.may_break |= stalled && is_revoked;
        if stalled || behind {
            self.deserves.push(4002);
        }
        // One that goes on reading in time takes the reason.
        let broken = passed(conn.stalled_ns, settings.slow_timeout_ms + SLOW_CLOSE_MS);
        self.may_break |= broken || ((stalled || behind) && plan.stalls());
        let idle = passed(conn.silent_ns, settings.idle_timeout_ms - 100);
        let unsubscribed =
            !self.oracle.has_subscribed && passed(now_ns - self.opened_ns, settings.subscribe_timeout_ms);
        if self.is_websocket() && (idle || unsubscribed) {
            self.deserves.push(1008);
        }
    }

    /// What goes to its socket for these bytes.
    pub fn sealed(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.peer.as_mut().map_or(bytes.clone(), |peer| peer.seal(&bytes))
    }

    /// What the bytes of its socket are.
    pub fn opened(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.peer.as_mut().map_or_else(|| bytes.clone(), |peer| peer.open(&bytes))
    }

    /// Reads what the socket delivered.
    pub fn take(&mut self, bytes: &[u8], ended: bool, now_ns: u64, truth: &Truth) {
        self.stream.feed(bytes, ended);
        while !self.over
            && let Some(came) = self.stream.next()
        {
            match came {
                StreamItem::Answer(text) => self.oracle.text(&text, truth),
                StreamItem::Packet(bytes) => self.oracle.packet(&bytes, now_ns, truth),
                StreamItem::Message(message) => {
                    let bytes = self.text.packet(&message, &truth.history.instruments);
                    self.oracle.packet(&bytes, now_ns, truth);
                    self.oracle.seen.messages += 1;
                    self.oracle.seen.events += u64::from(!self.is_websocket());
                }
                StreamItem::Ping => self.oracle.seen.pings += 1,
                StreamItem::Close(code, reason) => {
                    assert!(self.deserves.contains(&code), "{code} {reason}, deserved {:?}", self.deserves);
                    assert!(code != 4003 || self.oracle.items() == 0, "closed although it has rights: {reason}");
                    self.oracle.seen.slow_told += u64::from(code == 4002);
                    self.closed_with = Some(code);
                }
                StreamItem::End(None) => self.over = true,
                StreamItem::End(Some(fault)) => {
                    let excused = self.may_break || self.closed_with.is_some();
                    assert!(excused && ended, "a stream that ends without a reason, or is torn: {fault}");
                    self.over = true;
                }
            }
        }
    }

    /// What its library wants to send.
    pub fn output(&mut self) -> Vec<u8> {
        self.stream.output()
    }

    /// How many frames were compressed.
    pub fn compressed(&self) -> u64 {
        self.stream.compressed()
    }

    /// A request as a frame; every other one compressed, if that was negotiated.
    pub fn framed(&self, text: &str, dice: &mut Dice) -> Vec<u8> {
        if self.encoding.deflate.is_none() || dice.chance(512) {
            return frame(Opcode::Text, text.as_bytes(), dice);
        }
        let mut bytes = frame(Opcode::Text, &deflate(text.as_bytes()), dice);
        // RSV1.
        bytes[0] |= 0x40;
        bytes
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A random request: its text, to be sent as a masked frame.
    pub fn request(&mut self, wish: &Wish, dice: &mut Dice) -> String {
        let op = dice.below(16);
        let Wish { channels, symbols, interval } = wish;
        let names: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let (channels, interval, symbols) = (*channels, *interval, wish.patterns());
        let ms = interval.interval_ms();
        let snapshot = dice.chance(800);
        if op < 9 {
            return self.subscribe(wish, snapshot);
        }
        let id = self.id();
        let (text, ask) = match op {
            ..12 => (control::unsubscribe_text(id, channels, &names), Ask::Unsubscribe { channels, symbols }),
            12 => {
                let resume = self.oracle.any_token(dice);
                (
                    control::resume_text(
                        id,
                        Token { epoch: resume.epoch, position: resume.position.into() },
                        channels,
                        &names,
                        ms,
                    ),
                    Ask::Subscribe { channels, symbols, interval, snapshot: true, resume: Some(resume) },
                )
            }
            13 => (format!("{{\"op\":\"subscribe\",\"id\":{id},\"channels\":[\"quotes\"]}}"), Ask::Bad),
            _ => (control::ping_text(id), Ask::Ping),
        };
        self.oracle.asked.insert(id, ask);
        text
    }

    /// An auth for other rights, or the same; or one with a token that is refused.
    pub fn authenticate(&mut self, rights: usize, entitled: Option<Rc<Entitled>>) -> String {
        let id = self.id();
        let token =
            entitled.as_ref().map_or_else(|| "wrong".to_owned(), |_| format!("{} {rights} {}", self.user, self.conn));
        self.oracle.asked.insert(id, entitled.map_or(Ask::Bad, Ask::Auth));
        // Nothing may be left of what it has.
        self.deserves.push(4003);
        control::auth_text(id, &token)
    }

    /// The request for a wish.
    pub fn subscribe(&mut self, wish: &Wish, snapshot: bool) -> String {
        let id = self.id();
        let names: Vec<&str> = wish.symbols.iter().map(String::as_str).collect();
        let &Wish { channels, interval, .. } = wish;
        let ask = Ask::Subscribe { channels, symbols: wish.patterns(), interval, snapshot, resume: None };
        self.oracle.asked.insert(id, ask);
        control::subscribe_text(id, channels, &names, interval.interval_ms(), snapshot)
    }

    /// Resumes what another client had, with its token, one interval and channel at a time.
    pub fn resume(&mut self, old: &Oracle) -> Vec<String> {
        let mut texts = Vec::new();
        for (wish, resume) in old.to_resume() {
            let id = self.id();
            let names: Vec<&str> = wish.symbols.iter().map(String::as_str).collect();
            let (channels, interval) = (wish.channels, wish.interval);
            texts.push(control::resume_text(
                id,
                Token { epoch: resume.epoch, position: resume.position.into() },
                channels,
                &names,
                interval.interval_ms(),
            ));
            let symbols = wish.patterns();
            let ask = Ask::Subscribe { channels, symbols, interval, snapshot: true, resume: Some(resume) };
            self.oracle.asked.insert(id, ask);
        }
        texts
    }

    /// The request of an SSE client as it connects: a wish, or that of another client, with the id of its last event.
    /// Returns the query of its URL and the request that the server parses from it.
    pub fn ask_for_events(&mut self, wish: &Wish, old: Option<&Self>, dice: &mut Dice) -> (String, Request) {
        let id = self.id();
        let wish = old.and_then(|old| old.wish.clone()).unwrap_or_else(|| wish.clone());
        let (symbols, interval) = (wish.patterns(), wish.interval);
        let names: Vec<&str> = wish.channels.iter().map(Channel::name).collect();
        let snapshot = dice.chance(800);
        let query = format!(
            "symbols={}&channels={}&conflate_ms={}&snapshot={snapshot}",
            wish.symbols.join(","),
            names.join("%2C"),
            interval.interval_ms()
        );
        let resume = match old {
            Some(old) => old.stream.last_event_id().map(|id| {
                let token: Token = id.parse().expect("an id of ours");
                Resume { epoch: token.epoch, position: token.position.get(), had: old.oracle.had() }
            }),
            None => dice.chance(100).then(|| self.oracle.any_token(dice)),
        };
        let token =
            resume.as_ref().map(|Resume { epoch, position, .. }| Token { epoch: *epoch, position: (*position).into() });
        let limits = RequestLimits { symbols_max: 10_000, symbol_bytes_max: 64 };
        let request = sse::parse_query(&query, token, &limits).unwrap_or_else(|error| panic!("{query}: {error}"));
        self.oracle.seen.returned_by_id += u64::from(old.is_some() && resume.is_some());
        let ask = Ask::Subscribe { channels: wish.channels, symbols, interval, snapshot, resume };
        self.oracle.asked.insert(id, ask);
        self.wish = Some(wish);
        (query, request)
    }

    /// Bytes that are not a request, or not even a frame, and what the server does about them.
    pub fn garbage(&mut self, dice: &mut Dice) -> (&'static str, Vec<u8>) {
        if !self.is_websocket() {
            // Its input is ignored.
            return ("more of a request", b"GET / HTTP/1.1\r\n".to_vec());
        }
        let (what, bytes, code) = match dice.below(8) {
            0 => ("unmasked", vec![0x81, 0x01, b'x'], 1002),
            1 => ("reserved bits", vec![0xf1, 0x80, 0, 0, 0, 0], 1002),
            2 => ("not UTF-8", frame(Opcode::Text, &[0xc3, 0x28], dice), 1007),
            3 => ("too long", vec![0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
            4 => {
                let noise = (0..2 + dice.below(60)).map(|at| if at == 0 { 0x83 } else { dice.below(256) as u8 });
                ("noise", noise.collect(), 1002)
            }
            5 => ("a fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0], 1002),
            6 => ("not JSON", frame(Opcode::Text, b"{\"op\":", dice), 0),
            _ => ("binary", frame(Opcode::Binary, &[1; 30], dice), 0),
        };
        if code == 0 {
            self.oracle.nonsense += 1;
        } else {
            self.speechless = true;
            self.leaving = true;
            self.deserves.push(code);
        }
        (what, bytes)
    }
}

/// One masked frame.
pub fn frame(opcode: Opcode, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    push_masked_frame(opcode, payload, dice.below(u32::MAX).to_le_bytes(), &mut out);
    out
}

fn any_symbol(symbols: &[String], dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "*".to_owned(),
        1 => ["A*", "A-*", "AB*", "B-*", "C*"][dice.below(5) as usize].to_owned(),
        2 => "NONE".to_owned(),
        3 if dice.chance(512) => name_of(symbols.len() + 1 + dice.below(3) as usize, dice),
        _ if symbols.is_empty() => "*".to_owned(),
        _ => symbols[dice.below(symbols.len() as u32) as usize].clone(),
    }
}

/// A wrong token: of another run, or from the future.
pub fn false_token(dice: &mut Dice, position: u64) -> Resume {
    let future = position + 1 + u64::from(dice.below(1 << 30));
    match dice.below(3) {
        0 => Resume { epoch: 2, position, had: None },
        1 => Resume { epoch: 1, position: future, had: None },
        _ => Resume { epoch: 1, position: u64::MAX, had: None },
    }
}
