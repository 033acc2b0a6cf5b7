//! How old packets and records are when they arrive: histograms of the time from a packet's `ts_send`, and from each
//! record's [`LatencyOrigin`].
//!
//! Latencies from the server's timestamps are differences of two clocks: they are valid on one machine, or between
//! machines with synchronized clocks. Packets from the future are counted. Snapshots and replays are old by nature and
//! are left out. Cost: about 5 ns a value, 1 ns where it equals the one before; 3 significant digits up to 10 minutes,
//! about 500 KB a meter.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{RecordHeader, flags};
use tickcast_protocol::{Channel, RecordKind};

/// The longest duration that a histogram tells from longer ones: 10 minutes.
const DURATION_NS_MAX: u64 = 600_000_000_000;

/// The time from which the age of a record is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyOrigin {
    /// Its `ts_recv`: contains the way through the server and this client, not the wait before the server.
    #[default]
    Received,
    /// Its `ts_event`, which the run's own publisher sets to its due time: contains every wait.
    Scheduled,
}

/// Records latencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyMeter {
    origin: LatencyOrigin,
    /// From the packet's `ts_send`: the way through the kernel and this client.
    send: LatencyHistogram,
    /// From each record's origin.
    recv: LatencyHistogram,
    /// An age that came several times in a row, and how often: records of one packet often share it.
    run: (u64, u64),
    /// Packets that arrived before their `ts_send`: the clocks differ.
    from_future: u64,
}

/// A histogram of durations: ns, 3 significant digits, up to 10 minutes. Its text is HdrHistogram's V2 serialization in
/// base64, which the tools of that library in other languages read as well.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LatencyHistogram(pub Histogram<u64>);

/// The same with 2 significant digits from 1 µs on: for very many of them. 23 KB.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CoarseHistogram(Histogram<u64>);

/// A histogram in a few numbers, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many values; the other fields mean nothing where this is 0.
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Default for LatencyMeter {
    fn default() -> Self {
        Self::new(LatencyOrigin::Received)
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, DURATION_NS_MAX, 3).expect("bounds that hdrhistogram takes, by its docs"))
    }
}

impl LatencyHistogram {
    /// Records a duration.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds the values of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The histogram in a few numbers.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary::of(&self.0)
    }
}

impl Default for CoarseHistogram {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1_000, DURATION_NS_MAX, 2).expect("bounds that hdrhistogram takes, by its docs"),
        )
    }
}

impl CoarseHistogram {
    /// Adds the values of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// Adds the values of a finer one.
    pub fn add_fine(&mut self, other: &LatencyHistogram) {
        self.0.add(&other.0).expect("the other's bounds lie within these");
    }

    /// The histogram in a few numbers.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary::of(&self.0)
    }
}

impl LatencySummary {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: histogram.max(),
        }
    }
}

impl std::fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary().fmt(f)
    }
}

impl std::fmt::Debug for CoarseHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary().fmt(f)
    }
}

impl From<LatencyHistogram> for String {
    fn from(ages: LatencyHistogram) -> Self {
        to_base64(&ages.0)
    }
}

impl From<CoarseHistogram> for String {
    fn from(ages: CoarseHistogram) -> Self {
        to_base64(&ages.0)
    }
}

impl TryFrom<String> for LatencyHistogram {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut ages = Self::default();
        add_base64(&mut ages.0, text)?;
        Ok(ages)
    }
}

impl TryFrom<String> for CoarseHistogram {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut ages = Self::default();
        add_base64(&mut ages.0, text)?;
        Ok(ages)
    }
}

fn to_base64(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a Vec takes all");
    BASE64_STANDARD.encode(bytes)
}

fn add_base64(histogram: &mut Histogram<u64>, text: String) -> Result<(), String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| format!("histogram: {error}"))?;
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| format!("histogram: {error:?}"))?;
    histogram.add(&read).map_err(|error| format!("histogram: {error}"))
}

impl LatencyMeter {
    /// A meter that counts the age of records from `origin`.
    pub fn new(origin: LatencyOrigin) -> Self {
        Self {
            origin,
            send: LatencyHistogram::default(),
            recv: LatencyHistogram::default(),
            run: (0, 0),
            from_future: 0,
        }
    }

    /// Records a packet that arrived at `now_ns`, unless it has no `ts_send`.
    #[inline]
    pub fn packet(&mut self, now_ns: u64, packet: &PacketHeader) {
        let before_live = packet.flags & (packet::flags::SNAPSHOT | packet::flags::REPLAY) != 0;
        if !before_live && packet.ts_send != 0 {
            self.from_future += u64::from(packet.ts_send > now_ns);
            self.send.record(now_ns.saturating_sub(packet.ts_send));
        }
    }

    /// Records the age of a record that arrived at `now_ns`.
    pub fn record(&mut self, now_ns: u64, header: &RecordHeader) {
        if channel_of(header).is_some() {
            self.age(now_ns, header);
        }
    }

    /// The same for a record that is known to belong to a channel. The histogram contains it after the next
    /// [`Self::settle`].
    #[inline]
    pub fn age(&mut self, now_ns: u64, header: &RecordHeader) {
        let since = if self.origin == LatencyOrigin::Scheduled { header.ts_event } else { header.ts_recv };
        if header.flags & flags::SNAPSHOT != 0 || since == 0 {
            return;
        }
        let age = now_ns.saturating_sub(since);
        if age != self.run.0 {
            self.settle();
            self.run.0 = age;
        }
        self.run.1 += 1;
    }

    /// Moves the ages of the current run into the histogram.
    #[inline]
    pub fn settle(&mut self) {
        let (age, count) = std::mem::take(&mut self.run);
        if count > 0 {
            self.recv.0.saturating_record_n(age, count);
        }
    }

    /// Adds the values of another.
    pub fn add(&mut self, other: &Self) {
        self.send.add(&other.send);
        self.recv.add(&other.recv);
        if other.run.1 > 0 {
            self.recv.0.saturating_record_n(other.run.0, other.run.1);
        }
        self.from_future += other.from_future;
    }

    /// True where nothing has been recorded.
    pub fn is_empty(&self) -> bool {
        self.send.0.is_empty() && self.recv.0.is_empty() && self.run.1 == 0
    }

    /// Removes all values and keeps the memory.
    pub fn clear(&mut self) {
        self.send.0.reset();
        self.recv.0.reset();
        self.run = (0, 0);
        self.from_future = 0;
    }

    /// From `ts_send`.
    pub fn send(&self) -> LatencySummary {
        self.send.summary()
    }

    /// From the records' [`LatencyOrigin`].
    pub fn recv(&self) -> LatencySummary {
        if self.run.1 == 0 {
            return self.recv.summary();
        }
        let mut whole = self.clone();
        whole.settle();
        whole.recv.summary()
    }

    /// The ages of records, as far as they are settled.
    pub fn recv_ages(&self) -> &LatencyHistogram {
        &self.recv
    }

    /// The origin of [`Self::recv`].
    pub fn origin(&self) -> LatencyOrigin {
        self.origin
    }

    /// Packets whose `ts_send` was later than this machine's clock.
    pub fn from_future(&self) -> u64 {
        self.from_future
    }
}

/// The channel that a record belongs to, if any.
pub fn channel_of(header: &RecordHeader) -> Option<Channel> {
    RecordKind::from_wire(header.kind)?.channel()
}

/// The wall clock, ns since the Unix epoch: run, publisher and worker processes have it in common.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_763_691_200_000_000_000;

    fn packet(flags: u8, ts_send: u64) -> PacketHeader {
        PacketHeader { flags, count: 1, epoch: 1, position: 1.into(), ts_send }
    }

    #[test]
    fn latencies_count_from_both_timestamps_without_snapshots() {
        let mut meter = LatencyMeter::default();
        meter.packet(NOW_NS, &packet(0, NOW_NS - 10_000));
        meter.packet(NOW_NS, &packet(packet::flags::SNAPSHOT, NOW_NS - 90_000_000_000));
        let mut header = RecordHeader::of_feed(RecordKind::Quote, 1, 0);
        header.ts_recv = NOW_NS - 50_000;
        meter.record(NOW_NS, &header);
        header.ts_recv = NOW_NS - 90_000_000_000;
        meter.record(NOW_NS, &header.with_flags(flags::SNAPSHOT));
        let near = |ns: u64, want: u64| ns.abs_diff(want) <= want / 500;
        assert_eq!((meter.send().count, meter.recv().count), (1, 1));
        assert!(near(meter.send().p50_ns, 10_000) && near(meter.send().max_ns, 10_000), "{:?}", meter.send());
        assert!(near(meter.recv().p999_ns, 50_000) && near(meter.recv().max_ns, 50_000), "{:?}", meter.recv());
    }

    #[test]
    fn packets_from_the_future_are_counted() {
        let mut meter = LatencyMeter::default();
        meter.packet(NOW_NS, &packet(0, NOW_NS + 1));
        assert_eq!((meter.from_future(), meter.send().max_ns), (1, 0));
        let mut sum = LatencyMeter::default();
        sum.add(&meter);
        assert_eq!(sum.from_future(), 1);
        sum.clear();
        assert_eq!(sum.from_future(), 0);
    }

    #[test]
    fn a_scheduled_meter_counts_from_ts_event_and_keeps_repeated_ages() {
        let mut meter = LatencyMeter::new(LatencyOrigin::Scheduled);
        let mut header = RecordHeader::of_feed(RecordKind::Raw, 1, NOW_NS - 20_000);
        header.ts_recv = NOW_NS - 5_000;
        for _ in 0..3 {
            meter.age(NOW_NS, &header);
        }
        header.ts_event = NOW_NS - 90_000;
        meter.age(NOW_NS, &header);
        header.ts_event = 0;
        meter.age(NOW_NS, &header);
        let latency = meter.recv();
        assert_eq!((latency.count, latency.p50_ns / 100, latency.max_ns / 100), (4, 200, 900));
        meter.settle();
        let text = serde_json::to_string(&meter).expect("numbers and text");
        let back: LatencyMeter = serde_json::from_str(&text).expect("what was written");
        assert_eq!((back.recv(), back.origin()), (latency, LatencyOrigin::Scheduled));
        let mut sum = LatencyMeter::new(LatencyOrigin::Scheduled);
        sum.add(&back);
        assert_eq!(sum.recv(), latency);
        let mut coarse = CoarseHistogram::default();
        coarse.add_fine(back.recv_ages());
        let coarse = CoarseHistogram::try_from(String::from(coarse)).expect("what was written").summary();
        let near = |one: u64, other: u64| one.abs_diff(other) <= 1_000 + other / 100;
        assert!(near(coarse.p50_ns, latency.p50_ns) && near(coarse.max_ns, latency.max_ns), "{coarse:?}");
        assert_eq!(coarse.count, latency.count);
        for bad in ["!", "AAAA", ""] {
            assert!(LatencyHistogram::try_from(bad.to_owned()).is_err(), "{bad:?}");
            assert!(CoarseHistogram::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
