//! The process is stopped for longer than any timeout, and continued: no deadline counts it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use tickcast_test_support::http::{connect, read_response};
use tickcast_test_support::server::{SMALL_MARKET, Server};

/// Stops the server for as long as a request of this test stays without an answer.
fn pause(server: &Server, time: Duration) {
    server.program.signal(Signal::STOP);
    let pid = Pid::from_raw(server.program.id() as i32);
    waitpid(pid, WaitOptions::UNTRACED).expect("a child of this process").expect("it is stopped");
    let mut request: TcpStream = connect(server.address);
    request.write_all(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n").expect("the kernel takes it");
    request.set_read_timeout(Some(time)).expect("not 0");
    let answer = request.read(&mut [0; 64]).expect_err("the server is stopped");
    assert_eq!(answer.kind(), std::io::ErrorKind::WouldBlock);
    server.program.signal(Signal::CONT);
}

#[test]
fn a_pause_closes_no_client_that_answers_and_ends_no_request() {
    let timeouts = [
        ["--ping-interval-ms", "1000", "--ping-timeout-ms", "1500", "--idle-timeout-ms", "4000"],
        ["--upgrade-timeout-ms", "5000", "--stale-ms", "5000", "--subscribe-timeout-ms", "5000"],
    ];
    let server = Server::start(&[&["--feed", SMALL_MARKET], &timeouts.concat()[..]].concat());
    server.subscriber(&["quote"], &["*"]).until_live();
    let answering: Vec<_> = (0..10)
        .map(|_| {
            let mut client = server.client();
            client.send_text(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["NONE"]}"#);
            thread::spawn(move || client.end_code())
        })
        .collect();
    let mut request = connect(server.address);
    request.write_all(b"GET /healthz HTTP/1.1\r\n").expect("the server reads");
    server.wait_for_metric("tickcast_clients", |clients| clients == 10);
    pause(&server, Duration::from_secs(7));
    request.write_all(b"Host: here\r\n\r\n").expect("the server reads");
    assert_eq!(read_response(&mut request).status, 200, "the request was not ended");
    assert_eq!(server.get("/readyz").status, 200);
    // A client that does not answer is closed after its time, and so the time of all others has come as well.
    let silent = server.client();
    server.wait_for_metric("tickcast_ping_timeouts_total", |count| count == 1);
    drop(silent);
    let metric = |family: &str| server.metric_values(family).iter().sum::<u64>();
    assert_eq!(metric("tickcast_idle_closed_total"), 0);
    assert_eq!((metric("tickcast_source_silences_total"), metric("tickcast_clock_steps_total")), (0, 0));
    assert!(metric("tickcast_clock_pauses_total") >= 1 && metric("tickcast_clock_paused_ms_total") >= 5000);
    server.subscriber(&["quote"], &["*"]).until_live();
    server.program.signal(Signal::TERM);
    for client in answering {
        assert_eq!(client.join().expect("it reads to the end"), Some(1001), "a client that answers is not closed");
    }
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}
