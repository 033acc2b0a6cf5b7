//! Where the tests find the repository, the server's program and the recordings.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("this crate is two folders below the root")
}

/// The server's program, which cargo builds before it runs an integration test of the root package: it lies in the
/// folder above the test's own binary.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let program = test.ancestors().nth(2).map(|profile| profile.join("tickcast"));
    program.filter(|path| path.exists()).unwrap_or_else(|| panic!("no tickcast above {}: cargo build", test.display()))
}

/// Where the real recordings are: `$TICKCAST_DATA`, else `../shared/data` beside the repository. `None`, and a line in
/// the test's output, where they are absent: a test that needs them is then skipped.
pub fn recordings() -> Option<PathBuf> {
    let dir = std::env::var_os("TICKCAST_DATA").map_or_else(|| repository().join("../shared/data"), PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED: the recordings are absent: expected in {} (set TICKCAST_DATA)", dir.display());
    None
}
