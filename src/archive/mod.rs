//! The archive: bars and the newest trades on disk, over restarts of the server.
//!
//! A thread for each market writes bars once they are complete, and once a minute the newest trades. It takes the newest
//! ones of both over into memory when an instrument is defined, and answers queries that reach further back than memory
//! does. No other thread waits for it, and none of its failures ends the server: what could not be written is tried
//! again, and counted where it was given up.
//!
//! | file | content |
//! |---|---|
//! | `database.rs` | the file, a SQLite database |
//! | `trade_table.rs` | the trades in it |
//! | `thread.rs` | the thread |
//! | `trades.rs` | what it does with the newest trades |
//! | `load.rs` | `tickcast archive`: bars and trades of files |
//!
//! What is lost when the process is killed: the last [`WRITE_EVERY`] of bars of a second; longer bars are made from those
//! at the next start. The same holds for the last [`TRADES_EVERY`] of trades. The time without a server is a hole.

mod database;
pub mod load;
mod thread;
mod trade_table;
mod trades;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

pub use self::database::Database;
pub use self::thread::{Parts, spawn};
use crate::bars::{BarQuery, FoundBars};

/// How often complete bars are written.
pub const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How often new trades are written. Those of released instruments are written at once.
pub const TRADES_EVERY: Duration = Duration::from_secs(60);
/// Queries that wait; others are refused.
const WAITING_MAX: usize = 256;
/// Held by the server that writes to the folder.
const LOCK: &str = "archive.lock";

/// Settings of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSettings {
    pub folder: PathBuf,
    /// Of the file of one market.
    pub bytes_max: u64,
}

/// The name of the file of a market.
pub fn file_name(delay_s: u32) -> String {
    if delay_s == 0 { "bars.sqlite".to_owned() } else { format!("bars-delayed-{delay_s}.sqlite") }
}

/// Takes a folder, which is created. The file is locked as long as it is open.
///
/// # Errors
/// The folder cannot be used, or another server writes to it.
pub fn lock(folder: &Path) -> Result<File, String> {
    let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(|error| problem(&error))?;
    let lock = OpenOptions::new().create(true).append(true).open(folder.join(LOCK)).map_err(|error| problem(&error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(problem(&"another server writes its archive here: expected a folder of its own"))
        }
        Err(TryLockError::Error(error)) => Err(problem(&error)),
    }
}

/// What the thread is asked for.
enum Request {
    Find { symbol: Arc<str>, instrument: u32, query: BarQuery, answer: Sender<Result<FoundBars, String>> },
    Stop,
}

/// The handle of the thread.
pub struct Archive {
    requests: Sender<Request>,
    bytes: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    trades_lost: AtomicU64,
    failures: AtomicU64,
    is_failing: AtomicBool,
}

/// Counts of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveCounts {
    /// Of the file.
    pub bytes: u64,
    /// Bars that were written.
    pub written: u64,
    /// Bars that could not be kept until they could be written.
    pub lost: u64,
    /// Trades of released instruments that could not be kept until they could be written.
    pub trades_lost: u64,
    /// Times that the file could not be read or written.
    pub failures: u64,
}

impl Archive {
    fn new() -> (Self, Receiver<Request>) {
        let (requests, received) = bounded(WAITING_MAX);
        let zero = AtomicU64::default;
        let (bytes, written, lost, trades_lost, failures) = (zero(), zero(), zero(), zero(), zero());
        (Self { requests, bytes, written, lost, trades_lost, failures, is_failing: AtomicBool::new(false) }, received)
    }

    /// Asks for bars. The answer comes over the channel, or its end: the thread has ended. `None`: too many wait.
    pub fn find(&self, symbol: &str, instrument: u32, query: &BarQuery) -> Option<Receiver<Result<FoundBars, String>>> {
        let (answer, receiver) = bounded(1);
        let request = Request::Find { symbol: symbol.into(), instrument, query: query.clone(), answer };
        match self.requests.try_send(request) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Some(receiver),
            Err(TrySendError::Full(_)) => None,
        }
    }

    /// Has the thread write what there is and end. To be called once no more bars are made.
    pub fn stop(&self) {
        // It has ended, if there is no receiver.
        drop(self.requests.send(Request::Stop));
    }

    /// True if the file could not be read or written when that was tried last.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    pub fn counts(&self) -> ArchiveCounts {
        // Relaxed: each number is read by itself.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ArchiveCounts {
            bytes: read(&self.bytes),
            written: read(&self.written),
            lost: read(&self.lost),
            trades_lost: read(&self.trades_lost),
            failures: read(&self.failures),
        }
    }
}
