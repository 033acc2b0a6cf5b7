//! The fuzz targets over their saved corpus, without a fuzzer: what was ever worth keeping is tried again with every
//! run of the tests. What the corpus is and how it grows is in `tests/fuzz/README.md`.

// The fuzzer's own source; each of its targets is used here.
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

/// Runs a target on each of its inputs, the name of the one at hand on the standard error, for the case that it fails.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has no inputs", folder.display());
    for input in inputs {
        eprintln!("{}", input.display());
        run(&std::fs::read(&input).expect("a readable input"));
    }
}

#[test]
fn frames_mean_the_same_in_any_pieces_and_to_tungstenite() {
    replay("session", fuzz::session::run);
}

#[test]
fn heads_are_judged_as_tungstenite_judges_them() {
    replay("handshake", fuzz::handshake::run);
}

#[test]
fn requests_mean_the_same_to_a_second_reader() {
    replay("control", fuzz::control::run);
}

#[test]
fn what_is_inflated_is_bounded_and_what_is_compressed_comes_back() {
    replay("deflate", fuzz::deflate::run);
}

#[test]
fn packets_that_are_taken_are_sequenced_without_a_hole() {
    replay("packets", fuzz::packets::run);
}

#[test]
fn recordings_are_refused_or_played_to_their_end() {
    replay("recording", fuzz::recording::run);
}

#[test]
fn a_shard_stands_whatever_clients_do() {
    replay("shard", fuzz::shard::run);
}
