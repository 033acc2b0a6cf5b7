//! From the names and patterns of a request to targets of the subscription index, in portions.

use super::subscription_index::{Key, SubscriptionIndex, Target};
use tickcast_protocol::control::{ChannelSet, Pattern};

/// Prefixes of one audience that may cover one symbol. Each is looked up for each of its records.
pub(super) const NESTED_MAX: usize = 8;

/// Units of work of a name or prefix that no client had: to intern it, and later to remove it.
const NEW_NAME_UNITS: usize = 6;

/// Prefixes none of which covers another one of them.
#[derive(Debug, Default)]
pub(super) struct PrefixSet(Vec<Box<str>>);

impl PrefixSet {
    pub(super) fn new<'a>(prefixes: impl Iterator<Item = &'a str>) -> Self {
        let mut sorted: Vec<&str> = prefixes.collect();
        sorted.sort_unstable();
        let mut outermost: Vec<Box<str>> = Vec::new();
        for prefix in sorted {
            if outermost.last().is_none_or(|last| !prefix.starts_with(&**last)) {
                outermost.push(prefix.into());
            }
        }
        Self(outermost)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if one of them covers a name, or all that a narrower prefix covers.
    pub(super) fn covers(&self, text: &str) -> bool {
        let after = self.0.partition_point(|prefix| **prefix <= *text);
        self.0[..after].last().is_some_and(|prefix| text.starts_with(&**prefix))
    }

    /// How many instruments they cover now, each once.
    fn count(&self, index: &SubscriptionIndex) -> usize {
        self.0.iter().map(|prefix| index.count(prefix)).sum()
    }
}

/// How many of these prefixes cover one symbol at the most.
pub(super) fn nesting(prefixes: &mut Vec<&str>) -> usize {
    prefixes.sort_unstable();
    prefixes.dedup();
    let (mut open, mut most) = (Vec::<&str>::new(), 0);
    for prefix in prefixes {
        while open.pop_if(|outer| !prefix.starts_with(*outer)).is_some() {}
        open.push(prefix);
        most = most.max(open.len());
    }
    most
}

/// The symbols of a request that are being looked up.
#[derive(Debug)]
pub(super) struct Resolving {
    rest: std::vec::IntoIter<Pattern>,
    targets: Vec<Target>,
    unknown: Vec<String>,
}

/// What the symbols of a request stand for.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Sorted, each once.
    pub(super) targets: Vec<Target>,
    /// Exact names that no instrument has.
    pub(super) unknown: Vec<String>,
}

impl Resolving {
    pub(super) fn new(symbols: Vec<Pattern>) -> Self {
        let targets = Vec::with_capacity(symbols.len());
        Self { rest: symbols.into_iter(), targets, unknown: Vec::new() }
    }

    /// Looks symbols up, as many as the budget has. A name is an item of its own, whether an instrument has it yet or
    /// not: the client gets that instrument as soon as it is defined, and clients with the same interest are one
    /// audience regardless of when they came. True once all are resolved.
    pub(super) fn advance(&mut self, index: &mut SubscriptionIndex, budget: &mut usize) -> bool {
        while *budget > 0 {
            let Some(symbol) = self.rest.next() else { return true };
            let names = index.all_names();
            let target = match symbol {
                Pattern::Prefix(prefix) => index.intern_prefix(&prefix),
                Pattern::Exact(name) => {
                    let target = index.intern_name(&name);
                    if !index.is_known(target) {
                        self.unknown.push(name);
                    }
                    target
                }
            };
            self.targets.push(target);
            let is_new = index.all_names() > names;
            *budget = budget.saturating_sub(if is_new { NEW_NAME_UNITS } else { 1 });
        }
        self.rest.len() == 0
    }

    /// What they stand for. Targets that were named twice are released once.
    pub(super) fn finish(mut self, index: &mut SubscriptionIndex) -> Resolved {
        self.targets.sort_unstable();
        let (targets, repeated) = split_repeated(self.targets);
        if !repeated.is_empty() {
            index.release_all(repeated);
        }
        Resolved { targets, unknown: self.unknown }
    }

    /// The client is gone.
    pub(super) fn abandon(self, index: &mut SubscriptionIndex) {
        index.release_all(self.targets);
    }

    pub(super) fn bytes(&self) -> usize {
        self.rest.len() * size_of::<Pattern>() + self.targets.capacity() * size_of::<Target>()
    }
}

fn split_repeated(sorted: Vec<Target>) -> (Vec<Target>, Vec<Target>) {
    if sorted.is_sorted_by(|one, next| one < next) {
        return (sorted, Vec::new());
    }
    let (mut targets, mut repeated) = (Vec::<Target>::with_capacity(sorted.len()), Vec::new());
    for target in sorted {
        if targets.last() == Some(&target) { repeated.push(target) } else { targets.push(target) }
    }
    (targets, repeated)
}

/// How many instruments these targets, each once, cover now.
pub(super) fn count_covered(index: &SubscriptionIndex, targets: &[Target]) -> usize {
    let is_prefix = |target: &&Target| matches!(target, Target::Prefix(_));
    let prefixes = PrefixSet::new(targets.iter().filter(is_prefix).map(|target| index.text(*target)));
    let known = targets.iter().filter(|target| index.is_known(**target));
    let apart = |target: &&Target| prefixes.is_empty() || !prefixes.covers(index.text(**target));
    prefixes.count(index) + known.filter(apart).count()
}

/// Each target with each channel.
pub(super) fn keys<'a>(targets: &'a [Target], channels: ChannelSet) -> impl Iterator<Item = Key> + 'a {
    targets.iter().flat_map(move |target| channels.iter().map(move |channel| Key::new(*target, channel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_set_covers_what_its_outermost_prefixes_cover() {
        let set = PrefixSet::new(["BTC-", "B", "ETH", "BTC-U"].into_iter());
        assert_eq!(set.0.len(), 2);
        for (text, covers) in [("BTC-USD", true), ("B", true), ("A", false), ("ET", false), ("ETH", true), ("F", false)]
        {
            assert_eq!(set.covers(text), covers, "{text}");
        }
        assert!(PrefixSet::new(["", "X"].into_iter()).covers("anything"));
        assert!(!PrefixSet::default().covers(""));
    }

    #[test]
    fn nesting_is_the_longest_chain_of_prefixes() {
        for (prefixes, depth) in [
            (vec![], 0),
            (vec!["A", "B", "C"], 1),
            (vec!["", "A", "AB", "B", "BA", "ABC"], 4),
            (vec!["AB", "A", "AC", "ACD", "AB"], 3),
        ] {
            assert_eq!(nesting(&mut prefixes.clone()), depth, "{prefixes:?}");
        }
    }
}
