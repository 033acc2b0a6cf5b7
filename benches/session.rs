//! The cost of the WebSocket codec: a client's frames whole, in portions and in fragments, control frames, unmasking,
//! headers.
//!
//! Method: criterion, one thread, hot caches, no socket. A client's requests are unmasked in place, so each round
//! copies them first; the floor `copy` is that copy alone. Unmasking works on the same bytes again and again; its floor
//! inverts every bit of them. The number of events in a stream is checked before it is measured.
//!
//! Not measured: the server's work for a request, and the kernel's to deliver it.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tickcast_protocol::ws::{
    CloseCode, Opcode, Role, Session, SessionLimits, encode_frame_header, mask, push_masked_frame,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 * 1024 };
const FRAMES: usize = 1000;
const SUBSCRIBE: &str = r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["BTC-USD","ETH-*"]}"#;

/// A client's requests, one frame each.
fn requests(frames: usize, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..frames {
        push_masked_frame(opcode, payload, KEY, &mut stream);
    }
    stream
}

/// The same message again and again, in fragments of so many bytes.
fn fragmented(frames: usize, text: &str, fragment_bytes: usize) -> Vec<u8> {
    let fragments = text.len().div_ceil(fragment_bytes);
    let mut stream = Vec::new();
    for _ in 0..frames {
        for (index, fragment) in text.as_bytes().chunks(fragment_bytes).enumerate() {
            let start = stream.len();
            let opcode = if index == 0 { Opcode::Text } else { Opcode::Continuation };
            push_masked_frame(opcode, fragment, KEY, &mut stream);
            if index + 1 < fragments {
                // The first bit is FIN, which only the last fragment has.
                stream[start] &= 0x7F;
            }
        }
    }
    stream
}

/// The number of events in `input`.
fn parse(session: &mut Session, input: &mut [u8]) -> usize {
    let (mut consumed, mut events) = (0, 0);
    while let Some(event) = session.next(&LIMITS, input, &mut consumed).expect("the stream is good") {
        black_box(event);
        events += 1;
    }
    events
}

/// Measures `parse_all` over a stream with so many events, and the copy at the start of each round.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (copy, parse): (&str, &str),
    (stream, events): (&[u8], usize),
    mut parse_all: impl FnMut(&mut [u8]) -> usize,
) {
    let mut input = stream.to_vec();
    assert_eq!(parse_all(&mut input), events, "{parse}: what was sent arrives");
    group.throughput(Throughput::Elements(events as u64));
    group.bench_function(copy, |bencher| {
        bencher.iter(|| black_box(&mut input).copy_from_slice(black_box(stream)));
    });
    group.bench_function(parse, |bencher| {
        bencher.iter(|| {
            input.copy_from_slice(stream);
            parse_all(&mut input)
        });
    });
}

fn text_frames(criterion: &mut Criterion) {
    let (line, long) = ("x".repeat(100), "x".repeat(64 * 1024));
    let sizes: [(&str, &str, usize); 4] = [
        ("ping of 20 bytes", r#"{"op":"ping","id":4}"#, FRAMES),
        ("subscribe of 84 bytes", SUBSCRIBE, FRAMES),
        ("text of 100 bytes", &line, FRAMES),
        ("text of 64 KiB", &long, 1),
    ];
    for (name, text, frames) in sizes {
        let stream = requests(frames, Opcode::Text, text.as_bytes());
        let mut group = criterion.benchmark_group(name);
        let mut session = Session::new(Role::Server);
        measure(&mut group, ("copy", "parse"), (&stream, frames), |input| parse(&mut session, input));
        group.finish();
    }
}

/// A message of 84 bytes, cut by TCP or by the client.
fn cut_messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe of 84 bytes");
    let whole = requests(FRAMES, Opcode::Text, SUBSCRIBE.as_bytes());
    for (name, piece_bytes) in [("in pieces of 100 bytes", 100), ("in single bytes", 1)] {
        let (copy, parse_name) = (format!("copy, then {name}"), format!("parse {name}"));
        let mut session = Session::new(Role::Server);
        measure(&mut group, (&copy, &parse_name), (&whole, FRAMES), |input| {
            input.chunks_mut(piece_bytes).map(|piece| parse(&mut session, piece)).sum()
        });
    }
    for fragment_bytes in [42, 8] {
        let stream = fragmented(FRAMES, SUBSCRIBE, fragment_bytes);
        let name = format!("fragments of {fragment_bytes} bytes");
        let mut session = Session::new(Role::Server);
        measure(&mut group, (&format!("copy {name}"), &format!("parse {name}")), (&stream, FRAMES), |input| {
            parse(&mut session, input)
        });
    }
    group.finish();
}

/// A ping and a pong as browsers send them, and a close, the last frame of a session: each has a session of its own.
fn control_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("control frame");
    for (name, opcode, payload) in [("ping", Opcode::Ping, b"tick"), ("pong", Opcode::Pong, b"tick")] {
        let stream = requests(FRAMES, opcode, payload);
        let mut session = Session::new(Role::Server);
        let names = (format!("copy/{name} of 4 bytes"), format!("parse/{name} of 4 bytes"));
        measure(&mut group, (&names.0, &names.1), (&stream, FRAMES), |input| parse(&mut session, input));
    }
    let mut payload = CloseCode::GOING_AWAY.0.to_be_bytes().to_vec();
    payload.extend_from_slice(b"the page was left");
    let stream = requests(FRAMES, Opcode::Close, &payload);
    let close_bytes = stream.len() / FRAMES;
    measure(&mut group, ("copy/close with a reason", "parse/close with a reason"), (&stream, FRAMES), |input| {
        input.chunks_mut(close_bytes).map(|close| parse(&mut Session::new(Role::Server), close)).sum()
    });
    group.finish();
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for bytes in [20, 84, 100, 64 * 1024] {
        let mut payload = vec![0xA5u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("floor: invert the bits of {bytes} bytes"), |bencher| {
            bencher.iter(|| black_box(&mut payload).iter_mut().for_each(|byte| *byte = !*byte));
        });
        group.bench_function(format!("{bytes} bytes"), |bencher| {
            bencher.iter(|| mask(black_box(KEY), black_box(0), black_box(&mut payload)));
        });
    }
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode header");
    for payload_bytes in [100usize, 4_000, 100_000] {
        group.bench_function(format!("for {payload_bytes} bytes"), |bencher| {
            let mut out = [0; 10];
            bencher
                .iter(|| encode_frame_header(black_box(Opcode::Binary), black_box(payload_bytes), black_box(&mut out)));
        });
    }
    group.finish();
}

criterion_group!(benches, text_frames, cut_messages, control_frames, unmask, headers);
criterion_main!(benches);
