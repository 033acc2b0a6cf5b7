//! The documents against the code: what a page states about settings, metrics, paths and codes is what the code has.
//!
//! Every check is a function from texts to faults, so that it is shown a planted fault as well.

mod api;
mod descriptions;
mod glossary;
mod links;
mod metrics;
mod protocol;
mod readme;
mod settings;

use std::path::{Path, PathBuf};
use std::process::Command;

use tickcast_test_support::paths::repository;

/// A Markdown file of the repository.
struct Page {
    /// From the root, such as `docs/protocol.md`.
    path: PathBuf,
    text: String,
}

/// All files that git tracks or would track, from the root.
pub(super) fn files() -> Vec<PathBuf> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git lists the files of the repository");
    assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
    let text = String::from_utf8(listing.stdout).expect("names are UTF-8");
    text.lines().map(PathBuf::from).filter(|path| repository().join(path).exists()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<Page> {
    let names = files().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let pages: Vec<_> = names.map(|path| Page { text: read(&path), path }).collect();
    assert!(pages.len() > 20, "only {} pages were found", pages.len());
    pages
}

/// What stands under a heading, up to the next heading of the same or a higher level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let level = heading.chars().take_while(|letter| *letter == '#').count();
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let body = &text[start + heading.len() + 2..];
    let ends = |line: &str| {
        let marks = line.chars().take_while(|letter| *letter == '#').count();
        (1..=level).contains(&marks) && line[marks..].starts_with(' ')
    };
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        if ends(line) {
            break;
        }
        end += line.len();
    }
    &body[..end]
}

/// The cells of all table rows, without heads and rules.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|-");
    let body = lines.iter().enumerate().filter(|(nth, line)| {
        line.starts_with('|') && !is_rule(line) && !lines.get(nth + 1).is_some_and(|next| is_rule(next))
    });
    body.map(|(_, line)| cells(line)).collect()
}

fn cells(line: &str) -> Vec<String> {
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\0");
    inside.split('|').map(|cell| cell.replace('\0', "|").trim().to_owned()).collect()
}

/// What stands between backticks outside of fenced blocks.
fn spans(text: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// The lines of fenced blocks.
fn fenced(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            lines.push(line);
        }
    }
    lines
}

/// The text of a cell that is one code span.
fn unquoted(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn sections_rows_and_spans_are_read_as_markdown_has_them() {
    let text =
        "# A\nx\n## B\n| h | i |\n|---|---|\n| `a\\|b` | c |\n```\n`no`\n| not | a row of text |\n```\n## C\ny `z`\n";
    assert_eq!(section(text, "## C"), "y `z`\n");
    assert!(section(text, "## B").contains("`a\\|b`") && !section(text, "## B").contains('y'));
    assert_eq!(rows(section(text, "## B"))[0], ["`a|b`", "c"]);
    assert_eq!(spans("a `b` c `d e`\n```\n`f`\n```\n`g`"), ["b", "d e", "g"]);
    assert_eq!(fenced("a\n```sh\nb\n```\nc"), ["b"]);
}
