//! Which words of the code may be written in which files only: the executor, the kernel interface, unsafe code, locks,
//! clocks and the client library.

use crate::source::{self, Source};
use crate::{assert_found, assert_holds};

/// Words, and the only files and folders below `src/` that use them.
const CONFINEMENTS: &[(&[&str], &[&str])] = &[
    (&["glommio"], &["src/http/", "src/io/descriptor.rs", "src/runtime/"]),
    // The floor is the yardstick of the server's own ring, and so shares nothing with it.
    (
        &["io_uring"],
        &["src/io/input_buffers.rs", "src/io/restrictions.rs", "src/io/uring.rs", "src/load/floor/uring.rs"],
    ),
    (
        &["unsafe", "unsafe_code"],
        &[
            "src/io/descriptor.rs",
            "src/io/input_buffers.rs",
            "src/io/uring.rs",
            "src/load/floor/uring.rs",
            "src/memory.rs",
        ],
    ),
    (&["rustls"], &["src/tls/"]),
    (&["tokio_rustls"], &["src/tls/client.rs"]),
    (&["x509_parser"], &["src/tls/"]),
    (&["hyper", "hyper_util"], &["src/ingest/transport/post.rs", "src/ingest/transport/rest.rs"]),
    // A rival is written as its users write it: the feature `rivals` builds it.
    (&["tokio"], &["src/ingest/transport/", "src/load/floor/rival.rs", "src/tls/client.rs"]),
    (&["tokio_tungstenite"], &["src/ingest/transport/websocket.rs", "src/load/floor/rival.rs"]),
    (&["async", "await"], &["src/http/", "src/ingest/transport/", "src/runtime/", "src/load/floor/rival.rs"]),
    (&["Rc", "RefCell"], &["src/http/", "src/runtime/"]),
    (
        &["Mutex", "RwLock", "Condvar"],
        &[
            "src/access/",
            "src/allowance.rs",
            "src/auth.rs",
            "src/bars/store.rs",
            "src/clock.rs",
            "src/day_tickers/store.rs",
            "src/http/",
            "src/ingest/",
            "src/recent_trades/store.rs",
            "src/state.rs",
            "src/tls/",
            "src/usage/",
        ],
    ),
    // Time is an argument everywhere else.
    (
        &["Instant", "SystemTime"],
        &[
            "src/archive/thread.rs",
            "src/bars/store.rs",
            "src/clock.rs",
            "src/http/",
            "src/ingest/",
            "src/load/",
            "src/log/",
            "src/runtime/",
        ],
    ),
    // Clients of brokers.
    (&["async_nats"], &["src/ingest/transport/nats.rs"]),
    (&["async_rs", "lapin"], &["src/ingest/transport/rabbitmq/"]),
    (&["redis"], &["src/ingest/registry.rs", "src/ingest/transport/mod.rs", "src/ingest/transport/redis/"]),
    (&["rdkafka"], &["src/ingest/transport/kafka/"]),
    (&["jsonwebtoken"], &["src/access/"]),
    (&["tickcast_client"], &["src/load/"]),
];

fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let code = source::without_tests(&source.code);
        for (at, word) in source::words(&code) {
            for (_, places) in CONFINEMENTS.iter().filter(|(words, _)| words.contains(&word)) {
                if !places.iter().any(|place| source.path.starts_with(place)) {
                    let line = source::line_at(&code, at);
                    found.push(format!("{}:{line}: {word} is confined to {places:?}", source.path));
                }
            }
        }
    }
    found
}

/// Places that use none of the words that they may use.
fn unused_places(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (words, places) in CONFINEMENTS {
        for place in *places {
            let mut inside = sources.iter().filter(|source| source.path.starts_with(place)).peekable();
            let uses = |source: &Source| source::words(&source.code).any(|(_, word)| words.contains(&word));
            if inside.peek().is_some() && !inside.any(uses) {
                found.push(format!("confinements: {place} may use {words:?}, and does not"));
            }
        }
    }
    found
}

#[test]
fn words_are_used_where_they_are_permitted() {
    for (path, text, expected) in [
        ("src/shard/mod.rs", "use std::cell::RefCell;\nasync fn f() {}\n", 2),
        ("src/shard/flush.rs", "fn f() { std::time::Instant::now(); }\n", 1),
        ("src/load/run.rs", "use glommio::timer;\n", 1),
        ("src/io/mod.rs", "use io_uring::IoUring;\n", 1),
        ("src/ring.rs", "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }\n", 2),
        ("src/ring.rs", "//! unsafe\nconst C: char = '\"'; /* async */ const S: &str = r#\"glommio \" \"#;\n", 0),
        ("src/ring.rs", "fn f<'a>(x: &'a str) { let c = 'x'; let d = '\\''; } // Mutex\n", 0),
        ("src/ring.rs", "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n", 0),
    ] {
        assert_found(violations, &[(path, text)], expected);
    }
    assert_holds(violations);
}

#[test]
fn every_permitted_place_uses_its_words() {
    assert_found(unused_places, &[("src/io/uring.rs", "use io_uring::IoUring;")], 1);
    assert_found(unused_places, &[("src/io/uring.rs", "use io_uring::IoUring; fn f() { unsafe {} }")], 0);
    assert_holds(unused_places);
}
