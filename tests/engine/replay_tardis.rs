//! Replay of CSV files of Tardis, written out here by its documentation.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tickcast_protocol::record::{PRICE_NONE, flags};
use tickcast_protocol::{RecordKind, decimal};
use tickcast_test_support::feed_stream::{self, FeedRecord};

const TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";
const QUOTES: &str = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n";
const CHANGES: &str = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n";
const SECOND: u64 = 1_000_000_000;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn gzip(&self, name: &str, text: &str) -> PathBuf {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("writing to a Vec");
        let path = self.0.path().join(name);
        std::fs::write(&path, encoder.finish().expect("writing to a Vec")).expect("written");
        path
    }
}

/// Records as texts with their values, and the second of their delivery.
fn shown(stream: &[FeedRecord]) -> Vec<String> {
    let mut instruments = std::collections::BTreeMap::new();
    let mut texts = Vec::new();
    for record in stream {
        if record.kind() == RecordKind::Definition {
            instruments.insert(record.header.instrument, record.definition());
        }
        let known = &instruments[&record.header.instrument];
        let text_of = |value: i64, exponent: i8| match value {
            PRICE_NONE => "-".to_owned(),
            value => decimal::to_string(value, exponent),
        };
        let px = |px: i64| text_of(px, known.px_exp);
        let sz = |sz: i64| text_of(sz, known.sz_exp);
        let text = match record.kind() {
            RecordKind::Definition => format!("{} {} {} {}", known.symbol, known.venue, known.px_exp, known.sz_exp),
            RecordKind::Trade => {
                let trade = record.trade();
                format!("{} {}x{} #{}", trade.side, px(trade.px), sz(trade.sz), trade.trade_id)
            }
            RecordKind::Quote => {
                let quote = record.quote();
                format!("{}x{} {}x{}", px(quote.bid_px), sz(quote.bid_sz), px(quote.ask_px), sz(quote.ask_sz))
            }
            RecordKind::Book => {
                let (action, levels) = record.book();
                let levels: Vec<_> =
                    levels.iter().map(|level| format!("{}{}x{}", level.side, px(level.px), sz(level.sz))).collect();
                let bad = if record.header.flags & flags::MAYBE_BAD_BOOK != 0 { "?" } else { "" };
                format!("{action}{bad} {}", levels.join(" "))
            }
            other => format!("{other:?}"),
        };
        texts.push(format!("{} {text}", (record.at_ns - 1) / SECOND));
    }
    texts
}

fn play(files: &[PathBuf], query: &str) -> (Vec<String>, tickcast::ingest::source::Report) {
    let (stream, report) = feed_stream::play_to_end(files, query);
    (shown(&stream), report)
}

/// Microseconds at this second.
fn at(second: u64) -> u64 {
    1_585_699_200_000_000 + second * 1_000_000
}

#[test]
fn trades_and_quotes_become_records_with_the_times_of_the_venue() {
    let trades = format!(
        "{TRADES}deribit,BTC-PERPETUAL,{},{},79815372,sell,6421.5,10.0\n\
         deribit,BTC-PERPETUAL,{},{},8dbf-x,buy,6421.0,0.25\nderibit,ETH/USD 1:2.5,,{},7,unknown,1e-7,3\n",
        at(0) - 100,
        at(0),
        at(1) - 100,
        at(1),
        at(3),
    );
    let quotes = format!(
        "{QUOTES}deribit,BTC-PERPETUAL,{},{},1.0,6422.0,6421.5,30.0\nderibit,BTC-PERPETUAL,,{},,,6421.5,1\n",
        at(1),
        at(1),
        at(2),
    );
    let files = Files::new();
    let paths = [files.gzip("trades.csv.gz", &trades), files.write("quotes.csv", &quotes)];
    let (texts, report) = play(&paths, "speed=1");
    let expected = [
        "0 BTC-PERPETUAL deribit -1 -1",
        "0 S 6421.5x10.0 #79815372",
        "1 BTC-PERPETUAL deribit -1 -2",
        "1 B 6421.0x0.25 #0",
        "1 6421.5x30.00 6422.0x1.00",
        "2 6421.5x1.00 -x-",
        "3 ETH/USD 1:2.5 deribit -7 0",
        "3 N 0.0000001x3 #7",
    ];
    assert_eq!(texts, expected);
    assert_eq!((report.malformed, report.rescaled), (0, 1));
    let (stream, _) = feed_stream::play_to_end(&paths, "speed=max");
    assert_eq!(stream[1].header.ts_event, (at(0) - 100) * 1_000);
    assert_eq!(stream[5].header.ts_event, 0, "the venue gave none");
}

#[test]
fn changes_of_a_message_are_one_record_and_a_run_of_snapshot_rows_begins_the_book_anew() {
    let row = |second: u64, snapshot: bool, side: &str, px: &str, sz: &str| {
        format!("binance,BTCUSDT,{},{},{snapshot},{side},{px},{sz}\n", at(second), at(second))
    };
    let rows = [
        row(0, false, "bid", "9.0", "1"),
        row(1, true, "bid", "10.0", "1"),
        row(1, true, "ask", "11.0", "2"),
        // The snapshot goes on in another message.
        row(2, true, "ask", "12.0", "3"),
        row(3, false, "bid", "10.0", "0"),
        row(3, false, "bid", "9.5", "4"),
        row(4, false, "ask", "11.0", "5"),
        row(5, true, "bid", "20.0", "6"),
        row(5, false, "bid", "19.0", "7"),
        row(6, false, "offer", "19.0", "7"),
    ];
    let files = Files::new();
    let file = files.write("l2.csv", &(CHANGES.to_owned() + &rows.concat()));
    let (texts, report) = play(std::slice::from_ref(&file), "speed=1");
    let expected = [
        "1 BTCUSDT binance -1 0",
        "1 S B10.0x1 A11.0x2",
        "2 D A12.0x3",
        "3 D B10.0x0 B9.5x4",
        "4 D A11.0x5",
        "5 S B20.0x6",
        "5 D B19.0x7",
    ];
    assert_eq!(texts, expected);
    assert_eq!((report.ignored, report.malformed), (1, 1), "a change before the first snapshot, and another side");
    let (texts, _) = play(&[file], &format!("speed=1&from={}&to={}", at(4), at(5)));
    assert_eq!(texts, ["0 BTCUSDT binance -1 0", "0 S B9.5x4 A11.0x2 A12.0x3", "0 D A11.0x5"]);
}

#[test]
fn whole_books_have_their_levels_and_empty_cells_are_none() {
    let columns: Vec<String> = (0..5)
        .map(|nth| format!("asks[{nth}].price,asks[{nth}].amount,bids[{nth}].price,bids[{nth}].amount"))
        .collect();
    let text = format!(
        "exchange,symbol,timestamp,local_timestamp,{}\n\
         binance,BTCUSDT,{},{},11,1,10,2,12,3,9,4,,,,,,,,,,,,\n",
        columns.join(","),
        at(0),
        at(0)
    );
    let files = Files::new();
    let (texts, report) = play(&[files.write("book.csv", &text)], "speed=max");
    assert_eq!(texts, ["0 BTCUSDT binance 0 0", "0 S A11x1 B10x2 A12x3 B9x4"]);
    assert_eq!(report.malformed, 0);
}

#[test]
fn numbers_that_need_eighteen_decimals_or_digits_are_exact_or_told() {
    let row = |sz: &str, px: &str, second: u64| format!("x,PEPE,,{},1,buy,{px},{sz}\n", at(second));
    let rows = [
        row("1000000000000000000", "0.000000000000000001", 0),
        row("0.5", "1", 1),
        row("99999999999999999999", "1", 2),
        row("-1", "1", 3),
    ];
    let files = Files::new();
    let (texts, report) = play(&[files.write("t.csv", &(TRADES.to_owned() + &rows.concat()))], "speed=max");
    assert_eq!(texts[..2], ["0 PEPE x -18 0", "0 B 0.000000000000000001x1000000000000000000 #1"]);
    assert_eq!(report.malformed as usize, 4 - (texts.iter().filter(|text| text.contains('#')).count()));
    assert!(report.malformed >= 2, "{texts:?}");
    // A level that fits no exponents is left out, and the book is flagged until it is whole again.
    let row =
        |second: u64, snapshot: bool, px: &str, sz: &str| format!("x,PEPE,,{},{snapshot},bid,{px},{sz}\n", at(second));
    let rows = [
        row(0, true, "1", "1"),
        row(0, true, "2", "99999999999999999999"),
        row(1, false, "3", "1"),
        row(2, true, "4", "1"),
    ];
    let (texts, report) = play(&[files.write("l2.csv", &(CHANGES.to_owned() + &rows.concat()))], "speed=max");
    // A snapshot behind a change is a new one.
    assert_eq!(texts[1..], ["0 S? B1x1", "0 D? B3x1", "0 S B4x1"]);
    assert_eq!(report.levels_lost, 1);
}

#[test]
fn files_with_other_columns_are_refused_and_bad_rows_are_counted() {
    let files = Files::new();
    let error = |text: &str| feed_stream::try_open(&[files.write("a", text)], "speed=1").err().expect("refused");
    let message = error("exchange,symbol,timestamp,local_timestamp,open_interest,last_price\n");
    assert!(
        message.contains("has the columns \"open_interest,last_price\": expected those of trades, quotes,"),
        "{message}"
    );
    let rows = format!(
        "{TRADES}x,A,,noon,1,buy,1,1\nx,A,,{0},1,buy\nx,A*,,{0},1,buy,1,1\nx,A,,{0},1,buy,1,1\nx,A,,{0},1,buy,one,1\n",
        at(0)
    );
    let (texts, report) = play(&[files.write("b", &rows)], "speed=1");
    assert_eq!(texts, ["0 A x 0 0", "0 B 1x1 #1"]);
    assert_eq!(report.malformed, 4);
    // A line without an end is not kept in memory.
    let long = format!("{TRADES}x,A,,{},1,buy,1,1\nx,{}", at(0), "A".repeat(3 << 20));
    let (texts, _) = play(&[files.write("c", &long)], "speed=1");
    assert_eq!(texts.len(), 2);
}
