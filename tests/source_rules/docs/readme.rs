//! README.md: its length and order, its commands against CI's, its figures against those of the benches; and the stages
//! of CI in the workflow and in docs/testing.md.

use std::collections::BTreeSet;
use std::process::Command;

use tickcast_test_support::paths::repository;

use super::{fenced, read, rows, section, unquoted};

const LINES_MAX: usize = 150;

fn order_faults(readme: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if readme.lines().count() > LINES_MAX {
        faults.push("it is longer than 150 lines");
    }
    if !readme.starts_with("# tickcast\n") {
        faults.push("the title is not its first line");
    }
    if readme.find("\n![").is_none_or(|picture| readme.find("```").is_some_and(|code| code < picture)) {
        faults.push("the picture does not stand before all code");
    }
    faults
}

/// The commands that are not CI's. A command may be the beginning of CI's own; the packages of `apt-get install` are
/// arguments of `debian_packages` there.
fn foreign_commands(readme: &str, ci: &str) -> Vec<String> {
    let commands = fenced(section(readme, "## Install, run, test")).into_iter();
    let commands =
        commands.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    let is_of_ci = |command: &&str| match command.strip_prefix("apt-get install -y ") {
        Some(packages) => packages.split(' ').all(|package| {
            let arguments = ci.lines().map(str::trim).filter(|line| line.starts_with("debian_packages "));
            arguments.flat_map(|line| line.split(' ').skip(2).step_by(2)).any(|argument| argument == package)
        }),
        None => ci.lines().map(str::trim).any(|line| line == *command || line.starts_with(&format!("{command} "))),
    };
    commands.filter(|command| !is_of_ci(command)).map(str::to_owned).collect()
}

fn unknown_figures(readme: &str, benches: &str) -> Vec<String> {
    let figures = rows(section(readme, "## Measured")).into_iter().map(|cells| cells[2].clone());
    figures.filter(|figure| !benches.contains(&format!("| {figure} |"))).collect()
}

fn stages() -> Vec<String> {
    let listing = Command::new("bash").args([".ci/run", "--list"]).current_dir(repository()).output();
    let listing = listing.expect("bash runs");
    String::from_utf8(listing.stdout).expect("names are ASCII").lines().map(str::to_owned).collect()
}

#[test]
fn the_readme_is_short_and_its_title_and_picture_come_first() {
    assert_eq!(order_faults(&read("README.md")), [""; 0]);
    assert_eq!(order_faults(&format!("```\ncode\n```\n# tickcast\n{}", "\n".repeat(150))).len(), 3);
}

#[test]
fn the_commands_of_the_readme_are_those_of_ci() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    assert_eq!(foreign_commands(&readme, &ci), [""; 0]);
    for (command, other) in [("cargo test\n", "cargo nextest\n"), ("-y build-essential", "-y cmake")] {
        assert_eq!(foreign_commands(&readme.replacen(command, other, 1), &ci).len(), 1, "{other}");
    }
}

#[test]
fn the_figures_of_the_readme_are_those_of_the_benches() {
    let (readme, benches) = (read("README.md"), read("benches/README.md"));
    assert!(rows(section(&readme, "## Measured")).len() >= 5);
    assert_eq!(unknown_figures(&readme, &benches), [""; 0]);
    assert_eq!(unknown_figures(&readme.replace("359 B", "358 B"), &benches), ["358 B"]);
}

#[test]
fn the_workflow_and_the_documents_have_the_stages_of_ci() {
    let stages = stages();
    assert!(stages.len() > 8, "{stages:?}");
    let testing = read("docs/testing.md");
    let listed: Vec<_> =
        rows(section(&testing, "## Running")).into_iter().map(|row| unquoted(&row[0]).to_owned()).collect();
    assert_eq!(listed, stages);
    let workflow = read(".github/workflows/ci.yml");
    let (_, jobs) = workflow.split_once("        stages:\n").expect("the matrix of stages");
    let jobs = jobs.lines().map_while(|line| line.trim().strip_prefix("- "));
    let called: BTreeSet<_> = jobs.flat_map(|line| line.split(' ')).collect();
    let wanted: BTreeSet<_> = stages.iter().map(String::as_str).filter(|stage| *stage != "tools").collect();
    assert_eq!(called, wanted);
    assert!(workflow.contains("run: .ci/run tools ${{ matrix.stages }}"));
}
