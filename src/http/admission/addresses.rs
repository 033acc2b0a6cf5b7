//! How many connections each address has, and how fast they come. Shared by the doors of all shards, as the kernel spreads
//! the connections of an address over all of them; looked at when a connection comes and when it goes, never in between.
//!
//! An address is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer has at the least.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::config::Config;
use crate::rate_limit::RateLimiter;

/// The table of all addresses that have connections, or had some a moment ago: some 50 bytes each.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry, RandomState>,
    /// Entries without connections are looked for when there are more than this.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    connections: u32,
    handshakes: RateLimiter,
}

/// A connection of an address that is counted; dropped, it is not any more.
#[derive(Debug)]
pub struct Place {
    addresses: Arc<Addresses>,
    key: Key,
}

/// The address has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

impl Addresses {
    /// Counts a connection. `None` for an address that is exempt.
    pub fn enter(self: &Arc<Self>, address: IpAddr, config: &Config, now_ns: u64) -> Result<Option<Place>, Crowded> {
        let address = address.to_canonical();
        let unlimited = config.connections_per_address_max == 0 && config.handshakes_per_address_per_s == 0;
        if unlimited || config.addresses_exempt.iter().any(|network| network.contains(&address)) {
            return Ok(None);
        }
        let key = Key::of(address);
        let mut table = self.lock();
        table.sweep(now_ns);
        let entry = table.entries.entry(key).or_default();
        if config.connections_per_address_max != 0 && entry.connections >= config.connections_per_address_max {
            return Err(Crowded);
        }
        entry.connections += 1;
        Ok(Some(Place { addresses: self.clone(), key }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Counts are whole after every statement: who panicked in between has left none half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Entries that were kept for their pace go once they say nothing any more: in one go, each time that the table has
    /// doubled.
    fn sweep(&mut self, now_ns: u64) {
        /// Below this it is not worth looking.
        const SWEEP_LEAST: usize = 1024;
        if self.entries.len() >= self.sweep_at.max(SWEEP_LEAST) {
            self.entries.retain(|_, entry| entry.connections > 0 || !entry.handshakes.is_idle(now_ns));
            self.sweep_at = self.entries.len() * 2;
        }
    }
}

impl Place {
    /// Takes a turn of this address for a handshake, see [`RateLimiter::take`].
    pub(crate) fn handshake(&self, per_second: u32, now_ns: u64, wait_max: Duration) -> Result<Duration, Duration> {
        let mut table = self.addresses.lock();
        let Some(entry) = table.entries.get_mut(&self.key) else { return Ok(Duration::ZERO) };
        entry.handshakes.take(per_second, now_ns, wait_max)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(entry) = self.addresses.lock().entries.get_mut(&self.key) {
            entry.connections -= 1;
        }
    }
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
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

    fn enter(addresses: &Arc<Addresses>, address: &str, config: &Config) -> Result<Option<Place>, Crowded> {
        addresses.enter(address.parse().unwrap(), config, 0)
    }

    #[test]
    fn an_address_has_its_connections_and_another_one_its_own() {
        let (addresses, config) = (Arc::default(), config("connections_per_address_max = 2"));
        let enter = |address: &str| enter(&addresses, address, &config);
        let places = [enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(places.iter().all(Option::is_some));
        assert_eq!(enter("192.0.2.1").unwrap_err(), Crowded);
        assert!(enter("192.0.2.2").is_ok());
        let network = [enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:1").unwrap()];
        assert_eq!(enter("2001:db8::2").unwrap_err(), Crowded, "one network of 64 bits");
        assert!(enter("2001:db8:0:1::2").is_ok());
        drop(network);
        drop(places);
        assert!(enter("192.0.2.1").is_ok() && enter("2001:db8::2").is_ok(), "who has left is not counted");
    }

    #[test]
    fn exempt_addresses_and_a_limit_of_0_are_not_counted() {
        let addresses = Arc::default();
        let loopback = config("connections_per_address_max = 1");
        assert!((0..3).all(|_| enter(&addresses, "127.0.0.1", &loopback).is_ok_and(|place| place.is_none())));
        let proxy = config("connections_per_address_max = 1\naddresses_exempt = '10.0.0.0/8'");
        assert!((0..3).all(|_| enter(&addresses, "10.1.2.3", &proxy).is_ok_and(|place| place.is_none())));
        let off = config("connections_per_address_max = 0\nhandshakes_per_address_per_s = 0");
        assert!(enter(&addresses, "192.0.2.1", &off).is_ok_and(|place| place.is_none()));
    }

    #[test]
    fn addresses_that_have_gone_are_forgotten() {
        let (addresses, config) = (Arc::<Addresses>::default(), config(""));
        for nth in 0..10_000u32 {
            let address = IpAddr::V4((0x0a00_0000 + nth).into());
            let place = addresses.enter(address, &config, u64::from(nth) * 1_000_000_000).unwrap().unwrap();
            place.handshake(1, u64::from(nth) * 1_000_000_000, Duration::ZERO).unwrap();
        }
        assert!(addresses.lock().entries.len() <= 2048, "{}", addresses.lock().entries.len());
    }
}
