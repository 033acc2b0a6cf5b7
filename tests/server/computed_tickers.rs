//! Tickers that the server computes for a publisher that sends trades only.

use serde_json::{Value, json};
use tickcast_protocol::record::{PRICE_NONE, Ticker, flags};
use tickcast_test_support::client::{Client, Received, Record};
use tickcast_test_support::publisher::{Publisher, TICKER, TRADE, numbers, quote, record};
use tickcast_test_support::server::Server;

const PUBLISHER: &str = "token-of-the-publisher";

fn start(more: &[&str]) -> (Server, Publisher) {
    let server = Server::start(&[&["--feed", "none", "--publish-token", PUBLISHER], more].concat());
    let publisher = Publisher::connect(&server, PUBLISHER);
    (server, publisher)
}

fn trade(id: u32, px: i64, sz: i64) -> Vec<u8> {
    record(TRADE, id, 0, &[&numbers(&[px, sz, 1])[..], b"B\0\0\0\0\0\0\0"].concat())
}

fn own_ticker(id: u32, px: i64) -> Vec<u8> {
    record(TICKER, id, 0, &numbers(&[px; 8]))
}

fn values(record: &Record) -> [i64; 8] {
    let ticker = Ticker::read(&record.bytes).expect("a ticker");
    let Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px } = ticker;
    [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px]
}

#[test]
fn trades_alone_make_tickers_until_the_source_sends_its_own() {
    let (server, mut publisher) = start(&[]);
    let ids = publisher.define(&["A", "B"]);
    let mut subscriber = server.subscriber(&["ticker"], &["*"]);
    // In one packet, so in one ticker.
    publisher.publish(&[
        quote(ids[0], 95),
        trade(ids[0], 100, 3),
        trade(ids[0], 250, 1),
        trade(ids[0], 90, PRICE_NONE),
    ]);
    let first = subscriber.record();
    assert_eq!(values(&first), [90, 100, 250, 90, 4, 550, 95, 96]);
    assert_eq!((first.header.flags, first.header.sequence.get()), (flags::LAST | flags::COMPUTED, 1));
    let json_flags = json!(["computed"]);
    let snapshot = server.get("/v1/snapshot/A").json();
    let ticker = &snapshot["ticker"];
    assert_eq!((&ticker["flags"], &ticker["high_px"], &ticker["ts_event"]), (&json_flags, &json!("2.50"), &json!(0)));
    // It is the state of its channel, for one that comes and for one that comes back.
    let mut late = Client::connect(server.address, "/v1/stream?format=json", &[]);
    late.reply();
    late.send_text(&json!({"op": "subscribe", "channels": ["ticker"], "symbols": ["A"]}).to_string());
    assert_eq!(ticker_of(&mut late)["flags"], json!(["snapshot", "computed"]));

    publisher.publish(&[trade(ids[0], 300, 2)]);
    let second = subscriber.record();
    assert_eq!(values(&second), [300, 100, 300, 90, 6, 1150, 95, 96]);
    server.wait_for_metric("tickcast_tickers_computed_total", |count| count == 2);
    assert!(server.metric_values("tickcast_tickers_bytes")[0] > 0);

    publisher.publish(&[own_ticker(ids[0], 7), trade(ids[0], 400, 2)]);
    let own = subscriber.record();
    assert_eq!((values(&own), own.header.flags, own.header.sequence.get()), ([7; 8], flags::LAST, 3));
    // Tickers that are due together come together: with that of B, one of A would have come.
    for px in [5, 6] {
        publisher.publish(&[trade(ids[0], 500, 2), trade(ids[1], px, 5)]);
        let other = subscriber.record();
        assert_eq!((subscriber.symbol(&other), values(&other)[0]), ("B", px));
    }
    assert_eq!(server.get("/v1/snapshot/A").json()["ticker"]["last_px"], "0.07");
}

/// The first ticker among the messages of a JSON stream.
fn ticker_of(client: &mut Client) -> Value {
    loop {
        let message: Value = match client.receive() {
            Received::Text(text) => serde_json::from_str(&text).expect("it is JSON"),
            Received::Reply(one) => one,
            _ => continue,
        };
        let records = message.as_array().cloned().unwrap_or_else(|| vec![message]);
        if let Some(ticker) = records.into_iter().find(|record| record["type"] == "ticker") {
            return ticker;
        }
    }
}

#[test]
fn a_client_that_comes_back_is_sent_the_computed_ticker_that_it_missed() {
    let (server, mut publisher) = start(&[]);
    let id = publisher.define(&["A"])[0];
    let mut client = Client::connect(server.address, "/v1/stream?format=json", &[]);
    let welcome = client.reply();
    publisher.publish(&[trade(id, 5, 1)]);
    server.wait_for_metric("tickcast_tickers_computed_total", |count| count == 1);
    let mut resumed = Client::connect(server.address, "/v1/stream?format=json", &[]);
    resumed.reply();
    let resume = json!({"op": "resume", "channels": ["ticker"], "symbols": ["A"], "epoch": welcome["epoch"],
        "position": welcome["position"].as_u64().unwrap_or(0)});
    resumed.send_text(&resume.to_string());
    let ticker = ticker_of(&mut resumed);
    assert_eq!((&ticker["flags"], &ticker["volume"]), (&json!(["computed"]), &json!("1")), "{ticker}");
}

#[test]
fn the_simulated_market_and_a_server_without_bars_compute_none() {
    let server = Server::start(&["--feed", "sim:instruments=3,rate=3000,seed=5"]);
    let (without, mut publisher) = start(&["--bars-bytes", "0"]);
    let id = publisher.define(&["A"])[0];
    publisher.publish(&[trade(id, 5, 1)]);
    // Longer than the first computed one would take.
    let mut subscriber = server.subscriber(&["ticker"], &["*"]);
    let begin = subscriber.record().header.ts_recv;
    loop {
        let record = subscriber.record();
        assert_eq!(record.header.flags & flags::COMPUTED, 0, "{record:?}");
        if record.header.ts_recv > begin + 5_000_000_000 {
            break;
        }
    }
    assert_eq!(server.metric_values("tickcast_tickers_computed_total"), [0]);
    assert_eq!(without.metric_values("tickcast_tickers_computed_total"), [0]);
    assert_eq!(without.get("/v1/snapshot/A").json()["ticker"], Value::Null);
}
