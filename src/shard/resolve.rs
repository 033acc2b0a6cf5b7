//! From the names and patterns of a request to targets of the subscription index, in portions.

use std::sync::Arc;

use super::authorize::{Permit, permit};
use super::subscription_index::{Key, SubscriptionIndex, Target};
use crate::identity::Principal;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::control::{ChannelSet, Pattern};

/// Prefixes of one audience that may cover one symbol. Each is looked up for each of its records.
pub(super) const NESTED_MAX: usize = 8;

/// Units of work of a name or prefix that no client had: to intern it, and later to remove it.
const NEW_NAME_UNITS: usize = 6;
/// Units of work to decide what a client may have of a name or pattern.
const PERMIT_UNITS: usize = 5;

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
}

impl IntoIterator for PrefixSet {
    type Item = Box<str>;
    type IntoIter = std::vec::IntoIter<Box<str>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
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
    wants: Wants,
    granted: Vec<(Target, Permit)>,
    report: Report,
}

/// Who asks, and for what of each symbol.
#[derive(Clone, Debug)]
pub(super) struct Wants {
    pub(super) principal: Arc<Principal>,
    pub(super) channels: ChannelSet,
    pub(super) interval: ConflationInterval,
}

/// What the symbols of a request stand for.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// What the client may have: sorted, each target once.
    granted: Vec<(Target, Permit)>,
    pub(super) report: Report,
}

/// What a client is told about the symbols that it has named.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Exact names that no instrument has.
    pub(super) unknown: Vec<String>,
    /// Names and patterns of which the client may have nothing.
    pub(super) denied: Vec<String>,
    /// Names and patterns of which it gets less than it has asked for.
    pub(super) limited: Vec<String>,
    /// Of both, those that are there for it as delayed data.
    pub(super) delayed: Vec<String>,
}

impl Resolved {
    /// Sorted, each once.
    pub(super) fn targets(&self) -> impl DoubleEndedIterator<Item = Target> + '_ {
        self.granted.iter().map(|(target, _)| *target)
    }

    /// The items, in order, each with its interval.
    pub(super) fn items(&self) -> impl Iterator<Item = (Key, ConflationInterval)> + '_ {
        self.granted.iter().flat_map(|(target, permit)| permit.items(*target))
    }

    /// The longest interval of a state channel, if there is one.
    pub(super) fn interval(&self) -> Option<ConflationInterval> {
        self.granted.iter().filter_map(|(_, permit)| permit.interval()).max()
    }

    /// The depth of the shallowest book, if any is limited.
    pub(super) fn book_depth(&self) -> Option<u32> {
        self.granted.iter().filter_map(|(_, permit)| permit.book_depth).min()
    }

    /// True if a pattern is among the targets: they are the last.
    pub(super) fn has_prefixes(&self) -> bool {
        matches!(self.granted.last(), Some((Target::Prefix(_), _)))
    }

    /// How many names without an instrument, and patterns, there are.
    pub(super) fn names(&self) -> u32 {
        let prefixes = self.targets().rev().take_while(|target| matches!(target, Target::Prefix(_)));
        (self.report.unknown.len() + prefixes.count()) as u32
    }

    pub(super) fn bytes(&self) -> usize {
        self.granted.capacity() * size_of::<(Target, Permit)>()
    }

    /// All targets, to be released, and what the client is told.
    pub(super) fn into_parts(self) -> (Vec<Target>, Report) {
        (self.granted.into_iter().map(|(target, _)| target).collect(), self.report)
    }
}

impl Resolving {
    pub(super) fn new(symbols: Vec<Pattern>, wants: Wants) -> Self {
        let granted = Vec::with_capacity(symbols.len());
        Self { rest: symbols.into_iter(), wants, granted, report: Report::default() }
    }

    /// Looks symbols up, as many as the budget has. A name is an item of its own, whether an instrument has it yet or
    /// not: the client gets that instrument as soon as it is defined, and clients with the same interest are one
    /// audience regardless of when they came. True once all are resolved.
    pub(super) fn advance(&mut self, index: &mut SubscriptionIndex, budget: &mut usize) -> bool {
        while *budget > 0 {
            let Some(symbol) = self.rest.next() else { return true };
            let Wants { principal, channels, interval } = &self.wants;
            let permit = permit(principal, &symbol, *channels, *interval, index.delay_s());
            if !principal.rights.is_open() {
                *budget = budget.saturating_sub(PERMIT_UNITS);
            }
            self.report.note(&symbol, permit);
            if permit.is_empty() {
                continue;
            }
            let names = index.all_names();
            let target = match symbol {
                Pattern::Prefix(prefix) => index.intern_prefix(&prefix),
                Pattern::Exact(name) => {
                    let target = index.intern_name(&name);
                    if !index.is_known(target) {
                        self.report.unknown.push(name);
                    }
                    target
                }
            };
            self.granted.push((target, permit));
            let is_new = index.all_names() > names;
            *budget = budget.saturating_sub(if is_new { NEW_NAME_UNITS } else { 1 });
        }
        self.rest.len() == 0
    }

    /// What they stand for. Targets that were named twice are released once.
    pub(super) fn finish(mut self, index: &mut SubscriptionIndex) -> Resolved {
        self.granted.sort_unstable_by_key(|(target, _)| *target);
        let mut repeated = Vec::new();
        self.granted.dedup_by(|(target, _), (before, _)| {
            let is_repeated = target == before;
            if is_repeated {
                repeated.push(*target);
            }
            is_repeated
        });
        if !repeated.is_empty() {
            index.release_all(repeated);
        }
        Resolved { granted: self.granted, report: self.report }
    }

    /// The client is gone.
    pub(super) fn abandon(self, index: &mut SubscriptionIndex) {
        index.release_all(self.granted.into_iter().map(|(target, _)| target).collect());
    }

    pub(super) fn bytes(&self) -> usize {
        self.rest.len() * size_of::<Pattern>() + self.granted.capacity() * size_of::<(Target, Permit)>()
    }
}

impl Report {
    fn note(&mut self, symbol: &Pattern, permit: Permit) {
        if permit.is_delayed {
            self.delayed.push(symbol.to_string());
        }
        if permit.is_empty() {
            self.denied.push(symbol.to_string());
        } else if permit.is_limited {
            self.limited.push(symbol.to_string());
        }
    }
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
