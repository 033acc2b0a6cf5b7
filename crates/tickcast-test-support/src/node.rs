//! A sequencer and a shard over sockets that keep what they are sent, driven by a clock of the test's own.

use std::collections::HashMap;

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast::ring::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Settings, Shard};
use tickcast_protocol::Instrument;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, BOOK_DELTA, BOOK_SNAPSHOT, Level, Quote, RecordHeader, RecordKind, Trade};
use tickcast_protocol::ws::frame::{Opcode, push_masked_frame};
use tickcast_protocol::ws::session::{Role, Session, SessionEvent, SessionLimits};

pub const START_NS: u64 = 1_763_700_000_000_000_000;
pub const MS: u64 = 1_000_000;

/// Keeps for each seat what was sent, as far as it was told that there is room.
#[derive(Default)]
pub struct Sockets {
    sent: HashMap<u32, Vec<u8>>,
    /// Bytes that a seat still takes; without an entry, all.
    room: HashMap<u32, usize>,
    inbox: Vec<Completion>,
    input: HashMap<u32, Vec<u8>>,
}

impl Io for Sockets {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        for (index, send) in (0..).zip(sends) {
            let payload = &bytes[send.start as usize..][..send.len as usize];
            let room = self.room.get_mut(&send.slot_id.index);
            let taken = room.as_deref().copied().unwrap_or(usize::MAX).min(payload.len());
            if let Some(room) = room {
                *room -= taken;
            }
            self.sent.entry(send.slot_id.index).or_default().extend_from_slice(&payload[..taken]);
            if taken < payload.len() {
                short.push(ShortSend { index, outcome: SendOutcome::Took(taken as u32) });
            }
        }
    }

    fn receive(&mut self, _seat: SlotId) {}

    fn want_writable(&mut self, _seat: SlotId) {}

    fn close(&mut self, _seat: SlotId) {}

    fn reap(&mut self, _completions_max: usize, out: &mut Completions) {
        for completion in self.inbox.drain(..) {
            let completion = match completion {
                Completion::Readable { slot_id } => {
                    let input = self.input.remove(&slot_id.index).unwrap_or_default();
                    let (start, len) = (out.input.len() as u32, input.len() as u32);
                    out.input.extend_from_slice(&input);
                    Completion::Received { slot_id, start, len, more: false }
                }
                other => other,
            };
            out.list.push(completion);
        }
    }
}

/// What a client got in one message.
#[derive(Clone, Debug)]
pub enum Message {
    /// A control frame's text.
    Text(String),
    /// A packet.
    Packet { header: PacketHeader, records: Vec<(RecordHeader, Vec<u8>)> },
    /// The code of a close frame.
    Close(u16),
}

/// One core, and what feeds it.
pub struct Node {
    pub sequencer: Sequencer,
    pub shard: Shard<Sockets>,
    pub now_ns: u64,
    clients: u32,
}

impl Node {
    /// A node with this many instruments, called `S1`, `S2` and so on.
    pub fn new(instruments: u32) -> Self {
        Self::with(instruments, 1 << 22, Settings::default())
    }

    pub fn with(instruments: u32, ring_bytes: usize, settings: Settings) -> Self {
        let (writer, reader) = ring(ring_bytes);
        let mut node = Self {
            sequencer: Sequencer::new(vec![writer], 1 << 20),
            shard: Shard::new(settings, Sockets::default(), reader),
            now_ns: START_NS + MS,
            clients: 0,
        };
        for id in 1..=instruments {
            node.define(id);
        }
        node.settle();
        node
    }

    pub fn define(&mut self, id: u32) {
        let mut batch = Vec::new();
        record::encode_definition(&Instrument::new(id, &format!("S{id}"), "test", -2, -2), &mut batch);
        self.accept(batch);
    }

    pub fn accept(&mut self, mut batch: Vec<u8>) {
        self.sequencer.accept(0, &mut batch, self.now_ns);
    }

    pub fn trade(&mut self, instrument: u32) {
        let mut batch = Vec::new();
        let trade = Trade { px: 10, sz: 1, trade_id: 1, side: b'B' };
        trade.encode(&RecordHeader::of_feed(RecordKind::Trade, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    pub fn quote(&mut self, instrument: u32) {
        let mut batch = Vec::new();
        let quote = Quote { bid_px: 10, bid_sz: 1, ask_px: 11, ask_sz: 1 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    /// A whole book of one level, or a change of one.
    pub fn book(&mut self, instrument: u32, whole: bool, px: i64, sz: i64) {
        let mut batch = Vec::new();
        let kind = if whole { BOOK_SNAPSHOT } else { BOOK_DELTA };
        let header = RecordHeader::of_feed(RecordKind::Book, instrument, self.now_ns);
        record::encode_book(&header, kind, [Level { px, sz, side: b'B' }].into_iter(), &mut batch);
        self.accept(batch);
    }

    pub fn tick(&mut self) -> bool {
        self.shard.tick(self.now_ns)
    }

    /// Turns until there is nothing to do.
    pub fn settle(&mut self) {
        while self.tick() {}
    }

    /// Lets time pass, a millisecond a turn.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ns += MS;
            self.settle();
        }
    }

    /// A client that has been welcomed, and whose request comes with the next turn.
    pub fn client(&mut self, request: &str) -> u32 {
        let slot = self.open();
        self.settle();
        self.say(slot, request);
        slot
    }

    /// A client that has asked nothing yet.
    pub fn open(&mut self) -> u32 {
        let slot = self.clients;
        self.clients += 1;
        self.shard.open(slot_id(slot), &[], &[], self.now_ns);
        slot
    }

    /// Has a client's request come with the next turn.
    pub fn say(&mut self, slot: u32, request: &str) {
        let io = self.shard.io_mut();
        push_masked_frame(Opcode::Text, request.as_bytes(), [1, 2, 3, 4], io.input.entry(slot).or_default());
        io.inbox.push(Completion::Readable { slot_id: slot_id(slot) });
    }

    /// Has bytes come from a client with the next turn, whatever they are.
    pub fn feed(&mut self, slot: u32, bytes: &[u8]) {
        let io = self.shard.io_mut();
        io.input.entry(slot).or_default().extend_from_slice(bytes);
        io.inbox.push(Completion::Readable { slot_id: slot_id(slot) });
    }

    /// From now on the client's socket takes so much and no more.
    pub fn give_room(&mut self, slot: u32, bytes: usize) {
        let io = self.shard.io_mut();
        io.room.insert(slot, bytes);
        io.inbox.push(Completion::Writable { slot_id: slot_id(slot) });
    }

    /// The client is gone.
    pub fn end(&mut self, slot: u32) {
        self.shard.io_mut().inbox.push(Completion::Ended { slot_id: slot_id(slot) });
        self.settle();
    }

    /// The whole messages that a client was sent up to now.
    pub fn received(&self, slot: u32) -> Vec<Message> {
        let mut bytes = self.shard.io().sent.get(&slot).cloned().unwrap_or_default();
        let mut session = Session::new(Role::Client);
        let mut messages = Vec::new();
        let mut at = 0;
        loop {
            let mut consumed = 0;
            let limits = SessionLimits { message_bytes_max: 1 << 26 };
            let event = session.next(&limits, &mut bytes[at..], &mut consumed).expect("frames");
            at += consumed;
            match event {
                None => return messages,
                Some(SessionEvent::Text(text)) => {
                    messages.push(Message::Text(String::from_utf8_lossy(text).into_owned()))
                }
                Some(SessionEvent::Binary(bytes)) => {
                    let header = PacketHeader::read(bytes).expect("a packet");
                    let records = record::records(&bytes[packet::HEADER_BYTES..]);
                    let records = records.map(|(header, record)| (header, record.to_vec())).collect();
                    messages.push(Message::Packet { header, records });
                }
                Some(SessionEvent::Close(frame)) => {
                    messages.push(Message::Close(frame.map_or(1005, |frame| frame.code.0)))
                }
                Some(SessionEvent::Ping(_) | SessionEvent::Pong(_)) => {}
            }
        }
    }
}

fn slot_id(slot: u32) -> SlotId {
    SlotId { index: slot, generation: 0 }
}
