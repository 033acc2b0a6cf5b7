//! One blocking connection: messages one after another, read by [`Session`], inflated where they are compressed.
//!
//! What always holds: a read waits no longer than asked; pings are answered before the next message is returned.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::error::{CloseReason, Error};
use crate::handshake::{COMPRESSION_OFFER, Handshake, Upgraded};
use crate::stream::Stream;
use crate::target::Target;
use crate::timeouts::CONNECT_TIMEOUT;
use crate::tls::TlsConfig;
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{
    CloseCode, Opcode, Role, Session, SessionEvent, SessionLimits, push_masked_close, push_masked_frame,
};

/// Far above every packet, and the most that a server can make a client hold.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 << 20 };
const BUFFER_BYTES: usize = 64 * 1024;
/// How long [`Connection::close`] waits for the server's close frame. A busy stream goes on until then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The outcome of a read.
#[derive(Debug)]
pub(crate) enum Received {
    /// A binary message, in the buffer that was given.
    Packet,
    Text(String),
    /// No message within the time.
    Nothing,
}

/// A connection after its upgrade.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    session: Session,
    inflater: Option<Inflater>,
    buffer: Vec<u8>,
    /// How much of the buffer is filled, and how much of that is consumed.
    filled: usize,
    consumed: usize,
    masking_keys: Pcg64Mcg,
}

impl Connection {
    /// Connects and upgrades, with these headers beside the usual ones.
    pub(crate) fn open(
        target: &Target,
        headers: &[(&'static str, &str)],
        compression: bool,
        ca: Option<&Path>,
    ) -> Result<Self, Error> {
        let system = |what| move |error| Error::System { what, error };
        let stream = target.connect()?;
        stream.set_nodelay(true).map_err(system("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(system("read timeout"))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT)).map_err(system("write timeout"))?;
        let tls = TlsConfig::new(target, ca)?;
        let mut stream = Stream::open(target, stream, &tls)?;
        stream.complete_handshake(target, &tls)?;
        let mut headers = headers.to_vec();
        headers.extend(compression.then_some(COMPRESSION_OFFER));
        let handshake = Handshake::new(target, &headers)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let upgraded = upgrade(&mut stream, handshake, &mut buffer)?;
        let inflater = upgraded.is_compressed()?.then(|| Inflater::new(u32::MAX));
        let session = if inflater.is_some() { Session::with_deflate(Role::Client) } else { Session::new(Role::Client) };
        let filled = upgraded.rest.len();
        buffer.resize(filled.max(BUFFER_BYTES), 0);
        buffer[..filled].copy_from_slice(&upgraded.rest);
        let masking_keys = Pcg64Mcg::seed_from_u64(random_seed());
        Ok(Self { stream, session, inflater, buffer, filled, consumed: 0, masking_keys })
    }

    /// Whether packets may come compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.inflater.is_some()
    }

    /// Waits at most this long for the next message, not at all for zero. A packet is put into `packet`.
    pub(crate) fn receive(&mut self, wait: Duration, packet: &mut Vec<u8>) -> Result<Received, Error> {
        loop {
            let input = &mut self.buffer[..self.filled];
            let event = match &mut self.inflater {
                Some(inflater) => self.session.next_inflating(&LIMITS, inflater, input, &mut self.consumed),
                None => self.session.next(&LIMITS, input, &mut self.consumed),
            };
            match event.map_err(|violation| Error::Protocol(violation.to_string()))? {
                Some(SessionEvent::Binary(bytes)) => {
                    packet.clear();
                    packet.extend_from_slice(bytes);
                    return Ok(Received::Packet);
                }
                // The session has checked that it is UTF-8.
                Some(SessionEvent::Text(text)) => {
                    return Ok(Received::Text(String::from_utf8_lossy(text).into_owned()));
                }
                Some(SessionEvent::Ping(payload)) => {
                    let payload = payload.to_vec();
                    self.send(Opcode::Pong, &payload)?;
                }
                Some(SessionEvent::Pong(_)) => {}
                Some(SessionEvent::Close(frame)) => {
                    let reason = CloseReason::from(frame);
                    self.send_close();
                    return Err(Error::Closed(reason));
                }
                None => {
                    if !self.fill(wait)? {
                        return Ok(Received::Nothing);
                    }
                }
            }
        }
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        push_masked_frame(opcode, payload, self.masking_keys.next_u32().to_le_bytes(), &mut frame);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Sends a text message.
    pub(crate) fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.send(Opcode::Text, text.as_bytes())
    }

    /// Closes with 1000, and waits up to a second for the server's answer. An error is another reason of the server.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        self.send_close();
        let (begun, mut packet) = (Instant::now(), Vec::new());
        while begun.elapsed() < CLOSE_TIMEOUT {
            match self.receive(CLOSE_TIMEOUT, &mut packet) {
                Ok(_) => {}
                Err(Error::Closed(reason)) if reason.code != CloseCode::NORMAL.0 => return Err(Error::Closed(reason)),
                Err(_) => break,
            }
        }
        self.stream.end();
        Ok(())
    }

    /// The socket, the state of its reading, and the bytes that were read and not consumed. For uncompressed
    /// connections.
    pub(crate) fn into_parts(mut self) -> (Stream, Session, Vec<u8>) {
        self.buffer.truncate(self.filled);
        (self.stream, self.session, self.buffer.split_off(self.consumed))
    }

    /// True if bytes have come.
    fn fill(&mut self, wait: Duration) -> Result<bool, Error> {
        self.buffer.resize(BUFFER_BYTES, 0);
        (self.filled, self.consumed) = (0, 0);
        match self.read(wait)? {
            Ok(0) => Err(Error::Dropped),
            Ok(read) => {
                self.filled = read;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once. The outer error is the kernel's about an option of the socket.
    fn read(&mut self, wait: Duration) -> Result<io::Result<usize>, Error> {
        let system = |what| move |error| Error::System { what, error };
        // A read timeout of zero would mean none.
        if wait.is_zero() {
            self.stream.socket().set_nonblocking(true).map_err(system("O_NONBLOCK"))?;
            let read = self.stream.read(&mut self.buffer);
            self.stream.socket().set_nonblocking(false).map_err(system("O_NONBLOCK"))?;
            return Ok(read);
        }
        self.stream.socket().set_read_timeout(Some(wait)).map_err(system("read timeout"))?;
        Ok(self.stream.read(&mut self.buffer))
    }

    fn send_close(&mut self) {
        let mut frame = Vec::new();
        push_masked_close(CloseCode::NORMAL, "", self.masking_keys.next_u32().to_le_bytes(), &mut frame);
        // A server that has gone does not read it.
        let _ = self.stream.write_all(&frame);
    }
}

fn upgrade(stream: &mut Stream, mut handshake: Handshake, buffer: &mut [u8]) -> Result<Upgraded, Error> {
    stream.write_all(handshake.request())?;
    let begun = Instant::now();
    loop {
        match stream.read(buffer) {
            Ok(0) => return handshake.finish(),
            Ok(read) if handshake.receive(&buffer[..read]) => return handshake.finish(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Error::Unanswered("upgrade request")),
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > CONNECT_TIMEOUT {
            return Err(Error::Unanswered("upgrade request"));
        }
    }
}

/// A seed that differs from process to process and from call to call.
pub(crate) fn random_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), 0)
}
