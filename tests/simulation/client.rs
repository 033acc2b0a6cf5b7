//! A simulated client: tungstenite reads what its socket delivers, chance decides what it asks.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use tickcast::market::Channel;
use tickcast::wire::control::{self, ChannelSet, Pattern};
use tickcast::wire::profile::Profile;
use tickcast::ws::deflate::WindowBits;
use tickcast::ws::frame::{Opcode, push_masked_frame};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::Dice;
use crate::common::unpack::{Unpack, deflated};
use crate::oracle::{Ask, Oracle, Resume, Truth};

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

/// When a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Always,
    Not { until_ns: u64 },
}

/// What several clients may want alike.
#[derive(Clone, Debug)]
pub struct Wish {
    pub channels: ChannelSet,
    pub symbols: Vec<String>,
    pub profile: Profile,
}

impl Wish {
    pub fn any(symbols: &[String], dice: &mut Dice) -> Self {
        let mut channels: ChannelSet = Channel::ALL.into_iter().filter(|_| dice.chance(512)).collect();
        if channels.is_empty() {
            channels.insert(Channel::ALL[dice.below(5) as usize]);
        }
        let symbols = (0..1 + dice.below(4)).map(|_| any_symbol(symbols, dice)).collect();
        let profile = Profile::from_index(if dice.chance(400) { 0 } else { dice.below(7) as usize });
        Self { channels, symbols, profile }
    }

    fn patterns(&self) -> Vec<Pattern> {
        self.symbols.iter().map(|name| Pattern::parse(name).expect("a pattern")).collect()
    }
}

pub struct Client {
    pub node: usize,
    pub conn: usize,
    /// The window of the compression that it has agreed on.
    pub window: Option<WindowBits>,
    pub oracle: Oracle,
    pub reading: Reading,
    /// Did not read for a time.
    pub paused: bool,
    /// Took a close frame, or its connection ended.
    pub over: bool,
    /// Its end needs no close frame: it was reset, or has ended its side.
    pub may_break: bool,
    /// Close codes that what it did may be answered with.
    pub deserves: Vec<u16>,
    /// It has done something that ends the connection.
    pub leaving: bool,
    /// Bytes that are no frame have been sent: what comes after them is lost.
    pub speechless: bool,
    pub closed_with: Option<u16>,
    /// Somebody has come in its place.
    pub replaced: bool,
    /// Makes what comes compressed readable for tungstenite.
    unpack: Unpack,
    websocket: WebSocket<Pipe>,
    next_id: u64,
}

impl Client {
    pub fn new(node: usize, conn: usize, window: Option<WindowBits>) -> Self {
        Self {
            node,
            conn,
            window,
            oracle: Oracle::default(),
            reading: Reading::Always,
            paused: false,
            over: false,
            may_break: false,
            deserves: Vec::new(),
            leaving: false,
            speechless: false,
            closed_with: None,
            replaced: false,
            unpack: Unpack::default(),
            websocket: WebSocket::from_raw_socket(Pipe::default(), Role::Client, None),
            next_id: 1,
        }
    }

    /// True if it takes what comes, and nothing has ended it.
    pub fn is_there(&self) -> bool {
        !self.over && self.reading == Reading::Always
    }

    /// Takes what the socket delivered.
    pub fn take(&mut self, bytes: &[u8], ended: bool, now_ns: u64, truth: &Truth) {
        let pipe = self.websocket.get_mut();
        pipe.input.extend(self.unpack.feed(bytes));
        pipe.ended |= ended;
        while !self.over {
            match self.websocket.read() {
                Ok(Message::Text(text)) => self.oracle.text(&text, truth),
                Ok(Message::Binary(bytes)) => self.oracle.packet(&bytes, now_ns, truth),
                Ok(Message::Ping(_)) => self.oracle.seen.pings += 1,
                Ok(Message::Close(frame)) => {
                    let frame = frame.expect("the server says why");
                    let code = u16::from(frame.code);
                    assert!(self.deserves.contains(&code), "{code} {}, deserved {:?}", frame.reason, self.deserves);
                    self.closed_with = Some(code);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed) => self.over = true,
                Err(error) => {
                    let excused = self.may_break || self.closed_with.is_some();
                    assert!(excused && ended, "a stream that ends without a reason, or is torn: {error}");
                    self.over = true;
                }
            }
        }
        // Pongs and the answer to a close frame.
        let _ = self.websocket.flush();
    }

    /// What tungstenite wants to be sent.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.websocket.get_mut().output)
    }

    /// How many frames came compressed.
    pub fn compressed(&self) -> u64 {
        self.unpack.frames as u64
    }

    /// A request as a frame; every other one compressed, where that was agreed on.
    pub fn framed(&self, text: &str, dice: &mut Dice) -> Vec<u8> {
        if self.window.is_none() || dice.chance(512) {
            return frame(Opcode::Text, text.as_bytes(), dice);
        }
        let mut bytes = frame(Opcode::Text, &deflated(text.as_bytes()), dice);
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
        let Wish { channels, symbols, profile } = wish;
        let names: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let (channels, profile, symbols) = (*channels, *profile, wish.patterns());
        let ms = profile.interval_ms();
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
                    control::resume_text(id, resume.epoch, resume.position, channels, &names, ms),
                    Ask::Subscribe { channels, symbols, profile, snapshot: true, resume: Some(resume) },
                )
            }
            13 => (format!("{{\"op\":\"subscribe\",\"id\":{id},\"channels\":[\"quotes\"]}}"), Ask::Bad),
            _ => (control::ping_text(id), Ask::Ping),
        };
        self.oracle.asked.insert(id, ask);
        text
    }

    /// The request for a wish.
    pub fn subscribe(&mut self, wish: &Wish, snapshot: bool) -> String {
        let id = self.id();
        let names: Vec<&str> = wish.symbols.iter().map(String::as_str).collect();
        let &Wish { channels, profile, .. } = wish;
        let ask = Ask::Subscribe { channels, symbols: wish.patterns(), profile, snapshot, resume: None };
        self.oracle.asked.insert(id, ask);
        control::subscribe_text(id, channels, &names, profile.interval_ms(), snapshot)
    }

    /// Goes on where another client ended, with its token and all that it wanted, one interval and channel at a time.
    pub fn resume(&mut self, old: &Oracle) -> Vec<String> {
        let mut texts = Vec::new();
        for (wish, resume) in old.to_resume() {
            let id = self.id();
            let names: Vec<&str> = wish.symbols.iter().map(String::as_str).collect();
            let (channels, profile) = (wish.channels, wish.profile);
            texts.push(control::resume_text(
                id,
                resume.epoch,
                resume.position,
                channels,
                &names,
                profile.interval_ms(),
            ));
            let symbols = wish.patterns();
            let ask = Ask::Subscribe { channels, symbols, profile, snapshot: true, resume: Some(resume) };
            self.oracle.asked.insert(id, ask);
        }
        texts
    }

    /// Something that is no request, or no frame at all, and what the server makes of it.
    pub fn garbage(&mut self, dice: &mut Dice) -> (&'static str, Vec<u8>) {
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
        _ if symbols.is_empty() => "*".to_owned(),
        _ => symbols[dice.below(symbols.len() as u32) as usize].clone(),
    }
}

/// A false token: of another run, or from the future.
pub fn false_token(dice: &mut Dice, position: u64) -> Resume {
    let future = position + 1 + u64::from(dice.below(1 << 30));
    match dice.below(3) {
        0 => Resume { epoch: 2, position, had: None },
        1 => Resume { epoch: 1, position: future, had: None },
        _ => Resume { epoch: 1, position: u64::MAX, had: None },
    }
}
