//! One shard on its executor: glommio pins the thread, runs the door's tasks and timers, and parks the core; one task
//! drives the hot ring.
//!
//! * Busy: turn after turn; the executor gets a look whenever it wants one (a handshake's bytes, a timer).
//! * Idle: let the ring's eventfd signal, look once more, sleep on it through glommio, or until the shard's deadline.
//! * Woken too often: nap for half a millisecond, so that one wake-up serves what would have been several.
//!
//! The read of the eventfd is one future that lives across sleeps. Were it dropped whenever a deadline comes first, the
//! cancelled read could still swallow a signal meant for the next.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};
use glommio::io::BufferedFile;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::clock::{self, now_ns};
use crate::config::Config;
use crate::http::{HttpServer, HttpShared, listener};
use crate::io::uring::{SetupError, Uring, adopt_fd};
use crate::ring;
use crate::shard::Shard;
use crate::stats::Counter;
use crate::wake::ShardWaker;

/// Memory that glommio registers for files: we read eventfds only.
const FILE_BYTES: usize = 64 * 1024;
/// How long an idle shard goes on turning before it sleeps: shorter than a sleep and a wake-up take.
const SPIN_NS: u64 = 20_000;
/// A sleep shorter than this was not worth it: to sleep and be woken costs some 30 us of the core's time, a send 5. Ticks
/// that come one by one, faster than every half millisecond, are gathered for as long; slower ones leave at once.
const NAP: Duration = Duration::from_micros(500);
/// How often a busy shard shows its counters.
const PUBLISH_NS: u64 = clock::STEER_INTERVAL_NS;

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
pub enum ShardStartError {
    #[error(transparent)]
    Ring(#[from] SetupError),
    #[error("{0}")]
    Event(io::Error),
    #[error(
        "glommio could not start: {0}; if it is locked memory, 'ulimit -l unlimited' (LimitMEMLOCK=infinity in a unit) mends it; \
         if it is io_uring, 'sysctl -w kernel.io_uring_disabled=0' does"
    )]
    Executor(String),
    #[error("the shard's thread died at its start; the lines above say why")]
    Died,
}

/// What a core is told.
#[derive(Clone, Debug)]
pub enum ShardCommand {
    /// Other settings are in effect.
    Settings(Arc<Config>),
    /// Send all clients away, and say when they have gone.
    Drain { over_ms: u32, timeout_ms: u32, gone: Sender<()> },
    /// End.
    Stop,
}

/// A shard's thread.
pub struct ShardThread {
    pub waker: Arc<ShardWaker>,
    pub thread: ExecutorJoinHandle<()>,
    pub commands: Sender<ShardCommand>,
}

impl ShardThread {
    /// Tells the core something.
    pub fn tell(&self, command: ShardCommand) {
        // A core that has died hears nothing, and its death is known.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    /// Waits for the end of the shard.
    pub fn join(self) {
        if let Err(error) = self.thread.join() {
            tracing::error!("a shard's executor ended badly: {error}");
        }
    }
}

/// Starts the executor of a shard; `report` is told once how the start went.
pub fn spawn(
    index: usize,
    core: usize,
    http: Arc<HttpShared>,
    socket: TcpListener,
    ring: ring::Reader,
    commands: Receiver<ShardCommand>,
    report: mpsc::Sender<Result<Arc<ShardWaker>, ShardStartError>>,
) -> Result<ExecutorJoinHandle<()>, ShardStartError> {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("shard-{index}"))
        .io_memory(FILE_BYTES)
        .spawn(move || async move {
            let name = format!("shard {index}");
            let _watch = http.state.lifecycle.watch(&name);
            match set_up(&http, ring) {
                Ok((shard, waker)) => {
                    // The starter may have given up on another core; then nobody listens, and this one ends as well.
                    if report.send(Ok(waker.clone())).is_ok() {
                        run(index, http.clone(), socket, shard, waker, commands).await;
                    }
                }
                Err(error) => drop(report.send(Err(error))),
            }
        })
        .map_err(|error| ShardStartError::Executor(error.to_string()))
}

fn set_up(http: &HttpShared, ring: ring::Reader) -> Result<(Shard<Uring>, Arc<ShardWaker>), ShardStartError> {
    let uring = Uring::new(http.state.config.slots_per_shard())?;
    let waker = Arc::new(ShardWaker::new(uring.wake_fd().map_err(ShardStartError::Event)?));
    Ok((Shard::new(http.state.config.shard.clone(), uring, ring), waker))
}

async fn run(
    index: usize,
    http: Arc<HttpShared>,
    socket: TcpListener,
    shard: Shard<Uring>,
    waker: Arc<ShardWaker>,
    commands: Receiver<ShardCommand>,
) {
    let event = match shard.io().wake_fd() {
        Ok(event) => adopt_fd::<BufferedFile>(event),
        Err(error) => return tracing::error!("shard {index}: its eventfd cannot be duplicated: {error}"),
    };
    let shard = Rc::new(RefCell::new(shard));
    let server = Rc::new(HttpServer::new(index, shard.clone(), http.clone(), waker.clone()));
    let accepting = listener::spawn(server.clone(), socket);
    let mut driver = ShardDriver {
        index,
        http,
        waker,
        shard,
        server,
        commands,
        drain: None,
        published_ns: 0,
        worked_ns: 0,
        alarm: None,
        short_sleep: false,
    };
    let mut signal = Box::pin(event.read_at(0, 8));
    while driver.handle_commands() {
        if driver.tick_is_idle() {
            if driver.should_nap() {
                glommio::timer::sleep(NAP).await;
            }
            if driver.may_sleep() {
                if driver.sleep(signal.as_mut()).await {
                    signal.set(event.read_at(0, 8));
                }
                driver.woken();
                // What it was woken for comes before the executor's other tasks.
                continue;
            }
        }
        glommio::yield_if_needed().await;
    }
    accepting.cancel();
}

/// What one shard's task works with.
struct ShardDriver {
    index: usize,
    http: Arc<HttpShared>,
    waker: Arc<ShardWaker>,
    shard: Rc<RefCell<Shard<Uring>>>,
    server: Rc<HttpServer>,
    commands: Receiver<ShardCommand>,
    drain: Option<DrainWait>,
    published_ns: u64,
    worked_ns: u64,
    alarm: Option<Alarm>,
    /// The last sleep was shorter than a nap.
    short_sleep: bool,
}

/// Until when clients that were sent away have to be gone, and who waits for it.
struct DrainWait {
    until_ns: u64,
    gone: Sender<()>,
}

/// A timer that lives across sleeps.
struct Alarm {
    at_ns: u64,
    timer: Pin<Box<dyn Future<Output = ()>>>,
}

impl ShardDriver {
    /// Does what it was told. False if that is to end.
    fn handle_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                ShardCommand::Settings(config) => {
                    self.shard.borrow_mut().change_settings(config.shard.clone());
                    self.server.change_settings(config);
                }
                ShardCommand::Drain { over_ms, timeout_ms, gone } => {
                    let now_ns = now_ns();
                    let until_ns = now_ns + (u64::from(over_ms) + u64::from(timeout_ms)) * 1_000_000;
                    self.shard.borrow_mut().begin_drain(over_ms, now_ns);
                    self.server.end_echoes();
                    self.drain = Some(DrainWait { until_ns, gone });
                }
                ShardCommand::Stop => return false,
            }
        }
        true
    }

    /// Says that all clients have gone, or that they have had their time.
    fn report_gone(&mut self, now_ns: u64, clients: usize) {
        let nobody = clients == 0 && self.server.echoes() == 0;
        if let Some(drain) = self.drain.take_if(|drain| nobody || now_ns >= drain.until_ns) {
            // Who waited may have given up.
            let _ = drain.gone.send(());
        }
    }

    /// Turns once. True if the shard has had nothing to do for a while.
    fn tick_is_idle(&mut self) -> bool {
        let now_ns = now_ns();
        let mut shard = self.shard.borrow_mut();
        let worked = shard.tick(now_ns);
        self.report_clients(&mut shard);
        if shard.wants_resync() && self.http.state.sequencer.request_resync(self.index) {
            shard.resync_requested();
        }
        if worked {
            self.worked_ns = clock::now_ns();
            shard.counters_mut().raise(Counter::TickNsMax, self.worked_ns.saturating_sub(now_ns));
        }
        if now_ns - self.published_ns.min(now_ns) > PUBLISH_NS {
            self.published_ns = now_ns;
            if self.index == 0 {
                clock::steer();
            }
            self.server.set_levels(shard.counters_mut());
            self.http.state.shards[self.index].publish(shard.counters());
        }
        let clients = shard.clients();
        drop(shard);
        self.report_gone(now_ns, clients);
        now_ns.saturating_sub(self.worked_ns) > SPIN_NS
    }

    /// Tells the door what a turn has come to.
    fn report_clients(&self, shard: &mut Shard<Uring>) {
        self.server.release_slots(shard.take_departed());
        if let Some(slowest) = shard.take_slowest() {
            self.server.publish_slow_clients(slowest);
        }
    }

    /// True if the last sleep was too short to be worth it.
    fn should_nap(&mut self) -> bool {
        std::mem::take(&mut self.short_sleep)
    }

    /// Lets the shard be woken, then looks once more for work. True if there is none.
    fn may_sleep(&mut self) -> bool {
        self.waker.prepare_sleep();
        let mut shard = self.shard.borrow_mut();
        shard.io_mut().arm();
        let worked =
            shard.tick(now_ns()) || shard.has_new_records() || shard.wants_resync() || !self.commands.is_empty();
        self.report_clients(&mut shard);
        self.server.set_levels(shard.counters_mut());
        self.http.state.shards[self.index].publish(shard.counters());
        if worked {
            drop(shard);
            self.woken();
        }
        !worked
    }

    /// Sleeps until the eventfd signals (true) or the shard's deadline comes (false).
    async fn sleep<T>(&mut self, signal: Pin<&mut impl Future<Output = T>>) -> bool {
        let signalled = async {
            signal.await;
            true
        };
        // The last echo does not wake this task as it goes, so that the task has to look.
        const ECHO_LOOK_NS: u64 = 20_000_000;
        let look_ns = if self.server.echoes() > 0 { now_ns() + ECHO_LOOK_NS } else { u64::MAX };
        let drain_ns = self.drain.as_ref().map(|drain| drain.until_ns.min(look_ns));
        let deadline_ns = self.shard.borrow().deadline_ns().into_iter().chain(drain_ns).min();
        let from_ns = now_ns();
        let was_signalled = match self.alarm_before(deadline_ns) {
            None => signalled.await,
            Some(alarm) => {
                let due = async {
                    alarm.timer.as_mut().await;
                    false
                };
                futures_lite::future::or(signalled, due).await
            }
        };
        if !was_signalled {
            self.alarm = None;
        }
        self.short_sleep = was_signalled && now_ns().saturating_sub(from_ns) < NAP.as_nanos() as u64;
        was_signalled
    }

    /// The alarm that was set, if it is early enough, else a new one; none where nothing is due. To set one and cancel it
    /// for every sleep costs glommio four system calls, more than a tick; to wake early now and then costs an empty turn.
    fn alarm_before(&mut self, deadline_ns: Option<u64>) -> Option<&mut Alarm> {
        if let Some(at_ns) = deadline_ns
            && self.alarm.as_ref().is_none_or(|alarm| alarm.at_ns > at_ns)
        {
            let left = Duration::from_nanos(at_ns.saturating_sub(now_ns()));
            self.alarm = Some(Alarm { at_ns, timer: Box::pin(glommio::timer::sleep(left)) });
        }
        self.alarm.as_mut()
    }

    fn woken(&mut self) {
        self.waker.end_sleep();
        self.shard.borrow_mut().io_mut().disarm();
        self.worked_ns = now_ns();
    }
}
