//! OKX v5, public channels (www.okx.com/docs-v5).
//!
//! Each stream of a request is answered on its own. An update of a book names the sequence id of the message before it.
//! The checksum is 0 since June 2026, unless that of the time before is asked for.

use serde_json::Value;

use super::text::{ms, quoted};
use super::{Action, Channel, Depth, Dialect, Event, Rest, Route, Stream, Target, Upgrade};
use crate::hub::connection::Connection;
use crate::market::book::{Book, Side};
use crate::market::instrument::Status;
use crate::market::step::Trade;
use crate::market::view::View;
use crate::market::{Listed, Market};

const CHECKED_LEVELS: usize = 25;
/// "The total length of multiple channels cannot exceed 64 KB."
const REQUEST_BYTES_MAX: usize = 65_536;
const KINDS: [&str; 3] = ["SPOT", "SWAP", "FUTURES"];

/// The dialect.
pub struct Okx {
    /// Books state their checksum.
    pub with_checksums: bool,
}

/// The CRC-32 of the 25 best levels: `bidPx:bidSz:askPx:askSz:…`, as a signed number.
pub fn checksum(book: &Book) -> i32 {
    let (bids, asks) = (book.best(Side::Bid, CHECKED_LEVELS), book.best(Side::Ask, CHECKED_LEVELS));
    let mut texts: Vec<&str> = Vec::new();
    for nth in 0..CHECKED_LEVELS {
        for (px, sz) in [bids.get(nth), asks.get(nth)].into_iter().flatten() {
            texts.extend([px.as_str(), sz.as_str()]);
        }
    }
    crc32fast::hash(texts.join(":").as_bytes()) as i32
}

fn kind_of(of: &Listed) -> &'static str {
    match of.symbol() {
        symbol if symbol.ends_with("-SWAP") => "SWAP",
        symbol if symbol.matches('-').count() > 1 => "FUTURES",
        _ => "SPOT",
    }
}

/// The stream of `{"channel":"books","instId":"BTC-USDT"}`.
fn stream(arg: &Value, market: &Market) -> Option<Stream> {
    let text = |key: &str| arg.get(key).and_then(Value::as_str);
    let channel = match text("channel")? {
        "bbo-tbt" => Channel::Quote,
        "trades" => Channel::Trade,
        "tickers" => Channel::Ticker,
        "books" => Channel::Book(Depth { levels: 400, interval_ms: 100 }),
        "books5" => Channel::BestLevels(5),
        "instruments" => {
            let instrument = KINDS.iter().position(|kind| Some(*kind) == text("instType"))?;
            return Some(Stream { channel: Channel::Listing, instrument });
        }
        "status" => return Some(Stream { channel: Channel::Status, instrument: 0 }),
        _ => return None,
    };
    Some(Stream { channel, instrument: market.find(text("instId")?)? })
}

/// The text that names a stream: its `arg`.
fn arg_text(arg: &Value) -> String {
    let mut parts = Vec::new();
    for key in ["channel", "instType", "instId"] {
        if let Some(text) = arg.get(key).and_then(Value::as_str) {
            parts.push(format!(r#""{key}":{}"#, quoted(text)));
        }
    }
    format!("{{{}}}", parts.join(","))
}

fn connection_text(connection: &Connection) -> String {
    format!("a4d3{:04x}", connection.id)
}

fn error(id: &str, code: &str, message: &str, connection: &Connection) -> Action {
    let (message, connection) = (quoted(message), connection_text(connection));
    Action::Send(format!(r#"{{{id}"event":"error","code":"{code}","msg":{message},"connId":"{connection}"}}"#))
}

fn levels<'a>(levels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let text = |(px, sz): (&str, &str)| {
        let orders = if sz == "0" { "0" } else { "1" };
        format!(r#"["{px}","{sz}","0","{orders}"]"#)
    };
    let texts: Vec<_> = levels.map(text).collect();
    format!("[{}]", texts.join(","))
}

fn best(book: &Book, side: Side, count: usize) -> String {
    levels(book.best(side, count).into_iter().map(|(px, sz)| (px.as_str(), sz.as_str())))
}

fn data(arg: &str, data: &str) -> String {
    format!(r#"{{"arg":{arg},"data":[{data}]}}"#)
}

fn trade_text(of: &Listed, arg: &str, trade: &Trade) -> String {
    let (symbol, id, px, sz, at) = (quoted(of.symbol()), trade.id, &trade.px, &trade.sz, ms(trade.ts_ns));
    let side = if trade.side == Side::Bid { "buy" } else { "sell" };
    let text = format!(
        r#"{{"instId":{symbol},"tradeId":"{id}","px":"{px}","sz":"{sz}","side":"{side}","ts":"{at}","count":"1","seqId":{}}}"#,
        of.update_id
    );
    data(arg, &text)
}

fn ticker_text(of: &Listed, arg: &str, now_ns: u64) -> String {
    let (symbol, stats, now, kind) = (quoted(of.symbol()), &of.stats, ms(now_ns), kind_of(of));
    let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
    let (last, last_sz, open, high, low) = (&stats.last, &stats.last_sz, &stats.open, &stats.high, &stats.low);
    let (volume, turnover) = (of.instrument.volume(stats.volume), stats.turnover.round_dp(8));
    let text = format!(
        r#"{{"instType":"{kind}","instId":{symbol},"last":"{last}","lastSz":"{last_sz}","askPx":"{ask}","askSz":"{ask_sz}","bidPx":"{bid}","bidSz":"{bid_sz}","open24h":"{open}","high24h":"{high}","low24h":"{low}","sodUtc0":"{open}","sodUtc8":"{open}","volCcy24h":"{turnover}","vol24h":"{volume}","ts":"{now}"}}"#
    );
    data(arg, &text)
}

fn bbo_text(of: &Listed, arg: &str, now_ns: u64) -> String {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best(&of.book, side, 1));
    let (id, now) = (of.update_id, ms(now_ns));
    data(arg, &format!(r#"{{"asks":{asks},"bids":{bids},"ts":"{now}","seqId":{id}}}"#))
}

fn entry(of: &Listed) -> String {
    let instrument = &of.instrument;
    let (symbol, kind) = (quoted(of.symbol()), kind_of(of));
    let (tick, lot) = (instrument.tick, instrument.lot);
    let state = if instrument.status == Status::Trading { "live" } else { "expired" };
    let (base, quote) = (&instrument.base, &instrument.quote);
    let names = match kind {
        "SPOT" => format!(r#""baseCcy":{},"quoteCcy":{},"uly":"","instFamily":"""#, quoted(base), quoted(quote)),
        _ => {
            let family = quoted(&format!("{base}-{quote}"));
            format!(r#""baseCcy":"","quoteCcy":"","uly":{family},"instFamily":{family}"#)
        }
    };
    format!(
        r#"{{"instType":"{kind}","instId":{symbol},{names},"tickSz":"{tick}","lotSz":"{lot}","minSz":"{lot}","state":"{state}"}}"#
    )
}

fn entries(market: &Market, kind: &str) -> String {
    let all: Vec<_> = market.listed.iter().filter(|of| kind_of(of) == kind).map(entry).collect();
    all.join(",")
}

impl Okx {
    fn book_text(&self, of: &Listed, arg: &str, body: BookBody<'_>, now_ns: u64) -> String {
        let BookBody { action, sides: [bids, asks], book, previous, last } = body;
        let sum = if self.with_checksums { checksum(book) } else { 0 };
        let now = ms(now_ns);
        let _ = of;
        format!(
            r#"{{"arg":{arg},"action":"{action}","data":[{{"asks":{asks},"bids":{bids},"ts":"{now}","checksum":{sum},"prevSeqId":{previous},"seqId":{last}}}]}}"#
        )
    }
}

/// What a message of `books` is made of.
struct BookBody<'a> {
    action: &'static str,
    sides: [String; 2],
    book: &'a Book,
    previous: i64,
    last: u64,
}

impl Dialect for Okx {
    fn upgrade(&self, target: &Target) -> Option<Upgrade> {
        let upgrade = Upgrade { is_combined: false, route: Route::Any, requests: Vec::new() };
        (target.path == "/ws/v5/public").then_some(upgrade)
    }

    fn request(&self, text: &str, connection: &Connection, market: &Market, _now_ns: u64) -> Vec<Action> {
        if text == "ping" {
            return vec![Action::Send("pong".to_owned())];
        }
        let request = serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let id = request.get("id").map_or_else(String::new, |id| format!(r#""id":{id},"#));
        let op = request.get("op").and_then(Value::as_str).unwrap_or("");
        let args = request.get("args").and_then(Value::as_array);
        let (true, Some(args)) = (matches!(op, "subscribe" | "unsubscribe"), args) else {
            return vec![error(&id, "60012", &format!("Invalid request: {text}"), connection)];
        };
        if text.len() > REQUEST_BYTES_MAX {
            return vec![error(&id, "60013", "Invalid args", connection)];
        }
        let mut actions = Vec::new();
        for arg in args {
            let name = arg_text(arg);
            let Some(stream) = stream(arg, market) else {
                let get = |key: &str| arg.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
                let named = format!("channel:{},instId:{}", get("channel"), get("instId"));
                let words =
                    "doesn't exist. Please use the correct URL, channel and parameters referring to API document.";
                actions.push(error(&id, "60018", &format!("Wrong URL or {named} {words}"), connection));
                continue;
            };
            let connection_id = connection_text(connection);
            actions.push(Action::Send(format!(r#"{{{id}"event":"{op}","arg":{name},"connId":"{connection_id}"}}"#)));
            actions.push(match op {
                "subscribe" => Action::Subscribe { stream, name, with_snapshot: true },
                _ => Action::Unsubscribe { stream, name },
            });
        }
        actions
    }

    fn first(&self, market: &Market, stream: Stream, name: &str, view: Option<&View>, now_ns: u64) -> Vec<String> {
        match stream.channel {
            Channel::Listing => return vec![data(name, &entries(market, KINDS[stream.instrument]))],
            Channel::Status => return Vec::new(),
            _ => {}
        }
        let of = &market.listed[stream.instrument];
        match (stream.channel, view) {
            (Channel::Book(_), Some(view)) => {
                let book = view.snapshot(of);
                let sides = [Side::Bid, Side::Ask].map(|side| best(book, side, usize::MAX));
                let body = BookBody { action: "snapshot", sides, book, previous: -1, last: view.last_id() };
                vec![self.book_text(of, name, body, now_ns)]
            }
            (Channel::Quote, _) => vec![bbo_text(of, name, now_ns)],
            (Channel::Ticker, _) => vec![ticker_text(of, name, now_ns)],
            (Channel::Trade, _) => of.recent.back().map(|trade| trade_text(of, name, trade)).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn message(&self, of: &Listed, stream: Stream, name: &str, event: Event<'_>, now_ns: u64) -> Option<String> {
        Some(match (stream.channel, event) {
            (Channel::Trade, Event::Trade { trade, .. }) => trade_text(of, name, trade),
            (Channel::Ticker, Event::Ticker) => ticker_text(of, name, now_ns),
            (Channel::Quote, Event::Quote) => bbo_text(of, name, now_ns),
            (Channel::BestLevels(count), Event::Book(_)) => {
                let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best(&of.book, side, count as usize));
                let (id, now) = (of.update_id, ms(now_ns));
                let symbol = quoted(of.symbol());
                data(name, &format!(r#"{{"asks":{asks},"bids":{bids},"instId":{symbol},"ts":"{now}","seqId":{id}}}"#))
            }
            (Channel::Book(_), Event::Book(update)) => {
                let text = |side| {
                    let of_side = update.changes.iter().filter(|change| change.side == side);
                    let zero = |change: &crate::market::book::Change| change.is_removal();
                    levels(of_side.map(|change| (change.px.as_str(), if zero(change) { "0" } else { &change.sz })))
                };
                let sides = [Side::Bid, Side::Ask].map(text);
                let previous = update.ids.previous.and_then(|id| i64::try_from(id).ok()).unwrap_or(-1);
                let body = BookBody { action: "update", sides, book: &update.book, previous, last: update.ids.last };
                self.book_text(of, name, body, now_ns)
            }
            _ => return None,
        })
    }

    fn listing_changed(&self, market: &Market, instrument: usize, stream: Stream, _now_ns: u64) -> Option<String> {
        let of = &market.listed[instrument];
        let kind = KINDS[stream.instrument];
        let arg = format!(r#"{{"channel":"instruments","instType":"{kind}"}}"#);
        (kind_of(of) == kind).then(|| data(&arg, &entry(of)))
    }

    fn closing_notice(&self, connection: &Connection, _now_ns: u64) -> Option<String> {
        let words = "The connection will soon be closed for a service upgrade. Please reconnect.";
        let connection = connection_text(connection);
        Some(format!(r#"{{"event":"notice","code":"64008","msg":"{words}","connId":"{connection}"}}"#))
    }

    fn maintenance_status(&self, is_trading: bool, _connection: &Connection, now_ns: u64) -> Option<String> {
        let (state, now) = (if is_trading { "completed" } else { "ongoing" }, ms(now_ns));
        let text = format!(
            r#"{{"title":"Spot trading system upgrade","state":"{state}","begin":"{now}","end":"{now}","href":"","serviceType":"1","system":"unified","scheDesc":"","ts":"{now}"}}"#
        );
        Some(data(r#"{"channel":"status"}"#, &text))
    }

    fn rest(&self, target: &Target, market: &Market, now_ns: u64) -> Rest {
        let answer = |code: &str, message: &str, data: String| {
            let body = format!(r#"{{"code":"{code}","msg":"{message}","data":[{data}]}}"#);
            Rest::Answer { status: 200, body, weight: 1 }
        };
        match (target.path.as_str(), target.get("instType")) {
            ("/api/v5/public/instruments", Some(kind)) => answer("0", "", entries(market, kind)),
            ("/api/v5/public/instruments", None) => {
                answer("50014", "Parameter instType can not be empty.", String::new())
            }
            ("/api/v5/public/time", _) => answer("0", "", format!(r#"{{"ts":"{}"}}"#, ms(now_ns))),
            _ => Rest::Unknown,
        }
    }

    fn rest_limited(&self, _retry_after_s: u64) -> String {
        r#"{"code":"50011","msg":"Too Many Requests","data":[]}"#.to_owned()
    }
}
