//! What can go wrong between a client and a server, as sentences that say what happened and what mends it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tungstenite::protocol::CloseFrame;

use super::decode::DecodeError;
use super::target::CONNECT_TIMEOUT;

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no URL of a server.
    #[error("{url:?}: {problem}")]
    Url { url: String, problem: String },
    /// The host has no address.
    #[error("cannot resolve {host:?}: {error}")]
    Resolve { host: String, error: std::io::Error },
    /// Nobody takes the connection.
    #[error("cannot connect to {address}: {}", connect_problem(error))]
    Connect { address: SocketAddr, error: std::io::Error },
    /// The server took the connection, and then said nothing for too long.
    #[error("the server did not answer the {0} within {limit} s", limit = CONNECT_TIMEOUT.as_secs())]
    Silent(&'static str),
    /// The upgrade was answered with an HTTP status other than 101.
    #[error("the server refused the connection: {0}")]
    Refused(Refusal),
    /// A request that the server does not take; the connection goes on without it.
    #[error("the server refused the subscription: {code}: {message}")]
    Rejected { code: String, message: String },
    /// The server closed the connection, with a code of RFC 6455 or 4001 to 4003.
    #[error("the server closed the connection: {}", close_text(*code, reason))]
    Closed { code: u16, reason: String },
    /// The connection broke.
    #[error("the connection ended without a close frame")]
    Dropped,
    /// Nothing came for two heartbeats.
    #[error("the server was silent for {0} ms")]
    Quiet(u64),
    /// The server breaks the rules of WebSocket, or its answers cannot be read.
    #[error("the connection failed: {0}")]
    Protocol(String),
    /// The server breaks the layout of packets.
    #[error("the server sent a malformed packet: {0}")]
    Decode(#[from] DecodeError),
    /// The kernel refuses what every client needs.
    #[error("{what}: {error}")]
    System { what: &'static str, error: std::io::Error },
}

/// An answer to an upgrade that is not a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, such as 503.
    pub status: u16,
    /// The status line's text, and the server's message where there is one.
    pub text: String,
    /// When to try again, as the server says.
    pub retry_after_s: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        self.retry_after_s.map_or(Ok(()), |seconds| write!(f, " (try again in {seconds} s)"))
    }
}

impl Error {
    /// True where another try gets the same answer: credentials that are not good, a URL that is wrong, a server that
    /// speaks another protocol, and a close that is a normal end.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Protocol(_) | Self::Decode(_) | Self::System { .. } | Self::Rejected { .. } => {
                true
            }
            Self::Refused(refusal) => matches!(refusal.status, 400 | 401 | 403 | 404 | 405 | 426),
            Self::Closed { code, .. } => matches!(code, 1000 | 4001 | 4003),
            Self::Resolve { .. } | Self::Connect { .. } | Self::Silent(_) | Self::Dropped | Self::Quiet(_) => false,
        }
    }

    /// The sentence without its preface, for where that is said already: what a server answered to an upgrade.
    pub fn answer(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            other => other.to_string(),
        }
    }
}

/// The error that a close frame of the server is.
pub fn closed(frame: Option<CloseFrame>) -> Error {
    // 1005 stands for "no code was given" (RFC 6455, section 7.1.5).
    let (code, reason) = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
    Error::Closed { code, reason }
}

/// A library's error in our words.
pub fn failure(error: tungstenite::Error) -> Error {
    use tungstenite::error::ProtocolError::{HandshakeIncomplete, ResetWithoutClosingHandshake};
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Error::Dropped,
        tungstenite::Error::Protocol(HandshakeIncomplete | ResetWithoutClosingHandshake) => Error::Dropped,
        tungstenite::Error::Io(error) => read_failure(error),
        error => Error::Protocol(error.to_string()),
    }
}

/// A read or write that failed for good.
pub fn read_failure(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Error::Dropped,
        // A peer that does not read, or that the kernel has given up on.
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Error::Dropped
        }
        _ => Error::Protocol(error.to_string()),
    }
}

/// `: message` of a body `{"error":{"code":"..","message":".."}}`; nothing where the body is something else.
pub fn refusal_message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["error"]["message"].as_str());
    message.map_or_else(String::new, |message| format!(": {message}"))
}

/// `4002 (slow consumer): owes too much`.
pub fn close_text(code: u16, reason: &str) -> String {
    let meaning = match code {
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
        _ => "unknown code",
    };
    if reason.is_empty() { format!("{code} ({meaning})") } else { format!("{code} ({meaning}): {reason}") }
}

fn connect_problem(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused; no server listens there".to_owned(),
        ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}
