//! One market: a sequencer, the shards that serve what it numbers, and the sources that feed it. A server has a live one,
//! and a delayed one for each delay that is configured.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded, unbounded};

use super::StartError;
use super::shard_driver::ShardCommand;
use super::shard_thread::{self, ShardControl, ShardStartError, ShardThread};
use super::threads::{CHECK_INTERVAL, GRACE, join, join_by, ms};
use crate::access::Access;
use crate::archive::{self, Archive, ArchiveSettings, Database};
use crate::auth::AuthFailures;
use crate::bars::{self, BarStore, Bars};
use crate::clock::{now_ns, wall_ns};
use crate::config::{BARS_RING_BYTES, Config, TICKERS_PART};
use crate::day_tickers::{DayTickers, TickerStore};
use crate::heartbeat::Heartbeats;
use crate::http::listener::{Listeners, SendLimits};
use crate::http::{HttpShared, Listener, listener};
use crate::ingest::delay::{self, Spool};
use crate::ingest::states::Sources;
use crate::ingest::{Publishers, ResyncRequests, SequencerHandle, SourceTimeouts, supervisor};
use crate::lifecycle::Lifecycle;
use crate::recent_trades::{RecentTrades, TradeStore};
use crate::ring;
use crate::sequencer::{Sequencer, SequencerStats, SourceId};
use crate::state::{ServerState, SlowClientList};
use crate::stats::PublishedCounters;
use crate::tls::TlsServer;
use crate::wake::ShardWaker;

/// What the markets of a server share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) tls: Option<Arc<TlsServer>>,
    pub(super) access: Arc<Access>,
    pub(super) auth_failures: Arc<AuthFailures>,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// The delayed markets; empty for one of them.
    pub(super) delayed: Vec<Arc<ServerState>>,
    /// `None` for a delayed market, and where there are none.
    pub(super) spool: Option<Arc<Spool>>,
}

/// Time in which an archive has to write what there is when the server stops.
const ARCHIVE_GRACE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Market {
    pub(super) address: SocketAddr,
    pub(super) tls_address: Option<SocketAddr>,
    pub(super) state: Arc<ServerState>,
    pub(super) http: Arc<HttpShared>,
    shards: Vec<ShardThread>,
    feeds: Vec<FeedThread>,
    resync: JoinHandle<()>,
    /// `None` if `bars_bytes` and `trades_bytes` are 0.
    bars: Option<JoinHandle<()>>,
    archive: Option<JoinHandle<()>>,
    spool: Option<JoinHandle<()>>,
}

/// The thread of a feed.
type FeedThread = (SourceId, JoinHandle<()>);

impl Market {
    /// Starts all parts: rings and sequencer, shards, then the sources. Returns once every shard accepts connections.
    pub(super) fn start(config: &Config, shared: Shared) -> Result<Self, StartError> {
        let limits =
            SendLimits { buffer_bytes: config.send_buffer_bytes, notsent_lowat_bytes: config.notsent_lowat_bytes };
        let listeners = listener::bind(config.listen, config.cores.len(), limits)?;
        let tls_listeners = config.tls_listen.map(|address| listener::bind(address, config.cores.len(), limits));
        let tls_listeners = tls_listeners.transpose()?;
        let tls_address = tls_listeners.as_ref().map(|listeners| listeners.address);
        let address = listeners.address;
        let (writers, readers): (Vec<_>, Vec<_>) = config.cores.iter().map(|_| ring::ring(config.ring_bytes)).unzip();
        let (spool_writer, spool_reader) = shared.spool.is_some().then(|| ring::ring(delay::RING_BYTES)).unzip();
        let (state, requests, MarketThreads { bars, archive }) =
            start_sequencer(config, shared, writers, spool_writer)?;
        let spool = start_spool(&state, spool_reader)?;
        let http = Arc::new(HttpShared::new(state.clone()));
        let shards = start_shards(&http, sockets_of(listeners, tls_listeners), readers)?;
        state.sequencer.attach_shards(shards.iter().map(|shard| shard.waker.clone()).collect());
        let (feeds, resync) = start_sources(&state, requests)?;
        Ok(Self { address, tls_address, state, http, shards, feeds, resync, bars, archive, spool })
    }

    pub(super) fn wakers(&self) -> Vec<Arc<ShardWaker>> {
        self.shards.iter().map(|shard| shard.waker.clone()).collect()
    }

    /// Applies settings to the shards.
    pub(super) fn change_settings(&self, config: &Arc<Config>) {
        for shard in &self.shards {
            shard.send(ShardCommand::ChangeSettings(config.clone()));
        }
    }

    /// Has all clients closed over this time. The receiver gets a message of each shard that has done it.
    pub(super) fn drain(&self, config: &Config) -> (Receiver<()>, usize) {
        let (drained, all_drained) = bounded(self.shards.len());
        let Config { drain_ms, drain_timeout_ms, .. } = *config;
        for shard in &self.shards {
            let drained = drained.clone();
            shard.send(ShardCommand::Drain { over_ms: drain_ms, timeout_ms: drain_timeout_ms, drained });
        }
        (all_drained, self.shards.len())
    }

    /// Ends all threads: sources first, then shards, then the threads that both use. Names those that hang.
    pub(super) fn join(self, drain_timeout_ms: u32, hung: &mut Vec<String>) {
        let Self { state, shards, .. } = self;
        // Together: several that hang take no longer than one.
        let until = Instant::now() + GRACE;
        for (source, feed) in self.feeds {
            hung.extend((!join_by(feed, until)).then(|| format!("feed {source}")));
        }
        // Publishers see the stage and close.
        let until = Instant::now() + ms(drain_timeout_ms);
        while state.publishers.connected() > 0 && Instant::now() < until {
            std::thread::sleep(CHECK_INTERVAL);
        }
        for shard in &shards {
            shard.send(ShardCommand::Stop);
        }
        for (index, shard) in shards.into_iter().enumerate() {
            hung.extend((!shard.join(Instant::now() + GRACE)).then(|| format!("shard {index}")));
        }
        state.sequencer.stop_resyncs();
        hung.extend((!join(self.resync)).then(|| "the resync thread".to_owned()));
        if let (Some(store), Some(thread)) = (&state.bars, self.bars) {
            store.stop();
            hung.extend((!join(thread)).then(|| "the thread that makes bars".to_owned()));
        }
        if let (Some(archive), Some(thread)) = (&state.archive, self.archive) {
            archive.stop();
            // It writes what there is.
            hung.extend(
                (!join_by(thread, Instant::now() + ARCHIVE_GRACE)).then(|| "the thread of the archive".to_owned()),
            );
        }
        if let Some(thread) = self.spool {
            hung.extend((!join(thread)).then(|| "the thread of the spool".to_owned()));
        }
    }
}

/// The threads that make bars and keep them.
#[derive(Default)]
struct MarketThreads {
    bars: Option<JoinHandle<()>>,
    archive: Option<JoinHandle<()>>,
}

/// The shared state with the sequencer in it, its queue of resyncs, and the threads behind the bars ring.
type SequencerParts = (Arc<ServerState>, ResyncRequests, MarketThreads);

/// Creates the sequencer with its rings, and starts the threads that make bars and keep them.
fn start_sequencer(
    config: &Config,
    shared: Shared,
    mut writers: Vec<ring::Writer>,
    spool_ring: Option<ring::Writer>,
) -> Result<SequencerParts, StartError> {
    let lifecycle = shared.lifecycle.clone();
    // The ring of the spool is not waited for.
    let gauges: Vec<_> = writers.iter().map(ring::Writer::gauge).collect();
    writers.extend(spool_ring);
    let stats = Arc::new(SequencerStats::default());
    let mut sequencer = Sequencer::new(writers, config.instruments_max).with_book_levels_max(config.book_levels_max);
    let delay_ns = u64::from(config.shard.delay_s) * 1_000_000_000;
    if delay_ns > 0 {
        sequencer = sequencer.with_kept_stamps();
    }
    let (mut bars, mut archive, mut threads) = (None, None, MarketThreads::default());
    if config.bars_bytes > 0 || config.trades_bytes > 0 {
        let (writer, reader) = ring::ring(BARS_RING_BYTES);
        let began_ns = wall_ns().saturating_sub(delay_ns);
        let mut made = Bars::new(config.bars_bytes, began_ns);
        let database = config.archive.as_ref().map(|settings| open_archive(settings, config)).transpose()?;
        if let Some((_, holes)) = &database {
            made = made.with_archive(holes);
        }
        let trades = (config.trades_bytes > 0).then(|| {
            let made = RecentTrades::new(config.trades_bytes, began_ns);
            TradeStore::new(if database.is_some() { made.with_archive() } else { made })
        });
        // A delayed market replays those of the live one.
        let has_tickers = config.bars_bytes > 0 && delay_ns == 0;
        let tickers = has_tickers.then(|| TickerStore::new(DayTickers::new(config.bars_bytes / TICKERS_PART)));
        let store = Arc::new(BarStore::new(made, writer.gauge()).with_trades(trades).with_tickers(tickers));
        sequencer = sequencer.with_bars_ring(writer);
        let bar_thread = bars::spawn(store.clone(), reader, lifecycle.clone(), config.other_cores.clone());
        threads.bars = Some(bar_thread.map_err(StartError::Thread)?);
        if let Some((database, _)) = database {
            let (handle, thread) =
                start_archive(config, database, store.clone(), lifecycle.clone()).map_err(StartError::Thread)?;
            (archive, threads.archive) = (Some(handle), Some(thread));
        }
        bars = Some(store);
    }
    let (sequencer, requests) = SequencerHandle::new(sequencer, gauges, stats.clone(), lifecycle.clone(), bars.clone());
    let state = ServerState {
        config: config.clone(),
        sequencer: Arc::new(sequencer.with_delay(delay_ns)),
        sequencer_stats: stats,
        publishers: Arc::new(Publishers::new(config.feeds.len() as SourceId, &config.publishers)),
        sources: Arc::new(Sources::new(&config.feeds)),
        auth_failures: shared.auth_failures,
        tls: shared.tls,
        access: shared.access,
        bars,
        archive,
        delayed: shared.delayed,
        spool: shared.spool,
        lifecycle,
        heartbeats: Arc::new(Heartbeats::new(config.cores.len())),
        shards: config.cores.iter().map(|_| PublishedCounters::default()).collect(),
        slow_clients: config.cores.iter().map(|_| SlowClientList::default()).collect(),
        started_ns: now_ns(),
    };
    Ok((Arc::new(state), requests, threads))
}

/// Opens the archive of a market, with the times in which it has no records.
fn open_archive(settings: &ArchiveSettings, config: &Config) -> Result<(Database, Vec<(u32, u32)>), StartError> {
    let database = Database::open(&settings.folder.join(archive::file_name(config.shard.delay_s)));
    let database = database.map_err(StartError::Archive)?;
    // Until now there was no server.
    let now_s = bars::complete_s(wall_ns().saturating_sub(u64::from(config.shard.delay_s) * 1_000_000_000));
    let holes = database.holes(now_s).map_err(StartError::Archive)?;
    Ok((database, holes))
}

fn start_archive(
    config: &Config,
    database: Database,
    store: Arc<BarStore>,
    lifecycle: Arc<Lifecycle>,
) -> std::io::Result<(Arc<Archive>, JoinHandle<()>)> {
    archive::spawn(archive::Parts {
        database,
        store,
        bytes_max: config.archive.as_ref().map_or(0, |settings| settings.bytes_max),
        delay_ns: u64::from(config.shard.delay_s) * 1_000_000_000,
        lifecycle,
        cores: config.other_cores.clone(),
    })
}

/// Starts the thread that writes the spool, whose ring is the one behind those of the shards.
fn start_spool(state: &Arc<ServerState>, ring: Option<ring::Reader>) -> Result<Option<JoinHandle<()>>, StartError> {
    let config = &state.config;
    let started = state.spool.clone().zip(ring).map(|(spool, ring)| {
        let (sequencer, lifecycle) = (state.sequencer.clone(), state.lifecycle.clone());
        let (index, cores) = (config.cores.len(), config.other_cores.clone());
        delay::spawn(spool, ring, sequencer, index, config.shard.epoch, lifecycle, cores)
    });
    started.transpose().map_err(StartError::Thread)
}

/// The sockets of each shard.
fn sockets_of(plain: Listeners, tls: Option<Listeners>) -> Vec<Vec<(Listener, TcpListener)>> {
    let mut tls = tls.into_iter().flat_map(|listeners| listeners.sockets);
    let of_shard = |socket| {
        let tls = tls.next().map(|socket| (Listener::Tls, socket));
        std::iter::once((Listener::Plain, socket)).chain(tls).collect()
    };
    plain.sockets.into_iter().map(of_shard).collect()
}

/// Starts one shard per core, and waits until each of them accepts connections.
fn start_shards(
    http: &Arc<HttpShared>,
    sockets: Vec<Vec<(Listener, TcpListener)>>,
    readers: Vec<ring::Reader>,
) -> Result<Vec<ShardThread>, StartError> {
    let mut shards = Vec::new();
    for (index, (sockets, reader)) in sockets.into_iter().zip(readers).enumerate() {
        let core = http.state.config.cores[index];
        let (report, started) = mpsc::channel();
        let (commands, received) = unbounded();
        let (end, ended) = bounded(0);
        let control = ShardControl { commands: received, end };
        let spawned = shard_thread::spawn(index, core, http.clone(), sockets, reader, control, report);
        let outcome = spawned.and_then(|thread| {
            let waker = started.recv().map_err(|_| ShardStartError::Panicked)??;
            Ok(ShardThread { waker, thread, commands, ended })
        });
        shards.push(outcome.map_err(|error| StartError::Core { core, error })?);
    }
    Ok(shards)
}

/// Starts a thread for each feed, and the one that resynchronises shards.
fn start_sources(
    state: &Arc<ServerState>,
    requests: ResyncRequests,
) -> Result<(Vec<FeedThread>, JoinHandle<()>), StartError> {
    let config = &state.config;
    let core = |nth: usize| config.other_cores[nth % config.other_cores.len()];
    let resync = supervisor::spawn_resync(
        state.sequencer.clone(),
        requests,
        SourceTimeouts { stale_ms: config.stale_ms, expire_ms: config.instrument_expire_ms },
        core(0),
    )
    .map_err(StartError::Thread)?;
    let mut threads = Vec::new();
    let openers = config.feeds.iter().enumerate().filter_map(|(nth, spec)| Some((nth, spec.opener()?)));
    for (nth, opener) in openers {
        // Servers that start together have other epochs, and so other pauses.
        let seed = u64::from(config.shard.epoch) << 32 | nth as u64;
        let (sources, sequencer) = (state.sources.clone(), state.sequencer.clone());
        let thread = supervisor::spawn_feed(opener.clone(), nth as SourceId, sources, sequencer, core(nth), seed);
        threads.push((nth as SourceId, thread.map_err(StartError::Thread)?));
    }
    Ok((threads, resync))
}
