//! How connections of a load run end.

use tickcast_client::{CloseReason, Error};

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

/// A refusal without the words "the server refused the connection", which the report has already.
pub(super) fn refusal_text(error: &Error) -> String {
    match error {
        Error::Refused(refusal) => refusal.to_string(),
        other => other.to_string(),
    }
}

/// Closes are counted by code, whatever their reasons.
pub(super) fn closed(code: u16) -> ConnectionEnd {
    ConnectionEnd::Closed(CloseReason { code, reason: String::new() }.to_string())
}

/// By the server, without a close frame.
pub(super) fn dropped() -> ConnectionEnd {
    ConnectionEnd::Closed(Error::Dropped.to_string())
}

/// The end that an error of tungstenite is.
pub(super) fn tungstenite_end(error: tungstenite::Error) -> ConnectionEnd {
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
