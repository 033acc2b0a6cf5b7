//! The server's replies: each appends one JSON text, without a frame, to the caller's buffer.
//!
//! ```json
//! {"type":"welcome","epoch":7,"version":"0.1.0","heartbeat_ms":1000,"limits":{"symbols":10000,"requests_per_s":50}}
//! {"type":"subscribed","id":1,"conflate_ms":0,"count":37,"unknown":["FOO-BAR"],"denied":[]}
//! {"type":"authenticated","id":4,"user":"u-17","expires_in_s":600,"dropped":[]}
//! {"type":"expiring","in_s":60}
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

/// The greeting of a client.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Welcome<'a> {
    /// Of all numbers.
    pub epoch: u32,
    /// Of the server.
    pub version: &'a str,
    /// A heartbeat is sent after this time without records.
    pub heartbeat_ms: u64,
    /// Of the connection.
    pub limits: WelcomeLimits,
    /// Who the client is, if it has authenticated itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// Seconds until its token expires, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// `required`: nothing but an auth is accepted until there was one. `optional`: an auth may bring other rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<&'a str>,
    /// The age of the data, seconds; 0: live.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_s: u32,
}

/// Greets a client.
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome<'_>) {
    push(out, &Answer::Welcome(welcome));
}

/// Answers an auth: who the client is, the seconds until its token expires, and the names and patterns that it may not
/// have any more.
pub fn authenticated(out: &mut Vec<u8>, id: u64, user: &str, expires_in_s: Option<u64>, dropped: &[&str]) {
    push(out, &Answer::Authenticated { id, user, expires_in_s, dropped });
}

/// Announces that the token of a connection expires.
pub fn expiring(out: &mut Vec<u8>, in_s: u64) {
    push(out, &Answer::Expiring { in_s });
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The reply to a subscribe.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Subscribed<'a> {
    /// Of the request.
    pub id: u64,
    /// The interval granted.
    pub conflate_ms: u32,
    /// Levels of each side that the client is sent of books, of the shallowest if they differ; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub book_depth: Option<u32>,
    /// Instruments that it covers now.
    pub count: usize,
    /// Exact names that no instrument has.
    pub unknown: &'a [&'a str],
    /// Names and patterns of which the client may have nothing.
    pub denied: &'a [&'a str],
    /// Names and patterns of which the client gets less than it has asked for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub limited: &'a [&'a str],
    /// Of both, those of which it has a right to data that is older than that of this server.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub delayed: &'a [&'a str],
    /// The age of the data, seconds; 0: live.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_s: u32,
}

/// Answers a subscribe.
pub fn subscribed(out: &mut Vec<u8>, subscribed: &Subscribed<'_>) {
    push(out, &Answer::Subscribed(subscribed));
}

/// Answers an unsubscribe: how many instruments it covered.
pub fn unsubscribed(out: &mut Vec<u8>, id: u64, count: usize) {
    push(out, &Answer::Unsubscribed { id, count });
}

/// The reply to a resume.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Resumed<'a> {
    /// Of the request.
    pub id: u64,
    /// `replay` or `snapshot`.
    pub how: &'a str,
    /// The first position that is sent.
    pub from: Position,
    /// The interval granted.
    pub conflate_ms: u32,
    /// Levels of each side that the client is sent of books, of the shallowest if they differ; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub book_depth: Option<u32>,
    /// Instruments that it covers now.
    pub count: usize,
    /// Exact names that no instrument has.
    pub unknown: &'a [&'a str],
    /// Names and patterns of which the client may have nothing.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub denied: &'a [&'a str],
    /// Names and patterns of which the client gets less than it has asked for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub limited: &'a [&'a str],
    /// Of both, those of which it has a right to data that is older than that of this server.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub delayed: &'a [&'a str],
    /// The age of the data, seconds; 0: live.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_s: u32,
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
    Welcome(&'a Welcome<'a>),
    Authenticated {
        id: u64,
        user: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in_s: Option<u64>,
        dropped: &'a [&'a str],
    },
    Expiring {
        in_s: u64,
    },
    Subscribed(&'a Subscribed<'a>),
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
        let mut greeting = Welcome {
            epoch: 7,
            version: "0.1.0",
            heartbeat_ms: 1000,
            limits,
            user: None,
            expires_in_s: None,
            auth: None,
            delay_s: 0,
        };
        let plain = text(|out| welcome(out, &greeting));
        greeting.auth = Some("required");
        assert!(text(|out| welcome(out, &greeting)).ends_with(r#","auth":"required"}"#));
        (greeting.auth, greeting.user, greeting.expires_in_s) = (None, Some("u-17"), Some(600));
        assert!(text(|out| welcome(out, &greeting)).ends_with(r#","user":"u-17","expires_in_s":600}"#));
        greeting.delay_s = 900;
        assert!(text(|out| welcome(out, &greeting)).ends_with(r#","expires_in_s":600,"delay_s":900}"#));
        let authenticated = text(|out| authenticated(out, 4, "u-17", Some(600), &["XAU-*"]));
        assert_eq!(
            authenticated,
            r#"{"type":"authenticated","id":4,"user":"u-17","expires_in_s":600,"dropped":["XAU-*"]}"#
        );
        assert_eq!(text(|out| expiring(out, 60)), r#"{"type":"expiring","in_s":60}"#);
        assert_eq!(
            plain,
            r#"{"type":"welcome","epoch":7,"version":"0.1.0","heartbeat_ms":1000,"limits":{"symbols":10000,"requests_per_s":50}}"#
        );
        let answer = Subscribed { id: 1, count: 37, unknown: &["FOO-BAR"], ..Subscribed::default() };
        assert_eq!(
            text(|out| subscribed(out, &answer)),
            r#"{"type":"subscribed","id":1,"conflate_ms":0,"count":37,"unknown":["FOO-BAR"],"denied":[]}"#
        );
        let answer = Subscribed { denied: &["X"], limited: &["*"], delayed: &["X", "*"], ..answer };
        assert!(
            text(|out| subscribed(out, &answer)).ends_with(r#""denied":["X"],"limited":["*"],"delayed":["X","*"]}"#)
        );
        let answer = Subscribed { delay_s: 900, ..Subscribed::default() };
        assert!(text(|out| subscribed(out, &answer)).ends_with(r#""denied":[],"delay_s":900}"#));
        assert_eq!(text(|out| unsubscribed(out, 2, 1)), r#"{"type":"unsubscribed","id":2,"count":1}"#);
        let answer = Resumed {
            id: 3,
            how: "replay",
            from: Position::new(91824),
            conflate_ms: 10,
            count: 2,
            unknown: &["FOO"],
            ..Resumed::default()
        };
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
