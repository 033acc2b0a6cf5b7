//! The newest trades over HTTP, compared with a stream.

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::record::{PRICE_NONE, Trade};
use tickcast_test_support::client::{Client, Received, Record};
use tickcast_test_support::http::send_request;
use tickcast_test_support::publisher::{Publisher, TRADE, numbers, quote, record, trade};
use tickcast_test_support::server::Server;

const PUBLISHER: &str = "token-of-the-publisher";

fn start(more: &[&str]) -> (Server, Publisher) {
    let server = Server::start(&[&["--feed", "none", "--publish-token", PUBLISHER], more].concat());
    let publisher = Publisher::connect(&server, PUBLISHER);
    (server, publisher)
}

fn trades(server: &Server, symbol: &str, query: &str) -> Value {
    let response = server.get(&format!("/v1/trades/{symbol}?{query}"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    response.json()
}

fn column(answer: &Value, name: &str) -> Vec<Value> {
    answer[name].as_array().unwrap_or_else(|| panic!("no column {name}: {answer}")).clone()
}

/// The expected row of a record of the stream, at these exponents of hundredths.
fn row(record: &Record) -> Value {
    let Trade { px, sz, trade_id, side } = Trade::read(&record.bytes).expect("a trade");
    let header = record.header;
    let text = |value: i64, decimals: usize| {
        let digits = format!("{value:0width$}", width = decimals + 1);
        let (whole, rest) = digits.split_at(digits.len() - decimals);
        if decimals == 0 { whole.to_owned() } else { format!("{whole}.{rest}") }
    };
    json!([
        header.sequence.get(),
        header.ts_event,
        header.ts_recv,
        text(px, 2),
        text(sz, 0),
        char::from(side.to_wire()).to_string(),
        trade_id
    ])
}

fn rows(answer: &Value) -> Vec<Value> {
    let columns = ["sequence", "ts_event", "ts_recv", "px", "sz", "side", "trade_id"].map(|name| column(answer, name));
    (0..columns[0].len()).map(|nth| columns.iter().map(|column| column[nth].clone()).collect()).collect()
}

#[test]
fn an_answer_has_the_trades_that_a_subscriber_was_sent_before_it_asked() {
    let (server, mut publisher) = start(&[]);
    let ids = publisher.define(&["A", "B"]);
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    let mut sent = Vec::new();
    for px in 1..=150 {
        publisher.publish(&[trade(ids[1], 7), quote(ids[0], px), trade(ids[0], px)]);
        sent.push(row(&subscriber.record()));
        // At once, although the thread that keeps trades reads its ring ten times a second only.
        assert_eq!(rows(&trades(&server, "A", "limit=1")), sent[sent.len() - 1..]);
    }
    assert_eq!(rows(&trades(&server, "A", "")), sent[50..]);
    assert_eq!(rows(&trades(&server, "A", "limit=1000")), sent);
    assert_eq!(column(&trades(&server, "B", "limit=1000"), "sequence").len(), 150);
}

#[test]
fn an_answer_and_the_stream_that_goes_on_join_by_their_sequences() {
    let server = Server::start(&["--feed", "sim:instruments=3,rate=9000,seed=5"]);
    let mut subscriber = server.subscriber(&["trade"], &["*"]);
    for _ in 0..20 {
        subscriber.until_live();
        let first = subscriber.record();
        let symbol = subscriber.symbol(&first).to_owned();
        let answer = trades(&server, &symbol, "limit=1000");
        let known = column(&answer, "sequence");
        let known: Vec<u64> = known.iter().map(|sequence| sequence.as_u64().expect("a number")).collect();
        assert!(known.windows(2).all(|pair| pair[1] == pair[0] + 1), "{known:?}");
        assert!(known.contains(&first.header.sequence.get()), "{first:?} is not in {known:?}");
        let (last, mut next) = (*known.last().expect("a trade"), first);
        // Nothing between the last one of the answer and what comes after it.
        while next.header.sequence.get() <= last {
            let sequence = next.header.sequence.get();
            assert!(known.contains(&sequence) || sequence < known[0], "{sequence} is not in {known:?}");
            next = loop {
                let record = subscriber.record();
                if subscriber.symbol(&record) == symbol {
                    break record;
                }
            };
        }
        assert_eq!(next.header.sequence.get(), last + 1);
    }
    assert_eq!(server.metric_values("tickcast_bars_records_lost_total"), [0]);
}

#[test]
fn absent_values_are_null_and_each_trade_has_its_own_exponents() {
    let (server, mut publisher) = start(&[]);
    let id = publisher.define(&["A"])[0];
    let of = |px: i64, sz: i64, side: &[u8]| {
        record(TRADE, id, 0, &[numbers(&[px, sz, 1]), side.to_vec(), vec![0; 7]].concat())
    };
    publisher.publish(&[of(12_345, 7, b"S"), of(12_345, PRICE_NONE, b"N")]);
    let redefined = json!({"op": "define", "id": 3,
        "instruments": [{"symbol": "A", "venue": "test", "px_exp": -3, "sz_exp": -1}]});
    publisher.0.send_text(&redefined.to_string());
    let id = publisher.0.reply()["instruments"][0]["instrument"].as_u64().expect("an id") as u32;
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    publisher.publish(&[record(TRADE, id, 0, &[&numbers(&[12_345, 7, 1])[..], b"B\0\0\0\0\0\0\0"].concat())]);
    while subscriber.record().header.sequence.get() < 3 {}
    let answer = trades(&server, "A", "");
    assert_eq!(answer["symbol"], "A");
    assert_eq!(column(&answer, "px"), ["123.45", "123.45", "12.345"]);
    assert_eq!(column(&answer, "sz"), [json!("7"), Value::Null, json!("0.7")]);
    assert_eq!(column(&answer, "side"), [json!("S"), Value::Null, json!("B")]);
}

#[test]
fn since_is_the_start_until_trades_are_dropped() {
    let (server, mut publisher) = start(&["--trades-bytes", "1048576"]);
    let id = publisher.define(&["A"])[0];
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    publisher.publish(&[trade(id, 1)]);
    let first_s = subscriber.record().header.ts_recv / 1_000_000_000;
    assert!(trades(&server, "A", "")["since"].as_u64().is_some_and(|since| since <= first_s));
    let all: Vec<_> = (2..=1100).map(|px| trade(id, px)).collect();
    publisher.publish(&all);
    let stamps: Vec<u64> = subscriber.records(1099).iter().map(|record| record.header.ts_recv).collect();
    let answer = trades(&server, "A", "limit=1000");
    assert_eq!(column(&answer, "trade_id").first(), Some(&json!(101)));
    assert_eq!(answer["since"], json!(stamps[98] / 1_000_000_000 + 1), "the one with the id 100 was dropped");
    assert_eq!(server.metric_values("tickcast_trades_bytes"), [56 * 1000]);
}

#[test]
fn a_bad_request_for_trades_names_the_parameter() {
    let (server, mut publisher) = start(&[]);
    publisher.define(&["A/B"]);
    let get = |rest: &str| server.get(&format!("/v1/trades/{rest}"));
    get("NO-SUCH").assert_refusal(404, "not_found", &["NO-SUCH", "/v1/instruments"]);
    get("A/B?limit=0").assert_refusal(400, "bad_request", &["limit", "from 1 to 1000"]);
    get("A/B?limit=1001").assert_refusal(400, "bad_request", &["limit", "from 1 to 1000"]);
    get("A/B?interval_s=1").assert_refusal(400, "bad_request", &["\"interval_s\"", "limit, token"]);
    get("A/B?limit=1&limit=2").assert_refusal(400, "bad_request", &["limit: repeated"]);
    assert_eq!(trades(&server, "A%2FB", "limit=5")["sequence"], json!([]));
    let head = send_request(server.address, b"HEAD /v1/trades/A/B HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn trades_and_bars_are_kept_without_each_other() {
    for (off, kept, other) in [("--bars-bytes", "trades", "bars"), ("--trades-bytes", "bars", "trades")] {
        let (server, mut publisher) = start(&[off, "0"]);
        let id = publisher.define(&["A"])[0];
        let mut subscriber = server.subscriber(&["trade"], &["A"]);
        publisher.publish(&[trade(id, 5)]);
        subscriber.record();
        server.get(&format!("/v1/{other}/A")).assert_refusal(404, "not_found", &[off]);
        assert_eq!(server.metric_values(&format!("tickcast_{other}_bytes")), [0]);
        server.wait_for_metric(&format!("tickcast_{kept}_bytes"), |bytes| bytes > 0);
        let columns = server.get(&format!("/v1/{kept}/A")).json();
        assert_eq!(column(&columns, if kept == "bars" { "close" } else { "px" }), ["0.05"]);
    }
    let server = Server::start(&["--feed", "none", "--bars-bytes", "0", "--trades-bytes", "0"]);
    server.get("/v1/trades/A").assert_refusal(404, "not_found", &["--trades-bytes"]);
    assert_eq!(server.stop(Signal::TERM).code, Some(0), "there is no thread for either");
}

#[test]
fn a_client_over_json_joins_as_well() {
    let (server, mut publisher) = start(&[]);
    let id = publisher.define(&["A"])[0];
    let mut client = Client::connect(server.address, "/v1/stream?format=json", &[]);
    client.reply();
    client.send_text(&json!({"op": "subscribe", "channels": ["trade"], "symbols": ["A"]}).to_string());
    publisher.publish(&[trade(id, 5)]);
    let sent = loop {
        let message: Value = match client.receive() {
            Received::Text(text) => serde_json::from_str(&text).expect("it is JSON"),
            Received::Reply(one) => one,
            _ => continue,
        };
        let records = message.as_array().cloned().unwrap_or_else(|| vec![message]);
        if let Some(trade) = records.into_iter().find(|record| record["type"] == "trade") {
            break trade;
        }
    };
    let answer = trades(&server, "A", "");
    for name in ["sequence", "ts_event", "ts_recv", "px", "sz", "side", "trade_id"] {
        assert_eq!(answer[name], json!([sent[name]]), "{name}");
    }
}
