//! The metrics that the documents name against those that a running server serves.

use std::collections::{BTreeMap, BTreeSet};

use tickcast_test_support::server::Server;

use super::{pages, read, rows, section, unquoted};

/// Name in a scrape to type and help.
type Metrics = BTreeMap<String, (String, String)>;

/// Reads the OpenMetrics text format.
fn served(text: &str) -> Metrics {
    let mut types = BTreeMap::new();
    let mut helps = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name, help.trim_end_matches('.'));
        }
    }
    let metric = |(name, kind): (&str, &str)| {
        let sample = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        (sample, (kind.to_owned(), helps.get(name).copied().unwrap_or_default().to_owned()))
    };
    types.into_iter().map(metric).collect()
}

fn documented(page: &str) -> Metrics {
    let row = |cells: Vec<String>| {
        let [name, kind, meaning] = cells.try_into().expect("three columns");
        (unquoted(&name).to_owned(), (kind, meaning))
    };
    rows(section(page, "## Metrics")).into_iter().map(row).collect()
}

fn table_faults(page: &str, served: &Metrics) -> Vec<String> {
    let listed = documented(page);
    let stale = listed.iter().filter(|(name, listed)| served.get(*name) != Some(listed));
    let missing = served.keys().filter(|name| !listed.contains_key(*name));
    let stale = stale.map(|(name, listed)| format!("{name}: listed {listed:?}, served {:?}", served.get(name)));
    stale.chain(missing.map(|name| format!("{name}: served, but not listed"))).collect()
}

/// Words that are formed as names of metrics and are not served. The crates are named alike.
fn unknown_names(text: &str, served: &Metrics) -> BTreeSet<String> {
    const CRATES: [&str; 4] = ["tickcast_client", "tickcast_protocol", "tickcast_test_support", "tickcast_venues"];
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let named = words.filter(|word| word.starts_with("tickcast_") && !CRATES.contains(word));
    named.filter(|name| !served.contains_key(*name)).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_listed_as_it_is_served_and_no_other_is_named() {
    let served = served(&Server::start(&["--feed", "none", "--log", "error"]).get("/metrics").text());
    assert!(served.len() > 60, "only {} metrics are served", served.len());
    let page = read("docs/operations.md");
    assert_eq!(table_faults(&page, &served), [""; 0]);
    for page in pages() {
        assert_eq!(unknown_names(&page.text, &served), BTreeSet::new(), "{}", page.path.display());
    }
}

#[test]
fn a_metric_that_is_wrong_or_missing_is_found() {
    let served = served(
        "# HELP tickcast_a How many.\n# TYPE tickcast_a counter\n# HELP tickcast_b Now.\n# TYPE tickcast_b gauge\n",
    );
    let page = "\n## Metrics\n| metric | type | meaning |\n|---|---|---|\n| `tickcast_a_total` | counter | How many |\n| `tickcast_b` | gauge | Now |\n";
    assert_eq!(table_faults(page, &served), [""; 0]);
    assert_eq!(table_faults(&page.replace("gauge", "counter"), &served).len(), 1);
    assert_eq!(table_faults(&page.replace("How", "what"), &served).len(), 1);
    assert_eq!(table_faults(&page.replace("tickcast_b", "tickcast_c"), &served).len(), 2);
    let text = "see `tickcast_a_total`, `tickcast_a` and `tickcast_client::Client`";
    assert_eq!(unknown_names(text, &served), ["tickcast_a".to_owned()].into());
}
