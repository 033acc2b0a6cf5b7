//! Bars: open, high, low, close and volume of an instrument's trades, and the last quote, of each second and each minute
//! since the start.
//!
//! What always holds:
//! * A bar is of the records whose `ts_recv` lies in it. That is our own clock, which never steps and which every record
//!   has; a venue's time may be absent, may be a recording's, or may be years away, and one such record would push all
//!   that is kept out of the budget. Records that come late fold into their own bar, if it is kept.
//! * Open and close are the first and the last of a bar's trades in the order of the stream.
//! * Where nothing was traded or quoted there is no bar: what is kept is what happened, however quiet the rest was.
//! * Values are the mantissas that came in, never floats.
//! * The bars take at most the bytes they were given, in even shares for all instruments that have some. How far back a
//!   share reaches is told ([`FoundBars::since_s`]), and so is where records were lost ([`FoundBars::holes`]).
//!
//! It knows no clock, lock, symbol or text. Cost: some 20 ns a record, twice 72 bytes a bar.

mod query;
mod series;
mod store;

pub use self::query::{BarQuery, FoundBars};
pub use self::series::Bar;
pub use self::store::{BarStore, spawn};

use self::series::Series;
use tickcast_protocol::RecordKind;
use tickcast_protocol::record::{PRICE_NONE, Quote, RecordHeader, Trade};

/// Lengths of the bars that are kept, seconds, the shortest first. What is asked for has to be a multiple of one.
pub const INTERVALS_S: [u32; 2] = [1, 60];
/// Bars that an instrument has at the most, of each length: a day of seconds, sixty days of minutes. It bounds what a
/// query walks over.
const BARS_MAX: usize = 86_400;
/// Holes that are told apart; the oldest of more become one.
const HOLES_MAX: usize = 64;

/// The bars of all instruments. One owner.
#[derive(Debug)]
pub struct Bars {
    bytes_max: usize,
    began_s: u32,
    /// Bars of each length that an instrument may have now.
    capacity: usize,
    /// By instrument id, from 1 on.
    rows: Vec<[Series; INTERVALS_S.len()]>,
    /// Instruments that have had a trade or a quote, and of how many of them `capacity` was made.
    active: usize,
    shared_by: usize,
    /// From and to, whole seconds, both included; in order, apart from each other.
    holes: Vec<(u32, u32)>,
}

impl Bars {
    /// None yet, of a history that begins now. They will take at most `bytes_max`.
    pub fn new(bytes_max: usize, began_ns: u64) -> Self {
        let mut bars = Self {
            bytes_max,
            began_s: seconds(began_ns),
            capacity: 0,
            rows: Vec::new(),
            active: 0,
            shared_by: usize::MAX,
            holes: Vec::new(),
        };
        bars.share();
        bars
    }

    /// Takes in a whole record as the sequencer wrote it. What is no trade with a price and no quote changes nothing.
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
            _ => {}
        }
    }

    /// Divides the bytes among the instruments that there are now. To be called after each batch of records: it is cheap
    /// where none has come, and looks at all of them where one has.
    pub fn share(&mut self) {
        if self.shared_by == self.active {
            return;
        }
        self.shared_by = self.active;
        self.capacity = capacity(self.bytes_max, self.active);
        for row in &mut self.rows {
            for (series, interval_s) in row.iter_mut().zip(INTERVALS_S) {
                series.shrink(interval_s, self.capacity);
            }
        }
    }

    /// Records of any instrument that were received between these two times have been lost.
    pub fn lose(&mut self, from_ns: u64, to_ns: u64) {
        // Before the first record there is no time of a last one.
        let (mut from_s, to_s) = (seconds(from_ns).max(self.began_s), seconds(to_ns));
        // They are lost one after another, so that only the last hole may touch this one.
        if let Some(last) = self.holes.pop_if(|last| last.1 >= from_s) {
            from_s = from_s.min(last.0);
        }
        self.holes.push((from_s, to_s.max(from_s)));
        if self.holes.len() > HOLES_MAX {
            let oldest = self.holes.remove(0);
            self.holes[0].0 = oldest.0;
        }
    }

    /// The newest bars of an instrument that a query asks for. The last of them may still be going on.
    ///
    /// # Panics
    /// When no interval that is kept goes into the query's: [`BarQuery::is_served`] tells.
    pub fn find(&self, instrument: u32, query: &BarQuery) -> FoundBars {
        let level = query.level().expect("the caller has asked whether the interval is served");
        match self.row(instrument) {
            Some(row) => query.find(&row[level], &self.holes),
            // Perhaps all that it ever had was lost.
            None => {
                let holes = query.touched(&self.holes, self.began_s);
                FoundBars { since_s: self.began_s, bars: Vec::new(), holes }
            }
        }
    }

    /// Bytes that the bars take.
    pub fn bytes(&self) -> usize {
        self.rows.iter().flatten().map(Series::bytes).sum()
    }

    fn row(&self, instrument: u32) -> Option<&[Series; INTERVALS_S.len()]> {
        self.rows.get((instrument as usize).checked_sub(1)?)
    }

    fn change(&mut self, header: &RecordHeader, mut change: impl FnMut(&mut Bar)) {
        let (at, time_s) = (header.instrument as usize - 1, seconds(header.ts_recv));
        if self.rows.len() <= at {
            let began_s = self.began_s;
            self.rows.resize_with(at + 1, || INTERVALS_S.map(|_| Series::new(began_s)));
        }
        let row = &mut self.rows[at];
        self.active += usize::from(row.iter().all(Series::is_new));
        for (series, interval_s) in row.iter_mut().zip(INTERVALS_S) {
            series.change(time_s - time_s % interval_s, interval_s, self.capacity, &mut change);
        }
    }
}

/// Bars of each length for each of so many instruments, within so many bytes.
pub fn capacity(bytes_max: usize, instruments: usize) -> usize {
    let each = bytes_max / instruments.max(1);
    (each / (INTERVALS_S.len() * size_of::<Bar>())).min(BARS_MAX)
}

/// Whole seconds since the Unix epoch; they end in 2106.
fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
