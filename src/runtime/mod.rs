//! The shell that runs everything: threads, cores, signals. glommio is the executor of every shard.
//!
//! * `core`: one shard on its executor: turn, yield, park.
//! * `clock`: the time.
//! * `lifecycle`: how far the server is on its way, and what has gone wrong with it.
//! * `sequencer`: the sequencer, and how sources share it.
//! * `threads`: the feeds, and the thread that sends an overrun shard its state again.
//! * `bars`: the thread that makes bars of trades and quotes.
//! * `park`: how a shard sleeps and is woken; `asleep` is the part of it that loses no wake-up.

mod shard_thread;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, unbounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;

use self::shard_thread::{ShardCommand, ShardStartError, ShardThread};
use crate::bars::{self, BarStore, Bars};
use crate::check::{Needs, Survey, Unfit};
use crate::clock::now_ns;
use crate::config::{BARS_RING_BYTES, Config, Machine, Reloaded};
use crate::http::{self, HttpShared};
use crate::ingest::{Publishers, SequencerHandle, feed, supervisor};
use crate::lifecycle::{Event, Lifecycle, Stage};
use crate::ring;
use crate::sequencer::{Sequencer, SequencerStats, SourceId};
use crate::state::{ServerState, SlowClientList};
use crate::stats::PublishedCounters;

/// Why the server could not start: what is wrong, the likely cause, what mends it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("log: {0:?} is not a log filter; have error, warn, info, debug, or a list like info,tickcast::http=debug")]
    Log(String),
    #[error("the system does not tell which cores this process may use")]
    Cores,
    #[error(transparent)]
    Machine(#[from] Unfit),
    #[error(transparent)]
    Listen(#[from] http::listener::ListenError),
    #[error("feed {0}")]
    Feed(#[from] feed::OpenError),
    #[error("core {core}: {error}")]
    Core { core: usize, error: ShardStartError },
    #[error("a thread could not be started: {0}; the limit of processes may be too low: 'ulimit -u'")]
    Thread(std::io::Error),
    #[error("{0}; the log says why")]
    Failed(String),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// A number for this run: another one than before whenever the server was started in another hundredth of a second. A run
/// that followed another faster would take the other's tokens for its own. It comes round after 497 days.
pub fn new_epoch() -> u32 {
    (now_ns() / 10_000_000) as u32
}

/// What the machine has. Raises the descriptor limit as far as it may be raised.
pub fn machine() -> Result<Machine, StartError> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let cores = core_affinity::get_core_ids().filter(|cores| !cores.is_empty()).ok_or(StartError::Cores)?;
    Ok(Machine { cores: cores.into_iter().map(|core| core.id).collect(), descriptors_max })
}

/// What is logged can be changed while the server runs.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

/// Logs to stderr what passes the filter.
pub fn log_to_stderr(filter: &str) -> Result<Log, StartError> {
    let parsed = parse_filter(filter)?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(ansi);
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    // A second subscriber in one process (a test's) is no fault.
    let _ = builder.try_init();
    Ok(Log(Box::new(move |filter| handle.reload(filter))))
}

fn parse_filter(filter: &str) -> Result<EnvFilter, StartError> {
    EnvFilter::try_new(filter).map_err(|_| StartError::Log(filter.to_owned()))
}

/// Serves until a signal, then sends all clients away and returns. SIGHUP has `read_again` read the settings.
pub fn serve<E: std::fmt::Display>(
    config: &Config,
    log: &Log,
    read_again: impl Fn() -> Result<Config, E>,
) -> Result<(), StartError> {
    let survey = Survey::here(Needs::of(config));
    survey.refusal()?;
    if let Some(warning) = survey.warning() {
        tracing::warn!("{warning}");
    }
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(StartError::Signals)?;
    let (lifecycle, events) = Lifecycle::begin();
    let lifecycle = Arc::new(lifecycle);
    let reports = lifecycle.events();
    let mut server = Server::start(config, lifecycle)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || pass_on(signals, &reports))
        .map_err(StartError::Thread)?;
    // Nobody reads it where stdout is closed; that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "serving on http://{}", server.address);
    for event in events {
        match event {
            Event::Reload => server.reload(log, read_again()),
            Event::Stop | Event::Failed => break,
        }
    }
    server.stop()
}

/// Has the main thread know of signals. A second one that asks for the end gets it at once.
fn pass_on(mut signals: Signals, events: &Sender<Event>) {
    /// As after any other death by a signal that was not waited for.
    const ENDED_AT_ONCE: i32 = 1;
    let mut stopping = false;
    for signal in signals.forever() {
        if signal != SIGHUP && std::mem::replace(&mut stopping, true) {
            std::process::exit(ENDED_AT_ONCE);
        }
        // The main thread lives as long as the process.
        let _ = events.send(if signal == SIGHUP { Event::Reload } else { Event::Stop });
    }
}

/// How often it is looked whether others have come to an end.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long they have beyond what the settings say.
const GRACE: Duration = Duration::from_secs(1);

/// A running server.
struct Server {
    address: SocketAddr,
    cores: Vec<ShardThread>,
    state: Arc<ServerState>,
    resync: JoinHandle<()>,
    bars: Option<JoinHandle<()>>,
    feeds: Vec<JoinHandle<()>>,
    /// In effect.
    config: Config,
}

impl Server {
    fn start(config: &Config, lifecycle: Arc<Lifecycle>) -> Result<Self, StartError> {
        let feeds = config.feeds.iter().map(feed::Spec::open).collect::<Result<Vec<_>, _>>()?;
        let listeners = http::listener::bind(config.listen, config.cores.len(), config.send_buffer_bytes)?;
        let address = listeners.address;
        let (writers, readers): (Vec<_>, Vec<_>) = config.cores.iter().map(|_| ring::ring(config.ring_bytes)).unzip();
        let gauges: Vec<_> = writers.iter().map(ring::Writer::gauge).collect();
        let stats = Arc::new(SequencerStats::default());
        let mut sequencer =
            Sequencer::new(writers, config.instruments_max).with_book_levels_max(config.book_levels_max);
        let (mut bars, mut bar_thread) = (None, None);
        if config.bars_bytes > 0 {
            let (writer, bars_ring) = ring::ring(BARS_RING_BYTES);
            let store = Arc::new(BarStore::new(Bars::new(config.bars_bytes, now_ns()), writer.gauge()));
            sequencer = sequencer.with_bars_ring(writer);
            bar_thread = Some(bars::spawn(store.clone(), bars_ring, lifecycle.clone()).map_err(StartError::Thread)?);
            bars = Some(store);
        }
        let (sequencer, commands) =
            SequencerHandle::new(sequencer, gauges, stats.clone(), lifecycle.clone(), bars.clone());
        let state = Arc::new(ServerState {
            config: config.clone(),
            sequencer: Arc::new(sequencer),
            shards: config.cores.iter().map(|_| PublishedCounters::default()).collect(),
            slow_clients: config.cores.iter().map(|_| SlowClientList::default()).collect(),
            sequencer_stats: stats,
            bars,
            started_ns: now_ns(),
            lifecycle,
            publishers: Arc::new(Publishers::after(config.feeds.len() as SourceId)),
        });
        let http = Arc::new(HttpShared::new(state.clone()));
        let cores = start_cores(&http, listeners.sockets, readers)?;
        state.sequencer.attach(cores.iter().map(|core| core.waker.clone()).collect());
        let other = |nth: usize| config.other_cores[nth % config.other_cores.len()];
        let resync = supervisor::spawn_resync(state.sequencer.clone(), commands, config.stale_ms, other(0))
            .map_err(StartError::Thread)?;
        let mut running = Vec::new();
        for (nth, feed) in feeds.into_iter().enumerate().filter_map(|(nth, feed)| Some((nth, feed?))) {
            let spec = config.feeds[nth].clone();
            let thread = supervisor::spawn_feed(spec, feed, nth as SourceId, state.sequencer.clone(), other(nth));
            running.push(thread.map_err(StartError::Thread)?);
        }
        Ok(Self { address, state, cores, resync, bars: bar_thread, feeds: running, config: config.clone() })
    }

    /// Has other settings in effect, as far as they can be; or none of them, where one cannot be read.
    fn reload<E: std::fmt::Display>(&mut self, log: &Log, read: Result<Config, E>) {
        let refused = |why: &dyn std::fmt::Display| tracing::error!("SIGHUP: nothing was changed: {why}");
        let mut config = match read {
            Ok(config) => config,
            Err(error) => return refused(&error),
        };
        let filter = match parse_filter(&config.log) {
            Ok(filter) => filter,
            Err(error) => return refused(&error),
        };
        let Reloaded { changed, fixed } = config.reload(&self.config);
        self.config = config.clone();
        let config = Arc::new(config);
        for core in &self.cores {
            core.tell(ShardCommand::Settings(config.clone()));
        }
        let changed = if changed.is_empty() { "nothing has changed".to_owned() } else { changed.join(", ") };
        tracing::info!("SIGHUP: settings were read again: {changed}");
        if !fixed.is_empty() {
            tracing::warn!("SIGHUP: not changed, as it takes a new start: {}", fixed.join(", "));
        }
        if let Err(error) = (log.0)(filter) {
            tracing::error!("SIGHUP: the log's filter was not changed: {error}");
        }
    }

    /// Sends all clients away, and ends. Until the last of them has gone the door answers: who looks whether the server is
    /// ready learns that it is not, and who wants in learns that it should go elsewhere, rather than run into a reset.
    fn stop(self) -> Result<(), StartError> {
        let Config { drain_ms, drain_timeout_ms, .. } = self.config;
        tracing::info!("stopping: clients are sent away over {drain_ms} ms; a second signal ends at once");
        self.state.lifecycle.enter(Stage::Draining);
        self.await_handed_in();
        let (gone, all_gone) = crossbeam::channel::bounded(self.cores.len());
        for core in &self.cores {
            core.tell(ShardCommand::Drain { over_ms: drain_ms, timeout_ms: drain_timeout_ms, gone: gone.clone() });
        }
        drop(gone);
        let longest = Duration::from_millis(u64::from(drain_ms) + u64::from(drain_timeout_ms)) + GRACE;
        let until = Instant::now() + longest;
        // A core that has died has dropped its end.
        for _ in 0..self.cores.len() {
            let _ = all_gone.recv_deadline(until);
        }
        self.end()
    }

    /// Waits until what publishers had handed in when the server began to stop is sequenced: it goes out before clients
    /// are told to go. Publishers and feeds go on meanwhile, so that those who are told last are served till then.
    fn await_handed_in(&self) {
        let until = Instant::now() + GRACE;
        while !self.state.publishers.have_handed_in() && Instant::now() < until {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn end(self) -> Result<(), StartError> {
        self.state.lifecycle.enter(Stage::Stopping);
        for feed in self.feeds {
            let _ = feed.join();
        }
        // Publishers hear that the server stops.
        let until = Instant::now() + Duration::from_millis(self.config.drain_timeout_ms.into());
        while self.state.publishers.connected() > 0 && Instant::now() < until {
            std::thread::sleep(LOOK_INTERVAL);
        }
        for core in &self.cores {
            core.tell(ShardCommand::Stop);
        }
        for core in self.cores {
            core.join();
        }
        self.state.sequencer.stop();
        let _ = self.resync.join();
        if let (Some(store), Some(thread)) = (&self.state.bars, self.bars) {
            store.stop();
            let _ = thread.join();
        }
        match self.state.lifecycle.failure() {
            Some(failure) => Err(StartError::Failed(failure.to_owned())),
            None => Ok(()),
        }
    }
}

/// Starts one shard a core, and waits until each of them listens, or says why it cannot.
fn start_cores(
    http: &Arc<HttpShared>,
    sockets: Vec<std::net::TcpListener>,
    readers: Vec<ring::Reader>,
) -> Result<Vec<ShardThread>, StartError> {
    let mut cores = Vec::new();
    for (index, (socket, reader)) in sockets.into_iter().zip(readers).enumerate() {
        let core = http.state.config.cores[index];
        let (report, started) = mpsc::channel();
        let (commands, received) = unbounded();
        let spawned = shard_thread::spawn(index, core, http.clone(), socket, reader, received, report);
        let outcome = spawned.and_then(|thread| {
            let waker = started.recv().map_err(|_| ShardStartError::Died)??;
            Ok(ShardThread { waker, thread, commands })
        });
        cores.push(outcome.map_err(|error| StartError::Core { core, error })?);
    }
    Ok(cores)
}
