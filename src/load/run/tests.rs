//! Whole runs against scripted servers.

use std::net::SocketAddr;

use clap::Parser;
use tungstenite::Message;

use super::*;
use tickcast_test_support::packets::PacketBuilder;
use tickcast_test_support::scripted_server;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    load: LoadArgs,
}

fn args(flags: &[&str]) -> LoadArgs {
    let line = ["load"].into_iter().chain(flags.iter().copied());
    Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).load
}

const SHORT: StageLengths =
    StageLengths { warmup: Duration::ZERO, measure: Duration::from_millis(200), launch: Launch::Threads };

fn run(address: SocketAddr, flags: &[&str], stop: bool) -> (Result<LoadReport, LoadError>, String) {
    let address = address.to_string();
    let line: Vec<_> = [address.as_str()].into_iter().chain(flags.iter().copied()).collect();
    let mut out = Vec::new();
    let report = load_until(&args(&line), &SHORT, &mut out, &AtomicBool::new(stop));
    (report.map(|outcome| outcome.report), String::from_utf8(out).expect("a report is UTF-8"))
}

#[test]
fn a_run_goes_from_the_directory_to_its_report() {
    let directory = r#"{"instruments":[{"instrument":1,"symbol":"BTC-USD"}]}"#;
    let (sender, requested) = std::sync::mpsc::channel();
    let address = scripted_server::serve(directory, move |mut peer| {
        sender.send(scripted_server::subscribe_request(&mut peer)["symbols"].take()).expect("the test waits");
        // A client may have left by then: the run is short.
        let _ = peer.send(PacketBuilder::new().definition(1, "BTC-USD").quote(1, 0).message());
        scripted_server::wait_for_end(&mut peer);
    });
    let (report, text) = run(address, &["--clients", "5", "--threads", "2", "--shape", "one"], false);
    assert!((0..5).all(|_| requested.recv() == Ok(serde_json::json!(["BTC-USD"]))));
    let report = report.expect("a run");
    assert_eq!((report.connected, report.sequence_violations), (5, 0));
    assert!(text.starts_with("connections   5 connected, 0 refused ("), "{text}");
    let (report, json) = run(address, &["--clients", "1", "--json", "--processes", "2"], false);
    assert_eq!(report.expect("a run").connected, 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
    assert_eq!((&json["connected"], &json["clients"]), (&1.into(), &1.into()));
}

/// Instrument, sequence and `ts_event` of a record.
type Stamps = (u32, u64, u64);

/// A server that takes a publisher's packets, and sends the stamps of all records when the publisher has gone.
fn publish_server() -> (SocketAddr, std::sync::mpsc::Receiver<Vec<Stamps>>) {
    let (sender, stamps) = std::sync::mpsc::channel();
    let address = scripted_server::serve("", move |mut peer| {
        let define: serde_json::Value =
            serde_json::from_str(peer.read().expect("a define").to_text().expect("text")).expect("JSON");
        let named: Vec<_> = define["instruments"].as_array().expect("a list").iter().enumerate().collect();
        let ids: Vec<_> = named
            .iter()
            .map(|(nth, each)| serde_json::json!({"symbol": each["symbol"], "instrument": nth + 7}))
            .collect();
        let defined = serde_json::json!({"type": "defined", "id": 1, "instruments": ids});
        peer.send(Message::text(defined.to_string())).expect("the publisher reads");
        peer.send(Message::Ping("are you there".into())).expect("the publisher reads");
        let (mut records, mut decoder) = (Vec::new(), tickcast_client::decode::Decoder::without_names());
        while let Ok(message) = peer.read() {
            if let Message::Binary(packet) = message {
                let note = |_: Option<&_>, header: &tickcast_protocol::record::RecordHeader, _: &[u8]| {
                    records.push((header.instrument, header.sequence.get(), header.ts_event));
                };
                decoder.packet(&packet, note).expect("well-formed");
            }
        }
        sender.send(records).expect("the test waits");
    });
    (address, stamps)
}

#[test]
fn the_publisher_publishes_round_robin_with_due_times() {
    let (publish_address, published) = publish_server();
    let subscribers = scripted_server::serve("", |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        scripted_server::wait_for_end(&mut peer);
    });
    let url = publish_address.to_string();
    let publish = ["--publish", "2000", "--burst", "4", "--records-per-packet", "2", "--instruments", "3"];
    let flags = [&publish[..], &["--publish-url", &url, "--clients", "2"]].concat();
    let report = run(subscribers, &flags, false).0.expect("a run");
    let records = published.recv().expect("the publisher has gone");
    assert!(records.len() >= 300, "{} records", records.len());
    let start_ns = records[0].2;
    for (n, (instrument, sequence, ts_event)) in records.iter().enumerate() {
        let n = n as u64;
        assert_eq!((*instrument, *sequence), ((n % 3) as u32 + 7, n / 3 + 1));
        assert_eq!(*ts_event, start_ns + n / 4 * 2_000_000, "record {n}");
    }
    // No server passed them on, so all of them are missing.
    let delivered = report.delivered.expect("a publisher was there");
    let count = records.len() as u64;
    assert_eq!((delivered.expected, delivered.missing, delivered.clients_short), (2 * count, 2 * count, 2));
    assert_eq!(report.publisher.expect("a publisher was there").rate, 2000);
}

#[test]
fn a_closed_publisher_ends_the_run_with_the_servers_reason() {
    let publish_address = scripted_server::serve("", |mut peer| {
        peer.read().expect("a define");
        peer.send(Message::text(r#"{"type":"defined","id":1,"instruments":[{"symbol":"A","instrument":1}]}"#))
            .expect("the publisher reads");
        let frame = tungstenite::protocol::CloseFrame { code: 1008.into(), reason: "no more".into() };
        peer.close(Some(frame)).expect("the publisher reads");
        scripted_server::wait_for_end(&mut peer);
    });
    let subscribers = scripted_server::serve("", |mut peer| scripted_server::wait_for_end(&mut peer));
    let url = publish_address.to_string();
    let error = run(subscribers, &["--publish", "10", "--publish-url", &url, "--clients", "1"], false).0;
    let error = error.expect_err("no publisher").to_string();
    assert!(error.contains("1008 (policy): no more"), "{error}");
}

#[test]
fn a_run_without_connections_is_an_error_with_the_servers_message() {
    let address = scripted_server::respond(concat!(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 49\r\n\r\n",
        r#"{"error":{"code":"origin","message":"not from here"}}"#
    ));
    let error = run(address, &["--clients", "2"], false).0.expect_err("no client connected");
    assert_eq!(error.to_string(), "the server refused the connection: 403 Forbidden: not from here");
}

#[test]
fn an_interrupt_before_the_measurement_reports_nothing() {
    let address = scripted_server::serve("", |mut peer| scripted_server::wait_for_end(&mut peer));
    let (report, text) = run(address, &["--clients", "2"], true);
    assert!(matches!(report, Err(LoadError::Interrupted)), "{report:?}");
    assert_eq!(text, "");
}
