//! The shell that runs everything: threads, cores, signals. glommio is the executor of every shard.
//!
//! * `core`: one shard on its executor: turn, yield, park.
//! * `desk`: the sequencer, and how sources share it.
//! * `threads`: the feeds, and the thread that sends an overrun shard its state again.
//! * `park`: how a shard sleeps and is woken.

mod core;
mod desk;
mod park;
mod threads;

pub use self::desk::{BATCH_BYTES_MAX, Desk};
pub use self::park::Parking;
pub use self::threads::pin;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::core::{Core, CoreError};

use crate::check::{Needs, Survey, Unfit};
use crate::config::{Config, Machine};
use crate::door::{self, Public};
use crate::ring;
use crate::sequencer::{Sequencer, SourceId};
use crate::stats::{Published, SequencerStats};

/// Why the server could not start: what is wrong, the likely cause, what mends it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("log: {0:?} is not a log filter; have error, warn, info, debug, or a list like info,tickcast::door=debug")]
    Log(String),
    #[error("the system does not tell which cores this process may use")]
    Cores,
    #[error(transparent)]
    Machine(#[from] Unfit),
    #[error(transparent)]
    Listen(#[from] door::listen::ListenError),
    #[error("feed {0}")]
    Feed(#[from] crate::feed::OpenError),
    #[error("core {core}: {error}")]
    Core { core: usize, error: CoreError },
    #[error("a thread could not be started: {0}; the limit of processes may be too low: 'ulimit -u'")]
    Thread(std::io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// ns since the Unix epoch.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
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

/// Logs to stderr what passes the filter.
pub fn log_to_stderr(filter: &str) -> Result<(), StartError> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter).map_err(|_| StartError::Log(filter.to_owned()))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second subscriber in one process (a test's) is no fault.
    let _ = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(ansi).try_init();
    Ok(())
}

/// Serves until a signal, then sends all clients away and returns.
pub fn serve(config: &Config) -> Result<(), StartError> {
    let survey = Survey::here(Needs::of(config));
    survey.refusal()?;
    if let Some(warning) = survey.warning() {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(StartError::Signals)?;
    let server = Server::start(config)?;
    // Nobody reads it where stdout is closed; that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "serving on http://{}", server.address);
    signals.forever().next();
    tracing::info!("stopping; a second signal ends at once");
    std::thread::Builder::new()
        .name("second-signal".to_owned())
        .spawn(move || {
            signals.forever().next();
            std::process::exit(1);
        })
        .map_err(StartError::Thread)?;
    server.stop();
    Ok(())
}

/// A running server.
struct Server {
    address: SocketAddr,
    cores: Vec<Core>,
    public: Arc<Public>,
    resync: JoinHandle<()>,
    feeds: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(config: &Config) -> Result<Self, StartError> {
        let feeds = config.feeds.iter().map(crate::feed::Spec::open).collect::<Result<Vec<_>, _>>()?;
        let listeners = door::listen::bind(config.listen, config.cores.len(), config.send_buffer_bytes)?;
        let address = listeners.address;
        let (writers, readers): (Vec<_>, Vec<_>) = config.cores.iter().map(|_| ring::ring(config.ring_bytes)).unzip();
        let gauges: Vec<_> = writers.iter().map(ring::Writer::gauge).collect();
        let stats = Arc::new(SequencerStats::default());
        let sequencer = Sequencer::new(writers, config.instruments_max).with_book_levels_max(config.book_levels_max);
        let (desk, orders) = Desk::new(sequencer, gauges, stats.clone());
        let public = Arc::new(Public {
            config: config.clone(),
            desk,
            shards: config.cores.iter().map(|_| Published::default()).collect(),
            sequencer: stats,
            stopping: Arc::new(AtomicBool::new(false)),
            publishers: Arc::new(door::publish::Publishers::after(config.feeds.len() as SourceId)),
            addresses: Arc::default(),
        });
        let cores = start_cores(&public, listeners.sockets, readers)?;
        public.desk.attach(cores.iter().map(|core| core.parking.clone()).collect());
        let other = |nth: usize| config.other_cores[nth % config.other_cores.len()];
        let resync = threads::spawn_resync(public.clone(), orders, other(0)).map_err(StartError::Thread)?;
        let mut running = Vec::new();
        for (nth, feed) in feeds.into_iter().enumerate().filter_map(|(nth, feed)| Some((nth, feed?))) {
            let spec = config.feeds[nth].clone();
            let thread = threads::spawn_feed(spec, feed, nth as SourceId, public.clone(), other(nth));
            running.push(thread.map_err(StartError::Thread)?);
        }
        Ok(Self { address, public, cores, resync, feeds: running })
    }

    fn stop(mut self) {
        // Relaxed: the flag stands for itself; the wake-ups below order it for those who sleep.
        self.public.stopping.store(true, Ordering::Relaxed);
        for core in &self.cores {
            core.parking.wake();
        }
        for core in std::mem::take(&mut self.cores) {
            core.join();
        }
        for feed in std::mem::take(&mut self.feeds) {
            let _ = feed.join();
        }
        self.await_publishers();
        self.public.desk.stop();
        let _ = self.resync.join();
    }
}

impl Server {
    /// Gives publishers the time to hear that the server stops.
    fn await_publishers(&self) {
        const LOOK_INTERVAL: Duration = Duration::from_millis(10);
        let until = Instant::now() + Duration::from_millis(self.public.config.drain_timeout_ms.into());
        while self.public.publishers.connected() > 0 && Instant::now() < until {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// Starts one shard a core, and waits until each of them listens, or says why it cannot.
fn start_cores(
    public: &Arc<Public>,
    sockets: Vec<std::net::TcpListener>,
    readers: Vec<ring::Reader>,
) -> Result<Vec<Core>, StartError> {
    let mut cores = Vec::new();
    for (index, (socket, reader)) in sockets.into_iter().zip(readers).enumerate() {
        let core = public.config.cores[index];
        let (report, started) = mpsc::channel();
        let spawned = core::spawn(index, core, public.clone(), socket, reader, report);
        let outcome = spawned.and_then(|thread| {
            let parking = started.recv().map_err(|_| CoreError::Died)??;
            Ok(Core { parking, thread })
        });
        cores.push(outcome.map_err(|error| StartError::Core { core, error })?);
    }
    Ok(cores)
}
