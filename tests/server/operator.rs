//! The operator view: slow clients, access, and numbers equal to the metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::server::{SMALL_MARKET, Server};

const TOKEN: &str = "token-of-the-operator";

fn view_at(address: SocketAddr, headers: &str) -> Response {
    send_request(address, format!("GET /v1/operator HTTP/1.1\r\n{headers}\r\n").as_bytes())
}

fn view(server: &Server) -> Value {
    let headers = format!("Host: {}\r\nAuthorization: Bearer {TOKEN}\r\n", server.address);
    let response = view_at(server.address, &headers);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Reads the view until the row of this client is as expected.
fn wait_for_slow(server: &Server, client: SocketAddr, is_expected: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
    let until = Instant::now() + DEADLINE;
    loop {
        let view = view(server);
        let row = view["slow"].as_array().expect("a list").iter().find(|row| row["address"] == client.to_string());
        if is_expected(row) {
            return row.cloned();
        }
        assert!(Instant::now() < until, "the row of {client} is not as expected: {}", view["slow"]);
    }
}

#[test]
fn a_slow_client_is_listed_until_it_reads() {
    let server = Server::start(&["--feed", "sim:instruments=20,rate=4000,seed=3", "--operator-token", TOKEN]);
    let mut good = server.client();
    let mut stalled = server.client();
    socket2::SockRef::from(stalled.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    let address = stalled.tcp().local_addr().expect("a connected socket");
    stalled.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["*"],"conflate_ms":0}"#);
    let is_stuck = |row: &Value| row["blocked"] == true && row["nothing_taken_ms"].as_u64() >= Some(500);
    let row = wait_for_slow(&server, address, |row| row.is_some_and(is_stuck)).expect("the row of the client");
    assert_eq!(
        (&row["items"], &row["conflate_ms"], &row["encoding"]),
        (&json!(2), &json!(0), &json!("binary")),
        "{row}"
    );
    assert!(row["pending_bytes"].as_u64() > Some(0) && row["ring_bytes"].as_u64() > Some(0), "{row}");
    assert!(row["behind_ms"].as_u64() >= row["nothing_taken_ms"].as_u64() && row["closing"] == false, "{row}");
    assert!(row["shard"].is_u64() && row["slot"].is_u64(), "{row}");
    let other = good.tcp().local_addr().expect("a connected socket");
    good.ping();
    assert!(wait_for_slow(&server, other, |row| row.is_none()).is_none());
    // With so small a window it would never catch up.
    socket2::SockRef::from(stalled.tcp()).set_recv_buffer_size(1 << 20).expect("a TCP socket");
    // A thread reads until the client is no longer listed.
    let is_unlisted = Arc::new(AtomicBool::new(false));
    let (until, server) = (is_unlisted.clone(), Arc::new(server));
    let reader = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            stalled.receive();
        }
        stalled
    });
    wait_for_slow(&server, address, |row| row.is_none());
    is_unlisted.store(true, Ordering::Relaxed);
    reader.join().expect("the client is served").ping();
}

#[test]
fn a_slow_client_that_disconnects_is_no_longer_listed() {
    let server = Server::start(&[
        "--feed",
        "sim:instruments=20,rate=4000,seed=3",
        "--send-buffer-bytes",
        "4096",
        "--operator-token",
        TOKEN,
    ]);
    let mut stalled = server.client();
    socket2::SockRef::from(stalled.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    let address = stalled.tcp().local_addr().expect("a connected socket");
    stalled.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["*"]}"#);
    wait_for_slow(&server, address, |row| row.is_some());
    drop(stalled);
    wait_for_slow(&server, address, |row| row.is_none());
}

#[test]
fn with_a_token_the_view_needs_it() {
    let server = Server::start(&["--feed", "none", "--operator-token", "token-of-the-operator"]);
    let view = |headers: &str| view_at(server.address, headers);
    let refused = view("Host: localhost\r\n");
    refused.assert_refusal(401, "unauthorized", &["Authorization: Bearer"]);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for wrong in ["token-of-the-operato", "token-of-the-operator1", "Token-of-the-operator", ""] {
        assert_eq!(view(&format!("Host: a\r\nAuthorization: Bearer {wrong}\r\n")).status, 401, "{wrong:?}");
    }
    assert_eq!(view("Host: a\r\nAuthorization: Basic token-of-the-operator\r\n").status, 401);
    assert_eq!(
        view("Host: a.example\r\nX-Forwarded-For: 192.0.2.1\r\nAuthorization: bearer token-of-the-operator\r\n").status,
        200
    );
}

/// Reads the view until the row of a source is as expected.
fn wait_for_source(server: &Server, kind: &str, is_expected: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let view = view(server);
        let rows = view["sources"].as_array().expect("a list").iter().filter(|row| row["kind"] == kind);
        if let Some(row) = rows.into_iter().find(|row| is_expected(row)) {
            return row.clone();
        }
        assert!(Instant::now() < until, "no such {kind}: {}", view["sources"]);
    }
}

#[test]
fn sources_are_listed_with_their_rates() {
    let args = ["--feed", SMALL_MARKET, "--feed", "none", "--publish-token", "test-publish-token", "--stale-ms", "600"];
    let server = Server::start(&[&args[..], &["--operator-token", TOKEN]].concat());
    let feed = wait_for_source(&server, "feed", |row| row["records_per_s"].as_u64() > Some(50));
    assert_eq!((&feed["name"], &feed["state"]), (&json!(SMALL_MARKET), &json!("live")));
    assert_eq!((&feed["instruments"], view(&server)["sources"].as_array().map(Vec::len)), (&json!(4), Some(1)));
    let mut publisher = Client::connect(server.address, "/v1/publish?token=test-publish-token", &[]);
    let from = publisher.tcp().local_addr().expect("a connected socket").to_string();
    let row = wait_for_source(&server, "publisher", |row| row["name"] == from.as_str());
    assert_eq!((&row["state"], &row["silent_ms"]), (&json!("new"), &json!(null)));
    publisher.send_text(r#"{"op":"define","id":1,"instruments":[{"symbol":"A","venue":"me","px_exp":-2,"sz_exp":0}]}"#);
    assert_eq!(publisher.reply()["type"], "defined");
    let row = wait_for_source(&server, "publisher", |row| row["state"] == "stale");
    assert_eq!((&row["instruments"], row["silent_ms"].as_u64() >= Some(600)), (&json!(1), true), "{row}");
    drop(publisher);
    server.wait_for_metric("tickcast_publishers", |count| count == 0);
    let kinds: Vec<_> =
        view(&server)["sources"].as_array().expect("a list").iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["feed"]);
}

/// The numbers of `/metrics` by family and shard.
fn metrics(server: &Server) -> BTreeMap<(String, Option<usize>), u64> {
    let text = server.get("/metrics").text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let (family, label) = name.split_once('{').unwrap_or((name, ""));
            let shard = label.trim_start_matches("shard=\"").trim_end_matches("\"}").parse().ok();
            ((family.trim_start_matches("tickcast_").to_owned(), shard), value.parse().expect("a whole number"))
        })
        .collect()
}

/// The numbers of a part of the view, named as in `/metrics`.
fn numbers(part: &Value) -> BTreeMap<String, u64> {
    let of = |kind: &str, suffix: &str| -> Vec<(String, u64)> {
        let all = part[kind].as_object().expect("an object").iter();
        all.map(|(name, value)| (format!("{name}{suffix}"), value.as_u64().expect("a number"))).collect()
    };
    of("counters", "_total").into_iter().chain(of("levels", "")).collect()
}

#[test]
fn the_numbers_equal_the_metrics() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--log", "warn", "--operator-token", TOKEN]);
    let mut client = server.subscriber(&["quote"], &["*"]);
    client.until_live();
    server.wait_for_metric("tickcast_clients", |clients| clients == 1);
    let before = metrics(&server);
    let view = view(&server);
    let after = metrics(&server);
    let mut seen = 0;
    let parts = view["shards"].as_array().expect("a list").iter().map(|shard| (shard, shard["shard"].as_u64()));
    for (part, shard) in parts.chain([(&view["sequencer"], None)]) {
        for (name, value) in numbers(part) {
            let key = (name.clone(), shard.map(|shard| shard as usize));
            let (Some(least), Some(most)) = (before.get(&key), after.get(&key)) else { panic!("no {key:?}") };
            let grows = name.ends_with("_total");
            assert!(!grows || (*least..=*most).contains(&value), "{name}: {least}, then {value}, then {most}");
            seen += 1;
        }
        if let Some(shard) = shard {
            assert!(part["core"].is_u64(), "shard {shard}: {part}");
            assert_eq!(part["ring"]["capacity_bytes"], 32 << 20);
        }
    }
    // What feeds do and have lost is in `sources`, and the dropped lines of the log have a map of their own.
    let elsewhere = ["feed_", "source_live", "source_stream", "source_lag", "log_lines_dropped"];
    let elsewhere = after.keys().filter(|(name, _)| elsewhere.iter().any(|other| name.contains(other))).count();
    assert!(view["log_lines_dropped"]["rate"].is_u64(), "{view}");
    assert_eq!(seen + elsewhere, after.len(), "the view has every number of the metrics");
    let records = view["sequencer"]["counters"]["sequencer_records"].as_u64();
    assert!(records > Some(0) && view["sequencer"]["position"].as_u64() >= records, "{view}");
    assert_eq!((&view["version"], &view["not_ready"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(null)));
    assert!(view["epoch"].is_u64() && view["uptime_ms"].is_u64() && view["time_ns"].is_u64(), "{view}");
}
