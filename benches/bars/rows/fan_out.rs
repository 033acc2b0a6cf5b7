//! Rows with few subscribers, where the cost of a record and of a wake-up counts.

use super::{ALL_DELIVERED, Bar, FLOOR, Row, SERVER, cpu, cpu_stated, p50, p99};

pub const ROWS: &[Row] = &[
    Row {
        name: "small",
        what: "small fan-out: 50 subscribers, 1,000 messages a second",
        load: &["--clients", "50", "--publish", "1000", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[cpu(1.10), p50(), p99(Bar::Stated), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "middle-500",
        what: "middle: 500 subscribers, 2,000 messages a second",
        load: &["--clients", "500", "--publish", "2000", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[p99(Bar::Ratio(1.15)), p50(), cpu_stated(), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
    Row {
        name: "middle-2000",
        what: "middle: 2,000 subscribers, 200 messages a second",
        load: &["--clients", "2000", "--publish", "200", "--publish-channel", "raw", "--instruments", "10"],
        subject: SERVER,
        reference: Some(FLOOR),
        checks: &[p99(Bar::Ratio(1.15)), p50(), cpu_stated(), ALL_DELIVERED],
        search: None,
        seconds: 10,
    },
];
