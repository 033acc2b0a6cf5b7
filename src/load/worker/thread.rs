//! One thread of a load run: connects its share of the clients, reads them all, and counts.
//!
//! A plain readiness loop (epoll, level-triggered): wait, wake each connection that has something, look at the stage
//! that the run is in. What always holds: only so many connections are on their way at a time, so that the server's
//! listen queue is not what is measured; counters are taken at the edges of the measured time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Uri;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::load::latency::LatencyMeter;
use crate::load::worker::checker::{FastChecker, SequenceTable, StreamChecker};
use crate::load::worker::connection::{ConnectionEnd, LoadConnection, ReceivedTotals, ThreadContext, WakeOutcome};
use crate::load::worker::messages::{
    ClientPlan, ClientRequest, ClientRole, ConnectTimes, DeliveryCounts, MeasuredWindow, PublishedCount, ReadOptions,
    WorkerJob, WorkerProgress, WorkerTally,
};
use tickcast_client::CONNECT_TIMEOUT;
use tickcast_client::Error;
use tickcast_client::decode::Counters;

/// Connections of a thread that may be on their way in a storm: what listen queues mostly hold.
const STORM_PENDING_MAX: usize = 4096;
/// One read of a socket: above what a loopback socket buffer mostly holds.
const BUFFER_BYTES: usize = 256 * 1024;
/// Events of one wait, and connects of one turn: few enough that a storm's upgrades, at some 30 µs each, do not keep the
/// clients that are measured waiting for this thread.
const EVENTS_MAX: usize = 128;
const CONNECTS_MAX: usize = 16;
/// How often a worker looks at the stage when nothing happens.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// The same while connections have to be churned.
const WAIT_CHURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// How often connections on their way are held against their deadline.
const EXPIRY_EVERY: Duration = Duration::from_millis(250);

/// Where the run is; the worker follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum RunStage {
    /// Connecting, then warming up.
    Before = 0,
    Measuring = 1,
    /// Measurement; what is under way is still read.
    Tail = 2,
    Done = 3,
}

/// What a process and its workers tell each other. All of it is Relaxed: numbers for people and a stage that is
/// looked at again and again; what is counted travels with the thread's end.
#[derive(Debug, Default)]
pub struct WorkerShared {
    stage: AtomicU8,
    /// What the publisher has published by its end; set before the stage is [`RunStage::Done`].
    published: [AtomicU64; 2],
    connected: AtomicU64,
    settled: AtomicU64,
    records: AtomicU64,
}

impl WorkerShared {
    /// Tells all workers.
    pub fn set_stage(&self, stage: RunStage) {
        // Release: the partner is the Acquire in `stage`; with Done comes what was published.
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Tells all workers to end, and what their clients should have got.
    pub fn finish(&self, published: PublishedCount) {
        self.published[0].store(published.records, Ordering::Relaxed);
        self.published[1].store(published.instruments, Ordering::Relaxed);
        self.set_stage(RunStage::Done);
    }

    /// How far the workers have come.
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

/// What one thread shall do: its share of a [`WorkerJob`].
#[derive(Clone, Debug)]
pub struct ThreadJob {
    pub address: SocketAddr,
    pub uri: Uri,
    pub terms: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    pub plans: Vec<ClientPlan>,
    pub storm: Vec<ClientPlan>,
    pub pending_max: usize,
    pub churn_per_s: f64,
    pub stall_for: Option<Duration>,
}

impl ThreadJob {
    /// Deals a job out to its threads.
    pub fn of(job: &WorkerJob, uri: &Uri) -> Vec<Self> {
        let requests: Arc<[ClientRequest]> = job.requests.clone().into();
        let deal = |plans: &[ClientPlan], nth: usize| plans.iter().skip(nth).step_by(job.threads).copied().collect();
        let share = |nth| Self {
            address: job.address,
            uri: uri.clone(),
            terms: job.terms,
            requests: Arc::clone(&requests),
            plans: deal(&job.plans, nth),
            storm: deal(&job.storm, nth),
            pending_max: job.pending,
            churn_per_s: job.churn_per_s / job.threads as f64,
            stall_for: job.stall_for_ms.map(Duration::from_millis),
        };
        (0..job.threads).map(share).collect()
    }
}

/// One thread's clients.
#[derive(Debug)]
pub struct WorkerThread {
    address: SocketAddr,
    plans: std::vec::IntoIter<ClientPlan>,
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
    ended: Counters,
    begun: Instant,
    expiry_checked: Instant,
    window_start: Option<Checkpoint>,
    /// Where the churn goes on.
    churn_next: usize,
    /// Of what was seen, what the run was told of.
    seen_told: u64,
}

/// Everything that is counted, at one moment.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    at: Instant,
    seen: ReceivedTotals,
    counters: Counters,
    cpu_seconds: f64,
    starved_seconds: f64,
}

impl WorkerThread {
    /// A worker for these clients; it begins with [`Self::run`], on its own thread.
    pub fn new(share: ThreadJob, shared: Arc<WorkerShared>) -> io::Result<Self> {
        let meter = || LatencyMeter::new(share.terms.origin);
        let context = ThreadContext {
            uri: share.uri,
            terms: share.terms,
            requests: share.requests,
            buffer: vec![0; BUFFER_BYTES],
            keys: Pcg64Mcg::seed_from_u64(std::process::id().into()),
            seen: ReceivedTotals::default(),
            meters: [meter(), meter()],
            measuring: false,
            in_storm: false,
            joins: ConnectTimes::default(),
            rejected: Vec::new(),
        };
        Ok(Self {
            address: share.address,
            connections: Vec::with_capacity(share.plans.len() + share.storm.len()),
            plans: share.plans.into_iter(),
            storm: share.storm,
            pending_max: share.pending_max,
            churn_per_s: share.churn_per_s,
            stall_for: share.stall_for,
            pending: 0,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            shared,
            context,
            tally: WorkerTally::default(),
            ended: Counters::default(),
            begun: Instant::now(),
            expiry_checked: Instant::now(),
            window_start: None,
            churn_next: 0,
            seen_told: 0,
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
            // More connects are due: what is ready is looked at, and nothing is waited for.
            let may_connect = self.pending < self.pending_max && self.plans.len() > 0;
            let wait = if may_connect { Timespec::default() } else { wait };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.wake(event.data.u64() as usize)?;
            }
            self.expire();
            let seen = if self.context.terms.opaque { self.context.seen.messages } else { self.context.seen.records };
            self.shared.records.fetch_add(seen - self.seen_told, Ordering::Relaxed);
            self.seen_told = seen;
        }
        self.close_window();
        Ok(self.finish())
    }

    fn connect_more(&mut self) -> io::Result<()> {
        for _ in 0..CONNECTS_MAX {
            if self.pending >= self.pending_max {
                return Ok(());
            }
            let Some(plan) = self.plans.next() else { return Ok(()) };
            match LoadConnection::begin(plan, self.address, &self.context.terms) {
                Ok(connection) => {
                    self.watch(&connection, self.connections.len())?;
                    self.connections.push(connection);
                    self.pending += 1;
                }
                Err(error) => self.refuse(plan.role, error.to_string()),
            }
        }
        Ok(())
    }

    /// Waits for what becomes of a connect.
    fn watch(&self, connection: &LoadConnection, index: usize) -> io::Result<()> {
        let stream = connection.stream().expect("a new connection has a socket");
        epoll::add(&self.epoll, stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::OUT)?;
        Ok(())
    }

    fn wake(&mut self, index: usize) -> io::Result<()> {
        let was_pending = self.connections[index].is_pending();
        match self.connections[index].wake(&mut self.context) {
            WakeOutcome::Same => {}
            WakeOutcome::Asked => self.listen_for(index, epoll::EventFlags::IN)?,
            WakeOutcome::Connected(end) => {
                self.connected(index);
                if let Some(end) = end {
                    self.note_end(index, end, false);
                } else if self.connections[index].plan.role == ClientRole::Stalled {
                    // Errors and the end of both directions are told without being asked for.
                    self.listen_for(index, epoll::EventFlags::empty())?;
                }
            }
            WakeOutcome::Ended(end) => self.note_end(index, end, was_pending),
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

    fn connected(&mut self, index: usize) {
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

    fn refuse(&mut self, role: ClientRole, why: String) {
        *self.tally.refused.entry(why).or_default() += 1;
        if role == ClientRole::Storm {
            self.tally.storm.refused += 1;
            self.settle_storm();
        } else {
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more of the storm has connected or was refused.
    fn settle_storm(&mut self) {
        let storm = &mut self.tally.storm;
        if let Some(start) = &self.window_start {
            storm.seconds = start.at.elapsed().as_secs_f64();
        }
        if storm.connected + storm.refused == self.storm.len() as u64 {
            self.context.in_storm = false;
        }
    }

    fn note_end(&mut self, index: usize, end: ConnectionEnd, was_pending: bool) {
        self.pending -= usize::from(was_pending);
        match end {
            ConnectionEnd::Refused(why) if was_pending => self.refuse(self.connections[index].plan.role, why),
            ConnectionEnd::Refused(how) | ConnectionEnd::Closed(how) => *self.tally.closes.entry(how).or_default() += 1,
            ConnectionEnd::Malformed(what) => *self.tally.malformed.entry(what).or_default() += 1,
        }
        self.retire(index);
    }

    /// Keeps what a connection has counted, and frees what it knew.
    fn retire(&mut self, index: usize) {
        let nothing = StreamChecker::Fast(FastChecker::new(SequenceTable::Sparse, true));
        let check = std::mem::replace(&mut self.connections[index].check, nothing);
        self.ended.add(check.counters());
        self.tally.violations += check.counters().violations;
        let first = check.first_violation().map(|violation| violation.to_string());
        self.tally.first_violation = self.tally.first_violation.take().or(first);
    }

    fn expire(&mut self) {
        if self.pending == 0 || self.expiry_checked.elapsed() < EXPIRY_EVERY {
            return;
        }
        self.expiry_checked = Instant::now();
        for index in 0..self.connections.len() {
            if self.connections[index].is_pending() && self.connections[index].begun.elapsed() > CONNECT_TIMEOUT {
                let end = self.connections[index].give_up(&Error::Silent("upgrade request"));
                self.note_end(index, end, true);
            }
        }
    }

    /// The measured time begins, and with it a storm.
    fn open_window(&mut self) {
        self.context.meters.iter_mut().for_each(LatencyMeter::clear);
        self.context.measuring = true;
        self.window_start = Some(self.edge());
        if !self.storm.is_empty() {
            self.context.in_storm = true;
            self.pending_max = self.pending_max.max(STORM_PENDING_MAX);
            let later: Vec<_> = self.plans.by_ref().chain(self.storm.iter().copied()).collect();
            self.plans = later.into_iter();
        }
    }

    /// What disturbs the measured time, when it is due: churn, and stalled clients that begin to read.
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

    /// Replaces the next open steady connection by a new one; false where there is none.
    fn churn_one(&mut self) -> io::Result<bool> {
        let count = self.connections.len();
        let open = |index: &usize| {
            self.connections[*index].is_open() && self.connections[*index].plan.role == ClientRole::Steady
        };
        let Some(index) = (0..count).map(|step| (self.churn_next + step) % count).find(open) else { return Ok(false) };
        self.churn_next = index + 1;
        self.tally.churned += 1;
        self.connections[index].vanish();
        self.retire(index);
        match LoadConnection::begin(self.connections[index].plan, self.address, &self.context.terms) {
            Ok(mut connection) => {
                connection.is_replacement = true;
                self.watch(&connection, index)?;
                self.connections[index] = connection;
                self.pending += 1;
            }
            Err(error) => self.refuse(ClientRole::Steady, error.to_string()),
        }
        Ok(true)
    }

    fn close_window(&mut self) {
        if !std::mem::take(&mut self.context.measuring) {
            return;
        }
        let Some(start) = self.window_start else { return };
        let end = self.edge();
        let [mut meter, storm] = std::mem::take(&mut self.context.meters);
        meter.add(&storm);
        self.tally.window = MeasuredWindow {
            seconds: end.at.duration_since(start.at).as_secs_f64(),
            bytes: end.seen.bytes - start.seen.bytes,
            messages: end.seen.messages - start.seen.messages,
            counters: end.counters.since(&start.counters),
            meter,
            meter_in_storm: storm,
            cpu_seconds: end.cpu_seconds - start.cpu_seconds,
            starved_seconds: end.starved_seconds - start.starved_seconds,
        };
    }

    fn edge(&self) -> Checkpoint {
        let mut counters = self.ended;
        for connection in &self.connections {
            counters.add(connection.check.counters());
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Checkpoint {
            at: Instant::now(),
            seen: self.context.seen,
            counters,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            starved_seconds: starved_seconds(),
        }
    }

    /// Looks for close frames that stalled clients have not read, and says goodbye to everybody.
    fn finish(mut self) -> WorkerTally {
        let published = self.shared.published();
        for index in 0..self.connections.len() {
            self.account(index, &published);
            let stalled = self.connections[index].plan.role == ClientRole::Stalled;
            match stalled.then(|| self.connections[index].look_through(&mut self.context)).flatten() {
                Some(end) => self.note_end(index, end, false),
                None => {
                    self.retire(index);
                    self.connections[index].leave(&mut self.context);
                }
            }
        }
        self.tally.joins = self.context.joins;
        self.tally
    }

    /// Holds what a steady client got of the publisher against what it should have got.
    fn account(&mut self, index: usize, published: &PublishedCount) {
        let connection = &self.connections[index];
        let watch = &self.context.requests[connection.plan.request as usize].watch;
        let Some(expected) = published.of(watch) else { return };
        if connection.plan.role != ClientRole::Steady || connection.is_replacement || !connection.is_open() {
            return;
        }
        let counters = connection.check.counters();
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
