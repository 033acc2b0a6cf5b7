//! Publishers, bad ones and good ones: what is refused, what is kept, and that subscribers get all of it.

use serde_json::{Value, json};
use tickcast_test_support::client::{Client, Record};
use tickcast_test_support::http::{send_request, upgrade_request};
use tickcast_test_support::server::{Server, WatchedServer};
use tungstenite::Message;

const PUBLISH: &[&str] = &["--publish-token", "secret"];
const BEARER: &[(&str, &str)] = &[("Authorization", "Bearer secret")];
const QUOTE: u8 = 1;
const TRADE: u8 = 2;

fn publisher(server: &Server) -> Client {
    Client::connect(server.address, "/v1/publish", BEARER)
}

/// Defines symbols with prices in cents; these are the ids they get.
fn define(client: &mut Client, symbols: &[&str]) -> Vec<u32> {
    let instrument = |symbol: &&str| json!({"symbol": symbol, "venue": "test", "px_exp": -2, "sz_exp": 0});
    let instruments: Vec<Value> = symbols.iter().map(instrument).collect();
    client.send_text(&json!({"op": "define", "id": 9, "instruments": instruments}).to_string());
    let reply = client.reply();
    assert_eq!((&reply["type"], &reply["id"]), (&json!("defined"), &json!(9)), "{reply}");
    let defined = reply["instruments"].as_array().expect("a list");
    let given: Vec<_> = defined.iter().map(|instrument| instrument["symbol"].as_str().unwrap()).collect();
    assert_eq!(given, symbols);
    defined.iter().map(|instrument| instrument["instrument"].as_u64().unwrap() as u32).collect()
}

/// A record as the protocol's table has it, with what the server is to overwrite set to nonsense.
fn record(kind: u8, instrument: u32, ts_event: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (((32 + body.len()) / 8) as u16).to_le_bytes().to_vec();
    bytes.extend([kind, 0x80]);
    bytes.extend(instrument.to_le_bytes());
    bytes.extend(0xdead_u64.to_le_bytes());
    bytes.extend(ts_event.to_le_bytes());
    bytes.extend(0xbeef_u64.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn numbers(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn quote(instrument: u32, nth: i64) -> Vec<u8> {
    record(QUOTE, instrument, nth as u64, &numbers(&[100 + nth, 1, 101 + nth, 2]))
}

fn trade(instrument: u32, nth: i64) -> Vec<u8> {
    record(TRADE, instrument, nth as u64, &[numbers(&[100 + nth, 5, nth]), b"B\0\0\0\0\0\0\0".to_vec()].concat())
}

/// A packet that says it has `count` records.
fn packet(count: usize, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend((count as u16).to_le_bytes());
    bytes.extend([0xee; 20]);
    bytes.extend(records.concat());
    bytes
}

fn publish(client: &mut Client, records: &[Vec<u8>]) {
    client.send(Message::binary(packet(records.len(), records)));
}

/// What came is what was sent, but for what the server sets. That sequences have no hole, the subscriber checks.
#[track_caller]
fn is_as_sent(came: &Record, sent: &[u8]) {
    let payload = |bytes: &[u8]| [&bytes[..4], &bytes[16..24], &bytes[32..]].concat();
    assert_eq!(payload(&came.bytes), payload(sent), "{came:?}");
    assert!(came.header.ts_recv > 1_700_000_000_000_000_000, "the server's own stamp: {came:?}");
}

#[test]
fn who_may_not_publish_gets_a_401() {
    let mut scene = WatchedServer::start(PUBLISH);
    let address = scene.server.address;
    for (path, headers) in [
        ("/v1/publish", &[][..]),
        ("/v1/publish", &[("Authorization", "Bearer wrong")]),
        ("/v1/publish", &[("Authorization", "Bearer secretly")]),
        ("/v1/publish", &[("Authorization", "Bearer ")]),
        ("/v1/publish", &[("Authorization", "Basic secret")]),
        ("/v1/publish?token=", &[]),
        ("/v1/publish?token=wrong", &[]),
        ("/v1/publish?tokens=secret", &[]),
        ("/v1/publish?token=secret", &[("Authorization", "Bearer wrong")]),
    ] {
        let Err(answer) = Client::try_connect(address, path, headers) else { panic!("{path} {headers:?} is let in") };
        assert_eq!(answer.status, 401, "{path} {headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    send_request(address, upgrade_request("/v1/publish").as_bytes()).assert_refusal(
        401,
        "unauthorized",
        &["Bearer TOKEN", "?token=TOKEN"],
    );
    scene.assert_undisturbed();
}

#[test]
fn a_token_is_taken_from_the_header_or_from_the_query() {
    let mut scene = WatchedServer::start(PUBLISH);
    for (path, headers) in [
        ("/v1/publish", BEARER),
        ("/v1/publish", &[("Authorization", "bearer  secret")]),
        ("/v1/publish?token=secret", &[]),
        ("/v1/publish?a=b&token=s%65cret", &[]),
    ] {
        let mut client = Client::connect(scene.server.address, path, headers);
        assert_eq!(define(&mut client, &["A"]), [1], "{path} {headers:?}");
    }
    scene.assert_undisturbed();
}

#[test]
fn publishing_is_off_without_a_token_and_the_answer_says_how_to_turn_it_on() {
    let mut scene = WatchedServer::start(&[]);
    let answer = send_request(scene.server.address, upgrade_request("/v1/publish?token=").as_bytes());
    answer.assert_refusal(404, "not_found", &["publishing is off", "--publish-token TOKEN"]);
    scene.assert_undisturbed();
}

#[test]
fn a_packet_that_breaks_the_layout_is_closed_with_1008_and_what_came_before_is_kept() {
    let good = || vec![quote(1, 1), quote(1, 2)];
    let with = |last: Vec<u8>| [good(), vec![last]].concat();
    let cut = |record: Vec<u8>, length: usize| record[..length].to_vec();
    let set = |mut record: Vec<u8>, at: usize, byte: u8| {
        record[at] = byte;
        record
    };
    let trailing = [good().concat(), vec![0; 64]].concat();
    let cases: Vec<(Vec<u8>, usize, &[&str])> = vec![
        (packet(3, &with(cut(quote(1, 3), 44))), 2, &["record 2 at byte 152", "44 bytes are there, 64 are needed"]),
        (packet(3, &with(cut(quote(1, 3), 20))), 2, &["record 2 at byte 152", "20 bytes are there, 32 are needed"]),
        (packet(3, &good()), 2, &["record 2 at byte 152", "0 bytes are there"]),
        (packet(3, &with(set(quote(1, 3), 0, 9))), 2, &["record 2 at byte 152", "says 72 bytes", "64"]),
        (packet(3, &with(set(quote(1, 3), 0, 0))), 2, &["record 2 at byte 152", "says 0 bytes", "64"]),
        (packet(3, &with(set(quote(1, 3), 2, 9))), 2, &["record 2 at byte 152", "type 9 is not one of 1 quote"]),
        (packet(3, &with(set(quote(1, 3), 2, 16))), 2, &["record 2 at byte 152", "type 16"]),
        (packet(3, &with(quote(7, 3))), 2, &["record 2 at byte 152", "instrument 7 was not defined"]),
        (packet(3, &with(quote(0, 3))), 2, &["record 2 at byte 152", "instrument 0 was not defined"]),
        (packet(3, &with(set(trade(1, 3), 56, b'X'))), 2, &["record 2 at byte 152", "trade side is 0x58"]),
        (packet(2, &[trailing]), 2, &["counts 2 records", "64 bytes are left"]),
        (set(packet(2, &good()), 0, 2), 0, &["packet version 2", "version 1"]),
        (packet(2, &good())[..10].to_vec(), 0, &["packet of 10 bytes"]),
        (Vec::new(), 0, &["packet of 0 bytes"]),
    ];
    let mut scene = WatchedServer::start(PUBLISH);
    for (nth, (bytes, kept, said)) in cases.into_iter().enumerate() {
        let symbol = format!("BAD-{nth:02}");
        let mut subscriber = scene.server.subscriber(&["quote", "trade"], &[&format!("{symbol}*")]);
        let mut bad = publisher(&scene.server);
        define(&mut bad, &[&symbol]);
        bad.send(Message::binary(bytes));
        bad.expect_close(1008, said);
        // The next record of the symbol tells that nothing stands between.
        let mut good = publisher(&scene.server);
        let id = define(&mut good, &[&symbol])[0];
        publish(&mut good, &[quote(id, 99)]);
        let came = subscriber.records(kept + 1);
        let sequences: Vec<u64> = came.iter().map(|record| record.header.sequence.get()).collect();
        assert_eq!(sequences, (1..=kept as u64 + 1).collect::<Vec<_>>(), "case {nth}");
        assert_eq!(subscriber.symbol(&came[0]), symbol);
        let last = came.last().expect("at least one");
        assert_eq!(last.bytes[32..], quote(1, 99)[32..], "case {nth}");
        scene.assert_undisturbed();
    }
}

#[test]
fn a_bad_definition_is_answered_with_an_error_and_the_connection_stays() {
    let mut scene = WatchedServer::start(PUBLISH);
    let mut client = publisher(&scene.server);
    assert_eq!(define(&mut client, &["ONE"]), [1]);
    let with = |fields: &str| format!(r#"{{"op":"define","id":4,"instruments":[{{{fields}}}]}}"#);
    for (text, id, said) in [
        ("{".to_owned(), None, &["JSON"][..]),
        (r#"{"op":"define","instruments":[]}"#.to_owned(), None, &["id: missing"]),
        (r#"{"op":"define","id":4,"instruments":[]}"#.to_owned(), Some(4), &["instruments: empty"]),
        (r#"{"op":"subscribe","id":4}"#.to_owned(), Some(4), &["op: unknown op", "define"]),
        (with(r#""symbol":"A","px_exp":19,"sz_exp":0"#), Some(4), &["instruments[0].px_exp: given 19", "-18 to 18"]),
        (with(r#""symbol":"A","px_exp":-2"#), Some(4), &["instruments[0].sz_exp: missing"]),
        (with(r#""symbol":"","px_exp":-2,"sz_exp":0"#), Some(4), &["instruments[0].symbol"]),
        (with(r#""symbol":"A*","px_exp":-2,"sz_exp":0"#), Some(4), &["instruments[0].symbol", "no *"]),
        (with(r#""symbol":"ONE","px_exp":-3,"sz_exp":0"#), Some(4), &["instruments[0]: ONE", "px_exp -2"]),
        (with(r#""symbol":"ONE","px_exp":-2,"sz_exp":1"#), Some(4), &["instruments[0]: ONE", "sz_exp 0"]),
    ] {
        client.send_and_expect_error(&text, id, "bad_request", said);
        assert_eq!(define(&mut client, &["ONE"]), [1], "the connection stays, and what was defined too");
    }
    scene.assert_undisturbed();
}

#[test]
fn records_of_an_instrument_that_was_refused_are_not_lost_in_silence() {
    let mut scene = WatchedServer::start(PUBLISH);
    define(&mut publisher(&scene.server), &["ONE"]);
    let mut other = publisher(&scene.server);
    let conflict = r#"{"op":"define","id":4,"instruments":[{"symbol":"ONE","px_exp":-3,"sz_exp":0}]}"#;
    other.send_and_expect_error(conflict, Some(4), "bad_request", &["px_exp -2"]);
    publish(&mut other, &[quote(1, 1)]);
    other.expect_close(1008, &["record 0 at byte 24", "instrument 1 was not defined"]);
    scene.assert_undisturbed();
}

#[test]
fn what_a_good_publisher_sends_is_what_a_subscriber_gets() {
    let mut scene = WatchedServer::start(PUBLISH);
    let mut subscriber = scene.server.subscriber(&["quote", "trade", "ticker", "book", "raw"], &["PUB-*"]);
    let mut client = publisher(&scene.server);
    let ids = define(&mut client, &["PUB-A", "PUB-€"]);
    assert_eq!(ids, [1, 2]);
    let level = |px, sz, side| [numbers(&[px, sz]), vec![side, 0, 0, 0, 0, 0, 0, 0]].concat();
    let book = |kind, levels: &[Vec<u8>]| {
        let head = [&(levels.len() as u16).to_le_bytes()[..], &[kind, 0, 0, 0, 0, 0]].concat();
        [head, levels.concat()].concat()
    };
    let raw = |payload: &[u8]| {
        let padding = vec![0; payload.len().next_multiple_of(8) - payload.len()];
        [&(payload.len() as u32).to_le_bytes()[..], &[0; 4], payload, &padding].concat()
    };
    let mut sent = Vec::new();
    for round in 0..20 {
        for id in &ids {
            sent.push(quote(*id, round));
            sent.push(trade(*id, round));
            sent.push(record(3, *id, 7, &numbers(&[1, 2, 3, i64::MIN, 5, 6, 7, round])));
            let kind = if round == 0 { b'S' } else { b'D' };
            sent.push(record(4, *id, 0, &book(kind, &[level(100 + round, 3, b'B'), level(200 - round, 4, b'A')])));
            sent.push(record(5, *id, 1, &raw(&vec![round as u8; round as usize])));
        }
    }
    for records in sent.chunks(7) {
        publish(&mut client, records);
    }
    for sent in &sent {
        let came = subscriber.record();
        let symbol = if sent[4] == 1 { "PUB-A" } else { "PUB-€" };
        assert_eq!(subscriber.symbol(&came), symbol);
        is_as_sent(&came, sent);
    }
    scene.assert_undisturbed();
}

#[test]
fn two_publishers_of_one_symbol_share_its_sequences() {
    let mut scene = WatchedServer::start(PUBLISH);
    let mut pattern = scene.server.subscriber(&["trade"], &["SHA*"]);
    let (mut one, mut two) = (publisher(&scene.server), publisher(&scene.server));
    assert_eq!(define(&mut one, &["SHARED"]), [1]);
    assert_eq!(define(&mut two, &["OTHER", "SHARED"]), [1, 2]);
    let mut exact = scene.server.subscriber(&["trade"], &["SHARED"]);
    for nth in 0..50 {
        publish(&mut one, &[trade(1, nth)]);
        publish(&mut two, &[trade(2, 1000 + nth)]);
    }
    for reader in [&mut exact, &mut pattern] {
        let came = reader.records(100);
        let sequences: Vec<u64> = came.iter().map(|record| record.header.sequence.get()).collect();
        assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
        let of = |from: u64| came.iter().map(|record| record.header.ts_event).filter(move |id| id / 1000 == from);
        assert_eq!(of(0).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>(), "the first one's, in their order");
        assert_eq!(of(1).collect::<Vec<_>>(), (1000..1050).collect::<Vec<_>>(), "the second one's");
    }
    scene.assert_undisturbed();
}

#[test]
fn a_publisher_that_floods_loses_nothing() {
    const PACKETS: i64 = 80;
    const RECORDS: i64 = 1000;
    // A ring of 2 MiB: what is published is more than twice that.
    let mut scene = WatchedServer::start(&[PUBLISH, &["--ring-bytes", "2097152"]].concat());
    let mut client = publisher(&scene.server);
    define(&mut client, &["FLOOD"]);
    let mut subscriber = scene.server.subscriber(&["trade"], &["FLOOD"]);
    let flood = std::thread::spawn(move || {
        for packet in 0..PACKETS {
            let trades: Vec<_> = (0..RECORDS).map(|nth| trade(1, packet * RECORDS + nth)).collect();
            publish(&mut client, &trades);
        }
        client
    });
    // A subscriber that is too slow for this ring gets a Gap in place of what it has missed: that, too, was sequenced.
    let mut last = 0;
    while last < (PACKETS * RECORDS) as u64 {
        let came = subscriber.record();
        let missed: u64 = subscriber.gaps.drain(..).map(|gap| gap.missing()).sum();
        assert_eq!((came.header.sequence.get(), came.header.ts_event), (last + missed + 1, last + missed));
        last = came.header.sequence.get();
    }
    let mut client = flood.join().expect("it writes to the end");
    assert_eq!(define(&mut client, &["FLOOD"]), [1], "its connection is open");
    scene.assert_undisturbed();
}
