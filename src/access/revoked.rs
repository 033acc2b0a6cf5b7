//! Revocations in effect, and the file that keeps them over a restart: a line of JSON each.
//!
//! ```json
//! {"jti":"5f3c","until":1796000000}
//! {"user":"u-17","issued_before":1795900000,"until":1796000000}
//! ```
//!
//! The server appends what its operator revokes, and reads the file again when it has changed: other programs may append
//! as well, and a line that is removed ends its revocation.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::{Revocation, Revocations};

/// Bytes of the longest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What a file looked like when it was read: length, time of change, inode.
type Seen = (u64, i64, i64, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Revoked {
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Changes with the entries.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: Arc<Revocations>,
    seen: Option<Seen>,
}

impl Revoked {
    /// The revocations of a file. One that does not exist is empty.
    ///
    /// # Errors
    /// The line that is wrong, and what was expected.
    pub(super) fn open(path: Option<&Path>, now_s: u64, keep_s: u64) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let problem = |problem: String| format!("{}: {problem}", path.display());
        let (text, seen) = read(path).map_err(|error| problem(error.to_string()))?;
        let mut entries = Revocations::default();
        for (number, line) in lines(&text) {
            let revocation = parse(line, now_s, keep_s).map_err(|error| problem(format!("line {number}: {error}")))?;
            entries.add(&revocation);
        }
        entries.expire(now_s);
        let state = Mutex::new(State { entries: Arc::new(entries), seen });
        Ok(Self { path: Some(path.to_owned()), state, generation: AtomicU64::new(1) })
    }

    /// The revocations in effect.
    pub fn entries(&self) -> Arc<Revocations> {
        self.lock().entries.clone()
    }

    /// Changes whenever the revocations do.
    pub fn generation(&self) -> u64 {
        // Acquire, with the release in `replace`: who sees the number sees the entries. The lock orders them as well.
        self.generation.load(Ordering::Acquire)
    }

    /// Revokes.
    ///
    /// # Errors
    /// It is in effect, and could not be written to the file: a restart would forget it.
    pub(super) fn add(&self, revocation: &Revocation) -> Result<(), String> {
        let mut state = self.lock();
        let mut entries = (*state.entries).clone();
        entries.add(revocation);
        self.replace(&mut state, entries);
        let Some(path) = &self.path else { return Ok(()) };
        append(path, revocation).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the file again if it has changed, and forgets what has expired. True if that has changed what is revoked.
    pub(super) fn poll(&self, now_s: u64, keep_s: u64) -> bool {
        let Some(path) = &self.path else { return false };
        let mut state = self.lock();
        let present = path.metadata().ok().map(|metadata| seen(&metadata));
        if present == state.seen {
            return false;
        }
        let (text, seen) = match read(path) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("revocations: {}: {error}: the former ones stay", path.display());
                return false;
            }
        };
        let mut entries = Revocations::default();
        for (number, line) in lines(&text) {
            match parse(line, now_s, keep_s) {
                Ok(revocation) => entries.add(&revocation),
                Err(problem) => {
                    tracing::warn!("revocations: {}: line {number}: {problem}: it is left out", path.display())
                }
            }
        }
        entries.expire(now_s);
        state.seen = seen;
        let has_changed = entries != *state.entries;
        if has_changed {
            self.replace(&mut state, entries);
        }
        has_changed
    }

    fn replace(&self, state: &mut State, entries: Revocations) {
        state.entries = Arc::new(entries);
        // Release, see `generation`.
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen(metadata: &std::fs::Metadata) -> Seen {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino())
}

fn read(path: &Path) -> io::Result<(String, Option<Seen>)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), None)),
        Err(error) => return Err(error),
    };
    let seen = seen(&file.metadata()?);
    if seen.0 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{} bytes: expected at most {FILE_BYTES_MAX}", seen.0)));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok((text, Some(seen)))
}

/// The lines with their numbers. The last one counts when its end is there: it may be just being written.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    (1..).zip(whole.lines()).filter(|(_, line)| !line.trim().is_empty())
}

fn parse(line: &str, now_s: u64, keep_s: u64) -> Result<Revocation, String> {
    let mut revocation: Revocation = serde_json::from_str(line).map_err(|error| error.to_string())?;
    revocation.check()?;
    if revocation.until == 0 {
        revocation.until = now_s + keep_s;
    }
    Ok(revocation)
}

fn append(path: &Path, revocation: &Revocation) -> io::Result<()> {
    let mut line = serde_json::to_string(revocation).expect("every key is a string");
    line.push('\n');
    // For the server and its operator: it tells who was refused.
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Revocation {
        Revocation { jti: None, user: Some(name.to_owned()), issued_before: Some(50), until: 500 }
    }

    #[test]
    fn revocations_are_kept_over_a_restart_and_lines_of_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.jsonl");
        let revoked = Revoked::open(Some(&path), 100, 10).unwrap();
        let before = revoked.generation();
        revoked.add(&user("a")).unwrap();
        assert!(revoked.generation() > before);
        let again = Revoked::open(Some(&path), 100, 10).unwrap();
        assert_eq!(*again.entries(), *revoked.entries());
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "{\"jti\":\"t\"}\nnonsense\n{\"jti\":\"u\"";
        std::fs::write(&path, &text).unwrap();
        again.poll(100, 10);
        assert_eq!(again.entries().len(), 2, "a line that is wrong, and one that is not whole, are left out");
        std::fs::write(&path, text + "}\n").unwrap();
        again.poll(100, 10);
        assert_eq!(again.entries().len(), 3);
        std::fs::write(&path, "").unwrap();
        again.poll(100, 10);
        assert!(again.entries().is_empty());
    }

    #[test]
    fn file_that_cannot_be_read_stops_the_start_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.jsonl");
        std::fs::write(&path, "{\"jti\":\"a\"}\n{\"id\":1}\n").unwrap();
        let problem = Revoked::open(Some(&path), 0, 0).unwrap_err();
        assert!(problem.contains("revoked.jsonl: line 2: unknown field `id`"), "{problem}");
        assert!(Revoked::open(Some(folder.path()), 0, 0).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_in_effect_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no-such-folder").join("revoked.jsonl");
        let revoked = Revoked::open(Some(&path), 0, 0).unwrap();
        assert!(revoked.add(&user("a")).unwrap_err().contains("no-such-folder"));
        assert_eq!(revoked.entries().len(), 1);
        revoked.poll(0, 0);
        assert_eq!(revoked.entries().len(), 1, "a file that is not there has not changed");
    }
}
