//! Nothing is left unfinished: no marks in comments, and no macros that panic in place of code.

use crate::source::{Source, line_at, words};
use crate::{assert_found, assert_holds};

/// Concatenated, so that this file does not contain them.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const MACROS: &[&str] = &[concat!("to", "do"), concat!("unimple", "mented")];

fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Source { path, text, code } in sources {
        let marks = words(text).filter(|(_, word)| MARKS.contains(word)).map(|(at, word)| (line_at(text, at), word));
        let macros = words(code)
            .filter(|(at, word)| MACROS.contains(word) && code[at + word.len()..].starts_with('!'))
            .map(|(at, word)| (line_at(code, at), word));
        found.extend(marks.chain(macros).map(|(line, word)| format!("{path}:{line}: {word}")));
    }
    found
}

#[test]
fn nothing_is_unfinished() {
    let mark = format!("// {}: later\n", MARKS[0]);
    let call = format!("fn f() {{\n    {}!()\n}}\n", MACROS[0]);
    for (text, expected) in [(mark.as_str(), 1), (&call, 1), ("// todos\n", 0)] {
        assert_found(violations, &[("src/ring.rs", text)], expected);
    }
    assert_holds(violations);
}
