//! Server-Sent Events: the messages of the JSON encoding as events of the default type, tokens as their ids.
//!
//! An event is a few lines and an empty one. JSON as it is written here has no line break, so that one `data` line holds
//! a message. What is cut off amid an event is thrown away by its reader, together with its id.
//!
//! * [`push_event`], [`push_packet_event`], [`push_retry`]: what is sent.
//! * [`Token`]: what an id says, and `Last-Event-ID` gives back.
//! * [`query`]: what a client asks, as the query of its URL.

pub mod query;

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use super::packet::{PacketHeader, flags};

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Appends an event without an id: a reader keeps the id that it has.
pub fn push_event(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(message);
    out.extend_from_slice(b"\n\n");
}

/// Appends a packet's message. Its token is the id, but amid a snapshot: who came back with that would miss the values
/// that the snapshot had not come to.
pub fn push_packet_event(header: &PacketHeader, message: &[u8], out: &mut Vec<u8>) {
    let amid_snapshot = header.flags & (flags::SNAPSHOT | flags::CAUGHT_UP) == flags::SNAPSHOT;
    if !amid_snapshot {
        let token = Token { epoch: header.epoch, position: header.position };
        writeln!(out, "id: {token}").expect("a Vec takes all");
    }
    push_event(message, out);
}

/// Appends a line that says after how long a reader should come back when the stream has ended. It belongs to the event
/// that has to follow.
pub fn push_retry(ms: u64, out: &mut Vec<u8>) {
    writeln!(out, "retry: {ms}").expect("a Vec takes all");
}

/// A place in a stream to go on from, written `EPOCH-POSITION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub epoch: u32,
    pub position: u64,
}

impl Token {
    /// A token of no stream: it is answered with a snapshot.
    pub const NOWHERE: Self = Self { epoch: 0, position: u64::MAX };
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want EPOCH-POSITION, two whole numbers such as 7-91823: the id of the last event")]
pub struct TokenError;

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (epoch, position) = text.split_once('-').ok_or(TokenError)?;
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(epoch) || !is_number(position) {
            return Err(TokenError);
        }
        let (epoch, position) = (epoch.parse().map_err(|_| TokenError)?, position.parse().map_err(|_| TokenError)?);
        Ok(Self { epoch, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PacketHeader = PacketHeader { flags: 0, count: 1, epoch: 7, position: 91_823, ts_send: 12 };

    fn packet_event(flags: u8) -> String {
        let mut out = Vec::new();
        push_packet_event(&PacketHeader { flags, ..HEADER }, b"{}", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_has_its_token_as_id_but_amid_a_snapshot() {
        for whole in [0, flags::SNAPSHOT | flags::CAUGHT_UP, flags::REPLAY, flags::REPLAY | flags::CAUGHT_UP] {
            assert_eq!(packet_event(whole), "id: 7-91823\ndata: {}\n\n", "{whole}");
        }
        assert_eq!(packet_event(flags::SNAPSHOT), "data: {}\n\n");
        let mut out = Vec::new();
        push_retry(1500, &mut out);
        push_event(b"{}", &mut out);
        assert_eq!(out, b"retry: 1500\ndata: {}\n\n");
    }

    #[test]
    fn a_token_is_two_whole_numbers_and_nothing_else() {
        for token in [Token { epoch: 7, position: 91_823 }, Token { epoch: u32::MAX, position: u64::MAX }] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in ["", "-", "7", "7-", "-7", "7-8-9", "+7-8", "7--8", " 7-8", "7-8 ", "4294967296-1", "x-1", "1-٣"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text:?}");
        }
    }
}
