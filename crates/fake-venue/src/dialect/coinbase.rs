//! Coinbase Exchange (docs.cdp.coinbase.com/exchange/websocket-feed).
//!
//! A request is answered with all subscriptions in force. `level2` needs a login, which no client here has;
//! `level2_batch` has the same messages every 50 ms.

use std::collections::BTreeMap;

use serde_json::Value;

use super::text::{pairs, quoted, rfc3339};
use super::{Action, Channel, Depth, Dialect, Event, Rest, Stream, Target, Upgrade};
use crate::dialect::Route;
use crate::hub::connection::Connection;
use crate::market::book::Side;
use crate::market::instrument::Status;
use crate::market::step::Trade;
use crate::market::view::{Update, View};
use crate::market::{Listed, Market};

/// The whole book, every 50 ms.
const LEVEL2_BATCH: Channel = Channel::Book(Depth { levels: 0, interval_ms: 50 });

/// The dialect.
pub struct Coinbase;

/// A channel of a request with its products.
type Wanted = Vec<(Channel, &'static str, Vec<usize>)>;

fn channel(name: &str) -> Option<(Channel, &'static str)> {
    Some(match name {
        "ticker" => (Channel::Ticker, "ticker"),
        "matches" => (Channel::Trade, "matches"),
        "heartbeat" => (Channel::Heartbeat, "heartbeat"),
        "level2_batch" => (LEVEL2_BATCH, "level2_batch"),
        "status" => (Channel::Listing, "status"),
        _ => return None,
    })
}

fn error(message: &str, reason: &str) -> Vec<Action> {
    let (message, reason) = (quoted(message), quoted(reason));
    vec![Action::Send(format!(r#"{{"type":"error","message":{message},"reason":{reason}}}"#))]
}

/// The channels that a request names; an error in words.
fn wanted(request: &Value, market: &Market) -> Result<Wanted, String> {
    let products = |list: Option<&Value>| -> Result<Vec<usize>, String> {
        let names = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| market.find(name).ok_or_else(|| format!("{name} is not a valid product"))).collect()
    };
    let of_all = products(request.get("product_ids"))?;
    let list = request.get("channels").and_then(Value::as_array).ok_or("channels are missing")?;
    let mut wanted = Vec::new();
    for item in list {
        let name = item.as_str().or_else(|| item.get("name").and_then(Value::as_str)).unwrap_or("");
        if matches!(name, "level2" | "level3" | "full") {
            let words = "channels now require authentication. See https://docs.cdp.coinbase.com/exchange";
            return Err(format!("level2, level3, and full {words}"));
        }
        let (channel, name) = channel(name).ok_or_else(|| format!("{name} is not a valid channel"))?;
        let own = products(item.get("product_ids"))?;
        let of = if own.is_empty() { of_all.clone() } else { own };
        match channel {
            Channel::Listing => wanted.push((channel, name, vec![0])),
            _ if of.is_empty() => return Err(format!("{name} needs product_ids")),
            _ => wanted.push((channel, name, of)),
        }
    }
    Ok(wanted)
}

/// `{"type":"subscriptions","channels":[{"name":"level2","product_ids":[…]},…]}`
fn in_force(subscriptions: &BTreeMap<Stream, String>, market: &Market) -> String {
    let mut channels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (stream, name) in subscriptions {
        let products = channels.entry(name).or_default();
        if stream.channel != Channel::Listing {
            products.push(market.listed[stream.instrument].symbol());
        }
    }
    let list: Vec<_> = channels.iter().map(|(name, of)| serde_json::json!({"name": name, "product_ids": of})).collect();
    serde_json::json!({"type": "subscriptions", "channels": list}).to_string()
}

fn maker(trade: &Trade) -> &'static str {
    if trade.side == Side::Bid { "sell" } else { "buy" }
}

/// Two ids that a maker and a taker have.
fn order_id(trade: &Trade, nth: u64) -> String {
    let (id, low) = (trade.id, trade.id & 0xffff);
    format!("{:08x}-{low:04x}-4{:03x}-8{nth:03x}-{:012x}", id & 0xffff_ffff, id % 0xfff, id)
}

fn match_text(of: &Listed, kind: &str, trade: &Trade) -> String {
    let (product, time, side) = (quoted(of.symbol()), rfc3339(trade.ts_ns), maker(trade));
    let (id, sequence, px, sz) = (trade.id, of.update_id, &trade.px, &trade.sz);
    let (of_maker, of_taker) = (order_id(trade, 1), order_id(trade, 2));
    format!(
        r#"{{"type":"{kind}","trade_id":{id},"maker_order_id":"{of_maker}","taker_order_id":"{of_taker}","side":"{side}","size":"{sz}","price":"{px}","product_id":{product},"sequence":{sequence},"time":"{time}"}}"#
    )
}

fn ticker(of: &Listed) -> Option<String> {
    if let Some(raw) = &of.raw_ticker {
        return Some(raw.clone());
    }
    let trade = of.recent.back()?;
    let (product, time, stats) = (quoted(of.symbol()), rfc3339(trade.ts_ns), &of.stats);
    let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
    let side = if trade.side == Side::Bid { "buy" } else { "sell" };
    let (id, sequence, px, sz) = (trade.id, of.update_id, &trade.px, &trade.sz);
    let (open, high, low, volume) = (&stats.open, &stats.high, &stats.low, of.instrument.volume(stats.volume));
    Some(format!(
        r#"{{"type":"ticker","sequence":{sequence},"product_id":{product},"price":"{px}","open_24h":"{open}","volume_24h":"{volume}","low_24h":"{low}","high_24h":"{high}","volume_30d":"{volume}","best_bid":"{bid}","best_bid_size":"{bid_sz}","best_ask":"{ask}","best_ask_size":"{ask_sz}","side":"{side}","time":"{time}","trade_id":{id},"last_size":"{sz}"}}"#
    ))
}

fn changes_text(of: &Listed, update: &Update, now_ns: u64) -> String {
    if let Some(raw) = &update.raw {
        return raw.clone();
    }
    let change = |change: &crate::market::book::Change| {
        let side = if change.side == Side::Bid { "buy" } else { "sell" };
        format!(r#"["{side}","{}","{}"]"#, change.px, change.sz)
    };
    let changes: Vec<_> = update.changes.iter().map(change).collect();
    let (product, time) = (quoted(of.symbol()), rfc3339(now_ns));
    format!(r#"{{"type":"l2update","product_id":{product},"changes":[{}],"time":"{time}"}}"#, changes.join(","))
}

/// `{"id":"BTC-USD","base_currency":"BTC",…}`
fn product(of: &Listed) -> String {
    let instrument = &of.instrument;
    let (symbol, base, quote) = (quoted(of.symbol()), quoted(&instrument.base), quoted(&instrument.quote));
    let (tick, lot) = (instrument.tick, instrument.lot);
    let status = if instrument.status == Status::Trading { "online" } else { "delisted" };
    let is_disabled = instrument.status != Status::Trading;
    format!(
        r#"{{"id":{symbol},"base_currency":{base},"quote_currency":{quote},"quote_increment":"{tick}","base_increment":"{lot}","display_name":{symbol},"min_market_funds":"1","margin_enabled":false,"post_only":false,"limit_only":false,"cancel_only":false,"status":"{status}","status_message":"","trading_disabled":{is_disabled},"auction_mode":false}}"#
    )
}

fn products(market: &Market) -> String {
    let all: Vec<_> = market.listed.iter().map(product).collect();
    format!("[{}]", all.join(","))
}

fn status(market: &Market) -> String {
    format!(r#"{{"type":"status","products":{},"currencies":[]}}"#, products(market))
}

impl Dialect for Coinbase {
    fn upgrade(&self, target: &Target) -> Option<Upgrade> {
        let upgrade = Upgrade { is_combined: false, route: Route::Any, requests: Vec::new() };
        (target.path == "/").then_some(upgrade)
    }

    fn request(&self, text: &str, connection: &Connection, market: &Market, _now_ns: u64) -> Vec<Action> {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return error("Malformed JSON", "expected a JSON object");
        };
        let kind = request.get("type").and_then(Value::as_str).unwrap_or("");
        if !matches!(kind, "subscribe" | "unsubscribe") {
            return error("Invalid message type", &format!("{kind} is not a valid type"));
        }
        let wanted = match wanted(&request, market) {
            Ok(wanted) => wanted,
            Err(reason) => return error(&format!("Failed to {kind}"), &reason),
        };
        let mut after = connection.named();
        let mut actions = Vec::new();
        for (channel, name, instruments) in wanted {
            for instrument in instruments {
                let (stream, name) = (Stream { channel, instrument }, name.to_owned());
                if kind == "unsubscribe" {
                    after.remove(&stream);
                    actions.push(Action::Unsubscribe { stream, name });
                } else if after.insert(stream, name.clone()).is_none() {
                    actions.push(Action::Subscribe { stream, name, with_snapshot: true });
                }
            }
        }
        if after.len() > connection.limits.streams {
            return error("Failed to subscribe", "too many subscriptions");
        }
        actions.insert(0, Action::Send(in_force(&after, market)));
        actions
    }

    fn first(&self, market: &Market, stream: Stream, _name: &str, view: Option<&View>, now_ns: u64) -> Vec<String> {
        if stream.channel == Channel::Listing {
            return vec![status(market)];
        }
        let of = &market.listed[stream.instrument];
        let first = match (stream.channel, view) {
            (Channel::Book(_), Some(view)) => {
                let book = view.snapshot(of);
                let [bids, asks] = [Side::Bid, Side::Ask].map(|side| pairs(book.best(side, usize::MAX)));
                let (product, time) = (quoted(of.symbol()), rfc3339(now_ns));
                Some(format!(
                    r#"{{"type":"snapshot","product_id":{product},"asks":{asks},"bids":{bids},"time":"{time}"}}"#
                ))
            }
            (Channel::Trade, _) => of.recent.back().map(|trade| match_text(of, "last_match", trade)),
            (Channel::Ticker, _) => ticker(of),
            _ => None,
        };
        first.into_iter().collect()
    }

    fn ticker_follows(&self, event: Event<'_>) -> bool {
        matches!(event, Event::Trade { .. })
    }

    fn has_periodic_ticker(&self) -> bool {
        false
    }

    fn message(&self, of: &Listed, stream: Stream, _name: &str, event: Event<'_>, now_ns: u64) -> Option<String> {
        match (stream.channel, event) {
            (Channel::Trade, Event::Trade { trade, raw }) => {
                Some(raw.map_or_else(|| match_text(of, "match", trade), str::to_owned))
            }
            (Channel::Ticker, Event::Ticker) => ticker(of),
            (Channel::Book(_), Event::Book(update)) => Some(changes_text(of, update, now_ns)),
            _ => None,
        }
    }

    fn heartbeat(&self, market: &Market, connection: &Connection, _is_quiet: bool, now_ns: u64) -> Vec<String> {
        let named = connection.audible();
        let streams = named.iter().filter(|stream| stream.channel == Channel::Heartbeat);
        streams
            .map(|stream| {
                let of = &market.listed[stream.instrument];
                let (product, time) = (quoted(of.symbol()), rfc3339(now_ns));
                let last = of.recent.back().map_or(0, |trade| trade.id);
                let sequence = of.update_id;
                format!(
                    r#"{{"type":"heartbeat","sequence":{sequence},"last_trade_id":{last},"product_id":{product},"time":"{time}"}}"#
                )
            })
            .collect()
    }

    fn listing_changed(&self, market: &Market, _instrument: usize, _stream: Stream, _now_ns: u64) -> Option<String> {
        Some(status(market))
    }

    fn rest(&self, target: &Target, market: &Market, _now_ns: u64) -> Rest {
        let answer = |body| Rest::Answer { status: 200, body, weight: 1 };
        match target.path.strip_prefix("/products") {
            Some("") => answer(products(market)),
            Some(rest) => match market.find(rest.trim_start_matches('/')) {
                Some(index) => answer(product(&market.listed[index])),
                None => Rest::Answer { status: 404, body: r#"{"message":"NotFound"}"#.to_owned(), weight: 1 },
            },
            None => Rest::Unknown,
        }
    }

    fn rest_limited(&self, _retry_after_s: u64) -> String {
        r#"{"message":"Public rate limit exceeded"}"#.to_owned()
    }
}
