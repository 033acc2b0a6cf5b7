//! Tickers that the server computes from the trades of the last 24 hours, for instruments whose source sends none.
//!
//! What always holds:
//! * A ticker has the trades that came in the last 24 hours by a clock that is never set, or since the start; with an
//!   archive also those of before, by minutes ([`DayTickers::seed`]). A trade leaves within a minute after that time, or
//!   later where [`capacity`] is less than a bucket for each minute.
//! * It is made once a second at most, when there was a trade since the last one or when trades have left. The first comes
//!   [`FIRST_AFTER_NS`] after the first trade: a source that sends its own is first.
//! * The opening price is the first one in that time, the closing price the last one of all.
//! * Sums are exact. One that 64 bits do not hold is absent; the turnover is rounded to the price exponent at the end. It
//!   is absent as long as there are trades of before the start, whose turnover is not known.
//! * A source that has sent a ticker of its own gets none for that instrument any more ([`TickerOutcome::Own`]).
//!
//! What it does not do: read a clock, lock, number records, or know quotes: the sequencer sets bid and offer. Cost: some
//! 15 ns a trade, 64 bytes for each minute of an instrument in which there were trades.

mod store;
mod window;

pub use self::store::TickerStore;

use self::window::{DAY_MINUTES, Window};
use tickcast_protocol::record::{self, PRICE_NONE, RecordHeader, Ticker, Trade};
use tickcast_protocol::{FeedState, Instrument, RecordKind};

/// Least time between two tickers of an instrument.
const INTERVAL_NS: u64 = 1_000_000_000;
/// Time from an instrument's first trade to its first ticker.
const FIRST_AFTER_NS: u64 = 2_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;
/// The minutes of a bucket. Each divides the next, so that whole buckets are merged.
const STEPS: [u32; 5] = [1, 2, 4, 12, 60];
/// The least buckets of an instrument: one for each hour.
const BUCKETS_MIN: usize = 24;

/// A ticker to be numbered, without bid and offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputedTicker {
    pub instrument: u32,
    /// Those of its values; `None` if they are not known.
    pub exponents: Option<(i8, i8)>,
    pub ticker: Ticker,
}

/// The trades of a minute before the start of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastMinute {
    /// How long ago it was.
    pub minutes_ago: u32,
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    pub volume: i64,
}

/// What became of a ticker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickerOutcome {
    Sequenced,
    /// The source sends its own.
    Own,
    /// The instrument is stale or has ended.
    NotLive,
    /// The instrument is released.
    Unknown,
    /// The instrument has these exponents.
    Exponents(i8, i8),
}

/// The tickers of all instruments. One owner.
#[derive(Debug)]
pub struct DayTickers {
    bytes_max: usize,
    /// By instrument id, from 1 on.
    rows: Vec<Row>,
    /// Instruments with a window.
    active: usize,
    /// `active` when `step` was computed.
    shared_by: usize,
    /// Minutes of a bucket.
    step: u32,
    /// When tickers were taken last.
    taken_ns: u64,
    /// How many times records were lost.
    losses: u32,
}

/// What is known of one instrument.
#[derive(Debug, Default)]
struct Row {
    window: Option<Box<Window>>,
    /// The exponents of its newest Definition, and the number of losses before that came.
    exponents: Option<((i8, i8), u32)>,
    /// Its source sends tickers.
    is_off: bool,
}

impl DayTickers {
    /// Empty. The windows will take at most `bytes_max`, or what [`BUCKETS_MIN`] buckets of each instrument take.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, rows: Vec::new(), active: 0, shared_by: 0, step: 1, taken_ns: 0, losses: 0 }
    }

    /// Adds a whole record as the sequencer wrote it, if it is a trade with a price. A Definition with other exponents
    /// carries the values over to them, and a Status `'R'` frees them.
    pub fn fold(&mut self, record: &[u8], now_ns: u64) {
        let Some(header) = RecordHeader::read(record).filter(|header| header.instrument > 0) else { return };
        match header.known_kind() {
            Some(RecordKind::Trade) => {
                let trade = Trade::read(record).filter(|trade| trade.px != PRICE_NONE);
                trade.inspect(|trade| self.add(header.instrument, trade, now_ns));
            }
            Some(RecordKind::Definition) => {
                let instrument = record::read_definition(record);
                instrument.inspect(|instrument| self.define(instrument));
            }
            Some(RecordKind::Status) if record::read_status(record) == Some(FeedState::Released) => {
                self.drop_window(header.instrument);
                *self.row_mut(header.instrument) = Row::default();
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
        let least = DAY_MINUTES.div_ceil(capacity(self.bytes_max, self.active) as u32);
        let step = STEPS.into_iter().find(|step| *step >= least).unwrap_or(STEPS[STEPS.len() - 1]);
        let is_coarser = step > std::mem::replace(&mut self.step, step);
        if is_coarser {
            self.rows.iter_mut().filter_map(|row| row.window.as_mut()).for_each(|window| window.merge(step));
        }
    }

    /// Notes that records of any instrument were lost.
    pub fn lose(&mut self) {
        self.losses = self.losses.wrapping_add(1);
    }

    /// Takes the tickers that are due: none if some were taken less than a second ago. Each has to be settled.
    pub fn take(&mut self, now_ns: u64) -> Vec<ComputedTicker> {
        if now_ns < self.taken_ns.saturating_add(INTERVAL_NS) {
            return Vec::new();
        }
        self.taken_ns = now_ns;
        let minute = minute(now_ns);
        let of_row = |(row, instrument): (&mut Row, u32)| {
            let window = row.window.as_mut()?;
            window.expire(minute);
            let is_due = window.is_changed && now_ns >= window.first_ns.saturating_add(FIRST_AFTER_NS);
            if !is_due {
                return None;
            }
            window.is_changed = false;
            let exponents = row.exponents.map(|(exponents, _)| exponents);
            let ticker = window.ticker(exponents.map_or(0, |exponents| exponents.1));
            Some(ComputedTicker { instrument, exponents, ticker })
        };
        self.rows.iter_mut().zip(1..).filter_map(of_row).collect()
    }

    /// Notes what became of a ticker.
    pub fn settle(&mut self, instrument: u32, outcome: TickerOutcome) {
        let losses = self.losses;
        let Some(row) = self.rows.get_mut(instrument as usize - 1) else { return };
        match outcome {
            TickerOutcome::Sequenced => {}
            TickerOutcome::Own => {
                row.is_off = true;
                self.drop_window(instrument);
            }
            TickerOutcome::Unknown => self.drop_window(instrument),
            TickerOutcome::NotLive => row.change(),
            TickerOutcome::Exponents(px_exp, sz_exp) => {
                row.change();
                // Else the Definition is on its way. Lost with it were trades, and some that came have other exponents.
                if row.exponents.is_none_or(|(_, known_at)| known_at != losses) {
                    row.exponents = Some(((px_exp, sz_exp), losses));
                    self.drop_window(instrument);
                }
            }
        }
    }

    /// Puts the trades of before the start in front of those that came: once for each definition of an instrument, oldest
    /// first, at these exponents.
    pub fn seed(&mut self, instrument: u32, exponents: (i8, i8), past: &[PastMinute], now_ns: u64) {
        let (step, losses) = (self.step, self.losses);
        let row = self.row_mut(instrument);
        let others = row.exponents.is_some_and(|(known, _)| known != exponents);
        if row.is_off || others || past.is_empty() {
            return;
        }
        row.exponents.get_or_insert((exponents, losses));
        let is_new = row.window.is_none();
        let window = row.window.get_or_insert_with(|| Box::new(Window::new(now_ns)));
        window.prepend(past, minute(now_ns), step);
        window.expire(minute(now_ns));
        self.active += usize::from(is_new);
    }

    /// Memory of the windows, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.iter().filter_map(|row| row.window.as_ref()).map(|window| window.bytes()).sum()
    }

    fn add(&mut self, instrument: u32, trade: &Trade, now_ns: u64) {
        let step = self.step;
        let row = self.row_mut(instrument);
        if row.is_off {
            return;
        }
        let is_new = row.window.is_none();
        let window = row.window.get_or_insert_with(|| Box::new(Window::new(now_ns)));
        window.add(trade, minute(now_ns), step);
        self.active += usize::from(is_new);
    }

    fn define(&mut self, instrument: &Instrument) {
        let (to, losses) = ((instrument.px_exp, instrument.sz_exp), self.losses);
        let row = self.row_mut(instrument.id);
        let before = row.exponents.replace((to, losses)).map(|(before, _)| before);
        let Some(window) = row.window.as_mut() else { return };
        let is_kept = before.is_some_and(|from| from == to || window.rescale(from, to));
        if is_kept {
            window.is_changed |= before != Some(to);
        } else {
            self.drop_window(instrument.id);
        }
    }

    fn drop_window(&mut self, instrument: u32) {
        let had_window = self.row_mut(instrument).window.take().is_some();
        self.active -= usize::from(had_window);
    }

    fn row_mut(&mut self, instrument: u32) -> &mut Row {
        let at = instrument as usize - 1;
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, Row::default);
        }
        &mut self.rows[at]
    }
}

impl Row {
    fn change(&mut self) {
        self.window.iter_mut().for_each(|window| window.is_changed = true);
    }
}

/// The most buckets of each of `instruments`, so that all of them take at most `bytes_max`: one for each minute of a day,
/// and at least [`BUCKETS_MIN`].
pub fn capacity(bytes_max: usize, instruments: usize) -> usize {
    let each = bytes_max / instruments.max(1);
    (each / Window::BUCKET_BYTES).clamp(BUCKETS_MIN, DAY_MINUTES as usize)
}

/// Minutes of a clock that may have begun with the machine: there is room for a day before.
fn minute(now_ns: u64) -> u32 {
    u32::try_from(now_ns / MINUTE_NS).unwrap_or(u32::MAX).saturating_add(2 * DAY_MINUTES)
}

#[cfg(test)]
mod tests;
