//! Messages of the documentation of OKX v5, and others of their form.

use tickcast_protocol::Channel;

use crate::sink::{BookFault, Event, Notice, StreamName};
use crate::test_records::Bench;
use crate::{CodecOptions, NameStyle, Naming, StreamState, Venue};

fn book(action: &str, previous: i64, id: i64, bids: &str, asks: &str, checksum: i32) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"bids":[{bids}],"asks":[{asks}],
            "ts":"1597026383085","checksum":{checksum},"prevSeqId":{previous},"seqId":{id}}}]}}"#
    )
}

/// A codec with a subscribed book, whose latest `seqId` is 10.
fn with_book() -> Bench {
    let mut bench = Bench::new(Venue::Okx);
    bench.subscribe(&["BTC-USDT"], &[Channel::Book]);
    let records =
        bench.records(&book("snapshot", -1, 10, r#"["8476.97","256","0","12"]"#, r#"["8476.98","4","0","1"]"#, 0));
    assert_eq!(records, ["define BTC-USDT@okx -2 0 tick - lot - T", "book S B8476.97x256 A8476.98x4"]);
    bench
}

#[test]
fn updates_follow_by_sequence_also_through_a_reset_of_the_venue() {
    let mut bench = with_book();
    let bid = |size: u32| format!(r#"["8476.97","{size}","0","1"]"#);
    assert_eq!(bench.records(&book("update", 10, 15, &bid(1), "", 0)), ["book D B8476.97x1"]);
    assert_eq!(bench.records(&book("update", 15, 15, "", "", 0)), [""; 0], "it keeps the stream alive");
    assert_eq!(bench.records(&book("update", 15, 3, &bid(2), "", 0)), ["book D B8476.97x2"]);
    assert_eq!(bench.records(&book("update", 3, 5, &bid(3), "", 0)), ["book D B8476.97x3"]);
    assert_eq!(bench.report.book_gaps, 0);
}

#[test]
fn missing_update_drops_this_book_alone_until_its_next_snapshot() {
    let mut bench = with_book();
    let other = book("snapshot", -1, 7, r#"["1.5","2","0","1"]"#, "", 0).replace("BTC-USDT", "UNI-USDT");
    bench.records(&other);
    assert_eq!(bench.records(&book("update", 11, 12, r#"["8476.97","9","0","1"]"#, "", 0)), ["book S?"]);
    let cause = BookFault::Gap { after: 10, got: 11 };
    assert!(bench.events.contains(&Event::BookDropped { instrument: "BTC-USDT".to_owned(), cause }));
    assert_eq!(bench.records(&book("update", 12, 13, r#"["8476.97","9","0","1"]"#, "", 0)), [""; 0]);
    let next = book("update", 7, 8, r#"["1.5","3","0","1"]"#, "", 0).replace("BTC-USDT", "UNI-USDT");
    assert_eq!(bench.records(&next), ["book D B1.5x3"]);
    let sent = bench.tick(1);
    let args = r#""args":[{"channel":"books","instId":"BTC-USDT"}]"#;
    assert!(sent.contains(&format!(r#"{{{args},"op":"unsubscribe"}}"#)), "{sent:?}");
    assert!(sent.contains(&format!(r#"{{{args},"op":"subscribe"}}"#)), "{sent:?}");
    assert!(sent.contains(&"ping".to_owned()));
    let whole = bench.records(&book("snapshot", -1, 20, r#"["8476.97","1","0","1"]"#, "", 0));
    assert_eq!(whole, ["book S B8476.97x1"]);
    assert_eq!(bench.tick(60).iter().filter(|text| text.contains("subscribe")).count(), 0);
}

#[test]
fn checksum_is_compared_where_it_is_not_zero() {
    let mut bench = Bench::new(Venue::Okx);
    let checksum = |text: &str| crc32fast::hash(text.as_bytes()).cast_signed();
    let bids = r#"["3366.1","7","0","3"],["3366","6.50","0","1"]"#;
    let sum = checksum("3366.1:7:3366.8:9:3366:6.50");
    let snapshot = book("snapshot", -1, 1, bids, r#"["3366.8","9","0","3"]"#, sum);
    assert_eq!(
        bench.records(&snapshot).last().map(String::as_str),
        Some("book S B3366.1x7.00 B3366.0x6.50 A3366.8x9.00")
    );
    let sum = checksum("3366.1:7:3366.8:9:3368:8");
    let update = book("update", 1, 2, r#"["3366","0","0","0"]"#, r#"["3368","8","0","1"]"#, sum);
    assert_eq!(bench.records(&update), ["book D B3366.0x0.00 A3368.0x8.00"]);
    let update = book("update", 2, 3, "", r#"["3368","9","0","1"]"#, sum);
    assert_eq!(bench.records(&update), ["book S?"]);
    assert_eq!((bench.report.checksum_errors, bench.report.book_gaps), (1, 0));
}

#[test]
fn checksum_holds_through_other_exponents() {
    let mut bench = Bench::new(Venue::Okx);
    let checksum = |text: &str| crc32fast::hash(text.as_bytes()).cast_signed();
    let snapshot = book(
        "snapshot",
        -1,
        1,
        r#"["3366.1","7","0","3"]"#,
        r#"["3366.8","9","0","3"]"#,
        checksum("3366.1:7:3366.8:9"),
    );
    bench.records(&snapshot);
    let sum = checksum("3366.125:0.5:3366.8:9:3366.1:7");
    assert_eq!(
        bench.records(&book("update", 1, 2, r#"["3366.125","0.5","0","1"]"#, "", sum)),
        ["define BTC-USDT@okx -3 -1 tick - lot - T", "book D B3366.125x0.5"]
    );
    assert_eq!((bench.report.rescaled, bench.report.checksum_errors), (1, 0));
}

#[test]
fn quotes_of_tickers_end_where_those_of_bbo_begin() {
    let mut bench = Bench::new(Venue::Okx);
    let tickers = r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":"BTC-USDT",
        "last":"9999.99","lastSz":"0.1","askPx":"9999.99","askSz":"11","bidPx":"8888.88","bidSz":"5","open24h":"9000",
        "high24h":"10000","low24h":"8888.88","volCcy24h":"2222","vol24h":"2222","ts":"1597026383085"}]}"#;
    let ticker = "ticker 9999.99 9000.00 10000.00 8888.88 v2222 q2222.00 8888.88 9999.99";
    assert_eq!(bench.records(tickers)[1..], ["quote 8888.88x5 9999.99x11", ticker]);
    let bbo = r#"{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["8476.98","415","0","13"]],"bids":[],
        "ts":"1597026383085","seqId":123456}]}"#;
    assert_eq!(bench.records(bbo), ["quote -x- 8476.98x415"]);
    assert_eq!(bench.records(tickers), [ticker]);
}

#[test]
fn trades_of_one_order_count_as_many_as_they_are() {
    let mut bench = Bench::new(Venue::Okx);
    let trade = |id: u32, count: u32| {
        format!(
            r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}",
                "px":"42219.9","sz":"0.12","side":"sell","ts":"1630048897897","count":"{count}"}}]}}"#
        )
    };
    assert_eq!(bench.records(&trade(100, 3)).last().map(String::as_str), Some("trade 100 S 42219.9x0.12"));
    assert_eq!(bench.records(&trade(103, 3)), ["trade 103 S 42219.9x0.12"]);
    assert_eq!(bench.records(&trade(103, 3)), [""; 0], "it was sent again");
    assert_eq!(bench.records(&trade(107, 2)), ["gap of 1", "trade 107 S 42219.9x0.12"]);
}

#[test]
fn list_is_asked_for_by_kind_and_names_perpetuals() {
    let naming = Naming { style: NameStyle::Common, suffix: String::new() };
    let mut bench = Bench::with(Venue::Okx, CodecOptions { naming, depth: None });
    let mut paths = Vec::new();
    while let Some(request) = bench.rest() {
        paths.push(request.path.clone());
        let kind = request.path.rsplit_once('=').expect("a kind").1.to_owned();
        let answer = match kind.as_str() {
            "SPOT" => {
                r#"{"code":"0","data":[{"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC","quoteCcy":"USDT",
                    "tickSz":"0.1","lotSz":"0.00000001","state":"live"}]}"#
            }
            "SWAP" => {
                r#"{"code":"0","data":[{"instType":"SWAP","instId":"BTC-USD-SWAP","baseCcy":"","quoteCcy":"","uly":"BTC-USD",
                    "tickSz":"0.1","lotSz":"1","state":"suspend"}]}"#
            }
            _ => r#"{"code":"0","data":[]}"#,
        };
        bench.answer(&request, answer).expect("a list");
    }
    let kinds: Vec<_> = paths.iter().map(|path| path.rsplit_once('=').expect("a kind").1).collect();
    assert_eq!(kinds, ["SPOT", "SWAP", "FUTURES"]);
    bench.subscribe(&["BTC-USDT", "BTC-USD-SWAP"], &[Channel::Trade]);
    let defined = bench.drain();
    assert_eq!(defined[0], "define BTC-USDT@okx -1 -8 tick 0.1 lot 0.00000001 T");
    assert_eq!(defined[1], "define BTC-USD-PERP@okx -1 0 tick 0.1 lot 1 H");
    assert_eq!(defined[2..], ["status H"]);
    bench.now_ns += 601_000_000_000;
    assert!(bench.rest().is_some_and(|request| request.path.ends_with("SPOT")), "lists are asked for again");
}

#[test]
fn listed_name_that_is_none_is_not_taken() {
    let naming = Naming { style: NameStyle::Common, suffix: String::new() };
    let mut bench = Bench::with(Venue::Okx, CodecOptions { naming, depth: None });
    let long = "X".repeat(300);
    for (base, tick) in [(long.as_str(), "0.10"), ("a*b", "0.1"), ("a*b", "0.100000")] {
        let entry = format!(
            r#"{{"instType":"SPOT","instId":"AB-C","baseCcy":"{base}","quoteCcy":"C","tickSz":"{tick}","lotSz":"1"}}"#
        );
        bench
            .take(&format!(r#"{{"arg":{{"channel":"instruments","instType":"SPOT"}},"data":[{entry}]}}"#))
            .expect("a list");
        bench.subscribe(&["AB-C"], &[Channel::Trade]);
    }
    assert_eq!(bench.drain(), ["define AB-C@okx -1 0 tick 0.1 lot 1 T"], "it is defined once");
}

#[test]
fn acknowledgements_errors_and_notices_are_events() {
    let mut bench = Bench::new(Venue::Okx);
    bench.subscribe(&["BTC-USDT"], &[Channel::Book]);
    for text in [
        "pong",
        r#"{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#,
        r#"{"event":"error","code":"60012","msg":"Invalid request","connId":"a4d3ae55"}"#,
        r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed","connId":"a4d3ae55"}"#,
        r#"{"arg":{"channel":"status"},"data":[{"title":"Spot upgrade","state":"ongoing"}]}"#,
    ] {
        assert_eq!(bench.records(text), [""; 0], "{text}");
    }
    let stream = StreamName { symbol: "BTC-USDT".to_owned(), channel: Channel::Book };
    let reason = "The connection will soon be closed (64008)".to_owned();
    let state = Notice::State { state: "Spot upgrade: ongoing".to_owned(), is_trading: false };
    assert_eq!(
        bench.events,
        [
            Event::Subscribed(stream.clone()),
            Event::Refused { stream: None, reason: "Invalid request (60012)".to_owned() },
            Event::Notice(Notice::Closing { reason }),
            Event::Notice(state),
        ]
    );
    bench.events.clear();
    bench.tick(61);
    let silent = |event: &Event| matches!(event, Event::Silent { stream: silent, .. } if *silent == stream);
    assert!(bench.events.iter().any(silent), "acknowledged, and nothing comes");
    assert_eq!(bench.codec.stream_state(&stream), StreamState::Silent);
}

#[test]
fn lost_connection_voids_books_and_the_next_one_shows_lost_trades() {
    let mut bench = with_book();
    let trade = |id: u32| {
        format!(
            r#"{{"arg":{{"channel":"trades"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}","px":"1","sz":"1",
                "side":"buy","ts":"1630048897897"}}]}}"#
        )
    };
    bench.records(&trade(5));
    assert_eq!(bench.disconnect(), ["book S?"]);
    assert_eq!(bench.records(&trade(9)), ["gap of 3", "trade 9 B 1.00x1"]);
}
