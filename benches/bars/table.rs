//! The results, as a table.

use std::fmt::Write;

use crate::rows::{Bar, Check, Row, Unit};
use crate::run::Outcome;

/// The results of a row's pairs.
pub struct Finding {
    row: &'static Row,
    /// By check: the figures of the pairs.
    figures: Vec<Vec<Pair>>,
    /// Notes for below the table.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy)]
struct Pair {
    subject: f64,
    reference: Option<f64>,
}

impl Finding {
    pub fn new(row: &'static Row) -> Self {
        Self { row, figures: row.checks.iter().map(|_| Vec::new()).collect(), notes: Vec::new() }
    }

    /// Adds a pair.
    pub fn add(&mut self, subject: Outcome, reference: Option<Outcome>) {
        if let Some(dropped) = reference.as_ref().and_then(Outcome::dropped_by_floor) {
            self.notes.push(format!("the floor dropped {dropped} messages and is none: a pair was left out"));
            return;
        }
        for (check, figures) in self.row.checks.iter().zip(&mut self.figures) {
            let of_reference = reference.as_ref().and_then(|outcome| (check.read)(outcome, None));
            match (check.read)(&subject, reference.as_ref()) {
                Some(subject) => figures.push(Pair { subject, reference: of_reference }),
                None => self.notes.push(format!("{}: a pair has no figure", check.figure)),
            }
        }
    }
}

/// The results as a Markdown table, with their notes below it.
pub fn render(findings: &[Finding]) -> String {
    let mut out = String::from("| what | figure | server | reference | ratio (least to greatest) | bar | |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for finding in findings {
        for (at, (check, figures)) in finding.row.checks.iter().zip(&finding.figures).enumerate() {
            let what = if at == 0 { finding.row.what } else { "" };
            let _ = writeln!(out, "| {what} | {} | {}", check.figure, cells(check, figures));
        }
    }
    for finding in findings {
        for note in &finding.notes {
            let _ = write!(out, "\n{}: {note}", finding.row.name);
        }
    }
    out
}

/// The cells from the server's figure on.
fn cells(check: &Check, figures: &[Pair]) -> String {
    let of = |values: Vec<f64>| Spread::of(values);
    let subject = of(figures.iter().map(|pair| pair.subject).collect());
    let reference = of(figures.iter().filter_map(|pair| pair.reference).collect());
    let share = |pair: &Pair| pair.reference.filter(|reference| *reference > 0.0).map(|of| pair.subject / of);
    let ratio = of(figures.iter().filter_map(share).collect());
    let value = |spread: &Option<Spread>| spread.map_or("–".to_owned(), |spread| text(spread.median, check.unit));
    let ratio_text = ratio
        .map_or("–".to_owned(), |Spread { median, least, most }| format!("{median:.2} ({least:.2} to {most:.2})"));
    let (bar, verdict) = verdict(check, subject, ratio);
    format!("{} | {} | {ratio_text} | {bar} | {verdict} |", value(&subject), value(&reference))
}

/// The bar as text, and whether it was met.
fn verdict(check: &Check, subject: Option<Spread>, ratio: Option<Spread>) -> (String, &'static str) {
    let judge = |spread: Option<Spread>, met: &dyn Fn(f64) -> bool| match spread {
        None => "not measured",
        Some(spread) if met(spread.median) => "met",
        Some(_) => "**missed**",
    };
    match check.bar {
        Bar::Ratio(most) => (format!("≤ {most} ×"), judge(ratio, &|ratio| ratio <= most)),
        Bar::RatioAtLeast(least) => (format!("≥ {least} ×"), judge(ratio, &|ratio| ratio >= least)),
        Bar::AtMost(most) => (format!("≤ {}", text(most, check.unit)), judge(subject, &|value| value <= most)),
        Bar::Stated => ("stated".to_owned(), ""),
    }
}

/// Figures of several pairs.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ns => format!("{value:.0} ns"),
        Unit::Ms if value < 10.0 => format!("{value:.3} ms"),
        Unit::Ms => format!("{value:.1} ms"),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Count => format!("{value:.0}"),
        Unit::Percent => format!("{value:.0} %"),
    }
}
