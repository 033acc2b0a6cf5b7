//! One JSON text → the messages in it, all values still the venue's text.
//!
//! Keys may come in any order, unknown keys and event types are skipped, and a message that lacks a required key is an
//! error that names the key. Combined streams (`{"stream":…,"data":…}`), bare messages and lists of
//! messages are all read. Prices stay text here: their exponent belongs to the instrument.
//!
//! The text is parsed in place, so the caller passes a copy of it. The time of the matching engine (`T`) is preferred to
//! that at which the message was made (`E`); the venue writes milliseconds, or microseconds where the connection asked
//! for them. Cost: no allocation except for a snapshot's symbol.

use simd_json::prelude::{ValueAsScalar, ValueIntoString};

use super::Market;
use crate::error::{Malformed, TimeFault};
use crate::json::{self, JsonReader, Levels, Object, Value, has, number, text};

/// A message, reduced to the data that this system carries.
pub struct Message<'t, 'i> {
    /// The market, as far as the keys show it; `None` where several markets use the same keys.
    pub market: Option<Market>,
    /// Its content.
    pub body: Body<'t, 'i>,
    /// The message has a time that cannot be read, so its body has none.
    pub time_fault: Option<TimeFault>,
}

/// The content of a message. Times are ns since the Unix epoch, 0 where the venue gives none.
pub enum Body<'t, 'i> {
    /// The best bid and offer.
    Quote(Quote<'i>),
    /// A trade, or several of one order.
    Trade(Trade<'i>),
    /// A number among the trades that is no trade of the market.
    NoTrade {
        /// The instrument.
        symbol: &'i str,
        /// The number.
        trade_id: u64,
    },
    /// Statistics of 24 hours.
    Ticker(Ticker<'i>),
    /// An update of a book.
    Depth(Depth<'t, 'i>),
    /// A book.
    Snapshot(Snapshot<'t, 'i>),
    /// Not market data that this system carries: klines, acknowledgements, settlements among the trades.
    Ignored,
}

/// `bookTicker`.
pub struct Quote<'i> {
    /// The instrument.
    pub symbol: &'i str,
    pub ts_event: u64,
    pub bid_px: &'i str,
    pub bid_sz: &'i str,
    pub ask_px: &'i str,
    pub ask_sz: &'i str,
}

/// `trade`, or `aggTrade`: the trades of one order at one price.
pub struct Trade<'i> {
    /// The instrument.
    pub symbol: &'i str,
    pub ts_event: u64,
    /// That of the last trade (`t`, `l`).
    pub trade_id: u64,
    /// That of the first trade (`f`) of an `aggTrade`.
    pub aggregated_from: Option<u64>,
    /// The number of the `aggTrade` (`a`), without holes.
    pub aggregate: Option<u64>,
    pub px: &'i str,
    pub sz: &'i str,
    /// True where the seller was the aggressor (`m`).
    pub buyer_is_maker: bool,
}

/// `24hrTicker` or `24hrMiniTicker`.
pub struct Ticker<'i> {
    /// The instrument.
    pub symbol: &'i str,
    pub ts_event: u64,
    pub last_px: &'i str,
    pub open_px: &'i str,
    pub high_px: &'i str,
    pub low_px: &'i str,
    pub volume: &'i str,
    pub turnover: &'i str,
    /// Best prices; only spot's full ticker has them.
    pub bid_px: Option<&'i str>,
    pub ask_px: Option<&'i str>,
}

/// `depthUpdate`.
pub struct Depth<'t, 'i> {
    /// The instrument.
    pub symbol: &'i str,
    pub ts_event: u64,
    /// `U`
    pub first_id: u64,
    /// `u`
    pub last_id: u64,
    /// `pu`, in futures only.
    pub previous_id: Option<u64>,
    pub bids: Levels<'t, 'i>,
    pub asks: Levels<'t, 'i>,
}

/// The REST answer `depth`, or a partial book.
pub struct Snapshot<'t, 'i> {
    /// Absent in spot and USD-M.
    pub symbol: Option<String>,
    pub ts_event: u64,
    pub last_update_id: u64,
    /// It has the best 5, 10 or 20 levels of a side only.
    pub is_partial: bool,
    pub bids: Levels<'t, 'i>,
    pub asks: Levels<'t, 'i>,
}

/// Reads messages; keeps its buffers between them.
#[derive(Default)]
pub struct Parser(JsonReader);

impl Parser {
    /// Calls `each` with each message of `json`. The text is changed in place and useless afterwards. An error in one
    /// message of a list does not affect the others; the first error is returned.
    pub fn read(
        &mut self,
        json: &mut [u8],
        mut each: impl FnMut(Message<'_, '_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.0.read(json, |value| read_whole(value, &mut each))
    }
}

pub(super) type Each<'f> = &'f mut dyn FnMut(Message<'_, '_>) -> Result<(), Malformed>;

pub(super) fn read_whole(value: Value<'_, '_>, each: Each<'_>) -> Result<(), Malformed> {
    let envelope = value.as_object();
    let data = envelope.as_ref().and_then(|object| object.get("data"));
    match (envelope, data) {
        (Some(object), Some(data)) => {
            let stream = object.get("stream").and_then(Value::into_string).unwrap_or("");
            read_data(data, stream, each)
        }
        _ => read_data(value, "", each),
    }
}

fn read_data(data: Value<'_, '_>, stream: &str, each: Each<'_>) -> Result<(), Malformed> {
    if let Some(object) = data.as_object() {
        return read_message(&object, stream).and_then(each);
    }
    let list = data.as_array().ok_or(Malformed::NotAMessage)?;
    let mut outcome = Ok(());
    for item in &list {
        let object = item.as_object().ok_or(Malformed::NotAMessage);
        outcome = outcome.and(object.and_then(|object| read_message(&object, stream)).and_then(&mut *each));
    }
    outcome
}

/// The market, as far as the keys show it, and the content.
type Read<'t, 'i> = (Option<Market>, Body<'t, 'i>);

fn read_message<'t, 'i>(object: &Object<'t, 'i>, stream: &str) -> Result<Message<'t, 'i>, Malformed> {
    let ignored = Ok(Message { market: None, body: Body::Ignored, time_fault: None });
    let (ts_event, time_fault) = json::time(object, &["T", "E"]);
    let (market, body) = match object.get("e").and_then(Value::into_string) {
        Some("bookTicker") => read_quote(object, ts_event)?,
        Some("trade") => read_trade(object, ts_event)?,
        Some("aggTrade") => read_aggregate(object, ts_event)?,
        Some("depthUpdate") if is_partial_book(stream) => read_partial(object, ts_event)?,
        Some("depthUpdate") => read_depth(object, ts_event)?,
        Some("24hrTicker" | "24hrMiniTicker") => read_ticker(object, ts_event)?,
        Some(_) => return ignored,
        None if has(object, "lastUpdateId") => read_snapshot(object, stream, ts_event)?,
        // Spot's bookTicker is the only message without a type.
        None if has(object, "s") && ["b", "B", "a", "A"].iter().any(|key| has(object, key)) => {
            read_quote(object, ts_event)?
        }
        None => return ignored,
    };
    Ok(Message { market, body, time_fault })
}

/// True for the best 5, 10 or 20 levels, whole each time (`btcusdt@depth5@100ms`).
fn is_partial_book(stream: &str) -> bool {
    let speciality = stream.split_once("@depth").map(|(_, rest)| rest);
    speciality.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn read_quote<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let symbol = text(object, "s")?;
    let futures = has(object, "e") || has(object, "T");
    let quote = Quote {
        symbol,
        ts_event,
        bid_px: text(object, "b")?,
        bid_sz: text(object, "B")?,
        ask_px: text(object, "a")?,
        ask_sz: text(object, "A")?,
    };
    Ok((Some(market(futures, symbol)), Body::Quote(quote)))
}

fn read_trade<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let symbol = text(object, "s")?;
    let kind = object.get("X").and_then(Value::into_string);
    let market = Some(market(kind.is_some() && !has(object, "M"), symbol));
    let sz = text(object, "q")?;
    // Futures streams number settlements among the trades, with price and size 0, and what the insurance fund or
    // auto-deleveraging took over: none of them is a trade of the market, and `aggTrade` has none of them.
    if matches!(kind, Some("NA" | "INSURANCE_FUND" | "ADL")) || is_zero(sz) {
        return Ok((market, number(object, "t").map_or(Body::Ignored, |trade_id| Body::NoTrade { symbol, trade_id })));
    }
    required(object, "T")?;
    let trade = Trade {
        symbol,
        ts_event,
        trade_id: number(object, "t")?,
        aggregated_from: None,
        aggregate: None,
        px: text(object, "p")?,
        sz,
        buyer_is_maker: buyer_is_maker(object)?,
    };
    Ok((market, Body::Trade(trade)))
}

fn read_aggregate<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let symbol = text(object, "s")?;
    let market = Some(market(!has(object, "M"), symbol));
    let sz = text(object, "q")?;
    if is_zero(sz) {
        return Ok((market, Body::Ignored));
    }
    required(object, "T")?;
    let (first, last) = (number(object, "f")?, number(object, "l")?);
    if first > last {
        return Err(Malformed::Backwards { first, last });
    }
    let trade = Trade {
        symbol,
        ts_event,
        trade_id: last,
        aggregated_from: Some(first),
        aggregate: has(object, "a").then(|| number(object, "a")).transpose()?,
        px: text(object, "p")?,
        sz,
        buyer_is_maker: buyer_is_maker(object)?,
    };
    Ok((market, Body::Trade(trade)))
}

fn buyer_is_maker(object: &Object<'_, '_>) -> Result<bool, Malformed> {
    let value = object.get("m").ok_or(Malformed::Missing("m"))?;
    value.as_bool().ok_or(Malformed::Type { key: "m", expected: "true or false" })
}

/// True for `0`, `0.000` and the like.
fn is_zero(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

fn read_ticker<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let ticker = Ticker {
        symbol: text(object, "s")?,
        ts_event,
        last_px: text(object, "c")?,
        open_px: text(object, "o")?,
        high_px: text(object, "h")?,
        low_px: text(object, "l")?,
        volume: text(object, "v")?,
        turnover: text(object, "q")?,
        bid_px: object.get("b").and_then(Value::into_string),
        ask_px: object.get("a").and_then(Value::into_string),
    };
    Ok((None, Body::Ticker(ticker)))
}

fn read_depth<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let symbol = text(object, "s")?;
    let (first_id, last_id) = (number(object, "U")?, number(object, "u")?);
    if first_id > last_id {
        return Err(Malformed::Backwards { first: first_id, last: last_id });
    }
    let previous_id = has(object, "pu").then(|| number(object, "pu")).transpose()?;
    required(object, "E")?;
    let depth = Depth {
        symbol,
        ts_event,
        first_id,
        last_id,
        previous_id,
        bids: Levels::of(object, "b")?,
        asks: Levels::of(object, "a")?,
    };
    Ok((Some(market(previous_id.is_some(), symbol)), Body::Depth(depth)))
}

/// A partial book of a futures market, which has the keys of an update.
fn read_partial<'t, 'i>(object: &Object<'t, 'i>, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    let symbol = text(object, "s")?;
    let snapshot = Snapshot {
        symbol: Some(symbol.to_owned()),
        ts_event,
        last_update_id: number(object, "u")?,
        is_partial: true,
        bids: Levels::of(object, "b")?,
        asks: Levels::of(object, "a")?,
    };
    Ok((Some(market(has(object, "pu"), symbol)), Body::Snapshot(snapshot)))
}

fn read_snapshot<'t, 'i>(object: &Object<'t, 'i>, stream: &str, ts_event: u64) -> Result<Read<'t, 'i>, Malformed> {
    // COIN-M sends the symbol; a combined stream has it in its name, in lower case.
    let named = object.get("symbol").and_then(Value::into_string).map(str::to_owned);
    let symbol = named.or_else(|| stream.split_once('@').map(|(symbol, _)| symbol.to_uppercase()));
    let futures = has(object, "E") || has(object, "T");
    let snapshot = Snapshot {
        ts_event,
        last_update_id: number(object, "lastUpdateId")?,
        is_partial: is_partial_book(stream),
        bids: Levels::of(object, "bids")?,
        asks: Levels::of(object, "asks")?,
        symbol,
    };
    let market = market(futures, snapshot.symbol.as_deref().unwrap_or(""));
    Ok((Some(market), Body::Snapshot(snapshot)))
}

fn market(futures: bool, symbol: &str) -> Market {
    if futures { Market::of_futures_symbol(symbol) } else { Market::Spot }
}

fn required(object: &Object<'_, '_>, key: &'static str) -> Result<(), Malformed> {
    if has(object, key) { Ok(()) } else { Err(Malformed::Missing(key)) }
}
