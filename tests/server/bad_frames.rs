//! Bad frames and bad requests of subscribers. A bad frame closes the connection with the code of its rule. A bad request
//! gets an `error`, and the connection stays. Other clients are not disturbed.

use serde_json::json;
use tickcast_test_support::client::{Received, masked_frame};
use tickcast_test_support::server::WatchedServer;
use tungstenite::Message;

#[test]
fn a_bad_frame_closes_with_the_code_of_its_rule() {
    let mut watched = WatchedServer::start(&[]);
    let long_ping = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], &[b'x'; 126][..]].concat();
    for (bytes, code, parts) in [
        (vec![0x81, 2, b'{', b'}'], 1002, "not masked"),
        (masked_frame(0x83, b""), 1002, "opcode 0x3 is reserved"),
        (masked_frame(0x8b, b""), 1002, "opcode 0xb is reserved"),
        (masked_frame(0xc1, b"{}"), 1002, "reserved bits"),
        (masked_frame(0x91, b"{}"), 1002, "reserved bits"),
        (long_ping, 1002, "more than 125 bytes"),
        (masked_frame(0x09, b"part of a ping"), 1002, "fragmented"),
        (masked_frame(0x80, b"no start"), 1002, "continues no message"),
        ([masked_frame(0x01, b"{"), masked_frame(0x81, b"{}")].concat(), 1002, "inside a fragmented one"),
        (vec![0x81, 0xfe, 0, 2, 0, 0, 0, 0, b'{', b'}'], 1002, "minimal"),
        (masked_frame(0x81, b"\xff\xfe"), 1007, "UTF-8"),
        ([masked_frame(0x01, b"\xe2\x82"), masked_frame(0x80, b"\x28")].concat(), 1007, "UTF-8"),
        (masked_frame(0x88, b"\x03"), 1002, "body of 1 byte"),
        (masked_frame(0x88, &1005u16.to_be_bytes()), 1002, "1005"),
        (masked_frame(0x88, b"\x03\xe8\xff"), 1007, "UTF-8"),
    ] {
        let mut client = watched.server.client();
        client.ping();
        client.send_bytes(&bytes);
        client.expect_close(code, &[parts]);
        watched.assert_undisturbed();
    }
    watched.server.wait_for_metric("tickcast_violations_total", |count| count == 15);
}

#[test]
fn bytes_after_a_bad_frame_are_ignored() {
    let mut watched = WatchedServer::start(&[]);
    let mut client = watched.server.client();
    let ping = masked_frame(0x81, br#"{"op":"ping","id":1}"#);
    client.send_bytes(&[masked_frame(0x83, b""), ping.repeat(100)].concat());
    assert!(matches!(client.receive(), Received::Close(1002, _)), "the next message is the close");
    watched.assert_undisturbed();
}

#[test]
fn a_message_over_the_limit_closes_with_1009() {
    let mut watched = WatchedServer::start(&["--request-bytes-max", "4096"]);
    let request = r#"{"op":"ping","id":1}"#;
    let longest = format!("{request}{}", " ".repeat(4096 - request.len()));
    let mut client = watched.server.client();
    client.send_text(&longest);
    assert_eq!(client.reply()["type"], "pong", "a message of exactly the limit is accepted");
    client.send_text(&format!("{longest} "));
    client.expect_close(1009, &["4097 bytes", "4096"]);

    let mut fragmented = watched.server.client();
    fragmented.send_bytes(&masked_frame(0x01, &[b' '; 4000]));
    fragmented.send_bytes(&masked_frame(0x00, &[b' '; 97]));
    fragmented.expect_close(1009, &["4097 bytes", "4096"]);

    // The header alone is refused: the server does not wait for eight exabytes.
    let mut announced = watched.server.client();
    announced.send_bytes(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    announced.expect_close(1009, &["4096"]);
    watched.assert_undisturbed();
}

#[test]
fn a_bad_request_gets_an_error_that_names_the_field() {
    let mut watched = WatchedServer::start(&[]);
    let mut client = watched.server.client();
    for (text, id, parts) in [
        ("{", None, &["JSON"][..]),
        ("", None, &["JSON"]),
        ("[]", None, &["request", "object"]),
        (r#"{"op":"ping","id":null}"#, None, &["id: invalid value null", "whole number"]),
        (r#"{"op":"ping","id":3,"x":1}"#, Some(3), &["\"x\": unknown field", "op, id"]),
        (r#"{"op":"ping","id":-1}"#, None, &["id: invalid value -1"]),
        (r#"{"op":"ping","id":"1"}"#, None, &["id: invalid value \"1\""]),
        (r#"{"id":4}"#, Some(4), &["op: missing", "subscribe, unsubscribe, resume, ping or auth"]),
        (r#"{"op":"buy","id":5}"#, Some(5), &["op: unknown op \"buy\"", "subscribe"]),
        (r#"{"op":"subscribe","id":6,"channels":["quotes"],"symbols":["*"]}"#, Some(6), &["channels", "quotes", "raw"]),
        (r#"{"op":"subscribe","id":7,"symbols":["*"]}"#, Some(7), &["channels: missing"]),
        (r#"{"op":"subscribe","id":8,"channels":["quote"]}"#, Some(8), &["symbols: missing"]),
        (r#"{"op":"subscribe","id":9,"channels":["quote"],"symbols":["A*B"]}"#, Some(9), &["symbols[0]"]),
        (r#"{"op":"subscribe","id":10,"channels":["quote"],"symbols":[]}"#, Some(10), &["symbols: empty"]),
        (
            r#"{"op":"subscribe","id":11,"channels":["quote"],"symbols":["*"],"conflate_ms":5000}"#,
            Some(11),
            &["conflate_ms: 5000", "1000"],
        ),
        (r#"{"op":"resume","id":12,"channels":["quote"],"symbols":["*"]}"#, Some(12), &["epoch: missing"]),
    ] {
        client.send_and_expect_error(text, id, "bad_request", parts);
        client.ping();
    }
    watched.assert_undisturbed();
}

#[test]
fn a_binary_frame_of_a_subscriber_gets_an_error() {
    let mut watched = WatchedServer::start(&[]);
    let mut client = watched.server.client();
    client.send(Message::binary(vec![1, 2, 3]));
    client.expect_error(None, "bad_request", &["/v1/publish", "text frames"]);
    client.ping();
    watched.assert_undisturbed();
}

#[test]
fn subscriptions_over_the_limit_are_refused_with_numbers() {
    let mut watched = WatchedServer::start(&[]);
    let subscribe = |symbols: Vec<String>, channels: &[&str]| {
        json!({"op": "subscribe", "id": 3, "channels": channels, "symbols": symbols}).to_string()
    };
    let names = |count: usize, star: &str| (0..count).map(|nth| format!("S{nth:05}{star}")).collect::<Vec<_>>();
    let mut client = watched.server.client();
    let request = subscribe(names(20_000, ""), &["quote"]);
    assert!(request.len() < 256 << 10, "{} bytes are within the limit of a message", request.len());
    client.send_and_expect_error(&request, Some(3), "limit", &["symbols: 20000", "at most 10000"]);
    client.ping();
    let patterns = subscribe(names(3000, "*"), &["quote", "trade", "ticker", "book", "raw"]);
    client.send_and_expect_error(&patterns, Some(3), "limit", &["symbols: 15000", "at most 10000"]);
    client.ping();
    watched.assert_undisturbed();
    // A refused request leaves nothing behind: the same client may still hold as many as the limit.
    client.send_text(&subscribe(names(2000, "*"), &["quote", "trade", "ticker", "book", "raw"]));
    assert_eq!(client.reply()["type"], "subscribed");
    client.send_and_expect_error(
        &subscribe(vec!["*".to_owned()], &["quote"]),
        Some(3),
        "limit",
        &["10001", "at most 10000"],
    );
    client.ping();
    watched.assert_undisturbed();
}

#[test]
fn a_subscribe_request_over_the_byte_limit_closes_with_1009() {
    let mut watched = WatchedServer::start(&["--request-bytes-max", "65536"]);
    let names: Vec<_> = (0..100_000).map(|nth| format!("S{nth:05}")).collect();
    let request = json!({"op": "subscribe", "id": 3, "channels": ["quote"], "symbols": names}).to_string();
    let mut client = watched.server.client();
    client.send_bytes(&masked_frame(0x81, request.as_bytes()));
    client.expect_close(1009, &["65536"]);
    watched.assert_undisturbed();
}

#[test]
fn a_flood_of_requests_closes_with_1008() {
    let mut watched = WatchedServer::start(&["--requests-per-s", "10"]);
    for flood in
        [masked_frame(0x81, br#"{"op":"ping","id":1}"#), masked_frame(0x89, b"x"), masked_frame(0x81, b"nonsense")]
    {
        let mut client = watched.server.client();
        client.send_bytes(&flood.repeat(1000));
        client.expect_close(1008, &["more than 10 requests a second"]);
    }
    watched.assert_undisturbed();
    watched.server.wait_for_metric("tickcast_floods_total", |count| count == 3);
}

#[test]
fn subscribers_that_disconnect_within_a_frame_leave_nothing_behind() {
    let mut watched = WatchedServer::start(&[]);
    for _ in 0..20 {
        let mut client = watched.server.client();
        client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","book"],"symbols":["*"]}"#);
        client.send_bytes(&masked_frame(0x81, b"half")[..5]);
    }
    watched.server.wait_for_metric("tickcast_clients", |count| count == 1);
    watched.assert_undisturbed();
}
