//! Rights: rules about symbols and channels, and what they come to.
//!
//! A rule has a name, or the beginning of names with all that follow, and channels. It denies, or it allows on terms: the
//! delay of the data, the shortest conflation interval, the depth of books. Where several rules allow, data without a
//! delay is better than delayed data, then a shorter interval, then more depth: the terms are those of one rule, never the
//! best of each.
//!
//! Cost: for a symbol, a binary search for each length of a prefix among the rules. Memory: some 60 bytes a rule.

use std::cmp::Reverse;

use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::{Channel, ConflationInterval, record};

use super::private::owner_folder;

/// On what terms a rule allows. Ordered: the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Terms {
    /// Age of the data, seconds; 0 is real time.
    pub delay_s: u32,
    /// State channels are conflated at this interval at least.
    pub interval: ConflationInterval,
    /// Levels of each side of a book, from the best one on.
    pub depth: Depth,
}

/// A number of levels; more are better, and so less in the order of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Depth(Reverse<u32>);

impl Depth {
    /// The greatest number of levels of each side that a right can limit a book to: both sides then fit into a record.
    pub const LEVELS_MAX: u32 = record::BOOK_LEVELS_MAX as u32 / 2;

    /// All levels.
    pub const ALL: Self = Self(Reverse(u32::MAX));

    /// So many levels of each side.
    pub fn of(levels: u32) -> Self {
        Self(Reverse(levels))
    }

    /// How many levels; `None` for all.
    pub fn levels(self) -> Option<u32> {
        (self.0.0 != u32::MAX).then_some(self.0.0)
    }
}

impl Default for Depth {
    fn default() -> Self {
        Self::ALL
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    is_prefix: bool,
    text: Box<str>,
    /// A bit for each channel.
    channels: u8,
    /// `None`: the rule denies.
    terms: Option<Terms>,
}

impl Rule {
    /// A rule for the symbols of a pattern.
    pub fn new(pattern: Pattern, channels: ChannelSet, terms: Option<Terms>) -> Self {
        let (is_prefix, text) = match pattern {
            Pattern::Exact(name) => (false, name.into()),
            Pattern::Prefix(prefix) => (true, prefix.into()),
        };
        Self { is_prefix, text, channels: channels.iter().fold(0, |bits, channel| bits | bit(channel)), terms }
    }

    /// The rule for at most this depth of books.
    pub(super) fn with_depth(&self, depth: Depth) -> Self {
        let limit = |terms: Terms| match self.is_for(Channel::Book) {
            true => Terms { depth: terms.depth.max(depth), ..terms },
            false => terms,
        };
        Self { terms: self.terms.map(limit), ..self.clone() }
    }

    fn limits_depth(&self) -> bool {
        self.is_for(Channel::Book) && self.terms.is_some_and(|terms| terms.depth != Depth::ALL)
    }

    fn is_for(&self, channel: Channel) -> bool {
        self.channels & bit(channel) != 0
    }
}

fn bit(channel: Channel) -> u8 {
    1 << channel as u8
}

/// What rules come to for a channel of a symbol, in a market of a given delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Denied,
    /// Only data that is older than that of the market: of this age, seconds.
    Delayed(u32),
    /// The data of the market. The delay of the terms is 0.
    Live(Terms),
}

impl Grant {
    /// The terms on which a client is served, if it is.
    pub fn served(self) -> Option<Terms> {
        match self {
            Self::Live(terms) => Some(terms),
            Self::Denied | Self::Delayed(_) => None,
        }
    }
}

/// What rules come to for a channel of all symbols that begin with a prefix, those that are yet to come included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// None of them.
    Nothing,
    /// Data that is older than that of the market, of some of them, and no other.
    Delayed,
    /// All, or some of them. No symbol's shortest interval is longer than this, and no symbol's book has fewer levels.
    Some { interval: ConflationInterval, depth: Depth, is_whole: bool },
}

impl Extent {
    /// All symbols, on the best terms.
    pub const WHOLE: Self = Self::Some { interval: ConflationInterval::IMMEDIATE, depth: Depth::ALL, is_whole: true };
}

/// The rules of a client. Equal rules are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Everything is allowed: the server identifies no clients.
    is_open: bool,
    /// Sorted, each once.
    rules: Box<[Rule]>,
    /// Lengths of the prefixes among them, ascending.
    lengths: Box<[usize]>,
    /// A rule allows books of a limited depth.
    limits_depth: bool,
}

impl Rights {
    /// Rules at the most.
    pub const RULES_MAX: usize = 20_000;

    /// Everything, private symbols included.
    pub fn open() -> Self {
        Self { is_open: true, ..Self::new(Vec::new()) }
    }

    /// Nothing.
    pub fn none() -> Self {
        Self::new(Vec::new())
    }

    /// What these rules come to.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_unstable();
        rules.dedup();
        let mut lengths: Vec<usize> = rules.iter().filter(|rule| rule.is_prefix).map(|rule| rule.text.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let limits_depth = rules.iter().any(Rule::limits_depth);
        Self { is_open: false, rules: rules.into(), lengths: lengths.into(), limits_depth }
    }

    /// True if everything is allowed.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Memory of the rules.
    pub fn bytes(&self) -> usize {
        let texts: usize = self.rules.iter().map(|rule| rule.text.len()).sum();
        size_of::<Self>() + size_of_val(&*self.rules) + size_of_val(&*self.lengths) + texts
    }

    /// True if the books of some symbols may be limited in depth.
    pub fn limits_depth(&self) -> bool {
        self.limits_depth
    }

    /// What the rules come to for a channel of a symbol, in a market whose data has this age. Private symbols are not a
    /// matter of rules, beside those that deny: they are denied here.
    pub fn grant(&self, symbol: &str, channel: Channel, delay_s: u32) -> Grant {
        match owner_folder(symbol) {
            _ if self.is_open => Grant::Live(Terms::default()),
            Some(_) => Grant::Denied,
            None => grant_of(self.covering(symbol, false).filter(|rule| rule.is_for(channel)), delay_s),
        }
    }

    /// The channels of a symbol that a client with these rights is served in a market of this delay.
    pub fn served_channels(&self, symbol: &str, delay_s: u32) -> ChannelSet {
        let is_served = |channel: &Channel| self.grant(symbol, *channel, delay_s).served().is_some();
        Channel::ALL.into_iter().filter(is_served).collect()
    }

    /// The depth of a symbol's book that a client with these rights is served there.
    pub fn book_depth(&self, symbol: &str, delay_s: u32) -> Depth {
        if !self.limits_depth {
            return Depth::ALL;
        }
        self.grant(symbol, Channel::Book, delay_s).served().map_or(Depth::ALL, |terms| terms.depth)
    }

    /// True if a rule denies a channel of a symbol, whatever others allow; for a prefix, of all that begin with it.
    pub fn denies(&self, text: &str, is_prefix: bool, channel: Channel) -> bool {
        self.covering(text, is_prefix).any(|rule| rule.terms.is_none() && rule.is_for(channel))
    }

    /// What the rules come to for all symbols that begin with a prefix, in a market of this delay.
    pub fn extent(&self, prefix: &str, channel: Channel, delay_s: u32) -> Extent {
        if self.is_open {
            return Extent::WHOLE;
        }
        if owner_folder(prefix).is_some() || self.denies(prefix, true, channel) {
            return Extent::Nothing;
        }
        let narrower = self.below(prefix).filter(|rule| rule.is_for(channel));
        let has_exceptions = narrower.clone().any(|rule| rule.terms.is_none());
        let of_channel = |rule: &&Rule| rule.is_for(channel);
        let wide = grant_of(self.covering(prefix, true).filter(of_channel), delay_s);
        // Those that some rules allow: each by the best rule for all that it covers.
        let parts = narrower.filter(|rule| rule.terms.is_some());
        let mut grants =
            parts.map(|rule| grant_of(self.covering(&rule.text, rule.is_prefix).filter(of_channel), delay_s));
        if let Some(Terms { interval, depth, .. }) = wide.served() {
            // A narrower rule may be better by its interval, and give fewer levels.
            let shallower = grants.filter_map(|grant| grant.served().map(|terms| terms.depth));
            let depth = if self.limits_depth { shallower.fold(depth, Depth::max) } else { depth };
            return Extent::Some { interval, depth, is_whole: !has_exceptions };
        }
        let (mut worst, mut has_delayed) = (None, matches!(wide, Grant::Delayed(_)));
        for grant in &mut grants {
            if let Some(Terms { interval, depth, .. }) = grant.served() {
                let (longest, shallowest) = worst.unwrap_or_default();
                worst = Some((interval.max(longest), depth.max(shallowest)));
            }
            has_delayed |= matches!(grant, Grant::Delayed(_));
        }
        match worst {
            Some((interval, depth)) => Extent::Some { interval, depth, is_whole: false },
            None if has_delayed => Extent::Delayed,
            None => Extent::Nothing,
        }
    }

    /// The rules that cover a symbol; or all symbols that begin with a prefix.
    fn covering<'a>(&'a self, text: &'a str, is_prefix: bool) -> impl Iterator<Item = &'a Rule> + Clone {
        let exact = if is_prefix { &[][..] } else { self.of(false, text) };
        let lengths = self.lengths.iter().copied().take_while(|length| *length <= text.len());
        let beginnings = lengths.filter(|length| text.is_char_boundary(*length)).map(|length| &text[..length]);
        exact.iter().chain(beginnings.flat_map(|beginning| self.of(true, beginning)))
    }

    /// The rules with exactly this text.
    fn of(&self, is_prefix: bool, text: &str) -> &[Rule] {
        let order = |rule: &Rule| (rule.is_prefix, &*rule.text).cmp(&(is_prefix, text));
        let from = self.rules.partition_point(|rule| order(rule).is_lt());
        let count = self.rules[from..].partition_point(|rule| order(rule).is_eq());
        &self.rules[from..from + count]
    }

    /// The rules whose symbols are some of those that begin with a prefix, and not all.
    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Rule> + Clone {
        let of = move |is_prefix: bool| {
            let from = self.rules.partition_point(|rule| (rule.is_prefix, &*rule.text) < (is_prefix, prefix));
            let is_below = move |rule: &&Rule| rule.is_prefix == is_prefix && rule.text.starts_with(prefix);
            self.rules[from..].iter().take_while(is_below)
        };
        of(false).chain(of(true).filter(move |rule| *rule.text != *prefix))
    }
}

/// What rules that all cover the same come to in a market of this delay.
fn grant_of<'a>(rules: impl Iterator<Item = &'a Rule>, delay_s: u32) -> Grant {
    let mut best: Option<Terms> = None;
    for rule in rules {
        let Some(terms) = rule.terms else { return Grant::Denied };
        // A right to newer data is one to the data of the market.
        let terms = Terms { delay_s: if terms.delay_s <= delay_s { 0 } else { terms.delay_s }, ..terms };
        best = Some(best.map_or(terms, |best| best.min(terms)));
    }
    match best {
        None => Grant::Denied,
        Some(terms) if terms.delay_s > 0 => Grant::Delayed(terms.delay_s),
        Some(terms) => Grant::Live(terms),
    }
}

#[cfg(test)]
mod tests;
