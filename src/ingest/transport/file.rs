//! The bytes and the lines of a recording: gzip, zstd or plain; the first bytes decide which.
//!
//! Invariants: a line is at most [`LINE_BYTES_MAX`] long in memory, whatever the file contains; one descriptor
//! serves any number of readers, since each reads at an offset of its own. Cost: one copy of each line; a reader of a
//! gzip file holds 90 KB and its longest line, one of a zstd file its window, at most 128 MiB.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

/// Longer lines are skipped. The longest message seen at any venue is 0.7 MB.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A line buffer larger than this is freed after use.
const LINE_BYTES_KEPT: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window of zstd, as a power of two: what the tool of zstd itself accepts.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes of the beginning of a file that show what it is.
const HEAD_BYTES: usize = 64;

/// What a file contains, inflated. A read error is reported by the first read.
pub fn inflated(file: &Arc<File>) -> Box<dyn BufRead + Send> {
    let mut input = BufReader::with_capacity(32 * 1024, At::start_of(file));
    let start = input.fill_buf().unwrap_or_default();
    if start.starts_with(&GZIP_MAGIC) {
        return Box::new(BufReader::with_capacity(32 * 1024, MultiGzDecoder::new(input)));
    }
    if start.starts_with(&ZSTD_MAGIC) {
        return match zstd_of(input) {
            Ok(input) => Box::new(BufReader::with_capacity(32 * 1024, input)),
            Err(error) => Box::new(BufReader::new(Failed(error))),
        };
    }
    Box::new(input)
}

/// The first bytes of what a file contains, inflated; fewer where it is short, or cannot be read.
pub fn head_of(file: &Arc<File>) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = inflated(file).take(HEAD_BYTES as u64).read_to_end(&mut head);
    head
}

fn zstd_of(input: BufReader<At>) -> io::Result<zstd::Decoder<'static, BufReader<At>>> {
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// An input that could not be begun.
struct Failed(io::Error);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0.kind(), self.0.to_string()))
    }
}

/// The result of reading the next line.
#[derive(Debug)]
pub enum Found {
    /// A line, in [`Lines::line`].
    Line,
    /// A line that is too long; it was skipped.
    TooLong,
    /// The file cannot be read further, such as gzip that is cut short. Nothing follows.
    Broken(io::Error),
    /// The end.
    End,
}

/// Reads a recording line by line.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Lines {
    /// Starts at the beginning of `file`. A read error is reported with the first line.
    pub fn new(file: &Arc<File>) -> Self {
        let input = inflated(file);
        Self { input, line: Vec::new(), number: 0, ended: false }
    }

    /// Advances to the next line that is not blank, and not of what a recorder sent: cryptofeed writes
    /// `wss://host <- time: message`.
    pub fn advance(&mut self) -> Found {
        loop {
            if self.ended {
                return Found::End;
            }
            let found = self.read_line();
            let is_sent = self.line.starts_with(b"wss://") || self.line.starts_with(b"ws://");
            if !matches!(found, Found::Line) || !(is_sent || self.line.trim_ascii().is_empty()) {
                return found;
            }
        }
    }

    /// The bytes of the line, without its end.
    pub fn line(&mut self) -> &mut [u8] {
        &mut self.line
    }

    /// The number of the line in the file, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn read_line(&mut self) -> Found {
        self.line.clear();
        if self.line.capacity() > LINE_BYTES_KEPT {
            self.line.shrink_to(LINE_BYTES_KEPT);
        }
        self.number += 1;
        let mut too_long = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.ended = true;
                    return Found::Broken(error);
                }
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            too_long |= self.line.len() + part.len() > LINE_BYTES_MAX;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let (at_end, used) = (chunk.is_empty(), part.len() + usize::from(end.is_some()));
            self.input.consume(used);
            self.ended = at_end;
            match (at_end || end.is_some(), too_long) {
                (true, true) => return Found::TooLong,
                (true, false) if at_end && self.line.is_empty() => return Found::End,
                (true, false) => return Found::Line,
                (false, _) => {}
            }
        }
    }
}

/// A place in a file that other readers share.
#[derive(Debug)]
pub struct At {
    file: Arc<File>,
    offset: u64,
}

impl At {
    /// The beginning.
    pub fn start_of(file: &Arc<File>) -> Self {
        Self { file: Arc::clone(file), offset: 0 }
    }
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::Current(by) => (self.offset, by),
            SeekFrom::End(by) => (self.file.metadata()?.len(), by),
        };
        self.offset = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn lines_of(bytes: &[u8]) -> Lines {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        Lines::new(&Arc::new(file))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("writing to a Vec");
        encoder.finish().expect("writing to a Vec")
    }

    /// Lines with their numbers, and the final result.
    fn read_all(mut lines: Lines) -> (Vec<(u64, String)>, Found) {
        let mut all = Vec::new();
        loop {
            let found = lines.advance();
            assert!(lines.line.len() <= LINE_BYTES_MAX, "{} bytes are held", lines.line.len());
            match found {
                Found::Line => {
                    let number = lines.number();
                    all.push((number, String::from_utf8_lossy(lines.line()).into_owned()));
                }
                Found::TooLong => all.push((lines.number(), "too long".to_owned())),
                end => return (all, end),
            }
        }
    }

    #[test]
    fn plain_gzip_zstd_and_several_members_read_the_same() {
        let text = b"one\n\n  \ntwo\nthree";
        let two_members = [gzip(&text[..6]), gzip(&text[6..])].concat();
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).expect("a small text");
        let two_frames = [zstd(&text[..6]), zstd(&text[6..])].concat();
        for bytes in [text.to_vec(), gzip(text), two_members, zstd(text), two_frames] {
            let (all, end) = read_all(lines_of(&bytes));
            let expected = [(1, "one"), (4, "two"), (5, "three")].map(|(number, line)| (number, line.to_owned()));
            assert_eq!(all, expected);
            assert!(matches!(end, Found::End));
        }
        assert!(matches!(read_all(lines_of(b"")).1, Found::End));
    }

    #[test]
    fn line_beyond_the_bound_is_skipped() {
        let mut text = b"a\n".to_vec();
        text.resize(text.len() + LINE_BYTES_MAX, b'x');
        text.extend_from_slice(b"\n");
        text.resize(text.len() + LINE_BYTES_MAX + 1, b'y');
        text.extend_from_slice(b"\nb\n");
        let (all, _) = read_all(lines_of(&text));
        let lengths: Vec<_> = all.iter().map(|(number, line)| (*number, line.len())).collect();
        assert_eq!(lengths, [(1, 1), (2, LINE_BYTES_MAX), (3, "too long".len()), (4, 1)]);
    }

    #[test]
    fn zstd_with_a_window_beyond_the_bound_is_an_error() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        encoder.window_log(28).expect("zstd allows it");
        encoder.write_all(b"one\n").expect("writing to a Vec");
        let (all, end) = read_all(lines_of(&encoder.finish().expect("writing to a Vec")));
        assert_eq!(all, []);
        assert!(matches!(end, Found::Broken(_)), "{end:?}");
    }

    #[test]
    fn truncated_gzip_gives_its_whole_lines_and_then_an_error() {
        let mut bytes = gzip(b"one\ntwo\nthree\n");
        bytes.truncate(bytes.len() - 4);
        let (all, end) = read_all(lines_of(&bytes));
        assert_eq!(all.len(), 3);
        assert!(matches!(end, Found::Broken(_)), "{end:?}");
        let mut lines = lines_of(&bytes);
        while !matches!(lines.advance(), Found::Broken(_)) {}
        assert!(matches!(lines.advance(), Found::End), "the error is reported once");
    }
}
