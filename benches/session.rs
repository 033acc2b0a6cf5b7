//! What the codec costs: small client frames, unmasking, headers.
//!
//! Method: criterion, one thread, hot caches, no socket. A client's requests are unmasked in place, so each round gets
//! a fresh copy; `copy` is the cost of that copy alone, the floor under `parse`. Not measured: what the server does
//! with a request, and what the kernel takes to deliver it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickcast::ws::frame::{Opcode, encode_header, mask, push_masked_frame};
use tickcast::ws::{Event, Limits, Role, Session};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMITS: Limits = Limits { message_bytes_max: 64 * 1024 };
const FRAMES: usize = 1000;

/// A client's requests, one frame each.
fn requests(text: &str) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..FRAMES {
        push_masked_frame(Opcode::Text, text.as_bytes(), KEY, &mut stream);
    }
    stream
}

/// Bytes of all text in `input`.
fn parse(session: &mut Session, input: &mut [u8]) -> usize {
    let (mut consumed, mut text_bytes) = (0, 0);
    while let Some(event) = session.next(&LIMITS, input, &mut consumed).expect("the stream is good") {
        if let Event::Text(text) = event {
            text_bytes += black_box(text).len();
        }
    }
    text_bytes
}

fn small_text_frames(criterion: &mut Criterion) {
    let subscribe = r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["BTC-USD","ETH-*"]}"#;
    for (name, text) in [("ping of 20 bytes", r#"{"op":"ping","id":4}"#), ("subscribe of 84 bytes", subscribe)] {
        let stream = requests(text);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(FRAMES as u64));
        group.bench_function("copy", |bencher| {
            let mut input = stream.clone();
            bencher.iter(|| black_box(&mut input).copy_from_slice(black_box(&stream)));
        });
        group.bench_function("parse", |bencher| {
            let mut session = Session::new(Role::Server);
            let mut input = stream.clone();
            bencher.iter(|| {
                input.copy_from_slice(&stream);
                parse(&mut session, &mut input)
            });
        });
        group.bench_function("parse in pieces of 100 bytes", |bencher| {
            let mut session = Session::new(Role::Server);
            let mut input = stream.clone();
            bencher.iter(|| {
                input.copy_from_slice(&stream);
                input.chunks_mut(100).map(|piece| parse(&mut session, piece)).sum::<usize>()
            });
        });
        group.finish();
    }
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for bytes in [16, 100, 64 * 1024] {
        let mut payload = vec![0xA5; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
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
            bencher.iter(|| encode_header(black_box(Opcode::Binary), black_box(payload_bytes), black_box(&mut out)));
        });
    }
    group.finish();
}

criterion_group!(benches, small_text_frames, unmask, headers);
criterion_main!(benches);
