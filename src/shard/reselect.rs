//! Which items a client keeps whose rights have changed, in portions.

use std::sync::Arc;

use super::authorize::keeps;
use super::subscription_index::{AudienceId, Change, SubscriptionIndex, Target};
use crate::identity::Principal;
use tickcast_protocol::control::Pattern;

/// The items of a client that are compared with its new rights.
#[derive(Debug)]
pub(super) struct Reselecting {
    principal: Arc<Principal>,
    /// Items that were visited.
    visited: usize,
    changes: Vec<Change>,
    dropped: Vec<Target>,
}

impl Reselecting {
    pub(super) fn new(principal: Arc<Principal>) -> Self {
        Self { principal, visited: 0, changes: Vec::new(), dropped: Vec::new() }
    }

    /// Compares items, as far as the budget goes. True once all are compared.
    pub(super) fn advance(&mut self, index: &SubscriptionIndex, audience: AudienceId, budget: &mut usize) -> bool {
        const UNITS: usize = 2;
        let portion = budget.div_ceil(UNITS);
        let mut visited = 0;
        for key in index.keys_from(audience, self.visited, portion) {
            visited += 1;
            let Some(interval) = index.interval_of(audience, key) else { continue };
            let pattern = pattern_of(index, key.target());
            match keeps(&self.principal, &pattern, key.channel(), interval, index.delay_s()) {
                Some(kept) if kept == interval => {}
                Some(longer) => self.changes.push(Change::Want(key, longer)),
                None => {
                    self.changes.push(Change::Drop(key));
                    if self.dropped.last() != Some(&key.target()) {
                        self.dropped.push(key.target());
                    }
                }
            }
        }
        self.visited += visited;
        *budget = budget.saturating_sub(visited * UNITS);
        self.visited == index.items(audience)
    }

    pub(super) fn bytes(&self) -> usize {
        self.changes.capacity() * size_of::<Change>() + self.dropped.capacity() * size_of::<Target>()
    }

    /// Whose rights they are, the changes to the items, and names and patterns of which channels are dropped.
    pub(super) fn finish(self, index: &SubscriptionIndex) -> (Arc<Principal>, Vec<Change>, Vec<String>) {
        let text = |target: &Target| pattern_of(index, *target).to_string();
        let dropped = self.dropped.iter().map(text).collect();
        (self.principal, self.changes, dropped)
    }
}

fn pattern_of(index: &SubscriptionIndex, target: Target) -> Pattern {
    let text = index.text(target).to_owned();
    match target {
        Target::Prefix(_) => Pattern::Prefix(text),
        Target::Name(_) | Target::Instrument(_) => Pattern::Exact(text),
    }
}
