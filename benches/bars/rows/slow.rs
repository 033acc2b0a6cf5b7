//! Rows with clients that do not read for a while, or read slowly.

use super::{ALL_DELIVERED, Bar, Check, FLOOR, Row, SERVER, Unit, cpu_stated, p50, p99};
use crate::run::{Program, Setup};

/// 506 bytes a message: 101 KB a second for a client, of which a slow one reads 30.
const PARTIAL_LOAD: &[&str] =
    &["--clients", "500", "--publish", "200", "--publish-channel", "raw", "--size", "440", "--instruments", "10"];
/// In place of clients that are slow, of the same number that are not.
const PARTIAL: Row = Row {
    name: "",
    what: "",
    load: PARTIAL_LOAD,
    subject: SERVER,
    reference: Some(SERVER),
    checks: &[OTHERS_P99, ALL_CPU, SLOW_CPU, SLOW_DELIVERED, SLOW_LOST, SLOW_CLOSED, ALL_DELIVERED],
    search: None,
    seconds: 30,
};

const OTHERS_P99: Check = Check { figure: "p99 of the others", ..p99(Bar::Ratio(1.2)) };
const ALL_CPU: Check = Check { figure: "CPU a delivery, to all", bar: Bar::Ratio(2.0), ..cpu_stated() };
const SLOW_CPU: Check = Check {
    figure: "CPU a delivery, to slow clients",
    unit: Unit::Ns,
    read: |subject, without| subject.limited_cpu_ns(without),
    bar: Bar::Ratio(2.0),
};
const SLOW_DELIVERED: Check = Check {
    figure: "deliveries to slow clients",
    unit: Unit::PerSecond,
    read: |subject, _| subject.limited_number("records_per_second"),
    bar: Bar::Stated,
};
const SLOW_LOST: Check = Check {
    figure: "announced to them as lost",
    unit: Unit::Count,
    read: |subject, _| subject.limited_number("lost"),
    bar: Bar::Stated,
};
const SLOW_CLOSED: Check = Check {
    figure: "slow clients closed",
    unit: Unit::Count,
    read: |subject, _| subject.limited_closed(),
    bar: Bar::Stated,
};

pub const ROWS: &[Row] = &[
    Row {
        name: "stall",
        what: "stall: 1,000 subscribers, 5,000 messages a second, ten at a time; all stop to read at 6 s for 2 s",
        load: &[
            "--clients",
            "1000",
            "--publish",
            "5000",
            "--burst",
            "10",
            "--publish-channel",
            "raw",
            "--instruments",
            "1",
            "--pause",
            "6,2",
        ],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[
            p50(),
            Check { figure: "p90", bar: Bar::Ratio(1.5), ..P90 },
            p99(Bar::Ratio(1.5)),
            Check { figure: "max", unit: Unit::Ms, read: |subject, _| subject.max_ms(), bar: Bar::Stated },
            cpu_stated(),
            ALL_DELIVERED,
        ],
        search: None,
        seconds: 20,
    },
    Row {
        name: "pause",
        what: "pause: 1,000 subscribers, 20,000 messages a second, ten at a time; all stop to read at 5 s for 0.5 s",
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
            "--pause",
            "5,0.5",
        ],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[
            Check {
                figure: "from the end of the pause until the p99 of a second is 1.5 × the floor's of before",
                unit: Unit::Seconds,
                read: |subject, floor| subject.recovery_seconds(floor.unwrap_or(subject), 1.5),
                bar: Bar::AtMost(3.0),
            },
            p50(),
            P90,
            p99(Bar::Stated),
            cpu_stated(),
            ALL_DELIVERED,
        ],
        search: None,
        seconds: 15,
    },
    Row {
        name: "half-drain",
        what: "half drain: 1,000 subscribers, 2,000 messages a second, ten at a time; half stop to read at 6 s for 2 s; \
               beside the same without",
        load: &[
            "--clients",
            "1000",
            "--publish",
            "2000",
            "--burst",
            "10",
            "--publish-channel",
            "raw",
            "--instruments",
            "1",
        ],
        subject: Setup { load: &["--load-cores", "1", "--pause", "6,2,50"], ..SERVER },
        reference: Some(SERVER),
        checks: &[
            Check {
                figure: "p99 of live clients, 4 s from the end of the pause",
                unit: Unit::Ms,
                read: |subject, _| subject.live_ms("p99_ns"),
                bar: Bar::Ratio(1.3),
            },
            Check {
                figure: "their p50",
                unit: Unit::Ms,
                read: |subject, _| subject.live_ms("p50_ns"),
                bar: Bar::Stated,
            },
            cpu_stated(),
            ALL_DELIVERED,
        ],
        search: None,
        seconds: 15,
    },
    Row {
        name: "partial-tenth",
        what: "partial overload: a tenth of 500 subscribers reads 30 KB/s of 101; beside the same without",
        subject: Setup { load: &["--load-cores", "1", "--read-rate", "30000,10"], ..SERVER },
        // A thirtieth of the deliveries is theirs: their cost is less than the scatter of the others'.
        checks: &[OTHERS_P99, ALL_CPU, SLOW_DELIVERED, SLOW_LOST, SLOW_CLOSED, ALL_DELIVERED],
        ..PARTIAL
    },
    Row {
        name: "partial-half",
        what: "partial overload: half of them",
        subject: Setup { load: &["--load-cores", "1", "--read-rate", "30000,50"], ..SERVER },
        ..PARTIAL
    },
    Row {
        name: "partial-most",
        what: "partial overload: nine tenths of them",
        subject: Setup { load: &["--load-cores", "1", "--read-rate", "30000,90"], ..SERVER },
        ..PARTIAL
    },
    Row {
        name: "slow-json",
        what: "slow JSON: ten readers of 400 KB/s beside 90 binary clients, all of the default market; beside the same \
               without the ten",
        load: &[],
        subject: Setup {
            program: Program::Market { cores: "0" },
            load: &["--load-cores", "1", "--clients", "100", "--read-rate", "400000,10", "--limited-format", "json"],
            operator: true,
            ..SERVER
        },
        reference: Some(Setup {
            program: Program::Market { cores: "0" },
            load: &["--load-cores", "1", "--clients", "90"],
            ..SERVER
        }),
        checks: &[
            Check {
                figure: "bytes kept for the slowest",
                unit: Unit::Bytes,
                read: |subject, _| subject.pending_bytes_max(),
                bar: Bar::AtMost(262_144.0),
            },
            Check {
                figure: "p99 of the age of their data",
                unit: Unit::Ms,
                read: |subject, _| Some(subject.limited_number("latency/p99_ns")? / 1e6),
                bar: Bar::AtMost(2_000.0),
            },
            Check {
                figure: "the same of the worst second",
                unit: Unit::Ms,
                read: |subject, _| subject.limited_worst_p99_ms(),
                bar: Bar::Stated,
            },
            OTHERS_P99,
            SLOW_DELIVERED,
            SLOW_LOST,
            SLOW_CLOSED,
            Check {
                figure: "breaks of order, others closed",
                unit: Unit::Count,
                read: |subject, _| subject.broken(),
                bar: Bar::AtMost(0.0),
            },
        ],
        search: None,
        seconds: 60,
    },
];

const P90: Check = Check { figure: "p90", unit: Unit::Ms, read: |subject, _| subject.p90_ms(), bar: Bar::Stated };
