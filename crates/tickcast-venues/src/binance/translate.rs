//! Messages → records, with the state of each instrument.
//!
//! Invariant: no update is missing between a book's snapshot record and the record that voids the book. Where the
//! venue's own tickers are not among the messages, statistics are made from the trades.

use std::collections::HashMap;

use super::book::{Held, Ids, Verdict};
use super::message::{self, Body, Message, Parser};
use super::{InstrumentState, Market};
use crate::error::Malformed;
use crate::instruments::{Instruments, Naming};
use crate::json::{Field, Levels, ReadLevel};
use crate::sink::{BookFault, Sink};
use crate::tracked::{QuoteText, TickerText, Tracked, TradeText};
use crate::trade_ids::TradeRange;
use crate::window::TradeWindow;
use tickcast_protocol::record::{self, Level};
use tickcast_protocol::{BookSide, Side};

/// Statistics from trades are published at most this often, in the recording's time.
pub const TICKER_INTERVAL_NS: u64 = 250_000_000;

/// One file or connection: its market, and the instruments named by its messages.
pub struct Origin {
    market: Market,
    /// It contains the venue's own tickers, so none are derived from trades.
    has_tickers: bool,
    /// The instrument of a snapshot without a symbol that precedes all other messages.
    sole_symbol: Option<String>,
    by_symbol: HashMap<String, usize>,
}

impl Origin {
    /// An origin before its first message.
    pub fn new(market: Market, has_tickers: bool, sole_symbol: Option<String>) -> Self {
        Self { market, has_tickers, sole_symbol, by_symbol: HashMap::new() }
    }
}

/// The instruments of one timeline, from any number of origins.
pub struct Translator {
    /// Those of each market.
    markets: [Instruments<InstrumentState>; Market::COUNT],
    /// Instruments that traded since the last tickers were published.
    traded: Vec<(Market, usize)>,
    tickers_due_ns: u64,
    /// Scratch for the levels of one message.
    levels: Vec<Level>,
}

impl Translator {
    /// A translator of which all instruments are named so.
    pub fn new(naming: &Naming) -> Self {
        let markets = Market::ALL.map(|market| market.instruments(naming.clone()));
        Self { markets, traded: Vec::new(), tickers_due_ns: 0, levels: Vec::new() }
    }

    /// Appends the records of a text, which is changed in place.
    pub fn read(
        &mut self,
        parser: &mut Parser,
        text: &mut [u8],
        origin: &mut Origin,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed> {
        parser.read(text, |message| self.take(message, origin, sink))
    }

    fn take(&mut self, message: Message<'_, '_>, origin: &mut Origin, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        sink.note_time(message.time_fault);
        let instruments = &mut self.markets[origin.market as usize];
        let mut step = Step { instruments, levels: &mut self.levels, origin };
        if let Some(index) = step.take(&message.body, sink)? {
            self.traded.push((origin.market, index));
        }
        Ok(())
    }

    /// Appends the tickers of instruments that traded, if the last ones were published [`TICKER_INTERVAL_NS`] ago.
    /// `now_ns` is the recording's time and never goes back.
    pub fn tickers_if_due(&mut self, now_ns: u64, sink: &mut Sink<'_>) {
        if now_ns >= self.tickers_due_ns {
            self.tickers_due_ns = now_ns.saturating_add(TICKER_INTERVAL_NS);
            self.tickers(sink);
        }
    }

    /// Appends the tickers of instruments that traded since the last ones.
    pub fn tickers(&mut self, sink: &mut Sink<'_>) {
        for (market, index) in self.traded.drain(..) {
            derived_ticker(self.markets[market as usize].at(index), market, sink);
        }
    }

    /// Starts again, as after a reconnect: every book is voided, statistics and quotes are dropped. Instruments keep
    /// their ids and exponents.
    pub fn restart(&mut self, sink: &mut Sink<'_>) {
        self.traded.clear();
        for tracked in self.markets.iter_mut().flat_map(Instruments::iter_mut) {
            tracked.void_if_valid(sink);
            tracked.restart();
        }
    }
}

/// The parts that one message changes.
pub(super) struct Step<'a> {
    pub(super) instruments: &'a mut Instruments<InstrumentState>,
    pub(super) levels: &'a mut Vec<Level>,
    pub(super) origin: &'a mut Origin,
}

impl Step<'_> {
    /// Appends the records of one message. Returns the instrument of a trade from which statistics are to be made.
    pub(super) fn take(&mut self, body: &Body<'_, '_>, sink: &mut Sink<'_>) -> Result<Option<usize>, Malformed> {
        match body {
            Body::Quote(quote) => self.quote(quote, sink)?,
            Body::Trade(trade) => return self.trade(trade, sink),
            Body::Ticker(ticker) => self.ticker(ticker, sink)?,
            Body::Depth(depth) => {
                self.depth(depth, sink)?;
            }
            Body::Snapshot(snapshot) => {
                let index = self.instrument_of(snapshot)?;
                self.snapshot(index, snapshot, sink)?;
            }
            Body::NoTrade { symbol, trade_id } => {
                sink.report.ignored += 1;
                let index = self.find(symbol)?;
                self.instruments.at(index).kept.trade_ids.skip(*trade_id);
            }
            Body::Ignored => sink.report.ignored += 1,
        }
        Ok(None)
    }

    fn quote(&mut self, quote: &message::Quote<'_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let index = self.find(quote.symbol)?;
        let bid = (Field::new("b", quote.bid_px), Field::new("B", quote.bid_sz));
        let ask = (Field::new("a", quote.ask_px), Field::new("A", quote.ask_sz));
        self.instruments.at(index).quote(&QuoteText { bid, ask, ts_event: quote.ts_event }, sink)
    }

    fn trade(&mut self, trade: &message::Trade<'_>, sink: &mut Sink<'_>) -> Result<Option<usize>, Malformed> {
        let index = self.find(trade.symbol)?;
        let tracked = self.instruments.at(index);
        let range =
            TradeRange { last: trade.trade_id, aggregated_from: trade.aggregated_from, aggregate: trade.aggregate };
        if tracked.kept.trade_ids.is_known(range) {
            sink.report.ignored += 1;
            return Ok(None);
        }
        let lost = tracked.kept.trade_ids.lost_before(range, self.origin.market.is_futures());
        let text = TradeText {
            px: Field::new("p", trade.px),
            sz: Field::new("q", trade.sz),
            trade_id: trade.trade_id,
            side: if trade.buyer_is_maker { Side::Sell } else { Side::Buy },
            ts_event: trade.ts_event,
        };
        let (px, sz) = tracked.trade(&text, lost, sink)?;
        let kept = &mut tracked.kept;
        kept.trade_ids.note(range);
        if self.origin.has_tickers || kept.has_ticker {
            return Ok(None);
        }
        match &mut kept.window {
            Some(window) => window.add(px, sz, trade.ts_event),
            None => kept.window = Some(TradeWindow::new(px, sz, trade.ts_event)),
        }
        Ok((!std::mem::replace(&mut kept.traded, true)).then_some(index))
    }

    fn ticker(&mut self, ticker: &message::Ticker<'_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let index = self.find(ticker.symbol)?;
        let tracked = self.instruments.at(index);
        let field = |key, text| Some(Field::new(key, text));
        let text = TickerText {
            last: field("c", ticker.last_px),
            open: field("o", ticker.open_px),
            high: field("h", ticker.high_px),
            low: field("l", ticker.low_px),
            change: None,
            volume: field("v", ticker.volume),
            // COIN-M counts in contracts whose dollar value is not in the messages, and calls the turnover in coin `q`:
            // neither fits this field.
            turnover: field("q", ticker.turnover).filter(|_| self.origin.market != Market::CoinM),
            bid: ticker.bid_px.map(|text| Field::new("b", text)),
            ask: ticker.ask_px.map(|text| Field::new("a", text)),
            ts_event: ticker.ts_event,
        };
        tracked.ticker(&text, sink)?;
        tracked.kept.has_ticker = true;
        Ok(())
    }

    /// Takes an update of a book. Returns the instrument, if its book waits for a snapshot.
    pub(super) fn depth(
        &mut self,
        depth: &message::Depth<'_, '_>,
        sink: &mut Sink<'_>,
    ) -> Result<Option<usize>, Malformed> {
        if self.origin.market.is_futures() && depth.previous_id.is_none() {
            return Err(Malformed::Missing("pu"));
        }
        let index = self.find(depth.symbol)?;
        self.read_levels(index, || both(&depth.bids, &depth.asks), sink)?;
        let tracked = self.instruments.at(index);
        let ids = Ids { first: depth.first_id, last: depth.last_id, previous: depth.previous_id };
        let after = tracked.kept.sync.last_id();
        match tracked.kept.sync.update(ids, depth.ts_event, self.levels) {
            Verdict::Apply => tracked.update_book(depth.ts_event, self.levels, sink),
            Verdict::Gap => {
                let cause = BookFault::Gap { after: after.unwrap_or(0), got: ids.first };
                tracked.drop_book(cause, depth.ts_event, sink);
            }
            Verdict::Old | Verdict::Held => {}
        }
        Ok(tracked.kept.sync.is_waiting().then_some(index))
    }

    /// Takes a whole or partial book. False if it is too old, and another one is needed.
    pub(super) fn snapshot(
        &mut self,
        index: usize,
        snapshot: &message::Snapshot<'_, '_>,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Malformed> {
        let tracked = self.instruments.at(index);
        if snapshot.is_partial && !tracked.kept.sync.is_waiting() {
            // A book that updates keep whole has what the best levels show.
            sink.report.ignored += 1;
            return Ok(true);
        }
        let was_suspect = tracked.set_book_suspect(false);
        let read = self.read_levels(index, || both(&snapshot.bids, &snapshot.asks), sink);
        let tracked = self.instruments.at(index);
        if read.is_err() || (!snapshot.is_partial && !tracked.kept.sync.is_next(snapshot.last_update_id)) {
            // The book stays as it is.
            tracked.set_book_suspect(was_suspect || tracked.is_book_suspect());
        }
        read?;
        if snapshot.is_partial {
            tracked.kept.has_partial_book = true;
            new_book(tracked, snapshot.ts_event, self.levels, [], sink);
        } else if let Some(following) = tracked.kept.sync.snapshot(snapshot.last_update_id) {
            new_book(tracked, snapshot.ts_event, self.levels, &following, sink);
        } else {
            return Ok(!tracked.kept.sync.is_waiting());
        }
        Ok(true)
    }

    fn read_levels<'i, I: Iterator<Item = ReadLevel<'i>>>(
        &mut self,
        index: usize,
        levels: impl Fn() -> I,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed> {
        self.levels.clear();
        self.instruments.at(index).read_levels(levels, sink, |level, _| self.levels.push(level))
    }

    /// The instrument of a snapshot: the one it names, else the only one of its origin that waits for a snapshot,
    /// else the only one of its origin.
    fn instrument_of(&mut self, snapshot: &message::Snapshot<'_, '_>) -> Result<usize, Malformed> {
        if let Some(symbol) = &snapshot.symbol {
            return self.find(symbol);
        }
        let mut all = Vec::new();
        let (mut with_book, mut waiting) = (Vec::new(), Vec::new());
        for index in self.origin.by_symbol.values().copied() {
            let sync = &self.instruments.at(index).kept.sync;
            all.push(index);
            if sync.has_begun() {
                with_book.push(index);
                if sync.is_waiting() {
                    waiting.push(index);
                }
            }
        }
        match (waiting.as_slice(), with_book.as_slice(), all.as_slice()) {
            ([index], ..) | ([], [index], _) | ([], [], [index]) => Ok(*index),
            ([], [], []) => {
                let symbol = self.origin.sole_symbol.clone().ok_or(Malformed::WhoseSnapshot(0))?;
                self.find(&symbol)
            }
            ([], [], all) => Err(Malformed::WhoseSnapshot(all.len())),
            ([], some, _) | (some, ..) => Err(Malformed::WhoseSnapshot(some.len())),
        }
    }

    fn find(&mut self, symbol: &str) -> Result<usize, Malformed> {
        if let Some(index) = self.origin.by_symbol.get(symbol) {
            return Ok(*index);
        }
        let index = self.instruments.find(symbol)?;
        self.origin.by_symbol.insert(symbol.to_owned(), index);
        Ok(index)
    }
}

/// The levels of both sides.
fn both<'s, 'i>(
    bids: &'s Levels<'_, 'i>,
    asks: &'s Levels<'_, 'i>,
) -> impl Iterator<Item = ReadLevel<'i>> + use<'s, 'i> {
    bids.iter(BookSide::Bid).chain(asks.iter(BookSide::Ask))
}

fn new_book<'h>(
    tracked: &Tracked<InstrumentState>,
    ts_event: u64,
    levels: &mut Vec<Level>,
    following: impl IntoIterator<Item = &'h Held>,
    sink: &mut Sink<'_>,
) {
    tracked.new_book(ts_event, levels, sink);
    for held in following {
        tracked.update_book(held.ts_event, &held.levels, sink);
    }
}

fn derived_ticker(tracked: &mut Tracked<InstrumentState>, market: Market, sink: &mut Sink<'_>) {
    tracked.kept.traded = false;
    let Some((scale, window)) = tracked.scale().zip(tracked.kept.window) else { return };
    if tracked.kept.has_ticker {
        return;
    }
    let [bid_px, ask_px] = tracked.best_px();
    let body = record::Ticker {
        last_px: window.last_px,
        open_px: window.open_px,
        high_px: window.high_px,
        low_px: window.low_px,
        volume: window.volume(),
        turnover: if market == Market::CoinM { record::PRICE_NONE } else { window.turnover(scale.sz_exp) },
        bid_px,
        ask_px,
    };
    tracked.put_ticker(scale, window.ts_event, &body, sink);
}
