//! Publishers: who may publish, which records are refused, and that subscribers receive all the others.

use serde_json::json;
use tickcast_test_support::client::{Client, Record};
use tickcast_test_support::http::{send_request, upgrade_request};
use tickcast_test_support::publisher::{Publisher, RAW, TICKER, book, numbers, packet, quote, record, trade};
use tickcast_test_support::server::{Server, WatchedServer};
use tungstenite::Message;

const PUBLISH: &[&str] = &["--publish-token", "test-publish-token"];
const BEARER: &[(&str, &str)] = &[("Authorization", "Bearer test-publish-token")];

fn publisher(server: &Server) -> Publisher {
    Publisher::connect(server, "test-publish-token")
}

/// Asserts that all fields are as sent but those that the server sets. The subscriber checks the sequence.
#[track_caller]
fn assert_as_sent(received: &Record, sent: &[u8]) {
    let payload = |bytes: &[u8]| [&bytes[..4], &bytes[16..24], &bytes[32..]].concat();
    assert_eq!(payload(&received.bytes), payload(sent), "{received:?}");
    assert!(received.header.ts_recv > 1_700_000_000_000_000_000, "set by the server: {received:?}");
}

#[test]
fn a_wrong_token_gets_a_401() {
    let mut watched = WatchedServer::start(PUBLISH);
    let address = watched.server.address;
    for (path, headers) in [
        ("/v1/publish", &[][..]),
        ("/v1/publish", &[("Authorization", "Bearer wrong")]),
        ("/v1/publish", &[("Authorization", "Bearer test-publish-tokens")]),
        ("/v1/publish", &[("Authorization", "Bearer ")]),
        ("/v1/publish", &[("Authorization", "Basic test-publish-token")]),
        ("/v1/publish?token=", &[]),
        ("/v1/publish?token=wrong", &[]),
        ("/v1/publish?token=test-publish-token", &[("Authorization", "Bearer wrong")]),
    ] {
        let Err(response) = Client::try_connect(address, path, headers) else {
            panic!("{path} {headers:?} is accepted")
        };
        assert_eq!(response.status, 401, "{path} {headers:?}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }
    send_request(address, upgrade_request("/v1/publish").as_bytes()).assert_refusal(
        401,
        "unauthorized",
        &["Bearer TOKEN", "?token=TOKEN"],
    );
    watched.assert_undisturbed();
}

#[test]
fn subscriber_of_a_name_that_is_defined_later_gets_every_record() {
    let server = Server::start(&[PUBLISH, &["--feed", "none"]].concat());
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["LATER/USD","A"]}"#);
    let reply = client.reply();
    assert_eq!((&reply["unknown"], &reply["count"]), (&json!(["LATER/USD", "A"]), &json!(0)), "{reply}");
    let subscribe = |channels: &[&str]| server.subscriber(channels, &["LATER/USD"]);
    let mut subscribers = [subscribe(&["trade"]), subscribe(&["quote", "trade", "raw"])];
    let mut publisher = publisher(&server);
    assert_eq!(publisher.define(&["OTHER", "LATER/USD"]), [1, 2]);
    publisher.publish(&[trade(1, 7), trade(2, 1), trade(1, 8), trade(2, 2)]);
    publisher.publish(&[trade(2, 3)]);
    for subscriber in &mut subscribers {
        for (px, record) in (1..=3).zip(subscriber.records(3)) {
            assert_eq!(subscriber.symbol(&record), "LATER/USD");
            assert_as_sent(&record, &trade(2, px));
            assert_eq!(record.header.sequence.get(), px as u64);
        }
    }
}

#[test]
fn the_token_may_be_in_the_header_or_in_the_query() {
    let mut watched = WatchedServer::start(PUBLISH);
    for (path, headers) in [
        ("/v1/publish", BEARER),
        ("/v1/publish", &[("Authorization", "bearer  test-publish-token")]),
        ("/v1/publish?token=test-publish-token", &[]),
        ("/v1/publish?t%6fken=t%65st-publish-token", &[]),
    ] {
        let mut client = Publisher(Client::connect(watched.server.address, path, headers));
        assert_eq!(client.define(&["A"]), [1], "{path} {headers:?}");
    }
    watched.assert_undisturbed();
}

#[test]
fn without_a_token_publishing_is_off_and_the_response_says_how_to_enable_it() {
    let mut watched = WatchedServer::start(&[]);
    let response = send_request(watched.server.address, upgrade_request("/v1/publish?token=").as_bytes());
    response.assert_refusal(404, "not_found", &["publishing is off", "--publish-token-file FILE"]);
    watched.assert_undisturbed();
}

#[test]
fn a_malformed_packet_closes_with_1008_and_the_records_before_are_kept() {
    let good = || vec![quote(1, 1), quote(1, 2)];
    let with = |last: Vec<u8>| [good(), vec![last]].concat();
    let cut = |record: Vec<u8>, length: usize| record[..length].to_vec();
    let set = |mut record: Vec<u8>, at: usize, byte: u8| {
        record[at] = byte;
        record
    };
    let trailing = [good().concat(), vec![0; 64]].concat();
    let cases: Vec<(Vec<u8>, usize, &[&str])> = vec![
        (packet(3, &with(cut(quote(1, 3), 44))), 2, &["record 2 at byte 152", "cut short at 44 bytes: expected 64"]),
        (packet(3, &with(cut(quote(1, 3), 20))), 2, &["record 2 at byte 152", "cut short at 20 bytes: expected 32"]),
        (packet(3, &good()), 2, &["record 2 at byte 152", "cut short at 0 bytes"]),
        (packet(3, &with(set(quote(1, 3), 0, 9))), 2, &["record 2 at byte 152", "length 72", "64"]),
        (packet(3, &with(set(quote(1, 3), 0, 0))), 2, &["record 2 at byte 152", "length 0", "64"]),
        (packet(3, &with(set(quote(1, 3), 2, 9))), 2, &["record 2 at byte 152", "type 9: expected 1 to 5"]),
        (packet(3, &with(set(quote(1, 3), 2, 16))), 2, &["record 2 at byte 152", "type 16"]),
        (packet(3, &with(quote(7, 3))), 2, &["record 2 at byte 152", "instrument 7 was not defined"]),
        (packet(3, &with(quote(0, 3))), 2, &["record 2 at byte 152", "instrument 0 was not defined"]),
        (packet(3, &with(set(trade(1, 3), 56, b'X'))), 2, &["record 2 at byte 152", "trade side: invalid value 0x58"]),
        (packet(2, &[trailing]), 2, &["2 records that the header counts", "64 bytes follow"]),
        (set(packet(2, &good()), 0, 2), 0, &["packet version 2", "expected 1"]),
        (packet(2, &good())[..10].to_vec(), 0, &["packet: 10 bytes"]),
        (Vec::new(), 0, &["packet: 0 bytes"]),
    ];
    let mut watched = WatchedServer::start(PUBLISH);
    for (nth, (bytes, kept, parts)) in cases.into_iter().enumerate() {
        let symbol = format!("BAD-{nth:02}");
        let mut subscriber = watched.server.subscriber(&["quote", "trade"], &[&format!("{symbol}*")]);
        let mut bad = publisher(&watched.server);
        bad.define(&[&symbol]);
        bad.0.send(Message::binary(bytes));
        bad.0.expect_close(1008, parts);
        // The sequence of the next record shows that nothing is between.
        let mut good = publisher(&watched.server);
        let id = good.define(&[&symbol])[0];
        good.publish(&[quote(id, 99)]);
        let received = subscriber.records(kept + 1);
        let sequences: Vec<u64> = received.iter().map(|record| record.header.sequence.get()).collect();
        assert_eq!(sequences, (1..=kept as u64 + 1).collect::<Vec<_>>(), "case {nth}");
        assert_eq!(subscriber.symbol(&received[0]), symbol);
        let last = received.last().expect("at least one");
        assert_eq!(last.bytes[32..], quote(1, 99)[32..], "case {nth}");
        watched.assert_undisturbed();
    }
}

#[test]
fn a_bad_definition_gets_an_error_and_the_connection_stays() {
    let mut watched = WatchedServer::start(PUBLISH);
    let mut client = publisher(&watched.server);
    assert_eq!(client.define(&["ONE"]), [1]);
    let with = |fields: &str| format!(r#"{{"op":"define","id":4,"instruments":[{{{fields}}}]}}"#);
    for (text, id, parts) in [
        ("{".to_owned(), None, &["JSON"][..]),
        (r#"{"op":"define","instruments":[]}"#.to_owned(), None, &["instruments: empty"]),
        (r#"{"op":"define","id":4,"instruments":[],"x":1}"#.to_owned(), Some(4), &["\"x\": unknown field"]),
        (r#"{"op":"define","id":4,"instruments":[]}"#.to_owned(), Some(4), &["instruments: empty"]),
        (r#"{"op":"subscribe","id":4}"#.to_owned(), Some(4), &["op: unknown op", "define"]),
        (
            with(r#""symbol":"A","px_exp":19,"sz_exp":0"#),
            Some(4),
            &["instruments[0].px_exp: invalid value 19", "-18 to 18"],
        ),
        (with(r#""symbol":"A","px_exp":-2"#), Some(4), &["instruments[0].sz_exp: missing"]),
        (with(r#""symbol":"","px_exp":-2,"sz_exp":0"#), Some(4), &["instruments[0].symbol"]),
        (with(r#""symbol":"A*","px_exp":-2,"sz_exp":0"#), Some(4), &["instruments[0].symbol", "no *"]),
        (with(r#""symbol":"A ","px_exp":-2,"sz_exp":0"#), Some(4), &["instruments[0].symbol", "ends with a space"]),
        (
            with(r#""symbol":"TWO","px_exp":-2,"sz_exp":0},{"symbol":"TWO","px_exp":-3,"sz_exp":0"#),
            Some(4),
            &["instruments[1]: TWO is defined twice", "nothing of this request is defined"],
        ),
    ] {
        client.0.send_and_expect_error(&text, id, "bad_request", parts);
        assert_eq!(client.define(&["ONE"]), [1], "connection and definitions stay");
    }
    watched.assert_undisturbed();
}

#[test]
fn records_of_a_refused_instrument_close_the_publisher() {
    let mut watched = WatchedServer::start(PUBLISH);
    let mut owner = publisher(&watched.server);
    owner.define(&["ONE"]);
    let mut other = publisher(&watched.server);
    let conflict = r#"{"op":"define","id":4,"instruments":[{"symbol":"NEW","px_exp":-3,"sz_exp":0},{"symbol":"ONE","px_exp":-3,"sz_exp":0}]}"#;
    let parts = ["instruments[1]: ONE is already defined by another source", "px_exp -2", "nothing of this request"];
    other.0.send_and_expect_error(conflict, Some(4), "bad_request", &parts);
    other.publish(&[quote(1, 1)]);
    other.0.expect_close(1008, &["record 0 at byte 24", "instrument 1 was not defined"]);
    watched.assert_undisturbed();
}

#[test]
fn subscribers_receive_the_records_as_published() {
    let mut watched = WatchedServer::start(PUBLISH);
    let mut subscriber = watched.server.subscriber(&["quote", "trade", "ticker", "book", "raw"], &["PUB-*"]);
    let mut client = publisher(&watched.server);
    let ids = client.define(&["PUB-A", "PUB-€"]);
    assert_eq!(ids, [1, 2]);
    let raw = |payload: &[u8]| {
        let padding = vec![0; payload.len().next_multiple_of(8) - payload.len()];
        [&(payload.len() as u32).to_le_bytes()[..], &[0; 4], payload, &padding].concat()
    };
    let mut sent = Vec::new();
    for round in 0..20 {
        for id in &ids {
            sent.push(quote(*id, round));
            sent.push(trade(*id, round));
            sent.push(record(TICKER, *id, 7, &numbers(&[1, 2, 3, i64::MIN, 5, 6, 7, round])));
            let action = if round == 0 { b'S' } else { b'D' };
            sent.push(book(*id, action, &[(100 + round, 3, b'B'), (200 - round, 4, b'A')]));
            sent.push(record(RAW, *id, 1, &raw(&vec![round as u8; round as usize])));
        }
    }
    for records in sent.chunks(7) {
        client.publish(records);
    }
    for sent in &sent {
        let received = subscriber.record();
        let symbol = if sent[4] == 1 { "PUB-A" } else { "PUB-€" };
        assert_eq!(subscriber.symbol(&received), symbol);
        assert_as_sent(&received, sent);
    }
    watched.assert_undisturbed();
}

#[test]
fn two_publishers_of_a_symbol_share_its_sequences() {
    let mut watched = WatchedServer::start(PUBLISH);
    let mut pattern = watched.server.subscriber(&["trade"], &["SHA*"]);
    let (mut one, mut two) = (publisher(&watched.server), publisher(&watched.server));
    assert_eq!(one.define(&["SHARED"]), [1]);
    assert_eq!(two.define(&["OTHER", "SHARED"]), [1, 2]);
    let mut exact = watched.server.subscriber(&["trade"], &["SHARED"]);
    for nth in 0..50 {
        one.publish(&[trade(1, nth)]);
        two.publish(&[trade(2, 1000 + nth)]);
    }
    for reader in [&mut exact, &mut pattern] {
        let received = reader.records(100);
        let sequences: Vec<u64> = received.iter().map(|record| record.header.sequence.get()).collect();
        assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
        let of = |from: u64| received.iter().map(|record| record.header.ts_event).filter(move |id| id / 1000 == from);
        assert_eq!(of(0).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>(), "the records of the first, in order");
        assert_eq!(of(1).collect::<Vec<_>>(), (1000..1050).collect::<Vec<_>>(), "the records of the second, in order");
    }
    watched.assert_undisturbed();
}

#[test]
fn a_flooding_publisher_loses_no_record() {
    const PACKETS: i64 = 80;
    const RECORDS: i64 = 1000;
    // More than twice the ring is published.
    let mut watched = WatchedServer::start(&[PUBLISH, &["--ring-bytes", "2097152"]].concat());
    let mut client = publisher(&watched.server);
    client.define(&["FLOOD"]);
    let mut subscriber = watched.server.subscriber(&["trade"], &["FLOOD"]);
    let flood = std::thread::spawn(move || {
        for packet in 0..PACKETS {
            let trades: Vec<_> = (0..RECORDS).map(|nth| trade(1, packet * RECORDS + nth)).collect();
            client.publish(&trades);
        }
        client
    });
    // A subscriber that is too slow for this ring gets a Gap for the records that it has missed.
    let mut last = 0;
    while last < (PACKETS * RECORDS) as u64 {
        let received = subscriber.record();
        let missed: u64 = subscriber.gaps.drain(..).map(|gap| gap.missing()).sum();
        assert_eq!((received.header.sequence.get(), received.header.ts_event), (last + missed + 1, last + missed));
        last = received.header.sequence.get();
    }
    let mut client = flood.join().expect("the server reads to the end");
    assert_eq!(client.define(&["FLOOD"]), [1], "the connection is open");
    watched.assert_undisturbed();
}

#[test]
fn a_record_of_a_released_instrument_closes_the_publisher_with_1008() {
    const STATUS: u8 = 19;
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token", "--instruments-max", "1"]);
    let mut first = publisher(&server);
    let id = first.define(&["MAY-28"])[0];
    first.publish(&[record(STATUS, id, 1, &[b'E', 0, 0, 0, 0, 0, 0, 0])]);
    // It is answered once the record before is sequenced.
    first.0.send_and_expect_error("{}", None, "bad_request", &[]);
    let mut second = publisher(&server);
    let of_second = second.define(&["JUN-28"])[0];
    let mut subscriber = server.subscriber(&["trade"], &["JUN-28"]);
    first.publish(&[trade(id, 5)]);
    first.0.expect_close(1008, &["MAY-28", "released", "defined again"]);
    second.publish(&[trade(of_second, 6)]);
    let received = subscriber.record();
    assert_eq!((received.header.sequence.get(), received.bytes[32]), (1, 6), "only its own: {received:?}");
}
