//! What can go wrong between a client and a server. Each message says what happened and, where there is one, the cure.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::decode::DecodeError;
use crate::timeouts::CONNECT_TIMEOUT;
use tickcast_protocol::ws::CloseFrame;

/// Why a client or a publisher failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not the URL of a server.
    #[error("invalid URL {url:?}: {problem}")]
    Url {
        /// The text.
        url: String,
        /// What was expected.
        problem: &'static str,
    },
    /// The host has no address.
    #[error("cannot resolve {host:?}: {error}")]
    Resolve {
        /// The host's name.
        host: String,
        /// The resolver's error.
        error: io::Error,
    },
    /// No server takes the connection.
    #[error("cannot connect to {address}: {}", connect_problem(error))]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// The kernel's error.
        error: io::Error,
    },
    /// The server took the connection and then did not answer this request in time.
    #[error("the server did not answer the {0} within {limit} s", limit = CONNECT_TIMEOUT.as_secs())]
    Unanswered(&'static str),
    /// A value cannot be sent as a header of the upgrade request.
    #[error("invalid header {0}: expected visible ASCII characters")]
    Header(&'static str),
    /// The token function has failed, or what it returned cannot be a token, which the text does not have.
    #[error("no token: {0}")]
    Token(String),
    /// The connection cannot be encrypted: the server's certificate is refused, or the server does not speak TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The upgrade was answered with an HTTP status other than 101.
    #[error("the server refused the connection: {0}")]
    Refused(Refusal),
    /// The server refused a request. The connection goes on.
    #[error("the server refused the request: {code}: {message}")]
    Rejected {
        /// The protocol's word, such as `bad_request`.
        code: String,
        /// What was wrong and what was expected.
        message: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {0}")]
    Closed(CloseReason),
    /// The connection broke.
    #[error("the connection ended without a close frame")]
    Dropped,
    /// The server was silent for more than two heartbeat intervals.
    #[error("the server was silent for {silent_ms} ms")]
    HeartbeatTimeout {
        /// How long the client waited.
        silent_ms: u64,
    },
    /// The server breaks the rules of HTTP or WebSocket, or sends a reply that cannot be read.
    #[error("the connection failed: {0}")]
    Protocol(String),
    /// The server sent a packet that breaks the layout.
    #[error("the server sent a malformed packet: {0}")]
    Decode(#[from] DecodeError),
    /// A socket option or a thread that the kernel refuses.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

/// An answer to an upgrade request other than 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, such as 503.
    pub status: u16,
    /// The status line's text, and the server's message where there is one.
    pub text: String,
    /// The server's `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.retry_after_s.map_or(Ok(()), |seconds| write!(f, " (try again in {seconds} s)"))
    }
}

/// The code and the reason of a close frame, shown as `4002 (slow consumer): 4 MiB are pending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// A code of RFC 6455, section 7.4, or 4001 to 4005. 1005 stands for a frame without a code (section 7.1.5).
    pub code: u16,
    /// The server's text; may be empty.
    pub reason: String,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.code {
            1000 => "normal",
            1001 => "going away",
            1002 => "protocol error",
            1005 => "no code given",
            1007 => "bad UTF-8",
            1008 => "policy",
            1009 => "too big",
            1011 => "internal error",
            4001 => "credentials expired",
            4002 => "slow consumer",
            4003 => "no longer entitled",
            4005 => "session limit",
            _ => "unknown code",
        };
        write!(f, "{} ({meaning})", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// The reason of a close frame as [`tickcast_protocol::ws::Session`] reads it.
impl From<Option<CloseFrame<'_>>> for CloseReason {
    fn from(frame: Option<CloseFrame<'_>>) -> Self {
        let (code, reason) = frame.map_or((1005, ""), |frame| (frame.code.0, frame.reason));
        Self { code, reason: reason.to_owned() }
    }
}

impl Error {
    /// True where another attempt fails in the same way, or ends what has taken this one's place: wrong credentials, a
    /// wrong URL, a server that speaks another protocol, a normal close, and a newer session of the user.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Header(_) | Self::Tls(_) | Self::Protocol(_) | Self::Decode(_) => true,
            Self::System { .. } | Self::Rejected { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 400 | 401 | 403 | 404 | 405 | 426),
            Self::Closed(close) => matches!(close.code, 1000 | 4001 | 4003 | 4005),
            Self::Resolve { .. } | Self::Connect { .. } | Self::Unanswered(_) => false,
            Self::Dropped | Self::HeartbeatTimeout { .. } | Self::Token(_) => false,
        }
    }
}

/// The error for a read or a write that failed for good.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Dropped,
            // A peer that does not read, or that the kernel has given up on.
            ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => Self::Dropped,
            _ => Self::Protocol(error.to_string()),
        }
    }
}

fn connect_problem(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused; no server listens there".to_owned(),
        ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}
