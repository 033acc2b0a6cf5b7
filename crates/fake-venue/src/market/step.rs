//! What happens in a session, in the order of time.

use super::book::{Change, Side};

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    /// The venue's id, from which the ids of Bybit are made.
    pub id: u64,
    /// The price.
    pub px: String,
    /// The size.
    pub sz: String,
    /// The side of the taker.
    pub side: Side,
    /// Time of the trade, ns since the Unix epoch; 0 for the time at which it is sent.
    pub ts_ns: u64,
}

/// The update ids of a recorded change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Of the first change.
    pub first: u64,
    /// Of the last change.
    pub last: u64,
    /// Of the last change of the message before, where messages name it.
    pub previous: Option<u64>,
}

/// An event of one instrument.
#[derive(Clone, Debug)]
pub enum What {
    /// The book changes.
    Changes { changes: Vec<Change>, ids: Option<Ids> },
    /// A trade.
    Trade(Trade),
    /// A recorded quote: best prices with their sizes.
    Quote,
    /// Recorded statistics.
    Ticker,
}

/// An event and its time.
#[derive(Clone, Debug)]
pub struct Step {
    /// Time after the start of the session.
    pub at_ns: u64,
    /// The instrument, by its number in the list.
    pub instrument: usize,
    /// The event.
    pub what: What,
    /// The message of a recording, where the venue still sends it in this form: the value of `data` at Binance.
    pub raw: Option<String>,
}
