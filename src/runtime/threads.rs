//! The threads beside the shards: the feeds, and the one that resynchronises, pinned with core_affinity to the cores left
//! to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;

use super::desk::{Desk, Orders};
use crate::door::Public;
use crate::feed::{self, Feed, Next};
use crate::sequencer::SourceId;

/// How long a thread waits at the most before it looks whether the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Sends the state to shards that were overrun, until the desk is told to stop.
pub fn spawn_resync(public: Arc<Public>, orders: Orders, core: usize) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("resync".to_owned()).spawn(move || {
        pin(core);
        public.desk.serve_resyncs(&orders);
    })
}

/// Runs a feed until it ends or the server stops.
pub fn spawn_feed(
    feed: Box<dyn Feed>,
    source: SourceId,
    public: Arc<Public>,
    core: usize,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("feed-{}", feed.name())).spawn(move || {
        pin(core);
        drive(feed, source, &public.desk, &public.stopping);
    })
}

fn drive(mut feed: Box<dyn Feed>, source: SourceId, desk: &Desk, stopping: &AtomicBool) {
    // Relaxed: the flag stands for itself.
    let stops = || stopping.load(Ordering::Relaxed);
    let mut bytes = Vec::with_capacity(feed::BATCH_BYTES_MAX);
    while !stops() {
        bytes.clear();
        let next = feed.poll(super::now_ns(), &mut bytes);
        if !bytes.is_empty() {
            accept(desk, source, &mut bytes);
        }
        match next {
            Next::Now => {}
            Next::Paced => {
                while !desk.has_room() && !stops() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            Next::At(time_ns) => sleep_until(time_ns, &stops),
            Next::Ended => {
                tracing::info!("feed {} has come to its end: {:?}", feed.name(), feed.report());
                return accept(desk, source, &mut feed::end_of_feed());
            }
        }
    }
}

fn accept(desk: &Desk, source: SourceId, batch: &mut [u8]) {
    for error in desk.accept(source, batch).iter().filter_map(|outcome| outcome.as_ref().err()) {
        tracing::warn!("source {source}: an instrument was refused: {error}");
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

/// Keeps the calling thread on a core.
pub fn pin(core: usize) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!("thread {:?} could not be pinned to core {core}", thread::current().name().unwrap_or(""));
    }
}
