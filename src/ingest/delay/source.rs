//! The feed of a delayed market: plays the spool, each packet once it is due.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::files::{Segment, Spool};
use crate::ingest::feed::replay::track::{Directory, Output};
use crate::ingest::feed::replay::translation::Translation;
use crate::ingest::source::{
    Batch, Next, Opener, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, SourceGap, Stream, StreamState, Times,
};
use crate::ingest::stop::Stop;
use crate::ingest::transport::file::At;
use tickcast_protocol::packet;
use tickcast_protocol::record;
use tickcast_protocol::{PacketHeader, Token};
use tickcast_recording::{Reader, packets};

/// Time between two looks for a new segment.
const POLL_NS: u64 = 50_000_000;
const STREAM: &str = "spool";

/// Opens the feed of a delayed market.
#[derive(Debug)]
pub struct DelayedOpener {
    pub spool: Arc<Spool>,
    pub delay_s: u32,
    /// Of the live market of this process, whose packets have stamps of this process's clock.
    pub live_epoch: u32,
}

impl Opener for DelayedOpener {
    fn name(&self) -> String {
        format!("delayed {} s", self.delay_s)
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(DelayedSource::new(self.spool.clone(), u64::from(self.delay_s) * 1_000_000_000, self.live_epoch)))
    }
}

/// See the module.
pub(super) struct DelayedSource {
    spool: Arc<Spool>,
    delay_ns: u64,
    live_epoch: u32,
    segment: Option<OpenSegment>,
    /// The number of the segment that was opened last.
    number: Option<u64>,
    /// That of the last packet that was read.
    token: Option<Token>,
    /// The packets of the present block that are yet to be played, and their bytes.
    block: Vec<u8>,
    packets: VecDeque<Range<usize>>,
    translation: Translation,
    directory: Directory,
    report: Report,
    has_played: bool,
}

struct OpenSegment {
    name: String,
    reader: Reader<At>,
    next_block: usize,
    /// Its checkpoint is to be applied: nothing was read before it, or something between is missing.
    takes_checkpoint: bool,
}

impl DelayedSource {
    pub(super) fn new(spool: Arc<Spool>, delay_ns: u64, live_epoch: u32) -> Self {
        Self {
            spool,
            delay_ns,
            live_epoch,
            segment: None,
            number: None,
            token: None,
            block: Vec::new(),
            packets: VecDeque::new(),
            translation: Translation::delayed(),
            directory: Directory::default(),
            report: Report::default(),
            has_played: false,
        }
    }

    /// Reads on until there is a packet; false if the spool has no more yet. An error is a gap.
    fn fill(&mut self, now_ns: u64) -> Result<bool, SourceError> {
        while self.packets.is_empty() {
            if self.read_block()? {
                continue;
            }
            let next = match self.number {
                None => self.spool.segment_at(now_ns.saturating_sub(self.delay_ns)),
                Some(number) => self.spool.segment_after(number),
            };
            let Some(next) = next else { return Ok(false) };
            self.open(&next)?;
        }
        Ok(true)
    }

    /// Opens a segment. It continues the one before, or something is missing between them.
    fn open(&mut self, segment: &Segment) -> Result<(), SourceError> {
        let is_first = self.number.replace(segment.number).is_none();
        let name = segment.path.display().to_string();
        let opened = File::open(&segment.path).map(Arc::new);
        let reader = opened.and_then(|file| Reader::open(At::start_of(&file)).map_err(io::Error::other));
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                tracing::error!(file = name, "a segment of the spool cannot be read: {error}");
                return Err(self.gap());
            }
        };
        let is_empty = reader.blocks().is_empty();
        let has_checkpoint = reader.blocks().first().is_some_and(tickcast_recording::Block::is_checkpoint);
        // An index does not have the token. A block that is damaged is found again when it is to be played.
        let first = has_checkpoint.then(|| reader.read_block(0, &mut self.block)).transpose();
        let begins_at = first.ok().flatten().map(|block| block.token);
        // A checkpoint has the token of the packet before it; where nothing was known yet, there is none.
        let continues = begins_at == self.token;
        self.segment = Some(OpenSegment { name, reader, next_block: 0, takes_checkpoint: !continues });
        // A crash may leave a segment without anything in it. What is missing shows in the next one.
        if continues || is_first || is_empty { Ok(()) } else { Err(self.gap()) }
    }

    /// Reads the next block that is to be played. False at the end of the segment.
    fn read_block(&mut self) -> Result<bool, SourceError> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        let Some(listed) = segment.reader.blocks().get(segment.next_block) else {
            self.segment = None;
            return Ok(false);
        };
        let is_checkpoint = listed.is_checkpoint();
        segment.next_block += 1;
        if is_checkpoint && !segment.takes_checkpoint {
            return Ok(true);
        }
        segment.takes_checkpoint &= is_checkpoint;
        if let Err(error) = segment.reader.read_block(segment.next_block - 1, &mut self.block) {
            tracing::error!(file = segment.name, block = segment.next_block - 1, "a block of the spool {error}");
            // Later checkpoints of the segment have what is missing.
            segment.takes_checkpoint = true;
            return Err(self.gap());
        }
        let begin = self.block.as_ptr().addr();
        let place = |packet: &[u8]| packet.as_ptr().addr() - begin;
        self.packets.extend(packets(&self.block).map(|packet| place(packet)..place(packet) + packet.len()));
        Ok(true)
    }

    /// Reports that something is missing, of whatever instruments.
    fn gap(&self) -> SourceError {
        let from = self.token.map_or(0, |token| token.position.get());
        SourceError::Gap(SourceGap { stream: STREAM.to_owned(), from, to: from, instruments: Vec::new() })
    }

    /// When a packet is due, by the clock of deadlines.
    fn due_ns(&self, header: &PacketHeader, records: &[u8], times: Times) -> u64 {
        if header.epoch == self.live_epoch {
            return header.ts_send.saturating_add(self.delay_ns);
        }
        // Of an earlier process, whose clocks are not known: by both clocks, whichever is later.
        let received_ns = record::records(records).map(|(header, _)| header.ts_recv).max().unwrap_or(0);
        let due_ns = header.ts_send.max(received_ns).saturating_add(self.delay_ns);
        due_ns.saturating_add_signed(times.wall_offset_ns.min(0).saturating_neg())
    }

    /// Plays a packet.
    fn play(&mut self, header: &PacketHeader, place: Range<usize>, batch: &mut Vec<u8>) {
        let Self { block, translation, directory, report, .. } = self;
        let mut output = Output { batch, report, directory };
        for (_, record) in record::records(&block[place]) {
            if let Err(problem) = translation.play(header.epoch, record, &mut output) {
                output.report.malformed += 1;
                tracing::warn!("a record of the spool was skipped: {problem}");
            }
        }
    }
}

impl Source for DelayedSource {
    fn receive(&mut self, times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        while batch.records.len() < SOURCE_BATCH_BYTES_MAX {
            if !self.fill(times.now_ns)? {
                return Ok(Next::At(times.now_ns + POLL_NS));
            }
            let Some(place) = self.packets.front().cloned() else { continue };
            let Ok(header) = PacketHeader::read(&self.block[place.clone()]) else {
                self.packets.pop_front();
                continue;
            };
            let records = place.start + packet::HEADER_BYTES..place.end;
            let due_ns = self.due_ns(&header, &self.block[records.clone()], times);
            if due_ns > times.now_ns {
                return Ok(Next::At(due_ns));
            }
            self.packets.pop_front();
            self.token = Some(Token { epoch: header.epoch, position: header.position });
            self.has_played = true;
            self.play(&header, records, &mut batch.records);
        }
        Ok(Next::Paced)
    }

    fn streams(&self) -> Vec<Stream> {
        let state = if self.has_played { StreamState::Live } else { StreamState::Waiting };
        vec![Stream { name: STREAM.to_owned(), state }]
    }

    fn report(&self) -> Report {
        self.report
    }
}
