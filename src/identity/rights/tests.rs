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
const BOOK: &[Channel] = &[Channel::Book];

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
        rule("*", BOOK, delayed(900)),
        rule("A*", BOOK, delayed(60)),
        rule("AB*", BOOK, depth(5, 10)),
        rule("ABC", BOOK, depth(u32::MAX, 1000)),
        rule("AB*", BOOK, depth(7, 10)),
    ]);
    assert_eq!(rights.grant("B", Channel::Book, 0), Grant::Delayed(900));
    assert_eq!(rights.grant("A", Channel::Book, 0), Grant::Delayed(60));
    assert_eq!(rights.grant("ABC", Channel::Book, 0), Grant::Live(depth(7, 10).unwrap()));
    let some =
        |levels, is_whole| Extent::Some { interval: at(10).unwrap().interval, depth: Depth::of(levels), is_whole };
    assert_eq!(rights.extent("", Channel::Book, 0), some(7, false));
    assert_eq!(rights.extent("B", Channel::Book, 0), Extent::Delayed);
    assert_eq!(rights.extent("AB", Channel::Book, 0), some(7, true));
}

#[test]
fn fewer_hidden_fields_are_better_and_count_for_their_channel_only() {
    let quote = |name| FieldSet::named(Channel::Quote, name).unwrap();
    let sizes = quote("bid_sz").and(quote("ask_sz"));
    let without = |hidden: FieldSet| Some(Terms { hidden: Hidden(hidden), ..Terms::default() });
    let all = &[Channel::Quote, Channel::Trade];
    let rights = Rights::new(vec![
        rule("A*", all, without(sizes)),
        rule("AB*", QUOTE, without(quote("bid_sz"))),
        rule("ABC", QUOTE, at(10)),
        rule("B*", all, at(0)),
        // Its depth does not make it worse for quotes.
        rule("A-", &[Channel::Quote, Channel::Book], Some(Terms { depth: Depth::of(1), ..Terms::default() })),
    ]);
    for (symbol, channel, hidden) in [
        ("A", Channel::Quote, sizes),
        ("A", Channel::Trade, FieldSet::NONE),
        ("AB", Channel::Quote, quote("bid_sz")),
        ("ABC", Channel::Quote, quote("bid_sz")),
        ("A-", Channel::Quote, FieldSet::NONE),
        ("B", Channel::Quote, FieldSet::NONE),
    ] {
        let terms = rights.grant(symbol, channel, 0).served().unwrap();
        assert_eq!(terms.hidden.0, hidden, "{symbol} {channel:?}");
        assert_eq!(rights.hidden_fields(symbol, 0).of(channel), hidden, "{symbol} {channel:?}");
    }
    for (prefix, channel, whole) in [
        ("A", Channel::Quote, false),
        ("A", Channel::Trade, true),
        ("B", Channel::Quote, true),
        ("", Channel::Quote, false),
    ] {
        let extent = rights.extent(prefix, channel, 0);
        assert!(
            matches!(extent, Extent::Some { is_whole, .. } if is_whole == whole),
            "{prefix} {channel:?} {extent:?}"
        );
    }
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

/// The index of a text; whether the rule is for books as well; delay, interval, depth and whether sizes are hidden, if it
/// allows.
type Given = (usize, bool, Option<(u32, u64, u32, bool)>);

fn rules() -> impl Strategy<Value = Vec<Given>> {
    let depths = prop_oneof![Just(u32::MAX), Just(5u32), Just(10)];
    let delays = prop_oneof![Just(0u32), Just(900)];
    let terms = (delays, prop_oneof![Just(0u64), Just(100), Just(1000)], depths, any::<bool>());
    let terms = proptest::option::of(terms);
    proptest::collection::vec((0..TEXTS.len(), any::<bool>(), terms), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The rules one by one against the sorted table; and the extent of a prefix against all symbols below it.
    #[test]
    fn grants_and_extents_agree_with_each_rule_alone(given in rules()) {
        let sizes = FieldSet::named(Channel::Quote, "bid_sz").unwrap();
        let terms_of = |(delay_s, ms, levels, hides)| {
            let hidden = Hidden(if hides { sizes } else { FieldSet::NONE });
            Terms { delay_s, depth: Depth::of(levels), hidden, ..at(ms).unwrap() }
        };
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
                // Books have levels, quotes have fields.
                let of_channel = |(delay_s, ms, levels, hides)| match channel {
                    Channel::Book => (delay_s, ms, levels, false),
                    _ => (delay_s, ms, u32::MAX, hides),
                };
                let best = |(delay_s, ms, levels, hides): &(u32, u64, u32, bool)| {
                    (*delay_s, *ms, std::cmp::Reverse(*levels), *hides)
                };
                let best = covering.into_iter().flatten().map(of_channel).min_by_key(best).unwrap();
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
                                prop_assert!(terms.depth <= depth);
                                prop_assert!(!is_whole || terms.hidden == Hidden::default());
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
