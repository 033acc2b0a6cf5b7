//! The log on stderr. It never decides over the service: a thread that logs neither waits nor panics, whatever stderr is.
//!
//! * [`limit`]: a place of the code logs so many lines a second at most.
//! * [`queue`]: a bounded queue of lines, and the thread that writes them. A full disk, a reader that is gone and a reader
//!   that does not read cost that thread only.
//!
//! What is dropped is counted by cause ([`dropped`]), and reported in the log once there is room again. The process ends
//! without waiting for a blocked stderr longer than [`FLUSH_TIMEOUT`].
//!
//! `tracing-appender` has such a queue too. It is not used: it has no limit of the rate, its guard prints on stdout and
//! stderr when it is dropped, which panics if they are closed, and it does not count what could not be written.

mod limit;
mod queue;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use self::limit::{LimitLayer, LineLimit};
use self::queue::{LineQueue, Lines};

/// How long the end of the process waits for lines that are not written yet.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log: invalid filter {0:?}: expected error, warn, info, debug, or a list like info,tickcast::http=debug")]
    Filter(String),
    #[error("log: stderr could not be duplicated: {0}")]
    Stderr(io::Error),
    #[error("log: its thread could not be started: {0}; the limit of processes may be too low: 'ulimit -u'")]
    Thread(io::Error),
}

/// The installed log.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    limit: Arc<LineLimit>,
    lines: LineQueue,
}

impl Log {
    /// Logs to stderr what passes the filter, at most `lines_per_s` of each place of the code; 0 for no limit.
    ///
    /// # Errors
    /// An invalid filter, or a lack of descriptors or threads.
    pub fn to_stderr(filter: &str, lines_per_s: u32) -> Result<Self, LogError> {
        let parsed = parse_filter(filter)?;
        let stderr = io::stderr();
        let ansi = io::IsTerminal::is_terminal(&stderr);
        // A descriptor of its own: the standard library's stderr is behind a lock that a blocked write would keep.
        let file = File::from(stderr.as_fd().try_clone_to_owned().map_err(LogError::Stderr)?);
        let lines = queue::spawn(file).map_err(LogError::Thread)?;
        let limit = Arc::new(LineLimit::new(lines_per_s));
        let (filter, handle) = reload::Layer::new(parsed);
        // An error of the writer would be printed on stderr, which panics if it is closed. There is none, see `Lines`.
        let format = fmt::layer().with_writer(Lines(lines.clone())).with_ansi(ansi).log_internal_errors(false);
        // Fails if the process has a subscriber already, as in a test: then that one stays.
        let _ = tracing_subscriber::registry().with(filter).with(LimitLayer(limit.clone())).with(format).try_init();
        Ok(Self { filter: handle, limit, lines })
    }

    /// Replaces the filter and the limit.
    ///
    /// # Errors
    /// The subscriber is gone.
    pub fn change(&self, filter: EnvFilter, lines_per_s: u32) -> Result<(), reload::Error> {
        self.limit.set(lines_per_s);
        self.filter.reload(filter)
    }

    /// Waits until all lines are written, or for [`FLUSH_TIMEOUT`].
    pub fn flush(&self) {
        self.lines.flush(FLUSH_TIMEOUT);
    }
}

/// Parses a filter.
///
/// # Errors
/// The filter, and what is expected.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|_| LogError::Filter(filter.to_owned()))
}

/// Lines that this process has dropped, by cause.
pub fn dropped() -> [(&'static str, u64); 3] {
    queue::DROPPED.counts()
}
