//! A random feed, and all records that it ever sent: every client's stream is compared with them.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tickcast::ring::{Batch, Reader};
use tickcast::sequencer::{Sequencer, SourceEnd};
use tickcast_protocol::record::{
    self, Gap, HEADER_BYTES, LEVEL_BYTES, Level, Quote, RecordHeader, Ticker, Trade, encode_book, encode_raw, flags,
};
use tickcast_protocol::{BookAction, BookSide, Channel, FeedState, GapReason, Instrument, RecordKind, Side};

use tickcast_test_support::node::shared_identity;

use crate::Dice;
use crate::trail::Event;

/// A book as a plain map: (side, price) → size.
pub type Levels = BTreeMap<(BookSide, i64), i64>;

/// Applies a book record.
pub fn apply(levels: &mut Levels, record: &[u8]) {
    let (action, changes) = record::read_book(record).expect("a whole book");
    if action == BookAction::Snapshot {
        levels.clear();
    }
    for Level { px, sz, side } in changes {
        if sz == 0 {
            levels.remove(&(side, px));
        } else {
            levels.insert((side, px), sz);
        }
    }
}

/// The best levels of each side, so many of each.
pub fn best(levels: &Levels, depth: Option<usize>) -> Levels {
    let depth = depth.unwrap_or(usize::MAX);
    let of = |side: BookSide| levels.iter().filter(move |((of, _), _)| *of == side).map(|(key, sz)| (*key, *sz));
    of(BookSide::Ask).take(depth).chain(of(BookSide::Bid).collect::<Vec<_>>().into_iter().rev().take(depth)).collect()
}

/// One value that the sequencer has numbered.
pub struct Value {
    pub position: u64,
    pub record: Vec<u8>,
    /// The book after it.
    pub book: Option<Rc<Levels>>,
}

impl Value {
    /// True if the feed has reported it as lost.
    pub fn is_lost(&self) -> bool {
        self.record.is_empty()
    }

    pub fn received_ns(&self) -> u64 {
        RecordHeader::read(&self.record).map_or(u64::MAX, |header| header.ts_recv)
    }
}

/// All values ever, by instrument and channel; the sequence is the index plus 1. Read from a ring of its own.
pub struct History {
    tap: Reader,
    batch: Batch,
    pub instruments: Vec<Instrument>,
    values: Vec<[Vec<Value>; Channel::COUNT]>,
    /// By instrument, 0 for the feed as a whole; live unless another state was reported.
    states: HashMap<u32, FeedState>,
    pub position: u64,
    /// Bytes of all records, and of the largest, a whole book included.
    pub bytes: usize,
    pub largest_record: usize,
}

impl History {
    pub fn new(tap: Reader) -> Self {
        let (instruments, values, states) = (Vec::new(), Vec::new(), HashMap::new());
        Self { tap, batch: Batch::default(), instruments, values, states, position: 0, bytes: 0, largest_record: 0 }
    }

    /// The newest state of an instrument, or of the feed as a whole.
    pub fn state(&self, instrument: u32) -> FeedState {
        self.states.get(&instrument).copied().unwrap_or(FeedState::Live)
    }

    pub fn of(&self, instrument: u32, channel: Channel) -> &[Value] {
        &self.values[instrument as usize - 1][channel as usize]
    }

    pub fn newest(&self, instrument: u32, channel: Channel) -> u64 {
        self.of(instrument, channel).len() as u64
    }

    /// Bytes of the newest values of all instruments, with whole books.
    pub fn state_bytes(&self) -> usize {
        let book = |value: &Value| value.book.as_ref().map_or(0, |levels| LEVEL_BYTES * levels.len());
        let newest = self.values.iter().flatten().filter_map(|values| values.last());
        newest.map(|value| value.record.len() + book(value)).sum()
    }

    /// How many values of a channel there were up to a position.
    pub fn count_until(&self, instrument: u32, channel: Channel, position: u64) -> u64 {
        self.of(instrument, channel).partition_point(|value| value.position <= position) as u64
    }

    /// True if the feed itself has reported all of this as lost.
    pub fn is_lost(&self, gap: &Gap) -> bool {
        let values = self.of(gap.instrument, gap.channel);
        let missing = values.get(gap.from_sequence.get() as usize - 1..gap.to_sequence.get() as usize);
        missing.is_some_and(|missing| missing.iter().all(Value::is_lost))
    }

    /// Reads all that the sequencer has written.
    pub fn read(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        self.tap.read(usize::MAX / 2, &mut batch).expect("it is read after every batch");
        for entry in &batch.entries {
            assert_eq!(entry.position.get(), self.position + 1, "positions are contiguous");
            self.position = entry.position.get();
            self.take(batch.payload(entry));
        }
        self.batch = batch;
    }

    fn take(&mut self, bytes: &[u8]) {
        let header = RecordHeader::read(bytes).expect("a record");
        let kind = RecordKind::from_wire(header.kind).expect("the sequencer knows its kinds");
        self.bytes += bytes.len();
        self.largest_record = self.largest_record.max(bytes.len());
        match kind {
            RecordKind::Definition => {
                self.instruments.push(record::read_definition(bytes).expect("a whole definition"));
                self.values.push(Default::default());
            }
            RecordKind::Status => {
                self.states.insert(header.instrument, record::read_status(bytes).expect("a whole status"));
            }
            RecordKind::Gap => {
                let gap = Gap::read(bytes).expect("a whole gap");
                let values = &mut self.values[gap.instrument as usize - 1][gap.channel as usize];
                assert_eq!(gap.from_sequence.get(), values.len() as u64 + 1, "sequences are contiguous");
                for _ in 0..gap.missing() {
                    values.push(Value { position: self.position, record: Vec::new(), book: None });
                }
            }
            _ => {
                let channel = kind.channel().expect("a channel's record");
                let values = &mut self.values[header.instrument as usize - 1][channel as usize];
                assert_eq!(header.sequence.get(), values.len() as u64 + 1, "sequences are contiguous");
                let book = (channel == Channel::Book).then(|| {
                    let mut levels = values.last().and_then(|value| value.book.as_deref().cloned()).unwrap_or_default();
                    apply(&mut levels, bytes);
                    let whole = HEADER_BYTES + LEVEL_BYTES * (1 + levels.len());
                    self.largest_record = self.largest_record.max(whole);
                    Rc::new(levels)
                });
                values.push(Value { position: self.position, record: bytes.to_vec(), book });
            }
        }
    }

    /// All records of a batch are there, with their sequences.
    fn has_all(&self, batch: &[u8]) {
        for (header, bytes) in record::records(batch).filter(|(header, _)| !header.sequence.is_none()) {
            let channel = RecordKind::from_wire(header.kind).and_then(RecordKind::channel).expect("a channel's record");
            let value = &self.of(header.instrument, channel)[header.sequence.get() as usize - 1];
            assert_eq!(value.record, bytes, "{channel:?} {} of {}", header.sequence, header.instrument);
        }
    }
}

/// A name that the nth instrument has or may have, with one of several prefixes.
pub fn name_of(number: usize, dice: &mut Dice) -> String {
    let family = ["A-", "AB-", "ABC-", "B-"][dice.below(4) as usize];
    format!("{family}{number}")
}

/// The feed: two sources of one identity, with ids of their own.
pub struct Feed {
    dice: Dice,
    /// Levels of a book and bytes of a raw payload, at the most.
    pub size: u32,
    /// For each instrument, by global id: source and local id.
    locals: Vec<(u32, u32)>,
    counts: [u32; 2],
    dead: [bool; 2],
}

impl Feed {
    pub fn new(seed: u64, size: u32) -> Self {
        Self { dice: Dice::new(seed), size, locals: Vec::new(), counts: [0; 2], dead: [false; 2] }
    }

    /// Defines one more instrument.
    pub fn define(&mut self, sequencer: &mut Sequencer, history: &mut History, now_ns: u64) {
        let source = self.dice.below(2);
        if self.dead[source as usize] {
            // A source that is gone has no identity, and would define for itself.
            sequencer.open_source(source, shared_identity(0));
        }
        let symbol = name_of(self.locals.len() + 1, &mut self.dice);
        self.locals.push((source, 0));
        let mut batch = Vec::new();
        self.define_as(self.locals.len() - 1, source, &symbol, &mut batch);
        self.hand_over(source, batch, sequencer, history, now_ns);
    }

    /// Has a source define an instrument with the next of its own ids.
    fn define_as(&mut self, at: usize, source: u32, symbol: &str, batch: &mut Vec<u8>) {
        self.counts[source as usize] += 1;
        let local = self.counts[source as usize];
        let (px_exp, sz_exp) = [(-2, -8), (0, 0), (3, -1), (-18, 6)][at % 4];
        record::encode_definition(&Instrument::new(local, symbol, "sim", px_exp, sz_exp), batch);
        self.locals[at] = (source, local);
    }

    /// A source dies, reconnects, reports a state, or takes over an instrument of the other.
    pub fn fault(&mut self, sequencer: &mut Sequencer, history: &mut History, now_ns: u64) -> Event {
        let source = self.dice.below(2);
        let mut batch = Vec::new();
        let what = match self.dice.below(6) {
            0 if !self.dead[source as usize] => {
                self.dead[source as usize] = true;
                let end = if self.dice.chance(700) { SourceEnd::Lost } else { SourceEnd::Ended };
                sequencer.close_source(source, end, now_ns);
                history.read();
                return Event::FeedFault { source, what: "dies" };
            }
            _ if self.dead[source as usize] => {
                self.dead[source as usize] = false;
                sequencer.open_source(source, shared_identity(0));
                let own = |locals: &[(u32, u32)]| (0..locals.len()).filter(|at| locals[*at].0 == source).collect();
                let own: Vec<usize> = own(&self.locals);
                for at in own {
                    self.define_as(at, source, &history.instruments[at].symbol, &mut batch);
                }
                self.status(0, FeedState::Live, now_ns, &mut batch);
                "returns"
            }
            1 => {
                let at = self.dice.below(self.locals.len() as u32) as usize;
                self.define_as(at, source, &history.instruments[at].symbol, &mut batch);
                "takes over"
            }
            2 => {
                let at = self.dice.below(self.locals.len() as u32) as usize;
                let local = if self.locals[at].0 == source { self.locals[at].1 } else { 0 };
                self.status(local, FeedState::Halted, now_ns, &mut batch);
                "halts"
            }
            3 | 4 => {
                let at = self.dice.below(self.locals.len() as u32) as usize;
                let channel = if self.dice.chance(700) { Channel::Trade } else { Channel::Raw };
                let to_sequence = (1 + u64::from(self.dice.below(5))).into();
                let gap = Gap {
                    instrument: self.locals[at].1,
                    channel,
                    from_sequence: 1.into(),
                    to_sequence,
                    reason: GapReason::Feed,
                };
                gap.encode(now_ns, &mut batch);
                "has lost some"
            }
            _ => {
                self.status(0, FeedState::Live, now_ns, &mut batch);
                "lives"
            }
        };
        self.hand_over(source, batch, sequencer, history, now_ns);
        Event::FeedFault { source, what }
    }

    /// Checks for sources that have been silent for too long.
    pub fn check(&mut self, sequencer: &mut Sequencer, history: &mut History, now_ns: u64) {
        const SILENCE_NS: u64 = 300_000_000;
        sequencer.check_sources(SILENCE_NS, now_ns);
        history.read();
    }

    fn status(&mut self, local: u32, state: FeedState, now_ns: u64, out: &mut Vec<u8>) {
        let header = RecordHeader::of_feed(RecordKind::Status, local, now_ns - 7).with_flags(flags::LAST);
        record::encode_status(&header, state, out);
    }

    /// Sends some records of some instruments.
    pub fn burst(&mut self, records: u32, sequencer: &mut Sequencer, history: &mut History, now_ns: u64) {
        let mut batches = [Vec::new(), Vec::new()];
        // A few instruments are busy.
        let busy = 1 + self.dice.below(self.locals.len() as u32);
        let mut opened = Vec::new();
        for _ in 0..records {
            let at = self.dice.below(busy) as usize;
            let (source, local) = self.locals[at];
            if self.dead[source as usize] {
                continue;
            }
            let first = history.newest(at as u32 + 1, Channel::Book) == 0 && !opened.contains(&at);
            if self.record(local, first, now_ns, &mut batches[source as usize]) {
                opened.push(at);
            }
        }
        for (source, batch) in (0..).zip(batches) {
            self.hand_over(source, batch, sequencer, history, now_ns);
        }
    }

    /// True if it was a book.
    fn record(&mut self, local: u32, first: bool, now_ns: u64, out: &mut Vec<u8>) -> bool {
        let dice = &mut self.dice;
        let mut number = || i64::from(dice.below(1000));
        let numbers: [i64; 8] = std::array::from_fn(|_| number());
        let delayed = if dice.chance(50) { flags::DELAYED } else { 0 };
        let header = |kind| RecordHeader::of_feed(kind, local, now_ns - 7).with_flags(flags::LAST | delayed);
        let [a, b, c, d, e, f, g, h] = numbers;
        match dice.below(16) {
            0..6 => Quote { bid_px: a, bid_sz: b, ask_px: c, ask_sz: d }.encode(&header(RecordKind::Quote), out),
            6..9 => Trade { px: a, sz: b, trade_id: c as u64, side: Side::Buy }.encode(&header(RecordKind::Trade), out),
            9..11 => {
                Ticker { last_px: a, open_px: b, high_px: c, low_px: d, volume: e, turnover: f, bid_px: g, ask_px: h }
                    .encode(&header(RecordKind::Ticker), out)
            }
            11..14 => {
                let whole = first || dice.chance(100);
                let count = if whole { 1 + dice.below(self.size) } else { dice.below(6) };
                let levels: Vec<Level> = (0..count)
                    .map(|_| Level {
                        px: i64::from(dice.below(2 * self.size)),
                        sz: i64::from(dice.below(4) + u32::from(whole)),
                        side: if dice.chance(512) { BookSide::Bid } else { BookSide::Ask },
                    })
                    .collect();
                let action = if whole { BookAction::Snapshot } else { BookAction::Delta };
                encode_book(&header(RecordKind::Book), action, levels.into_iter(), out);
                return true;
            }
            14 => {
                let payload = vec![a as u8; dice.below(self.size * 8) as usize];
                encode_raw(&header(RecordKind::Raw), &payload, out);
            }
            _ if dice.chance(100) => record::encode_status(&header(RecordKind::Status), FeedState::Live, out),
            _ => Quote { bid_px: a, bid_sz: b, ask_px: c, ask_sz: d }.encode(&header(RecordKind::Quote), out),
        }
        false
    }

    fn hand_over(&mut self, source: u32, mut batch: Vec<u8>, to: &mut Sequencer, history: &mut History, now_ns: u64) {
        to.accept(source, &mut batch, now_ns);
        history.read();
        history.has_all(&batch);
        assert_eq!(history.position, to.position().get(), "positions are contiguous");
    }
}
