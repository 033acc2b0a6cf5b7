//! Runs under attack: what each kind did, to the innocent clients and to the server.

use std::fmt::Write;

use serde::Serialize;

use super::timeline::live_latency;
use super::{LoadReport, median};
use crate::load::attack::{AttackCount, AttackKind, AttackPhases};
use crate::load::format::{count_text, duration_text};
use crate::load::latency::LatencySummary;
use crate::load::observe::phases::{PhaseCores, PhaseMemory};
use crate::load::worker::messages::MeasuredWindow;

/// How many deliveries there were in a phase, and a percentile of their latency, ns.
type CountAndTime = fn(&PhaseLatencies) -> (u64, u64);

/// A ratio above this is marked.
const RATIO_MAX: f64 = 1.3;

/// One attack.
#[derive(Clone, Debug, Serialize)]
pub struct AttackReport {
    pub kind: AttackKind,
    pub phases: AttackPhases,
    pub count: AttackCount,
    /// Of the server; `None` where its process cannot be observed.
    pub memory: Option<PhaseMemory>,
    pub cores: Option<PhaseCores>,
    /// `None` where the load generator was the bottleneck.
    pub latencies: Option<PhaseLatencies>,
}

/// Latencies of the records that innocent clients received, see [`super::Measurement::latency_recv`].
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PhaseLatencies {
    pub before: LatencySummary,
    pub during: LatencySummary,
    pub after: LatencySummary,
    /// The 99th percentile during the attack, divided by that before it. `None` where either phase has no record, and
    /// for a pause, in which every record is late.
    pub ratio: Option<f64>,
}

/// All runs of a command.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AttackedRuns {
    pub runs: Vec<AttackedRun>,
    /// The kinds that `all` left out, and why.
    pub left_out: Vec<String>,
}

/// One run: the attack is in its report.
#[derive(Clone, Debug, Serialize)]
pub struct AttackedRun {
    pub round: usize,
    pub report: LoadReport,
}

impl AttackReport {
    /// Adds the latencies of the threads' windows.
    pub(super) fn measure(&mut self, windows: &[MeasuredWindow]) {
        let [before, during, after] = [self.phases.before(), self.phases.during(), self.phases.after()]
            .map(|seconds| live_latency(windows, seconds));
        let has_ratio = self.kind != AttackKind::Pauses && before.count > 0 && during.count > 0 && before.p99_ns > 0;
        let ratio = has_ratio.then(|| during.p99_ns as f64 / before.p99_ns as f64);
        self.latencies = Some(PhaseLatencies { before, during, after, ratio });
    }
}

impl AttackedRuns {
    /// The table, and what is wrong beside latencies.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut push = |line: &str| writeln!(out, "{}", line.trim_end()).expect("a String takes all");
        push(&format!(
            "{:<18}{:>27}   {:>36}   {:>24}   {:>13}   {:<36}   clients",
            "", "p50          ", "p99                  ", "memory, MB      ", "cores   ", "connections of the attack"
        ));
        push(&format!(
            "{:<18}{:>9}{:>9}{:>9}   {:>9}{:>9}{:>9}{:>9}   {:>8}{:>8}{:>8}   {:>6}{:>7}   {:>9}{:>9}{:>9}{:>9}{:>9}",
            "kind",
            "before",
            "during",
            "after",
            "before",
            "during",
            "after",
            "ratio",
            "before",
            "peak",
            "after",
            "before",
            "during",
            "opened",
            "refused",
            "closed",
            "actions",
            "closed"
        ));
        for run in &self.runs {
            if let Some(attack) = &run.report.attack {
                push(&row(attack, &run.report));
            }
        }
        for finding in self.findings() {
            push(&finding);
        }
        out
    }

    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let is_marked = |run: &AttackedRun| run.ratio().is_some_and(|ratio| ratio > RATIO_MAX);
        if self.runs.iter().any(is_marked) {
            findings.push(format!("* the p99 during the attack is above {RATIO_MAX} times that before it"));
        }
        for AttackedRun { report, .. } in &self.runs {
            let Some(attack) = &report.attack else { continue };
            let name = attack.kind.name();
            let mut find = |text: String| findings.push(format!("{name}: {text}"));
            report.bottlenecks.iter().for_each(|why| {
                find(format!("no latencies, because the load generator itself was the bottleneck: {why}"));
            });
            report.closes.iter().for_each(|(why, count)| find(format!("{count} clients were closed: {why}")));
            if let Some(delivered) = report.delivered.filter(|delivered| delivered.missing > 0) {
                find(format!("{} of {} records are missing", delivered.missing, delivered.expected));
            }
            if let Some(first) = &report.first_violation {
                find(format!("{} violations of the sequence rule, first: {first}", report.sequence_violations));
            }
            report.server_unseen.iter().for_each(|why| find(format!("server not observed: {why}")));
        }
        findings.extend(self.left_out.iter().map(|why| format!("left out: {why}")));
        findings.extend(self.medians());
        findings
    }

    /// The ratios of each kind that ran several times.
    fn medians(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in AttackKind::all() {
            let of_kind = |run: &&AttackedRun| run.report.attack.as_ref().is_some_and(|attack| attack.kind == *kind);
            let mut ratios: Vec<_> = self.runs.iter().filter(of_kind).filter_map(AttackedRun::ratio).collect();
            ratios.sort_by(f64::total_cmp);
            if let [least, .., most] = ratios[..] {
                let (median, name) = (median(&ratios), kind.name());
                lines.push(format!("{name}: median ratio {median:.2} ({least:.2} to {most:.2})"));
            }
        }
        lines
    }
}

impl AttackedRun {
    fn ratio(&self) -> Option<f64> {
        self.report.attack.as_ref()?.latencies?.ratio
    }
}

fn row(attack: &AttackReport, report: &LoadReport) -> String {
    const NONE: &str = "-";
    let latency = |of: CountAndTime| match attack.latencies.as_ref().map(of) {
        Some((count, ns)) if count > 0 => duration_text(ns),
        _ => NONE.to_owned(),
    };
    let p50: [CountAndTime; 3] = [
        |of| (of.before.count, of.before.p50_ns),
        |of| (of.during.count, of.during.p50_ns),
        |of| (of.after.count, of.after.p50_ns),
    ];
    let p99: [CountAndTime; 3] = [
        |of| (of.before.count, of.before.p99_ns),
        |of| (of.during.count, of.during.p99_ns),
        |of| (of.after.count, of.after.p99_ns),
    ];
    let columns =
        |texts: &[String], width: usize| -> String { texts.iter().map(|text| format!("{text:>width$}")).collect() };
    let (p50, p99) = (columns(&p50.map(latency), 9), columns(&p99.map(latency), 9));
    let ratio = attack
        .latencies
        .and_then(|latencies| latencies.ratio)
        .map_or_else(|| NONE.to_owned(), |ratio| format!("{}{ratio:.2}", if ratio > RATIO_MAX { "* " } else { "" }));
    let memory = attack.memory.map_or_else(
        || [NONE; 3].map(str::to_owned),
        |PhaseMemory { before, peak, after }| [before, peak, after].map(|bytes| format!("{:.1}", bytes as f64 / 1e6)),
    );
    let cores = attack.cores.map_or_else(
        || [NONE; 2].map(str::to_owned),
        |PhaseCores { before, during }| [before, during].map(|cores| format!("{cores:.2}")),
    );
    let AttackCount { opened, failed, refused, ended, actions } = attack.count;
    let counts = [opened, refused + failed, ended, actions].map(|count| count_text(count as f64).trim_end().to_owned());
    let closed: u64 = report.closes.values().sum();
    format!(
        "{:<18}{p50}   {p99}{ratio:>9}   {}   {}   {}{closed:>9}",
        attack.kind.name(),
        columns(&memory, 8),
        columns(&cores, 7).split_off(1),
        columns(&counts, 9),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::{CoarseHistogram, LatencyHistogram};
    use crate::load::worker::timeline::{ClassSecond, SecondTally};

    /// A window with one record a second, of these ages.
    fn window(ages_ns: &[u64]) -> MeasuredWindow {
        let second = |ns: &u64| {
            let (mut fine, mut ages) = (LatencyHistogram::default(), CoarseHistogram::default());
            fine.record(*ns);
            ages.add_fine(&fine);
            let steady = ClassSecond { records: 1, ages, ..ClassSecond::default() };
            SecondTally {
                seconds: 1.0,
                received: [steady, ClassSecond::default(), ClassSecond::default()],
                ..SecondTally::default()
            }
        };
        let seconds = ages_ns.len() as f64;
        MeasuredWindow { seconds, timeline: ages_ns.iter().map(second).collect(), ..MeasuredWindow::default() }
    }

    fn run(kind: AttackKind, ages_ns: &[u64], cpu_seconds: f64) -> AttackedRun {
        let attack = AttackReport {
            kind,
            phases: AttackPhases { seconds: 1 },
            count: AttackCount { opened: 12_000, failed: 1, refused: 2, ended: 4, actions: 5 },
            memory: Some(PhaseMemory { before: 10_000_000, peak: 90_500_000, after: 11_000_000 }),
            cores: Some(PhaseCores { before: 0.25, during: 0.5 }),
            latencies: None,
        };
        let mut report = LoadReport { connected: 1, attack: Some(attack), ..LoadReport::default() };
        report.closes.insert("1008 (policy)".to_owned(), 3);
        report.measure(&[MeasuredWindow { cpu_seconds, ..window(ages_ns) }], ages_ns.len(), None);
        AttackedRun { round: 0, report }
    }

    #[test]
    fn a_row_has_the_phases_the_server_and_the_attack() {
        let calm = run(AttackKind::Pings, &[1_000_000, 1_100_000, 900_000, 2_000_000], 0.1);
        let harmful = run(AttackKind::Patterns, &[1_000_000, 2_000_000, 2_000_000, 1_000_000], 0.1);
        let text = AttackedRuns { runs: vec![calm, harmful], left_out: vec!["pauses needs a pid".to_owned()] }.text();
        let want = concat!(
            "                                p50                            p99                             memory, MB              cores      connections of the attack              clients\n",
            "kind                 before   during    after      before   during    after    ratio     before    peak   after   before during      opened  refused   closed  actions   closed\n",
            "pings                1.00ms    901us   2.01ms      1.00ms   1.11ms   2.01ms     1.10       10.0    90.5    11.0     0.25   0.50      12.0 k        3        4        5        3\n",
            "patterns             1.00ms   2.01ms   1.00ms      1.00ms   2.01ms   1.00ms   * 2.00       10.0    90.5    11.0     0.25   0.50      12.0 k        3        4        5        3\n",
            "* the p99 during the attack is above 1.3 times that before it\n",
            "pings: 3 clients were closed: 1008 (policy)\n",
            "patterns: 3 clients were closed: 1008 (policy)\n",
            "left out: pauses needs a pid\n",
        );
        assert_eq!(text, want);
    }

    #[test]
    fn a_pause_has_no_ratio_and_a_busy_generator_no_latencies() {
        let pause = run(AttackKind::Pauses, &[1_000_000, 9_000_000_000, 1_000_000, 1_000_000], 0.1);
        let busy = run(AttackKind::Pings, &[1_000_000; 4], 4.0);
        assert_eq!((pause.ratio(), busy.ratio()), (None, None));
        assert!(pause.report.attack.as_ref().is_some_and(|attack| attack.latencies.is_some()));
        let text = AttackedRuns { runs: vec![pause, busy], left_out: Vec::new() }.text();
        assert!(text.contains("pings: no latencies, because the load generator itself was the bottleneck"), "{text}");
        assert!(!text.contains('*'), "{text}");
    }

    #[test]
    fn several_runs_of_a_kind_have_a_median() {
        let run = |during| run(AttackKind::Gets, &[1_000_000, during, during, 1_000_000], 0.1);
        let runs = [1_000_000, 4_000_000, 2_000_000].map(run).to_vec();
        let text = AttackedRuns { runs, left_out: Vec::new() }.text();
        assert!(text.contains("gets: median ratio 2.00 (1.00 to 4.00)"), "{text}");
    }
}
