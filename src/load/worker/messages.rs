//! What a run and its worker processes send each other: JSON, one message per line.
//!
//! A process reads one [`WorkerJob`] from stdin, then [`StageCommand`]s, and writes [`WorkerMessage`]s to stdout. The
//! end of stdin ends the process, so that it does not outlive its parent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::timeline::SecondTally;
use crate::load::latency::{LatencyHistogram, LatencyMeter, LatencyOrigin};
use crate::load::slow_clients::{LimitedFormat, Pause, ReadRate};
use tickcast_client::decode::DecodeCounters;

/// The task of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerJob {
    pub address: SocketAddr,
    /// The whole URL of the upgrade request.
    pub url: String,
    /// The authorities of the server's certificate.
    pub ca: Option<PathBuf>,
    /// Connections over TLS that come later resume sessions of the others.
    pub tls_resume: bool,
    pub options: ReadOptions,
    /// The clients' requests; most clients share one.
    pub requests: Vec<ClientRequest>,
    /// How many instruments the run publishes; 0 where it does not.
    pub instruments: u64,
    /// Clients that connect at the start.
    pub clients: Vec<ClientPlan>,
    /// Clients that connect when the measured time begins.
    pub storm: Vec<ClientPlan>,
    pub threads: usize,
    /// Most connections without an upgrade at a time, for each thread.
    pub pending_max: usize,
    /// Connections per second that are reset and replaced in the measured time.
    pub churn_per_s: f64,
    /// When stalled clients begin to read, counted from the start of the measured time; `None` for never.
    pub stall_for_ms: Option<u64>,
    /// When the clients with [`ClientPlan::pauses`] do not read.
    pub pause: Option<Pause>,
    /// How fast limited clients read.
    pub read_rate: Option<ReadRate>,
    /// Cores to run on; `None` for any.
    pub cores: Option<Vec<usize>>,
}

/// How clients read what the server sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// A server of another kind: messages that are no packets are counted only, and no instrument is defined.
    pub opaque: bool,
    pub origin: LatencyOrigin,
    /// Each client receives most of the market rather than a small part of it.
    pub dense: bool,
    pub limited_format: LimitedFormat,
}

/// What a client sends after its upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientRequest {
    pub messages: Vec<String>,
    pub expected: ExpectedInstruments,
}

/// Which of the run's own instruments a client receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedInstruments {
    /// The run does not publish.
    Unknown,
    /// These, by their index in the publisher's order.
    These(Vec<u32>),
    /// This many; the server chooses which.
    Any(u32),
}

/// The task of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Index of its request.
    pub request: u32,
    pub role: ClientRole,
    /// Takes part in the run's [`Pause`].
    pub pauses: bool,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// Read by tungstenite and the [`tickcast_client::decode::Decoder`] rather than by the fast reader.
    pub independent: bool,
}

/// The part of a client in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientRole {
    /// Reads all, and is measured.
    Steady,
    /// Subscribes and does not read.
    Stalled,
    /// Reads at most the run's [`ReadRate`], and is measured by itself.
    Limited,
    /// Connects together with many others; only its connect is measured.
    Storm,
}

/// What the run sends its processes after the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageCommand {
    Measure,
    /// The measured time is over; records under way are still read.
    Tail,
    Done(PublishedCount),
}

/// What the run's own publisher has published by its end; zeros where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedCount {
    pub records: u64,
    pub instruments: u64,
}

impl ExpectedInstruments {
    /// The part of all published records that are of these, of so many instruments.
    pub fn share(&self, instruments: u64) -> f64 {
        let count = match self {
            Self::Unknown => 0,
            Self::These(indices) => indices.len() as u64,
            Self::Any(count) => u64::from(*count),
        };
        count as f64 / instruments.max(1) as f64
    }
}

impl PublishedCount {
    /// How many of the records are of these instruments: they were published round robin.
    pub fn records_of(&self, expected: &ExpectedInstruments) -> Option<u64> {
        if self.instruments == 0 {
            return None;
        }
        let (rounds, more) = (self.records / self.instruments, self.records % self.instruments);
        match expected {
            ExpectedInstruments::Unknown => None,
            ExpectedInstruments::These(indices) => {
                Some(indices.iter().map(|index| rounds + u64::from(u64::from(*index) < more)).sum())
            }
            ExpectedInstruments::Any(count) => Some(rounds * u64::from(*count)),
        }
    }
}

/// What a process reports to the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMessage {
    Progress(WorkerProgress),
    /// The last message: the results of each thread.
    Tallies(Vec<WorkerTally>),
    /// The last message: why the process cannot continue.
    Failed(String),
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerProgress {
    /// Upgraded so far.
    pub connected: u64,
    /// Upgraded or refused so far.
    pub settled: u64,
    /// Records received so far; messages, where the server is of another kind.
    pub records: u64,
}

impl WorkerProgress {
    /// Adds another process's.
    pub fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.settled += other.settled;
        self.records += other.records;
    }
}

/// The results of one thread.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerTally {
    pub connected: u64,
    pub connect_seconds: f64,
    pub refused: BTreeMap<String, u64>,
    pub rejected: BTreeMap<String, u64>,
    pub closes: BTreeMap<String, u64>,
    /// The same of limited clients, which are not in `closes`.
    pub limited_closes: BTreeMap<String, u64>,
    pub malformed: BTreeMap<String, u64>,
    pub violations: u64,
    pub first_violation: Option<String>,
    pub connect_times: ConnectTimes,
    pub storm: StormTally,
    /// Connections that were reset and replaced.
    pub churned: u64,
    pub delivered: DeliveryCounts,
    pub window: MeasuredWindow,
}

/// What one thread received in the measured time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MeasuredWindow {
    pub seconds: f64,
    pub bytes: u64,
    pub messages: u64,
    pub counters: DecodeCounters,
    /// The part of `counters` that limited clients received.
    pub limited_counters: DecodeCounters,
    /// Of steady clients.
    pub meter: LatencyMeter,
    pub timeline: Vec<SecondTally>,
    /// The part of `meter` that was recorded during the storm.
    pub meter_in_storm: LatencyMeter,
    /// Of limited clients.
    pub limited_meter: LatencyMeter,
    pub limited_bytes: u64,
    pub cpu_seconds: f64,
    pub starved_seconds: f64,
}

/// How long connections took to open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConnectTimes {
    /// From the connect to the answer of the upgrade.
    pub upgraded: LatencyHistogram,
    /// From the connect to the first data.
    pub first_data: LatencyHistogram,
}

/// The results of a storm of connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StormTally {
    pub connected: u64,
    pub refused: u64,
    /// From its first connect to its last upgrade or refusal.
    pub seconds: f64,
}

/// What steady clients should have received of the run's publisher, and what they received. Counts the clients that
/// were connected from before its first record to after its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryCounts {
    pub clients: u64,
    pub expected: u64,
    /// Those of `expected` that came as records of their own.
    pub received: u64,
    /// Those that the server merged into a later record of a state channel, flagged CONFLATED.
    pub merged: u64,
    /// Those that a Gap record announced as lost.
    pub lost: u64,
    /// Those that nothing accounts for.
    pub missing: u64,
    /// Clients that miss some.
    pub clients_short: u64,
}

impl DeliveryCounts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        self.expected += other.expected;
        self.received += other.received;
        self.merged += other.merged;
        self.lost += other.lost;
        self.missing += other.missing;
        self.clients_short += other.clients_short;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_records_follow_from_the_round_robin_of_instruments() {
        // Three rounds of four, and one more record of each of the first two.
        let published = PublishedCount { records: 14, instruments: 4 };
        assert_eq!(published.records_of(&ExpectedInstruments::These(vec![0, 1, 2, 3])), Some(14));
        assert_eq!(published.records_of(&ExpectedInstruments::These(vec![1, 2])), Some(7));
        assert_eq!(published.records_of(&ExpectedInstruments::Any(2)), Some(6));
        assert_eq!(published.records_of(&ExpectedInstruments::Unknown), None);
        assert_eq!(ExpectedInstruments::These(vec![1, 2]).share(4), 0.5);
        assert_eq!((ExpectedInstruments::Any(1).share(4), ExpectedInstruments::Unknown.share(4)), (0.25, 0.0));
        assert_eq!(PublishedCount::default().records_of(&ExpectedInstruments::Any(1)), None);
    }
}
