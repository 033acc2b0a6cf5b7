//! `clients/python`: its tests, its types and its style.

use std::process::{Command, Stdio};

use crate::{at, passes};

/// Python with what `tests/clients/install` has installed, in the client's folder; `None` after having said that it is
/// absent.
fn python(module: &str) -> Option<Command> {
    let installed = at("target/clients/python");
    let command = || {
        let mut command = Command::new("python3");
        command.args(["-B", "-m", module]).current_dir(at("clients/python")).env("PYTHONPATH", &installed);
        command
    };
    let started = command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if installed.join("wanted").exists() && started.is_ok_and(|status| status.success()) {
        return Some(command());
    }
    println!("SKIPPED: python3 has no {module}; see tests/clients/install");
    None
}

#[test]
fn the_python_clients_own_tests_pass() {
    if let Some(mut pytest) = python("pytest") {
        passes(pytest.args(["-q", "-rs"]));
    }
}

#[test]
fn the_python_clients_types_are_right() {
    if let Some(mut mypy) = python("mypy") {
        passes(mypy.arg("--cache-dir").arg(at("target/clients/mypy")));
    }
}

#[test]
fn the_python_clients_style_is_held() {
    if let Some(mut ruff) = python("ruff") {
        passes(ruff.args(["check", "--no-cache", "src", "tests"]));
    }
    if let Some(mut ruff) = python("ruff") {
        passes(ruff.args(["format", "--check", "--no-cache", "src", "tests"]));
    }
}
