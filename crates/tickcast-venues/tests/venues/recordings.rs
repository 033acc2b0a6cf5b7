//! Recorded sessions of Coinbase, Kraken and OKX, compared with an oracle in Python: the books after each hundredth
//! message, the last books, and the trades.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tickcast_test_support::paths::recordings;
use tickcast_test_support::python_oracle;
use tickcast_venues::Venue;

use crate::client::Client;

const CHECKPOINT_LINES: usize = 100;

/// The messages of a session of cryptofeed, with their receive times in ns.
fn messages(file: &Path) -> Vec<(u64, String)> {
    let mut text = String::new();
    let file = std::fs::File::open(file).expect("a recording");
    MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip of UTF-8");
    let received = text.lines().filter_map(|line| {
        let (stamp, message) = line.split_once(": ")?;
        let stamp_ns = tickcast_venues::stamp::parse(stamp).ok()?;
        Some((stamp_ns, message.to_owned()))
    });
    received.collect()
}

/// Replays messages and compares with the oracle.
fn assert_same(venue: Venue, messages: &[(u64, String)], oracle: &Value) -> Client {
    let mut client = Client::new(venue);
    let mut checkpoints = Vec::new();
    for (nth, (stamp_ns, message)) in messages.iter().enumerate() {
        client.take(message, *stamp_ns).unwrap_or_else(|error| panic!("{message}: {error}"));
        if (nth + 1) % CHECKPOINT_LINES == 0 {
            checkpoints.push(json!(crc32fast::hash(client.text().as_bytes())));
        }
    }
    let report = client.report;
    assert_eq!((report.malformed, report.book_gaps, report.checksum_errors, report.trades_lost), (0, 0, 0, 0));
    assert_eq!((report.levels_lost, report.untimed), (0, 0));
    let expected = oracle["instruments"].as_object().expect("instruments");
    for (symbol, state) in &client.states {
        let expected = &expected[symbol];
        assert_eq!(json!(state.book_text()), expected["book"], "{symbol}: the last book");
        assert_eq!(json!(state.trades), expected["trades"], "{symbol}: trades");
    }
    assert_eq!(client.states.len(), expected.len());
    assert_eq!(json!(checkpoints), oracle["checkpoints"], "the books after each hundredth message");
    client
}

fn compare(venue: Venue, name: &str) -> Option<(Client, Value)> {
    let file = recordings()?.join(name);
    let oracle = python_oracle::read(python_oracle::CRYPTOFEED, &file)?;
    let client = assert_same(venue, &messages(&file), &oracle);
    Some((client, oracle))
}

#[test]
fn coinbase_session_equals_the_oracle() {
    let Some((client, _)) = compare(Venue::Coinbase, "cryptofeed_COINBASE.ws.28.0.gz") else { return };
    assert_eq!(client.tickers, 107);
}

#[test]
fn kraken_v1_session_equals_the_oracle_and_every_checksum_is_right() {
    let Some((_, oracle)) = compare(Venue::Kraken, "cryptofeed_KRAKEN.ws.50.0.gz") else { return };
    assert_eq!((&oracle["verified"], &oracle["failed"]), (&json!(4269), &json!(0)));
}

#[test]
fn okx_session_equals_the_oracle_and_every_checksum_is_right() {
    let Some((client, oracle)) = compare(Venue::Okx, "cryptofeed_OKX.ws.1.0.gz") else { return };
    assert_eq!((&oracle["verified"], &oracle["failed"]), (&json!(290), &json!(0)));
    assert_eq!((client.tickers, client.quotes), (28, 28));
}

/// The same session in the messages of v2, whose numbers lack the zeros at their end.
#[test]
fn kraken_session_as_v2_equals_the_oracle_and_every_checksum_is_right() {
    let Some(dir) = recordings() else { return };
    let file = dir.join("cryptofeed_KRAKEN.ws.50.0.gz");
    let Some(oracle) = python_oracle::read(python_oracle::CRYPTOFEED, &file) else { return };
    let former = messages(&file);
    let mut converted = vec![(former[0].0, pairs_of(&former))];
    converted.extend(former.iter().map(|(stamp_ns, message)| (*stamp_ns, as_v2(message))));
    // The list is a message more than in the session.
    let mut client = Client::new(Venue::Kraken);
    client.take(&converted[0].1, converted[0].0).expect("the list");
    for (nth, (stamp_ns, message)) in converted[1..].iter().enumerate() {
        client.take(message, *stamp_ns).unwrap_or_else(|error| panic!("{message}: {error}"));
        if (nth + 1) % 1000 == 0 {
            let expected = &oracle["checkpoints"][(nth + 1) / CHECKPOINT_LINES - 1];
            assert_eq!(&json!(crc32fast::hash(client.text().as_bytes())), expected, "after {} messages", nth + 1);
        }
    }
    assert_eq!((client.report.checksum_errors, client.report.book_gaps), (0, 0));
    for (symbol, state) in &client.states {
        assert_eq!(json!(state.book_text()), oracle["instruments"][symbol]["book"], "{symbol}");
    }
    // A digit of one update is wrong: its checksum shows it.
    let nth = converted.iter().rposition(|(_, message)| message.contains("\"checksum\"")).expect("an update");
    let mut client = Client::new(Venue::Kraken);
    for (stamp_ns, message) in &converted[..nth] {
        client.take(message, *stamp_ns).expect("a message");
    }
    let mut value: Value = serde_json::from_str(&converted[nth].1).expect("JSON");
    value["data"][0]["checksum"] = json!(value["data"][0]["checksum"].as_u64().expect("a checksum") ^ 1);
    client.take(&value.to_string(), converted[nth].0).expect("a message");
    assert_eq!(client.report.checksum_errors, 1);
}

/// The `instrument` message with the decimals that the texts of v1 have.
fn pairs_of(messages: &[(u64, String)]) -> String {
    let mut pairs = Vec::new();
    for (_, message) in messages {
        let Ok(Value::Array(list)) = serde_json::from_str::<Value>(message) else { continue };
        let Some(level) = list[1]["as"].get(0) else { continue };
        let decimals =
            |text: &Value| text.as_str().expect("a text").split_once('.').map_or(0, |(_, after)| after.len());
        pairs.push(json!({
            "symbol": list.last(), "status": "online",
            "price_precision": decimals(&level[0]), "qty_precision": decimals(&level[1]),
        }));
    }
    json!({"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": pairs}}).to_string()
}

fn as_v2(message: &str) -> String {
    let Ok(Value::Array(list)) = serde_json::from_str::<Value>(message) else {
        return r#"{"channel":"heartbeat"}"#.to_owned();
    };
    let (mut sides, mut checksum, mut kind) = ([String::new(), String::new()], String::new(), "update");
    for object in &list[1..list.len() - 2] {
        for (key, at) in [("b", 0), ("bs", 0), ("a", 1), ("as", 1)] {
            let Some(levels) = object[key].as_array() else { continue };
            kind = if key.len() == 2 { "snapshot" } else { kind };
            for level in levels {
                let number = |text: &Value| plain(text.as_str().expect("a text"));
                let comma = if sides[at].is_empty() { "" } else { "," };
                sides[at] += &format!(r#"{comma}{{"price":{},"qty":{}}}"#, number(&level[0]), number(&level[1]));
            }
        }
        if let Some(stated) = object["c"].as_str() {
            checksum = format!(r#","checksum":{stated}"#);
        }
    }
    let [bids, asks] = sides;
    let symbol = list.last().expect("a pair");
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":{symbol},"bids":[{bids}],"asks":[{asks}]{checksum}}}]}}"#
    )
}

fn plain(text: &str) -> String {
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

/// A checksum is of the best levels: an update further down is not noticed, nor is one that the next one repeats. All
/// of those that are noticed void one book, and no other.
#[test]
fn update_that_is_missing_from_a_session_voids_its_book_alone() {
    let Some(dir) = recordings() else { return };
    for (venue, name) in [(Venue::Kraken, "cryptofeed_KRAKEN.ws.50.0.gz"), (Venue::Okx, "cryptofeed_OKX.ws.1.0.gz")] {
        let all = messages(&dir.join(name));
        let is_update = |message: &str| message.contains("\"update\"") || message.contains("\"c\":");
        let updates: Vec<_> = (0..all.len()).filter(|nth| is_update(&all[*nth].1)).collect();
        let mut noticed = 0;
        for missing in updates.iter().skip(updates.len() / 2).take(12) {
            let mut client = Client::new(venue);
            for (nth, (stamp_ns, message)) in all.iter().enumerate().filter(|(nth, _)| nth != missing) {
                client.take(message, *stamp_ns).unwrap_or_else(|error| panic!("message {nth}: {error}"));
            }
            let bad = client.states.values().filter(|state| state.is_bad).count();
            assert_eq!(bad as u64, client.report.checksum_errors, "{name}, without message {missing}");
            assert!(bad <= 1, "{name}, without message {missing}: {bad} books are void");
            noticed += bad;
        }
        assert!(noticed >= 3, "{name}: {noticed} of 12 are noticed");
    }
}

/// The messages of all venues, as documented and as recorded. Those with a trap are rejected or counted.
#[test]
fn vectors_are_read_or_rejected_in_words() {
    let Some(dir) = recordings() else { return };
    let text = std::fs::read_to_string(dir.join("vectors.jsonl")).expect("the vectors are among the data");
    let mut count = 0;
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).expect("JSON");
        let venue = match vector["venue"].as_str().expect("a venue") {
            "coinbase-exchange" => Venue::Coinbase,
            "kraken-v1" | "kraken-v2" => Venue::Kraken,
            "bybit" => Venue::Bybit,
            "okx" => Venue::Okx,
            "binance-spot" => Venue::Binance,
            "binance-usdm" => Venue::BinanceUsdM,
            "binance-coinm" => Venue::BinanceCoinM,
            _ => continue,
        };
        count += 1;
        let (kind, message) = (vector["kind"].as_str().expect("a kind"), vector["msg"].as_str().expect("a message"));
        let mut client = Client::new(venue);
        let taken = client.take(message, 1_700_000_000_000_000_000);
        let is_request = message.contains("\"event\":\"subscriptionStatus\"")
            || message.contains("\"type\":\"subscribe\"")
            || message.contains("\"method\":\"");
        let is_rejected = match kind.trim_start_matches("doc:") {
            "trap:malformed-size" => true,
            // These do not say of which instrument they are: answers are matched with requests, streams have names.
            "partialDepth" => true,
            kind => kind.starts_with("depth_snapshot") && !message.contains("\"symbol\""),
        };
        assert_eq!(taken.is_err(), is_rejected, "{message}: {taken:?}");
        let has_records = client.report.records > 0;
        let has_data = ["bookTicker", "trade", "aggTrade", "ticker", "match", "tickers", "trades", "snapshot", "bbo"];
        let is_data = has_data.iter().any(|word| kind.trim_start_matches("doc:").starts_with(word)) && !is_request;
        if is_data {
            assert!(has_records, "{kind}: {message}");
        }
    }
    assert!(count > 60, "{count} vectors");
}
