//! What the run tells its load processes, and what they tell it: JSON, a line each.
//!
//! A process gets one [`WorkerJob`] on its stdin, then [`StageCommand`]s, and writes [`WorkerMessage`] to its stdout. The end of stdin is the
//! end of the run: a process never outlives whoever started it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::load::latency::{LatencyHistogram, LatencyMeter, LatencyOrigin};
use tickcast_client::decode::Counters;

/// What one process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerJob {
    pub address: SocketAddr,
    /// The whole URL, as it goes into the upgrade request.
    pub uri: String,
    pub terms: ReadOptions,
    /// What clients ask for; most share one.
    pub requests: Vec<ClientRequest>,
    /// Clients that connect at once.
    pub plans: Vec<ClientPlan>,
    /// Clients that connect when the measurement begins.
    pub storm: Vec<ClientPlan>,
    pub threads: usize,
    /// Connections on their way at a time, for each thread.
    pub pending: usize,
    /// Connections that leave abruptly and are replaced while measuring, a second.
    pub churn_per_s: f64,
    /// When stalled clients begin to read, after the measurement began; never without.
    pub stall_for_ms: Option<u64>,
    /// Cores to run on; any without.
    pub cores: Option<Vec<usize>>,
}

/// How what comes is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// A server of another kind: what is no packet is counted and not looked at, and nothing is defined.
    pub opaque: bool,
    pub origin: LatencyOrigin,
    /// Clients get most of the market, rather than a small part of it.
    pub dense: bool,
}

/// What a client says after its upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientRequest {
    pub messages: Vec<String>,
    pub watch: ExpectedInstruments,
}

/// Which of the publisher's instruments a client gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedInstruments {
    /// There is no publisher of ours.
    Unknown,
    /// These, by their place in the publisher's order.
    These(Vec<u32>),
    /// So many, but which is the server's choice.
    Any(u32),
}

/// What one client shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Which of the requests.
    pub request: u32,
    pub role: ClientRole,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// Read by tungstenite and the [`tickcast_client::Decoder`] rather than by the fast reader.
    pub independent: bool,
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientRole {
    /// To be measured.
    Steady,
    /// To not read.
    Stalled,
    /// To connect all at once; not measured beyond that.
    Storm,
}

/// What the run tells its processes after the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageCommand {
    Measure,
    /// The measured time is over; what is still under way is read.
    Tail,
    Done(PublishedCount),
}

/// What our publisher has published by its end; nothing where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedCount {
    pub records: u64,
    pub instruments: u64,
}

impl PublishedCount {
    /// Records of the instruments that a client watches: they were published in turn.
    pub fn of(&self, watch: &ExpectedInstruments) -> Option<u64> {
        if self.instruments == 0 {
            return None;
        }
        let (rounds, more) = (self.records / self.instruments, self.records % self.instruments);
        match watch {
            ExpectedInstruments::Unknown => None,
            ExpectedInstruments::These(places) => {
                Some(places.iter().map(|place| rounds + u64::from(u64::from(*place) < more)).sum())
            }
            ExpectedInstruments::Any(count) => Some(rounds * u64::from(*count)),
        }
    }
}

/// What a process tells the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMessage {
    Progress(WorkerProgress),
    /// The last: what each thread has found.
    Tallies(Vec<WorkerTally>),
    /// The last: why it cannot go on.
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

/// What a thread has found by its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerTally {
    pub connected: u64,
    pub connect_seconds: f64,
    pub refused: BTreeMap<String, u64>,
    pub rejected: BTreeMap<String, u64>,
    pub closes: BTreeMap<String, u64>,
    pub malformed: BTreeMap<String, u64>,
    pub violations: u64,
    pub first_violation: Option<String>,
    pub joins: ConnectTimes,
    pub storm: StormTally,
    /// Clients that left and were replaced.
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
    pub counters: Counters,
    pub meter: LatencyMeter,
    /// The part of it that fell into a storm.
    pub meter_in_storm: LatencyMeter,
    pub cpu_seconds: f64,
    pub starved_seconds: f64,
}

/// How long connections took to come about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConnectTimes {
    /// From the connect to the upgrade's answer.
    pub upgraded: LatencyHistogram,
    /// From the connect to the first data.
    pub first_data: LatencyHistogram,
}

/// How a storm went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StormTally {
    pub connected: u64,
    pub refused: u64,
    /// From its first connect to its last upgrade or refusal.
    pub seconds: f64,
}

/// What steady clients should have got of our publisher, and what they got. Those that were connected from before its
/// first record to after its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryCounts {
    pub clients: u64,
    pub expected: u64,
    /// Of these, those that came as records of their own.
    pub received: u64,
    /// Of these, those that the server merged into a later one of a state channel, and said so.
    pub merged: u64,
    /// Of these, those that a Gap record announced as lost.
    pub lost: u64,
    /// Of these, those that nothing accounts for.
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
    fn what_a_client_should_get_follows_from_the_turns_of_its_instruments() {
        // Three rounds of four, and one more of each of the first two.
        let published = PublishedCount { records: 14, instruments: 4 };
        assert_eq!(published.of(&ExpectedInstruments::These(vec![0, 1, 2, 3])), Some(14));
        assert_eq!(published.of(&ExpectedInstruments::These(vec![1, 2])), Some(7));
        assert_eq!(published.of(&ExpectedInstruments::Any(2)), Some(6));
        assert_eq!(published.of(&ExpectedInstruments::Unknown), None);
        assert_eq!(PublishedCount::default().of(&ExpectedInstruments::Any(1)), None);
    }
}
