//! The state of one instrument that all venues share: its name and exponents, and the making of its records.
//!
//! Invariants: a message becomes all of its records or none; a Definition precedes the first record of its instrument,
//! and follows each change of its exponents, tick size, lot size or status.
//!
//! Exponents come from the venue's list of instruments, else from the first message that shows both a price and a size
//! ([`scale`](crate::scale)). A later value that does not fit them changes them, by another Definition. What fits no
//! exponents is left out where it stands: a side of a quote, a level of a book, which is flagged, or a trade, which
//! becomes a Gap. Cost: eight decimal parses for a quote, no allocation.

use std::borrow::Cow;

use tickcast_protocol::decimal;
use tickcast_protocol::record::{
    self, BOOK_LEVELS_MAX, Channel, Gap, Level, PRICE_NONE, RecordHeader, encode_book, encode_status, flags,
};
use tickcast_protocol::{
    Book, BookAction, FeedState, GapReason, Instrument, InstrumentStatus, RecordKind, Sequence, Side,
};

use crate::error::Malformed;
use crate::json::{Field, ReadLevel, TextLevel};
use crate::listing::Listing;
use crate::scale::{Scale, ScaleNeeds, absent_if_unfit, is_tight, sum};
use crate::sink::{BookFault, Event, Sink};

/// What a venue keeps of an instrument beside its exponents: the state of its book, the ids of its trades.
pub trait Kept {
    /// Carries it over to other exponents; true if a level of the book is not exact there and was dropped.
    fn rescale(&mut self, from: Scale, to: Scale) -> bool;

    /// True if a book was published that is valid.
    fn has_book(&self) -> bool;

    /// Forgets the book: it is void until the next snapshot.
    fn clear_book(&mut self);

    /// Forgets what a new connection sends again.
    fn disconnect(&mut self) {
        self.clear_book();
    }

    /// What the codec of the next connection is to know: the ids of the newest trades.
    fn successor(&self) -> Self
    where
        Self: Sized;

    /// Forgets everything, as what follows is another recording.
    fn restart(&mut self);
}

/// The best bid and offer as text.
#[derive(Clone, Copy, Debug)]
pub struct QuoteText<'i> {
    /// The best bid, and its size.
    pub bid: (Field<'i>, Field<'i>),
    /// The best offer, and its size.
    pub ask: (Field<'i>, Field<'i>),
    /// Time of the venue, ns.
    pub ts_event: u64,
}

/// A trade as text.
#[derive(Clone, Copy, Debug)]
pub struct TradeText<'i> {
    /// Its price.
    pub px: Field<'i>,
    /// Its size.
    pub sz: Field<'i>,
    /// The venue's number.
    pub trade_id: u64,
    /// Side of the aggressor.
    pub side: Side,
    /// Time of the venue, ns.
    pub ts_event: u64,
}

/// Statistics of 24 hours as text; what the venue does not state is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct TickerText<'i> {
    /// The newest trade.
    pub last: Option<Field<'i>>,
    /// The price 24 hours ago.
    pub open: Option<Field<'i>>,
    /// The highest trade.
    pub high: Option<Field<'i>>,
    /// The lowest trade.
    pub low: Option<Field<'i>>,
    /// The change since 24 hours ago, where the venue states it in place of `open`.
    pub change: Option<Field<'i>>,
    /// In what is traded.
    pub volume: Option<Field<'i>>,
    /// In what it is paid with.
    pub turnover: Option<Field<'i>>,
    /// The best bid. Without it, that of the last quote.
    pub bid: Option<Field<'i>>,
    /// The best offer. Without it, that of the last quote.
    pub ask: Option<Field<'i>>,
    /// Time of the venue, ns.
    pub ts_event: u64,
}

/// An instrument, with what its venue keeps of it.
#[derive(Debug)]
pub struct Tracked<K> {
    /// What the venue's codec keeps.
    pub kept: K,
    venue: Cow<'static, str>,
    name: String,
    /// Id and exponents, once a Definition was published.
    defined: Option<(u32, Scale)>,
    /// What its exponents were chosen for.
    needs: ScaleNeeds,
    tick_size: Option<String>,
    lot_size: Option<String>,
    status: InstrumentStatus,
    /// A level was left out: the book is flagged until the next whole one.
    is_book_suspect: bool,
    /// Of the last quote, or [`PRICE_NONE`].
    best_px: [i64; 2],
}

impl<K: Kept> Tracked<K> {
    /// An instrument of which nothing is known but its name in the directory.
    pub fn new(venue: impl Into<Cow<'static, str>>, name: String, kept: K) -> Self {
        Self {
            kept,
            venue: venue.into(),
            name,
            defined: None,
            needs: ScaleNeeds::default(),
            tick_size: None,
            lot_size: None,
            status: InstrumentStatus::Trading,
            is_book_suspect: false,
            best_px: [PRICE_NONE; 2],
        }
    }

    /// Its exponents, once a Definition was published.
    pub fn scale(&self) -> Option<Scale> {
        self.defined.map(|(_, scale)| scale)
    }

    /// Its exponents, or those of no decimals.
    pub fn scale_or_whole(&self) -> Scale {
        self.scale().unwrap_or_else(|| self.needs.scale())
    }

    /// True if a level of the book was left out since the last whole one.
    pub fn is_book_suspect(&self) -> bool {
        self.is_book_suspect
    }

    /// Sets whether a level of the book is missing, and returns what was set before.
    pub fn set_book_suspect(&mut self, is_suspect: bool) -> bool {
        std::mem::replace(&mut self.is_book_suspect, is_suspect)
    }

    /// Forgets the book, as the connection is lost.
    pub fn forget_book(&mut self) {
        self.kept.disconnect();
        self.is_book_suspect = false;
    }

    /// Forgets the last quote, as the connection is lost.
    pub fn forget_quote(&mut self) {
        self.best_px = [PRICE_NONE; 2];
    }

    /// Forgets all but the name and the exponents.
    pub fn restart(&mut self) {
        self.forget_book();
        self.forget_quote();
        self.kept.restart();
    }

    /// The instrument for the codec of the next connection.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self {
            kept: self.kept.successor(),
            venue: self.venue.clone(),
            name: self.name.clone(),
            tick_size: self.tick_size.clone(),
            lot_size: self.lot_size.clone(),
            is_book_suspect: false,
            ..*self
        }
    }

    /// Takes what the venue's list says of it. Exponents follow its tick and lot size, a change becomes a Definition, and
    /// another status a Status record as well.
    pub fn list(&mut self, listing: &Listing, sink: &mut Sink<'_>) {
        let former = (self.scale().map(|scale| self.steps(scale)), self.status);
        self.status = listing.status;
        (self.tick_size, self.lot_size) = (listing.tick_size.clone(), listing.lot_size.clone());
        let [tick, lot] = [&listing.tick_size, &listing.lot_size].map(|text| text.as_deref().map(without_end_zeros));
        match self.defined {
            Some((id, before)) => {
                let is_other = former != (Some(self.steps(before)), self.status);
                if self.fit(tick.into_iter(), lot.into_iter(), sink) == before && is_other {
                    self.announce(id, before, sink);
                }
            }
            None if tick.is_some() && lot.is_some() => {
                let scale = self.fit(tick.into_iter(), lot.into_iter(), sink);
                self.define(scale, sink);
            }
            None => return,
        }
        if former.1 != self.status {
            self.put_state(FeedState::Live, sink);
        }
    }

    /// Tick and lot size at these exponents; what is not stated, or not exact there, is absent.
    fn steps(&self, scale: Scale) -> [i64; 2] {
        [(&self.tick_size, scale.px_exp), (&self.lot_size, scale.sz_exp)].map(|(text, exponent)| {
            text.as_deref().and_then(|text| decimal::parse(text, exponent).ok()).unwrap_or(PRICE_NONE)
        })
    }

    /// Publishes the state of the instrument. One that is live is what the venue's list says of it.
    pub fn put_state(&self, state: FeedState, sink: &mut Sink<'_>) {
        let Some((id, _)) = self.defined else { return };
        let state = match (state, self.status) {
            (FeedState::Live, InstrumentStatus::Halted) => FeedState::Halted,
            (FeedState::Live, InstrumentStatus::Closed) => FeedState::Ended,
            _ => state,
        };
        let header = RecordHeader::of_feed(RecordKind::Status, id, 0);
        sink.put(|batch| encode_status(&header, state, batch));
    }

    /// Publishes a Definition if there was none, and returns the id of the instrument.
    pub fn define(&mut self, scale: Scale, sink: &mut Sink<'_>) -> u32 {
        if let Some((id, _)) = self.defined {
            return id;
        }
        let id = *sink.next_id;
        *sink.next_id += 1;
        self.defined = Some((id, scale));
        self.announce(id, scale, sink);
        id
    }

    /// Publishes a Definition of these exponents and steps, which its source states, with venue and status.
    pub fn state(
        &mut self,
        venue: &str,
        scale: Scale,
        steps: [Option<&str>; 2],
        status: InstrumentStatus,
        sink: &mut Sink<'_>,
    ) {
        let before = self.defined.map(|(_, before)| (before, self.steps(before), self.status, self.venue.clone()));
        self.venue = Cow::Owned(venue.to_owned());
        [self.tick_size, self.lot_size] = steps.map(|text| text.map(str::to_owned));
        self.status = status;
        self.needs = ScaleNeeds::of(scale);
        let id = self.define(scale, sink);
        let is_other = |before| before != (scale, self.steps(scale), status, self.venue.clone());
        if before.is_some_and(is_other) {
            self.defined = Some((id, scale));
            self.announce(id, scale, sink);
        }
    }

    /// Publishes its Definition again, for a reader that has none any more.
    pub fn announce_again(&self, sink: &mut Sink<'_>) {
        if let Some((id, scale)) = self.defined {
            self.announce(id, scale, sink);
        }
    }

    fn announce(&self, id: u32, scale: Scale, sink: &mut Sink<'_>) {
        let mut instrument = Instrument::new(id, &self.name, &self.venue, scale.px_exp, scale.sz_exp);
        [instrument.tick_size, instrument.lot_size] = self.steps(scale);
        instrument.status = self.status;
        sink.put(|batch| record::encode_definition(&instrument, batch));
    }

    /// The exponents for these texts: the present ones, unless one of the texts does not fit them and others are better.
    /// Without texts there may be none yet; then those of no decimals are returned.
    pub fn fit<'t>(
        &mut self,
        prices: impl Iterator<Item = &'t str>,
        sizes: impl Iterator<Item = &'t str>,
        sink: &mut Sink<'_>,
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
            self.best_px = self.best_px.map(|px| match px {
                PRICE_NONE => px,
                px => decimal::rescale(px, before.px_exp, scale.px_exp).unwrap_or(PRICE_NONE),
            });
            self.is_book_suspect |= self.kept.rescale(before, scale);
            sink.report.rescaled += 1;
            self.announce(id, scale, sink);
        }
        scale
    }

    /// Publishes a quote. A side of size 0, or one that fits no exponents, is absent.
    pub fn quote(&mut self, quote: &QuoteText<'_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let (bid, ask) = (quote.bid, quote.ask);
        let (prices, sizes) = ([bid.0.text, ask.0.text], [bid.1.text, ask.1.text]);
        let scale = self.fit(prices.into_iter(), sizes.into_iter(), sink);
        let (bid_px, bid_sz) = scale.best(bid.0.key, bid.0.text, bid.1.key, bid.1.text)?;
        let (ask_px, ask_sz) = scale.best(ask.0.key, ask.0.text, ask.1.key, ask.1.text)?;
        let id = self.define(scale, sink);
        self.best_px = [bid_px, ask_px];
        let header = RecordHeader::of_feed(RecordKind::Quote, id, quote.ts_event);
        sink.put(|batch| record::Quote { bid_px, bid_sz, ask_px, ask_sz }.encode(&header, batch));
        Ok(())
    }

    /// Publishes a trade, behind a Gap of those that were lost before it. Returns its price and size.
    pub fn trade(
        &mut self,
        trade: &TradeText<'_>,
        lost_before: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(i64, i64), Malformed> {
        let TradeText { trade_id, side, ts_event, .. } = *trade;
        let scale = self.fit([trade.px.text].into_iter(), [trade.sz.text].into_iter(), sink);
        let (px, sz) = (scale.px(trade.px.key, trade.px.text)?, scale.sz(trade.sz.key, trade.sz.text)?);
        let id = self.define(scale, sink);
        self.report_lost(lost_before, sink);
        let header = RecordHeader::of_feed(RecordKind::Trade, id, ts_event);
        sink.put(|batch| record::Trade { px, sz, trade_id, side }.encode(&header, batch));
        Ok((px, sz))
    }

    /// Reports trades that were lost, of an instrument that is defined.
    pub fn report_lost(&self, lost: u64, sink: &mut Sink<'_>) {
        let Some((instrument, _)) = self.defined.filter(|_| lost > 0) else { return };
        sink.report.trades_lost += lost;
        let gap = Gap {
            instrument,
            channel: Channel::Trade,
            from_sequence: Sequence::new(1),
            to_sequence: Sequence::new(lost),
            reason: GapReason::Feed,
        };
        sink.put(|batch| gap.encode(0, batch));
    }

    /// Publishes statistics. A value that fits no exponents is absent, and sums are cut at the exponent.
    pub fn ticker(&mut self, ticker: &TickerText<'_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let prices = [ticker.last, ticker.open, ticker.high, ticker.low].into_iter().flatten().map(|field| field.text);
        // A sum has decimals that no size has.
        let volume = ticker.volume.filter(|_| self.scale().is_none()).map(|field| field.text);
        let scale = self.fit(prices, volume.into_iter(), sink);
        let px = |field: Option<Field<'_>>| {
            field.map_or(Ok(PRICE_NONE), |field| absent_if_unfit(scale.px(field.key, field.text)))
        };
        let total = |field: Option<Field<'_>>, exponent| {
            field.map_or(Ok(PRICE_NONE), |field| sum(field.key, field.text, exponent))
        };
        let best = |field: Option<Field<'_>>, quoted| if field.is_some() { px(field) } else { Ok(quoted) };
        let last_px = px(ticker.last)?;
        let open_px = match px(ticker.change)? {
            change if change == PRICE_NONE || last_px == PRICE_NONE => px(ticker.open)?,
            change => last_px.checked_sub(change).unwrap_or(PRICE_NONE),
        };
        let body = record::Ticker {
            last_px,
            open_px,
            high_px: px(ticker.high)?,
            low_px: px(ticker.low)?,
            volume: total(ticker.volume, scale.sz_exp)?,
            turnover: total(ticker.turnover, scale.px_exp)?,
            bid_px: best(ticker.bid, self.best_px[0])?,
            ask_px: best(ticker.ask, self.best_px[1])?,
        };
        self.put_ticker(scale, ticker.ts_event, &body, sink);
        Ok(())
    }

    /// Publishes statistics that were computed here.
    pub fn put_ticker(&mut self, scale: Scale, ts_event: u64, body: &record::Ticker, sink: &mut Sink<'_>) {
        let id = self.define(scale, sink);
        let header = RecordHeader::of_feed(RecordKind::Ticker, id, ts_event);
        sink.put(|batch| body.encode(&header, batch));
    }

    /// The best prices of the last quote, or [`PRICE_NONE`].
    pub fn best_px(&self) -> [i64; 2] {
        self.best_px
    }

    /// Reads the levels of a message, and calls `each` with those that are represented. A message without levels does not
    /// determine the exponents. A level that fits no exponents is left out, and the book is flagged.
    pub fn read_levels<'i, I>(
        &mut self,
        levels: impl Fn() -> I,
        sink: &mut Sink<'_>,
        mut each: impl FnMut(Level, &TextLevel<'i>),
    ) -> Result<(), Malformed>
    where
        I: Iterator<Item = ReadLevel<'i>>,
    {
        // All of them are checked before the exponents change: a message becomes all of its records or none.
        let count = levels().try_fold(0, |count, level| level.map(|_| count + 1))?;
        if count == 0 {
            return Ok(());
        }
        let texts = || levels().filter_map(Result::ok);
        let scale = self.fit(texts().map(|level| level.px), texts().map(|level| level.sz), sink);
        for level in texts() {
            let px = absent_if_unfit(scale.px(level.key, level.px))?;
            let sz = absent_if_unfit(scale.sz(level.key, level.sz))?;
            if px == PRICE_NONE || sz == PRICE_NONE {
                self.is_book_suspect = true;
                sink.report.levels_lost += 1;
            } else {
                each(Level { px, sz, side: level.side }, &level);
            }
        }
        self.define(scale, sink);
        Ok(())
    }

    /// Publishes a whole book. Of more levels than a record holds, the best are kept.
    pub fn new_book(&self, ts_event: u64, levels: &mut Vec<Level>, sink: &mut Sink<'_>) {
        levels.retain(|level| level.sz != 0);
        if levels.len() > BOOK_LEVELS_MAX {
            let mut book = Book::default();
            book.apply(BookAction::Snapshot, levels.drain(..));
            *levels = book.levels(BOOK_LEVELS_MAX);
        }
        self.book_record(BookAction::Snapshot, ts_event, flags::LAST, levels, sink);
    }

    /// Publishes changes of the book; the last record of them is flagged so.
    pub fn update_book(&self, ts_event: u64, levels: &[Level], sink: &mut Sink<'_>) {
        let mut rest = levels;
        while rest.len() > BOOK_LEVELS_MAX {
            let (part, tail) = rest.split_at(BOOK_LEVELS_MAX);
            self.book_record(BookAction::Delta, ts_event, 0, part, sink);
            rest = tail;
        }
        self.book_record(BookAction::Delta, ts_event, flags::LAST, rest, sink);
    }

    /// Publishes that there is no valid book.
    pub fn void_book(&self, ts_event: u64, sink: &mut Sink<'_>) {
        self.book_record(BookAction::Snapshot, ts_event, flags::LAST | flags::MAYBE_BAD_BOOK, &[], sink);
    }

    /// Publishes that there is no valid book, if there was one.
    pub fn void_if_valid(&self, sink: &mut Sink<'_>) {
        if self.kept.has_book() {
            self.void_book(0, sink);
        }
    }

    /// Counts a fault of the book, reports it, and publishes that there is no valid book.
    pub fn drop_book(&self, cause: BookFault, ts_event: u64, sink: &mut Sink<'_>) {
        match cause {
            BookFault::Checksum { .. } => sink.report.checksum_errors += 1,
            _ => sink.report.book_gaps += 1,
        }
        sink.events.push(Event::BookDropped { instrument: self.name.clone(), cause });
        self.void_book(ts_event, sink);
    }

    fn book_record(&self, action: BookAction, ts_event: u64, flags: u8, levels: &[Level], sink: &mut Sink<'_>) {
        // Without a Definition no level was ever seen, so there is nothing to publish.
        let Some((id, _)) = self.defined else { return };
        let suspect = if self.is_book_suspect { flags::MAYBE_BAD_BOOK } else { 0 };
        let header = RecordHeader::of_feed(RecordKind::Book, id, ts_event).with_flags(flags | suspect);
        sink.put(|batch| encode_book(&header, action, levels.iter().copied(), batch));
    }
}

/// A number without the zeros at the end of its decimals, which a venue may write to any length.
fn without_end_zeros(text: &str) -> &str {
    if text.contains('.') && !text.contains(['e', 'E']) {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}
