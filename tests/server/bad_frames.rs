//! Bad frames and bad requests of subscribers: a broken frame ends the connection with the right code, a bad request
//! gets an `error` and leaves the connection as it was, and nobody else notices.

use serde_json::json;
use tickcast_test_support::client::{Received, masked_frame};
use tickcast_test_support::server::WatchedServer;
use tungstenite::Message;

#[test]
fn a_broken_frame_is_closed_with_the_code_of_its_rule() {
    let mut scene = WatchedServer::start(&[]);
    let long_ping = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], &[b'x'; 126][..]].concat();
    for (bytes, code, said) in [
        (vec![0x81, 2, b'{', b'}'], 1002, "not masked"),
        (masked_frame(0x83, b""), 1002, "opcode 0x3 is reserved"),
        (masked_frame(0x8b, b""), 1002, "opcode 0xb is reserved"),
        (masked_frame(0xc1, b"{}"), 1002, "reserved bits"),
        (masked_frame(0x91, b"{}"), 1002, "reserved bits"),
        (long_ping, 1002, "more than 125 bytes"),
        (masked_frame(0x09, b"half a ping"), 1002, "fragmented"),
        (masked_frame(0x80, b"of what?"), 1002, "continues no message"),
        ([masked_frame(0x01, b"{"), masked_frame(0x81, b"{}")].concat(), 1002, "inside a fragmented one"),
        (vec![0x81, 0xfe, 0, 2, 0, 0, 0, 0, b'{', b'}'], 1002, "minimal"),
        (masked_frame(0x81, b"\xff\xfe"), 1007, "UTF-8"),
        ([masked_frame(0x01, b"\xe2\x82"), masked_frame(0x80, b"\x28")].concat(), 1007, "UTF-8"),
        (masked_frame(0x88, b"\x03"), 1002, "body of 1 byte"),
        (masked_frame(0x88, &1005u16.to_be_bytes()), 1002, "1005"),
        (masked_frame(0x88, b"\x03\xe8\xff"), 1007, "UTF-8"),
    ] {
        let mut client = scene.server.client();
        client.ping();
        client.send_bytes(&bytes);
        client.expect_close(code, &[said]);
        scene.assert_undisturbed();
    }
    scene.server.wait_for_metric("tickcast_violations_total", |count| count == 15);
}

#[test]
fn bytes_after_a_broken_frame_are_not_obeyed() {
    let mut scene = WatchedServer::start(&[]);
    let mut client = scene.server.client();
    let ping = masked_frame(0x81, br#"{"op":"ping","id":1}"#);
    client.send_bytes(&[masked_frame(0x83, b""), ping.repeat(100)].concat());
    assert!(matches!(client.receive(), Received::Close(1002, _)), "the next thing that comes is the close");
    scene.assert_undisturbed();
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009() {
    let mut scene = WatchedServer::start(&["--request-bytes-max", "4096"]);
    let most = format!(r#"{{"op":"ping","id":1,"x":"{}"}}"#, "x".repeat(4096 - 30));
    let most = format!("{most}{}", " ".repeat(4096 - most.len()));
    let mut client = scene.server.client();
    client.send_text(&most);
    assert_eq!(client.reply()["type"], "pong", "a message of just the limit is taken");
    client.send_text(&format!("{most} "));
    client.expect_close(1009, &["4097 bytes", "4096"]);

    let mut in_parts = scene.server.client();
    in_parts.send_bytes(&masked_frame(0x01, &[b' '; 4000]));
    in_parts.send_bytes(&masked_frame(0x00, &[b' '; 97]));
    in_parts.expect_close(1009, &["4097 bytes", "4096"]);

    // Refused by its header: the eight exabytes are not awaited.
    let mut announced = scene.server.client();
    announced.send_bytes(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    announced.expect_close(1009, &["4096"]);
    scene.assert_undisturbed();
}

#[test]
fn a_bad_request_names_the_field_and_the_connection_stays() {
    let mut scene = WatchedServer::start(&[]);
    let mut client = scene.server.client();
    for (text, id, said) in [
        ("{", None, &["JSON"][..]),
        ("", None, &["JSON"]),
        ("[]", None, &["request", "object"]),
        (r#"{"op":"ping"}"#, None, &["id: missing", "whole number"]),
        (r#"{"op":"ping","id":-1}"#, None, &["id: given -1"]),
        (r#"{"op":"ping","id":"1"}"#, None, &["id: given \"1\""]),
        (r#"{"id":4}"#, Some(4), &["op: missing", "subscribe, unsubscribe, resume, ping"]),
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
        client.send_and_expect_error(text, id, "bad_request", said);
        client.ping();
    }
    scene.assert_undisturbed();
}

#[test]
fn a_binary_frame_of_a_subscriber_is_answered_with_an_error() {
    let mut scene = WatchedServer::start(&[]);
    let mut client = scene.server.client();
    client.send(Message::binary(vec![1, 2, 3]));
    client.expect_error(None, "bad_request", &["/v1/publish", "text frames"]);
    client.ping();
    scene.assert_undisturbed();
}

#[test]
fn a_hundred_thousand_subscriptions_are_refused_with_numbers() {
    let mut scene = WatchedServer::start(&[]);
    let subscribe = |symbols: Vec<String>, channels: &[&str]| {
        json!({"op": "subscribe", "id": 3, "channels": channels, "symbols": symbols}).to_string()
    };
    let names = |count: usize, star: &str| (0..count).map(|nth| format!("S{nth:05}{star}")).collect::<Vec<_>>();
    let mut client = scene.server.client();
    let request = subscribe(names(100_000, ""), &["quote"]);
    assert!(request.len() < 1 << 20, "within the limit of a message, {} bytes", request.len());
    client.send_and_expect_error(&request, Some(3), "limit", &["symbols: 100000", "at most 10000"]);
    client.ping();
    let patterns = subscribe(names(3000, "*"), &["quote", "trade", "ticker", "book", "raw"]);
    client.send_and_expect_error(&patterns, Some(3), "limit", &["symbols: 15000", "at most 10000"]);
    client.ping();
    scene.assert_undisturbed();
    // What was refused counts for nothing: the same client may take as many as there may be.
    client.send_text(&subscribe(names(2000, "*"), &["quote", "trade", "ticker", "book", "raw"]));
    assert_eq!(client.reply()["type"], "subscribed");
    client.send_and_expect_error(
        &subscribe(vec!["*".to_owned()], &["quote"]),
        Some(3),
        "limit",
        &["10001", "at most 10000"],
    );
    client.ping();
    scene.assert_undisturbed();
}

#[test]
fn a_hundred_thousand_subscriptions_over_the_bytes_are_closed_with_1009() {
    let mut scene = WatchedServer::start(&["--request-bytes-max", "65536"]);
    let names: Vec<_> = (0..100_000).map(|nth| format!("S{nth:05}")).collect();
    let request = json!({"op": "subscribe", "id": 3, "channels": ["quote"], "symbols": names}).to_string();
    let mut client = scene.server.client();
    client.send_bytes(&masked_frame(0x81, request.as_bytes()));
    client.expect_close(1009, &["65536"]);
    scene.assert_undisturbed();
}

#[test]
fn a_flood_of_requests_is_closed_with_1008() {
    let mut scene = WatchedServer::start(&["--requests-per-s", "10"]);
    for flood in
        [masked_frame(0x81, br#"{"op":"ping","id":1}"#), masked_frame(0x89, b"x"), masked_frame(0x81, b"nonsense")]
    {
        let mut client = scene.server.client();
        client.send_bytes(&flood.repeat(1000));
        client.expect_close(1008, &["more than 10 requests a second"]);
    }
    scene.assert_undisturbed();
    scene.server.wait_for_metric("tickcast_floods_total", |count| count == 3);
}

#[test]
fn a_subscriber_that_goes_without_a_word_is_no_trouble() {
    let mut scene = WatchedServer::start(&[]);
    for _ in 0..20 {
        let mut client = scene.server.client();
        client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","book"],"symbols":["*"]}"#);
        client.send_bytes(&masked_frame(0x81, b"half")[..5]);
    }
    scene.server.wait_for_metric("tickcast_clients", |count| count == 1);
    scene.assert_undisturbed();
}
