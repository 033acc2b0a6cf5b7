//! Clients behind proxies. A trusted proxy reports the address of its client, for which the connection counts. A report by
//! any other peer is ignored.

use std::io::Write;

use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, connect_from, read_response, upgrade_request};
use tickcast_test_support::server::Server;
use tickcast_test_support::sse::SseParser;

/// 127.0.0.1, which reads the metrics, is exempt; 127.0.0.2 is a trusted proxy.
const ARGS: &[&str] =
    &["--feed", "none", "--addresses-exempt", "127.0.0.1", "--trusted-proxies", "127.0.0.2,10.0.0.0/8"];
const PROXY: &str = "127.0.0.2";
const UNTRUSTED: &str = "127.0.0.3";

fn server(more: &[&str]) -> Server {
    Server::start(&[ARGS, more].concat())
}

/// Upgrades from this address with these `X-Forwarded-For` lines.
fn connect_at(path: &str, server: &Server, source: &str, forwarded: &[&str]) -> Result<Client, Response> {
    let lines: String = forwarded.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
    let request = upgrade_request(path).replacen("\r\n", &format!("\r\n{lines}"), 1);
    Client::upgrade(connect_from(source, server.address), &request)
}

fn connect(server: &Server, source: &str, forwarded: &[&str]) -> Result<Client, Response> {
    connect_at("/v1/stream", server, source, forwarded)
}

#[track_caller]
fn assert_over_limit(connected: Result<Client, Response>) {
    let Err(refused) = connected else { panic!("the connection is accepted") };
    refused.assert_refusal(429, "limit", &["connections_per_address_max"]);
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let server = server(&["--connections-per-address-max", "2", "--log", "debug"]);
    let (one, other) = (&["203.0.113.1"][..], &["203.0.113.2"][..]);
    let (Ok(first), Ok(mut second)) = (connect(&server, PROXY, one), connect(&server, PROXY, one)) else {
        panic!("two are accepted")
    };
    assert_over_limit(connect(&server, PROXY, one));
    server.program.wait_for_stderr("203.0.113.1 via 127.0.0.2:");
    // The proxy appends its entry: entries on the left may be written by the client.
    assert_over_limit(connect(&server, PROXY, &["198.51.100.7, 203.0.113.1"]));
    assert_over_limit(connect(&server, PROXY, &["198.51.100.7", "203.0.113.1", "10.1.2.3"]));
    assert_over_limit(connect(&server, PROXY, &["[::ffff:203.0.113.1]:4711"]));
    let mut others: Vec<_> = (0..2).map(|_| connect(&server, PROXY, other).expect("another client")).collect();
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 4);
    server.wait_for_metric("tickcast_forwarded_total", |count| count == 8);
    others.iter_mut().chain([&mut second]).for_each(|client| {
        assert_eq!(client.reply()["type"], "welcome");
        client.ping();
    });
    // A closed connection no longer counts.
    drop(first);
    let mut tries = 0;
    while connect(&server, PROXY, one).is_err() {
        tries += 1;
        assert!(tries < 10_000, "the closed connection still counts");
    }
}

/// The response to a request for Server-Sent Events through the proxy.
fn request_events(server: &Server, method: &str, lines: &str) -> Response {
    let mut stream = connect_from(PROXY, server.address);
    let request =
        format!("{method} /v1/sse?symbols=* HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 203.0.113.1\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    read_response(&mut stream)
}

#[test]
fn an_sse_client_over_the_limit_gets_an_event_with_a_retry_time() {
    const ACCEPT: &str = "Accept: text/event-stream\r\n";
    let server = server(&["--connections-per-address-max", "1", "--allow-origin", "https://app.example"]);
    let first = connect(&server, PROXY, &["203.0.113.1"]);
    assert!(first.is_ok());
    // A browser's `EventSource` never retries after a status other than 200, or a response that its page may not read.
    for (origin, allowed) in [("", None), ("https://app.example", Some("https://app.example")), ("http://here", None)] {
        let line = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        let refused = request_events(&server, "GET", &format!("{ACCEPT}{line}"));
        assert_eq!((refused.status, refused.header("content-type")), (200, Some("text/event-stream")), "{origin}");
        assert_eq!(refused.header("access-control-allow-origin"), allowed, "{origin}");
        assert_eq!(refused.header("vary"), Some("Origin"), "{origin}");
        let events = SseParser::default().push(&refused.body);
        let messages: Vec<_> = events.iter().flat_map(|event| event.messages()).collect();
        let [error, closing] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"limit".into()), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("connections_per_address_max")));
        assert_eq!((&closing["type"], &closing["reason"]), (&"closing".into(), &"limit".into()), "{closing}");
        let retry = events.last().and_then(|event| event.retry);
        assert!(retry.is_some_and(|ms| (5000..7000).contains(&ms)), "{events:?}");
    }
    // A request that does not accept an event stream gets a status, and a listed page may read the reason.
    let line = "Origin: https://app.example\r\n";
    let plain = request_events(&server, "GET", line);
    plain.assert_refusal(429, "limit", &["connections_per_address_max"]);
    assert_eq!(plain.header("access-control-allow-origin"), Some("https://app.example"));
    let head = request_events(&server, "HEAD", ACCEPT);
    assert!(head.status == 429 && head.body.is_empty(), "{head:?}");
    let other = request_events(&server, "GET", &format!("{ACCEPT}Origin: https://stranger.example\r\n"));
    other.assert_refusal(403, "forbidden_origin", &["stranger.example"]);
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 6);
}

#[test]
fn an_untrusted_peer_cannot_report_another_address() {
    let trusting = server(&["--connections-per-address-max", "1"]);
    let trusting_none =
        Server::start(&["--feed", "none", "--addresses-exempt", "127.0.0.1", "--connections-per-address-max", "1"]);
    for (server, source) in [(&trusting, UNTRUSTED), (&trusting_none, PROXY)] {
        let first = connect(server, source, &["203.0.113.1"]);
        assert!(first.is_ok());
        assert_over_limit(connect(server, source, &["203.0.113.2"]));
        server.wait_for_metric("tickcast_refused_address_total", |count| count == 1);
        assert_eq!(server.metric_values("tickcast_forwarded_total").iter().sum::<u64>(), 0);
    }
}

#[test]
fn without_a_readable_report_the_proxy_itself_counts() {
    let server = server(&["--connections-per-address-max", "1"]);
    let first = connect(&server, PROXY, &[]);
    assert!(first.is_ok());
    let unread = [&[][..], &["unknown"], &["203.0.113.1, _hidden"], &[""]];
    for lines in unread {
        assert_over_limit(connect(&server, PROXY, lines));
    }
    // Another trusted proxy between is an address of its own.
    assert!(connect(&server, PROXY, &["garbage, 10.1.2.3"]).is_ok());
    assert!(connect(&server, PROXY, &["203.0.113.1"]).is_ok());
    server.wait_for_metric("tickcast_forwarded_unread_total", |count| count == 6);
}

#[test]
fn handshake_rates_and_publishers_count_for_the_client() {
    let rate = server(&["--handshakes-per-address-per-s", "1", "--upgrade-timeout-ms", "200", "--cores", "0"]);
    let mut clients = Vec::new();
    let refused = loop {
        match connect(&rate, PROXY, &["203.0.113.1"]) {
            Ok(client) => clients.push(client),
            Err(refused) => break refused,
        }
        assert!(clients.len() < 1000, "no handshake is refused");
    };
    refused.assert_refusal(429, "limit", &["handshakes_per_address_per_s"]);
    assert!(connect(&rate, PROXY, &["203.0.113.2"]).is_ok(), "another client has its own rate");

    let few = server(&["--connections-per-address-max", "1", "--publish-token", "test-publish-token"]);
    let publisher = connect_at("/v1/publish?token=test-publish-token", &few, PROXY, &["203.0.113.1"]);
    assert!(publisher.is_ok());
    assert_over_limit(connect(&few, PROXY, &["203.0.113.1"]));
    assert!(connect(&few, PROXY, &["203.0.113.2"]).is_ok());
    drop(publisher);
    let mut tries = 0;
    while connect(&few, PROXY, &["203.0.113.1"]).is_err() {
        tries += 1;
        assert!(tries < 10_000, "the closed publisher still counts");
    }
}

#[test]
fn a_proxy_may_open_connections_ahead_of_its_requests() {
    let server = server(&["--connections-per-address-max", "1"]);
    let ahead: Vec<_> = (0..10).map(|_| connect_from(PROXY, server.address)).collect();
    for (nth, mut stream) in ahead.into_iter().enumerate() {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 203.0.113.{nth}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        assert_eq!(read_response(&mut stream).status, 200);
    }
}
