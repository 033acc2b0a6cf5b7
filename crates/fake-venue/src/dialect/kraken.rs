//! Kraken, WebSocket API v2 (docs.kraken.com/api/docs/websocket-v2).
//!
//! Numbers are JSON numbers with all their digits. A book is that of the subscribed depth: levels that leave it are not
//! removed by a message. Each message states the CRC-32 of the ten best levels of both sides.

use serde_json::Value;

use super::text::{quoted, rfc3339};
use super::{Action, Channel, Depth, Dialect, Event, Rest, Route, Stream, Target, Upgrade};
use crate::hub::connection::Connection;
use crate::market::book::{Book, Change, Side};
use crate::market::instrument::Status;
use crate::market::step::Trade;
use crate::market::view::{Update, View};
use crate::market::{Listed, Market};

const DEPTHS: [u64; 5] = [10, 25, 100, 500, 1000];
const CHECKED_LEVELS: usize = 10;

/// The dialect.
pub struct Kraken;

/// The CRC-32 of the ten best levels: of asks and then of bids, each from the best, price and size without the point and
/// zeros at the front.
pub fn checksum(book: &Book) -> u32 {
    let digits = |text: &String| text.replace('.', "").trim_start_matches('0').to_owned();
    let mut text = String::new();
    for side in [Side::Ask, Side::Bid] {
        for (px, sz) in book.best(side, CHECKED_LEVELS) {
            text += &digits(px);
            text += &digits(sz);
        }
    }
    crc32fast::hash(text.as_bytes())
}

/// What belongs to every answer.
struct Asked<'a> {
    method: &'a str,
    request: Option<&'a Value>,
    now: String,
}

impl Asked<'_> {
    fn ends(&self) -> String {
        let request = self.request.map_or_else(String::new, |id| format!(r#","req_id":{id}"#));
        format!(r#""time_in":"{0}","time_out":"{0}"{request}"#, self.now)
    }

    fn done(&self, result: &str) -> Action {
        let (method, ends) = (self.method, self.ends());
        Action::Send(format!(r#"{{"method":"{method}","result":{result},"success":true,{ends}}}"#))
    }

    fn refused(&self, problem: &str, symbol: Option<&str>) -> Action {
        let (problem, method, ends) = (quoted(problem), quoted(self.method), self.ends());
        let symbol = symbol.map_or_else(String::new, |symbol| format!(r#""symbol":{},"#, quoted(symbol)));
        Action::Send(format!(r#"{{"error":{problem},"method":{method},"success":false,{symbol}{ends}}}"#))
    }
}

fn stream_channel(params: &Value) -> Result<Channel, String> {
    match params.get("channel").and_then(Value::as_str).unwrap_or("") {
        "ticker" => Ok(Channel::Ticker),
        "trade" => Ok(Channel::Trade),
        "instrument" => Ok(Channel::Listing),
        "book" => {
            let depth = params.get("depth").map_or(Some(10), Value::as_u64).filter(|depth| DEPTHS.contains(depth));
            let levels = depth.and_then(|depth| u32::try_from(depth).ok());
            levels
                .map(|levels| Channel::Book(Depth { levels, interval_ms: 0 }))
                .ok_or_else(|| "Invalid depth".to_owned())
        }
        other => Err(format!("Channel {other} not found")),
    }
}

/// Subscribes to or ends the streams of a request.
fn streams(asked: &Asked<'_>, params: &Value, connection: &Connection, market: &Market) -> Vec<Action> {
    let channel = match stream_channel(params) {
        Ok(channel) => channel,
        Err(problem) => return vec![asked.refused(&problem, None)],
    };
    let name = params.get("channel").and_then(Value::as_str).unwrap_or("").to_owned();
    let with_snapshot = params.get("snapshot").and_then(Value::as_bool).unwrap_or(true);
    let subscribes = asked.method == "subscribe";
    let mut actions = Vec::new();
    let mut push = |instrument: usize| {
        let (stream, name) = (Stream { channel, instrument }, name.clone());
        actions.push(match subscribes {
            true => Action::Subscribe { stream, name, with_snapshot },
            false => Action::Unsubscribe { stream, name },
        });
    };
    if channel == Channel::Listing {
        push(0);
        actions.insert(0, asked.done(&format!(r#"{{"channel":"instrument","snapshot":{with_snapshot}}}"#)));
        return actions;
    }
    let symbols = params.get("symbol").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut answered = Vec::new();
    for symbol in symbols.iter().filter_map(Value::as_str) {
        let Some(instrument) = market.find(symbol) else {
            answered.push(asked.refused(&format!("Currency pair not supported {symbol}"), Some(symbol)));
            continue;
        };
        let has = connection.named().contains_key(&Stream { channel, instrument });
        if has == subscribes {
            let problem = if subscribes { "Already subscribed" } else { "Subscription Not Found" };
            answered.push(asked.refused(problem, Some(symbol)));
            continue;
        }
        let depth = match channel {
            Channel::Book(depth) => format!(r#","depth":{}"#, depth.levels),
            _ => String::new(),
        };
        let result = format!(r#"{{"channel":"{name}"{depth},"snapshot":{with_snapshot},"symbol":{}}}"#, quoted(symbol));
        answered.push(asked.done(&result));
        push(instrument);
    }
    answered.extend(actions);
    answered
}

fn side_text<'a>(levels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let texts: Vec<_> = levels.map(|(px, sz)| format!(r#"{{"price":{px},"qty":{sz}}}"#)).collect();
    format!("[{}]", texts.join(","))
}

fn snapshot_text(of: &Listed, book: &Book, now_ns: u64) -> String {
    let text = |side| side_text(book.best(side, usize::MAX).into_iter().map(|(px, sz)| (px.as_str(), sz.as_str())));
    let (bids, asks, sum) = (text(Side::Bid), text(Side::Ask), checksum(book));
    let (symbol, time) = (quoted(of.symbol()), rfc3339(now_ns));
    format!(
        r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":{symbol},"bids":{bids},"asks":{asks},"checksum":{sum},"timestamp":"{time}"}}]}}"#
    )
}

fn update_text(of: &Listed, update: &Update, now_ns: u64) -> String {
    let text = |side| {
        let of_side = |change: &&Change| change.side == side;
        let changes = update.changes.iter().filter(of_side);
        side_text(changes.map(|change| (change.px.as_str(), change.sz.as_str())))
    };
    let (bids, asks, sum) = (text(Side::Bid), text(Side::Ask), checksum(&update.book));
    let (symbol, time) = (quoted(of.symbol()), rfc3339(now_ns));
    format!(
        r#"{{"channel":"book","type":"update","data":[{{"symbol":{symbol},"bids":{bids},"asks":{asks},"checksum":{sum},"timestamp":"{time}"}}]}}"#
    )
}

fn trade_text(of: &Listed, trade: &Trade) -> String {
    let (symbol, time) = (quoted(of.symbol()), rfc3339(trade.ts_ns));
    let side = if trade.side == Side::Bid { "buy" } else { "sell" };
    let (id, px, sz) = (trade.id, &trade.px, &trade.sz);
    format!(
        r#"{{"symbol":{symbol},"side":"{side}","price":{px},"qty":{sz},"ord_type":"limit","trade_id":{id},"timestamp":"{time}"}}"#
    )
}

fn ticker_text(of: &Listed, kind: &str, now_ns: u64) -> String {
    let (symbol, stats, time) = (quoted(of.symbol()), &of.stats, rfc3339(now_ns));
    let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
    let (last, low, high) = (&stats.last, &stats.low, &stats.high);
    let (volume, change) = (of.instrument.volume(stats.volume), stats.change());
    format!(
        r#"{{"channel":"ticker","type":"{kind}","data":[{{"symbol":{symbol},"bid":{bid},"bid_qty":{bid_sz},"ask":{ask},"ask_qty":{ask_sz},"last":{last},"volume":{volume},"vwap":{last},"low":{low},"high":{high},"change":{change},"change_pct":0.0,"timestamp":"{time}"}}]}}"#
    )
}

fn pair_text(of: &Listed) -> String {
    let instrument = &of.instrument;
    let (symbol, base, quote) = (quoted(of.symbol()), quoted(&instrument.base), quoted(&instrument.quote));
    let (tick, lot) = (instrument.tick, instrument.lot);
    let (px, sz) = (instrument.px_decimals, instrument.sz_decimals);
    let status = if instrument.status == Status::Trading { "online" } else { "delisted" };
    format!(
        r#"{{"symbol":{symbol},"base":{base},"quote":{quote},"status":"{status}","qty_precision":{sz},"qty_increment":{lot},"price_precision":{px},"cost_precision":5,"marginable":false,"has_index":true,"cost_min":0.5,"tick_size":{tick},"price_increment":{tick},"qty_min":{lot}}}"#
    )
}

fn instruments(kind: &str, pairs: &[String]) -> String {
    format!(r#"{{"channel":"instrument","type":"{kind}","data":{{"assets":[],"pairs":[{}]}}}}"#, pairs.join(","))
}

impl Dialect for Kraken {
    fn upgrade(&self, target: &Target) -> Option<Upgrade> {
        let upgrade = Upgrade { is_combined: false, route: Route::Any, requests: Vec::new() };
        (target.path == "/v2").then_some(upgrade)
    }

    fn greeting(&self, _market: &Market, connection: u64, _now_ns: u64) -> Vec<String> {
        // Ids of connections exceed an i64.
        let id = 17_843_232_920_108_168_701 + connection;
        vec![format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"online","api_version":"v2","connection_id":{id}}}]}}"#
        )]
    }

    fn request(&self, text: &str, connection: &Connection, market: &Market, now_ns: u64) -> Vec<Action> {
        let request = serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let method = request.get("method").and_then(Value::as_str).unwrap_or("");
        let asked = Asked { method, request: request.get("req_id"), now: rfc3339(now_ns) };
        match (method, request.get("params")) {
            ("ping", _) => vec![Action::Send(format!(r#"{{"method":"pong",{}}}"#, asked.ends()))],
            ("subscribe" | "unsubscribe", Some(params)) => streams(&asked, params, connection, market),
            _ if request.is_null() => vec![asked.refused("Malformed request", None)],
            _ => vec![asked.refused("Method not found", None)],
        }
    }

    fn removes_leaving_levels(&self) -> bool {
        false
    }

    fn first(&self, market: &Market, stream: Stream, _name: &str, view: Option<&View>, now_ns: u64) -> Vec<String> {
        if stream.channel == Channel::Listing {
            let pairs: Vec<_> = market.listed.iter().map(pair_text).collect();
            return vec![instruments("snapshot", &pairs)];
        }
        let of = &market.listed[stream.instrument];
        match (stream.channel, view) {
            (Channel::Book(_), Some(view)) => vec![snapshot_text(of, view.snapshot(of), now_ns)],
            (Channel::Ticker, _) => vec![ticker_text(of, "snapshot", now_ns)],
            (Channel::Trade, _) => {
                let trades: Vec<_> = of.recent.iter().map(|trade| trade_text(of, trade)).collect();
                vec![format!(r#"{{"channel":"trade","type":"snapshot","data":[{}]}}"#, trades.join(","))]
            }
            _ => Vec::new(),
        }
    }

    fn ticker_follows(&self, event: Event<'_>) -> bool {
        matches!(event, Event::Quote | Event::Trade { .. })
    }

    fn has_periodic_ticker(&self) -> bool {
        false
    }

    fn message(&self, of: &Listed, stream: Stream, _name: &str, event: Event<'_>, now_ns: u64) -> Option<String> {
        match (stream.channel, event) {
            (Channel::Trade, Event::Trade { trade, .. }) => {
                Some(format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, trade_text(of, trade)))
            }
            (Channel::Ticker, Event::Ticker) => Some(ticker_text(of, "update", now_ns)),
            (Channel::Book(_), Event::Book(update)) => Some(update_text(of, update, now_ns)),
            _ => None,
        }
    }

    fn heartbeat(&self, _market: &Market, connection: &Connection, is_quiet: bool, _now_ns: u64) -> Vec<String> {
        let has_any = !connection.named().is_empty();
        if is_quiet && has_any { vec![r#"{"channel":"heartbeat"}"#.to_owned()] } else { Vec::new() }
    }

    fn listing_changed(&self, market: &Market, instrument: usize, _stream: Stream, _now_ns: u64) -> Option<String> {
        Some(instruments("update", &[pair_text(&market.listed[instrument])]))
    }

    fn maintenance_status(&self, is_trading: bool, connection: &Connection, _now_ns: u64) -> Option<String> {
        let (system, id) = (if is_trading { "online" } else { "maintenance" }, connection.id);
        Some(format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"{system}","api_version":"v2","connection_id":{id}}}]}}"#
        ))
    }

    fn rest(&self, target: &Target, _market: &Market, _now_ns: u64) -> Rest {
        match target.path.as_str() {
            "/0/public/SystemStatus" => {
                let body = r#"{"error":[],"result":{"status":"online","timestamp":"2026-01-01T00:00:00Z"}}"#.to_owned();
                Rest::Answer { status: 200, body, weight: 1 }
            }
            _ => Rest::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs.kraken.com, "book checksum v2".
    #[test]
    fn checksum_is_that_of_the_documents() {
        let bids = "45283.5 0.10000000 45283.4 1.54582015 45282.1 0.10000000 45281.0 0.10000000 45280.3 1.54592586 \
            45279.0 0.07990000 45277.6 0.03310103 45277.5 0.30000000 45277.3 1.54602737 45276.6 0.15445238";
        let asks = "45285.2 0.00100000 45286.4 1.54571953 45286.6 1.54571109 45289.6 1.54560911 45290.2 0.15890660 \
            45291.8 1.54553491 45294.7 0.04454749 45296.1 0.35380000 45297.5 0.09945542 45299.5 0.18772827";
        let mut book = Book::default();
        for (side, text) in [(Side::Bid, bids), (Side::Ask, asks)] {
            let words: Vec<_> = text.split_whitespace().collect();
            for pair in words.chunks(2) {
                book.apply(&Change { side, px: pair[0].to_owned(), sz: pair[1].to_owned() });
            }
        }
        assert_eq!(checksum(&book), 3_310_070_434);
    }
}
