//! The sequencer: gives each record its instrument id, sequence, receive time and position, and writes it to the ring
//! of every shard.
//!
//! The path of a record:
//! 1. [`Sequencer::accept`] splits a source's batch into records.
//! 2. `Sequencer::sequence` replaces the source's own instrument id by the node's, **assigns the sequence** (the newest
//!    of its instrument and channel, plus 1), stamps `ts_recv`, and keeps the record as the newest value.
//! 3. `Sequencer::write` assigns the position and stages the record: it becomes an entry as a ring holds it.
//! 4. `Sequencer::copy_staged` copies the staged entries into each ring as one range: at the end of the batch, or when
//!    they reach [`STAGED_BYTES_MAX`].
//! 5. At the end of the batch `Sequencer::publish` makes it visible to the shards.
//!
//! What always holds:
//! * A record is numbered and encoded once; all shards read the same bytes in the same order.
//! * Sequences of an instrument and channel are contiguous from 1. Positions are contiguous from 1 over the whole node.
//! * An instrument has one definition at a time ([`define`]). Another one of its source goes to all subscribers; one that
//!   changes an exponent is followed by the newest book, ticker and quote in the new exponents.
//! * An instrument belongs to a feed or to an identity of publishers, and no other source feeds it ([`owners`]). Of an
//!   owner's live sources those of the best priority feed it.
//! * An instrument whose source sends no ticker may have computed ones ([`computed`]).
//! * When the last live source of an instrument falls silent, ends or is lost, a Status record reports it to the
//!   subscribers, and another one its return ([`sources`]).
//! * Between two calls nothing is staged. So what is written to one ring alone, a resynchronisation, comes after all
//!   records up to the present position, in that ring as in the others.
//! * The sequencer never waits for a shard. A shard that was overrun requests a resynchronisation
//!   ([`Sequencer::request_resync`]). It then gets the state of every instrument, flagged SNAPSHOT, through its own
//!   ring: in pieces, while at most half of that ring is unread, among the live records
//!   ([`Sequencer::advance_resyncs`]).
//!
//! What it does not do: read a clock, lock, wake a shard, or know clients. The lock and the wake-ups are those of
//! `ingest::SequencerHandle`.
//!
//! Cost: some 20 ns a record, and 9 ns a record and ring, which are the memory's (`benches/README.md`, `ring.rs`).

mod bars_ring;
mod computed;
mod define;
mod ended;
mod gaps;
mod owners;
mod skeletons;
mod sources;
mod stats;

pub use self::define::Defining;
pub use self::gaps::{RefusedGap, SKIPPED_FREE, SKIPPED_PER_RECORD};
pub use self::owners::{OwnerId, OwnerLimits, SourceIdentity};
pub use self::sources::{SourceEnd, SourceStatus};
pub use self::stats::{SequencerCounters, SequencerStats};

use self::bars_ring::BarsRing;
use self::computed::OwnTickers;
use self::gaps::GapAllowances;
use self::owners::OwnerTable;
use self::skeletons::Skeletons;
use self::sources::{Route, SourceTable};
use crate::last_value::LastValues;
use crate::ring::{self, StagedEntries};
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, flags};
use tickcast_protocol::{Book, DefineError, Directory, FeedState, GapReason, Position, Sequence};

/// A feed or a publisher. Each has its own instrument ids.
pub type SourceId = u32;

/// Entries are copied into the rings when they take this much, even within a batch. So the memory is limited, and all
/// rings are copied to from the nearest cache.
const STAGED_BYTES_MAX: usize = 16 * 1024;

/// What was left out of a batch, for a source that has to learn of it: the first of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchFaults {
    /// The symbol of a book that refused a record because it would have exceeded its limit of levels.
    pub refused_book: Option<String>,
    /// The source's own id of an instrument that it has not defined, or has no more: it was released, or another source
    /// of its owner has defined it otherwise.
    pub withdrawn: Option<u32>,
    /// A Gap record that skips more sequences than it may.
    pub gap: Option<RefusedGap>,
}

/// The sequencer's state. One owner, one thread.
pub struct Sequencer {
    directory: Directory,
    instruments_max: usize,
    book_levels_max: usize,
    keeps_stamps: bool,
    faults: BatchFaults,
    /// Levels of books that were carried over to other exponents, until [`Self::take_rescaled_levels`].
    rescaled_levels: u64,
    values: LastValues<()>,
    rings: Vec<ring::Writer>,
    /// Entries that the rings do not have yet. They take less than [`STAGED_BYTES_MAX`].
    staged: StagedEntries,
    /// Gets a second copy of each trade and quote.
    bars_ring: Option<BarsRing>,
    /// By shard.
    resyncs: Vec<Resync>,
    sources: SourceTable,
    owners: OwnerTable,
    skeletons: Skeletons,
    gaps: GapAllowances,
    own_tickers: OwnTickers,
    position: Position,
    counters: SequencerCounters,
    scratch: Vec<u8>,
}

/// The resynchronisation of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Resync {
    /// How many were requested.
    requests: Sequence,
    /// The next instrument, while one is running.
    next: Option<u32>,
}

impl Sequencer {
    /// A sequencer that writes to these rings, one a shard, and accepts at most `instruments_max` instruments.
    pub fn new(rings: Vec<ring::Writer>, instruments_max: usize) -> Self {
        Self {
            directory: Directory::default(),
            instruments_max,
            book_levels_max: usize::MAX,
            keeps_stamps: false,
            faults: BatchFaults::default(),
            rescaled_levels: 0,
            values: LastValues::default(),
            resyncs: vec![Resync::default(); rings.len()],
            rings,
            staged: StagedEntries::default(),
            bars_ring: None,
            sources: SourceTable::default(),
            owners: OwnerTable::default(),
            skeletons: Skeletons::default(),
            gaps: GapAllowances::default(),
            own_tickers: OwnTickers::default(),
            position: Position::ZERO,
            counters: SequencerCounters::default(),
            scratch: Vec::new(),
        }
    }

    /// Limits the levels of each book, both sides together.
    pub fn with_book_levels_max(self, book_levels_max: usize) -> Self {
        Self { book_levels_max, ..self }
    }

    /// Keeps the `ts_recv` that records of a source have, as those of a delayed market do.
    pub fn with_kept_stamps(self) -> Self {
        Self { keeps_stamps: true, ..self }
    }

    /// Writes trades and quotes to one more ring, tagged 0, 1, 2, …
    pub fn with_bars_ring(self, bars_ring: ring::Writer) -> Self {
        Self { bars_ring: Some(BarsRing::new(bars_ring)), ..self }
    }

    /// Sets on behalf of whom a source sends. Without this, a source is an owner by itself.
    pub fn open_source(&mut self, source: SourceId, identity: SourceIdentity) {
        self.sources.open(source, identity);
    }

    /// Takes what was left out of the last batches.
    pub fn take_faults(&mut self) -> BatchFaults {
        std::mem::take(&mut self.faults)
    }

    /// Takes the number of levels that changes of exponents have carried over: that is work which a request does not show.
    pub fn take_rescaled_levels(&mut self) -> u64 {
        std::mem::take(&mut self.rescaled_levels)
    }

    /// Sequences the records of a batch and writes them to all rings. Returns the outcome of each Definition in it.
    /// From the first bytes on that are not a whole record, the batch is ignored: the source has checked it already.
    pub fn accept(&mut self, source: SourceId, batch: &mut [u8], now_ns: u64) -> Vec<Result<u32, DefineError>> {
        let mut outcomes = Vec::new();
        let written_before = self.written_of_instruments();
        self.note_activity(source, now_ns);
        let mut rest = batch;
        while let Some(header) =
            RecordHeader::read(rest).filter(|h| (record::HEADER_BYTES..=rest.len()).contains(&h.bytes()))
        {
            let (bytes, tail) = std::mem::take(&mut rest).split_at_mut(header.bytes());
            // Never of a time that has not come.
            let is_kept = self.keeps_stamps && (1..now_ns).contains(&header.ts_recv);
            let now_ns = if is_kept { header.ts_recv } else { now_ns };
            match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Definition) => {
                    let instrument = record::read_definition(bytes).expect("the source has encoded or checked it");
                    outcomes.push(self.define(source, &instrument, now_ns));
                }
                Some(RecordKind::Status) => self.accept_status(source, &header, bytes, now_ns),
                Some(RecordKind::Gap) => self.accept_gap(source, bytes, now_ns),
                // A heartbeat only shows that the source is alive: noted above.
                Some(RecordKind::Heartbeat) => {}
                Some(kind) => {
                    let channel = kind.channel().expect("all other kinds of record belong to a channel");
                    self.sequence(source, &header, channel, bytes, now_ns);
                }
                None => self.counters.undefined += 1,
            }
            rest = tail;
        }
        self.sources.count(source, self.written_of_instruments() - written_before);
        self.publish();
        outcomes
    }

    /// Starts a resynchronisation: the state of every instrument is to be written to the ring of this shard.
    pub fn request_resync(&mut self, shard: usize) {
        self.counters.resyncs += 1;
        let resync = &mut self.resyncs[shard];
        *resync = Resync { requests: resync.requests.next(), next: Some(1) };
    }

    /// Continues the resynchronisations as far as the rings have room. True while one is not complete.
    pub fn advance_resyncs(&mut self) -> bool {
        assert_eq!(self.staged.bytes(), 0, "staged bytes between two calls");
        let mut pending = false;
        for shard in 0..self.rings.len() {
            let gauge = self.rings[shard].gauge();
            while let Some(next) = self.resyncs[shard].next {
                // The other half of the ring is left to live records.
                if gauge.backlog_bytes() > gauge.capacity_bytes() / 2 {
                    break;
                }
                let is_last = next as usize > self.directory.len();
                self.resyncs[shard].next = (!is_last).then_some(next + 1);
                self.push_state(shard, next);
                if is_last {
                    self.push_resync_end(shard);
                }
                self.rings[shard].publish();
            }
            pending |= self.resyncs[shard].next.is_some();
        }
        pending
    }

    /// The present numbers.
    pub fn counters(&self) -> SequencerCounters {
        self.counters
    }

    /// Position of the newest record.
    pub fn position(&self) -> Position {
        self.position
    }

    fn sequence(&mut self, source: SourceId, header: &RecordHeader, channel: Channel, bytes: &mut [u8], now_ns: u64) {
        let Some(id) = self.route(source, header.instrument) else { return };
        if self.sources.note_feeder(source, id) {
            // The book is that of a source of another priority.
            self.suspect_book(id, now_ns);
        }
        if channel == Channel::Book && !self.book_fits(id, bytes) {
            return self.refuse_book(id, now_ns);
        }
        let is_over = match self.values.status(id).state {
            FeedState::Stale | FeedState::Ended => true,
            FeedState::Halted => self.sources.is_halt_orphaned(id),
            _ => false,
        };
        if is_over {
            // The instrument was stale or ended, or the source that halted it is gone: a new record makes it live again.
            self.push_status(id, FeedState::Live, now_ns);
        }
        let sequence = self.values.sequence(id, channel).next();
        record::patch_sequenced(bytes, id, sequence, now_ns);
        // In a ring SNAPSHOT marks records of a resynchronisation, which live subscribers are not sent. A source's own
        // records must not carry it.
        let mut own_flags = header.flags & !flags::SNAPSHOT;
        if channel == Channel::Book && self.sources.is_book_suspect(id, bytes) {
            own_flags |= flags::MAYBE_BAD_BOOK;
        }
        record::patch_flags(bytes, own_flags);
        let numbered = RecordHeader { instrument: id, sequence, ts_recv: now_ns, flags: own_flags, ..*header };
        self.values.apply(&numbered, channel, bytes, ());
        self.write(bytes);
        match (channel, &mut self.bars_ring) {
            (Channel::Quote | Channel::Trade, Some(bars_ring)) => bars_ring.push(bytes),
            (Channel::Ticker, _) => self.own_tickers.note(id),
            _ => {}
        }
    }

    /// Whether a book record leaves its book within the limit of levels.
    fn book_fits(&self, id: u32, bytes: &[u8]) -> bool {
        let Some((action, levels)) = record::read_book(bytes) else { return true };
        let book = self.values.row(id).and_then(|row| row.book()).map(|state| &state.levels);
        // The exact count is taken only near the limit.
        book.map_or(0, Book::len) + levels.len() <= self.book_levels_max
            || book.unwrap_or(&Book::default()).len_after(action, levels) <= self.book_levels_max
    }

    /// Leaves out a record that would make its book too large, and flags the book as possibly wrong until a snapshot.
    fn refuse_book(&mut self, id: u32, now_ns: u64) {
        self.counters.books_refused += 1;
        if let Some(instrument) = self.directory.get(id) {
            self.faults.refused_book = Some(instrument.symbol.clone());
        }
        self.suspect_book(id, now_ns);
    }

    /// The instrument that a source's record is of; `None` for one that is left out: its source has not defined the
    /// instrument, or is standby.
    fn route(&mut self, source: SourceId, local: u32) -> Option<u32> {
        match self.sources.route(source, local) {
            Some(Route::Active(id)) => Some(id),
            Some(Route::Standby) => {
                self.counters.standby += 1;
                None
            }
            None => {
                self.counters.undefined += 1;
                self.faults.withdrawn.get_or_insert(local);
                None
            }
        }
    }

    fn written_of_instruments(&self) -> u64 {
        self.counters.records - self.sources.feed_states()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.position = self.position.next();
        self.counters.records += 1;
        self.staged.push(self.position, bytes);
        if self.staged.bytes() >= STAGED_BYTES_MAX {
            self.copy_staged();
        }
    }

    fn copy_staged(&mut self) {
        for ring in &mut self.rings {
            ring.push_entries(&self.staged);
        }
        self.staged.clear();
    }

    fn publish(&mut self) {
        self.copy_staged();
        // First: an answer that is made from it has what a subscriber was sent before it asked.
        if let Some(bars_ring) = &mut self.bars_ring {
            bars_ring.publish();
        }
        for ring in &mut self.rings {
            ring.publish();
        }
    }

    /// Writes the state of one instrument to the ring of one shard, at the present position.
    fn push_state(&mut self, shard: usize, id: u32) {
        if id == 1 {
            self.push_feed_status(shard);
        }
        let Some(row) = self.values.row(id) else { return };
        let Some(instrument) = self.directory.get(id) else { return self.push_released(shard, id) };
        let ring = &mut self.rings[shard];
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
        // Trades that the source lost after the newest one: the shard may have missed that Gap record.
        if row.push_trades_lost(id, 0, out) {
            record::patch_flags(out, flags::SNAPSHOT);
            push(out);
        }
        let raw = row.sequence(Channel::Raw);
        if !raw.is_none() {
            let gap = Gap {
                instrument: id,
                channel: Channel::Raw,
                from_sequence: Sequence::new(1),
                to_sequence: raw,
                reason: GapReason::Overrun,
            };
            gap.encode(0, out);
            record::patch_flags(out, flags::SNAPSHOT);
            push(out);
        }
    }

    fn push_released(&mut self, shard: usize, id: u32) {
        self.scratch.clear();
        self.values.status(id).push(id, flags::SNAPSHOT, &mut self.scratch);
        self.rings[shard].push(self.position, &self.scratch);
    }

    /// Tells a shard that it has the whole state: a Heartbeat whose sequence is the number of the shard's requests.
    fn push_resync_end(&mut self, shard: usize) {
        self.scratch.clear();
        record::encode_heartbeat(0, &mut self.scratch);
        record::patch_sequenced(&mut self.scratch, 0, self.resyncs[shard].requests, 0);
        record::patch_flags(&mut self.scratch, flags::LAST | flags::SNAPSHOT);
        self.rings[shard].push(self.position, &self.scratch);
    }

    fn push_feed_status(&mut self, shard: usize) {
        self.scratch.clear();
        self.values.status(0).push(0, flags::SNAPSHOT, &mut self.scratch);
        self.rings[shard].push(self.position, &self.scratch);
    }
}
