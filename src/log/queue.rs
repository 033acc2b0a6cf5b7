//! Lines on their way to stderr: a bounded queue, and one thread that writes it.
//!
//! What always holds: putting a line into the queue neither waits nor fails; a line that finds no room is counted. A line
//! is at most [`LINE_BYTES_MAX`] long, so that the queue takes at most 4 MiB.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

const LINES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 4096;
/// At most one report of dropped lines in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Why a line was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The limit of its place.
    Rate,
    /// The queue was full: stderr does not take lines as fast as they come.
    Queue,
    /// Writing failed: the disk is full, or the reader is gone.
    Write,
}

/// Counts of dropped lines, by cause.
#[derive(Debug)]
pub(super) struct Dropped([AtomicU64; 3]);

/// Those of this process.
pub(super) static DROPPED: Dropped = Dropped::new();

// Relaxed, in all of these: each number is read by itself and orders nothing.
impl Dropped {
    const fn new() -> Self {
        Self([AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)])
    }

    pub(super) fn add(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> [(&'static str, u64); 3] {
        let count = |cause: Cause| self.0[cause as usize].load(Ordering::Relaxed);
        [("rate", count(Cause::Rate)), ("queue", count(Cause::Queue)), ("write", count(Cause::Write))]
    }
}

enum Entry {
    Line(Vec<u8>),
    /// Dropped once all lines before it are written.
    Flush(Sender<()>),
}

/// The queue. Its thread ends with the last clone.
#[derive(Clone)]
pub(super) struct LineQueue(Sender<Entry>);

/// Starts the thread that writes the lines.
pub(super) fn spawn(out: impl Write + Send + 'static) -> io::Result<LineQueue> {
    let (sender, entries) = bounded(LINES_MAX);
    thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&entries, out, &DROPPED))?;
    Ok(LineQueue(sender))
}

impl LineQueue {
    fn put(&self, line: &[u8], dropped: &Dropped) {
        let mut line = line.to_vec();
        if line.len() > LINE_BYTES_MAX {
            line.truncate(LINE_BYTES_MAX - 1);
            line.push(b'\n');
        }
        if self.0.try_send(Entry::Line(line)).is_err() {
            dropped.add(Cause::Queue);
        }
    }

    /// Waits until the lines in the queue are written, at most this long.
    pub(super) fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let (done, written) = bounded(0);
        if self.0.send_deadline(Entry::Flush(done), until).is_ok() {
            // Ends by the drop of the sender.
            let _ = written.recv_deadline(until);
        }
    }
}

/// Makes the queue a writer of the subscriber, which writes a whole line with each call.
pub(super) struct Lines(pub(super) LineQueue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line, &DROPPED);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(entries: &Receiver<Entry>, mut out: impl Write, dropped: &Dropped) {
    let mut report = Report { reported: dropped.counts(), last: Instant::now() };
    loop {
        match entries.recv_timeout(REPORT_INTERVAL) {
            Ok(Entry::Line(line)) => {
                if out.write_all(&line).is_err() {
                    dropped.add(Cause::Write);
                }
            }
            Ok(Entry::Flush(done)) => {
                report.write(&mut out, dropped);
                drop(done);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if report.last.elapsed() >= REPORT_INTERVAL {
            report.write(&mut out, dropped);
        }
    }
}

/// What the log has said about dropped lines.
struct Report {
    reported: [(&'static str, u64); 3],
    last: Instant,
}

impl Report {
    /// Writes how many lines were dropped since the last report, if any. It is repeated with the next one if it fails.
    fn write(&mut self, out: &mut impl Write, dropped: &Dropped) {
        self.last = Instant::now();
        let counts = dropped.counts();
        if counts == self.reported {
            return;
        }
        let since: Vec<_> =
            counts.iter().zip(self.reported).map(|((cause, now), (_, then))| (cause, now - then)).collect();
        let total: u64 = since.iter().map(|(_, count)| count).sum();
        let causes: Vec<_> = since.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        let mut line = String::new();
        // Fails for a time that cannot be shown: then the line has none.
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        let _ = writeln!(line, "  WARN tickcast::log: {total} lines of the log were dropped: {}", causes.join(", "));
        if out.write_all(line.as_bytes()).is_ok() {
            self.reported = counts;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn line(queue: &LineQueue, text: &str, dropped: &Dropped) {
        queue.put(format!("{text}\n").as_bytes(), dropped);
    }

    /// Writes what is in the queue, and returns it.
    fn written(entries: &Receiver<Entry>, out: &mut impl Write, dropped: &Dropped) -> [u64; 3] {
        let (done, _) = bounded(0);
        let (sender, all) = bounded(LINES_MAX + 1);
        entries.try_iter().chain([Entry::Flush(done)]).for_each(|entry| sender.send(entry).expect("room"));
        drop(sender);
        write_all(&all, out, dropped);
        dropped.counts().map(|(_, count)| count)
    }

    #[test]
    fn lines_beyond_the_queue_are_counted_and_reported_and_long_ones_cut() {
        let (sender, entries) = bounded(LINES_MAX);
        let (queue, dropped) = (LineQueue(sender), Dropped::new());
        line(&queue, &"x".repeat(10_000), &dropped);
        (0..LINES_MAX + 6).for_each(|nth| line(&queue, &format!("line {nth}"), &dropped));
        let mut out = Vec::new();
        assert_eq!(written(&entries, &mut out, &dropped), [0, 7, 0]);
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0].len(), lines[1]), (LINES_MAX, LINE_BYTES_MAX - 1, "line 0"));
        // The report of this loop comes with the next one that writes: the counts are those at its start.
        let mut report = Report { reported: Dropped::new().counts(), last: Instant::now() };
        let mut out = Vec::new();
        report.write(&mut out, &dropped);
        report.write(&mut out, &dropped);
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.ends_with("WARN tickcast::log: 7 lines of the log were dropped: rate 0, queue 7, write 0\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "reported once");
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported_once_there_is_room() {
        let (sender, entries) = bounded(LINES_MAX);
        let (queue, dropped) = (LineQueue(sender), Dropped::new());
        (0..5).for_each(|nth| line(&queue, &format!("line {nth}"), &dropped));
        assert_eq!(written(&entries, &mut Full, &dropped), [0, 0, 5]);
        let mut report = Report { reported: Dropped::new().counts(), last: Instant::now() };
        report.write(&mut Full, &dropped);
        let mut out = Vec::new();
        report.write(&mut out, &dropped);
        assert!(String::from_utf8(out).expect("text").contains("5 lines of the log were dropped"), "not lost");
    }

    /// Takes nothing until it is released.
    #[derive(Clone)]
    struct Blocked(Arc<Mutex<()>>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.0.lock());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_output_blocks_neither_the_lines_nor_the_flush() {
        let blocked = Blocked(Arc::default());
        let held = blocked.0.lock().expect("it is not poisoned");
        let queue = spawn(blocked.clone()).expect("a thread");
        let dropped = Dropped::new();
        (0..LINES_MAX * 2).for_each(|nth| line(&queue, &format!("line {nth}"), &dropped));
        queue.flush(Duration::from_millis(1));
        assert!(dropped.counts()[1].1 >= LINES_MAX as u64 - 1, "{dropped:?}");
        drop(held);
    }
}
