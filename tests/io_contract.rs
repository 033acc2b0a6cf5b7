//! What every `Io` keeps, on the real one over loopback sockets. A seat is a socket here; its peer is a plain TcpStream.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tickcast::io::uring::Uring;
use tickcast::io::{Completion, Completions, Io, Outcome, Seat, Send, Short};

/// An upper bound of a wait, never a measure.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    io: Uring,
    listener: TcpListener,
    completions: Completions,
}

impl Bench {
    fn new(seats_max: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { io: Uring::new(seats_max).unwrap(), listener, completions: Completions::default() }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let peer = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        (peer, self.listener.accept().unwrap().0)
    }

    fn seat(&mut self) -> (Seat, TcpStream) {
        let (peer, socket) = self.connect();
        (self.io.adopt(&socket).unwrap().expect("a seat is free"), peer)
    }

    fn send(&mut self, bytes: &[u8], sends: &[Send]) -> Vec<Short> {
        let mut short = Vec::new();
        self.io.send_batch(bytes, sends, &mut short);
        short
    }

    /// Reaps until the wanted completion has come; returns what came before it, and the input of the last one.
    fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> (Vec<Completion>, Vec<u8>) {
        let mut seen = Vec::new();
        let started = Instant::now();
        loop {
            self.completions.clear();
            self.io.reap(64, &mut self.completions);
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
}

fn whole(seat: Seat, bytes: &[u8]) -> Send {
    Send { seat, start: 0, len: bytes.len() as u32 }
}

/// Sends until the socket takes no more; returns how many bytes it took.
fn fill(bench: &mut Bench, seat: Seat) -> usize {
    let bytes = vec![7u8; 1 << 20];
    let mut taken = 0;
    loop {
        match bench.send(&bytes, &[whole(seat, &bytes)]).as_slice() {
            [] => taken += bytes.len(),
            [Short { index: 0, outcome: Outcome::Took(0) }] => return taken,
            [Short { index: 0, outcome: Outcome::Took(part) }] => taken += *part as usize,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_send_takes_all_or_tells_how_much_and_room_is_told_once() {
    let mut bench = Bench::new(8);
    let (one, mut peer_one) = bench.seat();
    let (two, mut peer_two) = bench.seat();
    let bytes = b"hello world";
    let sends = [Send { seat: one, start: 0, len: 5 }, Send { seat: two, start: 6, len: 5 }, whole(one, bytes)];
    assert_eq!(bench.send(bytes, &sends), []);
    let mut read = [0; 16];
    peer_one.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hellohello world");
    peer_two.read_exact(&mut read[..5]).unwrap();
    assert_eq!(&read[..5], b"world");

    let taken = fill(&mut bench, one);
    assert!(taken > 0);
    // A full socket does not keep the others of its batch waiting.
    let short = bench.send(bytes, &[whole(one, bytes), whole(two, bytes)]);
    assert_eq!(short, [Short { index: 0, outcome: Outcome::Took(0) }]);
    peer_two.read_exact(&mut read[..11]).unwrap();
    bench.io.want_writable(one);
    let reading = std::thread::spawn(move || {
        let mut all = vec![0; taken];
        peer_one.read_exact(&mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 7), "no byte of a refused send is in between");
        peer_one
    });
    let (seen, _) = bench.until(|completion| *completion == Completion::Writable { seat: one });
    assert_eq!(seen, [Completion::Writable { seat: one }]);
    let mut peer_one = reading.join().unwrap();
    assert_eq!(bench.send(bytes, &[whole(one, bytes)]), []);
    peer_one.read_exact(&mut read[..11]).unwrap();
    assert_eq!(&read[..11], bytes);
}

#[test]
fn input_is_pulled_and_an_end_is_told() {
    let mut bench = Bench::new(8);
    let (seat, mut peer) = bench.seat();
    bench.io.receive(seat);
    bench.until(|completion| *completion == Completion::Nothing { seat });
    peer.write_all(&[3; 5000]).unwrap();
    bench.until(|completion| *completion == Completion::Readable { seat });
    let mut all = Vec::new();
    while all.len() < 5000 {
        bench.io.receive(seat);
        let (seen, input) = bench.until(|completion| {
            matches!(completion, Completion::Received { .. } | Completion::Nothing { .. } | Completion::Ended { .. })
        });
        if let Some(Completion::Received { more, .. }) = seen.last() {
            all.extend(input);
            assert!(*more || all.len() == 5000, "more is said where more is there");
        }
    }
    assert_eq!(all, [3; 5000]);
    drop(peer);
    bench.until(|completion| *completion == Completion::Readable { seat });
    bench.io.receive(seat);
    bench.until(|completion| *completion == Completion::Ended { seat });
}

#[test]
fn close_ends_the_connection_and_frees_the_slot_for_another_holder() {
    let mut bench = Bench::new(1);
    let (old, mut old_peer) = bench.seat();
    let (_, spare) = bench.connect();
    assert_eq!(bench.io.adopt(&spare).unwrap(), None, "all seats are taken");
    old_peer.write_all(b"late").unwrap();
    fill(&mut bench, old);
    bench.io.want_writable(old);
    bench.io.receive(old);
    bench.io.close(old);
    let started = Instant::now();
    let (new, mut new_peer) = loop {
        bench.completions.clear();
        bench.io.reap(64, &mut bench.completions);
        assert_eq!(bench.completions.list, [], "nothing completes for a seat that is closed");
        let (peer, socket) = bench.connect();
        if let Some(seat) = bench.io.adopt(&socket).unwrap() {
            break (seat, peer);
        }
        assert!(started.elapsed() < PATIENCE, "the slot was never freed");
    };
    assert_eq!(new.slot, old.slot);
    assert_ne!(new.generation, old.generation);
    let mut rest = Vec::new();
    // With input unread the end is a reset, otherwise it comes behind what was sent.
    let _ = old_peer.read_to_end(&mut rest);
    // A send to the former holder fails and does not reach the new one; nor do its other calls.
    let bytes = b"for the old one, for the new one";
    let sends = [Send { seat: old, start: 0, len: 15 }, Send { seat: new, start: 17, len: 15 }];
    assert_eq!(bench.send(bytes, &sends), [Short { index: 0, outcome: Outcome::Failed }]);
    bench.io.receive(old);
    bench.io.want_writable(old);
    bench.io.close(old);
    new_peer.write_all(b"x").unwrap();
    let (seen, _) = bench.until(|completion| *completion == Completion::Readable { seat: new });
    assert_eq!(seen, [Completion::Readable { seat: new }]);
    let mut read = [0; 15];
    new_peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"for the new one");
}

#[test]
fn a_peer_that_is_gone_fails_the_send_alone() {
    let mut bench = Bench::new(8);
    let (gone, peer) = bench.seat();
    let (there, mut there_peer) = bench.seat();
    drop(peer);
    let started = Instant::now();
    // The first send is answered by a reset, and one that comes after that fails.
    loop {
        match bench.send(b"ab", &[whole(gone, b"ab"), whole(there, b"ab")]).as_slice() {
            [] => {}
            [Short { index: 0, outcome: Outcome::Failed }] => break,
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "it never failed");
    }
    let mut read = [0; 2];
    there_peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"ab");
}

#[test]
fn thousands_of_seats_are_served_and_received_from_in_one_go() {
    const SEATS: usize = 2000;
    let mut bench = Bench::new(SEATS as u32);
    let mut seats: Vec<(Seat, TcpStream)> = (0..SEATS).map(|_| bench.seat()).collect();
    let bytes: Vec<u8> = (0..SEATS as u32).flat_map(u32::to_le_bytes).collect();
    let sends: Vec<Send> = (0..SEATS).map(|nth| Send { seat: seats[nth].0, start: nth as u32 * 4, len: 4 }).collect();
    assert_eq!(bench.send(&bytes, &sends), []);
    for (nth, (_, peer)) in seats.iter_mut().enumerate() {
        let mut read = [0; 4];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(u32::from_le_bytes(read), nth as u32);
        peer.write_all(&read).unwrap();
    }
    // Many more receives than there are input buffers.
    for (seat, _) in &seats {
        bench.io.receive(*seat);
    }
    let mut answers = vec![None; SEATS];
    let started = Instant::now();
    while answers.iter().any(Option::is_none) {
        bench.completions.clear();
        bench.io.reap(100, &mut bench.completions);
        for completion in &bench.completions.list {
            match *completion {
                Completion::Received { seat, start, .. } => {
                    let input = &bench.completions.input[start as usize..][..4];
                    answers[seat.slot as usize] = Some(u32::from_le_bytes(input.try_into().unwrap()));
                }
                Completion::Readable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(started.elapsed() < PATIENCE, "some were never received");
    }
    for (nth, (seat, _)) in seats.iter().enumerate() {
        assert_eq!(answers[seat.slot as usize], Some(nth as u32));
    }
}

#[test]
fn a_short_send_is_told_at_once_although_the_completion_queue_is_full() {
    let mut bench = Bench::new(8);
    let (chatty, mut chatty_peer) = bench.seat();
    let (full, _peer) = bench.seat();
    let (other, _other_peer) = bench.seat();
    fill(&mut bench, full);
    // More than the queue holds, each byte an edge of its own, and nobody takes them out.
    for _ in 0..17_000 {
        chatty_peer.write_all(b"x").unwrap();
        bench.io.reap(0, &mut bench.completions);
    }
    // What was in flight may have left some room meanwhile, but not for this much.
    let bytes = vec![7; 32 << 20];
    let short = bench.send(&bytes, &[whole(full, &bytes)]);
    assert!(matches!(short.as_slice(), [Short { index: 0, outcome: Outcome::Took(_) }]), "{short:?}");
    assert_eq!(bench.send(b"ab", &[whole(other, b"ab")]), [], "nothing of that batch is laid to this one");
    bench.completions.clear();
    bench.io.reap(64, &mut bench.completions);
    assert!(bench.completions.list.contains(&Completion::Readable { seat: chatty }));
}
