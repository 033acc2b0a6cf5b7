//! Polling: the directory and the last values, asked for again with their tags, and what is said where there are none.

use std::io::Read;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::server::Server;
use tungstenite::Message;

/// One shard: a publisher's record is at every visitor's shard or at none.
const ARGS: &[&str] = &["--feed", "none", "--publish-token", "secret", "--cores", "0"];

fn get(server: &Server, path: &str, lines: &str) -> Response {
    send_request(server.address, format!("GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n").as_bytes())
}

fn publisher(address: SocketAddr) -> Client {
    Client::connect(address, "/v1/publish?token=secret", &[])
}

/// Defines symbols with prices in cents; these are the ids they get.
fn define(client: &mut Client, symbols: &[String]) -> Vec<u32> {
    let instrument = |symbol: &String| json!({"symbol": symbol, "venue": "test", "px_exp": -2, "sz_exp": 0});
    let instruments: Vec<Value> = symbols.iter().map(instrument).collect();
    client.send_text(&json!({"op": "define", "id": 9, "instruments": instruments}).to_string());
    let reply = client.reply();
    assert_eq!(reply["type"], "defined", "{reply}");
    let defined = reply["instruments"].as_array().expect("a list");
    defined.iter().map(|instrument| instrument["instrument"].as_u64().expect("an id") as u32).collect()
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|nth| format!("S{nth:05}-USD")).collect()
}

/// A record as the protocol's table has it.
fn record(kind: u8, instrument: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (((32 + body.len()) / 8) as u16).to_le_bytes().to_vec();
    bytes.extend([kind, 0x80]);
    bytes.extend(instrument.to_le_bytes());
    bytes.extend([0; 24]);
    bytes.extend(body);
    bytes
}

fn quote(instrument: u32, bid: i64) -> Vec<u8> {
    record(1, instrument, &[bid, 1, bid + 1, 2].map(i64::to_le_bytes).concat())
}

/// A whole book with one bid.
fn book(instrument: u32, bid: i64) -> Vec<u8> {
    let level = [&bid.to_le_bytes()[..], &7i64.to_le_bytes(), b"B\0\0\0\0\0\0\0"].concat();
    record(4, instrument, &[b"\x01\0S\0\0\0\0\0", &level[..]].concat())
}

fn publish(client: &mut Client, records: &[Vec<u8>]) {
    let count = (records.len() as u16).to_le_bytes();
    client.send(Message::binary([&[1, 0][..], &count, &[0; 20], &records.concat()].concat()));
}

fn tag(answer: &Response) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

/// Asks until the answer is as wanted: what a publisher has sent is there some time later.
#[track_caller]
fn until(server: &Server, path: &str, wanted: impl Fn(&Value) -> bool) -> Response {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let answer = get(server, path, "");
        if answer.status == 200 && wanted(&answer.json()) {
            return answer;
        }
        assert!(std::time::Instant::now() < until, "{path} stays {}", answer.text());
    }
}

fn instruments(directory: &Value) -> &Vec<Value> {
    directory["instruments"].as_array().expect("a list")
}

#[test]
fn the_directory_has_one_tag_until_it_grows() {
    let server = Server::start(ARGS);
    let empty = get(&server, "/v1/instruments", "");
    assert_eq!(empty.json(), json!({"instruments": []}));
    let mut publisher = publisher(server.address);
    define(&mut publisher, &names(0, 300));
    let first = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 300);
    assert_ne!(tag(&first), tag(&empty));
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    assert_eq!(first.header("vary"), Some("Accept-Encoding"));
    let had = format!("If-None-Match: {}\r\n", tag(&first));
    let same = get(&server, "/v1/instruments", &had);
    assert_eq!((same.status, same.body.len()), (304, 0));
    let gzip = get(&server, "/v1/instruments", "Accept-Encoding: gzip\r\n");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut plain).expect("whole gzip");
    assert_eq!((plain, gzip.header("content-encoding")), (first.body.clone(), Some("gzip")));
    assert!(gzip.body.len() * 5 < first.body.len(), "{} of {}", gzip.body.len(), first.body.len());
    // What is defined already changes nothing, and what is new does.
    define(&mut publisher, &names(0, 300));
    assert_eq!(get(&server, "/v1/instruments", &had).status, 304);
    define(&mut publisher, &names(300, 301));
    let grown = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 301);
    let asked_again = get(&server, "/v1/instruments", &had);
    assert_eq!((asked_again.status, asked_again.body), (200, grown.body));
}

/// Bytes of memory that the program has of its own.
fn memory(server: &Server) -> usize {
    let path = format!("/proc/{}/smaps_rollup", server.program.id());
    let text = std::fs::read_to_string(path).expect("it runs");
    let anonymous = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a line of it");
    anonymous.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[test]
fn a_long_directory_that_is_not_read_is_held_once_and_comes_whole_to_who_reads_it_late() {
    const VISITORS: usize = 100;
    let server = Server::start(&[ARGS, &["--send-buffer-bytes", "8192", "--write-timeout-ms", "60000"]].concat());
    let mut publisher = publisher(server.address);
    // More than the buffers of both sockets take at once.
    for from in (0..20_000).step_by(1000) {
        define(&mut publisher, &names(from, from + 1000));
    }
    let whole = until(&server, "/v1/instruments", |directory| instruments(directory).len() == 20_000);
    let before = memory(&server);
    let mut late: Vec<_> = (0..VISITORS)
        .map(|_| {
            let mut stream = tickcast_test_support::http::connect(server.address);
            let request = b"GET /v1/instruments HTTP/1.1\r\nHost: here\r\n\r\n";
            std::io::Write::write_all(&mut stream, request).expect("the server reads");
            // The answer has begun.
            stream.peek(&mut [0]).expect("an answer");
            stream
        })
        .collect();
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < VISITORS * whole.body.len() / 10, "{grown} bytes for {VISITORS} of {}", whole.body.len());
    assert_eq!(get(&server, "/healthz", "").status, 200);
    for stream in &mut late[..3] {
        assert!(tickcast_test_support::http::read_response(stream).body == whole.body, "whole");
    }
}

#[test]
fn a_snapshot_has_one_tag_until_one_of_its_values_changes() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(server.address);
    let ids = define(&mut publisher, &["A-USD".to_owned(), "B-USD".to_owned()]);
    publish(&mut publisher, &[quote(ids[0], 100), quote(ids[1], 500)]);
    let path = "/v1/snapshot/A-USD";
    let mut last = until(&server, path, |snapshot| snapshot["quote"]["bid_px"] == "1.00");
    until(&server, "/v1/snapshot/B-USD", |snapshot| snapshot["quote"]["bid_px"] == "5.00");
    // Another instrument's quote leaves the tag alone.
    publish(&mut publisher, &[quote(ids[1], 501)]);
    until(&server, "/v1/snapshot/B-USD", |snapshot| snapshot["quote"]["bid_px"] == "5.01");
    let had = |answer: &Response| format!("If-None-Match: {}\r\n", tag(answer));
    assert_eq!(get(&server, path, &had(&last)).status, 304);
    type Wanted = fn(&Value) -> bool;
    let changes: [(Vec<u8>, Wanted); 4] = [
        (quote(ids[0], 100), |snapshot| snapshot["quote"]["sequence"] == 2),
        (
            record(2, ids[0], &[[99i64, 3, 7].map(i64::to_le_bytes).concat(), b"B\0\0\0\0\0\0\0".to_vec()].concat()),
            |snapshot| snapshot["trade"]["px"] == "0.99",
        ),
        (book(ids[0], 98), |snapshot| snapshot["book"]["sequence"] == 1),
        (book(ids[0], 97), |snapshot| snapshot["book"]["sequence"] == 2),
    ];
    for (change, seen) in changes {
        publish(&mut publisher, &[change]);
        let next = until(&server, path, seen);
        assert_ne!(tag(&next), tag(&last));
        let (old, new) = (get(&server, path, &had(&last)), get(&server, path, &had(&next)));
        assert_eq!((old.status, &old.body, new.status), (200, &next.body, 304));
        last = next;
    }
    // Channels that are not asked for are not in the tag either.
    let quotes = format!("{path}?channels=quote");
    let of_quote = get(&server, &quotes, "");
    let keys: Vec<_> = of_quote.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["instrument", "quote", "state"]);
    publish(&mut publisher, &[book(ids[0], 96)]);
    until(&server, path, |snapshot| snapshot["book"]["sequence"] == 3);
    assert_eq!(get(&server, &quotes, &had(&of_quote)).status, 304);
    // The publisher ends, and the state with it.
    drop(publisher);
    let ended = until(&server, path, |snapshot| snapshot["state"] != "live");
    assert_ne!(tag(&ended), tag(&last));
}

#[test]
fn several_snapshots_come_in_one_answer_each_instrument_once() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(server.address);
    let symbols = ["ETH-USD", "BTC-USD", "ETH-EUR", "A,B"].map(str::to_owned);
    let ids = define(&mut publisher, &symbols);
    publish(&mut publisher, &[quote(ids[0], 100), quote(ids[1], 200), quote(ids[2], 300), quote(ids[3], 400)]);
    until(&server, "/v1/snapshot/A%2CB", |snapshot| snapshot["quote"]["bid_px"] == "4.00");
    let symbols = |path: &str| -> Vec<String> {
        let text = get(&server, path, "").json();
        let list = text["snapshots"].as_array().unwrap_or_else(|| panic!("{path}: {text}"));
        list.iter().map(|one| one["instrument"]["symbol"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(symbols("/v1/snapshot?symbols=ETH-*,BTC-USD,ETH-EUR"), ["ETH-USD", "BTC-USD", "ETH-EUR"]);
    // As URLSearchParams and its like write a list; a symbol with a comma has a path of its own.
    assert_eq!(symbols("/v1/snapshot?channels=quote&symbols=ETH-USD%2CBTC-USD"), ["ETH-USD", "BTC-USD"]);
    assert_eq!(symbols("/v1/snapshot?symbols=ETH-USD&symbols=BTC-USD"), ["ETH-USD", "BTC-USD"]);
    assert_eq!(symbols("/v1/snapshot?symbols=*"), ["ETH-USD", "BTC-USD", "ETH-EUR", "A,B"]);
    assert_eq!(symbols("/v1/snapshot?symbols=XRP-*"), Vec::<String>::new(), "a pattern may cover none");
    let path = "/v1/snapshot?symbols=ETH-*";
    let all = get(&server, path, "");
    let [one, other] = [0, 2].map(|nth| get(&server, &format!("/v1/snapshot/{}", ["ETH-USD", "", "ETH-EUR"][nth]), ""));
    assert_eq!(all.json()["snapshots"], json!([one.json(), other.json()]), "each as it is alone");
    let had = format!("If-None-Match: {}\r\n", tag(&all));
    assert_eq!(get(&server, path, &had).status, 304);
    publish(&mut publisher, &[quote(ids[2], 301)]);
    until(&server, path, |answer| answer["snapshots"][1]["quote"]["bid_px"] == "3.01");
    assert_eq!(get(&server, path, &had).status, 200);
}

#[test]
fn what_cannot_be_answered_says_what_is_wrong_and_what_would_be_right() {
    let server = Server::start(ARGS);
    let mut publisher = publisher(server.address);
    define(&mut publisher, &names(0, 501));
    until(&server, "/v1/instruments", |directory| instruments(directory).len() == 501);
    let unknown = r#"{"error":{"code":"not_found","message":"symbol: unknown instrument \"NO-SUCH\": expected one of /v1/instruments"}}"#;
    let patterns = r#"{"error":{"code":"bad_request","message":"symbols: 11 patterns: expected at most 10"}}"#;
    let missing = r#"{"error":{"code":"bad_request","message":"symbols: missing: expected /v1/snapshot/{symbol} or /v1/snapshot?symbols=BTC-USD,ETH-*"}}"#;
    let many = r#"{"error":{"code":"bad_request","message":"symbols: 501 instruments: expected at most 500, or /v1/stream, which has no such limit"}}"#;
    let channel = r#"{"error":{"code":"bad_request","message":"channels: invalid channel \"raw\": expected quote, trade, ticker or book"}}"#;
    let star = r#"{"error":{"code":"bad_request","message":"symbols: \"A*B\" has a * before its end: expected at most one *, at the end"}}"#;
    let empty = r#"{"error":{"code":"bad_request","message":"symbols: \"\" is empty: expected a name such as \"BTC-USD\", or a pattern such as \"ETH-*\" or \"*\""}}"#;
    for (path, status, said) in [
        ("/v1/snapshot/NO-SUCH", 404, unknown),
        ("/v1/snapshot?symbols=NO-SUCH", 404, unknown),
        ("/v1/snapshot?symbols=S00001-USD,NO-SUCH,S000*", 404, unknown),
        ("/v1/snapshot", 400, missing),
        ("/v1/snapshot?symbol=S00001-USD", 400, missing),
        ("/v1/snapshot?symbols=*", 400, many),
        ("/v1/snapshot?symbols=S0*,S00*", 400, many),
        ("/v1/snapshot/S00001-USD?channels=quote,raw", 400, channel),
        ("/v1/snapshot?symbols=S00001-USD&channels=raw", 400, channel),
        ("/v1/snapshot?symbols=A*B", 400, star),
        ("/v1/snapshot?symbols=A*,B*,C*,D*,E*,F*,G*,H*,I*,J*,K*", 400, patterns),
        ("/v1/snapshot?symbols=", 400, empty),
    ] {
        let answer = get(&server, path, "If-None-Match: *\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (status, said), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
}
