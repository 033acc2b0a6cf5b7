//! The end of the server, and settings that are read again while it runs.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::{Client, Received, Record, records_of};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};
use tungstenite::Message;

/// Waits for the goodbye; returns when to come back.
fn sent_away(client: &mut Client) -> u64 {
    let closing = client.reply();
    assert_eq!((&closing["type"], &closing["reason"]), (&json!("closing"), &json!("going_away")), "{closing}");
    closing["reconnect_ms"].as_u64().expect("when to come back")
}

#[test]
fn while_it_drains_nobody_comes_in_who_waits_is_served_and_a_second_signal_ends_at_once() {
    let args = ["--feed", SMALL_MARKET, "--drain-ms", "600000", "--cores", "0"];
    let server = Server::start(&args);
    let (mut first, mut second) = (server.client(), server.client());
    second.ping();
    server.program.signal(Signal::TERM);
    sent_away(&mut first);
    first.expect_close(1001, &["stopping"]);
    server.get("/readyz").assert_refusal(503, "unavailable", &["stopping"]);
    assert_eq!(server.get("/healthz").status, 200);
    let Err(refused) = Client::try_connect(server.address, "/v1/stream", &[]) else { panic!("nobody comes in") };
    refused.assert_refusal(503, "unavailable", &["stopping"]);
    assert!(refused.header("retry-after").is_some());
    server.wait_for_metric("tickcast_refused_draining_total", |count| count == 1);
    second.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
    assert_eq!(second.reply()["type"], "subscribed", "whose time has not come is served as ever");
    assert!(matches!(second.receive(), Received::Packet(_)));
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(1), "{exit:?}");
}

#[test]
fn all_are_sent_away_with_spread_times_to_come_back_and_the_end_is_0() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--drain-ms", "300", "--cores", "0"]);
    let subscribe = |interval: u64| {
        json!({"op": "subscribe", "id": 1, "channels": ["quote"], "symbols": ["*"], "conflate_ms": interval})
            .to_string()
    };
    let mut clients: Vec<_> = (0..12).map(|_| server.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        client.send_text(&subscribe(if nth % 3 == 0 { 1000 } else { 0 }));
        assert_eq!(client.reply()["type"], "subscribed");
    }
    server.program.signal(Signal::INT);
    let mut times = Vec::new();
    for mut client in clients {
        times.push(sent_away(&mut client));
        client.expect_close(1001, &["stopping"]);
    }
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), 12, "{times:?}");
    let exit = server.program.wait_for_exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains("ERROR"), "{}", exit.stderr);
}

#[test]
fn what_a_publisher_had_handed_in_is_delivered_before_the_goodbye() {
    const PACKETS: u64 = 400;
    const RECORDS: u64 = 100;
    let server = Server::start(&["--feed", "none", "--publish-token", "t"]);
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    publisher.send_text(r#"{"op":"define","id":1,"instruments":[{"symbol":"LAST","px_exp":-2,"sz_exp":0}]}"#);
    assert_eq!(publisher.reply()["type"], "defined");
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["LAST"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    let trade =
        [&8u16.to_le_bytes()[..], &[2, 0x80], &1u32.to_le_bytes(), &[0; 24], &[1; 24], b"S\0\0\0\0\0\0\0"].concat();
    let head = [&[1, 0][..], &(RECORDS as u16).to_le_bytes(), &[0; 20]].concat();
    let packet = [head, trade.repeat(RECORDS as usize)].concat();
    for _ in 0..PACKETS {
        publisher.send(Message::binary(packet.clone()));
    }
    server.program.signal(Signal::TERM);
    let mut next = 1;
    let goodbye = loop {
        match client.receive() {
            Received::Packet(packet) => {
                for Record { header, .. } in records_of(&packet).into_iter().filter(|record| record.header.kind == 2) {
                    assert_eq!(header.sequence.get(), next);
                    next += 1;
                }
            }
            Received::Reply(reply) => break reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((next - 1, &goodbye["reason"]), (PACKETS * RECORDS, &Value::from("going_away")));
    client.expect_close(1001, &["stopping"]);
    publisher.expect_close(1001, &["stopping"]);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

#[test]
fn an_echo_is_told_that_the_server_stops() {
    let server = Server::start(&["--feed", "none", "--enable-echo"]);
    let mut echo = Client::connect(server.address, "/v1/echo", &[]);
    echo.send_text("hello");
    assert!(matches!(echo.receive(), Received::Text(back) if back == "hello"));
    server.program.signal(Signal::TERM);
    echo.expect_close(1001, &["stopping"]);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

/// A server whose settings are in a file.
struct Filed {
    folder: tempfile::TempDir,
    server: Server,
}

impl Filed {
    fn start(toml: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tickcast.toml");
        write(&path, toml);
        let path = path.to_str().expect("a path in UTF-8");
        let all = [&["--listen", "127.0.0.1:0", "--feed", "none", "--cores", "0", "--config", path], args].concat();
        let server = Server::spawn(Program::command(&all));
        Self { folder, server }
    }

    /// Writes other settings, and has the server read them.
    fn reload(&self, toml: &str, says: &str) {
        write(&self.folder.path().join("tickcast.toml"), toml);
        self.server.program.signal(Signal::HUP);
        self.server.program.wait_for_stderr(says);
    }

    fn publish_status(&self, token: &str) -> u16 {
        let path = format!("/v1/publish?token={token}");
        Client::try_connect(self.server.address, &path, &[]).map_or_else(|refused| refused.status, |_| 101)
    }

    fn welcome(&self) -> Value {
        Client::connect(self.server.address, "/v1/stream", &[]).reply()
    }
}

fn write(path: &Path, toml: &str) {
    std::fs::write(path, toml).expect("room for it");
}

#[test]
fn sighup_changes_what_can_change_and_names_what_cannot() {
    let filed = Filed::start("publish_token = 'old'\nrequests_per_s = 60", &["--heartbeat-ms", "4444"]);
    let mut subscriber = filed.server.client();
    assert_eq!((filed.publish_status("old"), filed.publish_status("new")), (101, 401));
    let new =
        "publish_token = 'new'\nrequests_per_s = 70\nheartbeat_ms = 3333\nring_bytes = 4194304\nsubscriptions_max = 2";
    filed.reload(new, "ring_bytes");
    filed.server.program.wait_for_stderr("publish_token, requests_per_s, subscriptions_max");
    // The core is told after the log was: a request on it settles the order.
    while filed.welcome()["limits"]["requests_per_s"] != 70 {}
    assert_eq!((filed.publish_status("old"), filed.publish_status("new")), (401, 101));
    assert_eq!(filed.welcome()["heartbeat_ms"], 4444, "the flag is over the file, as at the start");
    let three = r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["A*","B*","C*"]}"#;
    subscriber.send_and_expect_error(three, Some(1), "limit", &["at most 2"]);
    assert_eq!(filed.server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn a_file_with_an_error_changes_nothing_and_says_so() {
    let filed = Filed::start("publish_token = 'old'", &[]);
    for (toml, says) in [
        ("publish_token = 'new'\nheartbeat_ms = 1", "nothing was changed: heartbeat_ms: 1 is out of bounds"),
        ("publish_token = 'new'\nheartbeats = 1", "unknown field `heartbeats`"),
        ("publish_token = 'new'\nlog = 'tickcast=loud'", "invalid filter \"tickcast=loud\""),
        ("publish_token = ", "nothing was changed: configuration file"),
    ] {
        filed.reload(toml, says);
        assert_eq!((filed.publish_status("old"), filed.publish_status("new")), (101, 401), "{toml}");
    }
}

#[test]
fn sighup_changes_what_is_logged() {
    let filed = Filed::start("log = 'error'", &[]);
    // By the old filter nothing is said of it; the welcome tells that it was read.
    write(&filed.folder.path().join("tickcast.toml"), "log = 'info'\nrequests_per_s = 77");
    filed.server.program.signal(Signal::HUP);
    while filed.welcome()["limits"]["requests_per_s"] != 77 {}
    filed.reload("log = 'info'", "settings were read again");
}
