//! The threads of the feeds, with their restarts, and the thread that resynchronises shards. All are pinned to the cores
//! without a shard.
//!
//! A feed that panics is opened again after a second, then after two, and so on up to 30. Its instruments are stale and the
//! server is not ready until it is open again. A feed that ends is not opened again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::feed::{self, Feed, Next, Report};
use super::{ResyncRequests, SequencerHandle, SourceTimeouts};
use crate::affinity::pin_current_thread;
use crate::clock::{self, now_ns};
use crate::fault;
use crate::sequencer::{SourceEnd, SourceId};

/// Longest sleep before a thread checks whether the server stops.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a feed that waits for the rings checks them again.
const ROOM_INTERVAL: Duration = Duration::from_micros(100);

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

/// Starts the thread of a feed, which runs until the feed ends or the server stops. `spec` opens the feed again.
pub fn spawn_feed(
    spec: feed::Spec,
    first: Box<dyn Feed>,
    source: SourceId,
    sequencer: Arc<SequencerHandle>,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("feed-{}", first.name())).spawn(move || {
        pin_current_thread(core);
        let is_stopping = || sequencer.lifecycle().is_stopping();
        let open = || match spec.open() {
            Ok(feed) => feed.ok_or_else(|| "the feed is none".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        supervise(first, open, source, &sequencer, &is_stopping, BACKOFF);
    })
}

/// The pauses before a failed feed is opened again. They double from `first` to `max`.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    first: Duration,
    max: Duration,
    /// A feed that ran this long before it failed starts with the first pause again.
    reset_after: Duration,
}

const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30), reset_after: Duration::from_secs(60) };

fn supervise(
    first: Box<dyn Feed>,
    open: impl Fn() -> Result<Box<dyn Feed>, String>,
    source: SourceId,
    sequencer: &SequencerHandle,
    is_stopping: &impl Fn() -> bool,
    backoff: Backoff,
) {
    let mut feed = Ok(first);
    let mut pause = backoff.first;
    let mut losses = LossReport::new(source);
    loop {
        match feed {
            Ok(mut feed) => {
                losses.begin();
                let name = format!("feed {source} ({})", feed.name());
                sequencer.lifecycle().restore(&name);
                let began = Instant::now();
                let outcome =
                    catch_unwind(AssertUnwindSafe(|| run(feed.as_mut(), source, sequencer, &mut losses, is_stopping)));
                if outcome.is_ok() {
                    return;
                }
                tracing::error!("{name} has failed; its instruments are stale until it is open again");
                sequencer.lifecycle().degrade(&name);
                sequencer.close_source(source, SourceEnd::Lost);
                sequencer.count_restart();
                if began.elapsed() >= backoff.reset_after {
                    pause = backoff.first;
                }
            }
            Err(error) => tracing::error!("feed {source} could not be opened again: {error}"),
        }
        tracing::info!("feed {source} is opened again in {} ms", pause.as_millis());
        sleep_until(now_ns() + pause.as_nanos() as u64, is_stopping);
        if is_stopping() {
            return;
        }
        pause = (pause * 2).min(backoff.max);
        feed = open();
    }
}

/// Sequences the records of a feed, until it ends or the server stops.
fn run(
    feed: &mut dyn Feed,
    source: SourceId,
    sequencer: &SequencerHandle,
    losses: &mut LossReport,
    is_stopping: &impl Fn() -> bool,
) {
    let mut batch = Vec::with_capacity(feed::FEED_BATCH_BYTES_MAX);
    while !is_stopping() {
        batch.clear();
        fault::point("feed");
        feed.set_wall_offset(clock::wall_offset_ns());
        let next = feed.poll(now_ns(), &mut batch);
        if !batch.is_empty() {
            accept(sequencer, source, &mut batch);
        }
        losses.note(feed, sequencer);
        match next {
            Next::Now => {}
            Next::Paced => {
                while !sequencer.has_room() && !is_stopping() {
                    thread::sleep(ROOM_INTERVAL);
                }
            }
            Next::At(time_ns) => sleep_until(time_ns, is_stopping),
            Next::Ended => {
                tracing::info!("feed {source} ({}) has ended: {:?}", feed.name(), feed.report());
                return sequencer.close_source(source, SourceEnd::Ended);
            }
        }
    }
}

/// What a feed could not take: published for the metrics and the operator's view, and logged.
struct LossReport {
    source: SourceId,
    /// Of the feed until it was last opened again, and since.
    before: Report,
    since: Report,
    logged: Option<Instant>,
}

impl LossReport {
    /// Least time between two lines in the log.
    const LOG_INTERVAL: Duration = Duration::from_secs(60);

    fn new(source: SourceId) -> Self {
        Self { source, before: Report::default(), since: Report::default(), logged: None }
    }

    /// The feed is opened, once more.
    fn begin(&mut self) {
        self.before = self.before.plus(&self.since);
        self.since = Report::default();
    }

    fn note(&mut self, feed: &dyn Feed, sequencer: &SequencerHandle) {
        let report = feed.report();
        let has_lost = report.losses() != self.since.losses();
        self.since = report;
        if !has_lost {
            return;
        }
        let whole = self.before.plus(&report);
        sequencer.publish_report(self.source, whole);
        if self.logged.is_none_or(|logged| logged.elapsed() >= Self::LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            let losses: Vec<String> = whole.losses().map(|(cause, count)| format!("{cause} {count}")).to_vec();
            tracing::warn!(
                "feed {} ({}) could not take all of its input: {}",
                self.source,
                feed.name(),
                losses.join(", ")
            );
        }
    }
}

fn accept(sequencer: &SequencerHandle, source: SourceId, batch: &mut [u8]) {
    let outcome = sequencer.accept(source, batch);
    for error in outcome.definitions.iter().filter_map(|definition| definition.as_ref().err()) {
        tracing::warn!("feed {source}: an instrument was refused: {error}");
    }
    if let Some(symbol) = outcome.faults.refused_book {
        tracing::warn!("feed {source}: the book of {symbol} has reached book_levels_max");
    }
}

fn sleep_until(time_ns: u64, is_stopping: &impl Fn() -> bool) {
    loop {
        let left = Duration::from_nanos(time_ns.saturating_sub(now_ns()));
        if left.is_zero() || is_stopping() {
            return;
        }
        thread::sleep(left.min(CHECK_INTERVAL));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ring::{Batch, Reader, ring};
    use crate::sequencer::Sequencer;
    use crate::sequencer::SequencerStats;
    use tickcast_protocol::Instrument;
    use tickcast_protocol::record::{self, RecordHeader, RecordKind};

    /// Defines an instrument, then panics or ends.
    struct ShortFeed {
        polled: bool,
        panics: bool,
    }

    impl Feed for ShortFeed {
        fn name(&self) -> &str {
            "short"
        }

        fn poll(&mut self, _now_ns: u64, batch: &mut Vec<u8>) -> Next {
            if std::mem::replace(&mut self.polled, true) {
                assert!(!self.panics, "planted");
                return Next::Ended;
            }
            record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), batch);
            Next::Now
        }

        fn report(&self) -> Report {
            Report::default()
        }
    }

    fn sequencer() -> (SequencerHandle, Reader) {
        let (writer, reader) = ring(1 << 16);
        let gauge = writer.gauge();
        let (sequencer, _requests) = SequencerHandle::new(
            Sequencer::new(vec![writer], 9),
            vec![gauge],
            Arc::new(SequencerStats::default()),
            Arc::new(crate::lifecycle::Lifecycle::begin().0),
            None,
        );
        (sequencer, reader)
    }

    /// Instrument and state of the Status records in the ring.
    fn states(mut reader: Reader) -> Vec<(u32, char)> {
        let mut batch = Batch::default();
        reader.read(1 << 16, &mut batch).expect("nothing was overwritten");
        let records = batch.entries.iter().map(|entry| batch.payload(entry));
        let status = records.filter(|bytes| record::kind_of(bytes) == Some(RecordKind::Status));
        let state = |bytes| char::from(u8::from(record::read_status(bytes).expect("a whole record")));
        status.map(|bytes| (RecordHeader::read(bytes).expect("a whole record").instrument, state(bytes))).collect()
    }

    const NO_PAUSE: Backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO, reset_after: Duration::MAX };

    #[test]
    fn a_failed_feed_is_stale_until_it_is_open_again() {
        let (sequencer, reader) = sequencer();
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            match opened.get() {
                1 => Err("the file is gone".to_owned()),
                2 => Ok(Box::new(ShortFeed { polled: false, panics: true }) as Box<dyn Feed>),
                _ => Ok(Box::new(ShortFeed { polled: false, panics: false }) as Box<dyn Feed>),
            }
        };
        supervise(Box::new(ShortFeed { polled: false, panics: true }), open, 0, &sequencer, &|| false, NO_PAUSE);
        assert_eq!(opened.get(), 3);
        let lost_and_back = [(1, 'S'), (0, 'S'), (0, 'L')];
        // Instruments that are stale already are not reported again.
        assert_eq!(states(reader), [&lost_and_back[..], &[(0, 'S'), (0, 'L'), (1, 'E'), (0, 'E')]].concat());
    }

    #[test]
    fn a_stopping_server_opens_no_feed_again() {
        let (sequencer, _reader) = sequencer();
        let is_stopping = Cell::new(false);
        let open = || -> Result<Box<dyn Feed>, String> { panic!("opened although the server stops") };
        let stop_at_second_check = || is_stopping.replace(true);
        supervise(
            Box::new(ShortFeed { polled: true, panics: true }),
            open,
            0,
            &sequencer,
            &stop_at_second_check,
            NO_PAUSE,
        );
    }
}
