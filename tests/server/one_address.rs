//! One address takes what it may and reads nothing, or sends requests without a pause. Others are served, and the memory
//! for its responses is bounded.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, connect, connect_from, read_response, send_request, upgrade_request};
use tickcast_test_support::publisher::{Publisher, book, quote};
use tickcast_test_support::server::{Server, WatchedServer};

const ATTACKER: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n")
}

fn get_from(source: &str, address: SocketAddr, path: &str) -> Response {
    let mut stream = connect_from(source, address);
    // A server that refuses before it has read the request may have closed the connection by now.
    let _ = stream.write_all(get_request(path).as_bytes());
    read_response(&mut stream)
}

/// A connection with a small window that has sent a request and reads nothing.
fn unread(source: &str, address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = connect_from(source, address);
    socket2::SockRef::from(&stream).set_recv_buffer_size(4096).expect("a TCP socket");
    let _ = stream.write_all(request.as_bytes());
    stream
}

/// A server whose directory has 480 instruments of 700 bytes of JSON each.
fn with_instruments(args: &[&str]) -> (Server, Publisher) {
    let server =
        Server::start(&[&["--feed", "none", "--publish-token", "test-publish-token", "--cores", "0"], args].concat());
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let names: Vec<_> = (0..480).map(|nth| format!("B{nth:04}-USD")).collect();
    let ids = publisher.define(&names);
    let records: Vec<_> = ids
        .iter()
        .flat_map(|id| {
            let levels: Vec<_> = (1..=20).map(|px| (px, 7, b'B')).collect();
            [quote(*id, 100), book(*id, b'S', &levels)]
        })
        .collect();
    publisher.publish(&records);
    let mut tries = 0;
    while server.get("/v1/snapshot/B0479-USD").json()["book"].is_null() {
        tries += 1;
        assert!(tries < 100_000, "the last book is not there");
    }
    (server, publisher)
}

#[test]
fn an_address_that_reads_nothing_leaves_room_for_others() {
    let args = ["--addresses-exempt", "127.0.0.1", "--pending-connections-max", "64", "--connections-max", "20"];
    let mut watched = WatchedServer::start(&[&args[..], &["--cores", "0"]].concat());
    let address = watched.server.address;
    // Half of the connections are open to one address: the tenth is the last.
    let upgraded: Vec<_> = (0..30)
        .filter_map(|_| Client::upgrade(connect_from(ATTACKER, address), &upgrade_request("/v1/stream")).ok())
        .collect();
    assert_eq!(upgraded.len(), 10, "half of connections_max");
    drop(upgraded);
    let mut held: Vec<_> = Vec::new();
    for nth in 0..300 {
        let request = ["", "GET /readyz HT", "GET /tickcast.js HTTP/1.1\r\nHost: here\r\n\r\n"][nth % 3];
        held.push(unread(ATTACKER, address, request));
        if nth % 50 == 0 {
            assert_eq!(get_from(OTHER, address, "/readyz").status, 200);
            let upgraded = Client::upgrade(connect_from(OTHER, address), &upgrade_request("/v1/stream"));
            assert_eq!(upgraded.expect("room for another address").reply()["type"], "welcome");
        }
    }
    watched.server.wait_for_metric("tickcast_pending_evicted_total", |count| count > 100);
    watched.server.wait_for_metric("tickcast_pending_connections", |count| count <= 64);
    watched.assert_undisturbed();
}

#[test]
fn handshakes_of_one_address_that_wait_take_no_more_than_its_share() {
    let args = ["--feed", "none", "--cores", "0", "--addresses-exempt", "127.0.0.1", "--pending-connections-max", "64"];
    let rate = ["--handshakes-per-address-per-s", "1", "--upgrade-timeout-ms", "600000"];
    let server = Server::start(&[&args[..], &rate].concat());
    let sum = |family: &str| server.metric_values(family).iter().sum::<u64>();
    let mut storm = Vec::new();
    while sum("tickcast_refused_address_pending_total") == 0 {
        assert!(storm.len() < 60, "the address has no share");
        storm.push(unread(ATTACKER, server.address, &upgrade_request("/v1/stream")));
        // The first is served at once. The next one comes when this one waits: so none is evicted.
        let mut tries = 0;
        let waiting = storm.len() as u64 - 1;
        while sum("tickcast_handshakes_delayed_total") + sum("tickcast_refused_address_pending_total") < waiting {
            tries += 1;
            assert!(tries < 100_000, "the handshake neither waits nor is refused");
        }
    }
    let refused = read_response(storm.last_mut().expect("one was refused"));
    refused.assert_refusal(429, "limit", &["pending_per_address_max is 16"]);
    let other = Client::upgrade(connect_from(OTHER, server.address), &upgrade_request("/v1/stream"));
    assert_eq!(other.expect("another address is served").reply()["type"], "welcome");
}

#[test]
fn snapshots_that_are_not_read_hold_a_piece_each_and_are_evicted() {
    let args =
        ["--pending-connections-max", "400", "--addresses-exempt", "127.0.0.1", "--answer-timeout-ms", "3000000"];
    let more = ["--write-timeout-ms", "600000", "--send-buffer-bytes", "8192", "--answer-bytes-max", "8388608"];
    let (server, _publisher) = with_instruments(&[&args[..], &more].concat());
    let whole = server.get("/v1/snapshot?symbols=B*");
    assert!(whole.body.len() > 300_000, "{}", whole.body.len());
    assert_eq!(whole.json()["snapshots"].as_array().expect("a list").len(), 480);
    let before = server.resident_bytes();
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(unread(ATTACKER, server.address, &get_request("/v1/snapshot?symbols=B*")));
    }
    // The pieces of some thirty are a quarter of what all may hold: the rest is refused or evicted.
    server.wait_for_metric("tickcast_refused_address_answers_total", |count| count > 20);
    server.wait_for_metric("tickcast_pending_evicted_total", |count| count > 0);
    server.wait_for_metric("tickcast_answer_bytes", |bytes| bytes > 1 << 20 && bytes <= 2 << 20);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes for 200 responses of {}", whole.body.len());
    assert_eq!(get_from(OTHER, server.address, "/v1/snapshot?symbols=B*").body, whole.body, "another address");
    drop(held);
    server.wait_for_metric("tickcast_answer_bytes", |bytes| bytes == 0);
}

#[test]
fn addresses_that_hold_all_memory_of_responses_are_evicted_for_others() {
    let args = ["--addresses-exempt", "127.0.0.1", "--answer-timeout-ms", "3000000", "--write-timeout-ms", "600000"];
    let more = ["--send-buffer-bytes", "8192", "--answer-bytes-max", "1048576"];
    let (server, _publisher) = with_instruments(&[&args[..], &more].concat());
    let path = "/v1/snapshot?symbols=B*";
    let mut held = Vec::new();
    for nth in 0..60 {
        held.push(unread(&format!("127.0.1.{}", nth % 6), server.address, &get_request(path)));
    }
    server.wait_for_metric("tickcast_refused_answers_total", |count| count > 0);
    let mut tries = 0;
    while get_from(OTHER, server.address, path).status != 200 {
        tries += 1;
        assert!(tries < 1000, "an address that reads is never served");
    }
    server.wait_for_metric("tickcast_answer_bytes", |bytes| bytes <= 1 << 20);
}

#[test]
fn a_large_response_is_sent_in_chunks_and_keeps_its_tag() {
    let (server, mut publisher) = with_instruments(&[]);
    let path = "/v1/snapshot?symbols=B*";
    let whole = server.get(path);
    assert_eq!((whole.header("transfer-encoding"), whole.header("content-length")), (Some("chunked"), None));
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    let conditional = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nIf-None-Match: {tag}\r\n\r\n");
        send_request(server.address, request.as_bytes())
    };
    assert_eq!(conditional(path).status, 304);
    let head = send_request(server.address, format!("HEAD {path} HTTP/1.0\r\n\r\n").as_bytes());
    assert_eq!((head.status, head.header("transfer-encoding"), head.body.len()), (200, None, 0));
    let of_1_0 = send_request(server.address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
    assert_eq!((of_1_0.header("transfer-encoding"), &of_1_0.body), (None, &whole.body));
    let small = server.get("/v1/snapshot?symbols=B000*");
    assert_eq!(small.header("content-length"), Some(small.body.len().to_string().as_str()));
    // A large book is written on another core.
    let id = publisher.define(&["DEEP"])[0];
    let levels: Vec<_> = (1..=4000).map(|px| (px, 7, b'B')).collect();
    publisher.publish(&[book(id, b'S', &levels)]);
    let mut tries = 0;
    while server.get("/v1/snapshot/DEEP").json()["book"]["bids"].as_array().is_none_or(|bids| bids.len() != 4000) {
        tries += 1;
        assert!(tries < 100_000, "the book is not there");
    }
    assert_eq!(conditional(path).status, 304, "another instrument");
    publisher.publish(&[quote(1, 101)]);
    while conditional(path).status == 304 {
        tries += 1;
        assert!(tries < 100_000, "the tag does not change");
    }
}

#[test]
fn a_response_that_is_not_read_in_time_is_closed() {
    let args = ["--answer-timeout-ms", "200", "--write-timeout-ms", "100000", "--send-buffer-bytes", "8192"];
    let (server, _publisher) = with_instruments(&args);
    let held = unread(ATTACKER, server.address, &get_request("/v1/snapshot?symbols=B*"));
    server.wait_for_metric("tickcast_write_timeouts_total", |count| count == 1);
    server.wait_for_metric("tickcast_answer_bytes", |bytes| bytes == 0);
    drop(held);
}

#[test]
fn requests_over_the_rate_of_their_address_get_a_429() {
    let args = ["--feed", "none", "--get-units-per-address-per-s", "10", "--publish-token", "test-publish-token"];
    let server = Server::start(&args);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    publisher.define(&["A", "B"]);
    let served = |source: &str, path: &str| {
        let mut served = 0;
        loop {
            let response = get_from(source, server.address, path);
            if response.status == 429 {
                response.assert_refusal(429, "limit", &["get_units_per_address_per_s"]);
                assert!(response.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
                return served;
            }
            served += 1;
            assert!(served < 1000, "{path} has no rate");
        }
    };
    // Forty units at once: each connection is a new one.
    let page = served(ATTACKER, "/");
    assert!((8..20).contains(&page), "{page}");
    let health = served(OTHER, "/healthz");
    assert!((40..100).contains(&health), "{health}");
    let snapshots = served("127.0.0.4", "/v1/snapshot?symbols=*");
    assert!((8..20).contains(&snapshots), "{snapshots}");
    // Upgrades have a rate of their own.
    let upgraded = Client::upgrade(connect_from(ATTACKER, server.address), &upgrade_request("/v1/stream"));
    assert_eq!(upgraded.expect("a handshake").reply()["type"], "welcome");
    let shown = server.get("/metrics").text();
    assert!(shown.contains("tickcast_refused_gets_total"), "{shown}");
}

#[test]
fn limits_that_contradict_each_other_are_named_at_the_start() {
    let server = Server::start(&["--feed", "none", "--connections-max", "100", "--connections-per-address-max", "200"]);
    server.program.wait_for_stderr("connections_per_address_max: 200 is not below connections_max, which is 100");
    let mut stream = connect(server.address);
    stream.write_all(get_request("/readyz").as_bytes()).expect("the server reads");
    assert_eq!(read_response(&mut stream).status, 200);
}
