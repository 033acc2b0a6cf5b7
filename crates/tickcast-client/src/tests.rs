//! The client against a scripted server.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message};

use super::*;
use tickcast_protocol::record::flags;
use tickcast_protocol::{Channel, Position};
use tickcast_test_support::packets::PacketBuilder;
use tickcast_test_support::scripted_server::{self, Peer};

const QUICK: Backoff = Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(20) };

fn connect(address: SocketAddr) -> Result<Client, Error> {
    Client::connect(&address.to_string(), Options { reconnect: None, ..Options::default() })
}

fn connect_with_retries(address: SocketAddr) -> Client {
    let options = Options { reconnect: Some(QUICK), ..Options::default() };
    Client::connect(&address.to_string(), options).expect("a server is there")
}

fn trades() -> Subscription {
    Subscription::new(&[Channel::Trade], ["BTC-*"])
}

fn send_text(peer: &mut Peer, text: impl Into<String>) {
    peer.send(Message::text(text.into())).expect("the client reads");
}

/// Reads a request, answers it as a server does, and returns it.
fn answer(peer: &mut Peer, how: &str) -> serde_json::Value {
    let request = scripted_server::subscribe_request(peer);
    let kind = if request["op"] == "resume" { "resumed" } else { "subscribed" };
    let id = &request["id"];
    send_text(peer, format!(r#"{{"type":"{kind}","id":{id},"how":"{how}","from":1,"conflate_ms":0,"count":1}}"#));
    request
}

fn send(peer: &mut Peer, packet: PacketBuilder) {
    peer.send(packet.message()).expect("the client reads");
}

fn start() -> PacketBuilder {
    PacketBuilder::new().definition(1, "BTC-USD").caught_up()
}

/// Reads this many trades. Returns their sequences, gaps as ranges, and the events of the connection.
fn read(client: &mut Client, trades: usize) -> Vec<String> {
    let (mut log, mut seen) = (Vec::new(), 0);
    while seen < trades {
        match client.next().expect("the stream continues") {
            Event::Packet(packet) => {
                log.extend(packet.missed().iter().map(|gap| format!("-{}-{}", gap.from_sequence, gap.to_sequence)));
                for record in packet.records().filter(|record| matches!(record.body, Body::Trade(_))) {
                    assert_eq!(record.instrument.map(|of| of.symbol.as_str()), Some("BTC-USD"));
                    log.push(record.header.sequence.to_string());
                    seen += 1;
                }
            }
            Event::Disconnected { .. } => log.push("lost".to_owned()),
            Event::Reconnected => log.push("back".to_owned()),
            Event::Reply(_) | Event::TokenFailed { .. } => {}
        }
    }
    log
}

#[test]
fn subscribe_requests_replies_pings_and_packets_follow_the_protocol() {
    let packet = start().quote(1, 0);
    let script = packet.clone();
    let address = scripted_server::serve("", move |mut peer| {
        let request = scripted_server::subscribe_request(&mut peer);
        let want = serde_json::json!({"op": "subscribe", "id": 1, "channels": ["quote", "trade"],
            "symbols": ["BTC-*"], "conflate_ms": 50, "snapshot": false});
        let good = if request == want { "yes" } else { "no" };
        let limits = r#"{"symbols":1,"requests_per_s":2}"#;
        send_text(
            &mut peer,
            format!(r#"{{"type":"welcome","epoch":7,"version":"1","heartbeat_ms":1000,"limits":{limits}}}"#),
        );
        send_text(&mut peer, format!(r#"{{"type":"closing","reason":"{good}"}}"#));
        send_text(&mut peer, r#"{"type":"news"}"#);
        peer.send(Message::Ping("are you there".into())).expect("the client reads");
        send(&mut peer, script.clone());
        let pong = peer.read().expect("the client answers");
        assert_eq!(pong, Message::Pong("are you there".into()));
        send_text(&mut peer, r#"{"type":"pong","id":9,"ts":1}"#);
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect(address).expect("a server is there");
    let asked = Subscription { snapshot: false, ..Subscription::new(&[Channel::Quote, Channel::Trade], ["BTC-*"]) };
    assert_eq!(client.subscribe(asked.conflated(50)), 1);
    let mut reply = || match client.next() {
        Ok(Event::Reply(reply)) => reply,
        other => panic!("want a reply, have {other:?}"),
    };
    assert!(matches!(reply(), Reply::Welcome { epoch: 7, .. }));
    assert_eq!(reply(), Reply::Closing { reason: "yes".to_owned(), reconnect_ms: 0 });
    assert_eq!(reply(), Reply::Other);
    match client.next() {
        Ok(Event::Packet(came)) => {
            assert_eq!((came.bytes, came.records().count()), (packet.bytes().len(), 2));
            let bodies: Vec<_> = came.records().map(|record| record.body).collect();
            assert!(matches!(bodies[..], [Body::Definition, Body::Quote(_)]), "{bodies:?}");
        }
        other => panic!("want a packet, have {other:?}"),
    }
    assert_eq!(client.token(), Some(Token { epoch: 1, position: Position::new(1) }));
    assert!(matches!(client.next(), Ok(Event::Reply(Reply::Pong { id: 9, ts: 1 }))));
    assert!(client.next_within(Duration::from_millis(1)).is_ok_and(|event| event.is_none()), "silence");
    client.close();
}

#[test]
fn a_lost_connection_resumes_without_duplicates() {
    let address = scripted_server::serve("", |mut peer| {
        let request = answer(&mut peer, "replay");
        if request["op"] == "subscribe" {
            send(&mut peer, start().position(10).trade(1, 0).trade(2, 0));
            return;
        }
        assert_eq!((&request["epoch"], &request["position"]), (&1.into(), &10.into()), "{request}");
        send(&mut peer, start().position(12).trade(2, 0).trade(3, 0));
        send(&mut peer, PacketBuilder::new().position(13).trade(4, 0));
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect_with_retries(address);
    client.subscribe(trades());
    assert_eq!(read(&mut client, 4), ["1", "2", "lost", "back", "3", "4"]);
    let counters = client.decoder().counters();
    assert_eq!((counters.violations, counters.lost, client.reconnects()), (0, 0, 1));
}

#[test]
fn a_resume_answered_by_a_snapshot_reports_what_is_missing() {
    let address = scripted_server::serve("", |mut peer| {
        if answer(&mut peer, "snapshot")["op"] == "subscribe" {
            send(&mut peer, start().trade(2, 0));
            return;
        }
        send(&mut peer, start().trade(9, flags::SNAPSHOT));
        send(&mut peer, PacketBuilder::new().trade(10, 0));
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect_with_retries(address);
    client.subscribe(trades());
    assert_eq!(read(&mut client, 3), ["2", "lost", "back", "-3-8", "9", "10"]);
    assert_eq!((client.decoder().counters().lost, client.decoder().counters().violations), (6, 0));
}

#[test]
fn an_incomplete_snapshot_is_requested_again() {
    let address = scripted_server::serve("", |mut peer| {
        static TRIES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let request = answer(&mut peer, "replay");
        // Relaxed: a count, and nothing beside it.
        if TRIES.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            send(&mut peer, PacketBuilder::new().definition(1, "BTC-USD").trade(1, flags::SNAPSHOT));
            return;
        }
        assert_eq!(request["op"], "subscribe");
        send(&mut peer, start().trade(1, flags::SNAPSHOT).trade(2, 0));
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect_with_retries(address);
    client.subscribe(trades());
    assert_eq!(read(&mut client, 2), ["1", "lost", "back", "2"]);
}

#[test]
fn a_stored_token_is_resumed() {
    let address = scripted_server::serve("", |mut peer| {
        let request = answer(&mut peer, "replay");
        assert_eq!((&request["op"], &request["position"]), (&"resume".into(), &77.into()));
        send(&mut peer, start().trade(5, 0));
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect(address).expect("a server is there");
    client.resume(Token { epoch: 1, position: Position::new(77) }, trades());
    assert_eq!(read(&mut client, 1), ["5"]);
}

#[test]
fn a_refused_subscription_is_an_error_and_is_dropped() {
    let address = scripted_server::serve("", |mut peer| {
        let request = scripted_server::subscribe_request(&mut peer);
        if request["symbols"][0] == "**" {
            send_text(&mut peer, r#"{"type":"error","id":1,"code":"bad_request","message":"symbols: no"}"#);
            answer(&mut peer, "replay");
            send(&mut peer, start().trade(1, 0));
            return;
        }
        assert_eq!((&request["id"], &request["op"]), (&2.into(), &"resume".into()));
        send_text(&mut peer, r#"{"type":"resumed","id":2,"how":"replay","from":1}"#);
        send(&mut peer, start().trade(2, 0));
        scripted_server::wait_for_end(&mut peer);
    });
    let mut client = connect_with_retries(address);
    client.subscribe(Subscription::new(&[Channel::Trade], ["**"]));
    let error = client.next().expect_err("refused").to_string();
    assert_eq!(error, "the server refused the request: bad_request: symbols: no");
    client.subscribe(trades());
    assert_eq!(read(&mut client, 2), ["1", "lost", "back", "2"]);
}

#[test]
fn expired_credentials_and_ended_sessions_are_not_retried() {
    for (code, meaning) in [(4001, "credentials expired"), (4005, "session limit")] {
        let address = scripted_server::serve("", move |mut peer| {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "why".into() };
            peer.close(Some(frame)).expect("the client reads");
            scripted_server::wait_for_end(&mut peer);
        });
        let error = connect_with_retries(address).next().expect_err("closed").to_string();
        assert_eq!(error, format!("the server closed the connection: {code} ({meaning}): why"));
    }
}

#[test]
fn a_close_shows_code_meaning_and_reason() {
    let address = scripted_server::serve("", |mut peer| {
        let frame = CloseFrame { code: CloseCode::from(4002), reason: "4 MiB are pending".into() };
        peer.close(Some(frame)).expect("the client reads");
        scripted_server::wait_for_end(&mut peer);
    });
    let error = connect(address).expect("a server is there").next().expect_err("closed");
    assert_eq!(error.to_string(), "the server closed the connection: 4002 (slow consumer): 4 MiB are pending");
    assert!(!error.is_final());
}

#[test]
fn a_connection_without_close_frame_is_dropped() {
    let error = connect(scripted_server::serve("", drop)).expect("a server is there").next().expect_err("ended");
    assert!(matches!(error, Error::Dropped), "{error}");
}

#[test]
fn a_reconnect_waits_as_long_as_the_server_requests() {
    let address = scripted_server::serve("", |mut peer| {
        send_text(&mut peer, r#"{"type":"closing","reason":"going_away","reconnect_ms":5000}"#);
    });
    let mut client = connect_with_retries(address);
    let retry_in = loop {
        if let Event::Disconnected { retry_in, .. } = client.next().expect("the stream continues") {
            break retry_in;
        }
    };
    assert!(retry_in >= Duration::from_secs(5), "{retry_in:?}");
}

#[test]
fn a_refused_upgrade_shows_status_message_and_retry_time() {
    let address = scripted_server::respond(concat!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 72\r\n",
        "Retry-After: 5\r\n\r\n",
        "{\"error\":{\"code\":\"full\",\"message\":\"this server has its 1000 connections\"}}"
    ));
    let error = connect(address).map(drop).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server refused the connection: 503 Service Unavailable: this server has its 1000 connections \
         (try again in 5 s)"
    );
    assert!(!error.is_final());
}

#[test]
fn a_refusal_without_a_body_shows_its_status() {
    let address = scripted_server::respond("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let error = connect(address).map(drop).expect_err("refused");
    assert_eq!(error.to_string(), "the server refused the connection: 404 Not Found");
    assert!(error.is_final());
}

#[test]
fn a_refused_connection_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    drop(listener);
    let error = connect(address).map(drop).expect_err("no server listens");
    let want = format!("cannot connect to {address}: connection refused; no server listens there");
    assert_eq!(error.to_string(), want);
}
