//! The memory and the CPU time of one server before, during and after an attack.

use std::time::Instant;

use serde::Serialize;

use super::process::{ObservedProcess, ProbeError};

/// Resident memory of a server, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PhaseMemory {
    /// When the attack began.
    pub before: u64,
    /// The most of all samples from then on.
    pub peak: u64,
    /// At the end of the measured time.
    pub after: u64,
}

/// CPU time of a server, in cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PhaseCores {
    pub before: f64,
    pub during: f64,
}

/// A server that is sampled.
#[derive(Debug)]
pub struct PhaseObserver {
    process: ObservedProcess,
    memory: PhaseMemory,
    cores: PhaseCores,
    since: CpuSample,
}

#[derive(Clone, Copy, Debug)]
struct CpuSample {
    at: Instant,
    ns: u64,
}

impl PhaseObserver {
    /// Begins the time before the attack.
    pub fn begin(process: ObservedProcess) -> Result<Self, ProbeError> {
        let since = CpuSample::take(process)?;
        Ok(Self { process, memory: PhaseMemory::default(), cores: PhaseCores::default(), since })
    }

    /// Ends the time before the attack.
    pub fn attack(&mut self) -> Result<(), ProbeError> {
        self.memory.before = self.process.resident()?;
        self.cores.before = self.cores_since()?;
        self.sample()
    }

    /// Samples the memory.
    pub fn sample(&mut self) -> Result<(), ProbeError> {
        self.memory.peak = self.memory.peak.max(self.process.resident()?);
        Ok(())
    }

    /// Ends the attack.
    pub fn settle(&mut self) -> Result<(), ProbeError> {
        self.cores.during = self.cores_since()?;
        self.sample()
    }

    /// Ends the time after the attack.
    pub fn end(mut self) -> Result<(PhaseMemory, PhaseCores), ProbeError> {
        self.sample()?;
        self.memory.after = self.process.resident()?;
        Ok((self.memory, self.cores))
    }

    fn cores_since(&mut self) -> Result<f64, ProbeError> {
        let (before, now) = (self.since, CpuSample::take(self.process)?);
        self.since = now;
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-9);
        // The CPU time of a thread that has ended is lost.
        Ok(now.ns.saturating_sub(before.ns) as f64 / 1e9 / seconds)
    }
}

impl CpuSample {
    fn take(process: ObservedProcess) -> Result<Self, ProbeError> {
        Ok(Self { at: Instant::now(), ns: process.cpu()?.total_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_samples() {
        const BYTES: usize = 64 << 20;
        let mut observer = PhaseObserver::begin(ObservedProcess::of(std::process::id())).expect("it runs");
        observer.attack().expect("it runs");
        let held = vec![1_u8; BYTES];
        observer.sample().expect("it runs");
        drop(std::hint::black_box(held));
        observer.settle().expect("it runs");
        let (memory, cores) = observer.end().expect("it runs");
        assert!(memory.peak >= memory.before + BYTES as u64 / 2, "{memory:?}");
        assert!(memory.peak >= memory.after && cores.before >= 0.0 && cores.during > 0.0, "{memory:?} {cores:?}");
    }
}
