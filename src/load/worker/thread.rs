//! One thread of a load run: connects its share of the clients, reads them all, and counts.
//!
//! A plain readiness loop (epoll, level-triggered): wait, wake each connection that is ready, follow the stage of the
//! run. What always holds: only a limited number of connections is pending at a time, so that the server's listen queue
//! is not what is measured; counters are read at both ends of the measured time.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::connection::{ConnectionEnd, LoadConnection, ReceivedTotals, ThreadContext, WakeOutcome};
use super::limiter::ReadLimiter;
use super::messages::{
    ClientPlan, ClientRequest, ClientRole, ConnectTimes, DeliveryCounts, MeasuredWindow, PublishedCount, ReadOptions,
    WorkerJob, WorkerTally,
};
use super::shared::{RunStage, WorkerShared};
use super::timeline::{CLASSES, ClassMeters, ClassTotals, ClientClass, ThreadClock, Timeline};
use crate::load::slow_clients::{Pause, ReadRate};
use tickcast_client::decode::DecodeCounters;
use tickcast_client::{CONNECT_TIMEOUT, Error, Target, TlsConfig};

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

/// The task of one thread: its share of a [`WorkerJob`].
#[derive(Clone, Debug)]
pub struct ThreadJob {
    pub address: SocketAddr,
    pub target: Target,
    pub tls: TlsConfig,
    pub options: ReadOptions,
    pub requests: Arc<[ClientRequest]>,
    pub instruments: u64,
    pub clients: Vec<ClientPlan>,
    pub storm: Vec<ClientPlan>,
    pub pending_max: usize,
    pub churn_per_s: f64,
    pub stall_for: Option<Duration>,
    pub pause: Option<Pause>,
    pub read_rate: Option<ReadRate>,
}

impl ThreadJob {
    /// Splits a job between its threads.
    pub fn split(job: &WorkerJob, target: &Target, tls: &TlsConfig) -> Vec<Self> {
        let requests: Arc<[ClientRequest]> = job.requests.clone().into();
        let share = |plans: &[ClientPlan], nth: usize| plans.iter().skip(nth).step_by(job.threads).copied().collect();
        let thread_job = |nth| Self {
            address: job.address,
            target: target.clone(),
            tls: tls.clone(),
            options: job.options,
            requests: Arc::clone(&requests),
            instruments: job.instruments,
            clients: share(&job.clients, nth),
            storm: share(&job.storm, nth),
            pending_max: job.pending_max,
            churn_per_s: job.churn_per_s / job.threads as f64,
            stall_for: job.stall_for_ms.map(Duration::from_millis),
            pause: job.pause,
            read_rate: job.read_rate,
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
    /// What is still to come of [`interest_changes`].
    interest_changes: VecDeque<(Duration, InterestChange)>,
    limiter: Option<ReadLimiter>,
    instruments: u64,
    connections: Vec<LoadConnection>,
    pending: usize,
    epoll: OwnedFd,
    shared: Arc<WorkerShared>,
    context: ThreadContext,
    tally: WorkerTally,
    /// Counters of connections that have ended: of all, and of limited clients.
    ended: [DecodeCounters; 2],
    begun: Instant,
    expiry_checked: Instant,
    window_start: Option<Checkpoint>,
    /// While the window is open.
    timeline: Option<Timeline>,
    /// Latencies of the window, without those of the current second.
    window_meters: ClassMeters,
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
    /// Of all clients, and of limited ones.
    counters: [DecodeCounters; 2],
    limited_bytes: u64,
    clock: ThreadClock,
}

/// A change of which sockets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InterestChange {
    /// Stalled clients begin to read.
    StallEnds,
    /// Clients that take part in the pause do not read.
    PauseBegins,
    PauseEnds,
}

/// The changes of a run, the first first, from the start of the measured time.
fn interest_changes(stall_for: Option<Duration>, pause: Option<Pause>) -> VecDeque<(Duration, InterestChange)> {
    let stall = stall_for.map(|at| (at, InterestChange::StallEnds));
    let pause = pause
        .into_iter()
        .flat_map(|pause| [(pause.begin(), InterestChange::PauseBegins), (pause.end(), InterestChange::PauseEnds)]);
    let mut changes: Vec<_> = stall.into_iter().chain(pause).collect();
    changes.sort_by_key(|(at, _)| *at);
    changes.into()
}

impl WorkerThread {
    /// The thread's state; [`Self::run`] runs on the thread itself.
    pub fn new(job: ThreadJob, shared: Arc<WorkerShared>) -> io::Result<Self> {
        let context = ThreadContext {
            target: job.target,
            tls_first: job.tls.clone().only_keeping(),
            tls: job.tls,
            options: job.options,
            requests: job.requests,
            buffer: vec![0; BUFFER_BYTES],
            masking_keys: Pcg64Mcg::seed_from_u64(std::process::id().into()),
            received: ReceivedTotals::default(),
            meters: ClassMeters::new(job.options.origin),
            classes: [ClassTotals::default(); CLASSES],
            limited_bytes: 0,
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
            interest_changes: interest_changes(job.stall_for, job.pause),
            limiter: job.read_rate.map(|rate| ReadLimiter::new(rate.bytes_per_second)),
            instruments: job.instruments,
            pending: 0,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            shared,
            context,
            tally: WorkerTally::default(),
            ended: [DecodeCounters::default(); 2],
            begun: Instant::now(),
            expiry_checked: Instant::now(),
            window_start: None,
            timeline: None,
            window_meters: ClassMeters::new(job.options.origin),
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
            self.step(&mut events, wait)?;
        }
        self.close_window();
        Ok(self.finish())
    }

    /// Connects more clients, waits at most so long for sockets, and wakes those that are ready.
    fn step(&mut self, events: &mut Vec<epoll::Event>, wait: Timespec) -> io::Result<()> {
        self.connect_more()?;
        // While more connects are due, ready sockets are handled without waiting.
        let may_connect = self.pending < self.pending_max && self.waiting.len() > 0;
        let wait = if may_connect { Timespec::default() } else { self.until_next(wait) };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            self.end_second();
            self.wake(event.data.u64() as usize)?;
        }
        self.read_limited();
        self.end_second();
        self.expire();
        let ThreadContext { options, received, classes, .. } = &self.context;
        // The run waits until nothing comes any more, which limited clients would hold up for ever.
        let limited = classes[ClientClass::Limited as usize].records;
        let received = if options.opaque { received.messages } else { received.records - limited };
        self.shared.add_records(received - self.reported);
        self.reported = received;
        Ok(())
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
                } else if matches!(self.connections[index].plan.role, ClientRole::Stalled | ClientRole::Limited) {
                    // epoll reports errors and the end of both directions without being asked.
                    self.listen_for(index, epoll::EventFlags::empty())?;
                    self.limit(index, Instant::now());
                }
            }
            WakeOutcome::Ended(end) => self.on_end(index, end, was_pending),
        }
        for message in self.context.rejected.drain(..) {
            *self.tally.rejected.entry(message).or_default() += 1;
        }
        Ok(())
    }

    /// A limited client begins to read.
    fn limit(&mut self, index: usize, now: Instant) {
        if let Some(limiter) =
            self.limiter.as_mut().filter(|_| self.connections[index].plan.role == ClientRole::Limited)
        {
            limiter.add(index, now);
        }
    }

    /// Limited clients read what they may by now.
    fn read_limited(&mut self) {
        let now = Instant::now();
        while let Some((index, bytes)) = self.limiter.as_mut().and_then(|limiter| limiter.next_due(now)) {
            match self.connections[index].read_at_most(bytes, &mut self.context) {
                Some(end) => self.on_end(index, end, false),
                None if self.connections[index].is_open() => self.limit(index, now),
                // It has ended while it waited.
                None => {}
            }
        }
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
            self.count(index);
            self.tally.connected += 1;
            self.tally.connect_seconds = self.begun.elapsed().as_secs_f64();
            self.shared.add_connected();
        }
    }

    /// Includes a client in what the clients of its class are to receive.
    fn count(&mut self, index: usize) {
        if let Some(class) = self.connections[index].class() {
            let request = self.connections[index].plan.request as usize;
            self.connections[index].is_counted = true;
            let share = self.context.requests[request].expected.share(self.instruments);
            self.context.classes[class as usize].standing.share += share;
        }
    }

    fn on_refused(&mut self, role: ClientRole, why: String) {
        *self.tally.refused.entry(why).or_default() += 1;
        if role == ClientRole::Storm {
            self.tally.storm.refused += 1;
            self.settle_storm();
        } else {
            self.shared.add_refused();
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
            ConnectionEnd::Refused(how) | ConnectionEnd::Closed(how) => {
                let is_limited = self.connections[index].plan.role == ClientRole::Limited;
                let closes = if is_limited { &mut self.tally.limited_closes } else { &mut self.tally.closes };
                *closes.entry(how).or_default() += 1;
            }
            ConnectionEnd::Malformed(what) => *self.tally.malformed.entry(what).or_default() += 1,
        }
        self.retire(index);
    }

    /// Adds the counters of a connection that has ended, and frees its memory.
    fn retire(&mut self, index: usize) {
        let checker = self.connections[index].take_checker();
        let connection = &mut self.connections[index];
        if let Some(class) = connection.class().filter(|_| std::mem::take(&mut connection.is_counted)) {
            let expected = &self.context.requests[connection.plan.request as usize].expected;
            let standing = &mut self.context.classes[class as usize].standing;
            standing.share -= expected.share(self.instruments);
            standing.covered -= checker.counters().covered;
        }
        self.ended[0].add(checker.counters());
        if connection.plan.role == ClientRole::Limited {
            self.ended[1].add(checker.counters());
        }
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
        self.context.meters.clear();
        self.context.is_measuring = true;
        let start = self.checkpoint();
        self.timeline = Some(Timeline::begin(start.at, &self.context.classes));
        self.window_start = Some(start);
        if !self.storm.is_empty() {
            self.context.in_storm = true;
            self.pending_max = self.pending_max.max(STORM_PENDING_MAX);
            let waiting: Vec<_> = self.waiting.by_ref().chain(self.storm.iter().copied()).collect();
            self.waiting = waiting.into_iter();
        }
    }

    /// Disturbances of the measured time that are due: churn, and clients that stop or begin to read.
    fn disturb(&mut self) -> io::Result<()> {
        let Some(start) = self.window_start else { return Ok(()) };
        let elapsed = start.at.elapsed();
        while let Some((_, change)) = self.interest_changes.pop_front_if(|(at, _)| elapsed >= *at) {
            self.change_interest(change)?;
        }
        let due = (elapsed.as_secs_f64() * self.churn_per_s) as u64;
        for _ in self.tally.churned..due {
            if self.pending >= self.pending_max || !self.churn_one()? {
                break;
            }
        }
        Ok(())
    }

    fn change_interest(&self, change: InterestChange) -> io::Result<()> {
        for (index, connection) in self.connections.iter().enumerate().filter(|(_, connection)| connection.is_open()) {
            let ClientPlan { role, pauses, .. } = connection.plan;
            match change {
                InterestChange::StallEnds if role == ClientRole::Stalled => {
                    self.listen_for(index, epoll::EventFlags::IN)?;
                }
                InterestChange::PauseBegins if pauses => self.listen_for(index, epoll::EventFlags::empty())?,
                InterestChange::PauseEnds if pauses => self.listen_for(index, epoll::EventFlags::IN)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The time until the next change of interest or read of a limited client, at most `longest`.
    fn until_next(&self, longest: Timespec) -> Timespec {
        let change = self.window_start.zip(self.interest_changes.front());
        let change = change.map(|(start, (at, _))| at.saturating_sub(start.at.elapsed()));
        let limited = self.limiter.as_ref().and_then(|limiter| limiter.until_due(Instant::now()));
        let next = change.into_iter().chain(limited).min();
        next.and_then(|next| Timespec::try_from(next).ok()).map_or(longest, |next| longest.min(next))
    }

    /// Ends the current second of the measured time where it is over.
    #[inline]
    fn end_second(&mut self) {
        let Some(timeline) = &mut self.timeline else { return };
        let now = Instant::now();
        if now >= timeline.next_end() {
            let ages = self.context.meters.end_second(&mut self.window_meters);
            timeline.end_second(now, &self.context.classes, ages);
        }
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
        let (Some(start), Some(timeline)) = (self.window_start, self.timeline.take()) else { return };
        let end = self.checkpoint();
        let ages = self.context.meters.end_second(&mut self.window_meters);
        let ClassMeters { steady: mut meter, in_storm, limited, pausing } = self.window_meters.clone();
        meter.add(&in_storm);
        meter.add(&pausing);
        let [counters, limited_counters] = [0, 1].map(|at| end.counters[at].since(&start.counters[at]));
        self.tally.window = MeasuredWindow {
            seconds: end.at.duration_since(start.at).as_secs_f64(),
            bytes: end.received.bytes - start.received.bytes,
            messages: end.received.messages - start.received.messages,
            counters,
            limited_counters,
            meter,
            timeline: timeline.end(end.at, &self.context.classes, ages),
            meter_in_storm: in_storm,
            limited_meter: limited,
            limited_bytes: end.limited_bytes - start.limited_bytes,
            cpu_seconds: end.clock.cpu_seconds - start.clock.cpu_seconds,
            starved_seconds: end.clock.starved_seconds - start.clock.starved_seconds,
        };
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut counters = self.ended;
        for connection in &self.connections {
            counters[0].add(connection.checker().counters());
            if connection.plan.role == ClientRole::Limited {
                counters[1].add(connection.checker().counters());
            }
        }
        let ThreadContext { received, limited_bytes, .. } = self.context;
        Checkpoint { at: Instant::now(), received, counters, limited_bytes, clock: ThreadClock::now() }
    }

    /// Reads close frames that stalled and limited clients have not read, and closes all connections.
    fn finish(mut self) -> WorkerTally {
        let published = self.shared.published();
        for index in 0..self.connections.len() {
            self.account(index, &published);
            let is_slow = matches!(self.connections[index].plan.role, ClientRole::Stalled | ClientRole::Limited);
            match is_slow.then(|| self.connections[index].read_backlog(&mut self.context)).flatten() {
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

#[cfg(test)]
mod tests;
