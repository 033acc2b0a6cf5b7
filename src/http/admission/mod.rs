//! Admission: which connections and requests a shard serves.
//!
//! * [`pending`]: how many connections may be pending, of an address and in all, and which is evicted for a new one.
//! * [`addresses`]: connections and handshakes of each address, shared by all shards.
//! * [`forwarded`]: the client's address behind a trusted proxy.
//! * [`origin`]: which pages of other origins may use an endpoint.
//! * [`refused_origins`]: the log lines about those that may not.
//! * [`Admission`]: these limits for one shard, and the rates of accepted connections and handshakes.
//!
//! What always holds: a limit that is reached yields a [`Rejection`], which has a counter and a refusal. A handshake over a
//! rate waits for half of `upgrade_timeout_ms` at most.

pub(crate) mod addresses;
pub(crate) mod forwarded;
pub(crate) mod origin;
pub(crate) mod pending;
pub(crate) mod refused_origins;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::addresses::{AddressFull, AddressGuard, AddressTable};
use self::pending::{Entered, PendingConnection, PendingConnections, PendingFull, PendingLimits};
use crate::allowance::AddressKey;
use crate::config::Config;
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::rate_limit::RateLimiter;
use crate::stats::Counter;

/// Why a connection or a handshake is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The shard has its share of `pending_connections_max`, and all of them are being served.
    PendingFull,
    /// The address has its share of `pending_per_address_max` on this shard, and all of them are being served.
    AddressPending(u32),
    /// The address has this many connections: `connections_per_address_max`.
    AddressFull(u32),
    /// The address exceeds `handshakes_per_address_per_s`; the next permit is this far away.
    AddressRate(Duration),
    /// The shard exceeds `handshakes_per_s`; the next permit is this far away.
    ShardRate(Duration),
    /// The server is stopping.
    Draining,
    /// An allocation has failed lately.
    Memory,
}

impl Rejection {
    fn of_pending(full: PendingFull, config: &Config) -> Self {
        match full {
            PendingFull::Shard => Self::PendingFull,
            PendingFull::Address => Self::AddressPending(config.pending_per_address_max),
        }
    }

    /// The counter of such rejections.
    pub(crate) fn counter(self) -> Counter {
        match self {
            Self::PendingFull => Counter::RefusedPending,
            Self::AddressPending(_) => Counter::RefusedAddressPending,
            Self::AddressFull(_) => Counter::RefusedAddress,
            Self::AddressRate(_) => Counter::RefusedAddressRate,
            Self::ShardRate(_) => Counter::RefusedRate,
            Self::Draining => Counter::RefusedDraining,
            Self::Memory => Counter::RefusedMemory,
        }
    }

    /// The response to the client.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::PendingFull => {
                Refusal::unavailable("too many connections are pending (pending_connections_max)", Duration::ZERO)
            }
            Self::AddressPending(max) => Refusal::too_many_requests(
                format!("too many connections of this address are pending: pending_per_address_max is {max}"),
                Duration::ZERO,
            ),
            Self::AddressFull(max) => Refusal::too_many_requests(
                format!("too many connections from this address: connections_per_address_max is {max}"),
                RETRY_AFTER,
            ),
            Self::AddressRate(wait) => {
                Refusal::too_many_requests("too many handshakes from this address (handshakes_per_address_per_s)", wait)
            }
            Self::ShardRate(wait) => Refusal::unavailable("too many handshakes (handshakes_per_s)", wait),
            Self::Draining => Refusal::unavailable("the server is stopping", RETRY_AFTER),
            Self::Memory => Refusal::unavailable("the server is short of memory", RETRY_AFTER),
        }
    }
}

/// The limits of one shard.
pub(crate) struct Admission {
    pending: Rc<PendingConnections>,
    addresses: Arc<AddressTable>,
    accepts: Cell<RateLimiter>,
    handshakes: Cell<RateLimiter>,
    tls_handshakes: Cell<RateLimiter>,
    /// TLS handshakes under way.
    tls_pending: Rc<Cell<u32>>,
}

/// A TLS handshake that may begin.
pub(crate) struct TlsPermit {
    /// When.
    pub(crate) wait: Duration,
    pending: Rc<Cell<u32>>,
}

impl Drop for TlsPermit {
    fn drop(&mut self) {
        self.pending.update(|pending| pending - 1);
    }
}

impl Admission {
    pub(crate) fn new(addresses: Arc<AddressTable>) -> Self {
        Self {
            pending: Rc::default(),
            addresses,
            accepts: Cell::default(),
            handshakes: Cell::default(),
            tls_handshakes: Cell::default(),
            tls_pending: Rc::default(),
        }
    }

    pub(crate) fn pending(&self) -> &PendingConnections {
        &self.pending
    }

    /// Takes a permit of `per_second` batches of accepted connections; returns the time to wait before the next accept.
    pub(crate) fn pace_accepts(&self, batches_per_s: u32, now_ns: u64) -> Duration {
        take(&self.accepts, batches_per_s, now_ns, Duration::MAX).unwrap_or_default()
    }

    /// Adds a pending connection, evicting another one if necessary.
    pub(crate) fn enter(&self, peer: Option<IpAddr>, config: &Config) -> Result<Entered, Rejection> {
        let limits = PendingLimits {
            max: config.pending_per_shard() as usize,
            max_of_address: peer.map_or(0, |peer| pending_max(peer, config)),
        };
        let entered = self.pending.enter(peer.map(AddressKey::of), limits);
        entered.map_err(|full| Rejection::of_pending(full, config))
    }

    /// Counts a pending connection for the client that a trusted proxy names. Returns true if another one was evicted.
    pub(crate) fn set_client(
        &self,
        connection: &PendingConnection,
        client: IpAddr,
        config: &Config,
    ) -> Result<bool, Rejection> {
        let set = connection.set_address(AddressKey::of(client), pending_max(client, config));
        set.map_err(|full| Rejection::of_pending(full, config))
    }

    /// Counts a connection for its address; `None` for an exempt address.
    pub(crate) fn count_address(
        &self,
        address: IpAddr,
        config: &Config,
        now_ns: u64,
    ) -> Result<Option<AddressGuard>, Rejection> {
        let counted = self.addresses.count(address, config, now_ns);
        counted.map_err(|AddressFull| Rejection::AddressFull(config.connections_per_address_max))
    }

    /// Takes a handshake permit, first of the address, then of the shard; returns the time until it is valid.
    pub(crate) fn take_handshake(
        &self,
        address: Option<&AddressGuard>,
        config: &Config,
        now_ns: u64,
    ) -> Result<Duration, Rejection> {
        let wait_max = self.handshake_wait_max(config);
        let of_address = match address {
            Some(address) => address
                .take_handshake(config.handshakes_per_address_per_s, now_ns, wait_max)
                .map_err(Rejection::AddressRate)?,
            None => Duration::ZERO,
        };
        let of_shard =
            take(&self.handshakes, config.handshakes_per_s, now_ns, wait_max).map_err(Rejection::ShardRate)?;
        Ok(of_address.max(of_shard))
    }

    /// Takes a permit for a TLS handshake, first of those under way, then of the address, then of the shard; or the counter
    /// of the limit.
    pub(crate) fn take_tls_handshake(
        &self,
        address: Option<&AddressGuard>,
        config: &Config,
        now_ns: u64,
    ) -> Result<TlsPermit, Counter> {
        let limits = config.tls_limits;
        let pending_max = limits.handshakes_pending_max.div_ceil(config.cores.len() as u32);
        if pending_max != 0 && self.tls_pending.get() >= pending_max {
            return Err(Counter::TlsRefusedPending);
        }
        let wait_max = Duration::from_millis(u64::from(limits.handshake_timeout_ms) / 2);
        let of_address = match address {
            Some(address) => address
                .take_tls_handshake(limits.handshakes_per_address_per_s, now_ns, wait_max)
                .map_err(|_| Counter::TlsRefusedAddressRate)?,
            None => Duration::ZERO,
        };
        let of_shard = take(&self.tls_handshakes, limits.handshakes_per_s, now_ns, wait_max);
        let wait = of_address.max(of_shard.map_err(|_| Counter::TlsRefusedRate)?);
        self.tls_pending.update(|pending| pending + 1);
        Ok(TlsPermit { wait, pending: self.tls_pending.clone() })
    }

    /// Half of the upgrade timeout, as reading the head has used some of it. Zero if waiting handshakes take 7/8 of the
    /// pending connections: the rest is for requests that are answered at once, such as `/readyz`.
    fn handshake_wait_max(&self, config: &Config) -> Duration {
        let serving_max = config.pending_per_shard() as usize * 7 / 8;
        if self.pending.serving() > serving_max {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(config.upgrade_timeout_ms) / 2)
    }
}

/// Pending connections of an address on one shard; 0 for no limit. A proxy has no limit: its clients have one each.
fn pending_max(address: IpAddr, config: &Config) -> usize {
    let address = address.to_canonical();
    let is_unlimited = config.is_exempt(address) || forwarded::is_trusted(address, &config.trusted_proxies);
    if is_unlimited { 0 } else { config.pending_per_address_max.div_ceil(config.cores.len() as u32) as usize }
}

fn take(limiter: &Cell<RateLimiter>, per_second: u32, now_ns: u64, wait_max: Duration) -> Result<Duration, Duration> {
    let mut taken = limiter.get();
    let wait = taken.take(per_second, now_ns, wait_max);
    limiter.set(taken);
    wait
}
