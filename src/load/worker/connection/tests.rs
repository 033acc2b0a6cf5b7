//! The two readers of a load run against each other, on the same bytes cut in the same portions.

use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::*;
use tickcast_protocol::ws::push_frame;
use tickcast_test_support::packets::PacketBuilder;

/// What a reader found in a stream.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Binary(Vec<u8>),
    Text(String),
    Ping(Vec<u8>),
    Close(u16),
    /// A rule of the protocol is broken; each library has its own error for it.
    Broken,
}

/// A socket that yields these portions one after another.
struct Portions(std::vec::IntoIter<Vec<u8>>);

impl Read for Portions {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(portion) = self.0.next() else { return Err(io::ErrorKind::WouldBlock.into()) };
        out[..portion.len()].copy_from_slice(&portion);
        Ok(portion.len())
    }
}

impl Write for Portions {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn split(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut ends: Vec<_> = cuts.iter().map(|at| at % (stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut start = 0;
    let portions = ends.into_iter().map(|end| stream[std::mem::replace(&mut start, end)..end].to_vec());
    portions.filter(|portion| !portion.is_empty()).collect()
}

fn fast(portions: Vec<Vec<u8>>) -> Vec<Found> {
    let (mut session, mut found) = (Session::new(Role::Client), Vec::new());
    for mut portion in portions {
        let mut consumed = 0;
        loop {
            found.push(match next_event(&mut session, &mut portion, &mut consumed) {
                Ok(None) => break,
                Ok(Some(SessionEvent::Binary(bytes))) => Found::Binary(bytes.to_vec()),
                Ok(Some(SessionEvent::Text(text))) => Found::Text(String::from_utf8_lossy(text).into_owned()),
                Ok(Some(SessionEvent::Ping(payload))) => Found::Ping(payload.to_vec()),
                Ok(Some(SessionEvent::Pong(_))) => continue,
                Ok(Some(SessionEvent::Close(frame))) => {
                    found.push(Found::Close(frame.map_or(1005, |frame| frame.code.0)));
                    return found;
                }
                Err(_) => {
                    found.push(Found::Broken);
                    return found;
                }
            });
        }
    }
    found
}

fn independent(portions: Vec<Vec<u8>>) -> Vec<Found> {
    let mut socket = WebSocket::from_raw_socket(Portions(portions.into_iter()), TungsteniteRole::Client, None);
    let mut found = Vec::new();
    loop {
        found.push(match socket.read() {
            Ok(Message::Binary(bytes)) => Found::Binary(bytes.to_vec()),
            Ok(Message::Text(text)) => Found::Text(text.to_string()),
            Ok(Message::Ping(payload)) => Found::Ping(payload.to_vec()),
            Ok(Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(frame)) => {
                found.push(Found::Close(frame.map_or(1005, |frame| frame.code.into())));
                return found;
            }
            Err(tungstenite::Error::Io(_)) => return found,
            Err(_) => {
                found.push(Found::Broken);
                return found;
            }
        });
    }
}

/// Appends a frame or a message that a server may send.
fn push(what: u8, size: usize, out: &mut Vec<u8>) {
    let quotes = |count: u64| (1..=count).fold(PacketBuilder::new(), |packet, nth| packet.quote(nth, 0)).bytes();
    match what {
        0..4 => push_frame(Opcode::Binary, &quotes(size as u64 % 30), out),
        4 => push_frame(Opcode::Text, "zwölf µs ".repeat(size % 40).as_bytes(), out),
        5 => push_frame(Opcode::Ping, &vec![7; size % 126], out),
        6 => {
            // A message in three fragments, with a ping in between.
            let packet = quotes(9);
            let (first, rest) = packet.split_at(size % packet.len());
            push_fragment(2, first, out);
            push_fragment(0, &rest[..rest.len() / 2], out);
            push_frame(Opcode::Ping, b"still there?", out);
            push_frame(Opcode::Continuation, &rest[rest.len() / 2..], out);
        }
        7 => push_frame(Opcode::Binary, &vec![1; 70_000], out),
        8 => push_frame(Opcode::Pong, b"", out),
        _ => {
            out.extend_from_slice(&[0xC2, size as u8 % 126]);
            out.extend(vec![0; size % 126]);
        }
    }
}

fn push_fragment(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    push_frame(Opcode::Binary, payload, out);
    out[start] = opcode;
}

proptest! {
    #[test]
    fn both_readers_find_the_same_in_any_portions(
        plan in prop::collection::vec((0u8..9, any::<usize>()), 1..12),
        ending in 0u8..4,
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut stream = Vec::new();
        for (what, size) in plan {
            push(what, size, &mut stream);
        }
        match ending {
            0 => push_frame(Opcode::Close, &[&4002u16.to_be_bytes()[..], b"enough"].concat(), &mut stream),
            1 => push(9, 5, &mut stream),
            _ => {}
        }
        let portions = split(&stream, &cuts);
        // tungstenite reads at most its buffer at once.
        let portions: Vec<_> = portions.iter().flat_map(|portion| portion.chunks(4096).map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(fast(portions.clone()), independent(portions));
    }
}

#[test]
fn a_stream_reads_the_same_cut_at_any_byte() {
    let mut stream = Vec::new();
    for (what, size) in [(0, 3), (5, 4), (6, 100), (4, 3), (0, 0)] {
        push(what, size, &mut stream);
    }
    push_frame(Opcode::Close, &1001u16.to_be_bytes(), &mut stream);
    let whole = fast(vec![stream.clone()]);
    assert_eq!(whole.last(), Some(&Found::Close(1001)));
    for cut in 0..stream.len() {
        let portions = split(&stream, &[cut]);
        assert_eq!(fast(portions.clone()), whole, "cut at {cut}");
        assert_eq!(independent(portions), whole, "cut at {cut}");
    }
}

#[test]
fn a_length_not_in_its_shortest_form_is_refused() {
    let long_winded = |length: u8| [&[0x82, 126, 0, length][..], &vec![0; length.into()]].concat();
    assert_eq!(fast(vec![long_winded(125)]), [Found::Broken]);
    assert_eq!(fast(vec![long_winded(126)]), [Found::Binary(vec![0; 126])]);
}
