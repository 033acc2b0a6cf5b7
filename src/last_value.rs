//! The newest value of every instrument and channel: snapshots are made from it, and sequence gaps are found in it.
//!
//! The sequencer and every shard have one each. Records come in order, and sequences of an instrument and channel are
//! contiguous: a jump is a sequence gap (the ring was overrun), and [`LastValues::apply`] returns it. A book with a gap
//! is dropped until a book snapshot (`'S'`) replaces it.
//!
//! The owner may keep with each value where it has it from (the `Origin` parameter): a shard the end of the record in
//! its ring, the sequencer nothing.
//!
//! Memory: some 350 bytes an instrument, and its book. Cost: a copy of the record; for a book, a tree step a level.

use tickcast_protocol::record::{self, Channel, Gap, Level, RecordHeader, RecordKind, RecordPrefix, flags};
use tickcast_protocol::{Book, BookAction, FeedState, GapReason, Instrument, Sequence, decimal};

/// What [`LastValues::apply`] found out about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Known already, or of an unknown instrument: not to be delivered.
    Ignored,
    /// The next in order.
    Next,
    /// Applied, but the sequences `from` to `to` are missing before it.
    AfterGap { from: Sequence, to: Sequence },
    /// A delta of a book that has a gap: not to be delivered; the book waits for a snapshot.
    Broken,
}

/// A book, and the other fields of its newest record.
#[derive(Clone, Debug, Default)]
pub struct BookState {
    pub levels: Book,
    /// `MAYBE_BAD_BOOK` and `DELAYED` of the newest record.
    pub flags: u8,
    pub ts_event: u64,
    pub ts_recv: u64,
    /// There was a gap: the levels are not to be shown.
    pub broken: bool,
}

/// The newest Status record of an instrument, or of the feed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<Origin> {
    pub state: FeedState,
    /// Where the owner has that record from; the default before the first.
    pub origin: Origin,
    /// False before the first record.
    pub is_received: bool,
    pub ts_recv: u64,
}

impl<Origin: Default> Default for Status<Origin> {
    fn default() -> Self {
        Self { state: FeedState::Live, origin: Origin::default(), is_received: false, ts_recv: 0 }
    }
}

impl<Origin> Status<Origin> {
    /// Appends it as a record.
    pub fn push(&self, instrument: u32, extra: u8, out: &mut Vec<u8>) {
        let header = RecordHeader { ts_recv: self.ts_recv, ..RecordHeader::of_feed(RecordKind::Status, instrument, 0) };
        record::encode_status(&header.with_flags(flags::LAST | extra), self.state, out);
    }

    /// Appends it as a record if one was ever received. Until then subscribers assume live, which is right; a client
    /// that resumes may know an older state.
    pub fn push_if_received(&self, instrument: u32, out: &mut Vec<u8>) {
        if self.is_received {
            self.push(instrument, 0, out);
        }
    }
}

/// The newest values of one instrument.
#[derive(Clone, Debug)]
pub struct InstrumentValues<Origin> {
    status: Status<Origin>,
    /// Where the owner has the Definition from that changed it last; the default for the first.
    definition_origin: Origin,
    sequences: [Sequence; Channel::COUNT],
    origins: [Origin; Channel::COUNT],
    quote: [u8; record::Quote::BYTES],
    trade: [u8; record::Trade::BYTES],
    ticker: [u8; record::Ticker::BYTES],
    book: Option<Box<BookState>>,
    /// Where the first delta comes from that could not be applied, and the sequence before it; while the book has a gap.
    book_gap: Option<(Origin, Sequence)>,
}

impl<Origin: Copy + Default> Default for InstrumentValues<Origin> {
    fn default() -> Self {
        Self {
            status: Status::default(),
            definition_origin: Origin::default(),
            sequences: [Sequence::NONE; Channel::COUNT],
            origins: [Origin::default(); Channel::COUNT],
            quote: [0; record::Quote::BYTES],
            trade: [0; record::Trade::BYTES],
            ticker: [0; record::Ticker::BYTES],
            book: None,
            book_gap: None,
        }
    }
}

impl<Origin: Copy> InstrumentValues<Origin> {
    /// Sequence of the newest record of a channel; 0 before the first.
    pub fn sequence(&self, channel: Channel) -> Sequence {
        self.sequences[channel as usize]
    }

    /// Where the owner has that record from.
    pub fn origin(&self, channel: Channel) -> Origin {
        self.origins[channel as usize]
    }

    /// Where the owner has the Definition from that changed the instrument last.
    pub fn definition_origin(&self) -> Origin {
        self.definition_origin
    }

    /// Where the owner has the newest of all these values, of the status and of the definition from.
    pub fn newest_origin(&self) -> Origin
    where
        Origin: Ord,
    {
        let values = self.origins.iter().copied().fold(self.status.origin.max(self.definition_origin), Ord::max);
        self.book_gap.map_or(values, |(origin, _)| values.max(origin))
    }

    /// Where the owner has the delta from that showed a gap in the book; `None` if the book has no gap.
    pub fn book_gap_origin(&self) -> Option<Origin> {
        self.book_gap.map(|(origin, _)| origin)
    }

    /// Appends an empty change that says that the book may be wrong, if it has a gap.
    pub fn push_book_gap(&self, instrument: u32, ts_recv: u64, out: &mut Vec<u8>) {
        let (Some((_, sequence)), Some(state)) = (self.book_gap, self.book.as_deref()) else { return };
        let header = RecordHeader::of_feed(RecordKind::Book, instrument, state.ts_event);
        let header = RecordHeader { sequence, ts_recv, ..header };
        let flags = flags::LAST | flags::CONFLATED | flags::MAYBE_BAD_BOOK;
        record::encode_book(&header.with_flags(flags), BookAction::Delta, std::iter::empty(), out);
    }

    /// The book, if it has no gap.
    pub fn book(&self) -> Option<&BookState> {
        self.book.as_deref().filter(|state| !state.broken)
    }

    /// Appends the newest record of a channel, with `extra` added to its flags. Returns false if there is none: before
    /// the first, for a book that waits for a snapshot, and for Raw, whose payloads are not kept.
    pub fn push(&self, instrument: u32, channel: Channel, extra: u8, out: &mut Vec<u8>) -> bool {
        self.push_within(instrument, channel, None, extra, out)
    }

    /// The same with the best levels of a book only: so many of each side.
    pub fn push_within(
        &self,
        instrument: u32,
        channel: Channel,
        book_levels: Option<usize>,
        extra: u8,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.sequence(channel).is_none() {
            return false;
        }
        let kept: &[u8] = match channel {
            Channel::Quote => &self.quote,
            Channel::Trade => &self.trade,
            Channel::Ticker => &self.ticker,
            Channel::Book => return self.push_book(instrument, book_levels, extra, out),
            Channel::Raw => return false,
        };
        let Some(prefix) = RecordPrefix::read(kept).filter(|prefix| prefix.bytes() > 0) else { return false };
        let start = out.len();
        out.extend_from_slice(kept);
        record::patch_flags(&mut out[start..], prefix.flags() | flags::LAST | extra);
        true
    }

    /// Appends a Gap if trades after the kept one were lost before they came here. Without it, a client that is sent
    /// the kept trade would find an unreported gap before the next. True if there was such a loss.
    pub fn push_trades_lost(&self, instrument: u32, ts_recv: u64, out: &mut Vec<u8>) -> bool {
        let (channel, to_sequence) = (Channel::Trade, self.sequence(Channel::Trade));
        let Some(kept) = RecordHeader::read(&self.trade).filter(|kept| kept.sequence < to_sequence) else {
            return false;
        };
        let from_sequence = kept.sequence.next();
        Gap { instrument, channel, from_sequence, to_sequence, reason: GapReason::Feed }.encode(ts_recv, out);
        true
    }

    /// A trade of a resynchronisation may be newer than the kept one, and yet older than a Gap that came in between.
    fn keep_trade_before_gap(&mut self, header: &RecordHeader, channel: Channel, bytes: &[u8]) {
        let is_newer = |kept: RecordHeader| kept.sequence < header.sequence;
        if channel == Channel::Trade && RecordHeader::read(&self.trade).is_some_and(is_newer) {
            self.trade.copy_from_slice(bytes);
        }
    }

    /// Carries the values over to other exponents. A value that is not exact there, or too large, is absent until the next
    /// record; a level of the book is left out, and the book flagged.
    fn rescale(&mut self, from: &Instrument, to: &Instrument) {
        let px = |px: i64| rescaled(px, from.px_exp, to.px_exp);
        let sz = |sz: i64| rescaled(sz, from.sz_exp, to.sz_exp);
        let quote = record::Quote::read(&self.quote).and_then(|quote| {
            let record::Quote { bid_px, bid_sz, ask_px, ask_sz } = quote;
            let (bid_px, ask_px) = (px(bid_px)?, px(ask_px)?);
            Some(record::Quote { bid_px, bid_sz: sz(bid_sz)?, ask_px, ask_sz: sz(ask_sz)? })
        });
        replace(&mut self.quote, quote, record::Quote::encode);
        let trade = record::Trade::read(&self.trade)
            .and_then(|trade| Some(record::Trade { px: px(trade.px)?, sz: sz(trade.sz)?, ..trade }));
        replace(&mut self.trade, trade, record::Trade::encode);
        let ticker = record::Ticker::read(&self.ticker).and_then(|ticker| {
            // A sum that does not fit is absent, as a feed leaves it out.
            let sum = |sum: Option<i64>| sum.unwrap_or(record::PRICE_NONE);
            Some(record::Ticker {
                last_px: px(ticker.last_px)?,
                open_px: px(ticker.open_px)?,
                high_px: px(ticker.high_px)?,
                low_px: px(ticker.low_px)?,
                volume: sum(sz(ticker.volume)),
                turnover: sum(px(ticker.turnover)),
                bid_px: px(ticker.bid_px)?,
                ask_px: px(ticker.ask_px)?,
            })
        });
        replace(&mut self.ticker, ticker, record::Ticker::encode);
        if let Some(state) = &mut self.book {
            let levels = state.levels.levels(usize::MAX);
            let fitting =
                levels.iter().filter_map(|level| Some(Level { px: px(level.px)?, sz: sz(level.sz)?, ..*level }));
            let fitting: Vec<Level> = fitting.collect();
            if fitting.len() < levels.len() {
                state.flags |= flags::MAYBE_BAD_BOOK;
            }
            state.levels.apply(BookAction::Snapshot, fitting.into_iter());
        }
    }

    fn push_book(&self, instrument: u32, levels: Option<usize>, extra: u8, out: &mut Vec<u8>) -> bool {
        let Some(state) = self.book() else { return false };
        let header = self.book_header(state, instrument, extra);
        let levels = match levels {
            Some(depth) => state.levels.best(depth.min(record::BOOK_LEVELS_MAX / 2)),
            None => state.levels.levels(record::BOOK_LEVELS_MAX),
        };
        record::encode_book(&header, BookAction::Snapshot, levels.into_iter(), out);
        true
    }

    /// The header of a record that is made from the book's present state.
    pub fn book_header(&self, state: &BookState, instrument: u32, extra: u8) -> RecordHeader {
        let sequence = self.sequence(Channel::Book);
        RecordHeader {
            sequence,
            ts_recv: state.ts_recv,
            ..RecordHeader::of_feed(RecordKind::Book, instrument, state.ts_event)
        }
        .with_flags(flags::LAST | state.flags | extra)
    }
}

/// The newest values of all instruments.
#[derive(Clone, Debug, Default)]
pub struct LastValues<Origin> {
    /// The state of the feed as a whole.
    status: Status<Origin>,
    rows: Vec<InstrumentValues<Origin>>,
}

impl<Origin: Copy + Default> LastValues<Origin> {
    /// Makes room for the instrument with this id; ids come in order.
    pub fn add(&mut self, instrument: u32) {
        let rows = instrument as usize;
        if self.rows.len() < rows {
            self.rows.resize_with(rows, InstrumentValues::default);
        }
    }

    /// The newest values of an instrument; `None` if it is unknown.
    pub fn row(&self, instrument: u32) -> Option<&InstrumentValues<Origin>> {
        self.rows.get((instrument as usize).checked_sub(1)?)
    }

    /// The newest sequence; 0 before the first record or for an unknown instrument.
    pub fn sequence(&self, instrument: u32, channel: Channel) -> Sequence {
        self.row(instrument).map_or(Sequence::NONE, |row| row.sequence(channel))
    }

    /// The state of an instrument; for instrument 0, of the feed as a whole.
    pub fn status(&self, instrument: u32) -> Status<Origin> {
        if instrument == 0 { self.status } else { self.row(instrument).map(|row| row.status).unwrap_or_default() }
    }

    /// Carries the values of an instrument over from one Definition to another; `origin` is where the owner has that from.
    pub fn redefine(&mut self, from: &Instrument, to: &Instrument, origin: Origin) {
        let Some(row) = self.row_mut(to.id) else { return };
        row.definition_origin = origin;
        if is_rescaled(from, to) {
            row.rescale(from, to);
        }
    }

    /// Forgets the values of an instrument that was released. Its status stays, for clients that have to learn it.
    pub fn release(&mut self, instrument: u32) {
        if let Some(row) = self.row_mut(instrument) {
            *row = InstrumentValues { status: row.status, ..InstrumentValues::default() };
        }
    }

    fn row_mut(&mut self, instrument: u32) -> Option<&mut InstrumentValues<Origin>> {
        self.rows.get_mut((instrument as usize).checked_sub(1)?)
    }

    /// Applies a Status record. False if it changes nothing, or if its instrument is unknown.
    pub fn apply_status(&mut self, header: &RecordHeader, bytes: &[u8], origin: Origin) -> bool {
        let held = match header.instrument {
            0 => &mut self.status,
            id => match self.rows.get_mut(id as usize - 1) {
                Some(row) => &mut row.status,
                None => return false,
            },
        };
        let Some(state) = record::read_status(bytes).filter(|state| *state != held.state) else { return false };
        *held = Status { state, origin, is_received: true, ts_recv: header.ts_recv };
        true
    }

    /// Applies a record of a channel.
    pub fn apply(&mut self, header: &RecordHeader, channel: Channel, bytes: &[u8], origin: Origin) -> Applied {
        let Some(row) = self.rows.get_mut((header.instrument as usize).wrapping_sub(1)) else {
            return Applied::Ignored;
        };
        let index = channel as usize;
        let last = row.sequences[index];
        let waits_for_snapshot = channel == Channel::Book && row.book.as_ref().is_some_and(|state| state.broken);
        if header.sequence < last || (header.sequence == last && !waits_for_snapshot) {
            row.keep_trade_before_gap(header, channel, bytes);
            return Applied::Ignored;
        }
        let has_gap = header.sequence.previous() > last || waits_for_snapshot;
        match channel {
            Channel::Quote => row.quote.copy_from_slice(bytes),
            Channel::Trade => row.trade.copy_from_slice(bytes),
            Channel::Ticker => row.ticker.copy_from_slice(bytes),
            Channel::Raw => {}
            Channel::Book => {
                if !apply_book(row.book.get_or_insert_default(), header, bytes, has_gap) {
                    // Without a book before it, no client has one that could be wrong.
                    if !last.is_none() {
                        row.book_gap.get_or_insert((origin, header.sequence.previous()));
                    }
                    return Applied::Broken;
                }
                row.book_gap = None;
            }
        }
        row.sequences[index] = header.sequence;
        row.origins[index] = origin;
        if has_gap { Applied::AfterGap { from: last.next(), to: header.sequence.previous() } } else { Applied::Next }
    }

    /// Applies a Gap record of a log channel. Returns the part of it that was not known yet.
    pub fn apply_gap(&mut self, gap: &Gap, origin: Origin) -> Option<Gap> {
        let row = self.rows.get_mut((gap.instrument as usize).wrapping_sub(1))?;
        let index = gap.channel as usize;
        let from_sequence = row.sequences[index].next();
        if gap.to_sequence < from_sequence {
            return None;
        }
        row.sequences[index] = gap.to_sequence;
        row.origins[index] = origin;
        Some(Gap { from_sequence, ..*gap })
    }
}

/// True if mantissas mean something else after a Definition.
pub fn is_rescaled(from: &Instrument, to: &Instrument) -> bool {
    (from.px_exp, from.sz_exp) != (to.px_exp, to.sz_exp)
}

fn rescaled(mantissa: i64, from: i8, to: i8) -> Option<i64> {
    if mantissa == record::PRICE_NONE { Some(mantissa) } else { decimal::rescale(mantissa, from, to) }
}

/// Replaces a kept record by another of the same header, or by none.
fn replace<T>(kept: &mut [u8], value: Option<T>, encode: impl FnOnce(&T, &RecordHeader, &mut Vec<u8>)) {
    let Some(header) = RecordHeader::read(kept).filter(|header| header.bytes() == kept.len()) else { return };
    let Some(value) = value else { return kept.fill(0) };
    let mut record = Vec::with_capacity(kept.len());
    encode(&value, &header, &mut record);
    kept.copy_from_slice(&record);
}

/// False if the record cannot be applied: a delta on a book that has a gap.
fn apply_book(state: &mut BookState, header: &RecordHeader, bytes: &[u8], has_gap: bool) -> bool {
    let Some((action, levels)) = record::read_book(bytes) else { return false };
    if has_gap && action != BookAction::Snapshot {
        state.levels.clear();
        state.broken = true;
        return false;
    }
    state.levels.apply(action, levels);
    state.broken = false;
    state.flags = header.flags & (flags::MAYBE_BAD_BOOK | flags::DELAYED);
    state.ts_event = header.ts_event;
    state.ts_recv = header.ts_recv;
    true
}
