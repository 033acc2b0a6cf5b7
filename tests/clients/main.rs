//! The clients' own test suites, run against the program that was built with this test.
//!
//! `tests/clients/install` installs what they need; what is absent is skipped, and the test says so.

mod javascript;
mod python;
mod rust;

use std::path::PathBuf;
use std::process::Command;

use tickcast_test_support::paths;

/// A folder or file of the repository.
fn at(path: &str) -> PathBuf {
    paths::repository().join(path)
}

/// Runs a suite to its end, and shows what it said: all of it where it fails.
#[track_caller]
fn passes(command: &mut Command) {
    let output = command.env("TICKCAST_BIN", paths::program()).output().expect("it started before");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} fails:\n{said}");
    println!("{said}");
}
