//! A recording as a file: its validation, its venue, and the log of its malformed lines.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::params::Params;
use crate::ingest::source::StreamState;
use crate::ingest::transport::file::{Found, Lines};
use tickcast_venues::binance::{Body, Market, Message, Origin, Parser};
use tickcast_venues::stamp::{self, NotATime};
use tickcast_venues::{Event, NameStyle, Notice, Venue};

/// Lines that are read for the market and the streams before the replay begins.
const OPENING_LINES: usize = 512;
/// Malformed lines of a file that are logged one by one.
const LOGGED_MAX: u64 = 10;

/// Why a recording could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is missing or not readable.
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    /// The file is not a recording.
    #[error("{path}: {problem}: {EXPECTED}")]
    NotARecording { path: String, problem: String },
    /// Messages of a venue and records are replayed apart.
    #[error(
        "{path}: is of messages of a venue, and {other} is of records: expected files of one of these kinds in a feed"
    )]
    SeveralKinds { path: String, other: String },
    /// A parameter that has no meaning for this file.
    #[error("{path}: is {kind}: expected no {key}=, which is for messages of venues")]
    ForMessages { path: String, kind: &'static str, key: &'static str },
    /// Nothing is left to play.
    #[error("{path}: ends at {last_ns}, before from={from_ns}: expected a time within the recording, in ns since 1970")]
    EndsBefore { path: String, last_ns: u64, from_ns: u64 },
    /// Two venues would give one name to different instruments.
    #[error("{path}: is of {venue}, and another file is of {other}: expected files of one venue with names=common")]
    SeveralVenues { path: String, venue: &'static str, other: &'static str },
}

/// What a recording is.
pub const EXPECTED: &str = "expected a recording: a packet log of `tickcast record`, a DBN file, a CSV file of Tardis, \
     or lines `<receive time> <message of a venue>`, plain, gzip or zstd";

/// Opens a regular file.
pub fn open_regular(path: &Path) -> Result<Arc<File>, OpenError> {
    let name = || path.display().to_string();
    let failed = |error| OpenError::Io { path: name(), error };
    let file = File::open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "not a regular file" };
        return Err(OpenError::NotARecording { path: name(), problem: format!("is {found}") });
    }
    Ok(Arc::new(file))
}

/// Opens recordings that are replayed together.
pub fn open_all(params: &Params, parser: &mut Parser) -> Result<Vec<Recording>, OpenError> {
    let open = |path| Recording::open(path, params.venue, parser);
    let recordings: Vec<_> = params.files.iter().map(PathBuf::as_path).map(open).collect::<Result<_, _>>()?;
    let mut venues = recordings.iter().filter_map(|recording| Some((recording, recording.listed_venue()?)));
    if params.names == NameStyle::Common
        && let Some((_, first)) = venues.next()
        && let Some((recording, venue)) = venues.find(|(_, venue)| *venue != first)
    {
        let path = recording.path.clone();
        return Err(OpenError::SeveralVenues { path, venue: venue.name(), other: first.name() });
    }
    Ok(recordings)
}

/// An opened recording, with the facts of its first lines.
pub struct Recording {
    /// For log and error messages.
    pub path: String,
    /// Shared by all readers.
    pub file: Arc<File>,
    /// Receive stamp of its first line.
    pub first_ns: u64,
    /// Of the first timeline's reader.
    pub state: StreamState,
    opening: Opening,
    malformed: u64,
    untimed: u64,
    dropped_books: u64,
}

/// What reads the messages of a recording.
pub enum Format {
    /// The messages of Binance, of one market, of any connections.
    Binance(Origin),
    /// The codec of another venue.
    Venue(Venue),
}

/// The facts of the first lines.
#[derive(Default)]
struct Opening {
    venue: Option<Venue>,
    market: Option<Market>,
    has_tickers: bool,
    symbols: Vec<String>,
}

impl Recording {
    /// Opens a recording and reads its first lines, which show the venue, unless it is given.
    fn open(path: &Path, venue: Option<Venue>, parser: &mut Parser) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let file = open_regular(path)?;
        let mut lines = Lines::new(&file);
        let first_ns =
            first_stamp(&mut lines).map_err(|problem| OpenError::NotARecording { path: name.clone(), problem })?;
        let opening = Opening::read(&mut lines, venue, parser);
        Ok(Self {
            path: name,
            file,
            first_ns,
            opening,
            state: StreamState::Live,
            malformed: 0,
            untimed: 0,
            dropped_books: 0,
        })
    }

    /// Its venue, if its messages may have the list of instruments. Those of Binance never do: it is an HTTP answer.
    fn listed_venue(&self) -> Option<Venue> {
        self.opening.venue.filter(|venue| venue.binance_market().is_none())
    }

    /// The initial state for one reader of this recording.
    pub fn format(&self) -> Format {
        let opening = &self.opening;
        let given = opening.venue.map(|venue| (venue, venue.binance_market()));
        let market = match given {
            Some((venue, None)) => return Format::Venue(venue),
            // The messages themselves show the market, where the venue was not given.
            Some((Venue::Binance, _)) | None => opening.market.unwrap_or(Market::Spot),
            Some((_, Some(market))) => market,
        };
        let sole_symbol = match opening.symbols.as_slice() {
            [symbol] => Some(symbol.clone()),
            _ => None,
        };
        Format::Binance(Origin::new(market, opening.has_tickers, sole_symbol))
    }

    /// Reads the whole file for its latest receive stamp.
    pub fn last_ns(&self) -> u64 {
        let mut lines = Lines::new(&self.file);
        let mut last_ns = self.first_ns;
        loop {
            match lines.advance() {
                Found::Line => last_ns = last_ns.max(split_stamp(lines.line()).map_or(0, |(stamp_ns, _)| stamp_ns)),
                Found::TooLong => {}
                Found::Broken(_) | Found::End => return last_ns,
            }
        }
    }

    /// Logs a malformed line; beyond the first few of a file they are only counted.
    pub fn log_malformed(&mut self, line: u64, problem: &dyn Display) {
        self.malformed += 1;
        if self.malformed <= LOGGED_MAX {
            tracing::warn!(file = self.path, line, "malformed line skipped: {problem}");
        }
    }

    /// The same for a line that is taken without the venue's time.
    fn log_untimed(&mut self, line: u64, problem: &dyn Display) {
        self.untimed += 1;
        if self.untimed <= LOGGED_MAX {
            tracing::warn!(file = self.path, line, "time of the venue skipped: {problem}");
        }
    }

    /// Logs what a codec reports of a line. Texts for a connection have none here.
    pub fn log_event(&mut self, line: u64, event: &Event) {
        match event {
            Event::Untimed(fault) => self.log_untimed(line, fault),
            Event::BookDropped { instrument, cause } => {
                self.dropped_books += 1;
                if self.dropped_books <= LOGGED_MAX {
                    let file = &self.path;
                    tracing::warn!(file, line, instrument, "the book is void until its next snapshot: {cause}");
                }
            }
            Event::Notice(Notice::Closing { reason } | Notice::Error { reason }) => {
                tracing::debug!(file = self.path, line, "the venue announced: {reason}");
            }
            Event::Notice(Notice::State { state, .. }) => {
                tracing::debug!(file = self.path, line, "the venue's state: {state}");
            }
            Event::Send(_) | Event::Subscribed(_) | Event::Refused { .. } | Event::Silent { .. } => {}
        }
    }

    /// Logs the number of such lines, if not all were logged. Called at the end of the file.
    pub fn log_summary(&self) {
        if self.malformed.max(self.untimed).max(self.dropped_books) > LOGGED_MAX {
            let (file, malformed, untimed, dropped_books) =
                (&self.path, self.malformed, self.untimed, self.dropped_books);
            tracing::warn!(
                file,
                malformed,
                untimed,
                dropped_books,
                "lines so far; the first {LOGGED_MAX} of each were logged"
            );
        }
    }
}

impl Opening {
    /// Reads the current line of `lines` and those after it. The replay reports malformed ones.
    fn read(lines: &mut Lines, given: Option<Venue>, parser: &mut Parser) -> Self {
        let mut opening = Self { venue: given, ..Self::default() };
        for _ in 0..OPENING_LINES {
            if let Ok((_, json)) = split_stamp(lines.line()) {
                if given.is_none() {
                    opening.note_venue(Venue::detect(&mut json.to_vec()));
                }
                let _ = parser.read(json, |message| {
                    opening.note(&message);
                    Ok(())
                });
            }
            if matches!(lines.advance(), Found::Broken(_) | Found::End) {
                break;
            }
        }
        opening
    }

    /// The first message that shows a venue decides. Of Bybit, later ones may show that it is not spot.
    fn note_venue(&mut self, seen: Option<Venue>) {
        let is_bybit = matches!(seen, Some(Venue::BybitLinear | Venue::BybitInverse));
        if self.venue.is_none() || (self.venue == Some(Venue::Bybit) && is_bybit) {
            self.venue = seen;
        }
    }

    fn note(&mut self, message: &Message<'_, '_>) {
        self.market = self.market.or(message.market);
        self.has_tickers |= matches!(message.body, Body::Ticker(_));
        let symbol = match &message.body {
            Body::Quote(quote) => quote.symbol,
            Body::Trade(trade) => trade.symbol,
            Body::NoTrade { symbol, .. } => symbol,
            Body::Ticker(ticker) => ticker.symbol,
            Body::Depth(depth) => depth.symbol,
            Body::Snapshot(_) | Body::Ignored => return,
        };
        if !self.symbols.iter().any(|have| have == symbol) {
            self.symbols.push(symbol.to_owned());
        }
    }
}

/// Why a line has no receive stamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// It does not begin with a number and a space.
    #[error("expected `<receive time> ` at the start of the line")]
    Missing,
    /// Its number is no time.
    #[error("receive time {0}")]
    NotATime(#[from] NotATime),
}

/// The receive stamp of a line in ns, and its message: `<time> <message>`, or `<time>: <message>` as cryptofeed writes it.
/// Each line may have its own unit.
pub fn split_stamp(line: &mut [u8]) -> Result<(u64, &mut [u8]), StampError> {
    let is_number = |text: &&str| text.starts_with(|first: char| first.is_ascii_digit());
    let end = line.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.')).unwrap_or(line.len());
    let (number, rest) = line.split_at_mut(end);
    let number = std::str::from_utf8(number).ok().filter(is_number).ok_or(StampError::Missing)?;
    match rest {
        [b' ', message @ ..] | [b':', b' ', message @ ..] => Ok((stamp::parse(number)?, message)),
        _ => Err(StampError::Missing),
    }
}

/// The stamp of the first line, or a description of what the file begins with.
fn first_stamp(lines: &mut Lines) -> Result<u64, String> {
    match lines.advance() {
        Found::Line => {}
        Found::TooLong => return Err("begins with a line of more than 16 MiB".to_owned()),
        Found::Broken(error) => return Err(format!("cannot be read: {error}")),
        Found::End => return Err("is empty".to_owned()),
    }
    let number = lines.number();
    match split_stamp(lines.line()) {
        Ok((stamp_ns, [b'{' | b'[', ..])) => Ok(stamp_ns),
        Err(error @ StampError::NotATime(_)) => Err(format!("line {number}: {error}")),
        _ => {
            let line = String::from_utf8_lossy(lines.line());
            let start: String = line.chars().take(60).collect();
            Err(format!("begins with {start:?}"))
        }
    }
}
