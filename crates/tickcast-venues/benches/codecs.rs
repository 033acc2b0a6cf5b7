//! Messages a second of each codec, beside serde_json into a struct.
//!
//! Method: 1,000 changes of one book, with two levels on each side, in the venue's own form, through a codec that has a
//! live book; the result is records. `serde_json` reads the same texts into a struct with borrowed strings and does
//! nothing more: prices stay text, no sequence is checked, no record is made. So it is no floor of the codecs, but what
//! a program would pay for the JSON alone. Kraken's codec compares a CRC-32 of twenty levels for each message.
//!
//! Not measured: sockets, inflating, the sequencer. Run: `cargo bench -p tickcast-venues`.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use tickcast_venues::{Codec, CodecOptions, Report, Sink, Venue};

const MESSAGES: usize = 1_000;
const NOW_NS: u64 = 1_763_700_000_000_000_000;

/// A book of a venue: its snapshot and changes, and the reading of one of them by serde_json.
struct Case {
    venue: Venue,
    opening: Vec<String>,
    changes: Vec<String>,
    read: fn(&str) -> usize,
}

/// Prices of the n-th change.
fn px(nth: usize, side: char, level: usize) -> String {
    let cents = 6_183_700 + (nth * 7 + level * 13) % 40;
    let cents = if side == 'b' { cents - 100 } else { cents + 100 };
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn sz(nth: usize, level: usize) -> String {
    format!("{}.{:08}", nth % 9, 12_345_678 + level)
}

/// `["61836.07","0.12345678"]` twice, with a suffix behind the size.
fn pairs(nth: usize, side: char, suffix: &str) -> String {
    let level = |level| format!(r#"["{}","{}"{suffix}]"#, px(nth, side, level), sz(nth, level));
    format!("[{},{}]", level(0), level(1))
}

#[derive(Deserialize)]
struct Combined<'a> {
    #[serde(borrow)]
    data: Depth<'a>,
}

#[derive(Deserialize)]
struct Depth<'a> {
    #[serde(borrow)]
    b: Vec<(&'a str, &'a str)>,
    a: Vec<(&'a str, &'a str)>,
    u: u64,
}

fn binance() -> Case {
    let change = |nth: usize| {
        let (first, bids, asks) = (nth + 2, pairs(nth, 'b', ""), pairs(nth, 'a', ""));
        format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":{first},"u":{first},"b":{bids},"a":{asks}}}}}"#
        )
    };
    let snapshot =
        r#"{"stream":"btcusdt@depth","data":{"lastUpdateId":1,"bids":[["61000.00","1.00000000"]],"asks":[]}}"#;
    let read = |text: &str| {
        let Combined { data } = serde_json::from_str(text).expect("a change");
        data.a.len() + data.b.len() + data.u as usize
    };
    case(Venue::Binance, vec![snapshot.to_owned()], change, read)
}

#[derive(Deserialize)]
struct Changes<'a> {
    #[serde(borrow)]
    changes: Vec<(&'a str, &'a str, &'a str)>,
}

fn coinbase() -> Case {
    let change = |nth: usize| {
        let of = |word: &str, side, level| format!(r#"["{word}","{}","{}"]"#, px(nth, side, level), sz(nth, level));
        let changes = [of("buy", 'b', 0), of("buy", 'b', 1), of("sell", 'a', 0), of("sell", 'a', 1)].join(",");
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[{changes}],"time":"2022-08-04T15:25:05.010758Z"}}"#
        )
    };
    let snapshot = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["61000.00","1.00000000"]],"asks":[]}"#;
    let read = |text: &str| serde_json::from_str::<Changes<'_>>(text).expect("a change").changes.len();
    case(Venue::Coinbase, vec![snapshot.to_owned()], change, read)
}

#[derive(Deserialize)]
struct KrakenMessage {
    data: Vec<KrakenBook>,
}

#[derive(Deserialize)]
struct KrakenBook {
    bids: Vec<KrakenLevel>,
    asks: Vec<KrakenLevel>,
    checksum: u32,
}

/// Numbers as doubles, as serde_json reads them without its feature for other ones.
#[derive(Deserialize)]
struct KrakenLevel {
    price: f64,
    qty: f64,
}

fn kraken() -> Case {
    let list = r#"{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[{"symbol":"BTC/USD",
        "status":"online","price_precision":2,"qty_precision":8}]}}"#;
    let levels = |nth: usize, side| {
        let level = |level| format!(r#"{{"price":{},"qty":{}}}"#, px(nth, side, level), sz(nth, level));
        format!("[{},{}]", level(0), level(1))
    };
    let depth = r#"{"method":"subscribe","result":{"channel":"book","symbol":"BTC/USD","depth":100},"success":true}"#;
    let snapshot = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[],"asks":[]}]}"#;
    let mut book: [BTreeMap<String, String>; 2] = Default::default();
    let change = move |nth: usize| {
        for (side, levels) in ['a', 'b'].into_iter().zip(&mut book) {
            levels.extend([0, 1].map(|level| (px(nth, side, level), sz(nth, level))));
        }
        let plain = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        let best = book[0].iter().take(10).chain(book[1].iter().rev().take(10));
        let digits: String = best.map(|(px, sz)| plain(px) + &plain(sz)).collect();
        let checksum = crc32fast::hash(digits.as_bytes());
        format!(
            r#"{{"channel":"book","type":"update","data":[{{"symbol":"BTC/USD","bids":{},"asks":{},"checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}"#,
            levels(nth, 'b'),
            levels(nth, 'a')
        )
    };
    let read = |text: &str| {
        let message: KrakenMessage = serde_json::from_str(text).expect("a change");
        let book = &message.data[0];
        let sum: f64 = book.bids.iter().chain(&book.asks).map(|level| level.price + level.qty).sum();
        sum as usize + book.checksum as usize
    };
    case(Venue::Kraken, [list, depth, snapshot].map(str::to_owned).into(), change, read)
}

fn bybit() -> Case {
    let message = |kind: &str, u: usize, bids: &str, asks: &str| {
        format!(
            r#"{{"topic":"orderbook.50.BTCUSDT","type":"{kind}","ts":1687940967466,"data":{{"s":"BTCUSDT","b":{bids},"a":{asks},"u":{u},"seq":66544703342}},"cts":1687940967464}}"#
        )
    };
    let change = move |nth: usize| message("delta", nth + 3, &pairs(nth, 'b', ""), &pairs(nth, 'a', ""));
    let snapshot = message("snapshot", 2, r#"[["61000.00","1.00000000"]]"#, "[]");
    let read = |text: &str| {
        let Combined { data } = serde_json::from_str(text).expect("a change");
        data.a.len() + data.b.len() + data.u as usize
    };
    case(Venue::Bybit, vec![snapshot], change, read)
}

#[derive(Deserialize)]
struct OkxMessage<'a> {
    #[serde(borrow)]
    data: Vec<OkxBook<'a>>,
}

type OkxLevel<'a> = (&'a str, &'a str, &'a str, &'a str);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OkxBook<'a> {
    #[serde(borrow)]
    asks: Vec<OkxLevel<'a>>,
    bids: Vec<OkxLevel<'a>>,
    seq_id: i64,
}

fn okx() -> Case {
    let message = |action: &str, previous: i64, id: i64, bids: &str, asks: &str| {
        format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":{asks},"bids":{bids},"ts":"1597026383085","checksum":0,"prevSeqId":{previous},"seqId":{id}}}]}}"#
        )
    };
    let suffix = r#","0","3""#;
    let change = move |nth: usize| {
        let id = nth as i64 + 1;
        message("update", id, id + 1, &pairs(nth, 'b', suffix), &pairs(nth, 'a', suffix))
    };
    let snapshot = message("snapshot", -1, 1, r#"[["61000.00","1.00000000","0","1"]]"#, "[]");
    let read = |text: &str| {
        let message: OkxMessage<'_> = serde_json::from_str(text).expect("a change");
        message.data.iter().map(|book| book.asks.len() + book.bids.len() + book.seq_id as usize).sum()
    };
    case(Venue::Okx, vec![snapshot], change, read)
}

fn case(venue: Venue, opening: Vec<String>, change: impl FnMut(usize) -> String, read: fn(&str) -> usize) -> Case {
    let case = Case { venue, opening, changes: (0..MESSAGES).map(change).collect(), read };
    let (mut codec, mut report) = opened(&case);
    let before = report.records;
    run(&mut *codec, &case.changes, &mut Vec::new(), &mut report);
    let (book_faults, definitions) = (report.book_gaps + report.checksum_errors, report.rescaled + 1);
    let records = report.records - before;
    assert_eq!(book_faults, 0);
    assert!(
        (MESSAGES as u64..=MESSAGES as u64 + definitions).contains(&records),
        "{}: each change becomes a record: {report:?}",
        venue.name()
    );
    case
}

fn opened(case: &Case) -> (Box<dyn Codec>, Report) {
    let (mut codec, mut report) = (case.venue.codec(CodecOptions::default()), Report::default());
    run(&mut *codec, &case.opening, &mut Vec::new(), &mut report);
    (codec, report)
}

/// Takes messages, one batch each.
fn run(codec: &mut dyn Codec, messages: &[String], batch: &mut Vec<u8>, report: &mut Report) {
    let (mut line, mut next_id, mut events) = (Vec::new(), 1, Vec::new());
    for message in messages {
        batch.clear();
        line.clear();
        line.extend_from_slice(message.as_bytes());
        let mut sink = Sink { batch: &mut *batch, report: &mut *report, next_id: &mut next_id, events: &mut events };
        codec.on_message(&mut line, NOW_NS, &mut sink).expect("a message of the venue");
    }
}

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("venue messages");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for case in [binance(), coinbase(), kraken(), bybit(), okx()] {
        let name = case.venue.name();
        group.bench_function(format!("{name}/codec"), |bencher| {
            let mut batch = Vec::new();
            bencher.iter_batched_ref(
                || opened(&case),
                |(codec, report)| run(&mut **codec, &case.changes, &mut batch, report),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("{name}/serde_json"), |bencher| {
            bencher.iter(|| case.changes.iter().map(|text| (case.read)(black_box(text))).fold(0, usize::wrapping_add));
        });
    }
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
