//! The sequencer's desk: feeds and publishers bring their batches here, one after another.
//!
//! Whoever brings a batch has it sequenced on its own thread, under the one lock of the data path: a hand-over to a
//! thread of its own would cost a wake-up for every batch, which is most of what a quiet server's tick takes. What
//! always holds: sources wait for each other, for the time of a batch at the most; no shard ever waits for the lock.
//!
//! A shard that was overrun asks for the whole state; that is sent by a thread of its own, in pieces, as the ring has room.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::bars::BarStore;
use crate::clock::now_ns;
use crate::lifecycle::Lifecycle;
use crate::ring::Gauge;
use crate::sequencer::{Sequencer, SequencerStats, SourceEnd, SourceId, SourceStatus};
use crate::wake::ShardWaker;
use tickcast_protocol::DefineError;

/// A batch is at most this long but for its last record, so that the rings publish often and the lock is free soon.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// A ring that had no room a moment ago is looked at again so soon.
const RESYNC_INTERVAL: Duration = Duration::from_micros(200);
/// How often sources are looked at: one is stale at the latest so long after the time that it may be silent.
const SOURCES_INTERVAL: Duration = Duration::from_millis(500);
/// Resynchronisations that wait to be begun: more than there are shards that may each ask once.
const RESYNCS_MAX: usize = 1024;

/// The one sequencer, shared by all sources.
pub struct SequencerHandle {
    locked: Mutex<Locked>,
    gauges: Vec<Gauge>,
    stats: Arc<SequencerStats>,
    resyncs: Sender<ResyncRequest>,
    bars: Option<Arc<BarStore>>,
    /// As of the last look, for whoever wants to know: who asks must not wait for those who sequence.
    sources: Mutex<Arc<[SourceNow]>>,
    lifecycle: Arc<Lifecycle>,
}

/// A source, and how much it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceNow {
    pub row: SourceStatus,
    /// Between the last two looks.
    pub records_per_s: u64,
}

/// Who has the lock has these.
struct Locked {
    sequencer: Sequencer,
    shards: Arc<[Arc<ShardWaker>]>,
}

/// What the thread for resynchronisations is told.
#[derive(Debug)]
enum ResyncRequest {
    Resync { core: usize },
    Stop,
}

/// What [`SequencerHandle::serve_resyncs`] works on.
pub struct ResyncRequests(Receiver<ResyncRequest>);

/// What became of a batch.
#[derive(Debug)]
pub struct Accepted {
    /// How each Definition of it ended.
    pub definitions: Vec<Result<u32, DefineError>>,
    /// The symbol of a book that would have had more levels than it may, and so has not had a record.
    pub refused_book: Option<String>,
}

impl SequencerHandle {
    /// A desk for this sequencer, whose rings have these gauges, and whose tape these bars are made of; and what a thread
    /// has to serve.
    pub fn new(
        sequencer: Sequencer,
        gauges: Vec<Gauge>,
        stats: Arc<SequencerStats>,
        lifecycle: Arc<Lifecycle>,
        bars: Option<Arc<BarStore>>,
    ) -> (Self, ResyncRequests) {
        let (resyncs, requests) = bounded(RESYNCS_MAX);
        let locked = Mutex::new(Locked { sequencer, shards: Arc::new([]) });
        (Self { locked, gauges, stats, resyncs, bars, sources: Mutex::default(), lifecycle }, ResyncRequests(requests))
    }

    /// Names the shards that are woken whenever something was sequenced. What came before is there for them now.
    pub fn attach(&self, shards: Vec<Arc<ShardWaker>>) {
        let mut locked = self.lock();
        locked.shards = shards.into();
        self.announce(locked);
    }

    /// Sequences a batch of whole wire records with the source's own instrument ids, and wakes the shards. The batch is
    /// scratch afterwards.
    pub fn accept(&self, source: SourceId, batch: &mut [u8]) -> Accepted {
        let _watch = self.lifecycle.watch("the sequencer");
        let mut locked = self.lock();
        let definitions = locked.sequencer.accept(source, batch, now_ns());
        let refused_book = locked.sequencer.take_refused_book();
        self.announce(locked);
        Accepted { definitions, refused_book }
    }

    /// How the server is, for those who bring batches.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// A source has gone; its instrument ids end, and what it leaves is told.
    pub fn close_source(&self, source: SourceId, end: SourceEnd) {
        let mut locked = self.lock();
        locked.sequencer.close_source(source, end, now_ns());
        self.announce(locked);
    }

    /// The sources that are there, by their ids, as of half a second ago.
    pub fn sources(&self) -> Arc<[SourceNow]> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show_sources(&self, rows: Vec<SourceStatus>, since_last: Duration) {
        let before = self.sources();
        let rate = |row: SourceStatus| {
            let at = before.binary_search_by_key(&row.id, |had| had.row.id);
            let had = at.map_or(0, |at| before[at].row.records);
            // A feed that died begins anew.
            let more = row.records.checked_sub(had).unwrap_or(row.records);
            let records_per_s = more as f64 / since_last.as_secs_f64().max(0.001);
            SourceNow { row, records_per_s: records_per_s.round() as u64 }
        };
        let now = rows.into_iter().map(rate).collect();
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A feed has died and is to be opened again.
    pub fn count_restart(&self) {
        // Relaxed: a number that stands for itself.
        self.stats.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// How many bytes each shard has still to read of its ring, and what the ring holds.
    pub fn backlogs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.gauges.iter().map(|gauge| (gauge.backlog_bytes(), gauge.capacity_bytes()))
    }

    /// True while every ring is at least three quarters empty: sources that can wait keep behind the slowest shard, and
    /// leave the rest of it to live feeds. Nobody waits for the bars: what is lost to them is counted, and told as a hole.
    pub fn has_room(&self) -> bool {
        self.gauges.iter().all(|gauge| gauge.backlog_bytes() < gauge.capacity_bytes() / 4)
    }

    /// Asks for the whole state to be sent to a core again. False if it has to be asked once more, later.
    pub fn request_resync(&self, core: usize) -> bool {
        self.resyncs.try_send(ResyncRequest::Resync { core }).is_ok()
    }

    /// Ends [`Self::serve_resyncs`].
    pub fn stop(&self) {
        // If that thread is gone already, nothing is left to stop.
        let _ = self.resyncs.send(ResyncRequest::Stop);
    }

    /// Sends the state to shards that ask for it, and looks after silent sources, until [`Self::stop`]. A source is stale
    /// after `stale_ms`; 0 leaves them all alone.
    pub fn serve_resyncs(&self, requests: &ResyncRequests, stale_ms: u32) {
        let silence_ns = u64::from(stale_ms) * 1_000_000;
        let mut pending = false;
        let mut looked = Instant::now();
        loop {
            let request = requests.0.recv_timeout(if pending { RESYNC_INTERVAL } else { SOURCES_INTERVAL });
            let mut locked = self.lock();
            // Whatever else there is to do: a shard that is always behind must not hide that a source is silent.
            let is_due = looked.elapsed() >= SOURCES_INTERVAL;
            let found = is_due && stale_ms > 0 && locked.sequencer.check_sources(silence_ns, now_ns());
            if is_due {
                self.show_sources(locked.sequencer.sources(), looked.elapsed());
                looked = Instant::now();
            }
            match request {
                Ok(ResyncRequest::Resync { core }) => locked.sequencer.request_resync(core),
                Err(RecvTimeoutError::Timeout) if pending || found => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Ok(ResyncRequest::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            pending = locked.sequencer.advance_resyncs();
            self.announce(locked);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().expect("a panic amid sequencing is a bug, and leaves no order to go on with")
    }

    /// Shows the numbers and wakes the shards: after the lock is free, as a shard on this very core may run at once.
    fn announce(&self, locked: MutexGuard<'_, Locked>) {
        self.stats.publish(&locked.sequencer.counters(), locked.sequencer.position());
        let shards = locked.shards.clone();
        drop(locked);
        shards.iter().for_each(|shard| shard.wake());
        if let Some(bars) = &self.bars {
            bars.wake();
        }
    }
}
