//! Words that earlier versions used for things that the field has names for. docs/glossary.md has the words in use.
//!
//! Identifiers are split at underscores and capitals. A word that is ordinary English elsewhere is looked for in the
//! places and phrases in which it named a thing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tickcast_test_support::paths::repository;

/// Retired wherever it occurs: in identifiers, comments, messages and names of files.
const RETIRED: &[&str] = &[
    "door",
    "doors",
    "seat",
    "seats",
    "seated",
    "desk",
    "desks",
    "lobby",
    "hall",
    "halls",
    "crew",
    "crews",
    "farewell",
    "farewells",
    "straggler",
    "stragglers",
    "owe",
    "owed",
    "owes",
    "owing",
    "tape",
    "tapes",
    "sweep",
    "sweeps",
    "swept",
    "sweeping",
    "house",
];
/// Retired as a name for an iteration of a loop: as a part of an identifier, and in comments after a word that makes a
/// noun of it.
const TURN: &[&str] = &["turn", "turns"];
const BEFORE_A_NOUN: &[&str] =
    &["a", "the", "this", "that", "each", "every", "one", "next", "last", "per", "same", "its", "their", "of", "two"];

/// A word of another project, and the files in which it may occur: a file, or a folder with all below it.
const ALLOWED: &[(&str, &str)] = &[
    // simd-json calls a parsed document a tape.
    ("tape", "crates/tickcast-protocol/src/control"),
    ("tape", "crates/tickcast-venues/src/json.rs"),
];

/// This file names the words.
const OWN: &str = "tests/source_rules/retired_words.rs";
const FOLDERS: &[&str] =
    &["src/", "crates/", "tests/", "benches/", "clients/js/src/", "clients/page/src/", "clients/python/"];
const ENDINGS: &[&str] = &["rs", "ts", "py"];

/// A retired word at a line; line 0 is the name of the file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    path: String,
    line: usize,
    word: String,
}

/// The words of a text, lower case: `SlotId_max` has `slot`, `id` and `max`.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in text.chars() {
        let begins = letter.is_uppercase() && was_lower;
        if begins || !letter.is_alphabetic() {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The code and the comment of a line.
fn split(line: &str, is_python: bool) -> (&str, &str) {
    let trimmed = line.trim_start();
    if !is_python && (trimmed.starts_with("* ") || trimmed.starts_with("/*")) {
        return ("", line);
    }
    let marker = if is_python { "# " } else { "//" };
    let is_comment = |at: usize| at == 0 || line[..at].ends_with(' ');
    let found = line.match_indices(marker).map(|(at, _)| at).find(|at| is_comment(*at));
    found.map_or((line, ""), |at| line.split_at(at))
}

/// The words that are retired in this line.
fn in_line(line: &str, is_python: bool) -> Vec<String> {
    let mut found: Vec<String> = words(line).into_iter().filter(|word| RETIRED.contains(&word.as_str())).collect();
    let (code, comment) = split(line, is_python);
    let without_texts: String = code.split(['"', '`']).step_by(2).collect::<Vec<_>>().join(" ");
    let is_turn = |word: &&String| TURN.contains(&word.as_str());
    found.extend(words(&without_texts).iter().filter(is_turn).cloned());
    let spoken = words(comment);
    let nouns = spoken.windows(2).filter(|pair| BEFORE_A_NOUN.contains(&pair[0].as_str()));
    found.extend(nouns.map(|pair| &pair[1]).filter(is_turn).cloned());
    found
}

fn in_file(path: &str, text: &str) -> Vec<Found> {
    let found = |line: usize, word: String| Found { path: path.to_owned(), line, word };
    let of_name = words(path).into_iter().filter(|word| RETIRED.contains(&word.as_str())).map(|word| found(0, word));
    let is_python = path.ends_with(".py");
    let lines = text.lines().enumerate();
    let of_lines = lines.flat_map(|(nth, line)| in_line(line, is_python).into_iter().map(move |word| (nth + 1, word)));
    of_name.chain(of_lines.map(|(line, word)| found(line, word))).collect()
}

fn is_allowed(found: &Found, (word, place): &(&str, &str)) -> bool {
    found.word == *word && (found.path == *place || found.path.starts_with(&format!("{place}/")))
}

fn sources() -> Vec<(String, String)> {
    let is_source = |path: &PathBuf| {
        let name = path.to_str().expect("names are UTF-8");
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        name != OWN && ENDINGS.contains(&ending) && FOLDERS.iter().any(|folder| name.starts_with(folder))
    };
    let paths = super::docs::files().into_iter().filter(is_source);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(repository().join(&path)).expect("sources are UTF-8");
        (path.to_str().expect("checked above").to_owned(), text)
    };
    let sources: Vec<_> = paths.map(read).collect();
    assert!(sources.len() > 200, "only {} sources were found", sources.len());
    sources
}

#[test]
fn no_retired_word_occurs_and_no_exception_is_unused() {
    let found: Vec<_> = sources().iter().flat_map(|(path, text)| in_file(path, text)).collect();
    let faults: Vec<_> = found.iter().filter(|found| !ALLOWED.iter().any(|entry| is_allowed(found, entry))).collect();
    for Found { path, line, word } in &faults {
        println!("{path}:{line}: {word}");
    }
    assert_eq!(faults.len(), 0, "retired words, listed above; docs/glossary.md has the words in use");
    let unused = ALLOWED.iter().filter(|entry| !found.iter().any(|found| is_allowed(found, entry)));
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new());
}

#[test]
fn a_retired_word_is_found_in_identifiers_comments_and_names() {
    let found = |line: &str| in_line(line, false).into_iter().collect::<BTreeSet<_>>();
    let one = |word: &str| [word.to_owned()].into();
    assert_eq!(found("struct HttpDoor;"), one("door"));
    assert_eq!(found("let seats_max = 1;"), one("seats"));
    assert_eq!(found("/// What a client is owed."), one("owed"));
    assert_eq!(found(r#"error("the lobby is full")"#), one("lobby"));
    assert_eq!(found("fn turn_ns() {}"), one("turn"));
    assert_eq!(found("x // sent in the next turn"), one("turn"));
    for line in [
        "return housekeeping; // each in turn",
        "// it turns out",
        "indoor(threshold) // chall",
        "let text = \"turn\";",
    ] {
        assert_eq!(found(line), BTreeSet::new(), "{line}");
    }
    assert_eq!(in_line("x = 1  # a turn", true), ["turn"]);
    assert_eq!(in_file("src/shard/farewell.rs", "").len(), 1);
    let tape = Found { path: "a/b.rs".to_owned(), line: 1, word: "tape".to_owned() };
    assert!(is_allowed(&tape, &("tape", "a")) && is_allowed(&tape, &("tape", "a/b.rs")));
    assert!(!is_allowed(&tape, &("tape", "a/b")) && !is_allowed(&tape, &("door", "a")));
}
