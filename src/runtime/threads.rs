//! The threads beside the shards: the sequencer and the feeds, pinned with core_affinity to the cores left to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError};

use super::park::Parking;
use crate::feed::{self, Feed, Next};
use crate::intake::{Input, Pace};
use crate::ring::Gauge;
use crate::sequencer::{Sequencer, SourceId};
use crate::stats::SequencerStats;

/// How long a thread waits at the most before it looks whether the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the sequencer until it is told to stop.
pub fn spawn_sequencer(
    mut sequencer: Sequencer,
    inputs: Receiver<Input>,
    shards: Vec<Arc<Parking>>,
    stats: Arc<SequencerStats>,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("sequencer".to_owned()).spawn(move || {
        pin(core);
        let mut resyncing = false;
        while let Some(input) = next_input(&inputs, resyncing) {
            match input {
                Some(Input::Stop) => return,
                Some(input) => take(&mut sequencer, input),
                None => {}
            }
            resyncing = sequencer.advance_resyncs();
            shards.iter().for_each(|shard| shard.wake());
            stats.publish(&sequencer.counters(), sequencer.position());
        }
    })
}

/// The next input; `Some(None)` where a resynchronisation has to go on meanwhile, `None` when nobody sends any more.
fn next_input(inputs: &Receiver<Input>, resyncing: bool) -> Option<Option<Input>> {
    /// A ring that had no room a moment ago is looked at again so soon.
    const RESYNC_INTERVAL: Duration = Duration::from_micros(200);
    match inputs.try_recv() {
        Ok(input) => return Some(Some(input)),
        Err(TryRecvError::Disconnected) => return None,
        Err(TryRecvError::Empty) => {}
    }
    if !resyncing {
        return inputs.recv().ok().map(Some);
    }
    match inputs.recv_timeout(RESYNC_INTERVAL) {
        Ok(input) => Some(Some(input)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

fn take(sequencer: &mut Sequencer, input: Input) {
    match input {
        Input::Batch(mut batch) => {
            let outcomes = sequencer.accept(batch.source, &mut batch.bytes, super::now_ns());
            // Relaxed: see `Pace::has_room`.
            batch.sequenced.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
            for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                tracing::warn!("source {}: an instrument was refused: {error}", batch.source);
            }
            if let Some(reply) = batch.reply {
                // A publisher that has gone meanwhile does not want to know.
                let _ = reply.send(outcomes);
            }
        }
        Input::SourceClosed(source) => sequencer.close_source(source),
        Input::Resync { core } => sequencer.request_resync(core),
        Input::Stop => unreachable!("handled by the caller"),
    }
}

/// Runs a feed until it ends or the server stops.
pub fn spawn_feed(
    feed: Box<dyn Feed>,
    source: SourceId,
    inputs: Sender<Input>,
    gauges: Vec<Gauge>,
    stopping: Arc<AtomicBool>,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("feed-{}", feed.name())).spawn(move || {
        pin(core);
        drive(feed, source, &inputs, gauges, &stopping);
    })
}

fn drive(mut feed: Box<dyn Feed>, source: SourceId, inputs: &Sender<Input>, gauges: Vec<Gauge>, stopping: &AtomicBool) {
    let mut pace = Pace::new(gauges);
    // Relaxed: the flag stands for itself.
    let stops = || stopping.load(Ordering::Relaxed);
    while !stops() {
        let mut bytes = Vec::with_capacity(feed::BATCH_BYTES_MAX);
        let next = feed.poll(super::now_ns(), &mut bytes);
        if !bytes.is_empty() && !hand_over(inputs, Input::Batch(pace.batch(source, bytes)), &stops) {
            return;
        }
        match next {
            Next::Now => {}
            Next::Paced => {
                while !pace.has_room() && !stops() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Next::At(time_ns) => sleep_until(time_ns, &stops),
            Next::Ended => {
                tracing::info!("feed {} has come to its end: {:?}", feed.name(), feed.report());
                hand_over(inputs, Input::Batch(pace.batch(source, feed::end_of_feed())), &stops);
                return;
            }
        }
    }
}

/// False if the server stops before there was room.
fn hand_over(inputs: &Sender<Input>, mut input: Input, stops: &impl Fn() -> bool) -> bool {
    loop {
        match inputs.send_timeout(input, LOOK_INTERVAL) {
            Ok(()) => return true,
            Err(SendTimeoutError::Timeout(back)) if !stops() => input = back,
            Err(_) => return false,
        }
    }
}

fn sleep_until(time_ns: u64, stops: &impl Fn() -> bool) {
    loop {
        let left = Duration::from_nanos(time_ns.saturating_sub(super::now_ns()));
        if left.is_zero() || stops() {
            return;
        }
        thread::sleep(left.min(LOOK_INTERVAL));
    }
}

fn pin(core: usize) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!("thread {:?} could not be pinned to core {core}", thread::current().name().unwrap_or(""));
    }
}
