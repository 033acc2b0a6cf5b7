//! The Rust client against the real server: values, lost connections, a restart, refusals, compression, publishing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_client::{
    Backoff, Body, Client, DefineInstrument, Error, Event, Options, PublishPacket, Publisher, Reply, Subscription,
};
use tickcast_protocol::record::{Quote, Trade};
use tickcast_protocol::{Channel, Side, decimal};
use tickcast_test_support::server::{Program, Server};
use tickcast_test_support::tls::{Authority, tls_address};

const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token"];
const QUICK: Backoff = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(100) };

fn options(compression: bool) -> Options {
    Options { compression, reconnect: Some(QUICK), ..Options::default() }
}

fn both() -> Subscription {
    Subscription::new(&[Channel::Quote, Channel::Trade], ["A"])
}

/// Publishes a quote and a trade of instrument A at each price.
struct Prices {
    publisher: Publisher,
    id: u32,
}

impl Prices {
    fn open(server: &Server) -> Self {
        let url = server.address.to_string();
        Self::define(Publisher::connect(&url, Some("test-publish-token")).expect("a server is there"))
    }

    fn define(mut publisher: Publisher) -> Self {
        let ids = publisher.define(&[DefineInstrument::new("A", "here", -2, -2)]).expect("a good definition");
        Self { publisher, id: ids[0] }
    }

    fn publish(&mut self, prices: std::ops::Range<i64>) {
        for px in prices {
            let mut packet = PublishPacket::new();
            packet.quote(self.id, 0, &Quote { bid_px: px, bid_sz: 1, ask_px: px + 1, ask_sz: 1 });
            packet.trade(self.id, 0, &Trade { px, sz: 1, trade_id: px as u64, side: Side::Buy });
            self.publisher.send(&packet).expect("the server reads");
        }
    }
}

/// What a client has read: the newest bid, all trades, and events of the connection.
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
            match client.next().expect("the stream continues") {
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
                Event::Disconnected { .. } => self.lost += 1,
                Event::Reply(Reply::Resumed { how, .. }) => self.how.push(how),
                Event::Reply(_) | Event::Reconnected | Event::TokenFailed { .. } => {}
            }
        }
    }
}

/// A proxy between a client and a server whose connections can be cut.
struct CuttableProxy {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl CuttableProxy {
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

    /// Cuts all connections.
    fn cut(&self) {
        for end in self.ends.lock().expect("no panic").drain(..) {
            // One may be closed already.
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
fn values_equal_the_servers_snapshot() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Prices::open(&server);
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
fn a_cut_connection_resumes_without_a_gap_or_a_duplicate() {
    for compression in [false, true] {
        let server = Server::start(&[PUBLISHING, &["--compression", "6"]].concat());
        let mut publisher = Prices::open(&server);
        publisher.publish(99..100);
        let proxy = CuttableProxy::to(server.address);
        let mut client = Client::connect(&proxy.address.to_string(), options(compression)).expect("a server is there");
        assert_eq!(client.is_compressed(), compression);
        client.subscribe(both());
        let mut seen = Seen::default();
        seen.read_to(&mut client, 99);
        for cut in 1..=4 {
            publisher.publish(cut * 100..cut * 100 + 50);
            seen.read_to(&mut client, cut * 100 + 49);
            proxy.cut();
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
fn a_restarted_server_is_reconnected_with_its_new_values() {
    let server = Server::start(PUBLISHING);
    let mut publisher = Prices::open(&server);
    let mut client = Client::connect(&server.address.to_string(), options(false)).expect("a server is there");
    client.subscribe(both());
    publisher.publish(100..110);
    let mut seen = Seen::default();
    seen.read_to(&mut client, 109);
    let (address, before) = (server.address, client.token().expect("packets have come"));
    assert_eq!(server.stop(Signal::KILL).code, None);
    let server = Server::spawn(Program::command(&[&["--listen", &address.to_string()], PUBLISHING].concat()));
    let mut publisher = Prices::open(&server);
    publisher.publish(200..205);
    seen.read_to(&mut client, 204);
    assert_ne!(client.token().expect("packets have come").epoch, before.epoch);
    assert_eq!((seen.bid.as_str(), client.decoder().counters().violations), ("2.04", 0));
    assert!(seen.lost >= 1, "{seen:?}");
}

#[test]
fn a_pattern_covers_later_instruments_until_it_is_unsubscribed() {
    let server = Server::start(PUBLISHING);
    let mut client = Client::connect(&server.address.to_string(), options(false)).expect("a server is there");
    let id = client.subscribe(Subscription::new(&[Channel::Trade], ["*"]));
    let mut publisher = Prices::open(&server);
    publisher.publish(1..3);
    Seen::default().read_to(&mut client, 2);
    client.unsubscribe(id);
    let asked = client.ping();
    loop {
        if let Event::Reply(Reply::Pong { id, .. }) = client.next().expect("the stream continues") {
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
fn invalid_urls_and_refused_upgrades_have_clear_messages() {
    let server = Server::start(&["--feed", "none"]);
    let connect = |url: &str| Client::connect(url, Options::default()).map(drop).expect_err("refused");
    let error = connect("ftp://127.0.0.1");
    let expected = "invalid URL \"ftp://127.0.0.1\": expected the scheme ws://, wss://, http:// or https://";
    assert_eq!(error.to_string(), expected);
    let error = connect(&format!("{}/v1/nowhere", server.address));
    assert!(
        error.to_string().starts_with("the server refused the connection: 404 Not Found: path \"/v1/nowhere\""),
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
    assert!(error.to_string().contains("expected at most one *, at the end"), "{error}");
}

#[test]
fn a_publisher_is_refused_without_its_token() {
    let server = Server::start(PUBLISHING);
    for token in [None, Some("wrong")] {
        let error = Publisher::connect(&server.address.to_string(), token).expect_err("refused");
        assert!(matches!(&error, Error::Refused(refusal) if refusal.status == 401), "{error}");
    }
}

#[test]
fn a_refused_definition_leaves_the_publisher_connected() {
    let server = Server::start(PUBLISHING);
    let mut prices = Prices::open(&server);
    let mut other =
        Publisher::connect(&server.address.to_string(), Some("test-publish-token")).expect("a server is there");
    let error = other.define(&[DefineInstrument::new("A", "here", -3, -2)]).expect_err("another's, and otherwise");
    assert!(matches!(&error, Error::Rejected { code, .. } if code == "bad_request"), "{error}");
    assert_eq!(other.define(&[DefineInstrument::new("NEW", "here", -3, -2)]).expect("it is still connected"), [1]);
    other.close().expect("a normal close");
    prices.publish(100..101);
    server.wait_for_metric("tickcast_sequencer_records_total", |records| records >= 2);
    prices.publisher.close().expect("a normal close");
    server.wait_for_metric("tickcast_publishers", |publishers| publishers == 0);
}

#[test]
fn a_packet_that_breaks_the_rules_is_closed_with_the_reason() {
    let server = Server::start(PUBLISHING);
    let mut publisher =
        Publisher::connect(&server.address.to_string(), Some("test-publish-token")).expect("a server is there");
    let mut packet = PublishPacket::new();
    publisher.send(packet.raw(9, 0, b"of an instrument that is not defined")).expect("the socket takes it");
    let error = publisher.close().expect_err("the server has closed").to_string();
    assert!(error.starts_with("the server closed the connection: 1008 (policy): record 0"), "{error}");
}

#[test]
fn subscriber_and_publisher_speak_tls() {
    let authority = Authority::new();
    let server = authority.start(PUBLISHING);
    let url = format!("wss://localhost:{}", tls_address(&server).port());
    let ca = authority.path("ca.pem");
    let publisher = Publisher::connect_with(&url, Some("test-publish-token"), Some(&ca)).expect("a server is there");
    let mut prices = Prices::define(publisher);
    let options = Options { ca: Some(ca), ..options(true) };
    let mut client = Client::connect(&url, options).expect("a server is there");
    client.subscribe(both());
    while !matches!(client.next().expect("no error"), Event::Reply(Reply::Subscribed { .. })) {}
    prices.publish(1..500);
    let mut last = 0;
    while last < 499 {
        if let Event::Packet(packet) = client.next().expect("no error") {
            for record in packet.records() {
                if let Body::Trade(trade) = record.body {
                    assert_eq!(trade.px, last + 1);
                    last = trade.px;
                }
            }
        }
    }
    client.close();
    let (stream, ..) = prices.publisher.into_parts();
    assert!(stream.into_plain().is_none(), "a connection over TLS is more than a socket");
}

#[test]
fn certificate_that_is_not_trusted_is_refused_for_good() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.start(PUBLISHING);
    let port = tls_address(&server).port();
    let refused = |url: String, ca: Option<std::path::PathBuf>| {
        let error = Client::connect(&url, Options { ca, ..options(false) }).expect_err("refused");
        assert!(error.is_final(), "{error}");
        error.to_string()
    };
    let own = authority.path("ca.pem");
    for (url, ca, message) in [
        (format!("wss://localhost:{port}"), Some(other.path("ca.pem")), "is from no authority in "),
        (format!("wss://localhost:{port}"), None, "from no authority that this system trusts"),
        (format!("wss://127.0.0.1:{port}"), Some(own.clone()), "the server's certificate is refused: "),
        (format!("wss://localhost:{port}"), Some(authority.path("key.pem")), "no certificate: expected PEM"),
        (format!("wss://localhost:{port}"), Some(authority.path("none.pem")), "none.pem: "),
        (format!("wss://localhost:{}", server.address.port()), Some(own), "does not speak TLS: expected ws://"),
        (format!("ws://localhost:{port}"), None, "this port speaks TLS: expected https:// or wss://"),
    ] {
        let error = refused(url.clone(), ca);
        assert!(error.contains(message), "{url}: {error}");
    }
}
