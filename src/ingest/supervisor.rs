//! The threads of the feeds, with their restarts, and the thread that resynchronises shards. All are pinned to the cores
//! without a shard.
//!
//! A feed that fails or panics is opened again after a pause ([`backoff`](super::backoff)). Its instruments are stale and
//! the server is not ready until it is open again. A feed that ends, or whose error is fatal, is not opened again. No
//! feed affects another one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backoff::{Backoff, BackoffSettings};
use super::source::{Batch, Next, Opener, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, SourceGap, Times};
use super::states::{Condition, Sources};
use super::stop::Stop;
use super::{BatchOutcome, ResyncRequests, SequencerHandle, SourceTimeouts};
use crate::affinity::pin_current_thread;
use crate::clock::{self, now_ns};
use crate::fault;
use crate::sequencer::{SourceEnd, SourceId};

/// Longest wait of a source in one call, and how often its state is published.
const CALL_INTERVAL: Duration = Duration::from_millis(250);
/// How soon a feed that waits for the rings checks them again.
const ROOM_INTERVAL: Duration = Duration::from_micros(100);
/// Least time between two lines in the log about losses, and between two about records that were left out.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

const BACKOFF: BackoffSettings = BackoffSettings {
    first: Duration::from_secs(1),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};

/// Starts the thread that resynchronises shards and checks for silent sources, see [`SequencerHandle::serve_resyncs`].
pub fn spawn_resync(
    sequencer: Arc<SequencerHandle>,
    requests: ResyncRequests,
    timeouts: SourceTimeouts,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("resync".to_owned()).spawn(move || {
        pin_current_thread(core);
        let _guard = sequencer.lifecycle().fail_on_panic("the resync thread");
        sequencer.serve_resyncs(&requests, timeouts);
    })
}

/// Starts the thread of a feed, which runs until the feed ends, fails for good, or [`Sources::stop`] is called. `seed` is
/// that of the pauses.
pub fn spawn_feed(
    opener: Arc<dyn Opener>,
    source: SourceId,
    sources: Arc<Sources>,
    sequencer: Arc<SequencerHandle>,
    core: usize,
    seed: u64,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("feed-{source}")).spawn(move || {
        pin_current_thread(core);
        Supervisor::new(source, &sources, &sequencer, Backoff::new(BACKOFF, seed)).supervise(&|stop| opener.open(stop));
    })
}

/// Drives one feed.
struct Supervisor<'a> {
    source: SourceId,
    sources: &'a Sources,
    sequencer: &'a SequencerHandle,
    backoff: Backoff,
    /// Of the feed until it was last opened again.
    report_before: Report,
    /// Since then.
    report: Report,
    published: Option<Instant>,
    losses_logged: LogTimer,
    refusals_logged: LogTimer,
}

/// Lets a line into the log once a minute at most.
#[derive(Default)]
struct LogTimer(Option<Instant>);

impl LogTimer {
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// Opens the source, once more.
type Open<'a> = dyn Fn(&Stop) -> Result<Box<dyn Source>, SourceError> + 'a;

/// How a run of a source ended, without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunEnd {
    /// The server stops.
    Stopped,
    /// The source has no more.
    Ended,
}

impl<'a> Supervisor<'a> {
    fn new(source: SourceId, sources: &'a Sources, sequencer: &'a SequencerHandle, backoff: Backoff) -> Self {
        Self {
            source,
            sources,
            sequencer,
            backoff,
            report_before: Report::default(),
            report: Report::default(),
            published: None,
            losses_logged: LogTimer::default(),
            refusals_logged: LogTimer::default(),
        }
    }

    /// Opens and runs the feed, until it ends, fails for good, or the server stops.
    fn supervise(&mut self, open: &Open<'_>) {
        loop {
            let began = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| self.open_and_run(open)));
            let result = result.unwrap_or_else(|panic| {
                let message = panic.downcast_ref::<String>().map(String::as_str);
                let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(SourceError::retry(format!("it panicked: {message}")))
            });
            match result {
                Ok(RunEnd::Stopped) => return,
                Ok(RunEnd::Ended) => return self.end(),
                Err(SourceError::Fatal { reason, cure }) => return self.fail(reason, cure),
                Err(SourceError::Retry { reason, after }) => self.pause(reason, began.elapsed(), after),
                Err(error @ SourceError::Gap(_)) => self.pause(error.to_string(), began.elapsed(), Duration::ZERO),
            }
            if self.sources.stop_handle().is_stopped() {
                return;
            }
        }
    }

    fn open_and_run(&mut self, open: &Open<'_>) -> Result<RunEnd, SourceError> {
        self.report_before = self.report_before.plus(&std::mem::take(&mut self.report));
        self.set(Condition::Opening { since_ns: now_ns() });
        let mut source = open(self.sources.stop_handle())?;
        self.set(Condition::Running);
        let result = self.run(source.as_mut());
        self.publish(source.as_ref());
        result
    }

    /// Sequences the records of the source.
    fn run(&mut self, source: &mut dyn Source) -> Result<RunEnd, SourceError> {
        let stop = self.sources.stop_handle();
        let mut batch = Batch { records: Vec::with_capacity(SOURCE_BATCH_BYTES_MAX), mark: None };
        while !stop.is_stopped() {
            batch.clear();
            fault::point_of("feed", self.source as usize);
            let received = source.receive(times(), &mut batch);
            self.accept(source, &mut batch);
            self.publish_if_due(source);
            match received {
                Ok(Next::Now) => {}
                Ok(Next::Paced) => {
                    while !self.sequencer.has_room() && !stop.is_stopped() {
                        stop.wait_until(now_ns() + ROOM_INTERVAL.as_nanos() as u64);
                    }
                }
                Ok(Next::At(time_ns)) => {
                    if time_ns > now_ns() + CALL_INTERVAL.as_nanos() as u64 {
                        self.publish(source);
                    }
                    stop.wait_until(time_ns);
                }
                Ok(Next::Ended) => return Ok(RunEnd::Ended),
                Err(SourceError::Gap(gap)) => self.take_gap(&gap),
                Err(error) => return Err(error),
            }
        }
        Ok(RunEnd::Stopped)
    }

    /// Has a batch sequenced, and tells the source once every ring has all of it.
    fn accept(&mut self, source: &mut dyn Source, batch: &mut Batch) {
        if !batch.records.is_empty() {
            let outcome = self.sequencer.accept(self.source, &mut batch.records);
            if !outcome.is_whole() {
                return self.log_refused(&outcome);
            }
        }
        if let Some(mark) = batch.mark {
            source.accepted(mark);
        }
    }

    fn log_refused(&mut self, outcome: &BatchOutcome) {
        let (source, name) = (self.source, self.sources.name(self.source));
        for error in outcome.definitions.iter().filter_map(|definition| definition.as_ref().err()) {
            tracing::warn!("feed {source} ({name}): an instrument was refused: {error}");
        }
        let faults = &outcome.faults;
        if (faults.refused_book.is_none() && faults.withdrawn.is_none()) || !self.refusals_logged.is_due() {
            return;
        }
        if let Some(symbol) = &faults.refused_book {
            tracing::warn!("feed {source} ({name}): the book of {symbol} has reached book_levels_max");
        }
        if let Some(instrument) = faults.withdrawn {
            tracing::warn!("feed {source} ({name}): records of its instrument {instrument} were left out: not defined");
        }
    }

    fn take_gap(&mut self, gap: &SourceGap) {
        if self.losses_logged.is_due() {
            tracing::warn!("feed {} ({}): {gap}", self.source, self.sources.name(self.source));
        }
        self.sequencer.note_loss(self.source, &gap.instruments);
        self.report_before.messages_lost += gap.messages();
        self.sources.update(self.source, |status| status.gaps += 1);
    }

    fn end(&mut self) {
        let report = self.report_before.plus(&self.report);
        tracing::info!("feed {} ({}) has ended: {report:?}", self.source, self.sources.name(self.source));
        self.sequencer.close_source(self.source, SourceEnd::Ended);
        self.set(Condition::Ended);
    }

    fn fail(&mut self, reason: String, cure: String) {
        tracing::error!(
            "feed {} ({}) has failed; its instruments are stale, and it is not opened again: {reason}: {cure}",
            self.source,
            self.sources.name(self.source)
        );
        self.sequencer.close_source(self.source, SourceEnd::Lost);
        self.sources.update(self.source, |status| {
            status.last_failure = Some(format!("{reason}: {cure}"));
            status.condition = Condition::Failed;
        });
    }

    /// Waits before the source is opened again.
    fn pause(&mut self, reason: String, ran: Duration, after: Duration) {
        let pause = self.backoff.pause(ran, after);
        tracing::error!(
            "feed {} ({}) has failed; its instruments are stale until it is open again, in {} ms: {reason}",
            self.source,
            self.sources.name(self.source),
            pause.as_millis()
        );
        self.sequencer.close_source(self.source, SourceEnd::Lost);
        let at_ns = now_ns().saturating_add(pause.as_nanos().try_into().unwrap_or(u64::MAX));
        self.sources.update(self.source, |status| {
            status.restarts += 1;
            status.last_failure = Some(reason);
            status.condition = Condition::Retrying { at_ns };
        });
        self.sources.stop_handle().wait_until(at_ns);
    }

    fn set(&self, condition: Condition) {
        self.sources.update(self.source, |status| status.condition = condition);
    }

    fn publish_if_due(&mut self, source: &dyn Source) {
        if self.published.is_none_or(|published| published.elapsed() >= CALL_INTERVAL) {
            self.publish(source);
        }
    }

    /// Publishes the counters and the streams, and logs what was lost.
    fn publish(&mut self, source: &dyn Source) {
        self.published = Some(Instant::now());
        let losses_before = self.report.losses();
        self.report = source.report();
        let whole = self.report_before.plus(&self.report);
        let (streams, lag) = (source.streams(), source.lag());
        self.sources.update(self.source, |status| {
            status.report = whole;
            status.lag = lag;
            status.set_streams(streams);
        });
        if self.report.losses() != losses_before && self.losses_logged.is_due() {
            let losses = whole.losses().map(|(cause, count)| format!("{cause} {count}")).join(", ");
            let name = self.sources.name(self.source);
            tracing::warn!("feed {} ({name}) could not take all of its input: {losses}", self.source);
        }
    }
}

/// The times of a call.
fn times() -> Times {
    let now_ns = now_ns();
    Times { now_ns, wall_offset_ns: clock::wall_offset_ns(), deadline_ns: now_ns + CALL_INTERVAL.as_nanos() as u64 }
}

#[cfg(test)]
mod tests;
