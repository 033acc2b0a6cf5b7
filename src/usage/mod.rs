//! The usage log: who had access to which products, from when to when, from which address, and what was refused. Lines
//! of JSON in files of a folder, and a report of them by month.
//!
//! * [`event`]: what there are lines of. [`mod@line`]: their text. [`files`]: rotation. [`writer`]: the thread.
//! * [`report`]: reads the files and counts users and sessions of each product.
//!
//! What always holds: who hands over an event never waits. A full queue drops the event and counts it. No line has a
//! token or a key.
//!
//! Cost: some 0.5 µs where an event happens, 2 µs on the thread; 300 bytes a line; 8 bytes a place in the queue, and 200
//! for an event in it.

mod calendar;
mod event;
mod files;
mod line;
pub mod report;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

pub use self::event::{Change, Event, Security, SessionFacts, What};
use self::files::Files;
use self::writer::Writer;
use crate::clock::wall_ns;

/// Events that wait for the thread at the most: those of a second in which as many clients connect as may.
const QUEUE: usize = 16_384;
/// How long [`UsageLog::stop`] waits for the thread.
const STOP: Duration = Duration::from_secs(5);

/// Where the log is, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSettings {
    /// `None`: there is none.
    pub folder: Option<PathBuf>,
    /// Of one file.
    pub bytes_max: u64,
    pub files_max: usize,
}

/// For the start.
impl fmt::Display for UsageSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, bytes_max, files_max } = self;
        match folder {
            None => write!(out, "none: it cannot be told later who had access"),
            Some(folder) => write!(
                out,
                "{}, at most {files_max} files of {bytes_max} bytes: {:.1} GiB, some 300 B a line",
                folder.display(),
                (*files_max as f64) * (*bytes_max as f64) / f64::from(1 << 30)
            ),
        }
    }
}

/// What the thread and the others share.
#[derive(Debug, Default)]
struct Shared {
    stops: AtomicBool,
    lines: AtomicU64,
    dropped: AtomicU64,
    lost: AtomicU64,
    suppressed: AtomicU64,
    failed_syncs: AtomicU64,
    is_failing: AtomicBool,
}

/// How much was written, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageCounts {
    pub lines: u64,
    /// Events that found the queue full.
    pub dropped: u64,
    /// Lines that could not be written.
    pub lost: u64,
    /// Security events without a line of their own.
    pub suppressed: u64,
    pub failed_syncs: u64,
}

/// See the module. Shared by all threads of a server.
#[derive(Debug)]
pub struct UsageLog {
    queue: Option<Sender<Box<Event>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl UsageLog {
    /// A log that keeps nothing.
    pub fn none() -> Self {
        Self { queue: None, shared: Arc::default(), thread: Mutex::default() }
    }

    /// Opens the log and starts its thread. `run` differs for each start of the server.
    ///
    /// # Errors
    /// The folder cannot be used, or the system has no thread.
    pub fn start(settings: &UsageSettings, run: u32) -> Result<Self, String> {
        let Some(folder) = &settings.folder else { return Ok(Self::none()) };
        let files = Files::open(folder, settings.bytes_max, settings.files_max);
        let files = files.map_err(|problem| format!("usage_dir: {problem}"))?;
        let (queue, events) = bounded(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer::new(files, shared.clone(), run);
        let thread = std::thread::Builder::new().name("usage".to_owned()).spawn(move || writer.run(&events));
        let thread = thread.map_err(|error| format!("usage_dir: no thread: {error}"))?;
        Ok(Self { queue: Some(queue), shared, thread: Mutex::new(Some(thread)) })
    }

    /// False if it keeps nothing: events need not be made.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands over an event. Never waits.
    pub fn push(&self, at_ms: u64, what: What) {
        let Some(queue) = &self.queue else { return };
        if let Err(error) = queue.try_send(Box::new(Event { at_ms, what })) {
            // Relaxed, here and below: the numbers order nothing.
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            // A thread that has ended writes no more.
            self.shared.is_failing.fetch_or(error.is_disconnected(), Ordering::Relaxed);
        }
    }

    /// Hands over a security event of now. Never waits.
    pub fn security(&self, security: Security) {
        if self.is_on() {
            self.push(wall_ns() / 1_000_000, What::Security(security));
        }
    }

    /// What was written.
    pub fn counts(&self) -> UsageCounts {
        let Shared { lines, dropped, lost, suppressed, failed_syncs, .. } = &*self.shared;
        let [lines, dropped, lost, suppressed, failed_syncs] =
            [lines, dropped, lost, suppressed, failed_syncs].map(|number| number.load(Ordering::Relaxed));
        UsageCounts { lines, dropped, lost, suppressed, failed_syncs }
    }

    /// True if the last lines could not be written.
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Writes what was handed over, and ends the thread. False if that takes too long.
    pub fn stop(&self) -> bool {
        // Release, with the acquire in the thread.
        self.shared.stops.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        let mut left = STOP;
        const STEP: Duration = Duration::from_millis(5);
        while !thread.is_finished() && !left.is_zero() {
            std::thread::sleep(STEP);
            left = left.saturating_sub(STEP);
        }
        thread.is_finished() && thread.join().is_ok()
    }
}

#[cfg(test)]
mod tests;
