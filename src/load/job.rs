//! What the run tells its load processes, and what they tell it: JSON, a line each.
//!
//! A process gets one [`Job`] on its stdin, then [`Order`]s, and writes [`News`] to its stdout. The end of stdin is the
//! end of the run: a process never outlives whoever started it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::meter::{Ages, Origin};
use super::report::Window;

/// What one process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub address: SocketAddr,
    /// The whole URL, as it goes into the upgrade request.
    pub uri: String,
    pub terms: Terms,
    /// What clients ask for; most share one.
    pub requests: Vec<Request>,
    /// Clients that connect at once.
    pub plans: Vec<Plan>,
    /// Clients that connect when the measurement begins.
    pub storm: Vec<Plan>,
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
pub struct Terms {
    /// A server of another kind: what is no packet is counted and not looked at, and nothing is defined.
    pub opaque: bool,
    pub origin: Origin,
    /// Clients get most of the market, rather than a small part of it.
    pub dense: bool,
}

/// What a client says after its upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub messages: Vec<String>,
    pub watch: Watch,
}

/// Which of the publisher's instruments a client gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// There is no publisher of ours.
    Unknown,
    /// These, by their place in the publisher's order.
    These(Vec<u32>),
    /// So many, but which is the server's choice.
    Any(u32),
}

/// What one client shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which of the requests.
    pub request: u32,
    pub role: Role,
    /// The address to bind.
    pub source: Option<IpAddr>,
    /// Read by tungstenite and the [`tickcast_client::Decoder`] rather than by the fast reader.
    pub independent: bool,
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
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
pub enum Order {
    Measure,
    /// The measured time is over; what is still under way is read.
    Tail,
    Done(Published),
}

/// What our publisher has published by its end; nothing where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub records: u64,
    pub instruments: u64,
}

impl Published {
    /// Records of the instruments that a client watches: they were published in turn.
    pub fn of(&self, watch: &Watch) -> Option<u64> {
        if self.instruments == 0 {
            return None;
        }
        let (rounds, more) = (self.records / self.instruments, self.records % self.instruments);
        match watch {
            Watch::Unknown => None,
            Watch::These(places) => Some(places.iter().map(|place| rounds + u64::from(u64::from(*place) < more)).sum()),
            Watch::Any(count) => Some(rounds * u64::from(*count)),
        }
    }
}

/// What a process tells the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    Progress(Progress),
    /// The last: what each thread has found.
    Tallies(Vec<Tally>),
    /// The last: why it cannot go on.
    Failed(String),
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Upgraded so far.
    pub connected: u64,
    /// Upgraded or refused so far.
    pub settled: u64,
    /// Records received so far; messages, where the server is of another kind.
    pub records: u64,
}

impl Progress {
    /// Adds another process's.
    pub fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.settled += other.settled;
        self.records += other.records;
    }
}

/// What a thread has found by its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub connected: u64,
    pub connect_seconds: f64,
    pub refused: BTreeMap<String, u64>,
    pub rejected: BTreeMap<String, u64>,
    pub closes: BTreeMap<String, u64>,
    pub malformed: BTreeMap<String, u64>,
    pub violations: u64,
    pub first_violation: Option<String>,
    pub joins: Joins,
    pub storm: Storm,
    /// Clients that left and were replaced.
    pub churned: u64,
    pub delivered: Delivered,
    pub window: Window,
}

/// How long connections took to come about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Joins {
    /// From the connect to the upgrade's answer.
    pub upgraded: Ages,
    /// From the connect to the first data.
    pub first_data: Ages,
}

/// How a storm went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    pub connected: u64,
    pub refused: u64,
    /// From its first connect to its last upgrade or refusal.
    pub seconds: f64,
}

/// What steady clients should have got of our publisher, and what they got. Those that were connected from before its
/// first record to after its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
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

impl Delivered {
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
        let published = Published { records: 14, instruments: 4 };
        assert_eq!(published.of(&Watch::These(vec![0, 1, 2, 3])), Some(14));
        assert_eq!(published.of(&Watch::These(vec![1, 2])), Some(7));
        assert_eq!(published.of(&Watch::Any(2)), Some(6));
        assert_eq!(published.of(&Watch::Unknown), None);
        assert_eq!(Published::default().of(&Watch::Any(1)), None);
    }
}
