//! One server over a run: CPU time, memory, the load of each core.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::process::{CoreTime, ObservedProcess, ProbeError, core_load, core_times};

/// A server whose use of the machine is sampled.
#[derive(Debug)]
pub struct ServerObserver {
    process: ObservedProcess,
    memory_before: u64,
    memory_connected: u64,
    begin: Option<UsageSample>,
    end: Option<UsageSample>,
}

/// What the server's process used in the measured time, as the system reports it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerUsage {
    pub pid: u32,
    /// CPU time of all its threads, in cores.
    pub cores: f64,
    /// A delivery is a record that a client received.
    pub cpu_ns_per_delivery: f64,
    pub cpu_ns_per_message: f64,
    pub memory_bytes: u64,
    /// The growth from before the first connect to after the last, for each connection.
    pub memory_bytes_per_connection: f64,
    /// Busy share of each core of the machine, by core number.
    pub core_load: BTreeMap<usize, f64>,
}

/// CPU time at one moment.
#[derive(Debug)]
struct UsageSample {
    at: std::time::Instant,
    cpu_ns: u64,
    cores: BTreeMap<usize, CoreTime>,
}

impl ServerObserver {
    /// Samples the server before its first client: the process with this id, or the one that listens there.
    pub fn new(address: SocketAddr, pid: Option<u32>) -> Result<Self, ProbeError> {
        let process = pid.map_or_else(|| ObservedProcess::listening_on(address), |pid| Ok(ObservedProcess::of(pid)))?;
        let memory_before = process.memory()?.private;
        // An error is better known before the run than after it.
        sample(&process)?;
        Ok(Self { process, memory_before, memory_connected: memory_before, begin: None, end: None })
    }

    /// The cores that the server may run on.
    pub fn cores(&self) -> Result<Vec<usize>, ProbeError> {
        Ok(self.process.cores()?.into_iter().collect())
    }

    /// Samples the memory when all clients are connected and nothing is published yet.
    pub fn connected(&mut self) -> Result<(), ProbeError> {
        self.memory_connected = self.process.memory()?.private;
        Ok(())
    }

    /// Samples the start of the measured time.
    pub fn begin(&mut self) -> Result<(), ProbeError> {
        self.begin = Some(sample(&self.process)?);
        Ok(())
    }

    /// Samples the end of the measured time.
    pub fn end(&mut self) -> Result<(), ProbeError> {
        self.end = Some(sample(&self.process)?);
        Ok(())
    }

    /// What the server used in the measured time, for so many records and messages a second; `None` where nothing was
    /// measured.
    pub fn usage(&self, connected: u64, records_per_s: f64, messages_per_s: f64) -> Option<ServerUsage> {
        let (begin, end) = (self.begin.as_ref()?, self.end.as_ref()?);
        let seconds = end.at.duration_since(begin.at).as_secs_f64().max(1e-9);
        // The CPU time of a thread that has ended is lost.
        let cpu_ns = end.cpu_ns.saturating_sub(begin.cpu_ns) as f64;
        let each = |per_second: f64| if per_second > 0.0 { cpu_ns / (per_second * seconds) } else { 0.0 };
        let grown = self.memory_connected.saturating_sub(self.memory_before);
        Some(ServerUsage {
            pid: self.process.pid(),
            cores: cpu_ns / 1e9 / seconds,
            cpu_ns_per_delivery: each(records_per_s),
            cpu_ns_per_message: each(messages_per_s),
            memory_bytes: self.memory_connected,
            memory_bytes_per_connection: grown as f64 / connected.max(1) as f64,
            core_load: core_load(&begin.cores, &end.cores),
        })
    }
}

fn sample(process: &ObservedProcess) -> Result<UsageSample, ProbeError> {
    let cores = core_times()?;
    Ok(UsageSample { at: std::time::Instant::now(), cpu_ns: process.cpu()?.total_ns, cores })
}
