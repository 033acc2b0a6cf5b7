//! The lower panels of the picture: latency and backlog, second by second.
//!
//! A point is a second of the time line, of steady clients. The p99 is the strong line, the p50 the weak one; seconds in
//! which nothing arrived have no point, and the line has a gap. The time of a pause is shaded.

use std::ops::Range;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::{Area, COLORS, Drawn, GRID, INK, LatencyAxis, PlottedRun};
use crate::load::format::count_text;
use crate::load::latency::LatencySummary;
use crate::load::report::timeline::TimelineRow;

/// The height of the panel of latencies, and that of the backlog.
pub(super) const LATENCY_HEIGHT: u32 = 340;
pub(super) const BEHIND_HEIGHT: u32 = 240;

/// A line of a panel: second and value.
type Line = Vec<(f64, f64)>;

/// Draws p50 and p99 of each second.
pub(super) fn draw_latencies(area: &Area<'_>, runs: &[PlottedRun<'_>], pause: Option<Range<f64>>) -> Drawn {
    let of = |run: &PlottedRun<'_>, value: fn(&LatencySummary) -> u64| {
        let filled = |row: &TimelineRow| (row.steady.latency.count > 0).then(|| value(&row.steady.latency) as f64);
        lines(run.timeline, filled)
    };
    let strong: Vec<_> = runs.iter().map(|run| of(run, |latency| latency.p99_ns)).collect();
    let weak: Vec<_> = runs.iter().map(|run| of(run, |latency| latency.p50_ns)).collect();
    let axis = LatencyAxis::around(strong.iter().chain(&weak).flatten().flatten());
    let heights = axis.0.clone();
    let mut chart = chart(area).build_cartesian_2d(0.0..seconds(runs), axis)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("second").y_desc("p50 and p99 of a second").axis_desc_style(font(19)).label_style(font(17));
    mesh.axis_style(INK).bold_line_style(GRID).light_line_style(TRANSPARENT).x_labels(20).y_labels(32);
    mesh.x_label_formatter(&|second| format!("{second:.0}")).draw()?;
    if let Some(pause) = pause {
        let corners = [(pause.start, heights.start), (pause.end, heights.end)];
        chart.draw_series([Rectangle::new(corners, GRID.mix(0.6).filled())])?;
    }
    for (index, (strong, weak)) in strong.into_iter().zip(weak).enumerate() {
        let color = COLORS[index % COLORS.len()];
        for (lines, width) in [(strong, 3), (weak, 1)] {
            for line in lines {
                chart.draw_series(line.iter().map(|at| Circle::new(*at, width - width / 2, color.filled())))?;
                chart.draw_series(LineSeries::new(line, color.stroke_width(width)))?;
            }
        }
    }
    Ok(())
}

/// Draws how many records were behind at the end of each second.
pub(super) fn draw_behind(area: &Area<'_>, runs: &[PlottedRun<'_>], pause: Option<Range<f64>>) -> Drawn {
    let behind: Vec<_> =
        runs.iter().map(|run| lines(run.timeline, |row| row.steady.behind.map(|count| count as f64))).collect();
    let most = behind.iter().flatten().flatten().map(|(_, count)| *count).fold(1.0, f64::max);
    let mut chart = chart(area).build_cartesian_2d(0.0..seconds(runs), RangedCoordf64::from(0.0..most * 1.05))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("second").y_desc("records behind").axis_desc_style(font(19)).label_style(font(17));
    mesh.axis_style(INK).bold_line_style(GRID).light_line_style(TRANSPARENT).x_labels(20).y_labels(6);
    mesh.x_label_formatter(&|second| format!("{second:.0}"));
    mesh.y_label_formatter(&|count| count_text(*count).trim_end().to_owned()).draw()?;
    if let Some(pause) = pause {
        chart.draw_series([Rectangle::new([(pause.start, 0.0), (pause.end, most * 1.05)], GRID.mix(0.6).filled())])?;
    }
    for (index, lines) in behind.into_iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        for line in lines {
            chart.draw_series(line.iter().map(|at| Circle::new(*at, 2, color.filled())))?;
            chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
        }
    }
    Ok(())
}

fn chart<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(16).x_label_area_size(52).y_label_area_size(84);
    chart
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// The end of the axis: that of the longest run.
fn seconds(runs: &[PlottedRun<'_>]) -> f64 {
    runs.iter().map(|run| run.timeline.len()).max().unwrap_or(0).max(1) as f64
}

/// The points of the rows that have a value, cut at those that have none.
fn lines(rows: &[TimelineRow], value: impl Fn(&TimelineRow) -> Option<f64>) -> Vec<Line> {
    let point = |row: &TimelineRow| Some((row.second as f64, value(row)?));
    let points: Vec<_> = rows.iter().map(point).collect();
    let whole = points.split(Option::is_none).filter(|part| !part.is_empty());
    whole.map(|part| part.iter().flatten().copied().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::timeline::ClassRow;

    #[test]
    fn a_line_has_a_gap_where_nothing_arrived() {
        let row = |second, count| TimelineRow {
            second,
            steady: ClassRow {
                latency: LatencySummary { count, p99_ns: 7, ..LatencySummary::default() },
                ..ClassRow::default()
            },
            ..TimelineRow::default()
        };
        let rows = [row(1, 5), row(2, 5), row(3, 0), row(4, 5)];
        let found = lines(&rows, |row| (row.steady.latency.count > 0).then_some(row.steady.latency.p99_ns as f64));
        assert_eq!(found, [vec![(1.0, 7.0), (2.0, 7.0)], vec![(4.0, 7.0)]]);
        assert!(lines(&rows, |row| row.steady.behind.map(|count| count as f64)).is_empty());
    }
}
