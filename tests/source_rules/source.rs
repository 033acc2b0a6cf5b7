//! The source files of the repository, as text and as code without comments and literals.

use std::path::Path;

use tickcast_test_support::paths;

const FOLDERS: [&str; 4] = ["src", "tests", "benches", "crates"];

/// A source file.
pub struct Source {
    /// From the root of the repository, like `src/ring.rs`.
    pub path: String,
    pub text: String,
    /// The text with comments and literals blanked, line for line.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }
}

/// All source files of the repository.
pub fn all() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        read_folder(&paths::repository().join(folder), folder, &mut sources);
    }
    assert!(sources.len() > 50, "only {} sources were found", sources.len());
    sources
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    let entries = std::fs::read_dir(folder).expect("the folder exists");
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
        let path = format!("{prefix}/{name}");
        if entry.is_dir() {
            read_folder(&entry, &path, sources);
        } else if name.ends_with(".rs") {
            sources.push(Source::new(&path, &std::fs::read_to_string(&entry).expect("sources are UTF-8")));
        }
    }
}

/// Blanks comments, strings and characters. Line breaks stay.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_before = code.ends_with(is_word);
        let length = literal_or_comment(rest, word_before);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            blank(&rest[..length], &mut code);
            rest = &rest[length..];
        }
    }
    code
}

fn blank(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

/// The length of the comment or literal at the start of `rest`; 0 for none.
fn literal_or_comment(rest: &str, word_before: bool) -> usize {
    let bytes = rest.as_bytes();
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if !word_before && (bytes[0] == b'r' || rest.starts_with("br")) {
        let from = if bytes[0] == b'b' { 2 } else { 1 };
        let hashes = bytes[from..].iter().take_while(|&&byte| byte == b'#').count();
        if bytes.get(from + hashes) == Some(&b'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = from + hashes + 1;
            return rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len());
        }
    }
    match bytes[0] {
        b'"' => quoted(bytes, b'"'),
        b'\'' if bytes.get(1) == Some(&b'\\') => quoted(bytes, b'\''),
        // 'x' is a character, 'x without a second quote a lifetime.
        b'\'' => match rest[1..].char_indices().nth(1) {
            Some((after, '\'')) => after + 2,
            _ => 0,
        },
        _ => 0,
    }
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Blanks the items under `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let end = match rest[start..].find(['{', ';']) {
            Some(open) if rest[start + open..].starts_with('{') => block_end(rest, start + open),
            Some(semicolon) => start + semicolon,
            None => rest.len() - 1,
        };
        out.push_str(&rest[..start]);
        blank(&rest[start..=end], &mut out);
        rest = &rest[end + 1..];
    }
    out + rest
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a code, with their offsets.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(is_word)?;
        let length = code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at);
        at += length;
        Some((at - length, &code[at - length..at]))
    })
}

pub fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The offset at which the block that opens at `open` ends.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code[open..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len() - 1
}
