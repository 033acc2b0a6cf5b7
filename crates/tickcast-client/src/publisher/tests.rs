//! The publisher against a scripted server.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use super::*;
use tickcast_protocol::Side;
use tickcast_protocol::record::Trade;
use tickcast_test_support::scripted_server::{self, Peer};

fn connect(address: SocketAddr) -> Publisher {
    Publisher::connect(&address.to_string(), Some("t")).expect("a server listens")
}

fn answer_define(peer: &mut Peer, answer: impl Fn(&serde_json::Value) -> String) {
    let request = scripted_server::subscribe_request(peer);
    assert_eq!(request["op"], "define");
    peer.send(Message::text(answer(&request))).expect("the publisher reads");
}

/// A server that gives ids from 7 on and returns all binary messages once the publisher has closed.
fn server() -> (SocketAddr, Receiver<Vec<Vec<u8>>>) {
    let (sender, packets) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        answer_define(&mut peer, |request| {
            let defined = request["instruments"].as_array().expect("a list").iter().enumerate();
            let ids: Vec<_> =
                defined.map(|(nth, one)| serde_json::json!({"symbol": one["symbol"], "instrument": nth + 7})).collect();
            serde_json::json!({"type": "defined", "id": request["id"], "instruments": ids}).to_string()
        });
        peer.send(Message::Ping("ping".into())).expect("the publisher reads");
        let mut received = Vec::new();
        while let Ok(message) = peer.read() {
            match message {
                Message::Binary(packet) => received.push(packet.to_vec()),
                Message::Pong(payload) => assert_eq!(payload.as_ref(), b"ping"),
                _ => {}
            }
        }
        sender.send(received).expect("the test waits");
    });
    (address, packets)
}

#[test]
fn define_returns_ids_and_packets_arrive_in_order() {
    let (address, packets) = server();
    let mut publisher = connect(address);
    let ids = publisher.define(&["A", "B"].map(|symbol| DefineInstrument::new(symbol, "here", -2, -3)));
    assert_eq!(ids.expect("defined"), [7, 8]);
    let mut sent = Vec::new();
    for n in 1..=3 {
        let mut packet = PublishPacket::new();
        packet.raw(7, n, b"payload").heartbeat();
        publisher.send(&packet).expect("the server reads");
        sent.push(packet.bytes().to_vec());
    }
    publisher.send(&PublishPacket::new()).expect("an empty packet is not sent");
    publisher.check().expect("the server is there");
    publisher.close().expect("a normal close");
    assert_eq!(packets.recv().expect("the publisher has closed"), sent);
}

#[test]
fn a_refused_definition_is_an_error_and_the_connection_goes_on() {
    let address = scripted_server::serve("", |mut peer| {
        answer_define(&mut peer, |request| {
            let id = &request["id"];
            format!(r#"{{"type":"error","id":{id},"code":"bad_request","message":"instruments[0].symbol: no"}}"#)
        });
        scripted_server::wait_for_end(&mut peer);
    });
    let mut publisher = connect(address);
    let error = publisher.define(&[DefineInstrument::new("*", "", 0, 0)]).expect_err("refused").to_string();
    assert_eq!(error, "the server refused the request: bad_request: instruments[0].symbol: no");
    publisher.check().expect("the connection goes on");
}

#[test]
fn the_reason_of_a_close_is_the_error_of_the_next_call() {
    let address = scripted_server::serve("", |mut peer| {
        peer.read().expect("a packet");
        let frame = CloseFrame { code: 1008.into(), reason: "record 0: no".into() };
        peer.close(Some(frame)).expect("the publisher reads");
        scripted_server::wait_for_end(&mut peer);
    });
    let mut publisher = connect(address);
    let mut packet = PublishPacket::new();
    packet.trade(1, 0, &Trade { px: 1, sz: 1, trade_id: 1, side: Side::Buy });
    publisher.send(&packet).expect("the first packet is taken");
    let error = loop {
        if let Err(error) = publisher.check() {
            break error.to_string();
        }
        std::thread::yield_now();
    };
    assert_eq!(error, "the server closed the connection: 1008 (policy): record 0: no");
}

#[test]
fn a_wrong_token_is_refused() {
    let address = scripted_server::respond("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let error = Publisher::connect(&address.to_string(), None).expect_err("refused");
    assert!(matches!(&error, Error::Refused(refusal) if refusal.status == 401), "{error}");
    assert!(error.is_final());
}
