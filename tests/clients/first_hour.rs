//! The first hour with `clients/js`: a project of Vite, React and TypeScript installs it from its tarball and from its
//! folder, is built, and is opened in Chromium. It prints the time to the first price.

use std::path::PathBuf;
use std::process::Command;

use crate::{assert_passes, at};

#[test]
fn a_new_project_installs_the_client_builds_and_shows_prices() {
    let (folder, browser) = (at("target/clients/first-hour"), at("target/browser"));
    let tools = [
        (folder.join("app/installed.json").exists(), "the project is not installed: run tests/clients/install"),
        (
            browser.join("installed.json").exists(),
            "playwright-core is not installed: run tests/external/browser/install",
        ),
        (found("npm").is_some(), "npm is not installed: run apt-get install npm"),
        (found("chromium").is_some(), "Chromium is not installed: run apt-get install chromium"),
    ];
    if let Some((_, missing)) = tools.iter().find(|(is_there, _)| !is_there) {
        println!("SKIPPED: {missing}");
        return;
    }
    let script = at("tests/clients/first_hour/run.mjs");
    let chromium = found("chromium").expect("it was found");
    assert_passes(Command::new("node").arg(script).arg(folder).arg(browser).arg(chromium));
}

/// A program in `PATH`.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
