//! `clients/js`: vitest against the golden bytes, servers that it plays, and this server.

use std::process::{Command, Stdio};

use crate::{at, passes};

#[test]
fn the_javascript_client_passes_its_own_suite() {
    let vitest = at("clients/js/node_modules/vitest/vitest.mjs");
    let starts =
        Command::new("node").arg(&vitest).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !starts.is_ok_and(|status| status.success()) {
        println!("SKIPPED: node with vitest does not start; see tests/clients/install");
        return;
    }
    passes(Command::new("node").arg(vitest).arg("run").current_dir(at("clients/js")));
}
