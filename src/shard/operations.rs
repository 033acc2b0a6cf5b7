//! Requests that change subscriptions, and are carried out in portions.
//!
//! A short request is done at once. A long one, or any that comes when the work of the tick is spent, waits here and goes
//! on in the next ticks, in turn with those of other clients. The client keeps its old subscriptions until the change is
//! complete, and its next requests wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::accounts::Allowance;
use super::counting::Counting;
use super::reselect::Reselecting;
use super::resolve::{Report, Resolved, Resolving};
use super::select::Selecting;
use super::subscription_index::{Building, Key, SubscriptionIndex, Target};
use crate::identity::Principal;
use crate::io::SlotId;
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::{ConflationInterval, Token};

/// Symbols that are looked up and items that change in one tick, for all requests together: some 0.1 ms.
pub(super) const TICK_UNITS: usize = 1024;
/// Of those, what one request may have before others get their share.
pub(super) const PORTION_UNITS: usize = 256;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe { snapshot: bool },
    Resume { token: Token },
    Unsubscribe,
    Auth,
}

/// A request to change subscriptions.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) channels: ChannelSet,
    pub(super) interval: ConflationInterval,
    pub(super) stage: Stage,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its symbols are looked up.
    Resolve(Resolving),
    /// The items that it removes are looked for.
    Select(Selecting),
    /// The instruments that it is about are counted.
    Count(Counting, Counted),
    /// Its token is being verified, outside of the shard.
    Verify,
    /// The client's items are compared with its new rights.
    Reselect(Reselecting),
    /// The audience with the changed set is being built.
    Build(Building, Outcome),
    /// Done or refused.
    Done,
}

/// What goes on once the instruments of a request are counted.
#[derive(Debug)]
pub(super) enum Counted {
    Subscribe(Resolved),
    /// Items that are removed.
    Unsubscribe(Vec<Key>),
}

/// What a request has come to, for its answer.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Items that the client had not had.
    pub(super) new: Vec<Key>,
    /// It had no items.
    pub(super) had_none: bool,
    /// Instruments that the request covers now.
    pub(super) count: usize,
    /// Names without an instrument, and patterns.
    pub(super) names: u32,
    /// The targets that the request has interned: released once the items have them.
    pub(super) targets: Vec<Target>,
    pub(super) report: Report,
    /// The interval granted.
    pub(super) interval: ConflationInterval,
    /// Levels of the shallowest book, if any is limited.
    pub(super) book_depth: Option<u32>,
    /// Of an auth.
    pub(super) identity: Option<NewIdentity>,
}

/// Who a client has become, and what it may not have any more.
#[derive(Debug)]
pub(super) struct NewIdentity {
    pub(super) principal: Arc<Principal>,
    pub(super) dropped: Vec<String>,
    /// Its rights are others than before.
    pub(super) has_changed: bool,
}

impl Operation {
    /// Gives back what the index keeps for it.
    pub(super) fn abandon(self, index: &mut SubscriptionIndex) {
        match self.stage {
            Stage::Resolve(resolving) => resolving.abandon(index),
            Stage::Build(building, outcome) => {
                index.abandon_change(building);
                index.release_all(outcome.targets);
            }
            Stage::Count(_, Counted::Subscribe(resolved)) => index.release_all(resolved.into_parts().0),
            Stage::Count(_, Counted::Unsubscribe(_))
            | Stage::Select(_)
            | Stage::Verify
            | Stage::Reselect(_)
            | Stage::Done => {}
        }
    }

    fn bytes(&self) -> usize {
        match &self.stage {
            Stage::Resolve(resolving) => resolving.bytes(),
            Stage::Select(selecting) => selecting.bytes(),
            Stage::Count(counting, Counted::Subscribe(resolved)) => counting.bytes() + resolved.bytes(),
            Stage::Count(counting, Counted::Unsubscribe(keys)) => counting.bytes() + size_of_val(&**keys),
            Stage::Build(building, outcome) => building.bytes() + outcome.new.capacity() * size_of::<Key>(),
            Stage::Reselect(reselecting) => reselecting.bytes(),
            Stage::Verify | Stage::Done => 0,
        }
    }
}

/// A request that waits, and the input behind it.
#[derive(Debug)]
struct Waiting {
    slot_id: SlotId,
    operation: Operation,
    input: Vec<u8>,
}

/// The requests of a shard that are under way.
#[derive(Debug, Default)]
pub(super) struct Operations {
    by_slot: HashMap<u32, Waiting, RandomState>,
    queue: VecDeque<SlotId>,
    /// Of the requests, those that are not in the queue.
    parked: usize,
    /// What is left of the tick's units.
    pub(super) units: usize,
    /// The allowance of all clients of the shard together.
    share: Allowance,
    /// When requests go on, which the spent allowance has stopped.
    due_ns: Option<u64>,
}

impl Operations {
    /// Begins a tick: without units while the allowance of the shard is spent. True if that begins with this tick.
    pub(super) fn begin_tick(&mut self, now_ns: u64) -> bool {
        let due_ns = self.share.share_due_ns(now_ns);
        let had_units = std::mem::replace(&mut self.due_ns, due_ns).is_none();
        self.units = if due_ns.is_some() { 0 } else { TICK_UNITS };
        had_units && due_ns.is_some()
    }

    /// Charges work to the allowance of the shard.
    pub(super) fn spend_share(&mut self, units: u64, per_s: u32, now_ns: u64) {
        self.share.spend(units, per_s, now_ns);
    }

    /// When requests go on; `None` if this tick may handle them.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Requests, without those that wait for something outside of the shard.
    pub(super) fn len(&self) -> usize {
        self.by_slot.len() - self.parked
    }

    /// True if a request of this client is under way.
    pub(super) fn has(&self, slot_id: SlotId) -> bool {
        self.by_slot.get(&slot_id.index).is_some_and(|waiting| waiting.slot_id == slot_id)
    }

    /// Keeps a request for the next ticks; `input` is what the client has sent behind it.
    pub(super) fn push(&mut self, slot_id: SlotId, operation: Operation, input: Vec<u8>) {
        self.by_slot.insert(slot_id.index, Waiting { slot_id, operation, input });
        self.queue.push_back(slot_id);
    }

    /// Keeps a request that goes on once something outside of the shard is done.
    pub(super) fn park(&mut self, slot_id: SlotId, operation: Operation) {
        self.by_slot.insert(slot_id.index, Waiting { slot_id, operation, input: Vec::new() });
        self.parked += 1;
    }

    /// Keeps more input of a client whose request is under way.
    pub(super) fn defer(&mut self, slot_id: SlotId, input: &[u8]) {
        if let Some(waiting) = self.by_slot.get_mut(&slot_id.index) {
            waiting.input.extend_from_slice(input);
        }
    }

    /// Takes the next request that goes on, and the input behind it.
    pub(super) fn pop(&mut self) -> Option<(SlotId, Operation, Vec<u8>)> {
        while let Some(slot_id) = self.queue.pop_front() {
            if let Some((operation, input)) = self.remove(slot_id) {
                return Some((slot_id, operation, input));
            }
        }
        None
    }

    /// Takes the request of a client out.
    pub(super) fn remove(&mut self, slot_id: SlotId) -> Option<(Operation, Vec<u8>)> {
        if !self.has(slot_id) {
            return None;
        }
        let Waiting { operation, input, .. } = self.by_slot.remove(&slot_id.index)?;
        self.parked -= usize::from(matches!(operation.stage, Stage::Verify));
        Some((operation, input))
    }

    /// Memory of the request of a client and of the input behind it.
    pub(super) fn bytes(&self, slot_id: SlotId) -> usize {
        let waiting = self.by_slot.get(&slot_id.index).filter(|waiting| waiting.slot_id == slot_id);
        waiting.map_or(0, |waiting| waiting.operation.bytes() + waiting.input.capacity())
    }
}
