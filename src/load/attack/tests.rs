//! Attacks on scripted servers.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::AttackPriority;
use super::connections::AttackConnections;
use super::*;

const GRANTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Attacks `serve` with one connection of this kind until it returns. Returns its result, and what the attack did.
fn attack<T: Send + 'static>(
    kind: AttackKind,
    sources: &[IpAddr],
    serve: impl FnOnce(TcpListener) -> T + Send + 'static,
) -> (T, AttackCount) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let task = AttackTask {
        kind,
        address,
        url: format!("ws://{address}/v1/stream"),
        ca: None,
        authority: address.to_string(),
        path: "/v1/stream".to_owned(),
        symbol: "LOAD-00000".to_owned(),
        connections: 1,
        rate: 1000,
        priority: AttackPriority::Normal,
        sources: sources.to_vec(),
        token: None,
        server_pid: None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let server = std::thread::spawn(move || {
        let found = serve(listener);
        stopped.store(true, Ordering::Relaxed);
        found
    });
    let count = AttackConnections::new(&task).expect("a URL").attack(&stop);
    (server.join().expect("the server did not panic"), count)
}

/// Accepts a connection, and reads its request head.
fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, mut head) = (listener.accept().expect("it connects").0, Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).expect("ASCII"))
}

fn grant(listener: &TcpListener) -> TcpStream {
    let (mut stream, head) = accept(listener);
    assert!(head.contains("Upgrade: websocket"), "{head}");
    stream.write_all(GRANTED).expect("it reads");
    stream
}

/// The next bytes.
fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut received = vec![0; count];
    stream.read_exact(&mut received).expect("it sends");
    received
}

#[test]
fn slow_headers_come_a_byte_at_a_time() {
    let (slow, count) =
        attack(AttackKind::SlowHeaders, &[], |listener| read(&mut listener.accept().expect("it connects").0, 100));
    assert!(slow.starts_with(b"GET /v1/stream HTTP/1.1\r\n") && slow.ends_with(b"aaa"), "{slow:?}");
    assert!(count.opened == 1 && count.actions > 1, "{count:?}");
}

#[test]
fn frames_wait_for_the_upgrade() {
    let (pings, count) = attack(AttackKind::Pings, &[], |listener| read(&mut grant(&listener), 400));
    let text = String::from_utf8_lossy(&pings);
    assert!(text.matches("are you there?").count() > 15, "{text}");
    assert!(count.opened == 1 && count.actions > 0, "{count:?}");
    let (texts, _) = attack(AttackKind::Subscribes, &[], |listener| read(&mut grant(&listener), 600));
    let text = String::from_utf8_lossy(&texts);
    assert!(text.contains(r#"{"op":"subscribe""#) && text.contains(r#"{"op":"unsubscribe""#), "{text}");
}

#[test]
fn a_message_that_the_socket_does_not_take_at_once_is_not_torn() {
    // The header of 256 KiB, 150,000 bytes of it, and then a byte at a time.
    let (bytes, _) = attack(AttackKind::PartialMessages, &[], |listener| read(&mut grant(&listener), 150_020));
    assert_eq!(bytes[..14], [0x81, 0xff, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0]);
    assert!(bytes[14..].iter().all(|byte| *byte == b' '));
}

#[test]
fn an_error_is_a_refusal_and_an_end_is_an_end() {
    let (_, count) = attack(AttackKind::Pings, &[], |listener| {
        accept(&listener).0.write_all(b"HTTP/1.1 429 Too Many Requests\r\n\r\n").expect("it reads");
        drop(grant(&listener));
        // It has counted both once it comes again.
        accept(&listener)
    });
    assert_eq!((count.opened, count.refused, count.ended), (3, 1, 1), "{count:?}");
}

#[test]
fn subscribers_leave_once_they_are_answered_and_come_again() {
    let (_, count) = attack(AttackKind::Reconnects, &[], |listener| {
        for _ in 0..3 {
            let mut stream = grant(&listener);
            // The answer comes in two parts.
            stream.write_all(b"{\"type\":\"unsubscribed\",\"id\":9876").expect("it reads");
            stream.write_all(b"54321,\"count\":1}").expect("it reads");
            let mut rest = Vec::new();
            // A reset ends the stream as well.
            let _ = stream.read_to_end(&mut rest);
        }
        accept(&listener)
    });
    assert!(count.opened >= 4 && count.ended == 0, "{count:?}");
}

#[test]
fn answers_stay_unread_and_a_server_that_closes_is_noticed() {
    let ((heads, _), count) = attack(AttackKind::UnreadAnswers, &[], |listener| {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut stream, head) = accept(&listener);
            stream.write_all(&[b'x'; 1000]).expect("it is accepted");
            heads.push(head);
        }
        let (stream, head) = accept(&listener);
        heads.push(head);
        (heads, stream)
    });
    let lines: Vec<_> = heads.iter().map(|head| head.split(' ').nth(1).expect("a target").to_owned()).collect();
    assert_eq!((&*lines[0], &*lines[2]), ("/v1/snapshot?symbols=*", "/v1/snapshot?symbols=*"));
    assert!(lines[1].starts_with("/v1/sse?channels=quote,trade,ticker,book,raw&symbols=A0000,A0001,"), "{lines:?}");
    assert_eq!((count.ended, count.refused), (2, 0), "{count:?}");
}

#[test]
fn gets_are_one_a_connection_from_the_given_address() {
    let source = IpAddr::from([127, 0, 0, 78]);
    let ((peers, _), count) = attack(AttackKind::Gets, &[source], |listener| {
        let answer = || {
            let (mut stream, head) = accept(&listener);
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}").expect("it reads");
            (stream.peer_addr().expect("connected").ip(), head.split(' ').nth(1).expect("a target").to_owned())
        };
        ([answer(), answer(), answer()], accept(&listener))
    });
    assert!(peers.iter().all(|(peer, _)| *peer == source), "{peers:?}");
    assert_eq!(peers.map(|(_, target)| target), ["/v1/snapshot?symbols=*", "/readyz", "/metrics"]);
    assert_eq!((count.opened, count.actions, count.refused, count.ended), (4, 4, 0, 0), "{count:?}");
}
