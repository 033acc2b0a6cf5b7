//! Values of `/proc` and `/sys` below a root.
//!
//! Absent, unreadable and unknown values are `None`, never an error: kernels and machines differ.

use std::path::{Path, PathBuf};

/// The files of a machine, or a test's substitute.
#[derive(Clone, Debug)]
pub struct Tree(PathBuf);

impl Tree {
    /// The tree below this folder; `/` is the machine itself.
    pub fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The text of a file, without white space around it. The path has no slash in front.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A sysctl by its name.
    pub fn sysctl(&self, name: &str) -> Option<String> {
        self.text(&format!("proc/sys/{}", name.replace('.', "/")))
    }

    /// A sysctl that is a whole number, or whose `nth` word is one.
    pub fn number(&self, name: &str, nth: usize) -> Option<u64> {
        self.sysctl(name)?.split_whitespace().nth(nth)?.parse().ok()
    }

    /// The word in brackets of a file that lists several.
    pub fn chosen(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }

    /// The value of a line `name: value` in a file.
    pub fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.text(path)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// The folders in a folder whose names are `prefix` and a number, by that number.
    pub fn numbered(&self, folder: &str, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join(folder)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let numbered = names.filter_map(|name| Some((name.strip_prefix(prefix)?.parse::<u32>().ok()?, name)));
        let mut found: Vec<_> = numbered.collect();
        found.sort();
        found.into_iter().map(|(_, name)| format!("{folder}/{name}")).collect()
    }
}

/// The numbers of a kernel's list like `0,2-5`. Empty for an empty or invalid list.
pub fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}
