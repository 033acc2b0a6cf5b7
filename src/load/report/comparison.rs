//! The same workload against several servers, one after another: pairs of runs, and the ratios of their figures.
//!
//! A figure of one run says little on a machine that does other work as well. So each pair has every server once, the
//! order alternates from pair to pair, and the result is the median of the pairs' ratios with the least and the
//! greatest. A run in which the load generator was the bottleneck has no figures and is in no ratio.

use std::fmt::Write;

use serde::Serialize;

use super::attacks::AttackedRuns;
use super::text::push_timeline;
use super::{LoadReport, MEASURED, median};
use crate::load::format::{count_text, duration_text};
use crate::load::latency::LatencySummary;

/// What a `tickcast load` command found: the report of the measured run, and all runs where it was compared.
#[derive(Clone, Debug, Serialize)]
pub struct LoadOutcome {
    #[serde(flatten)]
    pub report: LoadReport,
    /// All runs, where the server was compared with others; `report` is the first of its own.
    pub compared: Option<Comparison>,
    /// All runs under attack, where there were some; `report` is the first of them.
    pub attacked: Option<AttackedRuns>,
}

impl LoadOutcome {
    /// 0: all streams were correct. 3: the load generator was the bottleneck in any run. 4: a stream of the server
    /// broke the sequence rule, or a packet was malformed.
    pub fn exit_code(&self) -> u8 {
        let compared = self.compared.iter().flat_map(|comparison| &comparison.runs);
        let of_run = |run: &ComparedRun| match run.report.exit_code() {
            // The comparison shows how many records other servers lose.
            4 if run.name != MEASURED => 0,
            code => code,
        };
        let attacked = self.attacked.iter().flat_map(|attacked| &attacked.runs).map(|run| run.report.exit_code());
        compared.map(of_run).chain(attacked).fold(self.report.exit_code(), u8::max)
    }

    /// One JSON object, without a newline.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("maps with string keys and numbers are JSON")
    }

    /// The report as text, then the comparison; of runs under attack, the table alone.
    pub fn text(&self) -> String {
        if let Some(attacked) = &self.attacked {
            return attacked.text();
        }
        self.report.text() + &self.compared.as_ref().map_or_else(String::new, Comparison::text)
    }
}

/// All runs and the ratios of their figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    pub runs: Vec<ComparedRun>,
    pub ratios: Vec<Ratio>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRun {
    pub name: &'static str,
    pub pair: usize,
    pub report: LoadReport,
}

/// The measured server's figure divided by the other's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub to: &'static str,
    pub what: &'static str,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// A figure of a run, where it has one.
type Figure = fn(&LoadReport) -> Option<f64>;

/// The figures that are compared.
const FIGURES: [(&str, Figure); 6] = [
    ("CPU a delivery", |report| report.server.as_ref().map(|server| server.cpu_ns_per_delivery)),
    ("p50", |report| report.measured.as_ref().map(|measured| measured.latency_recv.p50_ns as f64)),
    ("p90", |report| report.measured.as_ref().map(|measured| measured.latency_recv.p90_ns as f64)),
    ("p99", |report| report.measured.as_ref().map(|measured| measured.latency_recv.p99_ns as f64)),
    ("max", |report| report.measured.as_ref().map(|measured| measured.latency_recv.max_ns as f64)),
    ("connects/s", |report| Some(report.connects_per_second)),
];

impl Comparison {
    /// The comparison of these runs; `measured` is the name of the measured server.
    pub fn of(runs: Vec<ComparedRun>, measured: &'static str) -> Self {
        let mut ratios = Vec::new();
        let mut others: Vec<&'static str> = Vec::new();
        for row in runs.iter().filter(|row| row.name != measured) {
            if !others.contains(&row.name) {
                others.push(row.name);
            }
        }
        for to in others {
            for (what, figure) in FIGURES {
                let of = |name: &str, pair: usize| {
                    let row = runs.iter().find(|row| row.name == name && row.pair == pair)?;
                    // A run without a result has no figures, not even its connects per second.
                    row.report.measured.as_ref()?;
                    figure(&row.report).filter(|figure| *figure > 0.0)
                };
                let pairs = runs.iter().map(|row| row.pair).max().map_or(0, |last| last + 1);
                let mut found: Vec<f64> =
                    (0..pairs).filter_map(|pair| Some(of(measured, pair)? / of(to, pair)?)).collect();
                found.sort_by(f64::total_cmp);
                if let (Some(min), Some(max)) = (found.first(), found.last()) {
                    ratios.push(Ratio { to, what, median: median(&found), min: *min, max: *max });
                }
            }
        }
        Self { runs, ratios }
    }

    /// A table of the runs, then the ratios.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut push = |line: String| writeln!(out, "{line}").expect("a String takes all");
        push(format!(
            "\n{:<20}{:>16}{:>10}{:>10}{:>10}{:>10}{:>12}{:>14}",
            "run", "CPU a delivery", "p50", "p90", "p99", "max", "connects/s", "deliveries/s"
        ));
        for ComparedRun { name, pair, report } in &self.runs {
            let label = format!("{name} {}", pair + 1);
            let Some(measured) = &report.measured else {
                push(format!("{label:<20}  no result: {}", report.bottlenecks.join("; ")));
                continue;
            };
            let cpu = report.server.as_ref();
            let cpu = cpu.map_or_else(|| "-".to_owned(), |server| format!("{:.0} ns", server.cpu_ns_per_delivery));
            let LatencySummary { p50_ns, p90_ns, p99_ns, max_ns, .. } = measured.latency_recv;
            let latencies: String =
                [p50_ns, p90_ns, p99_ns, max_ns].iter().map(|ns| format!("{:>10}", duration_text(*ns))).collect();
            let (connects, rate) = (report.connects_per_second, count_text(measured.records_per_second));
            push(format!("{label:<20}{cpu:>16}{latencies}{connects:>12.0}{rate:>14}"));
            if let Some(delivered) = report.delivered.filter(|delivered| delivered.missing > 0) {
                let share = delivered.missing as f64 / delivered.expected.max(1) as f64 * 100.0;
                push(format!("{:<20}  {share:.1} % of the records are missing", ""));
            }
        }
        for Ratio { to, what, median, min, max } in &self.ratios {
            push(format!("{what:<15} {median:.2} of {to} ({min:.2} to {max:.2})"));
        }
        self.push_timelines(&mut out);
        out
    }

    /// The time lines of the first pair but that of the report itself, where a pause makes them worth a look.
    fn push_timelines(&self, out: &mut String) {
        for ComparedRun { name, report, .. } in self.runs.iter().skip(1).filter(|run| run.pair == 0) {
            if let (Some(measured), Some(_)) = (&report.measured, &report.pause) {
                writeln!(out, "\n{name}").expect("a String takes all");
                push_timeline(&measured.timeline, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::{Measurement, ServerUsage};

    fn row(name: &'static str, pair: usize, cpu: f64, has_result: bool) -> ComparedRun {
        let latency_recv =
            LatencySummary { count: 1, p50_ns: 1000, p90_ns: 2000, p99_ns: 4000, ..LatencySummary::default() };
        let measured = Measurement { latency_recv, records_per_second: 1e6, ..Measurement::default() };
        let server = ServerUsage { cpu_ns_per_delivery: cpu, ..ServerUsage::default() };
        let report = LoadReport {
            connects_per_second: 500.0,
            measured: has_result.then_some(measured),
            server: Some(server),
            ..LoadReport::default()
        };
        ComparedRun { name, pair, report }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair_without_failed_runs() {
        let runs = vec![
            row("tickcast", 0, 120.0, true),
            row("floor", 0, 100.0, true),
            row("floor", 1, 100.0, true),
            row("tickcast", 1, 150.0, true),
            row("tickcast", 2, 900.0, true),
            row("floor", 2, 100.0, false),
        ];
        let comparison = Comparison::of(runs, "tickcast");
        let cpu = Ratio { to: "floor", what: "CPU a delivery", median: 1.35, min: 1.2, max: 1.5 };
        assert_eq!(comparison.ratios[0], cpu);
        assert_eq!(comparison.ratios.len(), 5, "max is 0");
        let text = comparison.text();
        assert!(text.contains("CPU a delivery  1.35 of floor (1.20 to 1.50)"), "{text}");
        assert!(text.contains("floor 3") && text.contains("no result"), "{text}");
    }
}
