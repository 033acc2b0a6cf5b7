//! The sequencer behind its lock, shared by all sources.
//!
//! # Why a mutex
//!
//! A feed or publisher sequences its batch on its own thread: it locks the sequencer, has the batch written to all rings,
//! unlocks, and wakes the shards that sleep. A sequencer thread with a queue would cost one more wake-up for every batch,
//! which is most of the latency of a record on a quiet server. See `docs/decisions/sequencer-mutex.md`.
//!
//! # Who locks it, and for how long
//!
//! * A source, for one batch of at most [`BATCH_BYTES_MAX`]: some 9 ns a record and shard, so mostly microseconds.
//! * A publisher's request that defines instruments, for [`PORTION_DEFINITIONS`] at a time: some 3 us each. Batches of
//!   records come in between; other definitions wait until it is done, since what was checked has to hold.
//! * The resync thread, twice a second to check for silent sources, for each piece of a resynchronisation, and once a
//!   second for computed tickers (`computed`).
//! * Fairly: the thread that has waited longest is next, so a source that floods delays another one by one batch
//!   for each source that floods, and not for as long as it floods.
//! * Never a shard, and never an HTTP handler: they read rings, atomics and published lists.
//!
//! # Resynchronisation
//!
//! A shard that was overrun (its ring was overwritten before it had read it) needs the state of all instruments again:
//! 1. The shard calls [`SequencerHandle::request_resync`], which queues a [`ResyncRequest`] and never blocks.
//! 2. The resync thread runs [`SequencerHandle::serve_resyncs`]. It locks the sequencer and lets it write state into that
//!    shard's ring until the ring is half full, unlocks, waits for [`RESYNC_INTERVAL`], and continues. Sources sequence
//!    live records in between.
//!
//! What always holds: the shards are woken after the lock is released. A panic while the lock is held ends the process,
//! since it leaves no consistent order to continue with.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parking_lot::{FairMutex, FairMutexGuard};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

mod computed;

use super::room::{Room, Unread};
use crate::bars::BarStore;
use crate::clock;
use crate::fault;
use crate::lifecycle::Lifecycle;
use crate::ring::Gauge;
use crate::sequencer::{
    BatchFaults, Defining, Sequencer, SequencerStats, SourceEnd, SourceId, SourceIdentity, SourceStatus,
};
use crate::wake::ShardWaker;
use tickcast_protocol::DefineError;
use tickcast_protocol::record::{self, RecordKind};

/// Bytes of a batch, apart from its last record. It bounds the time that the lock is held, and makes records visible soon.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Definitions of a request for which the lock is held.
const PORTION_DEFINITIONS: usize = 32;
/// How soon a resynchronisation continues after it filled its share of a ring.
const RESYNC_INTERVAL: Duration = Duration::from_micros(200);
/// How often sources are checked: a silent one becomes stale at most this much late.
const SOURCES_INTERVAL: Duration = clock::STEER_INTERVAL;
/// The smallest step of the wall clock that is reported to the bars; others are within a bar.
const BARS_STEP_NS: u64 = 1_000_000_000;
/// Queued requests for a resynchronisation: more than there are shards, each of which has one at most.
const RESYNCS_MAX: usize = 1024;

/// The sequencer, shared by all sources.
pub struct SequencerHandle {
    /// Taken before `locked`: it passes to the thread that has waited longest.
    queue: FairMutex<()>,
    locked: Mutex<Locked>,
    /// Held for all portions of a request that defines instruments. Taken before `queue`.
    defining: FairMutex<()>,
    /// Of the shards' rings, in their order.
    room: Room,
    stats: Arc<SequencerStats>,
    resyncs: Sender<ResyncRequest>,
    bars: Option<Arc<BarStore>>,
    /// The sources as last checked, for readers that must not wait for the sequencer.
    sources: Mutex<Arc<[SourceActivity]>>,
    lifecycle: Arc<Lifecycle>,
}

/// What the mutex protects.
struct Locked {
    sequencer: Sequencer,
    /// Some definitions of a request are checked or carried out, and others are not.
    is_defining: bool,
    /// The shards to wake.
    wakers: Arc<[Arc<ShardWaker>]>,
    /// That of the last stamp.
    wall_offset_ns: i64,
    /// How long ago the time of the market is.
    delay_ns: u64,
}

/// The locked sequencer.
struct SequencerGuard<'handle> {
    // In this order: the lock is released before the next thread is let in.
    locked: MutexGuard<'handle, Locked>,
    _queue: FairMutexGuard<'handle, ()>,
}

impl Deref for SequencerGuard<'_> {
    type Target = Locked;

    fn deref(&self) -> &Locked {
        &self.locked
    }
}

impl DerefMut for SequencerGuard<'_> {
    fn deref_mut(&mut self) -> &mut Locked {
        &mut self.locked
    }
}

impl Locked {
    /// The time for stamps: that of the market.
    fn wall_ns(&mut self, bars: Option<&BarStore>) -> u64 {
        let offset_ns = clock::wall_offset_ns();
        let wall_ns = clock::now_ns().saturating_add_signed(offset_ns).saturating_sub(self.delay_ns);
        let moved_ns = offset_ns - std::mem::replace(&mut self.wall_offset_ns, offset_ns);
        if moved_ns != 0 {
            self.sequencer.shift_activity(moved_ns);
        }
        if let Some(bars) = bars.filter(|_| moved_ns.unsigned_abs() >= BARS_STEP_NS) {
            bars.step(wall_ns.saturating_add_signed(-moved_ns), wall_ns);
        }
        wall_ns
    }
}

/// A source and its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceActivity {
    pub status: SourceStatus,
    /// Between the last two checks.
    pub records_per_s: u64,
}

#[derive(Debug)]
enum ResyncRequest {
    Resync { shard: usize },
    Stop,
}

/// When sources are given up; 0 for never.
#[derive(Clone, Copy, Debug)]
pub struct SourceTimeouts {
    /// Silence after which a source is stale.
    pub stale_ms: u32,
    /// Time after the loss of its source at which an instrument ends.
    pub expire_ms: u32,
}

impl SourceTimeouts {
    /// True if an instrument has changed its state.
    fn check(self, sequencer: &mut Sequencer, wall_ns: u64) -> bool {
        let ns = |ms: u32| u64::from(ms) * 1_000_000;
        let is_stale = self.stale_ms > 0 && sequencer.check_sources(ns(self.stale_ms), wall_ns);
        let has_ended = self.expire_ms > 0 && sequencer.expire_instruments(ns(self.expire_ms), wall_ns);
        is_stale | has_ended
    }
}

/// The queue of [`SequencerHandle::serve_resyncs`].
pub struct ResyncRequests(Receiver<ResyncRequest>);

/// The outcome of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// The outcome of each Definition in the batch.
    pub definitions: Vec<Result<u32, DefineError>>,
    /// What was left out.
    pub faults: BatchFaults,
}

impl BatchOutcome {
    /// True if every ring has all of the batch.
    pub fn is_whole(&self) -> bool {
        self.definitions.iter().all(Result::is_ok) && self.faults == BatchFaults::default()
    }
}

impl SequencerHandle {
    /// Shares a sequencer. `gauges` are those of its rings, `bars` is the store that is fed by its bars ring,
    /// and is woken after each batch. The queue is for the thread
    /// that runs [`Self::serve_resyncs`].
    pub fn new(
        sequencer: Sequencer,
        gauges: Vec<Gauge>,
        stats: Arc<SequencerStats>,
        lifecycle: Arc<Lifecycle>,
        bars: Option<Arc<BarStore>>,
    ) -> (Self, ResyncRequests) {
        let (resyncs, requests) = bounded(RESYNCS_MAX);
        let locked = Locked {
            sequencer,
            is_defining: false,
            wakers: Arc::new([]),
            wall_offset_ns: clock::wall_offset_ns(),
            delay_ns: 0,
        };
        (
            Self {
                queue: FairMutex::new(()),
                locked: Mutex::new(locked),
                defining: FairMutex::new(()),
                room: Room::new(gauges),
                stats,
                resyncs,
                bars,
                sources: Mutex::default(),
                lifecycle,
            },
            ResyncRequests(requests),
        )
    }

    /// Has the time for stamps lie so far back: the market of these records is a delayed one.
    pub fn with_delay(self, delay_ns: u64) -> Self {
        self.lock().delay_ns = delay_ns;
        self
    }

    /// Sets the shards that are woken after each batch, and wakes them for what has been sequenced already.
    pub fn attach_shards(&self, wakers: Vec<Arc<ShardWaker>>) {
        let mut locked = self.lock();
        locked.wakers = wakers.into();
        self.publish_and_wake(locked);
    }

    /// Sets on behalf of whom a source sends, before its first batch.
    pub fn open_source(&self, source: SourceId, identity: SourceIdentity) {
        self.lock().sequencer.open_source(source, identity);
    }

    /// Sequences a batch of whole wire records, which have the source's own instrument ids, and wakes the shards. The batch
    /// is overwritten.
    pub fn accept(&self, source: SourceId, batch: &mut [u8]) -> BatchOutcome {
        let _guard = self.lifecycle.fail_on_panic("the sequencer");
        let mut locked = self.lock();
        let _defining;
        if locked.is_defining && has_definitions(batch) {
            drop(locked);
            _defining = self.defining.lock();
            locked = self.lock();
        }
        fault::point("sequencer");
        let wall_ns = locked.wall_ns(self.bars.as_deref());
        let definitions = locked.sequencer.accept(source, batch, wall_ns);
        let faults = locked.sequencer.take_faults();
        self.publish_and_wake(locked);
        BatchOutcome { definitions, faults }
    }

    /// Carries out all definitions of a batch of Definition records, or none; then reports which was refused, and why.
    /// Returns the levels of books that were carried over to other exponents.
    pub fn define_all(&self, source: SourceId, batch: &[u8]) -> Result<u64, (usize, DefineError)> {
        let _guard = self.lifecycle.fail_on_panic("the sequencer");
        let mut defining = Defining::new(source, batch);
        let _others_wait = self.defining.lock();
        let mut levels = 0;
        loop {
            let mut locked = self.lock();
            let wall_ns = locked.wall_ns(self.bars.as_deref());
            let is_done = locked.sequencer.define_portion(&mut defining, PORTION_DEFINITIONS, wall_ns);
            levels += locked.sequencer.take_rescaled_levels();
            locked.is_defining = is_done == Ok(false);
            self.publish_and_wake(locked);
            if is_done? {
                return Ok(levels);
            }
        }
    }

    /// A source has lost messages that may be of these instruments, or of all that it has defined if the list is empty;
    /// see [`Sequencer::note_loss`].
    pub fn note_loss(&self, source: SourceId, instruments: &[u32]) {
        let _guard = self.lifecycle.fail_on_panic("the sequencer");
        let mut locked = self.lock();
        let wall_ns = locked.wall_ns(self.bars.as_deref());
        locked.sequencer.note_loss(source, instruments, wall_ns);
        self.publish_and_wake(locked);
    }

    /// Closes a source: its instrument ids become invalid, and its instruments become ended or stale.
    pub fn close_source(&self, source: SourceId, end: SourceEnd) {
        let _guard = self.lifecycle.fail_on_panic("the sequencer");
        let mut locked = self.lock();
        let wall_ns = locked.wall_ns(self.bars.as_deref());
        locked.sequencer.close_source(source, end, wall_ns);
        self.publish_and_wake(locked);
    }

    /// True while every ring is at least three quarters empty. A source that can wait (a replay at full speed) pauses
    /// until this is true, and leaves the rest of the ring to live feeds. The bars ring does not count: lost bars are
    /// reported as a hole.
    pub fn has_room(&self) -> bool {
        self.room.has_room()
    }

    /// Calls `wait` while a ring has no room, for a bounded number of times, until it returns false. A ring that stays
    /// full is then left behind, and not waited for until it has room again.
    pub fn wait_for_room(&self, wait: impl FnMut() -> bool) {
        self.room.wait_for_room(wait);
    }

    /// Counts a batch of a publisher that follows, and calls `wait` while the shards have not read what it sent before,
    /// if that is much: for a bounded number of times, until it returns false.
    pub fn wait_until_read(&self, unread: &mut Unread, batch_bytes: usize, wait: impl FnMut() -> bool) {
        self.room.wait_until_read(unread, batch_bytes, wait);
    }

    /// How often a ring was left behind by publishers.
    pub fn rings_left_behind(&self) -> u64 {
        self.room.left_behind()
    }

    /// The stage of the server, for sources.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Bytes that each shard has not read yet, and the capacity of its ring.
    pub fn backlogs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.room.gauges().map(|gauge| (gauge.backlog_bytes(), gauge.capacity_bytes()))
    }

    /// The connected sources by id, as of the last half second.
    pub fn sources(&self) -> Arc<[SourceActivity]> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests the state of all instruments for a shard. False if the queue is full: the shard has to ask again.
    pub fn request_resync(&self, shard: usize) -> bool {
        self.resyncs.try_send(ResyncRequest::Resync { shard }).is_ok()
    }

    /// Ends [`Self::serve_resyncs`].
    pub fn stop_resyncs(&self) {
        // Fails if that thread has ended already.
        let _ = self.resyncs.send(ResyncRequest::Stop);
    }

    /// Resynchronises shards, checks for silent and lost sources, and has computed tickers sequenced, until
    /// [`Self::stop_resyncs`].
    pub fn serve_resyncs(&self, requests: &ResyncRequests, timeouts: SourceTimeouts) {
        let mut pending = false;
        let mut checked = Instant::now();
        loop {
            let request = requests.0.recv_timeout(if pending { RESYNC_INTERVAL } else { SOURCES_INTERVAL });
            fault::point("resync");
            if checked.elapsed() >= SOURCES_INTERVAL {
                self.sequence_tickers();
            }
            let mut locked = self.lock();
            // By the clock, not by timeouts: a shard that is always behind must not delay the check.
            let is_due = checked.elapsed() >= SOURCES_INTERVAL;
            let wall_ns = locked.wall_ns(self.bars.as_deref());
            let became_stale = is_due && timeouts.check(&mut locked.sequencer, wall_ns);
            if is_due {
                // Of all markets of the process, the live one alone.
                if locked.delay_ns == 0 {
                    clock::steer();
                }
                self.publish_sources(locked.sequencer.sources(), checked.elapsed());
                checked = Instant::now();
            }
            match request {
                Ok(ResyncRequest::Resync { shard }) => locked.sequencer.request_resync(shard),
                Err(RecvTimeoutError::Timeout) if pending || became_stale => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Ok(ResyncRequest::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            pending = locked.sequencer.advance_resyncs();
            self.publish_and_wake(locked);
        }
    }

    fn publish_sources(&self, sources: Vec<SourceStatus>, since_last: Duration) {
        let before = self.sources();
        let with_rate = |status: SourceStatus| {
            let found = before.binary_search_by_key(&status.id, |source| source.status.id);
            let records_before = found.map_or(0, |at| before[at].status.records);
            // A feed that was opened again counts from 0.
            let records = status.records.checked_sub(records_before).unwrap_or(status.records);
            let records_per_s = records as f64 / since_last.as_secs_f64().max(0.001);
            SourceActivity { status, records_per_s: records_per_s.round() as u64 }
        };
        let sources = sources.into_iter().map(with_rate).collect();
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    fn lock(&self) -> SequencerGuard<'_> {
        let queue = self.queue.lock();
        SequencerGuard {
            locked: self.locked.lock().expect("a panic while the lock is held ends the process"),
            _queue: queue,
        }
    }

    /// Publishes the counters, unlocks, and wakes the shards. The order matters: a woken shard may run on this very core.
    fn publish_and_wake(&self, locked: SequencerGuard<'_>) {
        self.stats.publish(&locked.sequencer.counters(), locked.sequencer.position());
        let wakers = locked.wakers.clone();
        drop(locked);
        wakers.iter().for_each(|waker| waker.wake());
        if let Some(bars) = &self.bars {
            bars.wake();
        }
    }
}

fn has_definitions(batch: &[u8]) -> bool {
    record::records(batch).any(|(header, _)| header.known_kind() == Some(RecordKind::Definition))
}

#[cfg(test)]
mod tests {
    use tickcast_protocol::record::{RecordHeader, Trade};
    use tickcast_protocol::{Instrument, Side};

    use super::*;
    use crate::ring::{Batch, Reader, ring};

    /// True once a thread of this process sleeps.
    fn sleeps(thread: rustix::thread::Pid) -> bool {
        let stat =
            std::fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero())).expect("it runs");
        stat.rsplit_once(')').expect("a name in parentheses").1.starts_with(" S")
    }

    /// A handle with one ring, and the end of the ring.
    fn handle() -> (SequencerHandle, Reader) {
        let (writer, reader) = ring(1 << 16);
        let gauge = writer.gauge();
        let sequencer = Sequencer::new(vec![writer], 1000);
        let lifecycle = Arc::new(crate::lifecycle::Lifecycle::begin().0);
        (SequencerHandle::new(sequencer, vec![gauge], Arc::default(), lifecycle, None).0, reader)
    }

    /// Does these while the sequencer is locked, each once the one before waits for it. Then it is unlocked.
    fn queue_up(handle: &SequencerHandle, all: Vec<Box<dyn FnOnce() + Send + '_>>) {
        let (ids, id) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let _held = handle.lock();
            for act in all {
                let ids = ids.clone();
                scope.spawn(move || {
                    ids.send(rustix::thread::gettid()).expect("it is received");
                    act();
                });
                let waiting = id.recv().expect("it is sent");
                while !sleeps(waiting) {
                    std::thread::yield_now();
                }
            }
        });
    }

    fn definitions(names: impl Iterator<Item = String>) -> Vec<u8> {
        let mut batch = Vec::new();
        for (nth, name) in (1..).zip(names) {
            record::encode_definition(&Instrument::new(nth, &name, "v", -2, -2), &mut batch);
        }
        batch
    }

    #[test]
    fn waiting_source_is_next_although_another_comes_back_at_once() {
        let (handle, _reader) = handle();
        let order = Mutex::new(Vec::new());
        let note = |name| {
            let _held = handle.lock();
            order.lock().expect("no panic").push(name);
        };
        let flooding = || (0..2).for_each(|_| note("flooding"));
        queue_up(&handle, vec![Box::new(flooding), Box::new(|| note("waiting"))]);
        assert_eq!(order.into_inner().expect("no panic"), ["flooding", "waiting", "flooding"]);
    }

    #[test]
    fn records_come_between_the_definitions_of_a_request_and_definitions_of_others_after_it() {
        let (handle, mut reader) = handle();
        handle.accept(1, &mut definitions(["KNOWN".to_owned()].into_iter()));
        let names = |count: usize| (0..count).map(|nth| format!("A{nth}"));
        let define = || assert_eq!(handle.define_all(2, &definitions(names(100))), Ok(0));
        let trade = || {
            let mut batch = Vec::new();
            Trade { px: 1, sz: 1, trade_id: 1, side: Side::Buy }
                .encode(&RecordHeader::of_feed(RecordKind::Trade, 1, 1), &mut batch);
            assert!(handle.accept(1, &mut batch).is_whole());
        };
        // The last one that is checked is also the name of another source.
        let other = || {
            let outcome = handle.accept(1, &mut definitions(["KNOWN".to_owned(), "A99".to_owned()].into_iter()));
            let foreign = DefineError::Foreign { symbol: "A99".to_owned() };
            assert_eq!(outcome.definitions, [Ok(1), Err(foreign)]);
        };
        queue_up(&handle, vec![Box::new(define), Box::new(trade), Box::new(other)]);
        let mut batch = Batch::default();
        reader.read(usize::MAX, &mut batch).expect("no overrun");
        let kinds =
            batch.entries.iter().map(|entry| RecordHeader::read(batch.payload(entry)).expect("whole").known_kind());
        let trade_at = kinds.clone().position(|kind| kind == Some(RecordKind::Trade)).expect("a trade");
        assert_eq!((trade_at, kinds.count()), (1, 102), "behind a portion that has only checked");
    }
}
