//! How long a file, a function and a line may be.

use crate::source::{Source, block_end, line_at, words};
use crate::{assert_found, assert_holds};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt breaks code at 120 columns. A comment may end a word later, and a literal cannot be broken.
const LINE_COLUMNS_MAX: usize = 124;

/// Name, line and length in lines of each function with a body.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let mut list = Vec::new();
    for (at, _) in words(code).filter(|(_, word)| *word == "fn") {
        let Some((_, name)) = words(&code[at + 2..]).next().filter(|(offset, _)| *offset == 1) else { continue };
        let mut brackets = 0i32;
        let body = code[at..].char_indices().find(|(_, c)| {
            brackets += i32::from("([".contains(*c)) - i32::from(")]".contains(*c));
            brackets == 0 && "{;".contains(*c)
        });
        if let Some((offset, '{')) = body {
            let end = block_end(code, at + offset);
            list.push((name, line_at(code, at), code[at..end].matches('\n').count() + 1));
        }
    }
    list
}

fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Source { path, text, code } in sources {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{path}: {lines} lines: expected at most {FILE_LINES_MAX}"));
        }
        for (number, (line, line_of_code)) in text.lines().zip(code.lines()).enumerate() {
            let columns = line.chars().count();
            let holds_literal = line_of_code.trim_end() != line && !line.trim_start().starts_with("//");
            if columns > LINE_COLUMNS_MAX && !holds_literal {
                found.push(format!("{path}:{}: {columns} columns: expected at most {LINE_COLUMNS_MAX}", number + 1));
            }
        }
        for (name, line, lines) in functions(code).into_iter().filter(|(.., lines)| *lines > FUNCTION_LINES_MAX) {
            found.push(format!("{path}:{line}: {name} has {lines} lines: expected at most {FUNCTION_LINES_MAX}"));
        }
    }
    found
}

#[test]
fn files_functions_and_lines_are_short() {
    let long_function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 1));
    let longest_function = format!("fn f() -> [u8; 4] {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 2));
    for (text, expected) in [
        (long_function.as_str(), 1),
        (&longest_function, 0),
        (&"\n".repeat(FILE_LINES_MAX + 1), 1),
        (&"\n".repeat(FILE_LINES_MAX), 0),
        (&format!("// {}\n", "x".repeat(LINE_COLUMNS_MAX - 2)), 1),
        (&format!("// {}\n", "x".repeat(LINE_COLUMNS_MAX - 3)), 0),
    ] {
        assert_found(violations, &[("tests/ring.rs", text)], expected);
    }
    assert_holds(violations);
}
