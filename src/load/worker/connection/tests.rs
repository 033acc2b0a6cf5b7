//! The two readers of a load run against each other, on the same bytes in every cut.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::Role as TheirSide;

use super::*;
use tickcast_protocol::ws::push_frame;
use tickcast_test_support::packets::PacketBuilder;

/// What came out of a stream, in the words of both readers.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Binary(Vec<u8>),
    Text(String),
    Ping(Vec<u8>),
    Close(u16),
    /// A rule of the protocol is broken; each library has its own words for it.
    Broken,
}

/// A socket that yields the pieces one after another.
struct Pieces(std::vec::IntoIter<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.next() else { return Err(io::ErrorKind::WouldBlock.into()) };
        out[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cut(stream: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut ends: Vec<_> = places.iter().map(|place| place % (stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut start = 0;
    let pieces = ends.into_iter().map(|end| stream[std::mem::replace(&mut start, end)..end].to_vec());
    pieces.filter(|piece| !piece.is_empty()).collect()
}

fn fast(pieces: Vec<Vec<u8>>) -> Vec<Came> {
    let (mut session, mut came) = (Session::new(Role::Client), Vec::new());
    for mut piece in pieces {
        let mut consumed = 0;
        loop {
            came.push(match next_event(&mut session, &mut piece, &mut consumed) {
                Ok(None) => break,
                Ok(Some(SessionEvent::Binary(bytes))) => Came::Binary(bytes.to_vec()),
                Ok(Some(SessionEvent::Text(text))) => Came::Text(String::from_utf8_lossy(text).into_owned()),
                Ok(Some(SessionEvent::Ping(payload))) => Came::Ping(payload.to_vec()),
                Ok(Some(SessionEvent::Pong(_))) => continue,
                Ok(Some(SessionEvent::Close(frame))) => {
                    came.push(Came::Close(frame.map_or(1005, |frame| frame.code.0)));
                    return came;
                }
                Err(_) => {
                    came.push(Came::Broken);
                    return came;
                }
            });
        }
    }
    came
}

fn independent(pieces: Vec<Vec<u8>>) -> Vec<Came> {
    let mut socket = WebSocket::from_raw_socket(Pieces(pieces.into_iter()), TheirSide::Client, None);
    let mut came = Vec::new();
    loop {
        came.push(match socket.read() {
            Ok(Message::Binary(bytes)) => Came::Binary(bytes.to_vec()),
            Ok(Message::Text(text)) => Came::Text(text.to_string()),
            Ok(Message::Ping(payload)) => Came::Ping(payload.to_vec()),
            Ok(Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(frame)) => {
                came.push(Came::Close(frame.map_or(1005, |frame| frame.code.into())));
                return came;
            }
            Err(Error::Io(_)) => return came,
            Err(_) => {
                came.push(Came::Broken);
                return came;
            }
        });
    }
}

/// Appends one thing that a server may send.
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
    fn both_readers_see_the_same_however_the_stream_is_cut(
        plan in prop::collection::vec((0u8..9, any::<usize>()), 1..12),
        ending in 0u8..4,
        places in prop::collection::vec(any::<usize>(), 0..12),
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
        let pieces = cut(&stream, &places);
        // What is longer than tungstenite's read buffer cannot be one piece of the stand-in.
        let pieces: Vec<_> = pieces.iter().flat_map(|piece| piece.chunks(4096).map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(fast(pieces.clone()), independent(pieces));
    }
}

#[test]
fn a_stream_cut_at_every_single_place_reads_the_same() {
    let mut stream = Vec::new();
    for (what, size) in [(0, 3), (5, 4), (6, 100), (4, 3), (0, 0)] {
        push(what, size, &mut stream);
    }
    push_frame(Opcode::Close, &1001u16.to_be_bytes(), &mut stream);
    let whole = fast(vec![stream.clone()]);
    assert_eq!(whole.last(), Some(&Came::Close(1001)));
    for place in 0..stream.len() {
        let pieces = cut(&stream, &[place]);
        assert_eq!(fast(pieces.clone()), whole, "cut at {place}");
        assert_eq!(independent(pieces), whole, "cut at {place}");
    }
}

#[test]
fn a_length_that_is_not_said_in_the_fewest_bytes_is_refused_though_tungstenite_takes_it() {
    let long_winded = |length: u8| [&[0x82, 126, 0, length][..], &vec![0; length.into()]].concat();
    assert_eq!(fast(vec![long_winded(125)]), [Came::Broken]);
    assert_eq!(fast(vec![long_winded(126)]), [Came::Binary(vec![0; 126])]);
}
