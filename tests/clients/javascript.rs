//! `clients/js`: vitest with the golden bytes, fake servers, and the real server.

use std::process::{Command, Stdio};

use crate::{assert_passes, at};

#[test]
fn javascript_client_passes_its_tests() {
    let vitest = at("clients/js/node_modules/vitest/vitest.mjs");
    let starts =
        Command::new("node").arg(&vitest).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !starts.is_ok_and(|status| status.success()) {
        println!("SKIPPED: vitest does not start in node: run tests/clients/install");
        return;
    }
    assert_passes(Command::new("node").arg(vitest).arg("run").current_dir(at("clients/js")));
}
