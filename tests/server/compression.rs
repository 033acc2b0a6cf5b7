//! permessage-deflate: negotiation, the compressed stream that subscribers share, compressed requests and publishers, and
//! inflation bombs.

use serde_json::{Value, json};
use tickcast_test_support::client::{Client, Received, Subscriber, masked_frame};
use tickcast_test_support::deflate::deflate;
use tickcast_test_support::http;
use tickcast_test_support::server::{Server, WatchedServer};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// FIN, RSV1, text.
const COMPRESSED_TEXT: u8 = 0xc1;
const COMPRESSED_BINARY: u8 = 0xc2;

fn compressed(server: &Server, offer: &str) -> Client {
    let (accepted, mut client) = Client::connect_deflate(server.address, "/v1/stream", offer);
    assert!(accepted.starts_with(ACCEPTED), "{accepted}");
    assert_eq!(client.reply()["type"], "welcome");
    client
}

#[test]
fn compression_is_off_by_default_but_for_the_echo() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--enable-echo"]);
    let (accepted, mut client) = Client::connect_deflate(server.address, "/v1/stream", OFFER);
    assert_eq!(accepted, "");
    client.send_bytes(&masked_frame(COMPRESSED_TEXT, &deflate(br#"{"op":"ping","id":1}"#)));
    client.expect_close(1002, &["reserved bits 0x40"]);
    assert_eq!(Client::connect_deflate(server.address, "/v1/publish?token=test-publish-token", OFFER).0, "");
    let (accepted, mut echo) = Client::connect_deflate(server.address, "/v1/echo", OFFER);
    assert_eq!(accepted, ACCEPTED);
    let text = "repeated ".repeat(50);
    echo.send_bytes(&masked_frame(COMPRESSED_TEXT, &deflate(text.as_bytes())));
    let Received::Text(echoed) = echo.receive() else { panic!("an echo is text") };
    assert_eq!((echoed, echo.inflated().compressed_frames), (text, 1), "unchanged, and compressed");
}

#[test]
fn the_first_valid_offer_is_accepted() {
    let server = Server::start(&["--feed", "none", "--compression", "1"]);
    let with = |bits: u8| format!("{ACCEPTED}; server_max_window_bits={bits}");
    for (offer, accepted) in [
        ("permessage-deflate; server_max_window_bits=8", with(8)),
        ("permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=12", with(12)),
        ("permessage-deflate; what=ever", String::new()),
        ("x-webkit-deflate-frame", String::new()),
    ] {
        let (given, mut client) = Client::connect_deflate(server.address, "/v1/stream", offer);
        assert_eq!(given, accepted, "{offer}");
        assert_eq!(client.reply()["type"], "welcome");
        client.ping();
    }
    let broken =
        http::upgrade_request("/v1/stream").replacen("\r\n\r\n", "\r\nSec-WebSocket-Extensions: a; =\r\n\r\n", 1);
    let response = http::send_request(server.address, broken.as_bytes());
    response.assert_refusal(400, "malformed_upgrade", &["Sec-WebSocket-Extensions", "byte 3"]);
}

#[test]
fn compressed_subscribers_receive_every_record() {
    // Trades are never merged, however late a subscriber is served.
    let market = "sim:instruments=50,rate=20000,seed=3";
    let server = Server::start(&["--feed", market, "--compression", "1"]);
    let channels = ["trade"];
    let mut small =
        Subscriber::subscribe(compressed(&server, "permessage-deflate; server_max_window_bits=8"), &channels, &["*"]);
    let mut others: Vec<_> =
        (0..3).map(|_| Subscriber::subscribe(compressed(&server, OFFER), &channels, &["*"])).collect();
    let mut plain = server.subscriber(&channels, &["*"]);
    for subscriber in others.iter_mut().chain([&mut small, &mut plain]) {
        subscriber.records(5000);
        subscriber.ping();
    }
    assert_eq!(plain.client().inflated().compressed_frames, 0, "without an offer frames are plain");
    for subscriber in others.iter().chain([&small]) {
        let counts = subscriber.client().inflated();
        assert!(counts.compressed_frames > 0 && counts.received_bytes < counts.inflated_bytes, "{counts:?}");
    }
    let sum = |family: &str| server.metric_values(family).iter().sum::<u64>();
    server.wait_for_metric("tickcast_compressed_total", |packets| packets > 0);
    assert!(sum("tickcast_compressed_bytes_after_total") < sum("tickcast_compressed_bytes_before_total"));
}

#[test]
fn requests_may_be_compressed_and_fragmented() {
    let mut watched = WatchedServer::start(&["--compression", "6"]);
    let mut client = compressed(&watched.server, OFFER);
    let request =
        json!({"op": "subscribe", "id": 9, "channels": ["quote"], "symbols": vec!["NO-SUCH"; 500]}).to_string();
    let packed = deflate(request.as_bytes());
    let (one, two) = packed.split_at(packed.len() / 2);
    let stream = [masked_frame(0x41, one), masked_frame(0x89, b"between"), masked_frame(0x80, two)].concat();
    for byte in &stream {
        client.send_bytes(&[*byte]);
    }
    assert!(matches!(client.receive(), Received::Pong(payload) if payload == b"between"));
    let reply = client.reply();
    assert_eq!((&reply["type"], &reply["id"]), (&json!("subscribed"), &json!(9)), "{reply}");
    client.ping();
    watched.assert_undisturbed();
}

#[test]
fn an_inflation_bomb_closes_with_1009() {
    let mut watched =
        WatchedServer::start(&["--compression", "1", "--request-bytes-max", "100000", "--inflate-ratio-max", "20"]);
    let bomb = |bytes: usize| masked_frame(COMPRESSED_TEXT, &deflate(&vec![b' '; bytes]));
    let mut within = compressed(&watched.server, OFFER);
    within.send_bytes(&bomb(60_000));
    within.expect_error(None, "bad_request", &["JSON"]);
    within.send_bytes(&bomb(90_000));
    within.expect_close(1009, &["more than 20 times"]);
    let mut large = compressed(&watched.server, OFFER);
    large.send_bytes(&bomb(20_000_000));
    large.expect_close(1009, &["more than the limit of 100000 bytes"]);
    let mut broken = compressed(&watched.server, OFFER);
    broken.send_bytes(&masked_frame(COMPRESSED_TEXT, b"this is no DEFLATE"));
    broken.expect_close(1007, &["DEFLATE"]);
    let mut misplaced = compressed(&watched.server, OFFER);
    misplaced.send_bytes(&masked_frame(0xc9, b"ping"));
    misplaced.expect_close(1002, &["RSV1"]);
    watched.server.wait_for_metric("tickcast_violations_total", |count| count == 4);
    watched.server.wait_for_metric("tickcast_inflated_too_far_total", |count| count == 2);
    watched.assert_undisturbed();
}

#[test]
fn a_publisher_may_compress_its_packets() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--compression", "1"]);
    let (accepted, mut publisher) =
        Client::connect_deflate(server.address, "/v1/publish?token=test-publish-token", OFFER);
    assert_eq!(accepted, ACCEPTED);
    let define =
        json!({"op": "define", "id": 1, "instruments": [{"symbol": "A", "venue": "v", "px_exp": -2, "sz_exp": 0}]});
    publisher.send_bytes(&masked_frame(COMPRESSED_TEXT, &deflate(define.to_string().as_bytes())));
    assert_eq!(publisher.reply()["type"], "defined");
    let mut watcher = Subscriber::subscribe(compressed(&server, OFFER), &["quote"], &["A"]);
    let quotes = 500;
    publisher.send_bytes(&masked_frame(COMPRESSED_BINARY, &deflate(&packet(quotes))));
    let records = watcher.records(quotes);
    assert_eq!(records.last().expect("some").header.sequence.get(), quotes as u64);
    // Zeros inflate to a thousand times their size.
    publisher.send_bytes(&masked_frame(COMPRESSED_BINARY, &deflate(&vec![0; 10_000_000])));
    publisher.expect_close(1009, &["more than 100 times"]);
    let _: Value = server.get("/healthz").json();
}

/// A packet of quotes: a header of 24 bytes, records of 64.
fn packet(quotes: usize) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend((quotes as u16).to_le_bytes());
    bytes.extend([0; 20]);
    for nth in 0..quotes as i64 {
        bytes.extend([8, 0, 1, 0x80]);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend([0; 24]);
        [100 + nth, 5, 101 + nth, 7].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes
}
