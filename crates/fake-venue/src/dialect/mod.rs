//! The dialogue of each venue, from its documents: what a client may ask, and how events are written.
//!
//! A dialect has no state of its own. It reads a request and says what is to be done; it writes events as texts. What is
//! subscribed, sent and limited is the hub's.

mod binance;
mod binance_rest;
mod bybit;
mod coinbase;
mod kraken;
mod okx;
pub mod text;

use crate::hub::connection::Connection;
use crate::market::step::Trade;
use crate::market::view::{Update, View};
use crate::market::{Listed, Market};
use crate::venue::VenueKind;

/// A channel of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Best prices.
    Quote,
    /// Trades, one by one.
    Trade,
    /// Trades of one order at one price.
    AggTrade,
    /// Statistics.
    Ticker,
    /// Changes of the book.
    Book(Depth),
    /// The best levels, each time all of them.
    BestLevels(u32),
    /// A sign of life of an instrument.
    Heartbeat,
    /// The list of instruments.
    Listing,
    /// The state of the venue.
    Status,
}

/// The form of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Depth {
    /// Levels on each side; 0 for the whole book.
    pub levels: u32,
    /// Time between messages.
    pub interval_ms: u32,
}

/// What is subscribed. The number of an instrument is that in the list; where a channel is of no instrument, it is the
/// dialect's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// The channel.
    pub channel: Channel,
    /// The instrument.
    pub instrument: usize,
}

/// What a client asked for, as steps in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends a text.
    Send(String),
    /// Subscribes; `name` is how messages name the stream. The stream begins with a snapshot if it has one and
    /// `with_snapshot` is set.
    Subscribe { stream: Stream, name: String, with_snapshot: bool },
    /// Accepts the subscription and sends nothing on it: a name that nothing belongs to.
    Accept { name: String },
    /// Ends a subscription.
    Unsubscribe { stream: Stream, name: String },
    /// Wraps messages in the name of their stream, or not.
    SetCombined(bool),
}

/// An event to be written.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Best prices have changed.
    Quote,
    /// A trade.
    Trade { trade: &'a Trade, raw: Option<&'a str> },
    /// Statistics have changed.
    Ticker,
    /// A view of the book has changed.
    Book(&'a Update),
}

/// How a WebSocket address is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Messages are wrapped in the name of their stream.
    pub is_combined: bool,
    /// Which channels the address carries.
    pub route: Route,
    /// Requests that the address contains, as if they were sent.
    pub requests: Vec<String>,
}

/// Which channels an address carries. A stream on another address is acknowledged, and nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// All of them.
    Any,
    /// USD-M: books and best prices.
    Public,
    /// USD-M: everything else.
    Market,
    /// USD-M: retired in April 2026.
    Retired,
}

impl Route {
    /// True if messages of the channel come at this address.
    pub fn carries(self, channel: Channel) -> bool {
        let is_public = matches!(channel, Channel::Quote | Channel::Trade | Channel::Book(_) | Channel::BestLevels(_));
        match self {
            Self::Any => true,
            Self::Public => is_public,
            Self::Market => !is_public,
            Self::Retired => false,
        }
    }
}

/// Path and query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The path.
    pub path: String,
    /// Keys and values, decoded.
    pub query: Vec<(String, String)>,
}

impl Target {
    /// Reads `/path?key=value&…`.
    pub fn parse(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        Self { path, query: form_urlencoded::parse(query.as_bytes()).into_owned().collect() }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// What a REST request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// An answer with a status, a JSON text, and the weight of the request.
    Answer { status: u16, body: String, weight: u32 },
    /// The book of an instrument: the hub answers it with [`Dialect::rest_book`], as it may be late or stale.
    Book { instrument: usize, limit: usize, weight: u32 },
    /// No such path.
    Unknown,
}

/// The dialogue of a venue.
pub trait Dialect: Send {
    /// How the address is used; `None` if there is no WebSocket at this path.
    fn upgrade(&self, target: &Target) -> Option<Upgrade>;

    /// What is sent when a connection is open.
    fn greeting(&self, _market: &Market, _connection: u64, _now_ns: u64) -> Vec<String> {
        Vec::new()
    }

    /// What is to be done for a text of a client.
    fn request(&self, text: &str, connection: &Connection, market: &Market, now_ns: u64) -> Vec<Action>;

    /// How a view of a book is made: depth in levels (0 for the whole), and whether levels that leave it are removed.
    fn removes_leaving_levels(&self) -> bool {
        true
    }

    /// The first messages of a stream.
    fn first(&self, _market: &Market, _stream: Stream, _name: &str, _view: Option<&View>, _now_ns: u64) -> Vec<String> {
        Vec::new()
    }

    /// True if statistics are sent with this event, and not at intervals.
    fn ticker_follows(&self, _event: Event<'_>) -> bool {
        false
    }

    /// True if the venue sends statistics at intervals.
    fn has_periodic_ticker(&self) -> bool {
        true
    }

    /// The message of an event on a stream.
    fn message(&self, of: &Listed, stream: Stream, name: &str, event: Event<'_>, now_ns: u64) -> Option<String>;

    /// A message in the name of its stream.
    fn wrapped(&self, _name: &str, message: &str) -> String {
        message.to_owned()
    }

    /// What is sent each second.
    fn heartbeat(&self, _market: &Market, _connection: &Connection, _is_quiet: bool, _now_ns: u64) -> Vec<String> {
        Vec::new()
    }

    /// What tells that the list of instruments has changed, on these subscriptions.
    fn listing_changed(&self, _market: &Market, _instrument: usize, _stream: Stream, _now_ns: u64) -> Option<String> {
        None
    }

    /// What tells that the connection will be closed soon.
    fn closing_notice(&self, _connection: &Connection, _now_ns: u64) -> Option<String> {
        None
    }

    /// What tells that trading stops for maintenance, or begins again.
    fn maintenance_status(&self, _is_trading: bool, _connection: &Connection, _now_ns: u64) -> Option<String> {
        None
    }

    /// Reads a REST request.
    fn rest(&self, target: &Target, market: &Market, now_ns: u64) -> Rest;

    /// The answer to a request for a book.
    fn rest_book(&self, _of: &Listed, _limit: usize, _now_ns: u64) -> String {
        String::new()
    }

    /// The answer to a request beyond the limits.
    fn rest_limited(&self, _retry_after_s: u64) -> String {
        r#"{"message":"rate limit exceeded"}"#.to_owned()
    }
}

/// The dialect of a venue. `with_checksums` makes OKX state the checksums that it stated until June 2026.
pub fn dialect(venue: VenueKind, with_checksums: bool) -> Box<dyn Dialect> {
    match venue {
        VenueKind::Binance | VenueKind::BinanceUsdM | VenueKind::BinanceCoinM => Box::new(binance::Binance::new(venue)),
        VenueKind::Coinbase => Box::new(coinbase::Coinbase),
        VenueKind::Kraken => Box::new(kraken::Kraken),
        VenueKind::Bybit | VenueKind::BybitLinear | VenueKind::BybitInverse => Box::new(bybit::Bybit::new(venue)),
        VenueKind::Okx => Box::new(okx::Okx { with_checksums }),
    }
}

/// The id of a trade as the venue writes it.
pub fn sent_id(venue: VenueKind, id: u64) -> String {
    match venue {
        VenueKind::BybitLinear | VenueKind::BybitInverse => bybit::uuid(id),
        _ => id.to_string(),
    }
}
