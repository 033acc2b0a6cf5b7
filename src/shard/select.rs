//! Which items an unsubscribe request removes, in portions.
//!
//! A name is looked up. A pattern takes all items that it covers, narrower patterns included, so the items of the client
//! are visited. Their order does not change meanwhile: a client has one request under way.

use super::resolve::PrefixSet;
use super::subscription_index::{AudienceId, Key, SubscriptionIndex, Target};
use tickcast_protocol::control::{ChannelSet, Pattern};

/// The items of a request that are being looked for.
#[derive(Debug)]
pub(super) struct Selecting {
    names: std::vec::IntoIter<Pattern>,
    prefixes: PrefixSet,
    /// Items of the client that were visited.
    visited: usize,
    dropped: Vec<Key>,
}

impl Selecting {
    pub(super) fn new(symbols: Vec<Pattern>) -> Self {
        let prefix = |symbol: &'_ Pattern| match symbol {
            Pattern::Prefix(prefix) => Some(prefix.clone()),
            Pattern::Exact(_) => None,
        };
        let prefixes: Vec<String> = symbols.iter().filter_map(prefix).collect();
        let prefixes = PrefixSet::new(prefixes.iter().map(String::as_str));
        Self { names: symbols.into_iter(), prefixes, visited: 0, dropped: Vec::new() }
    }

    /// Looks for items, as far as the budget goes. True once all are found.
    pub(super) fn advance(
        &mut self,
        index: &SubscriptionIndex,
        audience: AudienceId,
        channels: ChannelSet,
        budget: &mut usize,
    ) -> bool {
        while *budget > 0
            && let Some(symbol) = self.names.next()
        {
            *budget -= 1;
            let Pattern::Exact(name) = symbol else { continue };
            let Some(target) = index.find(&name, false) else { continue };
            let keys = channels.iter().map(|channel| Key::new(target, channel));
            self.dropped.extend(keys.filter(|key| index.interval_of(audience, *key).is_some()));
        }
        if self.names.len() > 0 {
            return false;
        }
        if self.prefixes.is_empty() {
            return true;
        }
        let mut visited = 0;
        // The items of one target follow each other.
        let mut last: Option<(Target, bool)> = None;
        for key in index.keys_from(audience, self.visited, *budget) {
            visited += 1;
            let target = key.target();
            let is_covered = match last {
                Some((of, is_covered)) if of == target => is_covered,
                _ => self.prefixes.covers(index.text(target)),
            };
            last = Some((target, is_covered));
            if is_covered && channels.contains(key.channel()) {
                self.dropped.push(key);
            }
        }
        self.visited += visited;
        *budget -= visited;
        self.visited == index.items(audience)
    }

    /// The items, in order, each once.
    pub(super) fn finish(mut self) -> Vec<Key> {
        self.dropped.sort_unstable();
        self.dropped.dedup();
        self.dropped
    }

    pub(super) fn bytes(&self) -> usize {
        self.names.len() * size_of::<Pattern>() + self.dropped.capacity() * size_of::<Key>()
    }
}
