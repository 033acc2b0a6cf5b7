//! A client of the records: it keeps books and trades, as text without zeros at the end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tickcast_protocol::record::{self, Level, Trade, flags};
use tickcast_protocol::{Book, BookAction, Instrument, RecordKind, decimal};
use tickcast_venues::{Codec, CodecOptions, Malformed, Report, Sink, Venue};

/// A codec and the client behind it.
pub struct Client {
    codec: Box<dyn Codec>,
    pub report: Report,
    pub states: BTreeMap<String, State>,
    pub quotes: usize,
    pub tickers: usize,
    symbols: BTreeMap<u32, String>,
    next_id: u32,
}

/// What a client has of an instrument.
pub struct State {
    instrument: Instrument,
    book: Book,
    pub is_bad: bool,
    pub trades: Vec<Value>,
}

impl Client {
    pub fn new(venue: Venue) -> Self {
        let (states, symbols) = (BTreeMap::new(), BTreeMap::new());
        let codec = venue.codec(CodecOptions::default());
        Self { codec, report: Report::default(), states, quotes: 0, tickers: 0, symbols, next_id: 1 }
    }

    /// Takes a message of the venue.
    pub fn take(&mut self, message: &str, receive_ns: u64) -> Result<(), Malformed> {
        let (mut batch, mut events) = (Vec::new(), Vec::new());
        let Self { codec, report, next_id, .. } = self;
        let mut sink = Sink { batch: &mut batch, report, next_id, events: &mut events };
        let taken = codec.on_message(&mut message.as_bytes().to_vec(), receive_ns, &mut sink);
        for (header, bytes) in record::records(&batch) {
            self.accept(&header, bytes);
        }
        taken
    }

    /// All books, by symbol.
    pub fn text(&self) -> String {
        let texts: Vec<_> = self.states.iter().map(|(name, state)| format!("{name} {}", state.book_text())).collect();
        texts.join("\n")
    }

    fn accept(&mut self, header: &record::RecordHeader, bytes: &[u8]) {
        let kind = header.known_kind().expect("a known kind");
        if kind == RecordKind::Definition {
            return self.define(record::read_definition(bytes).expect("a whole definition"));
        }
        record::check(bytes).expect("a record that a publisher may send");
        let symbol = self.symbols.get(&header.instrument).expect("a definition before the first record");
        let state = self.states.get_mut(symbol).expect("it was defined");
        match kind {
            RecordKind::Trade => {
                let trade = Trade::read(bytes).expect("a whole trade");
                let side = char::from(u8::from(trade.side)).to_string();
                state.trades.push(json!([trade.trade_id, state.px(trade.px), state.sz(trade.sz), side]));
            }
            RecordKind::Book => {
                let (action, levels) = record::read_book(bytes).expect("a whole book");
                let is_flagged = header.flags & flags::MAYBE_BAD_BOOK != 0;
                if action == BookAction::Snapshot {
                    state.is_bad = is_flagged;
                }
                assert!(is_flagged || !state.is_bad, "a change, not flagged, of a book that is");
                state.book.apply(action, levels);
            }
            RecordKind::Quote => self.quotes += 1,
            RecordKind::Ticker => self.tickers += 1,
            _ => {}
        }
    }

    fn define(&mut self, instrument: Instrument) {
        self.symbols.insert(instrument.id, instrument.symbol.clone());
        match self.states.get_mut(&instrument.symbol) {
            Some(state) => state.rescale(instrument),
            None => {
                let state =
                    State { instrument: instrument.clone(), book: Book::default(), is_bad: false, trades: Vec::new() };
                self.states.insert(instrument.symbol, state);
            }
        }
    }
}

impl State {
    /// `b10101.1x0.45 a10102.55x0.57`: both sides, each best first.
    pub fn book_text(&self) -> String {
        let bids = self.book.bids().map(|(px, sz)| format!("b{}x{}", self.px(px), self.sz(sz)));
        let asks = self.book.asks().map(|(px, sz)| format!("a{}x{}", self.px(px), self.sz(sz)));
        bids.chain(asks).collect::<Vec<_>>().join(" ")
    }

    fn px(&self, mantissa: i64) -> String {
        plain(&decimal::to_string(mantissa, self.instrument.px_exp))
    }

    fn sz(&self, mantissa: i64) -> String {
        plain(&decimal::to_string(mantissa, self.instrument.sz_exp))
    }

    /// Keeps the book at the exponents of another definition.
    fn rescale(&mut self, to: Instrument) {
        let from = std::mem::replace(&mut self.instrument, to);
        let to = &self.instrument;
        let rescaled = |level: Level| {
            let px = decimal::rescale(level.px, from.px_exp, to.px_exp)?;
            Some(Level { px, sz: decimal::rescale(level.sz, from.sz_exp, to.sz_exp)?, ..level })
        };
        let levels = self.book.levels(self.book.len());
        self.book.apply(BookAction::Snapshot, levels.into_iter().filter_map(rescaled));
    }
}

fn plain(text: &str) -> String {
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    text.to_owned()
}
