//! Rows with clients that do not read for a while, or read slowly.

use super::{ALL_DELIVERED, Bar, Check, FLOOR, Row, SERVER, Unit, cpu_stated, p99};

pub const ROWS: &[Row] = &[Row {
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
        Check { figure: "p50", unit: Unit::Ms, read: |subject, _| subject.p50_ms(), bar: Bar::Stated },
        Check { figure: "p90", unit: Unit::Ms, read: |subject, _| subject.p90_ms(), bar: Bar::Ratio(1.5) },
        p99(Bar::Ratio(1.5)),
        Check { figure: "max", unit: Unit::Ms, read: |subject, _| subject.max_ms(), bar: Bar::Stated },
        cpu_stated(),
        ALL_DELIVERED,
    ],
    search: None,
    seconds: 20,
}];
