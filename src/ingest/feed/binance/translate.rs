//! Messages → records, with the state of each instrument: its exponents, the state of its book, its last quote, its
//! trades so far.
//!
//! Invariants: a message becomes all of its records or none; a Definition precedes the first record of its instrument;
//! no update is missing between a book's snapshot record and the record that voids the book.
//!
//! Exponents come from the first message that shows both a price and a size ([`scale`](super::scale)). A later value that
//! does not fit them changes them, by another Definition. What fits no exponents is left out where it stands: a side of a
//! quote, a level of a book, which is flagged, or a trade, which becomes a Gap. So do trades whose messages were lost.
//! Cost: a hash look-up and eight decimal parses for a quote, no allocation.

use std::collections::HashMap;

use super::Market;
use super::book::{BookSync, Held, Ids, Verdict};
use super::message::{self, Body, Levels, Malformed, Message};
use super::scale::{Scale, ScaleNeeds, absent_if_unfit, is_tight, sum};
use super::ticker::TradeWindow;
use super::trade_ids::TradeIds;
use crate::ingest::source::Report;
use tickcast_protocol::decimal;
use tickcast_protocol::record::{
    self, BOOK_LEVELS_MAX, Channel, Gap, Level, PRICE_NONE, RecordHeader, encode_book, flags,
};
use tickcast_protocol::{Book, BookAction, BookSide, GapReason, Instrument, RecordKind, Sequence, Side, check_symbol};

/// Statistics from trades are published at most this often, in the recording's time.
pub const TICKER_INTERVAL_NS: u64 = 250_000_000;
/// Venue symbols are at most this long: with the suffixes of markets and copies they keep to the default of
/// `symbol_bytes_max`, so that clients can name them.
const SYMBOL_BYTES_MAX: usize = 54;

/// The output batch and its counters.
pub struct Out<'a> {
    pub batch: &'a mut Vec<u8>,
    pub report: &'a mut Report,
    /// The id of the next new instrument, from 1.
    pub next_id: &'a mut u32,
}

impl Out<'_> {
    fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(self.batch);
        self.report.records += 1;
    }
}

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
    /// Appended to every name, to distinguish copies.
    suffix: String,
    tracked: Vec<Tracked>,
    by_symbol: HashMap<(Market, String), usize>,
    /// Instruments that traded since the last tickers were published.
    traded: Vec<usize>,
    tickers_due_ns: u64,
    /// Scratch for the levels of one message.
    levels: Vec<Level>,
}

impl Translator {
    /// A translator that appends `suffix` to the names of all instruments.
    pub fn new(suffix: String) -> Self {
        let (tracked, traded, levels) = (Vec::new(), Vec::new(), Vec::new());
        Self { suffix, tracked, by_symbol: HashMap::new(), traded, tickers_due_ns: 0, levels }
    }

    /// Appends the records of one message.
    pub fn take(&mut self, message: &Message<'_, '_>, origin: &mut Origin, out: &mut Out<'_>) -> Result<(), Malformed> {
        match &message.body {
            Body::Quote(quote) => self.quote(quote, origin, out),
            Body::Trade(trade) => self.trade(trade, origin, out),
            Body::Ticker(ticker) => self.ticker(ticker, origin, out),
            Body::Depth(depth) => self.depth(depth, origin, out),
            Body::Snapshot(snapshot) => self.snapshot(snapshot, origin, out),
            Body::NoTrade { symbol, trade_id } => {
                out.report.ignored += 1;
                let index = self.find(symbol, origin)?;
                self.tracked[index].trade_ids.skip(*trade_id);
                Ok(())
            }
            Body::Ignored => {
                out.report.ignored += 1;
                Ok(())
            }
        }
    }

    /// Appends the tickers of instruments that traded, if the last ones were published [`TICKER_INTERVAL_NS`] ago.
    /// `now_ns` is the recording's time and never goes back.
    pub fn tickers_if_due(&mut self, now_ns: u64, out: &mut Out<'_>) {
        if now_ns >= self.tickers_due_ns {
            self.tickers_due_ns = now_ns.saturating_add(TICKER_INTERVAL_NS);
            self.tickers(out);
        }
    }

    /// Appends the tickers of instruments that traded since the last ones.
    pub fn tickers(&mut self, out: &mut Out<'_>) {
        for index in self.traded.drain(..) {
            self.tracked[index].derived_ticker(out);
        }
    }

    /// Starts again, as after a reconnect: every book is voided, statistics and quotes are dropped. Instruments keep
    /// their ids and exponents.
    pub fn restart(&mut self, out: &mut Out<'_>) {
        self.traded.clear();
        for tracked in &mut self.tracked {
            if !tracked.sync.is_waiting() || tracked.has_partial_book {
                tracked.void_book(0, out);
            }
            let fresh = Tracked::new(tracked.market, std::mem::take(&mut tracked.name));
            let (defined, needs) = (tracked.defined, tracked.needs);
            *tracked = Tracked { defined, needs, has_ticker: tracked.has_ticker, ..fresh };
        }
    }

    fn quote(&mut self, quote: &message::Quote<'_>, origin: &mut Origin, out: &mut Out<'_>) -> Result<(), Malformed> {
        let index = self.find(quote.symbol, origin)?;
        let tracked = &mut self.tracked[index];
        let (prices, sizes) = ([quote.bid_px, quote.ask_px], [quote.bid_sz, quote.ask_sz]);
        let scale = tracked.fit(prices.into_iter(), sizes.into_iter(), out);
        let (bid_px, bid_sz) = scale.best("b", quote.bid_px, "B", quote.bid_sz)?;
        let (ask_px, ask_sz) = scale.best("a", quote.ask_px, "A", quote.ask_sz)?;
        let id = tracked.define(scale, out);
        (tracked.bid_px, tracked.ask_px) = (bid_px, ask_px);
        let header = RecordHeader::of_feed(RecordKind::Quote, id, quote.ts_event);
        out.put(|batch| record::Quote { bid_px, bid_sz, ask_px, ask_sz }.encode(&header, batch));
        Ok(())
    }

    fn trade(&mut self, trade: &message::Trade<'_>, origin: &mut Origin, out: &mut Out<'_>) -> Result<(), Malformed> {
        let index = self.find(trade.symbol, origin)?;
        let tracked = &mut self.tracked[index];
        if tracked.trade_ids.is_known(trade) {
            out.report.ignored += 1;
            return Ok(());
        }
        let scale = tracked.fit([trade.px].into_iter(), [trade.sz].into_iter(), out);
        let (px, sz) = (scale.px("p", trade.px)?, scale.sz("q", trade.sz)?);
        tracked.report_lost(tracked.trade_ids.lost_before(trade, origin.market.is_futures()), scale, out);
        tracked.trade_ids.note(trade);
        let id = tracked.define(scale, out);
        let side = if trade.buyer_is_maker { Side::Sell } else { Side::Buy };
        let header = RecordHeader::of_feed(RecordKind::Trade, id, trade.ts_event);
        out.put(|batch| record::Trade { px, sz, trade_id: trade.trade_id, side }.encode(&header, batch));
        if !origin.has_tickers && !tracked.has_ticker {
            match &mut tracked.window {
                Some(window) => window.add(px, sz, trade.ts_event),
                None => tracked.window = Some(TradeWindow::new(px, sz, trade.ts_event)),
            }
            if !std::mem::replace(&mut tracked.traded, true) {
                self.traded.push(index);
            }
        }
        Ok(())
    }

    fn ticker(
        &mut self,
        ticker: &message::Ticker<'_>,
        origin: &mut Origin,
        out: &mut Out<'_>,
    ) -> Result<(), Malformed> {
        let index = self.find(ticker.symbol, origin)?;
        let tracked = &mut self.tracked[index];
        let prices = [ticker.last_px, ticker.open_px, ticker.high_px, ticker.low_px];
        // A sum has decimals that no size has.
        let scale = match tracked.scale() {
            Some(_) => tracked.fit(prices.into_iter(), [].into_iter(), out),
            None => tracked.fit(prices.into_iter(), [ticker.volume].into_iter(), out),
        };
        let px = |key, text: &str| absent_if_unfit(scale.px(key, text));
        let best = |key, text: Option<&str>, quoted| text.map_or(Ok(quoted), |text| px(key, text));
        let body = record::Ticker {
            last_px: px("c", ticker.last_px)?,
            open_px: px("o", ticker.open_px)?,
            high_px: px("h", ticker.high_px)?,
            low_px: px("l", ticker.low_px)?,
            volume: sum("v", ticker.volume, scale.sz_exp)?,
            turnover: tracked.turnover(sum("q", ticker.turnover, scale.px_exp)?),
            bid_px: best("b", ticker.bid_px, tracked.bid_px)?,
            ask_px: best("a", ticker.ask_px, tracked.ask_px)?,
        };
        tracked.has_ticker = true;
        let id = tracked.define(scale, out);
        let header = RecordHeader::of_feed(RecordKind::Ticker, id, ticker.ts_event);
        out.put(|batch| body.encode(&header, batch));
        Ok(())
    }

    fn depth(
        &mut self,
        depth: &message::Depth<'_, '_>,
        origin: &mut Origin,
        out: &mut Out<'_>,
    ) -> Result<(), Malformed> {
        if origin.market.is_futures() && depth.previous_id.is_none() {
            return Err(Malformed::Missing("pu"));
        }
        let index = self.find(depth.symbol, origin)?;
        let Self { tracked, levels, .. } = self;
        let tracked = &mut tracked[index];
        tracked.read_levels(&depth.bids, &depth.asks, levels, out)?;
        let ids = Ids { first: depth.first_id, last: depth.last_id, previous: depth.previous_id };
        match tracked.sync.update(ids, depth.ts_event, levels) {
            Verdict::Apply => tracked.update_book(depth.ts_event, levels, out),
            Verdict::Gap => {
                out.report.book_gaps += 1;
                tracing::warn!(
                    instrument = tracked.name,
                    first = ids.first,
                    last = ids.last,
                    "updates are missing before this one: the book is void until the next snapshot"
                );
                tracked.void_book(depth.ts_event, out);
            }
            Verdict::Old | Verdict::Held => {}
        }
        Ok(())
    }

    fn snapshot(
        &mut self,
        snapshot: &message::Snapshot<'_, '_>,
        origin: &mut Origin,
        out: &mut Out<'_>,
    ) -> Result<(), Malformed> {
        let index = self.instrument_of(snapshot, origin)?;
        let Self { tracked, levels, .. } = self;
        let tracked = &mut tracked[index];
        if snapshot.is_partial && !tracked.sync.is_waiting() {
            // A book that updates keep whole has what the best levels show.
            out.report.ignored += 1;
            return Ok(());
        }
        let was_suspect = std::mem::take(&mut tracked.is_book_suspect);
        let read = tracked.read_levels(&snapshot.bids, &snapshot.asks, levels, out);
        if read.is_err() || (!snapshot.is_partial && !tracked.sync.is_next(snapshot.last_update_id)) {
            // The book stays as it is.
            tracked.is_book_suspect |= was_suspect;
        }
        read?;
        if snapshot.is_partial {
            tracked.has_partial_book = true;
            tracked.new_book(snapshot.ts_event, levels, [], out);
        } else if let Some(following) = tracked.sync.snapshot(snapshot.last_update_id) {
            tracked.new_book(snapshot.ts_event, levels, &following, out);
        }
        Ok(())
    }

    /// The instrument of a snapshot: the one it names, else the only one of its origin that waits for a snapshot,
    /// else the only one of its origin.
    fn instrument_of(&mut self, snapshot: &message::Snapshot<'_, '_>, origin: &mut Origin) -> Result<usize, Malformed> {
        if let Some(symbol) = &snapshot.symbol {
            return self.find(symbol, origin);
        }
        let with_book = || origin.by_symbol.values().filter(|index| self.tracked[**index].sync.has_begun());
        let waiting = || with_book().filter(|index| self.tracked[**index].sync.is_waiting());
        let counts = [waiting().count(), with_book().count(), origin.by_symbol.len()];
        match counts {
            [1, ..] => Ok(*waiting().next().expect("one was counted")),
            [0, 1, _] => Ok(*with_book().next().expect("one was counted")),
            [0, 0, 1] => Ok(*origin.by_symbol.values().next().expect("one was counted")),
            [0, 0, 0] => {
                let symbol = origin.sole_symbol.clone().ok_or(Malformed::WhoseSnapshot(0))?;
                self.find(&symbol, origin)
            }
            counts => Err(Malformed::WhoseSnapshot(counts.into_iter().find(|count| *count > 0).unwrap_or(0))),
        }
    }

    fn find(&mut self, symbol: &str, origin: &mut Origin) -> Result<usize, Malformed> {
        if let Some(index) = origin.by_symbol.get(symbol) {
            return Ok(*index);
        }
        if symbol.is_empty() || symbol.len() > SYMBOL_BYTES_MAX {
            return Err(Malformed::Symbol(symbol.len()));
        }
        check_symbol(symbol).map_err(|error| Malformed::SymbolText { text: symbol.to_owned(), error })?;
        let market = origin.market;
        let index = *self.by_symbol.entry((market, symbol.to_owned())).or_insert_with(|| {
            self.tracked.push(Tracked::new(market, market.name(symbol) + &self.suffix));
            self.tracked.len() - 1
        });
        origin.by_symbol.insert(symbol.to_owned(), index);
        Ok(index)
    }
}

/// The state of one instrument.
struct Tracked {
    market: Market,
    name: String,
    /// Id and exponents, once a Definition was published.
    defined: Option<(u32, Scale)>,
    /// What its exponents were chosen for.
    needs: ScaleNeeds,
    sync: BookSync,
    /// A level was left out: the book is flagged until the next whole one.
    is_book_suspect: bool,
    /// A partial book was published.
    has_partial_book: bool,
    trade_ids: TradeIds,
    /// Of the last quote, or [`PRICE_NONE`].
    bid_px: i64,
    ask_px: i64,
    window: Option<TradeWindow>,
    /// True if it traded since the last derived ticker.
    traded: bool,
    /// True if the venue sends its own ticker.
    has_ticker: bool,
}

impl Tracked {
    fn new(market: Market, name: String) -> Self {
        let sync = BookSync::new(market.is_futures());
        Self {
            market,
            name,
            defined: None,
            needs: ScaleNeeds::default(),
            sync,
            is_book_suspect: false,
            has_partial_book: false,
            trade_ids: TradeIds::default(),
            bid_px: PRICE_NONE,
            ask_px: PRICE_NONE,
            window: None,
            traded: false,
            has_ticker: false,
        }
    }

    fn scale(&self) -> Option<Scale> {
        self.defined.map(|(_, scale)| scale)
    }

    fn define(&mut self, scale: Scale, out: &mut Out<'_>) -> u32 {
        if let Some((id, _)) = self.defined {
            return id;
        }
        let id = *out.next_id;
        *out.next_id += 1;
        self.defined = Some((id, scale));
        self.announce(id, scale, out);
        id
    }

    fn announce(&self, id: u32, scale: Scale, out: &mut Out<'_>) {
        let instrument = Instrument::new(id, &self.name, self.market.venue(), scale.px_exp, scale.sz_exp);
        out.put(|batch| record::encode_definition(&instrument, batch));
    }

    /// The exponents for these texts: the present ones, unless one of the texts does not fit them and others are better.
    /// Without texts there may be none yet; then those of no decimals are returned.
    fn fit<'t>(
        &mut self,
        prices: impl Iterator<Item = &'t str>,
        sizes: impl Iterator<Item = &'t str>,
        out: &mut Out<'_>,
    ) -> Scale {
        let mut needs = self.needs;
        let held = self.scale();
        let is_new = |text: &str, exponent: fn(Scale) -> i8| held.is_none_or(|held| is_tight(text, exponent(held)));
        prices.filter(|text| is_new(text, |scale| scale.px_exp)).for_each(|text| needs.px.add(text));
        sizes.filter(|text| is_new(text, |scale| scale.sz_exp)).for_each(|text| needs.sz.add(text));
        let scale = match held {
            Some(held) if needs == self.needs => held,
            _ => needs.scale(),
        };
        self.needs = needs;
        if let Some((id, before)) = self.defined.filter(|(_, before)| *before != scale) {
            self.defined = Some((id, scale));
            self.rescale(before, scale);
            out.report.rescaled += 1;
            self.announce(id, scale, out);
        }
        scale
    }

    /// Carries what is kept over to other exponents.
    fn rescale(&mut self, from: Scale, to: Scale) {
        let px = |px: i64| match px {
            PRICE_NONE => Some(px),
            px => decimal::rescale(px, from.px_exp, to.px_exp),
        };
        (self.bid_px, self.ask_px) = (px(self.bid_px).unwrap_or(PRICE_NONE), px(self.ask_px).unwrap_or(PRICE_NONE));
        self.window = self.window.and_then(|window| window.rescaled(from, to));
        self.is_book_suspect |= self.sync.rescale(|level| {
            let sz = decimal::rescale(level.sz, from.sz_exp, to.sz_exp)?;
            Some(Level { px: px(level.px)?, sz, ..*level })
        });
    }

    /// Reports trades that were lost, of an instrument that is defined.
    fn report_lost(&mut self, lost: u64, scale: Scale, out: &mut Out<'_>) {
        if lost == 0 {
            return;
        }
        out.report.trades_lost += lost;
        let instrument = self.define(scale, out);
        let gap = Gap {
            instrument,
            channel: Channel::Trade,
            from_sequence: Sequence::new(1),
            to_sequence: Sequence::new(lost),
            reason: GapReason::Feed,
        };
        out.put(|batch| gap.encode(0, batch));
    }

    /// Reads the levels of a message into `levels`. A message without levels does not determine the exponents. A level that
    /// fits no exponents is left out, and the book is flagged.
    fn read_levels(
        &mut self,
        bids: &Levels<'_, '_>,
        asks: &Levels<'_, '_>,
        levels: &mut Vec<Level>,
        out: &mut Out<'_>,
    ) -> Result<(), Malformed> {
        levels.clear();
        let all = || bids.iter().chain(asks.iter());
        // All of them are checked before the exponents change: a message becomes all of its records or none.
        let count = all().try_fold(0, |count, level| level.map(|_| count + 1))?;
        if count == 0 {
            return Ok(());
        }
        let texts = || all().filter_map(Result::ok);
        let scale = self.fit(texts().map(|(px, _)| px), texts().map(|(_, sz)| sz), out);
        for (list, side) in [(bids, BookSide::Bid), (asks, BookSide::Ask)] {
            for (px, sz) in list.iter().filter_map(Result::ok) {
                let (px, sz) = (absent_if_unfit(scale.px(list.key(), px))?, absent_if_unfit(scale.sz(list.key(), sz))?);
                if px == PRICE_NONE || sz == PRICE_NONE {
                    self.is_book_suspect = true;
                    out.report.levels_lost += 1;
                } else {
                    levels.push(Level { px, sz, side });
                }
            }
        }
        self.define(scale, out);
        Ok(())
    }

    fn new_book<'h>(
        &mut self,
        ts_event: u64,
        levels: &mut Vec<Level>,
        following: impl IntoIterator<Item = &'h Held>,
        out: &mut Out<'_>,
    ) {
        levels.retain(|level| level.sz != 0);
        if levels.len() > BOOK_LEVELS_MAX {
            let mut book = Book::default();
            book.apply(BookAction::Snapshot, levels.drain(..));
            *levels = book.levels(BOOK_LEVELS_MAX);
        }
        self.book_record(BookAction::Snapshot, ts_event, flags::LAST, levels, out);
        for held in following {
            self.update_book(held.ts_event, &held.levels, out);
        }
    }

    fn update_book(&self, ts_event: u64, levels: &[Level], out: &mut Out<'_>) {
        let mut rest = levels;
        while rest.len() > BOOK_LEVELS_MAX {
            let (part, tail) = rest.split_at(BOOK_LEVELS_MAX);
            self.book_record(BookAction::Delta, ts_event, 0, part, out);
            rest = tail;
        }
        self.book_record(BookAction::Delta, ts_event, flags::LAST, rest, out);
    }

    fn void_book(&self, ts_event: u64, out: &mut Out<'_>) {
        self.book_record(BookAction::Snapshot, ts_event, flags::LAST | flags::MAYBE_BAD_BOOK, &[], out);
    }

    fn book_record(&self, action: BookAction, ts_event: u64, flags: u8, levels: &[Level], out: &mut Out<'_>) {
        // Without a Definition no level was ever seen, so there is nothing to publish.
        let Some((id, _)) = self.defined else { return };
        let suspect = if self.is_book_suspect { flags::MAYBE_BAD_BOOK } else { 0 };
        let header = RecordHeader::of_feed(RecordKind::Book, id, ts_event).with_flags(flags | suspect);
        out.put(|batch| encode_book(&header, action, levels.iter().copied(), batch));
    }

    fn derived_ticker(&mut self, out: &mut Out<'_>) {
        self.traded = false;
        let Some(((id, scale), window)) = self.defined.zip(self.window) else { return };
        if self.has_ticker {
            return;
        }
        let body = record::Ticker {
            last_px: window.last_px,
            open_px: window.open_px,
            high_px: window.high_px,
            low_px: window.low_px,
            volume: window.volume(),
            turnover: self.turnover(window.turnover(scale.sz_exp)),
            bid_px: self.bid_px,
            ask_px: self.ask_px,
        };
        let header = RecordHeader::of_feed(RecordKind::Ticker, id, window.ts_event);
        out.put(|batch| body.encode(&header, batch));
    }

    /// Turnover in the quote currency. COIN-M counts in contracts whose dollar value is not in the messages, and calls
    /// the turnover in coin `q`: neither fits this field.
    fn turnover(&self, sum: i64) -> i64 {
        if self.market == Market::CoinM { PRICE_NONE } else { sum }
    }
}
