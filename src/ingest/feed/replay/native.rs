//! A packet log as a recording, see [`super::translation`].

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::recording::OpenError;
use super::track::{Output, Track};
use super::translation::Translation;
use crate::ingest::source::{SourceGap, StreamState};
use crate::ingest::transport::file::At;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_recording::{Reader, packets, timed_records};

/// Malformed records of a file that are logged one by one.
const LOGGED_MAX: u64 = 10;

/// One file.
pub struct NativeTrack {
    name: String,
    reader: Reader<At>,
    state: StreamState,
    /// The next block.
    block: usize,
    /// The records of the present one.
    packets: Vec<u8>,
    records: VecDeque<Pending>,
    /// Checkpoints are applied: where the reading begins within the file, and behind a damaged block.
    takes_checkpoints: bool,
    /// The time of the newest record that was read; 0 before the first.
    last_ns: u64,
    translation: Translation,
    /// Packets that were read, for the messages about missing ones.
    packets_read: u64,
    malformed: u64,
    /// What is missing before the next record.
    gap: Option<SourceGap>,
}

/// A record of the present block.
struct Pending {
    time_ns: u64,
    epoch: u32,
    place: Range<usize>,
}

impl NativeTrack {
    /// Opens a log, and says if its end is torn.
    ///
    /// # Errors
    /// If it is of another version, or cannot be read.
    pub fn open(name: String, file: &Arc<File>) -> Result<Self, OpenError> {
        let reader = Reader::open(At::start_of(file)).map_err(|error| match error {
            tickcast_recording::OpenError::Io(error) => OpenError::Io { path: name.clone(), error },
            error => OpenError::NotARecording { path: name.clone(), problem: error.to_string() },
        })?;
        let torn_bytes = reader.torn_bytes();
        if torn_bytes > 0 {
            tracing::warn!(
                file = name,
                torn_bytes,
                "the recording was cut short, as by a crash: its last bytes are no whole block, and what is before is played"
            );
        }
        Ok(Self {
            name,
            reader,
            state: StreamState::Live,
            block: 0,
            packets: Vec::new(),
            records: VecDeque::new(),
            takes_checkpoints: false,
            last_ns: 0,
            translation: Translation::default(),
            packets_read: 0,
            malformed: 0,
            gap: None,
        })
    }

    /// Reads blocks until there is a record or a gap; false at the end.
    fn fill(&mut self) -> bool {
        while self.records.is_empty() && self.gap.is_none() {
            let Some(listed) = self.reader.blocks().get(self.block) else { return false };
            let is_checkpoint = listed.is_checkpoint();
            self.block += 1;
            if !is_checkpoint || self.takes_checkpoints {
                self.read_block(self.block - 1, is_checkpoint);
            }
        }
        true
    }

    fn read_block(&mut self, nth: usize, is_checkpoint: bool) {
        match self.reader.read_block(nth, &mut self.packets) {
            Ok(_) if is_checkpoint => self.list_records(true),
            Ok(_) => {
                self.takes_checkpoints = false;
                self.list_records(false);
            }
            // It only repeats what is known.
            Err(error) if is_checkpoint => tracing::warn!(file = self.name, block = nth, "a checkpoint {error}"),
            Err(error) => {
                tracing::warn!(file = self.name, block = nth, "a block {error}; the others are played");
                let from = self.packets_read + 1;
                self.gap = Some(SourceGap { stream: self.name.clone(), from, to: from, instruments: Vec::new() });
                self.takes_checkpoints = true;
            }
        }
    }

    /// Lists the records of the block that was read. Those of a checkpoint are of the time of the record before.
    fn list_records(&mut self, is_checkpoint: bool) {
        let begin = self.packets.as_ptr().addr();
        for bytes in packets(&self.packets) {
            let Ok(header) = PacketHeader::read(bytes) else { continue };
            self.packets_read += 1;
            let place = |record: &[u8]| record.as_ptr().addr() - begin;
            for (time_ns, _, record) in timed_records(&header, &bytes[packet::HEADER_BYTES..], self.last_ns) {
                let time_ns = if is_checkpoint { self.last_ns } else { time_ns };
                let place = place(record)..place(record) + record.len();
                self.records.push_back(Pending { time_ns, epoch: header.epoch, place });
            }
            self.last_ns = self.records.back().map_or(self.last_ns, |record| record.time_ns);
        }
    }

    fn play(&mut self, pending: &Pending, output: &mut Output<'_>) -> Result<(), String> {
        self.translation.play(pending.epoch, &self.packets[pending.place.clone()], output)
    }
}

impl Track for NativeTrack {
    fn begin(&mut self, from_ns: Option<u64>) -> Result<(), OpenError> {
        self.block = from_ns.map_or(0, |from_ns| self.reader.start_for(from_ns));
        self.takes_checkpoints = self.block > 0;
        self.records.clear();
        self.translation = Translation::default();
        (self.last_ns, self.gap, self.state) = (0, None, StreamState::Live);
        Ok(())
    }

    fn next_ns(&mut self) -> Option<u64> {
        if !self.fill() {
            self.state = StreamState::Ended;
            return None;
        }
        Some(self.records.front().map_or(self.last_ns, |record| record.time_ns))
    }

    fn take(&mut self, output: &mut Output<'_>) -> Result<(), SourceGap> {
        if let Some(gap) = self.gap.take() {
            return Err(gap);
        }
        let Some(pending) = self.records.pop_front() else { return Ok(()) };
        if let Err(problem) = self.play(&pending, output) {
            output.report.malformed += 1;
            self.malformed += 1;
            if self.malformed <= LOGGED_MAX {
                tracing::warn!(file = self.name, packet = self.packets_read, "malformed record skipped: {problem}");
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> StreamState {
        self.state.clone()
    }

    fn last_ns(&self) -> Option<u64> {
        self.reader.blocks().last().map(|block| block.last_ns)
    }
}
