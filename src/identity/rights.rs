//! Rights: rules about symbols and channels, and what they come to.
//!
//! A rule has a name, or the beginning of names with all that follow, and channels. It denies, or it allows on terms: the
//! delay of the data, the shortest conflation interval, the depth of books, fields that are hidden. Where several rules
//! allow, data without a delay is better than delayed data, then a shorter interval, then more depth, then fewer hidden
//! fields: the terms are those of one rule, never the best of each.
//!
//! Cost: for a symbol, a binary search for each length of a prefix among the rules. Memory: some 60 bytes a rule.

use std::cmp::{Ordering, Reverse};

use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::record::{self, FieldSet};
use tickcast_protocol::{Channel, ConflationInterval};

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
    /// Fields without a value.
    pub hidden: Hidden,
}

impl Terms {
    /// What of them concerns this channel.
    fn of_channel(self, channel: Channel) -> Self {
        let depth = if channel == Channel::Book { self.depth } else { Depth::ALL };
        Self { depth, hidden: Hidden(self.hidden.0.of(channel)), ..self }
    }
}

/// Fields that are hidden; fewer are better, and so less in the order of terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hidden(pub FieldSet);

impl Ord for Hidden {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), self.0.bits()).cmp(&(other.0.len(), other.0.bits()))
    }
}

impl PartialOrd for Hidden {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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

    fn hides_fields(&self) -> bool {
        self.terms.is_some_and(|terms| !terms.hidden.0.is_empty())
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
    /// All, or some of them. No symbol's shortest interval is longer than this, and no symbol's book has fewer levels. It
    /// is whole if it is all of them with all fields.
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
    /// A rule hides fields.
    hides_fields: bool,
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
        let hides_fields = rules.iter().any(Rule::hides_fields);
        Self { is_open: false, rules: rules.into(), lengths: lengths.into(), limits_depth, hides_fields }
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

    /// True if fields of some symbols may be hidden.
    pub fn hides_fields(&self) -> bool {
        self.hides_fields
    }

    /// What the rules come to for a channel of a symbol, in a market whose data has this age. Private symbols are not a
    /// matter of rules, beside those that deny: they are denied here.
    pub fn grant(&self, symbol: &str, channel: Channel, delay_s: u32) -> Grant {
        match owner_folder(symbol) {
            _ if self.is_open => Grant::Live(Terms::default()),
            Some(_) => Grant::Denied,
            None => grant_of(self.covering(symbol, false), channel, delay_s),
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

    /// The fields of a symbol's quotes, trades and tickers that a client with these rights does not see there.
    pub fn hidden_fields(&self, symbol: &str, delay_s: u32) -> FieldSet {
        if !self.hides_fields {
            return FieldSet::NONE;
        }
        let of = |channel| self.grant(symbol, channel, delay_s).served().map_or(FieldSet::NONE, |terms| terms.hidden.0);
        Channel::ALL.into_iter().map(of).fold(FieldSet::NONE, FieldSet::and)
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
        let wide = grant_of(self.covering(prefix, true), channel, delay_s);
        // Those that some rules allow: each by the best rule for all that it covers.
        let parts = narrower.filter(|rule| rule.terms.is_some());
        let grants = parts.map(|rule| grant_of(self.covering(&rule.text, rule.is_prefix), channel, delay_s));
        if let Some(Terms { interval, depth, hidden, .. }) = wide.served() {
            let mut least = Least { interval, depth, has_hidden: hidden != Hidden::default() };
            // A narrower rule may be better by its interval, and give fewer levels or fields.
            if self.limits_depth || self.hides_fields {
                grants.filter_map(Grant::served).for_each(|terms| least.note(terms));
            }
            let is_whole = !has_exceptions && !least.has_hidden;
            return Extent::Some { interval, depth: least.depth, is_whole };
        }
        let (mut least, mut has_delayed) = (None::<Least>, matches!(wide, Grant::Delayed(_)));
        for grant in grants {
            if let Some(terms) = grant.served() {
                least.get_or_insert_default().note(terms);
            }
            has_delayed |= matches!(grant, Grant::Delayed(_));
        }
        match least {
            Some(Least { interval, depth, .. }) => Extent::Some { interval, depth, is_whole: false },
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

/// The worst of each of the terms of several symbols.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    interval: ConflationInterval,
    depth: Depth,
    has_hidden: bool,
}

impl Least {
    fn note(&mut self, terms: Terms) {
        self.interval = self.interval.max(terms.interval);
        self.depth = self.depth.max(terms.depth);
        self.has_hidden |= terms.hidden != Hidden::default();
    }
}

/// What rules that all cover the same come to for a channel, in a market of this delay.
fn grant_of<'a>(rules: impl Iterator<Item = &'a Rule>, channel: Channel, delay_s: u32) -> Grant {
    let mut best: Option<Terms> = None;
    for rule in rules.filter(|rule| rule.is_for(channel)) {
        let Some(terms) = rule.terms else { return Grant::Denied };
        // A right to newer data is one to the data of the market.
        let delay_s = if terms.delay_s <= delay_s { 0 } else { terms.delay_s };
        let terms = Terms { delay_s, ..terms.of_channel(channel) };
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
