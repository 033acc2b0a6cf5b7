//! docs/glossary.md: one definition for a term, and only terms that the code uses.

use std::collections::BTreeSet;

use super::{files, read, rows};

/// Lower case words with one space between them; identifiers are split.
fn plain(text: &str) -> String {
    let mut plain = String::from(" ");
    let mut was_lower = false;
    for letter in text.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && was_lower) {
            plain.push(' ');
        }
        if letter.is_alphanumeric() {
            plain.extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn terms(page: &str) -> Vec<String> {
    rows(page).into_iter().map(|row| plain(&row[0])).collect()
}

/// Terms that do not occur in the code, alone or in the plural.
fn unused(terms: &[String], code: &str) -> Vec<String> {
    let code = format!(" {} ", plain(code));
    let occurs = |term: &&String| ["", "s", "es"].iter().any(|end| code.contains(&format!(" {term}{end} ")));
    terms.iter().filter(|term| !occurs(term)).cloned().collect()
}

#[test]
fn a_term_is_defined_once_and_used_in_the_code() {
    let terms = terms(&read("docs/glossary.md"));
    assert!(terms.len() > 40, "{terms:?}");
    assert_eq!(terms.iter().collect::<BTreeSet<_>>().len(), terms.len(), "a term is defined twice: {terms:?}");
    let is_code = |path: &std::path::PathBuf| {
        (path.starts_with("src") || path.starts_with("crates")) && path.extension().is_some_and(|ending| ending == "rs")
    };
    let code: String = files().into_iter().filter(is_code).map(read).collect();
    assert_eq!(unused(&terms, &code), [""; 0]);
}

#[test]
fn a_term_that_the_code_does_not_use_is_found() {
    let terms = ["slow client", "slot", "no such term"].map(str::to_owned);
    assert_eq!(unused(&terms, "struct SlowClient { slots: u8 }"), ["no such term"]);
}
