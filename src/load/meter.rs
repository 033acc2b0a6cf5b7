//! How old the stream is when it arrives: histograms of `ts_send` → now and `ts_recv` → now.
//!
//! Both are differences of the server's clock and ours, so they mean something only on one machine, or where clocks
//! are kept together; packets from the future are counted. State before live (SNAPSHOT, REPLAY) is old by nature and
//! is left out. Cost: some 5 ns a value; 3 significant digits up to 10 minutes, about 500 KB a meter.

use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::market::record::{Header, flags};
use crate::market::{Channel, Kind};
use crate::wire::packet::{self, PacketHeader};

/// Records latencies.
#[derive(Clone, Debug)]
pub struct Meter {
    /// From the packet's `ts_send`: the way through the kernel and this client.
    send: Histogram<u64>,
    /// From each record's `ts_recv`: the whole way through the server.
    recv: Histogram<u64>,
    /// Packets that came before they were sent: the clocks differ.
    from_future: u64,
}

/// One histogram in a few numbers, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Values; the others mean nothing where this is 0.
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Default for Meter {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds that hdrhistogram takes, by its docs");
        Self { send: histogram(), recv: histogram(), from_future: 0 }
    }
}

impl Meter {
    /// Takes note of a packet that arrived at `now_ns`.
    pub fn packet(&mut self, now_ns: u64, packet: &PacketHeader) {
        if packet.flags & (packet::flags::SNAPSHOT | packet::flags::REPLAY) == 0 {
            self.from_future += u64::from(packet.ts_send > now_ns);
            self.send.saturating_record(now_ns.saturating_sub(packet.ts_send));
        }
    }

    /// Takes note of a record that arrived at `now_ns`.
    pub fn record(&mut self, now_ns: u64, header: &Header) {
        if header.flags & flags::SNAPSHOT == 0 && channel_of(header).is_some() {
            self.recv.saturating_record(now_ns.saturating_sub(header.ts_recv));
        }
    }

    /// Adds what another has recorded.
    pub fn add(&mut self, other: &Self) {
        self.send.add(&other.send).expect("all meters have the same bounds");
        self.recv.add(&other.recv).expect("all meters have the same bounds");
        self.from_future += other.from_future;
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.send.reset();
        self.recv.reset();
        self.from_future = 0;
    }

    /// From `ts_send`.
    pub fn send(&self) -> Latency {
        summary(&self.send)
    }

    /// From `ts_recv`.
    pub fn recv(&self) -> Latency {
        summary(&self.recv)
    }

    /// Packets whose `ts_send` was later than our clock.
    pub fn from_future(&self) -> u64 {
        self.from_future
    }
}

fn summary(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        count: histogram.len(),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns: histogram.max(),
    }
}

/// The channel that a record belongs to, where it belongs to one.
pub fn channel_of(header: &Header) -> Option<Channel> {
    Kind::from_wire(header.kind)?.channel()
}

/// Now, ns since the Unix epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration with three digits: `850ns`, `12.3us`, `4.56ms`, `1.20s`.
pub fn duration_text(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{}{name}", three_digits(ns as f64 / unit))
}

/// A count with three digits: `950`, `12.3 k`, `4.56 M`.
pub fn count_text(count: f64) -> String {
    match count {
        0.0..1e3 => format!("{count:.0} "),
        1e3..1e6 => format!("{} k", three_digits(count / 1e3)),
        1e6..1e9 => format!("{} M", three_digits(count / 1e6)),
        _ => format!("{} G", three_digits(count / 1e9)),
    }
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_763_691_200_000_000_000;

    fn packet(flags: u8, ts_send: u64) -> PacketHeader {
        PacketHeader { flags, count: 1, epoch: 1, position: 1, ts_send }
    }

    #[test]
    fn latencies_are_measured_from_both_stamps_and_state_before_live_is_left_out() {
        let mut meter = Meter::default();
        meter.packet(NOW_NS, &packet(0, NOW_NS - 10_000));
        meter.packet(NOW_NS, &packet(packet::flags::SNAPSHOT, NOW_NS - 90_000_000_000));
        let mut header = Header::of_feed(Kind::Quote, 1, 0);
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
        let mut meter = Meter::default();
        meter.packet(NOW_NS, &packet(0, NOW_NS + 1));
        assert_eq!((meter.from_future(), meter.send().max_ns), (1, 0));
        let mut sum = Meter::default();
        sum.add(&meter);
        assert_eq!(sum.from_future(), 1);
        sum.clear();
        assert_eq!(sum.from_future(), 0);
    }

    #[test]
    fn numbers_are_shown_with_three_digits() {
        let durations =
            [(0, "0ns"), (850, "850ns"), (12_340, "12.3us"), (4_560_000, "4.56ms"), (1_200_000_000, "1.20s")];
        for (ns, text) in durations {
            assert_eq!(duration_text(ns), text);
        }
        for (count, text) in [(950.0, "950 "), (12_340.0, "12.3 k"), (456_000_000.0, "456 M"), (2e9, "2.00 G")] {
            assert_eq!(count_text(count), text);
        }
    }
}
