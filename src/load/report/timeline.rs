//! The time line of a run: a row for each second of the measured time. Pure.

use std::ops::Range;

use serde::Serialize;

use crate::load::latency::{CoarseHistogram, LatencySummary};
use crate::load::worker::messages::MeasuredWindow;
use crate::load::worker::timeline::{ClassSecond, ClientClass, SecondTally};

/// One second of the run, of all threads together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TimelineRow {
    /// The first second is 1.
    pub second: usize,
    /// Its length; the last row may be up to half a second shorter or longer.
    pub seconds: f64,
    /// Of steady clients.
    #[serde(flatten)]
    pub steady: ClassRow,
    /// Of limited clients, where there are some.
    pub limited: Option<ClassRow>,
    /// Of the steady clients that do not pause, where others do.
    pub live: Option<ClassRow>,
    /// The share of the second that the busiest thread of the load generator was on a core.
    pub generator_busiest_share: f64,
}

/// What the clients of one kind received in a second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClassRow {
    /// Records.
    pub delivered: u64,
    /// Records that were due by its end and that these clients had neither received nor been told about; `None` without
    /// a publisher of the run's own.
    pub behind: Option<u64>,
    /// Ages of the records that were received, see [`super::Measurement::latency_recv`].
    pub latency: LatencySummary,
}

/// Adds up the threads' rows. `due` says how many records were due at a time, in ns since the Unix epoch.
pub fn timeline(windows: &[MeasuredWindow], kinds: ClassKinds, due: Option<&dyn Fn(u64) -> u64>) -> Vec<TimelineRow> {
    let count = windows.iter().map(|window| window.timeline.len()).max().unwrap_or(0);
    (0..count).map(|index| row(index, windows, kinds, due)).collect()
}

/// Which kinds of clients a run has beside steady ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassKinds {
    pub has_limited: bool,
    /// Some steady clients pause, and others do not.
    pub has_live: bool,
}

/// The ages of the records that steady clients without a pause received in these seconds, counted from 0.
pub fn live_latency(windows: &[MeasuredWindow], seconds: Range<usize>) -> LatencySummary {
    let mut ages = CoarseHistogram::default();
    for part in windows.iter().flat_map(|window| window.timeline.iter().take(seconds.end).skip(seconds.start)) {
        ages.add(&part.received[ClientClass::Steady as usize].ages);
    }
    ages.summary()
}

fn row(index: usize, windows: &[MeasuredWindow], kinds: ClassKinds, due: Option<&dyn Fn(u64) -> u64>) -> TimelineRow {
    // Threads end within a few milliseconds of each other, so that one may lack the last row.
    let parts: Vec<_> = windows.iter().filter_map(|window| window.timeline.get(index)).collect();
    let most = |value: fn(&SecondTally) -> f64| parts.iter().map(|part| value(part)).fold(0.0, f64::max);
    let of = |classes: &[ClientClass]| class_row(&parts, classes, due);
    TimelineRow {
        second: index + 1,
        seconds: most(|part| part.seconds),
        steady: of(&[ClientClass::Steady, ClientClass::Pausing]),
        limited: kinds.has_limited.then(|| of(&[ClientClass::Limited])),
        live: kinds.has_live.then(|| of(&[ClientClass::Steady])),
        generator_busiest_share: most(|part| part.cpu_seconds / part.seconds.max(1e-9)),
    }
}

fn class_row(parts: &[&SecondTally], classes: &[ClientClass], due: Option<&dyn Fn(u64) -> u64>) -> ClassRow {
    let (mut delivered, mut ages, mut behind) = (0, CoarseHistogram::default(), 0.0);
    for (part, class) in parts.iter().flat_map(|part| classes.iter().map(move |class| (part, class))) {
        let ClassSecond { records, standing, ages: received } = &part.received[*class as usize];
        delivered += records;
        ages.add(received);
        behind += due.map_or(0.0, |due| due(part.end_ns) as f64 * standing.share) - standing.covered as f64;
    }
    // A client may be told of one more record than its part of those that are due.
    let behind = due.map(|_| behind.round().max(0.0) as u64);
    ClassRow { delivered, behind, latency: ages.summary() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::LatencyHistogram;
    use crate::load::worker::timeline::Standing;

    fn second(records: u64, covered: u64, age_ns: u64, cpu_seconds: f64) -> SecondTally {
        let (mut fine, mut ages) = (LatencyHistogram::default(), CoarseHistogram::default());
        (0..records).for_each(|_| fine.record(age_ns));
        ages.add_fine(&fine);
        let received = ClassSecond { records, standing: Standing { covered, share: 2.0 }, ages };
        let [limited, pausing] = [3, 5].map(|records| ClassSecond { records, ..ClassSecond::default() });
        SecondTally {
            seconds: 1.0,
            end_ns: 1_000,
            received: [received, limited, pausing],
            cpu_seconds,
            starved_seconds: 0.0,
        }
    }

    #[test]
    fn rows_of_all_threads_are_added_second_by_second() {
        let window = |timeline| MeasuredWindow { timeline, ..MeasuredWindow::default() };
        let windows = [
            window(vec![second(10, 190, 2_000_000, 0.25), second(30, 220, 8_000_000, 0.5)]),
            window(vec![second(90, 150, 4_000_000, 0.75)]),
        ];
        // A hundred records are due: two hundred for the two clients of each thread.
        let rows = timeline(&windows, ClassKinds { has_limited: true, has_live: true }, Some(&|_| 100));
        assert_eq!(rows.iter().map(|row| (row.second, row.steady.delivered)).collect::<Vec<_>>(), [(1, 110), (2, 35)]);
        let live = |row: &TimelineRow| row.live.as_ref().map(|live| live.delivered);
        assert_eq!(rows.iter().map(live).collect::<Vec<_>>(), [Some(100), Some(30)]);
        // The second thread counts a record more than its part in the last row.
        assert_eq!(rows.iter().map(|row| row.steady.behind).collect::<Vec<_>>(), [Some(10 + 50), Some(0)]);
        assert_eq!(rows[0].generator_busiest_share, 0.75);
        let ms: Vec<_> = rows
            .iter()
            .map(|row| [row.steady.latency.p50_ns, row.steady.latency.p99_ns].map(|ns| ns / 990_000))
            .collect();
        assert_eq!(ms, [[4, 4], [8, 8]]);
        let limited = |row: &TimelineRow| row.limited.as_ref().map(|limited| limited.delivered);
        assert_eq!(rows.iter().map(limited).collect::<Vec<_>>(), [Some(6), Some(3)]);
        let rows = timeline(&windows, ClassKinds::default(), None);
        assert!(rows.iter().all(|row| row.steady.behind.is_none() && row.limited.is_none() && row.live.is_none()));
        assert_eq!((live_latency(&windows, 1..2).count, live_latency(&windows, 0..9).count), (30, 130));
    }
}
