//! One connection of a load run, from the TCP connect to its end: a state machine that a worker wakes.
//!
//! ```text
//! Connecting ──► Upgrading ──► Open ──► ended
//! ```
//!
//! What always holds: a wake never blocks and reads a bounded number of bytes; an end is told once, as data.
//! Memory: some 5 KB of process memory for a connection, and 64 to 128 bytes for each instrument that it has seen.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use http::Uri;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tungstenite::{Error, WebSocket};

use super::client::{ClientError, READ_BUFFER_BYTES, Reply, close_text, closed, failure, refusal_message, reply};
use super::decode::Decoder;
use super::lane::Lane;
use super::meter::{Meter, now_ns};

/// Reads of one wake, each of at most the worker's buffer: a busy connection does not starve its neighbours.
const FILLS_MAX: usize = 4;
/// The answer to an upgrade, and what the server says first, fit into this.
const UPGRADE_BUFFER_BYTES: usize = 4096;

/// What one client shall do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The subscribe request; most clients share one.
    pub request: Arc<str>,
    /// Subscribes, and then never reads.
    pub stalled: bool,
    /// The address to bind.
    pub source: Option<IpAddr>,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    pub plan: Plan,
    pub decoder: Decoder,
    /// When its connect was begun.
    pub begun: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Connecting(TcpStream),
    Upgrading(Box<MidHandshake<ClientHandshake<Lane>>>),
    Open(Box<WebSocket<Lane>>),
    Ended,
}

/// What a wake has brought about.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The same phase as before.
    Same,
    /// The TCP connection is there, the upgrade is asked for.
    Asked,
    /// Upgraded and subscribed; and over already, where the server closed at once.
    Connected(Option<End>),
    /// It is over.
    Ended(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Before its upgrade: by what the server or the kernel said.
    Refused(String),
    /// By the server, with a close code or without.
    Closed(String),
    /// By us, for a packet that breaks the layout.
    Malformed(String),
}

/// What the connections of a worker share while one of them is awake.
#[derive(Debug)]
pub struct Desk {
    /// For one read of a socket.
    pub buffer: Vec<u8>,
    /// Bytes received by all.
    pub bytes: u64,
    /// Records received by all.
    pub records: u64,
    pub meter: Meter,
    /// Whether latencies are recorded now.
    pub measuring: bool,
    /// Error replies to subscriptions, in their order.
    pub rejected: Vec<String>,
}

impl Peer {
    /// Begins to connect, without waiting for it.
    pub fn begin(plan: Plan, address: SocketAddr) -> io::Result<Self> {
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
        let phase = Phase::Connecting(socket.into());
        Ok(Self { plan, decoder: Decoder::without_names(), begun: Instant::now(), phase })
    }

    /// The socket, for the poll; `None` once it has ended.
    pub fn stream(&self) -> Option<&TcpStream> {
        match &self.phase {
            Phase::Connecting(stream) => Some(stream),
            Phase::Upgrading(upgrade) => Some(upgrade.get_ref().get_ref().stream()),
            Phase::Open(socket) => Some(socket.get_ref().stream()),
            Phase::Ended => None,
        }
    }

    /// True before the upgrade.
    pub fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_) | Phase::Upgrading(_))
    }

    /// Goes on after the poll has told something of this socket.
    pub fn wake(&mut self, uri: &Uri, desk: &mut Desk) -> Woken {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connecting(stream) => self.ask(stream, uri),
            Phase::Upgrading(upgrade) => self.upgrade(upgrade, desk),
            Phase::Open(socket) => self.read(socket, desk, FILLS_MAX),
            Phase::Ended => Woken::Same,
        }
    }

    /// Gives up on a connection that is not upgraded in time.
    pub fn give_up(&mut self, why: &ClientError) -> End {
        self.phase = Phase::Ended;
        End::Refused(why.to_string())
    }

    /// Reads what has come to a stalled client, so that a close frame in it is found.
    pub fn look_through(&mut self, desk: &mut Desk) -> Option<End> {
        /// At 256 KiB each more than any socket buffer holds.
        const FILLS_ENOUGH: usize = 256;
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Open(socket) => match self.read(socket, desk, FILLS_ENOUGH) {
                Woken::Ended(end) => Some(end),
                _ => None,
            },
            _ => None,
        }
    }

    /// Says goodbye and lets go of the socket.
    pub fn leave(&mut self) {
        if let Phase::Open(mut socket) = std::mem::replace(&mut self.phase, Phase::Ended) {
            // The socket of a client that was not read may be full: then the server learns it from the reset.
            let _ = socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
        }
    }

    /// The TCP connection is there, or has failed: asks for the upgrade.
    fn ask(&mut self, stream: TcpStream, uri: &Uri) -> Woken {
        if let Some(error) = stream.take_error().unwrap_or_else(Some) {
            return refused(error.to_string());
        }
        // Costs a small segment's delay where it fails, nothing else.
        let _ = stream.set_nodelay(true);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let begun = uri
            .into_client_request()
            .and_then(|request| ClientHandshake::start(Lane::new(stream), request, Some(config)));
        match begun.map(MidHandshake::handshake) {
            Ok(Err(HandshakeError::Interrupted(upgrade))) => {
                self.phase = Phase::Upgrading(Box::new(upgrade));
                Woken::Asked
            }
            Ok(Err(HandshakeError::Failure(error))) | Err(error) => refused(failure(error).to_string()),
            Ok(Ok(_)) => unreachable!("a lane that was never filled has no answer in it"),
        }
    }

    fn upgrade(&mut self, mut upgrade: Box<MidHandshake<ClientHandshake<Lane>>>, desk: &mut Desk) -> Woken {
        let lane = upgrade.get_mut().get_mut();
        match lane.fill(vec![0; UPGRADE_BUFFER_BYTES]) {
            Ok(bytes) => desk.bytes += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return refused(error.to_string()),
        }
        match upgrade.handshake() {
            Ok((socket, _)) => self.open(Box::new(socket), desk),
            Err(HandshakeError::Interrupted(mut upgrade)) => {
                upgrade.get_mut().get_mut().release();
                self.phase = Phase::Upgrading(Box::new(upgrade));
                Woken::Same
            }
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                refused(format!("{}{}", response.status(), refusal_message(body)))
            }
            Err(HandshakeError::Failure(error)) => refused(failure(error).to_string()),
        }
    }

    /// Upgraded: subscribes, and reads what came with the answer.
    fn open(&mut self, mut socket: Box<WebSocket<Lane>>, desk: &mut Desk) -> Woken {
        if let Err(error) = socket.send(Message::text(&*self.plan.request)) {
            return refused(failure(error).to_string());
        }
        let end = self.take_messages(&mut socket, desk);
        socket.get_mut().release();
        if end.is_none() {
            self.phase = Phase::Open(socket);
        }
        Woken::Connected(end)
    }

    fn read(&mut self, mut socket: Box<WebSocket<Lane>>, desk: &mut Desk, fills_max: usize) -> Woken {
        for _ in 0..fills_max {
            let size = desk.buffer.len();
            let filled = socket.get_mut().fill(std::mem::take(&mut desk.buffer));
            let end = match &filled {
                Ok(bytes) => {
                    desk.bytes += *bytes as u64;
                    self.take_messages(&mut socket, desk)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(_) => Some(End::Closed(ClientError::Dropped.to_string())),
            };
            desk.buffer = socket.get_mut().release();
            if let Some(end) = end {
                return Woken::Ended(end);
            }
            if filled.unwrap_or(0) < size {
                break;
            }
        }
        self.phase = Phase::Open(socket);
        Woken::Same
    }

    /// Handles the messages that the lane's bytes complete.
    fn take_messages(&mut self, socket: &mut WebSocket<Lane>, desk: &mut Desk) -> Option<End> {
        loop {
            match socket.read() {
                Ok(Message::Binary(packet)) => {
                    if let Some(end) = self.packet(&packet, desk) {
                        return Some(end);
                    }
                }
                Ok(Message::Text(text)) => match reply(&text) {
                    Ok(Reply::Error { code, message }) => desk.rejected.push(format!("{code}: {message}")),
                    Ok(_) => {}
                    Err(error) => return Some(End::Malformed(error.to_string())),
                },
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    let ClientError::Closed { code, .. } = closed(frame) else { unreachable!("closed() makes these") };
                    return Some(End::Closed(close_text(code, "")));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(end_of(failure(error))),
            }
        }
    }

    fn packet(&mut self, packet: &[u8], desk: &mut Desk) -> Option<End> {
        let now_ns = now_ns();
        let (meter, measuring) = (&mut desk.meter, desk.measuring);
        let before = self.decoder.counters().records;
        let decoded = self.decoder.packet(packet, |_, header, _| {
            if measuring {
                meter.record(now_ns, header);
            }
        });
        desk.records += self.decoder.counters().records - before;
        match decoded {
            Ok(header) => {
                if measuring {
                    meter.packet(now_ns, &header);
                }
                None
            }
            Err(error) => Some(End::Malformed(error.to_string())),
        }
    }
}

fn refused(why: String) -> Woken {
    Woken::Ended(End::Refused(why))
}

fn end_of(error: ClientError) -> End {
    match error {
        ClientError::Dropped => End::Closed(error.to_string()),
        error => End::Malformed(error.to_string()),
    }
}
