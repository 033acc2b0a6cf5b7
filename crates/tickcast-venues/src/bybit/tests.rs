//! Messages of the documentation of Bybit v5, and others of their form.

use tickcast_protocol::Channel;

use crate::sink::{BookFault, Event, StreamName};
use crate::test_records::Bench;
use crate::{CodecOptions, SubscribeError, Venue};

fn book(kind: &str, u: u64, bids: &str, asks: &str) -> String {
    format!(
        r#"{{"topic":"orderbook.50.BTCUSDT","type":"{kind}","ts":1687940967466,"data":{{"s":"BTCUSDT","b":[{bids}],
            "a":[{asks}],"u":{u},"seq":66544703342}},"cts":1687940967464}}"#
    )
}

#[test]
fn deltas_follow_by_one_and_a_snapshot_replaces_the_book() {
    let mut bench = Bench::with(Venue::BybitLinear, CodecOptions { depth: Some(50), ..CodecOptions::default() });
    bench.subscribe(&["BTCUSDT"], &[Channel::Book]);
    let bid = |size: &str| format!(r#"["30247.20","{size}"]"#);
    assert_eq!(bench.records(&book("delta", 6, &bid("1"), "")), [""; 0], "there is no snapshot yet");
    let records = bench.records(&book("snapshot", 7, &bid("30.028"), r#"["30248.70","0.5"]"#));
    assert_eq!(records[0], "define BTCUSDT-PERP@bybit-linear -2 -3 tick - lot - T");
    assert_eq!(records[1], "book S B30247.20x30.028 A30248.70x0.500");
    assert_eq!(bench.records(&book("delta", 8, &bid("0"), "")), ["book D B30247.20x0.000"]);
    assert_eq!(bench.records(&book("delta", 8, &bid("9"), "")), [""; 0], "it was applied already");
    assert_eq!(bench.records(&book("delta", 10, &bid("1"), "")), ["book S?"]);
    let cause = BookFault::Gap { after: 8, got: 10 };
    assert!(bench.events.contains(&Event::BookDropped { instrument: "BTCUSDT-PERP".to_owned(), cause }));
    let sent = bench.tick(1);
    assert!(
        sent.contains(&r#"{"args":["orderbook.50.BTCUSDT"],"op":"unsubscribe","req_id":"2"}"#.to_owned()),
        "{sent:?}"
    );
    assert!(
        sent.contains(&r#"{"args":["orderbook.50.BTCUSDT"],"op":"subscribe","req_id":"3"}"#.to_owned()),
        "{sent:?}"
    );
    assert_eq!(bench.records(&book("snapshot", 20, &bid("2"), "")), ["book S B30247.20x2.000"]);
    assert_eq!(
        bench.records(&book("delta", 1, &bid("3"), "")),
        ["book S B30247.20x3.000"],
        "the service was restarted"
    );
    assert_eq!(bench.records(&book("delta", 2, &bid("4"), "")), ["book D B30247.20x4.000"]);
}

#[test]
fn best_prices_come_from_the_book_of_depth_one_with_keys_in_any_order() {
    let mut bench = Bench::new(Venue::Bybit);
    let message = r#"{"topic":"orderbook.1.BTCUSDT","ts":1680652806504,"type":"snapshot","data":{"s":"BTCUSDT",
        "b":[["28165.07","0.175231"]],"a":[["28165.08","0.996816"]],"u":20404754,"seq":4281281856}}"#;
    assert_eq!(bench.records(message)[1], "quote 28165.07x0.175231 28165.08x0.996816");
    let empty = message.replace(r#""a":[["28165.08","0.996816"]]"#, r#""a":[]"#);
    assert_eq!(bench.records(&empty), ["quote 28165.07x0.175231 -x-"]);
}

#[test]
fn several_trades_of_a_message_are_published_in_order() {
    let mut bench = Bench::new(Venue::BybitLinear);
    let trade = |id: &str, side: &str| {
        format!(
            r#"{{"T":1672304486865,"s":"BTCUSDT","S":"{side}","v":"0.001","p":"16578.50","L":"PlusTick","i":"{id}","BT":false}}"#
        )
    };
    let all = [
        trade("20f43950-d8dd-5b31-9112-a178eb6023af", "Buy"),
        trade("2290000000061666327", "Sell"),
        trade("no id", "Sell"),
        trade("7", "Buy"),
    ];
    let message =
        format!(r#"{{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{}]}}"#, all.join(","));
    assert!(bench.take(&message).is_err(), "one of them has no id");
    assert_eq!(
        bench.drain()[1..],
        [
            // The first 64 bits, 0x20f4_3950_d8dd_5b31.
            "trade 2374585922929646385 B 16578.50x0.001",
            "trade 2290000000061666327 S 16578.50x0.001",
            "trade 7 B 16578.50x0.001",
        ]
    );
}

#[test]
fn absent_keys_of_statistics_are_unchanged() {
    let mut bench = Bench::new(Venue::BybitLinear);
    let snapshot = r#"{"topic":"tickers.BTCUSDT","type":"snapshot","ts":1673853746003,"data":{"symbol":"BTCUSDT",
        "lastPrice":"17216.00","prevPrice24h":"16597.00","highPrice24h":"17309.00","lowPrice24h":"16590.50",
        "volume24h":"129436.5","turnover24h":"2205.03","bid1Price":"17215.50","ask1Price":"17216.00"}}"#;
    let whole = "ticker 17216.00 16597.00 17309.00 16590.50 v129436.5 q2205.03 17215.50 17216.00";
    assert_eq!(bench.records(snapshot)[1], whole);
    let delta = r#"{"topic":"tickers.BTCUSDT","type":"delta","ts":1673853746103,"data":{"symbol":"BTCUSDT","lastPrice":"17217.00"}}"#;
    assert_eq!(bench.records(delta), [whole.replacen("17216.00", "17217.00", 1)]);
    let spot = r#"{"topic":"tickers.BTCUSDT","ts":1673853746003,"type":"snapshot","cs":2588407389,"data":{"symbol":"BTCUSDT",
        "lastPrice":"21109.77","highPrice24h":"21426.99","lowPrice24h":"20575","prevPrice24h":"20704.93",
        "volume24h":"6780.866843","turnover24h":"141946527.22907118","price24hPcnt":"0.0196"}}"#;
    let mut bench = Bench::new(Venue::Bybit);
    assert_eq!(bench.records(spot)[1], "ticker 21109.77 20704.93 21426.99 20575.00 v6780.866843 q141946527.22 - -");
}

#[test]
fn list_has_pages_and_answers_belong_to_requests() {
    let mut bench = Bench::new(Venue::BybitLinear);
    let page = |symbol: &str, cursor: &str| {
        format!(
            r#"{{"retCode":0,"result":{{"list":[{{"symbol":"{symbol}","contractType":"LinearPerpetual","status":"Trading",
                "baseCoin":"BTC","quoteCoin":"USDT","priceFilter":{{"tickSize":"0.10"}},"lotSizeFilter":{{"qtyStep":"0.001"}}}}],
                "nextPageCursor":"{cursor}"}}}}"#
        )
    };
    let first = bench.rest().expect("the list is asked for");
    assert_eq!(first.path, "/v5/market/instruments-info?category=linear&limit=1000");
    assert!(bench.answer(&first, &page("BTCUSDT", "a b\\r\\n")).is_err(), "no part of a query");
    bench.answer(&first, &page("BTCUSDT", "first%3DX")).expect("a page");
    let second = bench.rest().expect("the next page");
    assert_eq!(second.path, "/v5/market/instruments-info?category=linear&limit=1000&cursor=first%3DX");
    bench.answer(&second, &page("ETHUSDT", "")).expect("a page");
    assert!(bench.rest().is_none());
    let sent = bench.subscribe(&["BTCUSDT", "ETHUSDT"], &[Channel::Trade]);
    assert_eq!(sent, [r#"{"args":["publicTrade.BTCUSDT","publicTrade.ETHUSDT"],"op":"subscribe","req_id":"1"}"#]);
    assert_eq!(bench.drain()[0], "define BTCUSDT-PERP@bybit-linear -1 -3 tick 0.1 lot 0.001 T");
    bench.records(r#"{"success":false,"ret_msg":"Invalid topic","conn_id":"x","req_id":"1","op":"subscribe"}"#);
    let stream = |symbol: &str| Some(StreamName { symbol: symbol.to_owned(), channel: Channel::Trade });
    let refused = |symbol| Event::Refused { stream: stream(symbol), reason: "Invalid topic".to_owned() };
    assert_eq!(bench.events, [refused("BTCUSDT"), refused("ETHUSDT")]);
}

#[test]
fn depth_that_the_venue_lacks_is_refused() {
    let mut bench = Bench::with(Venue::Bybit, CodecOptions { depth: Some(77), ..CodecOptions::default() });
    let error = bench.subscribe_error(&["BTCUSDT"]);
    assert!(matches!(error, SubscribeError::Depth { .. }));
    assert_eq!(error.to_string(), "bybit: depth 77: expected 50, 200 or 1000");
}
