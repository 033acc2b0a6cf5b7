//! What clients may see, as plain rules: an own reading of them, and the server's rights that are made of them.

use std::rc::Rc;
use std::sync::Arc;

use tickcast::identity::{Depth, Kind, Principal, Rights, Rule, Terms};
use tickcast_protocol::Channel;
use tickcast_protocol::control::{ChannelSet, Pattern};

use crate::Dice;
use crate::feed::name_of;

/// Users that there are.
pub const USERS: u32 = 4;

/// The rules of some clients. No rules at all: they see everything.
#[derive(Debug)]
pub struct Entitled {
    /// Equal for equal rules.
    pub number: usize,
    rules: Option<Vec<Given>>,
    /// The age of the data of all shards, s.
    delay_s: u32,
}

/// A rule: symbols, channels, and if it allows, the age of the data, s, and levels of each side of books.
type Given = (Pattern, ChannelSet, Option<(u32, usize)>);
/// Levels of a book that is not limited.
const ALL_LEVELS: usize = usize::MAX;

impl Entitled {
    pub fn to_everything() -> Rc<Self> {
        Rc::new(Self { number: 0, rules: None, delay_s: 0 })
    }

    /// So many different ones, at most, for shards whose data has this age.
    pub fn any(count: u32, delay_s: u32, dice: &mut Dice) -> Vec<Rc<Self>> {
        let mut made: Vec<Rc<Self>> = Vec::new();
        for _ in 0..count {
            let rules = (0..1 + dice.below(5)).map(|_| any_rule(dice)).collect();
            let mut entitled = Self { number: made.len() + 1, rules: Some(rules), delay_s };
            if let Some(same) = made.iter().find(|same| same.rights() == entitled.rights()) {
                entitled.number = same.number;
            }
            made.push(Rc::new(entitled));
        }
        made
    }

    /// The server's rights of the same rules.
    fn rights(&self) -> Rights {
        let Some(rules) = &self.rules else { return Rights::open() };
        let depth = |levels| if levels == ALL_LEVELS { Depth::ALL } else { Depth::of(levels as u32) };
        let rule = |(pattern, channels, allows): &Given| {
            let terms = allows.map(|(delay_s, levels)| Terms { delay_s, depth: depth(levels), ..Terms::default() });
            Rule::new(pattern.clone(), *channels, terms)
        };
        Rights::new(rules.iter().map(rule).collect())
    }

    pub fn principal(&self, user: u32) -> Arc<Principal> {
        Arc::new(Principal::new(Kind::Token, &format!("u{user}"), Arc::new(self.rights())))
    }

    /// True if a channel of a symbol may be seen.
    pub fn may(&self, symbol: &str, channel: Channel) -> bool {
        let Some(rules) = &self.rules else { return true };
        let covers = |(pattern, channels, _): &&Given| channels.contains(channel) && pattern.matches(symbol);
        let covering: Vec<_> = rules.iter().filter(covers).map(|(.., allows)| *allows).collect();
        covering.iter().all(Option::is_some) && covering.iter().flatten().any(|(delay_s, _)| *delay_s <= self.delay_s)
    }

    /// Levels of each side of the book of a symbol that may be seen; `None` for all.
    pub fn depth(&self, symbol: &str) -> Option<usize> {
        let covers = |(pattern, channels, _): &&Given| channels.contains(Channel::Book) && pattern.matches(symbol);
        let covering = self.rules.iter().flatten().filter(covers).filter_map(|(.., allows)| *allows);
        let served = covering.filter(|(delay_s, _)| *delay_s <= self.delay_s).map(|(_, levels)| levels);
        served.max().filter(|levels| *levels != ALL_LEVELS)
    }

    /// True if the books of some symbols are limited.
    pub fn limits_depth(&self) -> bool {
        let limits = |(_, channels, allows): &Given| {
            channels.contains(Channel::Book) && allows.is_some_and(|(_, levels)| levels != ALL_LEVELS)
        };
        self.rules.iter().flatten().any(limits)
    }

    /// True if a subscription is kept: a name that may be seen, or a pattern of which something might be.
    pub fn gives(&self, pattern: &Pattern, channel: Channel) -> bool {
        let (prefix, rules) = match (pattern, &self.rules) {
            (Pattern::Exact(name), _) => return self.may(name, channel),
            (_, None) => return true,
            (Pattern::Prefix(prefix), Some(rules)) => (prefix.as_str(), rules),
        };
        let of = |allows: bool| {
            let is_such = move |of: &Option<(u32, usize)>| match of {
                Some((delay_s, _)) => allows && *delay_s <= self.delay_s,
                None => !allows,
            };
            rules.iter().filter(move |(_, channels, of)| is_such(of) && channels.contains(channel)).map(|(p, ..)| p)
        };
        // The part of the pattern that a rule is about.
        let part = |rule: &Pattern| match rule {
            Pattern::Exact(name) => name.starts_with(prefix).then(|| rule.clone()),
            Pattern::Prefix(other) if other.starts_with(prefix) => Some(rule.clone()),
            Pattern::Prefix(other) => prefix.starts_with(other.as_str()).then(|| pattern.clone()),
        };
        of(true).filter_map(part).any(|part| !of(false).any(|denied| covers_all(denied, &part)))
    }
}

/// True if a pattern covers all that another one covers.
fn covers_all(wide: &Pattern, narrow: &Pattern) -> bool {
    match (wide, narrow) {
        (Pattern::Exact(one), Pattern::Exact(other)) => one == other,
        (Pattern::Exact(_), Pattern::Prefix(_)) => false,
        (Pattern::Prefix(prefix), Pattern::Exact(text) | Pattern::Prefix(text)) => text.starts_with(prefix.as_str()),
    }
}

fn any_rule(dice: &mut Dice) -> Given {
    let text = match dice.below(4) {
        0 => "*".to_owned(),
        1..3 => ["A*", "A-*", "AB*", "B-*", "B*", "C*"][dice.below(6) as usize].to_owned(),
        _ => name_of(1 + dice.below(20) as usize, dice),
    };
    let channels = match dice.below(3) {
        0 => ChannelSet::ALL,
        _ => Channel::ALL.into_iter().filter(|_| dice.chance(512)).collect(),
    };
    let delay_s = [0, 0, 300, 1800][dice.below(4) as usize];
    let levels = if dice.chance(512) { ALL_LEVELS } else { 1 + dice.below(6) as usize };
    (Pattern::parse(&text).expect("a pattern"), channels, dice.chance(700).then_some((delay_s, levels)))
}
