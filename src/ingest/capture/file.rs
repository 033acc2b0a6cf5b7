//! The file of a capture: lines `<receive time, ns> <message>`, plain, or zstd where its name ends with `.zst`.
//!
//! What always holds: lines are appended whole, those of one [`CaptureFile::flush`] as one frame of zstd. So after a crash
//! everything but the last append can be read, and after an error of the file the rest of its append is cut off.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Lines beyond this are appended at once.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The level of zstd: the default of its tool.
const LEVEL: i32 = 3;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Zstd,
}

/// A file that is appended to.
#[derive(Debug)]
pub(super) struct CaptureFile {
    file: File,
    encoding: Encoding,
    /// Bytes that are whole.
    length: u64,
    pending: Vec<u8>,
    /// After it nothing is written.
    error: Option<io::Error>,
    pub(super) messages: u64,
}

impl CaptureFile {
    /// Opens the file. One that has something is continued with `append`, and refused without. Returns as well how many
    /// bytes of a torn end were cut off.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn open(path: &Path, append: bool) -> Result<(Self, u64), String> {
        let name = path.display();
        let encoding = encoding_of(path)?;
        let failed = |error: io::Error| format!("{name}: {error}");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.map_err(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(format!("{name} is being recorded by another process"));
        }
        let found = file.metadata().map_err(failed)?.len();
        if found > 0 && !append {
            return Err(format!("{name} exists: give another --out, or --append to continue it"));
        }
        let length = match encoding {
            Encoding::Plain => whole_lines(&mut file, found),
            Encoding::Zstd => whole_frames(&mut file),
        };
        let length = length.map_err(failed)?;
        if length == 0 && found > 0 {
            return Err(format!("{name} has no line of a recording: give another --out"));
        }
        if length != found {
            file.set_len(length).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(length)).map_err(failed)?;
        Ok((Self { file, encoding, length, pending: Vec::new(), error: None, messages: 0 }, found - length))
    }

    /// Appends lines, soon.
    pub(super) fn push(&mut self, lines: &[u8], messages: u64) {
        self.pending.extend_from_slice(lines);
        self.messages += messages;
        if self.pending.len() > PENDING_BYTES_MAX {
            self.flush();
        }
    }

    /// Appends what was pushed.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() || self.error.is_some() {
            self.pending.clear();
            return;
        }
        if let Err(error) = self.append() {
            // If this fails as well, the end is torn, and a reader says so.
            let _ = self.file.set_len(self.length);
            self.error = Some(error);
        }
        self.pending.clear();
        self.pending.shrink_to(PENDING_BYTES_MAX);
    }

    /// Why nothing is written any more.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// True if nothing is written any more.
    pub(super) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// True for a regular file without a line: as if nothing had been begun.
    pub(super) fn is_void(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0)
    }

    fn append(&mut self) -> io::Result<()> {
        let written = match self.encoding {
            Encoding::Plain => {
                self.file.write_all(&self.pending)?;
                self.pending.len()
            }
            Encoding::Zstd => {
                let frame = zstd::bulk::compress(&self.pending, LEVEL)?;
                self.file.write_all(&frame)?;
                frame.len()
            }
        };
        self.length += written as u64;
        Ok(())
    }
}

fn encoding_of(path: &Path) -> Result<Encoding, String> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("zst") => Ok(Encoding::Zstd),
        Some(ending @ ("gz" | "bz2" | "xz" | "lz4")) => Err(format!(
            "{}: {ending} is not written: expected a name that ends with .zst, or plain text",
            path.display()
        )),
        _ => Ok(Encoding::Plain),
    }
}

/// The bytes up to the end of the last line.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The bytes up to the end of the last frame that can be read.
fn whole_frames(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut input = Counted { input: BufReader::new(file), consumed: 0 };
    let mut whole = 0;
    loop {
        if io::BufRead::fill_buf(&mut input)?.is_empty() {
            return Ok(whole);
        }
        let mut frame = zstd::Decoder::with_buffer(&mut input)?.single_frame();
        match io::copy(&mut frame, &mut io::sink()) {
            Ok(_) => whole = input.consumed,
            Err(_) => return Ok(whole),
        }
    }
}

/// Counts the bytes that were used.
struct Counted<R> {
    input: R,
    consumed: u64,
}

impl<R: io::BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.consumed += read as u64;
        Ok(read)
    }
}

impl<R: io::BufRead> io::BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.consumed += amount as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        let bytes = std::fs::read(path).expect("the file is there");
        let bytes =
            if path.extension().is_some() { zstd::decode_all(&bytes[..]).expect("whole frames") } else { bytes };
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn torn_end_is_cut_off_and_the_file_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["plain", "packed.zst"] {
            let path = folder.path().join(name);
            // As a run that was killed before its first message leaves it.
            std::fs::write(&path, "").expect("written");
            let (mut file, torn) = CaptureFile::open(&path, false).expect("a file without a line");
            assert_eq!(torn, 0);
            for line in ["1 {}\n", "2 {}\n"] {
                file.push(line.as_bytes(), 1);
                file.flush();
            }
            let error = CaptureFile::open(&path, true).expect_err("it is locked");
            assert!(error.ends_with("is being recorded by another process"), "{error}");
            drop(file);
            let error = CaptureFile::open(&path, false).expect_err("it exists");
            assert!(error.contains("--append"), "{error}");

            let length = std::fs::metadata(&path).expect("it is there").len();
            let cut = OpenOptions::new().write(true).open(&path).expect("writable");
            cut.set_len(length - 2).expect("shorter");
            let (mut file, torn) = CaptureFile::open(&path, true).expect("it has a line");
            assert!(torn > 0, "{name}");
            file.push(b"3 {}\n", 1);
            file.flush();
            assert_eq!(content(&path), "1 {}\n3 {}\n", "{name}");
            drop(file);
            let (_, torn) = CaptureFile::open(&path, true).expect("it is whole");
            assert_eq!(torn, 0, "{name}");
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, expected) in
            [("a.gz", "gz is not written"), ("b.zst", "no line of a recording"), ("c", "no line of a recording")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, "something else").expect("written");
            let error = CaptureFile::open(&path, true).expect_err("it is none");
            assert!(error.contains(expected), "{error}");
            assert_eq!(std::fs::read(&path).expect("it is there"), b"something else");
        }
    }

    #[test]
    fn full_disk_ends_it_and_what_was_written_stays_whole() {
        let (mut file, _) = CaptureFile::open(Path::new("/dev/full"), true).expect("it opens");
        assert!(!file.is_void(), "a device is not removed");
        file.push(b"1 {}\n", 1);
        file.flush();
        assert_eq!(file.take_error().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
