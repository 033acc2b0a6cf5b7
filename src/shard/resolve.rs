//! From the symbols and patterns of a request to items of the subscription index.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::subscription_index::{Key, SubscriptionIndex, Target};
use tickcast_protocol::Directory;
use tickcast_protocol::control::{ChannelSet, Pattern};

/// What the symbols and channels of a request stand for.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Sorted, each once.
    pub(super) targets: Vec<Target>,
    /// Each target with each channel.
    pub(super) items: Vec<Key>,
    /// Exact names that no instrument has.
    pub(super) unknown: Vec<String>,
}

/// Resolves what a client wants to subscribe to. A name is an item of its own, whether an instrument has it yet or not:
/// the client gets that instrument as soon as it is defined, and clients with the same interest are one audience
/// regardless of when they came. Patterns that do not become items have to be released again.
pub(super) fn resolve(
    index: &mut SubscriptionIndex,
    directory: &Directory,
    channels: ChannelSet,
    symbols: &[Pattern],
) -> Resolved {
    let (mut targets, mut unknown) = (Vec::with_capacity(symbols.len()), Vec::new());
    for symbol in symbols {
        match symbol {
            Pattern::Prefix(prefix) => targets.push(Target::Pattern(index.intern(prefix))),
            Pattern::Exact(name) => {
                if directory.find(name).is_none() {
                    unknown.push(name.clone());
                }
                targets.push(Target::Pattern(index.intern_name(name)));
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    let items = targets.iter().flat_map(|target| channels.iter().map(|channel| Key::new(*target, channel))).collect();
    Resolved { targets, items, unknown }
}

/// Releases patterns that no item came to use.
pub(super) fn release(index: &mut SubscriptionIndex, targets: &[Target]) {
    for target in targets {
        if let Target::Pattern(pattern) = target {
            index.release_unused(*pattern);
        }
    }
}

/// How many instruments these cover now.
pub(super) fn count_covered(index: &SubscriptionIndex, targets: &[Target]) -> usize {
    let mut covered: Vec<u32> = targets.iter().flat_map(|target| index.covered(target).iter().copied()).collect();
    covered.retain(|id| !index.is_released(*id));
    covered.sort_unstable();
    covered.dedup();
    covered.len()
}

/// The symbols and patterns of an unsubscribe request, for one look-up an item: a request of 10,000 names from a client
/// with 10,000 items must not cost their product.
#[derive(Default)]
pub(super) struct SymbolSet<'a> {
    exact: HashSet<&'a str, RandomState>,
    prefixes: HashSet<&'a str, RandomState>,
}

impl<'a> FromIterator<&'a Pattern> for SymbolSet<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Pattern>>(patterns: T) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            match pattern {
                Pattern::Exact(name) => set.exact.insert(name),
                Pattern::Prefix(prefix) => set.prefixes.insert(prefix),
            };
        }
        set
    }
}

impl SymbolSet<'_> {
    /// True if this target is named or covered. A name covers its own item; a pattern all items that it covers, names
    /// and narrower patterns included.
    pub(super) fn covers(&self, index: &SubscriptionIndex, target: Target) -> bool {
        match target {
            Target::Instrument(id) => self.covers_name(index.symbol(id)),
            Target::Pattern(name) if index.is_name(name) => self.covers_name(index.prefix(name)),
            Target::Pattern(pattern) => self.covers_prefix(index.prefix(pattern)),
        }
    }

    fn covers_name(&self, symbol: &str) -> bool {
        self.exact.contains(symbol) || self.covers_prefix(symbol)
    }

    /// True if one of the patterns covers all symbols that begin with `prefix`.
    fn covers_prefix(&self, prefix: &str) -> bool {
        let ends = prefix.char_indices().map(|(end, _)| end).chain([prefix.len()]);
        !self.prefixes.is_empty() && ends.into_iter().any(|end| self.prefixes.contains(&prefix[..end]))
    }
}
