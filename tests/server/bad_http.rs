//! Bad bytes before an upgrade: each gets an answer that says what is wrong, and nobody else notices.

use std::io::Write;

use tickcast_test_support::client::{Client, Received, masked_frame};
use tickcast_test_support::http::{self, connect, read_response, send_request, upgrade_request};
use tickcast_test_support::server::WatchedServer;

#[test]
fn garbage_in_place_of_http_is_a_400() {
    let mut scene = WatchedServer::start(&[]);
    let address = scene.server.address;
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
    scene.assert_undisturbed();
}

#[test]
fn a_header_block_without_end_is_a_431() {
    let mut scene = WatchedServer::start(&["--head-bytes-max", "4096"]);
    let address = scene.server.address;
    let endless = format!("GET / HTTP/1.1\r\nHost: here\r\nX-Long: {}", "a".repeat(20_000));
    send_request(address, endless.as_bytes()).assert_refusal(431, "head_too_large", &["no end within 4096 bytes"]);
    let many = format!("GET / HTTP/1.1\r\nHost: here\r\n{}\r\n", "X: y\r\n".repeat(100));
    send_request(address, many.as_bytes()).assert_refusal(431, "head_too_large", &["more than 64 headers"]);
    scene.assert_undisturbed();
}

#[test]
fn a_head_that_never_completes_is_a_408() {
    let mut scene = WatchedServer::start(&["--upgrade-timeout-ms", "100"]);
    let address = scene.server.address;
    for begun in ["", "G", "GET /v1/stream HTTP/1.1\r\nHost: here\r\n"] {
        send_request(address, begun.as_bytes()).assert_refusal(408, "timeout", &["not complete after 100 ms"]);
    }
    scene.assert_undisturbed();
}

#[test]
fn a_peer_that_goes_within_its_head_is_no_trouble() {
    let mut scene = WatchedServer::start(&[]);
    for begun in ["", "GET /v1/stream HTTP/1.1\r\nHost"] {
        let mut stream = connect(scene.server.address);
        stream.write_all(begun.as_bytes()).expect("the server reads");
        drop(stream);
    }
    scene.assert_undisturbed();
}

#[test]
fn a_wrong_method_is_a_405_that_says_which_are_right() {
    let mut scene = WatchedServer::start(&["--enable-echo"]);
    let address = scene.server.address;
    for (method, path, allow) in [
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/v1/instruments", "GET, HEAD"),
        ("OPTIONS", "/nowhere", "GET, HEAD"),
        ("POST", "/v1/stream", "GET"),
        ("PUT", "/v1/echo", "GET"),
    ] {
        let request = upgrade_request(path).replacen("GET", method, 1);
        let answer = send_request(address, request.as_bytes());
        answer.assert_refusal(405, "method_not_allowed", &[method, "GET"]);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    scene.assert_undisturbed();
}

#[test]
fn an_unknown_path_is_a_404_that_says_what_there_is() {
    let mut scene = WatchedServer::start(&[]);
    for path in ["/nowhere", "/v1", "/v1/stream/", "/v1/snapshots", "//", "/../etc/passwd", "/pages/index.html"] {
        scene.server.get(path).assert_refusal(404, "not_found", &[path, "/v1/stream", "/metrics"]);
    }
    let long = format!("/{}", "é".repeat(1000).replace('é', "%C3%A9"));
    scene.server.get(&long).assert_refusal(404, "not_found", &["%C3%A9"]);
    scene.server.get("/v1/snapshot/NO-SUCH").assert_refusal(404, "not_found", &["NO-SUCH", "/v1/instruments"]);
    scene.assert_undisturbed();
}

#[test]
fn an_upgrade_that_lacks_something_names_it() {
    let mut scene = WatchedServer::start(&[]);
    let address = scene.server.address;
    let right = upgrade_request("/v1/stream");
    for (line, instead, said) in [
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "Sec-WebSocket-Key: missing"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "Sec-WebSocket-Key: invalid value \"c2hvcnQ=\""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!", "Sec-WebSocket-Key: invalid value"),
        ("Upgrade: websocket\r\n", "", "Upgrade: missing: expected websocket"),
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade: invalid value \"h2c\""),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", "Connection: invalid value \"close\""),
        ("Host: here\r\n", "", "Host: missing"),
        ("HTTP/1.1", "HTTP/1.0", "HTTP/1.1"),
        (
            "Host: here\r\n",
            "Host: here\r\nContent-Length: 4\r\n",
            "Content-Length: invalid value \"4\": expected no body",
        ),
        ("Host: here\r\n", "Host: here\r\nSec-WebSocket-Protocol: a b\r\n", "Sec-WebSocket-Protocol: invalid value"),
    ] {
        let request = right.replacen(line, instead, 1);
        assert_ne!(request, right);
        send_request(address, request.as_bytes()).assert_refusal(400, "malformed_upgrade", &[said]);
    }
    send_request(address, b"GET /v1/stream HTTP/1.1\r\nHost: here\r\n\r\n").assert_refusal(
        400,
        "malformed_upgrade",
        &["Upgrade"],
    );
    scene.assert_undisturbed();
}

#[test]
fn a_wrong_websocket_version_is_a_426_that_names_the_right_one() {
    let mut scene = WatchedServer::start(&[]);
    for version in ["Version: 8", "Version: 14", "Version: ", "Versio: 13"] {
        let request = upgrade_request("/v1/stream").replacen("Version: 13", version, 1);
        let answer = send_request(scene.server.address, request.as_bytes());
        answer.assert_refusal(426, "websocket_version", &["Sec-WebSocket-Version", "13"]);
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    scene.assert_undisturbed();
}

#[test]
fn one_byte_a_write_is_slow_and_right() {
    let mut scene = WatchedServer::start(&[]);
    let mut stream = connect(scene.server.address);
    for byte in upgrade_request("/v1/stream").bytes() {
        stream.write_all(&[byte]).expect("the server reads");
    }
    let mut client = upgraded(stream);
    assert_eq!(client.reply()["type"], "welcome");
    let wanted = br#"{"op":"subscribe","id":5,"channels":["quote"],"symbols":["*"]}"#;
    for byte in masked_frame(0x81, wanted) {
        client.send_bytes(&[byte]);
    }
    let reply = client.reply();
    assert_eq!((reply["type"].as_str(), reply["id"].as_u64()), (Some("subscribed"), Some(5)), "{reply}");
    client.ping();

    let mut plain = connect(scene.server.address);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" {
        plain.write_all(&[*byte]).expect("the server reads");
    }
    assert_eq!(read_response(&mut plain).status, 200);
    scene.assert_undisturbed();
}

#[test]
fn requests_right_behind_the_upgrade_are_heard() {
    let mut scene = WatchedServer::start(&[]);
    let mut bytes = upgrade_request("/v1/stream").into_bytes();
    bytes.extend(masked_frame(0x81, br#"{"op":"ping","id":1}"#));
    bytes.extend(masked_frame(0x89, b"are you there"));
    bytes.extend(masked_frame(0x81, br#"{"op":"subscribe","id":2,"channels":["quote"],"symbols":["*"]}"#));
    let last = masked_frame(0x81, br#"{"op":"ping","id":3}"#);
    // The last one is cut: it has to be put together from what came with the upgrade and what comes after.
    bytes.extend(&last[..9]);
    let mut stream = connect(scene.server.address);
    stream.write_all(&bytes).expect("the server reads");
    let mut client = upgraded(stream);
    client.send_bytes(&last[9..]);
    let came: Vec<_> = std::iter::repeat_with(|| client.receive()).filter_map(said).take(5).collect();
    let right = [("welcome", None), ("pong", Some(1)), ("frame", None), ("subscribed", Some(2)), ("pong", Some(3))];
    assert_eq!(came, right.map(|(kind, id)| (kind.to_owned(), id)));
    scene.assert_undisturbed();
}

/// What kind of an answer came, and to what; `frame` is the answer to a WebSocket ping.
fn said(came: Received) -> Option<(String, Option<u64>)> {
    match came {
        Received::Reply(reply) => Some((reply["type"].as_str()?.to_owned(), reply["id"].as_u64())),
        Received::Pong(payload) => {
            assert_eq!(payload, b"are you there");
            Some(("frame".to_owned(), None))
        }
        _ => None,
    }
}

/// Reads the 101 of a raw upgrade.
fn upgraded(mut stream: std::net::TcpStream) -> Client {
    let answer = http::Response::parse(&http::read_head(&mut stream));
    assert_eq!(answer.status, 101);
    // The key and the answer to it are RFC 6455's own example, section 1.3.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    Client::upgraded(stream, Vec::new())
}
