//! One thread of a load run: connects its share of the clients, reads them all, and counts.
//!
//! A plain readiness loop (epoll, level-triggered): wait, wake each connection that is ready, follow the stage of the
//! run. What always holds: only a limited number of connections is pending at a time, so that the server's listen queue
//! is not what is measured; counters are read at both ends of the measured time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::connection::{ConnectionEnd, LoadConnection, ReceivedTotals, ThreadContext, WakeOutcome};
use super::messages::{
    ClientPlan, ClientRequest, ClientRole, ConnectTimes, DeliveryCounts, MeasuredWindow, PublishedCount, ReadOptions,
    WorkerJob, WorkerProgress, WorkerTally,
};
use crate::load::latency::LatencyMeter;
use tickcast_client::decode::DecodeCounters;
use tickcast_client::{CONNECT_TIMEOUT, Error, Target};

/// Pending connections of a thread in a storm: what most listen queues hold.
const STORM_PENDING_MAX: usize = 4096;
/// One read of a socket: more than a loopback socket buffer usually holds.
const BUFFER_BYTES: usize = 256 * 1024;
/// Events of one wait, and connects of one tick: few enough that the upgrades of a storm, at about 30 µs each, do not
/// delay the measured clients of this thread.
const EVENTS_MAX: usize = 128;
const CONNECTS_MAX: usize = 16;
/// How often a thread reads the stage when nothing happens.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// The same with a churn.
const WAIT_CHURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// How often pending connections are checked against their deadline.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);

/// The stage of the run, which the threads follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum RunStage {
    /// Connecting, then warming up.
    Before = 0,
    Measuring = 1,
    /// Measured; records under way are still read.
    Tail = 2,
    Done = 3,
}

/// State that a process shares with its threads. The counters are Relaxed: numbers for people; the results travel with
/// the end of a thread.
#[derive(Debug, Default)]
pub struct WorkerShared {
    stage: AtomicU8,
    /// Records and instruments of the publisher; set before the stage is [`RunStage::Done`].
    published: [AtomicU64; 2],
    connected: AtomicU64,
    settled: AtomicU64,
    records: AtomicU64,
}

impl WorkerShared {
    /// Sets the stage for all threads.
    pub fn set_stage(&self, stage: RunStage) {
        // Release: the partner is the Acquire in `stage`; with Done comes what was published.
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Ends all threads, which then compare what their clients received with what was published.
    pub fn finish(&self, published: PublishedCount) {
        self.published[0].store(published.records, Ordering::Relaxed);
        self.published[1].store(published.instruments, Ordering::Relaxed);
        self.set_stage(RunStage::Done);
    }

    /// How far the threads have come.
    pub fn progress(&self) -> WorkerProgress {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        WorkerProgress { connected: read(&self.connected), settled: read(&self.settled), records: read(&self.records) }
    }

    fn stage(&self) -> RunStage {
        // Acquire: the partner is the Release in `set_stage`.
        match self.stage.load(Ordering::Acquire) {
            0 => RunStage::Before,
            1 => RunStage::Measuring,
            2 => RunStage::Tail,
            _ => RunStage::Done,
        }
    }

    fn published(&self) -> PublishedCount {
        let [records, instruments] = self.published.each_ref().map(|number| number.load(Ordering::Relaxed));
        PublishedCount { records, instruments }
    }
}

/// The task of one thread: its share of a [`WorkerJob`].
#[derive(Clone, Debug)]
pub struct ThreadJob {
    pub address: SocketAddr,
    pub target: Target,
    pub options: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    pub clients: Vec<ClientPlan>,
    pub storm: Vec<ClientPlan>,
    pub pending_max: usize,
    pub churn_per_s: f64,
    pub stall_for: Option<Duration>,
}

impl ThreadJob {
    /// Splits a job between its threads.
    pub fn split(job: &WorkerJob, target: &Target) -> Vec<Self> {
        let requests: Arc<[ClientRequest]> = job.requests.clone().into();
        let share = |plans: &[ClientPlan], nth: usize| plans.iter().skip(nth).step_by(job.threads).copied().collect();
        let thread_job = |nth| Self {
            address: job.address,
            target: target.clone(),
            options: job.options,
            requests: Arc::clone(&requests),
            clients: share(&job.clients, nth),
            storm: share(&job.storm, nth),
            pending_max: job.pending_max,
            churn_per_s: job.churn_per_s / job.threads as f64,
            stall_for: job.stall_for_ms.map(Duration::from_millis),
        };
        (0..job.threads).map(thread_job).collect()
    }
}

/// One thread's clients.
#[derive(Debug)]
pub struct WorkerThread {
    address: SocketAddr,
    /// Clients that have not begun to connect.
    waiting: std::vec::IntoIter<ClientPlan>,
    storm: Vec<ClientPlan>,
    pending_max: usize,
    churn_per_s: f64,
    stall_for: Option<Duration>,
    connections: Vec<LoadConnection>,
    pending: usize,
    epoll: OwnedFd,
    shared: Arc<WorkerShared>,
    context: ThreadContext,
    tally: WorkerTally,
    /// Counters of connections that have ended.
    ended: DecodeCounters,
    begun: Instant,
    expiry_checked: Instant,
    window_start: Option<Checkpoint>,
    /// The connection at which the churn continues.
    churn_next: usize,
    /// The part of the received records that is reported as progress already.
    reported: u64,
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    at: Instant,
    received: ReceivedTotals,
    counters: DecodeCounters,
    cpu_seconds: f64,
    starved_seconds: f64,
}

impl WorkerThread {
    /// The thread's state; [`Self::run`] runs on the thread itself.
    pub fn new(job: ThreadJob, shared: Arc<WorkerShared>) -> io::Result<Self> {
        let meter = || LatencyMeter::new(job.options.origin);
        let context = ThreadContext {
            target: job.target,
            options: job.options,
            requests: job.requests,
            buffer: vec![0; BUFFER_BYTES],
            masking_keys: Pcg64Mcg::seed_from_u64(std::process::id().into()),
            received: ReceivedTotals::default(),
            meters: [meter(), meter()],
            is_measuring: false,
            in_storm: false,
            connect_times: ConnectTimes::default(),
            rejected: Vec::new(),
        };
        Ok(Self {
            address: job.address,
            connections: Vec::with_capacity(job.clients.len() + job.storm.len()),
            waiting: job.clients.into_iter(),
            storm: job.storm,
            pending_max: job.pending_max,
            churn_per_s: job.churn_per_s,
            stall_for: job.stall_for,
            pending: 0,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            shared,
            context,
            tally: WorkerTally::default(),
            ended: DecodeCounters::default(),
            begun: Instant::now(),
            expiry_checked: Instant::now(),
            window_start: None,
            churn_next: 0,
            reported: 0,
        })
    }

    /// Runs until the stage is [`RunStage::Done`].
    pub fn run(mut self) -> io::Result<WorkerTally> {
        self.begun = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let wait = if self.churn_per_s > 0.0 { WAIT_CHURN } else { WAIT_MAX };
        loop {
            match self.shared.stage() {
                RunStage::Before => {}
                RunStage::Measuring if self.window_start.is_none() => self.open_window(),
                RunStage::Measuring => self.disturb()?,
                RunStage::Tail => self.close_window(),
                RunStage::Done => break,
            }
            self.connect_more()?;
            // While more connects are due, ready sockets are handled without waiting.
            let may_connect = self.pending < self.pending_max && self.waiting.len() > 0;
            let wait = if may_connect { Timespec::default() } else { wait };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.wake(event.data.u64() as usize)?;
            }
            self.expire();
            let received = self.context.received;
            let received = if self.context.options.opaque { received.messages } else { received.records };
            self.shared.records.fetch_add(received - self.reported, Ordering::Relaxed);
            self.reported = received;
        }
        self.close_window();
        Ok(self.finish())
    }

    fn connect_more(&mut self) -> io::Result<()> {
        for _ in 0..CONNECTS_MAX {
            if self.pending >= self.pending_max {
                return Ok(());
            }
            let Some(plan) = self.waiting.next() else { return Ok(()) };
            match LoadConnection::begin(plan, self.address, &self.context.options) {
                Ok(connection) => {
                    self.watch(&connection, self.connections.len())?;
                    self.connections.push(connection);
                    self.pending += 1;
                }
                Err(error) => self.on_refused(plan.role, error.to_string()),
            }
        }
        Ok(())
    }

    /// Registers a connection whose connect is under way.
    fn watch(&self, connection: &LoadConnection, index: usize) -> io::Result<()> {
        let stream = connection.stream().expect("a new connection has a socket");
        epoll::add(&self.epoll, stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::OUT)?;
        Ok(())
    }

    fn wake(&mut self, index: usize) -> io::Result<()> {
        let was_pending = self.connections[index].is_pending();
        match self.connections[index].wake(&mut self.context) {
            WakeOutcome::Same => {}
            WakeOutcome::UpgradeRequested => self.listen_for(index, epoll::EventFlags::IN)?,
            WakeOutcome::Connected(end) => {
                self.on_connected(index);
                if let Some(end) = end {
                    self.on_end(index, end, false);
                } else if self.connections[index].plan.role == ClientRole::Stalled {
                    // epoll reports errors and the end of both directions without being asked.
                    self.listen_for(index, epoll::EventFlags::empty())?;
                }
            }
            WakeOutcome::Ended(end) => self.on_end(index, end, was_pending),
        }
        for message in self.context.rejected.drain(..) {
            *self.tally.rejected.entry(message).or_default() += 1;
        }
        Ok(())
    }

    fn listen_for(&self, index: usize, flags: epoll::EventFlags) -> io::Result<()> {
        match self.connections[index].stream() {
            Some(stream) => Ok(epoll::modify(&self.epoll, stream, epoll::EventData::new_u64(index as u64), flags)?),
            None => Ok(()),
        }
    }

    fn on_connected(&mut self, index: usize) {
        self.pending -= 1;
        if self.connections[index].plan.role == ClientRole::Storm {
            self.tally.storm.connected += 1;
            self.settle_storm();
        } else if !self.connections[index].is_replacement {
            self.tally.connected += 1;
            self.tally.connect_seconds = self.begun.elapsed().as_secs_f64();
            self.shared.connected.fetch_add(1, Ordering::Relaxed);
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_refused(&mut self, role: ClientRole, why: String) {
        *self.tally.refused.entry(why).or_default() += 1;
        if role == ClientRole::Storm {
            self.tally.storm.refused += 1;
            self.settle_storm();
        } else {
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more connection of the storm is open or was refused.
    fn settle_storm(&mut self) {
        let storm = &mut self.tally.storm;
        if let Some(start) = &self.window_start {
            storm.seconds = start.at.elapsed().as_secs_f64();
        }
        if storm.connected + storm.refused == self.storm.len() as u64 {
            self.context.in_storm = false;
        }
    }

    fn on_end(&mut self, index: usize, end: ConnectionEnd, was_pending: bool) {
        self.pending -= usize::from(was_pending);
        match end {
            ConnectionEnd::Refused(why) if was_pending => self.on_refused(self.connections[index].plan.role, why),
            ConnectionEnd::Refused(how) | ConnectionEnd::Closed(how) => *self.tally.closes.entry(how).or_default() += 1,
            ConnectionEnd::Malformed(what) => *self.tally.malformed.entry(what).or_default() += 1,
        }
        self.retire(index);
    }

    /// Adds the counters of a connection that has ended, and frees its memory.
    fn retire(&mut self, index: usize) {
        let checker = self.connections[index].take_checker();
        self.ended.add(checker.counters());
        self.tally.violations += checker.counters().violations;
        let first = checker.first_violation().map(|violation| violation.to_string());
        self.tally.first_violation = self.tally.first_violation.take().or(first);
    }

    fn expire(&mut self) {
        if self.pending == 0 || self.expiry_checked.elapsed() < EXPIRY_INTERVAL {
            return;
        }
        self.expiry_checked = Instant::now();
        for index in 0..self.connections.len() {
            if self.connections[index].is_pending() && self.connections[index].begun.elapsed() > CONNECT_TIMEOUT {
                let end = self.connections[index].give_up(&Error::Unanswered("upgrade request"));
                self.on_end(index, end, true);
            }
        }
    }

    /// Begins the measured time, and the storm.
    fn open_window(&mut self) {
        self.context.meters.iter_mut().for_each(LatencyMeter::clear);
        self.context.is_measuring = true;
        self.window_start = Some(self.checkpoint());
        if !self.storm.is_empty() {
            self.context.in_storm = true;
            self.pending_max = self.pending_max.max(STORM_PENDING_MAX);
            let waiting: Vec<_> = self.waiting.by_ref().chain(self.storm.iter().copied()).collect();
            self.waiting = waiting.into_iter();
        }
    }

    /// Disturbances of the measured time that are due: churn, and stalled clients that begin to read.
    fn disturb(&mut self) -> io::Result<()> {
        let Some(start) = self.window_start else { return Ok(()) };
        let elapsed = start.at.elapsed();
        if self.stall_for.is_some_and(|stalled| elapsed >= stalled) {
            self.stall_for = None;
            for index in 0..self.connections.len() {
                if self.connections[index].plan.role == ClientRole::Stalled && self.connections[index].is_open() {
                    self.listen_for(index, epoll::EventFlags::IN)?;
                }
            }
        }
        let due = (elapsed.as_secs_f64() * self.churn_per_s) as u64;
        for _ in self.tally.churned..due {
            if self.pending >= self.pending_max || !self.churn_one()? {
                break;
            }
        }
        Ok(())
    }

    /// Resets the next open steady connection and opens another in its place; false where there is none.
    fn churn_one(&mut self) -> io::Result<bool> {
        let count = self.connections.len();
        let open = |index: &usize| {
            self.connections[*index].is_open() && self.connections[*index].plan.role == ClientRole::Steady
        };
        let Some(index) = (0..count).map(|step| (self.churn_next + step) % count).find(open) else { return Ok(false) };
        self.churn_next = index + 1;
        self.tally.churned += 1;
        self.connections[index].reset();
        self.retire(index);
        match LoadConnection::begin(self.connections[index].plan, self.address, &self.context.options) {
            Ok(mut connection) => {
                connection.is_replacement = true;
                self.watch(&connection, index)?;
                self.connections[index] = connection;
                self.pending += 1;
            }
            Err(error) => self.on_refused(ClientRole::Steady, error.to_string()),
        }
        Ok(true)
    }

    fn close_window(&mut self) {
        if !std::mem::take(&mut self.context.is_measuring) {
            return;
        }
        let Some(start) = self.window_start else { return };
        let end = self.checkpoint();
        let [mut meter, storm] = std::mem::take(&mut self.context.meters);
        meter.add(&storm);
        self.tally.window = MeasuredWindow {
            seconds: end.at.duration_since(start.at).as_secs_f64(),
            bytes: end.received.bytes - start.received.bytes,
            messages: end.received.messages - start.received.messages,
            counters: end.counters.since(&start.counters),
            meter,
            meter_in_storm: storm,
            cpu_seconds: end.cpu_seconds - start.cpu_seconds,
            starved_seconds: end.starved_seconds - start.starved_seconds,
        };
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut counters = self.ended;
        for connection in &self.connections {
            counters.add(connection.checker().counters());
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Checkpoint {
            at: Instant::now(),
            received: self.context.received,
            counters,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            starved_seconds: starved_seconds(),
        }
    }

    /// Reads close frames that stalled clients have not read, and closes all connections.
    fn finish(mut self) -> WorkerTally {
        let published = self.shared.published();
        for index in 0..self.connections.len() {
            self.account(index, &published);
            let stalled = self.connections[index].plan.role == ClientRole::Stalled;
            match stalled.then(|| self.connections[index].read_backlog(&mut self.context)).flatten() {
                Some(end) => self.on_end(index, end, false),
                None => {
                    self.retire(index);
                    self.connections[index].close(&mut self.context);
                }
            }
        }
        self.tally.connect_times = self.context.connect_times;
        self.tally
    }

    /// Compares what a steady client received of the publisher with what it should have received.
    fn account(&mut self, index: usize, published: &PublishedCount) {
        let connection = &self.connections[index];
        let expected = &self.context.requests[connection.plan.request as usize].expected;
        let Some(expected) = published.records_of(expected) else { return };
        if connection.plan.role != ClientRole::Steady || connection.is_replacement || !connection.is_open() {
            return;
        }
        let counters = connection.checker().counters();
        let received = counters.records - counters.snapshots;
        let missing = expected.saturating_sub(counters.covered);
        self.tally.delivered.add(&DeliveryCounts {
            clients: 1,
            expected,
            received,
            merged: counters.covered.saturating_sub(received + counters.lost),
            lost: counters.lost,
            missing,
            clients_short: u64::from(missing > 0),
        });
    }
}

/// How long this thread was ready to run and had no core, since its start: the second number of `schedstat`, ns.
fn starved_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    waited_ns as f64 / 1e9
}

#[cfg(test)]
mod tests;
