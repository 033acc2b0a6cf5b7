//! One connection, blocking: messages one after another, read by [`Session`], compressed ones among them.
//!
//! What always holds: a read waits no longer than it is told to; pings are answered on the way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::error::{Error, read_failure};
use super::handshake::{Upgrade, Upgraded, is_later};
use super::target::{CONNECT_TIMEOUT, Target};
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{
    CloseCode, Opcode, Role, Session, SessionEvent, SessionLimits, Violation, push_close, push_masked_frame,
};

/// Far above every packet, and the most that a server can make a client hold.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 << 20 };
const BUFFER_BYTES: usize = 64 * 1024;
/// Neither side keeps a window, so that a message can be inflated by itself.
const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What a read has brought.
#[derive(Debug)]
pub(super) enum Received {
    /// A binary message, in the buffer that was given.
    Packet,
    Text(String),
    /// Nothing within the time, or what concerns nobody.
    Quiet,
}

/// A connection after its upgrade.
pub(super) struct Connection {
    stream: TcpStream,
    session: Session,
    inflater: Option<Inflater>,
    buffer: Vec<u8>,
    /// What of the buffer has come, and how much of that is consumed.
    filled: usize,
    at: usize,
    /// Masking keys.
    keys: Pcg64Mcg,
}

impl Connection {
    /// Connects and upgrades.
    pub(super) fn open(target: &Target, compression: bool) -> Result<Self, Error> {
        let system = |what| move |error| Error::System { what, error };
        let stream = target.connect()?;
        stream.set_nodelay(true).map_err(system("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(system("read timeout"))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT)).map_err(system("write timeout"))?;
        let mut upgrade = Box::new(Upgrade::ask(stream, &target.uri, compression.then_some(OFFER))?);
        let (mut buffer, begun) = (vec![0; BUFFER_BYTES], Instant::now());
        let opened = loop {
            match upgrade.advance(&mut buffer, &mut 0) {
                Upgraded::Open(opened) => break opened,
                Upgraded::Refused(error) => return Err(error),
                Upgraded::NotYet(again) if begun.elapsed() < CONNECT_TIMEOUT => upgrade = again,
                Upgraded::NotYet(_) => return Err(Error::Silent("upgrade request")),
            }
        };
        let inflater = opened.is_compressed()?.then(|| Inflater::new(u32::MAX));
        let session = if inflater.is_some() { Session::with_deflate(Role::Client) } else { Session::new(Role::Client) };
        let filled = opened.rest.len();
        buffer.resize(filled.max(BUFFER_BYTES), 0);
        buffer[..filled].copy_from_slice(&opened.rest);
        let stream = opened.socket.into_inner().into_stream();
        let keys =
            Pcg64Mcg::seed_from_u64(std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), 0));
        Ok(Self { stream, session, inflater, buffer, filled, at: 0, keys })
    }

    /// Whether packets may come compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.inflater.is_some()
    }

    /// The next message, waited for as long as this; a packet is put into `packet`.
    pub(super) fn receive(&mut self, wait: Duration, packet: &mut Vec<u8>) -> Result<Received, Error> {
        loop {
            let input = &mut self.buffer[..self.filled];
            let event = match &mut self.inflater {
                Some(inflater) => self.session.next_inflating(&LIMITS, inflater, input, &mut self.at),
                None => self.session.next(&LIMITS, input, &mut self.at),
            };
            match event.map_err(|violation: Violation| Error::Protocol(violation.to_string()))? {
                Some(SessionEvent::Binary(bytes)) => {
                    packet.clear();
                    packet.extend_from_slice(bytes);
                    return Ok(Received::Packet);
                }
                // The session has proven that it is UTF-8.
                Some(SessionEvent::Text(text)) => {
                    return Ok(Received::Text(String::from_utf8_lossy(text).into_owned()));
                }
                Some(SessionEvent::Ping(payload)) => {
                    let payload = payload.to_vec();
                    self.send(Opcode::Pong, &payload)?;
                }
                Some(SessionEvent::Pong(_)) => {}
                Some(SessionEvent::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, ""), |frame| (frame.code.0, frame.reason));
                    let closed = Error::Closed { code, reason: reason.to_owned() };
                    self.say_goodbye();
                    return Err(closed);
                }
                None => {
                    if !self.fill(wait)? {
                        return Ok(Received::Quiet);
                    }
                }
            }
        }
    }

    /// Sends a text message.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Error> {
        self.send(Opcode::Text, text.as_bytes())
    }

    /// Says goodbye with 1000, and waits a moment for the server's answer.
    pub(super) fn close(mut self) {
        /// The stream goes on until the server has read the close: a busy one cannot hold us here.
        const PATIENCE: Duration = Duration::from_secs(1);
        self.say_goodbye();
        let (begun, mut packet) = (Instant::now(), Vec::new());
        while begun.elapsed() < PATIENCE && self.receive(PATIENCE, &mut packet).is_ok() {}
    }

    /// True if bytes have come.
    fn fill(&mut self, wait: Duration) -> Result<bool, Error> {
        // A timeout of zero would be none at all.
        let timeout = Some(wait.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(timeout).map_err(|error| Error::System { what: "read timeout", error })?;
        self.buffer.resize(BUFFER_BYTES, 0);
        (self.filled, self.at) = (0, 0);
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err(Error::Dropped),
            Ok(read) => {
                self.filled = read;
                Ok(true)
            }
            Err(error) if is_later(&error) => Ok(false),
            Err(error) => Err(read_failure(error)),
        }
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        push_masked_frame(opcode, payload, self.keys.next_u32().to_le_bytes(), &mut bytes);
        self.stream.write_all(&bytes).map_err(read_failure)
    }

    fn say_goodbye(&mut self) {
        let mut close = Vec::new();
        push_close(CloseCode::NORMAL, "", &mut close);
        // The payload of the server's form of the frame, behind its header of two bytes. A server that is gone hears
        // nothing, and needs not.
        let _ = self.send(Opcode::Close, &close[2..]);
    }
}
