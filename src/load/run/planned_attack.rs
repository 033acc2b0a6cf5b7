//! The attack of one run: begun and ended at its times, while the server is observed.

use std::time::Duration;

use crate::load::attack::{Attack, AttackCount, AttackPhases, AttackTask};
use crate::load::error::LoadError;
use crate::load::observe::phases::PhaseObserver;
use crate::load::observe::process::ObservedProcess;
use crate::load::report::attacks::AttackReport;

/// An attack that a run is to see.
#[derive(Debug)]
pub struct PlannedAttack {
    task: AttackTask,
    cores: Option<Vec<usize>>,
    phases: AttackPhases,
    observer: Option<PhaseObserver>,
    /// Once it has begun.
    attack: Option<Attack>,
    has_ended: bool,
}

impl PlannedAttack {
    /// Nothing has begun.
    pub fn new(task: AttackTask, cores: Option<Vec<usize>>, phases: AttackPhases) -> Self {
        Self { task, cores, phases, observer: None, attack: None, has_ended: false }
    }

    /// Begins the measured time.
    pub fn begin(&mut self) {
        let process = match self.task.server_pid {
            Some(pid) => Ok(ObservedProcess::of(pid)),
            None => ObservedProcess::listening_on(self.task.address),
        };
        // A server whose process cannot be observed is attacked all the same; the run's own observer reports why.
        self.observer = process.and_then(PhaseObserver::begin).ok();
    }

    /// Does what is due at this moment of the measured time.
    pub fn tick(&mut self, elapsed: Duration) -> Result<(), LoadError> {
        if let Some(attack) = &mut self.attack {
            self.observer.as_mut().map_or(Ok(()), PhaseObserver::sample)?;
            if !self.has_ended && elapsed >= self.phases.end_at() {
                self.observer.as_mut().map_or(Ok(()), PhaseObserver::settle)?;
                attack.stop();
                self.has_ended = true;
            }
        } else if elapsed >= self.phases.attack_at() {
            self.observer.as_mut().map_or(Ok(()), PhaseObserver::attack)?;
            self.attack = Some(Attack::start(&self.task, self.cores.as_deref())?);
        }
        Ok(())
    }

    /// Ends the measured time. Returns what the attack did, and what it did to the server.
    pub fn end(self) -> Result<AttackReport, LoadError> {
        let (memory, cores) = self.observer.map(PhaseObserver::end).transpose()?.unzip();
        // The run may have been interrupted before it began.
        let count = self.attack.map_or(Ok(AttackCount::default()), Attack::end)?;
        Ok(AttackReport { kind: self.task.kind, phases: self.phases, count, memory, cores, latencies: None })
    }
}
