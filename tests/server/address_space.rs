//! A server whose address space is limited, and clients that make it allocate until an allocation fails: it sheds what
//! they ask of it and serves the others, and takes new clients once there is room again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Subscriber;
use tickcast_test_support::paths;
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

/// The least that the documents name, in KiB.
const LIMIT_KIB: usize = 1 << 20;
/// Connections after which an attack must have met the limit.
const HOSTILE_MAX: usize = 2000;

/// The program in a shell that limits its address space.
fn limited(kib: usize, args: &[&str]) -> Command {
    let mut shell = Command::new("bash");
    shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell.env("TICKCAST_GET_UNITS_PER_ADDRESS_PER_S", "0").env("TICKCAST_ALLOW_HOST", "*");
    shell.args(["-c", &format!(r#"ulimit -v {kib} && exec "$@""#), "bash"]).arg(paths::program());
    shell.args(["--listen", "127.0.0.1:0", "--cores", "0"]).args(args);
    shell
}

/// The status of a request for an upgrade, and its connection.
fn upgrade(address: SocketAddr) -> (String, TcpStream) {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let head = "GET /v1/stream HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.write_all(head.as_bytes()).expect("the server reads");
    let mut line = [0; 12];
    socket.read_exact(&mut line).expect("an answer");
    (String::from_utf8_lossy(&line[9..]).into_owned(), socket)
}

/// A text frame that is masked by zeros, of so many bytes, with as much of its payload as there is.
fn frame(len: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | 127];
    bytes.extend((len as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A message that is never finished.
fn unfinished(_: usize) -> Vec<u8> {
    frame(1 << 20, &vec![b' '; 600_000])
}

/// A request for names that no other client has.
fn names(client: usize) -> Vec<u8> {
    let names: Vec<String> = (0..9000).map(|nth| format!("\"C{client:04}-{nth:04}\"")).collect();
    let text = format!(r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":[{}]}}"#, names.join(","));
    frame(text.len(), text.as_bytes())
}

/// The settings allow all that an attack asks for, so that nothing but the address space limits it.
fn attacked(message: impl Fn(usize) -> Vec<u8>) -> Server {
    let huge = "1099511627776";
    let server = Server::spawn(limited(
        LIMIT_KIB,
        &[
            &["--feed", SMALL_MARKET, "--input-bytes-max", huge, "--subscription-bytes-max", huge][..],
            &["--names-max", "100000000", "--request-bytes-max", "1048576", "--request-work-per-s", "0"],
            &["--shard-work-per-s", "0", "--connections-per-address-max", "5000", "--handshakes-per-s", "0"],
            &["--message-timeout-ms", "3600000"],
        ]
        .concat(),
    ));
    let mut innocent: Subscriber = server.subscriber(&["quote"], &["*"]);
    innocent.until_live();
    let mut hostile = Vec::new();
    while server.metric_values("tickcast_allocation_failures_total") == [0] {
        assert!(hostile.len() < HOSTILE_MAX, "the limit is not met");
        let (status, mut socket) = upgrade(server.address);
        if status == "101" {
            // A server that has closed the connection does not take it.
            let _ = socket.write_all(&message(hostile.len()));
            hostile.push(socket);
        }
        innocent.until_live();
    }
    assert!(hostile.len() > 10, "{} clients are no attack", hostile.len());
    server.program.wait_for_stderr("memory is short");
    innocent.until_live();
    innocent.ping();
    drop(hostile);
    let deadline = Instant::now() + DEADLINE;
    while upgrade(server.address).0 != "101" {
        assert!(Instant::now() < deadline, "new clients are refused although there is room");
        innocent.until_live();
    }
    innocent.until_live();
    server.program.wait_for_stderr("memory is no longer short; meanwhile");
    innocent.ping();
    server
}

#[test]
fn messages_that_are_never_finished_meet_the_limit_and_are_shed() {
    let server = attacked(unfinished);
    server.wait_for_metric("tickcast_input_shed_total", |count| count > 10);
    server.wait_for_metric("tickcast_input_bytes", |bytes| bytes == 0);
}

/// What is refused meanwhile is in `tests/engine/hostile_clients.rs`.
#[test]
fn subscriptions_meet_the_limit_and_end_nothing() {
    drop(attacked(names));
}

#[test]
fn a_limit_without_room_for_the_reserve_is_said_at_the_start() {
    let exit = Program::spawn(limited(100_000, &["--feed", "none"])).wait_for_exit();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(
        exit.stderr.contains("address space: the reserve of 64 MiB") && exit.stderr.contains("ulimit -v"),
        "{exit:?}"
    );
}
