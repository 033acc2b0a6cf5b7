//! Oracles in Python: scripts that print what a recording says, as JSON.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::paths::repository;

/// Reads the sessions of cryptofeed.
pub const CRYPTOFEED: &str = "crates/tickcast-venues/tests/venues/oracle.py";
/// Reads the recordings of hftbacktest.
pub const BINANCE: &str = "crates/fake-venue/tests/codecs/oracle_binance.py";

/// What the script makes of a file; `None`, and a line in the output, without Python.
pub fn read(script: &str, file: &Path) -> Option<Value> {
    match Command::new("python3").arg(repository().join(script)).arg(file).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(serde_json::from_slice(&output.stdout).expect("JSON"))
        }
        Err(error) => {
            println!("SKIPPED: python3 does not start ({error})");
            None
        }
    }
}
