//! What every `Io` keeps, whatever is under it: run on the kernel's and on the simulated one, so that what is shown on
//! the second holds on the first.

use std::time::{Duration, Instant};

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};

/// An upper bound of a wait, never a measure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An `Io` and the other ends of its connections.
pub trait Kernel: Sized {
    type Io: Io;
    /// The client's end of a connection.
    type Peer;

    fn new(slots_max: u32) -> Self;
    fn io(&mut self) -> &mut Self::Io;
    /// A new connection; `None` where all seats are taken.
    fn open(&mut self) -> Option<(SlotId, Self::Peer)>;
    /// Reads so many bytes at a client's end.
    fn read(&mut self, peer: &mut Self::Peer, bytes: usize) -> Vec<u8>;
    fn write(&mut self, peer: &mut Self::Peer, bytes: &[u8]);
    /// The client closes its end.
    fn leave(&mut self, peer: Self::Peer);
}

/// A kernel and what was reaped last.
pub struct Bench<K> {
    pub kernel: K,
    pub completions: Completions,
}

impl<K: Kernel> Bench<K> {
    pub fn new(slots_max: u32) -> Self {
        Self { kernel: K::new(slots_max), completions: Completions::default() }
    }

    pub fn slot_id(&mut self) -> (SlotId, K::Peer) {
        self.kernel.open().expect("a slot is free")
    }

    pub fn send(&mut self, bytes: &[u8], sends: &[SendOp]) -> Vec<ShortSend> {
        let mut short = Vec::new();
        self.kernel.io().send_batch(bytes, sends, &mut short);
        short
    }

    pub fn reap(&mut self, most: usize) {
        self.completions.clear();
        self.kernel.io().reap(most, &mut self.completions);
    }

    /// Reaps until the wanted completion has come; returns what came before it, and the input of the last one.
    pub fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> (Vec<Completion>, Vec<u8>) {
        let mut seen = Vec::new();
        let started = Instant::now();
        loop {
            self.reap(64);
            for completion in &self.completions.list {
                seen.push(*completion);
                if wanted(completion) {
                    let input = match *completion {
                        Completion::Received { start, len, .. } => {
                            self.completions.input[start as usize..][..len as usize].to_vec()
                        }
                        _ => Vec::new(),
                    };
                    return (seen, input);
                }
            }
            assert!(started.elapsed() < PATIENCE, "it never came; seen: {seen:?}");
            std::thread::yield_now();
        }
    }

    /// Sends until the socket takes no more; returns how many bytes it took.
    pub fn fill(&mut self, slot_id: SlotId) -> usize {
        let bytes = vec![7u8; 1 << 20];
        let mut taken = 0;
        loop {
            match self.send(&bytes, &[whole(slot_id, &bytes)]).as_slice() {
                [] => taken += bytes.len(),
                [ShortSend { index: 0, outcome: SendOutcome::Took(0) }] => return taken,
                [ShortSend { index: 0, outcome: SendOutcome::Took(part) }] => taken += *part as usize,
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn whole(slot_id: SlotId, bytes: &[u8]) -> SendOp {
    SendOp { slot_id, start: 0, len: bytes.len() as u32 }
}

pub fn a_send_takes_all_or_tells_how_much_and_room_is_told_once<K: Kernel>() {
    let mut bench = Bench::<K>::new(8);
    let (one, mut peer_one) = bench.slot_id();
    let (two, mut peer_two) = bench.slot_id();
    let bytes = b"hello world";
    let sends =
        [SendOp { slot_id: one, start: 0, len: 5 }, SendOp { slot_id: two, start: 6, len: 5 }, whole(one, bytes)];
    assert_eq!(bench.send(bytes, &sends), []);
    assert_eq!(bench.kernel.read(&mut peer_one, 16), b"hellohello world");
    assert_eq!(bench.kernel.read(&mut peer_two, 5), b"world");

    let taken = bench.fill(one);
    assert!(taken > 0);
    // A full socket does not keep the others of its batch waiting.
    let short = bench.send(bytes, &[whole(one, bytes), whole(two, bytes)]);
    assert_eq!(short, [ShortSend { index: 0, outcome: SendOutcome::Took(0) }]);
    assert_eq!(bench.kernel.read(&mut peer_two, 11), bytes);
    bench.kernel.io().want_writable(one);
    let all = bench.kernel.read(&mut peer_one, taken);
    assert!(all.iter().all(|byte| *byte == 7), "no byte of a refused send is in between");
    let (seen, _) = bench.until(|completion| *completion == Completion::Writable { slot_id: one });
    assert_eq!(seen, [Completion::Writable { slot_id: one }]);
    assert_eq!(bench.send(bytes, &[whole(one, bytes)]), []);
    assert_eq!(bench.kernel.read(&mut peer_one, 11), bytes);
    bench.reap(64);
    assert_eq!(bench.completions.list, [], "told once");
}

pub fn input_is_pulled_and_an_end_is_told<K: Kernel>() {
    let mut bench = Bench::<K>::new(8);
    let (slot_id, mut peer) = bench.slot_id();
    bench.kernel.io().receive(slot_id);
    bench.until(|completion| *completion == Completion::Nothing { slot_id });
    bench.kernel.write(&mut peer, &[3; 5000]);
    bench.until(|completion| *completion == Completion::Readable { slot_id });
    let mut all = Vec::new();
    while all.len() < 5000 {
        bench.kernel.io().receive(slot_id);
        let (_, input) = bench.until(|completion| {
            matches!(completion, Completion::Received { .. } | Completion::Nothing { .. } | Completion::Ended { .. })
        });
        all.extend(input);
    }
    assert_eq!(all, [3; 5000]);
    bench.kernel.leave(peer);
    bench.until(|completion| *completion == Completion::Readable { slot_id });
    bench.kernel.io().receive(slot_id);
    bench.until(|completion| *completion == Completion::Ended { slot_id });
}

pub fn a_close_frees_the_slot_for_another_holder<K: Kernel>() {
    let mut bench = Bench::<K>::new(1);
    let (old, mut old_peer) = bench.slot_id();
    assert!(bench.kernel.open().is_none(), "all slots are taken");
    bench.kernel.write(&mut old_peer, b"late");
    bench.fill(old);
    bench.kernel.io().want_writable(old);
    bench.kernel.io().receive(old);
    bench.kernel.io().close(old);
    let started = Instant::now();
    let (new, mut new_peer) = loop {
        bench.reap(64);
        assert_eq!(bench.completions.list, [], "nothing completes for a slot that is closed");
        if let Some(slot_id) = bench.kernel.open() {
            break slot_id;
        }
        assert!(started.elapsed() < PATIENCE, "the slot was never freed");
    };
    assert_eq!(new.index, old.index);
    assert_ne!(new.generation, old.generation);
    bench.kernel.write(&mut new_peer, b"x");
    let (seen, _) = bench.until(|completion| *completion == Completion::Readable { slot_id: new });
    assert_eq!(seen, [Completion::Readable { slot_id: new }]);
    assert_eq!(bench.send(b"for the new one", &[SendOp { slot_id: new, start: 0, len: 15 }]), []);
    assert_eq!(bench.kernel.read(&mut new_peer, 15), b"for the new one");
}

pub fn a_peer_that_is_gone_fails_the_send_alone<K: Kernel>() {
    let mut bench = Bench::<K>::new(8);
    let (gone, peer) = bench.slot_id();
    let (there, mut there_peer) = bench.slot_id();
    bench.kernel.leave(peer);
    let started = Instant::now();
    let mut sent = 0;
    // The first send is answered by a reset, and one that comes after that fails.
    loop {
        sent += 2;
        match bench.send(b"ab", &[whole(gone, b"ab"), whole(there, b"ab")]).as_slice() {
            [] => {}
            [ShortSend { index: 0, outcome: SendOutcome::Failed }] => break,
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "it never failed");
        std::thread::yield_now();
    }
    assert_eq!(bench.kernel.read(&mut there_peer, sent), b"ab".repeat(sent / 2));
}

pub fn many_seats_are_served_and_received_from_in_one_go<K: Kernel>(slot_ids: usize) {
    let mut bench = Bench::<K>::new(slot_ids as u32);
    let mut held: Vec<(SlotId, K::Peer)> = (0..slot_ids).map(|_| bench.slot_id()).collect();
    let bytes: Vec<u8> = (0..slot_ids as u32).flat_map(u32::to_le_bytes).collect();
    let sends: Vec<SendOp> =
        (0..slot_ids).map(|nth| SendOp { slot_id: held[nth].0, start: nth as u32 * 4, len: 4 }).collect();
    assert_eq!(bench.send(&bytes, &sends), []);
    for (nth, (_, peer)) in held.iter_mut().enumerate() {
        let read = bench.kernel.read(peer, 4);
        assert_eq!(read, (nth as u32).to_le_bytes());
        bench.kernel.write(peer, &read);
    }
    // Many more receives than there are input buffers.
    held.iter().for_each(|(slot_id, _)| bench.kernel.io().receive(*slot_id));
    let mut answers = vec![None; slot_ids];
    let started = Instant::now();
    while answers.iter().any(Option::is_none) {
        bench.reap(100);
        assert!(bench.completions.list.len() <= 100, "no more than was asked for");
        for completion in &bench.completions.list {
            match *completion {
                Completion::Received { slot_id, start, .. } => {
                    let input = bench.completions.input[start as usize..].first_chunk().expect("four bytes");
                    answers[slot_id.index as usize] = Some(u32::from_le_bytes(*input));
                }
                Completion::Readable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(started.elapsed() < PATIENCE, "some were never received");
    }
    for (nth, (slot_id, _)) in held.iter().enumerate() {
        assert_eq!(answers[slot_id.index as usize], Some(nth as u32));
    }
}
