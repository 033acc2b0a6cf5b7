//! Polling: the directory and the snapshots, their entity tags, and refusals.

use std::io::Read;

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::publisher::{Publisher, book, quote, trade};
use tickcast_test_support::server::Server;

/// One shard, so that a published record is visible to every request at the same time.
const ARGS: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token", "--cores", "0"];

fn get(server: &Server, path: &str, lines: &str) -> Response {
    send_request(server.address, format!("GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n").as_bytes())
}

fn publisher(server: &Server) -> Publisher {
    Publisher::connect(server, "test-publish-token")
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|nth| format!("S{nth:05}-USD")).collect()
}

/// A snapshot of a book with one bid.
fn bid(instrument: u32, px: i64) -> Vec<u8> {
    book(instrument, b'S', &[(px, 7, b'B')])
}

fn tag(response: &Response) -> String {
    response.header("etag").expect("a tag").to_owned()
}

/// Requests until the response is as expected: a published record is visible with some delay.
#[track_caller]
fn until(server: &Server, path: &str, is_expected: impl Fn(&Value) -> bool) -> Response {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let response = get(server, path, "");
        if response.status == 200 && is_expected(&response.json()) {
            return response;
        }
        assert!(std::time::Instant::now() < until, "{path} stays {}", response.text());
    }
}

fn instruments(directory: &Value) -> &Vec<Value> {
    directory["instruments"].as_array().expect("a list")
}

#[test]
fn the_directory_keeps_its_tag_until_it_grows() {
    let server = Server::start(ARGS);
    let empty = get(&server, "/v1/instruments", "");
    assert_eq!(empty.json(), json!({"instruments": []}));
    let mut publisher = publisher(&server);
    publisher.define(&names(0, 300));
    let first = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 300);
    assert_ne!(tag(&first), tag(&empty));
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    assert_eq!(first.header("vary"), Some("Accept-Encoding"));
    let condition = format!("If-None-Match: {}\r\n", tag(&first));
    let same = get(&server, "/v1/instruments", &condition);
    assert_eq!((same.status, same.body.len()), (304, 0));
    let gzip = get(&server, "/v1/instruments", "Accept-Encoding: gzip\r\n");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut plain).expect("valid gzip");
    assert_eq!((plain, gzip.header("content-encoding")), (first.body.clone(), Some("gzip")));
    assert!(gzip.body.len() * 5 < first.body.len(), "{} of {}", gzip.body.len(), first.body.len());
    // Only a new definition changes the tag.
    publisher.define(&names(0, 300));
    assert_eq!(get(&server, "/v1/instruments", &condition).status, 304);
    publisher.define(&names(300, 301));
    let grown = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 301);
    let again = get(&server, "/v1/instruments", &condition);
    assert_eq!((again.status, again.body), (200, grown.body));
}

/// Bytes of anonymous memory of the server.
fn memory(server: &Server) -> usize {
    let path = format!("/proc/{}/smaps_rollup", server.program.id());
    let text = std::fs::read_to_string(path).expect("the server runs");
    let anonymous = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("the line Anonymous");
    anonymous.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[test]
fn unread_responses_share_the_memory_of_the_directory() {
    const CONNECTIONS: usize = 100;
    let server = Server::start(&[ARGS, &["--send-buffer-bytes", "8192", "--write-timeout-ms", "60000"]].concat());
    let mut publisher = publisher(&server);
    // More than the buffers of both sockets hold.
    for from in (0..20_000).step_by(1000) {
        publisher.define(&names(from, from + 1000));
    }
    let directory = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 20_000);
    let before = memory(&server);
    let mut late: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = tickcast_test_support::http::connect(server.address);
            let request = b"GET /v1/instruments HTTP/1.1\r\nHost: here\r\n\r\n";
            std::io::Write::write_all(&mut stream, request).expect("the server reads");
            // Wait for the start of the response.
            stream.peek(&mut [0]).expect("a response");
            stream
        })
        .collect();
    let grown = memory(&server).saturating_sub(before);
    assert!(
        grown < CONNECTIONS * directory.body.len() / 10,
        "{grown} bytes for {CONNECTIONS} of {}",
        directory.body.len()
    );
    assert_eq!(get(&server, "/healthz", "").status, 200);
    for stream in &mut late[..3] {
        assert!(tickcast_test_support::http::read_response(stream).body == directory.body, "the whole directory");
    }
}

#[test]
fn a_snapshot_keeps_its_tag_until_a_value_changes() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(&server);
    let ids = publisher.define(&["A-USD".to_owned(), "B-USD".to_owned()]);
    publisher.publish(&[quote(ids[0], 100), quote(ids[1], 500)]);
    let path = "/v1/snapshot/A-USD";
    let mut last = until(&server, path, |snapshot| snapshot["quote"]["bid_px"] == "1.00");
    until(&server, "/v1/snapshot/B-USD", |snapshot| snapshot["quote"]["bid_px"] == "5.00");
    // A quote of another instrument does not change the tag.
    publisher.publish(&[quote(ids[1], 501)]);
    until(&server, "/v1/snapshot/B-USD", |snapshot| snapshot["quote"]["bid_px"] == "5.01");
    let condition = |response: &Response| format!("If-None-Match: {}\r\n", tag(response));
    assert_eq!(get(&server, path, &condition(&last)).status, 304);
    type IsChanged = fn(&Value) -> bool;
    let changes: [(Vec<u8>, IsChanged); 4] = [
        (quote(ids[0], 100), |snapshot| snapshot["quote"]["sequence"] == 2),
        (trade(ids[0], 99), |snapshot| snapshot["trade"]["px"] == "0.99"),
        (bid(ids[0], 98), |snapshot| snapshot["book"]["sequence"] == 1),
        (bid(ids[0], 97), |snapshot| snapshot["book"]["sequence"] == 2),
    ];
    for (change, seen) in changes {
        publisher.publish(&[change]);
        let next = until(&server, path, seen);
        assert_ne!(tag(&next), tag(&last));
        let (old, new) = (get(&server, path, &condition(&last)), get(&server, path, &condition(&next)));
        assert_eq!((old.status, &old.body, new.status), (200, &next.body, 304));
        last = next;
    }
    // The tag covers the requested channels only.
    let quotes = format!("{path}?channels=quote");
    let of_quote = get(&server, &quotes, "");
    let keys: Vec<_> = of_quote.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["instrument", "quote", "state"]);
    publisher.publish(&[bid(ids[0], 96)]);
    until(&server, path, |snapshot| snapshot["book"]["sequence"] == 3);
    assert_eq!(get(&server, &quotes, &condition(&of_quote)).status, 304);
    // The state of the instrument is part of the snapshot.
    drop(publisher);
    let ended = until(&server, path, |snapshot| snapshot["state"] != "live");
    assert_ne!(tag(&ended), tag(&last));
}

#[test]
fn one_response_has_several_snapshots_each_instrument_once() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(&server);
    let symbols = ["ETH-USD", "BTC-USD", "ETH-EUR", "A,B"].map(str::to_owned);
    let ids = publisher.define(&symbols);
    publisher.publish(&[quote(ids[0], 100), quote(ids[1], 200), quote(ids[2], 300), quote(ids[3], 400)]);
    until(&server, "/v1/snapshot/A%2CB", |snapshot| snapshot["quote"]["bid_px"] == "4.00");
    let symbols = |path: &str| -> Vec<String> {
        let text = get(&server, path, "").json();
        let list = text["snapshots"].as_array().unwrap_or_else(|| panic!("{path}: {text}"));
        list.iter().map(|one| one["instrument"]["symbol"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(symbols("/v1/snapshot?symbols=ETH-*,BTC-USD,ETH-EUR"), ["ETH-USD", "BTC-USD", "ETH-EUR"]);
    // As URLSearchParams encodes a list. A symbol with a comma needs the path.
    assert_eq!(symbols("/v1/snapshot?channels=quote&symbols=ETH-USD%2CBTC-USD"), ["ETH-USD", "BTC-USD"]);
    assert_eq!(symbols("/v1/snapshot?symbols=ETH-USD&symbols=BTC-USD"), ["ETH-USD", "BTC-USD"]);
    assert_eq!(symbols("/v1/snapshot?symbols=*"), ["ETH-USD", "BTC-USD", "ETH-EUR", "A,B"]);
    assert_eq!(symbols("/v1/snapshot?symbols=XRP-*"), Vec::<String>::new(), "a pattern may match nothing");
    let path = "/v1/snapshot?symbols=ETH-*";
    let all = get(&server, path, "");
    let [one, other] = [0, 2].map(|nth| get(&server, &format!("/v1/snapshot/{}", ["ETH-USD", "", "ETH-EUR"][nth]), ""));
    assert_eq!(all.json()["snapshots"], json!([one.json(), other.json()]), "each as in its own response");
    let condition = format!("If-None-Match: {}\r\n", tag(&all));
    assert_eq!(get(&server, path, &condition).status, 304);
    publisher.publish(&[quote(ids[2], 301)]);
    until(&server, path, |response| response["snapshots"][1]["quote"]["bid_px"] == "3.01");
    assert_eq!(get(&server, path, &condition).status, 200);
}

#[test]
fn refusals_say_what_is_wrong_and_what_is_expected() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(&server);
    publisher.define(&names(0, 501));
    until(&server, "/v1/instruments", |directory| instruments(directory).len() == 501);
    let unknown = r#"{"error":{"code":"not_found","message":"symbol: unknown instrument \"NO-SUCH\": expected one of /v1/instruments"}}"#;
    let patterns = r#"{"error":{"code":"bad_request","message":"symbols: 11 patterns: expected at most 10"}}"#;
    let missing = r#"{"error":{"code":"bad_request","message":"symbols: missing: expected /v1/snapshot/{symbol} or /v1/snapshot?symbols=BTC-USD,ETH-*"}}"#;
    let unknown_parameter = r#"{"error":{"code":"bad_request","message":"\"symbol\": unknown parameter: expected symbols, channels, token"}}"#;
    let many = r#"{"error":{"code":"bad_request","message":"symbols: 501 instruments: expected at most 500, or /v1/stream, which has no such limit"}}"#;
    let channel = r#"{"error":{"code":"bad_request","message":"channels: invalid channel \"raw\": expected quote, trade, ticker or book"}}"#;
    let star = r#"{"error":{"code":"bad_request","message":"symbols: \"A*B\" has a * before its end: expected at most one *, at the end"}}"#;
    let empty = r#"{"error":{"code":"bad_request","message":"symbols: \"\" is empty: expected a name such as \"BTC-USD\", or a pattern such as \"ETH-*\" or \"*\""}}"#;
    for (path, status, parts) in [
        ("/v1/snapshot/NO-SUCH", 404, unknown),
        ("/v1/snapshot?symbols=NO-SUCH", 404, unknown),
        ("/v1/snapshot?symbols=S00001-USD,NO-SUCH,S000*", 404, unknown),
        ("/v1/snapshot", 400, missing),
        ("/v1/snapshot?symbol=S00001-USD", 400, unknown_parameter),
        ("/v1/snapshot?symbols=*", 400, many),
        ("/v1/snapshot?symbols=S0*,S00*", 400, many),
        ("/v1/snapshot/S00001-USD?channels=quote,raw", 400, channel),
        ("/v1/snapshot?symbols=S00001-USD&channels=raw", 400, channel),
        ("/v1/snapshot?symbols=A*B", 400, star),
        ("/v1/snapshot?symbols=A*,B*,C*,D*,E*,F*,G*,H*,I*,J*,K*", 400, patterns),
        ("/v1/snapshot?symbols=", 400, empty),
    ] {
        let response = get(&server, path, "If-None-Match: *\r\n");
        assert_eq!((response.status, response.text().as_str()), (status, parts), "{path}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{path}");
    }
}
