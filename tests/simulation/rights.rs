//! What clients may see, as plain rules: an own reading of them, and the server's rights that are made of them.

use std::rc::Rc;
use std::sync::Arc;

use tickcast::identity::{Depth, Hidden, Kind, Principal, Rights, Rule, Terms};
use tickcast_protocol::Channel;
use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::record::FieldSet;

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

/// A rule: symbols, channels, and if it allows, the terms.
type Given = (Pattern, ChannelSet, Option<Allowed>);

/// On what terms a rule allows.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// The age of the data, s.
    delay_s: u32,
    /// Of each side of books.
    levels: usize,
    /// A bit for each of [`FIELDS`].
    hidden: u16,
}

/// The fields that rights can hide: channel, name, and where the value is in a record.
const FIELDS: [(Channel, &str, usize); 14] = [
    (Channel::Quote, "bid_px", 32),
    (Channel::Quote, "bid_sz", 40),
    (Channel::Quote, "ask_px", 48),
    (Channel::Quote, "ask_sz", 56),
    (Channel::Trade, "px", 32),
    (Channel::Trade, "sz", 40),
    (Channel::Ticker, "last_px", 32),
    (Channel::Ticker, "open_px", 40),
    (Channel::Ticker, "high_px", 48),
    (Channel::Ticker, "low_px", 56),
    (Channel::Ticker, "volume", 64),
    (Channel::Ticker, "turnover", 72),
    (Channel::Ticker, "bid_px", 80),
    (Channel::Ticker, "ask_px", 88),
];
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
            let terms = allows.map(|Allowed { delay_s, levels, hidden }| Terms {
                delay_s,
                depth: depth(levels),
                hidden: Hidden(field_set(hidden)),
                ..Terms::default()
            });
            Rule::new(pattern.clone(), *channels, terms)
        };
        Rights::new(rules.iter().map(rule).collect())
    }

    /// A user with these rights, as the client of a connection.
    pub fn principal(&self, user: u32, conn: usize) -> Arc<Principal> {
        let principal = Principal::new(Kind::Token, &format!("u{user}"), Arc::new(self.rights()));
        Arc::new(Principal { jti: Some(conn.to_string().into()), ..principal })
    }

    /// True if a client has these rights already.
    pub fn is_of(&self, principal: &Principal) -> bool {
        *principal.rights == self.rights()
    }

    /// True if a channel of a symbol may be seen.
    pub fn may(&self, symbol: &str, channel: Channel) -> bool {
        let Some(rules) = &self.rules else { return true };
        let covers = |(pattern, channels, _): &&Given| channels.contains(channel) && pattern.matches(symbol);
        let covering: Vec<_> = rules.iter().filter(covers).map(|(.., allows)| *allows).collect();
        covering.iter().all(Option::is_some) && covering.iter().flatten().any(|allowed| allowed.delay_s <= self.delay_s)
    }

    /// Levels of each side of the book of a symbol that may be seen; `None` for all.
    pub fn depth(&self, symbol: &str) -> Option<usize> {
        let served = self.served(symbol, Channel::Book).map(|allowed| allowed.levels);
        served.max().filter(|levels| *levels != ALL_LEVELS)
    }

    /// Where the values of the fields are in a record of a channel of a symbol that may not be seen.
    pub fn hidden(&self, symbol: &str, channel: Channel) -> impl Iterator<Item = usize> + use<> {
        let of_channel = |at: &usize| FIELDS[*at].0 == channel;
        let own: u16 = (0..FIELDS.len()).filter(of_channel).map(|at| 1 << at).sum();
        let fewest = self.served(symbol, channel).map(|allowed| allowed.hidden & own).min_by_key(|hidden| {
            // Of as many, any: the server takes these.
            (hidden.count_ones(), *hidden)
        });
        let hidden = fewest.unwrap_or(0);
        FIELDS.into_iter().enumerate().filter(move |(at, _)| hidden & (1 << at) != 0).map(|(_, (.., at))| at)
    }

    /// The rules that give a channel of a symbol, if none denies it.
    fn served(&self, symbol: &str, channel: Channel) -> impl Iterator<Item = Allowed> {
        let covers = move |(pattern, channels, _): &&Given| channels.contains(channel) && pattern.matches(symbol);
        let covering = self.rules.iter().flatten().filter(covers).filter_map(|(.., allows)| *allows);
        covering.filter(|allowed| allowed.delay_s <= self.delay_s)
    }

    /// True if the books of some symbols are limited.
    pub fn limits_depth(&self) -> bool {
        let limits = |(_, channels, allows): &Given| {
            channels.contains(Channel::Book) && allows.is_some_and(|allowed| allowed.levels != ALL_LEVELS)
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
            let is_such = move |of: &Option<Allowed>| match of {
                Some(allowed) => allows && allowed.delay_s <= self.delay_s,
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
    // Drawn last, so that all else of a seed is what it was before there were hidden fields.
    let allows = dice.chance(700);
    let hidden = if allows && dice.chance(400) { 1 << dice.below(14) | 1 << dice.below(14) } else { 0 };
    let terms = allows.then_some(Allowed { delay_s, levels, hidden });
    (Pattern::parse(&text).expect("a pattern"), channels, terms)
}

fn field_set(hidden: u16) -> FieldSet {
    let fields = FIELDS.into_iter().enumerate().filter(|(at, _)| hidden & (1 << at) != 0);
    let fields = fields.map(|(_, (channel, name, _))| FieldSet::named(channel, name).expect("a field"));
    fields.fold(FieldSet::NONE, FieldSet::and)
}
