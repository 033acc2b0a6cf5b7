//! In-process sources of market data. A feed turns its input into records; it knows no sequence, no ring and no client.
//!
//! Feeds are pure state machines: time is an argument of [`Feed::poll`], records are wire bytes with the feed's own
//! instrument ids, each announced by a Definition record before its first use. `run` in the runtime drives one feed on
//! one thread; tests drive it with a clock of their own.
//!
//! * [`sim`]: a seeded market.
//! * [`replay`]: recordings, as fast as they were, faster, or as fast as the rings take them.
//! * [`binance`]: the venue's messages and its book procedure.
//! * [`stamp`]: times of other systems, in any unit.

pub mod binance;
pub mod replay;
pub mod sim;
pub mod stamp;

/// A source of records.
pub trait Feed: Send {
    /// Its name in logs: `sim`, `replay`.
    fn name(&self) -> &str;

    /// Appends what is due at `now_ns` (ns since the Unix epoch) to `batch`, as whole wire records, at most about
    /// [`FEED_BATCH_BYTES_MAX`], and returns when to call again. Sequences and `ts_recv` are 0: the sequencer sets them.
    fn poll(&mut self, now_ns: u64, batch: &mut Vec<u8>) -> Next;

    /// Sets what to add to the time of a poll for a stamp: that time does not step when the wall clock is set. Feeds
    /// whose stamps are those of a venue do not need it.
    fn set_wall_offset(&mut self, _offset_ns: i64) {}

    /// The counters so far.
    fn report(&self) -> Report;
}

/// A batch is published once it has grown to this: large enough to amortise the call, small compared with a ring.
pub const FEED_BATCH_BYTES_MAX: usize = 32 * 1024;

/// When to poll a feed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More is due already.
    Now,
    /// More is available as soon as the rings have room: a recording can wait, a live feed cannot.
    Paced,
    /// Nothing is due before this time, ns since the Unix epoch.
    At(u64),
    /// The source has ended.
    Ended,
}

/// A feed's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records published.
    pub records: u64,
    /// Messages that could not be read: counted, logged with file and line, skipped.
    pub malformed: u64,
    /// Messages of types that are not market data, skipped on purpose.
    pub ignored: u64,
    /// Messages whose time could not be read: their records have none.
    pub untimed: u64,
    /// Books dropped for a sequence gap.
    pub book_gaps: u64,
    /// Trades lost before they came here, by the holes in the venue's ids: each is part of a Gap.
    pub trades_lost: u64,
    /// Levels of books left out, as no exponents represent them: their books are flagged.
    pub levels_lost: u64,
    /// Changes of an instrument's exponents.
    pub rescaled: u64,
}

impl Report {
    /// What was lost before the sequencer, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("malformed", self.malformed),
            ("untimed", self.untimed),
            ("book_gaps", self.book_gaps),
            ("trades_lost", self.trades_lost),
            ("levels_lost", self.levels_lost),
        ]
    }

    /// The sum of two reports, of a feed before and after it was opened again.
    #[must_use]
    pub fn plus(&self, later: &Self) -> Self {
        Self {
            records: self.records + later.records,
            malformed: self.malformed + later.malformed,
            ignored: self.ignored + later.ignored,
            untimed: self.untimed + later.untimed,
            book_gaps: self.book_gaps + later.book_gaps,
            trades_lost: self.trades_lost + later.trades_lost,
            levels_lost: self.levels_lost + later.levels_lost,
            rescaled: self.rescaled + later.rescaled,
        }
    }
}

/// A validated `--feed` argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// `sim[:key=value,…]`
    Sim(sim::Params),
    /// `replay:FILE[,FILE…][?key=value&…]`
    Replay(replay::Params),
    /// `none`: only publishers.
    None,
}

/// Why a `--feed` argument was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feed {spec:?}: {problem}")]
pub struct SpecError {
    /// The argument.
    pub spec: String,
    /// The fault, and what is allowed.
    pub problem: String,
}

impl Spec {
    /// Reads a `--feed` argument.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let (name, rest) = spec.split_once(':').unwrap_or((spec, ""));
        let parsed = match name {
            "sim" => sim::Params::parse(rest).map(Self::Sim),
            "replay" => replay::Params::parse(rest).map(Self::Replay),
            "none" if rest.is_empty() => Ok(Self::None),
            _ => Err(format!(
                "unknown feed {name:?}: expected sim[:key=value,…], replay:FILE[,FILE…][?key=value&…] or none"
            )),
        };
        parsed.map_err(|problem| SpecError { spec: spec.to_owned(), problem })
    }

    /// Opens the source; `None` for `none`.
    pub fn open(&self) -> Result<Option<Box<dyn Feed>>, OpenError> {
        Ok(match self {
            Self::Sim(params) => Some(Box::new(sim::Sim::new(params))),
            Self::Replay(params) => Some(Box::new(replay::Replay::open(params)?)),
            Self::None => None,
        })
    }
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is missing or not readable.
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    /// The file is not a recording.
    #[error("{path}: {problem}")]
    NotARecording { path: String, problem: String },
}

/// Splits `key=value` pairs at `separator`, and calls `set` with each; the error of `set` names what is allowed.
fn each_pair(
    pairs: &str,
    separator: char,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    for pair in pairs.split(separator).filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("invalid parameter {pair:?}: expected key=value"))?;
        set(key, value)?;
    }
    Ok(())
}

/// A number within bounds, or an error that names the bounds.
fn number_within<T>(key: &str, value: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match value.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{key}: invalid value {value:?}: expected {least} to {most}")),
    }
}
