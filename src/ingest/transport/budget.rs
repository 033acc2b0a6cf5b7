//! Budgets of what this process asks of a server: attempts to connect, HTTP requests. All sources share them, since a venue
//! counts by address and not by connection.
//!
//! A budget is a token bucket, kept as the time at which it is whole again. A caller takes what it needs and waits by
//! itself. A server that asks for a pause, as HTTP 429 does, gets one from all sources.
//! Cost: a lock and a look-up for each connection and request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tickcast_venues::RequestLimit;

/// Servers that are kept. Those whose budgets are whole again are forgotten first.
const SERVERS_MAX: usize = 1024;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// An attempt to connect.
    Connect,
    /// An HTTP request.
    Request,
}

/// The budgets of all servers.
#[derive(Debug, Default)]
pub struct Budgets {
    servers: Mutex<Option<HashMap<String, Server>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// When the bucket of each use is whole again, ns.
    whole_ns: [u64; 2],
    /// Nothing before this time, ns.
    paused_until_ns: u64,
}

/// Those of this process.
pub static BUDGETS: Budgets = Budgets { servers: Mutex::new(None) };

impl Budgets {
    /// Takes this much, and returns when it may be used.
    pub fn take(&self, server: &str, use_: Use, limit: RequestLimit, weight: u32, now_ns: u64) -> u64 {
        let mut servers = self.lock();
        let servers = servers.get_or_insert_default();
        if servers.len() >= SERVERS_MAX && !servers.contains_key(server) {
            servers.retain(|_, kept| kept.whole_ns.iter().any(|ns| *ns > now_ns) || kept.paused_until_ns > now_ns);
        }
        let kept = servers.entry(server.to_owned()).or_default();
        let at_ns = kept.open_ns(use_, limit, now_ns);
        let whole_ns = &mut kept.whole_ns[use_ as usize];
        *whole_ns = (*whole_ns).max(now_ns).saturating_add(u64::from(weight).saturating_mul(limit.interval_ns));
        at_ns
    }

    /// When the next one may be used, whatever its weight.
    pub fn open_ns(&self, server: &str, use_: Use, limit: RequestLimit, now_ns: u64) -> u64 {
        let servers = self.lock();
        let kept = servers.as_ref().and_then(|servers| servers.get(server)).copied().unwrap_or_default();
        kept.open_ns(use_, limit, now_ns)
    }

    /// Nothing is asked of this server before this time.
    pub fn pause(&self, server: &str, until_ns: u64) {
        let mut servers = self.lock();
        let kept = servers.get_or_insert_default().entry(server.to_owned()).or_default();
        kept.paused_until_ns = kept.paused_until_ns.max(until_ns);
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<String, Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// The bucket has one left while it is whole again within the time of the burst, less one.
    fn open_ns(&self, use_: Use, limit: RequestLimit, now_ns: u64) -> u64 {
        let spare_ns = u64::from(limit.burst.saturating_sub(1)).saturating_mul(limit.interval_ns);
        self.whole_ns[use_ as usize].saturating_sub(spare_ns).max(self.paused_until_ns).max(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const T0: u64 = 1_700_000_000 * S;
    const LIMIT: RequestLimit = RequestLimit { burst: 3, interval_ns: S };

    #[test]
    fn burst_is_at_once_and_then_one_each_interval() {
        let budgets = Budgets::default();
        let take = |now_ns| budgets.take("a:1", Use::Connect, LIMIT, 1, now_ns) - T0;
        assert_eq!([take(T0), take(T0), take(T0), take(T0), take(T0)], [0, 0, 0, S, 2 * S]);
        assert_eq!(take(T0 + 10 * S), 10 * S);
        assert_eq!(budgets.take("b:1", Use::Connect, LIMIT, 1, T0), T0, "another server");
        assert_eq!(budgets.take("a:1", Use::Request, LIMIT, 1, T0), T0, "another use");
    }

    #[test]
    fn weight_counts_for_those_that_follow() {
        let budgets = Budgets::default();
        assert_eq!(budgets.take("a:1", Use::Request, LIMIT, 250, T0), T0);
        assert_eq!(budgets.open_ns("a:1", Use::Request, LIMIT, T0), T0 + 248 * S);
    }

    #[test]
    fn pause_is_for_all_uses() {
        let budgets = Budgets::default();
        budgets.pause("a:1", T0 + 60 * S);
        budgets.pause("a:1", T0 + 30 * S);
        for use_ in [Use::Connect, Use::Request] {
            assert_eq!(budgets.open_ns("a:1", use_, LIMIT, T0), T0 + 60 * S);
        }
    }

    #[test]
    fn servers_whose_budget_is_whole_are_forgotten_at_the_limit() {
        let budgets = Budgets::default();
        for nth in 0..3 * SERVERS_MAX as u64 {
            budgets.take(&format!("h{nth}:1"), Use::Connect, LIMIT, 1, T0 + nth * S);
        }
        assert!(budgets.lock().as_ref().is_some_and(|servers| servers.len() <= SERVERS_MAX));
    }
}
