//! The thread that writes the log.
//!
//! What always holds: lines are in the file as soon as the thread has them, and on the disk within [`SYNC_NS`]. A kind of
//! security event has [`SECURITY_PER_S`] lines a second; more are one line that says how many, so that nothing else is
//! hidden by them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::Shared;
use super::event::{Change, Event, What};
use super::files::Files;
use super::line::Line;
use crate::clock::{now_ns, wall_ns};

/// How often the thread looks for something to do.
const INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of lines that are written at once.
const BATCH_BYTES: usize = 64 << 10;
/// How long a line may be in the file only.
const SYNC_NS: u64 = 5_000_000_000;
/// How often a line says that the server runs, while there are sessions: where it is killed, they end at the last one.
const ALIVE_NS: u64 = 60_000_000_000;
/// Lines a second of one kind of security event.
const SECURITY_PER_S: u64 = 50;
const SECOND_NS: u64 = 1_000_000_000;

/// What the thread owns.
pub(super) struct Writer {
    pub(super) files: Files,
    pub(super) shared: Arc<Shared>,
    pub(super) run: u32,
    /// Sessions that are open by the log.
    sessions: u64,
    /// Of each kind of security event: the second, and its lines.
    security: HashMap<&'static str, (u64, u64)>,
    /// When something was first written that is not synced.
    unsynced_ns: Option<u64>,
    alive_ns: u64,
}

impl Writer {
    pub(super) fn new(files: Files, shared: Arc<Shared>, run: u32) -> Self {
        let (sessions, security, unsynced_ns) = (0, HashMap::new(), None);
        Self { files, shared, run, sessions, security, unsynced_ns, alive_ns: now_ns() }
    }

    /// Writes until it is told to stop and has nothing left.
    pub(super) fn run(mut self, events: &Receiver<Box<Event>>) {
        let mut lines = Vec::new();
        self.write(|writer, lines| Line::of_server("started", now_ms(), writer.run, 0).push(lines), &mut lines);
        loop {
            // Acquire, with the release in `stop`: what was handed over before is in the queue.
            let stops = self.shared.stops.load(Ordering::Acquire);
            match events.recv_timeout(INTERVAL) {
                Ok(event) => {
                    let batch = std::iter::once(event).chain(events.try_iter());
                    self.write_batch(batch, &mut lines);
                }
                Err(RecvTimeoutError::Timeout) if !stops => {}
                Err(_) => break,
            }
            self.tend(&mut lines);
        }
        self.write_suppressed(u64::MAX, &mut lines);
        let sessions = self.sessions;
        self.write(|writer, lines| Line::of_server("stopped", now_ms(), writer.run, sessions).push(lines), &mut lines);
        self.sync();
    }

    /// Writes what is in the queue now, as far as a batch goes.
    fn write_batch(&mut self, batch: impl Iterator<Item = Box<Event>>, lines: &mut Vec<u8>) {
        let mut count = 0;
        for event in batch {
            if self.admits(&event) {
                Line::of(&event, self.run).push(lines);
                count += 1;
            }
            if lines.len() >= BATCH_BYTES {
                break;
            }
        }
        self.flush(lines, count);
    }

    fn write(&mut self, push: impl FnOnce(&Self, &mut Vec<u8>), lines: &mut Vec<u8>) {
        push(self, lines);
        self.flush(lines, 1);
    }

    fn flush(&mut self, lines: &mut Vec<u8>, count: u64) {
        if lines.is_empty() {
            return;
        }
        let written = self.files.write(lines, now_ms());
        lines.clear();
        // Relaxed, here and below: the numbers order nothing.
        self.shared.is_failing.store(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.shared.lines.fetch_add(count, Ordering::Relaxed);
                self.unsynced_ns.get_or_insert_with(now_ns);
            }
            Err(error) => {
                self.shared.lost.fetch_add(count, Ordering::Relaxed);
                tracing::error!("usage log: {count} lines could not be written: {error}");
            }
        }
    }

    /// Counts what an event is about. False for one of a kind of which there are too many.
    fn admits(&mut self, event: &Event) -> bool {
        match &event.what {
            What::Session { change: Change::Opened, .. } => self.sessions += 1,
            What::Session { change: Change::Closed { .. }, .. } => self.sessions = self.sessions.saturating_sub(1),
            What::Session { change: Change::Changed { .. }, .. } => {}
            What::Security(security) => {
                let second = now_ns() / SECOND_NS;
                let (since, count) = self.security.entry(security.event).or_insert((second, 0));
                // A new second begins in `write_suppressed`, which says how many there were.
                if *since == second || *count > SECURITY_PER_S {
                    *count += 1;
                } else {
                    (*since, *count) = (second, 1);
                }
                return *count <= SECURITY_PER_S;
            }
        }
        true
    }

    /// What is due by time.
    fn tend(&mut self, lines: &mut Vec<u8>) {
        let now_ns = now_ns();
        self.write_suppressed(now_ns / SECOND_NS, lines);
        if now_ns.saturating_sub(self.alive_ns) >= ALIVE_NS {
            self.alive_ns = now_ns;
            let sessions = self.sessions;
            if sessions > 0 {
                self.write(|writer, lines| Line::of_server("alive", now_ms(), writer.run, sessions).push(lines), lines);
            }
        }
        if self.unsynced_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) >= SYNC_NS) {
            self.sync();
        }
    }

    /// Says of seconds before this one how many security events have no line of their own.
    fn write_suppressed(&mut self, second: u64, lines: &mut Vec<u8>) {
        let mut suppressed = Vec::new();
        self.security.retain(|event, (since, count)| {
            let is_over = *since < second;
            if is_over && *count > SECURITY_PER_S {
                suppressed.push((*event, *count - SECURITY_PER_S));
            }
            !is_over
        });
        for (event, count) in suppressed {
            self.shared.suppressed.fetch_add(count, Ordering::Relaxed);
            let line = Line {
                at: super::calendar::utc(now_ms()).into(),
                kind: "security".into(),
                event: "suppressed".into(),
                cause: event.into(),
                count,
                ..Line::default()
            };
            self.write(|_, lines| line.push(lines), lines);
        }
    }

    fn sync(&mut self) {
        self.unsynced_ns = None;
        if let Err(error) = self.files.sync() {
            self.shared.failed_syncs.fetch_add(1, Ordering::Relaxed);
            tracing::error!("usage log: not synced: {error}");
        }
    }
}

fn now_ms() -> u64 {
    wall_ns() / 1_000_000
}
