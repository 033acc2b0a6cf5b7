//! A seeded market: `sim:instruments=200,rate=20000,seed=1`.
//!
//! Instruments with known names, real books, trades that take from them, and the bursts of real feeds, on an axis of
//! elapsed time that the caller's clock drives. Always:
//!
//! * The byte stream is a function of the parameters, the time of the first poll and the elapsed time; the times of the
//!   polls only cut it into batches.
//! * It opens with a Definition of every instrument (ids from 1) and then the state of each: book, quote, ticker. These
//!   are not part of the rate.
//! * After every record, books are uncrossed and quotes are their top; see [`market`].
//!
//! Late events are caught up, one batch a poll. Beyond 1 s the backlog is dropped instead, by moving the axis: the market
//! pauses, nothing of its stream is missing, and [`Sim::shifted_ns`] is the sum of the pauses. So a rate beyond the
//! capacity of the core becomes the rate that the core can make.
//!
//! It does not model an order queue, sessions or halts. Of the records about 41 % are quotes, 42 % book deltas, 16 %
//! trades and 1 % tickers: no quote comes without the delta that moved the top, so quotes cannot outnumber deltas.
//!
//! Cost: 75 to 85 ns a record with 200 instruments, 160 with 20,000, where the caches miss; 600 bytes an instrument at 10
//! levels a side; no allocation after the opening.

mod day;
mod dice;
mod ladder;
mod market;
mod names;
mod opener;
mod pace;

use self::market::Market;
pub use self::opener::SCHEME;
use self::pace::Pace;
pub use self::pace::Shape;
use crate::ingest::parameters::{each_pair, number_within};
use crate::ingest::source::{Batch, Next, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, Times};

/// Polls are asked for at multiples of this on the axis: a burst then is a few large batches, not many wake-ups.
const POLL_NS: u64 = 1_000_000;
/// A backlog of more than this is dropped.
const BEHIND_NS_MAX: u64 = 1_000_000_000;

/// The parameters of the market.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Their number, 1 to 20,000.
    pub instruments: u32,
    /// Records a second in the long-run mean, 1 to 5,000,000.
    pub rate: u32,
    /// Another seed is another market.
    pub seed: u64,
    /// Levels a side, 1 to 100.
    pub depth: u32,
    /// The distribution of arrivals.
    pub shape: Shape,
}

impl Default for Params {
    fn default() -> Self {
        Self { instruments: 200, rate: 20_000, seed: 1, depth: 10, shape: Shape::Bursty }
    }
}

impl Params {
    /// Parses `key=value,…`; keys that are not given have their defaults.
    ///
    /// # Errors
    /// Names the key, the value and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut params = Self::default();
        each_pair(text, ',', |key, value| {
            match key {
                "instruments" => params.instruments = number_within(key, value, 1, 20_000)?,
                "rate" => params.rate = number_within(key, value, 1, 5_000_000)?,
                "seed" => params.seed = number_within(key, value, 0, u64::MAX)?,
                "depth" => params.depth = number_within(key, value, 1, 100)?,
                "shape" => {
                    params.shape = match value {
                        "bursty" => Shape::Bursty,
                        "even" => Shape::Even,
                        _ => return Err(format!("shape: invalid value {value:?}: expected bursty or even")),
                    }
                }
                _ => return Err(format!("unknown key {key:?}: expected instruments, rate, seed, depth or shape")),
            }
            Ok(())
        })?;
        Ok(params)
    }
}

/// The source.
pub struct Sim {
    market: Market,
    pace: Pace,
    /// The next step of the opening: first every Definition, then every state.
    opening: usize,
    /// Where the axis begins on the caller's clock, ns since the Unix epoch; moves when a backlog is dropped.
    origin_ns: Option<u64>,
    /// When the next event happens, ns on the axis.
    next_ns: u64,
    shifted_ns: u64,
    /// What to add to the market's time for a stamp.
    wall_offset_ns: i64,
    records: u64,
}

impl Sim {
    /// A market that begins at its first poll.
    ///
    /// # Panics
    /// When a parameter is outside its bounds; [`Params::parse`] returns none that is.
    pub fn new(params: &Params) -> Self {
        assert!((1..=20_000).contains(&params.instruments), "{} instruments", params.instruments);
        assert!((1..=5_000_000).contains(&params.rate), "a rate of {}", params.rate);
        assert!((1..=100).contains(&params.depth), "a depth of {}", params.depth);
        let mut pace = Pace::new(params.rate, params.shape, params.seed);
        let next_ns = pace.next_event_ns(1);
        Self {
            market: Market::new(params.instruments, params.depth, params.seed),
            pace,
            opening: 0,
            origin_ns: None,
            next_ns,
            shifted_ns: 0,
            wall_offset_ns: 0,
            records: 0,
        }
    }

    /// Backlog dropped so far, ns: the delay of the market's time behind the caller's.
    pub fn shifted_ns(&self) -> u64 {
        self.shifted_ns
    }

    /// Appends the opening up to `full` bytes; true when it is complete.
    fn open(&mut self, origin_ns: u64, full: usize, batch: &mut Vec<u8>) -> bool {
        let instruments = self.market.len();
        while self.opening < 2 * instruments && batch.len() < full {
            match self.opening.checked_sub(instruments) {
                None => {
                    self.market.define(self.opening, batch);
                    self.records += 1;
                }
                Some(index) => {
                    let ts_event = origin_ns.saturating_add_signed(self.wall_offset_ns);
                    self.records += u64::from(self.market.state(index, ts_event, batch));
                }
            }
            self.opening += 1;
        }
        self.opening == 2 * instruments
    }

    /// If the next event is overdue by too much, moves the axis so that it is due now.
    fn drop_backlog(&mut self, origin_ns: u64, now_ns: u64) -> u64 {
        let behind_ns = now_ns.saturating_sub(origin_ns + self.next_ns);
        if behind_ns <= BEHIND_NS_MAX {
            return origin_ns;
        }
        self.shifted_ns += behind_ns;
        self.origin_ns = Some(origin_ns + behind_ns);
        origin_ns + behind_ns
    }
}

impl Source for Sim {
    fn receive(&mut self, times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        let Times { now_ns, wall_offset_ns, .. } = times;
        self.wall_offset_ns = wall_offset_ns;
        let batch = &mut batch.records;
        let full = batch.len() + SOURCE_BATCH_BYTES_MAX;
        let origin_ns = *self.origin_ns.get_or_insert(now_ns);
        if !self.open(origin_ns, full, batch) {
            return Ok(Next::Now);
        }
        let origin_ns = self.drop_backlog(origin_ns, now_ns);
        while origin_ns + self.next_ns <= now_ns {
            if batch.len() >= full {
                return Ok(Next::Now);
            }
            let ts_event = (origin_ns + self.next_ns).saturating_add_signed(self.wall_offset_ns);
            let records = self.market.event(self.next_ns, ts_event, batch);
            self.records += u64::from(records);
            self.next_ns = self.pace.next_event_ns(records);
        }
        Ok(Next::At(origin_ns + self.next_ns.next_multiple_of(POLL_NS)))
    }

    fn report(&self) -> Report {
        Report { records: self.records, ..Report::default() }
    }
}
