//! `tickcast usage report`: who had access to each product in a month, from the files of the usage log.
//!
//! A session counts for a product from the line that opens it, or that gains it, to the one that closes it or loses it.
//! Where the server was killed, its sessions end at the last line that it has written. Lines that cannot be read are
//! named, and left out.
//!
//! Memory: some 100 bytes a user, 50 a user and product, 16 a session of the month and product.

mod tally;
mod text;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use self::tally::{Interval, Tally};
use super::calendar::{Day, digits, parse_utc};
use super::files;
use super::line::Line;

/// Lines that cannot be read and are listed, of all.
const LISTED_MAX: usize = 20;

/// What `tickcast usage` does.
#[derive(Clone, Debug, clap::Args)]
pub struct UsageArgs {
    #[command(subcommand)]
    command: UsageCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum UsageCommand {
    /// Users, simultaneous sessions and hours of each product in a month
    ///
    /// A user who was professional at any time of the month counts as professional. Lines of the log that cannot be read
    /// are named.
    Report(ReportArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ReportArgs {
    /// Folder of the usage log: --usage-dir of the server
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Month, UTC
    #[arg(long, value_name = "YYYY-MM", value_parser = parse_month)]
    month: Month,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

/// A month of the calendar, and when it begins and ends, ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Month {
    year: u64,
    month: u64,
    start_ms: u64,
    end_ms: u64,
}

fn parse_month(text: &str) -> Result<Month, String> {
    let parsed = text.split_once('-').and_then(|(year, month)| {
        let (year, month) = (digits(year).filter(|_| year.len() == 4)?, digits(month).filter(|_| month.len() == 2)?);
        let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let start = |(year, month)| Day { year, month, day: 1 }.start_ms();
        Some(Month { year, month, start_ms: start((year, month))?, end_ms: start(next)? })
    });
    parsed.ok_or_else(|| format!("{text:?} is no month: expected one such as 2026-11"))
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{0}: no usage log: expected files such as usage-2026-11-30-0001.jsonl, from a server with --usage-dir")]
    Empty(PathBuf),
    #[error("the report cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Runs the command.
///
/// # Errors
/// The log cannot be read, or the report not written.
pub fn usage(args: &UsageArgs, out: &mut impl Write) -> Result<(), ReportError> {
    let UsageCommand::Report(args) = &args.command;
    let report = Report::read(&args.dir, args.month)?;
    if args.csv {
        // Of CSV, each line is a product.
        // Whether anyone reads it does not matter to the report.
        let _ = io::stderr().write_all(text::unread(&report).as_bytes());
    }
    let text = match (args.json, args.csv) {
        (true, _) => text::json(&report),
        (_, true) => text::csv(&report),
        _ => text::table(&report),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// What a month comes to.
#[derive(Debug)]
struct Report {
    month: Month,
    /// By product, the one without a name for rights without a product.
    rows: Vec<Row>,
    /// All products together.
    total: Row,
    files: usize,
    lines: u64,
    unread: Unread,
}

/// One product, live or of a market with a delay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    product: String,
    delay_s: u64,
    professional: u64,
    non_professional: u64,
    unclassified: u64,
    peak_sessions: u64,
    session_ms: u64,
}

impl Row {
    fn users(&self) -> u64 {
        self.professional + self.non_professional + self.unclassified
    }
}

/// Lines that cannot be read.
#[derive(Debug, Default)]
struct Unread {
    lines: u64,
    /// The first of them: file and line, and what is wrong.
    listed: Vec<String>,
}

/// A session that is open where the log is read.
#[derive(Debug)]
struct OpenSession {
    user: u32,
    professional: Option<bool>,
    products: Vec<u32>,
    from_ms: u64,
}

/// Reads the lines, one after another.
#[derive(Debug)]
struct Reader {
    tally: Tally,
    open: HashMap<String, OpenSession>,
    /// The latest time of a line.
    last_ms: u64,
    /// The run of the server whose lines are read.
    run: String,
}

impl Report {
    fn read(folder: &Path, month: Month) -> Result<Self, ReportError> {
        let problem = |path: PathBuf| move |error| ReportError::Read { path, error };
        let names = files::list(folder).map_err(problem(folder.to_owned()))?;
        // Sessions may have been opened at any time before.
        let of_month = |name: &files::Name| name.day.start_ms().is_some_and(|start_ms| start_ms < month.end_ms);
        let has_more = names.iter().any(|name| !of_month(name));
        let read: Vec<_> = names.into_iter().filter(of_month).collect();
        if read.is_empty() {
            return Err(ReportError::Empty(folder.to_owned()));
        }
        let mut reader = Reader { tally: Tally::new(month), open: HashMap::new(), last_ms: 0, run: String::new() };
        let (mut unread, mut lines) = (Unread::default(), 0);
        for name in &read {
            let path = folder.join(name.text());
            let file = File::open(&path).map_err(problem(path.clone()))?;
            let mut input = BufReader::with_capacity(1 << 16, file);
            let mut line = Vec::new();
            for number in 1u64.. {
                line.clear();
                if input.read_until(b'\n', &mut line).map_err(problem(path.clone()))? == 0 {
                    break;
                }
                lines += 1;
                if let Err(problem) = reader.line(&line) {
                    unread.lines += 1;
                    if unread.listed.len() < LISTED_MAX {
                        unread.listed.push(format!("{}:{number}: {problem}", name.text()));
                    }
                }
            }
        }
        // They may be closed in later files.
        let end_ms = if has_more { month.end_ms } else { reader.last_ms };
        reader.close_all(end_ms);
        let (rows, total) = reader.tally.finish();
        Ok(Self { month, rows, total, files: read.len(), lines, unread })
    }
}

impl Reader {
    fn line(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(bytes) = bytes.strip_suffix(b"\n") else { return Err("its end is missing".to_owned()) };
        let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let at_ms = time("at", &line.at)?;
        match (&*line.kind, &*line.event) {
            ("usage", "opened" | "changed" | "closed") => self.usage(&line, at_ms)?,
            ("server", "started") => {
                // A server that was killed has not closed its sessions.
                self.close_all(self.last_ms);
                self.run = line.session.into_owned();
            }
            ("server" | "security", _) => {}
            (kind, event) => return Err(format!("unknown kind {kind:?} and event {event:?}")),
        }
        self.last_ms = self.last_ms.max(at_ms);
        Ok(())
    }

    fn usage(&mut self, line: &Line<'_>, at_ms: u64) -> Result<(), String> {
        if line.session.is_empty() || line.user.is_empty() {
            return Err("session or user: missing".to_owned());
        }
        let from_ms = time("from", &line.from)?;
        let session = |tally: &mut Tally, from_ms: u64| OpenSession {
            user: tally.user(&line.user),
            professional: line.professional,
            products: tally.products(line.products.as_deref().unwrap_or_default(), line.delay_s),
            from_ms,
        };
        let held = self.open.remove(&*line.session);
        match &*line.event {
            "closed" => {
                let to_ms = time("to", &line.to)?;
                // Its opening may be in a file that was removed.
                let held = held.unwrap_or_else(|| session(&mut self.tally, from_ms));
                self.end(&held, to_ms);
            }
            _ => {
                if let Some(held) = held {
                    self.end(&held, at_ms);
                }
                let opened = session(&mut self.tally, from_ms);
                self.open.insert(line.session.to_string(), opened);
            }
        }
        Ok(())
    }

    fn end(&mut self, session: &OpenSession, to_ms: u64) {
        let interval = Interval { from_ms: session.from_ms, to_ms: to_ms.max(session.from_ms) };
        self.tally.add(session.user, session.professional, &session.products, interval);
    }

    fn close_all(&mut self, at_ms: u64) {
        for (_, session) in std::mem::take(&mut self.open) {
            self.end(&session, at_ms);
        }
    }
}

fn time(name: &str, text: &str) -> Result<u64, String> {
    parse_utc(text).ok_or_else(|| format!("{name}: {text:?} is no time: expected one such as 2026-11-30T23:59:59.999Z"))
}

#[cfg(test)]
mod tests;
