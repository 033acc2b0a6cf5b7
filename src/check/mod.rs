//! Checks whether the settings of this machine allow what the server is configured for: `tickcast check`.
//!
//! * [`settings`]: each setting: its value, the value that is wanted, and the file under `tuning/` that sets it.
//! * [`tree`]: values of `/proc` and `/sys` below a root, which tests replace.
//! * [`report`]: the findings as lines and as JSON.
//!
//! `tickcast check` prints all findings. A server checks the same at its start: a missing required setting prevents the
//! start, recommended ones are one line of the log. What always holds: nothing is changed here, and a setting that a
//! machine does not have (a governor on a virtual one) is no fault. Not checked: queues and interrupts of a network card;
//! see `tuning/profile check`. Cost: some fifty small files and two small rings.

pub mod report;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod tree;

use std::io::Write;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::settings::{Finding, State};
use self::tree::Tree;
use crate::config::{Config, ConfigError, Layer, Machine, access_of};
use crate::io::uring::{self, SetupError};

/// Arguments of the check, besides the server's own settings.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CheckArgs {
    /// Connections in all that the machine must support [default: --connections-max]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

/// The needs of the server.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Of all cores together.
    pub connections: u64,
    /// Cores with a shard; never empty.
    pub cores: Vec<usize>,
    /// Send buffer of each connection.
    pub send_buffer_bytes: u64,
}

impl Needs {
    /// The needs of a server with these settings.
    pub fn of(config: &Config) -> Self {
        Self {
            connections: u64::from(config.connections_max),
            cores: config.cores.clone(),
            send_buffer_bytes: config.send_buffer_bytes as u64,
        }
    }

    /// The needs of a server with these settings and connections, even if this machine does not allow them.
    fn wished(mut layer: Layer, machine: &Machine, connections: Option<u32>) -> Result<Self, ConfigError> {
        // Removed, because the check is to explain a number that is too large for the machine.
        let connections = connections.or(layer.connections_max.take());
        let needs = Self::of(&Config::resolve(layer, machine, 0)?);
        Ok(Self { connections: connections.map_or(needs.connections, |given| u64::from(given.max(1))), ..needs })
    }

    /// Connections of one core.
    pub fn slots_per_core(&self) -> u64 {
        self.connections.div_ceil(self.cores.len() as u64)
    }
}

/// The kernel's limits of this process, which are in no file.
#[derive(Debug)]
pub struct Process {
    /// The hard limit: the server raises the soft one to it.
    pub descriptors_max: u64,
    /// The soft limit; `None` where there is none.
    pub locked_bytes_max: Option<u64>,
    /// The kernel counts the memory of a ring of this process against that limit. It does not for a process that may lock
    /// any amount, which the capabilities do not tell: inside a user namespace they are all there and count for nothing.
    pub rings_are_counted: bool,
    /// The result of creating an io_uring ring.
    pub ring: Result<(), SetupError>,
}

impl Process {
    /// This process.
    pub fn here() -> Self {
        Self {
            descriptors_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            locked_bytes_max: getrlimit(Resource::Memlock).current,
            rings_are_counted: rings_are_counted(),
            ring: uring::probe(),
        }
    }
}

/// Creates a ring under a limit of 0: without memory for it, the kernel counts the memory of rings.
fn rings_are_counted() -> bool {
    let limit = getrlimit(Resource::Memlock);
    if setrlimit(Resource::Memlock, Rlimit { current: Some(0), ..limit }).is_err() {
        return true;
    }
    let outcome = uring::probe();
    // A soft limit below the hard one may always be raised again.
    setrlimit(Resource::Memlock, limit).expect("the limit that was there");
    matches!(outcome, Err(SetupError::Memory(_)))
}

/// All findings, and the needs that they were checked against.
#[derive(Debug)]
pub struct Survey {
    pub needs: Needs,
    pub findings: Vec<Finding>,
}

/// Missing required settings: the value, the wanted value, the fix.
#[derive(Debug, thiserror::Error)]
#[error("this machine lacks what the server needs: {0}; 'tickcast check' shows all settings")]
pub struct Unfit(String);

impl Survey {
    /// Checks a machine whose `/proc` and `/sys` are below this root.
    pub fn of(root: &Path, process: &Process, needs: Needs) -> Self {
        let findings = settings::survey(&Tree::at(root), process, &needs);
        Self { needs, findings }
    }

    /// Checks this machine.
    pub fn here(needs: Needs) -> Self {
        Self::of(Path::new("/"), &Process::here(), needs)
    }

    /// The worst of all findings.
    pub fn state(&self) -> State {
        self.in_state(State::Missing).or(self.in_state(State::Off)).map_or(State::Fine, |finding| finding.state)
    }

    /// 0 if all is well, 1 if a recommended setting is off, 3 if a required one is missing. 2 is for invalid arguments
    /// and files, as everywhere in this program.
    pub fn exit_code(&self) -> u8 {
        match self.state() {
            State::Missing => 3,
            State::Off => 1,
            State::Absent | State::Fine | State::Optional => 0,
        }
    }

    /// An error if a server cannot run.
    pub fn refusal(&self) -> Result<(), Unfit> {
        let missing = self.findings.iter().filter(|finding| finding.state == State::Missing);
        let problems: Vec<_> = missing.map(Finding::sentence).collect();
        if problems.is_empty() { Ok(()) } else { Err(Unfit(problems.join("; "))) }
    }

    /// One line for the server's log if recommended settings are off.
    pub fn warning(&self) -> Option<String> {
        let off = self.findings.iter().filter(|finding| finding.state == State::Off);
        let names: Vec<_> = off.map(|finding| finding.setting).collect();
        let names = (!names.is_empty()).then(|| names.join(", "))?;
        Some(format!("settings of this machine that are not as recommended: {names}; see 'tickcast check'"))
    }

    fn in_state(&self, state: State) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.state == state)
    }
}

/// `tickcast check`: checks this machine and prints the findings. Returns the exit code.
pub fn check(args: CheckArgs, layer: Layer, machine: &Machine, out: &mut impl Write) -> Result<u8, ConfigError> {
    let access = access_of(&layer)?;
    let survey = Survey::here(Needs::wished(layer, machine, args.connections)?);
    let text = if args.json { report::json(&survey) } else { report::lines(&survey) + &format!("access: {access}\n") };
    // Stdout may be closed; the exit code still has the result.
    let _ = out.write_all(text.as_bytes());
    Ok(survey.exit_code())
}
