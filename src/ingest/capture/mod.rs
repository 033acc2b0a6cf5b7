//! `tickcast record --raw`: what a venue sends, as it came, in a file that a replay reads.
//!
//! The connections are those of a [feed](crate::ingest::venue): its subscriptions, budgets and replacements, and its
//! codecs, which ask for books again. Their records are dropped; [`tee`] writes the messages to the [`mod@file`].
//!
//! What was received is in the file a second later, and after SIGINT, SIGTERM, and an error of the venue.

mod file;
mod tee;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use self::file::CaptureFile;
use self::tee::{Tee, lock};
use super::backoff::{Backoff, BackoffSettings};
use super::source::{Batch, Source, SourceError, Times};
use super::stop::Stop;
use super::venue;
use super::venue::params::Params;
use super::venue::source::VenueSource;
use crate::clock::{self, now_ns};

/// What is recorded, and where.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// A `--feed` argument of a venue.
    pub feed: String,
    pub out: PathBuf,
    /// Continue a file that exists.
    pub append: bool,
    pub seconds: Option<u64>,
}

/// Why it has ended.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The arguments, or the file before anything was written.
    #[error("{0}")]
    Arguments(String),
    /// The venue does not list a symbol, for example.
    #[error("{reason}: {cure}")]
    Venue { reason: String, cure: String },
    /// The file, such as on a disk that is full.
    #[error("{path}: the recording has ended, and what was written before is whole: {error}")]
    Recording { path: String, error: std::io::Error },
}

const BACKOFF: BackoffSettings = BackoffSettings {
    first: Duration::from_secs(1),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};
/// How often what was received is written, and the clock follows that of the machine.
const FLUSH_INTERVAL: Duration = clock::STEER_INTERVAL;
/// How often the flag and the clock are looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Records until the time is over or the flag is set; then says how much on stderr.
///
/// # Errors
/// The arguments, the venue or the file.
pub fn capture(settings: &CaptureSettings, is_interrupted: &Arc<AtomicBool>) -> Result<(), CaptureError> {
    let params = venue::params_of(&settings.feed)
        .map_err(|error| CaptureError::Arguments(format!("--raw {}: {error}", settings.feed)))?;
    let (file, torn_bytes) = CaptureFile::open(&settings.out, settings.append).map_err(CaptureError::Arguments)?;
    if torn_bytes > 0 {
        tracing::warn!(
            "{}: its last {torn_bytes} bytes are no whole line, as after a crash: they are cut off",
            settings.out.display()
        );
    }
    let file = Arc::new(Mutex::new(file));
    let stop = stop_of(settings.seconds, is_interrupted);
    let ended = Capture { params, file: &file, stop: &stop, has_run: Arc::default() }.run();
    let mut file = lock(&file);
    file.flush();
    let (messages, path) = (file.messages, settings.out.display().to_string());
    if let Some(error) = file.take_error() {
        return Err(CaptureError::Recording { path, error });
    }
    if file.is_void() {
        let _ = std::fs::remove_file(&settings.out);
    }
    ended?;
    tracing::info!("{path}: {messages} messages were recorded");
    Ok(())
}

/// A handle that stops once the time is over or the flag is set.
fn stop_of(seconds: Option<u64>, is_interrupted: &Arc<AtomicBool>) -> Stop {
    let stop = Stop::default();
    let until_ns = seconds.map_or(u64::MAX, |seconds| now_ns().saturating_add(seconds.saturating_mul(1_000_000_000)));
    let (watched, flag) = (stop.clone(), Arc::clone(is_interrupted));
    // Relaxed: the flag carries no other data.
    thread::spawn(move || {
        while !flag.load(Ordering::Relaxed) && now_ns() < until_ns {
            thread::sleep(CHECK_INTERVAL);
        }
        watched.stop();
    });
    stop
}

struct Capture<'a> {
    params: Params,
    file: &'a Arc<Mutex<CaptureFile>>,
    stop: &'a Stop,
    /// See the opener of venues.
    has_run: Arc<AtomicBool>,
}

impl Capture<'_> {
    /// Opens the venue again and again, until it is stopped, or has failed for good.
    fn run(&self) -> Result<(), CaptureError> {
        let mut backoff = Backoff::new(BACKOFF, now_ns());
        while !self.stop.is_stopped() {
            let began_ns = now_ns();
            let Err(error) = self.open_and_run() else { return Ok(()) };
            let (reason, after) = match error {
                SourceError::Fatal { reason, cure } => return Err(CaptureError::Venue { reason, cure }),
                SourceError::Retry { reason, after } => (reason, after),
                gap @ SourceError::Gap(_) => (gap.to_string(), Duration::ZERO),
            };
            let pause = backoff.pause(Duration::from_nanos(now_ns() - began_ns), after);
            tracing::warn!("{}: {reason}; connecting again in {} ms", self.params.venue.name(), pause.as_millis());
            lock(self.file).flush();
            self.stop.wait_until(now_ns().saturating_add(pause.as_nanos().try_into().unwrap_or(u64::MAX)));
        }
        Ok(())
    }

    fn open_and_run(&self) -> Result<(), SourceError> {
        let tee = Box::new(Tee::new(self.file));
        let mut source = VenueSource::open(&self.params, &self.has_run, Some(tee), self.stop)?;
        let (mut batch, mut flushed_ns) = (Batch::default(), now_ns());
        let flush_ns = FLUSH_INTERVAL.as_nanos() as u64;
        while !self.stop.is_stopped() {
            batch.clear();
            let now_ns = now_ns();
            let deadline_ns = now_ns + CHECK_INTERVAL.as_nanos() as u64;
            let times = Times { now_ns, wall_offset_ns: clock::wall_offset_ns(), deadline_ns };
            source.receive(times, &mut batch)?;
            if now_ns - flushed_ns >= flush_ns {
                flushed_ns = now_ns;
                clock::steer();
                let mut file = lock(self.file);
                file.flush();
                if file.has_failed() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
