//! The file of the archive: a SQLite database in WAL mode, which other programs may read and write while the server runs.
//!
//! What always holds:
//! * Each call is one transaction: after a crash a file has all of it or nothing.
//! * A bar is replaced by one of the same time only if that one has at least as many trades: what was recorded before a
//!   restart is not overwritten by the part after it. Bars that are loaded replace in any case.
//! * The file takes about `bytes_max` at the most: beyond it the oldest bars are removed, the shortest first.
//! * Of each instrument it has the newest [`STORED_MAX`](crate::recent_trades::STORED_MAX) trades at the most.
//!
//! Schema (`PRAGMA user_version` 1): `instruments(id, symbol)`; `bars(instrument, interval_s, time, px_exp, sz_exp, trades,
//! open, high, low, close, volume, bid_px, ask_px, loaded)`, whose prices and volume are mantissas at the exponents of the
//! row, NULL where there is none, and which are `loaded` if they were made of a file only; `runs(began_s, ended_s)` of
//! servers; `holes(from_s, to_s)` in which records were lost; `loads(instrument, from_s, to_s)` of what was loaded;
//! `trades(instrument, position, ts_event, ts_recv, px_exp, sz_exp, px, sz, trade_id, side)` in the order of `position`,
//! whose times and ids are the 64 bits of unsigned numbers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::bars::{Bar, INTERVALS_S, Known, StoredBar, merge};
use tickcast_protocol::record::PRICE_NONE;

/// "tick" in ASCII: tells what the file is.
const APPLICATION_ID: i32 = 0x7469_636B;
const VERSION: i32 = 1;
/// How long another program may hold the file.
const BUSY: Duration = Duration::from_secs(10);
/// The most holes that are kept.
const HOLES_MAX: i64 = 64;

const SCHEMA: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    CREATE TABLE instruments (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE bars (
        instrument INTEGER NOT NULL, interval_s INTEGER NOT NULL, time INTEGER NOT NULL,
        px_exp INTEGER NOT NULL, sz_exp INTEGER NOT NULL, trades INTEGER NOT NULL,
        open INTEGER, high INTEGER, low INTEGER, close INTEGER, volume INTEGER, bid_px INTEGER, ask_px INTEGER,
        loaded INTEGER NOT NULL,
        PRIMARY KEY (instrument, interval_s, time)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE runs (began_s INTEGER PRIMARY KEY, ended_s INTEGER NOT NULL) STRICT;
    CREATE TABLE holes (from_s INTEGER PRIMARY KEY, to_s INTEGER NOT NULL) STRICT;
    CREATE TABLE loads (instrument INTEGER NOT NULL, from_s INTEGER NOT NULL, to_s INTEGER NOT NULL,
        PRIMARY KEY (instrument, from_s, to_s)) STRICT, WITHOUT ROWID;
    CREATE TABLE trades (
        instrument INTEGER NOT NULL, position INTEGER NOT NULL, ts_event INTEGER NOT NULL, ts_recv INTEGER NOT NULL,
        px_exp INTEGER NOT NULL, sz_exp INTEGER NOT NULL, px INTEGER, sz INTEGER, trade_id INTEGER NOT NULL,
        side TEXT NOT NULL,
        PRIMARY KEY (instrument, position)
    ) STRICT, WITHOUT ROWID;
";

const COLUMNS: &str = "time, px_exp, sz_exp, trades, open, high, low, close, volume, bid_px, ask_px FROM bars WHERE instrument = ?1 \
     AND interval_s = ?2 AND time >= ?3 AND time < ?4";

/// Why the file cannot be used.
pub type DatabaseError = String;

/// Where bars come from, which decides whether one replaces another of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server: replaces one that has no more trades.
    Recorded,
    /// A file: replaces any.
    Loaded,
    /// Shorter bars, of which a file had some: replaces one that has no more trades, or that was made of loaded ones only.
    Made,
}

/// See the module.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
}

/// The bars of a symbol and length: how many, and the first and the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub symbol: String,
    pub interval_s: u32,
    pub bars: u64,
    pub from_s: u32,
    pub to_s: u32,
}

/// Bars with their exponents.
pub type Priced = (Bar, (i8, i8));

impl Database {
    /// Opens a file, which is created.
    ///
    /// # Errors
    /// It cannot be opened, is something else, or is of a later version.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let problem = |error: &dyn std::fmt::Display| {
            format!("{}: {error}: expected an archive, or no file there, so that one is begun", path.display())
        };
        let mut connection = Connection::open(path).map_err(|error| problem(&error))?;
        Self::prepare(&mut connection).map_err(|error| problem(&error))?;
        let identity = identity(path).map_err(|error| problem(&error))?;
        Ok(Self { connection, path: path.to_owned(), identity })
    }

    fn prepare(connection: &mut Connection) -> Result<(), DatabaseError> {
        let text = |error: rusqlite::Error| error.to_string();
        connection.busy_timeout(BUSY).map_err(text)?;
        let pragma = |connection: &Connection, name: &str| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0)).map_err(text)
        };
        let (application, version) = (pragma(connection, "application_id")?, pragma(connection, "user_version")?);
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(text)?;
        if tables > 0 && application != APPLICATION_ID {
            return Err("is a SQLite database of another program: expected an archive of tickcast".to_owned());
        }
        if version > VERSION {
            return Err(format!("is an archive of version {version}: expected {VERSION} at the most"));
        }
        if tables == 0 {
            let create = format!(
                "PRAGMA auto_vacuum = INCREMENTAL; BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; PRAGMA \
                 user_version = {VERSION}; {SCHEMA} COMMIT;"
            );
            connection.execute_batch(&create).map_err(text)?;
        }
        // NORMAL: a loss of power may undo the last transactions, and damages nothing.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216; PRAGMA \
                 cache_size = -16384;",
            )
            .map_err(text)
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// False if the file was moved or removed since it was opened: what is written to it is lost with it.
    pub fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    pub(super) fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let changed = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        changed().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// Writes what a server has recorded since `began_s`, and in which times it lost records.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn record(
        &mut self,
        bars: &[StoredBar],
        truncated_s: Option<u32>,
        holes: &[(u32, u32)],
        (began_s, now_s): (u32, u32),
    ) -> Result<(), DatabaseError> {
        self.change(|transaction| {
            if let Some(last_s) = truncated_s {
                transaction.execute("DELETE FROM bars WHERE time > ?1", [last_s])?;
                transaction.execute("DELETE FROM runs WHERE began_s > ?1", [last_s])?;
            }
            write(transaction, bars, Origin::Recorded)?;
            let mut hole = transaction.prepare_cached("INSERT OR REPLACE INTO holes VALUES (?1, ?2)")?;
            for (from_s, to_s) in holes {
                hole.execute([from_s, to_s])?;
            }
            drop(hole);
            let surplus =
                "DELETE FROM holes WHERE from_s NOT IN (SELECT from_s FROM holes ORDER BY from_s DESC LIMIT ?1)";
            transaction.execute(surplus, [HOLES_MAX])?;
            transaction.execute("INSERT OR REPLACE INTO runs VALUES (?1, ?2)", [began_s, now_s.max(began_s)])?;
            let surplus =
                "DELETE FROM runs WHERE began_s NOT IN (SELECT began_s FROM runs ORDER BY began_s DESC LIMIT ?1)";
            transaction.execute(surplus, [HOLES_MAX])?;
            Ok(())
        })
    }

    /// Writes bars of one instrument and length that a user has loaded, and makes the longer ones anew from them: one is
    /// replaced if the shorter ones have at least as many trades.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn load(&mut self, bars: &[StoredBar]) -> Result<(), DatabaseError> {
        let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return Ok(()) };
        let interval_s = first.interval_s;
        self.change(|transaction| {
            write(transaction, bars, Origin::Loaded)?;
            let id = instrument(transaction, &first.symbol)?;
            let span = (first.bar.time_s, last.bar.time_s.saturating_add(interval_s));
            transaction.execute("INSERT OR IGNORE INTO loads VALUES (?1, ?2, ?3)", params![id, span.0, span.1 - 1])?;
            for pair in INTERVALS_S.windows(2).filter(|pair| pair[0] >= interval_s) {
                let [shorter_s, longer_s] = [pair[0], pair[1]];
                let from_s = span.0 - span.0 % longer_s;
                let to_s = (span.1 - 1).saturating_sub((span.1 - 1) % longer_s).saturating_add(longer_s);
                let (shorter, exponents) = uniform(&read(transaction, id, shorter_s, (from_s, to_s))?);
                let symbol = &first.symbol;
                let stored = |bar| StoredBar { symbol: symbol.clone(), interval_s: longer_s, exponents, bar };
                let longer: Vec<StoredBar> = merge(shorter, longer_s).into_iter().map(stored).collect();
                write(transaction, &longer, Origin::Made)?;
                mark_loaded(transaction, id, longer_s, shorter_s, (from_s, to_s))?;
            }
            Ok(())
        })
    }

    /// The newest bars of a length that begin before a time, oldest first: at most so many.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn newest(
        &self,
        symbol: &str,
        interval_s: u32,
        before_s: u32,
        rows_max: usize,
    ) -> Result<Vec<Priced>, DatabaseError> {
        let found = || {
            let Some(id) = find_instrument(&self.connection, symbol)? else { return Ok(Vec::new()) };
            let select = format!("SELECT {COLUMNS} ORDER BY time DESC LIMIT ?5");
            let mut select = self.connection.prepare_cached(&select)?;
            let rows = select.query_map(params![id, interval_s, 0, before_s, rows_max as i64], bar_of)?;
            let mut bars: Vec<Priced> = rows.collect::<rusqlite::Result<_>>()?;
            bars.reverse();
            Ok(bars)
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// What is known of an instrument, by length, with the newest bars at these exponents, up to one that is not exact
    /// there. Those that a killed server has not written are made from the shorter ones.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn known(
        &self,
        symbol: &str,
        exponents: (i8, i8),
        rows_max: [usize; INTERVALS_S.len()],
    ) -> Result<[Known; INTERVALS_S.len()], DatabaseError> {
        let mut known: [Known; INTERVALS_S.len()] = Default::default();
        for (level, interval_s) in INTERVALS_S.into_iter().enumerate() {
            let stored = self.newest(symbol, interval_s, u32::MAX, rows_max[level])?;
            let since_s = self.since(symbol, interval_s)?;
            let rescaled = |(bar, own): Priced| if own == exponents { Some(bar) } else { bar.rescaled(own, exponents) };
            // Up to one that is not exact: with older ones, memory would have a gap.
            let mut bars: Vec<Bar> = stored.into_iter().rev().map_while(rescaled).collect();
            bars.reverse();
            let has_older = since_s.is_some_and(|since_s| bars.first().is_none_or(|first| first.time_s > since_s));
            let shorter = level.checked_sub(1).map(|level| known[level].bars.as_slice()).unwrap_or_default();
            let made_s = make_newest(&mut bars, shorter, interval_s);
            let since_s = since_s.into_iter().chain(bars.first().map(|bar| bar.time_s)).min();
            known[level] = Known { bars, has_older, since_s, made_s };
        }
        Ok(known)
    }

    /// From which second on there are bars of a length.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn since(&self, symbol: &str, interval_s: u32) -> Result<Option<u32>, DatabaseError> {
        let found = || {
            let Some(id) = find_instrument(&self.connection, symbol)? else { return Ok(None) };
            let select = "SELECT min(time) FROM bars WHERE instrument = ?1 AND interval_s = ?2";
            self.connection.prepare_cached(select)?.query_row([id, interval_s.into()], |row| row.get(0))
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// The times in which records may be missing: while no server ran, up to `now_s`, or records were lost.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn holes(&self, now_s: u32) -> Result<Vec<(u32, u32)>, DatabaseError> {
        let found = || {
            let mut holes = pairs(&self.connection, "SELECT from_s, to_s FROM holes ORDER BY from_s", &[])?;
            let mut runs = pairs(&self.connection, "SELECT began_s, ended_s FROM runs ORDER BY began_s", &[])?;
            runs.push((now_s, now_s));
            // A stop of a second is none: nothing can be missing between two servers in it.
            let between = runs.windows(2).map(|pair| (pair[0].1, pair[1].0)).filter(|(end, next)| *next > end + 1);
            holes.extend(between);
            holes.sort_unstable();
            holes.dedup();
            let surplus = holes.len().saturating_sub(HOLES_MAX as usize);
            Ok(holes.split_off(surplus))
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// The first and last seconds of what was loaded of an instrument.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn loads(&self, symbol: &str) -> Result<Vec<(u32, u32)>, DatabaseError> {
        let found = || {
            let Some(id) = find_instrument(&self.connection, symbol)? else { return Ok(Vec::new()) };
            pairs(&self.connection, "SELECT from_s, to_s FROM loads WHERE instrument = ?1 ORDER BY from_s", &[&id])
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// A number that changes when another program has changed the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn version(&self) -> Result<i64, DatabaseError> {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        version.map_err(|error| error.to_string())
    }

    /// Bytes of the file, without those that are free in it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self) -> Result<u64, DatabaseError> {
        let pragma = |name: &str| self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u64>(0));
        let bytes = || Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?);
        bytes().map_err(|error: rusqlite::Error| error.to_string())
    }

    /// Removes the oldest bars while the file has more than `bytes_max`: of each instrument a quarter of its bars of one
    /// length, of the shortest that has a quarter of all. Where trades are as many as a quarter of the bars, those of a
    /// quarter of the instruments instead. True if something was removed.
    ///
    /// # Errors
    /// Nothing was removed.
    pub fn prune(&mut self, bytes_max: u64) -> Result<bool, DatabaseError> {
        if self.bytes()? <= bytes_max {
            return Ok(false);
        }
        let removed = self.change(|transaction| {
            let count = "SELECT interval_s, count(*) FROM bars GROUP BY interval_s ORDER BY interval_s";
            let counts: Vec<(u32, u64)> = transaction
                .prepare(count)?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let all: u64 = counts.iter().map(|(_, count)| count).sum();
            let trades: u64 = transaction.query_row("SELECT count(*) FROM trades", [], |row| row.get(0))?;
            if trades * 4 >= all {
                // Of the quarter of the instruments that traded last the longest time ago.
                return transaction.execute(
                    "DELETE FROM trades WHERE instrument IN (SELECT instrument FROM trades GROUP BY instrument ORDER BY \
                     max(ts_recv) LIMIT (SELECT (count(DISTINCT instrument) + 3) / 4 FROM trades))",
                    [],
                );
            }
            let Some((interval_s, _)) = counts.into_iter().find(|(_, count)| count * 4 >= all && *count > 0) else {
                return Ok(0);
            };
            let mut ids = transaction.prepare("SELECT id FROM instruments")?;
            let ids: Vec<i64> = ids.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let mut removed = 0;
            for id in ids {
                let own = "SELECT count(*) FROM bars WHERE instrument = ?1 AND interval_s = ?2";
                let own: i64 = transaction.prepare_cached(own)?.query_row([id, interval_s.into()], |row| row.get(0))?;
                let oldest = "DELETE FROM bars WHERE instrument = ?1 AND interval_s = ?2 AND time <= (SELECT time FROM \
                              bars WHERE instrument = ?1 AND interval_s = ?2 ORDER BY time LIMIT 1 OFFSET ?3)";
                removed += transaction.prepare_cached(oldest)?.execute([id, interval_s.into(), own / 4])?;
            }
            Ok(removed)
        })?;
        self.connection.execute_batch("PRAGMA incremental_vacuum").map_err(|error| error.to_string())?;
        Ok(removed > 0)
    }

    /// Symbols with bars, and for each length how many there are and from when to when.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, DatabaseError> {
        let found = || {
            let mut select = self.connection.prepare(
                "SELECT symbol, interval_s, count(*), min(time), max(time) FROM bars JOIN instruments ON id = instrument \
                 GROUP BY symbol, interval_s ORDER BY symbol, interval_s",
            )?;
            let row = |row: &Row<'_>| {
                let (symbol, interval_s, bars) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Listed { symbol, interval_s, bars, from_s: row.get(3)?, to_s: row.get(4)? })
            };
            select.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }
}

fn pairs(connection: &Connection, select: &str, given: &[&dyn ToSql]) -> rusqlite::Result<Vec<(u32, u32)>> {
    let mut select = connection.prepare_cached(select)?;
    select.query_map(given, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Makes the newest bars of a length from shorter ones: those behind the last of `bars`, and that one if the shorter ones
/// have no fewer trades. Returns the time of the first that was made.
fn make_newest(bars: &mut Vec<Bar>, shorter: &[Bar], interval_s: u32) -> Option<u32> {
    let last_s = bars.last().map_or(0, |last| last.time_s);
    let mut made_s = None;
    for bar in merge(shorter.iter().filter(|bar| bar.time_s >= last_s).copied(), interval_s) {
        match bars.last_mut() {
            Some(last) if last.time_s == bar.time_s && last.trades >= bar.trades => continue,
            Some(last) if last.time_s == bar.time_s => *last = bar,
            _ => bars.push(bar),
        }
        made_s = made_s.or(Some(bar.time_s));
    }
    made_s
}

/// Bars at the finest of their exponents; those that are too large there are left out.
pub fn uniform(bars: &[Priced]) -> (Vec<Bar>, (i8, i8)) {
    let finest = |exponent: fn(&(i8, i8)) -> i8| bars.iter().map(|(_, own)| exponent(own)).min().unwrap_or_default();
    let exponents = (finest(|own| own.0), finest(|own| own.1));
    let rescaled = |(bar, own): &Priced| if *own == exponents { Some(*bar) } else { bar.rescaled(*own, exponents) };
    (bars.iter().filter_map(rescaled).collect(), exponents)
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

pub(super) fn find_instrument(connection: &Connection, symbol: &str) -> rusqlite::Result<Option<i64>> {
    let select = "SELECT id FROM instruments WHERE symbol = ?1";
    connection.prepare_cached(select)?.query_row([symbol], |row| row.get(0)).optional()
}

pub(super) fn instrument(connection: &Connection, symbol: &str) -> rusqlite::Result<i64> {
    if let Some(id) = find_instrument(connection, symbol)? {
        return Ok(id);
    }
    connection.prepare_cached("INSERT INTO instruments (symbol) VALUES (?1)")?.execute([symbol])?;
    Ok(connection.last_insert_rowid())
}

fn read(
    connection: &Connection,
    id: i64,
    interval_s: u32,
    (from_s, before_s): (u32, u32),
) -> rusqlite::Result<Vec<Priced>> {
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY time"))?;
    select.query_map(params![id, interval_s, from_s, before_s], bar_of)?.collect()
}

fn write(connection: &Connection, bars: &[StoredBar], origin: Origin) -> rusqlite::Result<()> {
    let rule = match origin {
        Origin::Recorded => " WHERE excluded.trades >= bars.trades",
        Origin::Loaded => "",
        Origin::Made => " WHERE bars.loaded = 1 OR excluded.trades >= bars.trades",
    };
    let mut insert = connection.prepare_cached(&format!(
        "INSERT INTO bars VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT DO UPDATE SET px_exp \
         = excluded.px_exp, sz_exp = excluded.sz_exp, trades = excluded.trades, open = excluded.open, high = \
         excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume, bid_px = excluded.bid_px, \
         ask_px = excluded.ask_px, loaded = excluded.loaded{rule}"
    ))?;
    let mut last: Option<(&str, i64)> = None;
    let or_null = |value: i64, none: i64| if value == none { Value::Null } else { Value::Integer(value) };
    for StoredBar { symbol, interval_s, exponents, bar } in bars {
        let id = match last {
            Some((name, id)) if name == &**symbol => id,
            _ => instrument(connection, symbol)?,
        };
        last = Some((symbol, id));
        let px = |px: i64| or_null(px, PRICE_NONE);
        insert.execute(params![
            id,
            interval_s,
            bar.time_s,
            exponents.0,
            exponents.1,
            bar.trades,
            px(bar.open),
            px(bar.high),
            px(bar.low),
            px(bar.close),
            or_null(bar.volume, i64::MAX),
            px(bar.bid_px),
            px(bar.ask_px),
            origin == Origin::Loaded
        ])?;
    }
    Ok(())
}

/// Marks the bars of a length, between two times, that were made of loaded bars only.
fn mark_loaded(
    connection: &Connection,
    id: i64,
    longer_s: u32,
    shorter_s: u32,
    (from_s, before_s): (u32, u32),
) -> rusqlite::Result<()> {
    // A bar that has more trades than all of the shorter ones was not made of them.
    let mark = "UPDATE bars SET loaded = 1 FROM (SELECT time - time % ?2 AS begin, min(loaded) AS all_loaded, sum(trades) AS \
                made FROM bars WHERE instrument = ?1 AND interval_s = ?3 AND time >= ?4 AND time < ?5 GROUP BY 1) AS \
                shorter WHERE instrument = ?1 AND interval_s = ?2 AND time = shorter.begin AND shorter.all_loaded = 1 AND \
                bars.trades = shorter.made";
    connection.prepare_cached(mark)?.execute(params![id, longer_s, shorter_s, from_s, before_s])?;
    Ok(())
}

fn bar_of(row: &Row<'_>) -> rusqlite::Result<Priced> {
    let px = |at: usize| row.get::<_, Option<i64>>(at).map(|px| px.unwrap_or(PRICE_NONE));
    let (bid_px, ask_px) = (px(9)?, px(10)?);
    let bar = Bar {
        time_s: row.get(0)?,
        trades: row.get(3)?,
        open: px(4)?,
        high: px(5)?,
        low: px(6)?,
        close: px(7)?,
        volume: row.get::<_, Option<i64>>(8)?.unwrap_or(i64::MAX),
        bid_px,
        ask_px,
        is_quoted: bid_px != PRICE_NONE || ask_px != PRICE_NONE,
    };
    Ok((bar, (row.get(1)?, row.get(2)?)))
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
