//! Links and paths: what a page or a comment names is there.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use tickcast_test_support::paths::repository;

use super::{Page, fenced, files, pages, read, spans};

/// The targets of `[text](target)` outside of fenced blocks.
fn targets(text: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            targets.extend(line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)));
        }
    }
    targets
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

fn link_faults(page: &Page) -> Vec<String> {
    let folder = page.path.parent().expect("a file lies in a folder");
    let fault = |target: &str| {
        let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let path = if file.is_empty() { page.path.clone() } else { normal(&folder.join(file)) };
        let fault = |problem: &str| Some(format!("{}: {target}: {problem}", page.path.display()));
        if !file.is_empty() && !repository().join(&path).exists() {
            return fault("the file is not there");
        }
        let text = || if file.is_empty() { page.text.clone() } else { read(&path) };
        match anchor {
            Some(anchor) if !anchors(&text()).contains(anchor) => fault("the heading is not there"),
            _ => None,
        }
    };
    targets(&page.text).into_iter().filter(|target| !target.contains("://")).filter_map(fault).collect()
}

/// Folders that builds make: what is named below them need not be there.
const BUILT: [&str; 3] = ["target", "node_modules", "dist"];

/// The words that are paths into the repository, from the root or from one of its folders.
fn named_paths<'a>(words: impl Iterator<Item = &'a str>, bases: &[&Path]) -> Vec<(&'a str, bool)> {
    let is_path = |word: &&str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-' | '@');
        word.contains('/') && !word.starts_with('/') && word.chars().all(plain) && !word.contains("...")
    };
    let of = |word: &'a str| {
        let first = word.split('/').find(|part| !matches!(*part, "." | ".."))?;
        let is_here = |base: &&Path| repository().join(base).join(first).is_dir();
        if BUILT.iter().any(|built| word.split('/').any(|part| part == *built)) || !bases.iter().any(is_here) {
            return None;
        }
        Some((word, bases.iter().any(|base| repository().join(normal(&base.join(word))).exists())))
    };
    words.map(|word| word.trim_end_matches(['.', ',', ':', ';'])).filter(is_path).filter_map(of).collect()
}

fn path_faults(page: &Page) -> Vec<String> {
    let folder = page.path.parent().expect("a file lies in a folder");
    let lines = spans(&page.text).into_iter().chain(fenced(&page.text));
    let words = lines.flat_map(|line| line.split(|letter: char| letter.is_whitespace() || "'\"()=,".contains(letter)));
    let faults = named_paths(words, &[Path::new(""), folder]).into_iter().filter(|(_, there)| !there);
    faults.map(|(path, _)| format!("{}: {path} is not there", page.path.display())).collect()
}

/// Paths between backticks in the comments of a Rust source, from the root.
fn comment_faults(path: &Path, text: &str) -> Vec<String> {
    const ROOTS: [&str; 8] = ["src/", "tests/", "benches/", "crates/", "clients/", "tuning/", "docs/", ".ci/"];
    let comments = text.lines().map(str::trim_start).filter(|line| line.starts_with("//"));
    let words = comments.flat_map(|line| line.split('`').skip(1).step_by(2)).filter_map(|span| span.split(' ').next());
    let rooted = words.filter(|word| ROOTS.iter().any(|root| word.starts_with(root)));
    let folder = path.parent().expect("a file lies in a folder");
    let package = if path.starts_with("crates") || path.starts_with("tests/fuzz") { folder } else { Path::new("") };
    let faults = named_paths(rooted, &[Path::new(""), package]).into_iter().filter(|(_, there)| !there);
    faults.map(|(word, _)| format!("{}: {word} is not there", path.display())).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    assert_eq!(pages().iter().flat_map(link_faults).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_path_that_a_page_names_is_there() {
    assert_eq!(pages().iter().flat_map(path_faults).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_path_that_a_comment_names_is_there() {
    let sources = files().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let faults: Vec<_> = sources.flat_map(|path| comment_faults(&path, &read(&path))).collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn a_link_or_path_that_leads_nowhere_is_found() {
    let page = |text: &str| Page { path: "docs/x.md".into(), text: text.to_owned() };
    for (text, found) in [
        ("[a](protocol.md) [b](../README.md) [c](https://a.example/b)", 0),
        ("[a](protocol.md#packet) [b](#here)\n# Here\n", 0),
        ("[a](protocols.md)", 1),
        ("[a](protocol.md#no-such-heading)", 1),
        ("[a](#there)\n# Here\n", 1),
    ] {
        assert_eq!(link_faults(&page(text)).len(), found, "{text}");
    }
    for (text, found) in [
        ("`src/ring.rs` and `tests/fuzz/run 3600`, `target/x`, `/v1/stream`, `a/b`", 0),
        ("`src/rings.rs`", 1),
        ("```\ncargo x src/rings.rs\n```", 1),
        ("src/rings.rs without backticks", 0),
    ] {
        assert_eq!(path_faults(&page(text)).len(), found, "{text}");
    }
    let source = |text: &str| comment_faults(Path::new("src/x.rs"), text).len();
    assert_eq!((source("//! `tests/loom` is there\n"), source("/// see `tests/no_such.rs`\n")), (0, 1));
}
