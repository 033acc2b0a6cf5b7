//! The fuzz targets on their saved corpus, without a fuzzer. `tests/fuzz/README.md` describes the corpus.

// The fuzzer's own source; each of its targets is used here.
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

/// Runs a target on each of its inputs. The name of the input goes to the standard error, for the case that it fails.
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
fn session_decodes_like_tungstenite() {
    replay("session", fuzz::session::run);
}

#[test]
fn handshake_is_accepted_like_tungstenite() {
    replay("handshake", fuzz::handshake::run);
}

#[test]
fn control_messages_parse_like_serde_json() {
    replay("control", fuzz::control::run);
}

#[test]
fn deflate_is_bounded_and_restores_the_input() {
    replay("deflate", fuzz::deflate::run);
}

#[test]
fn accepted_packets_are_sequenced_without_a_gap() {
    replay("packets", fuzz::packets::run);
}

#[test]
fn payloads_become_records_that_are_accepted() {
    replay("payloads", fuzz::payloads::run);
}

#[test]
fn recordings_are_refused_or_replayed_to_the_end() {
    replay("recording", fuzz::recording::run);
}

#[test]
fn rights_come_to_what_their_rules_say() {
    replay("rights", fuzz::rights::run);
}

#[test]
fn tokens_are_accepted_for_what_they_say_alone() {
    replay("tokens", fuzz::tokens::run);
}

#[test]
fn shard_keeps_its_rules_for_any_script() {
    replay("shard", fuzz::shard::run);
}
