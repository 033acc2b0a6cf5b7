//! The threads beside the shards: the feeds with what watches over them, and the one that resynchronises, pinned with
//! core_affinity to the cores left to them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::feed::{self, Feed, Next};
use super::{ResyncRequests, SequencerHandle};
use crate::affinity::pin_current_thread;
use crate::clock::now_ns;
use crate::sequencer::{SourceEnd, SourceId};

/// How long a thread waits at the most before it looks whether the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Sends the state to shards that were overrun, and looks after silent sources, until the desk is told to stop.
pub fn spawn_resync(
    sequencer: Arc<SequencerHandle>,
    requests: ResyncRequests,
    stale_ms: u32,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("resync".to_owned()).spawn(move || {
        pin_current_thread(core);
        let _watch = sequencer.lifecycle().watch("the thread that sends the state again");
        sequencer.serve_resyncs(&requests, stale_ms);
    })
}

/// Runs a feed until it ends or the server stops. One that dies is opened again, after a pause that doubles.
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
            Ok(feed) => feed.ok_or_else(|| "there is none".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        supervise(first, open, source, &sequencer, &is_stopping, PAUSES);
    })
}

/// How long a feed that died is left alone: at first, at the most, and how long one has to run to be taken for sound.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    first: Duration,
    longest: Duration,
    sound: Duration,
}

const PAUSES: Pauses =
    Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(30), sound: Duration::from_secs(60) };

fn supervise(
    first: Box<dyn Feed>,
    open: impl Fn() -> Result<Box<dyn Feed>, String>,
    source: SourceId,
    sequencer: &SequencerHandle,
    is_stopping: &impl Fn() -> bool,
    pauses: Pauses,
) {
    let mut feed = Ok(first);
    let mut pause = pauses.first;
    loop {
        match feed {
            Ok(mut feed) => {
                let name = format!("feed {source} ({})", feed.name());
                sequencer.lifecycle().restore(&name);
                let began = Instant::now();
                let driven = catch_unwind(AssertUnwindSafe(|| drive(feed.as_mut(), source, sequencer, is_stopping)));
                if driven.is_ok() {
                    return;
                }
                tracing::error!("{name} has died; its instruments are stale until it is back");
                sequencer.lifecycle().degrade(&name);
                sequencer.close_source(source, SourceEnd::Lost);
                sequencer.count_restart();
                if began.elapsed() >= pauses.sound {
                    pause = pauses.first;
                }
            }
            Err(problem) => tracing::error!("feed {source} cannot be opened again: {problem}"),
        }
        tracing::info!("feed {source} is opened again in {} ms", pause.as_millis());
        sleep_until(now_ns() + pause.as_nanos() as u64, is_stopping);
        if is_stopping() {
            return;
        }
        pause = (pause * 2).min(pauses.longest);
        feed = open();
    }
}

/// Hands over what a feed has, until it ends or the server stops.
fn drive(feed: &mut dyn Feed, source: SourceId, sequencer: &SequencerHandle, is_stopping: &impl Fn() -> bool) {
    let mut bytes = Vec::with_capacity(feed::BATCH_BYTES_MAX);
    while !is_stopping() {
        bytes.clear();
        let next = feed.poll(now_ns(), &mut bytes);
        if !bytes.is_empty() {
            accept(sequencer, source, &mut bytes);
        }
        match next {
            Next::Now => {}
            Next::Paced => {
                while !sequencer.has_room() && !is_stopping() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Next::At(time_ns) => sleep_until(time_ns, is_stopping),
            Next::Ended => {
                tracing::info!("feed {} has come to its end: {:?}", feed.name(), feed.report());
                return sequencer.close_source(source, SourceEnd::Ended);
            }
        }
    }
}

fn accept(sequencer: &SequencerHandle, source: SourceId, batch: &mut [u8]) {
    let accepted = sequencer.accept(source, batch);
    for error in accepted.definitions.iter().filter_map(|outcome| outcome.as_ref().err()) {
        tracing::warn!("source {source}: an instrument was refused: {error}");
    }
    if let Some(symbol) = accepted.refused_book {
        tracing::warn!("source {source}: the book of {symbol} has as many levels as it may (book_levels_max)");
    }
}

fn sleep_until(time_ns: u64, is_stopping: &impl Fn() -> bool) {
    loop {
        let left = Duration::from_nanos(time_ns.saturating_sub(now_ns()));
        if left.is_zero() || is_stopping() {
            return;
        }
        thread::sleep(left.min(LOOK_INTERVAL));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ingest::feed::Report;
    use crate::ring::{Batch, Reader, ring};
    use crate::sequencer::Sequencer;
    use crate::sequencer::SequencerStats;
    use tickcast_protocol::Instrument;
    use tickcast_protocol::record::{self, RecordHeader, RecordKind};

    /// Defines an instrument, and then dies or ends.
    struct Short {
        polled: bool,
        dies: bool,
    }

    impl Feed for Short {
        fn name(&self) -> &str {
            "short"
        }

        fn poll(&mut self, _now_ns: u64, batch: &mut Vec<u8>) -> Next {
            if std::mem::replace(&mut self.polled, true) {
                assert!(!self.dies, "this feed dies");
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
        let (sequencer, _orders) = SequencerHandle::new(
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

    const NO_PAUSE: Pauses = Pauses { first: Duration::ZERO, longest: Duration::ZERO, sound: Duration::MAX };

    #[test]
    fn a_feed_that_dies_is_stale_and_opened_again_until_it_is_back() {
        let (sequencer, reader) = sequencer();
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            match opened.get() {
                1 => Err("the file is gone".to_owned()),
                2 => Ok(Box::new(Short { polled: false, dies: true }) as Box<dyn Feed>),
                _ => Ok(Box::new(Short { polled: false, dies: false }) as Box<dyn Feed>),
            }
        };
        supervise(Box::new(Short { polled: false, dies: true }), open, 0, &sequencer, &|| false, NO_PAUSE);
        assert_eq!(opened.get(), 3);
        let lost_and_back = [(1, 'S'), (0, 'S'), (0, 'L')];
        // What was stale already is not told twice.
        assert_eq!(states(reader), [&lost_and_back[..], &[(0, 'S'), (0, 'L'), (1, 'E'), (0, 'E')]].concat());
    }

    #[test]
    fn a_server_that_stops_does_not_open_its_feeds_again() {
        let (sequencer, _reader) = sequencer();
        let is_stopping = Cell::new(false);
        let open = || -> Result<Box<dyn Feed>, String> { panic!("opened although the server stops") };
        let asked = || is_stopping.replace(true);
        supervise(Box::new(Short { polled: true, dies: true }), open, 0, &sequencer, &asked, NO_PAUSE);
    }
}
