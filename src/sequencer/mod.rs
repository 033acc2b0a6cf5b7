//! The one writer: gives every record its sequence and place, stamps it, and writes it to the ring of every core.
//!
//! What always holds:
//! * A record is numbered and encoded once; all cores see the same bytes in the same order.
//! * Sequences of an instrument and channel are contiguous from 1, positions of the node too.
//! * A source that falls silent, ends or is lost is told to all who watch its instruments, and so is its return
//!   ([`sources`]).
//! * The sequencer never waits for a shard. One that was overrun asks for a resynchronisation, and gets the whole state
//!   (flag SNAPSHOT) through its own ring, in pieces, as that ring has room.
//!
//! It does not know threads, clocks or clients. Cost: some 100 ns a record and core, mostly two copies.

mod bars_ring;
mod sources;
mod stats;

pub use self::sources::{SourceEnd, SourceStatus};
pub use self::stats::SequencerStats;

use self::bars_ring::BarsRing;
use self::sources::SourceTable;
use crate::last_value::LastValues;
use crate::ring;
use tickcast_protocol::book::Book;
use tickcast_protocol::directory::{DefineError, Directory};
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, flags};

/// Who sends: a feed or a publisher. Each has instrument ids of its own.
pub type SourceId = u32;

/// Sequences stay below this, however many records a source says to have lost.
const SEQUENCE_MAX: u64 = 1 << 53;

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequencerCounters {
    /// Records written to the rings.
    pub records: u64,
    /// Records of instruments that their source had not defined, or whose definition was refused.
    pub undefined: u64,
    /// Definitions that were refused.
    pub refused: u64,
    /// Resynchronisations asked for by overrun shards.
    pub resyncs: u64,
    /// Records that sources have said to have lost.
    pub lost: u64,
    /// Times a source fell silent for too long.
    pub silences: u64,
    /// SourceTable that went without having ended.
    pub losses: u64,
    /// SourceTable that are there now.
    pub sources: u64,
    /// Instruments whose values are stale or ended now.
    pub stale: u64,
    /// Book records refused because the book would have had too many levels.
    pub books_refused: u64,
}

/// The sequencer's state. One owner, one thread.
pub struct Sequencer {
    directory: Directory,
    instruments_max: usize,
    book_levels_max: usize,
    /// An instrument whose book has refused a record, until [`Self::take_refused_book`].
    refused_book: Option<u32>,
    values: LastValues,
    rings: Vec<ring::Writer>,
    /// Trades and quotes once more, for whoever keeps them as bars.
    bars_ring: Option<BarsRing>,
    /// For each core, the next instrument of its resynchronisation.
    resyncs: Vec<Option<u32>>,
    sources: SourceTable,
    position: u64,
    counters: SequencerCounters,
    scratch: Vec<u8>,
}

impl Sequencer {
    /// A sequencer that writes to these rings, one a core.
    pub fn new(rings: Vec<ring::Writer>, instruments_max: usize) -> Self {
        Self {
            directory: Directory::default(),
            instruments_max,
            book_levels_max: usize::MAX,
            refused_book: None,
            values: LastValues::default(),
            resyncs: vec![None; rings.len()],
            rings,
            bars_ring: None,
            sources: SourceTable::default(),
            position: 0,
            counters: SequencerCounters::default(),
            scratch: Vec::new(),
        }
    }

    /// Bounds the levels of each book, both sides together.
    pub fn with_book_levels_max(self, book_levels_max: usize) -> Self {
        Self { book_levels_max, ..self }
    }

    /// Writes trades and quotes to one more ring. Their tags count them from 0, so that a reader that was lapped knows how
    /// many it has lost.
    pub fn with_bars_ring(self, bars_ring: ring::Writer) -> Self {
        Self { bars_ring: Some(BarsRing::new(bars_ring)), ..self }
    }

    /// The symbol of a book that refused a record of the last batch, as it would have had more levels than it may.
    pub fn take_refused_book(&mut self) -> Option<String> {
        let id = self.refused_book.take()?;
        self.directory.get(id).map(|instrument| instrument.symbol.clone())
    }

    /// Numbers the records of a batch and writes them to all rings; returns the outcome of each Definition in it.
    /// Bytes after the first that are not a whole record are ignored: whoever fills a batch has checked it.
    pub fn accept(&mut self, source: SourceId, batch: &mut [u8], now_ns: u64) -> Vec<Result<u32, DefineError>> {
        let mut outcomes = Vec::new();
        let written_before = self.counters.records;
        self.hear(source, now_ns);
        let mut rest = batch;
        while let Some(header) =
            RecordHeader::read(rest).filter(|h| (record::HEADER_BYTES..=rest.len()).contains(&h.bytes()))
        {
            let (bytes, tail) = std::mem::take(&mut rest).split_at_mut(header.bytes());
            match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Definition) => outcomes.push(self.define(source, bytes, now_ns)),
                Some(RecordKind::Status) => self.pass_status_on(source, &header, bytes, now_ns),
                Some(RecordKind::Gap) => self.skip(source, bytes, now_ns),
                // A source that has nothing to say lives nevertheless.
                Some(RecordKind::Heartbeat) => {}
                Some(kind) => {
                    let channel = kind.channel().expect("the others are the channels'");
                    self.sequence(source, &header, channel, bytes, now_ns);
                }
                None => self.counters.undefined += 1,
            }
            rest = tail;
        }
        self.sources.count(source, self.counters.records - written_before);
        self.publish();
        outcomes
    }

    /// Starts to send the whole state to a core again.
    pub fn request_resync(&mut self, core: usize) {
        self.counters.resyncs += 1;
        self.resyncs[core] = Some(1);
    }

    /// Goes on with the resynchronisations, as far as the rings have room. True while some are not done.
    pub fn advance_resyncs(&mut self) -> bool {
        let mut pending = false;
        for core in 0..self.rings.len() {
            let gauge = self.rings[core].gauge();
            // Half a ring is left to what comes live meanwhile.
            while let Some(next) = self.resyncs[core] {
                if gauge.backlog_bytes() > gauge.capacity_bytes() / 2 {
                    break;
                }
                self.resyncs[core] = (next as usize <= self.directory.len()).then_some(next + 1);
                self.push_state(core, next);
                self.rings[core].publish();
            }
            pending |= self.resyncs[core].is_some();
        }
        pending
    }

    /// What has been counted so far.
    pub fn counters(&self) -> SequencerCounters {
        self.counters
    }

    /// Place of the newest record.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn define(&mut self, source: SourceId, bytes: &mut [u8], now_ns: u64) -> Result<u32, DefineError> {
        let instrument = record::read_definition(bytes).expect("whoever fills a batch has made the definition");
        let defined = self.directory.define(&instrument, self.instruments_max);
        let (id, new) = match defined {
            Ok(defined) => defined,
            Err(error) => {
                self.counters.refused += 1;
                return Err(error);
            }
        };
        self.sources.define(source, instrument.id, id);
        self.push_feed_state(b'S', now_ns);
        if new {
            self.values.add(id);
            record::patch_sequenced(bytes, id, 0, now_ns);
            self.write(bytes);
        }
        Ok(id)
    }

    fn sequence(&mut self, source: SourceId, header: &RecordHeader, channel: Channel, bytes: &mut [u8], now_ns: u64) {
        let Some(id) = self.global(source, header.instrument) else {
            self.counters.undefined += 1;
            return;
        };
        if channel == Channel::Book && !self.has_room(id, bytes) {
            return self.refuse_book(id, now_ns);
        }
        if matches!(self.values.status(id).state, b'S' | b'E') {
            // Its newest values were not to be trusted any more; this one is.
            self.push_status(id, b'L', now_ns);
        }
        let sequence = self.values.sequence(id, channel) + 1;
        record::patch_sequenced(bytes, id, sequence, now_ns);
        // In a ring this flag says that state is sent again; a source's own would hide its record from stragglers.
        let mut own_flags = header.flags & !flags::SNAPSHOT;
        if channel == Channel::Book && self.sources.is_book_suspect(id, bytes) {
            own_flags |= flags::MAYBE_BAD_BOOK;
        }
        record::patch_flags(bytes, own_flags);
        let numbered = RecordHeader { instrument: id, sequence, ts_recv: now_ns, flags: own_flags, ..*header };
        self.values.apply(&numbered, channel, bytes, self.position + 1);
        self.write(bytes);
        if let (Channel::Quote | Channel::Trade, Some(bars_ring)) = (channel, &mut self.bars_ring) {
            bars_ring.push(bytes);
        }
    }

    /// Whether a book record leaves its book within its limit.
    fn has_room(&self, id: u32, bytes: &[u8]) -> bool {
        let Some((kind, levels)) = record::read_book(bytes) else { return true };
        let book = self.values.row(id).and_then(|row| row.book()).map(|state| &state.levels);
        // Only near the limit is it worth looking which levels are new.
        book.map_or(0, Book::len) + levels.len() <= self.book_levels_max
            || book.unwrap_or(&Book::default()).len_after(kind, levels) <= self.book_levels_max
    }

    /// A record that would make its book too large is left out; the book says that it may be wrong until it is whole.
    fn refuse_book(&mut self, id: u32, now_ns: u64) {
        self.counters.books_refused += 1;
        self.refused_book = Some(id);
        self.suspect_book(id, now_ns);
    }

    /// A source has lost records of a log channel: their sequences are left out. What it says of their numbers counts for
    /// nothing but how many there are.
    fn skip(&mut self, source: SourceId, bytes: &[u8], now_ns: u64) {
        let gap = Gap::read(bytes).filter(|gap| gap.channel.is_log() && gap.to_sequence >= gap.from_sequence);
        let known = gap.and_then(|gap| Some((self.global(source, gap.instrument)?, gap)));
        let Some((instrument, gap)) = known else {
            self.counters.undefined += 1;
            return;
        };
        let from_sequence = self.values.sequence(instrument, gap.channel) + 1;
        let count = gap.to_sequence - gap.from_sequence;
        let Some(to_sequence) = from_sequence.checked_add(count).filter(|last| *last < SEQUENCE_MAX) else {
            self.counters.undefined += 1;
            return;
        };
        self.counters.lost += count + 1;
        let gap = Gap { instrument, from_sequence, to_sequence, reason: b'F', ..gap };
        self.values.apply_gap(&gap, self.position + 1);
        let mut bytes = Vec::new();
        gap.encode(now_ns, &mut bytes);
        self.write(&bytes);
    }

    fn global(&self, source: SourceId, local: u32) -> Option<u32> {
        self.sources.global(source, local)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.position += 1;
        self.counters.records += 1;
        for ring in &mut self.rings {
            ring.push(self.position, bytes);
        }
    }

    fn publish(&mut self) {
        for ring in &mut self.rings {
            ring.publish();
        }
        if let Some(bars_ring) = &mut self.bars_ring {
            bars_ring.publish();
        }
    }

    /// Writes all that is known of one instrument to one core's ring, at the present position.
    fn push_state(&mut self, core: usize, id: u32) {
        if id == 1 {
            self.push_feed_status(core);
        }
        let (Some(instrument), Some(row)) = (self.directory.get(id), self.values.row(id)) else { return };
        let ring = &mut self.rings[core];
        let mut push = |out: &mut Vec<u8>| {
            ring.push(self.position, out);
            out.clear();
        };
        let out = &mut self.scratch;
        out.clear();
        record::encode_definition(instrument, out);
        push(out);
        self.values.status(id).push(id, flags::SNAPSHOT, out);
        push(out);
        for channel in [Channel::Book, Channel::Ticker, Channel::Quote, Channel::Trade] {
            if row.push(id, channel, flags::SNAPSHOT, out) {
                push(out);
            }
        }
        // What the source has lost after the trade that is kept, the shard may have lost the word of.
        if row.push_trades_lost(id, 0, out) {
            record::patch_flags(out, flags::SNAPSHOT);
            push(out);
        }
        let raw = row.sequence(Channel::Raw);
        if raw > 0 {
            let gap = Gap { instrument: id, channel: Channel::Raw, from_sequence: 1, to_sequence: raw, reason: b'O' };
            gap.encode(0, out);
            record::patch_flags(out, flags::SNAPSHOT);
            push(out);
        }
    }

    fn push_feed_status(&mut self, core: usize) {
        self.scratch.clear();
        self.values.status(0).push(0, flags::SNAPSHOT, &mut self.scratch);
        self.rings[core].push(self.position, &self.scratch);
    }
}
