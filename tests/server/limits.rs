//! Limits of the HTTP server, the subscribers and the publishers. Each limit has a response or close code, and a counter.
//! Clients within the limits are not disturbed.

use std::io::{Read, Write};
use std::net::TcpStream;

use tickcast_test_support::client::{Client, Received, masked_frame};
use tickcast_test_support::http::{Response, connect, connect_from, read_response, send_request, upgrade_request};
use tickcast_test_support::publisher::{Publisher, book, trade};
use tickcast_test_support::server::{Server, WatchedServer};
use tungstenite::Message;

const UPGRADE: &str = "/v1/stream";

/// Upgrades on this connection.
fn upgrade(stream: TcpStream) -> Result<Client, Response> {
    Client::upgrade(stream, &upgrade_request(UPGRADE))
}

/// Asserts that this is a refusal with a time to retry.
fn assert_retry(response: &Response, status: u16, code: &str, parts: &[&str]) {
    response.assert_refusal(status, code, parts);
    let seconds: u64 = response.header("retry-after").expect("a time to retry").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn over_connections_max_an_upgrade_gets_a_503() {
    let server = Server::start(&["--feed", "none", "--connections-max", "2"]);
    let (first, mut second) = (server.client(), server.client());
    let Err(refused) = Client::try_connect(server.address, UPGRADE, &[]) else { panic!("a third is accepted") };
    assert_retry(&refused, 503, "unavailable", &["connections_max"]);
    server.wait_for_metric("tickcast_refused_full_total", |count| count == 1);
    second.ping();
    drop(first);
    server.wait_for_metric("tickcast_clients", |count| count == 1);
    server.client().ping();
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn over_connections_per_address_max_an_address_gets_a_429() {
    let args = ["--feed", "none", "--connections-per-address-max", "2", "--addresses-exempt", "127.0.0.1"];
    let server = Server::start(&args);
    let connect = |source| upgrade(connect_from(source, server.address));
    let (Ok(first), Ok(mut second)) = (connect("127.0.0.2"), connect("127.0.0.2")) else { panic!("two are accepted") };
    let Err(refused) = connect("127.0.0.2") else { panic!("a third is accepted") };
    assert_retry(&refused, 429, "limit", &["connections_per_address_max is 2"]);
    assert!(connect("127.0.0.3").is_ok(), "another address");
    assert!((0..3).all(|_| connect("127.0.0.1").is_ok()), "an exempt address");
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 1);
    assert_eq!(second.reply()["type"], "welcome");
    second.ping();
    // A closed connection no longer counts.
    drop(first);
    let mut tries = 0;
    while connect("127.0.0.2").is_err() {
        tries += 1;
        assert!(tries < 10_000, "the closed connection still counts");
    }
}

#[test]
fn publishers_and_requests_count_for_their_address() {
    let args = ["--feed", "none", "--connections-per-address-max", "1", "--addresses-exempt", "none"];
    let server = Server::start(&[&args[..], &["--publish-token", "test-publish-token"]].concat());
    let publisher = Publisher::connect(&server, "test-publish-token");
    send_request(server.address, b"").assert_refusal(429, "limit", &["connections_per_address_max is 1"]);
    drop(publisher);
    let mut tries = 0;
    while server.get("/healthz").status != 200 {
        tries += 1;
        assert!(tries < 10_000, "the closed publisher still counts");
    }
}

#[test]
fn handshakes_over_a_rate_get_a_503_or_a_429() {
    for (args, status, code, parts, counter) in [
        (
            &["--handshakes-per-s", "1", "--handshakes-per-address-per-s", "0"][..],
            503,
            "unavailable",
            "handshakes_per_s",
            "tickcast_refused_rate_total",
        ),
        (
            &["--handshakes-per-address-per-s", "1"],
            429,
            "limit",
            "handshakes_per_address_per_s",
            "tickcast_refused_address_rate_total",
        ),
    ] {
        let more = ["--feed", "none", "--addresses-exempt", "none", "--upgrade-timeout-ms", "200", "--cores", "0"];
        let server = Server::start(&[args, &more].concat());
        let mut clients = Vec::new();
        let refused = loop {
            match Client::try_connect(server.address, UPGRADE, &[]) {
                Ok(client) => clients.push(client),
                Err(refused) => break refused,
            }
            assert!(clients.len() < 1000, "no handshake is refused");
        };
        assert_retry(&refused, status, code, &[parts]);
        server.wait_for_metric(counter, |count| count == 1);
        assert_eq!(clients[0].reply()["type"], "welcome");
        clients[0].ping();
        assert_eq!(server.get("/healthz").status, 200, "requests are no handshakes");
    }
}

#[test]
fn delayed_handshakes_leave_room_for_health_checks() {
    let args = ["--feed", "none", "--cores", "0", "--addresses-exempt", "127.0.0.1", "--pending-connections-max", "64"];
    let rate = ["--handshakes-per-address-per-s", "1", "--upgrade-timeout-ms", "600000"];
    let server = Server::start(&[&args[..], &rate, &["--pending-per-address-max", "0"]].concat());
    // All reconnect at once, and may wait for ten minutes.
    let _storm: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = connect_from("127.0.0.2", server.address);
            // A server that has refused the connection may have closed it by now.
            let _ = stream.write_all(upgrade_request(UPGRADE).as_bytes());
            stream
        })
        .collect();
    server.wait_for_metric("tickcast_handshakes_delayed_total", |count| count >= 50);
    server.wait_for_metric("tickcast_refused_address_rate_total", |count| count >= 1);
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 200));
    assert_eq!(
        server.metric_values("tickcast_refused_pending_total").iter().sum::<u64>(),
        0,
        "the too many connections were never pending"
    );
}

#[test]
fn a_handshake_over_the_rate_is_delayed_and_then_served() {
    let server = Server::start(&["--feed", "none", "--handshakes-per-s", "20", "--cores", "0"]);
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(upgrade_request(UPGRADE).as_bytes()).expect("the server reads");
            stream
        })
        .collect();
    for stream in &mut clients {
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a response");
        assert_eq!(&status, b"HTTP/1.1 101");
    }
    server.wait_for_metric("tickcast_handshakes_delayed_total", |count| count > 0);
}

#[test]
fn half_open_connections_are_evicted_for_new_ones() {
    let mut watched = WatchedServer::start(&["--pending-connections-max", "16", "--cores", "0"]);
    let half_open = |part: &str| {
        let mut stream = connect(watched.server.address);
        stream.write_all(part.as_bytes()).expect("the server reads");
        stream
    };
    let mut silent: Vec<_> =
        ["", "G", "GET /v1/stream HTTP/1.1\r\nHost: he"].into_iter().cycle().take(64).map(half_open).collect();
    for _ in 0..20 {
        watched.server.client().ping();
    }
    assert_eq!(watched.server.get("/readyz").status, 200);
    assert_retry(&read_response(&mut silent[0]), 503, "unavailable", &["pending_connections_max", "newer connection"]);
    watched.server.wait_for_metric("tickcast_pending_evicted_total", |count| count >= 48);
    watched.server.wait_for_metric("tickcast_pending_connections", |count| count <= 16);
    watched.assert_undisturbed();
}

#[test]
fn pending_connections_that_are_all_echoes_get_a_503() {
    let args = ["--pending-connections-max", "16", "--echoes-max", "100", "--enable-echo", "--cores", "0"];
    let mut watched = WatchedServer::start(&args);
    let echoes: Vec<_> = (0..16).map(|_| Client::connect(watched.server.address, "/v1/echo", &[])).collect();
    let mut stream = connect(watched.server.address);
    assert_retry(&read_response(&mut stream), 503, "unavailable", &["too many connections are pending"]);
    watched.assert_undisturbed();
    drop(echoes);
    watched.server.wait_for_metric("tickcast_refused_pending_total", |count| count >= 1);
}

#[test]
fn over_echoes_max_an_echo_gets_a_503() {
    let server = Server::start(&["--feed", "none", "--enable-echo", "--echoes-max", "1", "--cores", "0"]);
    let mut echo = Client::connect(server.address, "/v1/echo", &[]);
    let Err(refused) = Client::try_connect(server.address, "/v1/echo", &[]) else { panic!("a second is accepted") };
    assert_retry(&refused, 503, "unavailable", &["echoes_max"]);
    server.wait_for_metric("tickcast_refused_echoes_total", |count| count == 1);
    echo.send_text("still here");
    assert!(matches!(echo.receive(), Received::Text(text) if text == "still here"));
}

#[test]
fn a_silent_echo_closes_with_1008() {
    let server = Server::start(&["--feed", "none", "--enable-echo", "--idle-timeout-ms", "200"]);
    let echo = Client::connect(server.address, "/v1/echo", &[]);
    echo.expect_close(1008, &["nothing was received"]);
    server.wait_for_metric("tickcast_echoes_idle_total", |count| count == 1);
}

#[test]
fn an_echo_that_does_not_read_is_closed() {
    let args = ["--enable-echo", "--write-timeout-ms", "100", "--send-buffer-bytes", "4096"];
    let mut watched = WatchedServer::start(&args);
    let mut silent = Client::connect(watched.server.address, "/v1/echo", &[]);
    socket2::SockRef::from(silent.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    silent.send_bytes(&masked_frame(0x82, &vec![7; 8 << 20]));
    watched.server.wait_for_metric("tickcast_write_timeouts_total", |count| count == 1);
    watched.server.wait_for_metric("tickcast_pending_connections", |count| count <= 1);
    watched.assert_undisturbed();
    silent.send(Message::binary(vec![]));
}

#[test]
fn late_and_large_heads_are_counted() {
    let server = Server::start(&["--feed", "none", "--upgrade-timeout-ms", "100", "--head-bytes-max", "512"]);
    send_request(server.address, b"GET").assert_refusal(408, "timeout", &["100 ms"]);
    send_request(server.address, &b"GET / HTTP/1.1\r\nA: ".repeat(100)).assert_refusal(431, "head_too_large", &["512"]);
    server.wait_for_metric("tickcast_head_timeouts_total", |count| count == 1);
    server.wait_for_metric("tickcast_heads_too_large_total", |count| count == 1);
}

/// A number of `/metrics` that is not one of a shard.
fn number(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in the metrics")).parse().expect("a whole number")
}

#[test]
fn an_unanswered_ping_closes_with_1008() {
    let args =
        ["--feed", "none", "--ping-interval-ms", "100", "--ping-timeout-ms", "4000", "--idle-timeout-ms", "80000000"];
    let server = Server::start(&args);
    let mut reading = server.client();
    let silent = server.client();
    // A client that does not read does not response.
    while server.metric_values("tickcast_ping_timeouts_total") == [0] {
        while !matches!(reading.receive(), Received::Ping) {}
    }
    reading.ping();
    silent.expect_close(1008, &["a ping was not answered within 4000 ms"]);
    reading.ping();
}

#[test]
fn a_client_without_a_subscription_closes_with_1008() {
    let server = Server::start(&["--feed", "none", "--subscribe-timeout-ms", "3000"]);
    let mut subscribed = server.subscriber(&["quote"], &["*"]);
    server.client().expect_close(1008, &["nothing was subscribed within 3000 ms"]);
    server.wait_for_metric("tickcast_subscribe_timeouts_total", |count| count == 1);
    subscribed.ping();
}

#[test]
fn a_symbol_over_its_limit_is_refused() {
    let server = Server::start(&["--feed", "none", "--symbol-bytes-max", "8", "--publish-token", "test-publish-token"]);
    let mut client = server.client();
    let subscribe = |symbol| format!(r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":["{symbol}"]}}"#);
    client.send_and_expect_error(&subscribe("NINE-BYT*"), Some(1), "limit", &["9 bytes", "at most 8"]);
    client.send_text(&subscribe("EIGHT-B*"));
    assert_eq!(client.reply()["type"], "subscribed");
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    publisher.0.send_and_expect_error(
        &Publisher::define_request(&["NINE-BYTE"]),
        Some(9),
        "bad_request",
        &["9 bytes", "1 to 8"],
    );
}

#[test]
fn over_publishers_max_a_publisher_gets_a_503() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--publishers-max", "1"]);
    let open = || Client::try_connect(server.address, "/v1/publish?token=test-publish-token", &[]);
    let Ok(first) = open() else { panic!("one is accepted") };
    assert_retry(&open().err().expect("a second is refused"), 503, "unavailable", &["publishers_max"]);
    assert_eq!(number(&server, "tickcast_publishers_refused_total"), 1);
    drop(first);
    let mut tries = 0;
    while open().is_err() {
        tries += 1;
        assert!(tries < 10_000, "the closed publisher still counts");
    }
}

#[test]
fn over_publisher_instruments_max_a_definition_gets_an_error() {
    let server =
        Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--publisher-instruments-max", "2"]);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    publisher.define(&["A", "B"]);
    publisher.0.send_and_expect_error(
        &Publisher::define_request(&["A", "C"]),
        Some(9),
        "limit",
        &["instruments: 3 in this connection", "publisher_instruments_max"],
    );
    publisher.define(&["A", "B", "A"]);
    assert_eq!(number(&server, "tickcast_publisher_definitions_refused_total"), 1);
}

#[test]
fn a_publisher_over_its_rate_is_slowed_down() {
    let mut watched =
        WatchedServer::start(&["--publish-token", "test-publish-token", "--publish-records-per-s", "5000"]);
    let mut publisher = Publisher::connect(&watched.server, "test-publish-token");
    let id = publisher.define(&["PACED"])[0];
    let mut subscriber = watched.server.subscriber(&["trade"], &["PACED"]);
    for _ in 0..40 {
        publisher.publish(&vec![trade(id, 1); 50]);
    }
    assert_eq!(subscriber.records(2000).last().expect("2000").header.sequence.get(), 2000);
    assert!(number(&watched.server, "tickcast_publishers_slowed_ms_total") > 0);
    watched.assert_undisturbed();
}

#[test]
fn a_book_over_book_levels_max_closes_its_publisher_with_1008() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--book-levels-max", "4"]);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let id = publisher.define(&["DEEP"])[0];
    let mut subscriber = server.subscriber(&["book"], &["DEEP"]);
    let bids = |action, levels: &[(i64, i64)]| {
        let levels: Vec<_> = levels.iter().map(|(px, sz)| (*px, *sz, b'B')).collect();
        book(id, action, &levels)
    };
    publisher.publish(&[bids(b'S', &[(1, 1), (2, 1), (3, 1)]), bids(b'D', &[(4, 1), (1, 5)])]);
    // One level is removed, another added: as many as the limit.
    publisher.publish(&[bids(b'D', &[(4, 0)]), bids(b'D', &[(5, 1)])]);
    publisher.publish(&[bids(b'D', &[(6, 1)])]);
    publisher.0.expect_close(1008, &["book of DEEP", "more than 4 levels", "book_levels_max"]);
    assert_eq!(subscriber.records(4).last().expect("4").header.sequence.get(), 4);
    assert_eq!(number(&server, "tickcast_sequencer_books_refused_total"), 1);
    let mut again = Publisher::connect(&server, "test-publish-token");
    again.define(&["DEEP"]);
    again.publish(&[bids(b'D', &[(5, 9)]), bids(b'S', &[(7, 1)]), bids(b'D', &[(8, 1)])]);
    // Until the next snapshot the book is marked as possibly wrong: by an empty delta, and in each delta.
    let mut received = vec![subscriber.record()];
    while received.last().expect("one").bytes[34] != b'S' {
        received.push(subscriber.record());
    }
    received.push(subscriber.record());
    let marks: Vec<_> = received.iter().map(|record| record.header.flags & 0x04 != 0).collect();
    let (wrong, whole) = marks.split_at(marks.len() - 2);
    assert!(!wrong.is_empty() && wrong.iter().all(|mark| *mark) && whole == [false, false], "{marks:?}");
}
