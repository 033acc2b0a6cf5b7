//! Latencies as an SVG plot: percentiles on a logarithmic axis, as in HdrHistogram's plots, and one line for each run.
//! Below them, [`seconds`] has latency and backlog second by second.
//!
//! Pure: histograms and rows in, text out.
//!
//! The tail has as much room as the middle: each step of the axis is ten times rarer. A line ends where its run has too
//! few values for the next percentile. The plot has its own background, and follows the viewer's choice of light or
//! dark.

mod seconds;

use std::ops::Range;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use self::seconds::{BEHIND_HEIGHT, LATENCY_HEIGHT, draw_behind, draw_latencies};
use super::timeline::TimelineRow;
use crate::load::format::duration_text;
use crate::load::slow_clients::Pause;

const WIDTH: u32 = 960;
/// The height of the upper panel.
const HEIGHT: u32 = 540;
/// The colours of the runs; further runs repeat them.
const COLORS: [RGBColor; 6] = [
    RGBColor(0x2A, 0x7D, 0xE1),
    RGBColor(0xE0, 0x7B, 0x1F),
    RGBColor(0x2E, 0xA0, 0x5A),
    RGBColor(0xC0, 0x4F, 0xC8),
    RGBColor(0xD6, 0x45, 0x45),
    RGBColor(0x8A, 0x7A, 0x2E),
];
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2F);
const GRID: RGBColor = RGBColor(0xD9, 0xDD, 0xE2);
/// The same three colours for dark mode.
const DARK: [(RGBColor, &str); 3] = [(PAPER, "#0D1117"), (INK, "#E6EDF3"), (GRID, "#30363D")];
/// Points of a line per decade of the axis: finer than its pixels.
const POINTS_PER_DECADE: u32 = 100;
/// The start of the axis, at the 10th percentile: the least of all values is one chance event, and would take half of
/// the other axis.
const START: f64 = 0.045_757_490_560_675_12;
/// The most decades of the axis: up to one value in ten million.
const DECADES_MAX: f64 = 7.0;
/// Values of a run beyond its last percentile.
const VALUES_BEHIND: f64 = 1.0;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct PlottedRun<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Latencies in ns.
    pub latencies: &'a Histogram<u64>,
    /// Second by second.
    pub timeline: &'a [TimelineRow],
}

/// The plot of these runs, as the text of an SVG file. Runs without values are in the legend and have no line. The time
/// of a pause is shaded.
pub fn latency_svg(title: &str, runs: &[PlottedRun<'_>], pause: Option<&Pause>) -> String {
    let has_behind = runs.iter().flat_map(|run| run.timeline).any(|row| row.steady.behind.is_some());
    let height = HEIGHT + LATENCY_HEIGHT + if has_behind { BEHIND_HEIGHT } else { 0 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        if let Err(error) = draw_all(&area, title, runs, pause, has_behind) {
            unreachable!("drawing into a String does not fail: {error}");
        }
    }
    in_light_and_dark(&svg)
}

fn draw_all(area: &Area<'_>, title: &str, runs: &[PlottedRun<'_>], pause: Option<&Pause>, has_behind: bool) -> Drawn {
    area.fill(&PAPER)?;
    let shaded = pause.map(|pause| pause.begin().as_secs_f64()..pause.end().as_secs_f64());
    let (upper, lower) = area.split_vertically(HEIGHT);
    draw(&upper, title, runs)?;
    let (latencies, behind) = lower.split_vertically(LATENCY_HEIGHT);
    draw_latencies(&latencies, runs, shaded.clone())?;
    if has_behind {
        draw_behind(&behind, runs, shaded)?;
    }
    // Of all panels: it writes the end of the file.
    area.present()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw(area: &Area<'_>, title: &str, runs: &[PlottedRun<'_>]) -> Drawn {
    let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let lines: Vec<_> = runs.iter().map(|run| points(run.latencies)).collect();
    let mut chart = ChartBuilder::on(area)
        .caption(title, font(26))
        .margin(16)
        .x_label_area_size(52)
        .y_label_area_size(84)
        .build_cartesian_2d(PercentileAxis(START..decades(runs)), LatencyAxis::around(lines.iter().flatten()))?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency")
        .axis_desc_style(font(19))
        .label_style(font(17))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_labels(32)
        .y_labels(32)
        .draw()?;
    for (index, (run, line)) in runs.iter().zip(lines).enumerate() {
        let style = COLORS[index % COLORS.len()].stroke_width(2);
        chart
            .draw_series(LineSeries::new(line, style))?
            .label(legend(run))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(14)
        .legend_area_size(30)
        .background_style(PAPER)
        .border_style(GRID)
        .label_font(font(18))
        .draw()
}

fn legend(run: &PlottedRun<'_>) -> String {
    let at = |quantile: f64| duration_text(run.latencies.value_at_quantile(quantile));
    match run.latencies.len() {
        0 => format!("{}: nothing measured", run.name),
        _ => format!("{}: p50 {}, p99 {}, max {}", run.name, at(0.5), at(0.99), duration_text(run.latencies.max())),
    }
}

/// Points of the axis with latencies in ns, as far as the run has values.
fn points(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = rarest(latencies.len());
    let positions = (0..).map(|step| START + f64::from(step) / f64::from(POINTS_PER_DECADE));
    let at = |x: f64| latencies.value_at_quantile(1.0 - 10f64.powf(-x)).max(1) as f64;
    let line = positions.take_while(|x| *x < end).map(|x| (x, at(x))).collect();
    if latencies.is_empty() { Vec::new() } else { line }
}

/// The position of the rarest percentile that so many values show.
fn rarest(values: u64) -> f64 {
    (values as f64 / VALUES_BEHIND).max(1.0).log10().min(DECADES_MAX)
}

/// The end of the axis: that of the longest line, and not before 99.
fn decades(runs: &[PlottedRun<'_>]) -> f64 {
    runs.iter().map(|run| rarest(run.latencies.len())).fold(2.0, f64::max)
}

/// The axis of percentiles: at position `x`, one value in `10^x` is greater.
struct PercentileAxis(Range<f64>);

impl Ranged for PercentileAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, x: &f64, limit: (i32, i32)) -> i32 {
        on_pixels((x - self.0.start) / (self.0.end - self.0.start), limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        let tens = (1..=DECADES_MAX as i32).map(f64::from);
        // The percentiles 10, 50 and 75 as well: most values lie before 90.
        let all = tens.chain([START, 2f64.log10(), 4f64.log10()]);
        let mut positions: Vec<f64> = all.filter(|at| *at <= self.0.end).collect();
        positions.sort_by(f64::total_cmp);
        positions
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

impl ValueFormatter<f64> for PercentileAxis {
    fn format_ext(&self, x: &f64) -> String {
        let decimals = (x.floor() as usize).saturating_sub(2);
        format!("{:.1$}", 100.0 - 100.0 * 10f64.powf(-x), if *x > 2.0 { decimals.max(1) } else { 0 })
    }
}

/// The axis of latencies: logarithmic, with a line at 1, 2 and 5 of each decade.
struct LatencyAxis(Range<f64>);

impl LatencyAxis {
    /// From the mark below the least value to the mark above the greatest.
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (least, most) =
            points.fold((f64::INFINITY, 0.0), |(least, most), (_, ns)| (f64::min(least, *ns), f64::max(most, *ns)));
        if most == 0.0 {
            return Self(1e3..1e6);
        }
        let start = marks().take_while(|mark| *mark <= least).last().unwrap_or(1.0);
        let end = marks().find(|mark| *mark > most).unwrap_or(most);
        Self(start..end)
    }
}

/// 1, 2, 5, 10, 20, … ns, up to hours.
fn marks() -> impl Iterator<Item = f64> {
    (0..14).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
}

impl Ranged for LatencyAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, ns: &f64, limit: (i32, i32)) -> i32 {
        let position = |ns: f64| ns.max(1.0).ln();
        on_pixels((position(*ns) - position(self.0.start)) / (position(self.0.end) - position(self.0.start)), limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        marks().filter(|mark| (self.0.start..=self.0.end).contains(mark)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

impl ValueFormatter<f64> for LatencyAxis {
    fn format_ext(&self, ns: &f64) -> String {
        let (value, unit) = match *ns {
            ns if ns < 1e3 => (ns, "ns"),
            ns if ns < 1e6 => (ns / 1e3, "µs"),
            ns if ns < 1e9 => (ns / 1e6, "ms"),
            ns => (ns / 1e9, "s"),
        };
        format!("{value:.0} {unit}")
    }
}

fn on_pixels(share: f64, (from, to): (i32, i32)) -> i32 {
    from + (share * f64::from(to - from)).round() as i32
}

/// Adds a rule for dark mode, which overrides the attributes of the drawing.
fn in_light_and_dark(svg: &str) -> String {
    let mut rules = String::new();
    for (RGBColor(red, green, blue), dark) in DARK {
        let light = format!("#{red:02X}{green:02X}{blue:02X}");
        for property in ["fill", "stroke"] {
            rules.push_str(&format!("[{property}=\"{light}\"]{{{property}:{dark}}}"));
        }
    }
    let style = format!("<style>@media(prefers-color-scheme:dark){{{rules}}}</style>");
    match svg.find("<svg").and_then(|from| svg[from..].find('>').map(|length| from + length + 1)) {
        Some(at) => format!("{}{style}{}", &svg[..at], &svg[at..]),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::LatencySummary;
    use crate::load::report::timeline::ClassRow;

    fn histogram(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("3 digits");
        values.for_each(|value| histogram.record(value).expect("it grows"));
        histogram
    }

    #[test]
    fn a_line_ends_with_its_last_value() {
        let line = points(&histogram((1..=1_000).map(|value| value * 1_000)));
        let (first, last) = (line[0], line[line.len() - 1]);
        assert_eq!((first.0, first.1.round() as u64 / 1_000), (START, 100));
        assert!((2.9..3.0).contains(&last.0) && (990e3..=1_001e3).contains(&last.1), "{last:?}");
        assert!(line.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1));
        assert!(points(&histogram(std::iter::empty())).is_empty());
    }

    #[test]
    fn axes_have_round_marks() {
        let labels: Vec<_> = PercentileAxis(START..4.5)
            .key_points(10)
            .iter()
            .map(|at| PercentileAxis(START..4.5).format_ext(at))
            .collect();
        assert_eq!(labels, ["10", "50", "75", "90", "99", "99.9", "99.99"]);
        let axis = LatencyAxis::around([(0.0, 700e3), (0.0, 12e6)].iter());
        let labels: Vec<_> = axis.key_points(10).iter().map(|ns| axis.format_ext(ns)).collect();
        assert_eq!(labels, ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms"]);
        assert_eq!((axis.map(&500e3, (0, 100)), axis.map(&20e6, (0, 100))), (0, 100));
    }

    #[test]
    fn every_run_is_drawn_and_any_text_is_escaped() {
        let server = histogram((1..=5_000).map(|value| value * 900));
        let none = histogram(std::iter::empty());
        let rows: Vec<_> = (1..=5).map(|second| row(second, Some(second as u64 * 100_000))).collect();
        let runs = [
            PlottedRun { name: "server <1>", latencies: &server, timeline: &rows },
            PlottedRun { name: "floor & co", latencies: &none, timeline: &[] },
        ];
        let pause = Pause { at_seconds: 2.0, for_seconds: 1.5, percent: 100.0 };
        let svg = latency_svg("5,000 \"subscribers\"", &runs, Some(&pause));
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("server &lt;1&gt;: p50 2.25ms, p99 4.46ms, max 4.5"), "{svg}");
        assert!(svg.contains("floor &amp; co: nothing measured") && svg.contains("prefers-color-scheme:dark"), "{svg}");
        for (RGBColor(red, green, blue), _) in DARK {
            assert!(svg.matches(&format!("#{red:02X}{green:02X}{blue:02X}")).count() > 2, "a colour is never drawn");
        }
        assert!(
            svg.contains("p50 and p99 of a second") && svg.contains("records behind") && svg.contains("500 k"),
            "{svg}"
        );
    }

    fn row(second: usize, behind: Option<u64>) -> TimelineRow {
        let latency = LatencySummary { count: 9, p50_ns: 80_000, p99_ns: 3_000_000, ..LatencySummary::default() };
        TimelineRow { second, steady: ClassRow { behind, latency, ..ClassRow::default() }, ..TimelineRow::default() }
    }

    #[test]
    fn without_a_publisher_nothing_is_behind() {
        let latencies = histogram(1..9);
        let rows = [row(1, None), row(2, None)];
        let svg = latency_svg("t", &[PlottedRun { name: "server", latencies: &latencies, timeline: &rows }], None);
        assert!(svg.contains("p50 and p99 of a second") && !svg.contains("records behind"), "{svg}");
    }
}
