//! Requests of subscribers: subscribe, unsubscribe, resume, ping, auth.

use std::fmt::Display;

use simd_json::prelude::*;
use simd_json::tape::Object;

use super::field::{self, Field, bad, invalid, over_limit};
use super::{ChannelSet, Pattern, RequestError};
use crate::{Channel, ConflationInterval, Token};

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Names and patterns in one request, repeated ones counted again.
    pub symbols_max: usize,
    /// Bytes of one name or pattern.
    pub symbol_bytes_max: usize,
}

/// A text that is not shown: the token of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Bytes of the longest token that a request may have.
    pub const BYTES_MAX: usize = 8192;

    /// A secret with this text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// A well-formed request; its `id` goes into the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Starts these channels of these symbols.
    Subscribe {
        /// Chosen by the client.
        id: u64,
        /// What of each instrument.
        channels: ChannelSet,
        /// Which instruments.
        symbols: Vec<Pattern>,
        /// At most one value per instrument and state channel in this interval.
        conflate: ConflationInterval,
        /// The last values first.
        snapshot: bool,
    },
    /// Ends them.
    Unsubscribe {
        /// Chosen by the client.
        id: u64,
        /// What of each instrument.
        channels: ChannelSet,
        /// Which instruments.
        symbols: Vec<Pattern>,
    },
    /// Starts them after the last packet that the client has received.
    Resume {
        /// Chosen by the client.
        id: u64,
        /// The token of that packet.
        token: Token,
        /// What of each instrument.
        channels: ChannelSet,
        /// Which instruments.
        symbols: Vec<Pattern>,
        /// At most one value per instrument and state channel in this interval.
        conflate: ConflationInterval,
    },
    /// Is answered with a pong.
    Ping {
        /// Chosen by the client.
        id: u64,
    },
    /// Authenticates the connection.
    Auth {
        /// Chosen by the client.
        id: u64,
        /// A token, or an API key.
        token: Secret,
    },
}

impl Request {
    /// The id that the reply carries.
    pub fn id(&self) -> u64 {
        match self {
            Self::Subscribe { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::Resume { id, .. }
            | Self::Ping { id }
            | Self::Auth { id, .. } => *id,
        }
    }
}

/// Reads one request. The text is parsed in place.
///
/// # Errors
/// The first thing that is wrong, in the order: the text, `op`, `id`, keys that the op does not have, then its fields.
pub fn parse_request(text: &mut [u8], limits: &RequestLimits) -> Result<Request, RequestError> {
    field::with_object(text, |object| {
        let fields = Fields::of(object);
        let known_id = fields.id.and_then(|id| field::id(Some(id)).ok());
        fields.request(object, limits).map_err(|error| RequestError { id: known_id, ..error })
    })
}

const OPS: &str = "subscribe, unsubscribe, resume, ping or auth";
/// The keys of each op.
const KEYS: [(&str, &[&str]); 5] = [
    ("subscribe", &["op", "id", "channels", "symbols", "conflate_ms", "snapshot"]),
    ("unsubscribe", &["op", "id", "channels", "symbols"]),
    ("resume", &["op", "id", "epoch", "position", "channels", "symbols", "conflate_ms"]),
    ("ping", &["op", "id"]),
    ("auth", &["op", "id", "token"]),
];
const CHANNELS: &str = "quote, trade, ticker, book or raw";

/// The keys that a request can have.
struct Fields<'tape, 'text> {
    op: Field<'tape, 'text>,
    id: Field<'tape, 'text>,
    channels: Field<'tape, 'text>,
    symbols: Field<'tape, 'text>,
    conflate_ms: Field<'tape, 'text>,
    snapshot: Field<'tape, 'text>,
    epoch: Field<'tape, 'text>,
    position: Field<'tape, 'text>,
    token: Field<'tape, 'text>,
}

impl<'tape, 'text> Fields<'tape, 'text> {
    fn of(object: &Object<'tape, 'text>) -> Self {
        let keys = ["op", "id", "channels", "symbols", "conflate_ms", "snapshot", "epoch", "position", "token"];
        let [op, id, channels, symbols, conflate_ms, snapshot, epoch, position, token] = field::collect(object, keys);
        Self { op, id, channels, symbols, conflate_ms, snapshot, epoch, position, token }
    }

    fn request(&self, object: &Object<'_, '_>, limits: &RequestLimits) -> Result<Request, RequestError> {
        let op = field::text("op", &self.op, OPS)?;
        if let Some((_, keys)) = KEYS.iter().find(|(of, _)| *of == op) {
            self.id()?;
            field::refuse_unknown(object, keys)?;
        }
        match op {
            "subscribe" => self.subscribe(limits),
            "unsubscribe" => self.unsubscribe(limits),
            "resume" => self.resume(limits),
            "ping" => Ok(Request::Ping { id: self.id()? }),
            "auth" => Ok(Request::Auth { id: self.id()?, token: self.secret()? }),
            other => Err(bad("op", format_args!("unknown op {}: expected {OPS}", field::quote(other)))),
        }
    }

    fn subscribe(&self, limits: &RequestLimits) -> Result<Request, RequestError> {
        Ok(Request::Subscribe {
            id: self.id()?,
            channels: self.channels()?,
            symbols: self.symbols(limits)?,
            conflate: self.conflate()?,
            snapshot: self.snapshot()?,
        })
    }

    fn unsubscribe(&self, limits: &RequestLimits) -> Result<Request, RequestError> {
        Ok(Request::Unsubscribe { id: self.id()?, channels: self.channels()?, symbols: self.symbols(limits)? })
    }

    fn resume(&self, limits: &RequestLimits) -> Result<Request, RequestError> {
        Ok(Request::Resume {
            id: self.id()?,
            token: self.token()?,
            channels: self.channels()?,
            symbols: self.symbols(limits)?,
            conflate: self.conflate()?,
        })
    }

    fn id(&self) -> Result<u64, RequestError> {
        field::id(self.id)
    }

    fn token(&self) -> Result<Token, RequestError> {
        Ok(Token {
            epoch: field::unsigned("epoch", self.epoch, u32::MAX.into())? as u32,
            position: field::unsigned("position", self.position, u64::MAX)?.into(),
        })
    }

    /// The token of an auth. No message repeats it.
    fn secret(&self) -> Result<Secret, RequestError> {
        let value = self.token.as_ref().ok_or_else(|| bad("token", "missing: expected a token as a string"))?;
        let text = value.as_str().ok_or_else(|| bad("token", "not a text: expected a token as a string"))?;
        let max = Secret::BYTES_MAX;
        match text.len() {
            0 => Err(bad("token", "empty: expected a token")),
            bytes if bytes > max => Err(over_limit("token", format_args!("{bytes} bytes: expected at most {max}"))),
            _ => Ok(Secret::new(text)),
        }
    }

    fn channels(&self) -> Result<ChannelSet, RequestError> {
        let mut set = ChannelSet::default();
        for (index, value) in field::list("channels", self.channels, "a list of channels")?.iter().enumerate() {
            let name = value.as_str().ok_or_else(|| invalid(format_args!("channels[{index}]"), &value, CHANNELS))?;
            let unknown =
                || bad("channels", format_args!("unknown channel {}: expected {CHANNELS}", field::quote(name)));
            set.insert(Channel::from_name(name).ok_or_else(unknown)?);
        }
        Ok(set)
    }

    fn symbols(&self, limits: &RequestLimits) -> Result<Vec<Pattern>, RequestError> {
        let list = field::list("symbols", self.symbols, "a list of names and patterns such as \"ETH-*\"")?;
        if list.len() > limits.symbols_max {
            let problem = format_args!("{} in one request: expected at most {}", list.len(), limits.symbols_max);
            return Err(over_limit("symbols", problem));
        }
        list.iter().enumerate().map(|(index, value)| symbol(index, &value, limits)).collect()
    }

    fn conflate(&self) -> Result<ConflationInterval, RequestError> {
        if self.conflate_ms.is_none() {
            return Ok(ConflationInterval::IMMEDIATE);
        }
        let ms = field::unsigned("conflate_ms", self.conflate_ms, u64::MAX)?;
        let most = ConflationInterval::LONGEST.interval_ms();
        let out_of_range = || bad("conflate_ms", format_args!("{ms} is out of range: expected 0 to {most}"));
        ConflationInterval::round_up(ms).ok_or_else(out_of_range)
    }

    fn snapshot(&self) -> Result<bool, RequestError> {
        let Some(value) = self.snapshot else { return Ok(true) };
        value.as_bool().ok_or_else(|| invalid("snapshot", &value, "true or false"))
    }
}

fn symbol(index: usize, value: &simd_json::tape::Value, limits: &RequestLimits) -> Result<Pattern, RequestError> {
    let name = format_args!("symbols[{index}]");
    let text = value.as_str().ok_or_else(|| invalid(name, value, "a name or a pattern"))?;
    parse_symbol(name, text, limits.symbol_bytes_max)
}

/// Reads one name or pattern of a request. `name` is that of its field.
///
/// # Errors
/// [`super::LIMIT`] for a text that is too long, [`super::BAD_REQUEST`] for one that is neither a name nor a pattern.
pub fn parse_symbol(name: impl Display, text: &str, symbol_bytes_max: usize) -> Result<Pattern, RequestError> {
    let bytes = text.len();
    if bytes > symbol_bytes_max {
        let problem = format_args!("{} has {bytes} bytes: expected at most {symbol_bytes_max}", field::quote(text));
        return Err(over_limit(name, problem));
    }
    Pattern::parse(text).map_err(|problem| bad(name, format_args!("{} {problem}", field::quote(text))))
}

#[cfg(test)]
mod tests;
