//! `/v1/echo`, which sends every message back.

use tickcast_test_support::client::{Client, Received, masked_frame};
use tickcast_test_support::http::{send_request, upgrade_request};
use tickcast_test_support::server::Server;
use tungstenite::Message;

#[test]
fn text_binary_and_fragments_are_sent_back() {
    let server = Server::start(&["--enable-echo", "--feed", "none"]);
    let mut client = Client::connect(server.address, "/v1/echo", &[]);
    for text in ["", "hello", "κόσμε 🦀", &"long ".repeat(50_000)] {
        client.send_text(text);
        assert!(matches!(client.receive(), Received::Text(back) if back == text), "{} bytes", text.len());
    }
    client.send(Message::binary(vec![0, 255, 128]));
    assert!(matches!(client.receive(), Received::Packet(back) if back == [0, 255, 128]));
    client.send_bytes(
        &[
            masked_frame(0x01, b"a\xe2\x82"),
            masked_frame(0x89, b"!"),
            masked_frame(0x00, b""),
            masked_frame(0x80, b"\xac b"),
        ]
        .concat(),
    );
    assert!(
        matches!(client.receive(), Received::Pong(payload) if payload == b"!"),
        "the pong to the ping between fragments"
    );
    assert!(matches!(client.receive(), Received::Text(back) if back == "a€ b"));
    client.send_bytes(&masked_frame(0x88, &[&3000u16.to_be_bytes()[..], b"enough"].concat()));
    client.expect_close(3000, &[]);
}

#[test]
fn the_echo_is_off_by_default() {
    for args in [&["--feed", "none"][..], &["--enable-echo=false", "--feed", "none"]] {
        let server = Server::start(args);
        send_request(server.address, upgrade_request("/v1/echo").as_bytes()).assert_refusal(
            404,
            "not_found",
            &["/v1/echo"],
        );
    }
}
