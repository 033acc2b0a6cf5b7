//! Who is most behind: a short list for whoever runs the server, made anew about once a second.
//!
//! It is gathered on the way, as housekeeping looks at all clients in portions anyhow. It costs a comparison for each
//! client that is behind, and nothing where nobody is.

use super::Shard;
use super::connections::{CatchUp, Client, Ending};
use super::encoding::Encoding;
use super::subscription_index::SubscriptionIndex;
use crate::io::{Io, SlotId};

/// Clients on the list at the most.
const SLOWEST_MAX: usize = 20;
/// Who is behind for less is on its way: an answer or a snapshot takes a few turns.
const BEHIND_NS_MIN: u64 = 100_000_000;
/// Items that are looked at for the interval: clients have one for all of them as a rule.
const ITEMS_LOOKED_AT: usize = 16;

/// A client that is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowClient {
    /// Its seat.
    pub slot: u32,
    /// Since when it is owed something without a break, ns.
    pub since_ns: u64,
    /// When something last left for it, ns.
    pub progress_ns: u64,
    /// Bytes kept for it: the rest of a send, and answers.
    pub pending_bytes: usize,
    /// Bytes of the ring that it has still to be shown.
    pub ring_bytes: u64,
    /// Its socket is full.
    pub is_blocked: bool,
    /// It has been told to go.
    pub is_closing: bool,
    /// Subscriptions.
    pub items: usize,
    /// The shortest interval among its first subscriptions, ms.
    pub conflate_ms: u32,
    pub encoding: Encoding,
}

/// The list, and the next one.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    /// Of this round, by since when, the longest first.
    gathered: Vec<(u64, SlotId)>,
    /// Of the last round, until it is taken.
    list: Option<Vec<SlowClient>>,
    /// The last list had somebody.
    had_some: bool,
}

impl Slowest {
    fn gather(&mut self, since_ns: u64, slot_id: SlotId) {
        let at = self.gathered.partition_point(|(since, _)| *since <= since_ns);
        if at < SLOWEST_MAX {
            self.gathered.truncate(SLOWEST_MAX - 1);
            self.gathered.insert(at, (since_ns, slot_id));
        }
    }

    /// Replaces the list; that nobody is on it is said once.
    fn show(&mut self, list: Vec<SlowClient>) {
        let has_some = !list.is_empty();
        if has_some || std::mem::replace(&mut self.had_some, false) {
            self.had_some = has_some;
            self.list = Some(list);
        }
    }
}

impl<I: Io> Shard<I> {
    /// The clients that are most behind, the longest first, at most twenty; `None` if that is as it was.
    pub fn take_slowest(&mut self) -> Option<Vec<SlowClient>> {
        self.slowest.list.take()
    }

    /// Looks at one client.
    pub(super) fn note_if_slow(&mut self, slot: u32) {
        let now_ns = self.tick.now_ns;
        let behind = self.client(slot).and_then(|client| Some((client.catch_up.as_ref()?.since_ns, client.slot_id)));
        if let Some((since_ns, slot_id)) = behind.filter(|behind| behind.0 + BEHIND_NS_MIN <= now_ns) {
            self.slowest.gather(since_ns, slot_id);
        }
    }

    /// All clients have been looked at.
    pub(super) fn list_slowest(&mut self) {
        let gathered = std::mem::take(&mut self.slowest.gathered);
        let described = gathered.iter().filter_map(|(since_ns, slot_id)| {
            let client = self.client(slot_id.index).filter(|client| client.slot_id == *slot_id)?;
            let catch_up = client.catch_up.as_ref().filter(|catch_up| catch_up.since_ns == *since_ns)?;
            Some(describe(client, catch_up, &self.interest, self.tick.ring_position))
        });
        let list = described.collect();
        self.slowest.show(list);
        // Its memory is used again.
        self.slowest.gathered = gathered;
        self.slowest.gathered.clear();
    }
}

fn describe(client: &Client, catch_up: &CatchUp, interest: &SubscriptionIndex, ring_position: u64) -> SlowClient {
    let audience = client.audience;
    let keys = interest.keys(audience);
    let items = keys.len();
    let intervals = keys.take(ITEMS_LOOKED_AT).filter_map(|key| interest.interval_of(audience, key));
    SlowClient {
        slot: client.slot_id.index,
        since_ns: catch_up.since_ns,
        progress_ns: catch_up.progress_ns,
        pending_bytes: catch_up.tail.len() + catch_up.control.len(),
        ring_bytes: ring_position - catch_up.log.ring_position,
        is_blocked: catch_up.blocked,
        is_closing: client.ending != Ending::No,
        items,
        conflate_ms: intervals.min().map_or(0, |interval| interval.interval_ms()),
        encoding: interest.encoding(audience),
    }
}
