//! JSON: Server-Sent Events at `/v1/sse`, and JSON over WebSocket.

use std::io::Write;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::{Client, Received};
use tickcast_test_support::http::send_request;
use tickcast_test_support::publisher::{Publisher, QUOTE, numbers, quote, record, trade};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server, WatchedServer};
use tickcast_test_support::sse::{Event, SseClient};

/// One shard, so that a published record is visible to every client at the same time.
const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token", "--cores", "0"];
const JSON: (&str, &str) = ("sec-websocket-protocol", "tickcast.v1+json");
const ACCEPT: &str = "Accept: text/event-stream\r\n";

/// Publishes A with two decimals and B in thousands.
struct Market(Publisher);

impl Market {
    fn open(server: &Server) -> Self {
        let mut publisher = Publisher::connect(server, "test-publish-token");
        let define = |symbol, px_exp| json!({"symbol": symbol, "venue": "here", "px_exp": px_exp, "sz_exp": -3});
        let define = json!({"op": "define", "id": 1, "instruments": [define("A", -2), define("B", 3)]});
        publisher.0.send_text(&define.to_string());
        assert_eq!(publisher.0.reply()["type"], "defined");
        Self(publisher)
    }

    /// Publishes a quote and a trade of each instrument. At odd prices there is no ask.
    fn publish(&mut self, px: i64) {
        let ask_px = if px % 2 == 0 { px + 1 } else { i64::MIN };
        let quote = |instrument| record(QUOTE, instrument, 5, &numbers(&[px, 1500, ask_px, 2]));
        self.0.publish(&[quote(1), trade(1, px), quote(2), trade(2, px)]);
    }
}

/// Reads trades up to this id; asserts that none is missing.
#[track_caller]
fn read_trades(source: &mut SseClient, last: &mut u64, to: u64) {
    while *last < to {
        assert_eq!(source.until_message("trade")["trade_id"], *last + 1);
        *last += 1;
    }
}

#[test]
fn the_response_head_is_that_of_an_event_stream() {
    let server = Server::start(PUBLISHING);
    let mut source = SseClient::connect(server.address, "/v1/sse?symbols=*", "");
    let head = send_request(server.address, b"HEAD /v1/sse?symbols=* HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(head.body.is_empty());
    for response in [&source.head, &head] {
        assert_eq!(response.status, 200);
        for (name, value) in [
            ("content-type", Some("text/event-stream")),
            ("cache-control", Some("no-store")),
            ("x-accel-buffering", Some("no")),
            ("connection", Some("close")),
            ("content-length", None),
            ("transfer-encoding", None),
        ] {
            assert_eq!(response.header(name), value, "{name}");
        }
    }
    let welcome = source.next_event().expect("a welcome");
    assert!(welcome.retry.is_some_and(|ms| (500..2500).contains(&ms)) && welcome.id.is_none(), "{welcome:?}");
    assert_eq!(welcome.messages()[0]["type"], "welcome");
    server.wait_for_metric("tickcast_event_clients", |clients| clients == 1);
    drop(source);
    server.wait_for_metric("tickcast_event_clients", |clients| clients == 0);
}

/// Names that a list, a path or a form could break.
const NAMES: [&str; 7] = ["A,B", "AAPL  240119C00150000", r"C\D", "E+F&G", "BTC/USD", "币安人生USDT", "X:Y.Z?#"];

#[test]
fn every_symbol_of_the_grammar_can_be_had_everywhere() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let ids = publisher.define(&NAMES);
    let quotes: Vec<_> = ids.iter().map(|id| quote(*id, i64::from(*id))).collect();
    publisher.publish(&quotes);
    let deadline = Instant::now() + DEADLINE;
    while server.get("/v1/snapshot/E+F&G").status == 404 {
        assert!(Instant::now() < deadline, "the definitions do not reach the shard");
    }
    // Commas as they are and encoded, and one list or several.
    let lists = [
        "symbols=A\\,B,AAPL++240119C00150000,C\\D,E%2BF%26G,BTC/USD,%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT,X:Y.Z?%23",
        "symbols=A%5C%2CB%2CAAPL%20%20240119C00150000%2CC%5CD%2CE%2BF%26G%2CBTC%2FUSD%2C%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT%2C\
         X%3AY%2EZ%3F%23",
        "symbols=A\\,B&symbols=AAPL%20%20*&symbols=C\\\\D,E%2BF*&symbols=BTC%2F*,%E5%B8%81%E5%AE%89*&symbols=X%3AY.Z%3F*",
    ];
    for query in lists {
        let mut source = SseClient::connect(server.address, &format!("/v1/sse?{query}&channels=quote"), "");
        let subscribed = source.until_message("subscribed");
        assert_eq!((&subscribed["count"], &subscribed["unknown"]), (&json!(NAMES.len()), &json!([])), "{query}");
        for name in NAMES {
            assert_eq!(source.until_message("quote")["symbol"], *name, "{query}");
        }
        let snapshots = server.get(&format!("/v1/snapshot?{query}")).json();
        let symbols: Vec<_> = snapshots["snapshots"].as_array().expect("a list").iter().collect();
        assert!(symbols.iter().map(|of| &of["instrument"]["symbol"]).eq(&NAMES), "{query}: {snapshots}");
    }
    let paths = [
        "A,B",
        "AAPL%20%20240119C00150000",
        "C%5CD",
        "E+F&G",
        "BTC%2FUSD",
        "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT",
        "X:Y.Z%3F%23",
    ];
    for (name, path) in NAMES.iter().zip(paths) {
        assert_eq!(server.get(&format!("/v1/snapshot/{path}")).json()["instrument"]["symbol"], *name);
        assert_eq!(server.get(&format!("/v1/bars/{path}")).json()["symbol"], *name);
    }
    let mut client = server.client();
    let symbols = json!(NAMES);
    for (op, kind) in [("subscribe", "subscribed"), ("unsubscribe", "unsubscribed")] {
        client.send_text(&json!({"op": op, "id": 1, "channels": ["trade"], "symbols": symbols}).to_string());
        let reply = client.reply();
        assert_eq!((&reply["type"], &reply["count"]), (&json!(kind), &json!(NAMES.len())), "{reply}");
    }
}

#[test]
fn a_text_that_no_symbol_can_be_is_refused_everywhere() {
    let server = Server::start(PUBLISHING);
    let mut client = server.client();
    for (text, encoded, rule) in
        [("A ", "A%20", "ends with a space"), (" A*", "%20A*", "begins"), ("A\tB", "A%09B", "only visible")]
    {
        for op in ["subscribe", "unsubscribe", "resume"] {
            let mut request = json!({"op": op, "id": 1, "channels": ["quote"], "symbols": [text]});
            if op == "resume" {
                (request["epoch"], request["position"]) = (json!(1), json!(1));
            }
            client.send_text(&request.to_string());
            let reply = client.reply();
            assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("bad_request")), "{reply}");
            assert!(reply["message"].as_str().expect("a text").contains(rule), "{reply}");
        }
        for path in ["/v1/sse", "/v1/snapshot"] {
            server.get(&format!("{path}?symbols={encoded}")).assert_refusal(400, "bad_request", &["symbols", rule]);
        }
    }
    let long = "A".repeat(65);
    for path in ["/v1/sse", "/v1/snapshot"] {
        server.get(&format!("{path}?symbols={long}")).assert_refusal(400, "limit", &["65 bytes", "at most 64"]);
    }
}

#[test]
fn bad_parameters_get_a_400_that_names_the_parameter() {
    let mut watched = WatchedServer::start(&["--subscriptions-max", "4"]);
    let server = &watched.server;
    for (query, code, parts) in [
        ("", "bad_request", "symbols: missing: expected a list"),
        ("?symbols=", "bad_request", "symbols[0]: \"\" is empty"),
        ("?symbols=*&channels=quotes", "bad_request", "unknown channel \"quotes\": expected quote, trade"),
        ("?symbols=*&conflate_ms=x", "bad_request", "conflate_ms: invalid value \"x\": expected a whole number"),
        ("?symbols=*&snapshot=1", "bad_request", "snapshot: invalid value \"1\": expected true or false"),
        ("?symbol=*", "bad_request", "\"symbol\": unknown parameter: expected symbols, channels"),
        ("?symbols=*&last_event_id=x", "bad_request", "last_event_id: invalid value \"x\": expected EPOCH-POSITION"),
        ("?symbols=A,B,C", "limit", "symbols: 6 subscriptions (symbols times channels): expected at most 4"),
    ] {
        // Also for a browser, which would otherwise repeat the request forever.
        let path = format!("/v1/sse{query}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n{ACCEPT}\r\n");
        send_request(server.address, request.as_bytes()).assert_refusal(400, code, &[parts]);
        let head = send_request(server.address, request.replacen("GET", "HEAD", 1).as_bytes());
        assert!(head.status == 400 && head.body.is_empty(), "{head:?}");
    }
    for method in ["POST", "OPTIONS", "DELETE"] {
        let request = format!("{method} /v1/sse?symbols=* HTTP/1.1\r\nHost: here\r\n\r\n");
        let response = send_request(server.address, request.as_bytes());
        response.assert_refusal(405, "method_not_allowed", &[method, "GET, HEAD"]);
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
    }
    watched.assert_undisturbed();
}

#[test]
fn pages_of_listed_origins_may_read_events() {
    let server = Server::start(&[PUBLISHING, &["--allow-origin", "https://app.example"]].concat());
    let path = "/v1/sse?symbols=*";
    let listed = SseClient::connect(server.address, path, "Origin: https://app.example\r\n");
    assert_eq!(listed.head.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(listed.head.header("vary"), Some("Origin"));
    let own = SseClient::connect(server.address, path, "Origin: http://here\r\n");
    assert_eq!(own.head.header("access-control-allow-origin"), None);
    let request = |method: &str, lines: &str| {
        send_request(server.address, format!("{method} {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n").as_bytes())
    };
    request("GET", "Origin: https://stranger.example\r\n").assert_refusal(
        403,
        "forbidden_origin",
        &["stranger", "--allow-origin"],
    );
    // A library that uses `fetch` sends a preflight for `Last-Event-ID`; `EventSource` does not.
    let lines = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id\r\n";
    let preflight = request("OPTIONS", &format!("Origin: https://app.example\r\n{lines}"));
    assert_eq!(preflight.status, 204, "{preflight:?}");
    let allowed = preflight.header("access-control-allow-headers");
    assert!(allowed.is_some_and(|allowed| allowed.contains("Last-Event-ID")), "{preflight:?}");
}

/// A record without its token and flags.
fn without_token(mut record: Value) -> Value {
    let fields = record.as_object_mut().expect("an object");
    fields.remove("packet");
    fields.remove("flags");
    record
}

#[test]
fn both_equal_the_polled_snapshot() {
    let server = Server::start(PUBLISHING);
    let mut market = Market::open(&server);
    market.publish(12_345);
    market.publish(12_346);
    let mut first = SseClient::connect(server.address, "/v1/sse?symbols=B", "");
    while first.until_message("trade")["trade_id"] != 12_346 {}
    let polled = server.get("/v1/snapshot/B").json();
    assert_eq!(polled["quote"]["bid_px"], "12346000");
    let mut source = SseClient::connect(server.address, "/v1/sse?symbols=B&channels=quote,trade", "");
    let mut client = Client::connect(server.address, "/v1/stream", &[JSON]);
    assert_eq!(client.reply()["type"], "welcome");
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["B"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    let Received::Text(text) = client.receive() else { panic!("expected text") };
    let event =
        source.next_event().and_then(|_| source.next_event()).and_then(|_| source.next_event()).expect("a snapshot");
    let from_socket: Value = serde_json::from_str(&text).expect("JSON");
    for records in [&event.messages()[..], from_socket.as_array().expect("a list")] {
        let [definition, quote, trade] = records else { panic!("three records: {records:?}") };
        assert_eq!((&definition["type"], &definition["px_exp"]), (&json!("definition"), &json!(3)));
        assert_eq!(without_token(quote.clone()), without_token(polled["quote"].clone()));
        assert_eq!(without_token(trade.clone()), without_token(polled["trade"].clone()));
        assert_eq!(trade["packet"]["flags"], json!(["snapshot", "caught_up"]));
    }
    let token = &event.messages()[2]["packet"];
    assert_eq!(event.id, Some(format!("{}-{}", token["epoch"], token["position"])));
    market.publish(12_347);
    let quote = source.until_message("quote");
    assert_eq!(
        (&quote["bid_px"], &quote["bid_sz"], &quote["ask_px"]),
        (&json!("12347000"), &json!("1.500"), &json!(null))
    );
}

#[test]
fn the_first_known_subprotocol_is_accepted() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    for (offered, is_json) in [
        ("tickcast.v1+json", true),
        ("other, tickcast.v1+json, tickcast.v1", true),
        ("tickcast.v1, tickcast.v1+json", false),
    ] {
        let mut client = Client::connect(server.address, "/v1/stream", &[("sec-websocket-protocol", offered)]);
        assert_eq!(client.reply()["type"], "welcome");
        client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
        assert_eq!(client.reply()["type"], "subscribed");
        assert_eq!(!matches!(client.receive(), Received::Packet(_)), is_json, "{offered}");
    }
}

#[test]
fn json_resumes_from_its_token_and_is_compressed() {
    let args = ["--feed", "sim:instruments=50,rate=5000,seed=3", "--compression", "1", "--cores", "0"];
    let server = Server::start(&args);
    // Two headers in one string.
    let offer = "permessage-deflate\r\nSec-WebSocket-Protocol: tickcast.v1+json";
    let (accepted, mut client) = Client::connect_deflate(server.address, "/v1/stream", offer);
    assert!(accepted.starts_with("permessage-deflate"), "{accepted}");
    assert_eq!(client.reply()["type"], "welcome");
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["*"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    let mut sequences = std::collections::HashMap::new();
    let token = read_messages(&mut client, &mut sequences, 100);
    let counts = client.inflated();
    assert!(counts.compressed_frames > 0 && counts.received_bytes < counts.inflated_bytes, "{counts:?}");
    drop(client);
    let mut client = Client::connect(server.address, "/v1/stream", &[JSON]);
    assert_eq!(client.reply()["type"], "welcome");
    let (epoch, position) = (&token["epoch"], &token["position"]);
    let resume =
        json!({"op": "resume", "id": 2, "epoch": epoch, "position": position, "channels": ["trade"], "symbols": ["*"]});
    client.send_text(&resume.to_string());
    assert_eq!(client.reply()["how"], "replay");
    read_messages(&mut client, &mut sequences, 100);
    server.wait_for_metric("tickcast_json_clients", |clients| clients == 1);
}

/// Reads messages; asserts that no trade is missing. Returns the last token.
fn read_messages(client: &mut Client, sequences: &mut std::collections::HashMap<String, u64>, count: usize) -> Value {
    let mut token = Value::Null;
    for _ in 0..count {
        let message = match client.receive() {
            Received::Text(text) => serde_json::from_str(&text).expect("JSON"),
            Received::Reply(object) => object,
            other => panic!("received {other:?}, expected JSON"),
        };
        let records = message.as_array().cloned().unwrap_or_else(|| vec![message]);
        token = records.last().expect("a list is not empty")["packet"].clone();
        assert!(token.is_object(), "every message has a token");
        for trade in records.iter().filter(|record| record["type"] == "trade") {
            let (symbol, sequence) = (trade["symbol"].as_str(), trade["sequence"].as_u64());
            let (symbol, sequence) = (symbol.expect("a text"), sequence.expect("a number"));
            let before = sequences.insert(symbol.to_owned(), sequence);
            assert!(before.is_none_or(|before| sequence == before + 1), "{trade} after {before:?}");
        }
    }
    token
}

#[test]
fn an_sse_client_resumes_from_its_last_event() {
    let server = Server::start(PUBLISHING);
    let mut market = Market::open(&server);
    let path = "/v1/sse?symbols=A&channels=trade";
    let mut source = SseClient::connect(server.address, path, "");
    assert_eq!(source.until_message("subscribed")["count"], 1);
    let mut last = 0;
    for round in 1..=5 {
        market.publish(20 * round - 19);
        read_trades(&mut source, &mut last, 20 * round as u64 - 19);
        let line = format!("Last-Event-ID: {}\r\n", source.last_event_id());
        drop(source);
        (20 * round - 18..=20 * round).for_each(|px| market.publish(px));
        source = SseClient::connect(server.address, path, &line);
        let resumed = source.until_message("resumed");
        assert_eq!((&resumed["how"], &resumed["id"]), (&json!("replay"), &json!(1)), "{resumed}");
        read_trades(&mut source, &mut last, 20 * round as u64);
    }
    // A reloaded page cannot set the header, and sends its id in the query.
    let path = format!("{path}&last_event_id={}", source.last_event_id());
    market.publish(101);
    let mut source = SseClient::connect(server.address, &path, "");
    assert_eq!(source.until_message("resumed")["how"], "replay");
    read_trades(&mut source, &mut last, 101);
}

#[test]
fn an_unknown_last_event_id_gets_a_snapshot() {
    let server = Server::start(PUBLISHING);
    let mut market = Market::open(&server);
    market.publish(1);
    SseClient::connect(server.address, "/v1/sse?symbols=A", "").until_message("trade");
    for id in ["1-1", "0-0", "not-an-id", "42", "", "4294967295-18446744073709551615"] {
        let mut source = SseClient::connect(server.address, "/v1/sse?symbols=A", &format!("Last-Event-ID: {id}\r\n"));
        let response = if id.is_empty() { source.until_message("subscribed") } else { source.until_message("resumed") };
        assert!(id.is_empty() || response["how"] == "snapshot", "{id:?}: {response}");
        assert_eq!(source.until_message("quote")["flags"], json!(["snapshot"]), "{id:?}");
    }
}

#[test]
fn after_a_restart_an_sse_client_gets_a_snapshot() {
    let server = Server::start(PUBLISHING);
    let address = server.address;
    let mut market = Market::open(&server);
    market.publish(7);
    let mut source = SseClient::connect(address, "/v1/sse?symbols=A", "");
    source.until_message("trade");
    let line = format!("{ACCEPT}Last-Event-ID: {}\r\n", source.last_event_id());
    server.stop(Signal::KILL);
    let server = Server::spawn(Program::command(&[&["--listen", &address.to_string()], PUBLISHING].concat()));
    let mut market = Market::open(&server);
    market.publish(9);
    let mut source = SseClient::connect(address, "/v1/sse?symbols=A", &line);
    assert_eq!(source.until_message("resumed")["how"], "snapshot");
    // The record of the publisher may come after the snapshot.
    while source.until_message("quote")["bid_px"] != "0.09" {}
}

#[test]
fn an_sse_client_of_an_unknown_symbol_gets_it_once_it_is_defined() {
    let server = Server::start(PUBLISHING);
    let paths =
        ["/v1/sse?symbols=A,NEVER", "/v1/sse?symbols=NEVER,A&snapshot=false", "/v1/sse?symbols=A&conflate_ms=100"];
    let mut early = paths.map(|path| {
        let mut source = SseClient::connect(server.address, path, "");
        let response = source.until_message("subscribed");
        let unknown = response["unknown"].as_array().expect("a list");
        assert!(response["count"] == 0 && unknown.contains(&json!("A")), "{response}");
        source
    });
    // So does a WebSocket client.
    let mut client = Client::connect(server.address, "/v1/stream", &[JSON]);
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["A"]}"#);
    client.send_text(r#"{"op":"subscribe","id":2,"channels":["trade"],"symbols":["B*"]}"#);
    assert_eq!(client.reply()["type"], "welcome");
    assert_eq!(client.reply()["unknown"], json!(["A"]));
    assert_eq!(client.reply()["id"], 2);
    let mut market = Market::open(&server);
    (1..=5).for_each(|px| market.publish(px));
    for source in &mut early {
        let definition = source.until_message("definition");
        assert_eq!((&definition["symbol"], &definition["px_exp"]), (&json!("A"), &json!(-2)));
        // Every trade of A, and none of B.
        read_trades(source, &mut 0, 5);
    }
    market.publish(6);
    for source in &mut early {
        while source.until_message("quote")["bid_px"] != "0.06" {}
    }
    let (mut trades, mut of_a) = (0, 0);
    while trades < 6 {
        let messages = match client.receive() {
            Received::Text(text) => serde_json::from_str(&text).expect("JSON"),
            Received::Reply(object) => vec![object],
            other => panic!("received {other:?}, expected JSON"),
        };
        let of = |symbol| move |message: &&Value| message["type"] == "trade" && message["symbol"] == symbol;
        of_a += messages.iter().filter(of("A")).count();
        trades += messages.iter().filter(of("B")).count();
    }
    assert_eq!(of_a, 6, "each trade of A as well");
}

#[test]
fn another_definition_of_its_own_instrument_reaches_subscribers() {
    let server = Server::start(PUBLISHING);
    let mut source = SseClient::connect(server.address, "/v1/sse?symbols=A&channels=trade", "");
    let mut market = Market::open(&server);
    market.publish(5_001);
    let finer = json!({"symbol": "A", "venue": "elsewhere", "px_exp": -3, "sz_exp": -3});
    market.0.0.send_text(&json!({"op": "define", "id": 2, "instruments": [finer]}).to_string());
    assert_eq!(market.0.0.reply()["type"], "defined");
    market.publish(50_011);
    let first = source.until_message("definition");
    assert_eq!((&first["px_exp"], &first["venue"]), (&json!(-2), &json!("here")));
    assert_eq!(source.until_message("trade")["px"], "50.01");
    let second = source.until_message("definition");
    assert_eq!((&second["px_exp"], &second["venue"]), (&json!(-3), &json!("elsewhere")));
    assert_eq!(source.until_message("trade")["px"], "50.011");
    let listed = send_request(server.address, b"GET /v1/instruments HTTP/1.1\r\nHost: here\r\n\r\n");
    let listed: Value = serde_json::from_slice(&listed.body).expect("JSON");
    assert_eq!(listed["instruments"][0]["venue"], "elsewhere");
}

#[test]
fn same_interest_shares_one_audience_regardless_of_definition_order() {
    let server = Server::start(PUBLISHING);
    let path = "/v1/sse?symbols=A,NEVER";
    let mut early = SseClient::connect(server.address, path, "");
    early.until_message("subscribed");
    let mut market = Market::open(&server);
    market.publish(1);
    early.until_message("quote");
    let mut late = SseClient::connect(server.address, path, "");
    assert_eq!(late.until_message("subscribed")["unknown"], json!(["NEVER"]));
    assert_eq!(late.until_message("quote")["flags"], json!(["snapshot"]));
    market.publish(2);
    for source in [&mut early, &mut late] {
        while source.until_message("trade")["trade_id"] != 2 {}
    }
    server.wait_for_metric("tickcast_event_clients", |clients| clients == 2);
    server.wait_for_metric("tickcast_audiences", |audiences| audiences == 1);
}

#[test]
fn an_sse_client_that_resumes_before_its_publisher_gets_all_its_records() {
    let server = Server::start(PUBLISHING);
    let address = server.address;
    let mut market = Market::open(&server);
    market.publish(7);
    let path = "/v1/sse?symbols=A";
    let mut source = SseClient::connect(address, path, "");
    source.until_message("trade");
    let line = |source: &SseClient| format!("{ACCEPT}Last-Event-ID: {}\r\n", source.last_event_id());
    let id_before = line(&source);
    server.stop(Signal::KILL);
    let server = Server::spawn(Program::command(&[&["--listen", &address.to_string()], PUBLISHING].concat()));
    let resume = |id: &str, how: &str| {
        let mut source = SseClient::connect(address, path, id);
        let resumed = source.until_message("resumed");
        assert_eq!((&resumed["how"], &resumed["unknown"]), (&json!(how), &json!(["A"])), "{resumed}");
        source
    };
    let (mut stays, mut goes) = (resume(&id_before, "snapshot"), resume(&id_before, "snapshot"));
    // The empty packet that ends the snapshot has a token from before the definition.
    goes.until_message("packet");
    let id = line(&goes);
    drop(goes);
    let mut again = resume(&id, "replay");
    let mut market = Market::open(&server);
    (1..=3).for_each(|px| market.publish(px));
    read_trades(&mut stays, &mut 0, 3);
    read_trades(&mut again, &mut 0, 3);
    let mut returns = SseClient::connect(address, path, &id);
    let resumed = returns.until_message("resumed");
    assert_eq!((&resumed["how"], &resumed["unknown"]), (&json!("replay"), &json!([])), "{resumed}");
    read_trades(&mut returns, &mut 0, 3);
}

#[track_caller]
fn expect_closing(source: &mut SseClient, reason: &str) -> Event {
    let mut last = None;
    while let Some(event) = source.next_event() {
        last = Some(event);
    }
    let last = last.expect("a last event");
    let closing = &last.messages()[0];
    assert_eq!((&closing["type"], &closing["reason"]), (&json!("closing"), &json!(reason)), "{closing}");
    assert_eq!(closing["reconnect_ms"].as_u64(), last.retry, "{last:?}");
    assert!(last.retry.is_some() && last.id.is_none(), "{last:?}");
    last
}

#[test]
fn a_drain_ends_streams_with_a_retry_time() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--drain-ms", "600000", "--cores", "0"]);
    let mut first = SseClient::connect(server.address, "/v1/sse?symbols=*", "");
    let mut waits = server.client();
    first.until_message("quote");
    waits.ping();
    server.program.signal(Signal::TERM);
    let last = expect_closing(&mut first, "going_away");
    assert!(last.retry.is_some_and(|ms| (500..2500).contains(&ms)), "{last:?}");
    server.get("/v1/sse?symbols=*").assert_refusal(503, "unavailable", &["stopping"]);
    let mut refused = SseClient::connect(server.address, "/v1/sse?symbols=*", ACCEPT);
    let error = refused.next_event().expect("an error").messages().remove(0);
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("unavailable")), "{error}");
    let last = expect_closing(&mut refused, "unavailable");
    assert!(last.retry.is_some_and(|ms| (5000..7000).contains(&ms)), "{last:?}");
    server.stop(Signal::TERM);
}

#[test]
fn sse_and_websocket_clients_share_connections_max() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--connections-max", "2", "--cores", "0"]);
    let (_first, mut second) = (server.client(), SseClient::connect(server.address, "/v1/sse?symbols=*", ""));
    second.until_message("quote");
    server.get("/v1/sse?symbols=*").assert_refusal(503, "unavailable", &["connections_max"]);
    let Err(refused) = Client::try_connect(server.address, "/v1/stream", &[]) else {
        panic!("the connection is accepted")
    };
    refused.assert_refusal(503, "unavailable", &["connections_max"]);
    server.wait_for_metric("tickcast_refused_full_total", |count| count == 2);
}

#[test]
fn an_sse_client_may_be_silent_and_its_input_is_ignored() {
    let args = ["--ping-interval-ms", "100", "--ping-timeout-ms", "200", "--idle-timeout-ms", "500"];
    let quick = ["--heartbeat-ms", "100", "--subscribe-timeout-ms", "100", "--requests-per-s", "5"];
    let server = Server::start(&[&["--feed", "none", "--cores", "0"], &args[..], &quick[..]].concat());
    let mut source = SseClient::connect(server.address, "/v1/sse?symbols=*", "");
    source.tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the server reads");
    // A silent WebSocket client would have been closed three times in these two seconds.
    for _ in 0..20 {
        source.until_message("heartbeat");
    }
    // Too much input is a flood.
    let mut flood = source.tcp.try_clone().expect("a socket");
    let flooding = std::thread::spawn(move || while flood.write_all(b"x").is_ok() {});
    let mut last = None;
    while let Ok(Some(event)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.next_event())) {
        last = Some(event);
    }
    flooding.join().expect("the thread ends");
    drop(last);
    server.wait_for_metric("tickcast_floods_total", |count| count == 1);
    server.wait_for_metric("tickcast_clients", |clients| clients == 0);
    for family in ["tickcast_idle_closed_total", "tickcast_ping_timeouts_total", "tickcast_subscribe_timeouts_total"] {
        assert_eq!(server.metric_values(family).iter().sum::<u64>(), 0, "{family}");
    }
}

#[test]
fn a_slow_sse_client_is_closed() {
    let mut watched = WatchedServer::start(&["--slow-timeout-ms", "300", "--send-buffer-bytes", "4096"]);
    let source = SseClient::connect(watched.server.address, "/v1/sse?symbols=*&channels=quote,trade,ticker,book", "");
    watched.server.wait_for_metric("tickcast_slow_closed_total", |count| count == 1);
    drop(source);
    watched.assert_undisturbed();
}
