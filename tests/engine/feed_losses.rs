//! What a feed cannot take, and values that its exponents do not hold: nothing of it is lost without a report.

use std::path::PathBuf;

use tempfile::TempDir;
use tickcast::ingest::source::Report;
use tickcast_protocol::record::{Gap, PRICE_NONE, flags};
use tickcast_protocol::{RecordKind, decimal};
use tickcast_test_support::feed_stream::{self, FeedRecord};

/// Receive time of the first line, and the venue's time.
const T0_MS: u64 = 1_723_161_254_000;

fn replay(messages: &[String]) -> (Vec<FeedRecord>, Report) {
    let directory = TempDir::new().expect("a directory");
    let line = |(nth, message): (usize, &String)| format!("{} {message}\n", (T0_MS + nth as u64) * 1_000_000);
    let text: String = messages.iter().enumerate().map(line).collect();
    let path: PathBuf = directory.path().join("recording");
    std::fs::write(&path, text).expect("written");
    feed_stream::run_to_end(&[path], "speed=max")
}

fn trade(id: u64, px: &str, sz: &str) -> String {
    format!(
        r#"{{"stream":"x@trade","data":{{"e":"trade","E":{T0_MS},"s":"AB","t":{id},"p":"{px}","q":"{sz}","T":{T0_MS},"m":true,"M":true}}}}"#
    )
}

fn aggregate(first: u64, last: u64) -> String {
    format!(
        r#"{{"stream":"x@aggTrade","data":{{"e":"aggTrade","E":{T0_MS},"s":"AB","a":1,"p":"1.00","q":"1.0","f":{first},"l":{last},"T":{T0_MS},"m":true,"M":true}}}}"#
    )
}

fn quote(bid: (&str, &str), ask: (&str, &str)) -> String {
    let ((bid_px, bid_sz), (ask_px, ask_sz)) = (bid, ask);
    format!(
        r#"{{"stream":"x@bookTicker","data":{{"u":1,"s":"AB","b":"{bid_px}","B":"{bid_sz}","a":"{ask_px}","A":"{ask_sz}"}}}}"#
    )
}

fn depth(id: u64, bids: &str) -> String {
    format!(
        r#"{{"stream":"x@depth","data":{{"e":"depthUpdate","E":{T0_MS},"s":"AB","U":{id},"u":{id},"b":[{bids}],"a":[]}}}}"#
    )
}

fn snapshot(id: u64, bids: &str) -> String {
    format!(r#"{{"lastUpdateId":{id},"bids":[{bids}],"asks":[]}}"#)
}

/// Trades as price and size in text, at the exponents of their time, and Gaps as the number of trades.
fn trades(stream: &[FeedRecord]) -> Vec<String> {
    let mut exponents = (0, 0);
    let mut seen = Vec::new();
    for record in stream {
        match record.kind() {
            RecordKind::Definition => {
                exponents = (record.definition().px_exp, record.definition().sz_exp);
            }
            RecordKind::Trade => {
                let trade = record.trade();
                let (px, sz) = (decimal::to_string(trade.px, exponents.0), decimal::to_string(trade.sz, exponents.1));
                seen.push(format!("{sz}@{px}"));
            }
            RecordKind::Gap => seen.push(format!("{} lost", Gap::read(&record.bytes).expect("a gap").missing())),
            _ => {}
        }
    }
    seen
}

fn definitions(stream: &[FeedRecord]) -> Vec<(i8, i8)> {
    let all = stream.iter().filter(|record| record.kind() == RecordKind::Definition);
    all.map(|record| (record.definition().px_exp, record.definition().sz_exp)).collect()
}

/// Bids of the book after each record of it, in text, and whether it is flagged.
fn books(stream: &[FeedRecord]) -> Vec<(Vec<String>, bool)> {
    let mut exponents = (0, 0);
    let mut all = Vec::new();
    for record in stream {
        match record.kind() {
            RecordKind::Definition => exponents = (record.definition().px_exp, record.definition().sz_exp),
            RecordKind::Book => {
                let level =
                    |px, sz| format!("{}@{}", decimal::to_string(sz, exponents.1), decimal::to_string(px, exponents.0));
                let levels = record.book().1.iter().map(|of| level(of.px, of.sz)).collect();
                all.push((levels, record.header.flags & flags::MAYBE_BAD_BOOK != 0));
            }
            _ => {}
        }
    }
    all
}

#[test]
fn trades_that_cannot_be_read_are_gaps() {
    let unreadable = |id: u64, nth: u64| match nth % 4 {
        0 => "{".to_owned(),
        1 => trade(id, "x", "1.0"),
        2 => trade(id, "1.00", "1.0").replace(r#""p":"1.00","#, ""),
        _ => trade(id, "1.00", "99999999999999999999"),
    };
    let messages: Vec<String> =
        (0..20).map(|id| if id % 2 == 1 { unreadable(id, id / 2) } else { trade(id, "1.00", "1.0") }).collect();
    let (stream, report) = replay(&messages);
    let (seen, expected) = (trades(&stream), ["1.0@1.00", "1 lost"].repeat(10));
    assert_eq!(seen, expected[..19], "the loss of the last one shows with the next");
    assert_eq!((report.malformed, report.trades_lost), (10, 9));
}

#[test]
fn hole_in_the_ids_is_a_gap_of_its_length() {
    let settlement = trade(13, "0", "0").replace(r#""m":true"#, r#""X":"NA","m":true"#);
    let (stream, report) =
        replay(&[trade(7, "1.00", "1.0"), trade(12, "1.00", "1.0"), settlement, trade(14, "1.00", "1.0")]);
    assert_eq!(trades(&stream), ["1.0@1.00", "4 lost", "1.0@1.00", "1.0@1.00"]);
    assert_eq!(report.trades_lost, 4);
    let (stream, _) = replay(&[aggregate(1, 4), aggregate(5, 5), aggregate(9, 12), trade(13, "1.00", "1.0")]);
    assert_eq!(trades(&stream), ["1.0@1.00", "1.0@1.00", "1 lost", "1.0@1.00", "1.0@1.00"], "at least one aggregate");
    let (stream, _) = replay(&[trade(1, "1.00", "1.0"), aggregate(1, 5), trade(6, "1.00", "1.0")]);
    assert!(!trades(&stream).is_empty());
}

#[test]
fn finer_tick_during_a_session_is_another_definition() {
    let (stream, report) = replay(&[
        trade(1, "0.5001", "3"),
        trade(2, "0.50011", "3"),
        trade(3, "0.5002", "0.25"),
        trade(4, "4.3E-7", "0.5"),
    ]);
    assert_eq!(trades(&stream), ["3@0.5001", "3@0.50011", "0.25@0.50020", "0.50@0.00000043"]);
    assert_eq!(definitions(&stream), [(-4, 0), (-5, 0), (-5, -2), (-8, -2)]);
    assert_eq!((report.malformed, report.rescaled), (0, 3));
}

#[test]
fn exponents_do_not_change_back_and_forth() {
    let messages: Vec<String> = (0..50)
        .map(|nth| trade(nth, "0.00000048", if nth % 2 == 0 { "120000000000.00000000" } else { "0.00012345" }))
        .collect();
    let (stream, report) = replay(&messages);
    assert!(definitions(&stream).len() <= 3, "{:?}", definitions(&stream));
    let lost: u64 = report.trades_lost;
    let exact = trades(&stream).iter().filter(|seen| seen.contains('@')).count() as u64;
    assert!(exact + lost >= 49, "each is exact or in a Gap: {exact} and {lost}");
}

#[test]
fn huge_sizes_of_a_cheap_coin_keep_the_book() {
    let huge = r#"["0.00000048","120000000000.00000000"],["0.00000047","5.50000000"]"#;
    let (stream, report) = replay(&[
        depth(1, r#"["0.00000048","1.00000000"]"#),
        snapshot(1, huge),
        depth(2, r#"["0.00000046","7.12500000"]"#),
        trade(1, "0.00000048", "90071992547.00000000"),
    ]);
    let books = books(&stream);
    let text = |level: &str| level.trim_end_matches('0').replace(".@", "@");
    assert_eq!((books[0].0.len(), books[0].1), (2, false), "{books:?}");
    assert!(text(&books[0].0[0]).starts_with("120000000000"), "{books:?}");
    assert_eq!((report.malformed, report.levels_lost), (0, 0));
    let mantissas = stream.iter().filter(|record| record.kind() == RecordKind::Book).flat_map(|record| record.book().1);
    assert!(mantissas.into_iter().all(|level| level.sz < 1 << 53), "exact for every client");
}

#[test]
fn level_that_no_exponents_hold_is_left_out_and_the_book_flagged_until_the_next() {
    let (stream, report) = replay(&[
        depth(1, r#"["1.00","1.5"]"#),
        snapshot(1, r#"["1.00","1.5"],["0.99","99999999999999999999"]"#),
        depth(2, r#"["0.98","2.5"]"#),
        snapshot(9, r#"["1.00","1.5"]"#),
    ]);
    let flagged: Vec<(usize, bool)> = books(&stream).iter().map(|(levels, is_bad)| (levels.len(), *is_bad)).collect();
    assert_eq!(flagged, [(1, true), (1, true), (1, false)]);
    assert_eq!(report.levels_lost, 1);
}

#[test]
fn side_of_a_quote_that_no_exponents_hold_is_absent() {
    let (stream, report) =
        replay(&[quote(("1.00", "1.5"), ("1.01", "2.5")), quote(("1.00", "99999999999999999999"), ("1.02", "2.5"))]);
    let quotes: Vec<_> =
        stream.iter().filter(|record| record.kind() == RecordKind::Quote).map(FeedRecord::quote).collect();
    assert_eq!((quotes[0].bid_px, quotes[0].ask_px), (100, 101));
    assert_eq!((quotes[1].bid_px, quotes[1].ask_px), (PRICE_NONE, 102), "not the one from before");
    assert_eq!(report.malformed, 0);
}
