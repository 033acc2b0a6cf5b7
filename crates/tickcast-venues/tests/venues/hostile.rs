//! What a hostile or broken venue may send: no text causes a panic, and what is kept is bounded.

use proptest::prelude::*;
use tickcast_venues::Venue;

use crate::client::Client;

/// Messages of each venue, to be changed at random.
const SEEDS: [(Venue, &str); 14] = [
    (
        Venue::Binance,
        r#"{"stream":"a@depth","data":{"e":"depthUpdate","E":1672515782136,"s":"AB","U":1,"u":2,"b":[["1.5","10"]],"a":[]}}"#,
    ),
    (Venue::Binance, r#"{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}"#),
    (
        Venue::BinanceUsdM,
        r#"{"e":"trade","E":1672515782136,"T":1672515782136,"s":"AB","t":5,"p":"0.1","q":"7","X":"MARKET","m":true}"#,
    ),
    (
        Venue::Coinbase,
        r#"{"type":"snapshot","product_id":"A-B","bids":[["1.10","0.45054140"]],"asks":[["2.55","0.57"]]}"#,
    ),
    (
        Venue::Coinbase,
        r#"{"type":"l2update","product_id":"A-B","changes":[["buy","1.2","0"]],"time":"2022-08-04T15:25:05.010758Z"}"#,
    ),
    (
        Venue::Coinbase,
        r#"{"type":"match","trade_id":10,"time":"2014-11-07T08:19:27.028459Z","product_id":"A-B","size":"5.2","price":"4.23","side":"sell"}"#,
    ),
    (
        Venue::Kraken,
        r#"{"channel":"book","type":"snapshot","data":[{"symbol":"A/B","bids":[{"price":4.5,"qty":0.10}],"asks":[],"checksum":7}]}"#,
    ),
    (
        Venue::Kraken,
        r#"{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[{"symbol":"A/B","status":"online","qty_precision":8,"price_precision":1,"price_increment":0.1,"qty_increment":1e-8}]}}"#,
    ),
    (Venue::Kraken, r#"[992,{"a":[["3.5","5.0","1618678133.36"]]},{"b":[],"c":"2583817756"},"book-10","A/B"]"#),
    (
        Venue::Bybit,
        r#"{"topic":"orderbook.50.AB","type":"delta","ts":1687940967466,"data":{"s":"AB","b":[["3.2","3.0"]],"a":[],"u":2,"seq":6},"cts":1687940967464}"#,
    ),
    (
        Venue::BybitLinear,
        r#"{"topic":"tickers.AB","type":"delta","ts":1673853746003,"data":{"symbol":"AB","lastPrice":"17.5","volume24h":"9"}}"#,
    ),
    (
        Venue::BybitLinear,
        r#"{"topic":"publicTrade.AB","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"AB","S":"Buy","v":"0.1","p":"6.5","i":"20f43950-d8dd-5b31-9112-a178eb6023af"}]}"#,
    ),
    (
        Venue::Okx,
        r#"{"arg":{"channel":"books","instId":"A-B"},"action":"update","data":[{"asks":[["8.98","4","0","1"]],"bids":[],"ts":"1597026383085","checksum":-5,"prevSeqId":-1,"seqId":12}]}"#,
    ),
    (
        Venue::Okx,
        r#"{"arg":{"channel":"tickers","instId":"A-B"},"data":[{"instType":"SPOT","instId":"A-B","last":"9.99","askPx":"9","askSz":"1","bidPx":"8","bidSz":"5","ts":"1597026383085"}]}"#,
    ),
];

/// Numbers that are hard to hold.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "1e400",
    "1e-400",
    "0.000000000000000001",
    "999999999999999999",
    "1000000000000000000.5",
    "-0.0",
    "00.1",
];

/// A message with some of its bytes and numbers replaced.
fn changed() -> impl Strategy<Value = (Venue, String)> {
    let change = (any::<prop::sample::Index>(), prop::sample::select(&NUMBERS[..]), any::<u8>(), any::<bool>());
    (prop::sample::select(&SEEDS[..]), prop::collection::vec(change, 0..4)).prop_map(|((venue, seed), changes)| {
        let mut text = seed.to_owned();
        for (at, number, byte, is_number) in changes {
            let digits: Vec<_> = text.match_indices(|letter: char| letter.is_ascii_digit()).map(|(at, _)| at).collect();
            if is_number && !digits.is_empty() {
                let from = *at.get(&digits);
                let length = text[from..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').count();
                text.replace_range(from..from + length, number);
            } else {
                let mut bytes = text.into_bytes();
                let from = at.index(bytes.len());
                bytes[from] = byte;
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        (venue, text)
    })
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(venue in prop::sample::select(&Venue::ALL[..]), texts in prop::collection::vec(".{0,80}", 1..8)) {
        let mut client = Client::new(venue);
        for text in texts {
            let _ = client.take(&text, 1_700_000_000_000_000_000);
        }
    }

    /// Each sequence begins with the true messages of a venue, so that there are books to break. The client asserts that
    /// records are well-formed and that no change comes for a void book.
    #[test]
    fn changed_messages_are_rejected_or_become_valid_records(all in prop::collection::vec(changed(), 1..12)) {
        let venue = all[0].0;
        let mut client = Client::new(venue);
        for (_, seed) in SEEDS.iter().filter(|(of, _)| *of == venue) {
            let _ = client.take(seed, 1_700_000_000_000_000_000);
        }
        for (_, text) in &all {
            let _ = client.take(text, 1_700_000_000_000_000_000);
        }
    }
}

#[test]
fn book_without_an_end_is_dropped_where_it_is_kept() {
    let mut client = Client::new(Venue::Okx);
    let mut is_dropped = false;
    for part in 0..20 {
        let levels: Vec<_> = (0..1000).map(|nth| format!(r#"["{}","1","0","1"]"#, part * 1000 + nth + 1)).collect();
        let (action, levels) = (if part == 0 { "snapshot" } else { "update" }, levels.join(","));
        let message = format!(
            r#"{{"arg":{{"channel":"books","instId":"A-B"}},"action":"{action}","data":[{{"asks":[{levels}],"bids":[],
                "ts":"1597026383085","checksum":CRC,"prevSeqId":{part},"seqId":{}}}]}}"#,
            part + 1
        );
        let best: Vec<_> = (1..=25).map(|px| format!("{px}:1")).collect();
        let checksum = crc32fast::hash(best.join(":").as_bytes()).cast_signed();
        client.take(&message.replace("CRC", &checksum.to_string()), 1_700_000_000_000_000_000).expect("a message");
        assert_eq!(client.report.checksum_errors, 0);
        is_dropped |= client.report.book_gaps > 0;
    }
    assert!(is_dropped, "5,000 levels of a side are kept at most");
}

#[test]
fn instruments_without_an_end_are_refused_beyond_the_limit() {
    let mut client = Client::new(Venue::Coinbase);
    let message = |nth: usize| {
        format!(
            r#"{{"type":"match","trade_id":10,"time":"2014-11-07T08:19:27.028459Z","product_id":"P{nth}","size":"5",
                "price":"4","side":"sell"}}"#
        )
    };
    for nth in 0..tickcast_venues::INSTRUMENTS_MAX {
        client.take(&message(nth), 1_700_000_000_000_000_000).expect("a trade");
    }
    let error = client.take(&message(99_999), 1_700_000_000_000_000_000).expect_err("one more");
    assert_eq!(error.to_string(), "instrument beyond the first 20000 of this source");
}
