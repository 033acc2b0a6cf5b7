//! Bybit v5, public topics (bybit-exchange.github.io/docs/v5/websocket/public).
//!
//! A request is answered as a whole, by its `req_id`. `orderbook.1` has snapshots alone, which are sent again after three
//! seconds without a change. Statistics of derivatives are a snapshot and then the keys that have changed.

use serde_json::Value;

use super::text::{changed_pairs, ms, pairs, quoted};
use super::{Action, Channel, Depth, Dialect, Event, Rest, Route, Stream, Target, Upgrade, sent_id};
use crate::hub::connection::Connection;
use crate::market::book::Side;
use crate::market::instrument::Status;
use crate::market::step::Trade;
use crate::market::view::View;
use crate::market::{Listed, Market};
use crate::venue::VenueKind;

/// "Spot can input up to 10 args for each subscription request."
const SPOT_ARGS_MAX: usize = 10;
/// All topics of a connection of derivatives together.
const ARGS_BYTES_MAX: usize = 21_000;

/// One of the categories.
pub struct Bybit {
    venue: VenueKind,
}

impl Bybit {
    pub fn new(venue: VenueKind) -> Self {
        Self { venue }
    }

    fn category(&self) -> &'static str {
        match self.venue {
            VenueKind::BybitLinear => "linear",
            VenueKind::BybitInverse => "inverse",
            _ => "spot",
        }
    }

    fn stream(&self, topic: &str, market: &Market) -> Option<Stream> {
        let (kind, rest) = topic.split_once('.')?;
        let (channel, symbol) = match kind {
            "publicTrade" => (Channel::Trade, rest),
            "tickers" => (Channel::Ticker, rest),
            "orderbook" => {
                let (levels, symbol) = rest.split_once('.')?;
                let channel = match levels {
                    "1" => Channel::Quote,
                    "50" => Channel::Book(Depth { levels: 50, interval_ms: 20 }),
                    "200" => Channel::Book(Depth { levels: 200, interval_ms: 100 }),
                    "1000" => Channel::Book(Depth { levels: 1000, interval_ms: 200 }),
                    _ => return None,
                };
                (channel, symbol)
            }
            _ => return None,
        };
        Some(Stream { channel, instrument: market.find(symbol)? })
    }

    fn streams(&self, request: &Value, op: &str, connection: &Connection, market: &Market) -> Vec<Action> {
        let args = request.get("args").and_then(Value::as_array).cloned().unwrap_or_default();
        let topics: Vec<_> = args.iter().filter_map(Value::as_str).collect();
        let answer = |problem: Option<&str>| answer(request, op, problem, connection);
        if self.venue == VenueKind::Bybit && topics.len() > SPOT_ARGS_MAX {
            return vec![answer(Some("args size >10"))];
        }
        let bytes = |topic: &str| topic.len();
        let held: usize = connection.all_names().iter().map(|name| bytes(name)).sum();
        if held + topics.iter().map(|topic| bytes(topic)).sum::<usize>() > ARGS_BYTES_MAX {
            return vec![answer(Some("args length exceeds 21000 characters"))];
        }
        if topics.is_empty() || connection.names() + topics.len() > connection.limits.streams {
            return vec![answer(Some("invalid number of args"))];
        }
        let mut actions = vec![answer(None)];
        for topic in topics {
            let Some(stream) = self.stream(topic, market) else {
                return vec![answer(Some(&format!("Invalid topic: {topic}")))];
            };
            let name = topic.to_owned();
            if op == "unsubscribe" {
                actions.push(Action::Unsubscribe { stream, name });
            } else if connection.has_name(topic) {
                return vec![answer(Some(&format!("error:already subscribed,topic:{topic}")))];
            } else {
                actions.push(Action::Subscribe { stream, name, with_snapshot: true });
            }
        }
        actions
    }

    /// The keys of `data` that have statistics.
    fn ticker(&self, of: &Listed, topic: &str, kind: &str, now_ns: u64) -> String {
        let (symbol, stats, now) = (quoted(of.symbol()), &of.stats, ms(now_ns));
        let (last, high, low, open) = (&stats.last, &stats.high, &stats.low, &stats.open);
        let (volume, turnover) = (of.instrument.volume(stats.volume), stats.turnover.round_dp(8));
        let always =
            format!(r#""symbol":{symbol},"lastPrice":"{last}","volume24h":"{volume}","turnover24h":"{turnover}""#);
        let whole = format!(r#"{always},"highPrice24h":"{high}","lowPrice24h":"{low}","prevPrice24h":"{open}""#);
        let topic = quoted(topic);
        if self.venue == VenueKind::Bybit {
            let sequence = of.update_id;
            return format!(
                r#"{{"topic":{topic},"ts":{now},"type":"snapshot","cs":{sequence},"data":{{{whole},"price24hPcnt":"0.0001","usdIndexPrice":""}}}}"#
            );
        }
        let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
        let best = format!(r#""bid1Price":"{bid}","bid1Size":"{bid_sz}","ask1Price":"{ask}","ask1Size":"{ask_sz}""#);
        // A change has the keys that are likely to be others.
        let data = if kind == "snapshot" {
            format!(r#"{whole},"fundingRate":"0.0001","markPrice":"{last}","#)
        } else {
            format!("{always},")
        };
        let data = if kind == "delta" && high == last { format!(r#"{data}"highPrice24h":"{high}","#) } else { data };
        let data = if kind == "delta" && low == last { format!(r#"{data}"lowPrice24h":"{low}","#) } else { data };
        let sequence = of.update_id;
        format!(r#"{{"topic":{topic},"type":"{kind}","data":{{{data}{best}}},"cs":{sequence},"ts":{now}}}"#)
    }

    fn trade(&self, of: &Listed, topic: &str, trade: &Trade, now_ns: u64) -> String {
        let (symbol, topic, now, at) = (quoted(of.symbol()), quoted(topic), ms(now_ns), ms(trade.ts_ns));
        let side = if trade.side == Side::Bid { "Buy" } else { "Sell" };
        let (px, sz, sequence) = (&trade.px, &trade.sz, of.update_id);
        let tick = if self.venue == VenueKind::Bybit { "" } else { r#""L":"PlusTick","# };
        let id = sent_id(self.venue, trade.id);
        format!(
            r#"{{"topic":{topic},"type":"snapshot","ts":{now},"data":[{{"T":{at},"s":{symbol},"S":"{side}","v":"{sz}","p":"{px}",{tick}"i":"{id}","BT":false,"RPI":false,"seq":{sequence}}}]}}"#
        )
    }

    fn book(&self, of: &Listed, topic: &str, sides: [String; 2], kind: &str, number: u64, now_ns: u64) -> String {
        let (symbol, topic, now, sequence) = (quoted(of.symbol()), quoted(topic), ms(now_ns), of.update_id);
        let [bids, asks] = sides;
        let data =
            format!(r#""data":{{"s":{symbol},"b":{bids},"a":{asks},"u":{number},"seq":{sequence}}},"cts":{now}"#);
        // Spot has `ts` first.
        match self.venue {
            VenueKind::Bybit => format!(r#"{{"topic":{topic},"ts":{now},"type":"{kind}",{data}}}"#),
            _ => format!(r#"{{"topic":{topic},"type":"{kind}","ts":{now},{data}}}"#),
        }
    }

    fn quote(&self, of: &Listed, topic: &str, now_ns: u64) -> String {
        let sides = [Side::Bid, Side::Ask].map(|side| pairs(of.book.best(side, 1)));
        self.book(of, topic, sides, "snapshot", of.update_id, now_ns)
    }

    fn entry(&self, of: &Listed) -> String {
        let instrument = &of.instrument;
        let (symbol, base, quote) = (quoted(of.symbol()), quoted(&instrument.base), quoted(&instrument.quote));
        let (tick, lot) = (instrument.tick, instrument.lot);
        let status = if instrument.status == Status::Trading { "Trading" } else { "Closed" };
        let price = format!(r#""priceFilter":{{"tickSize":"{tick}"}}"#);
        match self.venue {
            VenueKind::Bybit => format!(
                r#"{{"symbol":{symbol},"baseCoin":{base},"quoteCoin":{quote},"innovation":"0","status":"{status}","lotSizeFilter":{{"basePrecision":"{lot}","quotePrecision":"0.0000001","minOrderQty":"{lot}"}},{price}}}"#
            ),
            venue => {
                let kind = if venue == VenueKind::BybitLinear { "LinearPerpetual" } else { "InversePerpetual" };
                format!(
                    r#"{{"symbol":{symbol},"contractType":"{kind}","status":"{status}","baseCoin":{base},"quoteCoin":{quote},{price},"lotSizeFilter":{{"maxOrderQty":"1000000","minOrderQty":"{lot}","qtyStep":"{lot}"}}}}"#
                )
            }
        }
    }

    /// A page of the list. That of spot has no pages.
    fn instruments(&self, target: &Target, market: &Market, now_ns: u64) -> Rest {
        let answer = |code: u32, message: &str, result: String| {
            let (message, now) = (quoted(message), ms(now_ns));
            let body =
                format!(r#"{{"retCode":{code},"retMsg":{message},"result":{result},"retExtInfo":{{}},"time":{now}}}"#);
            Rest::Answer { status: 200, body, weight: 1 }
        };
        if target.get("category") != Some(self.category()) {
            return answer(10001, "Illegal category", "{}".to_owned());
        }
        let symbol = target.get("symbol");
        let wanted: Vec<_> =
            market.listed.iter().filter(|of| symbol.is_none_or(|symbol| symbol == of.symbol())).collect();
        let limit = target.get("limit").and_then(|text| text.parse().ok()).unwrap_or(500_usize).clamp(1, 1000);
        let begin = target.get("cursor").and_then(|text| text.parse().ok()).unwrap_or(0_usize).min(wanted.len());
        let is_paged = self.venue != VenueKind::Bybit;
        let end = if is_paged { (begin + limit).min(wanted.len()) } else { wanted.len() };
        let entries: Vec<_> = wanted[begin..end].iter().map(|of| self.entry(of)).collect();
        let next = if end < wanted.len() { end.to_string() } else { String::new() };
        let (category, entries) = (self.category(), entries.join(","));
        answer(0, "OK", format!(r#"{{"category":"{category}","list":[{entries}],"nextPageCursor":"{next}"}}"#))
    }
}

/// The id of a trade of derivatives.
pub fn uuid(id: u64) -> String {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-5{:03x}-9{:03x}-{id:012x}",
        mixed >> 32,
        mixed >> 16 & 0xffff,
        mixed >> 4 & 0xfff,
        mixed & 0xfff
    )
}

fn answer(request: &Value, op: &str, problem: Option<&str>, connection: &Connection) -> Action {
    let id = request.get("req_id").map_or_else(String::new, |id| format!(r#""req_id":{id},"#));
    let (is_done, message, op) = (problem.is_none(), quoted(problem.unwrap_or("")), quoted(op));
    let connection = connection.id;
    Action::Send(format!(
        r#"{{"success":{is_done},"ret_msg":{message},"conn_id":"cejreaspqfm9se7usbrg-{connection}",{id}"op":{op}}}"#
    ))
}

impl Dialect for Bybit {
    fn upgrade(&self, target: &Target) -> Option<Upgrade> {
        let upgrade = Upgrade { is_combined: false, route: Route::Any, requests: Vec::new() };
        (target.path == format!("/v5/public/{}", self.category())).then_some(upgrade)
    }

    fn request(&self, text: &str, connection: &Connection, market: &Market, _now_ns: u64) -> Vec<Action> {
        let request = serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let op = request.get("op").and_then(Value::as_str).unwrap_or("");
        match op {
            "ping" => {
                let Action::Send(text) = answer(&request, op, None, connection) else { return Vec::new() };
                vec![Action::Send(text.replace(r#""ret_msg":"""#, r#""ret_msg":"pong""#))]
            }
            "subscribe" | "unsubscribe" => self.streams(&request, op, connection, market),
            _ if request.is_null() => vec![answer(&request, op, Some("Params Error"), connection)],
            _ => vec![answer(&request, op, Some(&format!("error:handler not found,op:{op}")), connection)],
        }
    }

    fn first(&self, market: &Market, stream: Stream, name: &str, view: Option<&View>, now_ns: u64) -> Vec<String> {
        let of = &market.listed[stream.instrument];
        match (stream.channel, view) {
            (Channel::Book(_), Some(view)) => {
                let book = view.snapshot(of);
                let sides = [Side::Bid, Side::Ask].map(|side| pairs(book.best(side, usize::MAX)));
                vec![self.book(of, name, sides, "snapshot", view.number(), now_ns)]
            }
            (Channel::Quote, _) => vec![self.quote(of, name, now_ns)],
            (Channel::Ticker, _) => vec![self.ticker(of, name, "snapshot", now_ns)],
            _ => Vec::new(),
        }
    }

    fn message(&self, of: &Listed, stream: Stream, name: &str, event: Event<'_>, now_ns: u64) -> Option<String> {
        match (stream.channel, event) {
            (Channel::Trade, Event::Trade { trade, .. }) => Some(self.trade(of, name, trade, now_ns)),
            (Channel::Ticker, Event::Ticker) => Some(self.ticker(of, name, "delta", now_ns)),
            (Channel::Quote, Event::Quote) => Some(self.quote(of, name, now_ns)),
            (Channel::Book(_), Event::Book(update)) => {
                let sides = [Side::Bid, Side::Ask].map(|side| changed_pairs(&update.changes, side));
                Some(self.book(of, name, sides, "delta", update.number, now_ns))
            }
            _ => None,
        }
    }

    fn rest(&self, target: &Target, market: &Market, now_ns: u64) -> Rest {
        match target.path.as_str() {
            "/v5/market/instruments-info" => self.instruments(target, market, now_ns),
            "/v5/market/time" => {
                let body = format!(r#"{{"retCode":0,"retMsg":"OK","result":{{}},"time":{}}}"#, ms(now_ns));
                Rest::Answer { status: 200, body, weight: 1 }
            }
            _ => Rest::Unknown,
        }
    }

    fn rest_limited(&self, _retry_after_s: u64) -> String {
        r#"{"retCode":10006,"retMsg":"Too many visits. Exceeded the API Rate Limit.","result":{}}"#.to_owned()
    }
}
