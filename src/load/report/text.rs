//! The report as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::bottleneck::STARVED_SHARE_MAX;
use super::timeline::{ClassRow, TimelineRow};
use super::{LimitedReport, LoadReport, Measurement, PauseReport, PublisherReport, StormReport};
use crate::load::format::{count_text, duration_text};
use crate::load::latency::{LatencyOrigin, LatencySummary};
use crate::load::observe::server::ServerUsage;
use crate::load::slow_clients::Pause;
use crate::load::worker::messages::DeliveryCounts;

impl LoadReport {
    /// The report as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.push_connections(&mut out);
        if let Some(publisher) = &self.publisher {
            push_publisher(publisher, &mut out);
        }
        match &self.measured {
            Some(measured) => self.push_result(measured, &mut out),
            None => self.push_bottleneck(&mut out),
        }
        self.push_findings(&mut out);
        if let Some(measured) = &self.measured {
            push_timeline(&measured.timeline, &mut out);
        }
        out
    }

    fn push_connections(&self, out: &mut String) {
        let refused: u64 = self.refused.values().sum();
        let (connected, rate) = (self.connected, self.connects_per_second);
        line(out, "connections", &format!("{connected} connected, {refused} refused ({rate:.0}/s)"));
        if self.stalled > 0 {
            line(out, "stalled", &format!("{} of them do not read", self.stalled));
        }
        if let Some(PauseReport { times, clients, .. }) = &self.pause {
            let Pause { at_seconds, for_seconds, .. } = times;
            line(out, "pause", &format!("{clients} of them do not read for {for_seconds} s, from {at_seconds} s on"));
        }
        push_map(out, "refused", &self.refused);
        push_map(out, "rejected", &self.rejected);
    }

    fn push_result(&self, measured: &Measurement, out: &mut String) {
        push_measured(measured, out);
        if let Some(live) = self.pause.and_then(|pause| pause.live_latency) {
            line(out, "live after it", &latency_text(&live));
        }
        if let Some(limited) = &self.limited {
            push_limited(limited, out);
        }
        line(out, "upgraded", &latency_text(&self.upgraded));
        line(out, "first data", &latency_text(&self.first_data));
        if let Some(storm) = &self.storm {
            let StormReport { asked, connected, seconds, accepts_per_second, live_latency, .. } = storm;
            let text = format!("{connected} of {asked} connected in {seconds:.2} s ({accepts_per_second:.0}/s)");
            line(out, "storm", &text);
            line(out, "  steady then", &latency_text(live_latency));
        }
        if self.churned > 0 {
            line(out, "churn", &format!("{} were reset and replaced", self.churned));
        }
        match (&self.server, &self.server_unseen) {
            (Some(server), _) => push_server(server, out),
            (None, Some(why)) => line(out, "server", &format!("not observed: {why}")),
            (None, None) => {}
        }
    }

    fn push_bottleneck(&self, out: &mut String) {
        for why in &self.bottlenecks {
            line(out, "no result", &format!("the load generator itself was the bottleneck: {why}"));
        }
    }

    fn push_findings(&self, out: &mut String) {
        if let Some(delivered) = &self.delivered {
            push_delivered(delivered, out);
        }
        let violations = self.sequence_violations;
        line(out, "violations", &violations.to_string());
        if let Some(first) = &self.first_violation {
            line(out, "", &format!("first: {first}"));
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
            line(
                out,
                "",
                &format!("a thread waited {share:.0} % of the time for a core, and latencies contain that wait"),
            );
        }
    }
}

fn push_publisher(publisher: &PublisherReport, out: &mut String) {
    let rate = count_text(publisher.records_per_second);
    let LatencySummary { p99_ns, max_ns, .. } = publisher.lateness;
    let late = format!("late p99 {} max {}", duration_text(p99_ns), duration_text(max_ns));
    line(out, "published", &format!("{rate}/s of {}/s, {late}", count_text(publisher.rate as f64)));
    if publisher.held_lateness.count > 0 {
        let LatencySummary { count, max_ns, .. } = publisher.held_lateness;
        let (seconds, late) = (publisher.held_seconds, duration_text(max_ns));
        line(out, "", &format!("blocked by the server for {seconds:.2} s: {count} records up to {late} late"));
    }
}

fn push_server(server: &ServerUsage, out: &mut String) {
    let ServerUsage { cores, cpu_ns_per_delivery, cpu_ns_per_message, memory_bytes_per_connection, .. } = server;
    let each = format!("{cpu_ns_per_delivery:.0} ns a delivery, {cpu_ns_per_message:.0} ns a message");
    line(out, "server", &format!("{cores:.2} cores, {each}"));
    let memory = server.memory_bytes as f64 / 1e6;
    let text = format!("{memory:.1} MB, {:.1} KB a connection", memory_bytes_per_connection / 1e3);
    line(out, "memory", &text);
    let cores: Vec<_> = server.core_load.iter().map(|(core, load)| format!("{core}: {:.0} %", load * 100.0)).collect();
    line(out, "cores", &cores.join("  "));
}

fn push_delivered(delivered: &DeliveryCounts, out: &mut String) {
    let DeliveryCounts { clients, expected, received, merged, lost, missing, clients_short } = *delivered;
    line(out, "delivered", &format!("{received} of {expected} records to {clients} steady clients"));
    line(out, "", &format!("{merged} merged into later records, {lost} announced as lost, {missing} missing"));
    if clients_short > 0 {
        line(out, "", &format!("{clients_short} clients miss some"));
    }
}

fn push_measured(measured: &Measurement, out: &mut String) {
    line(out, "measured", &format!("{:.1} s", measured.seconds));
    if measured.packets_per_second == measured.messages_per_second || measured.messages_per_second == 0.0 {
        line(out, "packets", &format!("{}/s", count_text(measured.packets_per_second)));
    } else {
        let packets = count_text(measured.packets_per_second);
        line(out, "messages", &format!("{}/s, {packets}/s of them packets", count_text(measured.messages_per_second)));
    }
    line(out, "records", &format!("{}/s", count_text(measured.records_per_second)));
    line(out, "bytes", &format!("{:.2} MB/s", measured.bytes_per_second / 1e6));
    if measured.latency_origin == LatencyOrigin::Scheduled {
        line(out, "from schedule", &latency_text(&measured.latency_recv));
    }
    line(out, "from ts_send", &latency_text(&measured.latency_send));
    if measured.latency_origin == LatencyOrigin::Received {
        line(out, "from ts_recv", &latency_text(&measured.latency_recv));
    }
    if measured.from_future > 0 {
        let packets = measured.from_future;
        line(out, "", &format!("{packets} packets arrived before they were sent: the clocks of the machines differ"));
    }
    line(out, "gaps", &format!("{} ({} records missing)", measured.gaps, measured.lost));
    line(out, "conflated", &measured.conflated.to_string());
}

/// A table with a row for each second.
pub(super) fn push_timeline(rows: &[TimelineRow], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    let columns = format!("{:>12}{:>10}{:>10}{:>10}{:>10}", "delivered", "behind", "p50", "p99", "max");
    let mut heading = format!("second{columns}  generator");
    for (kind, of) in MORE {
        let named = columns.replacen("   delivered", &format!("{kind:>8}: delivered"), 1);
        heading.push_str(rows.iter().find_map(of).map_or("", |_| &named));
    }
    line(out, "time line", &heading);
    for row in rows {
        let busy = row.generator_busiest_share * 100.0;
        let more: String = MORE.iter().filter_map(|(_, of)| Some(format!("       {}", class_text(of(row)?)))).collect();
        line(out, "", &format!("{:>6}{}{busy:>9.0} %{more}", row.second, class_text(&row.steady)));
    }
}

/// Finds the figures of one kind of clients in a row, if the run has such clients.
type ClassOf = fn(&TimelineRow) -> Option<&ClassRow>;

/// Further kinds of clients, where a run has them.
const MORE: [(&str, ClassOf); 2] = [("live", |row| row.live.as_ref()), ("limited", |row| row.limited.as_ref())];

/// The columns of the clients of one kind.
fn class_text(row: &ClassRow) -> String {
    let ClassRow { delivered, behind, latency } = row;
    let count = |count: u64| count_text(count as f64).trim_end().to_owned();
    let behind = behind.map_or_else(|| "-".to_owned(), count);
    let of = |ns: u64| if latency.count > 0 { duration_text(ns) } else { "-".to_owned() };
    let [p50, p99, max] = [latency.p50_ns, latency.p99_ns, latency.max_ns].map(of);
    format!("{:>12}{behind:>10}{p50:>10}{p99:>10}{max:>10}", count(*delivered))
}

fn push_limited(limited: &LimitedReport, out: &mut String) {
    let (bytes, all) = (limited.read_bytes_per_second as f64, limited.bytes_per_second);
    let rates = format!("at most {}B/s each, {}B/s together", count_text(bytes), count_text(all));
    line(out, "limited", &format!("{} clients read {rates}", limited.clients));
    line(out, "  records", &format!("{}/s", count_text(limited.records_per_second)));
    line(out, "  age", &latency_text(&limited.latency));
    line(out, "  gaps", &format!("{} ({} records missing)", limited.gaps, limited.lost));
    line(out, "  conflated", &limited.conflated.to_string());
    push_map(out, "  closed", &limited.closes);
}

fn latency_text(latency: &LatencySummary) -> String {
    let LatencySummary { count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns } = *latency;
    if count == 0 {
        return "none".to_owned();
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
