//! One pass through the recordings, with its own books and statistics: each copy of the instruments has a timeline.

use super::recording::{Format, Recording, StampError, split_stamp};
use crate::ingest::source::StreamState;
use crate::ingest::transport::file::{Found, Lines};
use tickcast_venues::binance::{Origin, Parser, Translator};
use tickcast_venues::{Codec, CodecOptions, Malformed, Naming, Sink, Venue};

/// Between the last line of a pass and the first of the next, in the recording's time. So even a recording of a
/// single line does not loop forever in one poll.
pub const LOOP_PAUSE_NS: u64 = 100_000_000;

/// One reader for each recording, and what reads their messages.
pub struct Timeline {
    readers: Vec<Reader>,
    codecs: Codecs,
    /// The first of all: the states of the recordings are those of its readers.
    is_first: bool,
    /// Start of this pass, in ns of the replay's own time.
    pass_at_ns: u64,
    /// Time of the latest line.
    latest_at_ns: u64,
    /// Readers that have not reached the end.
    running: usize,
    /// How much of the recordings is applied and not played, ns.
    skip_ns: u64,
}

/// The state after a delivered line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The same recording's next line is due here, in ns of the replay's own time.
    Line(u64),
    /// This recording has ended; others have not.
    RecordingEnded,
    /// All recordings have ended.
    PassEnded,
}

/// What reads messages: one instrument in two recordings of a venue is one instrument.
struct Codecs {
    naming: Naming,
    binance: Translator,
    /// Those of other venues.
    others: Vec<(Venue, Box<dyn Codec>)>,
}

/// Which of them reads a recording.
enum Reading {
    Binance(Origin),
    /// Its index.
    Other(usize),
}

struct Reader {
    lines: Lines,
    reading: Reading,
    /// The reader's current line.
    found: Found,
    /// Its stamp, or that of the previous line where it has none.
    stamp_ns: u64,
    /// A line with this stamp or a later one ends the file.
    to_ns: u64,
}

/// Why a line was skipped.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Stamp(#[from] StampError),
    #[error("longer than 16 MiB")]
    TooLong,
    #[error("the file cannot be read further: {0}")]
    Broken(String),
    #[error(transparent)]
    Message(#[from] Malformed),
}

impl Timeline {
    /// A timeline that begins at `at_ns`; the suffix distinguishes its instruments from those of others. Of the recordings
    /// the first `skip_ns` are not played, nor is what is at `to_ns` or later.
    pub fn new(recordings: &[Recording], naming: Naming, at_ns: u64, skip_ns: u64, to_ns: u64) -> Self {
        let is_first = naming.suffix.is_empty();
        let mut codecs = Codecs { binance: Translator::new(&naming), naming, others: Vec::new() };
        let readers = recordings.iter().map(|recording| Reader::new(recording, to_ns, &mut codecs)).collect();
        Self { readers, codecs, is_first, pass_at_ns: at_ns, latest_at_ns: at_ns, running: 0, skip_ns }
    }

    /// Starts each recording from the beginning, and calls `each` with the time of its first line. `first_ns` is the
    /// earliest stamp of all.
    pub fn begin(&mut self, recordings: &[Recording], first_ns: u64, mut each: impl FnMut(usize, u64)) {
        self.running = 0;
        for (index, (reader, recording)) in self.readers.iter_mut().zip(recordings).enumerate() {
            reader.lines = Lines::new(&recording.file);
            reader.stamp_ns = recording.first_ns;
            if reader.advance() {
                self.running += 1;
                each(index, reader.at_ns(self.pass_at_ns, first_ns));
            }
        }
    }

    /// Appends the records of the current line of reader `index`, which is at `at_ns`, and advances the reader.
    pub fn deliver(
        &mut self,
        index: usize,
        at_ns: u64,
        first_ns: u64,
        recording: &mut Recording,
        parser: &mut Parser,
        sink: &mut Sink<'_>,
    ) -> After {
        self.latest_at_ns = self.latest_at_ns.max(at_ns);
        self.codecs.binance.tickers_if_due(self.latest_at_ns, sink);
        let reader = &mut self.readers[index];
        if let Err(error) = reader.translate(&mut self.codecs, parser, sink) {
            sink.report.malformed += 1;
            recording.log_malformed(reader.lines.number(), &error);
            if let (LineError::Broken(_), true) = (&error, self.is_first) {
                let reason = format!("line {}: {error}", reader.lines.number());
                recording.state = StreamState::Failed { reason };
            }
        }
        for event in sink.events.drain(..) {
            recording.log_event(reader.lines.number(), &event);
        }
        if reader.advance() {
            return After::Line(reader.at_ns(self.pass_at_ns, first_ns));
        }
        recording.log_summary();
        if self.is_first && recording.state == StreamState::Live {
            recording.state = StreamState::Ended;
        }
        self.running -= 1;
        if self.running > 0 {
            return After::RecordingEnded;
        }
        self.codecs.binance.tickers(sink);
        After::PassEnded
    }

    /// Voids the books of the ended pass, and sets the start of the next.
    pub fn restart(&mut self, sink: &mut Sink<'_>) {
        self.codecs.binance.restart(sink);
        self.codecs.others.iter_mut().for_each(|(_, codec)| codec.restart(sink));
        // What is not played is due before.
        self.pass_at_ns = self.latest_at_ns.saturating_add(LOOP_PAUSE_NS).saturating_sub(self.skip_ns);
    }

    /// The stamp of the current line of a reader.
    pub fn stamp_ns(&self, index: usize) -> u64 {
        self.readers[index].stamp_ns
    }
}

impl Reader {
    fn new(recording: &Recording, to_ns: u64, codecs: &mut Codecs) -> Self {
        let lines = Lines::new(&recording.file);
        let reading = match recording.format() {
            Format::Binance(origin) => Reading::Binance(origin),
            Format::Venue(venue) => Reading::Other(codecs.index_of(venue)),
        };
        Self { lines, reading, found: Found::End, stamp_ns: recording.first_ns, to_ns }
    }

    /// Advances to the next line, readable or not; false at the end.
    fn advance(&mut self) -> bool {
        self.found = self.lines.advance();
        if matches!(self.found, Found::Line)
            && let Ok((stamp_ns, _)) = split_stamp(self.lines.line())
        {
            self.stamp_ns = stamp_ns;
            if stamp_ns >= self.to_ns {
                self.found = Found::End;
            }
        }
        !matches!(self.found, Found::End)
    }

    fn at_ns(&self, pass_at_ns: u64, first_ns: u64) -> u64 {
        pass_at_ns.saturating_add(self.stamp_ns.saturating_sub(first_ns))
    }

    fn translate(&mut self, codecs: &mut Codecs, parser: &mut Parser, sink: &mut Sink<'_>) -> Result<(), LineError> {
        match &self.found {
            Found::Line => {
                let (stamp_ns, message) = split_stamp(self.lines.line())?;
                match &mut self.reading {
                    Reading::Binance(origin) => codecs.binance.read(parser, message, origin, sink)?,
                    Reading::Other(index) => codecs.others[*index].1.on_message(message, stamp_ns, sink)?,
                }
                Ok(())
            }
            Found::TooLong => Err(LineError::TooLong),
            Found::Broken(error) => Err(LineError::Broken(error.to_string())),
            Found::End => Ok(()),
        }
    }
}

impl Codecs {
    /// The codec of a venue; there is one for all recordings of it.
    fn index_of(&mut self, venue: Venue) -> usize {
        if let Some(index) = self.others.iter().position(|(other, _)| *other == venue) {
            return index;
        }
        let options = CodecOptions { naming: self.naming.clone(), depth: None };
        self.others.push((venue, venue.codec(options)));
        self.others.len() - 1
    }
}
