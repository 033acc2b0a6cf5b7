use super::comparison::LoadOutcome;
use super::*;
use tickcast_client::decode::DecodeCounters;
use tickcast_protocol::packet::PacketHeader;

fn window(cpu_seconds: f64) -> MeasuredWindow {
    let counters =
        DecodeCounters { packets: 200, records: 3_000, gaps: 1, lost: 6, conflated: 4, ..DecodeCounters::default() };
    let mut meter = LatencyMeter::default();
    meter.packet(50_000, &PacketHeader { flags: 0, count: 0, epoch: 1, position: 1.into(), ts_send: 30_000 });
    MeasuredWindow {
        seconds: 2.0,
        bytes: 500_000,
        messages: 200,
        counters,
        meter,
        cpu_seconds,
        ..MeasuredWindow::default()
    }
}

fn report(windows: &[MeasuredWindow]) -> LoadReport {
    let mut report = LoadReport { clients: 10, connected: 9, connects_per_second: 900.0, ..LoadReport::default() };
    report.refused.insert("503 Service Unavailable: full".to_owned(), 1);
    report.closes.insert("4002 (slow consumer)".to_owned(), 2);
    report.measure(windows, 2, None);
    report
}

#[test]
fn the_text_has_one_line_a_figure() {
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
    let json: serde_json::Value =
        serde_json::from_str(&LoadOutcome { report: report.clone(), compared: None, attacked: None }.json())
            .expect("an object");
    assert_eq!((&json["measured"]["records_per_second"], &json["connected"]), (&3000.0.into(), &9.into()));
}

#[test]
fn a_busy_generator_reports_no_rates_and_exits_3() {
    let report = report(&[window(0.1), window(1.96)]);
    let text = report.text();
    assert!(text.contains("the load generator itself was the bottleneck"), "{text}");
    assert!(!text.contains("/s\n") && !text.contains("from ts_send"), "{text}");
    assert_eq!(report.exit_code(), 3);
    let json: serde_json::Value =
        serde_json::from_str(&LoadOutcome { report: report.clone(), compared: None, attacked: None }.json())
            .expect("an object");
    assert_eq!((&json["measured"], &json["generator_was_the_bottleneck"]), (&serde_json::Value::Null, &true.into()));
}

#[test]
fn a_thread_that_waited_for_a_core_is_reported() {
    let starved = MeasuredWindow { starved_seconds: 0.5, ..window(0.5) };
    assert!(report(&[starved]).text().contains("waited 25 % of the time for a core"));
    assert!(!report(&[window(0.5)]).text().contains("waited"));
}

#[test]
fn a_thread_that_was_never_idle_is_a_bottleneck() {
    let behind = report(&[MeasuredWindow { starved_seconds: 0.96, ..window(1.0) }]);
    assert_eq!((behind.measured.is_none(), behind.exit_code()), (true, 3));
    assert!(behind.text().contains("busy for 50 % of the time and waited 48 % for a core"), "{}", behind.text());
    let idle_often = report(&[MeasuredWindow { starved_seconds: 0.7, ..window(1.0) }]);
    assert_eq!(idle_often.exit_code(), 0, "15 % idle is enough to catch up");
}

#[test]
fn a_thread_may_be_busy_after_a_pause_and_at_no_other_time() {
    use crate::load::worker::timeline::SecondTally;
    let with_pause = |busy: &dyn Fn(usize) -> bool| {
        let row =
            |at| SecondTally { seconds: 1.0, cpu_seconds: if busy(at) { 1.0 } else { 0.5 }, ..SecondTally::default() };
        let timeline: Vec<_> = (0..20).map(row).collect();
        let cpu_seconds = timeline.iter().map(|row| row.cpu_seconds).sum();
        let window = MeasuredWindow { seconds: 20.0, timeline, cpu_seconds, ..MeasuredWindow::default() };
        let times = Pause { at_seconds: 6.0, for_seconds: 2.0, percent: 100.0 };
        let pause = Some(PauseReport { times, clients: 1, live_latency: None });
        let mut report = LoadReport { connected: 1, pause, ..LoadReport::default() };
        report.measure(&[window], 20, None);
        report.exit_code()
    };
    // The pause ends at 8, the recovery at 12.
    assert_eq!(with_pause(&|at| (6..12).contains(&at)), 0);
    assert_eq!(with_pause(&|_| true), 3);
    assert_eq!(with_pause(&|at| !(6..12).contains(&at)), 3, "busy for 85 % of the time, and always when it counts");
}

fn with_publisher(records_per_second: f64, late_ns: u64, blocked_seconds: f64) -> LoadReport {
    let lateness = LatencySummary { count: 100, p99_ns: late_ns, ..LatencySummary::default() };
    let records = (records_per_second * 2.0) as u64;
    let publisher = PublisherReport {
        rate: 1000,
        records,
        records_per_second,
        lateness,
        held_seconds: blocked_seconds,
        ..PublisherReport::default()
    };
    let mut report = LoadReport { connected: 1, publisher: Some(publisher), ..LoadReport::default() };
    report.measure(&[window(0.5)], 2, None);
    report
}

#[test]
fn a_late_or_slow_publisher_is_a_bottleneck_without_backpressure() {
    for (rate, late_ns, blocked, code) in [
        (1000.0, 4_000_000, 0.0, 0),
        (1000.0, 6_000_000, 0.0, 3),
        (980.0, 1_000, 0.0, 3),
        (980.0, 1_000, 0.5, 0),
        (995.0, 1_000, 0.0, 0),
    ] {
        let report = with_publisher(rate, late_ns, blocked);
        assert_eq!(report.exit_code(), code, "{rate} {late_ns} {blocked}: {}", report.text());
    }
    assert!(with_publisher(1000.0, 6_000_000, 0.0).text().contains("published 6.00ms after its due time"));
}

#[test]
fn a_sequence_violation_exits_4() {
    let mut report = report(&[window(1.9)]);
    report.sequence_violations = 1;
    report.first_violation = Some("quote of instrument 1 jumps".to_owned());
    assert_eq!(report.exit_code(), 4);
    assert!(report.text().contains("violations    1\n              first: quote of instrument 1 jumps\n"));
}
