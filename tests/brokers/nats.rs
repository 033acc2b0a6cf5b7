//! NATS: subjects and JetStream.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::record::read_raw;

use crate::broker::{
    Broker, assert_never_shown, installed, serve, sources, wait_for_problem, wait_for_source, wait_until_open,
    while_stopped,
};
use crate::certificates;
use crate::nats_client::NatsClient;
use crate::oracle::{Oracle, first_trade, trade, trade_packet};

const PASSWORD: &str = "correct-horse-battery";

/// A broker with JetStream, and more lines of configuration.
fn broker(config: &str) -> Option<Broker> {
    let program = installed("bin/nats-server")?;
    Some(Broker::new(program, |port, folder| {
        let file = folder.join("nats.conf");
        let store = folder.join("store");
        let text = format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\n{config}", store.display());
        std::fs::write(&file, text).expect("the folder is writable");
        vec!["-c".to_owned(), file.display().to_string()]
    }))
}

fn started(config: &str) -> Option<Broker> {
    let mut broker = broker(config)?;
    broker.start();
    Some(broker)
}

fn client(broker: &Broker) -> NatsClient {
    NatsClient::connect(broker.address(), json!({}))
}

/// Publishes trades of `symbol` into the stream of a subject until each is acknowledged, whatever happens to the broker.
fn publish_all(address: SocketAddr, subject: &str, ids: std::ops::RangeInclusive<u64>, mut after: impl FnMut(u64)) {
    let mut connection: Option<NatsClient> = None;
    for id in ids {
        loop {
            let published = match &mut connection {
                Some(client) => client.publish_acknowledged(subject, &id.to_string(), trade("A", id).as_bytes()),
                None => Err(std::io::ErrorKind::NotConnected.into()),
            };
            if published.is_ok() {
                break;
            }
            connection = NatsClient::try_connect(address, json!({})).ok();
        }
        after(id);
    }
}

#[test]
fn each_form_of_payload_reaches_a_subscriber() {
    let Some(broker) = started("") else { return };
    let port = broker.port;
    let feed = |subject: &str, rest: &str| format!("nats://127.0.0.1:{port}?subject={subject}&{rest}");
    let feeds = [
        feed("json.>", "codec=json"),
        feed("named.>", "codec=json&symbol=subject&prefix=named.&dots=/"),
        feed("packets.>", "codec=tickcast"),
        feed("raw.>", "codec=raw&prefix=raw."),
    ];
    let server = serve(&feeds.each_ref().map(String::as_str));
    let mut client = client(&broker);
    let mut publish = |subject: &str, payload: &[u8]| {
        client.publish(subject, payload).expect("the broker reads");
        client.round_trip().expect("the broker answers");
    };
    let (mut json, next) = first_trade(&server, 0, "J", |id| publish("json.any", trade("J", id).as_bytes()));
    publish("json.any", format!("[{},{}]", trade("J", next), trade("J", next + 1)).as_bytes());
    json.expect(next..=next + 1);
    first_trade(&server, 1, "BTC/USD", |id| publish("named.BTC.USD", trade("ignored", id).as_bytes()));
    first_trade(&server, 2, "币", |id| publish("packets.any", &trade_packet("币", id)));
    let mut raw = server.subscriber(&["raw"], &["BTC/USD:1"]);
    wait_until_open(&server, 3);
    publish("raw.BTC%2FUSD%3A1", b"\x00opaque\xff");
    assert_eq!(read_raw(&raw.record().bytes), Some(&b"\x00opaque\xff"[..]));
    // What cannot be read is counted, and the rest goes on.
    for (subject, payload) in [("json.any", &b"{"[..]), ("packets.any", b"no packet"), ("raw.BTC/USD", b"x")] {
        publish(subject, payload);
    }
    publish("named.a%2db", trade("x", 1).as_bytes());
    for nth in 0..4 {
        wait_for_source(&server, nth, |source| source["lost"]["malformed"] == 1);
    }
    publish("json.any", trade("J", next + 2).as_bytes());
    json.expect(next + 2..=next + 2);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn durable_stream_loses_and_repeats_nothing_when_its_broker_is_killed() {
    let Some(mut broker) = started("") else { return };
    client(&broker).make_stream("PRICES", &["prices.>"]);
    let feed = format!("nats://127.0.0.1:{}?stream=PRICES&subject=prices.>&durable=tickcast&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    const COUNT: u64 = 2000;
    let address = broker.address();
    let publisher = std::thread::spawn(move || publish_all(address, "prices.A", 1..=COUNT, |_| {}));
    for kill_at in [500, 1500] {
        oracle.until(kill_at);
        broker.kill();
        broker.start();
    }
    oracle.until(COUNT);
    publisher.join().expect("no panic");
    assert_eq!((oracle.missing, oracle.gaps()), (0, 0));
    let source = wait_for_source(&server, 0, |source| source["lag"] == 0);
    assert!(source["restarts"].as_u64().is_some_and(|restarts| restarts >= 2), "{source}");
    assert_eq!(server.metric_values("tickcast_source_lag"), [0]);
}

#[test]
fn messages_that_were_delivered_and_not_acknowledged_come_first() {
    let Some(broker) = started("") else { return };
    let mut client = client(&broker);
    client.make_stream("PRICES", &["prices.>"]);
    publish_all(broker.address(), "prices.A", 1..=20, |_| {});
    // Another run of a server took ten, and died.
    let config = json!({"durable_name": "tickcast", "ack_policy": "explicit", "deliver_policy": "all",
        "ack_wait": 30_000_000_000_u64});
    let request = json!({"stream_name": "PRICES", "config": config});
    client.request("$JS.API.CONSUMER.DURABLE.CREATE.PRICES.tickcast", &request).expect("an answer");
    for id in 1..=10 {
        let taken =
            client.request("$JS.API.CONSUMER.MSG.NEXT.PRICES.tickcast", &json!({"batch": 1})).expect("an answer");
        assert_eq!(taken["trade_id"], id);
    }
    let server = serve(&[&format!("nats://127.0.0.1:{}?stream=PRICES&durable=tickcast", broker.port)]);
    wait_for_source(&server, 0, |source| source["records"] == 21);
    let source = &sources(&server)[0];
    assert_eq!((&source["duplicates"], &source["lag"]), (&json!(0), &json!(0)), "{source}");
    let mut info = || client.request("$JS.API.CONSUMER.INFO.PRICES.tickcast", &json!({})).expect("an answer");
    while info()["num_ack_pending"] != 0 {}
}

#[test]
fn durable_stream_goes_on_where_the_server_was_killed() {
    let Some(broker) = started("") else { return };
    client(&broker).make_stream("PRICES", &["prices.>"]);
    let feed = format!("nats://127.0.0.1:{}?stream=PRICES&durable=tickcast&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    publish_all(broker.address(), "prices.A", 1..=300, |_| {});
    oracle.until(300);
    server.stop(Signal::KILL);
    publish_all(broker.address(), "prices.A", 301..=600, |_| {});
    let server = serve(&[&feed]);
    // Its records before a subscription are counted by their sequences, which begin at 1.
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    publish_all(broker.address(), "prices.A", 601..=700, |_| {});
    let record = subscriber.record();
    let id = tickcast_protocol::record::Trade::read(&record.bytes).expect("a whole trade").trade_id;
    let first = id + 1 - record.header.sequence.get();
    assert!((1..=301).contains(&first), "it began with {first}");
    for expected in id + 1..=700 {
        let record = subscriber.record();
        assert_eq!(tickcast_protocol::record::Trade::read(&record.bytes).map(|trade| trade.trade_id), Some(expected));
    }
}

#[test]
fn stream_without_a_durable_consumer_goes_on_while_the_server_runs() {
    let Some(mut broker) = started("") else { return };
    client(&broker).make_stream("PRICES", &["prices.>"]);
    let feed = format!("nats://127.0.0.1:{}?stream=PRICES&codec=json&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    publish_all(broker.address(), "prices.A", 1..=100, |_| {});
    oracle.expect(1..=100);
    broker.kill();
    broker.start();
    publish_all(broker.address(), "prices.A", 101..=200, |_| {});
    oracle.expect(101..=200);
    assert_eq!(oracle.gaps(), 0);
}

#[test]
fn new_messages_are_those_since_the_start_also_if_the_first_connection_is_lost_before_one_comes() {
    let Some(mut broker) = started("") else { return };
    client(&broker).make_stream("PRICES", &["prices.>"]);
    publish_all(broker.address(), "prices.A", 1..=1, |_| {});
    let server = serve(&[&format!("nats://127.0.0.1:{}?stream=PRICES&codec=json&from=new", broker.port)]);
    wait_until_open(&server, 0);
    let mut oracle = Oracle::new(&server, "A");
    while_stopped(&server, || {
        broker.kill();
        broker.start();
        publish_all(broker.address(), "prices.A", 2..=10, |_| {});
    });
    oracle.expect(2..=10);
    assert_eq!(oracle.gaps(), 0);
}

#[test]
fn loss_of_a_subject_is_a_gap_when_its_broker_is_killed() {
    let Some(mut broker) = started("") else { return };
    let feed = format!("nats://127.0.0.1:{}?subject=prices.>", broker.port);
    let server = serve(&[&feed]);
    let mut before = client(&broker);
    let (mut oracle, next) = first_trade(&server, 0, "A", |id| {
        before.publish("prices.A", trade("A", id).as_bytes()).expect("the broker reads");
    });
    broker.kill();
    broker.start();
    // Nobody reads these until the source has come back.
    let mut after = client(&broker);
    let mut id = next;
    let mut publish = |count: u64| {
        for _ in 0..count {
            after.publish("prices.A", trade("A", id).as_bytes()).expect("the broker reads");
            id += 1;
        }
        after.round_trip().expect("the broker answers");
        id - 1
    };
    publish(20);
    // It may have tried several times before the broker was there.
    wait_for_source(&server, 0, |source| {
        publish(1);
        source["state"] == "live" && source["restarts"].as_u64() >= Some(1)
    });
    let last = publish(20);
    oracle.until(last);
    assert!(oracle.missing > 0 && oracle.gaps() > 0);
    assert!(server.metric_values("tickcast_feed_gaps_total").iter().sum::<u64>() > 0);
}

#[test]
fn overflow_of_the_queue_is_a_gap_and_counted_exactly() {
    let Some(broker) = started("") else { return };
    let feed = format!("nats://127.0.0.1:{}?subject=prices.>&buffer=16", broker.port);
    let server = serve(&[&feed]);
    let mut client = client(&broker);
    let (mut oracle, next) = first_trade(&server, 0, "A", |id| {
        client.publish("prices.A", trade("A", id).as_bytes()).expect("the broker reads");
    });
    let last = next + 20_000;
    let burst: Vec<u8> =
        (next..=last).flat_map(|id| NatsClient::frame("prices.A", trade("A", id).as_bytes())).collect();
    client.send(&burst).expect("the broker reads");
    // The newest message is never dropped for others.
    oracle.until(last);
    assert!(oracle.missing > 0 && oracle.gaps() > 0, "{} of 20000 are missing", oracle.missing);
    let missing = oracle.missing;
    wait_for_source(&server, 0, |source| source["lost"]["messages_lost"] == missing);
}

#[test]
fn broker_that_is_down_at_the_start_is_waited_for() {
    let Some(mut broker) = broker("") else { return };
    let feed = format!("nats://127.0.0.1:{}?subject=prices.>", broker.port);
    let server = serve(&["sim:instruments=1,rate=10,seed=1", &feed]);
    wait_for_problem(&server, 1, "retrying", "no connection: ");
    wait_for_source(&server, 0, |source| source["state"] == "live");
    broker.start();
    let mut client = client(&broker);
    first_trade(&server, 1, "A", |id| client.publish("prices.A", trade("A", id).as_bytes()).expect("it reads"));
}

#[test]
fn missing_stream_is_named_with_its_cure_and_waited_for() {
    let Some(broker) = started("") else { return };
    let feed = format!("nats://127.0.0.1:{}?stream=LATER&durable=d&from=all", broker.port);
    let server = serve(&[&feed]);
    wait_for_problem(&server, 0, "retrying", "stream LATER does not exist: create it with `nats stream add LATER`");
    client(&broker).make_stream("LATER", &["prices.>"]);
    let mut oracle = Oracle::new(&server, "A");
    publish_all(broker.address(), "prices.A", 1..=3, |_| {});
    oracle.expect(1..=3);
}

fn password_file(folder: &Path, name: &str, password: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, format!("{password}\n")).expect("the folder is writable");
    file.display().to_string()
}

#[test]
fn wrong_password_fails_with_a_cure_and_is_shown_nowhere() {
    let config = format!("authorization {{ user: acme, password: \"{PASSWORD}\" }}\n");
    let Some(broker) = started(&config) else { return };
    let (right, wrong) = (
        password_file(broker.folder.path(), "right", PASSWORD),
        password_file(broker.folder.path(), "wrong", "wrong-horse"),
    );
    let feed = |file: &str| format!("nats://127.0.0.1:{}?subject=prices.>&user=acme&password_file={file}", broker.port);
    let server = serve(&[&feed(&right), &feed(&wrong)]);
    wait_for_problem(&server, 1, "failed", "the server refuses the credentials");
    wait_for_problem(&server, 1, "failed", "correct user= and password_file=");
    let credentials: Value = json!({"user": "acme", "pass": PASSWORD});
    let mut client = NatsClient::connect(broker.address(), credentials);
    first_trade(&server, 0, "A", |id| client.publish("prices.A", trade("A", id).as_bytes()).expect("it reads"));
    assert_never_shown(server, "horse");
}

#[test]
fn certificate_has_to_be_of_a_trusted_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pem) = certificates::make(folder.path()) else { return };
    let (certificate, key) = (pem.certificate.display(), pem.key.display());
    let config = format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\nallow_non_tls: true\n");
    let Some(broker) = started(&config) else { return };
    let trusted = format!("nats://127.0.0.1:{}?subject=prices.>&ca_file={}", broker.port, pem.authority.display());
    let untrusted = format!("nats://127.0.0.1:{}?subject=prices.>&tls=1", broker.port);
    let server = serve(&[&trusted, &untrusted]);
    wait_for_problem(&server, 1, "failed", "invalid peer certificate");
    wait_for_problem(&server, 1, "failed", "name the authority of its certificate with ca_file=FILE");
    let mut client = client(&broker);
    first_trade(&server, 0, "A", |id| client.publish("prices.A", trade("A", id).as_bytes()).expect("it reads"));
}
