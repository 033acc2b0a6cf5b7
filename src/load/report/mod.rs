//! What a load run found: as text, as one JSON object, or as a plot.
//!
//! Rates are reported only where they are the server's: where the load generator's own threads were the bottleneck, the
//! report states that instead.

pub mod attacks;
mod bottleneck;
pub mod comparison;
pub mod plot;
#[cfg(test)]
mod tests;
mod text;
pub mod timeline;

use std::collections::BTreeMap;

use serde::Serialize;

use self::attacks::AttackReport;
use self::timeline::{ClassKinds, TimelineRow, live_latency};
use crate::load::latency::{LatencyHistogram, LatencyMeter, LatencyOrigin, LatencySummary};
use crate::load::observe::server::ServerUsage;
use crate::load::slow_clients::Pause;
use crate::load::worker::messages::{ConnectTimes, DeliveryCounts, MeasuredWindow, StormTally, WorkerTally};

/// The name of the measured server in a comparison.
pub const MEASURED: &str = "tickcast";

/// The results of one run; the JSON report has these fields. Times are in ns where a name ends in `_ns`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    pub url: String,
    pub clients: u64,
    pub stalled: u64,
    /// The time in which clients did not read, where there was one.
    pub pause: Option<PauseReport>,
    /// Clients with a read rate, where there were some. Other fields are about all clients, unless they name steady
    /// clients.
    pub limited: Option<LimitedReport>,
    pub connected: u64,
    /// Connections that failed, by the message of the server or the kernel.
    pub refused: BTreeMap<String, u64>,
    /// Subscriptions that the server answered with an error, by message.
    pub rejected: BTreeMap<String, u64>,
    /// From the first connect to the last upgrade.
    pub connect_seconds: f64,
    pub connects_per_second: f64,
    /// From the connect to the answer of the upgrade, of all connections.
    pub upgraded: LatencySummary,
    /// From the connect to the first data, of all connections that received some.
    pub first_data: LatencySummary,
    /// The storm, where there was one.
    pub storm: Option<StormReport>,
    /// Connections that were reset and replaced.
    pub churned: u64,
    /// The attack of the run, where there was one.
    pub attack: Option<AttackReport>,
    /// The run's own publisher, where there was one.
    pub publisher: Option<PublisherReport>,
    /// What steady clients should have received of it, and what they received.
    pub delivered: Option<DeliveryCounts>,
    /// What was received in the measured time; `None` where the load generator was the bottleneck.
    pub measured: Option<Measurement>,
    /// What the server used for it; `None` where its process cannot be observed.
    pub server: Option<ServerUsage>,
    /// Why the server's process cannot be observed.
    pub server_unseen: Option<String>,
    /// Breaks of the sequence rule, over the whole run.
    pub sequence_violations: u64,
    pub first_violation: Option<String>,
    /// Connections that sent a malformed packet, by what was wrong.
    pub malformed: BTreeMap<String, u64>,
    /// Connections of clients without a read rate that the server ended before the run did, by close code.
    pub closes: BTreeMap<String, u64>,
    /// CPU time of the load threads together, in cores.
    pub generator_cores: f64,
    /// The share of the time that the busiest thread was on a core.
    pub generator_busiest_share: f64,
    /// The largest share of the time that a thread waited for a core.
    pub generator_starved_share: f64,
    pub generator_was_the_bottleneck: bool,
    /// Why.
    pub bottlenecks: Vec<String>,
}

/// What was received in the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurement {
    pub seconds: f64,
    /// WebSocket messages of any kind.
    pub messages_per_second: f64,
    pub packets_per_second: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// Counted from the packet's `ts_send`.
    pub latency_send: LatencySummary,
    /// Counted from the record's [`LatencyOrigin`].
    pub latency_recv: LatencySummary,
    /// The origin of `latency_recv`: `scheduled`, the due time of the run's publisher, or `received`, the server's
    /// `ts_recv`.
    pub latency_origin: LatencyOrigin,
    /// The histogram of `latency_recv`: HdrHistogram's V2 serialization in base64.
    pub latency_histogram: LatencyHistogram,
    /// Packets whose `ts_send` was later than this machine's clock: the clocks differ.
    pub from_future: u64,
    /// Gap records to clients without a read rate.
    pub gaps: u64,
    /// Records that the gaps announce as missing.
    pub lost: u64,
    /// Records to clients without a read rate that stand for others as well.
    pub conflated: u64,
    /// Second by second.
    pub timeline: Vec<TimelineRow>,
}

/// A time in which clients did not read.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PauseReport {
    #[serde(flatten)]
    pub times: Pause,
    /// How many of them.
    pub clients: u64,
    /// Ages of the records that the other steady clients received from the end of the pause on, until twice its length
    /// later and at least for two seconds; `None` where all clients pause.
    pub live_latency: Option<LatencySummary>,
}

/// Clients that read at most so many bytes a second, in the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LimitedReport {
    /// What each of them may read.
    pub read_bytes_per_second: u64,
    pub clients: u64,
    /// What all of them together received.
    pub bytes_per_second: f64,
    pub records_per_second: f64,
    /// How old their records were when they read them, see [`Measurement::latency_recv`].
    pub latency: LatencySummary,
    pub gaps: u64,
    /// Records that the gaps announce as missing.
    pub lost: u64,
    pub conflated: u64,
    /// Those that the server ended before the run did, by close code, over the whole run.
    pub closes: BTreeMap<String, u64>,
}

/// Many connects at once while the steady clients are measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StormReport {
    pub asked: u64,
    pub connected: u64,
    pub refused: u64,
    pub seconds: f64,
    pub accepts_per_second: f64,
    /// Of the records that steady clients received during the storm.
    pub live_latency: LatencySummary,
}

/// The run's own publisher, in the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PublisherReport {
    /// The requested records a second.
    pub rate: u64,
    pub records: u64,
    pub records_per_second: f64,
    /// How late records were sent because of the publisher itself.
    pub lateness: LatencySummary,
    /// How late records were sent because of the server's backpressure.
    pub held_lateness: LatencySummary,
    /// How long the server's backpressure blocked the publisher.
    pub held_seconds: f64,
    /// CPU time of its thread, over the whole run.
    pub cpu_seconds: f64,
}

impl LimitedReport {
    fn measure(&mut self, windows: &[MeasuredWindow], origin: LatencyOrigin) {
        let mut meter = LatencyMeter::new(origin);
        for window in windows {
            let (counters, seconds) = (&window.limited_counters, window.seconds.max(1e-9));
            self.bytes_per_second += window.limited_bytes as f64 / seconds;
            self.records_per_second += counters.records as f64 / seconds;
            self.gaps += counters.gaps;
            self.lost += counters.lost;
            self.conflated += counters.conflated;
            meter.add(&window.limited_meter);
        }
        self.latency = meter.recv();
    }
}

impl LoadReport {
    /// Adds up the results of all threads, and returns their windows for [`Self::measure`]. `limited` has to be set before.
    pub fn gather(&mut self, tallies: Vec<WorkerTally>, storm_asked: u64) -> Vec<MeasuredWindow> {
        let (mut connect_times, mut storm, mut delivered) =
            (ConnectTimes::default(), StormTally::default(), DeliveryCounts::default());
        let mut windows = Vec::new();
        for tally in tallies {
            self.connected += tally.connected;
            self.connect_seconds = self.connect_seconds.max(tally.connect_seconds);
            self.sequence_violations += tally.violations;
            self.first_violation = self.first_violation.take().or(tally.first_violation);
            self.churned += tally.churned;
            connect_times.upgraded.add(&tally.connect_times.upgraded);
            connect_times.first_data.add(&tally.connect_times.first_data);
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
            let limited = self.limited.as_mut().map(|limited| (&mut limited.closes, tally.limited_closes));
            for (sum, part) in maps.into_iter().chain(limited) {
                for (what, count) in part {
                    *sum.entry(what).or_default() += count;
                }
            }
            windows.push(tally.window);
        }
        self.connects_per_second = self.connected as f64 / self.connect_seconds.max(1e-9);
        (self.upgraded, self.first_data) = (connect_times.upgraded.summary(), connect_times.first_data.summary());
        self.delivered = (delivered.clients > 0).then_some(delivered);
        self.storm = (storm_asked > 0).then(|| StormReport {
            asked: storm_asked,
            connected: storm.connected,
            refused: storm.refused,
            seconds: storm.seconds,
            accepts_per_second: storm.connected as f64 / storm.seconds.max(1e-9),
            live_latency: LatencySummary::default(),
        });
        windows
    }

    /// Adds up the threads' windows, and decides whether they are valid. `publisher`, `pause`, `limited` and
    /// `attack` have to be set before.
    /// Records were due for `measured_seconds`; `due` says how many were due at a time, in ns since the Unix epoch.
    pub fn measure(&mut self, windows: &[MeasuredWindow], measured_seconds: usize, due: Option<&dyn Fn(u64) -> u64>) {
        let mut sum = Measurement::default();
        let origin = windows.first().map_or(LatencyOrigin::Received, |window| window.meter.origin());
        let (mut meter, mut in_storm) = (LatencyMeter::new(origin), LatencyMeter::new(origin));
        for window in windows {
            let seconds = window.seconds.max(1e-9);
            sum.seconds = sum.seconds.max(window.seconds);
            sum.messages_per_second += window.messages as f64 / seconds;
            sum.packets_per_second += window.counters.packets as f64 / seconds;
            sum.records_per_second += window.counters.records as f64 / seconds;
            sum.bytes_per_second += window.bytes as f64 / seconds;
            sum.gaps += window.counters.gaps - window.limited_counters.gaps;
            sum.lost += window.counters.lost - window.limited_counters.lost;
            sum.conflated += window.counters.conflated - window.limited_counters.conflated;
            meter.add(&window.meter);
            in_storm.add(&window.meter_in_storm);
            self.judge_thread(window, measured_seconds);
        }
        meter.settle();
        (sum.latency_send, sum.latency_recv, sum.from_future) = (meter.send(), meter.recv(), meter.from_future());
        (sum.latency_origin, sum.latency_histogram) = (origin, meter.recv_ages().clone());
        let has_live = self.pause.is_some_and(|pause| pause.live_latency.is_some());
        let kinds = ClassKinds { has_limited: self.limited.is_some(), has_live };
        sum.timeline = timeline::timeline(windows, kinds, due);
        if let Some(pause) = self.pause.as_mut().filter(|_| has_live) {
            pause.live_latency = Some(live_latency(windows, bottleneck::recovery(&pause.times)));
        }
        if let Some(limited) = &mut self.limited {
            limited.measure(windows, origin);
        }
        if let Some(storm) = &mut self.storm {
            storm.live_latency = in_storm.recv();
        }
        self.judge_publisher();
        self.generator_was_the_bottleneck = !self.bottlenecks.is_empty();
        self.measured = (!self.generator_was_the_bottleneck).then_some(sum);
        if let (Some(attack), Some(_)) = (&mut self.attack, &self.measured) {
            attack.measure(windows);
        }
    }

    /// The exit code that this run alone asks for, see [`comparison::LoadOutcome::exit_code`].
    pub fn exit_code(&self) -> u8 {
        match () {
            () if self.sequence_violations > 0 || !self.malformed.is_empty() => 4,
            () if self.generator_was_the_bottleneck => 3,
            () => 0,
        }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}
