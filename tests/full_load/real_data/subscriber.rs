//! One client: its requests, the records that it received, and the rules of the protocol, checked on every packet.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use super::truth::{SYMBOLS, Truth};
use super::wire::{self, WirePacket, WireRecord};

/// Channels by their type on the wire, less one.
/// More than the two clocks of a server are adjusted against each other in one run, and less than the shortest interval
/// that is checked.
const CLOCKS_APART_NS: u64 = 20_000_000;
pub const CHANNELS: [&str; 4] = ["quote", "trade", "ticker", "book"];
pub const QUOTE: usize = 0;
pub const TRADE: usize = 1;
pub const TICKER: usize = 2;
pub const BOOK: usize = 3;

/// Sequences that share one digest.
const SEGMENT: u64 = 256;

/// A request of a client.
#[derive(Clone, Debug)]
pub struct PlannedRequest {
    /// It is sent after so many records.
    pub after_records: u64,
    pub subscribe: bool,
    pub channels: &'static [usize],
    pub symbols: &'static [&'static str],
    pub conflate_ms: u64,
    pub snapshot: bool,
}

/// Subscribes at once, with snapshot.
pub fn subscribes(channels: &'static [usize], symbols: &'static [&'static str], conflate_ms: u64) -> PlannedRequest {
    PlannedRequest { after_records: 0, subscribe: true, channels, symbols, conflate_ms, snapshot: true }
}

impl PlannedRequest {
    pub fn after(self, after_records: u64) -> Self {
        Self { after_records, ..self }
    }

    pub fn without_snapshot(self) -> Self {
        Self { snapshot: false, ..self }
    }

    pub fn unsubscribes(self) -> Self {
        Self { subscribe: false, ..self }
    }

    fn request(&self, id: usize) -> String {
        let channels: Vec<_> = self.channels.iter().map(|channel| CHANNELS[*channel]).collect();
        let symbols = self.symbols;
        match self.subscribe {
            true => json!({"op": "subscribe", "id": id, "channels": channels, "symbols": symbols,
                "conflate_ms": self.conflate_ms, "snapshot": self.snapshot}),
            false => json!({"op": "unsubscribe", "id": id, "channels": channels, "symbols": symbols}),
        }
        .to_string()
    }
}

/// A client's progress in a channel of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum ChannelProgress {
    #[default]
    NotSubscribed,
    /// Subscribed, nothing received yet.
    Subscribed { snapshot: bool },
    /// The last received sequence.
    At(u64),
}

/// The state of a channel of an instrument at one client.
#[derive(Debug, Default)]
struct ChannelState {
    progress: ChannelProgress,
    interval_ms: u64,
    /// A snapshot may come after values.
    snapshot_due: bool,
    first_live: Option<u64>,
    /// Number of the interval of the last conflated value, by the server's clock.
    tick: u64,
}

/// A client.
pub struct CheckedClient {
    pub name: String,
    socket: WebSocket<TcpStream>,
    truth: Arc<Truth>,
    steps: Vec<PlannedRequest>,
    /// Requests sent, and those answered.
    sent: usize,
    answered: usize,
    interests: BTreeMap<(String, usize), u64>,
    tracks: Vec<[ChannelState; 4]>,
    definitions: Vec<Option<wire::Definition>>,
    symbols_by_id: Vec<Option<usize>>,
    quotes: Vec<Option<[i64; 4]>>,
    books: Vec<[BTreeMap<i64, i64>; 2]>,
    epoch: u32,
    pub position: u64,
    before: u64,
    digests: HashMap<(usize, usize, u64), u64>,
    pub records: u64,
    pub heartbeats: u64,
    pub conflated: u64,
    pub trades: u64,
    pub first_trades: Vec<u64>,
    pub gaps: u64,
    pub missed: u64,
}

impl CheckedClient {
    /// Connects over `stream`, and sends the first of `steps` after the welcome.
    pub fn connect(name: String, stream: TcpStream, truth: &Arc<Truth>, steps: Vec<PlannedRequest>) -> Self {
        let url = format!("ws://{}/v1/stream", stream.peer_addr().expect("connected"));
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a valid timeout");
        let config = WebSocketConfig::default().read_buffer_size(8192).write_buffer_size(0);
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config)).expect("an upgrade");
        socket.get_ref().set_nonblocking(true).expect("a socket");
        let none = || SYMBOLS.iter();
        Self {
            name,
            socket,
            truth: truth.clone(),
            steps,
            sent: 0,
            answered: 0,
            interests: BTreeMap::new(),
            tracks: none().map(|_| Default::default()).collect(),
            definitions: Vec::new(),
            symbols_by_id: Vec::new(),
            quotes: none().map(|_| None).collect(),
            books: none().map(|_| Default::default()).collect(),
            epoch: 0,
            position: 0,
            before: 0,
            digests: HashMap::new(),
            records: 0,
            heartbeats: 0,
            conflated: 0,
            trades: 0,
            first_trades: vec![0; SYMBOLS.len()],
            gaps: 0,
            missed: 0,
        }
    }

    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Reads up to `messages_max` messages. True if there may be more.
    pub fn read(&mut self, messages_max: usize) -> bool {
        for _ in 0..messages_max {
            match self.socket.read() {
                Ok(Message::Binary(packet)) => self.take_packet(&packet),
                Ok(Message::Text(text)) => self.take_text(&text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("{}: {other:?}", self.name),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
        true
    }

    /// True if all its channels are at `targets`, and all requests are answered.
    pub fn is_complete(&self, targets: &[[Option<u64>; 4]]) -> bool {
        self.lacking(targets).is_none()
    }

    /// What is still missing, as text.
    pub fn lacking(&self, targets: &[[Option<u64>; 4]]) -> Option<String> {
        // A late client may reach the end before the records that its next request waits for.
        if self.answered < self.sent || self.sent == 0 {
            return Some(format!("{} of {} requests answered", self.answered, self.sent));
        }
        self.tracks.iter().zip(targets).enumerate().find_map(|(symbol, (tracks, targets))| {
            (0..4).find_map(|channel| {
                let (progress, target) = (tracks[channel].progress, targets[channel]?);
                let there = progress == ChannelProgress::NotSubscribed
                    || target == 0
                    || progress == ChannelProgress::At(target);
                (!there).then(|| format!("{} {}: {progress:?} of {target}", SYMBOLS[symbol].0, CHANNELS[channel]))
            })
        })
    }

    /// The last received sequence of a channel.
    pub fn sequence(&self, symbol: usize, channel: usize) -> u64 {
        match self.tracks[symbol][channel].progress {
            ChannelProgress::At(sequence) => sequence,
            _ => 0,
        }
    }

    /// Compares books and last quotes with the independent decoder's.
    pub fn assert_at_rest(&self) {
        for (symbol, (name, _)) in SYMBOLS.iter().enumerate() {
            let Some(want) = self.truth.instruments.get(symbol) else { continue };
            let has = |channel: usize| self.tracks[symbol][channel].progress != ChannelProgress::NotSubscribed;
            if has(QUOTE) {
                let [bid_px, bid_sz, ask_px, ask_sz] = self.quotes[symbol].expect("complete");
                let (px, sz) = self.scales(symbol);
                let quote = (px(bid_px), sz(bid_sz), px(ask_px), sz(ask_sz));
                assert_eq!(quote, want.last_quote, "{}: last quote of {name}", self.name);
            }
            if has(BOOK) {
                let (px, sz) = self.scales(symbol);
                for (side, want) in self.books[symbol].iter().zip([&want.bids, &want.asks]) {
                    let side: BTreeMap<_, _> = side.iter().map(|(level, size)| (px(*level), sz(*size))).collect();
                    assert!(side == *want, "{}: the book of {name} differs", self.name);
                }
            }
        }
    }

    /// Compares the records of common channels that both clients received; returns the number of compared segments.
    pub fn assert_same_as(&self, other: &Self) -> usize {
        let begun = |client: &Self, symbol: usize, channel: usize| client.tracks[symbol][channel].first_live;
        let mut compared = 0;
        for (&(symbol, channel, segment), digest) in &self.digests {
            let starts = [self, other].map(|client| begun(client, symbol, channel).map(|first| first / SEGMENT));
            if let [Some(one), Some(two)] = starts
                && segment > one.max(two)
            {
                let theirs = other.digests.get(&(symbol, channel, segment));
                let what = format!("{} {} from {}", SYMBOLS[symbol].0, CHANNELS[channel], segment * SEGMENT);
                assert_eq!(Some(digest), theirs, "{} and {}: {what} differ", self.name, other.name);
                compared += 1;
            }
        }
        compared
    }

    fn scales(&self, symbol: usize) -> (impl Fn(i64) -> Decimal + use<>, impl Fn(i64) -> Decimal + use<>) {
        let id = self.symbols_by_id.iter().position(|of| *of == Some(symbol)).expect("defined");
        let definition = self.definitions[id].as_ref().expect("defined");
        let scale = |exponent: i8| {
            let decimals = u32::from(exponent.unsigned_abs());
            move |mantissa: i64| Decimal::new(mantissa, decimals)
        };
        (scale(definition.px_exp), scale(definition.sz_exp))
    }

    fn ask(&mut self) {
        if let Some(step) = self.steps.get(self.sent)
            && self.sent == self.answered
            && self.records >= step.after_records
        {
            self.sent += 1;
            let request = step.request(self.sent);
            self.socket.send(Message::text(request)).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
    }

    fn take_text(&mut self, text: &str) {
        let answer: Value = serde_json::from_str(text).expect("JSON");
        match answer["type"].as_str() {
            Some("welcome") => self.epoch = answer["epoch"].as_u64().expect("an epoch") as u32,
            Some("subscribed") => {
                assert_eq!(answer["unknown"], json!([]), "{}: {text}", self.name);
                assert_eq!(answer["conflate_ms"], self.steps[self.answered].conflate_ms, "{}: {text}", self.name);
                self.take_answer(&answer);
            }
            Some("unsubscribed") => self.take_answer(&answer),
            _ => panic!("{}: {text}", self.name),
        }
        self.ask();
    }

    /// Records after the answer belong to the new interest.
    fn take_answer(&mut self, answer: &Value) {
        self.answered += 1;
        assert_eq!(answer["id"], self.answered, "{}: answers come in order", self.name);
        let step = self.steps[self.answered - 1].clone();
        let mut new = Vec::new();
        for (symbol, channel) in step.symbols.iter().flat_map(|s| step.channels.iter().map(move |c| (*s, *c))) {
            if !step.subscribe {
                self.interests.retain(|(name, of), _| *of != channel || !covers(symbol, name));
            } else if self.interests.insert((symbol.to_owned(), channel), step.conflate_ms).is_none() {
                new.push((symbol, channel));
            }
        }
        for (symbol, (its_name, _)) in SYMBOLS.iter().enumerate() {
            for channel in 0..4 {
                let interval = self.interval_of(its_name, channel);
                let is_new = new.iter().any(|(name, of)| *of == channel && covers(name, its_name));
                let track = &mut self.tracks[symbol][channel];
                match interval {
                    None => *track = ChannelState::default(),
                    Some(interval_ms) => {
                        track.snapshot_due |= is_new && step.snapshot;
                        track.interval_ms = interval_ms;
                        track.tick = 0;
                        if track.progress == ChannelProgress::NotSubscribed {
                            track.progress = ChannelProgress::Subscribed { snapshot: step.snapshot };
                        }
                    }
                }
            }
        }
    }

    /// The exact name has precedence, then the longest pattern.
    fn interval_of(&self, symbol: &str, channel: usize) -> Option<u64> {
        let covering = self.interests.iter().filter(|((name, of), _)| *of == channel && covers(name, symbol));
        covering.max_by_key(|((name, _), _)| (!name.ends_with('*'), name.len())).map(|(_, interval)| *interval)
    }

    fn take_packet(&mut self, bytes: &[u8]) {
        let packet = WirePacket::read(bytes);
        assert_eq!(packet.epoch, self.epoch, "{}: epoch", self.name);
        assert!(packet.position >= self.position, "{}: {} after {}", self.name, packet.position, self.position);
        self.position = packet.position;
        for record in packet {
            match record.kind {
                wire::DEFINITION => self.take_definition(&record),
                wire::HEARTBEAT => self.heartbeats += 1,
                wire::GAP => self.take_gap(&record),
                wire::STATUS => {}
                wire::QUOTE | wire::TRADE | wire::TICKER | wire::BOOK => self.take_record(&record, packet.ts_send),
                kind => panic!("{}: a record of type {kind}", self.name),
            }
        }
        self.ask();
    }

    fn take_definition(&mut self, record: &WireRecord) {
        let (id, definition) = (record.instrument as usize, record.definition());
        let symbol = SYMBOLS.iter().position(|(symbol, _)| *symbol == definition.symbol).expect("a symbol of the test");
        assert_eq!(definition.venue, SYMBOLS[symbol].1, "{}: venue", self.name);
        assert!((0..4).any(|channel| self.interval_of(SYMBOLS[symbol].0, channel).is_some()), "{}: unasked", self.name);
        if self.definitions.len() <= id {
            self.definitions.resize(id + 1, None);
            self.symbols_by_id.resize(id + 1, None);
        }
        let known = self.definitions[id].get_or_insert_with(|| definition.clone());
        assert_eq!(*known, definition, "{}: an id keeps its meaning", self.name);
        self.symbols_by_id[id] = Some(symbol);
    }

    fn symbol_of(&self, record: &WireRecord) -> usize {
        let symbol = self.symbols_by_id.get(record.instrument as usize).copied().flatten();
        symbol.unwrap_or_else(|| panic!("{}: {record:?} of an instrument without a definition", self.name))
    }

    fn take_gap(&mut self, record: &WireRecord) {
        let (from, to, kind) = record.gap();
        let symbol = self.symbol_of(record);
        assert_eq!(kind, wire::TRADE, "{}: the only log channel here", self.name);
        let track = &mut self.tracks[symbol][TRADE];
        let next = match track.progress {
            ChannelProgress::NotSubscribed => panic!("{}: a gap without a subscription", self.name),
            ChannelProgress::Subscribed { .. } => 1,
            ChannelProgress::At(last) => last + 1,
        };
        assert!(from == next && to >= from, "{}: a gap from {from} to {to} where {next} is next", self.name);
        track.progress = ChannelProgress::At(to);
        if self.first_trades[symbol] == 0 {
            self.first_trades[symbol] = from;
        }
        self.gaps += 1;
        self.missed += to + 1 - from;
    }

    fn take_record(&mut self, record: &WireRecord, ts_send: u64) {
        let (symbol, channel) = (self.symbol_of(record), usize::from(record.kind) - 1);
        self.records += 1;
        self.conflated += u64::from(record.flags & wire::CONFLATED != 0);
        self.take_sequence(symbol, channel, record);
        match channel {
            QUOTE => self.quotes[symbol] = Some(record.quote()),
            TRADE => self.take_trade(symbol, record),
            BOOK => self.take_book(symbol, record),
            _ => {}
        }
        let live = record.flags & wire::SNAPSHOT == 0;
        if live {
            self.check_interval(symbol, channel, record, ts_send);
            self.digest(symbol, channel, record);
        }
        self.before = (symbol as u64) << 60 | (channel as u64) << 56 | record.sequence;
    }

    fn take_sequence(&mut self, symbol: usize, channel: usize, record: &WireRecord) {
        let (sequence, name) = (record.sequence, &self.name);
        let flagged = |flag: u8| record.flags & flag != 0;
        let (is_log, is_snapshot, is_conflated) = (channel == TRADE, flagged(wire::SNAPSHOT), flagged(wire::CONFLATED));
        let track = &mut self.tracks[symbol][channel];
        let what = || format!("{name}: {} {} {sequence}, {track:?}", SYMBOLS[symbol].0, CHANNELS[channel]);
        assert!(!is_log || !is_conflated, "{}: a trade is never conflated", what());
        assert!(!is_snapshot || track.snapshot_due, "{}: a snapshot that was not requested", what());
        match track.progress {
            ChannelProgress::NotSubscribed => panic!("{}: not subscribed to this", what()),
            ChannelProgress::Subscribed { snapshot: true } => {
                // A trade during the snapshot is sent as a live record, and replaces the snapshot's.
                let may_be_first = sequence == 1 || is_conflated || is_log;
                assert!(is_snapshot || may_be_first, "{}: a snapshot comes first", what());
            }
            ChannelProgress::Subscribed { snapshot: false } => {}
            ChannelProgress::At(last) => {
                let contiguous = sequence == last + 1;
                let jumps = !is_log && is_conflated && sequence > last;
                let again = is_snapshot && sequence >= last;
                assert!(contiguous || jumps || again, "{}: after {last}", what());
            }
        }
        if is_snapshot {
            track.snapshot_due = false;
        } else if track.first_live.is_none() {
            track.first_live = Some(sequence);
        }
        track.progress = ChannelProgress::At(sequence);
    }

    fn take_trade(&mut self, symbol: usize, record: &WireRecord) {
        let (px_mantissa, sz_mantissa, id, side) = record.trade();
        let (px, sz) = self.scales(symbol);
        let at = record.sequence as usize - 1;
        let trade = (id, px(px_mantissa), sz(sz_mantissa), side);
        assert_eq!(trade, self.truth.instruments[symbol].trades[at], "{}: trade {}", self.name, at + 1);
        self.trades += 1;
        if self.first_trades[symbol] == 0 {
            self.first_trades[symbol] = record.sequence;
        }
        let quote = &self.tracks[symbol][QUOTE];
        // A client without a snapshot has no quote before the first after its subscription.
        if !matches!(quote.progress, ChannelProgress::NotSubscribed | ChannelProgress::Subscribed { snapshot: false }) {
            let (newest, before) = (self.sequence(symbol, QUOTE), self.truth.quotes_before[symbol][at]);
            assert!(newest >= before, "{}: trade {} came with quote {newest}, not {before}", self.name, at + 1);
        }
    }

    fn take_book(&mut self, symbol: usize, record: &WireRecord) {
        let (kind, levels) = record.book();
        let [bids, asks] = &mut self.books[symbol];
        match kind {
            b'S' => {
                bids.clear();
                asks.clear();
            }
            b'D' => assert_eq!(record.flags & wire::SNAPSHOT, 0, "{}: a snapshot replaces the book", self.name),
            other => panic!("{}: a book record of kind {other}", self.name),
        }
        for (px, sz, side) in levels {
            let levels = match side {
                b'B' => &mut *bids,
                b'A' => &mut *asks,
                other => panic!("{}: a level on side {other}", self.name),
            };
            if sz == 0 {
                levels.remove(&px)
            } else {
                levels.insert(px, sz)
            };
        }
    }

    /// At most one conflated value in an interval, except for quotes that are sent early because of a trade, and for
    /// clients that changed their subscription.
    fn check_interval(&mut self, symbol: usize, channel: usize, record: &WireRecord, ts_send: u64) {
        let with_trades = self.tracks[symbol][TRADE].progress != ChannelProgress::NotSubscribed;
        let track = &mut self.tracks[symbol][channel];
        let applies = channel != TRADE && track.interval_ms > 0 && self.steps.len() == 1;
        if !applies || (channel == QUOTE && with_trades) {
            return;
        }
        if channel == BOOK && record.bytes[34] == b'S' && record.flags & wire::CONFLATED != 0 {
            // Its socket was full: the whole book is sent as soon as there is room.
            track.tick = 0;
            return;
        }
        // Boundaries follow the monotonic clock and `ts_send` the wall clock, which has been adjusted since the start.
        let tick = (ts_send + CLOCKS_APART_NS) / (track.interval_ms * 1_000_000);
        assert!(tick > track.tick, "{}: two {}s in one interval: {record:?}", self.name, CHANNELS[channel]);
        track.tick = tick;
    }

    /// Adds a digest of the record and the one before it, so that a segment's sum depends on contents and order.
    fn digest(&mut self, symbol: usize, channel: usize, record: &WireRecord) {
        let hash = FixedState::with_seed(1).hash_one((record.bytes, self.before));
        let digest = self.digests.entry((symbol, channel, record.sequence / SEGMENT)).or_default();
        *digest = digest.wrapping_add(hash);
    }
}

/// True if a name or pattern covers a symbol (or a narrower pattern).
fn covers(name: &str, symbol: &str) -> bool {
    name.strip_suffix('*').map_or(name == symbol, |prefix| symbol.starts_with(prefix))
}
