//! The files of the log: `usage-2026-12-01-0001.jsonl`, the next one each day (UTC) and each `bytes_max`, the oldest
//! removed beyond `files_max`.
//!
//! What always holds: one server writes to a folder at a time, and a file is only appended to. A line that a killed
//! process has left without its end gets one, so that the next line stands alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::calendar::{Day, digits};

/// Held by the server that writes to the folder.
const LOCK: &str = "usage.lock";
/// Files of one day at the most: their names have so many digits.
const NUMBER_MAX: u64 = 9999;

/// The name of a file: its day, and its number on that day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) day: Day,
    number: u64,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.strip_prefix("usage-")?.strip_suffix(".jsonl")?.split('-').collect();
        let [year, month, day, number] = parts[..] else { return None };
        let day = Day { year: digits(year)?, month: digits(month)?, day: digits(day)? };
        let name = Self { day, number: digits(number)? };
        (day.start_ms().is_some() && name.text() == text).then_some(name)
    }

    pub(super) fn text(self) -> String {
        format!("usage-{}-{:04}.jsonl", self.day, self.number)
    }
}

/// The files of a folder, the oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_str().and_then(Name::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    bytes_max: u64,
    files_max: usize,
    /// All that there are.
    names: Vec<Name>,
    current: Option<Current>,
    _lock: File,
}

#[derive(Debug)]
struct Current {
    name: Name,
    file: File,
    bytes: u64,
    /// A write has failed: the last line may have no end.
    is_torn: bool,
}

impl Files {
    /// Takes a folder, which is created.
    ///
    /// # Errors
    /// It cannot be used, or another server writes to it.
    pub(super) fn open(folder: &Path, bytes_max: u64, files_max: usize) -> Result<Self, String> {
        let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(|error| problem(&error))?;
        let lock = private(OpenOptions::new().create(true).append(true)).open(folder.join(LOCK));
        let lock = lock.map_err(|error| problem(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(problem(&"another server writes its log here: expected a folder of its own"));
            }
            Err(TryLockError::Error(error)) => return Err(problem(&error)),
        }
        let names = list(folder).map_err(|error| problem(&error))?;
        Ok(Self { folder: folder.to_owned(), bytes_max, files_max, names, current: None, _lock: lock })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// They are not, or not all, in the file.
    pub(super) fn write(&mut self, lines: &[u8], now_ms: u64) -> io::Result<()> {
        let current = self.file_for(lines.len() as u64, Day::of(now_ms))?;
        if std::mem::take(&mut current.is_torn) {
            current.file.write_all(b"\n").inspect_err(|_| current.is_torn = true)?;
            current.bytes += 1;
        }
        current.file.write_all(lines).inspect_err(|_| current.is_torn = true)?;
        current.bytes += lines.len() as u64;
        Ok(())
    }

    /// Has what was written kept over a loss of power.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |current| current.file.sync_data())
    }

    fn file_for(&mut self, bytes: u64, day: Day) -> io::Result<&mut Current> {
        let bytes_max = self.bytes_max;
        let has_room = |held: u64| held == 0 || held + bytes <= bytes_max;
        let is_right = |current: &Current| current.name.day == day && has_room(current.bytes);
        if !self.current.as_ref().is_some_and(is_right) {
            if self.current.take().is_some_and(|last| last.file.sync_data().is_err()) {
                tracing::warn!("usage log: a file could not be synced before the next one");
            }
            self.current = Some(self.next(day, has_room)?);
        }
        Ok(self.current.as_mut().expect("it was just opened"))
    }

    /// Opens the last file of the day, or a new one.
    fn next(&mut self, day: Day, has_room: impl Fn(u64) -> bool) -> io::Result<Current> {
        let last = self.names.iter().rev().find(|name| name.day == day).copied();
        if let Some(name) = last {
            match self.append_to(name) {
                // Beyond the last number, files become longer.
                Ok(current) if has_room(current.bytes) || name.number >= NUMBER_MAX => return Ok(current),
                // One that was moved away is left to whoever did it.
                Err(error) if error.kind() != io::ErrorKind::NotFound || name.number >= NUMBER_MAX => {
                    return Err(error);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let name = Name { day, number: last.map_or(1, |last| last.number + 1) };
        let file = private(OpenOptions::new().create_new(true).append(true)).open(self.path(name))?;
        self.names.push(name);
        self.names.sort_unstable();
        self.remove_oldest(name);
        Ok(Current { name, file, bytes: 0, is_torn: false })
    }

    fn append_to(&self, name: Name) -> io::Result<Current> {
        let mut file = private(OpenOptions::new().read(true).append(true)).open(self.path(name))?;
        let bytes = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if bytes > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Current { name, file, bytes, is_torn: last != *b"\n" })
    }

    fn remove_oldest(&mut self, kept: Name) {
        while self.names.len() > self.files_max
            && let Some(oldest) = self.names.iter().position(|name| *name != kept)
        {
            let name = self.names.remove(oldest);
            match fs::remove_file(self.path(name)) {
                Ok(()) => tracing::info!("usage log: {} removed: usage_files_max", name.text()),
                Err(error) => tracing::warn!("usage log: {} cannot be removed: {error}", name.text()),
            }
        }
    }

    fn path(&self, name: Name) -> PathBuf {
        self.folder.join(name.text())
    }
}

/// For the server and its group: the log names people.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o640)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn texts(folder: &Path) -> Vec<String> {
        list(folder).unwrap().into_iter().map(Name::text).collect()
    }

    fn read(folder: &Path, nth: usize) -> String {
        fs::read_to_string(folder.join(&texts(folder)[nth])).unwrap()
    }

    #[test]
    fn files_are_rotated_by_size_and_day_and_the_oldest_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("usage-notes.jsonl"), "mine").unwrap();
        fs::write(folder.join("usage-2026-13-01-0001.jsonl"), "mine").unwrap();
        let mut files = Files::open(folder, 10, 3).unwrap();
        for lines in ["aaaa\n", "bbbb\n", "c\n", "a line that is longer than a file\n"] {
            files.write(lines.as_bytes(), 0).unwrap();
        }
        assert_eq!(texts(folder), [1, 2, 3].map(|nth| format!("usage-1970-01-01-000{nth}.jsonl")));
        assert_eq!((read(folder, 0).as_str(), read(folder, 1).as_str()), ("aaaa\nbbbb\n", "c\n"));
        files.write(b"d\n", DAY_MS).unwrap();
        files.write(b"e\n", DAY_MS).unwrap();
        assert_eq!(
            texts(folder),
            ["usage-1970-01-01-0002.jsonl", "usage-1970-01-01-0003.jsonl", "usage-1970-01-02-0001.jsonl"]
        );
        assert_eq!(read(folder, 2), "d\ne\n");
        // The clock was set back.
        files.write(b"f\n", 0).unwrap();
        assert_eq!(texts(folder)[1], "usage-1970-01-01-0004.jsonl", "{:?}", texts(folder));
        assert!(folder.join("usage-notes.jsonl").exists() && folder.join("usage-2026-13-01-0001.jsonl").exists());
    }

    #[test]
    fn restart_goes_on_behind_a_line_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("usage-1970-01-01-0001.jsonl"), "whole\ntor").unwrap();
        let mut files = Files::open(folder, 100, 3).unwrap();
        files.write(b"next\n", 0).unwrap();
        files.sync().unwrap();
        assert_eq!(read(folder, 0), "whole\ntor\nnext\n");
    }

    #[test]
    fn one_server_writes_to_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Files::open(folder.path(), 10, 3).unwrap();
        assert!(Files::open(folder.path(), 10, 3).unwrap_err().contains("another server writes its log here"));
        drop(first);
        Files::open(folder.path(), 10, 3).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Files::open(&file, 10, 3).unwrap_err().contains("file: "));
    }
}
