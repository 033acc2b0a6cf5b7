//! All parts of a running server: started in order, reloaded, stopped in order.

use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded, unbounded};

use super::StartError;
use super::certificates;
use super::health;
use super::shard_driver::ShardCommand;
use super::shard_thread::{self, ShardControl, ShardStartError, ShardThread};
use crate::access::{self, Access};
use crate::auth::AuthFailures;
use crate::bars::{self, BarStore, Bars};
use crate::clock::{self, now_ns, wall_ns};
use crate::config::{AdminListen, BARS_RING_BYTES, Config, Reloaded};
use crate::heartbeat::Heartbeats;
use crate::http::admin::{AdminServer, AdminSocket, SocketFile};
use crate::http::listener::{Listeners, SendLimits};
use crate::http::{HttpShared, Listener, listener};
use crate::ingest::registry::Spec;
use crate::ingest::states::Sources;
use crate::ingest::{Publishers, ResyncRequests, SequencerHandle, SourceTimeouts, supervisor};
use crate::lifecycle::{Lifecycle, Stage};
use crate::log::{Log, parse_filter};
use crate::memory;
use crate::ring;
use crate::sequencer::{Sequencer, SequencerStats, SourceId};
use crate::state::{ServerState, SlowClientList};
use crate::stats::PublishedCounters;
use crate::tls::{ServerSettings, TlsServer};

/// How often the main thread checks whether others have ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Time that feeds have to be open before the server says that it has started. It starts without those that are not.
const OPENING: Duration = Duration::from_secs(1);
/// Time that others have beyond their timeouts.
const GRACE: Duration = Duration::from_secs(1);

/// A running server.
pub(super) struct Server {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    state: Arc<ServerState>,
    shards: Vec<ShardThread>,
    threads: Threads,
    admin: Option<Admin>,
    /// The settings in effect.
    config: Config,
}

/// The admin listener.
struct Admin {
    listen: AdminListen,
    server: Arc<AdminServer>,
    thread: JoinHandle<()>,
    /// Removed with the server.
    _file: Option<SocketFile>,
}

/// The thread of a feed.
type FeedThread = (SourceId, JoinHandle<()>);

/// The threads beside the shards.
struct Threads {
    feeds: Vec<FeedThread>,
    resync: JoinHandle<()>,
    /// `None` if `bars_bytes` is 0.
    bars: Option<JoinHandle<()>>,
    health: JoinHandle<()>,
    /// Ends the health thread when it is dropped.
    health_stop: Sender<()>,
}

impl Server {
    /// Starts all parts: rings and sequencer, shards, then the sources. Returns once every shard accepts connections.
    pub(super) fn start(config: &Config, lifecycle: Arc<Lifecycle>) -> Result<Self, StartError> {
        for opener in config.feeds.iter().filter_map(Spec::opener) {
            opener.check().map_err(StartError::Feed)?;
        }
        let limits =
            SendLimits { buffer_bytes: config.send_buffer_bytes, notsent_lowat_bytes: config.notsent_lowat_bytes };
        let listeners = listener::bind(config.listen, config.cores.len(), limits)?;
        let tls = load_tls(config)?;
        let tls_listeners = config.tls_listen.map(|address| listener::bind(address, config.cores.len(), limits));
        let tls_listeners = tls_listeners.transpose()?;
        let tls_address = tls_listeners.as_ref().map(|listeners| listeners.address);
        let address = listeners.address;
        let admin = config.admin_listen.as_ref().map(AdminSocket::bind).transpose()?;
        let (writers, readers): (Vec<_>, Vec<_>) = config.cores.iter().map(|_| ring::ring(config.ring_bytes)).unzip();
        let (state, requests, bars) = start_sequencer(config, tls, lifecycle, writers)?;
        let http = Arc::new(HttpShared::new(state.clone()));
        let shards = start_shards(&http, sockets_of(listeners, tls_listeners), readers)?;
        let wakers: Vec<_> = shards.iter().map(|shard| shard.waker.clone()).collect();
        state.sequencer.attach_shards(wakers.clone());
        let (feeds, resync) = start_sources(&state, requests)?;
        let (health_stop, stopped) = bounded(0);
        clock::watch_pauses();
        memory::recover();
        let health = health::spawn(state.clone(), wakers, stopped).map_err(StartError::Thread)?;
        let threads = Threads { feeds, resync, bars, health, health_stop };
        let admin = admin.map(|socket| start_admin(socket, http)).transpose().map_err(StartError::Thread)?;
        state.sources.wait_until_opened(OPENING);
        Ok(Self { address, tls_address, state, shards, threads, admin, config: config.clone() })
    }

    /// Where the admin listener listens.
    pub(super) fn admin(&self) -> Option<&AdminListen> {
        self.admin.as_ref().map(|admin| &admin.listen)
    }

    /// The address that the server listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for TLS.
    pub(super) fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Applies the settings that can change without a restart. If any of them is invalid, nothing is changed.
    pub(super) fn reload<E: Display>(&mut self, log: &Log, read: Result<Config, E>) {
        let invalid = |error: &dyn Display| tracing::error!("SIGHUP: nothing was changed: {error}");
        let mut config = match read {
            Ok(config) => config,
            Err(error) => return invalid(&error),
        };
        let filter = match parse_filter(&config.log) {
            Ok(filter) => filter,
            Err(error) => return invalid(&error),
        };
        let Reloaded { changed, fixed } = config.reload(&self.config);
        self.config = config.clone();
        self.state.publishers.set_identities(&config.publishers);
        if let Some(tls) = &self.state.tls {
            certificates::reload(tls, &config.tls_pairs);
        }
        if changed.contains(&"issuer")
            && let Err(problem) = self.state.access.apply(config.access.clone())
        {
            tracing::error!("SIGHUP: issuers, keys and rights were not changed: {problem}");
        }
        let config = Arc::new(config);
        for shard in &self.shards {
            shard.send(ShardCommand::ChangeSettings(config.clone()));
        }
        if let Some(admin) = &self.admin {
            admin.server.change_settings(config);
        }
        let changed = if changed.is_empty() { "nothing has changed".to_owned() } else { changed.join(", ") };
        tracing::info!("SIGHUP: settings were read again: {changed}");
        if !fixed.is_empty() {
            tracing::warn!("SIGHUP: not changed, since it needs a restart: {}", fixed.join(", "));
        }
        if let Err(error) = log.change(filter, self.config.log_lines_per_s) {
            tracing::error!("SIGHUP: the filter of the log was not changed: {error}");
        }
    }

    /// Drains and stops. The server accepts connections until the last client has closed: a load balancer learns from
    /// `/readyz` that the server stops, and new clients get 503 rather than a reset.
    pub(super) fn stop(self) -> Result<(), StartError> {
        let Config { drain_ms, drain_timeout_ms, .. } = self.config;
        tracing::info!("stopping: clients are closed over {drain_ms} ms; a second signal ends the process at once");
        self.state.lifecycle.enter(Stage::Draining);
        self.await_publishers();
        let (drained, all_drained) = crossbeam::channel::bounded(self.shards.len());
        for shard in &self.shards {
            let drained = drained.clone();
            shard.send(ShardCommand::Drain { over_ms: drain_ms, timeout_ms: drain_timeout_ms, drained });
        }
        drop(drained);
        let until = Instant::now() + ms(drain_ms) + ms(drain_timeout_ms) + GRACE;
        for _ in 0..self.shards.len() {
            // An error is a shard that has failed: it has dropped its sender.
            let _ = all_drained.recv_deadline(until);
        }
        self.join()
    }

    /// Waits until everything that publishers had sent when the drain began is sequenced, so that clients get it before
    /// they are closed. Publishers and feeds continue meanwhile, for the clients that are closed last.
    fn await_publishers(&self) {
        let until = Instant::now() + GRACE;
        while !self.state.publishers.all_handed_in() && Instant::now() < until {
            std::thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Ends all threads: sources first, then shards, then the threads that both use.
    fn join(self) -> Result<(), StartError> {
        let Self { state, shards, threads, admin, config, .. } = self;
        state.lifecycle.enter(Stage::Stopping);
        state.sources.stop();
        // A thread that hangs must not keep the process: it ends with the main thread.
        let mut hung = Vec::new();
        // Together: several that hang take no longer than one.
        let until = Instant::now() + GRACE;
        for (source, feed) in threads.feeds {
            hung.extend((!join_by(feed, until)).then(|| format!("feed {source}")));
        }
        // Publishers see the stage and close.
        let until = Instant::now() + ms(config.drain_timeout_ms);
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
        hung.extend((!join(threads.resync)).then(|| "the resync thread".to_owned()));
        if let (Some(store), Some(thread)) = (&state.bars, threads.bars) {
            store.stop();
            hung.extend((!join(thread)).then(|| "the thread that makes bars".to_owned()));
        }
        if let Some(admin) = admin {
            hung.extend((!join(admin.thread)).then(|| "the admin listener".to_owned()));
        }
        drop(threads.health_stop);
        hung.extend((!join(threads.health)).then(|| "the health thread".to_owned()));
        for what in &hung {
            tracing::error!("{what} did not end within {} s", GRACE.as_secs());
        }
        match state.lifecycle.failure() {
            Some(failure) => Err(StartError::Failed(failure.to_owned())),
            None if hung.is_empty() => Ok(()),
            None => Err(StartError::Failed(format!("{} did not end", hung.join(", ")))),
        }
    }
}

/// Waits a while for the end of a thread; false if it does not end. A panic was reported by the hook of the process.
fn join(thread: JoinHandle<()>) -> bool {
    join_by(thread, Instant::now() + GRACE)
}

fn join_by(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(CHECK_INTERVAL);
    }
    thread.is_finished() && matches!(thread.join(), Ok(()) | Err(_))
}

/// The shared state with the sequencer in it, its queue of resyncs, and the thread that makes bars.
type SequencerParts = (Arc<ServerState>, ResyncRequests, Option<JoinHandle<()>>);

/// Creates the sequencer with its rings, and starts the thread that makes bars.
fn start_sequencer(
    config: &Config,
    tls: Option<Arc<TlsServer>>,
    lifecycle: Arc<Lifecycle>,
    writers: Vec<ring::Writer>,
) -> Result<SequencerParts, StartError> {
    let gauges: Vec<_> = writers.iter().map(ring::Writer::gauge).collect();
    let stats = Arc::new(SequencerStats::default());
    let mut sequencer = Sequencer::new(writers, config.instruments_max).with_book_levels_max(config.book_levels_max);
    let (mut bars, mut bar_thread) = (None, None);
    if config.bars_bytes > 0 {
        let (writer, reader) = ring::ring(BARS_RING_BYTES);
        let store = Arc::new(BarStore::new(Bars::new(config.bars_bytes, wall_ns()), writer.gauge()));
        sequencer = sequencer.with_bars_ring(writer);
        bar_thread = Some(
            bars::spawn(store.clone(), reader, lifecycle.clone(), config.other_cores.clone())
                .map_err(StartError::Thread)?,
        );
        bars = Some(store);
    }
    let (sequencer, requests) = SequencerHandle::new(sequencer, gauges, stats.clone(), lifecycle.clone(), bars.clone());
    let state = ServerState {
        config: config.clone(),
        sequencer: Arc::new(sequencer),
        sequencer_stats: stats,
        publishers: Arc::new(Publishers::new(config.feeds.len() as SourceId, &config.publishers)),
        sources: Arc::new(Sources::new(&config.feeds)),
        auth_failures: AuthFailures::default(),
        tls,
        access: start_access(config)?,
        bars,
        lifecycle,
        heartbeats: Arc::new(Heartbeats::new(config.cores.len())),
        shards: config.cores.iter().map(|_| PublishedCounters::default()).collect(),
        slow_clients: config.cores.iter().map(|_| SlowClientList::default()).collect(),
        started_ns: now_ns(),
    };
    Ok((Arc::new(state), requests, bar_thread))
}

/// Reads the certificates, if there is a listener for TLS.
fn load_tls(config: &Config) -> Result<Option<Arc<TlsServer>>, StartError> {
    if config.tls_listen.is_none() {
        return Ok(None);
    }
    let (pairs, client_ca) = (config.tls_pairs.clone(), config.tls_client_ca.clone());
    let settings = ServerSettings { pairs, min_version: config.tls_min_version, client_ca };
    Ok(Some(Arc::new(TlsServer::load(&settings, certificates::now_s())?)))
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
/// Who may subscribe, with the thread that keeps keys current.
fn start_access(config: &Config) -> Result<Arc<Access>, StartError> {
    let now = access::Now { wall_s: wall_ns() / 1_000_000_000, ns: now_ns() };
    let access =
        Access::new(config.access.clone(), config.revocations_file.as_deref(), now).map_err(StartError::Access)?;
    let access = Arc::new(access);
    if config.access.is_on() {
        access.start().map_err(StartError::Thread)?;
    }
    Ok(access)
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

fn start_admin(mut socket: AdminSocket, http: Arc<HttpShared>) -> std::io::Result<Admin> {
    let (listen, file) = (socket.listen.clone(), socket.file.take());
    let (server, thread) = AdminServer::spawn(socket, http)?;
    Ok(Admin { listen, server, thread, _file: file })
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

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}
