use super::*;

const DAY_S: u32 = 86_400;

fn read(text: &str, symbol: Option<&str>, interval_s: Option<u32>) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    Loaded::read(&path, symbol, interval_s)
}

#[test]
fn times_are_read_in_the_forms_that_files_have() {
    for text in [
        "1764513000",
        "1764513000123",
        "1764513000123456",
        "1764513000123456789",
        "2025-11-30T14:30:00Z",
        "2025-11-30 14:30:00.123+00:00",
        "2025-11-30 09:30:00-05:00",
    ] {
        assert_eq!(parse_time(text), Some(1_764_513_000), "{text}");
    }
    assert_eq!(parse_time("2025-11-30"), Some(1_764_513_000 - 52_200));
    for text in [
        "",
        "0",
        "20240501",
        "now",
        "12345678901",
        "2025-11-30T14:30:00",
        "2025-13-01",
        "-5",
        "1e9",
        "99999999999999999999",
    ] {
        assert_eq!(parse_time(text), None, "{text}");
    }
}

#[test]
fn bars_are_read_with_their_own_decimals() {
    let text = "Date,Open,High,Low,Close,Adj Close,Volume\n2024-05-02,1.5,2,1.25,1.5,9,100\n2024-05-01,1,1,1,1,9,\n";
    let loaded = read(text, Some("A"), Some(DAY_S)).unwrap();
    assert_eq!(loaded.ignored, ["Adj Close"]);
    let bars = &loaded.bars[&(Arc::from("A"), DAY_S)];
    let rows: Vec<_> = bars.values().map(|(bar, own)| (bar.time_s, bar.open, bar.low, bar.volume, *own)).collect();
    assert_eq!(rows, [(1_714_521_600, 1, 1, 0, (0, 0)), (1_714_608_000, 150, 125, 100, (-2, 0))]);
}

#[test]
fn trades_become_bars_of_a_second_in_the_order_of_their_times() {
    let text = "ts_event,price,size,side,symbol\n1700000001500,2.5,1,buy,B\n1700000001000,2,0.5,sell,B\n\
                1700000000,7,,,A\n1700000001999,1.75,2,buy,B\n";
    let loaded = read(text, None, None).unwrap();
    assert_eq!(loaded.ignored, ["side"]);
    let (bar, exponents) = loaded.bars[&(Arc::from("B"), 1)][&1_700_000_001];
    assert_eq!((bar.trades, bar.open, bar.high, bar.low, bar.close, bar.volume), (3, 250, 250, 175, 175, 35));
    assert_eq!(exponents, (-2, -1));
    assert_eq!(loaded.bars[&(Arc::from("A"), 1)][&1_700_000_000].0.close, 7);
}

#[test]
fn bars_of_a_part_of_a_minute_hour_or_day_are_kept_as_the_next_shorter_ones() {
    let text = "time,open,high,low,close\n1700000130,1,1,1,1\n";
    for (interval_s, kept_s, begin_s) in [(300, 60, 1_700_000_100), (15, 1, 1_700_000_130), (900, 60, 1_700_000_100)] {
        let loaded = read(text, Some("A"), Some(interval_s)).unwrap();
        assert_eq!(loaded.bars[&(Arc::from("A"), kept_s)].keys().copied().collect::<Vec<_>>(), [begin_s]);
    }
    for interval_s in [0, 7, 90, 7 * DAY_S, 5 * 3600] {
        let problem = read(text, Some("A"), Some(interval_s)).unwrap_err();
        assert!(problem.contains("does not divide a minute, an hour or a day"), "{problem}");
    }
}

#[test]
fn invalid_files_are_refused_with_the_line_and_what_was_expected() {
    let bars = "time,open,high,low,close,volume,trades\n";
    for (text, symbol, interval_s, problem) in [
        ("", Some("A"), None, "the header has no time"),
        ("time,price\n", Some("A"), None, "no lines below its header"),
        ("open,high,low,close\n", Some("A"), Some(60), "the header has no time"),
        ("time,open,high\n", Some("A"), Some(60), "neither bars nor trades"),
        ("time,open,high,low,close,price\n", Some("A"), Some(60), "neither bars nor trades"),
        ("time,timestamp,price\n", Some("A"), None, "\"timestamp\" beside \"time\""),
        ("time,price\n", None, None, "either --symbol or a column symbol"),
        ("time,price,symbol\n", Some("A"), None, "either --symbol or a column symbol"),
        (bars, Some("A"), None, "expected --interval-s"),
        ("time,price\n", Some("A"), Some(60), "the file has trades"),
        (&format!("{bars}x,1,1,1,1,1,1\n"), Some("A"), Some(60), "line 2: time: \"x\" cannot be read"),
        (&format!("{bars}1700000000,1,1,1,,1,1\n"), Some("A"), Some(60), "line 2: close: missing"),
        (&format!("{bars}1700000000,1,NaN,1,1,1,1\n"), Some("A"), Some(60), "high: \"NaN\" is no number"),
        (&format!("{bars}1700000000,1,1,2,1,1,1\n"), Some("A"), Some(60), "expected high and low around them"),
        (&format!("{bars}1700000000,1,1,1,1,-1,1\n"), Some("A"), Some(60), "volume: \"-1\" is below 0"),
        (&format!("{bars}1700000000,1,1,1,1,1,0\n"), Some("A"), Some(60), "trades: \"0\" is no count"),
        (&format!("{bars}1700000000,1,1,1,1,1\n"), Some("A"), Some(60), "found record with 6 fields"),
        (&format!("{bars}1700000000,1,1,1,1,1,1\n1700000001,1,1,1,1,1,1\n"), Some("A"), Some(60), "line 3: time: "),
        (&format!("{bars}4000000000,1,1,1,1,1,1\n"), Some("A"), Some(60), "is in the future"),
        (&format!("{bars}1700000000,1e40,1e40,1e40,1e40,1,1\n"), Some("A"), Some(60), "open: \"1e40\" is no number"),
        ("time,price,symbol\n1700000000,1,\n", None, None, "line 2: symbol: missing"),
        ("time,price,symbol\n1700000000,1,a\tb\n", None, None, "line 2: symbol: \"a\\tb\""),
        ("time,price,size\n1700000000,1,-2\n", Some("A"), None, "line 2: size: \"-2\" is below 0"),
        ("time,price\n1700000000,\n", Some("A"), None, "line 2: price: missing"),
    ] {
        let found = read(text, symbol, interval_s).expect_err(text);
        assert!(found.contains(problem), "{text}: {found}");
    }
}
