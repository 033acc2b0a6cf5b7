//! What a client has of the instruments: books, trades and what was announced about them, with numbers as text.
//!
//! A book is kept as the records say: a snapshot replaces it, a change sets levels. MAYBE_BAD_BOOK counts until a snapshot
//! without it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tickcast_protocol::record::{self, Gap, Level, RecordHeader, Trade, flags};
use tickcast_protocol::{Book, BookAction, Channel, Instrument, RecordKind, decimal};

/// All instruments, by their name in the directory.
#[derive(Debug, Default)]
pub struct MarketState {
    pub instruments: BTreeMap<String, InstrumentState>,
    symbols: BTreeMap<u32, String>,
}

/// What a client has of an instrument.
#[derive(Debug)]
pub struct InstrumentState {
    pub definition: Instrument,
    book: Book,
    /// A snapshot has come.
    pub has_book: bool,
    /// The book is flagged.
    pub is_bad: bool,
    /// How often it became flagged.
    pub times_bad: usize,
    pub trades: Vec<TradeSeen>,
    /// Gaps of trades: how many came, and how many trades they announce.
    pub trade_gaps: usize,
    pub trades_missing: u64,
    pub quotes: usize,
    pub tickers: usize,
    /// The letters of Status records.
    pub states: String,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TradeSeen {
    pub id: u64,
    pub px: Decimal,
    pub sz: Decimal,
    pub side: char,
}

impl MarketState {
    /// Takes a record.
    pub fn accept(&mut self, header: &RecordHeader, bytes: &[u8]) {
        let kind = header.known_kind().expect("a known kind");
        if kind == RecordKind::Definition {
            return self.define(record::read_definition(bytes).expect("a whole definition"));
        }
        if kind == RecordKind::Heartbeat || header.instrument == 0 {
            return;
        }
        let symbol = self.symbols.get(&header.instrument).expect("a definition before the first record");
        let state = self.instruments.get_mut(symbol).expect("it was defined");
        state.accept(kind, header, bytes);
    }

    /// The state of an instrument that was defined.
    pub fn of(&self, symbol: &str) -> Option<&InstrumentState> {
        self.instruments.get(symbol)
    }

    fn define(&mut self, definition: Instrument) {
        self.symbols.insert(definition.id, definition.symbol.clone());
        match self.instruments.get_mut(&definition.symbol) {
            Some(state) => state.rescale(definition),
            None => {
                let symbol = definition.symbol.clone();
                self.instruments.insert(symbol, InstrumentState::new(definition));
            }
        }
    }
}

impl InstrumentState {
    fn new(definition: Instrument) -> Self {
        Self {
            definition,
            book: Book::default(),
            has_book: false,
            is_bad: false,
            times_bad: 0,
            trades: Vec::new(),
            trade_gaps: 0,
            trades_missing: 0,
            quotes: 0,
            tickers: 0,
            states: String::new(),
        }
    }

    /// True if the book is one that a client may trust.
    pub fn is_valid(&self) -> bool {
        self.has_book && !self.is_bad
    }

    /// Bids and asks, best first, at most `depth` each.
    pub fn levels(&self, depth: usize) -> [Vec<(Decimal, Decimal)>; 2] {
        let level = |(px, sz): (i64, i64)| (self.px(px), self.sz(sz));
        [self.book.bids().take(depth).map(level).collect(), self.book.asks().take(depth).map(level).collect()]
    }

    fn accept(&mut self, kind: RecordKind, header: &RecordHeader, bytes: &[u8]) {
        match kind {
            RecordKind::Trade => {
                let trade = Trade::read(bytes).expect("a whole trade");
                let side = char::from(u8::from(trade.side));
                let (px, sz) = (self.px(trade.px), self.sz(trade.sz));
                self.trades.push(TradeSeen { id: trade.trade_id, px, sz, side });
            }
            RecordKind::Book => {
                let (action, levels) = record::read_book(bytes).expect("a whole book");
                let is_flagged = header.flags & flags::MAYBE_BAD_BOOK != 0;
                if is_flagged && !self.is_bad {
                    self.times_bad += 1;
                }
                if action == BookAction::Snapshot {
                    self.is_bad = is_flagged;
                    self.has_book = true;
                }
                assert!(is_flagged || !self.is_bad, "a change, not flagged, of a book that is");
                self.is_bad |= is_flagged;
                self.book.apply(action, levels);
            }
            RecordKind::Quote => self.quotes += 1,
            RecordKind::Ticker => self.tickers += 1,
            RecordKind::Gap => {
                let gap = Gap::read(bytes).expect("a whole gap");
                if gap.channel == Channel::Trade {
                    self.trade_gaps += 1;
                    self.trades_missing += gap.missing();
                }
            }
            RecordKind::Status => {
                self.states.push(char::from(u8::from(record::read_status(bytes).expect("a whole status"))));
            }
            other => panic!("a {other:?} of an instrument"),
        }
    }

    fn px(&self, mantissa: i64) -> Decimal {
        number(&decimal::to_string(mantissa, self.definition.px_exp))
    }

    fn sz(&self, mantissa: i64) -> Decimal {
        number(&decimal::to_string(mantissa, self.definition.sz_exp))
    }

    /// Keeps the book at the exponents of another definition.
    fn rescale(&mut self, to: Instrument) {
        let from = std::mem::replace(&mut self.definition, to);
        let to = &self.definition;
        let rescaled = |level: Level| {
            let px = decimal::rescale(level.px, from.px_exp, to.px_exp)?;
            Some(Level { px, sz: decimal::rescale(level.sz, from.sz_exp, to.sz_exp)?, ..level })
        };
        let levels = self.book.levels(self.book.len());
        self.book.apply(BookAction::Snapshot, levels.into_iter().filter_map(rescaled));
    }
}

/// The number of a text, which compares equal to that of `1.50` and `1.5`.
pub fn number(text: &str) -> Decimal {
    text.parse().unwrap_or_else(|error| panic!("{text:?} is no number: {error}"))
}
