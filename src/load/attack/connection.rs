//! One connection of an attack. It never waits: it is visited, and does what can be done at once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::script::{Leaves, Script, last_answer};
use tickcast_client::{Error, Stream, Target, TlsConfig};

/// How long one connect may delay the other connections of its kind.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The receive buffer of a connection that does not read, as small as the kernel permits, so that answers stay with the
/// server.
const UNREAD_BUFFER_BYTES: usize = 2 * 1024;
/// A bound for a server that sends without pause, a visit.
const READS_MAX: usize = 16;
/// What a connection over TLS needs.
const READ_BYTES: usize = 64 * 1024;
/// Where the status of an answer is, as in `HTTP/1.1 101`, and how much of an answer has it.
const STATUS_AT: usize = 9;
const STATUS_END: usize = 12;
/// What the head of an answer ends with.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// No head of an answer is as long as this.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The server.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub target: Target,
    pub tls: TlsConfig,
}

/// A connection that is open.
#[derive(Debug)]
pub struct AttackConnection {
    stream: Stream,
    phase: Phase,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    /// Actions so far.
    actions: usize,
}

#[derive(Debug)]
enum Phase {
    /// The beginning of the answer.
    Answer(Vec<u8>),
    /// The last bytes that were read, of which the last answer may be a part.
    Open(Vec<u8>),
    /// Visits until it leaves.
    Leaving(u32),
}

/// What a visit found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It sent an action.
    Acted,
    /// It waits: for an answer, or until the socket takes more.
    Waited,
    /// It leaves by itself, and is to be dropped.
    Left,
    /// The same, and that was its action.
    Reset,
    /// The server answered with an error, and it is to be dropped.
    Refused,
    /// The server ended it.
    Ended,
}

/// What arrived in a visit.
enum Arrived {
    /// Whether the server may send more.
    Bytes {
        is_open: bool,
    },
    Refusal,
}

impl AttackConnection {
    /// Connects, from this address where one is given, and sends the head. It is reset when it is dropped, so that no
    /// port stays in TIME_WAIT.
    pub fn open(peer: &Peer, source: Option<IpAddr>, script: &Script, head: &[u8]) -> Result<Self, Error> {
        let address = peer.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if !script.reads {
            // Before the connect, which tells the server the window.
            socket.set_recv_buffer_size(UNREAD_BUFFER_BYTES)?;
        }
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
        // It never waits, for the peer's part of a handshake neither.
        socket.set_nonblocking(true)?;
        let stream = Stream::open(&peer.target, socket.into(), &peer.tls)?;
        let mut connection = Self::of(stream, Phase::Answer(Vec::new()))?;
        connection.send(head)?;
        Ok(connection)
    }

    /// A connection whose upgrade is granted.
    pub fn upgraded(stream: Stream) -> io::Result<Self> {
        Self::of(stream, Phase::Open(Vec::new()))
    }

    fn of(stream: Stream, phase: Phase) -> io::Result<Self> {
        rustix::net::sockopt::set_socket_linger(stream.socket(), Some(Duration::ZERO))?;
        stream.socket().set_nonblocking(true)?;
        Ok(Self { stream, phase, unsent: Vec::new(), actions: 0 })
    }

    /// Reads what has arrived, and sends what is next. `nth` is the number of the connection.
    pub fn visit(&mut self, script: &Script, nth: u64) -> Visit {
        if script.leaves == Leaves::AtOnce {
            return Visit::Reset;
        }
        match self.receive(script, nth) {
            Ok(Arrived::Bytes { is_open: true }) => {}
            Ok(Arrived::Refusal) => return Visit::Refused,
            Ok(Arrived::Bytes { is_open: false }) if script.leaves == Leaves::Ended => return Visit::Left,
            Ok(Arrived::Bytes { is_open: false }) | Err(_) => return Visit::Ended,
        }
        match &mut self.phase {
            _ if script.leaves == Leaves::Secured => {
                return if self.stream.is_handshaking() { Visit::Waited } else { Visit::Reset };
            }
            Phase::Answer(_) if script.upgrades => return Visit::Waited,
            Phase::Leaving(0) => return Visit::Left,
            Phase::Leaving(visits) => *visits -= 1,
            _ => {}
        }
        self.act(script)
    }

    fn act(&mut self, script: &Script) -> Visit {
        if !self.unsent.is_empty() {
            let rest = std::mem::take(&mut self.unsent);
            return self.send(&rest).map_or(Visit::Ended, |()| Visit::Waited);
        }
        if matches!(script.leaves, Leaves::Answered { .. }) && self.actions == script.actions.len() {
            return Visit::Waited;
        }
        let Some(action) = script.actions.get(self.actions % script.actions.len().max(1)) else {
            return Visit::Waited;
        };
        self.actions += 1;
        self.send(action).map_or(Visit::Ended, |()| Visit::Acted)
    }

    /// Sends what the socket takes, and keeps the rest: a frame that is cut would end the connection.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if is_temporary(&error) => 0,
            Err(error) => return Err(error),
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn receive(&mut self, script: &Script, nth: u64) -> io::Result<Arrived> {
        if !script.reads {
            return self.is_connected().map(|is_open| Arrived::Bytes { is_open });
        }
        let mut bytes = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Arrived::Bytes { is_open: false }),
                Ok(read) if self.on_bytes(&bytes[..read], script, nth)? => {}
                Ok(_) => return Ok(Arrived::Refusal),
                Err(error) if is_temporary(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Arrived::Bytes { is_open: true })
    }

    /// Whether the peer has neither closed nor reset the connection, whatever is unread.
    fn is_connected(&self) -> io::Result<bool> {
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut polled = [PollFd::new(self.stream.socket(), PollFlags::RDHUP)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(!polled[0].revents().intersects(ended))
    }

    /// False where the answer to the head is an error.
    fn on_bytes(&mut self, bytes: &[u8], script: &Script, nth: u64) -> io::Result<bool> {
        match &mut self.phase {
            Phase::Answer(answer) => {
                let room = ANSWER_BYTES_MAX.saturating_sub(answer.len());
                answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
                let Some(status) = answer.get(STATUS_AT..STATUS_END) else { return Ok(true) };
                let granted = if script.upgrades { status == b"101" } else { status.starts_with(b"2") };
                let head = answer.windows(HEAD_END.len()).position(|window| window == HEAD_END);
                if let Some(head) = head.filter(|_| granted && script.upgrades) {
                    // The first frames may have come with the head.
                    let rest = answer.split_off(head + HEAD_END.len());
                    self.phase = Phase::Open(Vec::new());
                    self.send(&script.greeting(nth))?;
                    return self.on_bytes(&rest, script, nth);
                }
                Ok(granted)
            }
            Phase::Open(tail) => {
                if let Leaves::Answered { visits } = script.leaves {
                    let wanted = last_answer();
                    tail.extend_from_slice(bytes);
                    if contains(tail, &wanted) {
                        self.phase = Phase::Leaving(visits);
                    } else {
                        tail.drain(..tail.len().saturating_sub(wanted.len()));
                    }
                }
                Ok(true)
            }
            Phase::Leaving(_) => Ok(true),
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
