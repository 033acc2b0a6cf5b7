//! A killed server or publisher that is started again. Clients reconnect with their tokens, learn that the epoch is a new
//! one, and have the current values again.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::Side;
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{Quote, RecordHeader, RecordKind, Trade};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::{Client, Received, records_of};
use tickcast_test_support::server::{Program, Server};

const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "t"];

/// Publishes quotes and trades of two instruments whose prices begin at `from`.
struct Publisher(Client);

impl Publisher {
    fn open(server: &Server) -> Self {
        let mut client = Client::connect(server.address, "/v1/publish", &[("authorization", "Bearer t")]);
        let define = |symbol| json!({"symbol": symbol, "venue": "here", "px_exp": -2, "sz_exp": -2});
        client.send_text(&json!({"op": "define", "id": 1, "instruments": [define("A"), define("B")]}).to_string());
        assert_eq!(client.reply()["type"], "defined");
        Self(client)
    }

    fn publish(&mut self, from: i64, count: i64) {
        for px in from..from + count {
            let mut body = Vec::new();
            for instrument in 1..=2 {
                let header = |kind| RecordHeader::of_feed(kind, instrument, 0);
                Quote { bid_px: px, bid_sz: 1, ask_px: px + 1, ask_sz: 1 }
                    .encode(&header(RecordKind::Quote), &mut body);
                Trade { px, sz: 1, trade_id: px as u64, side: Side::Buy }.encode(&header(RecordKind::Trade), &mut body);
            }
            let mut packet =
                PacketHeader { flags: 0, count: 4, epoch: 0, position: 0.into(), ts_send: 0 }.encode().to_vec();
            packet.extend(body);
            self.0.send(tungstenite::Message::binary(packet));
        }
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
    let mut publisher = Publisher::open(&server);
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["A","B"]}"#);
    publisher.publish(100, 50);
    let (token, bid_px) = read_to(&mut client, 149);
    assert_eq!(bid_px, 149);

    // A client that lost its connection gets the records that it missed.
    drop(client);
    publisher.publish(150, 10);
    let mut client = server.client();
    let response = resume(&mut client, token);
    assert_eq!((&response["how"], &response["from"]), (&json!("replay"), &json!(token.1 + 1)), "{response}");
    let (token, bid_px) = read_to(&mut client, 159);
    assert_eq!(bid_px, 159);

    let address = server.address;
    assert_eq!(server.stop(Signal::KILL).code, None);
    drop((client, publisher));
    let server = start_again(address);
    let mut publisher = Publisher::open(&server);
    publisher.publish(200, 5);
    server.wait_for_metric("tickcast_sequencer_records_total", |records| records == 2 + 5 * 4);
    let mut client = server.client();
    let response = resume(&mut client, token);
    assert_eq!((&response["type"], &response["how"]), (&json!("resumed"), &json!("snapshot")), "{response}");
    let ((epoch, _), bid_px) = read_to(&mut client, 204);
    assert!(epoch != token.0 && bid_px == 204, "epoch {epoch} after {}, bid {bid_px}", token.0);
    publisher.publish(205, 1);
    assert_eq!(read_to(&mut client, 205).1, 205, "live");
}

#[test]
fn instruments_of_a_killed_publisher_are_stale_until_it_is_back() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Publisher::open(&server);
    publisher.publish(100, 1);
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    assert_eq!(subscriber.record().header.sequence.get(), 1);
    // Without a close frame, like a killed process.
    drop(publisher);
    server.wait_for_metric("tickcast_stale_instruments", |stale| stale == 2);
    server.wait_for_metric("tickcast_source_losses_total", |losses| losses == 1);
    wait_for_state(&server, "stale");
    let mut publisher = Publisher::open(&server);
    publisher.publish(101, 1);
    assert_eq!(subscriber.record().header.sequence.get(), 2, "sequences continue");
    assert_eq!(subscriber.states, [(1, 'S'), (0, 'S'), (0, 'L'), (1, 'L')]);
    server.wait_for_metric("tickcast_stale_instruments", |stale| stale == 0);
    wait_for_state(&server, "live");
}
