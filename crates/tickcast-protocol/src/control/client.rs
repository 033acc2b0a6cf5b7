//! Control messages from the client's end: requests as text, replies as values.

use serde::{Deserialize, Serialize};

use super::ChannelSet;
use super::define::DefineInstrument;
use super::reply::WelcomeLimits;
use crate::{Channel, Position, Token};

/// A subscribe request. The server rounds the interval up to one that it offers.
pub fn subscribe_text(id: u64, channels: ChannelSet, symbols: &[&str], conflate_ms: u32, snapshot: bool) -> String {
    let channels = names(channels);
    text(&RequestText::Subscribe { id, channels, symbols, conflate_ms, snapshot })
}

/// An unsubscribe request.
pub fn unsubscribe_text(id: u64, channels: ChannelSet, symbols: &[&str]) -> String {
    text(&RequestText::Unsubscribe { id, channels: names(channels), symbols })
}

/// A resume request, with the token of the last packet received.
pub fn resume_text(id: u64, token: Token, channels: ChannelSet, symbols: &[&str], conflate_ms: u32) -> String {
    let Token { epoch, position } = token;
    text(&RequestText::Resume { id, epoch, position, channels: names(channels), symbols, conflate_ms })
}

/// A ping request.
pub fn ping_text(id: u64) -> String {
    text(&RequestText::Ping { id })
}

/// An auth request: authenticates this connection with a token, or with the next one before the last expires.
pub fn auth_text(id: u64, token: &str) -> String {
    text(&RequestText::Auth { id, token })
}

/// A define request of a publisher.
pub fn define_text(id: u64, instruments: &[DefineInstrument]) -> String {
    text(&RequestText::Define { id, instruments })
}

/// A text frame of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reply {
    /// The first message of a connection.
    Welcome {
        /// Names the run of sequences and positions.
        epoch: u32,
        /// Of the server.
        version: String,
        /// A heartbeat is sent after this time without records.
        heartbeat_ms: u64,
        /// Of this connection.
        limits: WelcomeLimits,
        /// Who the client is, if the server identifies clients and it has authenticated itself.
        #[serde(default)]
        user: Option<String>,
        /// Seconds until its token expires, if it does.
        #[serde(default)]
        expires_in_s: Option<u64>,
        /// `required`: nothing but an auth is accepted until there was one.
        #[serde(default)]
        auth: Option<String>,
        /// The age of the data, seconds; 0: live.
        #[serde(default)]
        delay_s: u32,
    },
    /// Answers a subscribe.
    Subscribed {
        /// Of the request.
        id: u64,
        /// The interval granted.
        conflate_ms: u32,
        /// Levels of each side that the client is sent of books, of the shallowest if they differ; `None`: all.
        #[serde(default)]
        book_depth: Option<u32>,
        /// Instruments that it covers now.
        count: usize,
        /// Exact names that no instrument has.
        #[serde(default)]
        unknown: Vec<String>,
        /// Names and patterns of which this client may have nothing.
        #[serde(default)]
        denied: Vec<String>,
        /// Names and patterns of which it gets less than it has asked for.
        #[serde(default)]
        limited: Vec<String>,
        /// Of both, those of which it has a right to data that is older than that of this server.
        #[serde(default)]
        delayed: Vec<String>,
        /// The age of the data, seconds; 0: live.
        #[serde(default)]
        delay_s: u32,
    },
    /// Answers an unsubscribe.
    Unsubscribed {
        /// Of the request.
        id: u64,
        /// Instruments that it covered.
        count: usize,
    },
    /// Answers a resume.
    Resumed {
        /// Of the request.
        id: u64,
        /// `replay` or `snapshot`.
        how: String,
        /// The first position that is sent.
        from: Position,
        /// The interval granted.
        #[serde(default)]
        conflate_ms: u32,
        /// Levels of each side that the client is sent of books, of the shallowest if they differ; `None`: all.
        #[serde(default)]
        book_depth: Option<u32>,
        /// Instruments that it covers now.
        #[serde(default)]
        count: usize,
        /// Exact names that no instrument has.
        #[serde(default)]
        unknown: Vec<String>,
        /// Names and patterns of which this client may have nothing.
        #[serde(default)]
        denied: Vec<String>,
        /// Names and patterns of which it gets less than it has asked for.
        #[serde(default)]
        limited: Vec<String>,
        /// Of both, those of which it has a right to data that is older than that of this server.
        #[serde(default)]
        delayed: Vec<String>,
        /// The age of the data, seconds; 0: live.
        #[serde(default)]
        delay_s: u32,
    },
    /// Answers a ping.
    Pong {
        /// Of the request.
        id: u64,
        /// The server's time, ns since the Unix epoch.
        ts: u64,
    },
    /// Answers an auth: the client is this user from now on.
    Authenticated {
        /// Of the request.
        id: u64,
        /// As the server names it.
        user: String,
        /// Seconds until the token expires, if it does.
        #[serde(default)]
        expires_in_s: Option<u64>,
        /// Names and patterns that this user may not have, and that are subscribed to no more.
        #[serde(default)]
        dropped: Vec<String>,
    },
    /// The token of the connection expires soon.
    Expiring {
        /// Seconds until then.
        in_s: u64,
    },
    /// Refuses a request.
    Error {
        /// Of the request, if the server could read it.
        id: Option<u64>,
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The server is about to close the connection.
    Closing {
        /// For programs.
        reason: String,
        /// When to reconnect.
        #[serde(default)]
        reconnect_ms: u64,
    },
    /// Answers a define.
    Defined {
        /// Of the request.
        id: u64,
        /// In the order of the request.
        instruments: Vec<Defined>,
    },
    /// A record of the JSON encoding, or a reply of a later version: to be ignored.
    #[serde(other)]
    Other,
}

/// The id of an instrument that a publisher has defined.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Defined {
    /// As in the request.
    pub symbol: String,
    /// For the records of this connection.
    pub instrument: u32,
}

impl Reply {
    /// Reads one text frame. A list holds several records of the JSON encoding and is [`Reply::Other`].
    ///
    /// # Errors
    /// When the text is not JSON, or a known reply lacks a field.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        if text.starts_with('[') {
            return Ok(Self::Other);
        }
        serde_json::from_str(text)
    }
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum RequestText<'a> {
    Subscribe {
        id: u64,
        channels: Vec<&'static str>,
        symbols: &'a [&'a str],
        conflate_ms: u32,
        snapshot: bool,
    },
    Unsubscribe {
        id: u64,
        channels: Vec<&'static str>,
        symbols: &'a [&'a str],
    },
    Resume {
        id: u64,
        epoch: u32,
        position: Position,
        channels: Vec<&'static str>,
        symbols: &'a [&'a str],
        conflate_ms: u32,
    },
    Ping {
        id: u64,
    },
    Auth {
        id: u64,
        token: &'a str,
    },
    Define {
        id: u64,
        instruments: &'a [DefineInstrument],
    },
}

fn names(channels: ChannelSet) -> Vec<&'static str> {
    channels.iter().map(Channel::name).collect()
}

fn text(request: &RequestText) -> String {
    serde_json::to_string(request).expect("every key is a string, and writing to memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConflationInterval;
    use crate::control::{Define, Pattern, Request, RequestLimits, Secret, parse_define, parse_request, reply};

    const LIMITS: RequestLimits = RequestLimits { symbols_max: 10, symbol_bytes_max: 64 };

    fn parsed(text: String) -> Request {
        parse_request(&mut text.into_bytes(), &LIMITS).unwrap()
    }

    #[test]
    fn server_reads_the_requests_of_clients() {
        let channels = ChannelSet::from_iter([Channel::Quote, Channel::Book]);
        let symbols = vec![Pattern::Exact("A\"B\\  C".to_owned()), Pattern::Prefix("é".to_owned())];
        let texts: Vec<String> = symbols.iter().map(Pattern::to_string).collect();
        let names: Vec<&str> = texts.iter().map(String::as_str).collect();
        let conflate = ConflationInterval::round_up(50).unwrap();
        assert_eq!(
            parsed(subscribe_text(u64::MAX, channels, &names, 42, false)),
            Request::Subscribe { id: u64::MAX, channels, symbols: symbols.clone(), conflate, snapshot: false }
        );
        assert_eq!(
            parsed(unsubscribe_text(1, channels, &names)),
            Request::Unsubscribe { id: 1, channels, symbols: symbols.clone() }
        );
        assert_eq!(
            parsed(resume_text(2, Token { epoch: 7, position: Position::MAX }, channels, &names, 50)),
            Request::Resume { id: 2, token: Token { epoch: 7, position: Position::MAX }, channels, symbols, conflate }
        );
        assert_eq!(parsed(ping_text(3)), Request::Ping { id: 3 });
        assert_eq!(parsed(auth_text(4, "a.b.c")), Request::Auth { id: 4, token: Secret::new("a.b.c") });
    }

    #[test]
    fn server_reads_the_definitions_of_publishers() {
        let instrument = |tick_size| DefineInstrument {
            symbol: "BTC-€".to_owned(),
            venue: String::new(),
            px_exp: -18,
            sz_exp: 18,
            tick_size,
            lot_size: None,
        };
        let instruments = vec![instrument(None), instrument(Some(i64::MAX))];
        let mut text = define_text(9, &instruments).into_bytes();
        assert_eq!(parse_define(&mut text, 64), Ok(Define { id: 9, instruments }));
    }

    fn read(write: &dyn Fn(&mut Vec<u8>)) -> Reply {
        let mut out = Vec::new();
        write(&mut out);
        Reply::parse(std::str::from_utf8(&out).unwrap()).unwrap()
    }

    #[test]
    fn client_reads_who_it_is_and_how_old_the_data_is() {
        let limits = WelcomeLimits { symbols: 1, requests_per_s: 2 };
        let (user, expires_in_s, auth) = (Some("u".to_owned()), Some(9), Some("required".to_owned()));
        let version = "1".to_owned();
        let delay_s = 900;
        let welcome =
            Reply::Welcome { epoch: u32::MAX, version, heartbeat_ms: 5, limits, user, expires_in_s, auth, delay_s };
        let greeting = reply::Welcome {
            epoch: u32::MAX,
            version: "1",
            heartbeat_ms: 5,
            limits,
            user: Some("u"),
            expires_in_s: Some(9),
            auth: Some("required"),
            delay_s,
        };
        assert_eq!(read(&|out| reply::welcome(out, &greeting)), welcome);
        let (user, dropped) = ("u".to_owned(), vec!["A".to_owned()]);
        let authenticated = Reply::Authenticated { id: 1, user, expires_in_s: None, dropped };
        assert_eq!(read(&|out| reply::authenticated(out, 1, "u", None, &["A"])), authenticated);
        assert_eq!(read(&|out| reply::expiring(out, 60)), Reply::Expiring { in_s: 60 });
    }

    #[test]
    fn client_reads_the_replies_of_the_server() {
        let delay_s = 900;
        let (unknown, denied) = (vec!["a\"".to_owned()], vec!["b".to_owned()]);
        let (limited, delayed) = (vec!["c*".to_owned()], vec!["b".to_owned()]);
        let (id, book_depth) = (u64::MAX, Some(5));
        let subscribed =
            Reply::Subscribed { id, conflate_ms: 10, book_depth, count: 3, unknown, denied, limited, delayed, delay_s };
        let answer = reply::Subscribed {
            id,
            conflate_ms: 10,
            book_depth,
            count: 3,
            unknown: &["a\""],
            denied: &["b"],
            limited: &["c*"],
            delayed: &["b"],
            delay_s,
        };
        assert_eq!(read(&|out| reply::subscribed(out, &answer)), subscribed);
        assert_eq!(read(&|out| reply::unsubscribed(out, 1, 2)), Reply::Unsubscribed { id: 1, count: 2 });
        let (how, unknown) = ("snapshot".to_owned(), vec!["X".to_owned()]);
        let (denied, limited, delayed) = (vec!["Y".to_owned()], vec![], vec![]);
        let from = Position::MAX;
        let (id, book_depth) = (1, None);
        let conflate_ms = 10;
        let resumed = Reply::Resumed {
            id,
            how,
            from,
            conflate_ms,
            book_depth,
            count: 2,
            unknown,
            denied,
            limited,
            delayed,
            delay_s,
        };
        let answer = reply::Resumed {
            id: 1,
            how: "snapshot",
            from,
            conflate_ms: 10,
            book_depth,
            count: 2,
            unknown: &["X"],
            denied: &["Y"],
            delay_s,
            ..reply::Resumed::default()
        };
        assert_eq!(read(&|out| reply::resumed(out, &answer)), resumed);
        assert_eq!(read(&|out| reply::pong(out, 1, 2)), Reply::Pong { id: 1, ts: 2 });
        for id in [None, Some(4)] {
            let error = Reply::Error { id, code: "limit".to_owned(), message: "m\n".to_owned() };
            assert_eq!(read(&|out| reply::error(out, id, "limit", "m\n")), error);
        }
        let closing = Reply::Closing { reason: "drain".to_owned(), reconnect_ms: 6 };
        assert_eq!(read(&|out| reply::closing(out, "drain", 6)), closing);
        let instruments = vec![Defined { symbol: "x".to_owned(), instrument: u32::MAX }];
        assert_eq!(read(&|out| reply::defined(out, 1, &[("x", u32::MAX)])), Reply::Defined { id: 1, instruments });
    }

    #[test]
    fn unknown_replies_and_keys_are_ignored() {
        for text in
            [r#"{"type":"quote","symbol":"A","bid_px":"1"}"#, r#"{"type":"later","x":[1]}"#, r#"[{"type":"trade"}]"#]
        {
            assert_eq!(Reply::parse(text).unwrap(), Reply::Other, "{text}");
        }
        let pong = r#"{"type":"pong","later":{},"id":1,"ts":2}"#;
        assert_eq!(Reply::parse(pong).unwrap(), Reply::Pong { id: 1, ts: 2 });
        assert!(Reply::parse(r#"{"type":"pong","id":1}"#).is_err());
        assert!(Reply::parse("nonsense").is_err());
    }
}
