//! A book whose snapshot and changes come on one stream: the procedure of Coinbase, Kraken, Bybit and OKX.
//!
//! A snapshot replaces the book; each change follows, in the venue's order. A change that does not follow, that cannot be
//! read, or after which the venue's checksum differs, drops this book alone: it is flagged MAYBE_BAD_BOOK and asked for
//! again. Until the next snapshot changes are skipped. Levels are kept only where a checksum or a depth needs them, at most
//! [`KEPT_LEVELS_MAX`] a side.

use tickcast_protocol::record::Level;

use crate::codec::{Arrival, State};
use crate::error::Malformed;
use crate::json::{ReadLevel, TextLevel};
use crate::local_book::{Decimals, LocalBook};
use crate::scale::Scale;
use crate::sink::{BookFault, Sink};
use crate::tracked::{Kept, TradeText};
use crate::trade_ids::{TradeIds, TradeRange};

/// Levels of one side that are kept. Venues with checksums send at most 1,000.
pub const KEPT_LEVELS_MAX: usize = 5_000;

/// The state of one book.
#[derive(Debug, Default)]
pub struct StreamBook {
    /// Its levels, if the venue's procedure needs them.
    pub levels: LocalBook,
    /// A snapshot came, and every change since.
    pub is_live: bool,
    /// The venue's number of the latest change.
    pub last_id: i64,
    /// Levels of a side that the subscription has; 0 where all levels are sent.
    pub depth: usize,
}

/// What the venues with such books keep of an instrument.
#[derive(Debug, Default)]
pub struct StreamKept<M> {
    /// Its book.
    pub book: StreamBook,
    /// Its trades.
    pub trades: TradeIds,
    /// What only one venue keeps.
    pub more: M,
}

impl<M: Default> Kept for StreamKept<M> {
    fn rescale(&mut self, from: Scale, to: Scale) -> bool {
        self.book.levels.rescale(from, to)
    }

    fn has_book(&self) -> bool {
        self.book.is_live
    }

    fn clear_book(&mut self) {
        self.book.levels.clear();
        self.book.is_live = false;
    }

    fn disconnect(&mut self) {
        self.clear_book();
        self.more = M::default();
    }

    fn successor(&self) -> Self {
        Self { trades: self.trades, ..Self::default() }
    }

    fn restart(&mut self) {
        *self = Self::default();
    }
}

/// A message of a book, but for its levels.
pub(crate) struct BookMessage<C> {
    /// It replaces the book.
    pub(crate) is_snapshot: bool,
    /// Time of the venue, ns.
    pub(crate) ts_event: u64,
    /// The venue's number of this change; 0 where it has none.
    pub(crate) id: i64,
    /// Computes the checksum of the book, beside the one that the venue states. Levels are kept for it.
    pub(crate) check: Option<C>,
}

/// The check of a book without a checksum.
pub(crate) type NoCheck = fn(&LocalBook, Scale, &mut String) -> (u32, u32);

impl<M: Default> Arrival<'_, '_, StreamKept<M>> {
    /// Takes a message of an instrument's book that follows the former one.
    pub(crate) fn take_book<'i, I, C>(
        &mut self,
        index: usize,
        message: BookMessage<C>,
        levels: impl Fn() -> I,
    ) -> Result<(), Malformed>
    where
        I: Iterator<Item = ReadLevel<'i>>,
        C: FnOnce(&LocalBook, Scale, &mut String) -> (u32, u32),
    {
        let Self { state, now_ns, sink } = self;
        let BookMessage { is_snapshot, ts_event, id, check } = message;
        let book = &state.instruments.at(index).kept.book;
        if !is_snapshot && !book.is_live {
            sink.report.ignored += 1;
            return Ok(());
        }
        let keeps_levels = check.is_some() || book.depth > 0 || book.levels.depth() > 0;
        if let Err(error) = state.read_book_levels(index, is_snapshot, keeps_levels, levels, sink) {
            state.drop_book(index, BookFault::Unreadable, ts_event, sink);
            return Err(error);
        }
        if let Some(fault) = state.apply_levels(index, is_snapshot, check) {
            state.drop_book(index, fault, ts_event, sink);
            return Ok(());
        }
        let tracked = state.instruments.at(index);
        tracked.kept.book.last_id = id;
        if is_snapshot {
            tracked.kept.book.is_live = true;
            tracked.new_book(ts_event, &mut state.levels, sink);
            state.streams.whole(index, *now_ns);
        } else if !state.levels.is_empty() {
            tracked.update_book(ts_event, &state.levels, sink);
        }
        Ok(())
    }

    /// Publishes a trade of a venue that numbers all trades of an instrument, unless it was published before.
    pub(crate) fn take_numbered_trade(
        &mut self,
        index: usize,
        trade: &TradeText<'_>,
        range: TradeRange,
    ) -> Result<(), Malformed> {
        let tracked = self.state.instruments.at(index);
        if tracked.kept.trades.is_repeated(range.last) {
            self.sink.report.ignored += 1;
            return Ok(());
        }
        let lost = tracked.kept.trades.lost_before(range, false);
        tracked.trade(trade, lost, self.sink)?;
        tracked.kept.trades.note(range);
        Ok(())
    }

    /// Drops the book of a message that cannot be read; all books, if the message does not show of which it is.
    pub(crate) fn drop_unreadable(&mut self, symbol: Option<&str>) {
        let one = symbol.and_then(|symbol| self.state.instruments.index(symbol));
        let all = 0..self.state.instruments.len();
        let indexes = if let Some(index) = one { index..index + 1 } else { all };
        for index in indexes {
            if self.state.instruments.at(index).kept.book.is_live {
                self.state.drop_book(index, BookFault::Unreadable, 0, self.sink);
            }
        }
    }
}

impl<M: Default> State<StreamKept<M>> {
    /// Reads the levels of a message into the scratch.
    fn read_book_levels<'i, I>(
        &mut self,
        index: usize,
        is_snapshot: bool,
        keeps_levels: bool,
        levels: impl Fn() -> I,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed>
    where
        I: Iterator<Item = ReadLevel<'i>>,
    {
        let Self { instruments, levels: read, decimals, .. } = self;
        let tracked = instruments.at(index);
        read.clear();
        decimals.clear();
        if is_snapshot {
            tracked.kept.book.levels.clear();
            tracked.set_book_suspect(false);
        }
        tracked.read_levels(levels, sink, |level: Level, text: &TextLevel<'_>| {
            read.push(level);
            if keeps_levels {
                decimals.push(Decimals::of(text.px, text.sz));
            }
        })
    }

    /// Applies the read levels to the kept ones, cuts them at the depth, whose removals become levels of the message, and
    /// compares checksums.
    fn apply_levels<C>(&mut self, index: usize, is_snapshot: bool, check: Option<C>) -> Option<BookFault>
    where
        C: FnOnce(&LocalBook, Scale, &mut String) -> (u32, u32),
    {
        let Self { instruments, levels: read, decimals, text, .. } = self;
        let tracked = instruments.at(index);
        let (is_suspect, scale) = (tracked.is_book_suspect(), tracked.scale());
        let book = &mut tracked.kept.book;
        for (level, decimals) in read.iter().zip(decimals.iter()) {
            book.levels.set(*level, *decimals);
        }
        if book.depth > 0 {
            book.levels.cut(book.depth, |removed| read.push(removed));
            if is_snapshot {
                read.clear();
                read.extend(book.levels.levels());
            }
        }
        if book.levels.depth() > KEPT_LEVELS_MAX {
            return Some(BookFault::TooLarge(KEPT_LEVELS_MAX));
        }
        // Of a book that misses a level which no exponents represent, there is no checksum: it is flagged.
        let (check, scale) = check.filter(|_| !is_suspect).zip(scale)?;
        let (computed, stated) = check(&book.levels, scale, text);
        (computed != stated).then_some(BookFault::Checksum { computed, stated })
    }
}
