//! The findings as lines for people, and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::Survey;
use super::settings::{Finding, State};

#[derive(Serialize)]
struct Object<'a> {
    connections: u64,
    cores: &'a [usize],
    state: State,
    exit_code: u8,
    settings: &'a [Finding],
}

/// One object on one line.
pub fn json(survey: &Survey) -> String {
    let object = Object {
        connections: survey.needs.connections,
        cores: &survey.needs.cores,
        state: survey.state(),
        exit_code: survey.exit_code(),
        settings: &survey.findings,
    };
    let mut text = serde_json::to_string(&object).expect("strings and numbers only");
    text.push('\n');
    text
}

/// A line for each setting, with its note below it, and the totals.
pub fn lines(survey: &Survey) -> String {
    let head = ["state", "setting", "found", "wanted", "fixed by"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(survey.findings.iter().map(columns)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..5).map(width).collect();
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        put(&mut text, cells.join("  ").trim_end());
        let note = nth.checked_sub(1).and_then(|nth| survey.findings[nth].note.as_ref());
        note.iter().for_each(|note| put(&mut text, &format!("  {note}")));
    }
    put(&mut text, &sum(survey));
    text
}

fn columns(finding: &Finding) -> [String; 5] {
    let mends = finding.mends.filter(|_| matches!(finding.state, State::Missing | State::Off | State::Optional));
    [finding.state.word(), finding.setting, &finding.found, &finding.wanted, mends.unwrap_or_default()]
        .map(str::to_owned)
}

fn sum(survey: &Survey) -> String {
    let count = |state| survey.findings.iter().filter(|finding| finding.state == state).count();
    let (connections, cores) = (survey.needs.connections, survey.needs.cores.len());
    format!(
        "\nfor {connections} connections on {cores} core{}: {} required missing, {} recommended off, {} optional off",
        if cores == 1 { "" } else { "s" },
        count(State::Missing),
        count(State::Off),
        count(State::Optional),
    )
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a String");
}
