//! The cost of encoding a record, a packet of records, and the same record as JSON.
//!
//! Method: one thread, warm caches, a buffer that has grown; criterion's own sampling gives the spread. The floor of
//! each group is the copy of as many bytes. Beside encoding it measures decoding and the validation of a publisher's
//! packet.
//!
//! Not measured: cold caches, the rest of the sequencer, the ring, the socket.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tickcast_protocol::json;
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, RecordKind, Ticker, Trade};
use tickcast_protocol::{BookAction, BookSide, Channel, GapReason, Instrument, Side};

const QUOTE: Quote = Quote { bid_px: 6_183_763, bid_sz: 378_826, ask_px: 6_183_764, ask_sz: 1_200 };
const LEVELS: [Level; 20] = [Level { px: 6_183_763, sz: 378_826, side: BookSide::Bid }; 20];

/// Encodes one record.
type Encode = Box<dyn Fn(&mut Vec<u8>)>;

fn header(kind: RecordKind) -> RecordHeader {
    let mut header = RecordHeader::of_feed(kind, 7, 1_763_700_000_000_000_000);
    (header.sequence, header.ts_recv) = (91_823.into(), 1_763_700_000_000_001_500);
    header
}

fn instrument() -> Instrument {
    Instrument::new(7, "BTC-USD", "sim", -2, -5)
}

fn every_record() -> [(&'static str, Encode); 9] {
    let trade = Trade { px: 6_183_763, sz: 1_200, trade_id: 12_345_678, side: Side::Buy };
    let ticker = Ticker {
        last_px: 6_183_763,
        open_px: 6_100_000,
        high_px: 6_200_000,
        low_px: 6_050_000,
        volume: 123_456_789,
        turnover: 987_654_321,
        bid_px: 6_183_763,
        ask_px: 6_183_764,
    };
    let gap = record::Gap {
        instrument: 7,
        channel: Channel::Trade,
        from_sequence: 3.into(),
        to_sequence: 9.into(),
        reason: GapReason::Slow,
    };
    let defined = instrument();
    [
        ("quote", Box::new(|out| black_box(&QUOTE).encode(&header(RecordKind::Quote), out))),
        ("trade", Box::new(move |out| black_box(&trade).encode(&header(RecordKind::Trade), out))),
        ("ticker", Box::new(move |out| black_box(&ticker).encode(&header(RecordKind::Ticker), out))),
        (
            "book of 20",
            Box::new(|out| {
                let levels = black_box(&LEVELS).iter().copied();
                record::encode_book(&header(RecordKind::Book), BookAction::Delta, levels, out);
            }),
        ),
        ("raw of 100", Box::new(|out| record::encode_raw(&header(RecordKind::Raw), black_box(&[7; 100]), out))),
        ("definition", Box::new(move |out| record::encode_definition(black_box(&defined), out))),
        ("heartbeat", Box::new(|out| record::encode_heartbeat(black_box(1), out))),
        ("gap", Box::new(move |out| black_box(&gap).encode(1, out))),
        (
            "status",
            Box::new(|out| {
                record::encode_status(&header(RecordKind::Status), black_box(tickcast_protocol::FeedState::Live), out)
            }),
        ),
    ]
}

fn encoded(encode: &Encode) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn records(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("record");
    let mut out = Vec::with_capacity(4096);
    for (name, encode) in every_record() {
        let ready = encoded(&encode);
        group.throughput(Throughput::Bytes(ready.len() as u64));
        group.bench_function(BenchmarkId::new("floor: copy", name), |bench| {
            bench.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&ready));
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("encode", name), |bench| {
            bench.iter(|| {
                out.clear();
                encode(&mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn packets(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("packet");
    let quote = encoded(&every_record()[0].1);
    let mut out = Vec::with_capacity(64 * 1024);
    for count in [1u16, 16, 256] {
        let packet =
            PacketHeader { flags: 0, count, epoch: 7, position: 91_823.into(), ts_send: 1_763_700_000_000_000_000 };
        let mut ready = packet.encode().to_vec();
        (0..count).for_each(|_| ready.extend_from_slice(&quote));
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("floor: copy", count), |bench| {
            bench.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&ready));
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("from ready records", count), |bench| {
            bench.iter(|| {
                out.clear();
                out.extend_from_slice(&black_box(&packet).encode());
                (0..count).for_each(|_| out.extend_from_slice(black_box(&quote)));
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("from values", count), |bench| {
            bench.iter(|| {
                out.clear();
                out.extend_from_slice(&black_box(&packet).encode());
                (0..count).for_each(|_| black_box(&QUOTE).encode(&header(RecordKind::Quote), &mut out));
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("check", count), |bench| {
            bench.iter(|| {
                let read = record::records(black_box(&ready[24..]));
                read.filter(|(_, record)| record::check(record).is_ok()).count()
            });
        });
    }
    group.finish();
}

fn json_texts(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("json");
    let instrument = instrument();
    let mut out = String::with_capacity(4096);
    for (name, encode) in every_record() {
        let record = encoded(&encode);
        group.bench_function(BenchmarkId::new("push_record", name), |bench| {
            bench.iter(|| {
                out.clear();
                json::push_record(black_box(&record), &instrument, &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, records, packets, json_texts);
criterion_main!(benches);
