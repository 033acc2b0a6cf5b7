//! A start with wrong arguments, variables, files or ports. The program prints what is wrong and what is allowed, and
//! exits with 2.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::Signal;
use tempfile::TempDir;
use tickcast_test_support::http::send_request;
use tickcast_test_support::server::{Program, Server};

/// Runs the program, and asserts that it exits with 2, prints all `parts` on stderr, and does not serve.
#[track_caller]
fn assert_start_fails(args: &[&str], parts: &[&str]) {
    let exit = Program::run(args);
    assert_eq!(exit.code, Some(2), "{args:?}: {exit:?}");
    parts.iter().for_each(|part| assert!(exit.stderr.contains(part), "{args:?}: {part:?} is not in {}", exit.stderr));
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    assert!(!exit.stdout.contains("serving on"), "{}", exit.stdout);
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("the folder is writable");
        path
    }
}

/// A gzip recording of many trades.
fn recording() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for nth in 0..20_000u64 {
        let at_ns = 1_723_161_254_000_000_000 + nth;
        let price = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        writeln!(
            gzip,
            r#"{at_ns} {{"stream":"x@trade","data":{{"e":"trade","E":1723161254000,"s":"AB","t":{nth},"p":"{price}.25","q":"1.5","T":1723161254000,"m":true,"M":true}}}}"#
        )
        .expect("a Vec grows");
    }
    gzip.finish().expect("a Vec grows")
}

#[test]
fn a_file_that_is_no_recording_is_named() {
    let files = Files::new();
    let directory = files.0.path().display().to_string();
    let missing = files.0.path().join("missing.gz");
    let empty = files.write("empty.gz", b"");
    let text = files.write("text.txt", b"this file\nhas no records\n");
    let headless = files.write("headless.gz", &recording()[..12]);
    for (path, parts) in [
        (missing.display().to_string(), "No such file"),
        (empty.display().to_string(), "expected a recording"),
        (text.display().to_string(), "expected a recording"),
        (headless.display().to_string(), "expected a recording"),
        (directory, "is a directory: expected a recording"),
    ] {
        assert_start_fails(
            &["--listen", "127.0.0.1:0", "--feed", &format!("replay:{path}?speed=max")],
            &["feed", &path, parts],
        );
    }
}

#[test]
fn a_truncated_recording_is_served_up_to_its_end() {
    let files = Files::new();
    let whole = recording();
    let path = files.write("cut.gz", &whole[..whole.len() / 2]);
    let path = path.display().to_string();
    let server = Server::start(&["--feed", &format!("replay:{path}?speed=max")]);
    server.program.wait_for_stderr(&path);
    let snapshot = server.subscriber(&["trade"], &["AB"]).record();
    let (sequence, half) = (snapshot.header.sequence.get(), 20_000 / 4..20_000 * 3 / 4);
    assert!(half.contains(&sequence), "{sequence} trades, expected about half");
}

#[test]
fn a_port_in_use_is_named_with_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert_start_fails(&["--listen", &address, "--feed", "none"], &[&address, "in use", "--listen"]);
    let server = Server::start(&["--feed", "none"]);
    let address = server.address.to_string();
    assert_start_fails(&["--listen", &address, "--feed", "none"], &[&address, "in use", "--listen"]);
    assert_eq!(server.get("/healthz").status, 200, "the first server still serves");
    assert_start_fails(
        &["--listen", "192.0.2.1:9001", "--feed", "none"],
        &["192.0.2.1:9001", "not an address of this machine"],
    );
}

#[test]
fn a_bad_flag_or_value_is_named_with_the_allowed_values() {
    for (args, parts) in [
        (&["--lisen", "127.0.0.1:0"][..], &["--lisen", "--listen"][..]),
        (&["serv"], &["serv"]),
        (&["--listen", "here"], &["listen", "\"here\"", "127.0.0.1:9001"]),
        (&["--listen", "127.0.0.1:99999"], &["listen", "99999", "ADDRESS:PORT"]),
        (&["--heartbeat-ms", "soon"], &["--heartbeat-ms", "soon"]),
        (&["--heartbeat-ms", "1"], &["heartbeat_ms: 1", "10 to 60000"]),
        (&["--heartbeat-ms", "-5"], &["-5"]),
        (&["--ring-bytes", "3000000"], &["ring_bytes: 3000000", "4194304"]),
        (&["--connections-max", "0"], &["connections_max: 0", "at least 1"]),
        (&["--connections-max", "4000000000"], &["connections_max: 4000000000", "1048576", "--cores"]),
        (&["--enable-echo=perhaps"], &["--enable-echo", "perhaps", "true", "false"]),
        (&["--publish-token", ""], &["publish_token"]),
        (&["--log", "tickcast=loud"], &["log", "tickcast=loud", "debug"]),
        (&["--cores", "9999"], &["cores: core 9999", "expected"]),
        (&["--cores", "1-0"], &["cores", "1-0", "0-1"]),
        (&["--cores", "one"], &["cores", "\"one\"", "0,2-5"]),
        (&["--cores", "0,0"], &["cores", "once"]),
        (&["--cores", ""], &["cores", "0,2-5"]),
        (&["--feed", "simulation"], &["feed", "\"simulation\"", "expected sim"]),
        (&["--feed", "sim:rat=5"], &["\"rat\"", "expected instruments, rate, seed"]),
        (&["--feed", "sim:rate=0"], &["rate: invalid value \"0\"", "1 to 5000000"]),
        (&["--feed", "sim:rate"], &["\"rate\"", "key=value"]),
        (&["--feed", "replay:"], &["replay", "FILE"]),
        (&["--feed", "replay:x?speed=fast"], &["speed: invalid value \"fast\"", "0.1 to 1000", "max"]),
    ] {
        assert_start_fails(args, parts);
    }
}

#[test]
fn a_bad_configuration_file_is_named_with_the_allowed_values() {
    let files = Files::new();
    for (toml, parts) in [
        ("lisen = '127.0.0.1:0'", &["unknown field `lisen`", "`listen`"][..]),
        ("listen = 9001", &["listen", "string"]),
        ("heartbeat_ms = 'soon'", &["heartbeat_ms", "soon"]),
        ("listen = ", &["line 1"]),
    ] {
        let path = files.write("bad.toml", toml.as_bytes()).display().to_string();
        assert_start_fails(&["--config", &path], &[&[path.as_str()], parts].concat());
    }
    let path = files.write("bounds.toml", b"heartbeat_ms = 1").display().to_string();
    assert_start_fails(&["--config", &path], &["heartbeat_ms: 1", "10 to 60000"]);
    let path = files.0.path().join("missing.toml").display().to_string();
    assert_start_fails(&["--config", &path], &[&path, "No such file"]);
}

#[test]
fn an_unknown_variable_is_named_with_the_known_ones() {
    let mut command = Program::command(&["--listen", "127.0.0.1:0", "--feed", "none"]);
    command.env("TICKCAST_LISTN", "127.0.0.1:0");
    let exit = Program::spawn(command).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("TICKCAST_LISTN") && exit.stderr.contains("TICKCAST_LISTEN,"), "{}", exit.stderr);

    let mut command = Program::command(&["--listen", "127.0.0.1:0", "--feed", "none"]);
    command.env("TICKCAST_HEARTBEAT_MS", "soon");
    let exit = Program::spawn(command).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("soon") && exit.stderr.contains("heartbeat-ms"), "{}", exit.stderr);
}

#[test]
fn flags_override_variables_then_the_file_then_the_defaults() {
    let files = Files::new();
    let path = files.write("good.toml", b"listen = '127.0.0.4:0'\nfeed = ['none']\nheartbeat_ms = 444");
    let path = path.display().to_string();
    // Each layer sets another address of 127.0.0.0/8.
    for (flag, variable, address, heartbeat_ms) in [
        (Some("127.0.0.2:0"), Some("127.0.0.3:0"), "127.0.0.2", 333),
        (None, Some("127.0.0.3:0"), "127.0.0.3", 333),
        (Some("127.0.0.2:0"), None, "127.0.0.2", 444),
        (None, None, "127.0.0.4", 444),
    ] {
        let mut args = vec!["--config", &path];
        args.extend(flag.iter().flat_map(|listen| ["--listen", listen]));
        let mut command = Program::command(&args);
        if let Some(listen) = variable {
            command.env("TICKCAST_LISTEN", listen).env("TICKCAST_HEARTBEAT_MS", "333");
        }
        let server = Server::spawn(command);
        assert_eq!(server.address.ip().to_string(), address, "{flag:?} {variable:?}");
        let welcome = tickcast_test_support::client::Client::connect(server.address, "/v1/stream", &[]).reply();
        assert_eq!(welcome["heartbeat_ms"], heartbeat_ms, "{flag:?} {variable:?}");
        assert_eq!(welcome["limits"]["requests_per_s"], 50, "the default");
    }
}

#[test]
fn a_variable_may_name_the_configuration_file() {
    let files = Files::new();
    let path = files.write("good.toml", b"listen = '127.0.0.5:0'\nfeed = ['none']");
    let mut command = Program::command(&[]);
    command.env("TICKCAST_CONFIG", path);
    assert_eq!(Server::spawn(command).address.ip().to_string(), "127.0.0.5");
}

#[test]
fn a_closed_stdout_does_not_stop_the_server() {
    let free = std::net::TcpListener::bind("127.0.0.78:0").expect("a free port").local_addr().expect("it is bound");
    let mut command = Program::command(&["--listen", &free.to_string(), "--feed", "none", "--log", "debug"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().expect("the program starts");
    let response = loop {
        assert!(child.try_wait().expect("it is a child of this process").is_none(), "the program has exited");
        if std::net::TcpStream::connect(free).is_ok() {
            break send_request(free, b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n");
        }
    };
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it is a child of this process");
    let code = child.wait().expect("it is a child of this process").code();
    assert_eq!((response.status, code), (200, Some(0)));
}
