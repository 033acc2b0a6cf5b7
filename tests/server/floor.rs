//! `tickcast floor`, the yardstick of the server: it does the same deliveries.

use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_client::{Stream, Target, TlsConfig};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::server::{Exit, Program};
use tickcast_test_support::tls::Authority;
use tungstenite::{Message, WebSocket};

type Client = WebSocket<Stream>;

/// The ways to send that are always built, and over TLS.
const KINDS: [(&str, bool); 4] = [("io-uring", false), ("send", false), ("io-uring", true), ("send", true)];
/// Together more than the sockets of a client that does not read take.
const FLOOD_MESSAGES: u64 = 40;
const FLOOD_BYTES: usize = 150_000;

struct Floor {
    program: Program,
    address: SocketAddr,
    /// Of its certificate, if it has one.
    authority: Option<Authority>,
}

impl Floor {
    fn start((sends, is_secured): (&str, bool), args: &[&str]) -> Self {
        let mut command = Program::command(&[&["floor", "--listen", "127.0.0.1:0", "--sends", sends], args].concat());
        let authority = is_secured.then(Authority::new);
        if let Some(authority) = &authority {
            command.arg("--tls-cert").arg(authority.path("cert.pem"));
            command.arg("--tls-key").arg(authority.path("key.pem"));
        }
        let program = Program::spawn(command);
        let address = program.wait_for_address("listening on ");
        Self { program, address, authority }
    }

    fn client(&self, path: &str) -> Client {
        self.upgrade(TcpStream::connect(self.address).expect("it listens"), path)
    }

    fn upgrade(&self, socket: TcpStream, path: &str) -> Client {
        socket.set_read_timeout(Some(DEADLINE)).expect("a positive timeout");
        let url = format!("ws://{}{path}", self.address);
        tungstenite::client(url, self.secured(socket)).expect("every client is upgraded").0
    }

    fn secured(&self, socket: TcpStream) -> Stream {
        let Some(authority) = &self.authority else { return socket.into() };
        let target = Target::parse(&format!("wss://localhost:{}", self.address.port())).expect("a URL");
        let tls = TlsConfig::new(&target, Some(&authority.path("ca.pem"))).expect("an authority");
        let mut stream = Stream::open(&target, socket, &tls).expect("it reads");
        stream.complete_handshake(&target, &tls).expect("its certificate is trusted");
        stream
    }

    /// Ends the floor, and returns its counters.
    fn stop(self) -> Value {
        self.program.signal(Signal::TERM);
        tally(&self.program.wait_for_exit())
    }
}

fn tally(exit: &Exit) -> Value {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    serde_json::from_str(exit.stdout.lines().last().expect("it prints its counters")).expect("the last line is JSON")
}

/// A message with a number and an instrument.
fn payload(number: u64, instrument: u32, bytes: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; bytes];
    payload[16..24].copy_from_slice(&number.to_le_bytes());
    payload[28..32].copy_from_slice(&instrument.to_le_bytes());
    payload
}

/// The number of the next message; asserts that every byte is as sent.
fn next_number(client: &mut Client) -> u64 {
    let message = client.read().expect("a message").into_data();
    let number = u64::from_le_bytes(message[16..24].try_into().expect("eight bytes"));
    let instrument = u32::from_le_bytes(message[28..32].try_into().expect("four bytes"));
    assert!(message == payload(number, instrument, message.len()), "message {number} is torn");
    number
}

#[test]
fn every_subscriber_receives_all_messages_in_order() {
    for kind in KINDS {
        let floor = Floor::start(kind, &[]);
        let mut clients: Vec<_> = (0..20).map(|_| floor.client("/v1/stream")).collect();
        let mut publisher = floor.client("/v1/publish?token=any");
        let lengths = [60, 125, 126, 5_000, 70_000];
        for (number, bytes) in lengths.iter().enumerate() {
            publisher.send(Message::text("{}")).expect("text is ignored");
            publisher.send(Message::binary(payload(number as u64, 1, *bytes))).expect("it reads");
        }
        for client in &mut clients {
            assert!((0..5).all(|number| next_number(client) == number), "{kind:?}");
        }
        let tally = floor.stop();
        assert_eq!((&tally["sent"], &tally["dropped"], &tally["subscribers"]), (&100.into(), &0.into(), &20.into()));
        assert!(tally["flushes"].as_u64().is_some_and(|flushes| (1..=5).contains(&flushes)), "{tally}");
    }
}

#[test]
fn with_each_a_message_goes_to_the_subscriber_of_its_instrument() {
    for kind in KINDS {
        let floor = Floor::start(kind, &["--each"]);
        let mut clients: Vec<_> = (0..3).map(|_| floor.client("/v1/stream")).collect();
        let mut publisher = floor.client("/v1/publish");
        // The last message is for a subscriber that has not connected.
        for (number, instrument) in [1, 3, 1, 2, 3, 1, 4].into_iter().enumerate() {
            publisher.write(Message::binary(payload(number as u64, instrument, 64))).expect("it reads");
        }
        publisher.flush().expect("it reads");
        for (client, expected) in clients.iter_mut().zip([&[0, 2, 5][..], &[3], &[1, 4]]) {
            assert!(expected.iter().all(|number| next_number(client) == *number), "{kind:?}");
        }
        let tally = floor.stop();
        assert_eq!((&tally["sent"], &tally["dropped"]), (&6.into(), &1.into()), "{kind:?}");
    }
}

/// A client whose sockets take little.
fn slow_client(floor: &Floor) -> Client {
    let stream = TcpStream::connect(floor.address).expect("it listens");
    socket2::SockRef::from(&stream).set_recv_buffer_size(20_000).expect("a TCP socket");
    floor.upgrade(stream, "/v1/stream")
}

#[test]
fn a_client_that_did_not_read_gets_every_message_later() {
    for (kind, each) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let args = ["--send-buffer-bytes", "20000", "--each"];
        let floor = Floor::start(kind, &args[..2 + usize::from(each)]);
        let mut quick = floor.client("/v1/stream");
        let mut slow = slow_client(&floor);
        let mut publisher = floor.client("/v1/publish");
        for number in 0..FLOOD_MESSAGES {
            for instrument in 1..=1 + u32::from(each) {
                publisher.send(Message::binary(payload(number, instrument, FLOOD_BYTES))).expect("it reads");
            }
            assert_eq!(next_number(&mut quick), number, "{kind:?}: the slow client does not delay the other");
        }
        assert!((0..FLOOD_MESSAGES).all(|number| next_number(&mut slow) == number), "{kind:?}, each: {each}");
        // Both are in the same flushes again.
        publisher.send(Message::binary(payload(99, 1 + u32::from(each), 64))).expect("it reads");
        assert_eq!(next_number(&mut slow), 99);
        let tally = floor.stop();
        let sent = 2 * FLOOD_MESSAGES + 2 - u64::from(each);
        assert_eq!((&tally["sent"], &tally["dropped"]), (&sent.into(), &0.into()), "{kind:?}, each: {each}");
    }
}

#[test]
fn a_full_backlog_drops_whole_frames_and_counts_them() {
    for kind in KINDS {
        let limits = ["--send-buffer-bytes", "20000", "--backlog-bytes-max", "1000000"];
        let floor = Floor::start(kind, &limits);
        let mut quick = floor.client("/v1/stream");
        let mut slow = slow_client(&floor);
        let mut publisher = floor.client("/v1/publish");
        for number in 0..FLOOD_MESSAGES {
            publisher.send(Message::binary(payload(number, 1, FLOOD_BYTES))).expect("it reads");
            assert_eq!(next_number(&mut quick), number, "{kind:?}: the slow client does not delay the other");
        }
        slow.get_ref().socket().set_nonblocking(true).expect("a TCP socket");
        let (mut last, mut received) = (None, 0);
        // Messages reach the slow client again as soon as it has read the pending bytes.
        for number in FLOOD_MESSAGES.. {
            publisher.send(Message::binary(payload(number, 1, 64))).expect("it reads");
            assert_eq!(next_number(&mut quick), number);
            while slow.get_ref().socket().peek(&mut [0]).is_ok() {
                slow.get_ref().socket().set_nonblocking(false).expect("a TCP socket");
                let newest = next_number(&mut slow);
                slow.get_ref().socket().set_nonblocking(true).expect("a TCP socket");
                assert!(last < Some(newest), "{newest} after {last:?}");
                (last, received) = (Some(newest), received + 1);
            }
            if last >= Some(FLOOD_MESSAGES) {
                break;
            }
        }
        let published = last.expect("a message").max(FLOOD_MESSAGES);
        let tally = floor.stop();
        let count = |field: &str| tally[field].as_u64().expect("a count");
        assert!(count("dropped") > 20, "{kind:?}: {tally}");
        assert_eq!(count("sent") + count("dropped"), 2 * count("flushes"), "{kind:?}: one message a flush");
        assert!(count("flushes") > published && received < count("flushes"), "{kind:?}: {tally}");
    }
}

#[test]
fn a_closed_connection_is_removed() {
    for kind in KINDS {
        let floor = Floor::start(kind, &[]);
        let mut stays = floor.client("/v1/stream");
        drop(floor.client("/v1/stream"));
        let mut publisher = floor.client("/v1/publish");
        // The peer responds to the first send after its close with a reset; a later send fails.
        for number in 0.. {
            publisher.send(Message::binary(payload(number, 1, 64))).expect("it reads");
            assert_eq!(next_number(&mut stays), number);
            if number == 20 {
                break;
            }
        }
        let tally = floor.stop();
        assert_eq!(tally["subscribers"], 1, "{kind:?}: {tally}");
    }
}

#[test]
fn the_floor_ends_with_the_process_that_started_it() {
    for kind in &KINDS[..2] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = Program::command(&["floor", "--listen", "127.0.0.1:0", "--sends", kind.0]);
        command.stdin(Stdio::from(reader));
        let program = Program::spawn(command);
        program.wait_for_address("listening on ");
        drop(writer);
        assert_eq!(tally(&program.wait_for_exit())["sent"], 0);
    }
}
