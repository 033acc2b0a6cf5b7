//! Storms of reconnects over TLS, with and without resumption: half of the clients are connected and receive, as many more
//! come at once, all of them leave. Afterwards the memory of the server is where it was.
//!
//! `cargo test` runs two rounds of 5,000 clients. More of both, and the rounds:
//!
//!     TICKCAST_SOAK_TLS_ROUNDS=20 cargo test --release --test full_load storms_over_tls -- --nocapture

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::exclusive::exclusive;
use tickcast_test_support::server::{Program, Server};
use tickcast_test_support::tls::{Authority, tls_address};

use crate::soak::Resources;

/// Clients that are there when the others come, and these.
const STEADY: &str = "2500";
const STORM: u64 = 2_500;
/// Each without resumption, then with it. The first one fills the tables.
const ROUNDS: usize = 2;
/// What a later round may add: pages that the allocator keeps. All clients take 20 MiB and more.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// How many of the storm were connected when its time was up: all, unless the machine is busy.
fn storm(authority: &Authority, server: &Server, resumes: bool) -> u64 {
    let (url, ca) = (format!("wss://localhost:{}", tls_address(server).port()), authority.path("ca.pem"));
    let args = ["load", &url, "--ca", ca.to_str().expect("UTF-8"), "--clients", STEADY, "--storm", &STORM.to_string()];
    let time = ["--seconds", "8", "--warmup", "0", "--churn", "20", "--json"];
    let resume: &[&str] = if resumes { &["--tls-resume"] } else { &[] };
    let exit = Program::run(&[&args[..], &time, resume].concat());
    // 3: the machine is busy, so the rates mean nothing; the checks of the streams are valid.
    assert!(matches!(exit.code, Some(0 | 3)), "{exit:?}");
    let report: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    let found = ["sequence_violations", "malformed", "refused", "closes"].map(|name| &report[name]);
    let none = serde_json::json!({});
    assert_eq!(found, [&0.into(), &none, &none, &none], "{report}");
    let connected = report["storm"]["connected"].as_u64().expect("a count");
    assert!(connected > 0 && report["storm"]["refused"] == 0, "{report}");
    connected
}

fn at_rest(server: &Server, descriptors: usize) -> Resources {
    for level in ["tickcast_clients", "tickcast_tls_clients", "tickcast_audiences"] {
        server.wait_for_metric(level, |value| value == 0);
    }
    let until = Instant::now() + DEADLINE;
    loop {
        let held = Resources::of(&server.program);
        if held.descriptors <= descriptors {
            return held;
        }
        assert!(Instant::now() < until, "{held:?}, and {descriptors} descriptors at the start");
        std::thread::yield_now();
    }
}

#[test]
fn storms_over_tls_leave_the_memory_where_it_was() {
    let _machine = exclusive();
    let rounds = std::env::var("TICKCAST_SOAK_TLS_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let authority = Authority::new();
    // No limit of the rate: each client is to be served.
    let limits = ["--tls-handshakes-per-s", "0", "--handshakes-per-s", "0", "--tls-handshake-timeout-ms", "60000"];
    let server = authority.start(&[&["--feed", "sim:instruments=5,rate=20,seed=1"], &limits[..]].concat());
    let descriptors = Resources::of(&server.program).descriptors;
    let resumed = || server.metric_values("tickcast_tls_resumed_total").iter().sum::<u64>();
    let mut warm: Option<Resources> = None;
    for round in 1..=rounds.max(2) {
        for resumes in [false, true] {
            let before = resumed();
            let connected = storm(&authority, &server, resumes);
            let count = resumed() - before;
            assert!(if resumes { count >= connected } else { count == 0 }, "{count} of {connected} were resumed");
            let held = at_rest(&server, descriptors);
            let kib = held.private_bytes / 1024;
            println!("round {round}: {connected} of {STORM} came in time, {count} were resumed: {kib} KiB");
            if let Some(warm) = warm {
                let growth = held.private_bytes.saturating_sub(warm.private_bytes);
                assert!(growth <= GROWTH_BYTES_MAX, "grown by {growth} B from {warm:?} to {held:?} in round {round}");
            }
        }
        warm = warm.or_else(|| Some(Resources::of(&server.program)));
    }
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
}
