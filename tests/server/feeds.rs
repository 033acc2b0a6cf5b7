//! Several feeds at once, of which some fail: what the others, `/readyz`, the metrics and the operator's view say, and
//! what a stop does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::http::send_request;
use tickcast_test_support::server::{PlantedFault, SMALL_MARKET, Server};

const TOKEN: &str = "token-of-the-operator";

/// A recording of trades of `symbol`, ten a second.
fn recording(symbol: &str) -> String {
    let trade = |id: u64| {
        let ms = 1_723_161_254_000 + id * 100;
        let fields = format!(r#""e":"trade","E":{ms},"s":"{symbol}","t":{id},"p":"1.50","q":"2","T":{ms}"#);
        format!("{ms}000000 {{\"stream\":\"x@trade\",\"data\":{{{fields},\"m\":true,\"M\":true}}}}\n")
    };
    (0..2000).map(trade).collect()
}

/// A folder with the recording `a`.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a");
    std::fs::write(&path, recording("AB")).expect("the folder is writable");
    (folder, path)
}

/// A simulated market and a replay of these files, with a fault for the second feed.
fn start(fault: &PlantedFault, files: &[&Path]) -> Server {
    let files: Vec<_> = files.iter().map(|file| file.to_str().expect("UTF-8")).collect();
    let replay = format!("replay:{}?loop=1", files.join(","));
    Server::spawn(fault.command(&["--feed", SMALL_MARKET, "--feed", &replay, "--operator-token", TOKEN]))
}

fn sources(server: &Server) -> Vec<Value> {
    let request = format!("GET /v1/operator HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let view = send_request(server.address, request.as_bytes()).json();
    view["sources"].as_array().expect("a list").clone()
}

/// Asks until the states of the feeds are these.
#[track_caller]
fn wait_for_states(server: &Server, expected: [&str; 2]) -> Vec<Value> {
    let until = Instant::now() + DEADLINE;
    loop {
        let sources = sources(server);
        if sources.iter().map(|row| &row["state"]).eq(expected.iter()) {
            return sources;
        }
        assert!(Instant::now() < until, "not {expected:?}: {sources:?}");
    }
}

/// The values of a family, each with its labels.
fn samples(server: &Server, family: &str) -> Vec<(String, u64)> {
    let text = server.get("/metrics").text();
    let of_family = |line: &str| {
        let (labels, value) = line.strip_prefix(family)?.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().expect("a number")))
    };
    text.lines().filter_map(of_family).collect()
}

/// The market is served, and its records are new.
fn assert_market_is_live(server: &Server) {
    server.subscriber(&["quote"], &["BTC-USD"]).until_live();
    assert_eq!(sources(server)[0]["state"], "live");
    assert_eq!(sources(server)[0]["restarts"], 0);
}

#[test]
fn several_feeds_bring_records_and_one_that_panics_comes_back_alone() {
    let (_folder, file) = folder();
    let fault = PlantedFault::new("panic feed-1");
    let server = start(&fault, &[&file]);
    wait_for_states(&server, ["live", "live"]);
    server.subscriber(&["trade"], &["AB"]).until_live();
    assert_market_is_live(&server);
    let live: Vec<_> = samples(&server, "tickcast_source_live").into_iter().map(|(_, live)| live).collect();
    assert_eq!(live, [1, 1]);
    fault.plant();
    server.wait_for_metric("tickcast_feed_restarts_total", |count| count == 1);
    assert_eq!(
        samples(&server, "tickcast_feed_restarts_total"),
        [(r#"source="0""#.to_owned(), 0), (r#"source="1""#.to_owned(), 1)]
    );
    assert_market_is_live(&server);
    wait_for_states(&server, ["live", "live"]);
    server.subscriber(&["trade"], &["AB"]).until_live();
    assert_eq!(server.get("/readyz").json(), json!({"status": "ready"}));
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn feed_whose_file_is_missing_is_retried_until_it_is_there() {
    let (_folder, file) = folder();
    let fault = PlantedFault::new("panic feed-1");
    let server = start(&fault, &[&file]);
    wait_for_states(&server, ["live", "live"]);
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).expect("the file is there");
    fault.plant();
    server.wait_for_metric("tickcast_feed_restarts_total", |count| count >= 2);
    let problem = "No such file or directory";
    server.get("/readyz").assert_refusal(503, "unavailable", &["feed 1 (replay:", "has failed", problem, "again"]);
    let live: Vec<_> = samples(&server, "tickcast_source_live").into_iter().map(|(_, live)| live).collect();
    assert_eq!(live, [1, 0]);
    assert!(
        sources(&server)[1]["problem"].as_str().is_some_and(|text| text.contains(problem)),
        "{:?}",
        sources(&server)
    );
    assert_market_is_live(&server);
    std::fs::rename(&away, &file).expect("it was moved there");
    wait_for_states(&server, ["live", "live"]);
    assert_eq!(server.get("/readyz").json(), json!({"status": "ready"}));
}

#[test]
fn feed_that_fails_for_good_says_what_to_do_and_the_others_go_on() {
    let (_folder, file) = folder();
    let fault = PlantedFault::new("panic feed-1");
    let server = start(&fault, &[&file]);
    wait_for_states(&server, ["live", "live"]);
    let mut subscriber = server.subscriber(&["trade"], &["AB"]);
    subscriber.until_live();
    // Another file in its place: the replay has the former one open.
    let other = file.with_extension("other");
    std::fs::write(&other, "this is no recording\n").expect("the folder is writable");
    std::fs::rename(&other, &file).expect("the folder is writable");
    fault.plant();
    let sources = wait_for_states(&server, ["live", "failed"]);
    let parts = ["is not opened again", "begins with \"this is no recording\"", "expected a recording", "restart"];
    server.get("/readyz").assert_refusal(503, "unavailable", &parts);
    let problem = sources[1]["problem"].as_str().expect("a text");
    assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
    assert_eq!(server.get("/v1/snapshot/AB").json()["state"], "stale");
    subscriber.ping();
    assert_market_is_live(&server);
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0));
    assert!(exit.stderr.contains("it is not opened again"), "{}", exit.stderr);
}

#[test]
fn stream_that_fails_beside_a_live_one_is_a_warning() {
    let (folder, file) = folder();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&recording("CD").as_bytes()[..400]).expect("a Vec grows");
    let whole = gzip.finish().expect("a Vec grows");
    let cut = folder.path().join("cut.gz");
    std::fs::write(&cut, &whole[..whole.len() - 4]).expect("the folder is writable");
    let fault = PlantedFault::new("panic nothing");
    let server = start(&fault, &[&file, &cut]);
    server.wait_for_metric("tickcast_source_streams", |_| {
        samples(&server, "tickcast_source_streams").contains(&(r#"source="1",state="failed""#.to_owned(), 1))
    });
    let streams = samples(&server, "tickcast_source_stream_live");
    let live: Vec<_> = streams.iter().map(|(labels, live)| (labels.contains("cut.gz"), *live)).collect();
    assert_eq!(live, [(false, 1), (true, 0)]);
    let ready = server.get("/readyz");
    let warnings = ready.json()["warnings"].clone();
    let warning = warnings[0].as_str().expect("a text").to_owned();
    assert_eq!((ready.status, warnings.as_array().map(Vec::len)), (200, Some(1)));
    for part in ["feed 1 (replay:", "has 1 of 2 streams that are not live", "cut.gz has failed: line 3:"] {
        assert!(warning.contains(part), "{part:?} is not in {warning}");
    }
    let row = &wait_for_states(&server, ["live", "live"])[1];
    assert!(row["problem"].is_string(), "{row}");
    assert_eq!(row["streams"]["counts"]["failed"], 1);
    let list = row["streams"]["list"].as_array().expect("a list");
    assert!(list.iter().any(|stream| stream["state"] == "failed" && stream["problem"].is_string()), "{row}");
}

#[test]
fn feed_that_hangs_does_not_keep_the_process_from_ending() {
    let fault = PlantedFault::new("hang feed-1");
    let (_folder, file) = folder();
    let replay = format!("replay:{}?loop=1", file.display());
    let args = ["--feed", SMALL_MARKET, "--feed", &replay, "--stale-ms", "500", "--drain-ms", "0"];
    let server = Server::spawn(fault.command(&args));
    server.wait_for_metric("tickcast_source_live", |live| live == 2);
    fault.plant();
    server.wait_for_metric("tickcast_source_live", |live| live == 1);
    let warning = server.get("/readyz").json()["warnings"][0].clone();
    assert!(warning.as_str().is_some_and(|text| text.contains("has sent nothing for")), "{warning}");
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("feed 1 did not end"), "{}", exit.stderr);
}
