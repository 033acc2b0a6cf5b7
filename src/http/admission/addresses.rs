//! Connections and handshake rate of each address. Shared by all shards, since the kernel spreads the connections of an
//! address over them. The lock is taken when a connection opens and when it closes, never in between.
//!
//! An address is an IPv4 address, or an IPv6 network of 64 bits, the smallest that providers assign to one customer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::allowance::AddressKey;
use crate::config::Config;
use crate::rate_limit::RateLimiter;

/// All addresses with connections now or a moment ago: some 50 bytes each.
#[derive(Debug, Default)]
pub struct AddressTable(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<AddressKey, AddressEntry, RandomState>,
    /// Number of entries at which unused ones are removed.
    prune_at: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct AddressEntry {
    connections: u32,
    handshakes: RateLimiter,
    tls_handshakes: RateLimiter,
}

/// Counts one connection for its address until it is dropped.
#[derive(Debug)]
pub struct AddressGuard {
    addresses: Arc<AddressTable>,
    key: AddressKey,
}

/// The address has `connections_per_address_max` connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFull;

impl AddressTable {
    /// Counts a connection; `None` for an exempt address.
    pub fn count(
        self: &Arc<Self>,
        address: IpAddr,
        config: &Config,
        now_ns: u64,
    ) -> Result<Option<AddressGuard>, AddressFull> {
        let address = address.to_canonical();
        let unlimited = config.connections_per_address_max == 0
            && config.handshakes_per_address_per_s == 0
            && config.tls_limits.handshakes_per_address_per_s == 0;
        if unlimited || config.is_exempt(address) {
            return Ok(None);
        }
        let key = AddressKey::of(address);
        let mut entries = self.lock();
        entries.prune(now_ns);
        let entry = entries.by_key.entry(key).or_default();
        if config.connections_per_address_max != 0 && entry.connections >= config.connections_per_address_max {
            return Err(AddressFull);
        }
        entry.connections += 1;
        Ok(Some(AddressGuard { addresses: self.clone(), key }))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic leaves the counts consistent: they are after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AddressEntry {
    /// True if its rates no longer matter.
    fn is_idle(&self, now_ns: u64) -> bool {
        self.handshakes.is_idle(now_ns) && self.tls_handshakes.is_idle(now_ns)
    }
}

impl Entries {
    /// Removes the entries without connections whose rate limit has expired, each time that the table has doubled: the cost
    /// is amortised over the insertions.
    fn prune(&mut self, now_ns: u64) {
        const PRUNE_MIN: usize = 1024;
        if self.by_key.len() >= self.prune_at.max(PRUNE_MIN) {
            self.by_key.retain(|_, entry| entry.connections > 0 || !entry.is_idle(now_ns));
            self.prune_at = self.by_key.len() * 2;
        }
    }
}

impl AddressGuard {
    /// The address, for the account that its clients have at a shard.
    pub(crate) fn account_key(&self) -> u64 {
        match self.key {
            AddressKey::V4(address) => address.into(),
            // No network of clients has zeros in its upper half, as an IPv4 address here.
            AddressKey::V6(network) => network,
        }
    }

    /// Takes a handshake permit of this address, see [`RateLimiter::take`].
    pub(crate) fn take_handshake(
        &self,
        per_second: u32,
        now_ns: u64,
        wait_max: Duration,
    ) -> Result<Duration, Duration> {
        let mut entries = self.addresses.lock();
        let Some(entry) = entries.by_key.get_mut(&self.key) else { return Ok(Duration::ZERO) };
        entry.handshakes.take(per_second, now_ns, wait_max)
    }

    /// The same for a TLS handshake.
    pub(crate) fn take_tls_handshake(
        &self,
        per_second: u32,
        now_ns: u64,
        wait_max: Duration,
    ) -> Result<Duration, Duration> {
        let mut entries = self.addresses.lock();
        let Some(entry) = entries.by_key.get_mut(&self.key) else { return Ok(Duration::ZERO) };
        entry.tls_handshakes.take(per_second, now_ns, wait_max)
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        if let Some(entry) = self.addresses.lock().by_key.get_mut(&self.key) {
            entry.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Machine};

    fn config(toml: &str) -> Config {
        let machine = Machine { cores: vec![0], descriptors_max: 100_000 };
        Config::resolve(toml::from_str::<Layer>(toml).unwrap(), &machine, 1).unwrap()
    }

    fn count(
        addresses: &Arc<AddressTable>,
        address: &str,
        config: &Config,
    ) -> Result<Option<AddressGuard>, AddressFull> {
        addresses.count(address.parse().unwrap(), config, 0)
    }

    #[test]
    fn connections_are_counted_per_address() {
        let (addresses, config) = (Arc::default(), config("connections_per_address_max = 2"));
        let count = |address: &str| count(&addresses, address, &config);
        let guards = [count("192.0.2.1").unwrap(), count("::ffff:192.0.2.1").unwrap()];
        assert!(guards.iter().all(Option::is_some));
        assert_eq!(count("192.0.2.1").unwrap_err(), AddressFull);
        assert!(count("192.0.2.2").is_ok());
        let network = [count("2001:db8::1").unwrap(), count("2001:db8::ffff:1").unwrap()];
        assert_eq!(count("2001:db8::2").unwrap_err(), AddressFull, "one network of 64 bits");
        assert!(count("2001:db8:0:1::2").is_ok());
        drop(network);
        drop(guards);
        assert!(count("192.0.2.1").is_ok() && count("2001:db8::2").is_ok(), "a closed connection is not counted");
    }

    #[test]
    fn exempt_addresses_and_a_zero_limit_are_not_counted() {
        let addresses = Arc::default();
        let loopback = config("connections_per_address_max = 1");
        assert!((0..3).all(|_| count(&addresses, "127.0.0.1", &loopback).is_ok_and(|guard| guard.is_none())));
        let proxy = config("connections_per_address_max = 1\naddresses_exempt = '10.0.0.0/8'");
        assert!((0..3).all(|_| count(&addresses, "10.1.2.3", &proxy).is_ok_and(|guard| guard.is_none())));
        let off = config(
            "connections_per_address_max = 0\nhandshakes_per_address_per_s = 0\ntls_handshakes_per_address_per_s = 0",
        );
        assert!(count(&addresses, "192.0.2.1", &off).is_ok_and(|guard| guard.is_none()));
    }

    #[test]
    fn unused_entries_are_removed() {
        let (addresses, config) = (Arc::<AddressTable>::default(), config(""));
        for nth in 0..10_000u32 {
            let address = IpAddr::V4((0x0a00_0000 + nth).into());
            let guard = addresses.count(address, &config, u64::from(nth) * 1_000_000_000).unwrap().unwrap();
            guard.take_handshake(1, u64::from(nth) * 1_000_000_000, Duration::ZERO).unwrap();
        }
        assert!(addresses.lock().by_key.len() <= 2048, "{}", addresses.lock().by_key.len());
    }
}
