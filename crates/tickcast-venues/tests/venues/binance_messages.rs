//! Single messages of Binance's three markets: the recorded ones and those of its documentation.

use serde_json::Value;
use tickcast_protocol::record::{self, PRICE_NONE, Quote, Ticker, Trade};
use tickcast_protocol::{BookAction, RecordKind, Side};
use tickcast_test_support::paths::recordings;
use tickcast_venues::binance::{Market, Origin, Parser, Translator};
use tickcast_venues::{Malformed, Naming, Report, Sink};

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
    let mut translator = Translator::new(&Naming::default());
    let (batch, report, events) = (&mut taken.batch, &mut taken.report, &mut Vec::new());
    let mut sink = Sink { batch, report, next_id: &mut 1, events };
    let _ = Parser::default().read(&mut json.as_bytes().to_vec(), |message| {
        taken.market = message.market;
        Ok(())
    });
    taken.outcome = translator.read(&mut Parser::default(), &mut json.as_bytes().to_vec(), &mut origin, &mut sink);
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
        "trade" | "aggTrade" => &[Definition, Trade],
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

    for (time, time_ns) in [
        ("1723161256", 1_723_161_256_000_000_000),
        ("1723161256.25", 1_723_161_256_250_000_000),
        ("\"1723161256322\"", 1_723_161_256_322_000_000),
        ("\"1723161256.322001\"", 1_723_161_256_322_001_000),
        ("1723161256322123456", 1_723_161_256_322_123_456),
        // The time of the message stands in for that of the matching engine.
        ("0", 1_723_161_256_323_000_000),
        ("17231612563", 1_723_161_256_323_000_000),
    ] {
        let taken = take(Market::UsdM, &usdm.replace("1723161256322", time));
        let header = record::RecordHeader::read(taken.record(1)).expect("a header");
        assert_eq!(header.ts_event, time_ns, "{time}");
    }

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

const AGGREGATE: &str = r#"{"e":"aggTrade","E":1723161256323,"s":"BTCUSDT","a":77,"p":"61800.30","q":"0.250",
    "f":100,"l":105,"T":1723161256322,"m":true}"#;

#[test]
fn an_aggregate_is_a_trade_with_the_id_of_its_last() {
    let spot = AGGREGATE.replace("\"m\":true", "\"m\":true,\"M\":true");
    for (market, json) in [(Market::UsdM, AGGREGATE), (Market::Spot, spot.as_str())] {
        let taken = take(market, json);
        assert_eq!((taken.market, taken.kinds()), (Some(market), vec![RecordKind::Definition, RecordKind::Trade]));
        let trade = Trade { px: 6_180_030, sz: 250, trade_id: 105, side: Side::Sell };
        assert_eq!(Trade::read(taken.record(1)), Some(trade));
        let header = record::RecordHeader::read(taken.record(1)).expect("a header");
        assert_eq!(header.ts_event, 1_723_161_256_322_000_000);
    }
    let wrong = take(Market::UsdM, &AGGREGATE.replace("\"l\":105", "\"l\":99")).outcome;
    assert_eq!(wrong.expect_err("malformed").to_string(), "ids from 100 to 99 run backwards");
    let without = take(Market::UsdM, &AGGREGATE.replace("\"f\":100,", "")).outcome;
    assert_eq!(without, Err(Malformed::Missing("f")));
}

/// The ids of the trades of several messages of one recording.
fn trade_ids(messages: &[String]) -> (Vec<u64>, u64) {
    let mut batch = Vec::new();
    let mut report = Report::default();
    let mut origin = Origin::new(Market::UsdM, true, None);
    let mut translator = Translator::new(&Naming::default());
    let mut events = Vec::new();
    let mut sink = Sink { batch: &mut batch, report: &mut report, next_id: &mut 1, events: &mut events };
    for message in messages {
        let taken = translator.read(&mut Parser::default(), &mut message.clone().into_bytes(), &mut origin, &mut sink);
        assert_eq!(taken, Ok(()), "{message}");
    }
    let trades = record::records(&batch).filter(|(header, _)| header.known_kind() == Some(RecordKind::Trade));
    let trades = trades.filter_map(|(_, record)| Trade::read(record));
    (trades.map(|trade| trade.trade_id).collect(), report.ignored)
}

#[test]
fn no_trade_comes_twice_where_both_streams_are_recorded() {
    let single = |id: u64| {
        format!(
            r#"{{"e":"trade","E":1723161256323,"T":1723161256322,"s":"AB","t":{id},"p":"1.50","q":"2.000","X":"MARKET","m":false}}"#
        )
    };
    let aggregate = |from: u64, to: u64| {
        let ids = format!("\"f\":{from},\"l\":{to}");
        AGGREGATE.replace("\"f\":100,\"l\":105", &ids).replace("BTCUSDT", "AB")
    };
    let both = |messages: &[String]| trade_ids(messages);
    assert_eq!(both(&[aggregate(1, 3), aggregate(4, 4), aggregate(5, 9)]), (vec![3, 4, 9], 0));
    assert_eq!(both(&[single(1), single(2), aggregate(1, 2), single(3), aggregate(3, 3)]), (vec![1, 2, 3], 2));
    assert_eq!(both(&[aggregate(1, 2), single(1), single(2), single(3), aggregate(3, 3)]), (vec![2, 3], 3));
    // An aggregate of which a part was published: the rest comes one by one.
    assert_eq!(both(&[single(1), aggregate(1, 2), single(2), aggregate(3, 4), single(3)]), (vec![1, 2, 4], 2));
}

#[test]
fn what_is_no_trade_of_the_market_is_ignored() {
    let trade =
        r#"{"e":"trade","E":1723161256323,"T":1723161256322,"s":"AB","t":5,"p":"1.5","q":"2.0","X":"MARKET","m":true}"#;
    assert_eq!(take(Market::UsdM, trade).kinds(), [RecordKind::Definition, RecordKind::Trade]);
    for (from, to) in [("MARKET", "NA"), ("MARKET", "INSURANCE_FUND"), ("MARKET", "ADL"), ("\"2.0\"", "\"0.0\"")] {
        let taken = take(Market::UsdM, &trade.replace(from, to));
        assert_eq!((taken.outcome, taken.report.ignored, taken.batch.len()), (Ok(()), 1, 0), "{to}");
    }
    let nothing = take(Market::UsdM, &AGGREGATE.replace("0.250", "0.000"));
    assert_eq!((nothing.outcome, nothing.report.ignored), (Ok(()), 1));
}

#[test]
fn events_without_a_record_are_ignored_and_no_errors() {
    for event in [
        r#"{"e":"kline","E":1,"s":"AB","k":{}}"#,
        r#"{"e":"forceOrder","E":1,"o":{"s":"AB","S":"SELL","q":"0.014","p":"9910"}}"#,
        r#"{"e":"markPriceUpdate","E":1,"s":"AB","p":"11794.15","i":"11784.62","r":"0.0001","T":2}"#,
        r#"{"e":"avgPrice","E":1,"s":"AB","i":"5m","w":"25776.86","T":2}"#,
        r#"{"e":"1hTicker","E":1,"s":"AB","c":"1","o":"1","h":"1","l":"1","v":"1","q":"1"}"#,
        r#"{"e":"blockTrade","E":1,"s":"AB","p":"1","q":"1","T":2}"#,
        r#"{"e":"contractInfo","E":1,"s":"AB","cs":"TRADING"}"#,
        r#"{"e":"of a later version","E":1}"#,
        r#"{"result":null,"id":1}"#,
        r#"{"error":{"code":2,"msg":"Invalid request"}}"#,
    ] {
        for json in [event.to_owned(), format!(r#"{{"stream":"ab@x","data":{event}}}"#)] {
            let taken = take(Market::Spot, &json);
            assert_eq!((taken.outcome, taken.report.ignored, taken.batch.len()), (Ok(()), 1, 0), "{json}");
        }
    }
}

#[test]
fn a_side_without_a_size_is_empty() {
    for (bid, size) in [("0.00", "0.0"), ("1.50", "0.0"), ("1.50", "0")] {
        let json = format!(r#"{{"u":5,"s":"AB","b":"{bid}","B":"{size}","a":"1.60","A":"2.0"}}"#);
        let quote = Quote::read(take(Market::Spot, &json).record(1)).expect("a quote");
        assert_eq!((quote.bid_px, quote.bid_sz, quote.ask_px), (PRICE_NONE, PRICE_NONE, 160), "{bid} {size}");
    }
}

/// A partial book of spot, in its combined stream.
fn partial(id: u64, bid: &str) -> String {
    let data = format!(r#"{{"lastUpdateId":{id},"bids":[["{bid}","10"]],"asks":[["0.0026","100"]]}}"#);
    format!(r#"{{"stream":"bnbbtc@depth5@100ms","data":{data}}}"#)
}

#[test]
fn partial_books_are_the_book_while_there_is_no_whole_one() {
    let update = |first: u64, last: u64| {
        let ids = format!(r#""U":{first},"u":{last}"#);
        let data = format!(r#"{{"e":"depthUpdate","E":1723161256323,"s":"BNBBTC",{ids},"b":[["0.0021","1"]],"a":[]}}"#);
        format!(r#"{{"stream":"bnbbtc@depth@100ms","data":{data}}}"#)
    };
    let whole = |id: u64| partial(id, "0.0020").replace("@depth5", "@depth");
    let mut batch = Vec::new();
    let mut report = Report::default();
    let mut origin = Origin::new(Market::Spot, true, None);
    let mut translator = Translator::new(&Naming::default());
    let mut events = Vec::new();
    let mut sink = Sink { batch: &mut batch, report: &mut report, next_id: &mut 1, events: &mut events };
    let messages = [
        partial(10, "0.0024"),
        partial(11, "0.0025"),
        update(11, 12),
        partial(12, "0.0023"),
        whole(12),
        update(13, 13),
        // Beside a whole book they show nothing new.
        partial(13, "0.0022"),
        // An update is missing: the book is void, and partial ones stand in again.
        update(15, 15),
        partial(15, "0.0019"),
    ];
    for message in messages {
        let taken = translator.read(&mut Parser::default(), &mut message.clone().into_bytes(), &mut origin, &mut sink);
        assert_eq!(taken, Ok(()), "{message}");
    }
    let books = record::records(&batch).filter(|(header, _)| header.known_kind() == Some(RecordKind::Book));
    let shape = |record: &[u8]| {
        let (action, mut levels) = record::read_book(record).expect("a book");
        (action, levels.next().map(|level| level.px))
    };
    let shapes: Vec<_> = books.map(|(_, record)| shape(record)).collect();
    use BookAction::{Delta, Snapshot};
    let expected = [
        (Snapshot, Some(24)),
        (Snapshot, Some(25)),
        (Snapshot, Some(23)),
        (Snapshot, Some(20)),
        (Delta, Some(21)),
        (Snapshot, None),
        (Snapshot, Some(19)),
    ];
    assert_eq!(shapes, expected);
    assert_eq!((report.ignored, report.book_gaps), (1, 1));
}

#[test]
fn partial_books_of_futures_have_the_keys_of_updates() {
    let data = r#"{"e":"depthUpdate","E":1723161256323,"T":1723161256322,"s":"BTCUSDT","U":390,"u":400,"pu":380,
        "b":[["7403.89","0.002"]],"a":[["7405.96","3.340"]]}"#;
    let taken = take(Market::UsdM, &format!(r#"{{"stream":"btcusdt@depth5@500ms","data":{data}}}"#));
    assert_eq!((taken.market, taken.kinds()), (Some(Market::UsdM), vec![RecordKind::Definition, RecordKind::Book]));
    let taken = take(Market::UsdM, &format!(r#"{{"stream":"btcusdt@depth@500ms","data":{data}}}"#));
    assert_eq!(taken.kinds(), [RecordKind::Definition], "an update waits for a snapshot");
    let spot = take(Market::Spot, &partial(160, "0.0024").replace("@depth5", "@depth"));
    assert_eq!(record::read_definition(spot.record(0)).map(|definition| definition.symbol), Some("BNBBTC".to_owned()));
}

#[test]
fn a_time_in_no_unit_is_said_and_the_record_has_none() {
    for (time, shown) in [
        ("123456789", "\"123456789\""),
        ("-5", "\"-5\""),
        ("\"soon\"", "\"soon\""),
        ("[]", "\"a value of another type\""),
    ] {
        let json =
            format!(r#"{{"e":"24hrMiniTicker","E":{time},"s":"AB","c":"2","o":"1","h":"2","l":"1","v":"7","q":"8"}}"#);
        let mut faults = Vec::new();
        let outcome = Parser::default().read(&mut json.clone().into_bytes(), |message| {
            faults.extend(message.time_fault.clone().map(|fault| fault.to_string()));
            Ok(())
        });
        let expected = format!("key \"E\": {shown} is no time: expected seconds, milliseconds, microseconds");
        assert!(outcome.is_ok() && faults.len() == 1 && faults[0].starts_with(&expected), "{time}: {faults:?}");
        let taken = take(Market::UsdM, &json);
        assert_eq!(record::RecordHeader::read(taken.record(1)).map(|header| header.ts_event), Some(0));
    }
}

#[test]
fn error_of_a_malformed_message_names_the_key() {
    let error = |json: &str| take(Market::UsdM, json).outcome.expect_err("malformed").to_string();
    let depth = r#"{"e":"depthUpdate","E":1,"s":"AB","U":1,"u":2,"b":[],"a":[]}"#;
    assert_eq!(error(depth), "key \"pu\" is missing");
    assert_eq!(error(&depth.replace("\"U\":1", "\"U\":3")), "ids from 3 to 2 run backwards");
    assert_eq!(error(&depth.replace("\"u\":2", "\"u\":\"2\"")), "key \"u\": expected a whole number from 0");
    let quote = r#"{"u":5,"s":"AB","b":"1.0","B":"x","a":"1.1","A":"1"}"#;
    assert_eq!(error(quote), "key \"B\": \"x\": not a decimal number");
    assert_eq!(error(&quote.replace(",\"A\":\"1\"", "")), "key \"A\" is missing");
    assert!(error("{\"e\":").starts_with("not JSON: "));
    assert_eq!(error("5"), "expected a JSON object or a list of objects");
}
