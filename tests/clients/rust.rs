//! The Rust client against the real server: its values, a killed connection, a restart, refusals, compression.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_client::{Backoff, Body, Client, Error, Event, Options, Reply, Subscription};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{Quote, RecordHeader, Trade};
use tickcast_protocol::{Channel, RecordKind, Side, decimal};
use tickcast_test_support::client::Client as Raw;
use tickcast_test_support::server::{Program, Server};

const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "t"];
const QUICK: Backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_millis(100) };

fn options(compression: bool) -> Options {
    Options { compression, reconnect: Some(QUICK) }
}

fn both() -> Subscription {
    Subscription::new(&[Channel::Quote, Channel::Trade], ["A"])
}

/// Publishes a quote and a trade at each price.
struct Publisher(Raw);

impl Publisher {
    fn open(server: &Server) -> Self {
        let mut client = Raw::connect(server.address, "/v1/publish", &[("authorization", "Bearer t")]);
        let define = json!({"symbol": "A", "venue": "here", "px_exp": -2, "sz_exp": -2});
        client.send_text(&json!({"op": "define", "id": 1, "instruments": [define]}).to_string());
        assert_eq!(client.reply()["type"], "defined");
        Self(client)
    }

    fn publish(&mut self, prices: std::ops::Range<i64>) {
        for px in prices {
            let header = |kind| RecordHeader::of_feed(kind, 1, 0);
            let head = PacketHeader { flags: 0, count: 2, epoch: 0, position: 0.into(), ts_send: 0 };
            let mut packet = head.encode().to_vec();
            Quote { bid_px: px, bid_sz: 1, ask_px: px + 1, ask_sz: 1 }.encode(&header(RecordKind::Quote), &mut packet);
            Trade { px, sz: 1, trade_id: px as u64, side: Side::Buy }.encode(&header(RecordKind::Trade), &mut packet);
            self.0.send(tungstenite::Message::binary(packet));
        }
    }
}

/// What a client has read: the newest bid, all trades, and what became of the connection.
#[derive(Debug, Default)]
struct Seen {
    bid: String,
    trades: Vec<i64>,
    missed: u64,
    lost: u32,
    how: Vec<String>,
}

impl Seen {
    /// Reads up to the trade at this price.
    fn read_to(&mut self, client: &mut Client, px: i64) {
        while self.trades.last() != Some(&px) {
            match client.next().expect("it goes on") {
                Event::Packet(packet) => {
                    self.missed += packet.missed().len() as u64;
                    for record in packet.records() {
                        match record.body {
                            Body::Quote(quote) => {
                                let of = record.instrument.expect("a quote has its instrument");
                                self.bid = decimal::to_string(quote.bid_px, of.px_exp);
                            }
                            Body::Trade(trade) => self.trades.push(trade.px),
                            _ => {}
                        }
                    }
                }
                Event::Lost { .. } => self.lost += 1,
                Event::Reply(Reply::Resumed { how, .. }) => self.how.push(how),
                Event::Reply(_) | Event::Back => {}
            }
        }
    }
}

/// A wire between a client and a server that can be cut.
struct Wire {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let ends = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&ends);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(server).expect("the server listens");
                let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                held.lock().expect("no panic").extend([copy(&near), copy(&far)]);
                for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, ends }
    }

    /// Cuts what is connected at this moment.
    fn cut(&self) {
        for end in self.ends.lock().expect("no panic").drain(..) {
            // One that is closed already is cut.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn shown(server: &Server) -> Value {
    serde_json::from_str(&server.get("/v1/snapshot/A").text()).expect("JSON")
}

#[test]
fn values_are_those_that_the_server_shows() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Publisher::open(&server);
    let mut client = Client::connect(&server.address.to_string(), options(false)).expect("a server is there");
    client.subscribe(both());
    publisher.publish(100..150);
    let mut seen = Seen::default();
    seen.read_to(&mut client, 149);
    assert_eq!(shown(&server)["quote"]["bid_px"], json!(seen.bid));
    assert_eq!(seen.bid, "1.49");
    assert_eq!(client.decoder().counters().violations, 0);
    client.close();
    server.wait_for_metric("tickcast_clients", |clients| clients == 0);
}

#[test]
fn a_cut_connection_goes_on_without_a_hole_with_and_without_compression() {
    for compression in [false, true] {
        let server = Server::start(&[PUBLISHING, &["--compression", "6"]].concat());
        let mut publisher = Publisher::open(&server);
        publisher.publish(99..100);
        let wire = Wire::to(server.address);
        let mut client = Client::connect(&wire.address.to_string(), options(compression)).expect("a server is there");
        assert_eq!(client.is_compressed(), compression);
        client.subscribe(both());
        let mut seen = Seen::default();
        seen.read_to(&mut client, 99);
        for cut in 1..=4 {
            publisher.publish(cut * 100..cut * 100 + 50);
            seen.read_to(&mut client, cut * 100 + 49);
            wire.cut();
            publisher.publish(cut * 100 + 50..cut * 100 + 100);
            seen.read_to(&mut client, cut * 100 + 99);
        }
        assert_eq!(seen.trades, (99..500).collect::<Vec<_>>());
        assert_eq!((seen.missed, client.decoder().counters().violations), (0, 0));
        assert!(seen.lost >= 4 && seen.how.iter().all(|how| how == "replay"), "{seen:?}");
        assert_eq!(shown(&server)["quote"]["bid_px"], json!(seen.bid));
    }
}

#[test]
fn a_server_that_is_started_anew_is_come_back_to_and_its_values_are_right() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Publisher::open(&server);
    let mut client = Client::connect(&server.address.to_string(), options(false)).expect("a server is there");
    client.subscribe(both());
    publisher.publish(100..110);
    let mut seen = Seen::default();
    seen.read_to(&mut client, 109);
    let (address, before) = (server.address, client.token().expect("packets have come"));
    assert_eq!(server.stop(Signal::KILL).code, None);
    let server = Server::spawn(Program::command(&[&["--listen", &address.to_string()], PUBLISHING].concat()));
    let mut publisher = Publisher::open(&server);
    publisher.publish(200..205);
    seen.read_to(&mut client, 204);
    assert_ne!(client.token().expect("packets have come").epoch, before.epoch);
    assert_eq!((seen.bid.as_str(), client.decoder().counters().violations), ("2.04", 0));
    assert!(seen.lost >= 1, "{seen:?}");
}

#[test]
fn a_name_that_is_defined_later_is_asked_for_by_a_pattern_and_a_subscription_ends() {
    let server = Server::start(PUBLISHING);
    let mut client = Client::connect(&server.address.to_string(), options(false)).expect("a server is there");
    let id = client.subscribe(Subscription::new(&[Channel::Trade], ["*"]));
    let mut publisher = Publisher::open(&server);
    publisher.publish(1..3);
    Seen::default().read_to(&mut client, 2);
    client.unsubscribe(id);
    let asked = client.ping();
    loop {
        if let Event::Reply(Reply::Pong { id, .. }) = client.next().expect("it goes on") {
            assert_eq!(id, asked);
            break;
        }
    }
    publisher.publish(3..5);
    server.wait_for_metric("tickcast_sequencer_records_total", |records| records == 1 + 4 * 2);
    client.ping();
    match client.next() {
        Ok(Event::Reply(Reply::Pong { .. })) => {}
        other => panic!("{other:?} after the subscription ended"),
    }
}

#[test]
fn wrong_urls_and_refused_upgrades_are_told_in_sentences() {
    let server = Server::start(&["--feed", "none"]);
    let connect = |url: &str| Client::connect(url, Options::default()).err().expect("refused");
    let error = connect("http://127.0.0.1");
    assert_eq!(error.to_string(), "\"http://127.0.0.1\": the scheme must be ws://");
    let error = connect(&format!("{}/v1/nowhere", server.address));
    assert!(
        error.to_string().starts_with("the server refused the connection: 404 Not Found: nothing is at"),
        "{error}"
    );
    assert!(error.is_final());
    let error = connect("127.0.0.1:1");
    assert!(matches!(error, Error::Connect { .. }) && error.to_string().contains("no server listens there"), "{error}");
    let mut client = Client::connect(&server.address.to_string(), Options::default()).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Trade], ["A*B"]));
    let error = loop {
        if let Err(error) = client.next() {
            break error;
        }
    };
    assert!(error.to_string().contains("a pattern has one *, at its end"), "{error}");
}
