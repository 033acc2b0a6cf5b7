//! Allowances of work by address: units at a rate, with a burst, shared by all connections of an address and by all
//! shards, and kept beyond the life of a connection. A client that reconnects has no fresh burst.
//!
//! An address is an IPv4 address, or an IPv6 network of 64 bits, the smallest that providers assign to one customer.
//!
//! A connection looks its address up once ([`Allowances::of`], under a lock) and keeps the [`Allowance`]; taking units is
//! one atomic operation. What always holds: a refused caller has taken nothing; the table has at most
//! [`ADDRESSES_MAX`] addresses that no connection holds. Where it would have more, those that are nearest to a full burst
//! are forgotten, so that an address in debt cannot have its debt removed by others.
//!
//! Cost: some 100 bytes an address, some 20 ns a call of [`Allowance::take`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

/// Addresses that are kept without a connection, at most: some 6 MiB.
pub const ADDRESSES_MAX: usize = 65_536;

/// An address, as limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressKey {
    V4(u32),
    /// The network of 64 bits.
    V6(u64),
}

impl AddressKey {
    /// An IPv4 address that is written as an IPv6 address is the same address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Units a second, and how many may be taken at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowanceRate {
    /// 0 for no limit.
    pub units_per_s: u64,
    pub burst: u64,
}

/// The allowances of all addresses for one kind of work.
#[derive(Debug)]
pub struct Allowances {
    units_per_s: AtomicU64,
    burst: AtomicU64,
    table: Mutex<Table>,
}

/// When an address has its full burst again, ns: an address that has taken nothing lately has a time in the past.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<AddressKey, Arc<Bucket>, RandomState>,
    /// Number of addresses at which unused ones are forgotten.
    prune_at: usize,
}

/// The allowance of one address, shared by all that hold it.
#[derive(Clone, Debug)]
pub struct Allowance {
    all: Arc<Allowances>,
    bucket: Arc<Bucket>,
}

impl Allowances {
    pub fn new(rate: AllowanceRate) -> Self {
        let (units_per_s, burst) = (AtomicU64::new(rate.units_per_s), AtomicU64::new(rate.burst));
        Self { units_per_s, burst, table: Mutex::default() }
    }

    /// Changes the rate of all addresses, also of those that are held.
    pub fn set_rate(&self, rate: AllowanceRate) {
        // Relaxed, here and in `rate`: a caller that reads one number of the old rate and one of the new grants a few
        // units more or less once.
        self.units_per_s.store(rate.units_per_s, Ordering::Relaxed);
        self.burst.store(rate.burst, Ordering::Relaxed);
    }

    /// The allowance of an address.
    pub fn of(self: &Arc<Self>, address: IpAddr, now_ns: u64) -> Allowance {
        let mut table = self.lock();
        table.prune(now_ns, ADDRESSES_MAX);
        let bucket = table.by_address.entry(AddressKey::of(address)).or_default().clone();
        drop(table);
        Allowance { all: self.clone(), bucket }
    }

    /// Number of addresses in the table.
    pub fn addresses(&self) -> usize {
        self.lock().by_address.len()
    }

    fn rate(&self) -> AllowanceRate {
        // Relaxed: see `set_rate`.
        AllowanceRate {
            units_per_s: self.units_per_s.load(Ordering::Relaxed),
            burst: self.burst.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic leaves the table consistent: it is after every statement.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Forgets addresses without a connection: those that have their full burst, and of the others the ones that are
    /// nearest to it, until `unused_max` are left. Done each time that the table has doubled, so the cost is amortised
    /// over the insertions.
    fn prune(&mut self, now_ns: u64, unused_max: usize) {
        const PRUNE_MIN: usize = 1024;
        if self.by_address.len() < self.prune_at.max(PRUNE_MIN) {
            return;
        }
        // The table is locked, so no other thread can get hold of a bucket that only the table holds.
        let is_held = |bucket: &Arc<Bucket>| Arc::strong_count(bucket) > 1;
        self.by_address.retain(|_, bucket| is_held(bucket) || bucket.full_at_ns() > now_ns);
        let unused =
            |(key, bucket): (&AddressKey, &Arc<Bucket>)| (!is_held(bucket)).then(|| (bucket.full_at_ns(), *key));
        let mut unused: Vec<_> = self.by_address.iter().filter_map(unused).collect();
        // Half, so that a table that stays full is not sorted for every new address.
        let excess = if unused.len() > unused_max { unused.len() - unused_max / 2 } else { 0 };
        if excess > 0 {
            unused.select_nth_unstable(excess - 1);
            for (_, key) in &unused[..excess] {
                self.by_address.remove(key);
            }
        }
        let left = self.by_address.len();
        let held = left - (unused.len() - excess);
        self.prune_at = (left * 2).min(held + unused_max).max(left + 1);
    }
}

impl Bucket {
    fn full_at_ns(&self) -> u64 {
        // Relaxed: the number orders nothing.
        self.0.load(Ordering::Relaxed)
    }
}

impl Allowance {
    /// Takes units. More than a whole burst are granted to an address that has its full burst; it then waits for all of
    /// them.
    ///
    /// # Errors
    /// The time after which the same call may succeed. Nothing is taken then.
    pub fn take(&self, units: u64, now_ns: u64) -> Result<(), Duration> {
        let rate = self.all.rate();
        let Some(cost_ns) = cost_ns(units, rate.units_per_s) else { return Ok(()) };
        let Some(burst_ns) = cost_ns_of_burst(rate) else { return Ok(()) };
        let taken = self.bucket.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_ns| {
            let from_ns = full_at_ns.max(now_ns);
            let is_granted = from_ns - now_ns + cost_ns.min(burst_ns) <= burst_ns;
            is_granted.then(|| from_ns.saturating_add(cost_ns))
        });
        taken.map(|_| ()).map_err(|full_at_ns| {
            Duration::from_nanos((full_at_ns.max(now_ns) - now_ns + cost_ns.min(burst_ns)).saturating_sub(burst_ns))
        })
    }

    /// Takes units of work that has been done already: the next call waits for them.
    pub fn charge(&self, units: u64, now_ns: u64) {
        let Some(cost_ns) = cost_ns(units, self.all.rate().units_per_s) else { return };
        // Relaxed, here and in `take`: the number orders nothing. The update never fails.
        let _ = self.bucket.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_ns| {
            Some(full_at_ns.max(now_ns).saturating_add(cost_ns))
        });
    }
}

/// The time in which so many units become available; `None` without a limit.
fn cost_ns(units: u64, units_per_s: u64) -> Option<u64> {
    let ns = (u128::from(units) * 1_000_000_000).checked_div(units_per_s.into())?;
    Some(u64::try_from(ns).unwrap_or(u64::MAX))
}

fn cost_ns_of_burst(rate: AllowanceRate) -> Option<u64> {
    // A burst of less than one unit would grant nothing at all.
    cost_ns(rate.burst.max(1), rate.units_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowances(units_per_s: u64, burst: u64) -> Arc<Allowances> {
        Arc::new(Allowances::new(AllowanceRate { units_per_s, burst }))
    }

    fn of(all: &Arc<Allowances>, address: &str, now_ns: u64) -> Allowance {
        all.of(address.parse().expect("an address"), now_ns)
    }

    #[test]
    fn a_burst_is_granted_at_once_and_the_rest_at_the_rate() {
        let all = allowances(10, 40);
        let one = of(&all, "192.0.2.1", SECOND);
        assert!((0..40).all(|_| one.take(1, SECOND).is_ok()));
        assert_eq!(one.take(1, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(one.take(5, SECOND), Err(Duration::from_millis(500)), "a refused caller takes nothing");
        assert_eq!(one.take(5, SECOND + SECOND / 2), Ok(()));
        assert_eq!(one.take(41, 2 * SECOND), Err(Duration::from_millis(3500)));
    }

    #[test]
    fn reconnecting_gives_no_fresh_burst() {
        let all = allowances(10, 40);
        assert_eq!(of(&all, "192.0.2.1", SECOND).take(40, SECOND), Ok(()));
        for same in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert!(of(&all, same, SECOND).take(1, SECOND).is_err(), "{same}");
        }
        assert_eq!(of(&all, "192.0.2.2", SECOND).take(40, SECOND), Ok(()));
        assert_eq!(of(&all, "2001:db8::1", SECOND).take(40, SECOND), Ok(()));
        assert!(of(&all, "2001:db8::ffff:2", SECOND).take(1, SECOND).is_err(), "one network of 64 bits");
    }

    #[test]
    fn the_connections_of_an_address_share_its_allowance() {
        let all = allowances(10, 4);
        let [first, second] = [of(&all, "192.0.2.1", 0), of(&all, "192.0.2.1", 0)];
        let threads = [first, second]
            .map(|one| std::thread::spawn(move || (0..1000).filter(|_| one.take(1, SECOND).is_ok()).count()));
        assert_eq!(threads.map(|thread| thread.join().expect("no panic")).iter().sum::<usize>(), 4);
    }

    #[test]
    fn more_than_a_burst_waits_for_a_full_burst_and_is_paid_for_afterwards() {
        let all = allowances(10, 40);
        let one = of(&all, "192.0.2.1", SECOND);
        assert_eq!(one.take(100, SECOND), Ok(()));
        assert_eq!(one.take(1, SECOND), Err(Duration::from_millis(6100)));
        assert_eq!(one.take(100, SECOND), Err(Duration::from_secs(10)), "a full burst first");
        assert_eq!(one.take(100, 11 * SECOND), Ok(()));
    }

    #[test]
    fn work_that_was_done_is_charged_to_the_next_call() {
        let all = allowances(10, 10);
        let one = of(&all, "192.0.2.1", SECOND);
        one.charge(30, SECOND);
        assert_eq!(one.take(1, SECOND), Err(Duration::from_millis(2100)));
        assert_eq!(one.take(1, 3 * SECOND + SECOND / 10), Ok(()));
    }

    #[test]
    fn a_rate_of_0_is_no_limit_and_a_changed_rate_holds_for_all() {
        let all = allowances(0, 0);
        let one = of(&all, "192.0.2.1", SECOND);
        assert!((0..1000).all(|_| one.take(u64::MAX, SECOND).is_ok()));
        one.charge(u64::MAX, SECOND);
        all.set_rate(AllowanceRate { units_per_s: 10, burst: 0 });
        assert_eq!(one.take(1, SECOND), Ok(()), "a burst is at least one unit");
        assert_eq!(one.take(1, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(one.take(u64::MAX, u64::MAX), Ok(()), "no overflow");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_debts_and_the_held_addresses() {
        let all = allowances(10, 1000);
        let held = of(&all, "192.0.2.1", 0);
        assert_eq!(held.take(1, 0), Ok(()));
        assert_eq!(of(&all, "192.0.2.2", 0).take(1000, 0), Ok(()));
        let mut most = 0;
        for nth in 0..4 * ADDRESSES_MAX as u32 {
            // Each of them is nearer to its burst.
            all.of(IpAddr::V4((0x0a00_0000 + nth).into()), 0).take(1, 0).expect("a burst");
            most = most.max(all.addresses());
        }
        assert!(most <= ADDRESSES_MAX + 2, "{most}");
        assert!(of(&all, "192.0.2.2", 0).take(1, 0).is_err(), "the debt is kept");
        assert!(Arc::ptr_eq(&of(&all, "192.0.2.1", 0).bucket, &held.bucket), "a held address is kept");
        // Once they have their bursts again, all are forgotten but the held one.
        let later = 1000 * SECOND;
        for nth in 0..4096 {
            drop(all.of(IpAddr::V4((0x0b00_0000 + nth).into()), later + u64::from(nth)));
        }
        assert!(all.addresses() <= 2 * 1024 + 1, "{}", all.addresses());
    }
}
