//! A sequencer, its ring and a shard on an `Io` that takes every byte at once, for the benches of the fan-out.

pub mod shapes;

use std::hint::black_box;

use tickcast::io::{Completion, Completions, Io, SendOp, ShortSend, SlotId};
use tickcast::ring::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Encoding, Format, Settings, Shard};
use tickcast_protocol::control::RequestLimits;
use tickcast_protocol::record::{self, Quote, RecordHeader, RecordKind};
use tickcast_protocol::ws::{Opcode, push_masked_frame};
use tickcast_protocol::{Instrument, sse};

const RING_BYTES: usize = 64 << 20;
const FLUSH_NS: u64 = 1_000;
const START_NS: u64 = 1_763_700_000_000_000_000;
/// Clients connect in waves of this many, as in a tick of the server: memory that a client needs only while it
/// subscribes is used again by the next wave, and does not count as a client's.
const WAVE: u32 = 1_000;

/// An `Io` that takes every byte at once.
#[derive(Default)]
pub struct NullIo {
    /// Input that the next calls of `reap` return.
    pub inbox: Vec<(SlotId, Vec<u8>)>,
    pub sends: u64,
}

impl Io for NullIo {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], _short: &mut Vec<ShortSend>) {
        black_box(bytes);
        self.sends += black_box(sends).len() as u64;
    }

    fn receive(&mut self, _slot_id: SlotId) {}

    fn want_writable(&mut self, _slot_id: SlotId) {}

    fn close(&mut self, slot_id: SlotId) {
        panic!("{slot_id:?} was closed: expected no close in a bench");
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        let from = self.inbox.len().saturating_sub(completions_max);
        for (slot_id, bytes) in self.inbox.drain(from..) {
            let (start, len) = (out.input.len() as u32, bytes.len() as u32);
            out.input.extend_from_slice(&bytes);
            out.list.push(Completion::Received { slot_id, start, len, more: false });
        }
    }
}

pub fn symbol(instrument: u32) -> String {
    format!("S{instrument:05}")
}

pub fn subscribe(symbols: &[String], conflate_ms: u32) -> Vec<u8> {
    let names = serde_json::to_string(symbols).expect("names are text");
    let request = format!(
        r#"{{"op":"subscribe","id":1,"channels":["quote"],"symbols":{names},"conflate_ms":{conflate_ms},"snapshot":false}}"#
    );
    let mut frame = Vec::new();
    push_masked_frame(Opcode::Text, request.as_bytes(), [1, 2, 3, 4], &mut frame);
    frame
}

/// A sequencer, its ring and a shard, and their time.
pub struct Node {
    sequencer: Sequencer,
    pub shard: Shard<NullIo>,
    pub now_ns: u64,
    batch: Vec<u8>,
    quotes: u64,
}

impl Node {
    pub fn new(instruments: u32) -> Self {
        Self::with_rings(instruments, 1)
    }

    /// With more rings than the one that the shard reads: those of other shards, without their readers.
    pub fn with_rings(instruments: u32, rings: usize) -> Self {
        let (writer, reader) = ring(RING_BYTES);
        let others = (1..rings).map(|_| ring(RING_BYTES).0);
        let writers = std::iter::once(writer).chain(others).collect();
        let never = u32::MAX;
        let settings = Settings {
            ping_interval_ms: never,
            idle_timeout_ms: never,
            slow_timeout_ms: never,
            requests_per_s: 1_000_000,
            tick_bytes_max: RING_BYTES,
            ..Settings::default()
        };
        let mut node = Self {
            sequencer: Sequencer::new(writers, instruments as usize),
            shard: Shard::new(settings, NullIo::default(), reader),
            now_ns: START_NS,
            batch: Vec::new(),
            quotes: 0,
        };
        for id in 1..=instruments {
            record::encode_definition(&Instrument::new(id, &symbol(id), "bench", -2, -2), &mut node.batch);
        }
        node.flush();
        node.settle();
        node
    }

    /// With clients that each send their own request.
    pub fn with_clients(instruments: u32, clients: u32, mut request: impl FnMut(u32) -> Vec<u8>) -> Self {
        Self::with(instruments, clients, |node, slot_id| {
            node.shard.open(slot_id, &[], &request(slot_id.index), node.now_ns)
        })
    }

    /// With clients that subscribe to the quotes of all instruments, in this encoding.
    pub fn with_audience(instruments: u32, clients: u32, encoding: Encoding) -> Self {
        let request = subscribe(&["*".to_owned()], 0);
        let limits = RequestLimits { symbols_max: 10, symbol_bytes_max: 10 };
        let asked = sse::parse_query("symbols=*&channels=quote&snapshot=false", None, &limits).expect("a valid query");
        Self::with(instruments, clients, |node, slot_id| match encoding.format {
            Format::Events => node.shard.open_events(slot_id, b"HTTP/1.1 200 OK\r\n\r\n", asked.clone(), node.now_ns),
            _ => node.shard.open_as(slot_id, encoding, &[], &request, node.now_ns),
        })
    }

    fn with(instruments: u32, clients: u32, mut open: impl FnMut(&mut Self, SlotId)) -> Self {
        let mut node = Self::new(instruments);
        for slot in 0..clients {
            open(&mut node, SlotId { index: slot, generation: 0 });
            if (slot + 1).is_multiple_of(WAVE) {
                node.settle();
            }
        }
        node.settle();
        node
    }

    pub fn quote(&mut self, instrument: u32) {
        self.quotes += 1;
        let px = 10_000 + (self.quotes % 100) as i64;
        let quote = Quote { bid_px: px, bid_sz: 100, ask_px: px + 1, ask_sz: 200 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, instrument, self.now_ns), &mut self.batch);
    }

    /// Sequences the quotes added since the last flush, and lets the shard send them.
    pub fn flush(&mut self) {
        self.now_ns += FLUSH_NS;
        self.sequencer.accept(0, &mut self.batch, self.now_ns);
        self.batch.clear();
        self.shard.tick(self.now_ns);
    }

    pub fn settle(&mut self) {
        while self.shard.tick(self.now_ns) || !self.shard.io().inbox.is_empty() {}
    }
}
