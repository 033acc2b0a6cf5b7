//! Whether the load generator itself was the bottleneck of a run: then its figures are not the server's. Pure.
//!
//! A load thread that is busy for more than [`BUSY_SHARE_MAX`] of the time measures itself. With a pause, the backlog of
//! all clients arrives as fast as the threads can read it, from the server as from a floor. So the seconds from the
//! start of the pause to [`recovery_end`] are not judged; all others are.

use std::ops::Range;
use std::time::Duration;

use super::{LoadReport, PublisherReport};
use crate::load::format::{count_text, duration_text};
use crate::load::slow_clients::Pause;
use crate::load::worker::messages::MeasuredWindow;

/// A thread that sleeps has just read everything that had arrived; below this share it does so several times in every
/// tenth of a second.
pub const BUSY_SHARE_MAX: f64 = 0.97;
/// A load thread that waits for a core for more than this share of the time has that wait in its latencies.
pub const STARVED_SHARE_MAX: f64 = 0.10;
/// Where one record in a hundred is published later than this, the publisher is a bottleneck: latencies measure it.
const LATENESS_P99_MAX_NS: u64 = 5_000_000;
/// A publisher that sent less than this share of its rate without backpressure is a bottleneck.
const RATE_SHARE_MIN: f64 = 0.99;
/// After a pause, the threads may be busy for twice its length, and at least for so long.
const RECOVERY_MIN: Duration = Duration::from_secs(2);

/// Until when a thread may be busy without a break because of a pause.
fn recovery_end(pause: &Pause) -> Duration {
    pause.end() + (2 * (pause.end() - pause.begin())).max(RECOVERY_MIN)
}

/// The rows of a time line from the end of a pause to the end of its recovery.
pub(super) fn recovery(pause: &Pause) -> Range<usize> {
    pause.end().as_secs() as usize..recovery_end(pause).as_secs_f64().ceil() as usize
}

/// The rows of a time line that are not judged.
fn unjudged(pause: Option<&Pause>) -> Range<usize> {
    pause.map_or(0..0, |pause| pause.begin().as_secs() as usize..recovery_end(pause).as_secs_f64().ceil() as usize)
}

/// The share of the time that a thread was busy, and the share that it waited for a core.
fn shares(window: &MeasuredWindow, pause: Option<&Pause>, measured_seconds: usize) -> (f64, f64) {
    let unjudged = unjudged(pause);
    let rows = window.timeline.iter().enumerate();
    let judged = || rows.clone().filter(|(at, _)| *at < measured_seconds && !unjudged.contains(at)).map(|(_, row)| row);
    let judged_seconds: f64 = judged().map(|row| row.seconds).sum();
    if pause.is_none() || judged_seconds == 0.0 {
        let seconds = window.seconds.max(1e-9);
        return (window.cpu_seconds / seconds, window.starved_seconds / seconds);
    }
    let busy: f64 = judged().map(|row| row.cpu_seconds).sum();
    let starved: f64 = judged().map(|row| row.starved_seconds).sum();
    (busy / judged_seconds, starved / judged_seconds)
}

impl LoadReport {
    /// Judges one thread over `measured_seconds`, after which nothing is published. A thread that was never idle is
    /// behind, whether it was busy or waited for a core.
    pub(super) fn judge_thread(&mut self, window: &MeasuredWindow, measured_seconds: usize) {
        let pause = self.pause.as_ref().map(|pause| pause.times);
        let (busy, starved) = shares(window, pause.as_ref(), measured_seconds);
        self.generator_cores += window.cpu_seconds / window.seconds.max(1e-9);
        self.generator_busiest_share = self.generator_busiest_share.max(busy);
        self.generator_starved_share = self.generator_starved_share.max(starved);
        let (busy_percent, starved_percent) = (busy * 100.0, starved * 100.0);
        if busy > BUSY_SHARE_MAX {
            self.bottlenecks.push(format!(
                "one of its threads was busy for {busy_percent:.0} % of the time; use more --threads or --processes, \
                 fewer --clients, or another machine"
            ));
        } else if busy + starved > BUSY_SHARE_MAX && starved > STARVED_SHARE_MAX {
            self.bottlenecks.push(format!(
                "one of its threads was busy for {busy_percent:.0} % of the time and waited {starved_percent:.0} % for \
                 a core; use --load-cores with cores that have no other work, or fewer --clients"
            ));
        }
    }

    pub(super) fn judge_publisher(&mut self) {
        let Some(publisher) = &self.publisher else { return };
        let PublisherReport { records, rate, records_per_second, held_seconds, .. } = *publisher;
        let late = publisher.lateness.p99_ns;
        let blocked_share_max = 0.01;
        let was_blocked = held_seconds > blocked_share_max * records as f64 / rate.max(1) as f64;
        if late > LATENESS_P99_MAX_NS {
            let late = duration_text(late);
            self.bottlenecks.push(format!(
                "one record in a hundred was published {late} after its due time or later; use --load-cores with a \
                 core that has no other work, or a lower --publish rate"
            ));
        } else if records_per_second < RATE_SHARE_MIN * rate as f64 && !was_blocked {
            self.bottlenecks.push(format!(
                "it published {}/s of the requested {}/s without backpressure of the server",
                count_text(records_per_second),
                count_text(rate as f64)
            ));
        }
    }
}
