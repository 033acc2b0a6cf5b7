//! Why a message of a venue, or a request to it, was rejected. Each says the key and the value, then what was expected.

use tickcast_protocol::SymbolError;
use tickcast_protocol::decimal::DecimalError;

use crate::stamp::NotATime;

/// Why a message was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON of another shape.
    #[error("expected a JSON object or a list of objects")]
    NotAMessage,
    /// A key that the message has to have.
    #[error("key {0:?} is missing")]
    Missing(&'static str),
    /// A value of another type.
    #[error("key {key:?}: expected {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// The type, in words.
        expected: &'static str,
    },
    /// A price or size that is not a number, or that no exponent holds.
    #[error("key {key:?}: {text:?}: {error}")]
    Decimal {
        /// The key.
        key: &'static str,
        /// Its value.
        text: String,
        /// What is wrong with it.
        error: DecimalError,
    },
    /// A size below zero.
    #[error("key {key:?}: {text:?} is below zero")]
    Negative {
        /// The key.
        key: &'static str,
        /// Its value.
        text: String,
    },
    /// A range of update or trade ids that ends before it begins.
    #[error("ids from {first} to {last} run backwards")]
    Backwards {
        /// The first id.
        first: u64,
        /// The last id.
        last: u64,
    },
    /// A symbol without a byte, or with too many.
    #[error("symbol of {0} bytes: expected 1 to 54")]
    Symbol(usize),
    /// A text that cannot be a symbol.
    #[error("symbol {text:?} {error}")]
    SymbolText {
        /// The text.
        text: String,
        /// Why.
        error: SymbolError,
    },
    /// A name with too many bytes.
    #[error("name of {bytes} bytes: expected 1 to {most}")]
    Name {
        /// How many it has.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A record that does not name its instrument.
    #[error("the record has no symbol: expected a text under the key of the symbol")]
    NoSymbol,
    /// A record of another type.
    #[error("type {0:?}: expected quote, trade, ticker, book, raw, status, definition, gap or heartbeat")]
    Kind(String),
    /// A snapshot of Binance that does not say of which instrument it is.
    #[error("snapshot without a symbol: {0} books are possible")]
    WhoseSnapshot(usize),
    /// The limit of instruments was reached.
    #[error("instrument beyond the first {0} of this source")]
    TooManyInstruments(usize),
    /// An answer of another kind than the one that was asked for.
    #[error("answer to {asked}: {problem}")]
    Answer {
        /// The path of the request.
        asked: String,
        /// What the venue said.
        problem: String,
    },
}

/// A time of the venue that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {key:?}: {error}: the records of this message have no time")]
pub struct TimeFault {
    pub(crate) key: &'static str,
    pub(crate) error: NotATime,
}

/// Why a subscription cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The venue's list has no such instrument.
    #[error("{venue}: unknown symbol {symbol:?}: expected one of its {listed} instruments{}", similar_text(.similar))]
    UnknownSymbol {
        /// The venue.
        venue: &'static str,
        /// The symbol that was asked for.
        symbol: String,
        /// How many instruments the venue lists.
        listed: usize,
        /// Names of the list that are like it.
        similar: Vec<String>,
    },
    /// More than the limit of instruments.
    #[error("{venue}: {given} instruments: expected at most {most}")]
    TooMany {
        /// The venue.
        venue: &'static str,
        /// How many were asked for.
        given: usize,
        /// The limit.
        most: usize,
    },
    /// A symbol that cannot be one.
    #[error(transparent)]
    Symbol(#[from] Malformed),
    /// A depth of the book that the venue does not offer.
    #[error("{venue}: depth {given}: expected {expected}")]
    Depth {
        /// The venue.
        venue: &'static str,
        /// The depth that was asked for.
        given: u32,
        /// The depths that it has, in words.
        expected: &'static str,
    },
}

fn similar_text(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!(", such as {}", similar.join(", ")) }
}
