//! Delayed markets: released in time and never early, after a restart as well, and without a sign of the present.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::RecordKind;
use tickcast_protocol::record::{Trade, flags};
use tickcast_test_support::client::{Client, Received, Record, records_of};
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::publisher::{Publisher, quote, trade};
use tickcast_test_support::server::{Program, Server};

const PUBLISHER: &str = "token-of-the-publisher";
const OPERATOR: &str = "token-of-the-operator";
const DELAY_S: u64 = 2;
const TRADE: u8 = RecordKind::Trade as u8;

/// A server with a delayed market, and the address of that.
struct Markets {
    folder: tempfile::TempDir,
    live: Server,
    delayed: SocketAddr,
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

impl Markets {
    fn start(more: &str) -> Self {
        Self::in_folder(tempfile::tempdir().expect("a folder"), more)
    }

    fn in_folder(folder: tempfile::TempDir, more: &str) -> Self {
        let (config, spool) = (folder.path().join("tickcast.toml"), folder.path().join("spool"));
        let text = format!(
            "listen = '127.0.0.1:0'\nfeed = ['none']\npublish_token = '{PUBLISHER}'\noperator_token = '{OPERATOR}'\n\
             spool_dir = '{}'\n{more}\n[[delayed]]\nlisten = '127.0.0.1:0'\ndelay_s = {DELAY_S}\n",
            spool.display()
        );
        std::fs::write(&config, text).expect("the folder is writable");
        let program = Program::spawn(Program::command(&["--config", config.to_str().expect("a path in UTF-8")]));
        let delayed = program.wait_for_address("serving the market of 2 s ago on http://");
        let live = Server::of(program);
        Self { folder, live, delayed }
    }

    fn get(&self, path: &str) -> Response {
        let address = self.delayed;
        send_request(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
    }

    fn operator_get(&self, path: &str) -> Response {
        let address = self.live.address;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n");
        send_request(address, head.as_bytes())
    }

    /// A client of the delayed market with these channels of all symbols, its welcome and the reply.
    fn subscribe(&self, symbols: &[&str]) -> (Client, Value, Value) {
        let mut client = Client::connect(self.delayed, "/v1/stream", &[]);
        let welcome = client.reply();
        client.send_text(
            &json!({"op": "subscribe", "id": 1, "channels": ["quote", "trade"], "symbols": symbols}).to_string(),
        );
        let subscribed = client.reply();
        (client, welcome, subscribed)
    }
}

/// The price of a trade.
fn px(record: &Record) -> i64 {
    Trade::read(&record.bytes).expect("a trade").px
}

/// Reads packets until a record of a kind has come that is as wanted; returns all records of that kind up to it, each with
/// the time at which it was read.
fn read_until(client: &mut Client, kind: u8, is_last: impl Fn(&Record) -> bool) -> Vec<(Record, u64)> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut found = Vec::new();
    while Instant::now() < until {
        let Received::Packet(packet) = client.receive() else { continue };
        let read_ns = wall_ns();
        for record in records_of(&packet).into_iter().filter(|record| record.header.kind == kind) {
            let is_over = is_last(&record);
            found.push((record, read_ns));
            if is_over {
                return found;
            }
        }
    }
    panic!("the record did not come; {} others did", found.len());
}

#[test]
fn records_are_released_once_they_are_old_enough_and_carry_delayed() {
    let markets = Markets::start("");
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["BTC-USD"]);
    let (mut client, welcome, subscribed) = markets.subscribe(&["BTC-USD"]);
    assert_eq!((&welcome["delay_s"], &subscribed["delay_s"]), (&json!(DELAY_S), &json!(DELAY_S)));
    assert_eq!(subscribed["unknown"], json!(["BTC-USD"]), "its definition is not due yet");
    for px in 1..=40 {
        publisher.publish(&[quote(ids[0], px), trade(ids[0], px)]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let trades = read_until(&mut client, TRADE, |record| px(record) == 40);
    assert_eq!(trades.iter().map(|(record, _)| px(record)).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    for (record, read_ns) in &trades {
        assert!(record.header.ts_recv + DELAY_S * 1_000_000_000 <= *read_ns, "{record:?} was read at {read_ns}");
        assert_ne!(record.header.flags & flags::DELAYED, 0, "{record:?}");
    }
    assert_eq!(
        trades.iter().map(|(record, _)| record.header.sequence.get()).collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );

    let snapshot = markets.get("/v1/snapshot/BTC-USD").json();
    assert_eq!((&snapshot["trade"]["px"], &snapshot["trade"]["flags"]), (&json!("0.40"), &json!(["delayed"])));
    let bars = markets.get("/v1/bars/BTC-USD?interval_s=1").json();
    let last = bars["time"].as_array().and_then(|times| times.last()).and_then(Value::as_u64).expect("a bar");
    assert!(last + DELAY_S <= wall_ns() / 1_000_000_000, "bars are those of the time of the trades");
    let newest = markets.get("/v1/trades/BTC-USD?limit=2").json();
    let stamps = json!([trades[38].0.header.ts_recv, trades[39].0.header.ts_recv]);
    assert_eq!((&newest["trade_id"], &newest["ts_recv"]), (&json!([39, 40]), &stamps));
    let mut live = Client::connect(markets.live.address, "/v1/stream", &[]);
    assert_eq!(live.reply().get("delay_s"), None, "the live market has none");
}

#[test]
fn a_delayed_market_has_the_computed_tickers_of_the_live_one_and_computes_none() {
    let markets = Markets::start("");
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["BTC-USD"]);
    publisher.publish(&[trade(ids[0], 40)]);
    let mut live = markets.live.subscriber(&["ticker"], &["BTC-USD"]);
    let computed = live.record();
    let mut client = Client::connect(markets.delayed, "/v1/stream", &[]);
    client.reply();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["ticker"],"symbols":["BTC-USD"]}"#);
    client.reply();
    let delayed = read_until(&mut client, RecordKind::Ticker as u8, |_| true).remove(0).0;
    assert_eq!((delayed.header.sequence, delayed.header.ts_recv), (computed.header.sequence, computed.header.ts_recv));
    assert_eq!(delayed.bytes[32..], computed.bytes[32..]);
    let set = delayed.header.flags & (flags::COMPUTED | flags::DELAYED);
    assert_eq!(set, flags::COMPUTED | flags::DELAYED, "{delayed:?}");
    let metrics = markets.operator_get("/metrics?delay_s=2").text();
    assert!(metrics.contains("\ntickcast_tickers_computed_total 0\n"), "it computes none");
}

#[test]
fn nothing_that_a_delayed_market_answers_depends_on_the_present() {
    let markets = Markets::start("");
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["OLD"]);
    publisher.publish(&[trade(ids[0], 1)]);
    let (mut client, ..) = markets.subscribe(&["*"]);
    read_until(&mut client, TRADE, |record| px(record) == 1);

    let seen = |path: &str| {
        let response = markets.get(path);
        (response.status, response.header("etag").map(str::to_owned), response.text())
    };
    // The newest trades first: an answer waits for the thread that makes bars as well.
    let paths = [
        "/v1/trades/NEW",
        "/v1/trades/OLD",
        "/v1/instruments",
        "/v1/snapshot?symbols=*",
        "/v1/snapshot/NEW",
        "/v1/bars/NEW",
        "/v1/bars/OLD",
        "/readyz",
    ];
    let before = paths.map(seen);
    let began = Instant::now();
    publisher.publish(&[trade(ids[0], 2)]);
    let new = publisher.define(&["NEW"]);
    publisher.publish(&[trade(new[0], 3)]);
    let after = paths.map(seen);
    if began.elapsed() < Duration::from_secs(DELAY_S) {
        assert_eq!(before, after, "nothing is due yet");
    }
    for path in ["/metrics", "/v1/operator", "/v1/publish"] {
        assert_eq!(markets.get(path).status, 404, "{path}");
    }
    let both = read_until(&mut client, TRADE, |record| px(record) == 3);
    assert_eq!(
        both.iter().map(|(record, _)| (px(record), record.header.sequence.get())).collect::<Vec<_>>(),
        [(2, 2), (3, 1)]
    );
    assert_ne!(seen("/v1/instruments"), before[0], "now it is");

    let operator = markets.operator_get("/v1/operator?delay_s=2").json();
    assert_eq!((&operator["delay_s"], &operator["sources"][0]["name"]), (&json!(2), &json!("delayed 2 s")));
    assert!(markets.operator_get("/metrics?delay_s=2").text().contains("tickcast_sequencer_records_total"));
    let unknown = markets.operator_get("/metrics?delay_s=3");
    assert_eq!(unknown.status, 400);
    assert!(unknown.text().contains("is not the delay of a market: expected 2"), "{}", unknown.text());
}

#[test]
fn rights_to_delayed_data_alone_are_served_by_the_delayed_market_alone() {
    let markets = Markets::start(
        "[anonymous]\nallow = [{ symbols = ['LIVE-*'] }, { symbols = ['LATE-*'], delay_s = 2 }, { symbols = ['OLD-*'], delay_s = 900 }]",
    );
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["LIVE-A", "LATE-A", "OLD-A"]);
    publisher.publish(&[trade(ids[2], 1), trade(ids[1], 2), trade(ids[0], 3)]);
    let symbols = ["LIVE-A", "LATE-A", "OLD-A", "NO-A"];
    let (mut client, _, subscribed) = markets.subscribe(&symbols);
    assert_eq!((&subscribed["denied"], &subscribed["delayed"]), (&json!(["OLD-A", "NO-A"]), &json!(["OLD-A"])));
    let trades = read_until(&mut client, TRADE, |record| px(record) == 3);
    assert_eq!(trades.iter().map(|(record, _)| px(record)).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(markets.get("/v1/snapshot/LATE-A").status, 200);
    assert_eq!(markets.get("/v1/snapshot/OLD-A").status, 403);

    let mut live = markets.live.client();
    live.send_text(&json!({"op": "subscribe", "id": 1, "channels": ["trade"], "symbols": symbols}).to_string());
    let subscribed = live.reply();
    assert_eq!(subscribed["denied"], json!(["LATE-A", "OLD-A", "NO-A"]));
    assert_eq!(subscribed["delayed"], json!(["LATE-A", "OLD-A"]));
    assert_eq!(markets.live.get("/v1/snapshot/LATE-A").status, 403);
}

#[test]
fn restart_continues_with_what_was_spooled_before() {
    let markets = Markets::start("");
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["BTC-USD"]);
    for px in 1..=5 {
        publisher.publish(&[trade(ids[0], px)]);
    }
    markets.live.wait_for_metric("tickcast_spool_records_total", |records| records >= 6);
    let Markets { folder, live, .. } = markets;
    live.stop(Signal::TERM);
    let markets = Markets::in_folder(folder, "");
    let (mut client, ..) = markets.subscribe(&["BTC-USD"]);
    let mut publisher = Publisher::connect(&markets.live, PUBLISHER);
    let ids = publisher.define(&["BTC-USD"]);
    publisher.publish(&[trade(ids[0], 6)]);
    let trades = read_until(&mut client, TRADE, |record| px(record) == 6);
    let values: Vec<_> = trades.iter().map(|(record, _)| px(record)).collect();
    assert!(values.is_sorted() && values.ends_with(&[5, 6]), "{values:?}");
    for (record, read_ns) in &trades {
        assert!(record.header.ts_recv + DELAY_S * 1_000_000_000 <= *read_ns, "{record:?} was read at {read_ns}");
    }
}

#[test]
fn spool_that_cannot_be_used_is_an_error_at_the_start() {
    let markets = Markets::start("");
    let config = markets.folder.path().join("second.toml");
    let spool = markets.folder.path().join("spool");
    for (directory, message) in [(spool, "is in use by another process"), (config.clone(), "expected a directory")] {
        let text = format!(
            "listen = '127.0.0.1:0'\nfeed = ['none']\nspool_dir = '{}'\n[[delayed]]\nlisten = '127.0.0.1:0'\n",
            directory.display()
        );
        std::fs::write(&config, text).expect("the folder is writable");
        let exit = Program::run(&["--config", config.to_str().expect("a path in UTF-8")]);
        assert_eq!(exit.code, Some(2), "{}", exit.stderr);
        assert!(exit.stderr.contains("spool_dir: ") && exit.stderr.contains(message), "{}", exit.stderr);
    }
}
