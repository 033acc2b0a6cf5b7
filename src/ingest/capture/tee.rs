//! The messages of a venue as lines. Those of a connection that stands by are kept in memory, and are in the file once it
//! takes over: so the file has each connection from its first message, and never two at once that would contradict each
//! other. Where one takes over, times go back by as long as both were open.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::CaptureFile;
use crate::clock;
use crate::ingest::venue::observer::{LineId, Observer};

/// Bytes that are kept of connections that stand by; beyond it their messages are lost.
const STANDBY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Writes the messages of one run of a source.
#[derive(Debug)]
pub(super) struct Tee {
    file: Arc<Mutex<CaptureFile>>,
    standby: HashMap<LineId, Standby>,
    line: Vec<u8>,
}

#[derive(Debug, Default)]
struct Standby {
    lines: Vec<u8>,
    messages: u64,
    lost: u64,
}

impl Tee {
    pub(super) fn new(file: &Arc<Mutex<CaptureFile>>) -> Self {
        Self { file: Arc::clone(file), standby: HashMap::new(), line: Vec::new() }
    }

    /// Writes `parts` as one line, without ends of lines within.
    fn push(&mut self, line: LineId, now_ns: u64, parts: [&[u8]; 3]) {
        let stamp_ns = now_ns.saturating_add_signed(clock::wall_offset_ns());
        self.line.clear();
        write!(self.line, "{stamp_ns} ").expect("writing to a Vec");
        for part in parts {
            self.line.extend(part.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        }
        self.line.push(b'\n');
        let kept: usize = self.standby.values().map(|standby| standby.lines.len()).sum();
        match self.standby.get_mut(&line) {
            None => lock(&self.file).push(&self.line, 1),
            Some(standby) if kept + self.line.len() > STANDBY_BYTES_MAX => standby.lost += 1,
            Some(standby) => {
                standby.lines.extend_from_slice(&self.line);
                standby.messages += 1;
            }
        }
    }
}

impl Observer for Tee {
    fn message(&mut self, line: LineId, now_ns: u64, text: &[u8]) {
        self.push(line, now_ns, [text, b"", b""]);
    }

    fn snapshot(&mut self, line: LineId, now_ns: u64, stream: &str, text: &[u8]) {
        let stream = serde_json::Value::from(stream);
        self.push(line, now_ns, [format!(r#"{{"stream":{stream},"data":"#).as_bytes(), text, b"}"]);
    }

    fn standby(&mut self, line: LineId) {
        self.standby.insert(line, Standby::default());
    }

    fn take_over(&mut self, line: LineId) {
        let Some(Standby { lines, messages, lost }) = self.standby.remove(&line) else { return };
        lock(&self.file).push(&lines, messages);
        if lost > 0 {
            tracing::warn!(
                "{lost} messages are missing: the next connection had more than can be kept until it took over"
            );
        }
    }

    fn abandon(&mut self, line: LineId) {
        self.standby.remove(&line);
    }
}

/// The file, whatever a thread that had it did.
pub(super) fn lock(file: &Mutex<CaptureFile>) -> MutexGuard<'_, CaptureFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_that_stands_by_is_written_whole_once_it_takes_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        let (file, _) = CaptureFile::open(&path, false).expect("a new file");
        let file = Arc::new(Mutex::new(file));
        let mut tee = Tee::new(&file);
        let (old, next, failed) = (LineId(1), LineId(2), LineId(3));
        let at = |tee: &mut Tee, line, text: &str| tee.message(line, 1_700_000_000_000_000_000, text.as_bytes());
        at(&mut tee, old, "{\"n\":\n1}");
        tee.standby(failed);
        at(&mut tee, failed, "{}");
        tee.abandon(failed);
        tee.standby(next);
        tee.snapshot(next, 1_700_000_000_000_000_000, "a\"@depth", b"{}");
        at(&mut tee, old, "{\"n\":2}");
        tee.take_over(next);
        at(&mut tee, next, "{\"n\":3}");
        lock(&file).flush();
        let text = std::fs::read_to_string(&path).expect("text");
        let (stamps, messages): (Vec<_>, Vec<_>) = text.lines().filter_map(|line| line.split_once(' ')).unzip();
        let expected = ["{\"n\": 1}", "{\"n\":2}", "{\"stream\":\"a\\\"@depth\",\"data\":{}}", "{\"n\":3}"];
        assert_eq!(messages, expected);
        assert!(stamps.iter().all(|stamp| stamp.len() == 19), "{stamps:?}");
        assert_eq!(lock(&file).messages, 4);
    }
}
