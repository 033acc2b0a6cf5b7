//! The stages of a run, from the first connect to the last close.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::planned_attack::PlannedAttack;
use super::processes::{Launch, WorkerProcesses};
use super::progress::StageBar;
use super::publisher::{LoadPublisher, PublisherResult, RunningPublisher};
use crate::load::error::LoadError;
use crate::load::observe::process::ProbeError;
use crate::load::observe::server::ServerObserver;
use crate::load::report::attacks::AttackReport;
use crate::load::worker::messages::{PublishedCount, StageCommand};

/// How often the run reads the processes' progress, and draws the progress bar.
const TICK: Duration = Duration::from_millis(50);
/// How the run waits for the records that are under way when the publisher stops.
#[derive(Clone, Copy, Debug)]
pub struct TailRule {
    /// The measured time ends after the wait rather than before it.
    is_measured: bool,
    /// All records count as arrived once nothing has come for this long.
    quiet: Duration,
    /// The longest wait.
    max: Duration,
}

impl TailRule {
    /// The records under way are counted, their latencies are not.
    pub const UNMEASURED: Self =
        Self { is_measured: false, quiet: Duration::from_millis(500), max: Duration::from_secs(10) };
    /// The latencies of all records are part of the result, as of those that a pause has held up.
    pub const MEASURED: Self = Self { is_measured: true, quiet: Duration::from_secs(2), max: Duration::from_secs(60) };
}

/// How long the stages last, and how the worker processes are started.
#[derive(Clone, Copy, Debug)]
pub struct StageLengths {
    pub warmup: Duration,
    pub measure: Duration,
    pub launch: Launch,
}

/// A run under way.
pub struct ActiveRun<'a> {
    pub clients: u64,
    pub stages: StageLengths,
    pub tail: TailRule,
    pub stop: &'a AtomicBool,
    pub workers: WorkerProcesses,
    pub progress: StageBar,
    pub observer: Result<ServerObserver, ProbeError>,
    /// The attack that is to run, and its result.
    pub attack: Option<PlannedAttack>,
    pub attacked: Option<AttackReport>,
    pub cores: Option<Vec<usize>>,
}

impl ActiveRun<'_> {
    /// Takes the worker processes through the stages. An interrupt ends the measured time early.
    pub fn run(&mut self, publisher: Option<LoadPublisher>) -> Result<Option<PublisherResult>, LoadError> {
        let has_connections = self.connect()?;
        self.observe(ServerObserver::connected)?;
        let cores = self.cores.clone();
        let publishing = publisher.filter(|_| has_connections).map(|publisher| publisher.start(cores)).transpose()?;
        let mut result = None;
        if has_connections {
            self.warm_up(publishing.as_ref())?;
            self.measure(publishing.as_ref())?;
            if !self.tail.is_measured {
                self.end_measurement()?;
            }
            result = publishing.map(RunningPublisher::stop).transpose()?;
            if result.is_some() {
                self.await_tail()?;
            }
            if self.tail.is_measured {
                self.end_measurement()?;
            }
        }
        let published = result.as_ref().map_or(PublishedCount::default(), |result| result.published);
        self.workers.command(StageCommand::Done(published))?;
        Ok(result)
    }

    /// True once all have connected or were refused; false where all were refused.
    fn connect(&mut self) -> Result<bool, LoadError> {
        self.progress.begin("connecting", self.clients);
        loop {
            let now = self.workers.progress(TICK)?;
            self.progress.set(now.connected, "");
            if now.settled >= self.clients {
                return Ok(now.connected > 0);
            }
            if self.is_stopped() {
                return Err(LoadError::Interrupted);
            }
        }
    }

    fn warm_up(&mut self, publishing: Option<&RunningPublisher>) -> Result<(), LoadError> {
        let (begun, length) = (Instant::now(), self.stages.warmup);
        self.progress.begin("warming up", length.as_millis() as u64);
        while begun.elapsed() < length && !has_ended(publishing) {
            self.workers.progress(TICK.min(length.saturating_sub(begun.elapsed())))?;
            self.progress.set(begun.elapsed().as_millis() as u64, "");
            if self.is_stopped() {
                return Err(LoadError::Interrupted);
            }
        }
        if self.is_stopped() { Err(LoadError::Interrupted) } else { Ok(()) }
    }

    fn measure(&mut self, publishing: Option<&RunningPublisher>) -> Result<(), LoadError> {
        self.workers.command(StageCommand::Measure)?;
        self.observe(ServerObserver::begin)?;
        publishing.inspect(|publishing| publishing.measure());
        if let Some(attack) = &mut self.attack {
            attack.begin();
        }
        let (begun, length) = (Instant::now(), self.stages.measure);
        self.progress.begin("measuring", length.as_millis() as u64);
        let before = self.workers.progress(Duration::ZERO)?.records;
        while begun.elapsed() < length && !self.is_stopped() && !has_ended(publishing) {
            let now = self.workers.progress(TICK.min(length.saturating_sub(begun.elapsed())))?;
            let rate = (now.records - before) as f64 / begun.elapsed().as_secs_f64() / 1e6;
            self.progress.set(begun.elapsed().as_millis() as u64, &format!("{rate:.2} M records/s"));
            if let Some(attack) = &mut self.attack {
                attack.tick(begun.elapsed())?;
            }
        }
        self.attacked = self.attack.take().map(PlannedAttack::end).transpose()?;
        Ok(())
    }

    fn end_measurement(&mut self) -> Result<(), LoadError> {
        self.workers.command(StageCommand::Tail)?;
        self.observe(ServerObserver::end)
    }

    /// Waits until no record has come for a while.
    fn await_tail(&mut self) -> Result<(), LoadError> {
        let begun = Instant::now();
        self.progress.begin("records under way", 0);
        let (mut last, mut since) = (self.workers.progress(Duration::ZERO)?.records, Instant::now());
        while since.elapsed() < self.tail.quiet && begun.elapsed() < self.tail.max && !self.is_stopped() {
            let now = self.workers.progress(TICK)?.records;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn observe(&mut self, sample: fn(&mut ServerObserver) -> Result<(), ProbeError>) -> Result<(), LoadError> {
        self.observer.as_mut().map_or(Ok(()), sample).map_err(LoadError::Probe)
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: the flag carries no other data.
        self.stop.load(Ordering::Relaxed)
    }
}

/// A publisher that ends by itself has failed; [`RunningPublisher::stop`] returns its error.
fn has_ended(publishing: Option<&RunningPublisher>) -> bool {
    publishing.is_some_and(RunningPublisher::has_ended)
}
