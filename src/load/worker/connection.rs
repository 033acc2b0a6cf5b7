//! One connection of a load run, from the TCP connect to its end: a state machine that a worker thread wakes.
//!
//! ```text
//! Connecting ──► Upgrading ──► Fast or Independent ──► Ended
//! ```
//!
//! A fast connection is read frame by frame out of the thread's buffer, at a few nanoseconds a record. An independent
//! one goes through tungstenite and the [`tickcast_client::decode::Decoder`], so that not every result comes from one
//! reader.
//!
//! What always holds: a wake never blocks and reads a bounded number of bytes; an end is reported once, as data.
//! Memory: about 0.5 KB for a fast connection, 5 KB for an independent one, and the sequences of its
//! [`StreamChecker`].

mod end;
mod next_event;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tungstenite::WebSocket;
use tungstenite::protocol::{Message, Role as TungsteniteRole, WebSocketConfig};

pub use self::end::ConnectionEnd;
use self::end::{closed, dropped, refusal_text, tungstenite_end};
use self::next_event::next_event;
use super::buffered_socket::BufferedSocket;
use super::checker::{FastChecker, SequenceTable, is_packet};
use super::limiter::RECEIVE_BUFFER_BYTES;
use super::messages::{ClientPlan, ClientRequest, ClientRole, ConnectTimes, ReadOptions};
use super::send::{self, would_block};
use super::stream_checker::StreamChecker;
use super::timeline::{CLASSES, ClassMeters, ClassTotals, ClientClass};
use crate::load::latency::{LatencyMeter, now_ns};
use tickcast_client::handshake::{Handshake, Upgraded};
use tickcast_client::{Error, Stream, Target, TlsConfig};
use tickcast_protocol::control::Reply;
use tickcast_protocol::ws::{CloseCode, Opcode, Role, Session, SessionEvent};

/// Reads of one wake, each of at most the thread's buffer, so that a busy connection does not starve the others.
const READS_MAX: usize = 4;
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
    /// The thread's [`ThreadContext::classes`] include its standing.
    pub is_counted: bool,
    has_data: bool,
    /// A server of another kind has sent a packet on this connection.
    sends_packets: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Connecting(TcpStream),
    Upgrading(Stream, Box<Handshake>),
    Fast(FastSocket),
    Independent(Box<WebSocket<BufferedSocket>>),
    Ended,
}

#[derive(Debug)]
struct FastSocket {
    stream: Stream,
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

/// What the connections of a thread share while one of them is awake.
#[derive(Debug)]
pub struct ThreadContext {
    pub target: Target,
    /// Of the connections that come later, and of those at the start, whose sessions the others may resume.
    pub tls: TlsConfig,
    pub tls_first: TlsConfig,
    pub options: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    /// For one read of a socket.
    pub buffer: Vec<u8>,
    pub masking_keys: Pcg64Mcg,
    pub received: ReceivedTotals,
    /// Latencies in the current second.
    pub meters: ClassMeters,
    /// What clients have received, by [`ClientClass`].
    pub classes: [ClassTotals; CLASSES],
    /// Bytes that limited clients have read.
    pub limited_bytes: u64,
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

impl ThreadContext {
    /// Where the ages of this class are recorded now.
    #[inline]
    fn meter(&mut self, class: Option<ClientClass>) -> Option<&mut LatencyMeter> {
        match class.filter(|_| self.is_measuring)? {
            ClientClass::Steady if self.in_storm => Some(&mut self.meters.in_storm),
            ClientClass::Steady => Some(&mut self.meters.steady),
            ClientClass::Limited => Some(&mut self.meters.limited),
            ClientClass::Pausing => Some(&mut self.meters.pausing),
        }
    }
}

impl LoadConnection {
    /// Begins to connect, without waiting for it.
    pub fn begin(plan: ClientPlan, address: SocketAddr, options: &ReadOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if plan.role == ClientRole::Limited {
            // Before the connect, which tells the server the window.
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        if let Some(source) = plan.source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self {
            plan,
            checker: StreamChecker::for_client(&plan, options),
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
            Phase::Connecting(socket) => Some(socket),
            Phase::Upgrading(stream, _) => Some(stream.socket()),
            Phase::Fast(fast) => Some(fast.stream.socket()),
            Phase::Independent(socket) => Some(socket.get_ref().stream().socket()),
            Phase::Ended => None,
        }
    }

    /// The stream of an open connection, to send.
    fn open_stream(&mut self) -> Option<&mut Stream> {
        match &mut self.phase {
            Phase::Fast(fast) => Some(&mut fast.stream),
            Phase::Independent(socket) => Some(socket.get_mut().stream_mut()),
            Phase::Connecting(_) | Phase::Upgrading(..) | Phase::Ended => None,
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

    /// The kind of client whose data is measured that this one is, if any: it has been there from the start.
    pub fn class(&self) -> Option<ClientClass> {
        match self.plan.role {
            ClientRole::Steady if self.is_replacement => None,
            ClientRole::Steady if self.plan.pauses => Some(ClientClass::Pausing),
            ClientRole::Steady => Some(ClientClass::Steady),
            ClientRole::Limited => Some(ClientClass::Limited),
            _ => None,
        }
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
            Phase::Fast(fast) => self.read_fast(fast, context, READS_MAX, usize::MAX),
            Phase::Independent(socket) => self.read_independent(socket, context, READS_MAX),
            Phase::Ended => WakeOutcome::Same,
        }
    }

    /// Reads at most so many bytes of a limited client, once.
    pub fn read_at_most(&mut self, bytes: usize, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        let outcome = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Fast(fast) => self.read_fast(fast, context, 1, bytes),
            phase => {
                self.phase = phase;
                WakeOutcome::Same
            }
        };
        if let WakeOutcome::Ended(end) = outcome { Some(end) } else { None }
    }

    /// Gives up on a connection that is not upgraded in time.
    pub fn give_up(&mut self, why: &Error) -> ConnectionEnd {
        self.phase = Phase::Ended;
        ConnectionEnd::Refused(why.to_string())
    }

    /// Reads what has arrived for a stalled or limited client, so that a close frame in it is found.
    pub fn read_backlog(&mut self, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        /// At 256 KiB each more than any socket buffer holds.
        const READS_ENOUGH: usize = 256;
        let outcome = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Fast(fast) => self.read_fast(fast, context, READS_ENOUGH, usize::MAX),
            Phase::Independent(socket) => self.read_independent(socket, context, READS_ENOUGH),
            _ => WakeOutcome::Same,
        };
        if let WakeOutcome::Ended(end) = outcome { Some(end) } else { None }
    }

    /// Closes with 1000, without waiting for an answer.
    pub fn close(&mut self, context: &mut ThreadContext) {
        if let Some(stream) = self.open_stream() {
            // The socket of a client that did not read may be full: then the server gets a reset.
            let _ = send::close(stream, CloseCode::NORMAL, context.masking_keys.next_u32());
            stream.end();
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
        let protocol: &[_] = match self.checker {
            StreamChecker::Json(_) => &[("sec-websocket-protocol", tickcast_protocol::json::SUBPROTOCOL)],
            _ => &[],
        };
        let is_later = self.is_replacement || self.plan.role == ClientRole::Storm;
        let tls = if is_later { &context.tls } else { &context.tls_first };
        let opened = Handshake::new(&context.target, protocol)
            .and_then(|handshake| Ok((handshake, Stream::open(&context.target, stream, tls)?)));
        let (handshake, mut stream) = match opened {
            Ok(opened) => opened,
            Err(error) => return refused(refusal_text(&error)),
        };
        // The request is far shorter than an empty socket buffer.
        match stream.write_all(handshake.request()) {
            Ok(()) => {
                self.phase = Phase::Upgrading(stream, Box::new(handshake));
                WakeOutcome::UpgradeRequested
            }
            Err(error) => refused(Error::from(error).to_string()),
        }
    }

    fn upgrade(
        &mut self,
        mut stream: Stream,
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
    fn open(&mut self, mut stream: Stream, upgraded: Upgraded, context: &mut ThreadContext) -> WakeOutcome {
        context.connect_times.upgraded.record(ns(self.begun.elapsed()));
        let requests = Arc::clone(&context.requests);
        let messages = &requests[self.plan.request as usize].messages;
        if let Err(error) = send::texts(&mut stream, messages, &mut context.masking_keys) {
            return refused(Error::from(error).to_string());
        }
        let mut rest = upgraded.rest;
        let end;
        if self.plan.independent && self.plan.role != ClientRole::Limited {
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

    /// Reads at most so many times, and at most so many bytes at a time.
    fn read_fast(
        &mut self,
        mut fast: FastSocket,
        context: &mut ThreadContext,
        reads_max: usize,
        bytes_max: usize,
    ) -> WakeOutcome {
        for _ in 0..reads_max {
            let mut buffer = std::mem::take(&mut context.buffer);
            let size = buffer.len().min(bytes_max);
            let read = fast.stream.read_once(&mut buffer, size);
            let end = match &read {
                Ok(0) => Some(dropped()),
                Ok(bytes) => {
                    context.received.bytes += *bytes as u64;
                    context.limited_bytes += if self.plan.role == ClientRole::Limited { *bytes as u64 } else { 0 };
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
                SessionEvent::Text(text) => self.text(&String::from_utf8_lossy(text), now_ns, context),
                SessionEvent::Ping(payload) => {
                    // A pong that finds the socket full is left out: the server hears of this client when it drains.
                    let _ = send::frame(&mut fast.stream, Opcode::Pong, payload, context.masking_keys.next_u32());
                    None
                }
                SessionEvent::Pong(_) => None,
                SessionEvent::Close(frame) => {
                    let code = frame.map_or(1005, |frame| frame.code.0);
                    let _ = send::close(&mut fast.stream, CloseCode::NORMAL, context.masking_keys.next_u32());
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
                Ok(Message::Text(text)) => self.text(&text, now_ns, context),
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

    fn text(&mut self, text: &str, now_ns: u64, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        context.received.messages += 1;
        if context.options.opaque {
            self.note_data(context);
            return None;
        }
        if let StreamChecker::Json(_) = &self.checker {
            match self.json_packet(text, now_ns, context) {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => return Some(ConnectionEnd::Malformed(format!("invalid JSON packet: {error}"))),
            }
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
        if let StreamChecker::Json(_) = &self.checker {
            return Some(ConnectionEnd::Malformed("a binary message: expected JSON".to_owned()));
        }
        if context.options.opaque && !self.sends_packets {
            // Until the first packet, a message that begins like one is parsed twice.
            self.sends_packets = is_packet(packet);
            if !self.sends_packets {
                return None;
            }
        }
        let (class, before) = (self.class(), self.progress());
        let checked = match context.meter(class) {
            Some(meter) => {
                let checked = self.checker.packet(packet, |header| meter.age(now_ns, header));
                checked.inspect(|header| meter.packet(now_ns, header))
            }
            None => self.checker.packet(packet, |_| {}),
        };
        self.count(class, before, context);
        checked.err().filter(|_| !context.options.opaque).map(|error| ConnectionEnd::Malformed(error.to_string()))
    }

    /// Whether a text is a packet; then it has been checked.
    fn json_packet(&mut self, text: &str, now_ns: u64, context: &mut ThreadContext) -> Result<bool, String> {
        let (class, before) = (self.class(), self.progress());
        let StreamChecker::Json(checker) = &mut self.checker else { return Ok(false) };
        let checked = match context.meter(class) {
            Some(meter) => {
                let checked = checker.message(text, |header| meter.age(now_ns, header));
                checked.inspect(|packet| packet.iter().for_each(|header| meter.packet(now_ns, header)))
            }
            None => checker.message(text, |_| {}),
        };
        self.count(class, before, context);
        let is_packet = checked?.is_some();
        if is_packet {
            self.note_data(context);
        }
        Ok(is_packet)
    }

    /// Records and covered sequences so far.
    fn progress(&self) -> (u64, u64) {
        let counters = self.checker.counters();
        (counters.records, counters.covered)
    }

    /// Adds what has come since `before` to the totals.
    fn count(&self, class: Option<ClientClass>, before: (u64, u64), context: &mut ThreadContext) {
        let now = self.progress();
        let (records, covered) = (now.0 - before.0, now.1 - before.1);
        context.received.records += records;
        if let Some(class) = class {
            let totals = &mut context.classes[class as usize];
            totals.records += records;
            totals.standing.covered += covered;
        }
    }

    fn note_data(&mut self, context: &mut ThreadContext) {
        if !self.has_data {
            self.has_data = true;
            context.connect_times.first_data.record(ns(self.begun.elapsed()));
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn refused(why: String) -> WakeOutcome {
    WakeOutcome::Ended(ConnectionEnd::Refused(why))
}

#[cfg(test)]
mod tests;
