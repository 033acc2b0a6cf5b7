//! How many instruments the names and patterns of a request cover that its client may see, in portions: below a pattern
//! each instrument is asked about.

use super::resolve::PrefixSet;
use super::subscription_index::{AudienceId, SubscriptionIndex, Target};
use tickcast_protocol::control::ChannelSet;

/// Instruments that are asked about for a unit of work.
const VISITS_PER_UNIT: usize = 4;

/// A count under way.
#[derive(Debug)]
pub(super) struct Counting {
    /// None of them covers what another one does; the last is next.
    prefixes: Vec<Box<str>>,
    /// The last symbol below it that was asked about.
    after: Option<Box<str>>,
    channels: ChannelSet,
    count: usize,
}

impl Counting {
    /// Begins to count what these targets, each once, cover.
    pub(super) fn new(index: &SubscriptionIndex, targets: &[Target], channels: ChannelSet) -> Self {
        // No prefix outside of a user's folder covers what is in it.
        let is_prefix = |target: &&Target| matches!(target, Target::Prefix(_));
        let texts = |is_private: bool| {
            let prefixes = targets.iter().filter(is_prefix).map(|target| index.text(*target));
            PrefixSet::new(prefixes.filter(|text| index.is_private(text) == is_private))
        };
        let (private, others) = (texts(true), texts(false));
        let known = targets.iter().filter(|target| index.is_known(**target)).map(|target| index.text(*target));
        let apart = |text: &&str| {
            let prefixes = if index.is_private(text) { &private } else { &others };
            prefixes.is_empty() || !prefixes.covers(text)
        };
        let count = known.filter(apart).count();
        let prefixes = private.into_iter().chain(others).collect();
        Self { prefixes, after: None, channels, count }
    }

    /// Counts on, as far as the budget goes. True once all is counted.
    pub(super) fn advance(&mut self, index: &SubscriptionIndex, audience: AudienceId, budget: &mut usize) -> bool {
        while let Some(prefix) = self.prefixes.last() {
            if index.is_open(audience) {
                // Two look-ups, however many there are.
                self.count += index.count(prefix);
                self.prefixes.pop();
                continue;
            }
            if *budget == 0 {
                return false;
            }
            let visits = *budget * VISITS_PER_UNIT;
            let portion = index.count_allowed(audience, prefix, self.channels, self.after.as_deref(), visits);
            self.count += portion.allowed;
            *budget -= portion.visited.div_ceil(VISITS_PER_UNIT);
            self.after = portion.last.filter(|_| portion.visited == visits).map(Into::into);
            if self.after.is_none() {
                self.prefixes.pop();
            }
        }
        true
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.prefixes.capacity() * size_of::<Box<str>>()
    }
}
