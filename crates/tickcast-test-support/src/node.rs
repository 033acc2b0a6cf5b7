//! A sequencer and one shard in the test's thread, over sockets in memory and with a clock that the test sets.

use std::collections::{HashMap, HashSet};

use tickcast::io::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};
use tickcast::ring::{Writer, ring};
use tickcast::sequencer::{OwnerId, OwnerLimits, Sequencer, SourceIdentity};
use tickcast::shard::{Encoding, Settings, Shard};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, RecordKind, Trade};
use tickcast_protocol::ws::{Opcode, Role, Session, SessionEvent, SessionLimits, push_masked_frame};
use tickcast_protocol::{BookAction, BookSide, Instrument, Side};

pub const START_NS: u64 = 1_763_700_000_000_000_000;
pub const MS: u64 = 1_000_000;

/// Sockets in memory: for each slot the bytes sent, up to the limit that the test sets.
#[derive(Default)]
pub struct MemorySockets {
    sent: HashMap<u32, Vec<u8>>,
    /// Bytes that a socket still takes; without an entry, all.
    writable_bytes: HashMap<u32, usize>,
    /// Sockets that take bytes, but of which the kernel says that they have no room, as with TCP_NOTSENT_LOWAT.
    congested: HashSet<u32>,
    inbox: Vec<Completion>,
    input: HashMap<u32, Vec<u8>>,
}

impl Io for MemorySockets {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        for (index, send) in (0..).zip(sends) {
            let payload = &bytes[send.start as usize..][..send.len as usize];
            let room = self.writable_bytes.get_mut(&send.slot_id.index);
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

    fn receive(&mut self, _slot_id: SlotId) {}

    fn want_writable(&mut self, slot_id: SlotId) {
        let has_room = self.writable_bytes.get(&slot_id.index) != Some(&0);
        if has_room && !self.congested.contains(&slot_id.index) {
            self.inbox.push(Completion::Writable { slot_id });
        }
    }

    fn close(&mut self, _slot_id: SlotId) {}

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

/// A message that a client received.
#[derive(Clone, Debug)]
pub enum Message {
    /// A reply.
    Text(String),
    Packet {
        header: PacketHeader,
        records: Vec<(RecordHeader, Vec<u8>)>,
    },
    /// The code of a close frame; 1005 for none.
    Close(u16),
}

/// The identity that sources of one publisher share.
pub fn shared_identity(priority: u8) -> SourceIdentity {
    SourceIdentity { owner: OwnerId::publisher(0), priority, limits: OwnerLimits::NONE }
}

/// A sequencer and one shard.
pub struct Node {
    pub sequencer: Sequencer,
    pub shard: Shard<MemorySockets>,
    pub now_ns: u64,
    clients: u32,
}

impl Node {
    /// A node with this many instruments: `S1`, `S2` and so on.
    pub fn new(instruments: u32) -> Self {
        Self::with_settings(instruments, 1 << 22, Settings::default())
    }

    pub fn with_settings(instruments: u32, ring_bytes: usize, settings: Settings) -> Self {
        Self::with_sequencer(instruments, ring_bytes, settings, |writer| Sequencer::new(vec![writer], 1 << 20))
    }

    /// A node whose sources `0` and `others` are connections of one publisher.
    pub fn with_sharing_sources(instruments: u32, others: &[u32]) -> Self {
        Self::with_sequencer(instruments, 1 << 22, Settings::default(), |writer| {
            let mut sequencer = Sequencer::new(vec![writer], 1 << 20);
            for source in [&[0], others].concat() {
                sequencer.open_source(source, shared_identity(0));
            }
            sequencer
        })
    }

    /// The same with a sequencer that `make` makes for the shard's ring.
    pub fn with_sequencer(
        instruments: u32,
        ring_bytes: usize,
        settings: Settings,
        make: impl FnOnce(Writer) -> Sequencer,
    ) -> Self {
        let (writer, reader) = ring(ring_bytes);
        let mut node = Self {
            sequencer: make(writer),
            shard: Shard::new(settings, MemorySockets::default(), reader),
            now_ns: START_NS + MS,
            clients: 0,
        };
        for id in 1..=instruments {
            node.define(id);
        }
        node.run_until_idle();
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
        let trade = Trade { px: 10, sz: 1, trade_id: 1, side: Side::Buy };
        trade.encode(&RecordHeader::of_feed(RecordKind::Trade, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    pub fn quote(&mut self, instrument: u32) {
        let mut batch = Vec::new();
        let quote = Quote { bid_px: 10, bid_sz: 1, ask_px: 11, ask_sz: 1 };
        quote.encode(&RecordHeader::of_feed(RecordKind::Quote, instrument, self.now_ns), &mut batch);
        self.accept(batch);
    }

    /// A snapshot of a book of one level, or a change of one level.
    pub fn book(&mut self, instrument: u32, is_snapshot: bool, px: i64, sz: i64) {
        let mut batch = Vec::new();
        let action = if is_snapshot { BookAction::Snapshot } else { BookAction::Delta };
        let header = RecordHeader::of_feed(RecordKind::Book, instrument, self.now_ns);
        record::encode_book(&header, action, [Level { px, sz, side: BookSide::Bid }].into_iter(), &mut batch);
        self.accept(batch);
    }

    pub fn tick(&mut self) -> bool {
        self.shard.tick(self.now_ns)
    }

    /// Ticks until there is nothing to do.
    pub fn run_until_idle(&mut self) {
        while self.tick() {}
    }

    /// Advances the clock, and ticks every millisecond.
    pub fn advance_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ns += MS;
            self.run_until_idle();
        }
    }

    /// Advances the clock, and ticks every second: the longest time that a shard does not run without a pause.
    pub fn advance_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ns += 1000 * MS;
            self.run_until_idle();
        }
    }

    /// A client that was welcomed, and whose request is read in the next tick.
    pub fn client(&mut self, request: &str) -> u32 {
        let slot = self.connect();
        self.run_until_idle();
        self.send_text(slot, request);
        slot
    }

    /// A client that has sent nothing yet.
    pub fn connect(&mut self) -> u32 {
        self.connect_as(Encoding::PLAIN)
    }

    /// The same with another encoding.
    pub fn connect_as(&mut self, encoding: Encoding) -> u32 {
        let slot = self.clients;
        self.clients += 1;
        self.shard.open_as(slot_id(slot), encoding, &[], &[], self.now_ns);
        slot
    }

    /// A client's request, read in the next tick.
    pub fn send_text(&mut self, slot: u32, request: &str) {
        let io = self.shard.io_mut();
        push_masked_frame(Opcode::Text, request.as_bytes(), [1, 2, 3, 4], io.input.entry(slot).or_default());
        io.inbox.push(Completion::Readable { slot_id: slot_id(slot) });
    }

    /// Any bytes of a client, read in the next tick.
    pub fn send_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let io = self.shard.io_mut();
        io.input.entry(slot).or_default().extend_from_slice(bytes);
        io.inbox.push(Completion::Readable { slot_id: slot_id(slot) });
    }

    /// From now on the client's socket takes this many bytes.
    pub fn limit_socket(&mut self, slot: u32, bytes: usize) {
        let io = self.shard.io_mut();
        io.writable_bytes.insert(slot, bytes);
        io.inbox.push(Completion::Writable { slot_id: slot_id(slot) });
    }

    /// The client's socket takes all bytes, and has room now, but not again by itself.
    pub fn congest_socket(&mut self, slot: u32) {
        self.shard.io_mut().congested.insert(slot);
        self.limit_socket(slot, usize::MAX);
    }

    /// The client belongs to an address that is not exempt from limits.
    pub fn set_account(&mut self, slot: u32, key: u64) {
        self.shard.set_account(slot_id(slot), key);
    }

    /// The client ends its connection, which is noticed in the next tick.
    pub fn end(&mut self, slot: u32) {
        self.shard.io_mut().inbox.push(Completion::Ended { slot_id: slot_id(slot) });
    }

    /// The client ends its connection.
    pub fn disconnect(&mut self, slot: u32) {
        self.end(slot);
        self.run_until_idle();
    }

    /// The complete messages that a client was sent so far.
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

    /// The text messages that a client was sent so far.
    pub fn received_text(&self, slot: u32) -> String {
        let texts = self.received(slot).into_iter().filter_map(|message| match message {
            Message::Text(text) => Some(text + "\n"),
            _ => None,
        });
        texts.collect()
    }
}

fn slot_id(slot: u32) -> SlotId {
    SlotId { index: slot, generation: 0 }
}
