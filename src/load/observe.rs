//! What the system tells of the server in the course of a run: CPU time, memory, the load of each core.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::probe::{CoreTime, ProbeError, Process, core_load, core_times};
use super::report::{Measured, Server};

/// One server under observation.
#[derive(Debug)]
pub struct Observer {
    process: Process,
    memory_before: u64,
    memory_connected: u64,
    begin: Option<Look>,
    end: Option<Look>,
}

#[derive(Debug)]
struct Look {
    at: std::time::Instant,
    cpu_ns: u64,
    cores: BTreeMap<usize, CoreTime>,
}

impl Observer {
    /// Looks at the server before its first client: the process with this id, or the one that listens there.
    pub fn of(address: SocketAddr, pid: Option<u32>) -> Result<Self, ProbeError> {
        let process = pid.map_or_else(|| Process::listening_on(address), |pid| Ok(Process::of(pid)))?;
        let memory_before = process.memory()?.private;
        // What cannot be looked at is better known before the run than after it.
        look(&process)?;
        Ok(Self { process, memory_before, memory_connected: memory_before, begin: None, end: None })
    }

    /// The cores that the server may run on.
    pub fn cores(&self) -> Result<Vec<usize>, ProbeError> {
        Ok(self.process.cores()?.into_iter().collect())
    }

    /// All clients are connected, and nothing is published yet.
    pub fn connected(&mut self) -> Result<(), ProbeError> {
        self.memory_connected = self.process.memory()?.private;
        Ok(())
    }

    /// The measured time begins.
    pub fn begin(&mut self) -> Result<(), ProbeError> {
        self.begin = Some(look(&self.process)?);
        Ok(())
    }

    /// The measured time is over.
    pub fn end(&mut self) -> Result<(), ProbeError> {
        self.end = Some(look(&self.process)?);
        Ok(())
    }

    /// What the server took for what the clients got; `None` where nothing was measured.
    pub fn server(&self, connected: u64, measured: &Measured) -> Option<Server> {
        let (begin, end) = (self.begin.as_ref()?, self.end.as_ref()?);
        let seconds = end.at.duration_since(begin.at).as_secs_f64().max(1e-9);
        // A thread that has ended takes its time with it.
        let cpu_ns = end.cpu_ns.saturating_sub(begin.cpu_ns) as f64;
        let each = |per_second: f64| if per_second > 0.0 { cpu_ns / (per_second * seconds) } else { 0.0 };
        let grown = self.memory_connected.saturating_sub(self.memory_before);
        Some(Server {
            pid: self.process.pid(),
            cores: cpu_ns / 1e9 / seconds,
            cpu_ns_per_delivery: each(measured.records_per_second),
            cpu_ns_per_message: each(measured.messages_per_second),
            memory_bytes: self.memory_connected,
            memory_bytes_per_connection: grown as f64 / connected.max(1) as f64,
            core_load: core_load(&begin.cores, &end.cores),
        })
    }
}

fn look(process: &Process) -> Result<Look, ProbeError> {
    let cores = core_times()?;
    Ok(Look { at: std::time::Instant::now(), cpu_ns: process.cpu()?.total_ns, cores })
}
