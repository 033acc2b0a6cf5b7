//! The contract of `Io` on io_uring with loopback sockets, and properties that only io_uring has.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use tickcast::io::uring::Uring;
use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
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
fn one_batch_serves_thousands_of_connections() {
    contract::one_batch_serves_many_connections::<Loopback>(2000);
}

#[test]
fn operations_on_a_closed_connection_have_no_effect() {
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
    // The end of input comes after the sent bytes.
    let _ = old_peer.read_to_end(&mut rest);
    // A send to the former holder of the slot fails, and neither it nor the other operations reach the new holder.
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
fn receive_reports_further_input() {
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
            "`more` is set while there is more: {seen:?}"
        );
    }
}

#[test]
fn short_send_is_reported_at_once_with_a_full_completion_queue() {
    let mut harness = Harness::new(8);
    let (chatty, mut chatty_peer) = harness.open();
    let (full, _peer) = harness.open();
    let (other, _other_peer) = harness.open();
    harness.fill(full);
    // More completions than the queue holds, one a byte, and none of them reaped.
    for _ in 0..17_000 {
        chatty_peer.write_all(b"x").unwrap();
        harness.reap(0);
    }
    // The socket may have some room again, but not for so many bytes.
    let bytes = vec![7; 32 << 20];
    let short = harness.send(&bytes, &[send_all(full, &bytes)]);
    assert!(matches!(short.as_slice(), [ShortSend { index: 0, outcome: SendOutcome::Took(_) }]), "{short:?}");
    assert_eq!(
        harness.send(b"ab", &[send_all(other, b"ab")]),
        [],
        "no completion of that batch is attributed to this one"
    );
    harness.reap(64);
    assert!(harness.completions.list.contains(&Completion::Readable { slot_id: chatty }));
}

/// Waits for the ring until the deadline; returns whether connections were reported.
fn wait(io: &mut Uring) -> bool {
    let started = Instant::now();
    io.wait(Some(DEADLINE));
    assert!(started.elapsed() < DEADLINE, "nothing ended the wait");
    io.reap(64, &mut Completions::default());
    io.take_acceptable()
}

#[test]
fn each_write_to_the_eventfd_ends_a_wait() {
    let mut io = Uring::new(1).unwrap();
    let event = File::from(io.wake_fd().unwrap());
    let (awake, written) = mpsc::channel();
    let waker = std::thread::spawn(move || {
        for () in written {
            (&event).write_all(&1u64.to_ne_bytes()).unwrap();
        }
    });
    for _ in 0..100 {
        awake.send(()).unwrap();
        wait(&mut io);
    }
    drop(awake);
    waker.join().unwrap();
}

#[test]
fn each_connection_ends_a_wait_although_others_were_not_accepted() {
    let (mut io, listener) = (Uring::new(1).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    io.watch_listener(&listener).unwrap();
    for _ in 0..3 {
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(wait(&mut io));
        assert!(!io.take_acceptable(), "reported once");
    }
}

#[test]
fn an_armed_ring_signals_its_eventfd_and_is_armed_only_without_work() {
    let mut harness = Harness::new(1);
    let (slot_id, mut peer) = harness.open();
    harness.reap(64);
    assert!(harness.fixture.io.arm());
    let event = File::from(harness.fixture.io.completed_fd().unwrap());
    peer.write_all(b"x").unwrap();
    assert_eq!((&event).read(&mut [0; 8]).unwrap(), 8);
    assert!(!harness.fixture.io.arm(), "the completion was not reaped");
    let (seen, _) = harness.until(|completion| *completion == Completion::Readable { slot_id });
    assert_eq!(seen, [Completion::Readable { slot_id }]);
}
