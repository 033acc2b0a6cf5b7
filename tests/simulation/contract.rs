//! The contract of `Io` on the simulated one, without faults. `tests/engine/io_contract.rs` runs the same contract on
//! the kernel's.

use tickcast::io::sealed::{SEAL_BYTES_MAX, Sealed};
use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast::shard::Format;
use tickcast::tls::sealed_bytes_max;

use crate::io::SimIo;
use crate::plan::Faults;
use crate::planted_bug::Trigger;
use crate::secured::Peer;
use tickcast_test_support::io_contract::{self as contract, Fixture};

/// Bytes that a socket holds for a client that does not read.
const SOCKET_BYTES: usize = 1 << 16;

impl Fixture for SimIo {
    type Io = Self;
    /// Number of its connection.
    type Peer = usize;

    fn new(slots_max: u32) -> Self {
        let mut io = Self::new(Faults::default(), slots_max, Trigger::default(), 1);
        // Sends before the first reap of a tick count as those of a flush, and are checked as packets.
        io.reap(1, &mut Completions::default());
        io
    }

    fn io(&mut self) -> &mut Self {
        self
    }

    fn open(&mut self) -> Option<(SlotId, usize)> {
        self.open(SOCKET_BYTES, Format::Binary).map(|(conn, slot_id)| (slot_id, conn))
    }

    fn read(&mut self, peer: &mut usize, bytes: usize) -> Vec<u8> {
        let held = &mut self.conns[*peer].to_client;
        assert!(held.len() >= bytes, "{} of {bytes} bytes have come", held.len());
        held.drain(..bytes).collect()
    }

    fn write(&mut self, peer: &mut usize, bytes: &[u8]) {
        SimIo::write(self, *peer, bytes);
    }

    fn disconnect(&mut self, peer: usize) {
        self.reset(peer);
    }
}

#[test]
fn simulated_io_keeps_the_contract() {
    contract::a_short_send_reports_its_length_and_writable_is_reported_once::<SimIo>();
    contract::input_is_pulled_and_the_end_is_reported::<SimIo>();
    contract::a_close_frees_the_slot::<SimIo>();
    contract::a_send_to_a_closed_peer_fails_alone::<SimIo>();
    contract::one_batch_serves_many_connections::<SimIo>(300);
}

/// A layer of TLS above simulated sockets with one secured connection, and its client.
fn secured(socket_bytes: usize) -> (Sealed<SimIo>, SlotId, usize, Peer) {
    let mut io = Sealed::new(<SimIo as Fixture>::new(8));
    let (conn, slot_id) = io.io_mut().open(socket_bytes, Format::Binary).expect("a slot");
    io.io_mut().conns[conn].is_secured = true;
    let (peer, session) = Peer::connect(conn);
    io.secure(slot_id, session);
    (io, slot_id, conn, peer)
}

fn send(io: &mut Sealed<SimIo>, slot_id: SlotId, bytes: &[u8]) -> Vec<ShortSend> {
    let mut short = Vec::new();
    io.send_batch(bytes, &[contract::send_all(slot_id, bytes)], &mut short);
    short
}

fn reap(io: &mut Sealed<SimIo>) -> Vec<Completion> {
    let mut completions = Completions::default();
    io.reap(64, &mut completions);
    completions.list
}

#[test]
fn nothing_is_sealed_for_a_full_socket_and_room_is_reported_once_the_tail_is_gone() {
    for len in [500, 3 * SEAL_BYTES_MAX] {
        let (mut io, slot_id, conn, mut peer) = secured(300);
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let taken = len.min(SEAL_BYTES_MAX);
        let short = ShortSend { index: 0, outcome: SendOutcome::Took(taken as u32) };
        assert_eq!(send(&mut io, slot_id, &bytes), [short]);
        let (sealed, tail) = (io.counts(), io.tail_bytes(slot_id));
        assert!((1..=sealed_bytes_max(SEAL_BYTES_MAX)).contains(&tail), "{tail}");
        // A second send of a client that does not know of the first.
        let refused = ShortSend { index: 0, outcome: SendOutcome::Took(0) };
        assert_eq!(send(&mut io, slot_id, &bytes), [refused]);
        assert_eq!((io.counts(), io.tail_bytes(slot_id)), (sealed, tail));
        io.want_writable(slot_id);
        assert_eq!(reap(&mut io), []);
        let (mut read, mut seen) = (Vec::new(), Vec::new());
        while io.tail_bytes(slot_id) > 0 {
            assert!(!seen.contains(&Completion::Writable { slot_id }), "there is a tail");
            let socket: Vec<u8> = io.io_mut().conns[conn].to_client.drain(..).collect();
            read.extend(peer.open(&socket));
            seen.extend(reap(&mut io));
        }
        let rooms = seen.iter().filter(|one| **one == Completion::Writable { slot_id }).count();
        assert_eq!((rooms, seen.last()), (1, Some(&Completion::Writable { slot_id })));
        let socket: Vec<u8> = io.io_mut().conns[conn].to_client.drain(..).collect();
        read.extend(peer.open(&socket));
        assert!(read == bytes[..taken], "what was taken has arrived");
        assert_eq!(send(&mut io, slot_id, b"more"), []);
        io.close(slot_id);
        let socket: Vec<u8> = io.io_mut().conns[conn].to_client.drain(..).collect();
        assert_eq!((peer.open(&socket), peer.was_closed), (b"more".to_vec(), true));
    }
}

#[test]
fn plain_and_secured_connections_share_a_batch() {
    let (mut io, first, conn, mut peer) = secured(1 << 20);
    let others: Vec<_> = (0..3).map(|_| io.io_mut().open(64, Format::Binary).expect("a slot")).collect();
    let bytes = vec![7; 3 * SEAL_BYTES_MAX];
    let op = |slot_id, len| SendOp { slot_id, start: 0, len };
    // Two sends to one connection keep their order, although the first takes several parts.
    let sends =
        [op(others[0].1, 10), op(first, bytes.len() as u32), op(others[1].1, 100), op(first, 5), op(others[2].1, 64)];
    let mut short = Vec::new();
    io.send_batch(&bytes, &sends, &mut short);
    assert_eq!(short, [ShortSend { index: 2, outcome: SendOutcome::Took(64) }]);
    let socket: Vec<u8> = io.io_mut().conns[conn].to_client.drain(..).collect();
    assert_eq!(peer.open(&socket).len(), bytes.len() + 5);
    let held = others.iter().map(|(conn, _)| io.io().conns[*conn].to_client.len());
    assert_eq!(held.collect::<Vec<_>>(), [10, 64, 64]);
}
