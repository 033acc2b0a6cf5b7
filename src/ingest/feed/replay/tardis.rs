//! CSV files of Tardis as recordings: `trades`, `quotes`, `book_ticker`, `incremental_book_L2`, `book_snapshot_5` and
//! `book_snapshot_25`. Their header line tells them apart. The time of a row is its `local_timestamp`.
//!
//! * **Books.** The rows of one message, which have one symbol and one `local_timestamp`, become one record. A row of a
//!   snapshot behind one that is none begins the book anew; changes before the first snapshot are skipped.
//! * **Numbers** are decimal texts; exponents follow them, see [`tickcast_venues::scale`].
//! * **Trade ids** are the `id` where that is a number, else 0.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use csv::StringRecord;
use foldhash::fast::RandomState;

use super::recording::OpenError;
use super::track::{Output, Track};
use crate::ingest::source::{SourceGap, StreamState};
use crate::ingest::transport::file::inflated;
use tickcast_protocol::record::{Level, PRICE_NONE, Quote, RecordHeader, Trade, flags};
use tickcast_protocol::{BookAction, BookSide, RecordKind, Side};
use tickcast_venues::scale::{Scale, absent_if_unfit};

/// What every header line begins with.
pub const MAGIC: &[u8] = b"exchange,symbol,timestamp,local_timestamp,";
/// Longer lines end the reading. A row of 25 levels on both sides has some 2 KB.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Rows of one message; further ones are a message of their own.
const MESSAGE_ROWS_MAX: usize = 100_000;
/// Malformed rows of a file that are logged one by one.
const LOGGED_MAX: u64 = 10;
/// Columns before those that differ.
const COMMON_COLUMNS: usize = 4;

/// What a file has, by its header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Trades,
    /// Also `book_ticker`.
    Quotes,
    Changes,
    /// Whole books of so many levels on each side.
    Books(usize),
}

impl Table {
    fn of(header: &StringRecord) -> Result<Self, String> {
        let columns: Vec<&str> = header.iter().skip(COMMON_COLUMNS).collect();
        match columns.as_slice() {
            ["id", "side", "price", "amount"] => Ok(Self::Trades),
            ["ask_amount", "ask_price", "bid_price", "bid_amount"] => Ok(Self::Quotes),
            ["is_snapshot", "side", "price", "amount"] => Ok(Self::Changes),
            levels if !levels.is_empty() && levels.len() % 4 == 0 && is_levels(levels) => {
                Ok(Self::Books(levels.len() / 4))
            }
            other => Err(format!(
                "has the columns {:?}: expected those of trades, quotes, book_ticker, incremental_book_L2, book_snapshot_5 \
                 or book_snapshot_25",
                other.join(",").chars().take(100).collect::<String>()
            )),
        }
    }
}

fn is_levels(columns: &[&str]) -> bool {
    columns.chunks_exact(4).enumerate().all(|(nth, level)| {
        let expected = [("asks", "price"), ("asks", "amount"), ("bids", "price"), ("bids", "amount")]
            .map(|(side, field)| format!("{side}[{nth}].{field}"));
        level.iter().zip(&expected).all(|(column, expected)| column == expected)
    })
}

/// One file.
pub struct TardisTrack {
    name: String,
    file: Arc<File>,
    table: Table,
    rows: csv::Reader<BoundedLines>,
    next: Option<Row>,
    last_ns: u64,
    /// The books that have begun, by symbol.
    books: HashMap<String, BookProgress, RandomState>,
    malformed: u64,
    /// Of them, those that are not in the counters of the replay yet.
    unreported: u64,
    state: StreamState,
}

/// What is kept of a book.
#[derive(Clone, Copy, Debug)]
struct BookProgress {
    /// Its last row was of a snapshot.
    in_snapshot: bool,
    /// A level was left out since the last whole book.
    is_suspect: bool,
}

/// A row, and its time.
struct Row {
    cells: StringRecord,
    time_ns: u64,
}

impl Row {
    fn cell(&self, nth: usize) -> &str {
        self.cells.get(nth).unwrap_or_default()
    }

    fn symbol(&self) -> &str {
        self.cell(1)
    }

    /// The venue's time, ns; 0 for none.
    fn ts_event(&self) -> u64 {
        self.cell(2).parse::<u64>().map_or(0, |micros| micros.saturating_mul(1_000))
    }

    fn is_snapshot(&self) -> bool {
        self.cell(COMMON_COLUMNS) == "true"
    }

    /// Whether it belongs to the message of another row.
    fn is_of(&self, other: &Self) -> bool {
        (self.symbol(), self.cell(3), self.is_snapshot()) == (other.symbol(), other.cell(3), other.is_snapshot())
    }
}

impl TardisTrack {
    /// Opens a file and reads its header line.
    ///
    /// # Errors
    /// If its columns are of no known table.
    pub fn open(name: String, file: &Arc<File>) -> Result<Self, OpenError> {
        let mut rows = rows_of(file);
        let refused = |problem: String| OpenError::NotARecording { path: name.clone(), problem };
        let header = rows.headers().map_err(|error| refused(format!("cannot be read: {error}")))?;
        let table = Table::of(header).map_err(refused)?;
        let track = Self {
            name,
            file: Arc::clone(file),
            table,
            rows,
            next: None,
            last_ns: 0,
            books: HashMap::default(),
            malformed: 0,
            unreported: 0,
            state: StreamState::Live,
        };
        Ok(track)
    }

    /// Goes to the next row that has a time, and counts those that have none.
    fn advance(&mut self) {
        loop {
            let mut cells = StringRecord::new();
            match self.rows.read_record(&mut cells) {
                Ok(true) => {}
                Ok(false) => {
                    self.state = StreamState::Ended;
                    self.next = None;
                    return;
                }
                Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => {
                    let reason = error.to_string();
                    tracing::warn!(file = self.name, "the file cannot be read further: {reason}");
                    self.state = StreamState::Failed { reason };
                    self.next = None;
                    return;
                }
                Err(error) => {
                    self.note_malformed(&error.to_string());
                    continue;
                }
            }
            match cells
                .get(3)
                .and_then(|micros| micros.parse::<u64>().ok())
                .and_then(|micros| micros.checked_mul(1_000))
            {
                Some(time_ns) => {
                    self.last_ns = self.last_ns.max(time_ns);
                    self.next = Some(Row { cells, time_ns: self.last_ns });
                    return;
                }
                None => {
                    self.note_malformed("its local_timestamp is no number of microseconds");
                }
            }
        }
    }

    fn note_malformed(&mut self, problem: &str) {
        self.unreported += 1;
        self.malformed += 1;
        if self.malformed <= LOGGED_MAX {
            let line = self.rows.position().line();
            tracing::warn!(file = self.name, line, "malformed row skipped: {problem}");
        }
    }

    /// The rows of a message that is a change of a book, from this one on.
    fn message(&mut self, first: Row) -> Vec<Row> {
        let mut rows = vec![first];
        while rows.len() < MESSAGE_ROWS_MAX
            && let Some(next) = self.next.take_if(|next| next.is_of(&rows[0]))
        {
            rows.push(next);
            self.advance();
        }
        rows
    }

    fn changes(&mut self, rows: &[Row], output: &mut Output<'_>) -> Result<(), String> {
        let in_snapshot = rows[0].is_snapshot();
        let before = self.books.get(rows[0].symbol()).copied();
        let action = match (in_snapshot, before) {
            (true, Some(BookProgress { in_snapshot: true, .. })) | (false, Some(_)) => BookAction::Delta,
            (true, _) => BookAction::Snapshot,
            (false, None) => {
                output.report.ignored += rows.len() as u64;
                return Ok(());
            }
        };
        let mut levels = Vec::with_capacity(rows.len());
        for row in rows {
            let side = match row.cell(COMMON_COLUMNS + 1) {
                "bid" => BookSide::Bid,
                "ask" => BookSide::Ask,
                other => return Err(format!("side {other:?}: expected bid or ask")),
            };
            levels.push((side, row.cell(COMMON_COLUMNS + 2), row.cell(COMMON_COLUMNS + 3)));
        }
        let was_suspect = action == BookAction::Delta && before.is_some_and(|book| book.is_suspect);
        let is_suspect = book(&rows[0], action, &levels, was_suspect, output)?;
        self.books.insert(rows[0].symbol().to_owned(), BookProgress { in_snapshot, is_suspect });
        Ok(())
    }
}

fn rows_of(file: &Arc<File>) -> csv::Reader<BoundedLines> {
    csv::ReaderBuilder::new().flexible(false).from_reader(BoundedLines { input: inflated(file), line_bytes: 0 })
}

fn trade(row: &Row, output: &mut Output<'_>) -> Result<(), String> {
    let [id, side, px, sz] = [0, 1, 2, 3].map(|nth| row.cell(COMMON_COLUMNS + nth));
    let (instrument, scale) = output.fit(row.symbol(), row.cell(0), [px].into_iter(), [sz].into_iter())?;
    let number = |error: tickcast_venues::Malformed| error.to_string();
    let (px, sz) = (scale.px("price", px).map_err(number)?, scale.sz("amount", sz).map_err(number)?);
    let side = match side {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        _ => Side::Unknown,
    };
    let header = RecordHeader::of_feed(RecordKind::Trade, instrument, row.ts_event());
    let trade_id = id.parse().unwrap_or(0);
    output.put(|batch| Trade { px, sz, trade_id, side }.encode(&header, batch));
    Ok(())
}

fn quote(row: &Row, output: &mut Output<'_>) -> Result<(), String> {
    let [ask_sz, ask_px, bid_px, bid_sz] = [0, 1, 2, 3].map(|nth| row.cell(COMMON_COLUMNS + nth));
    let prices = [bid_px, ask_px].into_iter().filter(|text| !text.is_empty());
    let sizes = [bid_sz, ask_sz].into_iter().filter(|text| !text.is_empty());
    let (instrument, scale) = output.fit(row.symbol(), row.cell(0), prices, sizes)?;
    let best = |px: &str, sz: &str| match (px, sz) {
        ("", _) | (_, "") => Ok((PRICE_NONE, PRICE_NONE)),
        _ => scale.best("price", px, "amount", sz).map_err(|error| error.to_string()),
    };
    let ((bid_px, bid_sz), (ask_px, ask_sz)) = (best(bid_px, bid_sz)?, best(ask_px, ask_sz)?);
    let header = RecordHeader::of_feed(RecordKind::Quote, instrument, row.ts_event());
    output.put(|batch| Quote { bid_px, bid_sz, ask_px, ask_sz }.encode(&header, batch));
    Ok(())
}

fn whole_book(row: &Row, depth: usize, output: &mut Output<'_>) -> Result<(), String> {
    let mut levels = Vec::with_capacity(2 * depth);
    for nth in 0..depth {
        let cells = [0, 1, 2, 3].map(|field| row.cell(COMMON_COLUMNS + 4 * nth + field));
        levels.push((BookSide::Ask, cells[0], cells[1]));
        levels.push((BookSide::Bid, cells[2], cells[3]));
    }
    // A book of fewer levels has empty cells.
    levels.retain(|(_, px, sz)| !px.is_empty() && !sz.is_empty());
    book(row, BookAction::Snapshot, &levels, false, output).map(drop)
}

/// Publishes levels. One that fits no exponents is left out, and the book is flagged until it is whole again. Returns
/// whether it is flagged.
fn book(
    row: &Row,
    action: BookAction,
    levels: &[(BookSide, &str, &str)],
    was_suspect: bool,
    output: &mut Output<'_>,
) -> Result<bool, String> {
    let (prices, sizes) = (levels.iter().map(|(_, px, _)| *px), levels.iter().map(|(.., sz)| *sz));
    let (instrument, scale) = output.fit(row.symbol(), row.cell(0), prices, sizes)?;
    let (mut whole, mut is_suspect) = (Vec::with_capacity(levels.len()), was_suspect);
    for (side, px, sz) in levels {
        match level(scale, *side, px, sz)? {
            Some(level) if action == BookAction::Snapshot && level.sz == 0 => {}
            Some(level) => whole.push(level),
            None => {
                is_suspect = true;
                output.report.levels_lost += 1;
            }
        }
    }
    let header = RecordHeader::of_feed(RecordKind::Book, instrument, row.ts_event());
    let bad = if is_suspect { flags::MAYBE_BAD_BOOK } else { 0 };
    output.book(&header.with_flags(flags::LAST | bad), action, whole);
    Ok(is_suspect)
}

fn level(scale: Scale, side: BookSide, px: &str, sz: &str) -> Result<Option<Level>, String> {
    let read = |value| absent_if_unfit(value).map_err(|error| error.to_string());
    let (px, sz) = (read(scale.px("price", px))?, read(scale.sz("amount", sz))?);
    Ok((px != PRICE_NONE && sz != PRICE_NONE).then_some(Level { px, sz, side }))
}

impl Track for TardisTrack {
    fn begin(&mut self, _from_ns: Option<u64>) -> Result<(), OpenError> {
        self.rows = rows_of(&self.file);
        self.books.clear();
        (self.last_ns, self.unreported, self.state) = (0, 0, StreamState::Live);
        self.advance();
        Ok(())
    }

    fn next_ns(&mut self) -> Option<u64> {
        self.next.as_ref().map(|row| row.time_ns)
    }

    fn take(&mut self, output: &mut Output<'_>) -> Result<(), SourceGap> {
        let Some(row) = self.next.take() else { return Ok(()) };
        self.advance();
        let taken = match self.table {
            Table::Trades => trade(&row, output),
            Table::Quotes => quote(&row, output),
            Table::Books(depth) => whole_book(&row, depth, output),
            Table::Changes => {
                let rows = self.message(row);
                self.changes(&rows, output)
            }
        };
        if let Err(problem) = taken {
            self.note_malformed(&problem);
        }
        output.report.malformed += std::mem::take(&mut self.unreported);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> StreamState {
        self.state.clone()
    }
}

/// An input whose lines are bounded: the parser keeps a whole row in memory.
struct BoundedLines {
    input: Box<dyn BufRead + Send>,
    /// Of the present line.
    line_bytes: usize,
}

impl Read for BoundedLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            self.line_bytes += part.len();
            if self.line_bytes > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 1 MiB"));
            }
            if part.ends_with(b"\n") {
                self.line_bytes = 0;
            }
        }
        Ok(read)
    }
}
