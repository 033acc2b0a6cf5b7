//! The log: whatever stderr is, the server serves and ends in order, and a loop that logs is limited.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, Write};
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

const ARGS: &[&str] = &["--listen", "127.0.0.1:0", "--feed", SMALL_MARKET, "--log", "debug", "--log-lines-per-s", "0"];

/// A pipe that takes nothing more, and its reader, which does not read.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe");
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).expect("a pipe");
    (reader, writer.into())
}

/// The lines dropped for a cause.
fn dropped(server: &Server, cause: &str) -> u64 {
    let name = format!("tickcast_log_lines_dropped_total{{cause=\"{cause}\"}} ");
    let metrics = server.get("/metrics").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.expect("the metric is there").parse().expect("a whole number")
}

/// Has the server log more lines than its queue holds: it logs each refusal.
fn log_many(server: &Server) {
    for _ in 0..1200 {
        assert_eq!(server.get("/nothing").status, 404);
    }
}

#[test]
fn a_stderr_that_takes_nothing_neither_stops_nor_delays_the_server() {
    let (without_reader, closed) = std::io::pipe().expect("a pipe");
    drop(without_reader);
    let full_disk = File::options().write(true).open("/dev/full").expect("Linux has it");
    let (reader, blocked) = full_pipe();
    let kinds = [("write", Stdio::from(full_disk)), ("write", closed.into()), ("queue", blocked)];
    for (cause, stderr) in kinds {
        let server = Server::of(Program::spawn_with_stderr(Program::command(ARGS), stderr));
        let mut subscriber = server.subscriber(&["quote"], &["*"]);
        subscriber.until_live();
        log_many(&server);
        assert!(dropped(&server, cause) > 0, "{cause}");
        subscriber.until_live();
        subscriber.ping();
        assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (200, 200));
        drop(subscriber);
        assert_eq!(server.stop(Signal::TERM).code, Some(0), "{cause}");
    }
    drop(reader);
}

#[test]
fn a_start_that_fails_exits_with_2_although_stderr_takes_nothing() {
    let (reader, blocked) = full_pipe();
    let full_disk = File::options().write(true).open("/dev/full").expect("Linux has it");
    for stderr in [Stdio::from(full_disk), blocked] {
        let command = Program::command(&["--listen", "192.0.2.1:9001", "--feed", "none"]);
        assert_eq!(Program::spawn_with_stderr(command, stderr).wait_for_exit().code, Some(2));
    }
    drop(reader);
}

#[test]
fn a_bad_recording_in_a_loop_logs_so_many_lines_a_second() {
    const LIMIT: usize = 5;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.txt");
    let trade = r#"1723161254000000000 {"stream":"x@trade","data":{"e":"trade","E":1723161254000,"s":"AB","t":1,"p":"1.25","q":"1.5","T":1723161254000,"m":true,"M":true}}"#;
    std::fs::write(&path, format!("{trade}\n{}", "what is this\n".repeat(40))).expect("the folder is writable");
    let feed = format!("replay:{}?speed=max&loop=1", path.display());
    let server = Server::start(&["--feed", &feed, "--log-lines-per-s", "5"]);
    let lines = |metric: u64| metric > 1000;
    server.wait_for_metric("tickcast_log_lines_dropped_total", lines);
    server.program.wait_for_stderr("lines of the log were dropped: rate ");
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0));
    // By second and place: the stamps begin with the second, and each text belongs to one place.
    let mut seconds = BTreeMap::<_, usize>::new();
    for line in exit.stderr.lines().filter(|line| line.contains("lines so far")) {
        *seconds.entry(&line[..19]).or_default() += 1;
    }
    assert!(!seconds.is_empty(), "{}", exit.stderr);
    // A line is counted before it gets its stamp, so that one of the second before may be among them.
    assert!(seconds.values().all(|lines| *lines <= 2 * LIMIT), "{seconds:?}");
}
