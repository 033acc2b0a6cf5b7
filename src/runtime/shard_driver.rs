//! Drives one shard on its executor: tick after tick while there is work, sleep while there is none.
//!
//! * Busy: tick; between two ticks the executor's other tasks run if they are due (a handshake's input, a timer).
//! * Idle for [`SPIN_NS`]: let the eventfd signal, check once more for work, and sleep on it through glommio, or until the
//!   shard's next deadline.
//! * Woken too often: rest for [`NAP`] first, so that one wake-up serves what would have been several.
//!
//! The read of the eventfd is one future that lives across sleeps. If it were dropped whenever a deadline comes first, the
//! cancelled read could still consume a signal meant for the next one.

use std::cell::RefCell;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};
use glommio::io::BufferedFile;

use crate::clock::{self, now_ns};
use crate::config::Config;
use crate::http::{HttpServer, HttpShared, listener};
use crate::io::uring::{Uring, adopt_fd};
use crate::shard::Shard;
use crate::stats::Counter;
use crate::wake::ShardWaker;

/// How long an idle shard keeps ticking before it sleeps: shorter than a sleep and a wake-up take.
const SPIN_NS: u64 = 20_000;
/// A shorter sleep was not worth it: sleeping and waking up costs some 30 us of the core's time, a send 5. Records that
/// come one by one, more often than this, are gathered for this long; less frequent ones are sent at once.
const NAP: Duration = Duration::from_micros(500);
/// How often a busy shard publishes its counters.
const PUBLISH_NS: u64 = clock::STEER_INTERVAL_NS;
/// How often a draining shard checks for the end of echoes: an echo does not wake this task when it ends.
const ECHO_CHECK_NS: u64 = 20_000_000;

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
    socket: TcpListener,
    shard: Shard<Uring>,
    waker: Arc<ShardWaker>,
    commands: Receiver<ShardCommand>,
) {
    let event = match shard.io().wake_fd() {
        Ok(event) => adopt_fd::<BufferedFile>(event),
        Err(error) => return tracing::error!("shard {index}: the eventfd could not be duplicated: {error}"),
    };
    let shard = Rc::new(RefCell::new(shard));
    let server = Rc::new(HttpServer::new(index, shard.clone(), http.clone(), waker.clone()));
    let listener = listener::spawn(server.clone(), socket);
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
        slept_briefly: false,
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
                driver.wake_up();
                // The work that woke the shard comes before the executor's other tasks.
                continue;
            }
        }
        glommio::yield_if_needed().await;
    }
    listener.cancel();
}

/// The task of one shard.
struct ShardDriver {
    index: usize,
    http: Arc<HttpShared>,
    waker: Arc<ShardWaker>,
    shard: Rc<RefCell<Shard<Uring>>>,
    server: Rc<HttpServer>,
    commands: Receiver<ShardCommand>,
    drain: Option<DrainRequest>,
    published_ns: u64,
    /// End of the last tick that did something.
    worked_ns: u64,
    alarm: Option<Alarm>,
    /// The last sleep was shorter than a nap.
    slept_briefly: bool,
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

    /// Runs one tick. True if the shard has been idle for [`SPIN_NS`].
    fn tick_is_idle(&mut self) -> bool {
        let now_ns = now_ns();
        let mut shard = self.shard.borrow_mut();
        let worked = shard.tick(now_ns);
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
            if self.index == 0 {
                clock::steer();
            }
            self.publish_counters(&mut shard);
        }
        let clients = shard.clients();
        drop(shard);
        self.report_drained(now_ns, clients);
        now_ns.saturating_sub(self.worked_ns) > SPIN_NS
    }

    /// Passes on which clients have closed and which are slow.
    fn publish_clients(&self, shard: &mut Shard<Uring>) {
        self.server.release_slots(shard.take_departed());
        if let Some(slowest) = shard.take_slowest() {
            self.server.publish_slow_clients(slowest);
        }
    }

    fn publish_counters(&self, shard: &mut Shard<Uring>) {
        self.server.set_levels(shard.counters_mut());
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

    /// True once after a sleep that was too short to be worth it.
    fn should_nap(&mut self) -> bool {
        std::mem::take(&mut self.slept_briefly)
    }

    /// Lets the shard be woken, then checks once more for work. True if there is none.
    fn may_sleep(&mut self) -> bool {
        self.waker.prepare_sleep();
        let mut shard = self.shard.borrow_mut();
        shard.io_mut().arm();
        let worked =
            shard.tick(now_ns()) || shard.has_new_records() || shard.wants_resync() || !self.commands.is_empty();
        self.publish_clients(&mut shard);
        self.publish_counters(&mut shard);
        if worked {
            drop(shard);
            self.wake_up();
        }
        !worked
    }

    /// Sleeps until the eventfd signals (true) or the shard's next deadline (false).
    async fn sleep<T>(&mut self, signal: Pin<&mut impl Future<Output = T>>) -> bool {
        let signalled = async {
            signal.await;
            true
        };
        let echo_check_ns = if self.server.echoes() > 0 { now_ns() + ECHO_CHECK_NS } else { u64::MAX };
        let drain_ns = self.drain.as_ref().map(|drain| drain.until_ns.min(echo_check_ns));
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
        self.slept_briefly = was_signalled && now_ns().saturating_sub(from_ns) < NAP.as_nanos() as u64;
        was_signalled
    }

    /// The alarm that is set, if it is early enough, or a new one; `None` without a deadline. Setting and cancelling one
    /// for each sleep would cost glommio four system calls, more than a tick; waking up early now and then costs an
    /// empty tick.
    fn alarm_before(&mut self, deadline_ns: Option<u64>) -> Option<&mut Alarm> {
        if let Some(at_ns) = deadline_ns
            && self.alarm.as_ref().is_none_or(|alarm| alarm.at_ns > at_ns)
        {
            let left = Duration::from_nanos(at_ns.saturating_sub(now_ns()));
            self.alarm = Some(Alarm { at_ns, timer: Box::pin(glommio::timer::sleep(left)) });
        }
        self.alarm.as_mut()
    }

    fn wake_up(&mut self) {
        self.waker.end_sleep();
        self.shard.borrow_mut().io_mut().disarm();
        self.worked_ns = now_ns();
    }
}
