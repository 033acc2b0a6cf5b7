//! A recording of records, as the player sees it: one event after another, each with its time.

use std::collections::HashMap;

use crate::ingest::source::{SourceGap, StreamState};
use tickcast_protocol::record::{self, BOOK_LEVELS_MAX, Level, PRICE_NONE, RecordHeader, flags};
use tickcast_protocol::{Book, BookAction, Instrument, RecordKind, check_symbol, decimal};
use tickcast_venues::Report;
use tickcast_venues::scale::{Scale, ScaleNeeds, is_tight};

use super::recording::OpenError;

/// Plays one file.
pub trait Track {
    /// Goes to the beginning, or to where the state at `from_ns` can be made from.
    ///
    /// # Errors
    /// If the file has changed meanwhile, or cannot be read.
    fn begin(&mut self, from_ns: Option<u64>) -> Result<(), OpenError>;

    /// The time of the next event, ns since the Unix epoch; `None` at the end. State that belongs before every event has
    /// the time 0.
    fn next_ns(&mut self) -> Option<u64>;

    /// Appends the records of the next event, and goes on to the one after it.
    ///
    /// # Errors
    /// What is missing before what follows.
    fn take(&mut self, output: &mut Output<'_>) -> Result<(), SourceGap>;

    /// The name of the file.
    fn name(&self) -> &str;

    /// The state of the file.
    fn state(&self) -> StreamState;

    /// The time of its last event, where that is known without reading all of it.
    fn last_ns(&self) -> Option<u64> {
        None
    }
}

/// Where tracks put their records.
pub struct Output<'a> {
    pub batch: &'a mut Vec<u8>,
    pub report: &'a mut Report,
    pub directory: &'a mut Directory,
}

/// The instruments of a replay: one name is one instrument, in whatever file it is.
#[derive(Debug, Default)]
pub struct Directory {
    by_symbol: HashMap<String, u32>,
    /// By id, from 1.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    defined: Instrument,
    /// What its prices and sizes have needed so far, where they are texts.
    needs: ScaleNeeds,
    /// A book was published, and not voided since.
    has_book: bool,
}

impl Output<'_> {
    /// Publishes a definition unless it is that of before. Returns the id, or what is wrong with the name.
    pub fn define(&mut self, mut instrument: Instrument) -> Result<u32, String> {
        let Directory { by_symbol, entries } = &mut *self.directory;
        if let Some(id) = by_symbol.get(&instrument.symbol) {
            instrument.id = *id;
            let entry = &mut entries[*id as usize - 1];
            if entry.defined == instrument {
                return Ok(*id);
            }
            entry.defined = instrument.clone();
        } else {
            check_symbol(&instrument.symbol).map_err(|error| format!("symbol {:?} {error}", instrument.symbol))?;
            instrument.id = entries.len() as u32 + 1;
            by_symbol.insert(instrument.symbol.clone(), instrument.id);
            entries.push(Entry { defined: instrument.clone(), needs: ScaleNeeds::default(), has_book: false });
        }
        self.put(|batch| record::encode_definition(&instrument, batch));
        Ok(instrument.id)
    }

    /// The id of an instrument with this name.
    pub fn id_of(&self, symbol: &str) -> Option<u32> {
        self.directory.by_symbol.get(symbol).copied()
    }

    /// The exponents of an instrument with this name.
    pub fn exponents(&self, symbol: &str) -> Option<(i8, i8)> {
        let defined = &self.entry(self.id_of(symbol)?)?.defined;
        Some((defined.px_exp, defined.sz_exp))
    }

    /// The price exponent of an instrument. If one of these prices, at the exponent `raw_exp`, is not exact there, it
    /// becomes `raw_exp`, by another definition.
    ///
    /// # Errors
    /// If there is no such instrument.
    pub fn px_exp_for(&mut self, id: u32, raw: impl Iterator<Item = i64>, raw_exp: i8) -> Result<i8, String> {
        let defined = &self.entry(id).ok_or("an instrument is not defined")?.defined;
        let px_exp = defined.px_exp;
        let is_exact = |px: i64| px == PRICE_NONE || decimal::rescale(px, raw_exp, px_exp).is_some();
        if px_exp == raw_exp || raw.into_iter().all(is_exact) {
            return Ok(px_exp);
        }
        let tick_size = match defined.tick_size {
            PRICE_NONE => PRICE_NONE,
            tick => decimal::rescale(tick, px_exp, raw_exp).unwrap_or(PRICE_NONE),
        };
        let finer = Instrument { px_exp: raw_exp, tick_size, ..defined.clone() };
        self.report.rescaled += 1;
        self.define(finer)?;
        Ok(raw_exp)
    }

    /// The exponents of an instrument for these prices and sizes as text, by what was needed so far. An instrument that is
    /// new is defined, another scale is another definition.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn fit<'t>(
        &mut self,
        symbol: &str,
        venue: &str,
        prices: impl Iterator<Item = &'t str>,
        sizes: impl Iterator<Item = &'t str>,
    ) -> Result<(u32, Scale), String> {
        let held = self.id_of(symbol).and_then(|id| self.entry(id)).map(|entry| {
            let Instrument { id, px_exp, sz_exp, .. } = entry.defined;
            (id, Scale { px_exp, sz_exp }, entry.needs)
        });
        let mut needs = held.map(|(.., needs)| needs).unwrap_or_default();
        let is_new =
            |text: &str, exponent: fn(Scale) -> i8| held.is_none_or(|(_, scale, _)| is_tight(text, exponent(scale)));
        prices.filter(|text| is_new(text, |scale| scale.px_exp)).for_each(|text| needs.px.add(text));
        sizes.filter(|text| is_new(text, |scale| scale.sz_exp)).for_each(|text| needs.sz.add(text));
        if let Some((id, scale, before)) = held
            && needs == before
        {
            return Ok((id, scale));
        }
        let scale = needs.scale();
        let is_other = held.is_some_and(|(_, before, _)| before != scale);
        self.report.rescaled += u64::from(is_other);
        let id = self.define(Instrument::new(0, symbol, venue, scale.px_exp, scale.sz_exp))?;
        if let Some(entry) = self.directory.entries.get_mut(id as usize - 1) {
            entry.needs = needs;
        }
        Ok((id, scale))
    }

    /// Publishes a book, or changes of it; the last record is flagged LAST. Of a whole book that is too large for a record
    /// the best levels are kept.
    pub fn book(&mut self, header: &RecordHeader, action: BookAction, mut levels: Vec<Level>) {
        self.note_book(header.instrument, true);
        if action == BookAction::Snapshot && levels.len() > BOOK_LEVELS_MAX {
            let mut book = Book::default();
            book.apply(action, levels.into_iter());
            levels = book.levels(BOOK_LEVELS_MAX);
        }
        let mut rest = &levels[..];
        while rest.len() > BOOK_LEVELS_MAX {
            let (part, tail) = rest.split_at(BOOK_LEVELS_MAX);
            let header = header.with_flags(header.flags & !flags::LAST);
            self.put(|batch| record::encode_book(&header, action, part.iter().copied(), batch));
            rest = tail;
        }
        self.put(|batch| record::encode_book(header, action, rest.iter().copied(), batch));
    }

    /// Publishes a record.
    pub fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(self.batch);
        self.report.records += 1;
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.directory.entries.get((id as usize).checked_sub(1)?)
    }

    /// Notes that an instrument has a book, or has none.
    pub fn note_book(&mut self, id: u32, has_book: bool) {
        if let Some(entry) = (id as usize).checked_sub(1).and_then(|at| self.directory.entries.get_mut(at)) {
            entry.has_book = has_book;
        }
    }

    /// Publishes that no book is valid any more.
    pub fn void_books(&mut self) {
        for id in 1..=self.directory.entries.len() as u32 {
            if std::mem::take(&mut self.directory.entries[id as usize - 1].has_book) {
                let header = RecordHeader::of_feed(RecordKind::Book, id, 0);
                let header = header.with_flags(flags::LAST | flags::MAYBE_BAD_BOOK);
                self.put(|batch| record::encode_book(&header, BookAction::Snapshot, std::iter::empty(), batch));
            }
        }
    }
}
