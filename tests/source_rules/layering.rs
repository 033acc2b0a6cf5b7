//! Which module of the server may name which, and that no modules name each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{ModulePath, Modules};
use crate::source::Source;
use crate::{assert_found, assert_holds};

/// The modules of the server from the bottom to the top, each with those that it names. A module names only modules
/// whose rows are above its own, so that there is no cycle.
const LAYERS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("affinity", &[]),
    ("allowance", &[]),
    ("fault", &[]),
    ("heartbeat", &[]),
    ("memory", &[]),
    ("clock", &[]),
    ("rate_limit", &[]),
    ("auth", &[]),
    ("stats", &[]),
    ("last_value", &[]),
    ("tls", &[]),
    ("identity", &[]),
    ("io", &["tls"]),
    ("lifecycle", &[]),
    ("log", &["clock"]),
    ("ring", &["sync"]),
    ("wake", &["sync"]),
    ("recent_trades", &["ring"]),
    ("day_tickers", &["ring"]),
    ("sequencer", &["day_tickers", "last_value", "ring"]),
    ("shard", &["identity", "io", "last_value", "ring", "stats"]),
    ("bars", &["affinity", "clock", "day_tickers", "fault", "lifecycle", "recent_trades", "ring", "wake"]),
    ("archive", &["affinity", "bars", "clock", "day_tickers", "lifecycle", "recent_trades"]),
    (
        "ingest",
        &["affinity", "auth", "bars", "clock", "fault", "lifecycle", "rate_limit", "ring", "sequencer", "tls", "wake"],
    ),
    ("usage", &["clock", "identity"]),
    // Key sets are fetched as the answers of venues are. A session is ended where its slot is. Shards are woken for the
    // answers of the authorizer.
    ("access", &["clock", "identity", "ingest", "io", "tls", "usage", "wake"]),
    // The limits of the bars, the feeds and the shards are settings, with their cost in memory.
    (
        "config",
        &[
            "access",
            "allowance",
            "archive",
            "auth",
            "bars",
            "identity",
            "ingest",
            "io",
            "recent_trades",
            "sequencer",
            "shard",
            "tls",
            "usage",
        ],
    ),
    // Checks the machine against the configuration. Whether io_uring works is found out by opening a ring.
    ("check", &["config", "io"]),
    (
        "state",
        &[
            "access",
            "archive",
            "auth",
            "bars",
            "config",
            "heartbeat",
            "ingest",
            "lifecycle",
            "sequencer",
            "shard",
            "stats",
            "tls",
        ],
    ),
    (
        "http",
        &[
            "access",
            "affinity",
            "allowance",
            "archive",
            "auth",
            "bars",
            "clock",
            "config",
            "fault",
            "identity",
            "ingest",
            "io",
            "log",
            "memory",
            "rate_limit",
            "recent_trades",
            "sequencer",
            "shard",
            "state",
            "stats",
            "tls",
            "usage",
            "wake",
        ],
    ),
    (
        "runtime",
        &[
            "access",
            "affinity",
            "archive",
            "auth",
            "bars",
            "check",
            "clock",
            "config",
            "day_tickers",
            "fault",
            "heartbeat",
            "http",
            "ingest",
            "io",
            "lifecycle",
            "log",
            "memory",
            "recent_trades",
            "ring",
            "sequencer",
            "shard",
            "state",
            "stats",
            "tls",
            "usage",
            "wake",
        ],
    ),
    // A client of the server: it names the portable crates, and the bare TLS for the floor.
    ("load", &["tls"]),
    ("main", &["archive", "check", "config", "ingest", "load", "memory", "runtime", "usage"]),
];

/// The sources of the crates.
const CRATES: [&str; 6] = [
    "src",
    "crates/tickcast-protocol/src",
    "crates/tickcast-client/src",
    "crates/tickcast-recording/src",
    "crates/tickcast-venues/src",
    "crates/tickcast-test-support/src",
];

fn row(module: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// The modules at the top of the server.
fn top_modules(modules: &Modules) -> BTreeSet<&str> {
    modules.paths().filter_map(|path| path.first()).map(String::as_str).collect()
}

fn unlisted_modules(sources: &[Source]) -> Vec<String> {
    let modules = Modules::of(sources, "src");
    let unlisted = top_modules(&modules).into_iter().filter(|module| row(module).is_none());
    unlisted.map(|module| format!("src/{module}: the module is not in the table of layers")).collect()
}

/// Names of a module that the table does not permit.
fn forbidden_names(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for item in Modules::of(sources, "src").uses() {
        let (Some(from), Some(to)) = (item.from.first(), item.to.first()) else { continue };
        let is_permitted = from == to || row(from).is_some_and(|allowed| allowed.contains(&to.as_str()));
        if !is_permitted {
            found.push(format!("{}: {from} must not name {to}", item.at));
        }
    }
    found
}

/// Permissions that nothing uses.
fn unused_permissions(sources: &[Source]) -> Vec<String> {
    let modules = Modules::of(sources, "src");
    let uses = modules.uses();
    let mut found = Vec::new();
    for module in top_modules(&modules) {
        for other in row(module).unwrap_or_default() {
            let is_use = |from: &ModulePath, to: &ModulePath| from[0] == *module && to[0] == **other;
            if !uses.iter().any(|item| !item.from.is_empty() && !item.to.is_empty() && is_use(&item.from, &item.to)) {
                found.push(format!("table of layers: {module} may name {other}, and does not"));
            }
        }
    }
    found
}

/// Modules of one folder that name each other in a circle.
fn cycles(sources: &[Source]) -> Vec<String> {
    CRATES.iter().flat_map(|root| cycles_below(&Modules::of(sources, root), root)).collect()
}

fn cycles_below(modules: &Modules, root: &str) -> Vec<String> {
    // For each parent, its children with the siblings that they name.
    let mut siblings: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for item in modules.uses() {
        let common = item.from.iter().zip(&item.to).take_while(|(from, to)| from == to).count();
        if let (Some(from), Some(to)) = (item.from.get(common), item.to.get(common)) {
            let children = siblings.entry(item.from[..common].to_vec()).or_default();
            children.entry(from.clone()).or_default().insert(to.clone());
        }
    }
    let mut found = Vec::new();
    for (parent, children) in &siblings {
        let folder = [&[root.to_owned()], &parent[..]].concat().join("/");
        found.extend(cycle_in(children).map(|cycle| format!("{folder}: {}", cycle.join(" → "))));
    }
    found
}

/// A circle among the children of one module.
fn cycle_in(children: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        name: &'a String,
        children: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a String>,
        done: &mut BTreeSet<&'a String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|on_path| *on_path == name) {
            return Some(path[start..].iter().chain([&name]).map(|name| (*name).clone()).collect());
        }
        if !done.contains(name) {
            path.push(name);
            let named = children.get(name).into_iter().flatten();
            if let Some(cycle) = named.into_iter().find_map(|next| visit(next, children, path, done)) {
                return Some(cycle);
            }
            path.pop();
            done.insert(name);
        }
        None
    }
    let mut done = BTreeSet::new();
    children.keys().find_map(|name| visit(name, children, &mut Vec::new(), &mut done))
}

#[test]
fn the_table_of_layers_has_no_cycle() {
    for (nth, (module, allowed)) in LAYERS.iter().enumerate() {
        for other in *allowed {
            let is_above = LAYERS[..nth].iter().any(|(name, _)| name == other);
            assert!(is_above, "{module} may name {other}, whose row is not above");
        }
    }
}

#[test]
fn every_module_has_a_layer() {
    assert_found(unlisted_modules, &[("src/ring.rs", ""), ("src/other.rs", ""), ("src/more/mod.rs", "")], 2);
    assert_holds(unlisted_modules);
}

#[test]
fn modules_name_lower_layers_only() {
    let others = [("src/ring.rs", ""), ("src/ingest/feed.rs", ""), ("src/shard/mod.rs", ""), ("src/runtime.rs", "")];
    for (path, text, expected) in [
        ("src/io/uring.rs", "use crate::ingest::Feed;\n", 1),
        ("src/io/uring.rs", "fn f() {\n    crate::shard::Shard::f()\n}\n", 1),
        ("src/io/uring.rs", "use super::super::ring::{Reader, Writer};\n", 2),
        ("src/io/uring.rs", "mod inner {\n    use super::super::super::ring;\n}\n", 1),
        ("src/io/uring.rs", "#[cfg(test)]\nmod tests {\n    use crate::ring;\n}\n", 0),
        ("src/main.rs", "use tickcast::{ring, runtime};\n", 1),
        ("src/io/uring.rs", "// use crate::ingest;\nconst S: &str = \"crate::ingest\";\n", 0),
    ] {
        assert_found(forbidden_names, &[&others[..], &[(path, text)]].concat(), expected);
    }
    assert_holds(forbidden_names);
}

#[test]
fn every_permission_of_a_layer_is_used() {
    for (text, expected) in [("", 3), ("use crate::ring::Ring;", 2), ("use crate::{day_tickers, last_value, ring};", 0)]
    {
        let planted = [
            ("src/last_value.rs", ""),
            ("src/day_tickers.rs", "use crate::ring::Batch;"),
            ("src/ring.rs", "use crate::sync::Arc;"),
            ("src/sync.rs", ""),
        ];
        assert_found(unused_permissions, &[&planted[..], &[("src/sequencer/mod.rs", text)]].concat(), expected);
    }
    assert_holds(unused_permissions);
}

#[test]
fn no_modules_name_each_other() {
    let planted = [
        ("src/load/a.rs", "use super::b::B;"),
        ("src/load/b.rs", "use crate::load::c;"),
        ("src/load/c/mod.rs", "fn f(a: super::a::A) {}"),
        ("src/load/c/d.rs", "use super::e::E; use super::C;"),
        ("src/load/c/e.rs", "use crate::load::b::B;"),
    ];
    assert_found(cycles, &planted, 1);
    assert_found(cycles, &planted[1..], 1);
    assert_found(cycles, &planted[2..], 0);
    assert_holds(cycles);
}
