//! Rights as tokens and the configuration write them, and the names of products that stand for some.
//!
//! ```json
//! {"products": ["CRYPTO-L1"],
//!  "allow": [{"symbols": ["BTC-*", "ETH-USD"], "channels": ["quote", "trade"], "conflate_ms": 100},
//!            {"symbols": ["EQ-*"], "channels": ["book"], "book_depth": 10},
//!            {"symbols": ["EQ-*"], "channels": ["quote"], "without": ["bid_sz", "ask_sz"]}],
//!  "deny": [{"symbols": ["XAU-*"]}]}
//! ```

use std::collections::HashMap;

use serde::Deserialize;

use super::contract::Contract;
use super::object::read_from_objects;
use super::private::owner_folder;
use super::rights::{Depth, Hidden, Rights, Rule, Terms};
use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::record::FieldSet;
use tickcast_protocol::{Channel, ConflationInterval};

/// Longest delay, s: a week.
const DELAY_S_MAX: u32 = 7 * 86_400;

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct AllowText {
    /// Names, and beginnings of names with a `*` behind them.
    pub symbols: Vec<String>,
    /// All if missing.
    pub channels: Option<Vec<String>>,
    #[serde(default)]
    pub delay_s: u32,
    #[serde(default)]
    pub conflate_ms: u64,
    pub book_depth: Option<u32>,
    /// Fields of its channels that are hidden.
    #[serde(default)]
    pub without: Vec<String>,
}

/// What is denied, whatever is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct DenyText {
    pub symbols: Vec<String>,
    /// All if missing.
    pub channels: Option<Vec<String>>,
}

/// Rights as text. A key that is not known is an error: it may be a restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct RightsText {
    #[serde(default)]
    pub products: Vec<String>,
    #[serde(default)]
    pub allow: Vec<AllowText>,
    #[serde(default)]
    pub deny: Vec<DenyText>,
    /// For all books, beside what their own rules say.
    pub book_depth: Option<u32>,
    /// Sessions of the user at a time.
    pub max_connections: Option<u32>,
    /// Whether the user is a professional.
    pub professional: Option<bool>,
}

read_from_objects!(AllowText, DenyText, RightsText);

/// What the name of a product stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Product {
    pub rules: Vec<Rule>,
    /// Sessions at a time of a user who has it.
    pub sessions_max: Option<u32>,
}

/// Products by name.
pub type Products = HashMap<String, Product>;

impl RightsText {
    /// The rules of the text without its products.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn rules(&self) -> Result<Vec<Rule>, String> {
        let mut rules = Vec::new();
        for (nth, allow) in self.allow.iter().enumerate() {
            let of = |problem: String| format!("allow[{nth}]: {problem}");
            let channels = channel_set(allow.channels.as_deref()).map_err(of)?;
            let terms = Terms {
                delay_s: checked("delay_s", allow.delay_s, DELAY_S_MAX).map_err(of)?,
                interval: interval(allow.conflate_ms).map_err(of)?,
                depth: depth(self.book_depth, allow.book_depth).map_err(of)?,
                hidden: hidden(&allow.without, channels).map_err(of)?,
            };
            push_rules(&allow.symbols, channels, Some(terms), &mut rules).map_err(of)?;
        }
        for (nth, deny) in self.deny.iter().enumerate() {
            let of = |problem: String| format!("deny[{nth}]: {problem}");
            let channels = channel_set(deny.channels.as_deref()).map_err(of)?;
            push_rules(&deny.symbols, channels, None, &mut rules).map_err(of)?;
        }
        Ok(rules)
    }

    /// The rights, with those of the products.
    ///
    /// # Errors
    /// What is wrong and what was expected. A product that is not known is an error: it may stand for a restriction.
    pub fn resolve(&self, products: &Products) -> Result<Rights, String> {
        let mut rules = self.rules()?;
        for name in &self.products {
            let of_product = products.get(name);
            let of_product = of_product
                .ok_or_else(|| format!("products: unknown product {name:?}: expected one of the configuration"))?;
            let limit = depth(self.book_depth, None)?;
            rules.extend(of_product.rules.iter().map(|rule| rule.with_depth(limit)));
        }
        if rules.len() > Rights::RULES_MAX {
            return Err(format!("{} rules: expected at most {}", rules.len(), Rights::RULES_MAX));
        }
        Ok(Rights::new(rules))
    }

    /// What is counted and reported. The least number of sessions holds, of the text and of its products; `default`
    /// where none of them has any.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn contract(&self, products: &Products, default: Option<u32>) -> Result<Contract, String> {
        if self.max_connections == Some(0) {
            return Err("max_connections: 0 is out of range: expected 1 or more".to_owned());
        }
        let of_products = self.products.iter().filter_map(|name| products.get(name)?.sessions_max);
        let mut names: Vec<Box<str>> = self.products.iter().map(|name| name.as_str().into()).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Contract {
            professional: self.professional,
            products: names.into(),
            sessions_max: self.max_connections.into_iter().chain(of_products).min().or(default),
        })
    }
}

/// The named channels; all if there is no list.
fn channel_set(names: Option<&[String]>) -> Result<ChannelSet, String> {
    let Some(names) = names else { return Ok(ChannelSet::ALL) };
    let mut set = ChannelSet::default();
    for name in names {
        let unknown = || format!("channels: unknown channel {name:?}: expected quote, trade, ticker, book or raw");
        set.insert(Channel::from_name(name).ok_or_else(unknown)?);
    }
    if set.is_empty() { Err("channels: empty list: expected at least one".to_owned()) } else { Ok(set) }
}

/// The named fields of these channels.
fn hidden(names: &[String], channels: ChannelSet) -> Result<Hidden, String> {
    if names.is_empty() {
        return Ok(Hidden::default());
    }
    // A level of a book without its size is a removed one, and the payload of a raw record may have any field.
    if let Some(channel) = channels.iter().find(|channel| FieldSet::names(*channel).is_empty()) {
        return Err(format!(
            "without: not for the channel {}: expected \"channels\" of quote, trade and ticker only",
            channel.name()
        ));
    }
    let mut hidden = FieldSet::NONE;
    for name in names {
        let of_channels = channels.iter().filter_map(|channel| FieldSet::named(channel, name));
        let named = of_channels.fold(FieldSet::NONE, FieldSet::and);
        if named.is_empty() {
            let known: Vec<&str> = channels.iter().flat_map(FieldSet::names).copied().collect();
            return Err(format!("without: unknown field {name:?}: expected some of {}", known.join(", ")));
        }
        hidden = hidden.and(named);
    }
    Ok(Hidden(hidden))
}

fn push_rules(
    symbols: &[String],
    channels: ChannelSet,
    terms: Option<Terms>,
    rules: &mut Vec<Rule>,
) -> Result<(), String> {
    if symbols.is_empty() {
        return Err("symbols: empty list: expected at least one".to_owned());
    }
    for text in symbols {
        let pattern = Pattern::parse(text).map_err(|problem| format!("symbols: {text:?} {problem}"))?;
        if terms.is_some() && owner_folder(text).is_some() {
            return Err(format!(
                "symbols: {text:?} is private: expected no symbols of a user, which are that user's only"
            ));
        }
        // For channels without a book, the depth would make equal rules different.
        let has_books = channels.contains(Channel::Book);
        let terms = terms.map(|terms| if has_books { terms } else { Terms { depth: Depth::default(), ..terms } });
        rules.push(Rule::new(pattern, channels, terms));
    }
    Ok(())
}

fn interval(ms: u64) -> Result<ConflationInterval, String> {
    ConflationInterval::round_up(ms).ok_or_else(|| {
        let most = ConflationInterval::LONGEST.interval_ms();
        format!("conflate_ms: {ms} is out of range: expected 0 to {most}")
    })
}

/// The smaller of two depths.
fn depth(one: Option<u32>, other: Option<u32>) -> Result<Depth, String> {
    let given = [one, other].into_iter().flatten().min();
    given.map_or(Ok(Depth::default()), |levels| {
        if (1..=Depth::LEVELS_MAX).contains(&levels) {
            Ok(Depth::of(levels))
        } else {
            let most = Depth::LEVELS_MAX;
            Err(format!("book_depth: {levels} is out of range: expected 1 to {most}, or none for whole books"))
        }
    })
}

fn checked(name: &str, value: u32, most: u32) -> Result<u32, String> {
    if value <= most { Ok(value) } else { Err(format!("{name}: {value} is out of range: expected 0 to {most}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Grant;

    fn resolve(json: &str) -> Result<Rights, String> {
        let products: RightsText =
            serde_json::from_str(r#"{"allow":[{"symbols":["EQ-*"]}],"deny":[{"symbols":["EQ-X"]}]}"#).unwrap();
        let product = Product { rules: products.rules()?, sessions_max: Some(3) };
        let products = Products::from([("EQ".to_owned(), product)]);
        let text = serde_json::from_str::<RightsText>(json).map_err(|error| error.to_string())?;
        text.contract(&products, None)?;
        text.resolve(&products)
    }

    #[test]
    fn contract_has_the_least_number_of_sessions_and_products_once() {
        let product = |sessions_max| Product { sessions_max, ..Product::default() };
        let products = Products::from([
            ("A".to_owned(), product(Some(3))),
            ("B".to_owned(), product(None)),
            ("C".to_owned(), product(Some(2))),
        ]);
        for (json, expected) in [
            (r#"{"products":["B"]}"#, 9),
            (r#"{"products":["B","A"]}"#, 3),
            (r#"{"products":["A","C","A"],"max_connections":5}"#, 2),
            (r#"{"products":["A"],"max_connections":1,"professional":true}"#, 1),
        ] {
            let text: RightsText = serde_json::from_str(json).unwrap();
            let contract = text.contract(&products, Some(9)).unwrap();
            assert_eq!(contract.sessions_max, Some(expected), "{json}");
            assert_eq!(contract.professional, json.contains("true").then_some(true), "{json}");
            assert!(contract.products.is_sorted() && contract.products.len() <= 2, "{contract:?}");
        }
    }

    #[test]
    fn text_becomes_rules_and_products_are_resolved() {
        let rights = resolve(
            r#"{"products":["EQ"],"book_depth":10,
                "allow":[{"symbols":["BTC-*"],"channels":["quote"],"conflate_ms":90},{"symbols":["D"],"delay_s":900},
                         {"symbols":["T"],"channels":["quote","ticker"],"without":["bid_px","volume"]}]}"#,
        )
        .unwrap();
        let live = |grant: Grant| match grant {
            Grant::Live(terms) => Some((terms.interval.interval_ms(), terms.depth.levels())),
            _ => None,
        };
        assert_eq!(live(rights.grant("BTC-USD", Channel::Quote, 0)), Some((100, None)));
        assert_eq!(rights.grant("BTC-USD", Channel::Trade, 0), Grant::Denied);
        assert_eq!(live(rights.grant("EQ-A", Channel::Book, 0)), Some((0, Some(10))));
        assert_eq!(rights.grant("EQ-X", Channel::Book, 0), Grant::Denied);
        assert_eq!(rights.grant("D", Channel::Book, 0), Grant::Delayed(900));
        let fields = [(Channel::Quote, "bid_px"), (Channel::Ticker, "bid_px"), (Channel::Ticker, "volume")];
        let named = fields.map(|(channel, name)| FieldSet::named(channel, name).unwrap());
        assert_eq!(rights.hidden_fields("T", 0), named.into_iter().fold(FieldSet::NONE, FieldSet::and));
    }

    #[test]
    fn errors_name_the_rule_and_what_was_expected() {
        for (json, message) in [
            (r#"{"products":["OPT"]}"#, "products: unknown product \"OPT\""),
            (r#"{"alow":[]}"#, "unknown field `alow`"),
            (r#"[["EQ"],[],[],null,null,null]"#, "invalid type: sequence, expected an object"),
            (r#"{"allow":[[["A"],["quote"],0,0,3,["bid_sz"]]]}"#, "invalid type: sequence, expected an object"),
            (r#"{"allow":[{"symbols":["A"],"hours":"9-17"}]}"#, "unknown field `hours`"),
            (r#"{"allow":[{"symbols":[]}]}"#, "allow[0]: symbols: empty list"),
            (r#"{"allow":[{"symbols":["A"],"channels":[]}]}"#, "allow[0]: channels: empty list"),
            (r#"{"allow":[{"symbols":["A"]},{"symbols":["*A"]}]}"#, "allow[1]: symbols: \"*A\" has a *"),
            (r#"{"allow":[{"symbols":["A"],"channels":["quotes"]}]}"#, "unknown channel \"quotes\""),
            (r#"{"allow":[{"symbols":["A"],"conflate_ms":1001}]}"#, "expected 0 to 1000"),
            (
                r#"{"allow":[{"symbols":["A"],"channels":["quote","trade"],"without":["bid_sz","sizes"]}]}"#,
                "allow[0]: without: unknown field \"sizes\": expected some of bid_px, bid_sz, ask_px, ask_sz, px, sz",
            ),
            (
                r#"{"allow":[{"symbols":["A"],"without":["sz"]}]}"#,
                "without: not for the channel book: expected \"channels\" of quote, trade and ticker only",
            ),
            (r#"{"allow":[{"symbols":["A"],"channels":["quote"],"without":["sz"]}]}"#, "unknown field \"sz\""),
            (r#"{"allow":[{"symbols":["A"],"book_depth":0}]}"#, "book_depth: 0 is out of range"),
            (r#"{"book_depth":99999,"allow":[{"symbols":["A"]}]}"#, "book_depth: 99999 is out of range: expected 1 to"),
            (r#"{"allow":[{"symbols":["A"],"delay_s":9000000}]}"#, "delay_s: 9000000 is out of range"),
            (r#"{"allow":[{"symbols":["user/a/*"]}]}"#, "is private"),
            (r#"{"deny":[{"symbols":["A"],"delay_s":1}]}"#, "unknown field `delay_s`"),
            (r#"{"deny":[{"symbols":["A"],"channels":["x"]}]}"#, "deny[0]: channels"),
            (r#"{"deny":[],"deny":[]}"#, "duplicate field `deny`"),
            (r#"{"max_connections":0}"#, "max_connections: 0 is out of range: expected 1 or more"),
            (r#"{"max_connections":-1}"#, "invalid value: integer `-1`"),
            (r#"{"professional":"no"}"#, "invalid type: string \"no\", expected a boolean"),
        ] {
            let error = resolve(json).unwrap_err();
            assert!(error.contains(message) && !error.is_empty(), "{json}: {error}");
        }
    }
}
