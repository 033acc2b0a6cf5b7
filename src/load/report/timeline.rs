//! The time line of a run: a row for each second of the measured time. Pure.

use serde::Serialize;

use crate::load::latency::{CoarseHistogram, LatencySummary};
use crate::load::worker::messages::MeasuredWindow;

/// One second of the run, of all threads together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TimelineRow {
    /// The first second is 1.
    pub second: usize,
    /// Its length; the last row may be up to half a second shorter or longer.
    pub seconds: f64,
    /// Records that steady clients received.
    pub delivered: u64,
    /// Records that were due by its end and that steady clients had neither received nor been told about; `None`
    /// without a publisher of the run's own.
    pub behind: Option<u64>,
    /// Of the records that were received, see [`super::Measurement::latency_recv`].
    pub latency: LatencySummary,
    /// The share of the second that the busiest thread of the load generator was on a core.
    pub generator_busiest_share: f64,
}

/// Adds up the threads' rows. `due` says how many records were due at a time, in ns since the Unix epoch.
pub fn timeline(windows: &[MeasuredWindow], due: Option<&dyn Fn(u64) -> u64>) -> Vec<TimelineRow> {
    let count = windows.iter().map(|window| window.timeline.len()).max().unwrap_or(0);
    (0..count).map(|index| row(index, windows, due)).collect()
}

fn row(index: usize, windows: &[MeasuredWindow], due: Option<&dyn Fn(u64) -> u64>) -> TimelineRow {
    let mut sum = TimelineRow { second: index + 1, ..TimelineRow::default() };
    let (mut ages, mut behind) = (CoarseHistogram::default(), 0.0);
    for window in windows {
        // Threads end within a few milliseconds of each other, so that one may lack the last row.
        let Some(part) = window.timeline.get(index) else { continue };
        sum.seconds = sum.seconds.max(part.seconds);
        sum.delivered += part.received.records;
        ages.add(&part.received.ages);
        let standing = &part.received.standing;
        behind += due.map_or(0.0, |due| due(part.end_ns) as f64 * standing.share) - standing.covered as f64;
        sum.generator_busiest_share = sum.generator_busiest_share.max(part.cpu_seconds / part.seconds.max(1e-9));
    }
    // A client may be told of one more record than its part of those that are due.
    sum.behind = due.map(|_| behind.round().max(0.0) as u64);
    sum.latency = ages.summary();
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::LatencyHistogram;
    use crate::load::worker::timeline::{ClassSecond, SecondTally, Standing};

    fn second(records: u64, covered: u64, age_ns: u64, cpu_seconds: f64) -> SecondTally {
        let (mut fine, mut ages) = (LatencyHistogram::default(), CoarseHistogram::default());
        (0..records).for_each(|_| fine.record(age_ns));
        ages.add_fine(&fine);
        let received = ClassSecond { records, standing: Standing { covered, share: 2.0 }, ages };
        SecondTally { seconds: 1.0, end_ns: 1_000, received, cpu_seconds, starved_seconds: 0.0 }
    }

    #[test]
    fn rows_of_all_threads_are_added_second_by_second() {
        let window = |timeline| MeasuredWindow { timeline, ..MeasuredWindow::default() };
        let windows = [
            window(vec![second(10, 190, 2_000_000, 0.25), second(30, 220, 8_000_000, 0.5)]),
            window(vec![second(90, 150, 4_000_000, 0.75)]),
        ];
        // A hundred records are due: two hundred for the two clients of each thread.
        let rows = timeline(&windows, Some(&|_| 100));
        assert_eq!(rows.iter().map(|row| (row.second, row.delivered)).collect::<Vec<_>>(), [(1, 100), (2, 30)]);
        // The second thread counts a record more than its part in the last row.
        assert_eq!(rows.iter().map(|row| row.behind).collect::<Vec<_>>(), [Some(10 + 50), Some(0)]);
        assert_eq!(rows[0].generator_busiest_share, 0.75);
        let ms: Vec<_> =
            rows.iter().map(|row| [row.latency.p50_ns, row.latency.p99_ns].map(|ns| ns / 990_000)).collect();
        assert_eq!(ms, [[4, 4], [8, 8]]);
        assert!(timeline(&windows, None).iter().all(|row| row.behind.is_none()));
    }
}
