//! Clients behind proxies: each counts by its own address where the proxy is trusted, and what is said by anybody else of
//! where it comes from is not listened to.

use std::io::Write;

use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, connect_from, read_response, upgrade_request};
use tickcast_test_support::server::Server;
use tickcast_test_support::sse::SseParser;

/// Who looks at the counters does not count, and 127.0.0.2 is a proxy that is trusted.
const ARGS: &[&str] =
    &["--feed", "none", "--addresses-exempt", "127.0.0.1", "--trusted-proxies", "127.0.0.2,10.0.0.0/8"];
const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

fn server(more: &[&str]) -> Server {
    Server::start(&[ARGS, more].concat())
}

/// What an upgrade from this address with these `X-Forwarded-For` lines comes to: the connection, or the refusal.
fn enter_at(path: &str, server: &Server, source: &str, forwarded: &[&str]) -> Result<Client, Response> {
    let lines: String = forwarded.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
    let request = upgrade_request(path).replacen("\r\n", &format!("\r\n{lines}"), 1);
    Client::upgrade(connect_from(source, server.address), &request)
}

fn enter(server: &Server, source: &str, forwarded: &[&str]) -> Result<Client, Response> {
    enter_at("/v1/stream", server, source, forwarded)
}

#[track_caller]
fn is_crowded(entered: Result<Client, Response>) {
    let Err(refused) = entered else { panic!("let in") };
    refused.assert_refusal(429, "limit", &["connections_per_address_max"]);
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_connections() {
    let server = server(&["--connections-per-address-max", "2", "--log", "debug"]);
    let (one, other) = (&["203.0.113.1"][..], &["203.0.113.2"][..]);
    let (Ok(first), Ok(mut second)) = (enter(&server, PROXY, one), enter(&server, PROXY, one)) else {
        panic!("two are let in")
    };
    is_crowded(enter(&server, PROXY, one));
    server.program.wait_for_stderr("203.0.113.1 via 127.0.0.2:");
    // What a client writes itself stands left of what the proxy adds.
    is_crowded(enter(&server, PROXY, &["198.51.100.7, 203.0.113.1"]));
    is_crowded(enter(&server, PROXY, &["198.51.100.7", "203.0.113.1", "10.1.2.3"]));
    is_crowded(enter(&server, PROXY, &["[::ffff:203.0.113.1]:4711"]));
    let mut others: Vec<_> = (0..2).map(|_| enter(&server, PROXY, other).expect("another client")).collect();
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 4);
    server.wait_for_metric("tickcast_forwarded_total", |count| count == 8);
    others.iter_mut().chain([&mut second]).for_each(|client| {
        assert_eq!(client.reply()["type"], "welcome");
        client.ping();
    });
    // Who leaves makes room.
    drop(first);
    let mut tries = 0;
    while enter(&server, PROXY, one).is_err() {
        tries += 1;
        assert!(tries < 10_000, "the client's connection was not forgotten");
    }
}

/// The answer to a request for events by way of the proxy.
fn ask_for_events(server: &Server, method: &str, lines: &str) -> Response {
    let mut stream = connect_from(PROXY, server.address);
    let request =
        format!("{method} /v1/sse?symbols=* HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 203.0.113.1\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    read_response(&mut stream)
}

#[test]
fn a_reader_of_events_that_is_one_too_many_is_told_when_to_come_back_and_a_stranger_is_not() {
    const ACCEPT: &str = "Accept: text/event-stream\r\n";
    let server = server(&["--connections-per-address-max", "1", "--allow-origin", "https://app.example"]);
    let first = enter(&server, PROXY, &["203.0.113.1"]);
    assert!(first.is_ok());
    // A browser's `EventSource` gives up for good at any status but 200, and at an answer that its page may not have.
    for (origin, allowed) in [("", None), ("https://app.example", Some("https://app.example")), ("http://here", None)] {
        let line = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        let told = ask_for_events(&server, "GET", &format!("{ACCEPT}{line}"));
        assert_eq!((told.status, told.header("content-type")), (200, Some("text/event-stream")), "{origin}");
        assert_eq!(told.header("access-control-allow-origin"), allowed, "{origin}");
        assert_eq!(told.header("vary"), Some("Origin"), "{origin}");
        let events = SseParser::default().push(&told.body);
        let messages: Vec<_> = events.iter().flat_map(|event| event.messages()).collect();
        let [error, closing] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"limit".into()), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("connections_per_address_max")));
        assert_eq!((&closing["type"], &closing["reason"]), (&"closing".into(), &"limit".into()), "{closing}");
        let retry = events.last().and_then(|event| event.retry);
        assert!(retry.is_some_and(|ms| (5000..7000).contains(&ms)), "{events:?}");
    }
    // Whoever does not ask for events by that name reads a status, and so does a page why it has none.
    let line = "Origin: https://app.example\r\n";
    let plain = ask_for_events(&server, "GET", line);
    plain.assert_refusal(429, "limit", &["connections_per_address_max"]);
    assert_eq!(plain.header("access-control-allow-origin"), Some("https://app.example"));
    let head = ask_for_events(&server, "HEAD", ACCEPT);
    assert!(head.status == 429 && head.body.is_empty(), "{head:?}");
    let stranger = ask_for_events(&server, "GET", &format!("{ACCEPT}Origin: https://stranger.example\r\n"));
    stranger.assert_refusal(403, "forbidden_origin", &["stranger.example"]);
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 6);
}

#[test]
fn what_a_stranger_says_of_where_it_comes_from_is_not_listened_to() {
    let listening = server(&["--connections-per-address-max", "1"]);
    let none =
        Server::start(&["--feed", "none", "--addresses-exempt", "127.0.0.1", "--connections-per-address-max", "1"]);
    for (server, source) in [(&listening, STRANGER), (&none, PROXY)] {
        let first = enter(server, source, &["203.0.113.1"]);
        assert!(first.is_ok());
        is_crowded(enter(server, source, &["203.0.113.2"]));
        server.wait_for_metric("tickcast_refused_address_total", |count| count == 1);
        assert_eq!(server.metric_values("tickcast_forwarded_total").iter().sum::<u64>(), 0);
    }
}

#[test]
fn what_a_proxy_does_not_say_counts_for_the_proxy() {
    let server = server(&["--connections-per-address-max", "1"]);
    let first = enter(&server, PROXY, &[]);
    assert!(first.is_ok());
    let unread = [&[][..], &["unknown"], &["203.0.113.1, _hidden"], &[""]];
    for lines in unread {
        is_crowded(enter(&server, PROXY, lines));
    }
    // The proxy behind the proxy is somebody else.
    assert!(enter(&server, PROXY, &["garbage, 10.1.2.3"]).is_ok());
    assert!(enter(&server, PROXY, &["203.0.113.1"]).is_ok());
    server.wait_for_metric("tickcast_forwarded_unread_total", |count| count == 6);
}

#[test]
fn the_rate_of_handshakes_and_publishers_count_by_the_client_as_well() {
    let rate = server(&["--handshakes-per-address-per-s", "1", "--upgrade-timeout-ms", "200", "--cores", "0"]);
    let mut clients = Vec::new();
    let refused = loop {
        match enter(&rate, PROXY, &["203.0.113.1"]) {
            Ok(client) => clients.push(client),
            Err(refused) => break refused,
        }
        assert!(clients.len() < 1000, "none of them is refused");
    };
    refused.assert_refusal(429, "limit", &["handshakes_per_address_per_s"]);
    assert!(enter(&rate, PROXY, &["203.0.113.2"]).is_ok(), "another client has its own rate");

    let few = server(&["--connections-per-address-max", "1", "--publish-token", "t"]);
    let publisher = enter_at("/v1/publish?token=t", &few, PROXY, &["203.0.113.1"]);
    assert!(publisher.is_ok());
    is_crowded(enter(&few, PROXY, &["203.0.113.1"]));
    assert!(enter(&few, PROXY, &["203.0.113.2"]).is_ok());
    drop(publisher);
    let mut tries = 0;
    while enter(&few, PROXY, &["203.0.113.1"]).is_err() {
        tries += 1;
        assert!(tries < 10_000, "the publisher was not forgotten");
    }
}

#[test]
fn a_proxy_may_open_connections_ahead_of_its_requests() {
    let server = server(&["--connections-per-address-max", "1"]);
    let ahead: Vec<_> = (0..10).map(|_| connect_from(PROXY, server.address)).collect();
    for (nth, mut stream) in ahead.into_iter().enumerate() {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 203.0.113.{nth}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        assert_eq!(tickcast_test_support::http::read_response(&mut stream).status, 200);
    }
}
