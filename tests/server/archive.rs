//! The archive: bars and trades of earlier runs of the server, and bars that were loaded.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::publisher::{Publisher, trade};
use tickcast_test_support::server::{Program, Server};

const PUBLISHING: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token"];

fn arguments<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [PUBLISHING, &["--archive-dir", folder.to_str().expect("a path in UTF-8")], more].concat()
}

fn start(folder: &Path) -> (Server, Publisher) {
    let server = Server::start(&arguments(folder, &[]));
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    publisher.define(&["A", "B"]);
    (server, publisher)
}

fn bars(server: &Server, path: &str) -> Value {
    let response = server.get(&format!("/v1/bars/{path}"));
    assert_eq!(response.status, 200, "{path}: {response:?}");
    serde_json::from_str(&response.text()).expect("the response is JSON")
}

fn trades_of(bars: &Value) -> u64 {
    bars["trades"].as_array().expect("a column").iter().map(|count| count.as_u64().expect("a count")).sum()
}

/// Bars, once they are as expected.
#[track_caller]
fn wait_for(server: &Server, path: &str, is_expected: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = bars(server, path);
        if is_expected(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{path} stays {found}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `tickcast archive`; its output and whether it succeeded.
fn archive(folder: &Path, args: &[&str]) -> (String, bool) {
    let (command, rest) = args.split_first().expect("a command");
    let folder = folder.to_str().expect("a path in UTF-8");
    let mut program: Command = Program::command(&[&["archive", command, "--archive-dir", folder], rest].concat());
    let output = program.output().expect("the program runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (text, output.status.success())
}

fn load(folder: &Path, csv: &str, args: &[&str]) -> (String, bool) {
    let file = folder.join("loaded.csv");
    std::fs::write(&file, csv).expect("the folder is writable");
    archive(folder, &[&["load", file.to_str().expect("a path in UTF-8")], args].concat())
}

#[test]
fn bars_go_on_after_a_stop_and_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut publisher) = start(folder.path());
    publisher.publish(&[trade(1, 100), trade(1, 300), trade(1, 200)]);
    let all = "A?interval_s=86400";
    wait_for(&server, all, |found| trades_of(found) == 3);
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let (server, mut publisher) = start(folder.path());
    assert_eq!(trades_of(&wait_for(&server, all, |found| trades_of(found) > 0)), 3, "what the stop has written");
    publisher.publish(&[trade(1, 250)]);
    let found = wait_for(&server, all, |found| trades_of(found) == 4);
    // Unless it was midnight between them.
    if let [high] = &found["high"].as_array().expect("a column")[..] {
        assert_eq!((high, &found["open"][0], &found["close"][0]), (&json!("3.00"), &json!("1.00"), &json!("2.50")));
    }
    // The seconds of the four trades are in the file once a later second is complete.
    let before = server.metric_values("tickcast_archive_bars_written_total")[0];
    server.wait_for_metric("tickcast_archive_bars_written_total", |written| written > before);
    assert!(server.stop(Signal::KILL).code.is_none());

    let (server, mut publisher) = start(folder.path());
    for interval_s in [1, 60, 3600, 86400] {
        let found = bars(&server, &format!("A?interval_s={interval_s}&limit=5000"));
        assert_eq!(trades_of(&found), 4, "of {interval_s} s: {found}");
    }
    publisher.publish(&[trade(1, 150), trade(2, 1)]);
    wait_for(&server, all, |found| trades_of(found) == 5);
    let found = bars(&server, "B?interval_s=1");
    let holes = found["holes"].as_array().expect("a list");
    assert!(holes.iter().all(|hole| hole[0].as_u64() < hole[1].as_u64()), "{found}");
    assert_eq!(server.metric_values("tickcast_archive_failures_total"), [0]);
}

#[test]
fn computed_tickers_have_the_day_from_before_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut publisher) = start(folder.path());
    publisher.publish(&[trade(1, 100), trade(1, 300), trade(1, 200)]);
    wait_for(&server, "A?interval_s=86400", |found| trades_of(found) == 3);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    let (server, _publisher) = start(folder.path());
    let deadline = Instant::now() + DEADLINE;
    let ticker = loop {
        let snapshot: Value = serde_json::from_str(&server.get("/v1/snapshot/A").text()).expect("JSON");
        if !snapshot["ticker"].is_null() {
            break snapshot["ticker"].clone();
        }
        assert!(Instant::now() < deadline, "{snapshot}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let values = ["last_px", "open_px", "high_px", "low_px", "volume", "turnover"].map(|name| ticker[name].clone());
    assert_eq!(json!(values), json!(["2.00", "1.00", "3.00", "1.00", "15", null]), "{ticker}");
    assert_eq!(ticker["flags"], json!(["computed"]), "{ticker}");
}

#[test]
fn what_is_loaded_is_served_by_the_running_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut publisher) = start(folder.path());
    publisher.publish(&[trade(1, 100)]);
    wait_for(&server, "A", |found| trades_of(found) == 1);
    // Minutes of ten days in 2024, as another source would have them.
    const BEGIN_S: u64 = 1_714_521_600;
    let minutes = 10 * 1440;
    let row = |nth: u64| format!("{},{nth}.5,{}.25,{nth}.125,{}.25,2\n", BEGIN_S + 60 * nth, nth + 1, nth + 1);
    let csv = "time,open,high,low,close,volume\n".to_owned() + &(0..minutes).map(row).collect::<String>();
    let (output, is_loaded) = load(folder.path(), &csv, &["--symbol", "A", "--interval-s", "60"]);
    assert!(is_loaded && output.contains("A: 14400 bars of 60 s from 2024-05-01T00:00:00Z"), "{output}");

    let days = wait_for(&server, "A?interval_s=86400", |found| trades_of(found) == minutes + 1);
    assert_eq!(
        (&days["since"], &days["time"][0], &days["open"][0]),
        (&json!(BEGIN_S), &json!(BEGIN_S), &json!("0.500"))
    );
    assert_eq!((&days["high"][0], &days["volume"][9]), (&json!("1440.250"), &json!("2880")));
    // By pages, as a chart that is scrolled to the left.
    let (mut to, mut seen) = (u64::from(u32::MAX), Vec::new());
    loop {
        let page = bars(&server, &format!("A?interval_s=60&limit=5000&to={to}"));
        let times: Vec<u64> = page["time"].as_array().expect("a column").iter().filter_map(Value::as_u64).collect();
        let Some(first) = times.first() else { break };
        to = *first;
        seen.splice(0..0, times);
    }
    assert_eq!(seen.len() as u64, minutes + 1);
    assert_eq!(seen[..minutes as usize], (0..minutes).map(|nth| BEGIN_S + 60 * nth).collect::<Vec<_>>());
    let directory: Value = serde_json::from_str(&server.get("/v1/instruments").text()).expect("JSON");
    assert_eq!(directory["instruments"][0]["bars_since"], json!(BEGIN_S), "{directory}");
    assert_eq!(directory["instruments"][1]["bars_since"], json!(null), "{directory}");
    let newest = bars(&server, "A?interval_s=60&limit=1");
    assert_eq!(newest["since"], json!(BEGIN_S), "also where memory has the answer");
    let middle = bars(&server, &format!("A?interval_s=900&limit=2&to={}", BEGIN_S + 1800));
    assert_eq!(middle["close"], json!(["15.250", "30.250"]));
    assert_eq!(middle["trades"], json!([15, 15]));

    let (output, _) = archive(folder.path(), &["list"]);
    assert!(output.contains("A,60,1440") && output.contains("2024-05-01T00:00:00Z"), "{output}");
}

#[test]
fn loaded_trades_become_bars_of_every_length_and_again_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let csv = "ts_event,price,size,symbol\n2024-05-01T00:00:00.5Z,1.5,1,B\n2024-05-01 00:00:01+00:00,1.75,2,B\n\
               1714521659999,1.25,0.5,B\n2024-05-01T12:00:00Z,2,1,C\n";
    for _ in 0..2 {
        let (output, is_loaded) = load(folder.path(), csv, &[]);
        assert!(is_loaded && output.contains("B: 3 bars of 1 s") && output.contains("C: 1 bars of 1 s"), "{output}");
    }
    let (server, _publisher) = start(folder.path());
    for (interval_s, trades) in [(1, json!([1, 1, 1])), (60, json!([3])), (3600, json!([3])), (86400, json!([3]))] {
        let found = bars(&server, &format!("B?interval_s={interval_s}"));
        assert_eq!(found["trades"], trades, "{found}");
    }
    let day = bars(&server, "B?interval_s=86400");
    let values =
        ["open", "high", "low", "close", "volume"].map(|name| day[name][0].as_str().expect("a text").to_owned());
    assert_eq!(values, ["1.50", "1.75", "1.25", "1.25", "3.5"]);
}

#[test]
fn file_that_is_removed_is_begun_anew_and_one_that_cannot_be_read_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut publisher) = start(folder.path());
    publisher.publish(&[trade(1, 100)]);
    wait_for(&server, "A", |found| trades_of(found) == 1);
    let file = folder.path().join("bars.sqlite");
    for name in ["bars.sqlite", "bars.sqlite-wal", "bars.sqlite-shm"] {
        std::fs::remove_file(folder.path().join(name)).expect("it is there");
    }
    server.wait_for_metric("tickcast_archive_failures_total", |failures| failures > 0);
    assert!(file.exists());
    publisher.publish(&[trade(1, 100)]);
    wait_for(&server, "A", |found| trades_of(found) == 2);
    let exit = server.stop(Signal::TERM);
    assert!(exit.code == Some(0) && exit.stderr.contains("the file was moved or removed"), "{}", exit.stderr);
    let (output, is_listed) = archive(folder.path(), &["list"]);
    assert!(is_listed && output.contains("A,1,"), "{output}");

    let (server, _publisher) = start(folder.path());
    let table = rusqlite::Connection::open(&file).expect("a database");
    table.execute_batch("ALTER TABLE runs RENAME TO others").expect("it is there");
    let deadline = Instant::now() + DEADLINE;
    while !server.get("/readyz").text().contains("the archive of bars cannot be read or written") {
        assert!(Instant::now() < deadline, "{}", server.get("/readyz").text());
        std::thread::sleep(Duration::from_millis(20));
    }
    table.execute_batch("ALTER TABLE others RENAME TO runs").expect("it is there");
    while server.get("/readyz").text().contains("warnings") {
        assert!(Instant::now() < deadline, "{}", server.get("/readyz").text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn days_of_a_venue_are_its_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tickcast.toml");
    let session = |open| {
        format!("[[session]]\nvenue = 'test'\ntimezone = 'America/New_York'\nopen = '{open}'\nclose = '16:00'\n")
    };
    std::fs::write(&config, session("09:30")).expect("the folder is writable");
    // A bar of each half hour of three days in May 2024, Thursday to Saturday, each with its number as its price.
    let row = |nth: u64| format!("{},{nth},{nth},{nth},{nth},1\n", 1_714_608_000 + 1800 * nth);
    let csv = "time,open,high,low,close,volume\n".to_owned() + &(0..144).map(row).collect::<String>();
    let (output, is_loaded) = load(folder.path(), &csv, &["--symbol", "A", "--interval-s", "1800"]);
    assert!(is_loaded, "{output}");
    let config = config.to_str().expect("a path in UTF-8");
    let server = Server::start(&arguments(folder.path(), &["--config", config]));
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    publisher.define(&["A"]);
    let found = bars(&server, "A?interval_s=86400&session=venue");
    // 13:30 UTC is the 27th half hour of a day, and the session has 13 of them.
    assert_eq!(found["time"], json!([1_714_656_600, 1_714_743_000]));
    assert_eq!((&found["open"], &found["close"]), (&json!(["27.00", "75.00"]), &json!(["39.00", "87.00"])));
    assert_eq!((&found["volume"], &found["trades"]), (&json!(["13", "13"]), &json!([13, 13])));
    assert_eq!(found["session"], "America/New_York 09:30-16:00 mon,tue,wed,thu,fri");
    let found = bars(&server, "A?interval_s=3600&session=venue&limit=2&to=1714743000");
    assert_eq!((&found["time"], &found["trades"]), (&json!([1_714_674_600, 1_714_678_200]), &json!([2, 1])));
    assert_eq!(bars(&server, "A?interval_s=86400")["trades"], json!([48, 48, 48]));

    std::fs::write(config, session("9.30")).expect("the folder is writable");
    let exit = Program::spawn(Program::command(&["--config", config])).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("session: open: \"9.30\" is no time: expected one such as 09:30"), "{}", exit.stderr);
}

#[test]
fn venue_without_a_session_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _publisher) = start(folder.path());
    let response = server.get("/v1/bars/A?session=venue");
    assert_eq!(response.status, 400);
    assert!(response.text().contains("the venue \\\"test\\\" has none"), "{}", response.text());
}

#[test]
fn invalid_files_load_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let csv = "time,open,high,low,close\n1714521600,1,1,1,1\n1714521660,1,1,2,1\n";
    let (output, is_loaded) = load(folder.path(), csv, &["--symbol", "A", "--interval-s", "60"]);
    assert!(!is_loaded && output.contains("line 3: ") && output.contains("nothing was loaded"), "{output}");
    let (output, is_listed) = archive(folder.path(), &["list"]);
    assert!(!is_listed && output.contains("there is no such file: expected the --archive-dir"), "{output}");
}

#[test]
fn folder_of_another_server_and_other_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, _publisher) = start(folder.path());
    let args = [&["--listen", "127.0.0.1:0"][..], &arguments(folder.path(), &[])].concat();
    let exit = Program::spawn(Program::command(&args)).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("archive_dir: ") && exit.stderr.contains("another server writes its archive here"));

    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("bars.sqlite"), "this is a text and no database ".repeat(20)).expect("writable");
    let args = [&["--listen", "127.0.0.1:0"][..], &arguments(other.path(), &[])].concat();
    let exit = Program::spawn(Program::command(&args)).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("bars.sqlite: ") && exit.stderr.contains("not a database"), "{}", exit.stderr);
    for (args, problem) in [
        (vec!["--archive-bytes-max", "1000000000"], "archive_bytes_max: given without archive_dir"),
        (vec!["--archive-dir", "x", "--bars-bytes", "0"], "archive_dir: given with bars_bytes 0"),
        (vec!["--archive-dir", "x", "--archive-bytes-max", "5"], "archive_bytes_max: 5 is out of range"),
    ] {
        let exit = Program::spawn(Program::command(&args)).wait_for_exit();
        assert!(exit.code == Some(2) && exit.stderr.contains(problem), "{}", exit.stderr);
    }
}

#[test]
fn newest_trades_are_there_after_a_stop_and_after_a_kill() {
    const COLUMNS: [&str; 6] = ["ts_event", "ts_recv", "px", "sz", "side", "trade_id"];
    let trades = |server: &Server, symbol: &str| server.get(&format!("/v1/trades/{symbol}?limit=1000")).json();
    // The answer reaches up to what a subscriber was sent.
    let publish = |server: &Server, publisher: &mut Publisher, range: std::ops::RangeInclusive<i64>| {
        let mut subscriber = server.subscriber(&["trade"], &["A"]);
        publisher.publish(&range.clone().map(|px| trade(1, px)).collect::<Vec<_>>());
        while subscriber.record().header.sequence.get() < range.clone().count() as u64 {}
    };
    let newest = |column: &Value, count: usize| {
        let column = column.as_array().expect("a column");
        column[column.len() - count..].to_vec()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut publisher) = start(folder.path());
    publisher.publish(&[trade(2, 7)]);
    publish(&server, &mut publisher, 1..=120);
    let before = trades(&server, "A");
    assert_eq!(server.stop(Signal::TERM).code, Some(0));

    let (server, mut publisher) = start(folder.path());
    let after = trades(&server, "A");
    assert_eq!(after["sequence"], json!(vec![Value::Null; 100]), "the newest, which have no number of this run");
    for name in COLUMNS {
        assert_eq!(after[name], json!(newest(&before[name], 100)), "{name}");
    }
    assert!(after["since"].as_u64() >= before["since"].as_u64(), "{after}");
    assert_eq!(trades(&server, "B")["px"], json!(["0.07"]));
    // Defined anew, and seeded again because another program has written to the file: nothing is there twice.
    let redefined = json!({"op": "define", "id": 3,
        "instruments": [{"symbol": "B", "venue": "test", "px_exp": -3, "sz_exp": -1}]});
    publisher.0.send_text(&redefined.to_string());
    assert_eq!(publisher.0.reply()["instruments"][0]["symbol"], "B");
    let (output, is_loaded) = load(folder.path(), "ts_event,price,symbol\n2024-05-01T00:00:00Z,1,A\n", &[]);
    assert!(is_loaded, "{output}");
    wait_for(&server, "A?interval_s=86400", |found| found["time"].as_array().is_some_and(|times| times.len() > 1));
    assert_eq!(trades(&server, "B")["px"], json!(["0.07"]));
    publish(&server, &mut publisher, 121..=122);
    let joined = trades(&server, "A");
    let sequences: Vec<Value> = (0..100).map(|_| Value::Null).chain([json!(1), json!(2)]).collect();
    assert_eq!(joined["sequence"], json!(sequences));
    assert_eq!(newest(&joined["px"], 3), [json!("1.20"), json!("1.21"), json!("1.22")]);
    assert_eq!(joined["trade_id"].as_array().expect("a column")[..100], after["trade_id"].as_array().expect("one")[..]);
    assert!(server.stop(Signal::KILL).code.is_none());

    // What was not written is lost, and nothing else.
    let (server, mut publisher) = start(folder.path());
    assert_eq!(trades(&server, "A")["px"], after["px"]);
    publish(&server, &mut publisher, 123..=123);
    let killed = trades(&server, "A");
    assert_eq!(newest(&killed["px"], 2), [json!("1.20"), json!("1.23")]);
    assert_eq!(newest(&killed["sequence"], 2), [Value::Null, json!(1)]);
    assert_eq!(server.metric_values("tickcast_archive_failures_total"), [0]);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    let (server, _publisher) = start(folder.path());
    assert_eq!(newest(&trades(&server, "A")["px"], 2), [json!("1.20"), json!("1.23")]);
}
