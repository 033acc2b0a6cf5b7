//! The contract of `Io`, as tests that run on every implementation: on io_uring, and on the simulated sockets. A result of
//! the simulation holds on real sockets as far as both keep this contract.

use std::time::{Duration, Instant};

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};

/// An upper bound for every wait.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An `Io` under test, and the clients' ends of its connections.
pub trait Fixture: Sized {
    type Io: Io;
    /// The client's end of a connection.
    type Peer;

    fn new(slots_max: u32) -> Self;
    fn io(&mut self) -> &mut Self::Io;
    /// A new connection; `None` if all slots are taken.
    fn open(&mut self) -> Option<(SlotId, Self::Peer)>;
    /// Reads this many bytes at the client's end.
    fn read(&mut self, peer: &mut Self::Peer, bytes: usize) -> Vec<u8>;
    fn write(&mut self, peer: &mut Self::Peer, bytes: &[u8]);
    /// The client closes its end.
    fn disconnect(&mut self, peer: Self::Peer);
}

/// A fixture, and the completions that were reaped last.
pub struct Harness<F> {
    pub fixture: F,
    pub completions: Completions,
}

impl<F: Fixture> Harness<F> {
    pub fn new(slots_max: u32) -> Self {
        Self { fixture: F::new(slots_max), completions: Completions::default() }
    }

    pub fn open(&mut self) -> (SlotId, F::Peer) {
        self.fixture.open().expect("a slot is free")
    }

    pub fn send(&mut self, bytes: &[u8], sends: &[SendOp]) -> Vec<ShortSend> {
        let mut short = Vec::new();
        self.fixture.io().send_batch(bytes, sends, &mut short);
        short
    }

    pub fn reap(&mut self, most: usize) {
        self.completions.clear();
        self.fixture.io().reap(most, &mut self.completions);
    }

    /// Reaps until the expected completion; returns all completions up to it, and its input.
    pub fn until(&mut self, is_expected: impl Fn(&Completion) -> bool) -> (Vec<Completion>, Vec<u8>) {
        let mut seen = Vec::new();
        let started = Instant::now();
        loop {
            self.reap(64);
            for completion in &self.completions.list {
                seen.push(*completion);
                if is_expected(completion) {
                    let input = match *completion {
                        Completion::Received { start, len, .. } => {
                            self.completions.input[start as usize..][..len as usize].to_vec()
                        }
                        _ => Vec::new(),
                    };
                    return (seen, input);
                }
            }
            assert!(started.elapsed() < DEADLINE, "the completion was not reported; reported: {seen:?}");
            std::thread::yield_now();
        }
    }

    /// Sends until the socket takes no more; returns how many bytes it took.
    pub fn fill(&mut self, slot_id: SlotId) -> usize {
        let bytes = vec![7u8; 1 << 20];
        let mut taken = 0;
        loop {
            match self.send(&bytes, &[send_all(slot_id, &bytes)]).as_slice() {
                [] => taken += bytes.len(),
                [ShortSend { index: 0, outcome: SendOutcome::Took(0) }] => return taken,
                [ShortSend { index: 0, outcome: SendOutcome::Took(part) }] => taken += *part as usize,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A send of all of `bytes`.
pub fn send_all(slot_id: SlotId, bytes: &[u8]) -> SendOp {
    SendOp { slot_id, start: 0, len: bytes.len() as u32 }
}

pub fn a_short_send_reports_its_length_and_writable_is_reported_once<F: Fixture>() {
    let mut harness = Harness::<F>::new(8);
    let (one, mut peer_one) = harness.open();
    let (two, mut peer_two) = harness.open();
    let bytes = b"hello world";
    let sends =
        [SendOp { slot_id: one, start: 0, len: 5 }, SendOp { slot_id: two, start: 6, len: 5 }, send_all(one, bytes)];
    assert_eq!(harness.send(bytes, &sends), []);
    assert_eq!(harness.fixture.read(&mut peer_one, 16), b"hellohello world");
    assert_eq!(harness.fixture.read(&mut peer_two, 5), b"world");

    let taken = harness.fill(one);
    assert!(taken > 0);
    // A full socket does not delay the other sends of its batch.
    let short = harness.send(bytes, &[send_all(one, bytes), send_all(two, bytes)]);
    assert_eq!(short, [ShortSend { index: 0, outcome: SendOutcome::Took(0) }]);
    assert_eq!(harness.fixture.read(&mut peer_two, 11), bytes);
    harness.fixture.io().want_writable(one);
    let all = harness.fixture.read(&mut peer_one, taken);
    assert!(all.iter().all(|byte| *byte == 7), "no byte of the refused send was written");
    let (seen, _) = harness.until(|completion| *completion == Completion::Writable { slot_id: one });
    assert_eq!(seen, [Completion::Writable { slot_id: one }]);
    assert_eq!(harness.send(bytes, &[send_all(one, bytes)]), []);
    assert_eq!(harness.fixture.read(&mut peer_one, 11), bytes);
    harness.reap(64);
    assert_eq!(harness.completions.list, [], "writable is reported once");
}

pub fn input_is_pulled_and_the_end_is_reported<F: Fixture>() {
    let mut harness = Harness::<F>::new(8);
    let (slot_id, mut peer) = harness.open();
    harness.fixture.io().receive(slot_id);
    harness.until(|completion| *completion == Completion::Nothing { slot_id });
    harness.fixture.write(&mut peer, &[3; 5000]);
    harness.until(|completion| *completion == Completion::Readable { slot_id });
    let mut all = Vec::new();
    while all.len() < 5000 {
        harness.fixture.io().receive(slot_id);
        let (_, input) = harness.until(|completion| {
            matches!(completion, Completion::Received { .. } | Completion::Nothing { .. } | Completion::Ended { .. })
        });
        all.extend(input);
    }
    assert_eq!(all, [3; 5000]);
    harness.fixture.disconnect(peer);
    harness.until(|completion| *completion == Completion::Readable { slot_id });
    harness.fixture.io().receive(slot_id);
    harness.until(|completion| *completion == Completion::Ended { slot_id });
}

pub fn a_close_frees_the_slot<F: Fixture>() {
    let mut harness = Harness::<F>::new(1);
    let (old, mut old_peer) = harness.open();
    assert!(harness.fixture.open().is_none(), "the only slot is taken");
    harness.fixture.write(&mut old_peer, b"late");
    harness.fill(old);
    harness.fixture.io().want_writable(old);
    harness.fixture.io().receive(old);
    harness.fixture.io().close(old);
    let started = Instant::now();
    let (new, mut new_peer) = loop {
        harness.reap(64);
        assert_eq!(harness.completions.list, [], "no completion for a closed slot");
        if let Some(slot_id) = harness.fixture.open() {
            break slot_id;
        }
        assert!(started.elapsed() < DEADLINE, "the slot was not freed");
    };
    assert_eq!(new.index, old.index);
    assert_ne!(new.generation, old.generation);
    harness.fixture.write(&mut new_peer, b"x");
    let (seen, _) = harness.until(|completion| *completion == Completion::Readable { slot_id: new });
    assert_eq!(seen, [Completion::Readable { slot_id: new }]);
    assert_eq!(harness.send(b"for the new client", &[SendOp { slot_id: new, start: 0, len: 18 }]), []);
    assert_eq!(harness.fixture.read(&mut new_peer, 18), b"for the new client");
}

pub fn a_send_to_a_closed_peer_fails_alone<F: Fixture>() {
    let mut harness = Harness::<F>::new(8);
    let (closed, peer) = harness.open();
    let (open, mut open_peer) = harness.open();
    harness.fixture.disconnect(peer);
    let started = Instant::now();
    let mut sent = 0;
    // The peer responds to the first send with a reset; a send after the reset fails.
    loop {
        sent += 2;
        match harness.send(b"ab", &[send_all(closed, b"ab"), send_all(open, b"ab")]).as_slice() {
            [] => {}
            [ShortSend { index: 0, outcome: SendOutcome::Failed }] => break,
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < DEADLINE, "the send did not fail");
        std::thread::yield_now();
    }
    assert_eq!(harness.fixture.read(&mut open_peer, sent), b"ab".repeat(sent / 2));
}

pub fn one_batch_serves_many_connections<F: Fixture>(connections: usize) {
    let mut harness = Harness::<F>::new(connections as u32);
    let mut open: Vec<(SlotId, F::Peer)> = (0..connections).map(|_| harness.open()).collect();
    let bytes: Vec<u8> = (0..connections as u32).flat_map(u32::to_le_bytes).collect();
    let sends: Vec<SendOp> =
        (0..connections).map(|nth| SendOp { slot_id: open[nth].0, start: nth as u32 * 4, len: 4 }).collect();
    assert_eq!(harness.send(&bytes, &sends), []);
    for (nth, (_, peer)) in open.iter_mut().enumerate() {
        let read = harness.fixture.read(peer, 4);
        assert_eq!(read, (nth as u32).to_le_bytes());
        harness.fixture.write(peer, &read);
    }
    // Many more receives than there are input buffers.
    open.iter().for_each(|(slot_id, _)| harness.fixture.io().receive(*slot_id));
    let mut echoes = vec![None; connections];
    let started = Instant::now();
    while echoes.iter().any(Option::is_none) {
        harness.reap(100);
        assert!(harness.completions.list.len() <= 100, "no more completions than requested");
        for completion in &harness.completions.list {
            match *completion {
                Completion::Received { slot_id, start, .. } => {
                    let input = harness.completions.input[start as usize..].first_chunk().expect("four bytes");
                    echoes[slot_id.index as usize] = Some(u32::from_le_bytes(*input));
                }
                Completion::Readable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(started.elapsed() < DEADLINE, "some input was not received");
    }
    for (nth, (slot_id, _)) in open.iter().enumerate() {
        assert_eq!(echoes[slot_id.index as usize], Some(nth as u32));
    }
}
