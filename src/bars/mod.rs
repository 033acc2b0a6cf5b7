//! Bars: open, high, low, close and volume of an instrument's trades, and the last quote, for each second, minute, hour
//! and day.
//!
//! What always holds:
//! * A record belongs to the bar that contains its `ts_recv`: the server's own clock, which every record has. When that
//!   clock is set, [`Bars::step`] drops the bars that lie ahead of it and notes a hole. A venue's time may be absent, of
//!   a recording, or years away, and one such record would use up the memory of all others. A record that comes late is
//!   added to its own bar, if that is still kept.
//! * Open and close are the first and the last of a bar's trades in the order of the stream.
//! * A bar exists only if something was traded or quoted in it.
//! * Values are the mantissas of the records, never floats.
//! * The bars take at most the bytes that they are given, in equal shares for all instruments with bars. A query
//!   returns how far back the share reaches ([`FoundBars::since_s`]), and when records were lost
//!   ([`FoundBars::holes`]).
//! * With an archive on disk, every bar is given out to be written once it is complete, before it is dropped, and the
//!   newest ones are taken over from there where an instrument is defined; see `kept.rs`.
//!
//! What it does not do: read a clock, lock, or write. Cost: some 30 ns a record, 72 bytes a bar of each length.

mod kept;
mod query;
mod series;
mod session;
mod store;

pub use self::kept::{StoredBar, complete_s};
pub use self::query::{BarQuery, FoundBars, merge};
pub use self::series::{Bar, Known};
pub use self::session::Session;
pub use self::store::{BarStore, spawn};

use self::kept::{Kept, Seeded};

use std::sync::Arc;

use self::series::Series;
use tickcast_protocol::record::{self, PRICE_NONE, Quote, RecordHeader, Trade};
use tickcast_protocol::{FeedState, Instrument, RecordKind};

/// Lengths of the bars that are kept, seconds, the shortest first. A query's interval has to be a multiple of one. Each
/// is a multiple of the one before.
pub const INTERVALS_S: [u32; 4] = [1, 60, 3600, 86_400];
/// Parts of an instrument's share of the memory, of 100.
const SHARES: [usize; INTERVALS_S.len()] = [40, 44, 10, 6];
/// The most bars of an instrument, of each length: a day of seconds, sixty days of minutes. It limits how many a query
/// walks.
const BARS_MAX: usize = 86_400;
/// Bars of each length that an instrument may have in any case where there is an archive: some 600 bytes.
const KEPT_LEAST: usize = 2;
/// The most holes that are kept; beyond it the two oldest are merged.
const HOLES_MAX: usize = 64;

/// The bars of all instruments. One owner.
#[derive(Debug)]
pub struct Bars {
    bytes_max: usize,
    began_s: u32,
    /// The most bars of each length that an instrument may have now.
    capacities: [usize; INTERVALS_S.len()],
    /// By instrument id, from 1 on.
    rows: Vec<Row>,
    /// Instruments with a trade or a quote.
    active: usize,
    /// `active` when `capacity` was computed.
    shared_by: usize,
    /// First and last second of each, in order, not touching each other.
    holes: Vec<(u32, u32)>,
    /// What has to be written to the archive; `None` without one.
    kept: Option<Kept>,
    first_changes: u64,
}

/// The bars of one instrument.
#[derive(Debug)]
struct Row {
    /// Those of prices and sizes, by its newest Definition.
    exponents: Option<(i8, i8)>,
    /// By length.
    series: [Series; INTERVALS_S.len()],
    /// Only with an archive.
    symbol: Option<Arc<str>>,
    seeded: Seeded,
    /// First and last second of what was loaded of it.
    loads: Vec<(u32, u32)>,
    /// The time of the oldest bar, in memory or in the archive.
    first_s: Option<u32>,
}

impl Row {
    fn new(began_s: u32) -> Self {
        let series = INTERVALS_S.map(|_| Series::new(began_s));
        Self { exponents: None, series, symbol: None, seeded: Seeded::Never, loads: Vec::new(), first_s: None }
    }
}

impl Bars {
    /// Empty, with a history that begins at `began_ns`. The bars will take at most `bytes_max`.
    pub fn new(bytes_max: usize, began_ns: u64) -> Self {
        let mut bars = Self {
            bytes_max,
            began_s: seconds(began_ns),
            capacities: [0; INTERVALS_S.len()],
            rows: Vec::new(),
            active: 0,
            shared_by: usize::MAX,
            holes: Vec::new(),
            kept: None,
            first_changes: 0,
        };
        bars.share();
        bars
    }

    /// Adds a whole record as the sequencer wrote it: quotes, and trades with a price. A Definition with other exponents
    /// carries the bars over to them, and a Status `'R'` frees them.
    pub fn fold(&mut self, record: &[u8]) {
        let Some(header) = RecordHeader::read(record).filter(|header| header.instrument > 0) else { return };
        match RecordKind::from_wire(header.kind) {
            Some(RecordKind::Trade) => {
                let trade = Trade::read(record).filter(|trade| trade.px != PRICE_NONE);
                trade.inspect(|trade| self.change(&header, |bar| bar.trade(trade)));
            }
            Some(RecordKind::Quote) => {
                let quote = Quote::read(record);
                quote.inspect(|quote| self.change(&header, |bar| bar.quote(quote)));
            }
            Some(RecordKind::Definition) => {
                if let Some(instrument) = record::read_definition(record) {
                    self.define(&instrument, seconds(header.ts_recv));
                }
            }
            Some(RecordKind::Status) if record::read_status(record) == Some(FeedState::Released) => {
                self.release(header.instrument);
            }
            _ => {}
        }
    }

    /// Divides the bytes among the present instruments. To be called after each batch of records: a comparison if no
    /// instrument is new, a pass over all of them otherwise.
    pub fn share(&mut self) {
        if self.shared_by == self.active {
            return;
        }
        self.shared_by = self.active;
        // An archive takes bars once they are complete: the one before the newest.
        let least = if self.kept.is_some() { KEPT_LEAST } else { 0 };
        self.capacities = std::array::from_fn(|level| capacity(self.bytes_max, self.active, level).max(least));
        for row in &mut self.rows {
            for (level, interval_s) in INTERVALS_S.into_iter().enumerate() {
                let dropped = row.series[level].shrink(interval_s, self.capacities[level]);
                if let Some(kept) = &mut self.kept {
                    kept.save(row, level, dropped);
                }
            }
        }
    }

    /// Notes that records of any instrument, received between these two times, were lost.
    pub fn lose(&mut self, from_ns: u64, to_ns: u64) {
        // `from_ns` is 0 if no record was read before.
        let mut from_s = seconds(from_ns).max(self.began_s);
        let mut to_s = seconds(to_ns).max(from_s);
        // Losses come in order, but for those of a clock that was set back: only the last holes can touch this one.
        while let Some(last) = self.holes.pop_if(|last| last.1 >= from_s) {
            (from_s, to_s) = (from_s.min(last.0), to_s.max(last.1));
        }
        self.holes.push((from_s, to_s));
        if self.holes.len() > HOLES_MAX {
            let oldest = self.holes.remove(0);
            self.holes[0].0 = oldest.0;
        }
    }

    /// Notes that the clock was set from one time to another. Forward, the seconds between have no bars and count as lost.
    /// Back, the bars after the new time were of a clock that was ahead: they are dropped, and the time before it, as
    /// long as the clock was set back, counts as lost.
    pub fn step(&mut self, from_ns: u64, to_ns: u64) {
        let (from_s, to_s) = (seconds(from_ns), seconds(to_ns));
        if from_s <= to_s {
            return self.lose(from_ns, to_ns);
        }
        let back_s = from_s - to_s;
        if self.began_s > to_s {
            self.began_s = self.began_s.saturating_sub(back_s).min(to_s);
        }
        self.rows.iter_mut().flat_map(|row| &mut row.series).for_each(|series| series.truncate_after(to_s));
        if let Some(kept) = &mut self.kept {
            kept.truncate_after(to_s);
        }
        self.holes.retain_mut(|hole| {
            hole.1 = hole.1.min(to_s);
            hole.0 <= to_s
        });
        let lost_s = to_s.saturating_sub(back_s).max(self.began_s);
        self.lose(u64::from(lost_s) * 1_000_000_000, to_ns);
    }

    /// The bars that a query asks for. The last of them may not be complete yet.
    ///
    /// # Panics
    /// If no kept interval divides the query's, see [`BarQuery::is_served`].
    pub fn find(&self, instrument: u32, query: &BarQuery) -> FoundBars {
        let level = query.level().expect("the caller has checked that the interval is served");
        match self.row(instrument) {
            Some(row) => {
                let found = query.find(&row.series[level], &self.holes);
                let is_seeded = self.kept.is_none() || row.seeded != Seeded::Never;
                let holes = row.loads.iter().fold(found.holes, |holes, load| kept::without(&holes, *load));
                // With an archive nothing is dropped.
                let oldest_s = self.kept.as_ref().map_or(found.since_s, |_| row.series[level].archive_since_s());
                let since_s = found.since_s.min(oldest_s);
                FoundBars { since_s, exponents: row.exponents, is_seeded, holes, ..found }
            }
            // It had no record, or all of them were lost.
            None => FoundBars {
                since_s: self.began_s,
                holes: query.touched(&self.holes, self.began_s),
                is_seeded: self.kept.is_none(),
                ..FoundBars::default()
            },
        }
    }

    /// Memory of the bars, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.iter().flat_map(|row| &row.series).map(Series::bytes).sum()
    }

    fn define(&mut self, instrument: &Instrument, time_s: u32) {
        let exponents = (instrument.px_exp, instrument.sz_exp);
        let row = self.row_mut(instrument.id);
        let before = row.exponents.filter(|before| *before != exponents);
        if let Some(before) = before {
            self.rescale(instrument.id, before, exponents, time_s);
        }
        self.row_mut(instrument.id).exponents = Some(exponents);
        if self.kept.is_some() {
            self.name(instrument.id, &instrument.symbol);
        }
    }

    fn rescale(&mut self, instrument: u32, before: (i8, i8), exponents: (i8, i8), time_s: u32) {
        let row = &mut self.rows[instrument as usize - 1];
        for level in 0..INTERVALS_S.len() {
            let dropped = row.series[level].rescale(before, exponents, time_s);
            if let Some(kept) = &mut self.kept {
                kept.save(row, level, dropped);
            }
        }
    }

    fn release(&mut self, instrument: u32) {
        let began_s = self.began_s;
        self.save_all_of(instrument);
        let row = self.row_mut(instrument);
        let was_active = !row.series.iter().all(Series::is_new);
        *row = Row::new(began_s);
        self.first_changes += 1;
        self.active -= usize::from(was_active);
    }

    fn row_mut(&mut self, instrument: u32) -> &mut Row {
        let at = instrument as usize - 1;
        if self.rows.len() <= at {
            let began_s = self.began_s;
            self.rows.resize_with(at + 1, || Row::new(began_s));
        }
        &mut self.rows[at]
    }

    fn row(&self, instrument: u32) -> Option<&Row> {
        self.rows.get((instrument as usize).checked_sub(1)?)
    }

    fn change(&mut self, header: &RecordHeader, mut change: impl FnMut(&mut Bar)) {
        let (time_s, capacities) = (seconds(header.ts_recv), self.capacities);
        self.row_mut(header.instrument);
        let row = &mut self.rows[header.instrument as usize - 1];
        let is_new = row.series.iter().all(Series::is_new);
        for (level, interval_s) in INTERVALS_S.into_iter().enumerate() {
            let begin_s = time_s - time_s % interval_s;
            let dropped = row.series[level].change(begin_s, interval_s, capacities[level], &mut change);
            if let (Some(kept), Some(dropped)) = (&mut self.kept, dropped) {
                kept.save(row, level, [dropped]);
            }
        }
        if row.first_s.is_none() {
            row.first_s = Some(time_s);
            self.first_changes += 1;
        }
        self.active += usize::from(is_new);
    }
}

/// The most bars of the nth length for each of `instruments`, so that all of them take at most `bytes_max`.
pub fn capacity(bytes_max: usize, instruments: usize, level: usize) -> usize {
    let each = bytes_max / instruments.max(1) * SHARES[level] / 100;
    (each / size_of::<Bar>()).min(BARS_MAX)
}

/// Whole seconds since the Unix epoch; saturates in 2106.
fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
