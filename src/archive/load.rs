//! `tickcast archive`: loads bars and trades of CSV files into an archive, and lists what it has.
//!
//! The server may run: it finds what was loaded within a second or two. A file is read as a whole before anything of it is
//! written. Loading it again changes nothing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::StringRecord;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use super::database::{Database, Listed};
use super::file_name;
use crate::bars::{Bar, INTERVALS_S, StoredBar};
use crate::clock::wall_ns;
use tickcast_protocol::decimal::{self, significant_decimals};
use tickcast_protocol::record::{PRICE_NONE, Trade};
use tickcast_protocol::{Side, SymbolError, check_symbol};

/// Bars of one transaction.
const WRITTEN_AT_ONCE: usize = 10_000;

/// What `tickcast archive` does.
#[derive(Clone, Debug, clap::Args)]
pub struct ArchiveArgs {
    #[command(subcommand)]
    command: ArchiveCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum ArchiveCommand {
    /// Load bars or trades of a CSV file
    ///
    /// The first line has the names of the columns. Bars: time, open, high, low, close, and if there are any volume, trades
    /// and symbol. Trades: time, price, and if there are any size and symbol. A time is RFC 3339 with an offset, a date
    /// (UTC), or a number since 1970 whose digits say whether it has seconds, ms, us or ns. What is loaded replaces bars of
    /// the same times; longer bars are made anew.
    Load(LoadArchiveArgs),
    /// List the symbols of an archive, and from when to when there are bars
    List(ListArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct LoadArchiveArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Symbol of the file, if it has no such column
    #[arg(long)]
    symbol: Option<String>,
    /// Length of the bars, s: such as 60 or 86400; it has to be a multiple or a part of a minute, hour or day
    #[arg(long, value_name = "S")]
    interval_s: Option<u32>,
    /// CSV file
    file: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct PlaceArgs {
    /// Folder of the archive: --archive-dir of the server
    #[arg(long, value_name = "DIR")]
    archive_dir: PathBuf,
    /// The market with this delay instead of the live one, s
    #[arg(long, value_name = "S", default_value_t = 0)]
    delay_s: u32,
}

impl PlaceArgs {
    fn open(&self, is_created: bool) -> Result<Database, LoadArchiveError> {
        let path = self.archive_dir.join(file_name(self.delay_s));
        if is_created {
            std::fs::create_dir_all(&self.archive_dir)
                .map_err(|error| LoadArchiveError::File(format!("{}: {error}", self.archive_dir.display())))?;
        } else if !path.exists() {
            let problem = format!("{}: there is no such file: expected the --archive-dir of a server", path.display());
            return Err(LoadArchiveError::File(problem));
        }
        Database::open(&path).map_err(LoadArchiveError::File)
    }
}

/// Why nothing, or not all, was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadArchiveError {
    #[error("{0}")]
    File(String),
    /// A line of the file is invalid; nothing was loaded.
    #[error("{file}: {problem}: nothing was loaded")]
    Line { file: String, problem: String },
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command.
///
/// # Errors
/// See [`LoadArchiveError`].
pub fn archive(args: &ArchiveArgs, out: &mut impl Write) -> Result<(), LoadArchiveError> {
    match &args.command {
        ArchiveCommand::List(args) => list(args, out),
        ArchiveCommand::Load(args) => load(args, out),
    }
}

fn list(args: &ListArgs, out: &mut impl Write) -> Result<(), LoadArchiveError> {
    let database = args.place.open(false)?;
    writeln!(out, "symbol,interval_s,bars,from,to")?;
    for Listed { symbol, interval_s, bars, from_s, to_s } in database.list().map_err(LoadArchiveError::File)? {
        let symbol = if symbol.contains([',', '"']) { format!("\"{}\"", symbol.replace('"', "\"\"")) } else { symbol };
        writeln!(out, "{symbol},{interval_s},{bars},{},{}", utc(from_s), utc(to_s))?;
    }
    Ok(())
}

fn load(args: &LoadArchiveArgs, out: &mut impl Write) -> Result<(), LoadArchiveError> {
    let name = args.file.display().to_string();
    let invalid = |problem: String| LoadArchiveError::Line { file: name.clone(), problem };
    let loaded = Loaded::read(&args.file, args.symbol.as_deref(), args.interval_s).map_err(invalid)?;
    let mut database = args.place.open(true)?;
    if !loaded.ignored.is_empty() {
        writeln!(out, "columns that are not loaded: {}", loaded.ignored.join(", "))?;
    }
    for ((symbol, interval_s), bars) in &loaded.bars {
        let stored = |(bar, exponents): &(Bar, (i8, i8))| StoredBar {
            symbol: symbol.clone(),
            interval_s: *interval_s,
            exponents: *exponents,
            bar: *bar,
        };
        let bars: Vec<StoredBar> = bars.values().map(stored).collect();
        for portion in bars.chunks(WRITTEN_AT_ONCE) {
            database.load(portion).map_err(LoadArchiveError::File)?;
        }
        if let (Some(first), Some(last)) = (bars.first(), bars.last()) {
            let (from, to) = (utc(first.bar.time_s), utc(last.bar.time_s));
            writeln!(out, "{symbol}: {} bars of {interval_s} s from {from} to {to}", bars.len())?;
        }
    }
    Ok(())
}

fn utc(time_s: u32) -> String {
    Timestamp::from_second(time_s.into()).map_or_else(|_| time_s.to_string(), |time| time.to_string())
}

/// Bars of one instrument and kept length by their times.
type ByTime = BTreeMap<u32, (Bar, (i8, i8))>;

/// What a file has.
#[derive(Debug, Default)]
struct Loaded {
    bars: BTreeMap<(Arc<str>, u32), ByTime>,
    ignored: Vec<String>,
}

/// The columns of a file, by their places.
#[derive(Debug, Default)]
struct Columns {
    time: Option<usize>,
    symbol: Option<usize>,
    open: Option<usize>,
    high: Option<usize>,
    low: Option<usize>,
    close: Option<usize>,
    volume: Option<usize>,
    trades: Option<usize>,
    price: Option<usize>,
    size: Option<usize>,
}

impl Columns {
    fn of(header: &StringRecord, ignored: &mut Vec<String>) -> Result<Self, String> {
        let mut columns = Self::default();
        for (at, name) in header.iter().enumerate() {
            let name = name.trim().trim_start_matches('\u{feff}');
            let column = match name.to_ascii_lowercase().as_str() {
                "time" | "ts_event" | "timestamp" | "date" | "datetime" => &mut columns.time,
                "symbol" => &mut columns.symbol,
                "open" => &mut columns.open,
                "high" => &mut columns.high,
                "low" => &mut columns.low,
                "close" => &mut columns.close,
                "volume" => &mut columns.volume,
                "trades" => &mut columns.trades,
                "price" | "px" => &mut columns.price,
                "size" | "sz" | "qty" | "quantity" => &mut columns.size,
                _ => {
                    ignored.push(if name.is_empty() { format!("number {}", at + 1) } else { name.to_owned() });
                    continue;
                }
            };
            if let Some(before) = column.replace(at) {
                return Err(format!("the header has {name:?} beside {:?}, which is the same", &header[before]));
            }
        }
        if columns.time.is_none() {
            let names = header.iter().collect::<Vec<_>>().join(", ");
            return Err(format!("the header has no time: expected a column time or ts_event beside {names}"));
        }
        Ok(columns)
    }

    fn is_bars(&self) -> Result<bool, String> {
        let prices = [self.open, self.high, self.low, self.close];
        match (prices.iter().flatten().count(), self.price) {
            (4, None) => Ok(true),
            (0, Some(_)) => Ok(false),
            _ => Err("the header has neither bars nor trades: expected open, high, low and close, or price".to_owned()),
        }
    }
}

impl Loaded {
    fn read(path: &Path, symbol: Option<&str>, interval_s: Option<u32>) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new().from_path(path).map_err(|error| error.to_string())?;
        let mut loaded = Self::default();
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let columns = Columns::of(&header, &mut loaded.ignored)?;
        let is_bars = columns.is_bars()?;
        let kept_s = kept_length(is_bars, interval_s)?;
        if symbol.is_some() == columns.symbol.is_some() {
            return Err("the symbol: expected either --symbol or a column symbol".to_owned());
        }
        let now_s = wall_ns() / 1_000_000_000;
        let mut ticks: BTreeMap<Arc<str>, Vec<(u32, Tick)>> = BTreeMap::new();
        for line in reader.records() {
            let line = line.map_err(|error| error.to_string())?;
            let number = line.position().map_or(0, csv::Position::line);
            let cells = Cells { line: &line, columns: &columns };
            let mut add = || -> Result<(), String> {
                let symbol: Arc<str> = cells.symbol(symbol)?.into();
                let time_s = cells.time()?;
                if u64::from(time_s) > now_s {
                    return Err(format!("time: {} is in the future", utc(time_s)));
                }
                if !is_bars {
                    ticks.entry(symbol).or_default().push((time_s, cells.tick()?));
                    return Ok(());
                }
                let begin_s = time_s - time_s % interval_s.unwrap_or(kept_s);
                let bars = loaded.bars.entry((symbol, kept_s)).or_default();
                match bars.insert(begin_s, cells.bar(begin_s)?) {
                    Some(_) => Err(format!("time: {} has a bar already", utc(begin_s))),
                    None => Ok(()),
                }
            };
            add().map_err(|problem| format!("line {number}: {problem}"))?;
        }
        if ticks.is_empty() && loaded.bars.is_empty() {
            return Err("the file has no lines below its header".to_owned());
        }
        for (symbol, ticks) in ticks {
            let bars = bars_of(ticks).map_err(|problem| format!("{symbol}: {problem}"))?;
            loaded.bars.insert((symbol, INTERVALS_S[0]), bars);
        }
        Ok(loaded)
    }
}

/// The kept length as which a file's bars are stored.
fn kept_length(is_bars: bool, interval_s: Option<u32>) -> Result<u32, String> {
    match interval_s {
        None if is_bars => Err("the length of the bars is missing: expected --interval-s, such as 60".to_owned()),
        Some(_) if !is_bars => {
            Err("--interval-s: the file has trades, of which bars of all lengths are made".to_owned())
        }
        Some(length) => {
            let kept = INTERVALS_S.into_iter().rfind(|kept| length > 0 && length.is_multiple_of(*kept));
            let next = kept.and_then(|kept| INTERVALS_S.into_iter().find(|longer| *longer > kept));
            // A longer bar is made of whole ones.
            kept.filter(|_| next.is_none_or(|next| next.is_multiple_of(length)))
                .filter(|kept| next.is_some() || length == *kept)
                .ok_or_else(|| format!("--interval-s: {length} does not divide a minute, an hour or a day"))
        }
        None => Ok(INTERVALS_S[0]),
    }
}

/// A trade as the file has it: the texts of price and size.
struct Tick {
    price: String,
    size: Option<String>,
}

/// Bars of a second of the trades of one instrument.
fn bars_of(mut ticks: Vec<(u32, Tick)>) -> Result<ByTime, String> {
    // Stable: those of a second stay in the order of the file.
    ticks.sort_by_key(|(time_s, _)| *time_s);
    let finest = |texts: &mut dyn Iterator<Item = &str>| -texts.map(significant_decimals).max().unwrap_or(0);
    let px_exp = finest(&mut ticks.iter().map(|(_, tick)| tick.price.as_str()));
    let sz_exp = finest(&mut ticks.iter().filter_map(|(_, tick)| tick.size.as_deref()));
    let mut bars = ByTime::new();
    for (time_s, tick) in &ticks {
        let px = number("price", &tick.price, px_exp)?;
        let sz = tick.size.as_ref().map_or(Ok(0), |size| number("size", size, sz_exp))?;
        let (bar, _) = bars.entry(*time_s).or_insert((Bar::empty(*time_s), (px_exp, sz_exp)));
        bar.trade(&Trade { px, sz, trade_id: 0, side: Side::Unknown });
    }
    Ok(bars)
}

fn number(name: &str, text: &str, exponent: i8) -> Result<i64, String> {
    let parsed = decimal::parse(text, exponent).map_err(|error| error.to_string());
    let mantissa = parsed.map_err(|error| format!("{name}: {text:?} is no number that can be kept: {error}"))?;
    if mantissa == PRICE_NONE { Err(format!("{name}: {text:?} is too small")) } else { Ok(mantissa) }
}

/// The cells of a line.
struct Cells<'a> {
    line: &'a StringRecord,
    columns: &'a Columns,
}

impl Cells<'_> {
    fn text(&self, column: Option<usize>) -> Option<&str> {
        self.line.get(column?).map(str::trim).filter(|text| !text.is_empty())
    }

    fn symbol(&self, given: Option<&str>) -> Result<String, String> {
        let symbol = given.or_else(|| self.text(self.columns.symbol)).ok_or("symbol: missing")?;
        check_symbol(symbol).map_err(|error: SymbolError| invalid("symbol", symbol, &error))?;
        Ok(symbol.to_owned())
    }

    fn time(&self) -> Result<u32, String> {
        let text = self.text(self.columns.time).ok_or("time: missing")?;
        parse_time(text).ok_or_else(|| {
            format!(
                "time: {text:?} cannot be read: expected one such as 2026-11-30T14:30:00Z or 2026-11-30 09:30:00-05:00, a \
                 date, or seconds, ms, us or ns since 1970 with 10, 13, 16 or 19 digits"
            )
        })
    }

    fn tick(&self) -> Result<Tick, String> {
        let price = self.text(self.columns.price).ok_or("price: missing")?;
        let size = self.text(self.columns.size);
        number("price", price, -significant_decimals(price))?;
        if let Some(size) = size {
            not_negative("size", size)?;
        }
        Ok(Tick { price: price.to_owned(), size: size.map(str::to_owned) })
    }

    fn bar(&self, time_s: u32) -> Result<(Bar, (i8, i8)), String> {
        let Columns { open, high, low, close, volume, trades, .. } = *self.columns;
        let names = [("open", open), ("high", high), ("low", low), ("close", close)];
        let mut texts = [""; 4];
        for (text, (name, column)) in texts.iter_mut().zip(names) {
            *text = self.text(column).ok_or_else(|| format!("{name}: missing"))?;
        }
        let px_exp = -texts.iter().map(|text| significant_decimals(text)).max().unwrap_or(0);
        let mut values = [0; 4];
        for ((value, text), (name, _)) in values.iter_mut().zip(texts).zip(names) {
            *value = number(name, text, px_exp)?;
        }
        let [open, high, low, close] = values;
        if high < open.max(close).max(low) || low > open.min(close) {
            let [open, high, low, close] = texts;
            return Err(format!(
                "open {open}, high {high}, low {low}, close {close}: expected high and low around them"
            ));
        }
        let (mut sum, mut sz_exp) = (0, 0);
        if let Some(text) = self.text(volume) {
            sz_exp = -significant_decimals(text);
            sum = not_negative("volume", text)?;
        }
        // Prices without a count are those of one trade or more.
        let trades = match self.text(trades) {
            Some(text) => text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                format!("trades: {text:?} is no count: expected a whole number from 1 on, or nothing")
            })?,
            None => 1,
        };
        Ok((Bar { trades, open, high, low, close, volume: sum, ..Bar::empty(time_s) }, (px_exp, sz_exp)))
    }
}

fn not_negative(name: &str, text: &str) -> Result<i64, String> {
    let value = number(name, text, -significant_decimals(text))?;
    if value < 0 { Err(format!("{name}: {text:?} is below 0")) } else { Ok(value) }
}

fn invalid(name: &str, text: &str, error: &dyn Display) -> String {
    format!("{name}: {text:?}: {error}")
}

/// Whole seconds since 1970; a fraction is cut off.
fn parse_time(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().ok()?;
        let unit = match text.len() {
            9 | 10 => 1,
            13 => 1_000,
            16 => 1_000_000,
            19 => 1_000_000_000,
            _ => return None,
        };
        return u32::try_from(number / unit).ok();
    }
    let second = match text.parse::<Timestamp>() {
        Ok(time) => time.as_second(),
        Err(_) if text.len() == "2026-11-30".len() => {
            text.parse::<civil::Date>().ok()?.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp().as_second()
        }
        Err(_) => return None,
    };
    u32::try_from(second).ok()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
