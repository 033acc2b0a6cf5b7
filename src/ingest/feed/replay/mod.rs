//! Recorded messages of venues, played at their original speed, at another, or as fast as the rings allow:
//! `replay:FILE[,FILE…][?speed=1|0.1..1000|max&loop=0|1&from=TIME&to=TIME&copies=1..1000&venue=NAME&names=venue|common]`.
//! Files of records are played by [`player`]; this module plays messages.
//!
//! A recording is text, plain, gzip or zstd; a line is `<receive time> <message>`, with the time in s, ms, µs or ns (see
//! [`tickcast_venues::stamp`]). The sessions of cryptofeed are read as well: their lines are `<seconds>: <message>`, and
//! those that begin with `ws://` or `wss://` were sent, and are skipped. The first lines show of which venue the messages
//! are, unless `venue=` says it. Several are merged by receive time, and each file holds one market. Invariants: the
//! lines of one file keep their order; a line that cannot be read is counted, logged with its number, and skipped; no
//! content of a file ends the program.
//!
//! * `speed=S`: the line with stamp `t` is due `(t - first) / S` after the first poll. `max`: everything is due.
//! * `loop=1`: the first line follows the last, [`LOOP_PAUSE_NS`] later. Books are voided before, and restored by the
//!   recording's snapshot; statistics are reset; trade ids repeat.
//! * `from=`, `to=`: lines received before `from` are applied and not played ([`skipped`]); the first that was received at
//!   `to` or later ends its file.
//! * `copies=K`: K independent timelines over the same files. The first keeps the names, the others append `.2` to
//!   `.K`. Copy `k` begins `k × step` later, where the step is [`COPY_STEP_NS`] or a K-th of the recording's length if
//!   that is less, so that bursts do not coincide and the last copy begins within the length.
//!
//! Cost, measured on the 2-core test machine with this crate at opt-level 1: 3.5 µs for an average line, inflating
//! included. A thousand copies of one gzip file take 140 MB, 90 of them at the start; all share one descriptor a file.

mod dbn;
mod files;
mod native;
mod opener;
mod params;
mod player;
mod recording;
mod skipped;
mod tardis;
mod timeline;
pub mod track;
pub mod translation;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use opener::{SCHEME, open};
pub use params::{Params, Speed};
pub use recording::OpenError;
pub use timeline::LOOP_PAUSE_NS;

use self::recording::{Recording, open_all};
use self::skipped::Skipped;
use self::timeline::{After, Timeline};
use crate::ingest::source::{
    Batch, Next, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, Stream, StreamState, Times,
};
use tickcast_venues::binance::Parser;
use tickcast_venues::{Event, Naming, Sink};

/// The greatest delay between copies, in the recording's time.
pub const COPY_STEP_NS: u64 = 250_000_000;
/// Lines that one poll reads at most, whatever they yield.
const LINES_PER_POLL_MAX: usize = 4096;

/// A running replay.
pub struct Replay {
    speed: Speed,
    repeat: bool,
    recordings: Vec<Recording>,
    timelines: Vec<Timeline>,
    /// The next line of every reader, the earliest on top.
    queue: BinaryHeap<Reverse<Due>>,
    parser: Parser,
    report: tickcast_venues::Report,
    /// Scratch for what the codecs report of a line.
    events: Vec<Event>,
    next_id: u32,
    /// The earliest stamp of all recordings.
    first_ns: u64,
    /// The time of the first poll.
    start_ns: Option<u64>,
    /// `from=`, or 0.
    from_ns: u64,
    /// By timeline: what comes before `from=`, until that time has come.
    skipped: Vec<Option<Skipped>>,
    scratch: Vec<u8>,
}

/// When a line is due. Ties are broken by copy, then by file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// In ns of the replay's own time.
    at_ns: u64,
    timeline: usize,
    reader: usize,
}

impl Replay {
    /// Opens the recordings. With copies, each is read once to learn its length.
    pub fn open(params: &Params) -> Result<Self, OpenError> {
        let mut parser = Parser::default();
        let recordings = open_all(params, &mut parser)?;
        let first_ns = recordings.iter().map(|recording| recording.first_ns).min().unwrap_or(0);
        let step_ns = copy_step_ns(&recordings, first_ns, params.copies);
        let timelines = (0..params.copies).map(|copy| {
            let suffix = if copy == 0 { String::new() } else { format!(".{}", copy + 1) };
            let naming = Naming { style: params.names, suffix };
            let skip_ns = params.from_ns.map_or(0, |from_ns| from_ns.saturating_sub(first_ns));
            Timeline::new(&recordings, naming, u64::from(copy) * step_ns, skip_ns, params.to_ns.unwrap_or(u64::MAX))
        });
        let mut replay = Self {
            speed: params.speed,
            repeat: params.repeat,
            timelines: timelines.collect(),
            recordings,
            queue: BinaryHeap::new(),
            parser,
            report: tickcast_venues::Report::default(),
            events: Vec::new(),
            next_id: 1,
            first_ns,
            start_ns: None,
            from_ns: params.from_ns.unwrap_or(0),
            skipped: Vec::new(),
            scratch: Vec::new(),
        };
        replay.skipped.resize_with(replay.timelines.len(), || None);
        for timeline in 0..replay.timelines.len() {
            replay.begin(timeline);
        }
        Ok(replay)
    }

    fn begin(&mut self, timeline: usize) {
        let queue = &mut self.queue;
        self.skipped[timeline] = (self.from_ns > self.first_ns).then(Skipped::default);
        self.timelines[timeline].begin(&self.recordings, self.first_ns, |reader, at_ns| {
            queue.push(Reverse(Due { at_ns, timeline, reader }));
        });
    }

    /// How much of the recordings is not played.
    fn skip_ns(&self) -> u64 {
        self.from_ns.saturating_sub(self.first_ns)
    }

    /// Takes a line. What comes before `from=` goes to the scratch.
    fn deliver(&mut self, due: Due, batch: &mut Vec<u8>) {
        let is_before = self.timelines[due.timeline].stamp_ns(due.reader) < self.from_ns;
        let Some(mut skipped) = self.skipped[due.timeline].take() else { return self.play(due, batch) };
        if !is_before {
            self.report.records += skipped.publish(batch);
            return self.play(due, batch);
        }
        let (mut scratch, records) = (std::mem::take(&mut self.scratch), self.report.records);
        let after = self.translate(due, &mut scratch);
        self.report.records = records;
        skipped.add(&mut scratch);
        self.scratch = scratch;
        if after == After::PassEnded {
            tracing::warn!(file = self.recordings[due.reader].path, "nothing was recorded from from= on");
            self.report.records += skipped.publish(batch);
        } else {
            self.skipped[due.timeline] = Some(skipped);
        }
        self.go_on(due, after, batch);
    }

    fn play(&mut self, due: Due, batch: &mut Vec<u8>) {
        let after = self.translate(due, batch);
        self.go_on(due, after, batch);
    }

    fn translate(&mut self, due: Due, batch: &mut Vec<u8>) -> After {
        let Self { recordings, timelines, parser, report, next_id, events, first_ns, .. } = self;
        let mut sink = Sink { batch, report, next_id, events };
        let recording = &mut recordings[due.reader];
        timelines[due.timeline].deliver(due.reader, due.at_ns, *first_ns, recording, parser, &mut sink)
    }

    fn go_on(&mut self, due: Due, after: After, batch: &mut Vec<u8>) {
        match after {
            After::Line(at_ns) => self.queue.push(Reverse(Due { at_ns, ..due })),
            After::PassEnded if self.repeat => {
                let Self { recordings, timelines, report, next_id, events, .. } = self;
                timelines[due.timeline].restart(&mut Sink { batch, report, next_id, events });
                if due.timeline == 0 {
                    // A file that is broken stays so.
                    let ended = recordings.iter_mut().filter(|recording| recording.state == StreamState::Ended);
                    ended.for_each(|recording| recording.state = StreamState::Live);
                }
                self.begin(due.timeline);
            }
            After::RecordingEnded | After::PassEnded => {}
        }
    }
}

impl Source for Replay {
    fn receive(&mut self, Times { now_ns, .. }: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        let batch = &mut batch.records;
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        let bytes_before = batch.len();
        for _ in 0..LINES_PER_POLL_MAX {
            let Some(Reverse(due)) = self.queue.peek().copied() else { break };
            match self.speed.due_ns(start_ns, due.at_ns.saturating_sub(self.skip_ns())) {
                Some(due_ns) if due_ns > now_ns => return Ok(Next::At(due_ns)),
                _ => {}
            }
            if batch.len() - bytes_before >= SOURCE_BATCH_BYTES_MAX {
                break;
            }
            self.queue.pop();
            self.deliver(due, batch);
        }
        // The end is reported with an empty batch, so that no caller drops a last batch with it.
        if self.queue.is_empty() && batch.len() == bytes_before {
            return Ok(Next::Ended);
        }
        Ok(if self.speed == Speed::Max { Next::Paced } else { Next::Now })
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |of: &Recording| Stream { name: of.path.clone(), state: of.state.clone() };
        self.recordings.iter().map(stream).collect()
    }

    fn report(&self) -> Report {
        self.report
    }
}

fn copy_step_ns(recordings: &[Recording], first_ns: u64, copies: u32) -> u64 {
    if copies < 2 {
        return 0;
    }
    let last_ns = recordings.iter().map(Recording::last_ns).max().unwrap_or(first_ns);
    COPY_STEP_NS.min(last_ns.saturating_sub(first_ns) / u64::from(copies))
}
