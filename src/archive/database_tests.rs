use super::*;
use crate::recent_trades::{RecentTrade, StoredTrades};
use tickcast_protocol::{Sequence, Side};

use std::sync::Arc;

const DAY_S: u32 = 86_400;
/// The start of a day.
const T: u32 = 1_700_006_400;

fn bar(time_s: u32, trades: u32, close: i64) -> Bar {
    Bar { trades, open: 100, high: 200, low: 50, close, volume: 10 * i64::from(trades), ..Bar::empty(time_s) }
}

fn stored(interval_s: u32, bar: Bar) -> StoredBar {
    StoredBar { symbol: Arc::from("A"), interval_s, exponents: (-2, -1), bar }
}

fn database(folder: &tempfile::TempDir) -> Database {
    Database::open(&folder.path().join("bars.sqlite")).unwrap()
}

fn times(database: &Database, interval_s: u32) -> Vec<(u32, u32, i64)> {
    let bars = database.newest("A", interval_s, u32::MAX, 100).unwrap();
    bars.into_iter().map(|(bar, _)| (bar.time_s, bar.trades, bar.close)).collect()
}

#[test]
fn bars_are_found_again_with_all_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let quoted = Bar { bid_px: 7, is_quoted: true, ..Bar::empty(T + 60) };
    let overflowed = Bar { volume: i64::MAX, ..bar(T + 120, 1, 3) };
    let bars = [bar(T, 3, 120), quoted, overflowed];
    let mut first = database(&folder);
    first.record(&bars.map(|bar| stored(60, bar)), None, &[], (T, T + 200)).unwrap();
    drop(first);
    let found = database(&folder).newest("A", 60, u32::MAX, 100).unwrap();
    assert_eq!(found, bars.map(|bar| (bar, (-2, -1))));
    assert_eq!(database(&folder).newest("A", 60, T + 120, 1).unwrap(), [(quoted, (-2, -1))]);
    assert_eq!(database(&folder).newest("B", 60, u32::MAX, 100).unwrap(), []);
    assert_eq!(
        database(&folder).list().unwrap(),
        [Listed { symbol: "A".to_owned(), interval_s: 60, bars: 3, from_s: T, to_s: T + 120 }]
    );
}

#[test]
fn part_of_a_bar_does_not_replace_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let mut record = |bar| database.record(&[stored(60, bar)], None, &[], (T, T)).unwrap();
    record(bar(T, 5, 1));
    record(bar(T, 4, 2));
    record(bar(T + 60, 4, 2));
    record(bar(T + 60, 4, 3));
    assert_eq!(times(&database, 60), [(T, 5, 1), (T + 60, 4, 3)]);
    database.load(&[stored(60, bar(T, 1, 9))]).unwrap();
    assert_eq!(times(&database, 60)[0], (T, 1, 9), "what is loaded replaces in any case");
}

#[test]
fn longer_bars_are_made_of_what_is_loaded_where_it_has_no_fewer_trades() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    // The server has recorded the second hour, with more trades, and the minutes of it are gone.
    database.record(&[stored(3600, bar(T + 3600, 50, 7))], None, &[], (T, T)).unwrap();
    let minutes: Vec<_> = (0..120).map(|nth| stored(60, bar(T + 60 * nth, 1, i64::from(nth)))).collect();
    database.load(&minutes[..40]).unwrap();
    database.load(&minutes[40..]).unwrap();
    assert_eq!(times(&database, 3600), [(T, 60, 59), (T + 3600, 60, 119)]);
    assert_eq!(times(&database, DAY_S), [(T, 120, 119)]);
    assert_eq!(times(&database, 1), []);
    let again = database.newest("A", DAY_S, u32::MAX, 9).unwrap();
    database.load(&minutes).unwrap();
    assert_eq!(database.newest("A", DAY_S, u32::MAX, 9).unwrap(), again, "loading again changes nothing");
    database.record(&[stored(3600, bar(T + 7200, 50, 7))], None, &[], (T, T)).unwrap();
    database.load(&[stored(60, bar(T + 7200, 1, 8))]).unwrap();
    assert_eq!(times(&database, 3600)[2], (T + 7200, 50, 7), "the recorded hour has more");
}

#[test]
fn corrected_file_with_fewer_trades_corrects_longer_bars_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let file = |trades, high| -> Vec<_> {
        (0..90).map(|nth| stored(60, Bar { high, ..bar(T + 60 * nth, trades, 7) })).collect()
    };
    // The second half of the second hour was recorded.
    let recorded: Vec<_> = (90..120).map(|nth| stored(60, bar(T + 60 * nth, 3, 7))).collect();
    database.record(&recorded, None, &[], (T, T)).unwrap();
    database.record(&[stored(3600, bar(T + 3600, 90, 7))], None, &[], (T, T)).unwrap();
    database.load(&file(10, 900)).unwrap();
    assert_eq!(times(&database, 3600), [(T, 600, 7), (T + 3600, 390, 7)]);
    database.load(&file(4, 300)).unwrap();
    let hours = database.newest("A", 3600, u32::MAX, 9).unwrap();
    assert_eq!((hours[0].0.trades, hours[0].0.high), (240, 300), "of the file only");
    assert_eq!(times(&database, DAY_S), [(T, 990, 7)], "a part of it was recorded");
}

#[test]
fn what_is_known_of_an_instrument_goes_on_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    // Killed 90 s after the start of the day: the minute and its seconds were written, longer bars were not.
    let seconds = (60..90).map(|nth| stored(1, bar(T + nth, 2, i64::from(nth))));
    let bars: Vec<_> = seconds.chain([stored(60, bar(T, 7, 1))]).collect();
    database.record(&bars, None, &[], (T, T + 90)).unwrap();
    let [of_seconds, minutes, hours, days] = database.known("A", (-2, -1), [10; 4]).unwrap();
    assert_eq!((of_seconds.bars.len(), of_seconds.has_older, of_seconds.since_s), (10, true, Some(T + 60)));
    let newest = |known: &Known| known.bars.last().map(|bar| (bar.time_s, bar.trades, bar.close));
    assert_eq!(newest(&minutes), Some((T + 60, 20, 89)), "of the seconds that were asked for");
    assert_eq!((newest(&hours), newest(&days)), (Some((T, 27, 89)), Some((T, 27, 89))));
    assert_eq!((minutes.has_older, hours.has_older, hours.since_s), (false, false, Some(T)));
    assert_eq!((of_seconds.made_s, minutes.made_s, hours.made_s, days.made_s), (None, Some(T + 60), Some(T), Some(T)));
    let other = database.known("A", (-1, -1), [10; 4]).unwrap();
    let closes: Vec<_> = other[0].bars.iter().map(|bar| bar.close).collect();
    assert_eq!((closes, other[0].has_older), (vec![], true), "0.89 is not exact in tenths");
    let longer = database.known("A", (-3, -1), [10; 4]).unwrap();
    assert_eq!(longer[0].bars.last().unwrap().close, 890);
}

#[test]
fn times_without_a_server_are_holes() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = database(&folder);
    first.record(&[], None, &[(T + 5, T + 6)], (T, T + 50)).unwrap();
    first.record(&[], None, &[(T + 5, T + 6)], (T, T + 60)).unwrap();
    drop(first);
    let mut second = database(&folder);
    assert_eq!(second.holes(T + 61).unwrap(), [(T + 5, T + 6)], "a restart within a second is none");
    assert_eq!(second.holes(T + 100).unwrap(), [(T + 5, T + 6), (T + 60, T + 100)]);
    second.record(&[], Some(T + 70), &[], (T + 100, T + 110)).unwrap();
    assert_eq!(second.holes(T + 110).unwrap(), [(T + 5, T + 6), (T + 60, T + 100)]);
    second.load(&[stored(60, bar(T, 1, 1)), stored(60, bar(T + 60, 1, 1))]).unwrap();
    assert_eq!(second.loads("A").unwrap(), [(T, T + 119)]);
}

#[test]
fn bars_after_a_clock_that_was_set_back_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let bars: Vec<_> = (0..10).map(|nth| stored(60, bar(T + 60 * nth, 1, 1))).collect();
    database.record(&bars, None, &[], (T, T + 600)).unwrap();
    database.record(&[stored(60, bar(T + 120, 1, 5))], Some(T + 130), &[], (T, T + 130)).unwrap();
    assert_eq!(times(&database, 60), [(T, 1, 1), (T + 60, 1, 1), (T + 120, 1, 5)]);
}

#[test]
fn oldest_of_the_shortest_bars_are_removed_beyond_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let bars: Vec<_> = (0..40_000).map(|nth| stored(1, bar(T + nth, 1, 1))).collect();
    let days: Vec<_> = (0..100).map(|nth| stored(DAY_S, bar(T + DAY_S * nth, 1, 1))).collect();
    database.record(&[bars, days].concat(), None, &[], (T, T + 600)).unwrap();
    let before = database.bytes().unwrap();
    assert!(!database.prune(before).unwrap());
    let bytes_max = before / 3;
    while database.prune(bytes_max).unwrap() {}
    assert!(database.bytes().unwrap() <= bytes_max, "{} of {before}", database.bytes().unwrap());
    let seconds = database.newest("A", 1, u32::MAX, usize::MAX >> 1).unwrap();
    assert_eq!(seconds.last().unwrap().0.time_s, T + 39_999, "the newest stay");
    assert!(seconds.len() > 5_000, "{}", seconds.len());
    assert_eq!(database.newest("A", DAY_S, u32::MAX, 1000).unwrap().len(), 100);
    drop(database);
    let file = std::fs::metadata(folder.path().join("bars.sqlite")).unwrap().len();
    assert!(file < before, "the file is shorter: {file}");
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bars.sqlite");
    std::fs::write(&path, "some other text that is longer than a header of a hundred bytes ".repeat(4)).unwrap();
    let problem = Database::open(&path).unwrap_err();
    assert!(problem.contains("bars.sqlite: ") && problem.contains("not a database"), "{problem}");
    let other = folder.path().join("other.sqlite");
    let connection = Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (a)").unwrap();
    let problem = Database::open(&other).unwrap_err();
    assert!(problem.contains("another program"), "{problem}");
    let later = folder.path().join("later.sqlite");
    drop(Database::open(&later).unwrap());
    Connection::open(&later).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    let problem = Database::open(&later).unwrap_err();
    assert!(problem.contains("version 2: expected 1"), "{problem}");
}

#[test]
fn write_of_another_program_changes_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut other) = (database(&folder), database(&folder));
    let before = server.version().unwrap();
    server.record(&[stored(60, bar(T, 1, 1))], None, &[], (T, T)).unwrap();
    assert_eq!(server.version().unwrap(), before, "its own writes do not");
    other.load(&[stored(60, bar(T + 60, 1, 1))]).unwrap();
    assert_ne!(server.version().unwrap(), before);
    assert_eq!(times(&server, 60).len(), 2);
}

fn trades(ids: std::ops::RangeInclusive<u64>) -> StoredTrades {
    let trade = |trade_id| RecentTrade {
        sequence: Sequence::NONE,
        ts_event: 0,
        ts_recv: trade_id,
        px: -5,
        sz: 7,
        trade_id,
        side: Side::Sell,
        exponents: Some((-2, -1)),
    };
    StoredTrades { symbol: Arc::from("A"), trades: ids.map(trade).collect(), follows: true }
}

fn ids(database: &Database, symbol: &str) -> Vec<u64> {
    database.trades(symbol).unwrap().iter().map(|trade| trade.trade_id).collect()
}

#[test]
fn trades_are_found_again_with_all_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = trades(1..=3);
    let of_largest = RecentTrade { ts_event: u64::MAX, ts_recv: 1 << 63, px: i64::MIN, ..trades(7..=7).trades[0] };
    stored.trades[1] = RecentTrade { trade_id: u64::MAX, side: Side::Other(200), sz: -1, ..of_largest };
    stored.trades[2] = RecentTrade { px: PRICE_NONE, sz: PRICE_NONE, side: Side::Unknown, ..stored.trades[2] };
    database(&folder).record_trades(std::slice::from_ref(&stored)).unwrap();
    assert_eq!(database(&folder).trades("A").unwrap(), stored.trades);
    assert_eq!(database(&folder).trades("B").unwrap(), []);
}

#[test]
fn newest_trades_of_each_instrument_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let other = StoredTrades { symbol: Arc::from("B"), ..trades(1..=2) };
    database.record_trades(&[trades(1..=90), other, trades(91..=95)]).unwrap();
    assert_eq!(ids(&database, "A"), (1..=95).collect::<Vec<_>>());
    database.record_trades(&[trades(96..=130)]).unwrap();
    assert_eq!(ids(&database, "A"), (31..=130).collect::<Vec<_>>());
    let rows = "SELECT count(*) FROM trades";
    let rows: i64 = database.connection.query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 102);
    let after_hole = StoredTrades { follows: false, ..trades(140..=141) };
    database.record_trades(&[after_hole, trades(142..=142)]).unwrap();
    assert_eq!((ids(&database, "A"), ids(&database, "B")), (vec![140, 141, 142], vec![1, 2]));
}

#[test]
fn trades_of_instruments_that_ended_make_room_for_bars() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = database(&folder);
    let of = |nth: u64| StoredTrades { symbol: Arc::from(nth.to_string()), ..trades(nth..=nth + 99) };
    database.record_trades(&(1..=400).map(of).collect::<Vec<_>>()).unwrap();
    database.record(&[stored(60, bar(T, 3, 120))], None, &[], (T, T)).unwrap();
    let bytes_max = database.bytes().unwrap() / 2;
    while database.prune(bytes_max).unwrap() {}
    assert!(database.bytes().unwrap() <= bytes_max);
    assert_eq!((ids(&database, "1").len(), ids(&database, "400").len()), (0, 100), "the newest stay");
    assert_eq!(times(&database, 60), [(T, 3, 120)]);
}
