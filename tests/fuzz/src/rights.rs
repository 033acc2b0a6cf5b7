//! The text of rights: what is accepted comes to the same as its rules read one by one, from serde_json's reading of it.
//!
//! Input: JSON as in the claim of a token.

use std::collections::HashSet;

use serde_json::Value;
use tickcast::identity::{AllowText, Depth, Extent, Grant, Product, Products, RightsText};
use tickcast_protocol::control::Pattern;
use tickcast_protocol::record::FieldSet;
use tickcast_protocol::{Channel, ConflationInterval};

const SYMBOLS: [&str; 9] = ["A", "AB", "ABC", "B", "BA", "EQ-1", "user/u/x", "\u{20ac}", "~"];
/// Of markets, s.
const DELAYS: [u32; 2] = [0, 900];
const PREFIXES: [&str; 6] = ["", "A", "AB", "B", "EQ-", "user/u/"];

/// Delay, interval in ms, levels, and how many fields are hidden: ordered as terms are.
type Terms = (u64, u32, std::cmp::Reverse<u64>, u32);

/// One input.
pub fn run(data: &[u8]) {
    let Ok(text) = serde_json::from_slice::<RightsText>(data) else { return };
    let allow = AllowText { symbols: vec!["EQ-*".to_owned()], ..AllowText::default() };
    let product = RightsText { allow: vec![allow], ..RightsText::default() };
    let product = Product { rules: product.rules().expect("rules"), ..Product::default() };
    let products = Products::from([("P".to_owned(), product)]);
    let rights = match text.resolve(&products) {
        Ok(rights) => rights,
        Err(problem) => return assert!(!problem.is_empty() && problem.contains("expected") || problem.contains('"')),
    };
    let value: Value = serde_json::from_slice(data).expect("it was read");
    let mut rules = ["allow", "deny"].iter().filter_map(|name| value.get(name)?.as_array()).flatten();
    assert!(value.is_object() && rules.all(Value::is_object), "a list in the place of an object: {value}");
    for (channel, delay_s) in Channel::ALL.into_iter().flat_map(|channel| DELAYS.map(|delay_s| (channel, delay_s))) {
        for symbol in SYMBOLS {
            assert_eq!(
                terms(rights.grant(symbol, channel, delay_s), channel),
                by_rules(&value, symbol, channel, delay_s),
                "{symbol} {value}"
            );
        }
        for prefix in PREFIXES {
            let extent = rights.extent(prefix, channel, delay_s);
            for symbol in SYMBOLS.iter().filter(|symbol| symbol.starts_with(prefix)) {
                let granted = rights.grant(symbol, channel, delay_s).served();
                let Some(granted) = granted else { continue };
                let Extent::Some { interval, depth, is_whole } = extent else {
                    panic!("{symbol} may be seen, and {prefix}* not: {value}")
                };
                assert!(granted.interval <= interval, "{symbol} {value}");
                assert!(granted.depth <= depth, "{symbol} {value}");
                assert!(!is_whole || granted.hidden.0.is_empty(), "{symbol} {value}");
            }
        }
    }
}

fn terms(grant: Grant, channel: Channel) -> Option<Terms> {
    match grant {
        Grant::Denied => None,
        Grant::Delayed(delay_s) => Some((delay_s.into(), 0, std::cmp::Reverse(0), 0)),
        Grant::Live(terms) => {
            let levels = terms.depth.levels().map_or(u64::MAX, u64::from);
            let levels = if channel == Channel::Book { levels } else { 0 };
            Some((0, terms.interval.interval_ms(), std::cmp::Reverse(levels), terms.hidden.0.len()))
        }
    }
}

/// The best of the rules that cover a symbol, if none of them denies.
fn by_rules(value: &Value, symbol: &str, channel: Channel, market_delay_s: u32) -> Option<Terms> {
    let list = |name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64);
    let covers = |rule: &Value| {
        let channels = rule.get("channels").filter(|channels| !channels.is_null());
        let has_channel =
            channels.is_none_or(|all| all.as_array().is_some_and(|all| all.iter().any(|name| name == channel.name())));
        let symbols = rule["symbols"].as_array().expect("a list");
        has_channel
            && symbols
                .iter()
                .any(|text| Pattern::parse(text.as_str().expect("a text")).expect("a pattern").matches(symbol))
    };
    if list("deny").iter().any(covers) || symbol.starts_with("user/") {
        return None;
    }
    let levels_of_all = number(value, "book_depth").unwrap_or(u64::MAX);
    let of_rule = |rule: &Value| {
        let interval = ConflationInterval::round_up(number(rule, "conflate_ms").unwrap_or(0)).expect("in range");
        let levels = number(rule, "book_depth").unwrap_or(u64::MAX).min(levels_of_all);
        let delay_s = number(rule, "delay_s").unwrap_or(0);
        let levels = if channel == Channel::Book { levels } else { 0 };
        let without = rule.get("without").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let hidden: HashSet<&str> = without.filter(|name| FieldSet::named(channel, name).is_some()).collect();
        // A right to newer data is one to the data of the market.
        let delay_s = if delay_s <= market_delay_s.into() { 0 } else { delay_s };
        (delay_s, interval.interval_ms(), std::cmp::Reverse(levels), hidden.len() as u32)
    };
    let mut all: Vec<Terms> = list("allow").iter().filter(|rule| covers(rule)).map(of_rule).collect();
    let has_product = list("products").iter().any(|name| name == "P");
    if has_product && symbol.starts_with("EQ-") {
        all.push((0, 0, std::cmp::Reverse(if channel == Channel::Book { levels_of_all } else { 0 }), 0));
    }
    let (delay_s, ms, levels, hidden) = all.into_iter().min()?;
    if delay_s > 0 {
        return Some((delay_s, 0, std::cmp::Reverse(0), 0));
    }
    assert!(channel != Channel::Book || levels.0 == u64::MAX || levels.0 <= Depth::LEVELS_MAX.into(), "{value}");
    Some((0, ms, levels, hidden))
}
