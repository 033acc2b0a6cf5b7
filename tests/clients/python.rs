//! `clients/python`: pytest, mypy and ruff.

use std::process::{Command, Stdio};

use crate::{assert_passes, at};

/// A command of a Python module that `tests/clients/install` has installed, in the client's folder. `None`, with a message,
/// if it is missing.
fn python(module: &str) -> Option<Command> {
    let installed = at("target/clients/python");
    let command = || {
        let mut command = Command::new("python3");
        command.args(["-B", "-m", module]).current_dir(at("clients/python")).env("PYTHONPATH", &installed);
        command
    };
    let started = command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if installed.join("versions").exists() && started.is_ok_and(|status| status.success()) {
        return Some(command());
    }
    println!("SKIPPED: python3 has no {module}: run tests/clients/install");
    None
}

#[test]
fn python_client_passes_its_tests() {
    if let Some(mut pytest) = python("pytest") {
        assert_passes(pytest.args(["-q", "-rs"]));
    }
}

#[test]
fn python_client_passes_mypy() {
    if let Some(mut mypy) = python("mypy") {
        assert_passes(mypy.arg("--cache-dir").arg(at("target/clients/mypy")));
    }
}

#[test]
fn python_client_passes_ruff() {
    if let Some(mut ruff) = python("ruff") {
        assert_passes(ruff.args(["check", "--no-cache", "src", "tests", "examples"]));
    }
    if let Some(mut ruff) = python("ruff") {
        assert_passes(ruff.args(["format", "--check", "--no-cache", "src", "tests", "examples"]));
    }
}
