//! RabbitMQ: queues, streams and exchanges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::process::Signal;
use tickcast_protocol::record::{Trade, read_raw};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Subscriber;

use crate::broker::{
    assert_never_shown, free_port, serve, sources, wait_for_problem, wait_for_source, wait_until_open,
};
use crate::certificates;
use crate::oracle::{first_trade, trade, trade_packet};
use crate::rabbitmq_server::{CLOSED_VHOST, PASSWORD, Rabbit, RabbitClient, shared};

/// Publishes trades, and waits until each is confirmed.
fn publish_all(client: &RabbitClient, queue: &str, symbol: &str, ids: RangeInclusive<u64>) {
    ids.for_each(|id| client.publish("", queue, trade(symbol, id).as_bytes()));
}

fn feed(rabbit: &Rabbit, rest: &str) -> String {
    format!("rabbitmq://127.0.0.1:{}?{rest}", rabbit.port())
}

/// The trades that come of a symbol, up to this one.
fn trades_until(subscriber: &mut Subscriber, last: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    while ids.last() != Some(&last) {
        subscriber.restart_deadline();
        ids.push(Trade::read(&subscriber.record().bytes).expect("a whole trade").trade_id);
    }
    ids
}

#[test]
fn each_form_of_payload_reaches_a_subscriber() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    client.make_exchange("forms");
    client.make_queue("forms.json", "classic");
    client.make_queue("forms.packets", "quorum");
    client.make_queue("forms.raw", "stream");
    client.bind("forms.raw", "forms", "raw.#");
    let feeds = [
        feed(&rabbit, "queue=forms.json"),
        feed(&rabbit, "exchange=forms&bind=named.#,other.*&symbol=routing_key&prefix=named.&dots=/"),
        feed(&rabbit, "queue=forms.packets&codec=tickcast"),
        feed(&rabbit, "stream=forms.raw&codec=raw&prefix=raw."),
    ];
    let server = serve(&feeds.each_ref().map(String::as_str));
    let (mut json, next) =
        first_trade(&server, 0, "J", |id| client.publish("", "forms.json", trade("J", id).as_bytes()));
    client.publish("", "forms.json", format!("[{},{}]", trade("J", next), trade("J", next + 1)).as_bytes());
    json.expect(next..=next + 1);
    first_trade(&server, 1, "BTC/USD", |id| client.publish("forms", "named.BTC.USD", trade("x", id).as_bytes()));
    first_trade(&server, 2, "币", |id| client.publish("", "forms.packets", &trade_packet("币", id)));
    wait_until_open(&server, 3);
    let mut raw = server.subscriber(&["raw"], &["BTC/USD:1"]);
    client.publish("forms", "raw.BTC%2FUSD%3A1", b"\x00opaque\xff");
    assert_eq!(read_raw(&raw.record().bytes), Some(&b"\x00opaque\xff"[..]));
    // What cannot be read is counted, and the rest goes on.
    for (exchange, key, payload) in [
        ("", "forms.json", &b"{"[..]),
        ("forms", "named.a%2db", trade("x", 1).as_bytes()),
        ("", "forms.packets", b"no packet"),
        ("forms", "raw.BTC/USD", b"x"),
    ] {
        client.publish(exchange, key, payload);
    }
    for nth in 0..4 {
        wait_for_source(&server, nth, |source| source["lost"]["malformed"] == 1);
    }
    client.publish("", "forms.json", trade("J", next + 2).as_bytes());
    json.expect(next + 2..=next + 2);
    // Everything is acknowledged: nothing is left for another run of the server.
    wait_for_source(&server, 0, |source| source["lag"] == 0);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    let server = serve(&[&feeds[0]]);
    wait_for_source(&server, 0, |source| source["lag"] == 0);
    assert_eq!(sources(&server)[0]["records"], 0);
}

/// What was published and confirmed, by its destination, and the last number of all.
#[derive(Default)]
struct Published {
    confirmed: BTreeMap<&'static str, BTreeSet<u64>>,
    last: u64,
}

/// Publishes trades everywhere, each number once: what was not confirmed may be there or not. It ends once the flag is
/// set and the last number is confirmed everywhere.
fn publish_everywhere(port: u16, first: u64, is_enough: &AtomicBool) -> Published {
    let mut published = Published { last: first, ..Published::default() };
    let mut client: Option<RabbitClient> = None;
    let until = Instant::now() + 3 * DEADLINE;
    loop {
        assert!(Instant::now() < until, "the test does not end");
        let Some(connected) = &client else {
            client = RabbitClient::try_connect(port).ok();
            continue;
        };
        let id = published.last;
        let mut is_everywhere = true;
        for (exchange, key, message_id) in
            [("", "named", Some(id)), ("", "kept", None), ("", "nameless", None), ("pushed", "any", None)]
        {
            let symbol = if exchange.is_empty() { key } else { exchange };
            match connected.try_publish(exchange, key, trade(symbol, id).as_bytes(), message_id) {
                Ok(()) => drop(published.confirmed.entry(symbol).or_default().insert(id)),
                Err(_) => is_everywhere = false,
            }
        }
        if !is_everywhere {
            client = None;
        } else if is_enough.load(Ordering::Acquire) {
            return published;
        }
        published.last += 1;
    }
}

#[test]
fn killed_broker_loses_and_repeats_what_is_documented() {
    let Some(mut rabbit) = Rabbit::new() else { return };
    rabbit.broker.start();
    let client = rabbit.client();
    for queue in ["named", "nameless"] {
        client.make_queue(queue, "classic");
    }
    client.make_queue("kept", "stream");
    client.make_exchange("pushed");
    let feeds = ["queue=named", "stream=kept", "queue=nameless", "exchange=pushed"];
    let feeds = feeds.map(|rest| feed(&rabbit, rest));
    let server = serve(&feeds.each_ref().map(String::as_str));
    (0..4).for_each(|nth| wait_until_open(&server, nth));
    let [mut named, mut kept, mut nameless] =
        ["named", "kept", "nameless"].map(|symbol| server.subscriber(&["trade"], &[symbol]));
    let (mut pushed, first) =
        first_trade(&server, 3, "pushed", |id| client.publish("pushed", "any", trade("pushed", id).as_bytes()));
    let (is_enough, port) = (AtomicBool::new(false), rabbit.port());
    let (published, mut ids) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_everywhere(port, first, &is_enough));
        let mut ids = Vec::new();
        // In the middle of the stream.
        while ids.last().is_none_or(|id| *id < first + 150) {
            named.restart_deadline();
            ids.push(Trade::read(&named.record().bytes).expect("a whole trade").trade_id);
        }
        rabbit.wait_for_streams();
        rabbit.broker.kill();
        rabbit.broker.start();
        for nth in 0..4 {
            wait_for_source(&server, nth, |source| source["restarts"] != 0 && source["state"] == "live");
        }
        is_enough.store(true, Ordering::Release);
        (publisher.join().expect("no panic"), ids)
    });
    ids.extend(trades_until(&mut named, published.last));
    for (symbol, ids, subscriber) in [
        ("named", ids, &named),
        ("kept", trades_until(&mut kept, published.last), &kept),
        ("nameless", trades_until(&mut nameless, published.last), &nameless),
    ] {
        let came: BTreeSet<u64> = ids.iter().copied().collect();
        let lost = published.confirmed[symbol].difference(&came).count();
        let doubled = ids.len() - came.len();
        println!("{symbol}: {} came, {doubled} of them again, {lost} were lost", ids.len());
        assert_eq!((lost, subscriber.gaps.len()), (0, 0), "{symbol}");
        let is_in_order = ids.is_sorted_by(|one, other| one < other);
        assert!(symbol == "nameless" || is_in_order, "{symbol}: {ids:?}");
    }
    pushed.until(published.last);
    assert!(pushed.missing > 0 && pushed.gaps() > 0);
    wait_for_source(&server, 0, |source| source["lag"] == 0);
}

#[test]
fn killed_server_leaves_what_it_did_not_acknowledge_to_the_next_run() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    client.make_queue("runs", "classic");
    let feed = feed(&rabbit, "queue=runs");
    let server = serve(&[&feed]);
    let mut trades = server.subscriber(&["trade"], &["R"]);
    wait_until_open(&server, 0);
    for id in 1..=100 {
        publish_all(&client, "runs", "R", id..=id);
        assert_eq!(trades_until(&mut trades, id), [id]);
    }
    // The first run may have one more than was seen of it.
    publish_all(&client, "runs", "R", 101..=101);
    assert_eq!(server.stop(Signal::KILL).code, None);
    publish_all(&client, "runs", "R", 102..=200);
    let server = serve(&[&feed]);
    let mut trades = server.subscriber(&["trade"], &["R"]);
    wait_until_open(&server, 0);
    publish_all(&client, "runs", "R", 201..=201);
    // Sequences count the trades of this run.
    let count = loop {
        let record = trades.record();
        if Trade::read(&record.bytes).expect("a whole trade").trade_id == 201 {
            break record.header.sequence.get();
        }
    };
    assert!((100..200).contains(&count), "{count} of 201 came");
}

#[test]
fn stream_begins_where_it_is_told() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    let places = ["all", "15", "new"];
    for from in places {
        client.make_queue(from, "stream");
        publish_all(&client, from, from, 1..=20);
    }
    let feeds = places.map(|from| feed(&rabbit, &format!("stream={from}&from={from}")));
    let server = serve(&feeds.each_ref().map(String::as_str));
    (0..3).for_each(|nth| wait_until_open(&server, nth));
    for (nth, (from, count)) in places.into_iter().zip([22, 7, 2]).enumerate() {
        publish_all(&client, from, from, 21..=22);
        // Besides the definition.
        wait_for_source(&server, nth, |source| source["records"] == count + 1);
    }
}

#[test]
fn overflow_of_the_queue_of_an_exchange_is_a_gap_and_counted_exactly() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    client.make_exchange("burst");
    let server = serve(&[&feed(&rabbit, "exchange=burst&buffer=16")]);
    let (mut oracle, next) = first_trade(&server, 0, "A", |id| client.publish("burst", "a", trade("A", id).as_bytes()));
    let last = next + 4_000;
    client.publish_burst("burst", "a", (next..=last).map(|id| trade("A", id)));
    // The newest message is never dropped for others.
    oracle.until(last);
    assert!(oracle.missing > 0 && oracle.gaps() > 0, "{} of 4000 are missing", oracle.missing);
    let missing = oracle.missing;
    wait_for_source(&server, 0, |source| source["lost"]["messages_lost"] == missing);
}

#[test]
fn what_is_wrong_is_said_with_its_cure() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    for queue in ["forbidden", "classic"] {
        client.make_queue(queue, "classic");
    }
    client.make_queue("unnamed", "stream");
    let file = |name: &str, text: &str| {
        let file = rabbit.broker.folder.path().join(name);
        std::fs::write(&file, text).expect("the folder is writable");
        format!("user=acme&password_file={}", file.display())
    };
    let (right, wrong) = (file("right", &format!("{PASSWORD}\n")), file("wrong", "wrong-horse\n"));
    let cases = [
        (format!("queue=allowed&{wrong}"), "failed", "the broker refuses the credentials: ACCESS_REFUSED"),
        (format!("queue=allowed&{wrong}"), "failed", "correct user= and password_file="),
        (format!("queue=forbidden&{right}"), "failed", "rabbitmqctl set_permissions"),
        (format!("queue=allowed&vhost={CLOSED_VHOST}&{right}"), "failed", "set_permissions -p closed"),
        (
            "queue=classic&vhost=absent".to_owned(),
            "retrying",
            "vhost absent does not exist: create it with `rabbitmqctl",
        ),
        ("queue=absent".to_owned(), "retrying", "queue absent does not exist: create it"),
        ("stream=absent".to_owned(), "retrying", "stream absent does not exist: create it"),
        ("exchange=absent".to_owned(), "retrying", "exchange absent does not exist: create it"),
        ("stream=classic".to_owned(), "failed", "give it as queue=classic"),
        ("queue=unnamed".to_owned(), "failed", "give it as stream=unnamed"),
    ];
    let down = free_port();
    let mut feeds: Vec<String> = cases.iter().map(|(rest, ..)| feed(&rabbit, rest)).collect();
    feeds.push(format!("rabbitmq://127.0.0.1:{down}?queue=x"));
    let server = serve(&feeds.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until_open(&server, 9);
    client.publish("", "unnamed", trade("X", 1).as_bytes());
    for (nth, (_, state, problem)) in cases.iter().enumerate() {
        wait_for_problem(&server, nth, state, problem);
    }
    wait_for_problem(&server, cases.len(), "retrying", "no connection: 127.0.0.1");
    client.make_queue("absent", "quorum");
    first_trade(&server, 5, "A", |id| client.publish("", "absent", trade("A", id).as_bytes()));
    assert_never_shown(server, "horse");
}

#[test]
fn certificate_has_to_be_of_a_trusted_authority() {
    let Some(rabbit) = shared() else { return };
    let Some(pem) = &rabbit.certificates else { return };
    let client = rabbit.client();
    client.make_queue("secret", "classic");
    let tls = |rest: &str| format!("rabbitmq://127.0.0.1:{}?queue=secret&{rest}", rabbit.tls_port);
    let feeds = [tls(&format!("ca_file={}", pem.authority.display())), tls("tls=1"), tls("tls=0")];
    let server = serve(&feeds.each_ref().map(String::as_str));
    wait_for_problem(&server, 1, "failed", "its certificate does not verify: it is from no authority that the system");
    wait_for_problem(&server, 1, "failed", "name the authority of its certificate with ca_file=FILE");
    wait_for_problem(&server, 2, "retrying", "is it a port with TLS, for which tls=1 is missing?");
    first_trade(&server, 0, "A", |id| client.publish("", "secret", trade("A", id).as_bytes()));
}

#[test]
fn deleted_queue_is_waited_for_and_deleted_stream_is_read_behind_a_gap() {
    let Some(rabbit) = shared() else { return };
    let client = rabbit.client();
    let make = || {
        client.make_queue("gone", "classic");
        client.make_queue("renewed", "stream");
    };
    make();
    let feeds = ["queue=gone", "stream=renewed"].map(|rest| feed(&rabbit, rest));
    let server = serve(&feeds.each_ref().map(String::as_str));
    let (mut queue, next) = first_trade(&server, 0, "G", |id| client.publish("", "gone", trade("G", id).as_bytes()));
    let (mut stream, after) =
        first_trade(&server, 1, "R", |id| client.publish("", "renewed", trade("R", id).as_bytes()));
    for name in ["gone", "renewed"] {
        client.delete_queue(name);
    }
    wait_for_problem(&server, 0, "retrying", "queue gone does not exist");
    wait_for_problem(&server, 1, "retrying", "stream renewed does not exist");
    make();
    publish_all(&client, "gone", "G", next..=next + 9);
    queue.expect(next..=next + 9);
    // Their offsets are those of messages that were taken. The hole is the oracle's own: it shows that the Gap comes
    // before.
    publish_all(&client, "renewed", "R", after + 1..=after + 1);
    stream.expect(after + 1..=after + 1);
    assert_eq!((queue.gaps(), stream.missing), (0, 1));
    let exit = server.stop(Signal::TERM);
    for name in ["queue gone was deleted", "stream renewed was deleted"] {
        assert!(exit.stderr.contains(name), "{}", exit.stderr);
    }
}

#[test]
fn stream_that_was_made_anew_or_trimmed_meanwhile_is_read_behind_a_gap() {
    let Some(rabbit) = shared() else { return };
    let Some(pem) = &rabbit.certificates else { return };
    let Some(mut proxy) = certificates::proxy(pem, rabbit.port()) else { return };
    let client = rabbit.client();
    for stream in ["shorter", "longer", "same", "quiet"] {
        client.make_queue(stream, "stream");
    }
    client.make_stream_of("trimmed", 2_000, 1_000);
    let authority = pem.authority.display();
    let feeds = ["shorter", "longer", "trimmed", "same", "quiet"]
        .map(|name| format!("rabbitmq://127.0.0.1:{}?stream={name}&ca_file={authority}", proxy.port));
    let server = serve(&feeds.each_ref().map(String::as_str));
    let begin =
        |nth, stream| first_trade(&server, nth, stream, |id| client.publish("", stream, trade(stream, id).as_bytes()));
    let (mut shorter, next) = begin(0, "shorter");
    publish_all(&client, "shorter", "shorter", next..=next + 4);
    shorter.expect(next..=next + 4);
    let ((mut longer, after), (mut trimmed, first)) = (begin(1, "longer"), begin(2, "trimmed"));
    let (mut same, place) = begin(3, "same");
    wait_until_open(&server, 4);
    // Nothing tells the source what happens while it is away.
    proxy.kill();
    (0..5).for_each(|nth| drop(wait_for_source(&server, nth, |source| source["state"] == "retrying")));
    for stream in ["shorter", "longer"] {
        client.delete_queue(stream);
        client.make_queue(stream, "stream");
    }
    // A message with the offset of the last one that was taken, or none. The hole is the oracle's own: it shows that the
    // Gap comes before.
    publish_all(&client, "shorter", "shorter", next + 6..=next + 6);
    publish_all(&client, "longer", "longer", after + 1..=2 * after + 1);
    publish_all(&client, "same", "same", place..=place + 9);
    publish_all(&client, "trimmed", "trimmed", first..=first + 199);
    proxy.start();
    same.expect(place..=place + 9);
    shorter.expect(next + 6..=next + 6);
    longer.expect(after + 1..=2 * after + 1);
    trimmed.until(first + 199);
    assert_eq!((shorter.missing, longer.missing, same.gaps()), (1, 1, 0));
    assert!((1..200).contains(&trimmed.missing), "{} of 200 are missing", trimmed.missing);
    // Of a stream without a message before, it is not known what came meanwhile.
    wait_until_open(&server, 4);
    publish_all(&client, "quiet", "quiet", 1..=1);
    wait_for_source(&server, 4, |source| source["gaps"] == 1);
    let missing = trimmed.missing;
    // Some offsets in a stream are those of the broker's own notes.
    wait_for_source(&server, 2, |source| source["lost"]["messages_lost"].as_u64().is_some_and(|lost| lost >= missing));
}
