//! The crates that other programs link depend on nothing of the server: they build on any system with the standard
//! library.

use std::process::Command;

use tickcast_test_support::paths;

/// What only the server, the program and the load generator need.
const SERVER_ONLY: [&str; 8] =
    ["glommio", "io-uring", "mimalloc", "clap", "plotters", "rustix", "signal-hook", "tickcast"];

/// The packages that a package is built from, itself included.
fn dependencies(package: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["tree", "--offline", "--edges", "normal,build", "--prefix", "none", "--package", package];
    let output = Command::new(cargo).args(args).current_dir(paths::repository()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are ASCII");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn server_only(package: &str) -> Vec<String> {
    let mut found = dependencies(package);
    found.retain(|name| SERVER_ONLY.contains(&name.as_str()));
    found.sort();
    found.dedup();
    found
}

#[test]
fn portable_crates_need_nothing_of_the_server() {
    assert_eq!(server_only("tickcast-protocol"), [""; 0]);
    assert_eq!(server_only("tickcast-client"), [""; 0]);
    assert_eq!(server_only("tickcast-venues"), [""; 0]);
    // The server needs all of them, so that a name that is wrong here is noticed.
    assert_eq!(server_only("tickcast").len(), SERVER_ONLY.len());
}
