//! A simulated client: tungstenite reads what its socket delivers, chance decides what it asks.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use tickcast::market::Channel;
use tickcast::wire::control::{self, ChannelSet, Pattern};
use tickcast::wire::profile::Profile;
use tickcast::ws::frame::{Opcode, push_masked_frame};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::Dice;
use crate::common::unpack::{Unpack, deflated};
use crate::oracle::{Ask, Oracle, Truth};

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

pub struct Client {
    pub conn: usize,
    /// Has agreed on permessage-deflate.
    deflate: bool,
    pub oracle: Oracle,
    pub reading: Reading,
    /// Took a close frame, or its connection ended.
    pub over: bool,
    /// Has sent a close frame or something illegal, or was reset: the end needs no reason.
    pub leaving: bool,
    pub closed_with: Option<u16>,
    /// Makes what comes compressed readable for tungstenite.
    unpack: Unpack,
    websocket: WebSocket<Pipe>,
    next_id: u64,
}

impl Client {
    pub fn new(conn: usize, deflate: bool) -> Self {
        Self {
            conn,
            deflate,
            oracle: Oracle::default(),
            reading: Reading::Always,
            over: false,
            leaving: false,
            closed_with: None,
            unpack: Unpack::default(),
            websocket: WebSocket::from_raw_socket(Pipe::default(), Role::Client, None),
            next_id: 1,
        }
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
                    let code = frame.map(|frame| u16::from(frame.code));
                    self.closed_with = code;
                    self.leaving = true;
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed) => self.over = true,
                Err(error) => {
                    assert!(self.leaving, "a stream that ends without a reason, or is torn: {error}");
                    self.over = true;
                }
            }
        }
        // Pongs and the answer to a close frame.
        let _ = self.websocket.flush();
    }

    /// How many frames came compressed.
    pub fn compressed(&self) -> u64 {
        self.unpack.frames as u64
    }

    /// What tungstenite wants to be sent.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.websocket.get_mut().output)
    }

    /// A random request as a masked frame.
    pub fn request(&mut self, symbols: &[String], dice: &mut Dice) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        let mut channels: ChannelSet = Channel::ALL.into_iter().filter(|_| dice.chance(512)).collect();
        if channels.is_empty() {
            channels.insert(Channel::ALL[dice.below(5) as usize]);
        }
        let asked: Vec<String> = (0..1 + dice.below(4)).map(|_| any_symbol(symbols, dice)).collect();
        let names: Vec<&str> = asked.iter().map(String::as_str).collect();
        let patterns = names.iter().map(|name| Pattern::parse(name).expect("a pattern")).collect();
        let profile = Profile::from_index(if dice.chance(400) { 0 } else { dice.below(7) as usize });
        let ms = profile.interval_ms();
        let snapshot = dice.chance(800);
        let (text, ask) = match dice.below(16) {
            0..9 => (
                control::subscribe_text(id, channels, &names, ms, snapshot),
                Ask::Subscribe { channels, symbols: patterns, profile, snapshot },
            ),
            9..12 => {
                (control::unsubscribe_text(id, channels, &names), Ask::Unsubscribe { channels, symbols: patterns })
            }
            12 => (
                control::resume_text(id, 2, 0, channels, &["*"], ms),
                Ask::Subscribe { channels, symbols: vec![Pattern::Prefix(String::new())], profile, snapshot: true },
            ),
            13 => (format!("{{\"op\":\"subscribe\",\"id\":{id},\"channels\":[\"quotes\"]}}"), Ask::Bad),
            _ => (control::ping_text(id), Ask::Ping),
        };
        self.oracle.asked.insert(id, ask);
        if self.deflate && id.is_multiple_of(2) {
            let mut bytes = frame(Opcode::Text, &deflated(text.as_bytes()), dice);
            // RSV1.
            bytes[0] |= 0x40;
            return bytes;
        }
        frame(Opcode::Text, text.as_bytes(), dice)
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
