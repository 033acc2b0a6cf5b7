//! Request heads and upgrades: the golden handshake, every refusal, every limit.

use proptest::prelude::*;
use tickcast::http::handshake::{Supported, Upgrade, accept_upgrade};
use tickcast::http::refusal::Refusal;
use tickcast::http::request::{HeadLimits, RequestHead, parse_head};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 8192, headers_max: 100 };
const SUPPORTED: Supported<'_> = Supported::plain(&["tickcast.v1", "tickcast.v1+json"]);

/// The client's handshake of RFC 6455 section 1.3.
const GOLDEN: &str = "GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn request(head: &str) -> http::Request<()> {
    match parse_head(head.as_bytes(), &LIMITS) {
        Ok(RequestHead::Complete { consumed, request }) => {
            assert_eq!(consumed, head.len());
            request
        }
        other => panic!("{head:?} is a whole head, not {other:?}"),
    }
}

/// The verdict on the golden request with one line of it replaced.
fn with_line(line: &str, replacement: &str) -> Result<Upgrade, Refusal> {
    assert!(GOLDEN.contains(line), "{line}");
    accept_upgrade(&request(&GOLDEN.replace(line, replacement)), &SUPPORTED)
}

/// Status and headers of a response, names in lower case, and the body.
fn read_response(bytes: &[u8]) -> (u16, Vec<(String, String)>, String) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(bytes).expect("the response is HTTP");
    let head_bytes = status.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the response is text");
    let headers = response.headers.iter().map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect();
    (response.code.expect("it is whole"), headers, text(&bytes[head_bytes..]))
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
}

#[test]
fn the_handshake_of_section_1_3_is_answered_as_there() {
    let accepted = accept_upgrade(&request(GOLDEN), &Supported::plain(&["superchat", "chat"]))
        .expect("the RFC's own request is good");
    assert_eq!(accepted.protocol.as_deref(), Some("chat"), "the client's order decides");
    let (status, headers, body) = read_response(&accepted.response);
    assert_eq!(status, 101);
    assert!(accepted.response.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(header(&headers, "upgrade"), Some("websocket"));
    assert_eq!(header(&headers, "connection"), Some("Upgrade"));
    assert_eq!(header(&headers, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(header(&headers, "sec-websocket-protocol"), Some("chat"));
    assert_eq!(headers.len(), 4);
    assert_eq!(body, "");
}

#[test]
fn a_head_is_partial_until_its_last_byte_and_what_follows_is_left() {
    for cut in 0..GOLDEN.len() {
        assert!(matches!(parse_head(&GOLDEN.as_bytes()[..cut], &LIMITS), Ok(RequestHead::Partial)), "cut at {cut}");
    }
    let with_tail = [GOLDEN.as_bytes(), b"\x81\x80first frame"].concat();
    let Ok(RequestHead::Complete { consumed, request }) = parse_head(&with_tail, &LIMITS) else {
        panic!("the head is whole")
    };
    assert_eq!(consumed, GOLDEN.len());
    assert_eq!(request.headers().len(), 7);
}

#[test]
fn the_target_keeps_its_query() {
    let request = request("GET /v1/stream?token=a%20b&x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(request.uri().path(), "/v1/stream");
    assert_eq!(request.uri().query(), Some("token=a%20b&x=1"));
}

#[test]
fn lists_repeated_lines_and_any_case_are_good() {
    for (line, replacement) in [
        ("Connection: Upgrade\r\n", "Connection: keep-alive, Upgrade\r\n"),
        ("Connection: Upgrade\r\n", "connection: keep-alive\r\nCONNECTION:uPGRADE\r\n"),
        ("Connection: Upgrade\r\n", "Connection: keep-alive ,\tupgrade , \r\n"),
        ("Upgrade: websocket\r\n", "UPGRADE: WebSocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c, websocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        ("Origin: http://example.com\r\n", ""),
        ("Origin: http://example.com\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        ("Origin: http://example.com\r\n", "Content-Length: 0\r\n"),
        ("GET /chat ", "GET http://server.example.com/chat "),
    ] {
        let accepted = with_line(line, replacement).unwrap_or_else(|refusal| panic!("{replacement:?}: {refusal}"));
        let (status, headers, _) = read_response(&accepted.response);
        assert_eq!((status, header(&headers, "sec-websocket-extensions")), (101, None));
    }
}

#[test]
fn the_subprotocol_is_the_first_of_the_clients_that_is_spoken() {
    for (offered, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: tickcast.v1\r\n", Some("tickcast.v1")),
        ("Sec-WebSocket-Protocol: v9, tickcast.v1+json, tickcast.v1\r\n", Some("tickcast.v1+json")),
        ("Sec-WebSocket-Protocol: v9\r\nSec-WebSocket-Protocol: tickcast.v1\r\n", Some("tickcast.v1")),
        ("Sec-WebSocket-Protocol: v9,,TICKCAST.V1, tickcast\r\n", None),
        ("SEC-websocket-PROTOCOL: ,tickcast.v1+json ,\r\n", Some("tickcast.v1+json")),
    ] {
        let accepted = with_line("Sec-WebSocket-Protocol: chat, superchat\r\n", offered).expect("it is no fault");
        assert_eq!(accepted.protocol.as_deref(), chosen, "{offered:?}");
        let (_, headers, _) = read_response(&accepted.response);
        assert_eq!(header(&headers, "sec-websocket-protocol"), chosen, "{offered:?}");
    }
}

#[test]
fn deflate_is_agreed_on_where_it_is_spoken_and_offered() {
    let spoken = Supported { deflate: true, ..SUPPORTED };
    let origin = "Origin: http://example.com\r\n";
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, response) in [
        ("permessage-deflate", Some(agreed.to_owned())),
        ("permessage-deflate; server_max_window_bits=9", Some(format!("{agreed}; server_max_window_bits=9"))),
        ("foo, permessage-deflate; bar\r\nsec-websocket-extensions: permessage-deflate", Some(agreed.to_owned())),
        ("foo; bar=\"baz\"", None),
    ] {
        let head = GOLDEN.replace(origin, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        let accepted =
            accept_upgrade(&request(&head), &spoken).unwrap_or_else(|refusal| panic!("{offer:?}: {refusal}"));
        let (_, headers, _) = read_response(&accepted.response);
        assert_eq!(header(&headers, "sec-websocket-extensions"), response.as_deref(), "{offer:?}");
        assert_eq!(accepted.deflate.is_some(), response.is_some());
        let plain = accept_upgrade(&request(&head), &SUPPORTED).expect("an offer is no fault where it is not spoken");
        assert_eq!(plain.deflate, None);
    }
}

#[test]
fn each_fault_names_the_header_what_was_given_and_what_would_be_right() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let wanted = "16 random bytes in base64, once";
    for (line, replacement, status, message) in [
        ("GET", "POST", 405, "method \"POST\": expected GET to open a WebSocket"),
        ("HTTP/1.1", "HTTP/1.0", 400, "version HTTP/1.0: expected HTTP/1.1 to open a WebSocket"),
        ("Host: server.example.com\r\n", "", 400, "Host: missing: expected the server's name, once"),
        (
            "Host:",
            "Host: a\r\nHost:",
            400,
            "Host: invalid value \"a\" and \"server.example.com\": expected the server's name, once",
        ),
        ("Upgrade: websocket\r\n", "", 400, "Upgrade: missing: expected websocket"),
        (
            "Upgrade: websocket\r\n",
            "Upgrade: websockets\r\n",
            400,
            "Upgrade: invalid value \"websockets\": expected websocket",
        ),
        ("Connection: Upgrade\r\n", "", 400, "Connection: missing: expected Upgrade"),
        ("Connection: Upgrade", "Connection: close", 400, "Connection: invalid value \"close\": expected Upgrade"),
        ("Version: 13", "Version: 8", 426, "Sec-WebSocket-Version: invalid value \"8\": expected 13"),
        ("Version: 13", "Version: 13, 8", 426, "Sec-WebSocket-Version: invalid value \"13, 8\": expected 13"),
        ("Sec-WebSocket-Version: 13\r\n", "", 426, "Sec-WebSocket-Version: missing: expected 13"),
        (
            "Sec-WebSocket-Version: 13\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n",
            400,
            "Sec-WebSocket-Version: invalid value \"13\" and \"13\": expected 13, once",
        ),
        (key, "", 400, &format!("Sec-WebSocket-Key: missing: expected {wanted}")),
        (
            key,
            &key.repeat(2),
            400,
            &format!(
                "Sec-WebSocket-Key: invalid value \"dGhlIHNhbXBsZSBub25jZQ==\" and \"dGhlIHNhbXBsZSBub25jZQ==\": expected {wanted}"
            ),
        ),
        (
            "dGhlIHNhbXBsZSBub25jZQ==",
            "c2hvcnQ=",
            400,
            &format!("Sec-WebSocket-Key: invalid value \"c2hvcnQ=\": expected {wanted}"),
        ),
        (
            "dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25j!!==",
            400,
            &format!("Sec-WebSocket-Key: invalid value \"dGhlIHNhbXBsZSBub25j!!==\": expected {wanted}"),
        ),
    ] {
        let refusal = with_line(line, replacement).expect_err(message);
        assert_eq!((refusal.status, &refusal.message[..]), (status, message));
    }
}

#[test]
fn lists_that_break_their_grammar_and_bodies_are_faults() {
    for (line, replacement, status, message) in [
        (
            "chat, superchat",
            "chat, super chat",
            400,
            "Sec-WebSocket-Protocol: invalid value \"chat, super chat\": expected names without spaces and separators, each once",
        ),
        (
            "chat, superchat",
            "chat\r\nSec-WebSocket-Protocol: chat",
            400,
            "Sec-WebSocket-Protocol: invalid value \"chat\" and \"chat\": expected names without spaces and separators, each once",
        ),
        (
            "Origin: http://example.com",
            "Sec-WebSocket-Extensions: permessage-deflate; a=",
            400,
            "Sec-WebSocket-Extensions: invalid value \"permessage-deflate; a=\": expected a list of extensions, but it breaks the grammar \
             at byte 22 (RFC 6455 section 9.1)",
        ),
        (
            "Origin: http://example.com",
            "Content-Length: 5",
            400,
            "Content-Length: invalid value \"5\": expected no body",
        ),
        (
            "Origin: http://example.com",
            "Transfer-Encoding: chunked",
            400,
            "Transfer-Encoding: invalid value \"chunked\": expected no body",
        ),
    ] {
        let refusal = with_line(line, replacement).expect_err(message);
        assert_eq!((refusal.status, &refusal.message[..]), (status, message));
    }
}

#[test]
fn a_refusal_is_an_http_answer_with_a_json_body() {
    for (line, replacement, name, value) in
        [("Version: 13", "Version: \"8\"", "sec-websocket-version", "13"), ("GET", "PUT", "allow", "GET")]
    {
        let refusal = with_line(line, replacement).expect_err("it is a fault");
        let (status, headers, body) = read_response(&refusal.response());
        assert_eq!(status, refusal.status);
        assert_eq!(header(&headers, name), Some(value));
        assert_eq!(header(&headers, "connection"), Some("close"));
        assert_eq!(header(&headers, "content-type"), Some("application/json"));
        assert_eq!(header(&headers, "content-length"), Some(&body.len().to_string()[..]));
        let body: serde_json::Value = serde_json::from_str(&body).expect("the body is JSON");
        assert_eq!(body, serde_json::json!({"error": {"code": refusal.code, "message": refusal.message}}));
    }
}

#[test]
fn what_is_not_http_is_refused_at_once() {
    let cases: [(&[u8], u16, &str); 29] = [
        (b"\x16\x03\x01\x02\x00\x01", 400, "TLS"),
        (b"\x00\x01\x02", 400, "request head"),
        (b"GET / HTTP/1.1\r\nno colon here\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n", 400, "request head"),
        // Folded lines, which HTTP/1.1 has given up (RFC 9112 section 5.2).
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400, "request head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
        (b"GET \"\" HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
        // Whitespace before the colon, which a proxy may read as part of the name (RFC 9112 section 5.1).
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\r\nHost\t: x\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400, "request head"),
        // A CR alone and a NUL (RFC 9110 section 5.5).
        (b"GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\rHost: x\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n", 400, "request head"),
        (b"G\x00T / HTTP/1.1\r\n\r\n", 400, "request head"),
        (b"G(T / HTTP/1.1\r\n\r\n", 400, "request head"),
        (b"GET /\r\n\r\n", 400, "request head"),
        (b"GET  / HTTP/1.1\r\n\r\n", 400, "request"),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400, "request head"),
        (b"GET / http/1.1\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/1.x\r\n\r\n", 400, "request head"),
        (b"GET / HTTPS/1.1\r\n\r\n", 400, "request head"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, "HTTP/1.1"),
        (b"GET / HTTP/1.2\r\n\r\n", 505, "HTTP/1.1"),
        // Forms of a target that belong to other methods and schemes (RFC 9112 section 3.2).
        (b"GET here:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
        (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
        (b"GET http://user@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
        (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request target"),
    ];
    for (bytes, status, named) in cases {
        let refusal = parse_head(bytes, &LIMITS).expect_err("it is not HTTP");
        assert_eq!(refusal.status, status, "{refusal}");
        assert!(refusal.message.contains(named), "{refusal}");
    }
}

#[test]
fn each_method_has_its_forms_of_a_target() {
    for (line, path) in [
        ("GET /a?b", "/a"),
        ("GET http://x:80/a", "/a"),
        ("GET https://x", "/"),
        ("OPTIONS *", "*"),
        ("CONNECT x:80", ""),
        ("GET //x/a", "//x/a"),
    ] {
        assert_eq!(request(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).uri().path(), path, "{line}");
    }
}

#[test]
fn a_head_over_a_limit_is_refused_with_431() {
    let limits = HeadLimits { head_bytes_max: 100, headers_max: 3 };
    let endless = [b"GET / HTTP/1.1\r\nX: ", &[b'a'; 1000][..]].concat();
    assert!(matches!(parse_head(&endless[..99], &limits), Ok(RequestHead::Partial)));
    assert_eq!(parse_head(&endless[..100], &limits).expect_err("it is full").status, 431);
    assert_eq!(parse_head(&endless, &limits).expect_err("it is over").status, 431);
    // A whole head is judged by its own length, not by what came behind it.
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100 - 23));
    assert_eq!(head.len(), 100);
    let with_tail = [head.as_bytes(), &[0x81; 50]].concat();
    assert!(matches!(parse_head(&with_tail, &limits), Ok(RequestHead::Complete { consumed: 100, .. })));
    let one_more = head.replace("X: ", "X: a");
    assert_eq!(parse_head(one_more.as_bytes(), &limits).expect_err("it is over").status, 431);
    let line = [b"GET /", &[b'a'; 1000][..]].concat();
    let refusal = parse_head(&line, &limits).expect_err("a target over the limit");
    assert_eq!((refusal.status, refusal.code), (414, "uri_too_long"));
    let far = HeadLimits { head_bytes_max: 1 << 20, headers_max: 3 };
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    assert_eq!(parse_head(line.as_bytes(), &far).expect_err("a target that no URI is").status, 414);
    let refusal =
        parse_head(b"GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n", &limits).expect_err("4 headers");
    assert_eq!((refusal.status, refusal.code), (431, "head_too_large"));
}

#[test]
fn a_long_or_odd_value_is_quoted_short_and_escaped() {
    let long = format!("Connection: {}é\r\n", "é".repeat(500));
    let refusal = with_line("Connection: Upgrade\r\n", &long).expect_err("it is no upgrade");
    assert!(refusal.message.chars().count() < 150, "{refusal}");
    let refusal = with_line("Upgrade: websocket", "Upgrade: \u{ff}\t\"x\"").expect_err("it is no upgrade");
    assert!(refusal.message.contains(r#"\t\"x\""#), "{refusal}");
}

proptest! {
    #[test]
    fn noise_never_panics_in_parse_or_verdict(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(parse_head(&noise, &LIMITS));
    }

    #[test]
    fn a_damaged_handshake_never_panics_and_is_never_answered_with_half_an_answer(
        place in 0..GOLDEN.len(),
        byte in any::<u8>(),
        inserted in "[-:, \\r\\na-z\"]{0,6}",
    ) {
        let mut head = GOLDEN.as_bytes().to_vec();
        head[place] = byte;
        head.splice(place..place, inserted.bytes());
        match parse_head(&head, &LIMITS) {
            Ok(RequestHead::Complete { request, .. }) => match accept_upgrade(&request, &SUPPORTED) {
                Ok(accepted) => prop_assert_eq!(read_response(&accepted.response).0, 101),
                Err(refusal) => prop_assert_eq!(read_response(&refusal.response()).0, refusal.status),
            },
            Ok(RequestHead::Partial) => {}
            Err(refusal) => prop_assert_eq!(read_response(&refusal.response()).0, refusal.status),
        }
    }
}
