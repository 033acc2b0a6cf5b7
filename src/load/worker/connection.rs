//! One connection of a load run, from the TCP connect to its end: a state machine that a worker thread wakes.
//!
//! ```text
//! Connecting ──► Upgrading ──► Fast or Independent ──► Ended
//! ```
//!
//! A fast connection is read frame by frame out of the thread's buffer, at a few nanoseconds a record. An independent
//! one goes through tungstenite and the [`Decoder`], so that not every result comes from one reader.
//!
//! What always holds: a wake never blocks and reads a bounded number of bytes; an end is reported once, as data.
//! Memory: about 0.5 KB for a fast connection, 5 KB for an independent one, and the sequences of its
//! [`StreamChecker`].

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tungstenite::WebSocket;
use tungstenite::protocol::{Message, Role as TungsteniteRole, WebSocketConfig};

use super::buffered_socket::BufferedSocket;
use super::checker::{FastChecker, SequenceTable, StreamChecker, is_packet};
use super::messages::{ClientPlan, ClientRequest, ClientRole, ConnectTimes, ReadOptions};
use super::send::{self, would_block};
use super::timeline::ClassTotals;
use crate::load::latency::{LatencyMeter, now_ns};
use tickcast_client::decode::Decoder;
use tickcast_client::handshake::{Handshake, Upgraded};
use tickcast_client::{CloseReason, Error, Target};
use tickcast_protocol::control::Reply;
use tickcast_protocol::ws::{CloseCode, Opcode, Role, Session, SessionEvent, SessionLimits, Violation};

/// Reads of one wake, each of at most the thread's buffer, so that a busy connection does not starve the others.
const READS_MAX: usize = 4;
/// tungstenite's default, for both readers.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 << 20 };
/// tungstenite's own buffer; most packets are shorter. Its default is 128 KiB.
const TUNGSTENITE_BUFFER_BYTES: usize = 4096;

/// One connection.
#[derive(Debug)]
pub struct LoadConnection {
    pub plan: ClientPlan,
    checker: StreamChecker,
    /// When its connect began.
    pub begun: Instant,
    /// It replaced a connection that was reset: it was not there from the start.
    pub is_replacement: bool,
    /// The thread's [`ThreadContext::live`] includes its standing.
    pub is_counted: bool,
    has_data: bool,
    /// A server of another kind has sent a packet on this connection.
    sends_packets: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Connecting(TcpStream),
    Upgrading(TcpStream, Box<Handshake>),
    Fast(FastSocket),
    Independent(Box<WebSocket<BufferedSocket>>),
    Ended,
}

#[derive(Debug)]
struct FastSocket {
    stream: TcpStream,
    session: Session,
}

/// The outcome of a wake.
#[derive(Debug, PartialEq, Eq)]
pub enum WakeOutcome {
    /// The same phase as before.
    Same,
    /// The TCP connection is open, and the upgrade is requested.
    UpgradeRequested,
    /// Upgraded and subscribed; and over already, where the server closed at once.
    Connected(Option<ConnectionEnd>),
    /// It is over.
    Ended(ConnectionEnd),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Before its upgrade, with the message of the server or the kernel.
    Refused(String),
    /// By the server, with a close code or without.
    Closed(String),
    /// By this client, because the server broke a layout.
    Malformed(String),
}

/// What the connections of a thread share while one of them is awake.
#[derive(Debug)]
pub struct ThreadContext {
    pub target: Target,
    pub options: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    /// For one read of a socket.
    pub buffer: Vec<u8>,
    pub masking_keys: Pcg64Mcg,
    pub received: ReceivedTotals,
    /// Latencies of steady clients in the current second: outside a storm, and during it.
    pub meters: [LatencyMeter; 2],
    /// What steady clients have received.
    pub live: ClassTotals,
    /// Whether latencies are recorded now.
    pub is_measuring: bool,
    /// Whether a storm is going on.
    pub in_storm: bool,
    pub connect_times: ConnectTimes,
    /// Error replies to subscriptions, in their order.
    pub rejected: Vec<String>,
}

/// What all connections have received.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceivedTotals {
    pub bytes: u64,
    pub records: u64,
    /// Messages of any kind but control frames.
    pub messages: u64,
}

impl LoadConnection {
    /// Begins to connect, without waiting for it.
    pub fn begin(plan: ClientPlan, address: SocketAddr, options: &ReadOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(source) = plan.source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let table = if options.dense { SequenceTable::Dense } else { SequenceTable::Sparse };
        // Servers of another kind define nothing, which a Decoder would count as a violation.
        let checker = if plan.independent && !options.opaque {
            StreamChecker::Independent(Box::new(Decoder::without_names()))
        } else {
            StreamChecker::Fast(FastChecker::new(table, !options.opaque))
        };
        Ok(Self {
            plan,
            checker,
            begun: Instant::now(),
            is_replacement: false,
            is_counted: false,
            has_data: false,
            sends_packets: false,
            phase: Phase::Connecting(socket.into()),
        })
    }

    /// The socket, for epoll; `None` once the connection has ended.
    pub fn stream(&self) -> Option<&TcpStream> {
        match &self.phase {
            Phase::Connecting(stream) | Phase::Upgrading(stream, _) => Some(stream),
            Phase::Fast(fast) => Some(&fast.stream),
            Phase::Independent(socket) => Some(socket.get_ref().stream()),
            Phase::Ended => None,
        }
    }

    /// True before the upgrade.
    pub fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_) | Phase::Upgrading(..))
    }

    /// True after the upgrade and before the end.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Fast(_) | Phase::Independent(_))
    }

    /// True for a client that reads everything and has been there from the start.
    pub fn is_steady(&self) -> bool {
        self.plan.role == ClientRole::Steady && !self.is_replacement
    }

    /// What the stream has contained.
    pub fn checker(&self) -> &StreamChecker {
        &self.checker
    }

    /// Takes the checker of a connection that has ended; one without memory takes its place.
    pub fn take_checker(&mut self) -> StreamChecker {
        let empty = StreamChecker::Fast(FastChecker::new(SequenceTable::Sparse, true));
        std::mem::replace(&mut self.checker, empty)
    }

    /// Continues after epoll has reported something about this socket.
    pub fn wake(&mut self, context: &mut ThreadContext) -> WakeOutcome {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connecting(stream) => self.request_upgrade(stream, context),
            Phase::Upgrading(stream, handshake) => self.upgrade(stream, handshake, context),
            Phase::Fast(fast) => self.read_fast(fast, context, READS_MAX),
            Phase::Independent(socket) => self.read_independent(socket, context, READS_MAX),
            Phase::Ended => WakeOutcome::Same,
        }
    }

    /// Gives up on a connection that is not upgraded in time.
    pub fn give_up(&mut self, why: &Error) -> ConnectionEnd {
        self.phase = Phase::Ended;
        ConnectionEnd::Refused(why.to_string())
    }

    /// Reads what has arrived for a stalled client, so that a close frame in it is found.
    pub fn read_backlog(&mut self, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        /// At 256 KiB each more than any socket buffer holds.
        const READS_ENOUGH: usize = 256;
        let outcome = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Fast(fast) => self.read_fast(fast, context, READS_ENOUGH),
            Phase::Independent(socket) => self.read_independent(socket, context, READS_ENOUGH),
            _ => WakeOutcome::Same,
        };
        if let WakeOutcome::Ended(end) = outcome { Some(end) } else { None }
    }

    /// Closes with 1000, without waiting for an answer.
    pub fn close(&mut self, context: &mut ThreadContext) {
        if let Some(stream) = self.stream().filter(|_| self.is_open()) {
            // The socket of a client that did not read may be full: then the server gets a reset.
            let _ = send::close(stream, CloseCode::NORMAL, context.masking_keys.next_u32());
        }
        self.phase = Phase::Ended;
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        if let Some(stream) = self.stream() {
            // Without it the server gets the end of the stream in place of a reset, which is abrupt as well.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.phase = Phase::Ended;
    }

    /// The TCP connection is open, or has failed: requests the upgrade.
    fn request_upgrade(&mut self, stream: TcpStream, context: &ThreadContext) -> WakeOutcome {
        if let Some(error) = stream.take_error().unwrap_or_else(Some) {
            return refused(error.to_string());
        }
        // A failure costs a small segment's delay and nothing else.
        let _ = stream.set_nodelay(true);
        let handshake = match Handshake::new(&context.target, &[]) {
            Ok(handshake) => handshake,
            Err(error) => return refused(refusal_text(&error)),
        };
        // The request is far shorter than an empty socket buffer.
        match (&stream).write_all(handshake.request()) {
            Ok(()) => {
                self.phase = Phase::Upgrading(stream, Box::new(handshake));
                WakeOutcome::UpgradeRequested
            }
            Err(error) => refused(Error::from(error).to_string()),
        }
    }

    fn upgrade(
        &mut self,
        mut stream: TcpStream,
        mut handshake: Box<Handshake>,
        context: &mut ThreadContext,
    ) -> WakeOutcome {
        let is_complete = match stream.read(&mut context.buffer) {
            Ok(read) => {
                context.received.bytes += read as u64;
                handshake.receive(&context.buffer[..read]) || read == 0
            }
            Err(error) if would_block(&error) => false,
            Err(error) => return refused(Error::from(error).to_string()),
        };
        if !is_complete {
            self.phase = Phase::Upgrading(stream, handshake);
            return WakeOutcome::Same;
        }
        match handshake.finish() {
            Ok(upgraded) => self.open(stream, upgraded, context),
            Err(error) => refused(refusal_text(&error)),
        }
    }

    /// Upgraded: subscribes, and reads what came with the answer.
    fn open(&mut self, stream: TcpStream, upgraded: Upgraded, context: &mut ThreadContext) -> WakeOutcome {
        context.connect_times.upgraded.record(ns(self.begun.elapsed()));
        let requests = Arc::clone(&context.requests);
        let messages = &requests[self.plan.request as usize].messages;
        if let Err(error) = send::texts(&stream, messages, &mut context.masking_keys) {
            return refused(Error::from(error).to_string());
        }
        let mut rest = upgraded.rest;
        let end;
        if self.plan.independent {
            let config = WebSocketConfig::default().read_buffer_size(TUNGSTENITE_BUFFER_BYTES);
            let buffered = BufferedSocket::new(stream);
            let mut socket = WebSocket::from_raw_socket(buffered, TungsteniteRole::Client, Some(config));
            socket.get_mut().push(rest);
            end = self.take_messages(&mut socket, context);
            socket.get_mut().release();
            self.phase = Phase::Independent(Box::new(socket));
        } else {
            let mut fast = FastSocket { stream, session: Session::new(Role::Client) };
            end = self.take_frames(&mut fast, &mut rest, context);
            self.phase = Phase::Fast(fast);
        }
        if end.is_some() {
            self.phase = Phase::Ended;
        }
        WakeOutcome::Connected(end)
    }

    fn read_fast(&mut self, mut fast: FastSocket, context: &mut ThreadContext, reads_max: usize) -> WakeOutcome {
        for _ in 0..reads_max {
            let mut buffer = std::mem::take(&mut context.buffer);
            let size = buffer.len();
            let read = (&fast.stream).read(&mut buffer);
            let end = match &read {
                Ok(0) => Some(dropped()),
                Ok(bytes) => {
                    context.received.bytes += *bytes as u64;
                    self.take_frames(&mut fast, &mut buffer[..*bytes], context)
                }
                Err(error) if would_block(error) => None,
                Err(_) => Some(dropped()),
            };
            context.buffer = buffer;
            if let Some(end) = end {
                return WakeOutcome::Ended(end);
            }
            if read.unwrap_or(0) < size {
                break;
            }
        }
        self.phase = Phase::Fast(fast);
        WakeOutcome::Same
    }

    /// Handles the messages that these bytes complete.
    fn take_frames(
        &mut self,
        fast: &mut FastSocket,
        input: &mut [u8],
        context: &mut ThreadContext,
    ) -> Option<ConnectionEnd> {
        let now_ns = now_ns();
        let mut consumed = 0;
        loop {
            let event = match next_event(&mut fast.session, input, &mut consumed) {
                Ok(Some(event)) => event,
                Ok(None) => return None,
                Err(violation) => return Some(ConnectionEnd::Malformed(violation.to_string())),
            };
            let end = match event {
                SessionEvent::Binary(packet) => self.packet(packet, now_ns, context),
                // The session has checked that it is UTF-8.
                SessionEvent::Text(text) => self.text(&String::from_utf8_lossy(text), context),
                SessionEvent::Ping(payload) => {
                    // A pong that finds the socket full is left out: the server hears of this client when it drains.
                    let _ = send::frame(&fast.stream, Opcode::Pong, payload, context.masking_keys.next_u32());
                    None
                }
                SessionEvent::Pong(_) => None,
                SessionEvent::Close(frame) => {
                    let code = frame.map_or(1005, |frame| frame.code.0);
                    let _ = send::close(&fast.stream, CloseCode::NORMAL, context.masking_keys.next_u32());
                    Some(closed(code))
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn read_independent(
        &mut self,
        mut socket: Box<WebSocket<BufferedSocket>>,
        context: &mut ThreadContext,
        reads_max: usize,
    ) -> WakeOutcome {
        for _ in 0..reads_max {
            let size = context.buffer.len();
            let filled = socket.get_mut().fill(std::mem::take(&mut context.buffer));
            let end = match &filled {
                Ok(bytes) => {
                    context.received.bytes += *bytes as u64;
                    self.take_messages(&mut socket, context)
                }
                Err(error) if would_block(error) => None,
                Err(_) => Some(dropped()),
            };
            context.buffer = socket.get_mut().release();
            if let Some(end) = end {
                return WakeOutcome::Ended(end);
            }
            if filled.unwrap_or(0) < size {
                break;
            }
        }
        self.phase = Phase::Independent(socket);
        WakeOutcome::Same
    }

    /// Handles the messages that the socket's bytes complete.
    fn take_messages(
        &mut self,
        socket: &mut WebSocket<BufferedSocket>,
        context: &mut ThreadContext,
    ) -> Option<ConnectionEnd> {
        let now_ns = now_ns();
        loop {
            let end = match socket.read() {
                Ok(Message::Binary(packet)) => self.packet(&packet, now_ns, context),
                Ok(Message::Text(text)) => self.text(&text, context),
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    Some(closed(frame.map_or(1005, |frame| frame.code.into())))
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
                Err(tungstenite::Error::Io(error)) if would_block(&error) => return None,
                Err(error) => Some(tungstenite_end(error)),
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn text(&mut self, text: &str, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        context.received.messages += 1;
        if context.options.opaque {
            self.note_data(context);
            return None;
        }
        match Reply::parse(text) {
            Ok(Reply::Error { code, message, .. }) => context.rejected.push(format!("{code}: {message}")),
            Ok(_) => {}
            Err(error) => return Some(ConnectionEnd::Malformed(format!("invalid reply {text:?}: {error}"))),
        }
        None
    }

    fn packet(&mut self, packet: &[u8], now_ns: u64, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        context.received.messages += 1;
        self.note_data(context);
        if context.options.opaque && !self.sends_packets {
            // Until the first packet, a message that begins like one is parsed twice.
            self.sends_packets = is_packet(packet);
            if !self.sends_packets {
                return None;
            }
        }
        let meter = &mut context.meters[usize::from(context.in_storm)];
        let counters = self.checker.counters();
        let before = (counters.records, counters.covered);
        let is_steady = self.is_steady();
        let checked = if is_steady && context.is_measuring {
            let checked = self.checker.packet(packet, |header| meter.age(now_ns, header));
            checked.inspect(|header| meter.packet(now_ns, header))
        } else {
            self.checker.packet(packet, |_| {})
        };
        let counters = self.checker.counters();
        let (records, covered) = (counters.records - before.0, counters.covered - before.1);
        context.received.records += records;
        if is_steady {
            context.live.records += records;
            context.live.standing.covered += covered;
        }
        checked.err().filter(|_| !context.options.opaque).map(|error| ConnectionEnd::Malformed(error.to_string()))
    }

    fn note_data(&mut self, context: &mut ThreadContext) {
        if !self.has_data {
            self.has_data = true;
            context.connect_times.first_data.record(ns(self.begun.elapsed()));
        }
    }
}

/// The session's next event. A binary message in one whole frame, as almost all are, is recognized here in a few
/// nanoseconds; the session handles everything else, and finds every violation.
#[inline]
fn next_event<'a>(
    session: &'a mut Session,
    input: &'a mut [u8],
    consumed: &mut usize,
) -> Result<Option<SessionEvent<'a>>, Violation> {
    if session.held_bytes() == 0
        && let Some((start, end)) = whole_binary(input, *consumed)
    {
        *consumed = end;
        return Ok(Some(SessionEvent::Binary(&mut input[start..end])));
    }
    session.next(&LIMITS, input, consumed)
}

/// Where the payload of the frame at `at` lies, if that is an unmasked, unfragmented, binary one of less than 64 KiB,
/// and whole.
#[inline]
fn whole_binary(input: &[u8], at: usize) -> Option<(usize, usize)> {
    const BINARY_ALONE: u8 = 0x82;
    let (start, length) = match *input.get(at..)? {
        [BINARY_ALONE, length @ 0..126, ..] => (at + 2, usize::from(length)),
        [BINARY_ALONE, 126, high, low, ..] => (at + 4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    // The session refuses a length that is not in its shortest form.
    let is_minimal = start == at + 2 || length >= 126;
    (is_minimal && start + length <= input.len()).then_some((start, start + length))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn refused(why: String) -> WakeOutcome {
    WakeOutcome::Ended(ConnectionEnd::Refused(why))
}

/// A refusal without the words "the server refused the connection", which the report has already.
fn refusal_text(error: &Error) -> String {
    match error {
        Error::Refused(refusal) => refusal.to_string(),
        other => other.to_string(),
    }
}

/// Closes are counted by code, whatever their reasons.
fn closed(code: u16) -> ConnectionEnd {
    ConnectionEnd::Closed(CloseReason { code, reason: String::new() }.to_string())
}

fn dropped() -> ConnectionEnd {
    ConnectionEnd::Closed(Error::Dropped.to_string())
}

fn tungstenite_end(error: tungstenite::Error) -> ConnectionEnd {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => dropped(),
        tungstenite::Error::Protocol(ResetWithoutClosingHandshake) => dropped(),
        tungstenite::Error::Io(error) => match Error::from(error) {
            Error::Dropped => dropped(),
            error => ConnectionEnd::Malformed(error.to_string()),
        },
        error => ConnectionEnd::Malformed(Error::Protocol(error.to_string()).to_string()),
    }
}

#[cfg(test)]
mod tests;
