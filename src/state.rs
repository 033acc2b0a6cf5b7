//! The state of a running server that all its threads share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bars::BarStore;
use crate::config::Config;
use crate::ingest::{Publishers, SequencerHandle};
use crate::lifecycle::Lifecycle;
use crate::sequencer::SequencerStats;
use crate::shard::SlowClient;
use crate::stats::PublishedCounters;

/// The state of a running server that all its threads share.
pub struct ServerState {
    /// As of the start.
    pub config: Config,
    pub sequencer: Arc<SequencerHandle>,
    pub shards: Vec<PublishedCounters>,
    /// By shard: its clients that are most behind.
    pub slow: Vec<SlowList>,
    pub sequencer_stats: Arc<SequencerStats>,
    /// `None` where none are kept.
    pub bars: Option<Arc<BarStore>>,
    pub started_ns: u64,
    pub lifecycle: Arc<Lifecycle>,
    pub publishers: Arc<Publishers>,
}

/// Whose connection one is.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Where it comes from.
    pub socket: SocketAddr,
    /// Whose it is where it comes from a trusted proxy, as that one says.
    pub client: Option<IpAddr>,
}

impl Who {
    /// The client's own address.
    pub fn address(&self) -> IpAddr {
        self.client.unwrap_or(self.socket.ip().to_canonical())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client {
            Some(client) => write!(out, "{client} by {}", self.socket),
            None => write!(out, "{}", self.socket),
        }
    }
}

/// The clients of one shard that are most behind, where all doors can read it. It is held for as long as a pointer takes.
#[derive(Debug, Default)]
pub struct SlowList(Mutex<Arc<[Slow]>>);

/// One of them, and whose it is as far as that is known.
#[derive(Clone, Debug)]
pub struct Slow {
    pub client: SlowClient,
    pub who: Option<Who>,
}

impl SlowList {
    /// Replaces the list.
    pub fn show(&self, list: impl Iterator<Item = Slow>) {
        let list = list.collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }

    /// As it was last shown.
    pub fn get(&self) -> Arc<[Slow]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
