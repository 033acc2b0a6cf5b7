//! Bybit v5, public topics (bybit-exchange.github.io/docs/v5/websocket/public).
//!
//! * Quotes are `orderbook.1`, which has snapshots only. Books are `orderbook.50`, `.200` or `.1000`: a snapshot, then
//!   deltas whose `u` grows by one. A snapshot may come at any time, and `u` 1 is one after a restart of the service.
//! * `tickers` of derivatives come as a snapshot and then changes, in which an absent key is unchanged; they are merged.
//! * The ids of trades are numbers in spot and UUIDs elsewhere, and have no order: lost trades are not noticed, repeated
//!   ones are known by the ids of the newest. Of a UUID the record has the first 64 bits.
//! * A subscription is acknowledged by the number of the request, not by topic.

use std::collections::VecDeque;

use serde_json::json;
use simd_json::prelude::ValueAsScalar;
use tickcast_protocol::{Channel, InstrumentStatus};

use crate::awaited::Awaited;
use crate::codec::{Arrival, Dialect, Operation, Ping};
use crate::error::{Malformed, SubscribeError};
use crate::json::{self, Field, Object, Sides, Value};
use crate::listing::{self, Kind, Listing};
use crate::sink::{BookFault, Event};
use crate::stream_book::{BookMessage, NoCheck, StreamKept};
use crate::streams::RequestLimit;
use crate::tracked::{QuoteText, TickerText, TradeText};

pub(crate) const DEPTHS: [u32; 3] = [50, 200, 1000];
const DEPTH_USUAL: u32 = 200;
/// "Spot can input up to 10 args for each subscription request."
const TOPICS_PER_REQUEST: usize = 10;

/// The venue's categories, which have separate connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Spot,
    /// Perpetuals and futures that are settled in USDT or USDC.
    Linear,
    /// Perpetuals and futures that are settled in the coin.
    Inverse,
}

/// The newest trades of an instrument whose ids are kept, to know a message that is repeated.
const RECENT_TRADES: usize = 64;

/// The ids of the newest trades, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct RecentTrades(VecDeque<u64>);

impl RecentTrades {
    /// Notes a trade; false if it is one of them.
    fn note(&mut self, trade_id: u64) -> bool {
        if self.0.contains(&trade_id) {
            return false;
        }
        if self.0.len() == RECENT_TRADES {
            self.0.pop_front();
        }
        self.0.push_back(trade_id);
        true
    }
}

type Kept = StreamKept<RecentTrades>;

/// The codec's own state.
pub(crate) struct Bybit {
    category: Category,
    depth: u32,
    awaited: Awaited,
    /// The merged `tickers`, by the index of the instrument.
    statistics: Vec<Statistics>,
}

impl Bybit {
    /// With books of this depth, or of the usual one.
    pub(crate) fn new(category: Category, depth: Option<u32>) -> Self {
        let depth = depth.unwrap_or(DEPTH_USUAL);
        Self { category, depth, awaited: Awaited::default(), statistics: Vec::new() }
    }

    fn topic(&self, symbol: &str, channel: Channel) -> Option<String> {
        match channel {
            Channel::Quote => Some(format!("orderbook.1.{symbol}")),
            Channel::Trade => Some(format!("publicTrade.{symbol}")),
            Channel::Ticker => Some(format!("tickers.{symbol}")),
            Channel::Book => Some(format!("orderbook.{}.{symbol}", self.depth)),
            Channel::Raw => None,
        }
    }

    /// `{"success":true,"ret_msg":"","req_id":"7","op":"subscribe"}`
    fn take_answer(&mut self, arrival: &mut Arrival<'_, '_, Kept>, answer: &Object<'_, '_>) {
        arrival.sink.report.ignored += 1;
        let is_refused = answer.get("success").and_then(|value| value.as_bool()) == Some(false);
        let message = json::maybe_text(answer, "ret_msg").unwrap_or("");
        let request = json::maybe_text(answer, "req_id").and_then(|text| text.parse::<u64>().ok());
        let Some(streams) = request.and_then(|request| self.awaited.take(request)) else {
            if is_refused {
                arrival.sink.events.push(Event::Refused { stream: None, reason: message.to_owned() });
            }
            return;
        };
        for (symbol, channel) in streams {
            arrival.state.answered(&symbol, channel, is_refused.then_some(message), arrival.sink);
        }
    }

    fn take_topic(
        &mut self,
        arrival: &mut Arrival<'_, '_, Kept>,
        topic: &str,
        message: &Object<'_, '_>,
    ) -> Result<(), Malformed> {
        match topic.split_once('.') {
            Some(("publicTrade", _)) => json::each(&json::list(message, "data")?, |trade| take_trade(arrival, trade)),
            Some(("tickers", symbol)) => self.take_ticker(arrival, symbol, message),
            Some(("orderbook", rest)) => match rest.split_once('.') {
                Some(("1", symbol)) => take_quote(arrival, symbol, message),
                Some((_, symbol)) => take_book(arrival, symbol, message),
                None => Err(Malformed::Type { key: "topic", expected: "orderbook.<depth>.<symbol>" }),
            },
            _ => {
                arrival.sink.report.ignored += 1;
                Ok(())
            }
        }
    }
}

impl Bybit {
    fn take_ticker(
        &mut self,
        arrival: &mut Arrival<'_, '_, Kept>,
        symbol: &str,
        message: &Object<'_, '_>,
    ) -> Result<(), Malformed> {
        let index = arrival.stream(symbol, &[Channel::Ticker])?;
        let ts_event = arrival.time(message, &["ts"]);
        if index >= self.statistics.len() {
            self.statistics.resize_with(index + 1, Statistics::default);
        }
        let statistics = &mut self.statistics[index];
        statistics.merge(&json::object(message, "data")?, json::text(message, "type")? == "snapshot");
        let mut text = statistics.text(ts_event);
        // That of inverse contracts is in the coin, not in the quote currency.
        text.turnover = text.turnover.filter(|_| self.category != Category::Inverse);
        arrival.state.instruments.at(index).ticker(&text, arrival.sink)
    }
}

impl Dialect for Bybit {
    type Kept = Kept;

    const REQUESTS: RequestLimit = RequestLimit { burst: 20, interval_ns: 1_000_000_000 };

    fn venue(&self) -> &'static str {
        match self.category {
            Category::Spot => "bybit",
            Category::Linear => "bybit-linear",
            Category::Inverse => "bybit-inverse",
        }
    }

    fn fresh(&self) -> fn() -> Kept {
        Kept::default
    }

    /// Spot and linear perpetuals have the same symbols, so a perpetual gets `-PERP`, as at Binance.
    fn name_of(&self) -> fn(&str) -> String {
        match self.category {
            Category::Linear => |symbol| {
                let is_perpetual = !symbol.contains('-') && !symbol.ends_with("PERP");
                if is_perpetual { format!("{symbol}-PERP") } else { symbol.to_owned() }
            },
            Category::Spot | Category::Inverse => str::to_owned,
        }
    }

    fn successor(&self) -> Self {
        Self::new(self.category, Some(self.depth))
    }

    fn check_depth(&self) -> Result<(), SubscribeError> {
        let (venue, given, expected) = (self.venue(), self.depth, "50, 200 or 1000");
        if DEPTHS.contains(&given) { Ok(()) } else { Err(SubscribeError::Depth { venue, given, expected }) }
    }

    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String> {
        let op = if operation == Operation::Subscribe { "subscribe" } else { "unsubscribe" };
        let mut texts = Vec::new();
        for streams in streams.chunks(TOPICS_PER_REQUEST) {
            let topics: Vec<_> = streams.iter().filter_map(|(symbol, channel)| self.topic(symbol, *channel)).collect();
            let number = self.awaited.push(streams);
            texts.push(json!({"op": op, "args": topics, "req_id": number.to_string()}).to_string());
        }
        texts
    }

    /// "To avoid network or program issues, we recommend that you send the ping heartbeat packet every 20 seconds."
    fn ping(&self) -> Option<Ping> {
        Some(Ping { text: r#"{"op":"ping"}"#, interval_ns: 20_000_000_000 })
    }

    fn take(&mut self, arrival: &mut Arrival<'_, '_, Kept>, message: Value<'_, '_>) -> Result<(), Malformed> {
        let object = message.as_object().ok_or(Malformed::NotAMessage)?;
        match json::maybe_text(&object, "topic") {
            Some(topic) => self.take_topic(arrival, topic, &object),
            None => {
                self.take_answer(arrival, &object);
                Ok(())
            }
        }
    }

    fn listing_path(&self) -> Option<String> {
        let category = match self.category {
            Category::Spot => "spot",
            Category::Linear => "linear",
            Category::Inverse => "inverse",
        };
        Some(format!("/v5/market/instruments-info?category={category}&limit=1000"))
    }

    /// `{"retCode":0,"result":{"list":[{"symbol":"BTCUSDT",…}],"nextPageCursor":""}}`
    fn take_listing(
        &self,
        _asked: &str,
        answer: Value<'_, '_>,
        each: &mut dyn FnMut(Listing),
    ) -> Result<Option<String>, Malformed> {
        let result = json::object(&answer.as_object().ok_or(Malformed::NotAMessage)?, "result")?;
        listing::read_all(&json::list(&result, "list")?, listing, each);
        match json::maybe_text(&result, "nextPageCursor").unwrap_or("") {
            "" => Ok(None),
            cursor if cursor.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') => {
                Ok(self.listing_path().map(|path| format!("{path}&cursor={cursor}")))
            }
            _ => Err(Malformed::Type { key: "nextPageCursor", expected: "a part of a query" }),
        }
    }
}

fn listing(object: &Object<'_, '_>) -> Option<Listing> {
    let text = |key| json::maybe_text(object, key);
    let of = |filter, key| {
        json::object(object, filter).ok().and_then(|filter| json::maybe_text(&filter, key).map(str::to_owned))
    };
    Some(Listing {
        symbol: text("symbol")?.to_owned(),
        base: text("baseCoin").unwrap_or("").to_owned(),
        quote: text("quoteCoin").unwrap_or("").to_owned(),
        kind: match text("contractType") {
            None | Some("") => Kind::Spot,
            Some(contract) if contract.ends_with("Perpetual") => Kind::Perpetual,
            Some(_) => Kind::Dated,
        },
        tick_size: of("priceFilter", "tickSize"),
        lot_size: of("lotSizeFilter", "qtyStep").or_else(|| of("lotSizeFilter", "basePrecision")),
        precisions: None,
        status: match text("status").unwrap_or("Trading") {
            "Trading" => InstrumentStatus::Trading,
            "Closed" => InstrumentStatus::Closed,
            // PreLaunch, Delivering
            _ => InstrumentStatus::Halted,
        },
    })
}

/// `{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","i":"20f43950-d8dd-5b31-9112-a178eb6023af",…}`
fn take_trade(arrival: &mut Arrival<'_, '_, Kept>, trade: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(trade, "s")?, &[Channel::Trade])?;
    let (ts_event, fault) = json::time(trade, &["T"]);
    let text = TradeText {
        px: Field::of(trade, "p")?,
        sz: Field::of(trade, "v")?,
        trade_id: trade_id(json::text(trade, "i")?)?,
        side: json::side(trade, "S", "Buy", "Sell")?,
        ts_event,
    };
    arrival.sink.note_time(fault);
    let tracked = arrival.state.instruments.at(index);
    if !tracked.kept.more.note(text.trade_id) {
        arrival.sink.report.ignored += 1;
        return Ok(());
    }
    tracked.trade(&text, 0, arrival.sink).map(|_| ())
}

/// A number, or the first 64 bits of a UUID.
fn trade_id(text: &str) -> Result<u64, Malformed> {
    let invalid = Malformed::Type { key: "i", expected: "a number or a UUID" };
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let digits = text.bytes().filter(|byte| *byte != b'-').take(16);
    let id = digits
        .map(|byte| char::from(byte).to_digit(16))
        .try_fold((0u64, 0), |(id, count), digit| digit.map(|digit| (id << 4 | u64::from(digit), count + 1)));
    id.filter(|(_, count)| *count == 16).map(|(id, _)| id).ok_or(invalid)
}

fn take_quote(arrival: &mut Arrival<'_, '_, Kept>, symbol: &str, message: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(symbol, &[Channel::Quote])?;
    let ts_event = arrival.time(message, &["cts", "ts"]);
    let data = json::object(message, "data")?;
    let [bid, ask] = Sides::of(&data, "b", "a")?.best()?;
    arrival.state.instruments.at(index).quote(&QuoteText { bid, ask, ts_event }, arrival.sink)
}

/// `{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":…,"data":{"s":"BTCUSDT","b":[…],"a":[…],"u":177400507,…},"cts":…}`
fn take_book(arrival: &mut Arrival<'_, '_, Kept>, symbol: &str, message: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(symbol, &[Channel::Book])?;
    let ts_event = arrival.time(message, &["cts", "ts"]);
    let data = json::object(message, "data")?;
    let sides = Sides::of(&data, "b", "a")?;
    let id = json::whole(&data, "u")?;
    // "If you receive `u` of 1, that is a snapshot due to the restart of the service."
    let is_snapshot = json::text(message, "type")? == "snapshot" || id == 1;
    let book = &arrival.state.instruments.at(index).kept.book;
    if !is_snapshot && book.is_live {
        let (last, is_old) = (book.last_id, id <= book.last_id);
        if is_old {
            arrival.sink.report.ignored += 1;
            return Ok(());
        }
        if last.checked_add(1) != Some(id) {
            let cause = BookFault::Gap { after: last.unsigned_abs(), got: id.unsigned_abs() };
            arrival.state.drop_book(index, cause, ts_event, arrival.sink);
            return Ok(());
        }
    }
    let message = BookMessage { is_snapshot, ts_event, id, check: None::<NoCheck> };
    arrival.take_book(index, message, || sides.iter())
}

/// Keys of `tickers`, in the order of [`Statistics`].
const STATISTICS: [&str; 8] =
    ["lastPrice", "prevPrice24h", "highPrice24h", "lowPrice24h", "volume24h", "turnover24h", "bid1Price", "ask1Price"];
/// A value of `tickers` that is longer is not kept.
const STATISTIC_BYTES_MAX: usize = 64;

/// The newest value of each key of `tickers`.
#[derive(Debug, Default)]
struct Statistics([String; STATISTICS.len()]);

impl Statistics {
    fn merge(&mut self, data: &Object<'_, '_>, is_snapshot: bool) {
        for (key, held) in STATISTICS.into_iter().zip(&mut self.0) {
            match json::maybe_text(data, key).filter(|text| text.len() <= STATISTIC_BYTES_MAX) {
                Some(text) => text.clone_into(held),
                None if is_snapshot => held.clear(),
                None => {}
            }
        }
    }

    fn text(&self, ts_event: u64) -> TickerText<'_> {
        let field = |at: usize| Some(Field::new(STATISTICS[at], &self.0[at])).filter(|field| !field.text.is_empty());
        TickerText {
            last: field(0),
            open: field(1),
            high: field(2),
            low: field(3),
            volume: field(4),
            turnover: field(5),
            bid: field(6),
            ask: field(7),
            change: None,
            ts_event,
        }
    }
}

#[cfg(test)]
mod tests;
