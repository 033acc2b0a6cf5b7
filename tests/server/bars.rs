//! Bars of the server, compared with bars that a subscriber computes from its stream.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use tickcast_protocol::RecordKind;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Record;
use tickcast_test_support::http::send_request;
use tickcast_test_support::server::Server;

/// Seconds that are compared.
const SECONDS: u64 = 4;

/// The records of a bar, read from their bytes with none of the program's decoders.
#[derive(Default)]
struct Sum {
    trades: Vec<(i64, i64)>,
    quote: Option<(i64, i64)>,
}

fn number(record: &Record, at: usize) -> i64 {
    i64::from_le_bytes(record.bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn second_of(record: &Record) -> u64 {
    number(record, 24) as u64 / 1_000_000_000
}

/// The records of a stream by symbol and start of their bar.
fn add_up(records: &[(String, Record)], interval_s: u64) -> BTreeMap<(&str, u64), Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for (symbol, record) in records {
        let second = second_of(record);
        let sum = sums.entry((symbol.as_str(), second - second % interval_s)).or_default();
        match RecordKind::from_wire(record.header.kind) {
            Some(RecordKind::Trade) => sum.trades.push((number(record, 32), number(record, 40))),
            _ => sum.quote = Some((number(record, 32), number(record, 48))),
        }
    }
    sums
}

fn text(mantissa: i64, exponent: &Value) -> String {
    let decimals = -exponent.as_i64().expect("a number") as u32;
    if decimals == 0 {
        return mantissa.to_string();
    }
    let unit = 10i64.pow(decimals);
    format!("{}.{:0width$}", mantissa / unit, mantissa % unit, width = decimals as usize)
}

/// The expected row for some records.
fn row(second: u64, sum: &Sum, instrument: &Value) -> Value {
    let price = |px: Option<i64>| px.map(|px| text(px, &instrument["px_exp"]));
    let prices = || sum.trades.iter().map(|trade| trade.0);
    json!([
        second,
        price(prices().next()),
        price(prices().max()),
        price(prices().min()),
        price(prices().next_back()),
        text(sum.trades.iter().map(|trade| trade.1).sum(), &instrument["sz_exp"]),
        sum.trades.len(),
        price(sum.quote.map(|quote| quote.0)),
        price(sum.quote.map(|quote| quote.1)),
    ])
}

/// The columns of a response as rows.
fn rows(response: &Value) -> Vec<Value> {
    let columns = ["time", "open", "high", "low", "close", "volume", "trades", "bid_px", "ask_px"];
    let length = response["time"].as_array().expect("a column").len();
    columns.iter().for_each(|name| assert_eq!(response[name].as_array().map(Vec::len), Some(length), "{name}"));
    (0..length).map(|nth| columns.iter().map(|name| response[name][nth].clone()).collect()).collect()
}

fn bars(server: &Server, symbol: &str, query: &str) -> Value {
    let response = server.get(&format!("/v1/bars/{symbol}?{query}"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-cache"));
    response.json()
}

#[test]
fn bars_match_the_stream() {
    let server = Server::start(&["--feed", "sim:instruments=6,rate=3000,seed=5"]);
    let mut subscriber = server.subscriber(&["trade", "quote"], &["*"]);
    subscriber.until_live();
    let from = second_of(&subscriber.record()) + 1;
    let mut records = Vec::new();
    loop {
        let record = subscriber.record();
        let second = second_of(&record);
        if second >= from {
            if second >= from + SECONDS {
                break;
            }
            records.push((subscriber.symbol(&record).to_owned(), record));
        }
    }
    // A record after those seconds is in the bars, so those seconds are complete.
    let (to, until) = (from + SECONDS, Instant::now() + DEADLINE);
    let symbol = &records.last().expect("thousands of records").0;
    while bars(&server, symbol, "interval_s=1&limit=1")["time"][0].as_u64().is_none_or(|newest| newest < to) {
        assert!(Instant::now() < until, "no bar of {to}");
    }
    let instruments = server.get("/v1/instruments").json();
    let (sums, mut compared) = (add_up(&records, 1), 0);
    for instrument in instruments["instruments"].as_array().expect("a list") {
        let symbol = instrument["symbol"].as_str().expect("a text");
        let own = sums.iter().filter(|((of, _), _)| *of == symbol);
        let expected: Vec<_> = own.map(|((_, second), sum)| row(*second, sum, instrument)).collect();
        let response = bars(&server, symbol, &format!("interval_s=1&to={to}&limit={}", expected.len().max(1)));
        assert_eq!(
            (&response["symbol"], &response["interval_s"], &response["holes"]),
            (&json!(symbol), &json!(1), &json!([]))
        );
        assert!(response["since"].as_u64().expect("a time") < from);
        let mut received = rows(&response);
        received.retain(|row| row[0].as_u64().expect("a time") >= from);
        assert_eq!(received, expected, "{symbol}");
        compared += expected.len();
    }
    assert!(compared >= 6 * SECONDS as usize / 2, "only {compared} bars were compared");
    assert_wider_bars_match(&server, &records, from, to);
    assert_eq!(server.metric_values("tickcast_bars_records_lost_total"), [0]);
}

/// Compares bars of two seconds, except those at the ends that begin before or end after the records.
fn assert_wider_bars_match(server: &Server, records: &[(String, Record)], from: u64, to: u64) {
    let (sums, instruments) = (add_up(records, 2), server.get("/v1/instruments").json());
    for instrument in instruments["instruments"].as_array().expect("a list") {
        let symbol = instrument["symbol"].as_str().expect("a text");
        let is_complete = |second: u64| second >= from && second + 2 <= to;
        let own = sums.iter().filter(|((of, second), _)| *of == symbol && is_complete(*second));
        let expected: Vec<_> = own.map(|((_, second), sum)| row(*second, sum, instrument)).collect();
        let mut received = rows(&bars(server, symbol, &format!("interval_s=2&to={to}")));
        received.retain(|row| row[0].as_u64().is_some_and(is_complete));
        assert_eq!(received, expected, "{symbol}");
    }
}

#[test]
fn a_bad_request_for_bars_names_the_parameter() {
    let server = Server::start(&["--feed", "sim:instruments=2,rate=100,seed=1"]);
    let symbol = loop {
        let instruments = server.get("/v1/instruments").json();
        if let Some(symbol) = instruments["instruments"][0]["symbol"].as_str() {
            break symbol.to_owned();
        }
    };
    let get = |rest: &str| server.get(&format!("/v1/bars/{rest}"));
    get("NO-SUCH").assert_refusal(404, "not_found", &["NO-SUCH", "/v1/instruments"]);
    get(&format!("{symbol}?interval_s=0")).assert_refusal(400, "bad_request", &["interval_s", "from 1 to 86400"]);
    get(&format!("{symbol}?limit=9999999")).assert_refusal(400, "bad_request", &["limit", "from 1 to 5000"]);
    get(&format!("{symbol}?to=tomorrow")).assert_refusal(400, "bad_request", &["to", "tomorrow"]);
    let encoded = symbol.replace('-', "%2D");
    assert_eq!(get(&encoded).json()["symbol"], symbol);
    assert_eq!(bars(&server, &symbol, "to=0&interval_s=1")["time"], json!([]), "no bars before the start");
    let head =
        send_request(server.address, format!("HEAD /v1/bars/{symbol} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes());
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn without_memory_for_bars_there_are_none() {
    let server = Server::start(&["--feed", "sim:instruments=2,rate=100,seed=1", "--bars-bytes", "0"]);
    server.get("/v1/bars/BTC-USD").assert_refusal(404, "not_found", &["--bars-bytes"]);
    assert_eq!(server.metric_values("tickcast_bars_bytes"), [0]);
}
