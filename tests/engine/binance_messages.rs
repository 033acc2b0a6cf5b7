//! Single messages of Binance's three markets: the recorded ones and those of its documentation.

use serde_json::Value;
use tickcast::ingest::feed::Report;
use tickcast::ingest::feed::binance::{Malformed, Market, Origin, Out, Parser, Translator};
use tickcast_protocol::record::{self, PRICE_NONE, Quote, Ticker, Trade};
use tickcast_protocol::{RecordKind, Side};
use tickcast_test_support::paths::recordings;

/// The result of a single message.
struct Taken {
    market: Option<Market>,
    batch: Vec<u8>,
    report: Report,
    outcome: Result<(), Malformed>,
}

impl Taken {
    fn kinds(&self) -> Vec<RecordKind> {
        record::records(&self.batch).filter_map(|(header, _)| RecordKind::from_wire(header.kind)).collect()
    }

    fn record(&self, index: usize) -> &[u8] {
        record::records(&self.batch).nth(index).expect("a record at this index").1
    }
}

/// Translates a message as the first of a recording of that market. A snapshot without a symbol is of `XY`.
fn take(market: Market, json: &str) -> Taken {
    let mut taken = Taken { market: None, batch: Vec::new(), report: Report::default(), outcome: Ok(()) };
    let mut origin = Origin::new(market, true, Some("XY".to_owned()));
    let mut translator = Translator::new(String::new());
    let mut out = Out { batch: &mut taken.batch, report: &mut taken.report, next_id: &mut 1 };
    taken.outcome = Parser::default().read(&mut json.as_bytes().to_vec(), |message| {
        taken.market = message.market;
        translator.take(&message, &mut origin, &mut out)
    });
    taken
}

/// The same JSON with the keys of every object in reverse, between unknown keys.
fn reordered(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let pairs = object.iter().rev().map(|(key, value)| format!("{key:?} : {}", reordered(value)));
            let pairs: Vec<_> = ["\"st\":2".to_owned()].into_iter().chain(pairs).collect();
            format!("{{ {},\"zz\":{{\"e\":[\"trade\"]}} }}", pairs.join(" , "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(reordered).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn vectors() -> Option<Vec<(Market, String, String)>> {
    let text = std::fs::read_to_string(recordings()?.join("vectors.jsonl")).expect("the vectors are among the data");
    let mut vectors = Vec::new();
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).expect("JSON");
        let field = |name: &str| vector[name].as_str().expect("a string").to_owned();
        let market = match field("venue").as_str() {
            "binance-spot" => Market::Spot,
            "binance-usdm" => Market::UsdM,
            "binance-coinm" => Market::CoinM,
            _ => continue,
        };
        vectors.push((market, field("kind"), field("msg")));
    }
    assert!(vectors.len() > 30, "{} vectors", vectors.len());
    Some(vectors)
}

/// The records of a message of this kind.
fn expected_kinds(kind: &str) -> &'static [RecordKind] {
    use RecordKind::{Book, Definition, Quote, Ticker, Trade};
    match kind.trim_start_matches("doc:") {
        "bookTicker" => &[Definition, Quote],
        "trade" => &[Definition, Trade],
        "24hrTicker" | "24hrMiniTicker" => &[Definition, Ticker],
        // An update before any snapshot is held.
        "depth" | "depthUpdate" => &[Definition],
        "partialDepth" => &[Definition, Book],
        snapshot if snapshot.starts_with("depth_snapshot") => &[Definition, Book],
        _ => &[],
    }
}

#[test]
fn every_message_is_translated_or_ignored_with_keys_in_any_order() {
    let Some(vectors) = vectors() else { return };
    for (market, kind, json) in vectors {
        let taken = take(market, &json);
        assert_eq!(taken.outcome, Ok(()), "{json}");
        assert_eq!(taken.kinds(), expected_kinds(&kind), "{kind} {json}");
        assert_eq!(taken.report.ignored, u64::from(expected_kinds(&kind).is_empty()), "{json}");
        let shows_market = !expected_kinds(&kind).is_empty() && !kind.contains("24hr");
        assert_eq!(taken.market, shows_market.then_some(market), "{json}");
        if shows_market || kind.contains("24hr") {
            let definition = record::read_definition(taken.record(0)).expect("a definition");
            assert_eq!(definition.venue, market.venue());
        }
        let again = take(market, &reordered(&serde_json::from_str(&json).expect("JSON")));
        assert_eq!((again.outcome, again.batch, again.market), (taken.outcome, taken.batch, taken.market), "{json}");
    }
}

#[test]
fn values_are_exactly_those_of_the_venue() {
    let spot = r#"{"u":5,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}"#;
    let taken = take(Market::Spot, spot);
    let quote =
        Quote { bid_px: 6_183_763_000_000, bid_sz: 378_826_000, ask_px: 6_183_764_000_000, ask_sz: 154_698_000 };
    assert_eq!(Quote::read(taken.record(1)), Some(quote));
    assert_eq!(
        record::RecordHeader::read(taken.record(1)).map(|header| header.ts_event),
        Some(0),
        "spot quotes have no time"
    );

    let usdm = r#"{"e":"trade","E":1723161256323,"T":1723161256322,"s":"BTCUSDT","t":5266583935,
        "p":"61800.30","q":"0.006","X":"MARKET","m":false}"#;
    let taken = take(Market::UsdM, usdm);
    let trade = Trade { px: 6_180_030, sz: 6, trade_id: 5_266_583_935, side: Side::Buy };
    assert_eq!(Trade::read(taken.record(1)), Some(trade));
    let header = record::RecordHeader::read(taken.record(1)).expect("a header");
    assert_eq!(header.ts_event, 1_723_161_256_322_000_000);
    let definition = record::read_definition(taken.record(0)).expect("a definition");
    assert_eq!((definition.symbol.as_str(), definition.px_exp, definition.sz_exp), ("BTCUSDT-PERP", -2, -3));

    let micros = usdm.replace("1723161256322,", "1723161256322123,").replace("false", "true");
    let taken = take(Market::UsdM, &micros);
    let header = record::RecordHeader::read(taken.record(1)).expect("a header");
    assert_eq!(header.ts_event, 1_723_161_256_322_123_000);
    assert_eq!(Trade::read(taken.record(1)).map(|trade| trade.side), Some(Side::Sell), "the buyer was the maker");

    let mini =
        r#"{"e":"24hrMiniTicker","E":1,"s":"BTCUSD_PERP","c":"2.5","o":"1.0","h":"2.6","l":"0.9","v":"77","q":"18.2"}"#;
    let ticker = Ticker::read(take(Market::CoinM, mini).record(1)).expect("a ticker");
    assert_eq!((ticker.last_px, ticker.open_px, ticker.high_px, ticker.low_px, ticker.volume), (25, 10, 26, 9, 77));
    assert_eq!(ticker.turnover, PRICE_NONE, "COIN-M's q is coin, not quote currency");
}

#[test]
fn market_follows_from_the_keys_and_dated_contracts_keep_their_names() {
    let market = |json: &str| take(Market::Spot, json).market;
    let depth = |rest: &str| market(&format!(r#"{{"e":"depthUpdate","E":1,"U":1,"u":2,"b":[],"a":[],{rest}}}"#));
    assert_eq!(depth(r#""s":"BTCUSDT""#), Some(Market::Spot));
    assert_eq!(depth(r#""s":"BTCUSDT","pu":1"#), Some(Market::UsdM));
    assert_eq!(depth(r#""s":"BTCUSDT","pu":1,"st":2,"ps":"BTCUSDT""#), Some(Market::UsdM));
    assert_eq!(depth(r#""s":"BTCUSDT_240927","pu":1,"ps":"BTCUSDT""#), Some(Market::UsdM));
    assert_eq!(depth(r#""s":"BTCUSD_PERP","pu":1,"ps":"BTCUSD""#), Some(Market::CoinM));
    assert_eq!(depth(r#""s":"BTCUSD_240927","pu":1,"ps":"BTCUSD""#), Some(Market::CoinM));
    assert_eq!(Market::UsdM.name("BTCUSDT"), "BTCUSDT-PERP");
    assert_eq!(Market::UsdM.name("BTCUSDT_240927"), "BTCUSDT_240927");
    assert_eq!(Market::CoinM.name("BTCUSD_PERP"), "BTCUSD_PERP");
    assert_eq!(Market::Spot.name("BTCUSDT"), "BTCUSDT");
}

#[test]
fn partial_books_and_settlements_are_ignored() {
    let book = r#""data":{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}"#;
    let taken = take(Market::Spot, &format!(r#"{{"stream":"bnbbtc@depth5@100ms",{book}}}"#));
    assert_eq!((taken.report.ignored, taken.batch.len()), (1, 0));
    let taken = take(Market::Spot, &format!(r#"{{"stream":"bnbbtc@depth@100ms",{book}}}"#));
    assert_eq!(record::read_definition(taken.record(0)).map(|definition| definition.symbol), Some("BNBBTC".to_owned()));
    let settlement = r#"{"e":"trade","E":1,"T":1,"s":"BTCUSDT","t":5,"p":"0","q":"0","X":"NA","m":true}"#;
    assert_eq!(take(Market::UsdM, settlement).report.ignored, 1);
}

#[test]
fn error_of_a_malformed_message_names_the_key() {
    let error = |json: &str| take(Market::UsdM, json).outcome.expect_err("malformed").to_string();
    let depth = r#"{"e":"depthUpdate","E":1,"s":"AB","U":1,"u":2,"b":[],"a":[]}"#;
    assert_eq!(error(depth), "key \"pu\" is missing");
    assert_eq!(error(&depth.replace("\"U\":1", "\"U\":3")), "depth update from 3 to 2 runs backwards");
    assert_eq!(error(&depth.replace("\"u\":2", "\"u\":\"2\"")), "key \"u\": expected a whole number from 0");
    let quote = r#"{"u":5,"s":"AB","b":"1.0","B":"x","a":"1.1","A":"1"}"#;
    assert_eq!(error(quote), "key \"B\": \"x\": not a decimal number");
    assert_eq!(error(&quote.replace(",\"A\":\"1\"", "")), "key \"A\" is missing");
    assert!(error("{\"e\":").starts_with("not JSON: "));
    assert_eq!(error("5"), "expected a JSON object or a list of objects");
}
