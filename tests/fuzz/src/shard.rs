//! A whole shard with simulated sockets: clients that send requests and garbage, stop reading and disconnect, a feed, a
//! ring that overruns, and time.
//!
//! Input: decisions, a byte each, followed by their arguments. A decision that does not apply has no effect.
//!
//! What must hold: nothing panics; clients receive valid frames, and packets with the right number of records; no
//! record comes before its Definition; positions of live packets never go back; a log channel has no gap without a Gap
//! record, as long as the client does not change its subscription; and when all clients have disconnected, none is
//! left.

use std::collections::{HashMap, HashSet};

use tickcast::shard::Settings;
use tickcast_protocol::control::{ChannelSet, resume_text, subscribe_text, unsubscribe_text};
use tickcast_protocol::packet::{PacketHeader, flags};
use tickcast_protocol::record::{Gap, RecordHeader, read_definition};
use tickcast_protocol::{Channel, Position, RecordKind, Sequence, Token};

use tickcast_test_support::node::{Message, Node};

use super::Script;

const CLIENTS_MAX: u32 = 5;
const INSTRUMENTS: u32 = 2;
const INSTRUMENTS_MAX: u32 = 6;
const INPUT_BYTES_MAX: usize = 2048;
/// A ring that a burst of trades overruns.
const RING_BYTES: usize = 1 << 14;
const BURST: usize = 300;
const SYMBOLS: [&str; 8] = ["S1", "S2", "S3", "S*", "*", "S1*", "S", "X"];
const INTERVALS_MS: [u32; 4] = [0, 10, 100, 1000];
const SECOND_NS: u64 = 1_000_000_000;
const ALL_BYTES: usize = 1 << 30;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let mut shard = ScriptedShard::new(script.byte());
    while !script.is_done() {
        shard.decide(&mut script);
        shard.tick();
    }
    shard.end();
}

/// What a client has requested so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Requests {
    #[default]
    Nothing,
    /// One subscription and nothing else: its log channels are checked.
    Once,
    /// More than that: its log channels are not checked.
    Changed,
}

struct ScriptedShard {
    node: Node,
    clients: Vec<Requests>,
    gone: HashSet<u32>,
    instruments: u32,
}

impl ScriptedShard {
    /// `kind` chooses the limits: the defaults, or small ones that are reached at once.
    fn new(kind: u8) -> Self {
        let mut settings = Settings { backlog_bytes_max: 1 << 13, ..Settings::default() };
        if kind & 1 == 1 {
            settings.subscriptions_max = 3;
            settings.requests_per_s = 1;
            settings.request_bytes_max = 200;
            settings.answers_bytes_max = 600;
        }
        if kind & 2 == 2 {
            settings.tick_bytes_max = 512;
        }
        let node = Node::with_settings(INSTRUMENTS, RING_BYTES, settings);
        Self { node, clients: Vec::new(), gone: HashSet::new(), instruments: INSTRUMENTS }
    }

    fn decide(&mut self, script: &mut Script<'_>) {
        match script.byte() % 14 {
            0 => self.open(),
            1 => self.subscribe(script),
            2 => self.unsubscribe_or_resume(script),
            3 => {
                let (client, length) = (self.client(script), script.byte());
                let text = String::from_utf8_lossy(script.bytes(length.into())).into_owned();
                self.with(client, Requests::Changed, |node, client| node.send_text(client, &text));
            }
            4 => {
                let (client, length) = (self.client(script), script.byte());
                let bytes = script.bytes(length.into());
                self.with(client, Requests::Changed, |node, client| node.send_bytes(client, bytes));
            }
            5 => {
                let (client, room) = (self.client(script), script.short());
                self.with(client, Requests::Nothing, |node, client| node.limit_socket(client, room.into()));
            }
            6 => {
                let client = self.client(script);
                self.with(client, Requests::Nothing, Node::disconnect);
                self.gone.extend(client);
            }
            7 => self.node.trade(self.instrument(script)),
            8 => self.node.quote(self.instrument(script)),
            9 => {
                let (instrument, shape) = (self.instrument(script), script.byte());
                self.node.book(instrument, shape & 1 == 1, (shape >> 4).into(), (shape >> 1 & 3).into());
            }
            10 => self.define(),
            11 => self.burst(script),
            12 => self.node.advance_ms(u64::from(script.byte()) % 16),
            _ => self.node.now_ns += u64::from(script.byte()) * SECOND_NS / 2,
        }
    }

    fn open(&mut self) {
        if (self.clients.len() as u32) < CLIENTS_MAX {
            self.node.connect();
            self.clients.push(Requests::Nothing);
        }
    }

    fn client(&self, script: &mut Script<'_>) -> Option<u32> {
        let clients = self.clients.len() as u32;
        let client = u32::from(script.byte()).checked_rem(clients)?;
        (!self.gone.contains(&client)).then_some(client)
    }

    /// Acts for a connected client, and updates its requests.
    fn with(&mut self, client: Option<u32>, requests: Requests, act: impl FnOnce(&mut Node, u32)) {
        let Some(client) = client else { return };
        let state = &mut self.clients[client as usize];
        *state = match (*state, requests) {
            (kept, Requests::Nothing) => kept,
            (Requests::Nothing, requests) => requests,
            _ => Requests::Changed,
        };
        act(&mut self.node, client);
    }

    fn instrument(&self, script: &mut Script<'_>) -> u32 {
        1 + u32::from(script.byte()) % self.instruments
    }

    fn subscribe(&mut self, script: &mut Script<'_>) {
        let (client, channels, symbols) = (self.client(script), channels(script), symbols(script));
        let shape = script.byte();
        let conflate_ms = INTERVALS_MS[usize::from(shape >> 1) % INTERVALS_MS.len()];
        let text = subscribe_text(1, channels, &symbols, conflate_ms, shape & 1 == 1);
        self.with(client, Requests::Once, |node, client| node.send_text(client, &text));
    }

    fn unsubscribe_or_resume(&mut self, script: &mut Script<'_>) {
        let (client, channels, symbols) = (self.client(script), channels(script), symbols(script));
        let (shape, back) = (script.byte(), script.byte());
        let text = if shape & 1 == 1 {
            unsubscribe_text(2, channels, &symbols)
        } else {
            let conflate_ms = INTERVALS_MS[usize::from(shape >> 1) % INTERVALS_MS.len()];
            let epoch = 1 + u32::from(shape >> 7);
            let position = self.node.sequencer.position().get().saturating_sub(back.into()).into();
            resume_text(3, Token { epoch, position }, channels, &symbols, conflate_ms)
        };
        self.with(client, Requests::Changed, |node, client| node.send_text(client, &text));
    }

    fn define(&mut self) {
        if self.instruments < INSTRUMENTS_MAX {
            self.instruments += 1;
            self.node.define(self.instruments);
        }
    }

    /// More trades than the ring holds, or nearly so.
    fn burst(&mut self, script: &mut Script<'_>) {
        let instrument = self.instrument(script);
        for _ in 0..BURST * usize::from(script.byte()) / 255 {
            self.node.trade(instrument);
        }
    }

    /// A tick, and what the runtime does after it.
    fn tick(&mut self) {
        self.node.tick();
        if self.node.shard.wants_resync() {
            self.node.sequencer.request_resync(0);
            self.node.shard.resync_requested();
        }
        self.node.sequencer.advance_resyncs();
    }

    fn end(mut self) {
        for client in (0..self.clients.len() as u32).filter(|client| !self.gone.contains(client)) {
            self.node.limit_socket(client, ALL_BYTES);
        }
        for _ in 0..4 {
            self.node.advance_ms(1);
            self.tick();
        }
        for (client, requests) in (0..).zip(&self.clients) {
            check(&self.node.received(client), *requests);
        }
        for client in (0..self.clients.len() as u32).filter(|client| !self.gone.contains(client)) {
            self.node.disconnect(client);
        }
        assert_eq!(self.node.shard.clients(), 0, "all clients have gone");
    }
}

fn channels(script: &mut Script<'_>) -> ChannelSet {
    let bits = script.byte();
    Channel::ALL.into_iter().filter(|channel| bits >> *channel as u8 & 1 == 1).collect()
}

fn symbols(script: &mut Script<'_>) -> Vec<&'static str> {
    let bits = script.byte();
    (0..SYMBOLS.len()).filter(|nth| bits >> nth & 1 == 1).map(|nth| SYMBOLS[nth]).collect()
}

/// Checks all messages that a client received.
fn check(messages: &[Message], requests: Requests) {
    let mut stream = ReceivedStream::default();
    for (nth, message) in messages.iter().enumerate() {
        match message {
            Message::Text(text) => assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}"),
            Message::Packet { header, records } => stream.packet(header, records, requests),
            Message::Close(_) => assert_eq!(nth + 1, messages.len(), "a close frame is the last message"),
        }
    }
}

#[derive(Default)]
struct ReceivedStream {
    position: Position,
    defined: HashSet<u32>,
    logs: HashMap<(u32, Channel), Sequence>,
}

impl ReceivedStream {
    fn packet(&mut self, header: &PacketHeader, records: &[(RecordHeader, Vec<u8>)], requests: Requests) {
        assert_eq!(usize::from(header.count), records.len(), "a packet counts its records");
        let may_be_empty = header.flags & flags::CAUGHT_UP != 0;
        assert!(may_be_empty || !records.is_empty(), "an empty packet with flags {:#x}", header.flags);
        if header.flags & (flags::SNAPSHOT | flags::REPLAY) == 0 {
            assert!(header.position >= self.position, "{} after {}", header.position, self.position);
            self.position = header.position;
        }
        for (header, record) in records {
            self.record(header, record, requests);
        }
    }

    fn record(&mut self, header: &RecordHeader, record: &[u8], requests: Requests) {
        let kind = RecordKind::from_wire(header.kind).expect("a kind that is known");
        if kind == RecordKind::Definition {
            self.defined.insert(read_definition(record).expect("a definition").id);
        }
        let known = header.instrument == 0 || self.defined.contains(&header.instrument);
        assert!(known, "a {kind:?} of {} before its definition", header.instrument);
        if requests != Requests::Once {
            return;
        }
        let (channel, from, to) = match kind {
            RecordKind::Trade | RecordKind::Raw => {
                (kind.channel().expect("both belong to a channel"), header.sequence, header.sequence)
            }
            RecordKind::Gap => {
                let gap = Gap::read(record).expect("a gap");
                (gap.channel, gap.from_sequence, gap.to_sequence)
            }
            _ => return,
        };
        // The first record may have any sequence: those before the subscription are not a loss.
        match self.logs.insert((header.instrument, channel), to) {
            Some(last) => assert_eq!(from, last.next(), "{channel:?} of {}", header.instrument),
            None => assert!(to >= from),
        }
    }
}
