//! Rules over the repository: which module may name which, where the kernel, the executor and unsafe code may be named,
//! how long a file and a function may be, what the portable crates depend on, and that the documents agree with the code.
//!
//! The rules read the text: comments and literals are blanked, and the rest is read word by word. They do not see what a
//! macro puts together. Each rule is also run on planted violations, so that a rule that finds nothing is noticed.

mod confinement;
mod docs;
mod layering;
mod modules;
mod portability;
mod retired_words;
mod sizes;
mod source;
mod unfinished;

use source::Source;

/// A rule: one line for each violation.
type Rule = fn(&[Source]) -> Vec<String>;

/// Files to plant: path and text.
type Planted<'a> = &'a [(&'a str, &'a str)];

/// Asserts that the rule finds as many violations as expected in the planted files.
#[track_caller]
fn assert_found(rule: Rule, planted: Planted, expected: usize) {
    let sources: Vec<_> = planted.iter().map(|(path, text)| Source::new(path, text)).collect();
    let found = rule(&sources);
    assert_eq!(found.len(), expected, "planted: {planted:#?}\nfound: {found:#?}");
}

/// Asserts that the rule finds nothing in the repository.
#[track_caller]
fn assert_holds(rule: Rule) {
    let found = rule(&source::all());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
