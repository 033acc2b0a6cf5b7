//! The server's replies: each appends one JSON text, without a frame, to the caller's buffer.
//!
//! ```json
//! {"type":"welcome","epoch":7,"version":"0.1.0","heartbeat_ms":1000,"limits":{"symbols":10000,"requests_per_s":50}}
//! {"type":"subscribed","id":1,"conflate_ms":0,"count":37,"unknown":["FOO-BAR"],"denied":[]}
//! {"type":"unsubscribed","id":2,"count":1}
//! {"type":"resumed","id":3,"how":"replay","from":91824,"conflate_ms":10,"count":2,"unknown":[]}
//! {"type":"pong","id":4,"ts":1763700000000000000}
//! {"type":"error","id":1,"code":"bad_request","message":"id: missing: expected a whole number"}
//! {"type":"closing","reason":"slow_consumer","reconnect_ms":1500}
//! {"type":"defined","id":5,"instruments":[{"symbol":"BTC-USD","instrument":1}]}
//! ```
//!
//! Cost: that of writing. Except for [`defined`], nothing is allocated once the buffer has grown.

use serde::{Deserialize, Serialize};

use crate::Position;

/// Limits of one connection, as the welcome reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeLimits {
    /// Symbols in one request.
    pub symbols: u64,
    /// Requests in a second.
    pub requests_per_s: u64,
}

/// Greets a client: the epoch of all numbers, the server's version, and the limits of the connection.
pub fn welcome(out: &mut Vec<u8>, epoch: u32, version: &str, heartbeat_ms: u64, limits: WelcomeLimits) {
    push(out, &Answer::Welcome { epoch, version, heartbeat_ms, limits });
}

/// Answers a subscribe: the interval granted, how many instruments it covers now, the exact names that no instrument
/// has, and those that the client may not have.
pub fn subscribed(out: &mut Vec<u8>, id: u64, conflate_ms: u32, count: usize, unknown: &[&str], denied: &[&str]) {
    push(out, &Answer::Subscribed { id, conflate_ms, count, unknown, denied });
}

/// Answers an unsubscribe: how many instruments it covered.
pub fn unsubscribed(out: &mut Vec<u8>, id: u64, count: usize) {
    push(out, &Answer::Unsubscribed { id, count });
}

/// The reply to a resume.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Resumed<'a> {
    /// Of the request.
    pub id: u64,
    /// `replay` or `snapshot`.
    pub how: &'a str,
    /// The first position that is sent.
    pub from: Position,
    /// The interval granted.
    pub conflate_ms: u32,
    /// Instruments that it covers now.
    pub count: usize,
    /// Exact names that no instrument has.
    pub unknown: &'a [&'a str],
}

/// Answers a resume. A second reply with the same id reports that the replay could not be finished, and `how` the
/// stream continues.
pub fn resumed(out: &mut Vec<u8>, resumed: &Resumed<'_>) {
    push(out, &Answer::Resumed(resumed));
}

/// Answers a ping with the server's time, ns since the Unix epoch.
pub fn pong(out: &mut Vec<u8>, id: u64, ts: u64) {
    push(out, &Answer::Pong { id, ts });
}

/// Refuses a request; without an id if it could not be read.
pub fn error(out: &mut Vec<u8>, id: Option<u64>, code: &str, message: &str) {
    push(out, &Answer::Error { id, code, message });
}

/// Announces that the connection is about to be closed, and when to reconnect.
pub fn closing(out: &mut Vec<u8>, reason: &str, reconnect_ms: u64) {
    push(out, &Answer::Closing { reason, reconnect_ms });
}

/// Answers a define: the ids of the instruments, in the order of the request.
pub fn defined(out: &mut Vec<u8>, id: u64, instruments: &[(&str, u32)]) {
    let instruments =
        instruments.iter().map(|&(symbol, instrument)| DefinedInstrument { symbol, instrument }).collect();
    push(out, &Answer::Defined { id, instruments });
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Answer<'a> {
    Welcome {
        epoch: u32,
        version: &'a str,
        heartbeat_ms: u64,
        limits: WelcomeLimits,
    },
    Subscribed {
        id: u64,
        conflate_ms: u32,
        count: usize,
        unknown: &'a [&'a str],
        denied: &'a [&'a str],
    },
    Unsubscribed {
        id: u64,
        count: usize,
    },
    Resumed(&'a Resumed<'a>),
    Pong {
        id: u64,
        ts: u64,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: &'a str,
        message: &'a str,
    },
    Closing {
        reason: &'a str,
        reconnect_ms: u64,
    },
    Defined {
        id: u64,
        instruments: Vec<DefinedInstrument<'a>>,
    },
}

#[derive(Serialize)]
struct DefinedInstrument<'a> {
    symbol: &'a str,
    instrument: u32,
}

fn push(out: &mut Vec<u8>, answer: &Answer) {
    serde_json::to_writer(out, answer).expect("a Vec accepts all bytes, and every key is a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_match_the_protocol() {
        let limits = WelcomeLimits { symbols: 10_000, requests_per_s: 50 };
        let welcome = text(|out| welcome(out, 7, "0.1.0", 1000, limits));
        assert_eq!(
            welcome,
            r#"{"type":"welcome","epoch":7,"version":"0.1.0","heartbeat_ms":1000,"limits":{"symbols":10000,"requests_per_s":50}}"#
        );
        let subscribed = text(|out| subscribed(out, 1, 0, 37, &["FOO-BAR"], &[]));
        assert_eq!(
            subscribed,
            r#"{"type":"subscribed","id":1,"conflate_ms":0,"count":37,"unknown":["FOO-BAR"],"denied":[]}"#
        );
        assert_eq!(text(|out| unsubscribed(out, 2, 1)), r#"{"type":"unsubscribed","id":2,"count":1}"#);
        let answer =
            Resumed { id: 3, how: "replay", from: Position::new(91824), conflate_ms: 10, count: 2, unknown: &["FOO"] };
        let resumed = text(|out| resumed(out, &answer));
        let wanted =
            r#"{"type":"resumed","id":3,"how":"replay","from":91824,"conflate_ms":10,"count":2,"unknown":["FOO"]}"#;
        assert_eq!(resumed, wanted);
        let pong = text(|out| pong(out, 4, 1_763_700_000_000_000_000));
        assert_eq!(pong, r#"{"type":"pong","id":4,"ts":1763700000000000000}"#);
        let closing = text(|out| closing(out, "slow_consumer", 1500));
        assert_eq!(closing, r#"{"type":"closing","reason":"slow_consumer","reconnect_ms":1500}"#);
        let defined = text(|out| defined(out, 1, &[("BTC-USD", 1)]));
        assert_eq!(defined, r#"{"type":"defined","id":1,"instruments":[{"symbol":"BTC-USD","instrument":1}]}"#);
    }

    #[test]
    fn error_is_escaped_and_has_an_id_only_if_known() {
        let message = "channels: unknown channel \"quotes\"; have\u{1}";
        assert_eq!(
            text(|out| error(out, Some(u64::MAX), "bad_request", message)),
            r#"{"type":"error","id":18446744073709551615,"code":"bad_request","message":"channels: unknown channel \"quotes\"; have\u0001"}"#
        );
        assert_eq!(
            text(|out| error(out, None, "bad_request", "not JSON")),
            r#"{"type":"error","code":"bad_request","message":"not JSON"}"#
        );
    }

    #[test]
    fn reply_is_appended_to_the_buffer() {
        let mut out = b"before".to_vec();
        unsubscribed(&mut out, 2, 1);
        assert!(out.starts_with(b"before{"));
    }
}
