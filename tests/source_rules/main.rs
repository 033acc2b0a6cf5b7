//! The sources themselves: which room may name which, where the kernel, the executor and unsafe code may be named, and
//! how long a file, a function and a line may be.
//!
//! The text is enough for this: comments and literals are blanked, and what is left is read word by word. It does not
//! see through re-exports, nor what a macro puts together. Each rule is shown a planted violation as well.

mod docs;

use std::fmt::Write as _;
use std::path::Path;

/// Who may name whom. `main` names by `tickcast::`, everybody else by `crate::` or `super::`.
const ROOMS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("ring", &["sync"]),
    ("market", &[]),
    ("ws", &[]),
    ("bars", &["market"]),
    ("io", &[]),
    ("wire", &["market", "ws"]),
    ("feed", &["market"]),
    ("sequencer", &["market", "wire", "ring"]),
    ("stats", &["sequencer"]),
    ("shard", &["market", "wire", "ring", "ws", "io", "stats"]),
    // What the memory of bars comes to is printed at the start.
    ("config", &["bars", "feed", "shard"]),
    // Other programs link it: it stands on the protocol alone.
    ("client", &["market", "wire", "ws"]),
    // The floor that the server is measured against has its kernel calls in `io::floor`.
    ("load", &["client", "io", "market", "wire", "ws"]),
    // What is asked of the machine follows from the configuration, and whether there is a ring only a ring can tell.
    ("check", &["config", "io"]),
    // The door hands sockets to the shard, records to the sequencer, and wakes the shard's task through `runtime::ShardWaker`.
    ("server", &["bars", "config", "io", "market", "ring", "runtime", "sequencer", "shard", "stats", "wire", "ws"]),
    (
        "runtime",
        &["bars", "check", "config", "server", "feed", "io", "market", "ring", "sequencer", "shard", "stats", "sync"],
    ),
    ("main", &["check", "config", "load", "runtime"]),
    ("lib", &[]),
];

/// Words of the code, and the only places under `src/` where they may stand.
const ISLANDS: &[(&[&str], &[&str])] = &[
    (&["glommio"], &["src/runtime/", "src/server/"]),
    // The second island is the yardstick of the first, and so shares nothing with it.
    (&["io_uring"], &["src/io/uring.rs", "src/io/floor.rs"]),
    (&["unsafe", "unsafe_code"], &["src/io/uring.rs", "src/io/floor.rs"]),
    // The rival is another server, as one is usually written; the feature `rivals` alone builds it.
    (&["async", "await", "Rc", "RefCell"], &["src/runtime/", "src/server/", "src/load/floor/rival.rs"]),
    (&["Mutex", "RwLock", "Condvar"], &["src/runtime/", "src/server/", "src/load/"]),
    // Time is an argument; only the shell, the client and the load generator read clocks.
    (&["Instant", "SystemTime"], &["src/runtime/", "src/server/", "src/client/", "src/load/"]),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt keeps code to 120; a comment may end a word later, and a literal cannot be broken.
const LINE_COLUMNS_MAX: usize = 124;
/// Put together, so that this file does not hold them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const UNFINISHED_MACROS: &[&str] = &[concat!("to", "do"), concat!("unimple", "mented")];

struct Source {
    /// From the package's root, like `src/ring.rs`.
    path: String,
    text: String,
    /// The text with comments and literals blanked, line for line.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// The room that the file belongs to; `None` outside of `src/`.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
    }

    /// How many modules lie between the file and the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }
}

fn read_all(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
        let path = format!("{prefix}/{name}");
        if entry.is_dir() {
            read_all(&entry, &path, sources);
        } else if name.ends_with(".rs") {
            sources.push(Source::new(&path, &std::fs::read_to_string(&entry).expect("sources are UTF-8")));
        }
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches"] {
        read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), folder, &mut sources);
    }
    assert!(sources.len() > 50, "only {} sources were found", sources.len());
    sources
}

/// Blanks comments, strings and characters, keeping the line breaks.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_before = code.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let length = literal_or_comment(rest, word_before);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// Bytes of the comment or literal that `rest` begins with; 0 if it does with neither.
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

/// The words of a code, with their places.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(is_word)?;
        let length = code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at);
        at += length;
        Some((at - length, &code[at - length..at]))
    })
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// What follows a `::`: one name, or the first names of a group in braces.
fn named_after(rest: &str) -> Vec<&str> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return words(rest).next().map(|(_, word)| word).into_iter().collect();
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        if depth == 0 && (c == ',' || c == '}') {
            names.extend(words(&group[start..at]).next().map(|(_, word)| word));
            start = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

/// Every room that a source names, with the line.
fn rooms_named(source: &Source) -> Vec<(usize, &str)> {
    let code = &source.code;
    let root = if source.path == "src/main.rs" { "tickcast" } else { "crate" };
    let mut named = Vec::new();
    for (at, word) in words(code).filter(|(_, word)| *word == root || *word == "super") {
        let mut rest = &code[at + word.len()..];
        if word == "super" {
            let continues = code[..at].ends_with("super::");
            let mut steps = 1;
            while let Some(more) = rest.strip_prefix("::super") {
                (steps, rest) = (steps + 1, more);
            }
            if continues || steps < source.depth() + modules_around(code, at) {
                continue;
            }
        }
        if let Some(path) = rest.strip_prefix("::") {
            named.extend(named_after(path).into_iter().map(|name| (line_at(code, at), name)));
        }
    }
    named
}

/// How many modules written in the file itself are open at this place.
fn modules_around(code: &str, at: usize) -> usize {
    let opened = |&(start, word): &(usize, &str)| word == "mod" && start < at;
    words(code)
        .filter(opened)
        .filter(|(start, _)| {
            let open = code[*start..].find(['{', ';']).map(|offset| start + offset);
            open.is_some_and(|open| code[open..].starts_with('{') && block_end(code, open) > at)
        })
        .count()
}

/// Where the block that opens at `open` ends.
fn block_end(code: &str, open: usize) -> usize {
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
    code.len()
}

fn room_violations(sources: &[Source]) -> String {
    let mut found = String::new();
    for source in sources {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            let _ = writeln!(found, "{}: room {room} is not in the table", source.path);
            continue;
        };
        for (line, named) in rooms_named(source) {
            let is_room = ROOMS.iter().any(|(name, _)| *name == named);
            if is_room && named != room && !allowed.contains(&named) {
                let _ = writeln!(found, "{}:{line}: {room} names {named}", source.path);
            }
        }
    }
    found
}

fn island_violations(sources: &[Source]) -> String {
    let mut found = String::new();
    for source in sources.iter().filter(|source| source.room().is_some()) {
        for (at, word) in words(&source.code) {
            for (_, places) in ISLANDS.iter().filter(|(island, _)| island.contains(&word)) {
                if !places.iter().any(|place| source.path.starts_with(place)) {
                    let _ = writeln!(
                        found,
                        "{}:{}: {word} may stand in {places:?} only",
                        source.path,
                        line_at(&source.code, at)
                    );
                }
            }
        }
    }
    found
}

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

fn size_violations(sources: &[Source]) -> String {
    let mut found = String::new();
    for Source { path, text, code } in sources {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            let _ = writeln!(found, "{path}: {lines} lines; have {FILE_LINES_MAX}");
        }
        for (number, (line, line_of_code)) in text.lines().zip(code.lines()).enumerate() {
            let columns = line.chars().count();
            let holds_literal = line_of_code.trim_end() != line && !line.trim_start().starts_with("//");
            if columns > LINE_COLUMNS_MAX && !holds_literal {
                let _ = writeln!(found, "{path}:{}: {columns} columns", number + 1);
            }
        }
        for (name, line, lines) in functions(code).into_iter().filter(|(.., lines)| *lines > FUNCTION_LINES_MAX) {
            let _ = writeln!(found, "{path}:{line}: {name} has {lines} lines; have {FUNCTION_LINES_MAX}");
        }
    }
    found
}

fn unfinished(sources: &[Source]) -> String {
    let mut found = String::new();
    for Source { path, text, code } in sources {
        let marks =
            words(text).filter(|(_, word)| UNFINISHED.contains(word)).map(|(at, word)| (line_at(text, at), word));
        let macros = words(code)
            .filter(|(at, word)| UNFINISHED_MACROS.contains(word) && code[at + word.len()..].starts_with('!'))
            .map(|(at, word)| (line_at(code, at), word));
        for (line, word) in marks.chain(macros) {
            let _ = writeln!(found, "{path}:{line}: {word}");
        }
    }
    found
}

/// The rule finds nothing in the tree, and exactly `expected` lines in each planted file.
fn holds_and_is_caught(rule: fn(&[Source]) -> String, planted: &[(&str, &str, usize)]) {
    for (path, text, expected) in planted {
        let found = rule(&[Source::new(path, text)]);
        assert_eq!(found.lines().count(), *expected, "planted in {path}:\n{text}\nfound:\n{found}");
    }
    let found = rule(&sources());
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn every_room_names_only_those_it_may() {
    holds_and_is_caught(
        room_violations,
        &[
            ("src/ring.rs", "use crate::feed::Feed;\n", 1),
            ("src/market/book.rs", "fn f() {\n    crate::shard::Shard::f()\n}\n", 1),
            ("src/feed/sim/dice.rs", "use super::super::super::ring;\nuse super::super::super::market;\n", 1),
            ("src/ws/mod.rs", "use super::wire;\nmod tests {\n    use super::wire;\n}\n", 1),
            ("src/ws/mod.rs", "mod tests {\n    use super::super::wire;\n}\n", 1),
            ("src/io/mod.rs", "use crate::{io, shard::{Shard, ring}, stats};\n", 2),
            ("src/main.rs", "use tickcast::{load, runtime, ring};\n", 1),
            ("src/attic.rs", "", 1),
            ("src/ring.rs", "// use crate::feed;\nconst S: &str = \"crate::feed\";\n", 0),
        ],
    );
}

#[test]
fn the_kernel_the_executor_clocks_and_unsafe_code_stay_where_they_belong() {
    holds_and_is_caught(
        island_violations,
        &[
            ("src/shard/mod.rs", "use std::cell::RefCell;\nasync fn f() {}\n", 2),
            ("src/shard/flush.rs", "fn f() { std::time::Instant::now(); }\n", 1),
            ("src/load/run.rs", "use glommio::timer;\n", 1),
            ("src/io/mod.rs", "use io_uring::IoUring;\n", 1),
            ("src/ring.rs", "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }\n", 2),
            ("src/ring.rs", "//! unsafe\nconst C: char = '\"'; /* async */ const S: &str = r#\"glommio \" \"#;\n", 0),
            ("src/ring.rs", "fn f<'a>(x: &'a str) { let c = 'x'; let d = '\\''; } // Mutex\n", 0),
        ],
    );
}

#[test]
fn files_functions_and_lines_stay_short() {
    let long_function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 1));
    let longest_function = format!("fn f() -> [u8; 4] {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 2));
    holds_and_is_caught(
        size_violations,
        &[
            ("src/ring.rs", &long_function, 1),
            ("src/ring.rs", &longest_function, 0),
            ("src/ring.rs", &"\n".repeat(FILE_LINES_MAX + 1), 1),
            ("src/ring.rs", &"\n".repeat(FILE_LINES_MAX), 0),
            ("tests/ring.rs", &format!("// {}\n", "x".repeat(LINE_COLUMNS_MAX - 2)), 1),
            ("tests/ring.rs", &format!("// {}\n", "x".repeat(LINE_COLUMNS_MAX - 3)), 0),
        ],
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let mark = format!("// {}: later\n", UNFINISHED[0]);
    let call = format!("fn f() {{\n    {}!()\n}}\n", UNFINISHED_MACROS[0]);
    holds_and_is_caught(
        unfinished,
        &[("src/ring.rs", &mark, 1), ("src/ring.rs", &call, 1), ("src/ring.rs", "// todos\n", 0)],
    );
}
