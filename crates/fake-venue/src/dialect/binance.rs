//! Binance: spot, USD-M and COIN-M (developers.binance.com).
//!
//! A name without a stream is acknowledged like any other, and nothing comes. USD-M has two addresses since April 2026,
//! and a stream that is asked for at the other one, or at the retired one, stays silent as well.

use serde_json::Value;

use super::binance_rest;
use super::text::{changed_pairs, ms, pairs, quoted};
use super::{Action, Channel, Depth, Dialect, Event, Rest, Route, Stream, Target, Upgrade};
use crate::hub::connection::Connection;
use crate::market::book::Side;
use crate::market::step::Trade;
use crate::market::view::Update;
use crate::market::{Listed, Market};
use crate::venue::VenueKind;

/// One of the markets.
pub struct Binance {
    venue: VenueKind,
}

impl Binance {
    pub fn new(venue: VenueKind) -> Self {
        Self { venue }
    }

    /// The stream of a name: `btcusdt@depth@100ms`.
    fn stream(&self, name: &str, market: &Market) -> Result<Option<Stream>, String> {
        let mut parts = name.split('@');
        let (symbol, kind) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let interval = parts.next();
        let channel = match (kind, interval) {
            ("bookTicker", None) => Channel::Quote,
            ("trade", None) => Channel::Trade,
            ("aggTrade", None) => Channel::AggTrade,
            ("ticker", None) => Channel::Ticker,
            (depth, interval) if depth.starts_with("depth") => {
                let usual = if self.venue == VenueKind::Binance { "1000ms" } else { "250ms" };
                let interval_ms = interval.unwrap_or(usual).strip_suffix("ms").and_then(|text| text.parse().ok());
                let interval_ms = interval_ms.ok_or_else(|| format!("invalid interval in {name}"))?;
                match depth.trim_start_matches("depth") {
                    "" => Channel::Book(Depth { levels: 0, interval_ms }),
                    levels => Channel::BestLevels(levels.parse().map_err(|_| format!("invalid depth in {name}"))?),
                }
            }
            _ if kind.is_empty() => return Err(format!("invalid stream {name}")),
            _ => return Ok(None),
        };
        let found = market.listed.iter().position(|listed| listed.symbol().to_lowercase() == symbol);
        Ok(found.map(|instrument| Stream { channel, instrument }))
    }

    fn subscribe(&self, names: &[String], id: &Value, connection: &Connection, market: &Market) -> Vec<Action> {
        let most = connection.limits.streams;
        let new = names.iter().filter(|name| !connection.has_name(name)).count();
        if connection.names() + new > most {
            return vec![refused(id, &format!("Invalid request: too many streams: at most {most}"))];
        }
        let mut actions = vec![answered(id)];
        for name in names {
            match self.stream(name, market) {
                Err(problem) => return vec![refused(id, &format!("Invalid request: {problem}"))],
                Ok(None) => actions.push(Action::Accept { name: name.clone() }),
                Ok(Some(stream)) if !connection.route.carries(stream.channel) => {
                    actions.push(Action::Accept { name: name.clone() });
                }
                Ok(Some(stream)) => {
                    actions.push(Action::Subscribe { stream, name: name.clone(), with_snapshot: false });
                }
            }
        }
        actions
    }

    fn unsubscribe(&self, names: &[String], id: &Value, market: &Market) -> Vec<Action> {
        let mut actions = vec![answered(id)];
        for name in names {
            if let Ok(Some(stream)) = self.stream(name, market) {
                actions.push(Action::Unsubscribe { stream, name: name.clone() });
            }
        }
        actions
    }

    fn quote(&self, of: &Listed, now_ns: u64) -> String {
        if let Some(raw) = &of.raw_quote {
            return raw.clone();
        }
        let symbol = quoted(of.symbol());
        let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
        let id = of.update_id;
        let prices = format!(r#""b":"{bid}","B":"{bid_sz}","a":"{ask}","A":"{ask_sz}""#);
        let now = ms(now_ns);
        match self.venue {
            VenueKind::Binance => format!(r#"{{"u":{id},"s":{symbol},{prices}}}"#),
            VenueKind::BinanceUsdM => {
                format!(r#"{{"e":"bookTicker","u":{id},"s":{symbol},{prices},"T":{now},"E":{now}}}"#)
            }
            _ => {
                let pair = quoted(pair(of));
                format!(r#"{{"u":{id},"e":"bookTicker","s":{symbol},"ps":{pair},{prices},"T":{now},"E":{now}}}"#)
            }
        }
    }

    fn trade(&self, of: &Listed, trade: &Trade, now_ns: u64) -> String {
        let (symbol, id, is_maker) = (quoted(of.symbol()), trade.id, trade.side == Side::Ask);
        let (px, sz, at, now) = (&trade.px, &trade.sz, ms(trade.ts_ns), ms(now_ns));
        match self.venue {
            VenueKind::Binance => format!(
                r#"{{"e":"trade","E":{now},"s":{symbol},"t":{id},"p":"{px}","q":"{sz}","T":{at},"m":{is_maker},"M":true}}"#
            ),
            _ => format!(
                r#"{{"e":"trade","E":{now},"T":{at},"s":{symbol},"t":{id},"p":"{px}","q":"{sz}","X":"MARKET","m":{is_maker}}}"#
            ),
        }
    }

    fn agg_trade(&self, of: &Listed, trade: &Trade, now_ns: u64) -> String {
        let (symbol, id, is_maker) = (quoted(of.symbol()), trade.id, trade.side == Side::Ask);
        let (px, sz, at, now) = (&trade.px, &trade.sz, ms(trade.ts_ns), ms(now_ns));
        let best = if self.venue == VenueKind::Binance { r#","M":true"# } else { "" };
        format!(
            r#"{{"e":"aggTrade","E":{now},"s":{symbol},"a":{id},"p":"{px}","q":"{sz}","f":{id},"l":{id},"T":{at},"m":{is_maker}{best}}}"#
        )
    }

    fn ticker(&self, of: &Listed, now_ns: u64) -> String {
        let (symbol, now, stats) = (quoted(of.symbol()), ms(now_ns), &of.stats);
        let (open, high, low, last) = (&stats.open, &stats.high, &stats.low, &stats.last);
        let volume = of.instrument.volume(stats.volume);
        let turnover = stats.turnover.round_dp(8);
        let change = stats.change();
        let ((bid, bid_sz), (ask, ask_sz)) = (of.best(Side::Bid), of.best(Side::Ask));
        let best = match self.venue {
            VenueKind::Binance => format!(r#""b":"{bid}","B":"{bid_sz}","a":"{ask}","A":"{ask_sz}","#),
            _ => String::new(),
        };
        let (last_sz, count) = (&stats.last_sz, stats.count);
        format!(
            r#"{{"e":"24hrTicker","E":{now},"s":{symbol},"p":"{change}","P":"0.00","w":"{last}","c":"{last}","Q":"{last_sz}",{best}"o":"{open}","h":"{high}","l":"{low}","v":"{volume}","q":"{turnover}","O":0,"C":{now},"F":0,"L":{count},"n":{count}}}"#
        )
    }

    fn book(&self, of: &Listed, update: &Update, now_ns: u64) -> String {
        if let Some(raw) = &update.raw {
            return raw.clone();
        }
        let (symbol, now, ids) = (quoted(of.symbol()), ms(now_ns), update.ids);
        let sides = [Side::Bid, Side::Ask].map(|side| changed_pairs(&update.changes, side));
        let [bids, asks] = sides;
        let (first, last, previous) = (ids.first, ids.last, ids.previous.unwrap_or(0));
        let levels = format!(r#""b":{bids},"a":{asks}"#);
        match self.venue {
            // The ids of spot have no holes.
            VenueKind::Binance => {
                format!(r#"{{"e":"depthUpdate","E":{now},"s":{symbol},"U":{first},"u":{last},{levels}}}"#)
            }
            venue => {
                let pair = match venue {
                    VenueKind::BinanceCoinM => format!(r#""ps":{},"#, quoted(pair(of))),
                    _ => String::new(),
                };
                format!(
                    r#"{{"e":"depthUpdate","E":{now},"T":{now},"s":{symbol},{pair}"U":{first},"u":{last},"pu":{previous},{levels}}}"#
                )
            }
        }
    }
}

impl Dialect for Binance {
    fn upgrade(&self, target: &Target) -> Option<Upgrade> {
        let is_usdm = self.venue == VenueKind::BinanceUsdM;
        let (route, path) = match target.path.as_str() {
            path if is_usdm && path.starts_with("/public/") => (Route::Public, &path["/public".len()..]),
            path if is_usdm && path.starts_with("/market/") => (Route::Market, &path["/market".len()..]),
            path => (if is_usdm { Route::Retired } else { Route::Any }, path),
        };
        let (is_combined, names) = match path {
            "/ws" => (false, None),
            "/stream" => (true, target.get("streams")),
            path => (false, Some(path.strip_prefix("/ws/")?)),
        };
        let names: Vec<_> = names.unwrap_or("").split('/').filter(|name| !name.is_empty()).collect();
        let request = serde_json::json!({"method": "SUBSCRIBE", "params": names}).to_string();
        let requests = if names.is_empty() { Vec::new() } else { vec![request] };
        Some(Upgrade { is_combined, route, requests })
    }

    fn request(&self, text: &str, connection: &Connection, market: &Market, _now_ns: u64) -> Vec<Action> {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return vec![refused(&Value::Null, "Invalid JSON: expected value at line 1 column 1")];
        };
        // A request of the address has no id, and no answer.
        let id = request.get("id").unwrap_or(&Value::Null);
        let params = request.get("params").and_then(Value::as_array);
        let names = params.map(|params| params.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
        let method = request.get("method").and_then(Value::as_str).unwrap_or("");
        let mut actions = match (method, names) {
            ("SUBSCRIBE", Some(names)) => self.subscribe(&names, id, connection, market),
            ("UNSUBSCRIBE", Some(names)) => self.unsubscribe(&names, id, market),
            ("LIST_SUBSCRIPTIONS", _) => {
                let names = serde_json::json!(connection.all_names());
                vec![Action::Send(format!(r#"{{"result":{names},"id":{id}}}"#))]
            }
            ("SET_PROPERTY", _) if params.is_some_and(|params| params.len() == 2 && params[1].is_boolean()) => {
                let is_combined = params.is_some_and(|params| params[1] == Value::Bool(true));
                vec![answered(id), Action::SetCombined(is_combined)]
            }
            ("GET_PROPERTY", _) => {
                vec![Action::Send(format!(r#"{{"result":{},"id":{id}}}"#, connection.is_combined))]
            }
            _ => vec![refused(id, &format!("Invalid request: unknown method {method}"))],
        };
        if request.get("id").is_none() {
            actions.retain(|action| !matches!(action, Action::Send(_)));
        }
        actions
    }

    fn message(&self, of: &Listed, stream: Stream, _name: &str, event: Event<'_>, now_ns: u64) -> Option<String> {
        Some(match (stream.channel, event) {
            (Channel::Quote, Event::Quote) => self.quote(of, now_ns),
            (Channel::Trade, Event::Trade { trade, raw }) => {
                raw.map_or_else(|| self.trade(of, trade, now_ns), str::to_owned)
            }
            (Channel::AggTrade, Event::Trade { trade, .. }) => self.agg_trade(of, trade, now_ns),
            (Channel::Ticker, Event::Ticker) => self.ticker(of, now_ns),
            (Channel::Book(_), Event::Book(update)) => self.book(of, update, now_ns),
            (Channel::BestLevels(levels), Event::Book(_)) => {
                let [bids, asks] = [Side::Bid, Side::Ask].map(|side| pairs(of.book.best(side, levels as usize)));
                format!(r#"{{"lastUpdateId":{},"bids":{bids},"asks":{asks}}}"#, of.update_id)
            }
            _ => return None,
        })
    }

    fn wrapped(&self, name: &str, message: &str) -> String {
        format!(r#"{{"stream":{},"data":{message}}}"#, quoted(name))
    }

    fn closing_notice(&self, connection: &Connection, now_ns: u64) -> Option<String> {
        let event = format!(r#"{{"e":"serverShutdown","E":{}}}"#, ms(now_ns));
        Some(if connection.is_combined { self.wrapped("!serverShutdown", &event) } else { event })
    }

    fn rest(&self, target: &Target, market: &Market, now_ns: u64) -> Rest {
        binance_rest::answer(self.venue, target, market, now_ns)
    }

    fn rest_book(&self, of: &Listed, limit: usize, now_ns: u64) -> String {
        binance_rest::book(self.venue, of, limit, now_ns)
    }

    fn rest_limited(&self, retry_after_s: u64) -> String {
        let words = "Way too much request weight used; IP banned until";
        format!(r#"{{"code":-1003,"msg":"{words} {retry_after_s} s from now."}}"#)
    }
}

/// The pair of a COIN-M contract: `BTCUSD` of `BTCUSD_PERP`.
pub fn pair(of: &Listed) -> &str {
    of.symbol().split('_').next().unwrap_or("")
}

fn answered(id: &Value) -> Action {
    Action::Send(format!(r#"{{"result":null,"id":{id}}}"#))
}

fn refused(id: &Value, message: &str) -> Action {
    Action::Send(format!(r#"{{"code":2,"msg":{},"id":{id}}}"#, quoted(message)))
}
