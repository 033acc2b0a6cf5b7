//! The conversation from a client's end, for our own clients: requests as text, answers as values.

use serde::{Deserialize, Serialize};

use super::ChannelSet;
use super::define::DefineInstrument;
use super::reply::WelcomeLimits;
use crate::{Channel, Position, Token};

/// The text that asks for these channels of these symbols; the server rounds the interval up.
pub fn subscribe_text(id: u64, channels: ChannelSet, symbols: &[&str], conflate_ms: u32, snapshot: bool) -> String {
    let channels = names(channels);
    text(&Ask::Subscribe { id, channels, symbols, conflate_ms, snapshot })
}

/// The text that wants them no longer.
pub fn unsubscribe_text(id: u64, channels: ChannelSet, symbols: &[&str]) -> String {
    text(&Ask::Unsubscribe { id, channels: names(channels), symbols })
}

/// The text that goes on from the token of the last packet.
pub fn resume_text(id: u64, token: Token, channels: ChannelSet, symbols: &[&str], conflate_ms: u32) -> String {
    let Token { epoch, position } = token;
    text(&Ask::Resume { id, epoch, position, channels: names(channels), symbols, conflate_ms })
}

/// The text that wants an answer.
pub fn ping_text(id: u64) -> String {
    text(&Ask::Ping { id })
}

/// The text with which a publisher announces instruments.
pub fn define_text(id: u64, instruments: &[DefineInstrument]) -> String {
    text(&Ask::Define { id, instruments })
}

/// What the server says in text frames.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reply {
    Welcome {
        epoch: u32,
        version: String,
        heartbeat_ms: u64,
        limits: WelcomeLimits,
    },
    Subscribed {
        id: u64,
        conflate_ms: u32,
        count: usize,
        #[serde(default)]
        unknown: Vec<String>,
        #[serde(default)]
        denied: Vec<String>,
    },
    Unsubscribed {
        id: u64,
        count: usize,
    },
    Resumed {
        id: u64,
        how: String,
        from: Position,
        #[serde(default)]
        conflate_ms: u32,
        #[serde(default)]
        count: usize,
        #[serde(default)]
        unknown: Vec<String>,
    },
    Pong {
        id: u64,
        ts: u64,
    },
    Error {
        id: Option<u64>,
        code: String,
        message: String,
    },
    Closing {
        reason: String,
        #[serde(default)]
        reconnect_ms: u64,
    },
    Defined {
        id: u64,
        instruments: Vec<Defined>,
    },
    /// A record of the JSON encoding, or an answer of a later version: to be passed over.
    #[serde(other)]
    Other,
}

/// The id that a publisher's instrument has got.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Defined {
    pub symbol: String,
    pub instrument: u32,
}

impl Reply {
    /// Reads one text frame. A list is several records of the JSON encoding, hence [`Reply::Other`].
    ///
    /// # Errors
    /// When the text is not JSON, or an answer that is known lacks a field.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        if text.starts_with('[') {
            return Ok(Self::Other);
        }
        serde_json::from_str(text)
    }
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Ask<'a> {
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
    Define {
        id: u64,
        instruments: &'a [DefineInstrument],
    },
}

fn names(channels: ChannelSet) -> Vec<&'static str> {
    channels.iter().map(Channel::name).collect()
}

fn text(ask: &Ask) -> String {
    serde_json::to_string(ask).expect("every key is a text, and no writer can fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConflationInterval;
    use crate::control::{Define, Pattern, Request, RequestLimits, parse_define, parse_request, reply};

    const LIMITS: RequestLimits = RequestLimits { symbols_max: 10, symbol_bytes_max: 64 };

    fn taken(text: String) -> Request {
        parse_request(&mut text.into_bytes(), &LIMITS).unwrap()
    }

    #[test]
    fn what_a_client_writes_is_what_the_server_reads() {
        let channels = ChannelSet::from_iter([Channel::Quote, Channel::Book]);
        let symbols = vec![Pattern::Exact("A\"B\\\n".to_owned()), Pattern::Prefix("é".to_owned())];
        let texts: Vec<String> = symbols.iter().map(Pattern::to_string).collect();
        let names: Vec<&str> = texts.iter().map(String::as_str).collect();
        let conflate = ConflationInterval::round_up(50).unwrap();
        assert_eq!(
            taken(subscribe_text(u64::MAX, channels, &names, 42, false)),
            Request::Subscribe { id: u64::MAX, channels, symbols: symbols.clone(), conflate, snapshot: false }
        );
        assert_eq!(
            taken(unsubscribe_text(1, channels, &names)),
            Request::Unsubscribe { id: 1, channels, symbols: symbols.clone() }
        );
        assert_eq!(
            taken(resume_text(2, Token { epoch: 7, position: Position::MAX }, channels, &names, 50)),
            Request::Resume { id: 2, token: Token { epoch: 7, position: Position::MAX }, channels, symbols, conflate }
        );
        assert_eq!(taken(ping_text(3)), Request::Ping { id: 3 });
    }

    #[test]
    fn what_a_publisher_writes_is_what_the_server_reads() {
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

    #[test]
    fn what_the_server_answers_is_what_a_client_reads() {
        let read = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            Reply::parse(std::str::from_utf8(&out).unwrap()).unwrap()
        };
        let limits = WelcomeLimits { symbols: 1, requests_per_s: 2 };
        let welcome = Reply::Welcome { epoch: u32::MAX, version: "1".to_owned(), heartbeat_ms: 5, limits };
        assert_eq!(read(&|out| reply::welcome(out, u32::MAX, "1", 5, limits)), welcome);
        let (unknown, denied) = (vec!["a\"".to_owned()], vec!["b".to_owned()]);
        let subscribed = Reply::Subscribed { id: u64::MAX, conflate_ms: 10, count: 3, unknown, denied };
        assert_eq!(read(&|out| reply::subscribed(out, u64::MAX, 10, 3, &["a\""], &["b"])), subscribed);
        assert_eq!(read(&|out| reply::unsubscribed(out, 1, 2)), Reply::Unsubscribed { id: 1, count: 2 });
        let (how, unknown) = ("snapshot".to_owned(), vec!["X".to_owned()]);
        let resumed = Reply::Resumed { id: 1, how, from: Position::MAX, conflate_ms: 10, count: 2, unknown };
        let answer =
            reply::Resumed { id: 1, how: "snapshot", from: Position::MAX, conflate_ms: 10, count: 2, unknown: &["X"] };
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
    fn what_a_client_does_not_know_is_passed_over() {
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
