//! What a load run found: for people, or as one JSON object.
//!
//! Rates are printed only where they are the server's: when the generator's own threads were the bottleneck, the report
//! says that and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::compare::{Comparison, Row};
use super::job::{self, Delivered, Joins, Tally};
use super::meter::{Ages, Latency, Meter, Origin, count_text, duration_text};
use tickcast_client::decode::Counters;

/// A thread that computes for more than this share of the time is a bottleneck: it measures itself. One that sleeps at all
/// has just read everything that was there; below this it does so some times in every tenth of a second.
pub const BUSY_SHARE_MAX: f64 = 0.97;
/// A thread that waits for a core for more than this share of the time has that wait in its latencies.
const STARVED_SHARE_MAX: f64 = 0.10;

/// What the measured server is called beside others.
pub const MEASURED: &str = "tickcast";
/// A publisher that is later than this with one record in a hundred spoils latencies: it measures itself.
const LATENESS_P99_MAX_NS: u64 = 5_000_000;
/// A publisher of ours that made less than this share of its rate, without the server holding it, is a bottleneck.
const RATE_SHARE_MIN: f64 = 0.99;

/// Everything a run has to tell; [`Self::json`] is this, field by field. Times are in ns where a name ends in `_ns`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub url: String,
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
    /// From a connect to the upgrade's answer, of all connections.
    pub upgraded: Latency,
    /// From a connect to the first data, of all connections that got some.
    pub first_data: Latency,
    /// Where one was asked for.
    pub storm: Option<Storm>,
    /// Connections that left abruptly and were replaced.
    pub churned: u64,
    /// What the attack came to, where there was one.
    pub attack: Vec<super::attack::Count>,
    /// Where the run published itself.
    pub publisher: Option<Publisher>,
    /// What steady clients should have got of it, and what they got.
    pub delivered: Option<Delivered>,
    /// What was received in the measured time; `None` where the generator was the bottleneck.
    pub measured: Option<Measured>,
    /// What the server took for it; `None` where its process is not to be seen.
    pub server: Option<Server>,
    /// Why the server's process is not to be seen.
    pub server_unseen: Option<String>,
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
    /// Why it was.
    pub bottlenecks: Vec<String>,
    /// All runs, where the server was compared with others; this report is the first of its own.
    pub compared: Option<Box<Comparison>>,
}

/// The measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    pub seconds: f64,
    /// WebSocket messages of any kind.
    pub messages_per_second: f64,
    pub packets_per_second: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// From the packet's `ts_send`.
    pub latency_send: Latency,
    /// From the record's [`Origin`].
    pub latency_recv: Latency,
    /// What `latency_recv` is counted from: `scheduled`, when our publisher meant to publish it, or `received`, the
    /// server's `ts_recv`.
    pub latency_origin: Origin,
    /// The histogram of `latency_recv`: HdrHistogram's V2 serialization in base64.
    pub latency_histogram: Ages,
    /// Packets whose `ts_send` was later than our clock: the machines' clocks differ.
    pub from_future: u64,
    pub gaps: u64,
    /// Records that the gaps say are missing.
    pub lost: u64,
    pub conflated: u64,
}

/// Many connects at once while the others are measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Storm {
    pub asked: u64,
    pub connected: u64,
    pub refused: u64,
    pub seconds: f64,
    pub accepts_per_second: f64,
    /// Of the records that steady clients got while it lasted.
    pub live_latency: Latency,
}

/// The run's own publisher, in the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Publisher {
    /// Records a second that were asked for.
    pub rate: u64,
    pub records: u64,
    pub records_per_second: f64,
    /// How late records went out by our own doing.
    pub lateness: Latency,
    /// How late those went out that the server had no room for.
    pub held_lateness: Latency,
    /// How long the server had no room for more.
    pub held_seconds: f64,
    /// CPU time of its thread, over the whole run.
    pub cpu_seconds: f64,
}

/// What the server's process took in the measured time, as the system tells it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Server {
    pub pid: u32,
    /// CPU time of all its threads, in cores.
    pub cores: f64,
    /// A delivery is a record that a client received.
    pub cpu_ns_per_delivery: f64,
    pub cpu_ns_per_message: f64,
    pub memory_bytes: u64,
    /// What the memory grew by from before the first connect to after the last, for each.
    pub memory_bytes_per_connection: f64,
    /// Busy share of each core of the machine, by its number.
    pub core_load: BTreeMap<usize, f64>,
}

/// What one thread received in the measured time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    pub seconds: f64,
    pub bytes: u64,
    pub messages: u64,
    pub counters: Counters,
    pub meter: Meter,
    /// The part of it that fell into a storm.
    pub meter_in_storm: Meter,
    pub cpu_seconds: f64,
    pub starved_seconds: f64,
}

impl Report {
    /// Puts the threads' findings together; the windows are for [`Self::measure`].
    pub fn gather(&mut self, tallies: Vec<Tally>, storm_asked: u64) -> Vec<Window> {
        let (mut joins, mut storm, mut delivered) = (Joins::default(), job::Storm::default(), Delivered::default());
        let mut windows = Vec::new();
        for tally in tallies {
            self.connected += tally.connected;
            self.connect_seconds = self.connect_seconds.max(tally.connect_seconds);
            self.sequence_violations += tally.violations;
            self.first_violation = self.first_violation.take().or(tally.first_violation);
            self.churned += tally.churned;
            joins.upgraded.add(&tally.joins.upgraded);
            joins.first_data.add(&tally.joins.first_data);
            storm.connected += tally.storm.connected;
            storm.refused += tally.storm.refused;
            storm.seconds = storm.seconds.max(tally.storm.seconds);
            delivered.add(&tally.delivered);
            let maps = [
                (&mut self.refused, tally.refused),
                (&mut self.rejected, tally.rejected),
                (&mut self.malformed, tally.malformed),
                (&mut self.closes, tally.closes),
            ];
            for (sum, part) in maps {
                for (what, count) in part {
                    *sum.entry(what).or_default() += count;
                }
            }
            windows.push(tally.window);
        }
        self.connects_per_second = self.connected as f64 / self.connect_seconds.max(1e-9);
        (self.upgraded, self.first_data) = (joins.upgraded.summary(), joins.first_data.summary());
        self.delivered = (delivered.clients > 0).then_some(delivered);
        self.storm = (storm_asked > 0).then(|| Storm {
            asked: storm_asked,
            connected: storm.connected,
            refused: storm.refused,
            seconds: storm.seconds,
            accepts_per_second: storm.connected as f64 / storm.seconds.max(1e-9),
            live_latency: Latency::default(),
        });
        windows
    }

    /// Puts the threads' windows together, and decides whether they are worth anything. The publisher's part has to be
    /// there before.
    pub fn measure(&mut self, windows: &[Window]) {
        let mut sum = Measured::default();
        let origin = windows.first().map_or(Origin::Received, |window| window.meter.origin());
        let (mut meter, mut in_storm) = (Meter::new(origin), Meter::new(origin));
        for window in windows {
            let seconds = window.seconds.max(1e-9);
            sum.seconds = sum.seconds.max(window.seconds);
            sum.messages_per_second += window.messages as f64 / seconds;
            sum.packets_per_second += window.counters.packets as f64 / seconds;
            sum.records_per_second += window.counters.records as f64 / seconds;
            sum.bytes_per_second += window.bytes as f64 / seconds;
            sum.gaps += window.counters.gaps;
            sum.lost += window.counters.lost;
            sum.conflated += window.counters.conflated;
            meter.add(&window.meter);
            in_storm.add(&window.meter_in_storm);
            self.judge_thread(window.cpu_seconds / seconds, window.starved_seconds / seconds);
        }
        meter.settle();
        (sum.latency_send, sum.latency_recv, sum.from_future) = (meter.send(), meter.recv(), meter.from_future());
        (sum.latency_origin, sum.latency_histogram) = (origin, meter.recv_ages().clone());
        if let Some(storm) = &mut self.storm {
            storm.live_latency = in_storm.recv();
        }
        self.judge_publisher();
        self.generator_was_the_bottleneck = !self.bottlenecks.is_empty();
        self.measured = (!self.generator_was_the_bottleneck).then_some(sum);
    }

    /// A thread that was never idle is behind, whether it computed or waited for a core to compute on.
    fn judge_thread(&mut self, busy: f64, starved: f64) {
        self.generator_cores += busy;
        self.generator_busiest_share = self.generator_busiest_share.max(busy);
        self.generator_starved_share = self.generator_starved_share.max(starved);
        let (busy_percent, starved_percent) = (busy * 100.0, starved * 100.0);
        if busy > BUSY_SHARE_MAX {
            self.bottlenecks.push(format!(
                "a thread of it computed {busy_percent:.0} % of the time; give it more --threads or --processes, fewer \
                 --clients, or a machine of its own"
            ));
        } else if busy + starved > BUSY_SHARE_MAX && starved > STARVED_SHARE_MAX {
            self.bottlenecks.push(format!(
                "a thread of it computed {busy_percent:.0} % of the time and waited {starved_percent:.0} % for a core; \
                 give it cores that nobody else uses (--load-cores), or fewer --clients"
            ));
        }
    }

    fn judge_publisher(&mut self) {
        let Some(publisher) = &self.publisher else { return };
        let late = publisher.lateness.p99_ns;
        let held_share_max = 0.01;
        let was_held =
            publisher.held_seconds > held_share_max * publisher.records as f64 / publisher.rate.max(1) as f64;
        if late > LATENESS_P99_MAX_NS {
            let late = duration_text(late);
            self.bottlenecks.push(format!(
                "one record in a hundred was published {late} after its time or later; give the publisher a core that \
                 nobody else uses, or ask for a lower --publish rate"
            ));
        } else if publisher.records_per_second < RATE_SHARE_MIN * publisher.rate as f64 && !was_held {
            self.bottlenecks.push(format!(
                "it published {}/s of the {}/s that were asked for, and the server did not hold it up",
                count_text(publisher.records_per_second),
                count_text(publisher.rate as f64)
            ));
        }
    }

    /// 0 all is well, 3 the generator was the bottleneck in any run, 4 a stream of the server broke its promise.
    pub fn exit_code(&self) -> u8 {
        let compared = self.compared.iter().flat_map(|comparison| &comparison.runs);
        let of_run = |row: &Row| match row.report.own_exit_code() {
            // That others lose records is what the comparison shows.
            4 if row.name != MEASURED => 0,
            code => code,
        };
        compared.map(of_run).fold(self.own_exit_code(), u8::max)
    }

    fn own_exit_code(&self) -> u8 {
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
        if let Some(publisher) = &self.publisher {
            push_publisher(publisher, &mut out);
        }
        match &self.measured {
            Some(measured) => self.push_result(measured, &mut out),
            None => self.push_bottleneck(&mut out),
        }
        self.push_findings(&mut out);
        if let Some(comparison) = &self.compared {
            out += &comparison.text();
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
        for super::attack::Count { kind, opened, failed, ended, actions } in &self.attack {
            let text =
                format!("{kind:?}: {actions} actions, {opened} opened, {failed} failed, {ended} ended by the server");
            line(out, "attack", &text);
        }
        push_map(out, "refused", &self.refused);
        push_map(out, "rejected", &self.rejected);
    }

    fn push_result(&self, measured: &Measured, out: &mut String) {
        push_measured(measured, out);
        line(out, "upgraded", &latency_text(&self.upgraded));
        line(out, "first data", &latency_text(&self.first_data));
        if let Some(storm) = &self.storm {
            let Storm { asked, connected, seconds, accepts_per_second, live_latency, .. } = storm;
            let text = format!("{connected} of {asked} connected in {seconds:.2} s ({accepts_per_second:.0}/s)");
            line(out, "storm", &text);
            line(out, "  others then", &latency_text(live_latency));
        }
        if self.churned > 0 {
            line(out, "churn", &format!("{} left abruptly and were replaced", self.churned));
        }
        match (&self.server, &self.server_unseen) {
            (Some(server), _) => push_server(server, out),
            (None, Some(why)) => line(out, "server", &format!("not seen: {why}")),
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

fn push_publisher(publisher: &Publisher, out: &mut String) {
    let rate = count_text(publisher.records_per_second);
    let Latency { p99_ns, max_ns, .. } = publisher.lateness;
    let late = format!("late p99 {} max {}", duration_text(p99_ns), duration_text(max_ns));
    line(out, "published", &format!("{rate}/s of {}/s, {late}", count_text(publisher.rate as f64)));
    if publisher.held_lateness.count > 0 {
        let Latency { count, max_ns, .. } = publisher.held_lateness;
        let (seconds, late) = (publisher.held_seconds, duration_text(max_ns));
        line(out, "", &format!("the server took no more for {seconds:.2} s: {count} records up to {late} late"));
    }
}

fn push_server(server: &Server, out: &mut String) {
    let Server { cores, cpu_ns_per_delivery, cpu_ns_per_message, memory_bytes_per_connection, .. } = server;
    let each = format!("{cpu_ns_per_delivery:.0} ns a delivery, {cpu_ns_per_message:.0} ns a message");
    line(out, "server", &format!("{cores:.2} cores, {each}"));
    let memory = server.memory_bytes as f64 / 1e6;
    let text = format!("{memory:.1} MB, {:.1} KB a connection", memory_bytes_per_connection / 1e3);
    line(out, "memory", &text);
    let cores: Vec<_> = server.core_load.iter().map(|(core, load)| format!("{core}: {:.0} %", load * 100.0)).collect();
    line(out, "cores", &cores.join("  "));
}

fn push_delivered(delivered: &Delivered, out: &mut String) {
    let Delivered { clients, expected, received, merged, lost, missing, clients_short } = *delivered;
    line(out, "delivered", &format!("{received} of {expected} records to {clients} steady clients"));
    line(out, "", &format!("{merged} merged into later ones, {lost} announced as lost, {missing} missing"));
    if clients_short > 0 {
        line(out, "", &format!("{clients_short} clients miss some"));
    }
}

fn push_measured(measured: &Measured, out: &mut String) {
    line(out, "measured", &format!("{:.1} s", measured.seconds));
    if measured.packets_per_second == measured.messages_per_second || measured.messages_per_second == 0.0 {
        line(out, "packets", &format!("{}/s", count_text(measured.packets_per_second)));
    } else {
        let packets = count_text(measured.packets_per_second);
        line(out, "messages", &format!("{}/s, {packets}/s of them packets", count_text(measured.messages_per_second)));
    }
    line(out, "records", &format!("{}/s", count_text(measured.records_per_second)));
    line(out, "bytes", &format!("{:.2} MB/s", measured.bytes_per_second / 1e6));
    if measured.latency_origin == Origin::Scheduled {
        line(out, "from schedule", &latency_text(&measured.latency_recv));
    }
    line(out, "from ts_send", &latency_text(&measured.latency_send));
    if measured.latency_origin == Origin::Received {
        line(out, "from ts_recv", &latency_text(&measured.latency_recv));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::packet::PacketHeader;

    fn window(cpu_seconds: f64) -> Window {
        let counters = Counters { packets: 200, records: 3_000, gaps: 1, lost: 6, conflated: 4, ..Counters::default() };
        let mut meter = Meter::default();
        meter.packet(50_000, &PacketHeader { flags: 0, count: 0, epoch: 1, position: 1, ts_send: 30_000 });
        Window { seconds: 2.0, bytes: 500_000, messages: 200, counters, meter, cpu_seconds, ..Window::default() }
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
from ts_recv  none
gaps          2 (12 records missing)
conflated     8
upgraded      none
first data    none
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
        let report = report(&[window(0.1), window(1.96)]);
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
    fn a_thread_that_was_never_idle_is_a_bottleneck_even_where_it_only_waited() {
        let behind = report(&[Window { starved_seconds: 0.96, ..window(1.0) }]);
        assert_eq!((behind.measured.is_none(), behind.exit_code()), (true, 3));
        assert!(behind.text().contains("computed 50 % of the time and waited 48 % for a core"), "{}", behind.text());
        let idle_often = report(&[Window { starved_seconds: 0.7, ..window(1.0) }]);
        assert_eq!(idle_often.exit_code(), 0, "85 % leave it room to catch up");
    }

    fn with_publisher(records_per_second: f64, late_ns: u64, held_seconds: f64) -> Report {
        let lateness = Latency { count: 100, p99_ns: late_ns, ..Latency::default() };
        let records = (records_per_second * 2.0) as u64;
        let publisher =
            Publisher { rate: 1000, records, records_per_second, lateness, held_seconds, ..Publisher::default() };
        let mut report = Report { connected: 1, publisher: Some(publisher), ..Report::default() };
        report.measure(&[window(0.5)]);
        report
    }

    #[test]
    fn a_late_or_slow_publisher_is_a_bottleneck_and_one_that_the_server_holds_is_not() {
        for (rate, late_ns, held, code) in [
            (1000.0, 4_000_000, 0.0, 0),
            (1000.0, 6_000_000, 0.0, 3),
            (980.0, 1_000, 0.0, 3),
            (980.0, 1_000, 0.5, 0),
            (995.0, 1_000, 0.0, 0),
        ] {
            let report = with_publisher(rate, late_ns, held);
            assert_eq!(report.exit_code(), code, "{rate} {late_ns} {held}: {}", report.text());
        }
        assert!(with_publisher(1000.0, 6_000_000, 0.0).text().contains("published 6.00ms after its time"));
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
