//! Control: what clients and publishers ask in JSON text, and what the server answers.
//!
//! A request is taken whole or refused whole, and a refusal names the field, what was given, and what would be right.
//! Keys come in any order, unknown keys are ignored, of a repeated key the last counts. Nothing that a peer writes can
//! panic, recurse, or cost more than time and memory in proportion to its length. Who may ask what, and how often, is
//! decided elsewhere.
//!
//! * [`request`]: what subscribers ask.
//! * [`define`]: what publishers ask.
//! * [`reply`]: the server's answers.
//! * [`client`]: the same conversation from the other end, for our own clients.
//!
//! Cost: in proportion to the text; each request allocates its working memory, some 30 times its
//! length at the worst.

mod client;
mod define;
mod field;
pub mod reply;
mod request;

use std::fmt;

use crate::Channel;

pub use client::{Defined, Reply, define_text, ping_text, resume_text, subscribe_text, unsubscribe_text};
pub use define::{Define, DefineInstrument, INSTRUMENTS_MAX, parse_define};
pub(super) use field::{bad, quote};
pub use request::{Request, RequestLimits, parse_request};

/// A set of channels, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChannelSet(u8);

impl ChannelSet {
    /// Every channel there is.
    pub const ALL: Self = Self((1 << Channel::COUNT) - 1);

    /// True where the channel is in the set.
    pub fn contains(self, channel: Channel) -> bool {
        self.0 & Self::bit(channel) != 0
    }

    /// Puts the channel into the set.
    pub fn insert(&mut self, channel: Channel) {
        self.0 |= Self::bit(channel);
    }

    /// The channels of the set, in wire order.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(move |channel| self.contains(*channel))
    }

    /// True where no channel is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(channel: Channel) -> u8 {
        1 << channel as u8
    }
}

impl FromIterator<Channel> for ChannelSet {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        let mut set = Self::default();
        channels.into_iter().for_each(|channel| set.insert(channel));
        set
    }
}

/// Which symbols a request is about: one by its name, or all that begin alike, those that appear later included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// One symbol by its whole name.
    Exact(String),
    /// Every symbol that begins so: `ETH-*` holds `ETH-`, and `*` holds the empty prefix of them all.
    Prefix(String),
}

/// Why text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No text at all.
    #[error("is empty; want a name such as \"BTC-USD\", or a pattern such as \"ETH-*\" or \"*\"")]
    Empty,
    /// A `*` that is not the last character.
    #[error("has a * before its end; a pattern has one *, at its end")]
    StarInside,
}

impl Pattern {
    /// Reads a name or a pattern with one `*` at its end.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (stem, prefix) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if stem.contains('*') {
            return Err(PatternError::StarInside);
        }
        Ok(if prefix { Self::Prefix(stem.to_owned()) } else { Self::Exact(stem.to_owned()) })
    }

    /// True where the pattern covers the symbol.
    pub fn matches(&self, symbol: &str) -> bool {
        match self {
            Self::Exact(name) => symbol == name,
            Self::Prefix(stem) => symbol.starts_with(stem.as_str()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => out.write_str(name),
            Self::Prefix(stem) => write!(out, "{stem}*"),
        }
    }
}

/// Why a request was refused: what the `error` answer carries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RequestError {
    /// The request's id, where it could be read.
    pub id: Option<u64>,
    /// One of [`BAD_REQUEST`] and [`LIMIT`].
    pub code: &'static str,
    /// The field, what was given, and what would be right.
    pub message: String,
}

/// The code of a request that is not well formed.
pub const BAD_REQUEST: &str = "bad_request";
/// The code of a request that asks for more than one request may.
pub const LIMIT: &str = "limit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_set_holds_what_was_put_in_and_nothing_else() {
        let mut set = ChannelSet::default();
        assert!(set.is_empty());
        set.insert(Channel::Raw);
        set.insert(Channel::Quote);
        set.insert(Channel::Raw);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Channel::Quote, Channel::Raw]);
        for channel in Channel::ALL {
            assert_eq!(set.contains(channel), matches!(channel, Channel::Quote | Channel::Raw), "{channel:?}");
        }
        assert_eq!(ChannelSet::from_iter(Channel::ALL), ChannelSet::ALL);
    }

    #[test]
    fn a_pattern_covers_its_name_or_all_that_begin_alike() {
        for (text, covered, not_covered) in [
            ("BTC-USD", "BTC-USD", "BTC-USDT"),
            ("ETH-*", "ETH-EUR", "ETH"),
            ("ETH-*", "ETH-", "BETH-EUR"),
            ("é*", "éa", "ea"),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert!(pattern.matches(covered), "{text} {covered}");
            assert!(!pattern.matches(not_covered), "{text} {not_covered}");
            assert_eq!(pattern.to_string(), text);
        }
        let all = Pattern::parse("*").unwrap();
        assert_eq!(all, Pattern::Prefix(String::new()));
        assert!(all.matches("") && all.matches("anything"));
    }

    #[test]
    fn a_star_stands_at_the_end_or_is_an_error() {
        for text in ["*A", "A*B", "**", "A**", "*A*"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::StarInside), "{text}");
        }
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
    }
}
