//! The configurations of `tuning/proxy/` in nginx and HAProxy in front of a server, as shipped except for ports and
//! sizes. Tests of a program that is not installed are reported as skipped.

mod proxy;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use proxy::{Kind, Proxy};
use rustix::process::Signal;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::{Client, Subscriber};
use tickcast_test_support::http::{Response, connect, connect_from, send_request, upgrade_request};
use tickcast_test_support::publisher::{Publisher, quote};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

/// The limits apply to the clients' own addresses: the proxy connects from 127.0.1.1 to 127.0.1.4, and is trusted.
const ARGS: &[&str] = &["--trusted-proxies", "127.0.1.0/24", "--addresses-exempt", "127.0.0.1"];
const MARKET: &str = "sim:instruments=2000,rate=500,seed=1,shape=even";
const EVIL: &str = "http://evil.example";

fn server(feed: &str, more: &[&str]) -> Server {
    Server::start(&[ARGS, &["--feed", feed, "--publish-token", "test-publish-token", "--enable-echo"], more].concat())
}

/// Sends a request with `Connection: close`.
fn get(address: SocketAddr, path: &str, lines: &str) -> Response {
    send_request(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{lines}\r\n").as_bytes(),
    )
}

/// Reads one response from a connection that stays open.
fn next_answer(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        bytes.push(byte[0]);
    }
    let length = Response::parse(&bytes).header("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the whole body");
    bytes.extend(body);
    Response::parse(&bytes)
}

fn answers_go_through(kind: Kind) {
    let server = server(MARKET, &[]);
    server.wait_for_metric("tickcast_records_read_total", |records| records > 4000);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    for path in ["/", "/favicon.svg", "/tickcast.js", "/v1/instruments"] {
        let (direct, through) = (server.get(path), get(proxy.http, path, ""));
        assert_eq!((through.status, through.header("etag")), (200, direct.header("etag")), "{kind:?} {path}");
        assert!(through.body == direct.body, "{kind:?} {path}: the same bytes");
        for name in ["content-type", "cache-control", "content-security-policy", "vary"] {
            assert_eq!(through.header(name), direct.header(name), "{kind:?} {path}");
        }
        let condition = format!("If-None-Match: {}\r\n", direct.header("etag").expect("a tag"));
        assert_eq!(get(proxy.http, path, &condition).status, 304, "{kind:?} {path}");
        let gzip = get(proxy.http, path, "Accept-Encoding: gzip\r\n");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut plain).expect("whole gzip");
        assert!(plain == direct.body, "{kind:?} {path}: the same bytes, compressed");
    }
    get(proxy.http, "/v1/snapshot/NO-SUCH", "").assert_refusal(404, "not_found", &["NO-SUCH"]);
    // The server closes each connection after its response; the proxy keeps the client's connection.
    let mut kept = connect(proxy.http);
    for path in ["/", "/v1/instruments", "/healthz", "/v1/snapshot/NO-SUCH", "/"] {
        write!(kept, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.http).expect("the request is sent");
        assert!(next_answer(&mut kept).body == server.get(path).body, "{kind:?} {path}");
    }
}

fn streams_go_through(kind: Kind) {
    let server = server(SMALL_MARKET, &[]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let own = format!("http://{}", proxy.http);
    let open = |origin: &str| Client::try_connect(proxy.http, "/v1/stream", &[("Origin", origin)]);
    let mut clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = open(&own).expect("a page of the proxy's own origin");
            assert_eq!(client.reply()["type"], "welcome");
            Subscriber::subscribe(client, &["quote", "trade"], &["*"])
        })
        .collect();
    for client in &mut clients {
        client.until_live();
        client.ping();
    }
    // All four addresses of the proxy are trusted, so that the address of each client is known.
    server.wait_for_metric("tickcast_forwarded_total", |count| count >= 8);
    let Err(refused) = open(EVIL) else { panic!("the origin is allowed") };
    assert_eq!(refused.status, 403);
    for path in [
        "/v1/publish?token=test-publish-token",
        "/v1/echo",
        "/v1/operator",
        "/metrics",
        "//metrics",
        "/./metrics",
        "/v1/../metrics",
        "/v1/%6Fperator",
        "/%6detrics",
        "/metrics/",
    ] {
        assert_eq!(get(proxy.http, path, "").status, 404, "{kind:?}: {path} is not public");
        let request = upgrade_request(path).replacen("Host: here", &format!("Host: {}", proxy.http), 1);
        let mut stream = connect(proxy.http);
        stream.write_all(request.as_bytes()).expect("the request is sent");
        assert_eq!(next_answer(&mut stream).status, 404, "{kind:?}: {path} is not public with an upgrade");
    }
}

/// Sends the path as part of an absolute URL, which proxies parse differently.
fn absolute_urls_reach_no_private_path(kind: Kind) {
    let server = server("none", &[]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    for path in ["/metrics", "/v1/operator", "/v1/publish?token=test-publish-token", "/v1/echo"] {
        for host in ["other".to_owned(), proxy.http.to_string()] {
            let status = get(proxy.http, &format!("http://{host}{path}"), "").status;
            // HAProxy rejects a URL whose host differs from `Host`.
            let is_refused = status == 404 || (kind, host.as_str(), status) == (Kind::Haproxy, "other", 400);
            assert!(is_refused, "{kind:?}: http://{host}{path} is not public: {status}");
        }
    }
}

/// Upgrades from this local address; returns the status and the connection.
fn upgraded(front: SocketAddr, source: &str, lines: &str) -> (u16, TcpStream) {
    let mut stream = connect_from(source, front);
    let request = upgrade_request("/v1/stream").replacen("\r\n", &format!("\r\n{lines}"), 1);
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    (String::from_utf8_lossy(&status[9..]).parse().expect("a status"), stream)
}

fn limits_apply_to_the_clients_own_addresses(kind: Kind) {
    let server = server("none", &["--connections-per-address-max", "2"]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let upgrade = |source: &str| upgraded(proxy.http, source, "");
    let (first, second) = (upgrade("127.0.0.2"), upgrade("127.0.0.2"));
    assert_eq!((first.0, second.0), (101, 101), "{kind:?}");
    assert_eq!(upgrade("127.0.0.2").0, 429, "{kind:?}: a third");
    // The proxy does not forward the client's own `X-Forwarded-For`.
    for lines in ["X-Forwarded-For: 203.0.113.9\r\n", "x-forwarded-for: 127.0.0.9\r\nX-Forwarded-For: 127.0.0.8\r\n"] {
        assert_eq!(upgraded(proxy.http, "127.0.0.2", lines).0, 429, "{kind:?} {lines}");
    }
    let others = [upgrade("127.0.0.3"), upgrade("127.0.0.3"), upgrade("127.0.0.4")];
    assert!(others.iter().all(|(status, _)| *status == 101), "{kind:?}: other addresses have their own limit");
    server.wait_for_metric("tickcast_refused_address_total", |count| count == 3);
    // A connection closed at the proxy is closed at the server.
    drop(first);
    let mut tries = 0;
    while upgrade("127.0.0.2").0 != 101 {
        tries += 1;
        assert!(tries < 10_000, "{kind:?}: the client's connection is still counted");
    }
}

fn events_are_not_buffered(kind: Kind) {
    let server = server("none", &[]);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let id = publisher.define(&["A-USD"])[0];
    publisher.publish(&[quote(id, 100)]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let mut stream = connect(proxy.http);
    let path = "/v1/sse?symbols=A-USD&channels=quote";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.http).expect("the request is sent");
    let mut received = String::new();
    // One price at a time: a buffered event would wait for the next price, which would never come.
    for (bid, text) in [(100, "\"1.00\""), (101, "\"1.01\""), (102, "\"1.02\"")] {
        publisher.publish(&[quote(id, bid)]);
        let mut part = [0; 4096];
        while !received.contains(text) {
            let read = stream.read(&mut part).expect("an event");
            assert!(read > 0, "{kind:?}: it ended after {received}");
            received += &String::from_utf8_lossy(&part[..read]);
        }
    }
    assert!(received.contains("text/event-stream"), "{received}");
}

/// The response of an SSE client: the head, and the stream to the end of its first event.
fn first_event(front: SocketAddr) -> Response {
    let mut stream = connect(front);
    // HTTP 1.0, so that the stream is not chunked.
    let request = format!("GET /v1/sse?symbols=* HTTP/1.0\r\nHost: {front}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut received = Vec::new();
    while !received.windows(2).any(|two| two == b"\n\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).expect("an event");
        assert!(read > 0, "it ended after {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&part[..read]);
    }
    Response::parse(&received)
}

/// A browser's `EventSource` treats the response as a stream that has ended, and reconnects.
#[track_caller]
fn assert_reconnects(kind: Kind, answer: &Response) {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")), "{kind:?} {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{kind:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{kind:?}: for all origins");
    let text = answer.text();
    let retry = text.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let retry_ms: u64 = retry.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{kind:?}: {text:?}"));
    assert!((3000..=7000).contains(&retry_ms), "{kind:?}: {retry_ms}");
}

fn sse_clients_survive_a_restart(kind: Kind) {
    let server = server(SMALL_MARKET, &[]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let first = first_event(proxy.http);
    assert!(first.text().contains("\"welcome\""), "{kind:?} {first:?}");
    let address = server.address;
    server.stop(Signal::KILL);
    assert_reconnects(kind, &first_event(proxy.http));
    if kind == Kind::Haproxy {
        // Once HAProxy has noticed, the response comes from another part of its configuration.
        proxy.wait_for_log("backend 'events' has no server available");
        assert_reconnects(kind, &first_event(proxy.http));
    }
    for path in ["/", "/v1/sse?symbols=*"] {
        let status = get(proxy.http, path, "").status;
        assert!(matches!(status, 502 | 503), "{kind:?}: other requests get the error: {status}");
    }
    let listen = address.to_string();
    let _server = Server::spawn(Program::command(&[&["--listen", &listen, "--feed", SMALL_MARKET], ARGS].concat()));
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = first_event(proxy.http);
        if answer.text().contains("\"welcome\"") {
            break;
        }
        assert_reconnects(kind, &answer);
        assert!(Instant::now() < until, "{kind:?}: the proxy does not find the new server");
    }
}

fn sse_clients_are_kept_while_the_server_is_full(kind: Kind) {
    const PENDING_MAX: usize = 16;
    let server = server(SMALL_MARKET, &["--pending-connections-max", &PENDING_MAX.to_string(), "--cores", "0"]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let echo = || {
        let (mut stream, mut status) = (connect(server.address), [0; 12]);
        stream.write_all(upgrade_request("/v1/echo").as_bytes()).and_then(|()| stream.read_exact(&mut status)).ok()?;
        status.ends_with(b"101").then_some(stream)
    };
    let mut echoes = Vec::new();
    let until = Instant::now() + DEADLINE;
    // A health check of the proxy may be pending just now.
    while echoes.len() < PENDING_MAX {
        echoes.extend(echo());
        assert!(Instant::now() < until, "only {} echoes are accepted", echoes.len());
    }
    assert_reconnects(kind, &first_event(proxy.http));
}

/// Runs curl; returns the status and the body.
fn curl(args: &[&str]) -> Option<(String, Vec<u8>)> {
    let output = Command::new("curl").args(["-sk", "--max-time", "30", "-w", "\n%{http_code}"]).args(args).output();
    let Ok(output) = output else {
        println!("SKIPPED: curl is not installed");
        return None;
    };
    let end = output.stdout.iter().rposition(|byte| *byte == b'\n').expect("a line of its own");
    Some((String::from_utf8_lossy(&output.stdout[end + 1..]).into_owned(), output.stdout[..end].to_vec()))
}

fn tls_is_terminated(kind: Kind) {
    let server = server("none", &[]);
    let Some(proxy) = Proxy::start(kind, server.address) else { return };
    let Some(https) = proxy.https else { return };
    let url = |path: &str| format!("https://{https}{path}");
    for version in ["--http1.1", "--http2"] {
        let Some((status, page)) = curl(&[version, &url("/")]) else { return };
        assert_eq!((status.as_str(), page), ("200", server.get("/").body), "{kind:?} {version}");
        // The server checks the origin before the rest of a handshake: with a valid origin, the wrong version is the error.
        let status = |origin: &str| {
            let origin = format!("Origin: {origin}");
            let head = ["-H", &origin, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
            let wrong = ["-H", "Sec-WebSocket-Version: 8", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
            let head = if version == "--http1.1" { [&head[..], &wrong].concat() } else { head[..2].to_vec() };
            curl(&[&head[..], &[version, &url("/v1/stream")]].concat()).expect("curl is installed").0
        };
        let own = status(&format!("https://{https}"));
        assert_eq!(
            own,
            if version == "--http1.1" { "426" } else { "400" },
            "{kind:?} {version}: the proxy's own origin"
        );
        assert_eq!(status(&format!("http://{}", proxy.http)), "403", "{kind:?} {version}");
        assert_eq!(status(EVIL), "403", "{kind:?} {version}");
    }
}

#[test]
fn nginx_passes_answers() {
    answers_go_through(Kind::Nginx);
}

#[test]
fn haproxy_passes_answers() {
    answers_go_through(Kind::Haproxy);
}

#[test]
fn nginx_passes_streams_and_no_private_path() {
    streams_go_through(Kind::Nginx);
}

#[test]
fn haproxy_passes_streams_and_no_private_path() {
    streams_go_through(Kind::Haproxy);
}

#[test]
fn nginx_limits_apply_to_the_clients_own_addresses() {
    limits_apply_to_the_clients_own_addresses(Kind::Nginx);
}

#[test]
fn haproxy_limits_apply_to_the_clients_own_addresses() {
    limits_apply_to_the_clients_own_addresses(Kind::Haproxy);
}

#[test]
fn nginx_does_not_buffer_events() {
    events_are_not_buffered(Kind::Nginx);
}

#[test]
fn haproxy_does_not_buffer_events() {
    events_are_not_buffered(Kind::Haproxy);
}

#[test]
fn nginx_terminates_tls_and_pages_have_its_origin() {
    tls_is_terminated(Kind::Nginx);
}

#[test]
fn haproxy_terminates_tls_and_pages_have_its_origin() {
    tls_is_terminated(Kind::Haproxy);
}

#[test]
fn absolute_urls_through_nginx_reach_no_private_path() {
    absolute_urls_reach_no_private_path(Kind::Nginx);
}

#[test]
fn sse_clients_behind_nginx_survive_a_restart() {
    sse_clients_survive_a_restart(Kind::Nginx);
}

#[test]
fn behind_nginx_sse_clients_are_kept_while_the_server_is_full() {
    sse_clients_are_kept_while_the_server_is_full(Kind::Nginx);
}

#[test]
fn absolute_urls_through_haproxy_reach_no_private_path() {
    absolute_urls_reach_no_private_path(Kind::Haproxy);
}

#[test]
fn sse_clients_behind_haproxy_survive_a_restart() {
    sse_clients_survive_a_restart(Kind::Haproxy);
}

#[test]
fn behind_haproxy_sse_clients_are_kept_while_the_server_is_full() {
    sse_clients_are_kept_while_the_server_is_full(Kind::Haproxy);
}
