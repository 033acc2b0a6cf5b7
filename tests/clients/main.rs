//! The clients, tested against the program that was built with this test: the Rust client directly, the JavaScript and
//! the Python client by their own test suites.
//!
//! `tests/clients/install` installs the tools of these suites. A suite whose tools are missing is reported as skipped.

mod first_hour;
mod javascript;
mod python;
mod rust;
mod rust_tokens;

use std::path::PathBuf;
use std::process::Command;

use tickcast_test_support::paths;

/// A folder or file of the repository.
fn at(path: &str) -> PathBuf {
    paths::repository().join(path)
}

/// Runs a test suite, prints its output, and asserts that it passes.
#[track_caller]
fn assert_passes(command: &mut Command) {
    let output = command.env("TICKCAST_BIN", paths::program()).output().expect("it started before");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} fails:\n{text}");
    println!("{text}");
}
