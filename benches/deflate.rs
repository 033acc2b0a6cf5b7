//! The cost of compression for a delivery, and the bytes that it saves: none, once for an audience, and for each
//! connection.
//!
//! Method: a simulated market of 200 instruments. The records of each interval (quotes, trades, tickers and book
//! changes of all instruments) are one packet, as a flush makes it. `once` is what the server does: each packet is
//! compressed by itself, for all members of an audience. `each` is what most servers do: every connection has a
//! compressor whose window continues from packet to packet, so that the same packet is compressed again for every
//! connection. Library, level and packets are the same. Bytes are those of the payloads. The time is the CPU time of
//! all packets divided by their number: the median of the runs, with the least and the greatest. A delivery of `once`
//! to an audience of N costs an Nth of it. The floor is a copy of the packet. Before the measurement, every output is
//! inflated and compared.
//!
//! Memory is that of the compressors for a thousand connections: one compressor for `once`, a thousand for `each`.
//!
//! Not measured: the send, whose cost in the kernel grows with the bytes (4 to 7 µs up to 6 KB); the client's
//! inflating; the wire.

use std::hint::black_box;
use std::time::Instant;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tickcast::ingest::feed::sim::{Params, Sim};
use tickcast::ingest::source::{Batch, Next, Source, Times};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::RecordHeader;
use tickcast_protocol::ws::deflate::{Compressor, WindowBits};
use tickcast_protocol::ws::{Opcode, push_frame};

const START_NS: u64 = 1_763_700_000_000_000_000;
const RUNS: usize = 7;
/// 256 KiB for a window of 15 bits and a memory level of 8, by zlib's documentation; zlib-rs uses a little more.
const COMPRESSOR_BYTES: usize = 270 * 1024;
const TAIL_BYTES: usize = 4;
/// The server starts another packet here; the rest of a larger burst is left out.
const PACKET_BYTES_MAX: usize = 16 * 1024;

/// The packets of a market, each with the records of so many milliseconds.
fn packets(rate: u32, interval_ms: u64, count: usize) -> Vec<Vec<u8>> {
    let params = Params::parse(&format!("instruments=200,rate={rate},seed=1")).expect("parameters of the market");
    let mut sim = Sim::new(&params);
    let mut packets = Vec::new();
    let (mut now_ns, mut batch) = (START_NS, Batch::default());
    // The first batch is definitions and whole books, which is a snapshot.
    receive(&mut sim, now_ns, &mut batch);
    while packets.len() < count {
        now_ns += interval_ms * 1_000_000;
        batch.clear();
        receive(&mut sim, now_ns, &mut batch);
        if let Some(packet) = packet(&mut batch.records, now_ns, packets.len() as u64) {
            packets.push(packet);
        }
    }
    packets
}

fn receive(sim: &mut Sim, now_ns: u64, batch: &mut Batch) {
    loop {
        match sim.receive(Times::at(now_ns), batch).expect("no error") {
            Next::Now => {}
            Next::At(at_ns) if at_ns > now_ns => return,
            Next::At(_) | Next::Paced => {}
            Next::Ended => panic!("a market does not end"),
        }
    }
}

/// Like sequencer and shard: numbers the records, sets their times, and puts a packet header before them.
fn packet(records: &mut [u8], now_ns: u64, position: u64) -> Option<Vec<u8>> {
    let (mut at, mut count) = (0, 0u16);
    while let Some(header) = RecordHeader::read(&records[at..]).filter(|header| at + header.bytes() <= PACKET_BYTES_MAX)
    {
        records[at + 8..at + 16].copy_from_slice(&(position * 7 + u64::from(count)).to_le_bytes());
        records[at + 24..at + 32].copy_from_slice(&(now_ns - 1000 * u64::from(count)).to_le_bytes());
        at += header.bytes();
        count += 1;
    }
    let header = PacketHeader { flags: 0, count, epoch: 7, position: position.into(), ts_send: now_ns };
    (count > 0).then(|| [&header.encode()[..], &records[..at]].concat())
}

/// The bytes of all packets, and the median, least and greatest nanoseconds per packet.
struct Cost {
    bytes: usize,
    ns: [f64; 3],
}

fn measure(packets: &[Vec<u8>], mut work: impl FnMut(&[Vec<u8>]) -> usize) -> Cost {
    let bytes = work(packets);
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            black_box(work(black_box(packets)));
            begun.elapsed().as_nanos() as f64 / packets.len() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    Cost { bytes, ns: [times[RUNS / 2], times[0], times[RUNS - 1]] }
}

/// The floor: copies every packet into a frame.
fn copied(packets: &[Vec<u8>]) -> usize {
    let mut out = Vec::new();
    let push = |packet: &Vec<u8>| {
        out.clear();
        push_frame(Opcode::Binary, packet, &mut out);
        black_box(&out);
        packet.len()
    };
    packets.iter().map(push).sum()
}

/// As the server compresses.
fn once(packets: &[Vec<u8>], compressor: &mut Compressor) -> usize {
    let mut out = Vec::new();
    let push = |packet: &Vec<u8>| {
        out.clear();
        compressor.push_frame(WindowBits::MOST, Opcode::Binary, packet, &mut out);
        black_box(&out);
        // The frame header has 2 bytes up to 125 bytes of payload, 4 above.
        if out[1] < 126 { out.len() - 2 } else { out.len() - 4 }
    };
    packets.iter().map(push).sum()
}

/// As a connection with a window of its own compresses.
fn each(packets: &[Vec<u8>], level: u8) -> Vec<Vec<u8>> {
    let mut state = Compress::new(Compression::new(level.into()), false);
    let compress = |packet: &Vec<u8>| {
        let mut out = Vec::with_capacity(packet.len() + 64);
        state.compress_vec(packet, &mut out, FlushCompress::Sync).expect("there is room");
        out.truncate(out.len() - TAIL_BYTES);
        out
    };
    packets.iter().map(compress).collect()
}

fn check(packets: &[Vec<u8>], level: u8) {
    let mut taken_over = Decompress::new(false);
    let mut alone = Compressor::new(level);
    for (packet, each) in packets.iter().zip(each(packets, level)) {
        let mut out = Vec::with_capacity(packet.len() + 64);
        let whole = [&each[..], &[0, 0, 0xff, 0xff]].concat();
        taken_over.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("DEFLATE");
        assert!(out == *packet, "each: {} bytes of {}", out.len(), packet.len());
        out.clear();
        alone.push_frame(WindowBits::MOST, Opcode::Binary, packet, &mut out);
        if out[0] & 0x40 != 0 {
            let payload = &out[if out[1] < 126 { 2 } else { 4 }..];
            let mut inflater = tickcast_protocol::ws::deflate::Inflater::new(1100);
            let inflated = inflater.inflate(payload, packet.len());
            assert!(inflated.is_ok_and(|inflated| inflated == packet), "once: {} bytes", packet.len());
        }
    }
}

fn main() {
    println!("packets: bytes a packet of what is sent; ns of one compression, median (least to greatest)\n");
    println!(
        "| packets of | level | plain | once | each | copy, ns | once, ns | each, ns | once, ns a delivery to 1 / 100 / 1,000 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, rate, interval_ms) in [
        ("1 ms at 2,000 a second", 2_000, 1),
        ("1 ms at 20,000", 20_000, 1),
        ("5 ms at 20,000", 20_000, 5),
        ("12 ms at 20,000", 20_000, 12),
    ] {
        let packets = packets(rate, interval_ms, 400);
        for level in [1, 6] {
            check(&packets, level);
            let mut compressor = Compressor::new(level);
            let costs = [
                measure(&packets, copied),
                measure(&packets, |packets| once(packets, &mut compressor)),
                measure(&packets, |packets| each(packets, level).iter().map(Vec::len).sum()),
            ];
            let bytes = costs.each_ref().map(|cost| (cost.bytes / packets.len()).to_string());
            let ns = costs
                .each_ref()
                .map(|Cost { ns: [median, least, most], .. }| format!("{median:.0} ({least:.0} to {most:.0})"));
            let delivery = [1.0, 100.0, 1000.0].map(|members| format!("{:.0}", costs[1].ns[0] / members));
            println!("| {name} | {level} | {} | {} | {} |", bytes.join(" | "), ns.join(" | "), delivery.join(" / "));
        }
    }
    let mib = |compressors: usize| (compressors * COMPRESSOR_BYTES) as f64 / f64::from(1 << 20);
    println!("\ncompressors of 1,000 connections: once {:.1} MiB, each {:.0} MiB", mib(1), mib(1000));
}
