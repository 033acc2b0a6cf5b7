//! What several test programs share.

// Each test program compiles this for itself and uses its own part.
#![allow(dead_code)]

pub mod client;
pub mod events;
pub mod http;
pub mod io_contract;
pub mod node;
pub mod oracle;
pub mod server;
pub mod stream;
pub mod unpack;

use std::path::PathBuf;

/// Where the real recordings are: `$TICKCAST_DATA`, else `../shared/data` beside the package. `None` after having said
/// so where they are absent: a test that needs them is then skipped, and its output tells.
pub fn data_dir() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let dir = std::env::var_os("TICKCAST_DATA").map_or_else(beside, PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED: the recordings are absent; looked in {} (set TICKCAST_DATA)", dir.display());
    None
}
