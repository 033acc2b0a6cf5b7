//! permessage-deflate in the session: every rule of RFC 7692 that a peer can break, every way to cut a stream, bombs, and
//! the windows of what is sent, measured by a reader of DEFLATE that shares no code with the library.

use proptest::prelude::*;
use tickcast_protocol::ws::deflate::{Compressor, Inflater, UNRATED_BYTES, WindowBits};
use tickcast_protocol::ws::{
    CloseCode, Opcode, Role, Session, SessionEvent, SessionLimits, Violation, push_masked_frame,
};
use tickcast_test_support::deflate::{deflate, inflate};

const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 200_000 };
const RATIO_MAX: u32 = 100;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// FIN, RSV1, and the bits of the opcodes.
const FIN: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Other,
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_masked_frame(Opcode::Binary, payload, KEY, &mut bytes);
    bytes[0] = first;
    bytes
}

fn read<'a>(limits: &SessionLimits, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, Option<Violation>) {
    let (mut session, mut inflater) = (Session::with_deflate(Role::Server), Inflater::new(RATIO_MAX));
    let mut seen = Vec::new();
    for piece in pieces {
        let (mut input, mut consumed) = (piece.to_vec(), 0);
        loop {
            match session.next_inflating(limits, &mut inflater, &mut input, &mut consumed) {
                Ok(Some(SessionEvent::Text(text))) => seen.push(Seen::Text(text.to_vec())),
                Ok(Some(SessionEvent::Binary(bytes))) => seen.push(Seen::Binary(bytes.to_vec())),
                Ok(Some(SessionEvent::Ping(payload))) => seen.push(Seen::Ping(payload.to_vec())),
                Ok(Some(SessionEvent::Pong(_) | SessionEvent::Close(_))) => seen.push(Seen::Other),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(session.held_bytes(), 0, "nothing is held after a violation");
                    return (seen, Some(violation));
                }
            }
        }
        assert_eq!(consumed, input.len(), "all input is consumed");
    }
    (seen, None)
}

/// The verdict on a stream, proven to be the same whole and byte by byte.
fn verdict(stream: &[u8]) -> (Vec<Seen>, Option<Violation>) {
    let whole = read(&LIMITS, std::iter::once(stream));
    assert_eq!(read(&LIMITS, stream.chunks(1)), whole, "byte by byte: {stream:02x?}");
    whole
}

#[test]
fn the_examples_of_rfc_7692_are_read_as_there() {
    let hello = |stream: &[u8]| assert_eq!(verdict(stream), (vec![Seen::Text(b"Hello".to_vec())], None));
    let payload = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    hello(&frame(0xc1, &payload));
    hello(&[frame(0x41, &payload[..3]), frame(0x80, &payload[3..])].concat());
    // An empty message, and the last fragment that carries none of it.
    assert_eq!(verdict(&frame(0xc1, &[0x00])), (vec![Seen::Text(vec![])], None));
    hello(&[frame(0x41, &payload), frame(0x80, b"")].concat());
}

#[test]
fn compressed_and_plain_messages_alternate_with_control_frames_between_fragments() {
    let (one, two) = ("größer ".repeat(100), vec![7; 5000]);
    let packed = deflate(one.as_bytes());
    let stream = [
        frame(COMPRESSED | TEXT, &packed[..10]),
        frame(FIN | 9, b"between"),
        frame(0, &packed[10..11]),
        frame(FIN, &packed[11..]),
        frame(FIN | BINARY, &two),
        frame(FIN | COMPRESSED | BINARY, &deflate(&two)),
        // A plain message after a compressed one is proven to be text as it comes.
        [frame(TEXT, &one.as_bytes()[..3]), frame(FIN, &one.as_bytes()[3..])].concat(),
    ];
    let text = Seen::Text(one.into_bytes());
    let seen = vec![Seen::Ping(b"between".to_vec()), text.clone(), Seen::Binary(two.clone()), Seen::Binary(two), text];
    assert_eq!(verdict(&stream.concat()), (seen, None));
}

#[test]
fn every_rule_has_its_violation_and_its_close_code() {
    use Violation as V;
    let packed = deflate(b"Hello");
    let rules: Vec<(Vec<u8>, Violation, CloseCode)> = vec![
        (frame(FIN | COMPRESSED | 9, b"x"), V::CompressedBitMisplaced, CloseCode::PROTOCOL),
        (frame(FIN | COMPRESSED | 8, b""), V::CompressedBitMisplaced, CloseCode::PROTOCOL),
        (
            [frame(COMPRESSED | TEXT, &packed[..2]), frame(FIN | COMPRESSED, &packed[2..])].concat(),
            V::CompressedBitMisplaced,
            CloseCode::PROTOCOL,
        ),
        ([frame(TEXT, b"a"), frame(FIN | COMPRESSED, b"b")].concat(), V::CompressedBitMisplaced, CloseCode::PROTOCOL),
        (frame(FIN | COMPRESSED | 3, b"x"), V::ReservedOpcode(3), CloseCode::PROTOCOL),
        (frame(FIN | COMPRESSED | 0x20 | TEXT, &packed), V::ReservedBits(0x20), CloseCode::PROTOCOL),
        (frame(FIN | COMPRESSED | 0x10 | BINARY, &packed), V::ReservedBits(0x10), CloseCode::PROTOCOL),
        (frame(FIN | COMPRESSED | TEXT, b"\xff\xff"), V::NotDeflate, CloseCode::BAD_UTF8),
        (frame(FIN | COMPRESSED | TEXT, &packed[..packed.len() - 2]), V::NotDeflate, CloseCode::BAD_UTF8),
        (frame(FIN | COMPRESSED | TEXT, &deflate(b"\xe2\x82")), V::TextNotUtf8, CloseCode::BAD_UTF8),
        (
            [frame(COMPRESSED | TEXT, &deflate(b"a\xed\xa0\x80")[..3]), frame(FIN, &deflate(b"a\xed\xa0\x80")[3..])]
                .concat(),
            V::TextNotUtf8,
            CloseCode::BAD_UTF8,
        ),
    ];
    for (stream, violation, code) in rules {
        let stream = [frame(FIN | COMPRESSED | TEXT, &packed), stream, frame(FIN | 9, b"late")].concat();
        assert_eq!(verdict(&stream), (vec![Seen::Text(b"Hello".to_vec())], Some(violation)));
        assert_eq!(violation.close_code(), code, "{violation}");
        assert!(violation.to_string().len() <= 123, "it fits into a close frame: {violation}");
    }
}

#[test]
fn where_it_was_not_agreed_on_the_bit_is_a_violation() {
    let (mut session, mut inflater) = (Session::new(Role::Server), Inflater::new(RATIO_MAX));
    let mut input = frame(FIN | COMPRESSED | TEXT, &deflate(b"Hello"));
    let event = session.next_inflating(&LIMITS, &mut inflater, &mut input, &mut 0);
    assert_eq!(event, Err(Violation::ReservedBits(COMPRESSED)));
}

#[test]
fn binary_may_hold_anything_and_the_compressed_form_of_text_is_not_text() {
    let noise: Vec<u8> = (0..=255).collect();
    let stream = frame(FIN | COMPRESSED | BINARY, &deflate(&noise));
    assert_eq!(verdict(&stream), (vec![Seen::Binary(noise)], None));
    let text = "π".repeat(50);
    let packed = deflate(text.as_bytes());
    assert!(std::str::from_utf8(&packed).is_err(), "the test needs such a payload");
    assert_eq!(verdict(&frame(FIN | COMPRESSED | TEXT, &packed)), (vec![Seen::Text(text.into_bytes())], None));
}

#[test]
fn a_bomb_is_refused_by_size_and_by_ratio_and_holds_no_more_than_the_limit() {
    let bomb = |bytes: usize| frame(FIN | COMPRESSED | BINARY, &deflate(&vec![0; bytes]));
    let large = Violation::InflatesTooBig { max: 200_000 };
    let far = Violation::InflatesTooFar { ratio_max: 100 };
    // Some thousand to one: 64 KiB are allowed whatever the ratio, then a hundredfold.
    assert_eq!(verdict(&bomb(UNRATED_BYTES)), (vec![Seen::Binary(vec![0; UNRATED_BYTES])], None));
    assert_eq!(verdict(&bomb(UNRATED_BYTES + 1)), (vec![], Some(far)));
    assert_eq!(verdict(&bomb(100_000_000)), (vec![], Some(large)), "its bytes would allow more than the limit does");
    assert_eq!((large.close_code(), far.close_code()), (CloseCode::TOO_BIG, CloseCode::TOO_BIG));
    // In fragments it is the same, and so is one that hides behind honest text.
    let packed = deflate(&[b"honest ".repeat(10), vec![0; 150_000]].concat());
    let stream: Vec<u8> = packed
        .chunks(7)
        .enumerate()
        .flat_map(|(nth, part)| frame(if nth == 0 { COMPRESSED | BINARY } else { 0 }, part))
        .chain(frame(FIN, b""))
        .collect();
    assert_eq!(verdict(&stream), (vec![], Some(far)));
}

#[test]
fn a_message_as_large_as_the_limit_is_taken_also_where_compression_makes_it_larger() {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(LIMITS.message_bytes_max + 1)
    .collect();
    let most = &noise[..LIMITS.message_bytes_max];
    assert!(deflate(most).len() > most.len(), "the test needs a payload that grows");
    let stream = frame(FIN | COMPRESSED | BINARY, &deflate(most));
    assert_eq!(read(&LIMITS, stream.chunks(1000)), (vec![Seen::Binary(most.to_vec())], None));
    let one_more = frame(FIN | COMPRESSED | BINARY, &deflate(&noise));
    let refused = Violation::InflatesTooBig { max: LIMITS.message_bytes_max };
    assert_eq!(read(&LIMITS, one_more.chunks(1000)), (vec![], Some(refused)));
    // What no message within the limit can need is refused by its header.
    let most = Inflater::compressed_bytes_max(LIMITS.message_bytes_max);
    let announced = [&[0xc2, 0xff][..], &(most as u64 + 1).to_be_bytes(), &KEY].concat();
    assert_eq!(verdict(&announced).1, Some(Violation::TooBig { announced: most as u64 + 1, max: most }));
}

/// The farthest that a DEFLATE stream refers back. Reads blocks as RFC 1951 describes them.
fn farthest(deflate: &[u8]) -> usize {
    Bits { bytes: deflate, at: 0 }.farthest()
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// How many codes there are of each length, and the symbols in their order.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[*length] += 1);
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Self { counts, symbols }
    }
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, nth| {
            let bit = usize::from(self.bytes[self.at / 8] >> (self.at % 8) & 1);
            self.at += 1;
            value | bit << nth
        })
    }

    fn symbol(&mut self, code: &Code) -> usize {
        let (mut value, mut first, mut index) = (0, 0, 0);
        for count in &code.counts[1..] {
            value |= self.take(1);
            if value < first + count {
                return code.symbols[index + value - first];
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        panic!("no such code");
    }

    fn farthest(&mut self) -> usize {
        let mut farthest = 0;
        // Each message ends with the first three bits of an empty block, whose lengths were cut off.
        while self.at + 10 < self.bytes.len() * 8 {
            let last = self.take(1);
            match self.take(2) {
                0 => {
                    self.at = self.at.next_multiple_of(8);
                    if self.at == self.bytes.len() * 8 {
                        break;
                    }
                    let length = self.take(16);
                    self.at += 16 + length * 8;
                }
                1 => {
                    let lengths = [[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat();
                    farthest = farthest.max(self.block(&Code::new(&lengths), &Code::new(&[5; 30])));
                }
                2 => {
                    let (literals, distances) = self.codes();
                    farthest = farthest.max(self.block(&literals, &distances));
                }
                _ => panic!("a reserved kind of block"),
            }
            if last == 1 {
                break;
            }
        }
        farthest
    }

    fn codes(&mut self) -> (Code, Code) {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, count) = (self.take(5) + 257, self.take(5) + 1, self.take(4) + 4);
        let mut lengths = [0; 19];
        for place in &ORDER[..count] {
            lengths[*place] = self.take(3);
        }
        let code = Code::new(&lengths);
        let mut lengths: Vec<usize> = Vec::new();
        while lengths.len() < literals + distances {
            let (length, times) = match self.symbol(&code) {
                16 => (lengths[lengths.len() - 1], self.take(2) + 3),
                17 => (0, self.take(3) + 3),
                18 => (0, self.take(7) + 11),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(length, times));
        }
        (Code::new(&lengths[..literals]), Code::new(&lengths[literals..]))
    }

    fn block(&mut self, literals: &Code, distances: &Code) -> usize {
        let mut farthest = 0;
        loop {
            match self.symbol(literals) {
                0..256 => {}
                256 => return farthest,
                length => {
                    // 261 to 284 in groups of four, each with one more extra bit.
                    let extra = if (265..285).contains(&length) { (length - 261) / 4 } else { 0 };
                    self.take(extra);
                    let symbol = self.symbol(distances);
                    let extra = symbol.saturating_sub(2) / 2;
                    let base = if symbol < 4 { symbol + 1 } else { ((2 + symbol % 2) << extra) + 1 };
                    farthest = farthest.max(base + self.take(extra));
                }
            }
        }
    }
}

#[test]
fn no_frame_refers_farther_back_than_its_window() {
    // Lines that come again after 10 to 40,000 bytes.
    let mut message = Vec::new();
    for nth in 0..6000u32 {
        message.extend_from_slice(format!("{:x} ", nth.wrapping_mul(2_654_435_761) >> 20 & (nth | 15)).as_bytes());
    }
    let mut reached = Vec::new();
    for level in [1, 2, 4, 6, 9] {
        let mut compressor = Compressor::new(level);
        for bits in WindowBits::LEAST..=WindowBits::MOST.get() {
            let window = WindowBits::new(bits).expect("a window of RFC 7692");
            let mut out = Vec::new();
            compressor.push_frame(window, Opcode::Binary, &message, &mut out);
            let payload = &out[4..];
            assert_eq!(out[1], 126, "a frame of less than 64 KiB");
            assert!(inflate(payload) == message, "level {level}, window {bits}");
            let farthest = farthest(payload);
            assert!(farthest <= 1 << bits, "level {level}, window {bits}: {farthest} bytes back");
            reached.push(farthest);
        }
    }
    assert!(reached.iter().any(|back| *back > 16_384), "the message gives reason to look far back: {reached:?}");
}

/// Something to send, and in how many fragments.
fn messages() -> impl Strategy<Value = Vec<(bool, bool, Vec<u8>, usize)>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        prop::collection::vec(prop::sample::select(b"ab ".to_vec()), 0..3000),
    ];
    let text = "[a-zäß€𝄞 ]{0,200}".prop_map(String::into_bytes);
    let message = prop_oneof![
        (any::<bool>(), bytes, 1..5usize).prop_map(|(packed, bytes, parts)| (packed, false, bytes, parts)),
        (any::<bool>(), text, 1..5usize).prop_map(|(packed, bytes, parts)| (packed, true, bytes, parts)),
    ];
    prop::collection::vec(message, 0..8)
}

fn stream_of(messages: &[(bool, bool, Vec<u8>, usize)]) -> (Vec<u8>, Vec<Seen>) {
    let (mut stream, mut seen) = (Vec::new(), Vec::new());
    for (packed, is_text, bytes, parts) in messages {
        let payload = if *packed { deflate(bytes) } else { bytes.clone() };
        let part = payload.len().div_ceil(*parts).max(1);
        let mut parts: Vec<&[u8]> = payload.chunks(part).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let opcode = if *is_text { TEXT } else { BINARY } | if *packed { COMPRESSED } else { 0 };
        for (nth, part) in parts.iter().enumerate() {
            let first = if nth == 0 { opcode } else { 0 };
            stream.extend(frame(first | if nth + 1 == parts.len() { FIN } else { 0 }, part));
        }
        seen.push(if *is_text { Seen::Text(bytes.clone()) } else { Seen::Binary(bytes.clone()) });
    }
    (stream, seen)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_client_sends_arrives_whole_however_it_is_cut(messages in messages(), piece in 1..900usize) {
        let (stream, seen) = stream_of(&messages);
        prop_assert_eq!(read(&LIMITS, stream.chunks(piece)), (seen, None));
    }

    #[test]
    fn what_is_sent_inflates_to_what_was_meant(
        message in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..40_000),
        ],
        level in 1..=9u8,
        bits in 8..=15u8,
    ) {
        let mut out = Vec::new();
        let window = WindowBits::new(bits).expect("a window of RFC 7692");
        Compressor::new(level).push_frame(window, Opcode::Binary, &message, &mut out);
        let mut unpack = tickcast_test_support::deflate::FrameInflater::default();
        let plain = unpack.push(&out);
        prop_assert!(plain.ends_with(&message) && plain.len() - message.len() <= 10);
        prop_assert!(out.len() <= plain.len(), "never longer");
    }

    #[test]
    fn a_damaged_stream_is_refused_or_read_the_same_in_any_pieces(
        messages in messages(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        piece in 1..50usize,
    ) {
        let (mut stream, _) = stream_of(&messages);
        if !stream.is_empty() {
            for (place, byte) in damage {
                *place.get_mut(&mut stream) ^= byte;
            }
        }
        prop_assert_eq!(read(&LIMITS, stream.chunks(piece)), read(&LIMITS, std::iter::once(&stream[..])));
    }

    #[test]
    fn pure_noise_inflates_to_nothing_that_is_over_the_limit(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        if let Ok(message) = Inflater::new(RATIO_MAX).inflate(&noise, 10_000) {
            prop_assert!(message.len() <= 10_000);
        }
    }
}
