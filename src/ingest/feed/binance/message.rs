//! One JSON text → the messages in it, all values still the venue's text.
//!
//! Keys may come in any order, unknown keys and event types are skipped, and a message that lacks a required key is an
//! error that names the key. Combined streams (`{"stream":…,"data":…}`), bare messages and lists of
//! messages are all read. Prices stay text here: their exponent belongs to the instrument.
//!
//! simd-json works in place, so the caller passes a copy of the line; tape and scratch buffers are kept between calls.
//! Cost: no allocation except for a snapshot's symbol; the time is part of the cost of a line in
//! [`crate::ingest::feed::replay`].

use simd_json::prelude::{ValueAsScalar, ValueIntoString};
use simd_json::value::tape::{Array, Object, Value};
use simd_json::{Buffers, Tape};

use super::Market;
use crate::ingest::feed::stamp::{self, NotATime};
use tickcast_protocol::SymbolError;
use tickcast_protocol::decimal::DecimalError;

/// A message, reduced to the data that this system carries.
pub struct Message<'t, 'i> {
    /// The market, as far as the keys show it; `None` where several markets use the same keys.
    pub market: Option<Market>,
    pub body: Body<'t, 'i>,
    /// The message has a time that cannot be read, so its body has none.
    pub time_fault: Option<TimeFault>,
}

/// A time of the venue that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {key:?}: {error}: the records of this message have no time")]
pub struct TimeFault {
    key: &'static str,
    error: NotATime,
}

/// The content of a message. Times are ns since the Unix epoch, 0 where the venue gives none.
pub enum Body<'t, 'i> {
    Quote(Quote<'i>),
    Trade(Trade<'i>),
    /// A number among the trades that is no trade of the market.
    NoTrade {
        symbol: &'i str,
        trade_id: u64,
    },
    Ticker(Ticker<'i>),
    Depth(Depth<'t, 'i>),
    Snapshot(Snapshot<'t, 'i>),
    /// Not market data that this system carries: klines, acknowledgements, settlements among the trades.
    Ignored,
}

/// `bookTicker`.
pub struct Quote<'i> {
    pub symbol: &'i str,
    pub ts_event: u64,
    pub bid_px: &'i str,
    pub bid_sz: &'i str,
    pub ask_px: &'i str,
    pub ask_sz: &'i str,
}

/// `trade`, or `aggTrade`: the trades of one order at one price.
pub struct Trade<'i> {
    pub symbol: &'i str,
    pub ts_event: u64,
    /// That of the last trade (`t`, `l`).
    pub trade_id: u64,
    /// That of the first trade (`f`) of an `aggTrade`.
    pub aggregated_from: Option<u64>,
    pub px: &'i str,
    pub sz: &'i str,
    /// True where the seller was the aggressor (`m`).
    pub buyer_is_maker: bool,
}

/// `24hrTicker` or `24hrMiniTicker`.
pub struct Ticker<'i> {
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

/// One side's `[["price","size"],…]`.
#[derive(Clone, Copy)]
pub struct Levels<'t, 'i> {
    key: &'static str,
    list: Array<'t, 'i>,
}

impl<'i> Levels<'_, 'i> {
    /// Their key, for errors.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Each `(price, size)`.
    pub fn iter(&self) -> impl Iterator<Item = Result<(&'i str, &'i str), Malformed>> {
        self.list.iter().map(|level| {
            let pair = level.as_array();
            let text = |at| pair.as_ref().and_then(|pair| pair.get(at)).and_then(Value::into_string);
            text(0).zip(text(1)).ok_or(Malformed::Type { key: self.key, expected: "a list of [\"price\",\"size\"]" })
        })
    }
}

/// Why a message was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("expected a JSON object or a list of objects")]
    NotAMessage,
    #[error("key {0:?} is missing")]
    Missing(&'static str),
    #[error("key {key:?}: expected {expected}")]
    Type { key: &'static str, expected: &'static str },
    #[error("key {key:?}: {text:?}: {error}")]
    Decimal { key: &'static str, text: String, error: DecimalError },
    #[error("key {key:?}: {text:?} is below zero")]
    Negative { key: &'static str, text: String },
    #[error("prices or sizes with {0} decimals: expected at most 18")]
    Decimals(i8),
    #[error("ids from {first} to {last} run backwards")]
    Backwards { first: u64, last: u64 },
    #[error("symbol of {0} bytes: expected 1 to 54")]
    Symbol(usize),
    #[error("symbol {text:?} {error}")]
    SymbolText { text: String, error: SymbolError },
    #[error("snapshot without a symbol: {0} books are possible")]
    WhoseSnapshot(usize),
}

/// Reads messages; keeps its buffers between them.
pub struct Parser {
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        Self { buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }
}

impl Parser {
    /// Calls `each` with each message of `json`. The text is changed in place and useless afterwards. An error in one
    /// message of a list does not affect the others; the first error is returned.
    pub fn read(
        &mut self,
        json: &mut [u8],
        mut each: impl FnMut(Message<'_, '_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let outcome = match simd_json::fill_tape(json, &mut self.buffers, &mut tape) {
            Ok(()) => read_whole(tape.as_value(), &mut each),
            Err(error) => Err(Malformed::NotJson(error.to_string())),
        };
        self.tape = tape.reset();
        outcome
    }
}

type Each<'f> = &'f mut dyn FnMut(Message<'_, '_>) -> Result<(), Malformed>;

fn read_whole(value: Value<'_, '_>, each: Each<'_>) -> Result<(), Malformed> {
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
    let (ts_event, time_fault) = time(object);
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
        bids: levels(object, "b")?,
        asks: levels(object, "a")?,
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
        bids: levels(object, "b")?,
        asks: levels(object, "a")?,
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
        bids: levels(object, "bids")?,
        asks: levels(object, "asks")?,
        symbol,
    };
    let market = market(futures, snapshot.symbol.as_deref().unwrap_or(""));
    Ok((Some(market), Body::Snapshot(snapshot)))
}

fn market(futures: bool, symbol: &str) -> Market {
    if futures { Market::of_futures_symbol(symbol) } else { Market::Spot }
}

fn has(object: &Object<'_, '_>, key: &str) -> bool {
    object.get(key).is_some()
}

fn required(object: &Object<'_, '_>, key: &'static str) -> Result<(), Malformed> {
    if has(object, key) { Ok(()) } else { Err(Malformed::Missing(key)) }
}

fn text<'i>(object: &Object<'_, 'i>, key: &'static str) -> Result<&'i str, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.into_string().ok_or(Malformed::Type { key, expected: "a string" })
}

fn number(object: &Object<'_, '_>, key: &'static str) -> Result<u64, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.as_u64().ok_or(Malformed::Type { key, expected: "a whole number from 0" })
}

fn levels<'t, 'i>(object: &Object<'t, 'i>, key: &'static str) -> Result<Levels<'t, 'i>, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    let list = value.as_array().ok_or(Malformed::Type { key, expected: "a list of [\"price\",\"size\"]" })?;
    Ok(Levels { key, list })
}

/// The time of the matching engine (`T`), else the time the message was made (`E`), else 0; in ns. The venue writes
/// milliseconds, or microseconds where the connection asked for them; collectors write others, as numbers or texts.
fn time(object: &Object<'_, '_>) -> (u64, Option<TimeFault>) {
    let mut fault = None;
    for key in ["T", "E"] {
        match object.get(key).map(stamp_of) {
            // 0 is how some write that there is no time.
            None | Some(Ok(0)) => {}
            Some(Ok(time_ns)) => return (time_ns, fault),
            Some(Err(error)) => fault = fault.or(Some(TimeFault { key, error })),
        }
    }
    (0, fault)
}

fn stamp_of(value: Value<'_, '_>) -> Result<u64, NotATime> {
    if let Some(number) = value.as_u64() {
        return if number == 0 { Ok(0) } else { stamp::of_number(number) };
    }
    if let Some(text) = value.into_string() {
        return stamp::parse(text);
    }
    // The shortest text of a double has the digits that were written, up to 17 of them.
    let below_zero = value.as_i64().map(|number| number.to_string());
    let number = below_zero.or_else(|| value.as_f64().map(|number| number.to_string()));
    stamp::parse(number.as_deref().unwrap_or("a value of another type"))
}
