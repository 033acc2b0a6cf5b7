//! The modules of a crate, and which of them a source names.
//!
//! A path that begins with `crate`, `super` or `self` is followed through re-exports and imports of its own crate to the
//! module that holds the name. Test code is left out.

use std::collections::BTreeMap;

use crate::source::{self, Source, is_word};

/// A path from the crate's root, like `["http", "router"]`.
pub type ModulePath = Vec<String>;

/// A name that a module uses from another module of its crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// `path:line` of the name.
    pub at: String,
    pub from: ModulePath,
    pub to: ModulePath,
}

/// The modules below one folder of sources.
pub struct Modules {
    /// Each module with its file and its code.
    modules: BTreeMap<ModulePath, (String, String)>,
    /// Names that a module imports or re-exports, and the paths that they stand for.
    aliases: BTreeMap<(ModulePath, String), ModulePath>,
}

impl Modules {
    /// The modules of the crate whose sources are below `root`, like `src`.
    pub fn of(sources: &[Source], root: &str) -> Self {
        let mut modules = BTreeMap::new();
        for source in sources {
            let Some(inside) = source.path.strip_prefix(root).and_then(|path| path.strip_prefix('/')) else { continue };
            let path = module_path(inside);
            if path.last().is_some_and(|last| last == "tests") {
                continue;
            }
            for parent in 0..path.len() {
                modules.entry(path[..parent].to_vec()).or_default();
            }
            modules.insert(path, (source.path.clone(), source::without_tests(&source.code)));
        }
        let mut all = Self { modules, aliases: BTreeMap::new() };
        let aliases = all.modules.iter().flat_map(|(module, (_, code))| all.imports(module, code)).collect();
        all.aliases = aliases;
        all
    }

    pub fn paths(&self) -> impl Iterator<Item = &ModulePath> {
        self.modules.keys()
    }

    /// Every name of another module, in the order of the sources.
    pub fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for (module, (file, code)) in &self.modules {
            for (at, path) in paths_in(module, code) {
                let to = self.resolve(path);
                if to != *module {
                    let at = format!("{file}:{}", source::line_at(code, at));
                    uses.push(Use { at, from: module.clone(), to });
                }
            }
        }
        uses
    }

    /// Names that a module's `use` declarations bring in from its own crate.
    fn imports(&self, module: &ModulePath, code: &str) -> Vec<((ModulePath, String), ModulePath)> {
        let tokens = tokens(code);
        let mut found = Vec::new();
        let mut depth = 0;
        for (nth, (_, token)) in tokens.iter().enumerate() {
            match *token {
                "{" => depth += 1,
                "}" => depth -= 1,
                "use" if depth == 0 => {
                    let mut leaves = Vec::new();
                    parse_tree(&tokens, nth + 1, &[], &mut leaves);
                    let absolute = |leaf: Leaf| Some(((module.clone(), leaf.name), self.absolute(module, leaf.path)?));
                    found.extend(leaves.into_iter().filter_map(absolute));
                }
                _ => {}
            }
        }
        found
    }

    /// A path of a `use` declaration from the crate's root; `None` for another crate.
    fn absolute(&self, module: &ModulePath, path: Vec<&str>) -> Option<ModulePath> {
        let owned = |path: &[&str]| path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        let supers = path.iter().take_while(|part| **part == "super").count();
        match path.first()? {
            first if is_root(module, first) => Some(owned(&path[1..])),
            &"self" => Some([module.clone(), owned(&path[1..])].concat()),
            &"super" => Some([&module[..module.len().saturating_sub(supers)], &owned(&path[supers..])].concat()),
            first => {
                let child = [module.clone(), vec![(*first).to_owned()]].concat();
                self.modules.contains_key(&child).then(|| [module.clone(), owned(&path)].concat())
            }
        }
    }

    /// The innermost module of a path.
    fn resolve(&self, path: ModulePath) -> ModulePath {
        // Re-exports of re-exports end soon.
        const STEPS_MAX: usize = 8;
        let (mut path, mut module, mut at) = (path, Vec::new(), 0);
        for _ in 0..STEPS_MAX {
            while let Some(part) = path.get(at) {
                let child = [&module[..], std::slice::from_ref(part)].concat();
                if !self.modules.contains_key(&child) {
                    break;
                }
                (module, at) = (child, at + 1);
            }
            let Some(part) = path.get(at) else { return module };
            let Some(alias) = self.aliases.get(&(module.clone(), part.clone())) else { return module };
            path = [&alias[..], &path[at + 1..]].concat();
            (module, at) = (Vec::new(), 0);
        }
        module
    }
}

/// The word with which a module names the root of its library.
fn is_root(module: &ModulePath, word: &str) -> bool {
    // The program is a crate beside the library.
    word == if *module == ["main"] { "tickcast" } else { "crate" }
}

fn module_path(inside: &str) -> ModulePath {
    let path = inside.trim_end_matches(".rs");
    let mut parts: ModulePath = path.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

/// Paths in a code that begin at the crate's root, with their offsets.
fn paths_in(module: &ModulePath, code: &str) -> Vec<(usize, ModulePath)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for nth in 0..tokens.len() {
        let (at, token) = tokens[nth];
        let begins = is_root(module, token) || token == "super";
        let follows = nth > 0 && matches!(tokens[nth - 1].1, "::" | "in");
        if !begins || follows || tokens.get(nth + 1).is_none_or(|(_, next)| *next != "::") {
            continue;
        }
        let supers = tokens[nth..].iter().step_by(2).take_while(|(_, part)| *part == "super").count();
        // A module that is written in the file itself is one `super` below the file.
        let Some(up) = supers.checked_sub(if supers == 0 { 0 } else { modules_around(code, at) }) else { continue };
        let base = if supers == 0 { &[] } else { &module[..module.len().saturating_sub(up)] };
        let start = nth + 2 * supers.max(1);
        let mut leaves = Vec::new();
        parse_tree(&tokens, start, &[], &mut leaves);
        for leaf in leaves {
            let rest = leaf.path.iter().map(|part| (*part).to_owned());
            found.push((leaf.at, base.iter().cloned().chain(rest).collect()));
        }
    }
    found
}

/// How many modules that are written in the file itself are open at this offset.
fn modules_around(code: &str, at: usize) -> usize {
    let is_open = |(start, word): &(usize, &str)| {
        let open = code[*start..].find(['{', ';']).map(|offset| start + offset);
        let is_module = *word == "mod" && *start < at;
        is_module && open.is_some_and(|open| code[open..].starts_with('{') && source::block_end(code, open) > at)
    };
    source::words(code).filter(is_open).count()
}

/// A path of a `use` tree, or of an expression.
struct Leaf<'a> {
    at: usize,
    path: Vec<&'a str>,
    /// The name under which it is used.
    name: String,
}

/// Reads the tree that begins at a token; returns the token after it.
fn parse_tree<'a>(tokens: &[(usize, &'a str)], start: usize, prefix: &[&'a str], leaves: &mut Vec<Leaf<'a>>) -> usize {
    let mut path = prefix.to_vec();
    let mut nth = start;
    let at = tokens.get(start).map_or(0, |(at, _)| *at);
    let leaf = |path: Vec<&'a str>, name: &str| Leaf { at, path, name: name.to_owned() };
    loop {
        match tokens.get(nth).map(|(_, token)| *token) {
            Some("{") => {
                nth += 1;
                while tokens.get(nth).is_some_and(|(_, token)| *token != "}") {
                    nth = parse_tree(tokens, nth, &path, leaves).max(nth + 1);
                    nth += usize::from(tokens.get(nth).is_some_and(|(_, token)| *token == ","));
                }
                return nth + 1;
            }
            Some("self") if path.len() == prefix.len() && !prefix.is_empty() => {
                leaves.push(leaf(path.clone(), path.last().unwrap_or(&"")));
                return nth + 1;
            }
            Some(word) if word.starts_with(is_word) => path.push(word),
            _ => {
                leaves.push(leaf(path, ""));
                return nth + 1;
            }
        }
        nth += 1;
        match tokens.get(nth).map(|(_, token)| *token) {
            Some("::") => nth += 1,
            Some("as") => {
                let name = tokens.get(nth + 1).map_or("", |(_, token)| *token);
                leaves.push(leaf(path, name));
                return nth + 2;
            }
            _ => {
                let name = path.last().copied().unwrap_or("");
                leaves.push(leaf(path, name));
                return nth;
            }
        }
    }
}

/// Words, `::` and single characters, with their offsets.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut list = Vec::new();
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let length = match first {
            c if is_word(c) => code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at),
            _ if code[at..].starts_with("::") => 2,
            c => c.len_utf8(),
        };
        if !first.is_whitespace() {
            list.push((at, &code[at..at + length]));
        }
        at += length;
    }
    list
}

#[test]
fn paths_are_followed_to_their_module() {
    let sources = [
        Source::new("src/lib.rs", "pub mod a; pub mod b; pub use b::inner::Thing;"),
        Source::new("src/a/mod.rs", "mod one; mod two; pub use one::{First, Second as Other};"),
        Source::new("src/a/one.rs", "use super::two::X;\nuse crate::{b::{self, inner::Y}, Thing};"),
        Source::new("src/a/two.rs", "fn f() { super::Other::new(crate::b::f::<u8>()) }\nmod m { use super::g; }"),
        Source::new("src/b/mod.rs", "mod inner;\n#[cfg(test)]\nmod tests { use crate::a::one; }"),
        Source::new("src/b/inner.rs", "use std::fmt; pub(in crate::b) fn f() {} pub(super) fn g() {}"),
    ];
    let uses = Modules::of(&sources, "src").uses();
    let found: Vec<_> = uses.iter().map(|Use { at, to, .. }| format!("{at} {}", to.join("::"))).collect();
    let expected = [
        "src/a/one.rs:1 a::two",
        "src/a/one.rs:2 b",
        "src/a/one.rs:2 b::inner",
        "src/a/one.rs:2 b::inner",
        "src/a/two.rs:1 a::one",
        "src/a/two.rs:1 b",
    ];
    assert_eq!(found, expected);
}
