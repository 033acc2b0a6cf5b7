//! What a load run found: for people, or as one JSON object.
//!
//! Rates are printed only where they are the server's: when the generator's own threads were the bottleneck, the report
//! says that and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::decode::Counters;
use super::meter::{Latency, Meter, count_text, duration_text};

/// A thread that computes for more than this share of the time is a bottleneck: it measures itself.
pub const BUSY_SHARE_MAX: f64 = 0.90;
/// A thread that waits for a core for more than this share of the time has that wait in its latencies.
const STARVED_SHARE_MAX: f64 = 0.10;

/// Everything a run has to tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub clients: u64,
    pub stalled: u64,
    pub connected: u64,
    /// Connections that did not come about, by what the server or the kernel said.
    pub refused: BTreeMap<String, u64>,
    /// Subscriptions that were answered with an error, by message.
    pub rejected: BTreeMap<String, u64>,
    /// From the first connect to the last upgrade.
    pub connect_seconds: f64,
    pub connects_per_second: f64,
    /// What was received in the measured time; `None` where the generator was the bottleneck.
    pub measured: Option<Measured>,
    /// Breaks of the sequence rule, from the first packet to the last.
    pub sequence_violations: u64,
    pub first_violation: Option<String>,
    /// Connections that sent a malformed packet, by what was wrong.
    pub malformed: BTreeMap<String, u64>,
    /// Connections that the server ended before the run did, by close code.
    pub closes: BTreeMap<String, u64>,
    /// CPU time of the load threads together, in cores.
    pub generator_cores: f64,
    /// The busiest thread's share of the time on a core.
    pub generator_busiest_share: f64,
    /// The longest share of the time that a thread wanted a core and had none.
    pub generator_starved_share: f64,
    pub generator_was_the_bottleneck: bool,
}

/// The measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    pub seconds: f64,
    pub packets_per_second: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// From the packet's `ts_send`.
    pub latency_send: Latency,
    /// From the record's `ts_recv`.
    pub latency_recv: Latency,
    /// Packets whose `ts_send` was later than our clock: the machines' clocks differ.
    pub from_future: u64,
    pub gaps: u64,
    /// Records that the gaps say are missing.
    pub lost: u64,
    pub conflated: u64,
}

/// What one thread received in the measured time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub seconds: f64,
    pub bytes: u64,
    pub counters: Counters,
    pub meter: Meter,
    pub cpu_seconds: f64,
    pub starved_seconds: f64,
}

impl Report {
    /// Puts the threads' windows together, and decides whether they are worth anything.
    pub fn measure(&mut self, windows: &[Window]) {
        let mut sum = Measured::default();
        let mut meter = Meter::default();
        for window in windows {
            let seconds = window.seconds.max(1e-9);
            sum.seconds = sum.seconds.max(window.seconds);
            sum.packets_per_second += window.counters.packets as f64 / seconds;
            sum.records_per_second += window.counters.records as f64 / seconds;
            sum.bytes_per_second += window.bytes as f64 / seconds;
            sum.gaps += window.counters.gaps;
            sum.lost += window.counters.lost;
            sum.conflated += window.counters.conflated;
            meter.add(&window.meter);
            let busy = window.cpu_seconds / seconds;
            self.generator_cores += busy;
            self.generator_busiest_share = self.generator_busiest_share.max(busy);
            self.generator_starved_share = self.generator_starved_share.max(window.starved_seconds / seconds);
        }
        (sum.latency_send, sum.latency_recv, sum.from_future) = (meter.send(), meter.recv(), meter.from_future());
        self.generator_was_the_bottleneck = self.generator_busiest_share > BUSY_SHARE_MAX;
        self.measured = (!self.generator_was_the_bottleneck).then_some(sum);
    }

    /// 0 all is well, 3 the generator was the bottleneck, 4 a stream broke its promise.
    pub fn exit_code(&self) -> u8 {
        match () {
            () if self.sequence_violations > 0 || !self.malformed.is_empty() => 4,
            () if self.generator_was_the_bottleneck => 3,
            () => 0,
        }
    }

    /// One JSON object, without a newline.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("maps with string keys and numbers are JSON")
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.push_connections(&mut out);
        match &self.measured {
            Some(measured) => push_measured(measured, &mut out),
            None => self.push_bottleneck(&mut out),
        }
        self.push_findings(&mut out);
        out
    }

    fn push_connections(&self, out: &mut String) {
        let refused: u64 = self.refused.values().sum();
        let (connected, rate) = (self.connected, self.connects_per_second);
        line(out, "connections", &format!("{connected} connected, {refused} refused ({rate:.0}/s)"));
        if self.stalled > 0 {
            line(out, "stalled", &format!("{} of them never read", self.stalled));
        }
        push_map(out, "refused", &self.refused);
        push_map(out, "rejected", &self.rejected);
    }

    fn push_bottleneck(&self, out: &mut String) {
        let share = self.generator_busiest_share * 100.0;
        line(
            out,
            "no result",
            &format!(
                "the load generator itself was the bottleneck: a thread of it computed {share:.0} % of the time. \
                 Give it more --threads, fewer --clients, or a machine of its own"
            ),
        );
    }

    fn push_findings(&self, out: &mut String) {
        let violations = self.sequence_violations;
        line(out, "violations", &violations.to_string());
        if let Some(first) = &self.first_violation {
            line(out, "", &format!("the first: {first}"));
        }
        push_map(out, "malformed", &self.malformed);
        push_map(out, "closed", &self.closes);
        line(
            out,
            "generator",
            &format!("{:.2} cores, busiest thread {:.0} %", self.generator_cores, self.generator_busiest_share * 100.0),
        );
        if self.generator_starved_share > STARVED_SHARE_MAX {
            let share = self.generator_starved_share * 100.0;
            line(out, "", &format!("a thread waited {share:.0} % of the time for a core: latencies contain that wait"));
        }
    }
}

fn push_measured(measured: &Measured, out: &mut String) {
    line(out, "measured", &format!("{:.1} s", measured.seconds));
    line(out, "packets", &format!("{}/s", count_text(measured.packets_per_second)));
    line(out, "records", &format!("{}/s", count_text(measured.records_per_second)));
    line(out, "bytes", &format!("{:.2} MB/s", measured.bytes_per_second / 1e6));
    line(out, "from ts_send", &latency_text(&measured.latency_send));
    line(out, "from ts_recv", &latency_text(&measured.latency_recv));
    if measured.from_future > 0 {
        let packets = measured.from_future;
        line(out, "", &format!("{packets} packets came before they were sent: the clocks of the machines differ"));
    }
    line(out, "gaps", &format!("{} ({} records missing)", measured.gaps, measured.lost));
    line(out, "conflated", &measured.conflated.to_string());
}

fn latency_text(latency: &Latency) -> String {
    let Latency { count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns } = *latency;
    if count == 0 {
        return "nothing was received".to_owned();
    }
    let [p50, p90, p99, p999, max] = [p50_ns, p90_ns, p99_ns, p999_ns, max_ns].map(duration_text);
    format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")
}

fn push_map(out: &mut String, name: &str, map: &BTreeMap<String, u64>) {
    for (what, count) in map {
        line(out, name, &format!("{count} × {what}"));
    }
}

fn line(out: &mut String, name: &str, text: &str) {
    writeln!(out, "{name:<14}{text}").expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::PacketHeader;

    fn window(cpu_seconds: f64) -> Window {
        let counters = Counters { packets: 200, records: 3_000, gaps: 1, lost: 6, conflated: 4, ..Counters::default() };
        let mut meter = Meter::default();
        meter.packet(50_000, &PacketHeader { flags: 0, count: 0, epoch: 1, position: 1, ts_send: 30_000 });
        Window { seconds: 2.0, bytes: 500_000, counters, meter, cpu_seconds, starved_seconds: 0.0 }
    }

    fn report(windows: &[Window]) -> Report {
        let mut report = Report { clients: 10, connected: 9, connects_per_second: 900.0, ..Report::default() };
        report.refused.insert("503 Service Unavailable: full".to_owned(), 1);
        report.closes.insert("4002 (slow consumer)".to_owned(), 2);
        report.measure(windows);
        report
    }

    #[test]
    fn threads_add_up_and_the_report_reads_so() {
        let report = report(&[window(1.0), window(0.5)]);
        let want = "\
connections   9 connected, 1 refused (900/s)
refused       1 × 503 Service Unavailable: full
measured      2.0 s
packets       200 /s
records       3.00 k/s
bytes         0.50 MB/s
from ts_send  p50 20.0us  p90 20.0us  p99 20.0us  p99.9 20.0us  max 20.0us
from ts_recv  nothing was received
gaps          2 (12 records missing)
conflated     8
violations    0
closed        2 × 4002 (slow consumer)
generator     0.75 cores, busiest thread 50 %
";
        assert_eq!(report.text(), want);
        assert_eq!(report.exit_code(), 0);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("an object");
        assert_eq!((&json["measured"]["records_per_second"], &json["connected"]), (&3000.0.into(), &9.into()));
    }

    #[test]
    fn a_generator_that_was_the_bottleneck_prints_no_rates_and_exits_3() {
        let report = report(&[window(0.1), window(1.9)]);
        let text = report.text();
        assert!(text.contains("the load generator itself was the bottleneck"), "{text}");
        assert!(!text.contains("/s\n") && !text.contains("from ts_send"), "{text}");
        assert_eq!(report.exit_code(), 3);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("an object");
        assert_eq!(
            (&json["measured"], &json["generator_was_the_bottleneck"]),
            (&serde_json::Value::Null, &true.into())
        );
    }

    #[test]
    fn a_thread_that_waited_for_a_core_is_told() {
        let starved = Window { starved_seconds: 0.5, ..window(0.5) };
        assert!(report(&[starved]).text().contains("waited 25 % of the time for a core"));
        assert!(!report(&[window(0.5)]).text().contains("waited"));
    }

    #[test]
    fn a_broken_stream_exits_4_whatever_else() {
        let mut report = report(&[window(1.9)]);
        report.sequence_violations = 1;
        report.first_violation = Some("quote of instrument 1 jumps".to_owned());
        assert_eq!(report.exit_code(), 4);
        assert!(report.text().contains("violations    1\n              the first: quote of instrument 1 jumps\n"));
    }
}
