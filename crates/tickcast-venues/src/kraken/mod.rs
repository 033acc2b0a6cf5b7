//! Kraken: its WebSocket API v2 (docs.kraken.com/api/docs/websocket-v2), and the books of recordings of v1.
//!
//! * The list of instruments comes by the channel `instrument`, with the precisions that the checksum needs.
//! * A book has no sequence numbers. It is cut at the subscribed depth after each change, since levels that fall out of
//!   it are not deleted by a message, and its CRC-32 is compared with that of the message. Without the precisions, as in
//!   a recording that lacks the list, a book of v2 is not verified; texts of v1 have all digits.
//! * `ticker` is subscribed with the trigger `bbo`, so that it has every change of the best prices.

mod v1;

use serde_json::json;
use tickcast_protocol::{BookSide, Channel, InstrumentStatus};

use crate::codec::{Arrival, Dialect, Operation, Ping, symbols_on};
use crate::error::{Malformed, SubscribeError};
use crate::json::{self, Array, Field, Object, ReadLevel, TextLevel, Value};
use crate::listing::{Kind, Listing};
use crate::local_book::{Decimals, LocalBook};
use crate::scale::Scale;
use crate::sink::{Event, Notice, Sink};
use crate::stream_book::{BookMessage, StreamKept};
use crate::streams::RequestLimit;
use crate::tracked::{QuoteText, TickerText, TradeText};
use crate::trade_ids::TradeRange;

/// The depths that the venue offers.
pub(crate) const DEPTHS: [u32; 5] = [10, 25, 100, 500, 1000];
const DEPTH_USUAL: u32 = 100;
/// Symbols of one request.
const SYMBOLS_PER_REQUEST: usize = 100;

pub(crate) type Kept = StreamKept<()>;

/// The codec's own state.
pub(crate) struct Kraken {
    depth: u32,
}

impl Kraken {
    /// With books of this depth, or of the usual one.
    pub(crate) fn new(depth: Option<u32>) -> Self {
        Self { depth: depth.unwrap_or(DEPTH_USUAL) }
    }

    fn take_object(&mut self, arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
        let Some(channel) = json::maybe_text(object, "channel") else {
            if json::has(object, "event") {
                return v1::take_event(object, arrival.sink);
            }
            self.take_answer(arrival, object);
            return Ok(());
        };
        let is_snapshot = json::maybe_text(object, "type") == Some("snapshot");
        match channel {
            "instrument" => {
                for pair in &json::list(&json::object(object, "data")?, "pairs")? {
                    let listing = pair.as_object().and_then(|pair| listing(&pair));
                    listing.into_iter().for_each(|listing| arrival.state.instruments.list(listing, arrival.sink));
                }
                Ok(())
            }
            "status" => take_status(&json::list(object, "data")?, arrival.sink),
            "book" => json::each(&json::list(object, "data")?, |book| {
                let taken = take_book(arrival, book, is_snapshot);
                taken.inspect_err(|_| arrival.drop_unreadable(json::maybe_text(book, "symbol")))
            }),
            "trade" => json::each(&json::list(object, "data")?, |trade| take_trade(arrival, trade)),
            "ticker" => json::each(&json::list(object, "data")?, |ticker| take_ticker(arrival, ticker)),
            _ => {
                arrival.sink.report.ignored += 1;
                Ok(())
            }
        }
    }

    /// An answer to a request: `{"method":"subscribe","result":{…},"success":true,…}`.
    fn take_answer(&self, arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) {
        arrival.sink.report.ignored += 1;
        if json::maybe_text(object, "method") == Some("pong") {
            return;
        }
        let result = json::object(object, "result").ok();
        let named = |key| result.as_ref().and_then(|result| json::maybe_text(result, key));
        let symbol = named("symbol").or_else(|| json::maybe_text(object, "symbol"));
        let error = json::maybe_text(object, "error");
        let channel = named("channel").map(channels_of).unwrap_or_default();
        match (symbol, channel.is_empty(), error) {
            (Some(symbol), false, error) => {
                let depth = result.as_ref().and_then(|result| json::whole(result, "depth").ok());
                if let (Some(depth), Ok(index)) = (depth, arrival.state.instruments.find(symbol)) {
                    arrival.state.instruments.at(index).kept.book.depth = usize::try_from(depth).unwrap_or(0);
                }
                if json::maybe_text(object, "method") == Some("subscribe") {
                    for channel in channel {
                        arrival.state.answered(symbol, *channel, error, arrival.sink);
                    }
                }
            }
            (symbol, _, Some(error)) => {
                let reason = symbol.map_or_else(|| error.to_owned(), |symbol| format!("{symbol}: {error}"));
                arrival.sink.events.push(Event::Refused { stream: None, reason });
            }
            _ => {}
        }
    }
}

impl Dialect for Kraken {
    type Kept = Kept;

    const NUMBERS_AS_TEXT: bool = true;
    const REQUESTS: RequestLimit = RequestLimit { burst: 10, interval_ns: 1_000_000_000 };

    fn venue(&self) -> &'static str {
        "kraken"
    }

    fn fresh(&self) -> fn() -> Kept {
        Kept::default
    }

    fn check_depth(&self) -> Result<(), SubscribeError> {
        let (venue, given, expected) = (self.venue(), self.depth, "10, 25, 100, 500 or 1000");
        if DEPTHS.contains(&given) { Ok(()) } else { Err(SubscribeError::Depth { venue, given, expected }) }
    }

    fn successor(&self) -> Self {
        Self { depth: self.depth }
    }

    fn opening(&self) -> Vec<String> {
        vec![json!({"method": "subscribe", "params": {"channel": "instrument", "snapshot": true}}).to_string()]
    }

    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String> {
        let method = if operation == Operation::Subscribe { "subscribe" } else { "unsubscribe" };
        let mut texts = Vec::new();
        for name in ["ticker", "trade", "book"] {
            // Quotes and statistics are one channel here.
            for symbols in symbols_on(streams, channels_of(name)).chunks(SYMBOLS_PER_REQUEST) {
                let params = match name {
                    "ticker" => json!({"channel": name, "symbol": symbols, "event_trigger": "bbo"}),
                    "trade" => json!({"channel": name, "symbol": symbols, "snapshot": false}),
                    _ => json!({"channel": name, "symbol": symbols, "depth": self.depth}),
                };
                texts.push(json!({"method": method, "params": params}).to_string());
            }
        }
        texts
    }

    /// "ping": the venue closes a connection without traffic after about a minute.
    fn ping(&self) -> Option<Ping> {
        Some(Ping { text: r#"{"method":"ping"}"#, interval_ns: 30_000_000_000 })
    }

    fn on_unreadable(&mut self, arrival: &mut Arrival<'_, '_, Kept>) {
        arrival.drop_unreadable(None);
    }

    fn take(&mut self, arrival: &mut Arrival<'_, '_, Kept>, message: Value<'_, '_>) -> Result<(), Malformed> {
        match (message.as_object(), message.as_array()) {
            (Some(object), _) => self.take_object(arrival, &object),
            (_, Some(list)) => v1::take_list(arrival, &list),
            _ => Err(Malformed::NotAMessage),
        }
    }

    fn listing_path(&self) -> Option<String> {
        None
    }
}

/// What a channel of the venue carries.
fn channels_of(name: &str) -> &'static [Channel] {
    match name {
        "ticker" => &[Channel::Quote, Channel::Ticker],
        "trade" => &[Channel::Trade],
        "book" => &[Channel::Book],
        _ => &[],
    }
}

/// `{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,"price_precision":1,…}`
fn listing(pair: &Object<'_, '_>) -> Option<Listing> {
    let text = |key| json::maybe_text(pair, key).unwrap_or("").to_owned();
    let precision = |key| json::whole(pair, key).ok().and_then(|precision| u8::try_from(precision).ok());
    let increment = |key| json::maybe_text(pair, key).map(str::to_owned);
    Some(Listing {
        symbol: json::maybe_text(pair, "symbol")?.to_owned(),
        base: text("base"),
        quote: text("quote"),
        kind: Kind::Spot,
        tick_size: increment("price_increment").or_else(|| increment("tick_size")),
        lot_size: increment("qty_increment"),
        precisions: precision("price_precision").zip(precision("qty_precision")),
        status: match json::maybe_text(pair, "status").unwrap_or("online") {
            "online" | "post_only" | "limit_only" | "reduce_only" => InstrumentStatus::Trading,
            "delisted" => InstrumentStatus::Closed,
            // cancel_only, maintenance, work_in_progress
            _ => InstrumentStatus::Halted,
        },
    })
}

/// `[{"system":"online","api_version":"v2",…}]`
fn take_status(data: &Array<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    json::each(data, |status| {
        let state = json::text(status, "system")?.to_owned();
        let is_trading = matches!(state.as_str(), "online" | "post_only" | "limit_only");
        sink.events.push(Event::Notice(Notice::State { state, is_trading }));
        Ok(())
    })
}

fn take_book(arrival: &mut Arrival<'_, '_, Kept>, book: &Object<'_, '_>, is_snapshot: bool) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(book, "symbol")?, &[Channel::Book])?;
    let ts_event = arrival.time(book, &["timestamp"]);
    let sides = [ObjectLevels::of(book, "bids", BookSide::Bid)?, ObjectLevels::of(book, "asks", BookSide::Ask)?];
    let stated = json::maybe_whole(book, "checksum")?.and_then(|stated| u32::try_from(stated).ok());
    let precisions = arrival.state.instruments.listing(index).and_then(|listing| listing.precisions);
    let kept = &mut arrival.state.instruments.at(index).kept.book;
    if is_snapshot && kept.depth == 0 {
        kept.depth = depth_of(sides.iter().map(ObjectLevels::len).max().unwrap_or(0));
    }
    let decimals = precisions.map(|(px, sz)| Decimals { px, sz });
    let check = stated.filter(|_| decimals.is_some()).map(|stated| checksum(stated, decimals));
    let message = BookMessage { is_snapshot, ts_event, id: 0, check };
    arrival.take_book(index, message, || sides.iter().flat_map(ObjectLevels::iter))
}

/// The check against a stated checksum.
fn checksum(stated: u32, decimals: Option<Decimals>) -> impl FnOnce(&LocalBook, Scale, &mut String) -> (u32, u32) {
    move |book, scale, text| (book.kraken_checksum(scale, decimals, text), stated)
}

/// The least depth that the venue offers for a snapshot with so many levels on a side.
fn depth_of(levels: usize) -> usize {
    let fits = |depth: &&u32| **depth as usize >= levels;
    DEPTHS.iter().find(fits).map_or(levels, |depth| *depth as usize)
}

/// One side's `[{"price":45283.5,"qty":0.1},…]`.
struct ObjectLevels<'t, 'i> {
    key: &'static str,
    side: BookSide,
    list: Array<'t, 'i>,
}

impl<'t, 'i> ObjectLevels<'t, 'i> {
    fn of(book: &Object<'t, 'i>, key: &'static str, side: BookSide) -> Result<Self, Malformed> {
        Ok(Self { key, side, list: json::list(book, key)? })
    }

    fn len(&self) -> usize {
        self.list.len()
    }

    fn iter(&self) -> impl Iterator<Item = ReadLevel<'i>> + use<'_, 't, 'i> {
        let (key, side) = (self.key, self.side);
        self.list.iter().map(move |level| {
            let level = level.as_object().ok_or(Malformed::Type { key, expected: "a list of objects" })?;
            Ok(TextLevel { key, side, px: json::text(&level, "price")?, sz: json::text(&level, "qty")? })
        })
    }
}

fn take_trade(arrival: &mut Arrival<'_, '_, Kept>, trade: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(trade, "symbol")?, &[Channel::Trade])?;
    let (ts_event, fault) = json::time(trade, &["timestamp"]);
    let trade_id = json::whole_u64(trade, "trade_id")?;
    let text = TradeText {
        px: Field::of(trade, "price")?,
        sz: Field::of(trade, "qty")?,
        trade_id,
        side: json::side(trade, "side", "buy", "sell")?,
        ts_event,
    };
    arrival.sink.note_time(fault);
    arrival.take_numbered_trade(index, &text, TradeRange::single(trade_id))
}

/// The best prices and the statistics of 24 hours. An instrument without a market has zeros.
fn take_ticker(arrival: &mut Arrival<'_, '_, Kept>, ticker: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(ticker, "symbol")?, &[Channel::Quote, Channel::Ticker])?;
    let ts_event = arrival.time(ticker, &["timestamp"]);
    let side = |px, sz| Ok::<_, Malformed>((Field::of(ticker, px)?, Field::of(ticker, sz)?));
    let quote = QuoteText { bid: side("bid", "bid_qty")?, ask: side("ask", "ask_qty")?, ts_event };
    let tracked = arrival.state.instruments.at(index);
    tracked.quote(&quote, arrival.sink)?;
    let field = |key| Field::maybe(ticker, key);
    if let Some(last) = field("last") {
        let text = TickerText {
            last: Some(last),
            high: field("high"),
            low: field("low"),
            change: field("change"),
            volume: field("volume"),
            ts_event,
            ..TickerText::default()
        };
        tracked.ticker(&text, arrival.sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
