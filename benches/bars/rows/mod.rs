//! The rows: workloads, figures, and the bars that they have to meet.

mod fan_out;
mod secured;
mod slow;

use crate::run::{Outcome, Program, Setup};

/// One workload.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// Arguments of `tickcast load`, for both sides.
    pub load: &'static [&'static str],
    pub subject: Setup,
    /// What the subject is compared with.
    pub reference: Option<Setup>,
    pub checks: &'static [Check],
    pub search: Option<Search>,
    /// The measured seconds of a run.
    pub seconds: u32,
}

/// A figure and its bar.
pub struct Check {
    pub figure: &'static str,
    pub unit: Unit,
    /// The figure of the subject; the reference is given for figures that are a difference.
    pub read: fn(&Outcome, Option<&Outcome>) -> Option<f64>,
    pub bar: Bar,
}

#[derive(Clone, Copy)]
pub enum Unit {
    Ns,
    Ms,
    Seconds,
    Bytes,
    PerSecond,
    Count,
    Percent,
}

#[derive(Clone, Copy)]
pub enum Bar {
    /// At most so many times the reference.
    Ratio(f64),
    /// At least so many times the reference.
    RatioAtLeast(f64),
    AtMost(f64),
    /// No bar.
    Stated,
}

/// A search for the highest rate that keeps this limit.
pub struct Search {
    /// Records a second.
    pub first: u64,
    pub p99_ms_max: f64,
}

/// The server on the core that the load does not use.
const SERVER: Setup = Setup {
    program: Program::Server { cores: "0" },
    args: &[],
    load: &["--load-cores", "1"],
    small_pages: false,
    operator: false,
    is_secured: false,
};
const FLOOR: Setup = Setup { program: Program::Floor, ..SERVER };

const fn cpu(bar: f64) -> Check {
    Check { figure: "CPU a delivery", unit: Unit::Ns, read: |subject, _| subject.cpu_ns(), bar: Bar::Ratio(bar) }
}

const fn cpu_stated() -> Check {
    Check { bar: Bar::Stated, ..cpu(0.0) }
}

const fn p99(bar: Bar) -> Check {
    Check { figure: "p99", unit: Unit::Ms, read: |subject, _| subject.p99_ms(), bar }
}

/// Every record came in order, as itself or merged into a later one.
const ALL_DELIVERED: Check =
    Check { figure: "not delivered", unit: Unit::Count, read: |subject, _| subject.lost(), bar: Bar::AtMost(0.0) };

/// Clients of the row `slow-clients`, and how many of them never read.
const SLOW_CLIENTS_ALL: &str = "2000";
const SLOW_CLIENTS: f64 = 200.0;

const fn p50() -> Check {
    Check { figure: "p50", unit: Unit::Ms, read: |subject, _| subject.p50_ms(), bar: Bar::Stated }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Row> {
    STEADY.iter().chain(fan_out::ROWS).chain(slow::ROWS).chain(secured::ROWS)
}

/// The rows that a name means: the row of this name, all for `all`, or those of a group, whose names begin with it and a
/// hyphen. None where there is no such row.
pub fn named(name: &str) -> Vec<&'static Row> {
    let exact: Vec<_> = all().filter(|row| name == "all" || row.name == name).collect();
    let is_in_group = |row: &&Row| row.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    if exact.is_empty() { all().filter(is_in_group).collect() } else { exact }
}

/// Rows whose clients read everything at once.
const STEADY: &[Row] = &[
    Row {
        name: "frames",
        what: "one frame a send: 5,000 subscribers, 20 messages a second of 98 bytes",
        load: &["--clients", "5000", "--publish", "20", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[cpu(1.05), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "frames-10k",
        what: "one frame a send: 10,000 subscribers, 10 messages a second of 98 bytes",
        load: &["--clients", "10000", "--publish", "10", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[cpu(1.05), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "burst",
        what: "burst: 1,000 subscribers, 20,000 messages a second, ten at a time",
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
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[cpu(1.15), p99(Bar::Ratio(1.3)), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "million",
        what: "a million a second: 10,000 subscribers, 100 messages a second",
        load: &["--clients", "10000", "--publish", "100", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[cpu(1.1), p99(Bar::Ratio(1.1)), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "watchlists",
        what: "watchlists: 5,000 subscribers, 50 of 1,000 instruments each, 20,000 quotes a second",
        // Twenty at a time: one by one, the writes alone would take half of the load's core.
        load: &[
            "--clients",
            "5000",
            "--shape",
            "random:50",
            "--instruments",
            "1000",
            "--publish",
            "20000",
            "--burst",
            "20",
        ],
        subject: SERVER,
        reference: None,
        checks: &[cpu_stated(), p99(Bar::AtMost(250.0)), ALL_DELIVERED],
        search: Some(Search { first: 25_000, p99_ms_max: 250.0 }),
        seconds: 10,
    },
    Row {
        name: "keys",
        what: "one key each: 10,000 subscribers with an instrument each, one message of 512 bytes a second",
        load: &[
            "--clients",
            "10000",
            "--shape",
            "one",
            "--instruments",
            "10000",
            "--publish",
            "10000",
            "--publish-channel",
            "raw",
            "--size",
            "440",
        ],
        subject: SERVER,
        reference: Some(Setup { args: &["--each"], ..FLOOR }),
        checks: &[cpu(1.15), p99(Bar::AtMost(15.0)), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "quiet",
        what: "quiet: one subscriber, 100 messages a second",
        load: &["--clients", "1", "--publish", "100", "--publish-channel", "raw", "--instruments", "1"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[
            Check { figure: "p50", unit: Unit::Ms, read: |subject, _| subject.p50_ms(), bar: Bar::Ratio(1.3) },
            p99(Bar::Stated),
            ALL_DELIVERED,
        ],
        search: None,
        seconds: 10,
    },
    Row {
        name: "memory",
        what: "memory: 15,000 idle subscribers with one subscription each, memory in small pages",
        load: &["--clients", "15000", "--channels", "quote", "--symbols", "L*"],
        subject: Setup { small_pages: true, ..SERVER },
        reference: None,
        checks: &[Check {
            figure: "memory a connection",
            unit: Unit::Bytes,
            read: |subject, _| subject.anonymous_each(15_000.0),
            bar: Bar::AtMost(256.0),
        }],
        search: None,
        seconds: 5,
    },
    Row {
        name: "slow-clients",
        what: "slow clients: a tenth of 2,000 clients never read; without them beside it",
        load: &["--clients", SLOW_CLIENTS_ALL, "--publish", "100", "--publish-channel", "raw"],
        subject: Setup {
            args: &["--slow-timeout-ms", "600000", "--idle-timeout-ms", "600000"],
            load: &["--load-cores", "1", "--stalled", "10"],
            small_pages: true,
            ..SERVER
        },
        reference: Some(Setup {
            args: &["--slow-timeout-ms", "600000", "--idle-timeout-ms", "600000"],
            small_pages: true,
            ..SERVER
        }),
        checks: &[
            p99(Bar::Ratio(1.2)),
            Check {
                figure: "memory a slow client",
                unit: Unit::Bytes,
                read: |subject, without| Some((subject.anonymous_end()? - without?.anonymous_end()?) / SLOW_CLIENTS),
                bar: Bar::AtMost(4096.0),
            },
            Check {
                figure: "its growth in the second half",
                unit: Unit::Bytes,
                read: |subject, without| {
                    Some((subject.anonymous_growth()? - without?.anonymous_growth()?) / SLOW_CLIENTS)
                },
                bar: Bar::AtMost(64.0),
            },
        ],
        search: None,
        seconds: 60,
    },
    Row {
        name: "storm",
        what: "connect storm: 15,000 come at once beside 100 who are there, 100 messages a second",
        load: &[
            "--clients",
            "100",
            "--storm",
            "15000",
            "--pending",
            "1024",
            "--publish",
            "100",
            "--publish-channel",
            "raw",
            "--instruments",
            "10",
        ],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[
            Check {
                figure: "accepts",
                unit: Unit::PerSecond,
                read: |subject, _| subject.accepts_per_second(),
                bar: Bar::RatioAtLeast(0.9),
            },
            Check {
                figure: "p99 of the others meanwhile",
                unit: Unit::Ms,
                read: |subject, _| subject.storm_p99_ms(),
                bar: Bar::Stated,
            },
        ],
        search: None,
        seconds: 15,
    },
    Row {
        name: "shards",
        what: "two shards on two cores, with one on one beside it: 2,000 subscribers, 20 messages a second",
        load: &["--clients", "2000", "--publish", "20", "--publish-channel", "raw", "--instruments", "10"],
        subject: Setup { program: Program::Server { cores: "0,1" }, load: &["--load-cores", "0,1"], ..SERVER },
        reference: Some(Setup { load: &["--load-cores", "0,1"], ..SERVER }),
        checks: &[
            cpu(1.1),
            Check {
                figure: "the busier shard's part of the work",
                unit: Unit::Percent,
                read: |subject, _| subject.busier_shard_percent(),
                bar: Bar::AtMost(55.0),
            },
            ALL_DELIVERED,
        ],
        search: None,
        seconds: 10,
    },
];
