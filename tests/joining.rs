//! Where the snapshot and the live stream meet: a client gets every record once, and in order.

use tickcast::io::{Completion, Completions, Io, Seat, Send, Short};
use tickcast::market::Instrument;
use tickcast::market::record::{self, Channel, Header, Kind, Quote, Trade};
use tickcast::ring::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Settings, Shard};
use tickcast::wire::packet;
use tickcast::ws::frame::{Opcode, push_masked_frame};

const START_NS: u64 = 1_763_700_000_000_000_000;
const MS: u64 = 1_000_000;

/// Takes everything, and keeps it for each seat.
#[derive(Default)]
struct Sockets {
    sent: Vec<Vec<u8>>,
    inbox: Vec<(Seat, Vec<u8>)>,
}

impl Io for Sockets {
    fn send_batch(&mut self, bytes: &[u8], sends: &[Send], _short: &mut Vec<Short>) {
        for send in sends {
            self.sent[send.seat.slot as usize].extend_from_slice(&bytes[send.start as usize..][..send.len as usize]);
        }
    }

    fn receive(&mut self, _seat: Seat) {}

    fn want_writable(&mut self, _seat: Seat) {}

    fn close(&mut self, seat: Seat) {
        panic!("{seat:?} is closed");
    }

    fn reap(&mut self, _completions_max: usize, out: &mut Completions) {
        for (seat, bytes) in self.inbox.drain(..) {
            let (start, len) = (out.input.len() as u32, bytes.len() as u32);
            out.input.extend_from_slice(&bytes);
            out.list.push(Completion::Received { seat, start, len, more: false });
        }
    }
}

struct Node {
    sequencer: Sequencer,
    shard: Shard<Sockets>,
    now_ns: u64,
}

impl Node {
    fn new(instruments: u32) -> Self {
        let (writer, reader) = ring(1 << 22);
        let mut node = Self {
            sequencer: Sequencer::new(vec![writer], instruments as usize),
            shard: Shard::new(Settings::default(), Sockets::default(), reader),
            now_ns: START_NS + MS,
        };
        let mut batch = Vec::new();
        for id in 1..=instruments {
            record::encode_definition(&Instrument::new(id, &format!("S{id}"), "test", -2, -2), &mut batch);
        }
        node.accept(batch);
        node.settle();
        node
    }

    fn accept(&mut self, mut batch: Vec<u8>) {
        self.sequencer.accept(0, &mut batch, self.now_ns);
    }

    fn trade(&mut self, instrument: u32) {
        let mut batch = Vec::new();
        let trade = Trade { px: 10, sz: 1, trade_id: 1, side: b'B' };
        trade.encode(&Header::of_feed(Kind::Trade, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    fn quote(&mut self, instrument: u32) {
        let mut batch = Vec::new();
        let quote = Quote { bid_px: 10, bid_sz: 1, ask_px: 11, ask_sz: 1 };
        quote.encode(&Header::of_feed(Kind::Quote, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    fn turn(&mut self) -> bool {
        self.shard.turn(self.now_ns)
    }

    fn settle(&mut self) {
        while self.turn() {}
    }

    /// A client that has been welcomed, and whose request comes with the next turn.
    fn client(&mut self, request: &str) -> usize {
        let slot = self.shard.io().sent.len();
        let seat = Seat { slot: slot as u32, generation: 0 };
        self.shard.io_mut().sent.push(Vec::new());
        self.shard.open(seat, &[], &[], self.now_ns);
        self.settle();
        let mut frame = Vec::new();
        push_masked_frame(Opcode::Text, request.as_bytes(), [1, 2, 3, 4], &mut frame);
        self.shard.io_mut().inbox.push((seat, frame));
        slot
    }

    /// Channel, instrument and sequence of all that a client was sent.
    fn received(&self, slot: usize) -> Vec<(Channel, u32, u64)> {
        let mut records = Vec::new();
        let mut rest = &self.shard.io().sent[slot][..];
        while !rest.is_empty() {
            let (start, length) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                127 => (10, u64::from_be_bytes(rest[2..10].try_into().expect("eight bytes")) as usize),
                short => (2, usize::from(short)),
            };
            let payload = &rest[start..][..length];
            if rest[0] & 0x0f == 2 {
                records.extend(record::records(&payload[packet::HEADER_BYTES..]).filter_map(|(header, _)| {
                    Some((Kind::from_wire(header.kind)?.channel()?, header.instrument, header.sequence))
                }));
            }
            rest = &rest[start + length..];
        }
        records
    }
}

fn assert_each_once_and_in_order(received: &[(Channel, u32, u64)]) {
    for (at, (channel, instrument, sequence)) in received.iter().enumerate() {
        let later = received[at + 1..].iter().find(|(c, i, s)| (c, i) == (channel, instrument) && s <= sequence);
        assert_eq!(later, None, "{channel:?} {sequence} of instrument {instrument} is followed by it");
    }
}

#[test]
fn a_trade_amid_a_snapshot_in_pieces_comes_once() {
    const INSTRUMENTS: u32 = 3_000;
    let mut node = Node::new(INSTRUMENTS);
    (1..=INSTRUMENTS).for_each(|id| node.trade(id));
    node.settle();
    let slot = node.client(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["*"]}"#);
    node.turn();
    let first_piece = node.received(slot).len();
    assert!((1..INSTRUMENTS as usize).contains(&first_piece), "the snapshot takes several turns, not {first_piece}");
    node.trade(INSTRUMENTS);
    node.trade(INSTRUMENTS);
    node.settle();
    node.trade(INSTRUMENTS);
    node.settle();
    let received = node.received(slot);
    assert_each_once_and_in_order(&received);
    let of_last: Vec<u64> = received.iter().filter(|(_, id, _)| *id == INSTRUMENTS).map(|(_, _, s)| *s).collect();
    assert_eq!(of_last, [2, 3, 4], "what came after the request, and nothing twice");
    assert_eq!(received.len(), INSTRUMENTS as usize - 1 + 3);
}

#[test]
fn a_pending_quote_that_the_snapshot_held_does_not_come_again_before_a_trade() {
    let mut node = Node::new(1);
    let request = r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["S1"],"conflate_ms":100}"#;
    let early = node.client(request);
    node.settle();
    node.quote(1);
    node.settle();
    let late = node.client(request);
    node.settle();
    node.trade(1);
    node.settle();
    assert_eq!(node.received(early), [(Channel::Quote, 1, 1), (Channel::Trade, 1, 1)]);
    assert_eq!(node.received(late), [(Channel::Quote, 1, 1), (Channel::Trade, 1, 1)]);
}
