//! The end of the server by a signal: it drains, closes its clients with a time to reconnect, and exits.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::{Client, Received, Record, records_of};
use tickcast_test_support::http::connect;
use tickcast_test_support::publisher::{Publisher, TRADE, trade};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

/// A market that fills any socket that is not read.
const FAST_MARKET: &str = "sim:instruments=200,rate=20000,seed=1";

/// Expects the message `closing`; returns its time to reconnect.
fn expect_closing(client: &mut Client) -> u64 {
    let closing = client.reply();
    assert_eq!((&closing["type"], &closing["reason"]), (&json!("closing"), &json!("going_away")), "{closing}");
    closing["reconnect_ms"].as_u64().expect("a time to reconnect")
}

#[test]
fn a_signal_closes_the_clients_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&["--feed", SMALL_MARKET]);
        let mut silent = server.client();
        let mut busy = server.client();
        busy.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
        assert_eq!(busy.reply()["type"], "subscribed");
        silent.ping();
        server.program.signal(signal);
        for mut client in [silent, busy] {
            let closing = client.reply();
            assert_eq!((closing["type"].as_str(), closing["reason"].as_str()), (Some("closing"), Some("going_away")));
            assert!(closing["reconnect_ms"].as_u64().is_some_and(|ms| ms > 0), "{closing}");
            client.expect_close(1001, &["stopping"]);
        }
        let exit = server.program.wait_for_exit();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains("ERROR"), "{}", exit.stderr);
    }
}

#[test]
fn a_client_that_never_reads_does_not_delay_the_end() {
    let args = ["--feed", FAST_MARKET, "--send-buffer-bytes", "4096", "--drain-timeout-ms", "200"];
    let server = Server::start(&args);
    let mut stalled = server.client();
    socket2::SockRef::from(stalled.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    stalled.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["*"]}"#);
    server.wait_for_metric("tickcast_short_sends_total", |count| count > 0);
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    drop(stalled);
}

#[test]
fn the_port_is_free_right_after_the_end() {
    // An address that no other test uses: no connection of theirs can take the port.
    let first = Server::spawn(Program::command(&["--listen", "127.0.0.77:0", "--feed", "none"]));
    let address = first.address;
    let mut client = first.client();
    client.ping();
    assert_eq!(first.stop(Signal::TERM).code, Some(0));
    let second = Server::spawn(Program::command(&["--listen", &address.to_string(), "--feed", "none"]));
    assert_eq!(second.address, address);
    second.client().ping();
}

#[test]
fn a_draining_server_refuses_new_clients_and_a_second_signal_ends_it() {
    let args = ["--feed", SMALL_MARKET, "--drain-ms", "600000", "--cores", "0"];
    let server = Server::start(&args);
    let (mut first, mut second) = (server.client(), server.client());
    second.ping();
    server.program.signal(Signal::TERM);
    expect_closing(&mut first);
    first.expect_close(1001, &["stopping"]);
    server.get("/readyz").assert_refusal(503, "unavailable", &["stopping"]);
    assert_eq!(server.get("/healthz").status, 200);
    let Err(refused) = Client::try_connect(server.address, "/v1/stream", &[]) else {
        panic!("a new client is accepted")
    };
    refused.assert_refusal(503, "unavailable", &["stopping"]);
    assert!(refused.header("retry-after").is_some());
    server.wait_for_metric("tickcast_refused_draining_total", |count| count == 1);
    second.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
    assert_eq!(second.reply()["type"], "subscribed", "a client that is not yet closed is served");
    assert!(matches!(second.receive(), Received::Packet(_)));
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(1), "{exit:?}");
}

#[test]
fn clients_get_different_times_to_reconnect() {
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
        times.push(expect_closing(&mut client));
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
fn published_records_are_delivered_before_the_close() {
    const PACKETS: u64 = 400;
    const RECORDS: u64 = 100;
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token"]);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let id = publisher.define(&["LAST"])[0];
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["LAST"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    let records = vec![trade(id, 1); RECORDS as usize];
    (0..PACKETS).for_each(|_| publisher.publish(&records));
    server.program.signal(Signal::TERM);
    let mut next = 1;
    let closing = loop {
        match client.receive() {
            Received::Packet(packet) => {
                for Record { header, .. } in
                    records_of(&packet).into_iter().filter(|record| record.header.kind == TRADE)
                {
                    assert_eq!(header.sequence.get(), next);
                    next += 1;
                }
            }
            Received::Reply(reply) => break reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((next - 1, &closing["reason"]), (PACKETS * RECORDS, &Value::from("going_away")));
    client.expect_close(1001, &["stopping"]);
    publisher.0.expect_close(1001, &["stopping"]);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

#[test]
fn an_echo_is_closed_with_1001() {
    let server = Server::start(&["--feed", "none", "--enable-echo"]);
    let mut echo = Client::connect(server.address, "/v1/echo", &[]);
    echo.send_text("hello");
    assert!(matches!(echo.receive(), Received::Text(back) if back == "hello"));
    server.program.signal(Signal::TERM);
    echo.expect_close(1001, &["stopping"]);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

#[test]
fn a_partial_request_does_not_delay_the_end() {
    let server = Server::start(&["--feed", "none"]);
    let mut idle = connect(server.address);
    idle.write_all(b"GET").expect("the server reads");
    server.client().ping();
    assert_eq!(server.stop(Signal::TERM).code, Some(0), "the exit code");
}
