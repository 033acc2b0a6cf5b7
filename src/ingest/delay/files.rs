//! The files of the spool: segments, each a packet log that begins with a checkpoint.
//!
//! `NUMBER-TIME.tcrec`, with the time at which the segment was begun; `.part` behind it while the segment is written. What
//! a crash has left of the last one is a packet log whose end is torn, and is read as far as it goes.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

const SUFFIX: &str = ".tcrec";
const UNFINISHED: &str = ".part";
const LOCK: &str = "lock";
/// The longest time that a segment is written; a quarter of the shortest delay, if that is less. A segment is read once
/// it is finished.
const SEGMENT_MAX: Duration = Duration::from_secs(60);
const SEGMENT_MIN: Duration = Duration::from_millis(200);

/// The settings of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    pub directory: PathBuf,
    /// Of all segments together.
    pub bytes_max: u64,
    /// Of quotes and tickers, the newest of an instrument in so much time is kept; zero: all are.
    pub conflate: Duration,
    pub shortest_delay: Duration,
    pub longest_delay: Duration,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{}: {error}: expected a directory that this process may write to", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is in use by another process: expected a directory of this server alone", path.display())]
    InUse { path: PathBuf },
}

/// A segment that is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// By the clock of deadlines of the process that wrote it.
    pub(super) begun_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

/// The spool of a server: written by one thread, read by the delayed markets.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    /// Ascending.
    segments: Mutex<VecDeque<Segment>>,
    /// Of the segment that is being written.
    unfinished_bytes: AtomicU64,
    records: AtomicU64,
    records_lost: AtomicU64,
    failures: AtomicU64,
    /// Held for as long as the spool is used.
    _lock: File,
}

impl Spool {
    /// Opens the spool, and finishes what a crash has left.
    ///
    /// # Errors
    /// The directory cannot be made or read, or another process uses it.
    pub fn open(settings: SpoolSettings) -> Result<Self, SpoolError> {
        let directory = &settings.directory;
        let of = |path: &Path| {
            let path = path.to_owned();
            move |error| SpoolError::Io { path, error }
        };
        fs::create_dir_all(directory).map_err(of(directory))?;
        let lock_path = directory.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(of(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::InUse { path: directory.clone() })?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory).map_err(of(directory))? {
            let entry = entry.map_err(of(directory))?;
            let (mut path, name) = (entry.path(), entry.file_name());
            let Some((number, begun_ns)) = name.to_str().and_then(parse_name) else { continue };
            if let Some(finished) = name.to_str().and_then(|name| name.strip_suffix(UNFINISHED)) {
                let to = directory.join(finished);
                fs::rename(&path, &to).map_err(of(&path))?;
                path = to;
            }
            let bytes = fs::metadata(&path).map_err(of(&path))?.len();
            let ended_ns = begun_ns.saturating_add(SEGMENT_MAX.as_nanos() as u64);
            segments.push(Segment { number, begun_ns, ended_ns, bytes, path });
        }
        segments.sort_unstable_by_key(|segment| segment.number);
        Ok(Self {
            settings,
            segments: Mutex::new(segments.into()),
            unfinished_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            records_lost: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// The interval at which quotes and tickers are written; 0: each at once.
    pub(super) fn conflate_ns(&self) -> u64 {
        self.settings.conflate.as_nanos() as u64
    }

    /// How long a segment is written.
    pub(super) fn segment_ns(&self) -> u64 {
        let length = (self.settings.shortest_delay / 4).clamp(SEGMENT_MIN, SEGMENT_MAX);
        length.as_nanos() as u64
    }

    /// The segment to begin with for the state of the market at a time: the last one that was begun before, or the first.
    pub(super) fn segment_at(&self, time_ns: u64) -> Option<Segment> {
        let segments = self.lock();
        let before = segments.iter().rev().find(|segment| segment.begun_ns <= time_ns);
        before.or(segments.front()).cloned()
    }

    /// The first segment with a greater number.
    pub(super) fn segment_after(&self, number: u64) -> Option<Segment> {
        self.lock().iter().find(|segment| segment.number > number).cloned()
    }

    /// The path of a segment that is about to be written, and its number.
    pub(super) fn next(&self, begun_ns: u64) -> (u64, PathBuf) {
        let number = self.lock().back().map_or(1, |last| last.number + 1);
        let name = format!("{number:012}-{begun_ns}{SUFFIX}{UNFINISHED}");
        (number, self.settings.directory.join(name))
    }

    /// Makes a segment that was written visible to readers.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn finish(&self, path: &Path, number: u64, times: Range<u64>) -> io::Result<()> {
        let finished = path.with_extension("");
        fs::rename(path, &finished)?;
        let bytes = fs::metadata(&finished)?.len();
        let (begun_ns, ended_ns) = (times.start, times.end);
        self.lock().push_back(Segment { number, begun_ns, ended_ns, bytes, path: finished });
        Ok(())
    }

    /// Removes segments that no market will read any more.
    pub(super) fn remove_old(&self, now_ns: u64) {
        let kept_ns = self.settings.longest_delay.as_nanos() as u64 + 2 * self.segment_ns();
        let oldest_ns = now_ns.saturating_sub(kept_ns);
        let mut segments = self.lock();
        let is_old = |segments: &VecDeque<Segment>| match segments.get(1) {
            Some(next) => next.begun_ns <= oldest_ns,
            // The last one, if no other follows for long.
            None => segments.front().is_some_and(|last| last.ended_ns <= oldest_ns),
        };
        while is_old(&segments) {
            let Some(segment) = segments.pop_front() else { break };
            if let Err(error) = fs::remove_file(&segment.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %segment.path.display(), "a segment of the spool cannot be removed: {error}");
            }
        }
    }

    /// True if no more may be written.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.settings.bytes_max
    }

    /// True if it is worth while to write again after the spool was full.
    pub(super) fn has_space(&self) -> bool {
        self.bytes() <= self.settings.bytes_max / 4 * 3
    }

    pub(super) fn set_unfinished(&self, bytes: u64) {
        // Relaxed, here and below: each number is independent of the others.
        self.unfinished_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn count(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count_lost(&self, records: u64) {
        self.records_lost.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let finished: u64 = self.lock().iter().map(|segment| segment.bytes).sum();
        finished + self.unfinished_bytes.load(Ordering::Relaxed)
    }

    /// Records that were spooled.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Records that were not.
    pub fn records_lost(&self) -> u64 {
        self.records_lost.load(Ordering::Relaxed)
    }

    /// How often the disk refused to take something.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number and time of a segment, by the name of its file.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name).strip_suffix(SUFFIX)?;
    let (number, begun_ns) = name.split_once('-')?;
    Some((number.parse().ok()?, begun_ns.parse().ok()?))
}
