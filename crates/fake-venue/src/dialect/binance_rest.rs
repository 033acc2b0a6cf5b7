//! The REST addresses of Binance: list of instruments, book, time.

use super::binance::pair;
use super::text::{ms, pairs, quoted};
use super::{Rest, Target};
use crate::market::book::Side;
use crate::market::instrument::Status;
use crate::market::{Listed, Market};
use crate::venue::VenueKind;

/// Answers a request.
pub fn answer(venue: VenueKind, target: &Target, market: &Market, now_ns: u64) -> Rest {
    let root = match venue {
        VenueKind::Binance => "/api/v3",
        VenueKind::BinanceUsdM => "/fapi/v1",
        _ => "/dapi/v1",
    };
    let Some(name) = target.path.strip_prefix(root) else { return Rest::Unknown };
    let answer = |body: String, weight| Rest::Answer { status: 200, body, weight };
    match name {
        "/ping" => answer("{}".to_owned(), 1),
        "/time" => answer(format!(r#"{{"serverTime":{}}}"#, ms(now_ns)), 1),
        "/exchangeInfo" => {
            let wanted = |listed: &&Listed| target.get("symbol").is_none_or(|symbol| symbol == listed.symbol());
            let entries: Vec<_> = market.listed.iter().filter(wanted).map(|of| entry(venue, of)).collect();
            if entries.is_empty() {
                return invalid_symbol();
            }
            let (now, entries) = (ms(now_ns), entries.join(","));
            let body = format!(
                r#"{{"timezone":"UTC","serverTime":{now},"rateLimits":[],"exchangeFilters":[],"symbols":[{entries}]}}"#
            );
            answer(body, if venue == VenueKind::Binance { 20 } else { 1 })
        }
        "/depth" => depth(venue, target, market),
        _ => Rest::Unknown,
    }
}

fn depth(venue: VenueKind, target: &Target, market: &Market) -> Rest {
    let Some(instrument) = target.get("symbol").and_then(|symbol| market.find(symbol)) else {
        return invalid_symbol();
    };
    let is_spot = venue == VenueKind::Binance;
    let limit = target.get("limit").map_or(Some(if is_spot { 100 } else { 500 }), |text| text.parse::<usize>().ok());
    let is_allowed = |limit: &usize| match is_spot {
        true => (1..=5000).contains(limit),
        false => [5, 10, 20, 50, 100, 500, 1000].contains(limit),
    };
    let Some(limit) = limit.filter(is_allowed) else {
        let body = r#"{"code":-4021,"msg":"limit is not valid."}"#.to_owned();
        return Rest::Answer { status: 400, body, weight: 1 };
    };
    let weight = match (is_spot, limit) {
        (true, ..=100) => 5,
        (true, ..=500) => 25,
        (true, ..=1000) => 50,
        (true, _) => 250,
        (false, ..=50) => 2,
        (false, ..=100) => 5,
        (false, ..=500) => 10,
        (false, _) => 20,
    };
    Rest::Book { instrument, limit, weight }
}

fn invalid_symbol() -> Rest {
    Rest::Answer { status: 400, body: r#"{"code":-1121,"msg":"Invalid symbol."}"#.to_owned(), weight: 1 }
}

/// The book with its id.
pub fn book(venue: VenueKind, of: &Listed, limit: usize, now_ns: u64) -> String {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| pairs(of.book.best(side, limit)));
    let (id, now) = (of.update_id, ms(now_ns));
    let named = match venue {
        VenueKind::Binance => String::new(),
        VenueKind::BinanceUsdM => format!(r#""E":{now},"T":{now},"#),
        _ => {
            let (symbol, pair) = (quoted(of.symbol()), quoted(pair(of)));
            format!(r#""E":{now},"T":{now},"symbol":{symbol},"pair":{pair},"#)
        }
    };
    format!(r#"{{"lastUpdateId":{id},{named}"bids":{bids},"asks":{asks}}}"#)
}

fn entry(venue: VenueKind, of: &Listed) -> String {
    let instrument = &of.instrument;
    let (symbol, base, quote) = (quoted(of.symbol()), quoted(&instrument.base), quoted(&instrument.quote));
    let (tick, lot) = (instrument.tick, instrument.lot);
    let filters = format!(
        r#"[{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"1000000.00","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","minQty":"{lot}","maxQty":"9000000","stepSize":"{lot}"}}]"#
    );
    let is_trading = instrument.status == Status::Trading;
    match venue {
        VenueKind::Binance => {
            let status = if is_trading { "TRADING" } else { "BREAK" };
            format!(
                r#"{{"symbol":{symbol},"status":"{status}","baseAsset":{base},"quoteAsset":{quote},"filters":{filters}}}"#
            )
        }
        _ => {
            let (status, pair) = (if is_trading { "TRADING" } else { "SETTLING" }, quoted(pair(of)));
            let key = if venue == VenueKind::BinanceCoinM { "contractStatus" } else { "status" };
            format!(
                r#"{{"symbol":{symbol},"pair":{pair},"contractType":"PERPETUAL","{key}":"{status}","baseAsset":{base},"quoteAsset":{quote},"filters":{filters}}}"#
            )
        }
    }
}
