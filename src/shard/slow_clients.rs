//! The clients that are furthest behind: a short list for the operator, renewed about once a second.
//!
//! It is collected while the timers check all clients in portions anyway. Cost: a comparison for each client that is
//! behind.

use super::backlog::{Backlog, ClientBacklog};
use super::connections::{Client, ConnectionTable};
use super::encoding::Encoding;
use super::market_view::MarketView;
use super::subscription_index::SubscriptionIndex;
use super::tick_records::Now;
use crate::io::SlotId;
use crate::ring::RingOffset;

/// Clients on the list at the most.
const SLOW_CLIENTS_MAX: usize = 20;
/// A client that is behind for less is not slow: an answer or a snapshot takes a few ticks.
const BEHIND_NS_MIN: u64 = 100_000_000;
/// Items that are checked for the interval: as a rule, all items of a client have the same.
const ITEMS_CHECKED: usize = 16;

/// A client that is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowClient {
    pub slot: u32,
    /// Since when something has been pending for it without a break, ns.
    pub since_ns: u64,
    /// When its socket last took something, ns.
    pub progress_ns: u64,
    /// Bytes that are ready to be sent: the rest of a send, and answers.
    pub pending_bytes: usize,
    /// Bytes of the ring that it has not been served from yet; 0 for a lagging member.
    pub ring_bytes: u64,
    /// Its socket is full.
    pub is_blocked: bool,
    /// It is being closed.
    pub is_closing: bool,
    /// Subscriptions.
    pub items: usize,
    /// The shortest interval among its first subscriptions, ms.
    pub conflate_ms: u32,
    pub encoding: Encoding,
}

/// The list, and the next one.
#[derive(Debug, Default)]
pub(super) struct SlowClients {
    /// Of this round: since when, and who; the longest first.
    collected: Vec<(u64, SlotId)>,
    /// Of the last round, until it is taken.
    list: Option<Vec<SlowClient>>,
    /// The last list was not empty.
    had_some: bool,
}

impl SlowClients {
    /// The list, if it has changed since it was last taken.
    pub(super) fn take(&mut self) -> Option<Vec<SlowClient>> {
        self.list.take()
    }

    /// Adds a client if it is behind for long enough.
    pub(super) fn note(&mut self, slot_id: SlotId, backlog: &ClientBacklog, now: Now) {
        let since_ns = backlog.since.ns;
        if since_ns + BEHIND_NS_MIN > now.ns {
            return;
        }
        let at = self.collected.partition_point(|(since, _)| *since <= since_ns);
        if at < SLOW_CLIENTS_MAX {
            self.collected.truncate(SLOW_CLIENTS_MAX - 1);
            self.collected.insert(at, (since_ns, slot_id));
        }
    }

    /// All clients have been checked: replaces the list. An empty one is reported once.
    pub(super) fn finish_round(
        &mut self,
        connections: &ConnectionTable,
        backlog: &Backlog,
        index: &SubscriptionIndex,
        market: &MarketView,
    ) {
        let described = self.collected.drain(..).filter_map(|(since_ns, slot_id)| {
            let client = connections.get(slot_id)?;
            let backlog = backlog.get(slot_id).filter(|backlog| backlog.since.ns == since_ns)?;
            Some(describe(client, backlog, index, market.offset))
        });
        let list: Vec<SlowClient> = described.collect();
        let has_some = !list.is_empty();
        if has_some || self.had_some {
            self.list = Some(list);
        }
        self.had_some = has_some;
    }
}

fn describe(client: &Client, backlog: &ClientBacklog, index: &SubscriptionIndex, read: RingOffset) -> SlowClient {
    let audience = client.audience;
    let keys = index.keys(audience);
    let items = keys.len();
    let intervals = keys.take(ITEMS_CHECKED).filter_map(|key| index.interval_of(audience, key));
    SlowClient {
        slot: client.slot_id.index,
        since_ns: backlog.since.ns,
        progress_ns: backlog.progress_ns,
        pending_bytes: backlog.pending_bytes(),
        ring_bytes: backlog.own().map_or(0, |own| read - own.log.offset),
        is_blocked: backlog.is_blocked,
        is_closing: !client.is_open(),
        items,
        conflate_ms: intervals.min().map_or(0, |interval| interval.interval_ms()),
        encoding: client.encoding,
    }
}
