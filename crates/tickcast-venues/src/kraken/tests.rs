//! Messages of docs.kraken.com, and others of their form.

use serde_json::json;
use tickcast_protocol::Channel;

use crate::sink::{BookFault, Event, Notice, StreamName};
use crate::test_records::Bench;
use crate::{CodecOptions, NameStyle, Naming, StreamState, Venue};

const PAIRS: &str = r#"{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[
    {"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,"qty_increment":1e-8,
     "price_precision":1,"price_increment":0.1}]}}"#;

/// Prices and sizes.
type Levels = Vec<(&'static str, &'static str)>;

/// The sides of the example of "Book Checksum (v2)", whose checksum is 3310070434.
fn example() -> (Levels, Levels) {
    let bids = vec![
        ("45283.5", "0.10000000"),
        ("45283.4", "1.54582015"),
        ("45282.1", "0.10000000"),
        ("45281.0", "0.10000000"),
        ("45280.3", "1.54592586"),
        ("45279.0", "0.07990000"),
        ("45277.6", "0.03310103"),
        ("45277.5", "0.30000000"),
        ("45277.3", "1.54602737"),
        ("45276.6", "0.15445238"),
    ];
    let asks = vec![
        ("45285.2", "0.00100000"),
        ("45286.4", "1.54571953"),
        ("45286.6", "1.54571109"),
        ("45289.6", "1.54560911"),
        ("45290.2", "0.15890660"),
        ("45291.8", "1.54553491"),
        ("45294.7", "0.04454749"),
        ("45296.1", "0.35380000"),
        ("45297.5", "0.09945542"),
        ("45299.5", "0.18772827"),
    ];
    (bids, asks)
}

fn message(kind: &str, bids: &[(&str, &str)], asks: &[(&str, &str)], checksum: u32) -> String {
    let side = |levels: &[(&str, &str)]| {
        let levels: Vec<_> = levels.iter().map(|(px, sz)| format!(r#"{{"price":{px},"qty":{sz}}}"#)).collect();
        levels.join(",")
    };
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{}],"asks":[{}],
            "checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}"#,
        side(bids),
        side(asks)
    )
}

/// A codec with the list, and the book of the example.
fn with_book() -> Bench {
    let mut bench = Bench::with(Venue::Kraken, CodecOptions { depth: Some(10), ..CodecOptions::default() });
    bench.subscribe(&["BTC/USD"], &[Channel::Book]);
    bench.records(PAIRS);
    let (bids, asks) = example();
    let records = bench.records(&message("snapshot", &bids, &asks, 3_310_070_434));
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].starts_with("book S B45283.5x0.10000000 B45283.4x1.54582015"), "{records:?}");
    bench
}

#[test]
fn checksum_of_the_documentation_is_accepted_also_with_numbers_cut_short() {
    let mut bench = with_book();
    assert_eq!(bench.report.checksum_errors, 0);
    // JSON writers drop zeros at the end: the digits are those of the instrument's precision.
    let (bids, asks) = example();
    let cut = |levels: &Levels| -> Levels {
        let plain = |text: &'static str| text.trim_end_matches('0').trim_end_matches('.');
        levels.iter().map(|(px, sz)| (plain(px), plain(sz))).collect()
    };
    bench.records(&message("snapshot", &cut(&bids), &cut(&asks), 3_310_070_434));
    assert_eq!(bench.report.checksum_errors, 0);
}

#[test]
fn other_checksum_drops_the_book_and_asks_for_it_again() {
    let mut bench = with_book();
    let records = bench.records(&message("update", &[("45283.5", "0.2")], &[], 1));
    assert_eq!(records, ["book S?"]);
    assert_eq!(bench.report.checksum_errors, 1);
    let dropped = |event: &Event| {
        matches!(event, Event::BookDropped { instrument, cause: BookFault::Checksum { stated: 1, .. } }
            if instrument == "BTC/USD")
    };
    assert!(bench.events.iter().any(dropped), "{:?}", bench.events);
    assert_eq!(bench.records(&message("update", &[("45283.5", "0.3")], &[], 2)), [""; 0], "there is no book");
    let sent = bench.tick(1);
    let book = r#"{"channel":"book","depth":10,"symbol":["BTC/USD"]}"#;
    assert!(sent.contains(&format!(r#"{{"method":"unsubscribe","params":{book}}}"#)), "{sent:?}");
    assert!(sent.contains(&format!(r#"{{"method":"subscribe","params":{book}}}"#)), "{sent:?}");
    let (bids, asks) = example();
    assert!(bench.records(&message("snapshot", &bids, &asks, 3_310_070_434))[0].starts_with("book S B"));
}

#[test]
fn levels_beyond_the_depth_are_removed() {
    let mut bench = with_book();
    // The checksum is of the ten best bids after the change; the last one falls out of the book.
    let (mut bids, asks) = example();
    bids.insert(0, ("45283.6", "1.00000000"));
    bids.truncate(10);
    let digits = |(px, sz): &(&str, &str)| {
        let plain = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        plain(px) + &plain(sz)
    };
    let text: String = asks.iter().chain(&bids).map(digits).collect();
    let checksum = crc32fast::hash(text.as_bytes());
    let records = bench.records(&message("update", &[("45283.6", "1.0")], &[], checksum));
    assert_eq!(records, ["book D B45283.6x1.00000000 B45276.6x0.00000000"]);
    assert_eq!(bench.report.checksum_errors, 0);
}

#[test]
fn message_that_cannot_be_read_drops_the_book_that_it_names_or_every_book() {
    for text in [
        r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":"x","qty":1}],"asks":[]}]}"#,
        r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":1}],"asks":[]}]}"#,
        r#"{"channel":"book","type":"upd"#,
    ] {
        let mut bench = with_book();
        assert!(bench.take(text).is_err(), "{text}");
        assert_eq!(bench.drain(), ["book S?"], "{text}");
        assert_eq!(bench.report.book_gaps, 1);
        assert!(bench.tick(1).iter().any(|sent| sent.contains("unsubscribe")));
    }
}

#[test]
fn quote_trade_and_statistics_are_those_of_the_venue() {
    let mut bench = Bench::with(
        Venue::Kraken,
        CodecOptions { naming: Naming { style: NameStyle::Common, suffix: ".2".to_owned() }, depth: None },
    );
    bench.records(PAIRS);
    let ticker = r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"BTC/USD","bid":105944.20,"bid_qty":2.5,
        "ask":105944.30,"ask_qty":3.2,"last":105899.40,"volume":163.28908096,"vwap":105904.39279,"low":104711.00,
        "high":106613.10,"change":250.00,"change_pct":0.24}]}"#;
    let records = bench.records(ticker);
    assert_eq!(
        records,
        [
            "define BTC-USD.2@kraken -2 -1 tick - lot - T",
            "quote 105944.20x2.5 105944.30x3.2",
            "ticker 105899.40 105649.40 106613.10 104711.00 v163.2 q- 105944.20 105944.30",
        ]
    );
    let trade = r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,
        "qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;
    assert_eq!(
        bench.records(trade),
        ["define BTC-USD.2@kraken -2 -8 tick - lot - T", "trade 10218208 B 105944.20x0.00027625"]
    );
    assert_eq!(bench.records(trade), [""; 0], "it was sent again");
    let later = trade.replace("10218208", "10218211");
    assert_eq!(bench.records(&later), ["gap of 2", "trade 10218211 B 105944.20x0.00027625"]);
    assert_eq!((bench.report.trades_lost, bench.report.rescaled), (2, 1));
    let empty = r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":0,"bid_qty":0,"ask":0,
        "ask_qty":0,"timestamp":"1970-01-01T00:00:00.000000Z"}]}"#;
    assert_eq!(bench.records(empty), ["quote -x- -x-"]);
    assert_eq!(bench.report.untimed, 1);
}

#[test]
fn list_defines_subscribed_instruments_and_reports_changes() {
    let mut bench = Bench::new(Venue::Kraken);
    bench.records(PAIRS);
    let sent = bench.subscribe(&["BTC/USD"], &[Channel::Quote, Channel::Ticker, Channel::Trade]);
    let wanted = [
        r#"{"method":"subscribe","params":{"channel":"instrument","snapshot":true}}"#,
        r#"{"method":"subscribe","params":{"channel":"ticker","event_trigger":"bbo","symbol":["BTC/USD"]}}"#,
        r#"{"method":"subscribe","params":{"channel":"trade","snapshot":false,"symbol":["BTC/USD"]}}"#,
    ];
    assert_eq!(sent, wanted);
    assert_eq!(bench.drain(), ["define BTC/USD@kraken -1 -8 tick 0.1 lot 0.00000001 T"]);
    let halted = PAIRS.replace("online", "maintenance").replace("0.1}", "0.5}");
    assert_eq!(bench.records(&halted), ["define BTC/USD@kraken -1 -8 tick 0.5 lot 0.00000001 H", "status H"]);
    assert_eq!(bench.records(&halted), [""; 0], "nothing has changed");
    let gone = PAIRS.replace("online", "delisted");
    assert_eq!(bench.records(&gone).last().map(String::as_str), Some("status E"));
}

#[test]
fn answers_and_notices_are_events() {
    let mut bench = Bench::new(Venue::Kraken);
    bench.subscribe(&["BTC/USD", "ETH/USD"], &[Channel::Book]);
    let stream = |symbol: &str| StreamName { symbol: symbol.to_owned(), channel: Channel::Book };
    let result = json!({"channel": "book", "symbol": "BTC/USD", "depth": 100, "snapshot": true});
    bench.records(&json!({"method": "subscribe", "result": result, "success": true}).to_string());
    let refused =
        json!({"method": "subscribe", "success": false, "symbol": "ETH/USD", "error": "Currency pair not supported"});
    bench.records(&refused.to_string());
    bench.records(r#"{"channel":"status","type":"update","data":[{"system":"maintenance","connection_id":17843232920108168701}]}"#);
    let reason = "ETH/USD: Currency pair not supported".to_owned();
    let state = Notice::State { state: "maintenance".to_owned(), is_trading: false };
    assert_eq!(
        bench.events,
        [Event::Subscribed(stream("BTC/USD")), Event::Refused { stream: None, reason }, Event::Notice(state),]
    );
    assert_eq!(bench.codec.stream_state(&stream("BTC/USD")), StreamState::Acknowledged);
}

#[test]
fn books_of_v1_are_verified_by_their_texts() {
    let mut bench = Bench::new(Venue::Kraken);
    let snapshot = r#"[992,{"as":[["0.05005","0.00000500","1582905487.684110"],["0.05010","0.00000500","1582905486.187983"]],
        "bs":[["0.05000","0.00000340","1582905487.439814"]]},"book-10","XBT/USD"]"#;
    let records = bench.records(snapshot);
    assert_eq!(records[1], "book S B0.05000x0.00000340 A0.05005x0.00000500 A0.05010x0.00000500");
    // Asks from the lowest, then bids from the highest: 5005 500, 5010 500, 5000 340.
    let checksum = crc32fast::hash(b"500550050105005000340");
    let update = |checksum: u32| {
        format!(
            r#"[992,{{"a":[["0.05010","0.00000500","1582905487.7"]]}},{{"b":[],"c":"{checksum}"}},"book-10","XBT/USD"]"#
        )
    };
    assert_eq!(bench.records(&update(checksum)), ["book D A0.05010x0.00000500"]);
    assert_eq!(bench.records(&update(checksum + 1)), ["book S?"]);
    assert_eq!(bench.report.checksum_errors, 1);
}
