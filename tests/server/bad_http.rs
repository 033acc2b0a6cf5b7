//! Bad requests before an upgrade. Each gets a response that says what is wrong. Other clients are not disturbed.

use std::io::Write;

use tickcast_test_support::client::{Client, Received, masked_frame};
use tickcast_test_support::http::{self, connect, read_response, send_request, upgrade_request};
use tickcast_test_support::server::WatchedServer;

#[test]
fn bytes_that_are_not_http_get_a_400() {
    let mut watched = WatchedServer::start(&[]);
    let address = watched.server.address;
    send_request(address, b"\x00\xff\xfe garbage \x01\r\n\r\n").assert_refusal(
        400,
        "malformed_request",
        &["request head"],
    );
    send_request(address, b"HELO mail.example.com\r\n").assert_refusal(400, "malformed_request", &["request head"]);
    send_request(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").assert_refusal(
        400,
        "malformed_request",
        &["TLS"],
    );
    send_request(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").assert_refusal(505, "http_version", &["HTTP/1.1"]);
    watched.assert_undisturbed();
}

#[test]
fn a_head_without_an_end_gets_a_431() {
    let mut watched = WatchedServer::start(&["--head-bytes-max", "4096"]);
    let address = watched.server.address;
    let endless = format!("GET / HTTP/1.1\r\nHost: here\r\nX-Long: {}", "a".repeat(20_000));
    send_request(address, endless.as_bytes()).assert_refusal(431, "head_too_large", &["no end within 4096 bytes"]);
    let with_lines =
        |lines: usize| format!("GET /healthz HTTP/1.1\r\nHost: here\r\n{}\r\n", "X: y\r\n".repeat(lines - 1));
    assert_eq!(send_request(address, with_lines(100).as_bytes()).status, 200);
    let refused = send_request(address, with_lines(101).as_bytes());
    refused.assert_refusal(431, "head_too_large", &["more than 100 headers"]);
    let target = format!("GET /{}", "a".repeat(20_000));
    send_request(address, target.as_bytes()).assert_refusal(414, "uri_too_long", &["no end within 4096 bytes"]);
    watched.assert_undisturbed();
}

/// Requests of every kind: plain, a stream of events, an upgrade, an unknown path, and other methods.
const REQUEST_LINES: [&str; 8] = [
    "GET /healthz",
    "HEAD /healthz",
    "GET /v1/sse?symbols=*",
    "GET /v1/stream",
    "GET /v1/publish",
    "GET /nowhere",
    "POST /v1/instruments",
    "OPTIONS /v1/instruments",
];

/// The lines of [`upgrade_request`] without `Host`: on a plain path they have no effect.
const UPGRADE_LINES: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn every_request_names_one_valid_host() {
    let mut watched = WatchedServer::start(&[]);
    let address = watched.server.address;
    for line in REQUEST_LINES {
        for (hosts, given) in [
            ("", "Host: missing"),
            ("Host: here\r\nHost: here\r\n", "\"here\" and \"here\""),
            ("Host: here\r\nHost: there\r\n", "\"here\" and \"there\""),
            ("Host:\r\n", "invalid value \"\""),
            ("Host: here, there\r\n", "here, there"),
            ("Host: user@here\r\n", "user@here"),
            ("Host: here:port\r\n", "here:port"),
            ("Host: http://here/\r\n", "http://here/"),
        ] {
            let head = format!("{line} HTTP/1.1\r\n{UPGRADE_LINES}{hosts}\r\n");
            let response = send_request(address, head.as_bytes());
            if line.starts_with("HEAD") {
                assert_eq!((response.status, &response.body[..]), (400, &b""[..]), "{head}");
            } else {
                response.assert_refusal(400, "malformed_request", &["Host", given]);
            }
        }
    }
    for host in ["here", "here:9001", "[::1]:9001", "here:"] {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(send_request(address, head.as_bytes()).status, 200, "{host}");
    }
    assert_eq!(send_request(address, b"GET /healthz HTTP/1.0\r\n\r\n").status, 200, "HTTP/1.0 needs none");
    let two = b"GET /healthz HTTP/1.0\r\nHost: here\r\nHost: here\r\n\r\n";
    send_request(address, two).assert_refusal(400, "malformed_request", &["Host"]);
    watched.assert_undisturbed();
}

#[test]
fn the_host_of_an_absolute_target_replaces_the_header() {
    let mut watched = WatchedServer::start(&["--allow-host", "here,elsewhere.example"]);
    let address = watched.server.address;
    let view = |target: &str, host: &str| {
        send_request(address, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).status
    };
    assert_eq!(view("http://elsewhere.example/healthz", "here"), 200);
    // Requests are served for names in the list.
    assert_eq!(view("/healthz", "localhost"), 200);
    assert_eq!(view("http://rebound.example/healthz", "localhost"), 403);
    assert_eq!(view("http://localhost/healthz", "rebound.example"), 200);
    assert_eq!(view("http://localhost/healthz", "not a host"), 400);
    let without = b"GET http://localhost/healthz HTTP/1.1\r\n\r\n";
    send_request(address, without).assert_refusal(400, "malformed_request", &["Host: missing"]);
    watched.assert_undisturbed();
}

#[test]
fn a_length_of_the_body_that_can_be_read_in_two_ways_is_refused() {
    let mut watched = WatchedServer::start(&[]);
    let address = watched.server.address;
    for line in REQUEST_LINES.into_iter().filter(|line| !line.starts_with("HEAD")) {
        for (lines, status, code) in [
            ("Content-Length: 3\r\nContent-Length: 4\r\n", 400, "malformed_request"),
            ("Content-Length: 3, 3\r\n", 400, "malformed_request"),
            ("Content-Length: +3\r\n", 400, "malformed_request"),
            ("Content-Length: 0x3\r\n", 400, "malformed_request"),
            ("Content-Length:\r\n", 400, "malformed_request"),
            ("Content-Length: 99999999999999999999\r\n", 400, "malformed_request"),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400, "malformed_request"),
            ("Transfer-Encoding: gzip\r\n", 400, "malformed_request"),
            ("Transfer-Encoding: chunked, identity\r\n", 400, "malformed_request"),
            ("Transfer-Encoding: chunked, chunked\r\n", 400, "malformed_request"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", 400, "malformed_request"),
            ("Transfer-Encoding: gzip, chunked\r\n", 501, "transfer_coding"),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: here\r\n{lines}\r\n");
            let name = lines.split(':').next().expect("a name");
            let named = if lines.contains("Transfer") { "Transfer-Encoding" } else { name };
            send_request(address, head.as_bytes()).assert_refusal(status, code, &[named]);
        }
    }
    let of_1_0 = b"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    send_request(address, of_1_0).assert_refusal(400, "malformed_request", &["Transfer-Encoding", "HTTP/1.0"]);
    for (lines, body) in [("Content-Length: 3\r\n", "abc"), ("Transfer-Encoding: Chunked\r\n", "0\r\n\r\n")] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: here\r\n{lines}\r\n{body}");
        assert_eq!(send_request(address, request.as_bytes()).status, 200, "{lines} is ignored by a GET");
    }
    watched.assert_undisturbed();
}

#[test]
fn an_incomplete_head_gets_a_408_after_the_timeout() {
    let mut watched = WatchedServer::start(&["--upgrade-timeout-ms", "100"]);
    let address = watched.server.address;
    for part in ["", "G", "GET /v1/stream HTTP/1.1\r\nHost: here\r\n"] {
        send_request(address, part.as_bytes()).assert_refusal(408, "timeout", &["not complete after 100 ms"]);
    }
    watched.assert_undisturbed();
}

#[test]
fn a_client_may_disconnect_within_its_head() {
    let mut watched = WatchedServer::start(&[]);
    for part in ["", "GET /v1/stream HTTP/1.1\r\nHost"] {
        let mut stream = connect(watched.server.address);
        stream.write_all(part.as_bytes()).expect("the server reads");
        drop(stream);
    }
    watched.assert_undisturbed();
}

#[test]
fn a_wrong_method_gets_a_405_with_the_allowed_methods() {
    let mut watched = WatchedServer::start(&["--enable-echo"]);
    let address = watched.server.address;
    for (method, path, allow) in [
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/v1/instruments", "GET, HEAD"),
        ("OPTIONS", "/nowhere", "GET, HEAD"),
        ("POST", "/v1/stream", "GET"),
        ("PUT", "/v1/echo", "GET"),
    ] {
        let request = upgrade_request(path).replacen("GET", method, 1);
        let response = send_request(address, request.as_bytes());
        response.assert_refusal(405, "method_not_allowed", &[method, "GET"]);
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
    watched.assert_undisturbed();
}

#[test]
fn an_unknown_path_gets_a_404_with_the_known_paths() {
    let mut watched = WatchedServer::start(&[]);
    for path in ["/nowhere", "/v1", "/v1/stream/", "/v1/snapshots", "//", "/../etc/passwd", "/pages/index.html"] {
        watched.server.get(path).assert_refusal(404, "not_found", &[path, "/v1/stream", "/metrics"]);
    }
    let long = format!("/{}", "é".repeat(1000).replace('é', "%C3%A9"));
    watched.server.get(&long).assert_refusal(404, "not_found", &["%C3%A9"]);
    watched.server.get("/v1/snapshot/NO-SUCH").assert_refusal(404, "not_found", &["NO-SUCH", "/v1/instruments"]);
    watched.assert_undisturbed();
}

#[test]
fn a_malformed_upgrade_gets_a_400_that_names_the_header() {
    let mut watched = WatchedServer::start(&[]);
    let address = watched.server.address;
    let valid = upgrade_request("/v1/stream");
    for (line, replacement, parts) in [
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "Sec-WebSocket-Key: missing"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "Sec-WebSocket-Key: invalid value \"c2hvcnQ=\""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!", "Sec-WebSocket-Key: invalid value"),
        ("Upgrade: websocket\r\n", "", "Upgrade: missing: expected websocket"),
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade: invalid value \"h2c\""),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", "Connection: invalid value \"close\""),
        ("HTTP/1.1", "HTTP/1.0", "HTTP/1.1"),
        (
            "Host: here\r\n",
            "Host: here\r\nContent-Length: 4\r\n",
            "Content-Length: invalid value \"4\": expected no body",
        ),
        ("Host: here\r\n", "Host: here\r\nSec-WebSocket-Protocol: a b\r\n", "Sec-WebSocket-Protocol: invalid value"),
    ] {
        let request = valid.replacen(line, replacement, 1);
        assert_ne!(request, valid);
        send_request(address, request.as_bytes()).assert_refusal(400, "malformed_upgrade", &[parts]);
    }
    send_request(address, b"GET /v1/stream HTTP/1.1\r\nHost: here\r\n\r\n").assert_refusal(
        400,
        "malformed_upgrade",
        &["Upgrade"],
    );
    watched.assert_undisturbed();
}

#[test]
fn a_wrong_websocket_version_gets_a_426_with_the_right_one() {
    let mut watched = WatchedServer::start(&[]);
    for version in ["Version: 8", "Version: 14", "Version: ", "Versio: 13"] {
        let request = upgrade_request("/v1/stream").replacen("Version: 13", version, 1);
        let response = send_request(watched.server.address, request.as_bytes());
        response.assert_refusal(426, "websocket_version", &["Sec-WebSocket-Version", "13"]);
        assert_eq!(response.header("sec-websocket-version"), Some("13"));
    }
    watched.assert_undisturbed();
}

#[test]
fn requests_may_come_one_byte_at_a_time() {
    let mut watched = WatchedServer::start(&[]);
    let mut stream = connect(watched.server.address);
    for byte in upgrade_request("/v1/stream").bytes() {
        stream.write_all(&[byte]).expect("the server reads");
    }
    let mut client = upgraded(stream);
    assert_eq!(client.reply()["type"], "welcome");
    let request = br#"{"op":"subscribe","id":5,"channels":["quote"],"symbols":["*"]}"#;
    for byte in masked_frame(0x81, request) {
        client.send_bytes(&[byte]);
    }
    let reply = client.reply();
    assert_eq!((reply["type"].as_str(), reply["id"].as_u64()), (Some("subscribed"), Some(5)), "{reply}");
    client.ping();

    let mut plain = connect(watched.server.address);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" {
        plain.write_all(&[*byte]).expect("the server reads");
    }
    assert_eq!(read_response(&mut plain).status, 200);
    watched.assert_undisturbed();
}

#[test]
fn frames_right_behind_the_upgrade_are_handled() {
    let mut watched = WatchedServer::start(&[]);
    let mut bytes = upgrade_request("/v1/stream").into_bytes();
    bytes.extend(masked_frame(0x81, br#"{"op":"ping","id":1}"#));
    bytes.extend(masked_frame(0x89, b"payload"));
    bytes.extend(masked_frame(0x81, br#"{"op":"subscribe","id":2,"channels":["quote"],"symbols":["*"]}"#));
    let last = masked_frame(0x81, br#"{"op":"ping","id":3}"#);
    // The last frame is split: one part is sent with the upgrade, the rest after it.
    bytes.extend(&last[..9]);
    let mut stream = connect(watched.server.address);
    stream.write_all(&bytes).expect("the server reads");
    let mut client = upgraded(stream);
    client.send_bytes(&last[9..]);
    let received: Vec<_> = std::iter::repeat_with(|| client.receive()).filter_map(summary).take(5).collect();
    let expected = [("welcome", None), ("pong", Some(1)), ("frame", None), ("subscribed", Some(2)), ("pong", Some(3))];
    assert_eq!(received, expected.map(|(kind, id)| (kind.to_owned(), id)));
    watched.assert_undisturbed();
}

/// Type and id of a reply; `frame` for the pong to a WebSocket ping.
fn summary(received: Received) -> Option<(String, Option<u64>)> {
    match received {
        Received::Reply(reply) => Some((reply["type"].as_str()?.to_owned(), reply["id"].as_u64())),
        Received::Pong(payload) => {
            assert_eq!(payload, b"payload");
            Some(("frame".to_owned(), None))
        }
        _ => None,
    }
}

/// Reads the 101 of a raw upgrade.
fn upgraded(mut stream: std::net::TcpStream) -> Client {
    let response = http::Response::parse(&http::read_head(&mut stream));
    assert_eq!(response.status, 101);
    // The key and its hash are the example of RFC 6455, section 1.3.
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    Client::upgraded(stream, Vec::new())
}
