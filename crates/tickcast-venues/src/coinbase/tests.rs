//! Messages of the documentation of Coinbase Exchange, and others of their form.

use tickcast_protocol::Channel;

use crate::sink::{BookFault, Event, Notice, StreamName};
use crate::test_records::Bench;
use crate::{SubscribeError, Venue};

const SNAPSHOT: &str = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45054140"]],
    "asks":[["10102.55","0.57753524"]]}"#;

fn update(product: &str, changes: &str) -> String {
    format!(
        r#"{{"type":"l2update","product_id":"{product}","changes":[{changes}],"time":"2022-08-04T15:25:05.010758Z"}}"#
    )
}

fn match_of(kind: &str, id: u32) -> String {
    format!(
        r#"{{"type":"{kind}","trade_id":{id},"sequence":50,"maker_order_id":"ac928c66-ca53-498f-9c13-a110027a60e8",
            "time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","size":"5.23512","price":"400.23","side":"sell"}}"#
    )
}

#[test]
fn book_is_the_snapshot_and_every_change() {
    let mut bench = Bench::new(Venue::Coinbase);
    assert_eq!(bench.records(&update("BTC-USD", r#"["buy","1.0","1"]"#)), [""; 0], "there is no snapshot yet");
    let records = bench.records(SNAPSHOT);
    assert_eq!(records[1], "book S B10101.10x0.45054140 A10102.55x0.57753524");
    let changes = r#"["buy","10101.10","0.00000000"],["sell","10102.550000","1.00000000"]"#;
    assert_eq!(bench.records(&update("BTC-USD", changes)), ["book D B10101.10x0.00000000 A10102.55x1.00000000"]);
    let zero_time = update("BTC-USD", r#"["buy","9202.70","0.5"]"#)
        .replace("2022-08-04T15:25:05.010758", "0001-01-01T00:00:00.000000");
    assert_eq!(bench.records(&zero_time), ["book D B9202.70x0.50000000"]);
    assert_eq!(bench.report.untimed, 1);
}

#[test]
fn change_that_cannot_be_read_drops_the_book_since_nothing_else_shows_it() {
    for bad in [
        update("BTC-USD", r#"["buy","10101.10","0.-10000"]"#),
        update("BTC-USD", r#"["bid","10101.10","1"]"#),
        r#"{"type":"l2update","product_id":"BTC-USD"}"#.to_owned(),
        r#"{"type":"l2update","product_id":"BTC-U"#.to_owned(),
    ] {
        let mut bench = Bench::new(Venue::Coinbase);
        bench.subscribe(&["BTC-USD"], &[Channel::Book]);
        bench.records(SNAPSHOT);
        assert!(bench.take(&bad).is_err(), "{bad}");
        assert_eq!(bench.drain(), ["book S?"], "{bad}");
        let cause = BookFault::Unreadable;
        assert!(bench.events.contains(&Event::BookDropped { instrument: "BTC-USD".to_owned(), cause }), "{bad}");
        let request = r#"{"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}"#;
        assert!(bench.tick(1).contains(&request.to_owned()));
        assert_eq!(bench.records(SNAPSHOT).len(), 1);
    }
}

#[test]
fn trade_has_the_side_of_the_aggressor_and_holes_are_gaps() {
    let mut bench = Bench::new(Venue::Coinbase);
    let records = bench.records(&match_of("last_match", 10));
    assert_eq!(records, ["define BTC-USD@coinbase -2 -5 tick - lot - T", "trade 10 B 400.23x5.23512"]);
    assert_eq!(bench.records(&match_of("match", 13)), ["gap of 2", "trade 13 B 400.23x5.23512"]);
    assert_eq!(bench.records(&match_of("match", 13)), [""; 0]);
    let heartbeat = r#"{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD",
        "time":"2014-11-07T08:19:28.464459Z"}"#;
    assert_eq!(bench.records(heartbeat), ["gap of 7"], "trades 14 to 20 were not sent");
    assert_eq!(bench.records(&match_of("match", 21)), ["trade 21 B 400.23x5.23512"]);
    assert_eq!(bench.report.trades_lost, 9);
}

#[test]
fn ticker_has_statistics_and_a_quote_where_it_has_sizes() {
    let mut bench = Bench::new(Venue::Coinbase);
    let ticker = r#"{"type":"ticker","sequence":37475248783,"product_id":"ETH-USD","price":"1285.22","open_24h":"1310.79",
        "volume_24h":"245532.79269678","low_24h":"1280.52","high_24h":"1313.8","volume_30d":"9788783.60117027",
        "best_bid":"1285.04","best_bid_size":"0.46688654","best_ask":"1285.27","best_ask_size":"1.56637040","side":"buy",
        "time":"2022-10-19T23:28:22.061769Z","trade_id":370843401,"last_size":"11.4396987"}"#;
    let statistics = "ticker 1285.22 1310.79 1313.80 1280.52 v245532.79269678 q- 1285.04 1285.27";
    let records = bench.records(ticker);
    assert_eq!(records[1..], ["quote 1285.04x0.46688654 1285.27x1.56637040", statistics]);
    let former = ticker.replace("best_bid_size", "x").replace("best_ask_size", "y");
    assert_eq!(bench.records(&former), [statistics]);
}

#[test]
fn products_are_listed_and_unknown_ones_refused() {
    let mut bench = Bench::new(Venue::Coinbase);
    let request = bench.rest().expect("the list is asked for");
    assert_eq!(request.path, "/products");
    assert!(bench.rest().is_none(), "the answer is awaited");
    let answer = r#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","quote_increment":"0.01",
        "base_increment":"0.00000001","status":"online","trading_disabled":false}]"#;
    assert!(bench.answer(&request, r#"{"message":"rate limit"}"#).is_err());
    bench.answer(&request, answer).expect("a list");
    let sent = bench.subscribe(&["BTC-USD"], &[Channel::Book, Channel::Trade]);
    let wanted = [
        r#"{"channels":[{"name":"status"}],"type":"subscribe"}"#,
        r#"{"channels":["matches"],"product_ids":["BTC-USD"],"type":"subscribe"}"#,
        r#"{"channels":["heartbeat"],"product_ids":["BTC-USD"],"type":"subscribe"}"#,
        r#"{"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}"#,
    ];
    assert_eq!(sent, wanted);
    assert_eq!(bench.drain(), ["define BTC-USD@coinbase -2 -8 tick 0.01 lot 0.00000001 T"]);
    let error = bench.subscribe_error(&["BTC-EUR"]);
    assert!(matches!(&error, SubscribeError::UnknownSymbol { similar, .. } if similar == &["BTC-USD"]), "{error}");
    let status = r#"{"type":"status","products":[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD",
        "quote_increment":"0.01","base_increment":"0.00000001","status":"delisted"}],"currencies":[]}"#;
    assert_eq!(bench.records(status)[1], "status E");
}

#[test]
fn answers_and_errors_are_events() {
    let mut bench = Bench::new(Venue::Coinbase);
    bench.records(
        r#"{"type":"subscriptions","channels":[{"name":"level2","product_ids":["BTC-USD"]},
        {"name":"heartbeat","product_ids":["BTC-USD"]}]}"#,
    );
    bench.records(r#"{"type":"error","message":"Failed to subscribe","reason":"ABC-USD is not a valid product"}"#);
    bench.records(r#"{"type":"error","message":"ErrSlowConsume"}"#);
    let stream = StreamName { symbol: "BTC-USD".to_owned(), channel: Channel::Book };
    let reason = "Failed to subscribe: ABC-USD is not a valid product".to_owned();
    assert_eq!(
        bench.events,
        [
            Event::Subscribed(stream),
            Event::Refused { stream: None, reason },
            Event::Notice(Notice::Error { reason: "ErrSlowConsume".to_owned() }),
        ]
    );
    assert_eq!(bench.records(r#"{"type":"auction","product_id":"BTC-USD"}"#), [""; 0]);
}
