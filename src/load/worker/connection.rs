//! One connection of a load run, from the TCP connect to its end: a state machine that a worker wakes.
//!
//! ```text
//! Connecting ──► Upgrading ──► Fast or Independent ──► ended
//! ```
//!
//! A fast connection is read frame by frame out of the thread's buffer, and a record costs it a few nanoseconds; an
//! independent one goes through tungstenite and the [`Decoder`], so that not all verdicts are one reader's.
//!
//! What always holds: a wake never blocks and reads a bounded number of bytes; an end is told once, as data.
//! Memory: some 0.5 KB of process memory for a fast connection and 5 KB for an independent one, and what
//! [`crate::load::worker::checker`] keeps of the instruments.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use rand::Rng;
use rand_pcg::Pcg64Mcg;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tungstenite::protocol::Message;
use tungstenite::{Error, WebSocket};

use crate::load::latency::{LatencyMeter, now_ns};
use crate::load::worker::checker::{FastChecker, SequenceTable, StreamChecker, is_packet};
use crate::load::worker::messages::{ClientPlan, ClientRequest, ClientRole, ConnectTimes, ReadOptions};
use crate::load::worker::send;
use tickcast_client::decode::Decoder;
use tickcast_client::error::{Error as ClientError, close_text, closed, failure};
use tickcast_client::handshake::{Upgrade, Upgraded, is_later};
use tickcast_client::lane::Lane;
use tickcast_protocol::control::Reply;
use tickcast_protocol::ws::{CloseCode, Opcode, Role, Session, SessionEvent, SessionLimits, Violation};

/// Reads of one wake, each of at most the worker's buffer: a busy connection does not starve its neighbours.
const FILLS_MAX: usize = 4;
/// What tungstenite allows by default, for both readers.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 << 20 };

/// One connection.
#[derive(Debug)]
pub struct LoadConnection {
    pub plan: ClientPlan,
    pub check: StreamChecker,
    /// When its connect was begun.
    pub begun: Instant,
    /// Took the place of one that left: it was not there from the start.
    pub is_replacement: bool,
    has_data: bool,
    /// A server of another kind has sent a packet on this connection.
    speaks_packets: bool,
    phase: ConnectionPhase,
}

#[derive(Debug)]
enum ConnectionPhase {
    Connecting(TcpStream),
    Upgrading(Box<Upgrade>),
    Fast(Fast),
    Independent(Box<WebSocket<Lane>>),
    Ended,
}

#[derive(Debug)]
struct Fast {
    stream: TcpStream,
    session: Session,
}

/// What a wake has brought about.
#[derive(Debug, PartialEq, Eq)]
pub enum WakeOutcome {
    /// The same phase as before.
    Same,
    /// The TCP connection is there, the upgrade is asked for.
    Asked,
    /// Upgraded and subscribed; and over already, where the server closed at once.
    Connected(Option<ConnectionEnd>),
    /// It is over.
    Ended(ConnectionEnd),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Before its upgrade: by what the server or the kernel said.
    Refused(String),
    /// By the server, with a close code or without.
    Closed(String),
    /// By us, for what breaks a layout.
    Malformed(String),
}

/// What the connections of a worker share while one of them is awake.
#[derive(Debug)]
pub struct ThreadContext {
    pub uri: Uri,
    pub terms: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    /// For one read of a socket.
    pub buffer: Vec<u8>,
    /// Masking keys of what we send.
    pub keys: Pcg64Mcg,
    pub seen: ReceivedTotals,
    /// Latencies of steady clients: before and after a storm, and while it lasts.
    pub meters: [LatencyMeter; 2],
    /// Whether latencies are recorded now.
    pub measuring: bool,
    /// Whether a storm lasts.
    pub in_storm: bool,
    pub joins: ConnectTimes,
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
    pub fn begin(plan: ClientPlan, address: SocketAddr, terms: &ReadOptions) -> io::Result<Self> {
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
        let table = if terms.dense { SequenceTable::Dense } else { SequenceTable::Sparse };
        // Servers of another kind define nothing, which a Decoder would call a violation.
        let check = if plan.independent && !terms.opaque {
            StreamChecker::Independent(Box::new(Decoder::without_names()))
        } else {
            StreamChecker::Fast(FastChecker::new(table, !terms.opaque))
        };
        let phase = ConnectionPhase::Connecting(socket.into());
        Ok(Self {
            plan,
            check,
            begun: Instant::now(),
            is_replacement: false,
            has_data: false,
            speaks_packets: false,
            phase,
        })
    }

    /// The socket, for the poll; `None` once it has ended.
    pub fn stream(&self) -> Option<&TcpStream> {
        match &self.phase {
            ConnectionPhase::Connecting(stream) => Some(stream),
            ConnectionPhase::Upgrading(upgrade) => Some(upgrade.stream()),
            ConnectionPhase::Fast(fast) => Some(&fast.stream),
            ConnectionPhase::Independent(socket) => Some(socket.get_ref().stream()),
            ConnectionPhase::Ended => None,
        }
    }

    /// True before the upgrade.
    pub fn is_pending(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Connecting(_) | ConnectionPhase::Upgrading(_))
    }

    /// True after the upgrade and before the end.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Fast(_) | ConnectionPhase::Independent(_))
    }

    /// Goes on after the poll has told something of this socket.
    pub fn wake(&mut self, context: &mut ThreadContext) -> WakeOutcome {
        match std::mem::replace(&mut self.phase, ConnectionPhase::Ended) {
            ConnectionPhase::Connecting(stream) => self.ask(stream, context),
            ConnectionPhase::Upgrading(upgrade) => self.upgrade(upgrade, context),
            ConnectionPhase::Fast(fast) => self.read_fast(fast, context, FILLS_MAX),
            ConnectionPhase::Independent(socket) => self.read(socket, context, FILLS_MAX),
            ConnectionPhase::Ended => WakeOutcome::Same,
        }
    }

    /// Gives up on a connection that is not upgraded in time.
    pub fn give_up(&mut self, why: &ClientError) -> ConnectionEnd {
        self.phase = ConnectionPhase::Ended;
        ConnectionEnd::Refused(why.to_string())
    }

    /// Reads what has come to a stalled client, so that a close frame in it is found.
    pub fn look_through(&mut self, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        /// At 256 KiB each more than any socket buffer holds.
        const FILLS_ENOUGH: usize = 256;
        let woken = match std::mem::replace(&mut self.phase, ConnectionPhase::Ended) {
            ConnectionPhase::Fast(fast) => self.read_fast(fast, context, FILLS_ENOUGH),
            ConnectionPhase::Independent(socket) => self.read(socket, context, FILLS_ENOUGH),
            _ => WakeOutcome::Same,
        };
        if let WakeOutcome::Ended(end) = woken { Some(end) } else { None }
    }

    /// Says goodbye and lets go of the socket.
    pub fn leave(&mut self, context: &mut ThreadContext) {
        if let Some(stream) = self.stream().filter(|_| self.is_open()) {
            // The socket of a client that was not read may be full: then the server learns it from the reset.
            let _ = send::close(stream, CloseCode::NORMAL, context.keys.next_u32());
        }
        self.phase = ConnectionPhase::Ended;
    }

    /// Lets go of the socket without a word: the server gets a reset.
    pub fn vanish(&mut self) {
        if let Some(stream) = self.stream() {
            // Without it the server gets the end of the stream in place of a reset, which is abrupt enough.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.phase = ConnectionPhase::Ended;
    }

    /// The TCP connection is there, or has failed: asks for the upgrade.
    fn ask(&mut self, stream: TcpStream, context: &ThreadContext) -> WakeOutcome {
        if let Some(error) = stream.take_error().unwrap_or_else(Some) {
            return refused(error.to_string());
        }
        // Costs a small segment's delay where it fails, nothing else.
        let _ = stream.set_nodelay(true);
        match Upgrade::ask(stream, &context.uri, None) {
            Ok(upgrade) => {
                self.phase = ConnectionPhase::Upgrading(Box::new(upgrade));
                WakeOutcome::Asked
            }
            Err(error) => refused(error.answer()),
        }
    }

    fn upgrade(&mut self, upgrade: Box<Upgrade>, context: &mut ThreadContext) -> WakeOutcome {
        match upgrade.advance(&mut context.buffer, &mut context.seen.bytes) {
            Upgraded::NotYet(upgrade) => {
                self.phase = ConnectionPhase::Upgrading(upgrade);
                WakeOutcome::Same
            }
            Upgraded::Open(opened) => self.open(opened.socket, opened.rest, context),
            Upgraded::Refused(error) => refused(error.answer()),
        }
    }

    /// Upgraded: subscribes, and reads what came with the answer.
    fn open(
        &mut self,
        mut socket: Box<WebSocket<Lane>>,
        mut rest: Vec<u8>,
        context: &mut ThreadContext,
    ) -> WakeOutcome {
        context.joins.upgraded.record(ns(self.begun.elapsed()));
        let requests = Arc::clone(&context.requests);
        let messages = &requests[self.plan.request as usize].messages;
        if let Err(error) = send::texts(socket.get_ref().stream(), messages, &mut context.keys) {
            return refused(failure(Error::Io(error)).to_string());
        }
        let end;
        if self.plan.independent {
            socket.get_mut().give(rest);
            end = self.take_messages(&mut socket, context);
            socket.get_mut().release();
            self.phase = ConnectionPhase::Independent(socket);
        } else {
            let stream = (*socket).into_inner().into_stream();
            let mut fast = Fast { stream, session: Session::new(Role::Client) };
            end = self.take_frames(&mut fast, &mut rest, context);
            self.phase = ConnectionPhase::Fast(fast);
        }
        if end.is_some() {
            self.phase = ConnectionPhase::Ended;
        }
        WakeOutcome::Connected(end)
    }

    fn read_fast(&mut self, mut fast: Fast, context: &mut ThreadContext, fills_max: usize) -> WakeOutcome {
        for _ in 0..fills_max {
            let mut buffer = std::mem::take(&mut context.buffer);
            let size = buffer.len();
            let filled = (&fast.stream).read(&mut buffer);
            let end = match &filled {
                Ok(0) => Some(ConnectionEnd::Closed(ClientError::Dropped.to_string())),
                Ok(bytes) => {
                    context.seen.bytes += *bytes as u64;
                    self.take_frames(&mut fast, &mut buffer[..*bytes], context)
                }
                Err(error) if is_later(error) => None,
                Err(_) => Some(ConnectionEnd::Closed(ClientError::Dropped.to_string())),
            };
            context.buffer = buffer;
            if let Some(end) = end {
                return WakeOutcome::Ended(end);
            }
            if filled.unwrap_or(0) < size {
                break;
            }
        }
        self.phase = ConnectionPhase::Fast(fast);
        WakeOutcome::Same
    }

    /// Handles the messages that these bytes complete.
    fn take_frames(&mut self, fast: &mut Fast, input: &mut [u8], context: &mut ThreadContext) -> Option<ConnectionEnd> {
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
                // The session has proven that it is UTF-8.
                SessionEvent::Text(text) => self.text(&String::from_utf8_lossy(text), context),
                SessionEvent::Ping(payload) => {
                    // A pong that finds the socket full is none: the server hears of us when it drains.
                    let _ = send::frame(&fast.stream, Opcode::Pong, payload, context.keys.next_u32());
                    None
                }
                SessionEvent::Pong(_) => None,
                SessionEvent::Close(frame) => {
                    let code = frame.map_or(1005, |frame| frame.code.0);
                    let _ = send::close(&fast.stream, CloseCode::NORMAL, context.keys.next_u32());
                    Some(ConnectionEnd::Closed(close_text(code, "")))
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn read(&mut self, mut socket: Box<WebSocket<Lane>>, context: &mut ThreadContext, fills_max: usize) -> WakeOutcome {
        for _ in 0..fills_max {
            let size = context.buffer.len();
            let filled = socket.get_mut().fill(std::mem::take(&mut context.buffer));
            let end = match &filled {
                Ok(bytes) => {
                    context.seen.bytes += *bytes as u64;
                    self.take_messages(&mut socket, context)
                }
                Err(error) if is_later(error) => None,
                Err(_) => Some(ConnectionEnd::Closed(ClientError::Dropped.to_string())),
            };
            context.buffer = socket.get_mut().release();
            if let Some(end) = end {
                return WakeOutcome::Ended(end);
            }
            if filled.unwrap_or(0) < size {
                break;
            }
        }
        self.phase = ConnectionPhase::Independent(socket);
        WakeOutcome::Same
    }

    /// Handles the messages that the lane's bytes complete.
    fn take_messages(&mut self, socket: &mut WebSocket<Lane>, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        let now_ns = now_ns();
        loop {
            let end = match socket.read() {
                Ok(Message::Binary(packet)) => self.packet(&packet, now_ns, context),
                Ok(Message::Text(text)) => self.text(&text, context),
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    let ClientError::Closed { code, .. } = closed(frame) else { unreachable!("closed() makes these") };
                    Some(ConnectionEnd::Closed(close_text(code, "")))
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
                Err(Error::Io(error)) if is_later(&error) => return None,
                Err(error) => Some(end_of(failure(error))),
            };
            if end.is_some() {
                return end;
            }
        }
    }

    fn text(&mut self, text: &str, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        context.seen.messages += 1;
        if context.terms.opaque {
            self.note_data(context);
            return None;
        }
        match Reply::parse(text) {
            Ok(Reply::Error { code, message, .. }) => context.rejected.push(format!("{code}: {message}")),
            Ok(_) => {}
            Err(error) => return Some(ConnectionEnd::Malformed(format!("reply {text:?} is not understood: {error}"))),
        }
        None
    }

    fn packet(&mut self, packet: &[u8], now_ns: u64, context: &mut ThreadContext) -> Option<ConnectionEnd> {
        context.seen.messages += 1;
        self.note_data(context);
        if context.terms.opaque && !self.speaks_packets {
            // Before its first packet, whatever begins like one is looked at twice.
            self.speaks_packets = is_packet(packet);
            if !self.speaks_packets {
                return None;
            }
        }
        let meter = &mut context.meters[usize::from(context.in_storm)];
        let before = self.check.counters().records;
        let is_timed = context.measuring && self.plan.role == ClientRole::Steady && !self.is_replacement;
        let checked = if is_timed {
            let checked = self.check.packet(packet, |header| meter.age(now_ns, header));
            checked.inspect(|header| meter.packet(now_ns, header))
        } else {
            self.check.packet(packet, |_| {})
        };
        context.seen.records += self.check.counters().records - before;
        checked.err().filter(|_| !context.terms.opaque).map(|error| ConnectionEnd::Malformed(error.to_string()))
    }

    fn note_data(&mut self, context: &mut ThreadContext) {
        if !self.has_data {
            self.has_data = true;
            context.joins.first_data.record(ns(self.begun.elapsed()));
        }
    }
}

/// The session's next event. A binary message in one whole frame, as almost all are, is taken here in a few
/// nanoseconds; all else, and all verdicts, are the session's.
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

/// Where the payload of the frame at `at` lies, if that is an unmasked, unfragmented, binary one of less than 64 KiB, and
/// whole.
#[inline]
fn whole_binary(input: &[u8], at: usize) -> Option<(usize, usize)> {
    const BINARY_ALONE: u8 = 0x82;
    let (start, length) = match *input.get(at..)? {
        [BINARY_ALONE, length @ 0..126, ..] => (at + 2, usize::from(length)),
        [BINARY_ALONE, 126, high, low, ..] => (at + 4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    // A length that is not said in the fewest bytes is the session's to refuse.
    let is_minimal = start == at + 2 || length >= 126;
    (is_minimal && start + length <= input.len()).then_some((start, start + length))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn refused(why: String) -> WakeOutcome {
    WakeOutcome::Ended(ConnectionEnd::Refused(why))
}

fn end_of(error: ClientError) -> ConnectionEnd {
    match error {
        ClientError::Dropped => ConnectionEnd::Closed(error.to_string()),
        error => ConnectionEnd::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
