//! Replay of small written recordings, for cases that the real ones lack: gaps, malformed lines, copies, loops, speeds.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tickcast::ingest::feed::replay::{COPY_STEP_NS, LOOP_PAUSE_NS, OpenError, Params, Replay};
use tickcast::ingest::source::{Batch, Next, SOURCE_BATCH_BYTES_MAX, Source, Times};
use tickcast_protocol::record::{BOOK_LEVELS_MAX, PRICE_NONE, flags};
use tickcast_protocol::{Book, BookAction, RecordKind};
use tickcast_test_support::feed_stream::{self, FeedRecord};

const MS: u64 = 1_000_000;
/// Receive time of millisecond 0 in these recordings.
const T0: u64 = 1_723_161_254_000_000_000;
/// The venue's time of millisecond 0, a second later.
const VENUE_T0_MS: u64 = T0 / MS + 1_000;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn plain(&self, name: &str, lines: &[String]) -> PathBuf {
        self.bytes(name, (lines.join("\n") + "\n").as_bytes())
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

/// A line received `ms` after [`T0`].
fn line(ms: u64, json: impl AsRef<str>) -> String {
    format!("{} {}", T0 + ms * MS, json.as_ref())
}

fn quote(ms: u64, symbol: &str, bid_px: &str) -> String {
    let fields = format!(r#""u":1,"s":"{symbol}","b":"{bid_px}","B":"1.0","a":"9.99","A":"2.0""#);
    line(ms, format!(r#"{{"stream":"x@bookTicker","data":{{{fields}}}}}"#))
}

fn trade(ms: u64, symbol: &str, id: u64, px: &str, sz: &str) -> String {
    let fields = format!(r#""s":"{symbol}","t":{id},"p":"{px}","q":"{sz}","T":{},"m":true,"M":true"#, VENUE_T0_MS + ms);
    line(ms, format!(r#"{{"stream":"x@trade","data":{{"e":"trade","E":{VENUE_T0_MS},{fields}}}}}"#))
}

/// An update of one bid.
fn depth(ms: u64, symbol: &str, first: u64, last: u64, px: &str, sz: &str) -> String {
    depth_with(ms, symbol, &format!(r#""U":{first},"u":{last}"#), px, sz)
}

fn futures_depth(ms: u64, symbol: &str, previous: u64, last: u64, px: &str, sz: &str) -> String {
    depth_with(ms, symbol, &format!(r#""T":5,"U":{last},"u":{last},"pu":{previous}"#), px, sz)
}

fn depth_with(ms: u64, symbol: &str, ids: &str, px: &str, sz: &str) -> String {
    let fields = format!(r#""E":{},"s":"{symbol}",{ids},"b":[["{px}","{sz}"]],"a":[]"#, 1_000 + ms);
    line(ms, format!(r#"{{"stream":"x@depth@100ms","data":{{"e":"depthUpdate",{fields}}}}}"#))
}

fn snapshot(ms: u64, id: u64, px: &str) -> String {
    line(ms, format!(r#"{{"lastUpdateId":{id},"bids":[["{px}","3.0"]],"asks":[["9.00","4.0"]]}}"#))
}

fn books(stream: &[FeedRecord]) -> Vec<String> {
    stream.iter().filter(|record| record.kind() == RecordKind::Book).map(FeedRecord::book_text).collect()
}

fn kinds(stream: &[FeedRecord]) -> Vec<RecordKind> {
    stream.iter().map(FeedRecord::kind).collect()
}

#[test]
fn gap_invalidates_the_book_until_a_snapshot() {
    let spot = [
        depth(0, "AB", 1, 2, "1.00", "1.0"),
        depth(1, "AB", 3, 4, "1.01", "1.0"),
        snapshot(2, 2, "1.05"),
        depth(3, "AB", 5, 5, "1.02", "1.0"),
        depth(4, "AB", 7, 8, "1.03", "1.0"),
        snapshot(5, 5, "1.06"),
        depth(6, "AB", 9, 9, "1.04", "1.0"),
        snapshot(7, 7, "1.07"),
        depth(8, "AB", 10, 12, "1.08", "0.0"),
    ];
    let futures = [
        futures_depth(0, "AB", 1, 2, "1.00", "1.0"),
        futures_depth(1, "AB", 2, 4, "1.01", "1.0"),
        // No held update follows this one.
        snapshot(2, 3, "1.99"),
        snapshot(2, 4, "1.05"),
        futures_depth(3, "AB", 4, 5, "1.02", "1.0"),
        futures_depth(4, "AB", 7, 8, "1.03", "1.0"),
        snapshot(5, 6, "1.06"),
        futures_depth(6, "AB", 8, 9, "1.04", "1.0"),
        snapshot(7, 8, "1.07"),
        futures_depth(8, "AB", 9, 12, "1.08", "0.0"),
    ];
    for (name, lines) in [("spot", spot.to_vec()), ("futures", futures.to_vec())] {
        let files = Files::new();
        let (stream, report) = feed_stream::run_to_end(&[files.plain(name, &lines)], "speed=max");
        let expected = [
            "S B30@105 A40@900",
            "D B10@101",
            "D B10@102",
            "S?",
            "S B30@107 A40@900",
            // The spot snapshot covers the update that showed the gap only up to 7; the futures rule applies it again.
            "D B10@103",
            "D B10@104",
            "D B0@108",
        ];
        assert_eq!(books(&stream), expected, "{name}");
        assert_eq!((report.book_gaps, report.malformed), (1, 0), "{name}");
        assert!(stream.iter().all(|record| record.header.flags & flags::LAST != 0));
        let mut books = stream.iter().filter(|record| record.kind() == RecordKind::Book);
        let void = books.find(|record| record.book_text() == "S?").expect("it was found above");
        assert_eq!(void.header.flags, flags::LAST | flags::MAYBE_BAD_BOOK);
    }
}

#[test]
fn snapshot_replaces_a_valid_book_only_if_newer() {
    let lines = [
        snapshot(0, 2, "1.05"),
        depth(1, "AB", 3, 4, "1.01", "1.0"),
        snapshot(2, 4, "1.06"),
        snapshot(3, 6, "1.07"),
        depth(4, "AB", 5, 6, "1.02", "1.0"),
        depth(5, "AB", 7, 7, "1.03", "1.0"),
    ];
    let files = Files::new();
    let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=max");
    assert_eq!(books(&stream), ["S B30@105 A40@900", "D B10@101", "S B30@107 A40@900", "D B10@103"]);
    assert_eq!(report.book_gaps + report.malformed, 0);
    assert_eq!(stream[0].definition().symbol, "AB", "the next lines name the instrument of the first snapshot");
}

#[test]
fn snapshot_without_a_symbol_belongs_to_the_only_waiting_book() {
    let lines = [
        depth(0, "AB", 1, 2, "1.00", "1.0"),
        snapshot(1, 2, "1.05"),
        depth(2, "CD", 50, 60, "2.00", "1.0"),
        quote(3, "EF", "1.00"),
        snapshot(4, 59, "2.05"),
        depth(5, "AB", 4, 5, "1.00", "1.0"),
        depth(6, "CD", 70, 71, "1.00", "1.0"),
        snapshot(7, 75, "3.00"),
    ];
    let files = Files::new();
    let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=max");
    let expected = ["S B30@105 A40@900", "S B30@205 A40@900", "D B10@200", "S?", "S?"];
    assert_eq!(books(&stream), expected);
    assert_eq!((report.book_gaps, report.malformed), (2, 1), "with two waiting books the snapshot is malformed");
}

#[test]
fn large_snapshot_keeps_the_best_levels() {
    let level = |px: usize| format!(r#"["{px}","1"]"#);
    let bids: Vec<_> = (1..=15_000).map(level).collect();
    let asks: Vec<_> = (20_000..35_000).map(level).collect();
    let json = format!(r#"{{"lastUpdateId":9,"bids":[{}],"asks":[{}]}}"#, bids.join(","), asks.join(","));
    let files = Files::new();
    let file = files.plain("a", &[depth(0, "AB", 1, 9, "1", "1"), line(1, json)]);
    let (stream, _) = feed_stream::run_to_end(&[file], "speed=max");
    let (_, levels) = stream[1].book();
    assert_eq!(levels.len(), BOOK_LEVELS_MAX);
    let mut book = Book::default();
    book.apply(BookAction::Snapshot, levels.into_iter());
    assert_eq!((book.bids().next(), book.asks().next()), (Some((15_000, 1)), Some((20_000, 1))));
    assert!(book.bids().count() > 10_000 && book.asks().count() > 10_000);
}

#[test]
fn malformed_lines_are_counted_and_skipped() {
    let bad = [
        line(2, "{"),
        line(2, r#"{"stream":"x@trade","data":{"e":"trade"}}"#),
        line(2, r#"{"stream":"x@trade","data":5}"#),
        line(2, "17"),
        trade(2, "AB", 9, "0.-10000", "1"),
        trade(2, "AB", 9, "1.00", "-1"),
        trade(2, "AB", 9, "1e", "1"),
        trade(2, "AB", 9, "1", "9999999999999999999"),
        trade(2, "AB", 9, "1", "1").replace(r#""t":9"#, r#""t":-9"#),
        trade(2, "AB", 9, "1", "1").replace(r#""t":9"#, r#""t":"9""#),
        trade(2, "AB", 9, "1", "1").replace(r#""m":true,"#, ""),
        trade(2, "AB", 9, "1", "1").replace(r#""m":true"#, r#""m":1"#),
        trade(2, "AB", 9, "1", "1").replace(r#""s":"AB","#, ""),
        trade(2, "", 9, "1", "1"),
        trade(2, &"X".repeat(300), 9, "1", "1"),
        quote(2, "AB", "1.00").replace(r#","A":"2.0""#, ""),
        depth(2, "AB", 9, 8, "1.00", "1.0"),
        depth(2, "AB", 9, 9, "1.00", "x"),
        depth(2, "AB", 9, 9, "1.00", "1.0").replace(r#""a":[]"#, r#""a":[["1"]]"#),
        depth(2, "AB", 9, 9, "1.00", "1.0").replace(r#""a":[]"#, r#""a":{}"#),
        r#"{"stream":"x@trade","data":{}}"#.to_owned(),
        "99999999999999999999999 {}".to_owned(),
        "17{}".to_owned(),
        "17".to_owned(),
        "-1 {}".to_owned(),
    ];
    let good = [quote(0, "AB", "1.00"), trade(1, "AB", 1, "1.01", "1.5")];
    let ignored = [line(3, r#"{"result":null,"id":1}"#), line(3, r#"{"stream":"x@kline_1m","data":{"e":"kline"}}"#)];
    let after = [trade(4, "AB", 2, "1.02", "1.5"), quote(5, "AB", "1.00")];
    let files = Files::new();
    let lines = [&good[..], &bad, &["".to_owned()], &ignored, &after].concat();
    let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=max");
    assert_eq!((report.malformed, report.ignored), (bad.len() as u64, 2));
    assert_eq!(
        kinds(&stream),
        [
            RecordKind::Definition,
            RecordKind::Quote,
            RecordKind::Trade,
            RecordKind::Trade,
            RecordKind::Quote,
            RecordKind::Ticker
        ]
    );
    for one in bad {
        let lines = [&good[..], std::slice::from_ref(&one), &after].concat();
        let (alone, report) = feed_stream::run_to_end(&[files.plain("b", &lines)], "speed=max");
        assert_eq!(report.malformed, 1, "{one}");
        assert_eq!(alone.len(), stream.len(), "{one}");
    }
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let files = Files::new();
    let error_of = |path: &Path| {
        let params = Params::parse(path.to_str().expect("UTF-8")).expect("a file");
        let error = Replay::open(&params).err().expect("not a recording");
        let text = error.to_string();
        let (_, whole) = text.split_once(": ").expect("the path, and the reason");
        match error {
            OpenError::NotARecording { .. } => whole.to_owned(),
            OpenError::Io { error, .. } => format!("Io {}", error.kind()),
            _ => panic!("{text}"),
        }
    };
    let expected = ": expected a recording: a packet log of `tickcast record`, a DBN file, a CSV file of Tardis, or \
                    lines `<receive time> <message of a venue>`, plain, gzip or zstd";
    for (bytes, found) in [
        (&b"http://x <-> 1618\n"[..], "begins with \"http://x <-> 1618\""),
        (b"1618678132.82; {}\n", "begins with \"1618678132.82; {}\""),
        (b"1618678132 1\n", "begins with \"1618678132 1\""),
        (b"", "is empty"),
        // Nothing but what a recorder has sent.
        (b"wss://x <-> 1618\nwss://x <- 1618: {}\n", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xff\xfe", "begins with \"\u{fffd}\u{fffd}\""),
    ] {
        assert_eq!(error_of(&files.bytes("a", bytes)), format!("{found}{expected}"));
    }
    for number in ["1618", "123000000", "16186781320", "99999999999999999999", "4102444800", "1230767999999"] {
        let problem = error_of(&files.bytes("a", format!("\n{number} {{}}\n").as_bytes()));
        assert!(problem.starts_with(&format!("line 2: receive time {number:?} is no time: expected seconds, mill")));
        assert!(problem.contains("from the year 2009 to the year 2099"), "{problem}");
    }
    assert!(error_of(&files.bytes("a", b"\x1f\x8bnonsense")).starts_with("cannot be read: "));
    assert_eq!(error_of(files.0.path()), format!("is a directory{expected}"));
    assert_eq!(error_of(&files.0.path().join("absent")), "Io entity not found");
}

#[test]
fn lines_before_from_are_applied_and_those_at_to_are_not_played() {
    let lines = [
        snapshot(0, 2, "1.05"),
        quote(1, "AB", "1.00"),
        trade(2, "AB", 1, "1.00", "1"),
        depth(3, "AB", 3, 4, "1.01", "1.0"),
        depth(1_000, "AB", 5, 5, "1.02", "1.0"),
        trade(2_000, "AB", 2, "1.00", "1"),
        depth(3_000, "AB", 6, 6, "1.03", "1.0"),
    ];
    let files = Files::new();
    let file = files.plain("a", &lines);
    let play = |query: &str| feed_stream::run_to_end(std::slice::from_ref(&file), query).0;
    let from = |ms: u64| T0 + ms * MS;
    let stream = play(&format!("speed=1&from={}&to={}", from(1_000), from(3_000)));
    assert_eq!(books(&stream), ["S B30@105 B10@101 A40@900", "D B10@102"]);
    let trades: Vec<_> = stream.iter().filter(|record| record.kind() == RecordKind::Trade).collect();
    assert_eq!(trades.len(), 1, "the first was before");
    assert_eq!(trades[0].at_ns - 1, 1_000 * MS, "the time begins with from");
    assert_eq!(stream.iter().filter(|record| record.kind() == RecordKind::Quote).count(), 1);
    let times: Vec<_> = stream.iter().map(|record| (record.at_ns - 1) / MS).collect();
    assert!(times.is_sorted() && times[0] == 0, "{times:?}");
    // Again and again: each pass begins with the state at from.
    let mut replay = feed_stream::open(std::slice::from_ref(&file), &format!("speed=1&loop=1&from={}", from(1_000)));
    let twice = feed_stream::run(&mut replay, 1, 1 + 2_000 * MS + LOOP_PAUSE_NS);
    let voided = books(&twice).iter().position(|book| book == "S?").expect("between the passes");
    assert_eq!(books(&twice)[voided + 1..], ["S B30@105 B10@101 A40@900", "D B10@102"]);
    // Nothing is left to play: the state is what there is.
    let last = play(&format!("speed=1&from={}", from(9_000)));
    assert_eq!(books(&last), ["S B30@105 B10@103 B10@102 B10@101 A40@900"]);
    assert!(last.iter().all(|record| record.kind() != RecordKind::Trade));
}

#[test]
fn receive_times_are_read_in_each_unit_also_where_the_unit_changes() {
    let files = Files::new();
    let quotes = |stamps: &[&str]| {
        let lines: Vec<_> = stamps.iter().map(|stamp| quote(0, "AB", "1.00").replace(&T0.to_string(), stamp)).collect();
        let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=1");
        assert_eq!(report.malformed, 0, "{stamps:?}");
        let start_ns = stream[0].at_ns;
        let quotes = stream.iter().filter(|record| record.kind() == RecordKind::Quote);
        quotes.map(|record| (record.at_ns - start_ns) / MS).collect::<Vec<_>>()
    };
    for stamps in [
        ["1723161254", "1723161255", "1723161257"],
        ["1723161254000", "1723161255000", "1723161257000"],
        ["1723161254000000", "1723161255000000", "1723161257000000"],
        ["1723161254000000000", "1723161255000000000", "1723161257000000000"],
        ["1723161254.0", "1723161255000", "1723161257000000"],
    ] {
        assert_eq!(quotes(&stamps), [0, 1000, 3000]);
    }
    assert_eq!(quotes(&["1723161254.25", "1723161254.5000001", "1723161254750.5"]), [0, 250, 500]);
}

#[test]
fn a_line_with_another_number_is_skipped_and_does_not_move_the_time() {
    let files = Files::new();
    let odd = |number: &str| quote(500, "AB", "5.00").replace(&(T0 + 500 * MS).to_string(), number);
    let lines = [quote(0, "AB", "1.00"), odd("172316125450"), odd("4102444800000"), odd("0"), quote(900, "AB", "2.00")];
    let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=1");
    assert_eq!(report.malformed, 3);
    let quotes: Vec<_> = stream.iter().filter(|record| record.kind() == RecordKind::Quote).collect();
    assert_eq!((quotes.len(), quotes[1].at_ns - quotes[0].at_ns), (2, 900 * MS));
}

#[test]
fn truncated_gzip_replays_the_rest_and_counts_one_malformed_line() {
    let lines: Vec<_> = (0..2000).map(|id| trade(id, "AB", id, "1.01", &format!("{}.5", id * id % 977))).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(lines.join("\n").as_bytes()).expect("writing to a Vec");
    let whole = encoder.finish().expect("writing to a Vec");
    let files = Files::new();
    let file = files.bytes("a.gz", &whole[..whole.len() / 2]);
    let (stream, report) = feed_stream::run_to_end(std::slice::from_ref(&file), "speed=max");
    let ids: Vec<_> = stream
        .iter()
        .filter(|record| record.kind() == RecordKind::Trade)
        .map(|record| record.trade().trade_id)
        .collect();
    assert!(ids.len() > 100 && ids.len() < 2000, "{}", ids.len());
    assert!(ids.iter().copied().eq(0..ids.len() as u64));
    assert_eq!(report.malformed, 1);
    let (again, report) = feed_stream::run_to_end(&[file], "speed=max&copies=2");
    assert_eq!((again.len(), report.malformed), (2 * stream.len(), 2));
}

#[test]
fn recordings_are_merged_by_receive_time() {
    let files = Files::new();
    let a = files
        .plain("a", &[trade(0, "AB", 1, "1.0", "1"), trade(20, "AB", 2, "1.0", "1"), trade(20, "AB", 3, "1.0", "1")]);
    let b = files.plain(
        "b",
        &[trade(10, "CD", 11, "1.0", "1"), trade(20, "CD", 12, "1.0", "1"), trade(30, "CD", 13, "1.0", "1")],
    );
    for (order, expected) in [([&a, &b], [1, 11, 2, 3, 12, 13]), ([&b, &a], [1, 11, 12, 2, 3, 13])] {
        let (stream, _) = feed_stream::run_to_end(&order.map(Clone::clone), "speed=max");
        let ids =
            stream.iter().filter(|record| record.kind() == RecordKind::Trade).map(|record| record.trade().trade_id);
        assert!(ids.eq(expected), "{expected:?}");
    }
}

#[test]
fn instrument_in_two_recordings_is_one_instrument() {
    let files = Files::new();
    let a = files.plain("a", &[depth(0, "AB", 1, 2, "1.00", "1.0"), snapshot(1, 2, "1.05")]);
    let b = files.plain("b", &[depth(2, "AB", 3, 4, "1.01", "1.0"), depth(3, "AB", 5, 6, "1.02", "1.0")]);
    let (stream, report) = feed_stream::run_to_end(&[a, b], "speed=max");
    assert_eq!(books(&stream), ["S B30@105 A40@900", "D B10@101", "D B10@102"]);
    assert_eq!((report.book_gaps, feed_stream::instrument_states(&stream).len()), (0, 1));
}

#[test]
fn messages_are_due_at_their_recorded_times_divided_by_the_speed() {
    let files = Files::new();
    let times_ms = [0, 10, 10, 500, 400, 2000];
    let lines: Vec<_> = (1..).zip(times_ms).map(|(id, ms)| trade(ms, "AB", id, "1.0", "1")).collect();
    let file = files.plain("a", &lines);
    for (query, times) in [("", 1.0), ("speed=1", 1.0), ("speed=10", 10.0), ("speed=0.1", 0.1), ("speed=1000", 1000.0)]
    {
        let mut replay = feed_stream::open(std::slice::from_ref(&file), query);
        let start_ns = 5_000_000_000;
        let stream = feed_stream::run(&mut replay, start_ns, u64::MAX);
        let record: Vec<_> = stream
            .iter()
            .filter(|record| record.kind() == RecordKind::Trade)
            .map(|record| record.at_ns - start_ns)
            .collect();
        // A line whose time goes back keeps its order, and is due at once.
        let expected = [0, 10, 10, 500, 500, 2000].map(|ms| ((ms * MS) as f64 / times) as u64);
        assert_eq!(record, expected, "{query}");
    }
}

#[test]
fn late_poll_returns_due_messages_in_bounded_batches() {
    let files = Files::new();
    let lines: Vec<_> = (0..3000).map(|ms| trade(ms, "AB", ms, "1.0", "1")).collect();
    let file = files.plain("a", &lines);
    for (query, expected) in [("speed=1", Next::Now), ("speed=max", Next::Paced)] {
        let mut replay = feed_stream::open(std::slice::from_ref(&file), query);
        let mut batch = Batch::default();
        replay.receive(Times::at(1), &mut batch).expect("no error");
        let mut polls = 0;
        loop {
            batch.clear();
            let next = replay.receive(Times::at(1 + 3_000 * MS), &mut batch).expect("no error");
            assert!(batch.records.len() < SOURCE_BATCH_BYTES_MAX + 200);
            if next == Next::Ended {
                break;
            }
            assert_eq!(next, expected);
            polls += 1;
        }
        assert!((4..=8).contains(&polls), "{polls} batches");
        assert_eq!(replay.receive(Times::at(u64::MAX), &mut batch), Ok(Next::Ended), "it stays ended");
    }
}

#[test]
fn loop_restarts_with_invalid_books_and_new_statistics() {
    let files = Files::new();
    let lines = [
        trade(0, "AB", 1, "1.00", "1.0"),
        depth(10, "AB", 1, 2, "1.00", "1.0"),
        snapshot(20, 1, "1.05"),
        trade(30, "AB", 2, "2.00", "1.0"),
        depth(40, "AB", 3, 4, "1.01", "1.0"),
    ];
    let file = files.plain("a", &lines);
    let (once, _) = feed_stream::run_to_end(std::slice::from_ref(&file), "speed=1");
    let mut replay = feed_stream::open(&[file], "loop=1");
    let pass_ns = 40 * MS + LOOP_PAUSE_NS;
    let stream = feed_stream::run(&mut replay, 0, 3 * pass_ns - 1);
    let passes: Vec<Vec<&FeedRecord>> =
        (0..3).map(|pass| stream.iter().filter(|record| record.at_ns / pass_ns == pass).collect()).collect();
    let book = |pass: usize| {
        passes[pass]
            .iter()
            .filter(|record| record.kind() == RecordKind::Book)
            .map(|record| record.book_text())
            .collect::<Vec<_>>()
    };
    assert_eq!(book(0), ["S B30@105 A40@900", "D B10@100", "D B10@101", "S?"]);
    assert_eq!(book(1), book(0));
    assert_eq!(book(2), book(0));
    let same = |a: &[&FeedRecord], b: &[&FeedRecord]| {
        a.iter().map(|record| &record.bytes).eq(b.iter().map(|record| &record.bytes))
    };
    assert_eq!(passes[0].len(), once.len() + 1, "a pass is the recording and the invalidation of its book");
    assert!(same(&passes[0][1..], &passes[1]) && same(&passes[1], &passes[2]), "a Definition is published once");
    assert_eq!(replay.report().book_gaps, 0);
}

#[test]
fn loop_without_records_returns_from_poll() {
    let files = Files::new();
    let file = files.plain("a", &[line(0, r#"{"result":null,"id":1}"#)]);
    let mut replay = feed_stream::open(std::slice::from_ref(&file), "speed=max&loop=1");
    assert_eq!(replay.receive(Times::at(1), &mut Batch::default()), Ok(Next::Paced));
    let mut replay = feed_stream::open(&[file], "loop=1");
    assert_eq!(replay.receive(Times::at(1), &mut Batch::default()), Ok(Next::At(1 + LOOP_PAUSE_NS)));
}

#[test]
fn copies_are_separate_instruments_with_staggered_starts() {
    let files = Files::new();
    let lines: Vec<_> = [depth(0, "AB", 1, 2, "1.00", "1.0"), snapshot(1, 1, "1.05"), quote(2, "CD", "1.00")]
        .into_iter()
        .chain((0..90).map(|n| depth(100 * n + 3, "AB", n + 3, n + 3, &format!("1.{n:02}"), "1.0")))
        .chain((0..90).map(|n| trade(8_903 + n, "AB", n, "1.00", "1.0")))
        .collect();
    let file = files.plain("a", &lines);
    let (one, _) = feed_stream::run_to_end(std::slice::from_ref(&file), "speed=1");
    // 9 s of recording: three copies are a quarter of a second apart, a hundred fit into its length.
    for (copies, step_ns) in [(3, COPY_STEP_NS), (100, 8_992 * MS / 100)] {
        let (stream, report) = feed_stream::run_to_end(std::slice::from_ref(&file), &format!("copies={copies}"));
        assert_eq!((report.book_gaps, report.malformed), (0, 0));
        let known = feed_stream::instrument_states(&stream);
        assert_eq!(known.len(), 2 * copies);
        for copy in 1..=copies {
            let suffix = if copy == 1 { String::new() } else { format!(".{copy}") };
            let ids = ["AB", "CD"].map(|name| known[&format!("{name}{suffix}")].instrument.id);
            let own = stream
                .iter()
                .filter(|record| ids.contains(&record.header.instrument) && record.kind() != RecordKind::Definition);
            let own: Vec<_> = own.map(|record| (record.at_ns, record.kind(), record.bytes[32..].to_vec())).collect();
            let shift_ns = (copy as u64 - 1) * step_ns;
            let expected = one.iter().filter(|record| record.kind() != RecordKind::Definition);
            let expected: Vec<_> =
                expected.map(|record| (record.at_ns + shift_ns, record.kind(), record.bytes[32..].to_vec())).collect();
            assert!(own == expected, "copy {copy} of {copies}");
        }
    }
}

#[test]
fn tickers_from_trades_come_after_trades_at_most_four_times_a_second() {
    let files = Files::new();
    let lines: Vec<_> = [quote(0, "AB", "1.25"), trade(0, "AB", 1, "1.10", "0.3"), trade(100, "AB", 2, "1.25", "0.9")]
        .into_iter()
        .chain((1..20).map(|n| quote(100 * n + 101, "AB", "1.25")))
        .chain([trade(2100, "AB", 3, "0.99", "0.1"), quote(2500, "AB", "1.30")])
        .collect();
    let (stream, _) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=1");
    let tickers: Vec<_> = stream.iter().filter(|record| record.kind() == RecordKind::Ticker).collect();
    let at: Vec<_> = tickers.iter().map(|record| (record.at_ns - 1) / MS).collect();
    assert_eq!(at, [301, 2500]);
    let (first, last) = (tickers[0].ticker(), tickers[1].ticker());
    assert_eq!((first.open_px, first.high_px, first.low_px, first.last_px), (110, 125, 110, 125));
    // 0.3 × 1.10 + 0.9 × 1.25 = 1.455
    assert_eq!((first.volume, first.turnover, first.bid_px, first.ask_px), (12, 145, 125, 999));
    assert_eq!((last.open_px, last.high_px, last.low_px, last.last_px), (110, 125, 99, 99));
    assert_eq!((last.volume, last.turnover), (13, 155));
    assert_eq!(tickers[1].header.ts_event, T0 + 3_100 * MS);
}

#[test]
fn venue_tickers_replace_those_from_trades() {
    let files = Files::new();
    let fields =
        r#""e":"24hrTicker","E":1672515782136,"s":"AB","c":"1.25","o":"1.00","h":"2.00","l":"0.50","v":"1000.5""#;
    let ticker =
        |ms| line(ms, format!(r#"{{"stream":"ab@ticker","data":{{{fields},"q":"1800.759","b":"1.24","a":"1.26"}}}}"#));
    let mini = fields.replace("24hrTicker", "24hrMiniTicker").replace("AB", "CD");
    let minis = format!(
        r#"{{"stream":"!miniTicker@arr","data":[{{{mini},"q":"99999999999999999999"}},{{"e":"24hrMiniTicker"}}]}}"#
    );
    let lines = [trade(0, "AB", 1, "1.10", "0.3"), trade(900, "AB", 2, "1.10", "0.3"), ticker(1000), line(1001, minis)];
    let (stream, report) = feed_stream::run_to_end(&[files.plain("a", &lines)], "speed=max");
    let tickers: Vec<_> =
        stream.iter().filter(|record| record.kind() == RecordKind::Ticker).map(FeedRecord::ticker).collect();
    assert_eq!(tickers.len(), 2);
    assert_eq!((tickers[0].last_px, tickers[0].open_px, tickers[0].high_px, tickers[0].low_px), (125, 100, 200, 50));
    assert_eq!((tickers[0].volume, tickers[0].turnover), (10_005, 180_075));
    assert_eq!((tickers[0].bid_px, tickers[0].ask_px), (124, 126));
    let absent = (tickers[1].turnover, tickers[1].bid_px, tickers[1].ask_px);
    assert_eq!(absent, (PRICE_NONE, PRICE_NONE, PRICE_NONE), "too large for a mantissa, or absent in the short form");
    assert_eq!(report.malformed, 1, "the second of the list; the first is kept");
}
