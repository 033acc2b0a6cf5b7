//! A report as text, JSON and CSV.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Report, Row};

/// What the row of rights without a product is called.
const NO_PRODUCT: &str = "(no product)";
const COLUMNS: [&str; 8] = [
    "product",
    "delay_s",
    "professional",
    "non_professional",
    "unclassified",
    "users",
    "peak_sessions",
    "session_hours",
];

/// Lines for people.
pub(super) fn table(report: &Report) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(report.rows.iter().map(|row| cells(row, NO_PRODUCT)));
    rows.push(cells(&report.total, "(all)"));
    let widths: [usize; 8] =
        std::array::from_fn(|nth| rows.iter().map(|row| row[nth].chars().count()).max().unwrap_or_default());
    let mut out =
        format!("usage in {} (UTC), from {} files with {} lines\n", month(report), report.files, report.lines);
    for row in rows {
        let [name, numbers @ ..] = &row;
        let mut line = format!("{name:<width$}", width = widths[0]);
        for (nth, number) in numbers.iter().enumerate() {
            let _ = write!(line, "  {number:>width$}", width = widths[nth + 1]);
        }
        out += line.trim_end();
        out.push('\n');
    }
    out + &unread(report)
}

/// One line a product.
pub(super) fn csv(report: &Report) -> String {
    let mut out = COLUMNS.join(",") + "\n";
    for row in &report.rows {
        let [name, numbers @ ..] = cells(row, "");
        out += &format!("{},{}\n", quoted(&name), numbers.join(","));
    }
    out
}

/// One object.
pub(super) fn json(report: &Report) -> String {
    let row = |row: &Row| {
        json!({
            "professional": row.professional,
            "non_professional": row.non_professional,
            "unclassified": row.unclassified,
            "users": row.users(),
            "peak_sessions": row.peak_sessions,
            "session_hours": hours(row),
        })
    };
    let products = report.rows.iter().map(|product| {
        let mut object = row(product);
        object["delay_s"] = product.delay_s.into();
        object["product"] = if product.product.is_empty() { Value::Null } else { product.product.as_str().into() };
        object
    });
    let value = json!({
        "month": month(report),
        "products": products.collect::<Vec<_>>(),
        "all": row(&report.total),
        "files": report.files,
        "lines": report.lines,
        "unread": { "lines": report.unread.lines, "list": report.unread.listed },
    });
    format!("{value:#}\n")
}

/// What could not be read; empty if all was.
pub(super) fn unread(report: &Report) -> String {
    let unread = &report.unread;
    if unread.lines == 0 {
        return String::new();
    }
    let mut out = format!("{} lines could not be read and are not counted:\n", unread.lines);
    for line in &unread.listed {
        out += &format!("  {}\n", line.escape_debug());
    }
    if unread.lines > unread.listed.len() as u64 {
        out += "  …\n";
    }
    out
}

fn month(report: &Report) -> String {
    format!("{:04}-{:02}", report.month.year, report.month.month)
}

fn hours(row: &Row) -> f64 {
    (row.session_ms as f64 / 36_000.0).round() / 100.0
}

fn cells(row: &Row, unnamed: &str) -> [String; 8] {
    // Names are of the configuration. What is shown on a terminal has no commands to it all the same.
    let name = if row.product.is_empty() { unnamed.to_owned() } else { row.product.escape_debug().to_string() };
    let numbers =
        [row.delay_s, row.professional, row.non_professional, row.unclassified, row.users(), row.peak_sessions];
    let [a, b, c, d, e, f] = numbers.map(|number| number.to_string());
    [name, a, b, c, d, e, f, format!("{:.2}", hours(row))]
}

fn quoted(text: &str) -> String {
    let needs_quotes = text.contains([',', '"', '\n', '\r']);
    if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
