//! Drives one shard on its executor: tick after tick while there is work, sleep while there is none.
//!
//! * Busy: tick; between two ticks the executor's other tasks run if there are any (a handshake, a response).
//! * Idle for [`spin_ns`]: raise the sleep flag, check once more for work, and sleep until the shard's ring has a
//!   completion (which a wake-up by another thread is as well), or until the shard's next deadline.
//! * Woken too often by records: rest for [`NAP`] first, so that one wake-up serves what would have been several. Records
//!   do not wait for what clients send, however often that wakes the shard.
//!
//! # Two ways to sleep
//!
//! While no connection is being accepted or served, the executor has nothing to do, and the thread waits for the shard's
//! ring itself: one system call. Otherwise it sleeps through glommio, on an eventfd that the ring signals, so that
//! the other tasks run: some ten system calls. The executor is known to be settled after a sleep through glommio before
//! and after which there was no task: glommio has then submitted all that the last tasks had left to it (the close of a
//! socket). It stays settled until new connections are reported, and those are a completion of the shard's ring.
//!
//! The read of that eventfd is one future that lives across sleeps. If it were dropped whenever a deadline comes first,
//! the cancelled read could still consume a signal meant for the next one.
//!
//! # A panic
//!
//! is caught here, so that the executor lives on and HTTP says that the server is not ready. The hook in [`super::panics`]
//! has reported it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use futures_lite::FutureExt;
use glommio::io::BufferedFile;

use crate::clock::{self, now_ns};
use crate::config::Config;
use crate::fault;
use crate::http::{HttpServer, HttpShared, Listener, ShardIo, listener};
use crate::io::descriptor;
use crate::memory;
use crate::shard::Shard;
use crate::stats::Counter;
use crate::wake::{ShardWaker, SleepPlace};

/// How long an idle shard keeps ticking before it sleeps: about what a sleep and a wake-up there take of the core's time.
/// A shard that ticks longer keeps a publisher's thread on the same core from running.
const fn spin_ns(place: SleepPlace) -> u64 {
    match place {
        SleepPlace::Ring => 3_000,
        SleepPlace::Executor => 20_000,
    }
}
/// Records that come one by one, more often than this, are gathered for this long: what a sleep and a send take is less
/// than two sends. Less frequent ones are sent at once.
const NAP: Duration = Duration::from_micros(500);
/// How often a busy shard publishes its counters.
const PUBLISH_NS: u64 = 50_000_000;
/// How often a draining shard checks for the end of echoes: an echo does not wake this task when it ends.
const ECHO_CHECK_NS: u64 = 20_000_000;
/// How often a shard that has panicked accepts connections, to refuse them.
const FAILED_INTERVAL: Duration = Duration::from_millis(10);

/// What the main thread asks of a shard.
#[derive(Clone, Debug)]
pub(super) enum ShardCommand {
    /// Apply these settings.
    ChangeSettings(Arc<Config>),
    /// Close all clients over `over_ms`. Send `drained` once all have closed, or `timeout_ms` after that.
    Drain { over_ms: u32, timeout_ms: u32, drained: Sender<()> },
    /// End the thread.
    Stop,
}

/// Runs a shard and its HTTP server until [`ShardCommand::Stop`].
pub(super) async fn run(
    index: usize,
    http: Arc<HttpShared>,
    sockets: Vec<(Listener, TcpListener)>,
    shard: Shard<ShardIo>,
    waker: Arc<ShardWaker>,
    commands: Receiver<ShardCommand>,
) {
    let mut shard = shard;
    let uring = shard.io_mut().io_mut();
    let mut watched = sockets.iter().map(|(_, socket)| uring.watch_listener(socket));
    let watched = watched.try_for_each(|watched| watched).and_then(|()| shard.io().io().completed_fd());
    let event = match watched {
        Ok(event) => descriptor::file(event),
        Err(error) => return tracing::error!("shard {index}: a descriptor could not be duplicated: {error}"),
    };
    let shard = Rc::new(RefCell::new(shard));
    let server = Rc::new(HttpServer::new(index, shard.clone(), http.clone(), waker.clone()));
    let listener = listener::spawn(server.clone(), sockets);
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
        records_ns: 0,
        are_records_frequent: false,
        is_settled: false,
    };
    let driven = AssertUnwindSafe(driver.drive(&event)).catch_unwind().await;
    if driven.is_err() {
        // The hook of the process has reported it, and the server drains.
        driver.close_all().await;
    }
    listener.cancel();
}

/// The task of one shard.
struct ShardDriver {
    index: usize,
    http: Arc<HttpShared>,
    waker: Arc<ShardWaker>,
    shard: Rc<RefCell<Shard<ShardIo>>>,
    server: Rc<HttpServer>,
    commands: Receiver<ShardCommand>,
    drain: Option<DrainRequest>,
    published_ns: u64,
    /// End of the last tick that did something.
    worked_ns: u64,
    alarm: Option<Alarm>,
    /// When records last woke the shard.
    records_ns: u64,
    /// That was less than a nap after the time before.
    are_records_frequent: bool,
    /// The executor has nothing to do, and nothing left to submit.
    is_settled: bool,
}

/// A drain that the main thread waits for, until `until_ns` at most.
struct DrainRequest {
    until_ns: u64,
    drained: Sender<()>,
}

/// A timer that lives across sleeps.
struct Alarm {
    at_ns: u64,
    timer: Pin<Box<dyn Future<Output = ()>>>,
}

impl ShardDriver {
    /// Ticks and sleeps until [`ShardCommand::Stop`]. `event` is signalled by completions while the ring is armed.
    async fn drive(&mut self, event: &BufferedFile) {
        let mut signal = Box::pin(event.read_at(0, 8));
        while self.handle_commands() {
            let is_idle = self.tick_is_idle();
            self.notify_listener();
            if is_idle && self.should_nap() {
                self.nap().await;
            } else if is_idle && self.may_sleep() {
                let place = self.place();
                if place == SleepPlace::Ring {
                    self.sleep();
                } else if self.sleep_in_executor(signal.as_mut()).await {
                    signal.set(event.read_at(0, 8));
                }
                self.wake_up(place);
                // The work that woke the shard comes before the executor's other tasks.
            } else if !self.is_settled {
                futures_lite::future::yield_now().await;
            }
        }
    }

    /// After a panic of a tick: closes all connections, since the state of the shard is not known, and leaves HTTP to
    /// answer until [`ShardCommand::Stop`]. Connections are polled for, because the shard's ring reports none.
    async fn close_all(&mut self) {
        self.shard.borrow_mut().io_mut().io_mut().close_all();
        loop {
            match self.commands.try_recv() {
                Ok(ShardCommand::Stop) | Err(TryRecvError::Disconnected) => return,
                // The main thread does not wait for a shard whose sender is dropped.
                Ok(ShardCommand::Drain { .. }) => self.server.end_echoes(),
                Ok(ShardCommand::ChangeSettings(_)) | Err(TryRecvError::Empty) => {}
            }
            self.server.notify_listener();
            glommio::timer::sleep(FAILED_INTERVAL).await;
        }
    }

    /// Executes the queued commands; false to end.
    fn handle_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                ShardCommand::ChangeSettings(config) => {
                    self.shard.borrow_mut().change_settings(config.shard.clone());
                    self.server.change_settings(config);
                }
                ShardCommand::Drain { over_ms, timeout_ms, drained } => {
                    let now_ns = now_ns();
                    let until_ns = now_ns + (u64::from(over_ms) + u64::from(timeout_ms)) * 1_000_000;
                    self.shard.borrow_mut().begin_drain(over_ms, now_ns);
                    self.server.end_echoes();
                    self.drain = Some(DrainRequest { until_ns, drained });
                }
                ShardCommand::Stop => return false,
            }
        }
        true
    }

    /// Runs one tick. True if the shard has been idle for [`spin_ns`].
    fn tick_is_idle(&mut self) -> bool {
        let now_ns = now_ns();
        self.http.state.heartbeats.beat(self.index);
        let mut shard = self.shard.borrow_mut();
        fault::point_of("tick", self.index);
        shard.set_wall_offset(clock::wall_offset_ns());
        let worked = shard.tick(now_ns);
        drop(shard);
        let has_credentials = self.server.serve_credentials();
        let mut shard = self.shard.borrow_mut();
        let worked = worked || has_credentials;
        shard.set_memory_short(memory::pressure());
        self.publish_clients(&mut shard);
        if shard.wants_resync() && self.http.state.sequencer.request_resync(self.index) {
            shard.resync_requested();
        }
        if worked {
            self.worked_ns = clock::now_ns();
            shard.counters_mut().raise(Counter::TickNsMax, self.worked_ns.saturating_sub(now_ns));
        }
        if now_ns - self.published_ns.min(now_ns) > PUBLISH_NS {
            self.published_ns = now_ns;
            self.publish_counters(&mut shard);
        }
        let clients = shard.clients();
        drop(shard);
        self.report_drained(now_ns, clients);
        now_ns.saturating_sub(self.worked_ns) > spin_ns(self.place())
    }

    /// Passes on which clients have closed and which are slow.
    fn publish_clients(&self, shard: &mut Shard<ShardIo>) {
        self.server.release_slots(shard.take_departed());
        self.server.settle_sessions(shard);
        if let Some(slowest) = shard.take_slowest() {
            self.server.publish_slow_clients(slowest);
        }
    }

    fn publish_counters(&self, shard: &mut Shard<ShardIo>) {
        self.server.set_levels(shard);
        self.http.state.shards[self.index].publish(shard.counters());
    }

    /// Reports that all clients have closed or have had their time.
    fn report_drained(&mut self, now_ns: u64, clients: usize) {
        let is_empty = clients == 0 && self.server.echoes() == 0;
        if let Some(drain) = self.drain.take_if(|drain| is_empty || now_ns >= drain.until_ns) {
            // Fails if the main thread no longer waits.
            let _ = drain.drained.send(());
        }
    }

    /// Has the connections accepted that the shard's ring has reported.
    fn notify_listener(&mut self) {
        if self.shard.borrow_mut().io_mut().io_mut().take_acceptable() {
            self.is_settled = false;
            self.server.notify_listener();
        }
    }

    /// True once after records have woken the shard soon after others.
    fn should_nap(&mut self) -> bool {
        std::mem::take(&mut self.are_records_frequent)
    }

    async fn nap(&self) {
        if self.is_settled {
            std::thread::sleep(NAP);
        } else {
            glommio::timer::sleep(NAP).await;
        }
    }

    /// Lets the shard be woken, then checks once more for work. True if there is none. Completions need a check only
    /// where the sleep is not the wait for them.
    fn may_sleep(&mut self) -> bool {
        self.waker.prepare_sleep(self.place());
        let mut shard = self.shard.borrow_mut();
        let may_sleep = (self.is_settled || shard.io_mut().io_mut().arm())
            && !shard.io().has_own_completions()
            && !shard.has_new_records()
            && !shard.wants_resync()
            && !self.server.has_answers()
            && self.commands.is_empty();
        self.publish_counters(&mut shard);
        if !may_sleep {
            drop(shard);
            self.wake_up(self.place());
        }
        may_sleep
    }

    /// Sleeps until the shard's ring has a completion, or until the next deadline.
    fn sleep(&mut self) {
        self.alarm = None;
        let left = self.deadline_ns().map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns())));
        self.shard.borrow_mut().io_mut().io_mut().wait(left);
        self.note_wake_up();
    }

    /// Sleeps until the eventfd signals (true) or the next deadline (false), while the executor's other tasks run.
    async fn sleep_in_executor<T>(&mut self, signal: Pin<&mut impl Future<Output = T>>) -> bool {
        let signalled = async {
            signal.await;
            true
        };
        let was_quiet = self.server.is_quiet();
        let mut alarm = self.take_alarm(self.deadline_ns());
        let slept = async {
            match &mut alarm {
                None => signalled.await,
                Some(alarm) => {
                    let due = async {
                        alarm.timer.as_mut().await;
                        false
                    };
                    futures_lite::future::or(signalled, due).await
                }
            }
        };
        let (was_signalled, has_waited) = await_noting_wait(slept).await;
        self.alarm = alarm.filter(|_| was_signalled);
        self.note_wake_up();
        self.is_settled = has_waited && was_quiet && self.server.is_quiet();
        was_signalled
    }

    fn note_wake_up(&mut self) {
        if self.shard.borrow().has_new_records() {
            let now_ns = now_ns();
            self.are_records_frequent = now_ns.saturating_sub(self.records_ns) < NAP.as_nanos() as u64;
            self.records_ns = now_ns;
        }
    }

    /// When the shard has to be awake again.
    fn deadline_ns(&self) -> Option<u64> {
        let echo_check_ns = if self.server.echoes() > 0 { now_ns() + ECHO_CHECK_NS } else { u64::MAX };
        let drain_ns = self.drain.as_ref().map(|drain| drain.until_ns.min(echo_check_ns));
        self.shard.borrow().deadline_ns().into_iter().chain(drain_ns).min()
    }

    /// The alarm that is set, if it is early enough, or a new one; `None` without a deadline. Setting and cancelling one
    /// for each sleep would cost glommio four system calls, more than a tick; waking up early now and then costs an
    /// empty tick.
    fn take_alarm(&mut self, deadline_ns: Option<u64>) -> Option<Alarm> {
        let set = self.alarm.take();
        let Some(at_ns) = deadline_ns else { return set };
        let early = set.filter(|alarm| alarm.at_ns <= at_ns);
        Some(early.unwrap_or_else(|| {
            let left = Duration::from_nanos(at_ns.saturating_sub(now_ns()));
            Alarm { at_ns, timer: Box::pin(glommio::timer::sleep(left)) }
        }))
    }

    /// Where the next sleep takes place.
    fn place(&self) -> SleepPlace {
        if self.is_settled { SleepPlace::Ring } else { SleepPlace::Executor }
    }

    fn wake_up(&mut self, place: SleepPlace) {
        self.waker.end_sleep(place);
        self.shard.borrow_mut().io_mut().io_mut().disarm();
        self.worked_ns = now_ns();
    }
}

/// Awaits a future. True if it was not ready at once: then the executor has run meanwhile.
async fn await_noting_wait<T>(future: impl Future<Output = T>) -> (T, bool) {
    let (mut future, mut has_waited) = (pin!(future), false);
    poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        has_waited |= polled.is_pending();
        polled.map(|output| (output, has_waited))
    })
    .await
}
