//! A killed server or publisher that is started again. Clients reconnect with their tokens, learn that the epoch is a new
//! one, and have the current values again.

use std::ops::Range;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{Quote, RecordKind, Trade};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::{Client, Received, records_of};
use tickcast_test_support::publisher::{Publisher, quote, trade};
use tickcast_test_support::server::{Program, Server};

const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token"];

/// A publisher of A and B.
fn connect_publisher(server: &Server) -> Publisher {
    let mut publisher = Publisher::connect(server, "test-publish-token");
    assert_eq!(publisher.define(&["A", "B"]), [1, 2]);
    publisher
}

/// Publishes a quote and a trade of A and B at each price.
fn publish(publisher: &mut Publisher, prices: Range<i64>) {
    for px in prices {
        publisher.publish(&[quote(1, px), trade(1, px), quote(2, px), trade(2, px)]);
    }
}

/// Reads up to the trade with this price; returns the token and the newest bid.
fn read_to(client: &mut Client, px: i64) -> ((u32, u64), i64) {
    let mut bid_px = 0;
    loop {
        let Received::Packet(packet) = client.receive() else { continue };
        let mut at_end = false;
        for record in records_of(&packet) {
            if record.header.instrument != 1 {
                continue;
            }
            match RecordKind::from_wire(record.header.kind) {
                Some(RecordKind::Quote) => bid_px = Quote::read(&record.bytes).expect("a complete record").bid_px,
                Some(RecordKind::Trade) => at_end |= Trade::read(&record.bytes).expect("a complete record").px == px,
                _ => {}
            }
        }
        if at_end {
            let header = PacketHeader::read(&packet).expect("a packet");
            return ((header.epoch, header.position.get()), bid_px);
        }
    }
}

fn resume(client: &mut Client, (epoch, position): (u32, u64)) -> Value {
    let channels = ["quote", "trade"];
    let (op, symbols) = ("resume", ["A", "B"]);
    let request =
        json!({"op": op, "id": 3, "epoch": epoch, "position": position, "channels": channels, "symbols": symbols});
    client.send_text(&request.to_string());
    client.reply()
}

/// A server on the address of one that was stopped.
fn start_again(address: std::net::SocketAddr) -> Server {
    Server::spawn(Program::command(&[&["--listen", &address.to_string()], PUBLISHING].concat()))
}

/// Requests the snapshot of A until it has this state: a shard learns it after the sequencer has counted it.
#[track_caller]
fn wait_for_state(server: &Server, state: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let snapshot = server.get("/v1/snapshot/A").json();
        if snapshot["state"] == state {
            return;
        }
        assert!(Instant::now() < deadline, "not {state}: {snapshot}");
    }
}

#[test]
fn after_a_restart_clients_get_a_snapshot_of_the_new_epoch() {
    let server = Server::start(PUBLISHING);
    let mut publisher = connect_publisher(&server);
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["A","B"]}"#);
    publish(&mut publisher, 100..150);
    let (token, bid_px) = read_to(&mut client, 149);
    assert_eq!(bid_px, 149);

    // A client that lost its connection gets the records that it missed.
    drop(client);
    publish(&mut publisher, 150..160);
    let mut client = server.client();
    let response = resume(&mut client, token);
    assert_eq!((&response["how"], &response["from"]), (&json!("replay"), &json!(token.1 + 1)), "{response}");
    let (token, bid_px) = read_to(&mut client, 159);
    assert_eq!(bid_px, 159);

    let address = server.address;
    assert_eq!(server.stop(Signal::KILL).code, None);
    drop((client, publisher));
    let server = start_again(address);
    let mut publisher = connect_publisher(&server);
    publish(&mut publisher, 200..205);
    server.wait_for_metric("tickcast_sequencer_records_total", |records| records == 2 + 5 * 4);
    let mut client = server.client();
    let response = resume(&mut client, token);
    assert_eq!((&response["type"], &response["how"]), (&json!("resumed"), &json!("snapshot")), "{response}");
    let ((epoch, _), bid_px) = read_to(&mut client, 204);
    assert!(epoch != token.0 && bid_px == 204, "epoch {epoch} after {}, bid {bid_px}", token.0);
    publish(&mut publisher, 205..206);
    assert_eq!(read_to(&mut client, 205).1, 205, "live");
}

#[test]
fn instruments_of_a_killed_publisher_are_stale_until_it_is_back() {
    let server = Server::start(PUBLISHING);
    let mut publisher = connect_publisher(&server);
    publish(&mut publisher, 100..101);
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    assert_eq!(subscriber.record().header.sequence.get(), 1);
    // Without a close frame, like a killed process.
    drop(publisher);
    server.wait_for_metric("tickcast_stale_instruments", |stale| stale == 2);
    server.wait_for_metric("tickcast_source_losses_total", |losses| losses == 1);
    wait_for_state(&server, "stale");
    let mut publisher = connect_publisher(&server);
    publish(&mut publisher, 101..102);
    assert_eq!(subscriber.record().header.sequence.get(), 2, "sequences continue");
    assert_eq!(subscriber.states, [(1, 'S'), (0, 'S'), (0, 'L'), (1, 'L')]);
    server.wait_for_metric("tickcast_stale_instruments", |stale| stale == 0);
    wait_for_state(&server, "live");
}

#[test]
fn servers_that_start_together_accept_no_token_of_each_other() {
    let args = [&["--listen", "127.0.0.1:0"], PUBLISHING].concat();
    let programs: Vec<_> = (0..4).map(|_| Program::spawn(Program::command(&args))).collect();
    let servers: Vec<_> = programs.into_iter().map(Server::of).collect();
    let mut token = None;
    for server in &servers {
        let mut publisher = connect_publisher(server);
        publish(&mut publisher, 1..100);
        let mut reader = server.client();
        let first = token.unwrap_or((7, 1));
        let answer = resume(&mut reader, first);
        assert_eq!((&answer["type"], &answer["how"]), (&json!("resumed"), &json!("snapshot")), "{answer}");
        publish(&mut publisher, 100..102);
        token.get_or_insert(read_to(&mut reader, 101).0);
        // Once more, as the position is surely in the history now.
        let mut late = server.client();
        let answer = resume(&mut late, token.unwrap_or_default());
        let is_own = std::ptr::eq(server, &servers[0]);
        assert_eq!(answer["how"], if is_own { "replay" } else { "snapshot" }, "{answer}");
    }
}
