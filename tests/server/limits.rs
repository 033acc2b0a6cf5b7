//! Limits of the door: what is over one is shed with a status, a reason and a counter, and who keeps to them notices
//! nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use tickcast_test_support::client::{Client, Received, masked_frame};
use tickcast_test_support::http::{Response, connect, connect_from, read_response, send_request, upgrade_request};
use tickcast_test_support::server::{Server, WatchedServer};
use tungstenite::Message;

const UPGRADE: &str = "/v1/stream";

/// What an upgrade on this connection comes to: the connection, or the refusal.
fn upgraded(stream: TcpStream) -> Result<Client, Response> {
    Client::upgrade(stream, &upgrade_request(UPGRADE))
}

fn is_to_come_back(answer: &Response, status: u16, code: &str, said: &[&str]) {
    answer.assert_refusal(status, code, said);
    let seconds: u64 = answer.header("retry-after").expect("when to come back").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn over_connections_max_an_upgrade_is_a_503_until_somebody_leaves() {
    let server = Server::start(&["--feed", "none", "--connections-max", "2"]);
    let (first, mut second) = (server.client(), server.client());
    let Err(refused) = Client::try_connect(server.address, UPGRADE, &[]) else { panic!("a third is refused") };
    is_to_come_back(&refused, 503, "unavailable", &["connections_max"]);
    server.wait_for_metric("tickcast_refused_full_total", |count| count == 1);
    second.ping();
    drop(first);
    server.wait_for_metric("tickcast_clients", |count| count == 1);
    server.client().ping();
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn over_its_connections_an_address_gets_a_429_and_another_comes_in() {
    let args = ["--feed", "none", "--connections-per-address-max", "2", "--addresses-exempt", "127.0.0.1"];
    let server = Server::start(&args);
    let enter = |source| upgraded(connect_from(source, server.address));
    let (Ok(first), Ok(mut second)) = (enter("127.0.0.2"), enter("127.0.0.2")) else { panic!("two are let in") };
    let Err(refused) = enter("127.0.0.2") else { panic!("a third is refused") };
    is_to_come_back(&refused, 429, "limit", &["connections_per_address_max is 2"]);
    assert!(enter("127.0.0.3").is_ok(), "another address");
    assert!((0..3).all(|_| enter("127.0.0.1").is_ok()), "an exempt address");
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 1);
    assert_eq!(second.reply()["type"], "welcome");
    second.ping();
    // Who leaves makes room: a seat's leaving is told to the door.
    drop(first);
    let mut tries = 0;
    while enter("127.0.0.2").is_err() {
        tries += 1;
        assert!(tries < 10_000, "the address's connection was not forgotten");
    }
}

#[test]
fn publishers_and_requests_count_for_their_address_as_well() {
    let args = ["--feed", "none", "--connections-per-address-max", "1", "--addresses-exempt", "none"];
    let server = Server::start(&[&args[..], &["--publish-token", "t"]].concat());
    let publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    send_request(server.address, b"").assert_refusal(429, "limit", &["connections_per_address_max is 1"]);
    drop(publisher);
    let mut tries = 0;
    while server.get("/healthz").status != 200 {
        tries += 1;
        assert!(tries < 10_000, "the publisher was not forgotten");
    }
}

#[test]
fn handshakes_over_the_rate_are_a_503_or_for_one_address_a_429() {
    for (args, status, code, said, counter) in [
        (["--handshakes-per-s", "1"], 503, "unavailable", "handshakes_per_s", "tickcast_refused_rate_total"),
        (
            ["--handshakes-per-address-per-s", "1"],
            429,
            "limit",
            "handshakes_per_address_per_s",
            "tickcast_refused_address_rate_total",
        ),
    ] {
        let more = ["--feed", "none", "--addresses-exempt", "none", "--upgrade-timeout-ms", "200", "--cores", "0"];
        let server = Server::start(&[&args[..], &more].concat());
        let mut clients = Vec::new();
        let refused = loop {
            match Client::try_connect(server.address, UPGRADE, &[]) {
                Ok(client) => clients.push(client),
                Err(refused) => break refused,
            }
            assert!(clients.len() < 1000, "none of them is refused");
        };
        is_to_come_back(&refused, status, code, &[said]);
        server.wait_for_metric(counter, |count| count == 1);
        assert_eq!(clients[0].reply()["type"], "welcome");
        clients[0].ping();
        assert_eq!(server.get("/healthz").status, 200, "requests are no handshakes");
    }
}

#[test]
fn handshakes_that_wait_leave_room_for_who_asks_how_the_server_is() {
    let args = ["--feed", "none", "--cores", "0", "--addresses-exempt", "127.0.0.1", "--pending-connections-max", "64"];
    let rate = ["--handshakes-per-address-per-s", "1", "--upgrade-timeout-ms", "600000"];
    let server = Server::start(&[&args[..], &rate].concat());
    // All come back at once, and have time to wait for five minutes.
    let _storm: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = connect_from("127.0.0.2", server.address);
            // Who is refused before it has written may have gone by then.
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
fn a_handshake_that_comes_early_waits_for_its_turn_and_is_served() {
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
        stream.read_exact(&mut status).expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 101");
    }
    server.wait_for_metric("tickcast_handshakes_delayed_total", |count| count > 0);
}

#[test]
fn half_open_connections_do_not_keep_good_clients_out() {
    let mut scene = WatchedServer::start(&["--pending-connections-max", "16", "--cores", "0"]);
    let half_open = |begun: &str| {
        let mut stream = connect(scene.server.address);
        stream.write_all(begun.as_bytes()).expect("the server reads");
        stream
    };
    let mut silent: Vec<_> =
        ["", "G", "GET /v1/stream HTTP/1.1\r\nHost: he"].into_iter().cycle().take(64).map(half_open).collect();
    for _ in 0..20 {
        scene.server.client().ping();
    }
    assert_eq!(scene.server.get("/readyz").status, 200);
    is_to_come_back(
        &read_response(&mut silent[0]),
        503,
        "unavailable",
        &["pending_connections_max", "newer connection"],
    );
    scene.server.wait_for_metric("tickcast_pending_evicted_total", |count| count >= 48);
    scene.server.wait_for_metric("tickcast_pending_connections", |count| count <= 16);
    scene.assert_undisturbed();
}

#[test]
fn a_door_full_of_echoes_is_a_503_and_subscribers_stay() {
    let args = ["--pending-connections-max", "16", "--echoes-max", "100", "--enable-echo", "--cores", "0"];
    let mut scene = WatchedServer::start(&args);
    let echoes: Vec<_> = (0..16).map(|_| Client::connect(scene.server.address, "/v1/echo", &[])).collect();
    let mut stream = connect(scene.server.address);
    is_to_come_back(&read_response(&mut stream), 503, "unavailable", &["too many connections are pending"]);
    scene.assert_undisturbed();
    drop(echoes);
    scene.server.wait_for_metric("tickcast_refused_pending_total", |count| count >= 1);
}

#[test]
fn over_echoes_max_an_echo_is_a_503() {
    let server = Server::start(&["--feed", "none", "--enable-echo", "--echoes-max", "1", "--cores", "0"]);
    let mut echo = Client::connect(server.address, "/v1/echo", &[]);
    let Err(refused) = Client::try_connect(server.address, "/v1/echo", &[]) else { panic!("a second is refused") };
    is_to_come_back(&refused, 503, "unavailable", &["echoes_max"]);
    server.wait_for_metric("tickcast_refused_echoes_total", |count| count == 1);
    echo.send_text("still here");
    assert!(matches!(echo.receive(), Received::Text(text) if text == "still here"));
}

#[test]
fn an_echo_that_says_nothing_is_closed_with_1008() {
    let server = Server::start(&["--feed", "none", "--enable-echo", "--idle-timeout-ms", "200"]);
    let echo = Client::connect(server.address, "/v1/echo", &[]);
    echo.expect_close(1008, &["nothing was received"]);
    server.wait_for_metric("tickcast_echoes_idle_total", |count| count == 1);
}

#[test]
fn an_echo_that_does_not_read_is_dropped() {
    let args = ["--enable-echo", "--write-timeout-ms", "100", "--send-buffer-bytes", "4096"];
    let mut scene = WatchedServer::start(&args);
    let mut deaf = Client::connect(scene.server.address, "/v1/echo", &[]);
    socket2::SockRef::from(deaf.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    deaf.send_bytes(&masked_frame(0x82, &vec![7; 8 << 20]));
    scene.server.wait_for_metric("tickcast_write_timeouts_total", |count| count == 1);
    scene.server.wait_for_metric("tickcast_pending_connections", |count| count <= 1);
    scene.assert_undisturbed();
    deaf.send(Message::binary(vec![]));
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
    value.unwrap_or_else(|| panic!("{name} is not told")).parse().expect("a whole number")
}

#[test]
fn a_ping_that_is_not_answered_is_a_1008_and_who_answers_stays() {
    let args =
        ["--feed", "none", "--ping-interval-ms", "100", "--ping-timeout-ms", "4000", "--idle-timeout-ms", "80000000"];
    let server = Server::start(&args);
    let mut answering = server.client();
    let deaf = server.client();
    // As long as nobody reads for it, the other one answers nothing.
    while server.metric_values("tickcast_ping_timeouts_total") == [0] {
        while !matches!(answering.receive(), Received::Ping) {}
    }
    answering.ping();
    deaf.expect_close(1008, &["a ping was not answered within 4000 ms"]);
    answering.ping();
}

#[test]
fn who_subscribes_to_nothing_is_closed_with_1008_and_who_did_stays() {
    let server = Server::start(&["--feed", "none", "--subscribe-timeout-ms", "3000"]);
    let mut subscribed = server.subscriber(&["quote"], &["*"]);
    server.client().expect_close(1008, &["nothing was subscribed within 3000 ms"]);
    server.wait_for_metric("tickcast_subscribe_timeouts_total", |count| count == 1);
    subscribed.ping();
}

#[test]
fn a_name_over_its_limit_is_refused_to_subscribers_and_publishers() {
    let server = Server::start(&["--feed", "none", "--symbol-bytes-max", "8", "--publish-token", "t"]);
    let mut client = server.client();
    let subscribe = |symbol| format!(r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":["{symbol}"]}}"#);
    client.send_and_expect_error(&subscribe("NINE-BYT*"), Some(1), "limit", &["9 bytes", "at most 8"]);
    client.send_text(&subscribe("EIGHT-B*"));
    assert_eq!(client.reply()["type"], "subscribed");
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    publisher.send_and_expect_error(&define(&["NINE-BYTE"]), Some(1), "bad_request", &["9 bytes", "1 to 8"]);
}

fn define(symbols: &[&str]) -> String {
    let instruments: Vec<_> =
        symbols.iter().map(|symbol| serde_json::json!({"symbol": symbol, "px_exp": -2, "sz_exp": 0})).collect();
    serde_json::json!({"op": "define", "id": 1, "instruments": instruments}).to_string()
}

fn publish(publisher: &mut Client, records: &[Vec<u8>]) {
    let head = [&[1, 0][..], &(records.len() as u16).to_le_bytes(), &[0; 20]].concat();
    publisher.send(Message::binary([head, records.concat()].concat()));
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let units = (32 + body.len()) / 8;
    [&(units as u16).to_le_bytes()[..], &[kind, 0x80], &1u32.to_le_bytes(), &[0; 24], body].concat()
}

#[test]
fn over_publishers_max_a_publisher_is_a_503_until_one_leaves() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t", "--publishers-max", "1"]);
    let open = || Client::try_connect(server.address, "/v1/publish?token=t", &[]);
    let Ok(first) = open() else { panic!("one is let in") };
    is_to_come_back(&open().err().expect("a second is refused"), 503, "unavailable", &["publishers_max"]);
    assert_eq!(number(&server, "tickcast_publishers_refused_total"), 1);
    drop(first);
    let mut tries = 0;
    while open().is_err() {
        tries += 1;
        assert!(tries < 10_000, "the publisher was not forgotten");
    }
}

#[test]
fn over_its_instruments_a_publisher_gets_an_error_and_stays() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t", "--publisher-instruments-max", "2"]);
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    publisher.send_text(&define(&["A", "B"]));
    assert_eq!(publisher.reply()["type"], "defined");
    publisher.send_and_expect_error(
        &define(&["A", "C"]),
        Some(1),
        "limit",
        &["instruments: 3 in this connection", "publisher_instruments_max"],
    );
    publisher.send_text(&define(&["A", "B", "A"]));
    assert_eq!(publisher.reply()["type"], "defined", "what it has it may name again");
    assert_eq!(number(&server, "tickcast_publisher_definitions_refused_total"), 1);
}

#[test]
fn a_publisher_over_its_rate_is_slowed_and_loses_nothing() {
    let mut scene = WatchedServer::start(&["--publish-token", "t", "--publish-records-per-s", "5000"]);
    let mut publisher = Client::connect(scene.server.address, "/v1/publish?token=t", &[]);
    publisher.send_text(&define(&["PACED"]));
    assert_eq!(publisher.reply()["type"], "defined");
    let mut subscriber = scene.server.subscriber(&["trade"], &["PACED"]);
    let trade = record(2, &[[1; 24].as_slice(), b"S\0\0\0\0\0\0\0"].concat());
    for _ in 0..40 {
        publish(&mut publisher, &vec![trade.clone(); 50]);
    }
    assert_eq!(subscriber.records(2000).last().expect("2000").header.sequence.get(), 2000);
    assert!(number(&scene.server, "tickcast_publishers_slowed_ms_total") > 0);
    scene.assert_undisturbed();
}

#[test]
fn a_book_over_its_levels_closes_its_publisher_with_1008_and_stays_as_it_was() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t", "--book-levels-max", "4"]);
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    publisher.send_text(&define(&["DEEP"]));
    assert_eq!(publisher.reply()["type"], "defined");
    let mut subscriber = server.subscriber(&["book"], &["DEEP"]);
    let book = |kind: u8, levels: &[(i64, i64)]| {
        let level = |(px, sz): &(i64, i64)| [&px.to_le_bytes()[..], &sz.to_le_bytes(), b"B\0\0\0\0\0\0\0"].concat();
        let head = [&(levels.len() as u16).to_le_bytes()[..], &[kind, 0, 0, 0, 0, 0]].concat();
        record(4, &[head, levels.iter().flat_map(level).collect()].concat())
    };
    publish(&mut publisher, &[book(b'S', &[(1, 1), (2, 1), (3, 1)]), book(b'D', &[(4, 1), (1, 5)])]);
    // As many as there may be: one level goes, another comes.
    publish(&mut publisher, &[book(b'D', &[(4, 0)]), book(b'D', &[(5, 1)])]);
    publish(&mut publisher, &[book(b'D', &[(6, 1)])]);
    publisher.expect_close(1008, &["book of DEEP", "more than 4 levels", "book_levels_max"]);
    assert_eq!(subscriber.records(4).last().expect("4").header.sequence.get(), 4);
    assert_eq!(number(&server, "tickcast_sequencer_books_refused_total"), 1);
    let mut again = Client::connect(server.address, "/v1/publish?token=t", &[]);
    again.send_text(&define(&["DEEP"]));
    assert_eq!(again.reply()["type"], "defined");
    publish(&mut again, &[book(b'D', &[(5, 9)]), book(b'S', &[(7, 1)]), book(b'D', &[(8, 1)])]);
    // The book says that it may be wrong, with a change of nothing and with each change, until it is sent whole.
    let mut came = vec![subscriber.record()];
    while came.last().expect("one").bytes[34] != b'S' {
        came.push(subscriber.record());
    }
    came.push(subscriber.record());
    let marks: Vec<_> = came.iter().map(|record| record.header.flags & 0x04 != 0).collect();
    let (wrong, whole) = marks.split_at(marks.len() - 2);
    assert!(!wrong.is_empty() && wrong.iter().all(|mark| *mark) && whole == [false, false], "{marks:?}");
}
