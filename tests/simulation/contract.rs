//! The contract of `Io` on the simulated one, without faults. `tests/engine/io_contract.rs` runs the same contract on
//! the kernel's.

use tickcast::io::{Completions, Io, SlotId};
use tickcast::shard::Format;

use crate::io::SimIo;
use crate::plan::Faults;
use crate::planted_bug::Trigger;
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
