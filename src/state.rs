//! The state of a running server that all its threads share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::Access;
use crate::archive::Archive;
use crate::auth::AuthFailures;
use crate::bars::BarStore;
use crate::config::Config;
use crate::heartbeat::Heartbeats;
use crate::ingest::delay::Spool;
use crate::ingest::states::{Detail, SourceProblems, SourceRow, Sources};
use crate::ingest::{Publishers, SequencerHandle};
use crate::lifecycle::Lifecycle;
use crate::sequencer::SequencerStats;
use crate::shard::SlowClient;
use crate::stats::PublishedCounters;
use crate::tls::TlsServer;

/// A shard that has not ticked for this long is stalled: `/healthz` and `/readyz` fail, and the service manager's
/// watchdog is not answered.
pub const STALLED_S: u32 = 5;

/// The state of a running server that all its threads share.
pub struct ServerState {
    /// The settings at the start. Settings that a reload changes are in each `HttpServer` and `Shard`.
    pub config: Config,
    pub sequencer: Arc<SequencerHandle>,
    pub sequencer_stats: Arc<SequencerStats>,
    pub publishers: Arc<Publishers>,
    /// The feeds.
    pub sources: Arc<Sources>,
    pub auth_failures: Arc<AuthFailures>,
    /// `None`: there is no listener for TLS.
    pub tls: Option<Arc<TlsServer>>,
    /// Who may subscribe.
    pub access: Arc<Access>,
    /// `None` if `bars_bytes` and `trades_bytes` are 0.
    pub bars: Option<Arc<BarStore>>,
    /// `None` without `archive_dir`.
    pub archive: Option<Arc<Archive>>,
    /// The delayed markets of a live one.
    pub delayed: Vec<Arc<ServerState>>,
    /// Where their records wait.
    pub spool: Option<Arc<Spool>>,
    pub lifecycle: Arc<Lifecycle>,
    /// Whether the shards run.
    pub heartbeats: Arc<Heartbeats>,
    /// The counters of each shard.
    pub shards: Vec<PublishedCounters>,
    /// The slowest clients of each shard.
    pub slow_clients: Vec<SlowClientList>,
    pub started_ns: u64,
}

impl ServerState {
    /// The age of the data that is served, s; 0: live.
    pub fn delay_s(&self) -> u32 {
        self.config.shard.delay_s
    }

    /// The time of the market's stamps, by that of the server's.
    pub fn market_ns(&self, wall_ns: u64) -> u64 {
        wall_ns.saturating_sub(u64::from(self.delay_s()) * 1_000_000_000)
    }

    /// The live market, or that with this delay.
    pub fn market(&self, delay_s: u32) -> Option<&Self> {
        let delayed = || self.delayed.iter().map(|state| &**state).find(|state| state.delay_s() == delay_s);
        if delay_s == self.delay_s() { Some(self) } else { delayed() }
    }

    /// The feeds and the connected publishers. `now_ns` is the time of deadlines, `wall_ns` that of stamps.
    pub fn source_rows(&self, now_ns: u64, wall_ns: u64) -> Vec<SourceRow> {
        self.sources.rows(&self.publishers, &self.sequencer, now_ns, self.market_ns(wall_ns))
    }

    /// Why the server is not ready, if it is not; what is wrong otherwise.
    pub fn readiness(
        &self,
        rows: &[SourceRow],
        detail: Detail,
        now_ns: u64,
        wall_ns: u64,
    ) -> (Option<String>, Vec<String>) {
        let SourceProblems { failures, mut warnings } = SourceProblems::of(rows, detail);
        for name in self.access.without_keys(now_ns) {
            // The name of an issuer is for the operator.
            let of = if detail == Detail::Reason { format!("issuer {name}") } else { "an issuer".to_owned() };
            warnings.push(format!("{of}: its keys are not known now, and its tokens are refused"));
        }
        if self.delay_s() == 0 && self.access.is_authorizer_failing() {
            warnings.push("the authorizer does not answer, and what it would be asked about is refused".to_owned());
        }
        for market in &self.delayed {
            let rows = market.source_rows(now_ns, wall_ns);
            let (not_ready, others) = market.readiness(&rows, detail, now_ns, wall_ns);
            let problems = not_ready.into_iter().filter(|_| !self.lifecycle.is_draining()).chain(others);
            warnings.extend(problems.map(|problem| format!("market of {} s ago: {problem}", market.delay_s())));
        }
        if self.archive.as_ref().is_some_and(|archive| archive.is_failing()) {
            warnings.push("the archive of bars cannot be read or written".to_owned());
        }
        // The markets share it.
        if self.delay_s() == 0 && self.access.usage().is_failing() {
            warnings.push("the usage log cannot be written".to_owned());
        }
        let failed = (!failures.is_empty()).then(|| failures.join("; "));
        (self.lifecycle.not_ready().or(failed), warnings)
    }
}

/// The address of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress {
    /// The peer of the socket: the client, or a proxy.
    pub socket: SocketAddr,
    /// The client, as a trusted proxy names it.
    pub forwarded: Option<IpAddr>,
}

impl ClientAddress {
    /// The address of the client itself.
    pub fn client(&self) -> IpAddr {
        self.forwarded.unwrap_or(self.socket.ip().to_canonical())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded {
            Some(client) => write!(out, "{client} via {}", self.socket),
            None => write!(out, "{}", self.socket),
        }
    }
}

/// The slowest clients of one shard, for other threads to read. The lock is held for the copy of a pointer.
#[derive(Debug, Default)]
pub struct SlowClientList(Mutex<Arc<[SlowClientRow]>>);

/// A slow client and its address, if known.
#[derive(Clone, Debug)]
pub struct SlowClientRow {
    pub client: SlowClient,
    pub address: Option<ClientAddress>,
}

impl SlowClientList {
    /// Replaces the list.
    pub fn publish(&self, rows: impl Iterator<Item = SlowClientRow>) {
        let rows = rows.collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// The list as last published.
    pub fn get(&self) -> Arc<[SlowClientRow]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
