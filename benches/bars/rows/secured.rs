//! Rows over TLS: beside the bare loop that seals, and beside the plain server.

use super::{ALL_DELIVERED, Bar, Check, FLOOR, Row, SERVER, Setup, Unit, cpu, p99};

/// The same server over TLS. The rows measure the cost of connections, not the limits of handshakes.
const SECURED: Setup = Setup {
    is_secured: true,
    args: &["--tls-handshakes-per-s", "0", "--tls-handshakes-per-address-per-s", "0"],
    ..SERVER
};
/// With the limits that a server has by default.
const LIMITED: Setup = Setup { args: &[], ..SECURED };
const SECURED_FLOOR: Setup = Setup { is_secured: true, ..FLOOR };

const FRAMES: &[&str] = &["--clients", "5000", "--publish", "20", "--publish-channel", "raw", "--instruments", "10"];
const IDLE_CLIENTS: f64 = 5_000.0;
const IDLE: &[&str] = &["--clients", "5000", "--channels", "quote", "--symbols", "L*"];
/// Handshakes beside clients that receive, from connections that are visited often enough to complete them.
const HANDSHAKES: &[&str] = &[
    "--clients",
    "100",
    "--publish",
    "200",
    "--publish-channel",
    "raw",
    "--instruments",
    "10",
    "--attack",
    "handshakes",
    "--attack-connections",
    "64",
    "--attack-rate",
    "3000",
    "--attack-priority",
    "normal",
];

pub const ROWS: &[Row] = &[
    Row {
        name: "tls-frames",
        what: "over TLS, one frame a send: 5,000 subscribers, 20 messages a second of 98 bytes",
        load: FRAMES,
        subject: SECURED,
        reference: Some(SECURED_FLOOR),
        checks: &[cpu(1.05), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "tls-frames-plain",
        what: "the same beside the plain server",
        load: FRAMES,
        subject: SECURED,
        reference: Some(SERVER),
        checks: &[cpu(1.2), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "tls-burst",
        what: "over TLS, burst: 1,000 subscribers, 20,000 messages a second, ten at a time",
        load: &[
            "--clients",
            "1000",
            "--publish",
            "20000",
            "--burst",
            "10",
            "--publish-channel",
            "raw",
            "--instruments",
            "10",
        ],
        subject: SECURED,
        reference: Some(SECURED_FLOOR),
        checks: &[cpu(1.1), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "tls-memory",
        what: "5,000 idle subscribers over TLS, beside as many plain ones, memory in small pages",
        load: IDLE,
        subject: Setup { small_pages: true, ..SECURED },
        reference: Some(Setup { small_pages: true, ..SERVER }),
        checks: &[
            Check {
                figure: "memory of a connection beyond a plain one",
                unit: Unit::Bytes,
                read: |secured, plain| {
                    Some(secured.anonymous_each(IDLE_CLIENTS)? - plain?.anonymous_each(IDLE_CLIENTS)?)
                },
                bar: Bar::AtMost(4096.0),
            },
            Check {
                figure: "memory of a connection",
                unit: Unit::Bytes,
                read: |outcome, _| outcome.anonymous_each(IDLE_CLIENTS),
                bar: Bar::Stated,
            },
        ],
        search: None,
        seconds: 3,
    },
    Row {
        name: "tls-handshakes",
        what: "full handshakes, each on a connection that is reset then: of one core, as their CPU time allows",
        load: HANDSHAKES,
        subject: SECURED,
        reference: Some(SECURED_FLOOR),
        checks: &[
            Check {
                figure: "handshakes of one core",
                unit: Unit::PerSecond,
                read: |outcome, _| outcome.actions_per_core_second(),
                bar: Bar::RatioAtLeast(0.8),
            },
            Check {
                figure: "handshakes made",
                unit: Unit::Count,
                read: |outcome, _| outcome.attack_number("count/actions"),
                bar: Bar::Stated,
            },
        ],
        search: None,
        seconds: 3,
    },
    Row {
        name: "tls-flood",
        what: "a flood of handshakes beside 100 subscribers over TLS, with the default limits",
        load: HANDSHAKES,
        subject: LIMITED,
        reference: None,
        checks: &[
            Check {
                figure: "p99 during the flood, beside before",
                unit: Unit::Percent,
                read: |outcome, _| Some(outcome.attack_number("latencies/ratio")? * 100.0),
                bar: Bar::AtMost(130.0),
            },
            Check {
                figure: "p99 before",
                unit: Unit::Ms,
                read: |outcome, _| Some(outcome.attack_number("latencies/before/p99_ns")? / 1e6),
                bar: Bar::Stated,
            },
            Check {
                figure: "p99 during",
                unit: Unit::Ms,
                read: |outcome, _| Some(outcome.attack_number("latencies/during/p99_ns")? / 1e6),
                bar: Bar::Stated,
            },
        ],
        search: None,
        seconds: 4,
    },
];
