use proptest::prelude::*;

use super::*;

fn rule(pattern: &str, channels: &[Channel], terms: Option<Terms>) -> Rule {
    Rule::new(Pattern::parse(pattern).unwrap(), channels.iter().copied().collect(), terms)
}

fn at(ms: u64) -> Option<Terms> {
    Some(Terms { interval: ConflationInterval::round_up(ms).unwrap(), ..Terms::default() })
}

fn delayed(delay_s: u32) -> Option<Terms> {
    Some(Terms { delay_s, ..Terms::default() })
}

const QUOTE: &[Channel] = &[Channel::Quote];

#[test]
fn what_no_rule_allows_is_denied_and_deny_wins() {
    let rights = Rights::new(vec![
        rule("ETH-*", QUOTE, at(0)),
        rule("BTC-USD", QUOTE, at(0)),
        rule("ETH-X", QUOTE, None),
        rule("ETH-X", QUOTE, at(0)),
    ]);
    for (symbol, channel, is_live) in [
        ("ETH-USD", Channel::Quote, true),
        ("ETH-", Channel::Quote, true),
        ("ETH", Channel::Quote, false),
        ("ETH-X", Channel::Quote, false),
        ("ETH-XY", Channel::Quote, true),
        ("BTC-USD", Channel::Quote, true),
        ("BTC-USDT", Channel::Quote, false),
        ("ETH-USD", Channel::Trade, false),
    ] {
        assert_eq!(rights.grant(symbol, channel, 0) != Grant::Denied, is_live, "{symbol}");
    }
    assert_eq!(Rights::none().grant("A", Channel::Quote, 0), Grant::Denied);
}

#[test]
fn real_time_is_better_than_delayed_and_terms_are_those_of_one_rule() {
    let depth = |levels, ms| Some(Terms { depth: Depth::of(levels), ..at(ms).unwrap() });
    let rights = Rights::new(vec![
        rule("*", QUOTE, delayed(900)),
        rule("A*", QUOTE, delayed(60)),
        rule("AB*", QUOTE, depth(5, 10)),
        rule("ABC", QUOTE, depth(u32::MAX, 1000)),
        rule("AB*", QUOTE, depth(7, 10)),
    ]);
    assert_eq!(rights.grant("B", Channel::Quote, 0), Grant::Delayed(900));
    assert_eq!(rights.grant("A", Channel::Quote, 0), Grant::Delayed(60));
    assert_eq!(rights.grant("ABC", Channel::Quote, 0), Grant::Live(depth(7, 10).unwrap()));
    let some =
        |levels, is_whole| Extent::Some { interval: at(10).unwrap().interval, depth: Depth::of(levels), is_whole };
    assert_eq!(rights.extent("", Channel::Quote, 0), some(7, false));
    assert_eq!(rights.extent("B", Channel::Quote, 0), Extent::Delayed);
    assert_eq!(rights.extent("AB", Channel::Quote, 0), some(7, true));
}

#[test]
fn equal_rules_are_equal_rights_in_whatever_order_and_number() {
    let (a, b) = (rule("A", QUOTE, at(0)), rule("A*", QUOTE, None));
    let one = Rights::new(vec![a.clone(), b.clone()]);
    assert_eq!(one, Rights::new(vec![b.clone(), a.clone(), b]));
    assert_ne!(one, Rights::new(vec![a]));
    assert_ne!(Rights::none(), Rights::open());
}

const TEXTS: [&str; 12] = ["*", "A", "A*", "AB", "AB*", "ABC", "B*", "B", "BA*", "user/A/x", "user/*", "€*"];
const SYMBOLS: [&str; 10] = ["A", "AB", "ABC", "ABCD", "B", "BA", "BAB", "C", "user/A/x", "€x"];

/// The index of a text; whether the rule is for books as well; delay, interval and depth, if it allows.
type Given = (usize, bool, Option<(u32, u64, u32)>);

fn rules() -> impl Strategy<Value = Vec<Given>> {
    let depths = prop_oneof![Just(u32::MAX), Just(5u32), Just(10)];
    let terms = (prop_oneof![Just(0u32), Just(900)], prop_oneof![Just(0u64), Just(100), Just(1000)], depths);
    let terms = proptest::option::of(terms);
    proptest::collection::vec((0..TEXTS.len(), any::<bool>(), terms), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The rules one by one against the sorted table; and the extent of a prefix against all symbols below it.
    #[test]
    fn grants_and_extents_agree_with_each_rule_alone(given in rules()) {
        let terms_of = |(delay_s, ms, levels)| Terms { delay_s, depth: Depth::of(levels), ..at(ms).unwrap() };
        let make = |(text, has_books, terms): &Given| {
            let channels: &[Channel] = if *has_books { &[Channel::Quote, Channel::Book] } else { QUOTE };
            let terms = terms.map(terms_of);
            rule(TEXTS[*text], channels, terms)
        };
        let rights = Rights::new(given.iter().map(make).collect());
        for channel in [Channel::Quote, Channel::Book] {
            let naive = |symbol: &str| {
                let covers = |(text, has_books, _): &&Given| {
                    Pattern::parse(TEXTS[*text]).unwrap().matches(symbol) && (*has_books || channel == Channel::Quote)
                };
                let covering: Vec<_> = given.iter().filter(covers).map(|(.., terms)| *terms).collect();
                if symbol.starts_with("user/") || covering.is_empty() || covering.contains(&None) {
                    return Grant::Denied;
                }
                let best = |(delay_s, ms, levels): &(u32, u64, u32)| (*delay_s, *ms, std::cmp::Reverse(*levels));
                let best = covering.into_iter().flatten().min_by_key(best).unwrap();
                if best.0 > 0 { Grant::Delayed(best.0) } else { Grant::Live(terms_of(best)) }
            };
            for symbol in SYMBOLS {
                prop_assert_eq!(rights.grant(symbol, channel, 0), naive(symbol), "{}", symbol);
            }
            for prefix in ["", "A", "AB", "B", "BA", "C", "€", "user/", "user/A/"] {
                let below: Vec<_> = SYMBOLS.iter().filter(|symbol| symbol.starts_with(prefix)).map(|s| naive(s)).collect();
                match rights.extent(prefix, channel, 0) {
                    Extent::Nothing => prop_assert!(below.iter().all(|grant| *grant == Grant::Denied)),
                    Extent::Delayed => prop_assert!(below.iter().all(|grant| !matches!(grant, Grant::Live(_)))),
                    Extent::Some { interval, depth, is_whole } => for grant in below {
                        match grant {
                            Grant::Live(terms) => {
                                prop_assert!(terms.interval <= interval);
                                // Ordered as terms are: the deepest first.
                                prop_assert!(terms.depth <= depth || channel != Channel::Book);
                            }
                            // Private symbols are no part of what a prefix covers.
                            _ => prop_assert!(!is_whole || prefix.is_empty()),
                        }
                    },
                }
            }
        }
    }
}
