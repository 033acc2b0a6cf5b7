//! The thread of an archive: see [`super`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::database::{Database, Priced, uniform};
use super::{Archive, Request, TRADES_EVERY, WRITE_EVERY};
use crate::affinity::keep_current_thread_on;
use crate::bars::{Bar, BarQuery, BarStore, FoundBars, INTERVALS_S, StoredBar, complete_s};
use crate::clock::{now_ns, wall_ns};
use crate::day_tickers::PastMinute;
use crate::lifecycle::Lifecycle;
use crate::recent_trades::StoredTrades;

/// How often instruments that were defined are looked for.
const SEED_EVERY: Duration = Duration::from_millis(50);
/// How often the file is looked at: its size, and whether another program has changed it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Instruments that are seeded between two looks at the requests.
pub(super) const SEEDED_AT_ONCE: usize = 50;
/// Bars that are taken over of each length: a day of minutes and more, which computed tickers need.
const SEEDS: [usize; INTERVALS_S.len()] = [600, 1500, 200, 200];
/// Instruments whose bars are taken under one lock.
const ROWS_AT_ONCE: usize = 256;
/// Bars that are written in one transaction.
const WRITTEN_AT_ONCE: usize = 20_000;
/// Bars that wait while the file cannot be written. Beyond it the oldest are lost.
const UNWRITTEN_MAX: usize = 1_000_000;
/// Bars that are read for one query. One that needs more gets fewer bars than its limit.
const READ_MAX: usize = 200_000;

/// What the thread works with.
pub struct Parts {
    pub database: Database,
    pub store: Arc<BarStore>,
    pub bytes_max: u64,
    /// The age of the market's data.
    pub delay_ns: u64,
    pub lifecycle: Arc<Lifecycle>,
    pub cores: Vec<usize>,
}

pub(super) struct Worker {
    pub(super) parts: Parts,
    pub(super) archive: Arc<Archive>,
    began_s: u32,
    unwritten: Vec<StoredBar>,
    /// Bars of those that were too many.
    dropped: u64,
    pub(super) unwritten_trades: Vec<StoredTrades>,
    /// The last write failed: one line of the log for all failures in a row.
    has_failed: bool,
    version: Option<i64>,
}

/// Starts the thread.
///
/// # Errors
/// The system has no thread left.
pub fn spawn(parts: Parts) -> io::Result<(Arc<Archive>, JoinHandle<()>)> {
    let (archive, requests) = Archive::new();
    let archive = Arc::new(archive);
    let mut worker = Worker::new(parts, archive.clone());
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        keep_current_thread_on(&worker.parts.cores);
        let lifecycle = worker.parts.lifecycle.clone();
        let _guard = lifecycle.fail_on_panic("the thread of the archive");
        worker.run(&requests);
    })?;
    Ok((archive, thread))
}

impl Worker {
    pub(super) fn new(parts: Parts, archive: Arc<Archive>) -> Self {
        Self {
            began_s: complete_s(wall_ns().saturating_sub(parts.delay_ns)),
            version: parts.database.version().ok(),
            parts,
            archive,
            unwritten: Vec::new(),
            dropped: 0,
            unwritten_trades: Vec::new(),
            has_failed: false,
        }
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        let now = Instant::now();
        let (mut write_at, mut trades_at, mut look_at) = (now + WRITE_EVERY, now + TRADES_EVERY, now);
        loop {
            let has_more = self.seed() | self.seed_trades();
            let wait = if has_more { Duration::ZERO } else { SEED_EVERY };
            match requests.recv_timeout(wait) {
                Ok(Request::Find { symbol, instrument, query, answer }) => {
                    let found = self.find(&symbol, instrument, &query);
                    self.count_failure("read", found.as_ref().err());
                    // The client may have gone.
                    drop(answer.send(found));
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= look_at {
                self.look();
                look_at = Instant::now() + LOOK_EVERY;
            }
            if now >= write_at {
                self.write(self.complete_s());
                // A disk that is slow is written to less often, so that queries are answered between.
                write_at = Instant::now() + WRITE_EVERY.max(now.elapsed() * 4);
            }
            let now = Instant::now();
            if now >= trades_at {
                let every = if self.write_trades(false) { TRADES_EVERY } else { WRITE_EVERY };
                trades_at = Instant::now() + every.max(now.elapsed() * 4);
            }
        }
        while self.seed() {}
        self.write(u32::MAX);
        // Those that are not seeded are not put behind others any more.
        self.write_trades(true);
    }

    fn complete_s(&self) -> u32 {
        complete_s(wall_ns().saturating_sub(self.parts.delay_ns))
    }

    /// Takes over what the file has of instruments that were defined. True if there are more.
    fn seed(&mut self) -> bool {
        let unseeded = self.parts.store.lock_for_archive().take_unseeded(SEEDED_AT_ONCE);
        let now_s = complete_s(wall_ns().saturating_sub(self.parts.delay_ns));
        let mut failure = None;
        for (id, symbol, exponents) in &unseeded {
            let known = self.parts.database.known(symbol, *exponents, SEEDS);
            let loads = self.parts.database.loads(symbol);
            match known.and_then(|known| Ok((known, loads?))) {
                Ok((known, loads)) => {
                    let past = past_day(&known[1].bars, now_s);
                    let is_first = self.parts.store.lock_for_archive().seed((*id, symbol, *exponents), known, loads);
                    if let Some(tickers) = self.parts.store.tickers().filter(|_| is_first) {
                        tickers.seed(*id, *exponents, &past, now_ns());
                    }
                }
                Err(problem) => {
                    self.parts.store.lock_for_archive().seed_later(*id);
                    failure = Some(problem);
                }
            }
        }
        self.count_failure("read", failure.as_ref());
        unseeded.len() == SEEDED_AT_ONCE && failure.is_none()
    }

    /// Looks at the file.
    fn look(&mut self) {
        if !self.parts.database.is_in_place() {
            self.reopen();
        }
        let version = self.parts.database.version();
        self.count_failure("read", version.as_ref().err());
        if let Ok(version) = version
            && self.version.replace(version).is_some_and(|before| before != version)
        {
            // Before they are seeded again, so that the file has all that is complete.
            self.write(self.complete_s());
            self.parts.store.lock_for_archive().seed_again();
        }
        let pruned = self.parts.database.prune(self.parts.bytes_max);
        self.count_failure("shortened", pruned.as_ref().err());
        if let Ok(bytes) = self.parts.database.bytes() {
            // Relaxed, here and below: see `Archive::counts`.
            self.archive.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Begins another file in place of one that was moved or removed.
    fn reopen(&mut self) {
        match Database::open(self.parts.database.path()) {
            Ok(database) => {
                self.parts.database = database;
                self.version = None;
                self.archive.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "archive: the file was moved or removed while the server runs: another one is begun, without the bars \
                     of before"
                );
            }
            Err(problem) => self.count_failure("begun anew", Some(&problem)),
        }
    }

    /// Writes what is complete at a second.
    fn write(&mut self, now_s: u32) {
        loop {
            let (has_more, lost) = {
                let mut bars = self.parts.store.lock_for_archive();
                (bars.take_changed(now_s, ROWS_AT_ONCE, &mut self.unwritten), bars.unwritten())
            };
            self.archive.lost.store(lost + self.dropped, Ordering::Relaxed);
            let is_due = self.unwritten.len() >= WRITTEN_AT_ONCE || !has_more;
            // What was not taken stays in memory: each attempt may take as long as another program has the file.
            if is_due && !self.commit() || !has_more {
                return;
            }
        }
    }

    /// Writes what was taken. False if that failed.
    fn commit(&mut self) -> bool {
        let (truncated_s, holes) = self.parts.store.lock_for_archive().take_truncation();
        let now_s = self.complete_s();
        let run = (self.began_s.min(now_s), now_s);
        let written = self.parts.database.record(&self.unwritten, truncated_s, &holes, run);
        self.count_failure("written", written.as_ref().err());
        if written.is_ok() {
            self.archive.written.fetch_add(self.unwritten.len() as u64, Ordering::Relaxed);
            self.unwritten.clear();
            return true;
        }
        if let Some(last_s) = truncated_s {
            self.parts.store.lock_for_archive().step_back_again(last_s);
        }
        let surplus = self.unwritten.len().saturating_sub(UNWRITTEN_MAX);
        self.unwritten.drain(..surplus);
        self.dropped += surplus as u64;
        false
    }

    pub(super) fn count_failure(&mut self, done: &str, problem: Option<&String>) {
        let Some(problem) = problem else {
            if done == "written" && std::mem::take(&mut self.has_failed) {
                self.archive.is_failing.store(false, Ordering::Relaxed);
                tracing::info!("archive: the file is written again");
            }
            return;
        };
        self.archive.is_failing.store(true, Ordering::Relaxed);
        self.archive.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!("archive: the file cannot be {done}: {problem}: tried again every few seconds");
        }
    }

    /// The bars that a query asks for, of the file and of memory.
    fn find(&self, symbol: &str, instrument: u32, query: &BarQuery) -> Result<FoundBars, String> {
        let level = query.level().ok_or("the interval is not served")?;
        let kept_s = INTERVALS_S[level];
        let before_s = query.kept_before_s();
        // Between sessions there may be bars as well: as many again, three times.
        let times = if query.session.is_some() { 4 } else { 1 };
        let wanted = query.limit.saturating_mul((query.interval_s / kept_s) as usize * times).min(READ_MAX);
        let stored = self.parts.database.newest(symbol, kept_s, before_s, wanted + 1)?;
        let is_cut = stored.len() > wanted;
        let first_s = stored.first().filter(|_| is_cut).map_or(0, |(bar, _)| bar.time_s);
        let (newest, found) = {
            let bars = self.parts.store.lock_for_archive();
            (bars.between(instrument, level, first_s, before_s), bars.find(instrument, query))
        };
        let exponents = found.exponents.unwrap_or_default();
        let mut by_time: BTreeMap<u32, Priced> = stored.into_iter().map(|priced| (priced.0.time_s, priced)).collect();
        for bar in newest {
            // Memory has the newer state of a bar, unless the file's part of it has other decimals.
            let is_part = by_time.get(&bar.time_s).is_some_and(|(stored, _)| stored.trades > bar.trades);
            if !is_part {
                by_time.insert(bar.time_s, (bar, exponents));
            }
        }
        let (kept, exponents) = uniform(&by_time.into_values().collect::<Vec<_>>());
        let mut bars = query.make(kept);
        // The first may lack a part that was not read.
        let surplus = bars.len().saturating_sub(query.limit).max(usize::from(is_cut && bars.len() > 1));
        bars.drain(..surplus);
        let since_s = self.parts.database.since(symbol, kept_s)?.unwrap_or(u32::MAX).min(found.since_s);
        let from_s = bars.first().filter(|_| surplus > 0).map_or(since_s, |bar| bar.time_s);
        let holes = self.parts.store.lock_for_archive().holes_of(instrument, from_s, query);
        Ok(FoundBars { since_s, bars, holes, exponents: Some(exponents), ..found })
    }
}

/// The minutes with trades of the last 24 hours, for computed tickers.
fn past_day(minutes: &[Bar], now_s: u32) -> Vec<PastMinute> {
    const DAY_S: u32 = 86_400;
    let is_past = |bar: &&Bar| bar.trades > 0 && bar.time_s.saturating_add(DAY_S) > now_s && bar.time_s <= now_s;
    let past = |bar: &Bar| {
        let Bar { open, high, low, close, volume, .. } = *bar;
        PastMinute { minutes_ago: (now_s - bar.time_s) / 60, open, high, low, close, volume }
    };
    minutes.iter().filter(is_past).map(past).collect()
}
