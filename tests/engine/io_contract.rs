//! The contract of `Io` on the real one over loopback sockets, and what only the real one has: a slot is a socket here,
//! its peer is a plain TcpStream.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use tickcast::io::uring::Uring;
use tickcast::io::{Completion, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast_test_support::io_contract::{self as contract, DEADLINE, Fixture, send_all};

struct Loopback {
    io: Uring,
    listener: TcpListener,
}

type Harness = contract::Harness<Loopback>;

impl Loopback {
    fn connect(&self) -> (TcpStream, TcpStream) {
        let peer = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        (peer, self.listener.accept().unwrap().0)
    }
}

impl Fixture for Loopback {
    type Io = Uring;
    type Peer = TcpStream;

    fn new(slots_max: u32) -> Self {
        Self { io: Uring::new(slots_max).unwrap(), listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn io(&mut self) -> &mut Uring {
        &mut self.io
    }

    fn open(&mut self) -> Option<(SlotId, TcpStream)> {
        let (peer, socket) = self.connect();
        Some((self.io.adopt(&socket).unwrap()?, peer))
    }

    fn read(&mut self, peer: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        peer.read_exact(&mut read).unwrap();
        read
    }

    fn write(&mut self, peer: &mut TcpStream, bytes: &[u8]) {
        peer.write_all(bytes).unwrap();
    }

    fn disconnect(&mut self, peer: TcpStream) {
        drop(peer);
    }
}

#[test]
fn a_short_send_reports_its_length_and_writable_is_reported_once() {
    contract::a_short_send_reports_its_length_and_writable_is_reported_once::<Loopback>();
}

#[test]
fn input_is_pulled_and_the_end_is_reported() {
    contract::input_is_pulled_and_the_end_is_reported::<Loopback>();
}

#[test]
fn a_close_frees_the_slot() {
    contract::a_close_frees_the_slot::<Loopback>();
}

#[test]
fn a_send_to_a_closed_peer_fails_alone() {
    contract::a_send_to_a_closed_peer_fails_alone::<Loopback>();
}

#[test]
fn thousands_of_slots_are_served_and_received_from_in_one_go() {
    contract::one_batch_serves_many_connections::<Loopback>(2000);
}

#[test]
fn what_is_still_asked_of_a_former_holder_reaches_nobody() {
    let mut harness = Harness::new(1);
    let (old, mut old_peer) = harness.open();
    harness.fill(old);
    harness.fixture.io.close(old);
    let started = Instant::now();
    let (new, mut new_peer) = loop {
        harness.reap(64);
        if let Some(slot_id) = harness.fixture.open() {
            break slot_id;
        }
        assert!(started.elapsed() < DEADLINE, "the slot was never freed");
    };
    let mut rest = Vec::new();
    // The end comes behind what was sent.
    let _ = old_peer.read_to_end(&mut rest);
    // A send to the former holder fails and does not reach the new one; nor do its other calls.
    let bytes = b"for the old one, for the new one";
    let sends = [SendOp { slot_id: old, start: 0, len: 15 }, SendOp { slot_id: new, start: 17, len: 15 }];
    assert_eq!(harness.send(bytes, &sends), [ShortSend { index: 0, outcome: SendOutcome::Failed }]);
    harness.fixture.io.receive(old);
    harness.fixture.io.want_writable(old);
    harness.fixture.io.close(old);
    new_peer.write_all(b"x").unwrap();
    let (seen, _) = harness.until(|completion| *completion == Completion::Readable { slot_id: new });
    assert_eq!(seen, [Completion::Readable { slot_id: new }]);
    assert_eq!(harness.fixture.read(&mut new_peer, 15), b"for the new one");
}

#[test]
fn a_receive_says_where_more_is_there() {
    let mut harness = Harness::new(8);
    let (slot_id, mut peer) = harness.open();
    peer.write_all(&[3; 5000]).unwrap();
    harness.until(|completion| *completion == Completion::Readable { slot_id });
    let mut received = 0;
    while received < 5000 {
        harness.fixture.io.receive(slot_id);
        let (seen, input) = harness.until(|completion| matches!(completion, Completion::Received { .. }));
        received += input.len();
        assert!(
            matches!(seen.last(), Some(Completion::Received { more, .. }) if *more || received == 5000),
            "more is said where more is there: {seen:?}"
        );
    }
}

#[test]
fn a_short_send_is_told_at_once_although_the_completion_queue_is_full() {
    let mut harness = Harness::new(8);
    let (chatty, mut chatty_peer) = harness.open();
    let (full, _peer) = harness.open();
    let (other, _other_peer) = harness.open();
    harness.fill(full);
    // More than the queue holds, each byte an edge of its own, and nobody takes them out.
    for _ in 0..17_000 {
        chatty_peer.write_all(b"x").unwrap();
        harness.reap(0);
    }
    // What was in flight may have left some room meanwhile, but not for this much.
    let bytes = vec![7; 32 << 20];
    let short = harness.send(&bytes, &[send_all(full, &bytes)]);
    assert!(matches!(short.as_slice(), [ShortSend { index: 0, outcome: SendOutcome::Took(_) }]), "{short:?}");
    assert_eq!(harness.send(b"ab", &[send_all(other, b"ab")]), [], "nothing of that batch is laid to this one");
    harness.reap(64);
    assert!(harness.completions.list.contains(&Completion::Readable { slot_id: chatty }));
}
