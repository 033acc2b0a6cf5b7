//! The cost of reading in the load generator: frames and records of a valid stream.
//!
//! Method: criterion, one thread, no socket. The stream is in one buffer of the generator's own size, and is read as a
//! connection reads it: frames, records, the sequence rule, ages into a histogram. Each round sets another epoch in
//! every packet, so that the sequences begin anew. The floor `copy` is a copy of the same bytes.
//!
//! Not measured: the kernel's receive, which is the greater part of a load thread's time.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tickcast::load::{FastChecker, SequenceTable};
use tickcast::load::{LatencyMeter, LatencyOrigin};
use tickcast_protocol::RecordKind;
use tickcast_protocol::packet::{HEADER_BYTES, PacketHeader};
use tickcast_protocol::record::{Quote, RecordHeader};
use tickcast_protocol::ws::{Opcode, Role, Session, SessionEvent, SessionLimits, push_frame};

const NOW_NS: u64 = 1_763_691_200_000_000_000;
const BUFFER_BYTES: usize = 256 * 1024;
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 1 << 24 };

/// A buffer of frames with `records` quotes each, of `instruments` round robin, each of another age; and the number of
/// quotes.
fn stream(records: usize, instruments: u64) -> (Vec<u8>, u64) {
    let (mut out, mut count) = (Vec::new(), 0);
    while out.len() + records * Quote::BYTES + 40 < BUFFER_BYTES {
        let head =
            PacketHeader { flags: 0, count: records as u16, epoch: 1, position: 1.into(), ts_send: NOW_NS - 900 };
        let mut packet = head.encode().to_vec();
        for _ in 0..records {
            let mut header =
                RecordHeader::of_feed(RecordKind::Quote, (count % instruments) as u32 + 1, NOW_NS - 50_000 - count);
            header.sequence = (count / instruments + 1).into();
            Quote { bid_px: 1, bid_sz: 2, ask_px: 3, ask_sz: 4 }.encode(&header, &mut packet);
            count += 1;
        }
        push_frame(Opcode::Binary, &packet, &mut out);
    }
    (out, count)
}

/// Sets the epoch of this round in all packets.
fn begin(stream: &mut [u8], records: usize, epoch: u32) {
    let packet = HEADER_BYTES + records * Quote::BYTES;
    let head = if packet < 126 { 2 } else { 4 };
    for frame in stream.chunks_exact_mut(head + packet) {
        frame[head + 4..head + 8].copy_from_slice(&epoch.to_le_bytes());
    }
}

fn read(session: &mut Session, checker: &mut FastChecker, meter: &mut LatencyMeter, input: &mut [u8]) {
    let mut consumed = 0;
    while let Some(event) = session.next(&LIMITS, input, &mut consumed).expect("the stream is good") {
        if let SessionEvent::Binary(packet) = event {
            let header = checker.packet(packet, |header| meter.age(NOW_NS, header)).expect("the packets are good");
            meter.packet(NOW_NS, &header);
        }
    }
}

fn streams(criterion: &mut Criterion) {
    for (name, records, instruments, table) in [
        ("packets of 200 records, all of a market of 100", 200, 100, SequenceTable::Dense),
        ("packets of 200 records, a watchlist of 50", 200, 50, SequenceTable::Sparse),
        ("packets of 1 record, all of a market of 100", 1, 100, SequenceTable::Dense),
    ] {
        let (mut input, count) = stream(records, instruments);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(count));
        group.bench_function("copy", |bencher| {
            let mut copy = input.clone();
            bencher.iter(|| black_box(&mut copy).copy_from_slice(black_box(&input)));
        });
        let mut session = Session::new(Role::Client);
        let mut checker = FastChecker::new(table, false);
        let mut meter = LatencyMeter::new(LatencyOrigin::Scheduled);
        let mut epoch = 1;
        group.bench_function("read", |bencher| {
            bencher.iter(|| {
                epoch += 1;
                begin(&mut input, records, epoch);
                read(&mut session, &mut checker, &mut meter, black_box(&mut input));
            });
        });
        assert_eq!((checker.counters().violations, checker.counters().records % count), (0, 0));
        group.finish();
    }
}

criterion_group!(benches, streams);
criterion_main!(benches);
