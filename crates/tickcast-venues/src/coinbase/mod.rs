//! Coinbase Exchange, its WebSocket feed (docs.cdp.coinbase.com/exchange/websocket-feed).
//!
//! * A book is a snapshot and then every change (`level2_batch`, which needs no login; a recording may have `level2`).
//!   These messages have no sequence: "guarantees delivery of all updates".
//! * The trades of a product are numbered without holes. `last_match` is the newest one before a subscription, and each
//!   `heartbeat` names the newest one: both show trades that were lost.
//! * `match.side` is that of the maker; the record has that of the aggressor.
//! * `ticker` comes with each trade. Its quote is published where it has sizes, as since 2022.

use serde_json::json;
use simd_json::prelude::ValueIntoString;
use tickcast_protocol::{BookSide, Channel, InstrumentStatus};

use crate::codec::{Arrival, Dialect, Operation, symbols_on};
use crate::error::Malformed;
use crate::json::{self, Array, Field, Object, ReadLevel, Sides, TextLevel, Value};
use crate::listing::{self, Kind, Listing};
use crate::sink::{Event, Notice, Sink};
use crate::stream_book::{BookMessage, NoCheck, StreamKept};
use crate::streams::RequestLimit;
use crate::tracked::{QuoteText, TickerText, TradeText};
use crate::trade_ids::TradeRange;

/// Products of one request.
const PRODUCTS_PER_REQUEST: usize = 100;

type Kept = StreamKept<()>;

/// The codec's own state.
pub(crate) struct Coinbase;

impl Dialect for Coinbase {
    type Kept = Kept;

    const REQUESTS: RequestLimit = RequestLimit { burst: 20, interval_ns: 1_000_000_000 };

    fn venue(&self) -> &'static str {
        "coinbase"
    }

    fn fresh(&self) -> fn() -> Kept {
        Kept::default
    }

    fn successor(&self) -> Self {
        Self
    }

    fn opening(&self) -> Vec<String> {
        vec![json!({"type": "subscribe", "channels": [{"name": "status"}]}).to_string()]
    }

    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String> {
        let kind = if operation == Operation::Subscribe { "subscribe" } else { "unsubscribe" };
        let mut texts = Vec::new();
        for name in ["ticker", "matches", "heartbeat", "level2_batch"] {
            // Quotes and statistics are one channel here.
            for products in symbols_on(streams, channels_of(name)).chunks(PRODUCTS_PER_REQUEST) {
                texts.push(json!({"type": kind, "product_ids": products, "channels": [name]}).to_string());
            }
        }
        texts
    }

    fn on_unreadable(&mut self, arrival: &mut Arrival<'_, '_, Kept>) {
        arrival.drop_unreadable(None);
    }

    fn take(&mut self, arrival: &mut Arrival<'_, '_, Kept>, message: Value<'_, '_>) -> Result<(), Malformed> {
        let object = message.as_object().ok_or(Malformed::NotAMessage)?;
        match json::text(&object, "type")? {
            kind @ ("l2update" | "snapshot") => {
                let take = if kind == "snapshot" { take_snapshot } else { take_changes };
                let taken = take(arrival, &object);
                taken.inspect_err(|_| arrival.drop_unreadable(json::maybe_text(&object, "product_id")))
            }
            "match" | "last_match" => take_match(arrival, &object),
            "ticker" => take_ticker(arrival, &object),
            "heartbeat" => take_heartbeat(arrival, &object),
            "subscriptions" => take_subscriptions(arrival, &object),
            "status" => {
                listing::read_all(&json::list(&object, "products")?, listing, &mut |listing| {
                    arrival.state.instruments.list(listing, arrival.sink)
                });
                Ok(())
            }
            "error" => {
                take_error(&object, arrival.sink);
                Ok(())
            }
            // "New message types can be added at any time."
            _ => {
                arrival.sink.report.ignored += 1;
                Ok(())
            }
        }
    }

    fn listing_path(&self) -> Option<String> {
        Some("/products".to_owned())
    }

    /// `[{"id":"BTC-USD","base_currency":"BTC","quote_increment":"0.01",…}]`
    fn take_listing(
        &self,
        _asked: &str,
        answer: Value<'_, '_>,
        each: &mut dyn FnMut(Listing),
    ) -> Result<Option<String>, Malformed> {
        listing::read_all(&answer.as_array().ok_or(Malformed::NotAMessage)?, listing, each);
        Ok(None)
    }
}

/// What a channel of the venue carries. The heartbeat completes the trades.
fn channels_of(name: &str) -> &'static [Channel] {
    match name {
        "ticker" | "ticker_batch" => &[Channel::Quote, Channel::Ticker],
        "matches" | "heartbeat" => &[Channel::Trade],
        "level2" | "level2_batch" => &[Channel::Book],
        _ => &[],
    }
}

/// `{"type":"subscriptions","channels":[{"name":"level2","product_ids":[…]},…]}`: all that are in force.
fn take_subscriptions(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    arrival.sink.report.ignored += 1;
    json::each(&json::list(object, "channels")?, |channel| {
        let name = json::text(channel, "name")?;
        for product in json::list(channel, "product_ids")?.iter().filter_map(ValueIntoString::into_string) {
            for channel in channels_of(name).iter().filter(|_| name != "heartbeat") {
                arrival.state.answered(product, *channel, None, arrival.sink);
            }
        }
        Ok(())
    })
}

/// `{"type":"error","message":"Failed to subscribe","reason":"ABC-USD is not a valid product"}`
fn take_error(object: &Object<'_, '_>, sink: &mut Sink<'_>) {
    sink.report.ignored += 1;
    let message = json::maybe_text(object, "message").unwrap_or("error without a message");
    let reason = json::maybe_text(object, "reason").map_or_else(String::new, |reason| format!(": {reason}"));
    let reason = format!("{message}{reason}");
    sink.events.push(match message.contains("subscribe") {
        true => Event::Refused { stream: None, reason },
        false => Event::Notice(Notice::Error { reason }),
    });
}

fn listing(product: &Object<'_, '_>) -> Option<Listing> {
    let text = |key| json::maybe_text(product, key);
    let owned = |key| text(key).unwrap_or("").to_owned();
    Some(Listing {
        symbol: text("id")?.to_owned(),
        base: owned("base_currency"),
        quote: owned("quote_currency"),
        kind: Kind::Spot,
        tick_size: text("quote_increment").map(str::to_owned),
        lot_size: text("base_increment").map(str::to_owned),
        precisions: None,
        status: match text("status").unwrap_or("online") {
            "online" if json::is_true(product, "trading_disabled") => InstrumentStatus::Halted,
            "online" => InstrumentStatus::Trading,
            "delisted" => InstrumentStatus::Closed,
            // offline, internal
            _ => InstrumentStatus::Halted,
        },
    })
}

fn take_snapshot(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    let sides = Sides::of(object, "bids", "asks")?;
    take_book(arrival, object, true, || sides.iter())
}

/// `{"type":"l2update","product_id":"BTC-USD","changes":[["buy","22356.270000","0.00000000"]],"time":"…"}`
fn take_changes(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    let changes = json::list(object, "changes")?;
    take_book(arrival, object, false, || changes.iter().map(change))
}

fn change<'i>(value: Value<'_, 'i>) -> ReadLevel<'i> {
    let key = "changes";
    let list = value.as_array();
    let mut texts = list.iter().flat_map(Array::iter).map(ValueIntoString::into_string);
    let [side, px, sz] = [texts.next().flatten(), texts.next().flatten(), texts.next().flatten()];
    match (side, px, sz) {
        (Some("buy"), Some(px), Some(sz)) => Ok(TextLevel { key, side: BookSide::Bid, px, sz }),
        (Some("sell"), Some(px), Some(sz)) => Ok(TextLevel { key, side: BookSide::Ask, px, sz }),
        _ => Err(Malformed::Type { key, expected: "a list of [\"buy\" or \"sell\",\"price\",\"size\"]" }),
    }
}

fn take_book<'i, I: Iterator<Item = ReadLevel<'i>>>(
    arrival: &mut Arrival<'_, '_, Kept>,
    object: &Object<'_, '_>,
    is_snapshot: bool,
    levels: impl Fn() -> I,
) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(object, "product_id")?, &[Channel::Book])?;
    let ts_event = arrival.time(object, &["time"]);
    let message = BookMessage { is_snapshot, ts_event, id: 0, check: None::<NoCheck> };
    arrival.take_book(index, message, levels)
}

fn take_match(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(object, "product_id")?, &[Channel::Trade])?;
    let trade_id = json::whole_u64(object, "trade_id")?;
    let (ts_event, fault) = json::time(object, &["time"]);
    let text = TradeText {
        px: Field::of(object, "price")?,
        sz: Field::of(object, "size")?,
        trade_id,
        // Of the maker: "buy" says that the aggressor sold.
        side: json::side(object, "side", "sell", "buy")?,
        ts_event,
    };
    arrival.sink.note_time(fault);
    arrival.take_numbered_trade(index, &text, TradeRange::single(trade_id))
}

fn take_ticker(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(object, "product_id")?, &[Channel::Quote, Channel::Ticker])?;
    let ts_event = arrival.time(object, &["time"]);
    let field = |key| Field::maybe(object, key);
    let side = |px, sz| field(px).zip(field(sz));
    let tracked = arrival.state.instruments.at(index);
    if let Some((bid, ask)) = side("best_bid", "best_bid_size").zip(side("best_ask", "best_ask_size")) {
        tracked.quote(&QuoteText { bid, ask, ts_event }, arrival.sink)?;
    }
    let text = TickerText {
        last: field("price"),
        open: field("open_24h"),
        high: field("high_24h"),
        low: field("low_24h"),
        volume: field("volume_24h"),
        bid: field("best_bid"),
        ask: field("best_ask"),
        ts_event,
        ..TickerText::default()
    };
    tracked.ticker(&text, arrival.sink)
}

/// `{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"…"}`
fn take_heartbeat(arrival: &mut Arrival<'_, '_, Kept>, object: &Object<'_, '_>) -> Result<(), Malformed> {
    arrival.sink.report.ignored += 1;
    let Some(index) = arrival.state.instruments.index(json::text(object, "product_id")?) else { return Ok(()) };
    arrival.state.streams.note(index, Channel::Trade, arrival.now_ns);
    let last_trade_id = json::whole_u64(object, "last_trade_id")?;
    let tracked = arrival.state.instruments.at(index);
    let lost = tracked.kept.trades.lost_up_to(last_trade_id);
    tracked.report_lost(lost, arrival.sink);
    Ok(())
}

#[cfg(test)]
mod tests;
