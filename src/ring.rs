//! The ring between the sequencer and one shard: one producer, one consumer, bytes in place.
//!
//! A [`RingOffset`] counts bytes since the ring's beginning, without gaps, and never wraps; the address in memory is
//! the offset modulo the capacity. An entry is two words and its payload, and may cross the end of the memory:
//!
//! ```text
//!  0 u64 payload bytes (a multiple of 8)   8 u64 position   16 payload
//! ```
//!
//! The [`Position`] of an entry is the producer's. The ring does not read it, and several entries may have the same.
//!
//! What always holds:
//! * The producer never waits; it overwrites the oldest entries. A reader that was lapped learns how much it lost and
//!   continues at the newest entry boundary.
//! * A reader never gets a byte that was overwritten while it was copied. This is a seqlock: `oldest` is raised before
//!   a word is overwritten; a reader copies words first and checks `oldest` afterwards. The words are atomics, so the
//!   race is defined. A length is used only after it was checked in this way.
//! * Entries that were read can be read again by [`Reader::history`] until they are overwritten.
//!
//! What it does not do: wake a reader that sleeps, filter, or hold an entry longer than half of its capacity.
//!
//! Cost: `capacity` bytes, allocated and touched once by [`ring`], and a few cache lines. In batches on one thread, an
//! entry of 64 payload bytes costs some 12 ns to push, 10 ns to stage and copy into one ring, 9 ns for each further
//! ring, and 8 ns to read, where plain copies of the same bytes cost 7 together; history skips an entry in 5 ns
//! (`benches/ring.rs`). The oldest eighth of a small ring, and 4 KiB of a large one, are given up early, so that
//! `oldest` need not be stored for each entry.

// With its path, since `tests/loom` includes this file.
#[path = "ring/gauge.rs"]
mod gauge;

use std::fmt;
use std::ops::{Add, Range, Sub};

use crossbeam::utils::CachePadded;
use tickcast_protocol::Position;

pub use self::gauge::Gauge;
use crate::sync::{Arc, AtomicU64, Ordering, fence};

/// Bytes of an entry besides its payload: the payload's length and the position.
pub const HEADER_BYTES: usize = 16;
/// The smallest ring: two entries of two payload words each.
pub const CAPACITY_BYTES_MIN: usize = 64;
/// The largest ring: a batch counts its bytes in 32 bits, and can so take all that a ring holds.
pub const CAPACITY_BYTES_MAX: usize = 1 << 31;
/// `oldest` is raised this far beyond what must be overwritten: about fifty quotes share one store and one
/// fence, and the reader's cache line is invalidated once for them.
const RESERVE_AHEAD_BYTES_MAX: u64 = 4096;
const WORD_BYTES: usize = 8;
/// A page of memory has at least as many.
const PAGE_BYTES_MIN: usize = 4096;

/// A byte of a ring, counted from the ring's beginning. Records are ordered by their [`Position`], on all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingOffset(u64);

impl RingOffset {
    /// The beginning of a ring.
    pub const START: Self = Self(0);

    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add<u64> for RingOffset {
    type Output = Self;

    fn add(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// Bytes between two offsets.
impl Sub for RingOffset {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for RingOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ring of `capacity_bytes`, a power of two from [`CAPACITY_BYTES_MIN`] to [`CAPACITY_BYTES_MAX`].
pub fn ring(capacity_bytes: usize) -> (Writer, Reader) {
    ring_at(capacity_bytes, RingOffset::START)
}

/// A ring whose first entry has the offset `first`, a multiple of 8: for one that continues another.
pub fn ring_at(capacity_bytes: usize, first: RingOffset) -> (Writer, Reader) {
    assert!(capacity_bytes.is_power_of_two(), "a ring of {capacity_bytes} bytes: expected a power of two");
    assert!(
        (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&capacity_bytes),
        "a ring of {capacity_bytes} bytes: expected {CAPACITY_BYTES_MIN} to {CAPACITY_BYTES_MAX}"
    );
    assert!(first.0.is_multiple_of(WORD_BYTES as u64), "a ring that begins at {first}: expected a multiple of 8");
    let shared = Arc::new(Shared {
        words: (0..capacity_bytes / WORD_BYTES).map(|_| AtomicU64::new(0)).collect(),
        oldest: CachePadded::new(AtomicU64::new(first.0)),
        published: CachePadded::new(AtomicU64::new(first.0)),
        read: CachePadded::new(AtomicU64::new(first.0)),
    });
    shared.touch();
    let capacity = capacity_bytes as u64;
    let reserve_ahead = (capacity / 8).min(RESERVE_AHEAD_BYTES_MAX);
    let writer = Writer { shared: shared.clone(), capacity, reserve_ahead, head: first, oldest: first };
    (writer, Reader { shared, capacity, offset: first, published: first })
}

/// What both ends share. Each offset is written by one side alone and has its own cache lines.
struct Shared {
    words: Box<[AtomicU64]>,
    /// Nothing below it may be read any more: it may be overwritten at any time. Written by the producer.
    oldest: CachePadded<AtomicU64>,
    /// Everything below it has been written. Always an entry boundary. Written by the producer.
    published: CachePadded<AtomicU64>,
    /// How far the reader has come, for the gauge. Written by the reader.
    read: CachePadded<AtomicU64>,
}

impl Shared {
    /// Has the kernel allocate the memory now. Zeros alone do not: they may be pages that nothing was written to yet,
    /// and each would delay the producer by a page fault in its first pass.
    fn touch(&self) {
        for word in self.words.iter().step_by(PAGE_BYTES_MIN / WORD_BYTES) {
            // Relaxed: no other thread has the ring yet.
            word.store(0, Ordering::Relaxed);
        }
    }

    /// `count` words from `offset` on, at most all: one slice, or two around the end of the memory.
    fn slices(&self, offset: RingOffset, count: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let (front, back) = self.words.split_at(self.index(offset));
        match count.checked_sub(back.len()) {
            None => (&back[..count], &[]),
            Some(wrapped) => (back, &front[..wrapped]),
        }
    }

    /// The number of words is a power of two, so the bits that the conversion to `usize` cuts off are masked anyway.
    fn index(&self, offset: RingOffset) -> usize {
        (offset.0 / WORD_BYTES as u64) as usize & (self.words.len() - 1)
    }

    /// Appends `bytes` bytes from `offset` on. They may be torn, unless `is_alive(offset)` is true afterwards.
    fn copy(&self, offset: RingOffset, bytes: usize, out: &mut Vec<u8>) {
        assert!(out.len() + bytes <= u32::MAX as usize, "a batch holds at most 4 GiB; it has to be cleared in between");
        let at = out.len();
        out.resize(at + bytes, 0);
        let (first, second) = self.slices(offset, bytes / WORD_BYTES);
        let (out_first, out_second) = out[at..].split_at_mut(first.len() * WORD_BYTES);
        load_words(first, out_first);
        load_words(second, out_second);
    }

    /// True if no word at or above `offset` had been overwritten when it was last loaded by this thread.
    fn is_alive(&self, offset: RingOffset) -> bool {
        self.oldest_after_copy() <= offset
    }

    fn oldest_after_copy(&self) -> RingOffset {
        // Acquire: partner of the Release fence in `Writer::reserve`. If one of the loads before this fence saw a word
        // that was stored after that one, the load below sees the `oldest` that was stored before that one.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence above.
        RingOffset(self.oldest.load(Ordering::Relaxed))
    }
}

fn load_words(words: &[AtomicU64], out: &mut [u8]) {
    for (word, bytes) in words.iter().zip(out.as_chunks_mut::<WORD_BYTES>().0) {
        // Relaxed: that the word was written is ordered by the Acquire load of `published`, that it was not overwritten
        // by the Acquire fence that follows the copy.
        *bytes = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

fn store_words(from: &[[u8; WORD_BYTES]], words: &[AtomicU64]) {
    for (bytes, word) in from.iter().zip(words) {
        // Relaxed: ordered after `oldest` by the Release fence of `Writer::reserve`, before `published` by its Release.
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Entries in the layout of a ring. They are written once and copied into any number of rings by
/// [`Writer::push_entries`].
#[derive(Debug, Default)]
pub struct StagedEntries {
    /// Whole entries, end to end.
    bytes: Vec<u8>,
    /// The length of the longest, with its header.
    longest_bytes: u64,
}

impl StagedEntries {
    /// Appends one entry. The payload's length is a multiple of 8.
    pub fn push(&mut self, position: Position, payload: &[u8]) {
        self.bytes.extend_from_slice(header(payload.len(), position).as_flattened());
        self.bytes.extend_from_slice(payload_words(payload).as_flattened());
        self.longest_bytes = self.longest_bytes.max((HEADER_BYTES + payload.len()) as u64);
    }

    /// What they take in a ring.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.longest_bytes = 0;
    }
}

fn header(payload_bytes: usize, position: Position) -> [[u8; WORD_BYTES]; 2] {
    [(payload_bytes as u64).to_le_bytes(), position.get().to_le_bytes()]
}

fn payload_words(payload: &[u8]) -> &[[u8; WORD_BYTES]] {
    let (words, rest) = payload.as_chunks::<WORD_BYTES>();
    assert!(rest.is_empty(), "a payload of {} bytes: expected a multiple of 8", payload.len());
    words
}

/// The producing end.
pub struct Writer {
    shared: Arc<Shared>,
    capacity: u64,
    reserve_ahead: u64,
    /// End of what has been pushed.
    head: RingOffset,
    /// Own copy of the shared `oldest`.
    oldest: RingOffset,
}

impl Writer {
    /// Appends one entry, which becomes visible with the next [`publish`](Self::publish). The payload's length is a
    /// multiple of 8, and the entry with its header takes at most half of the capacity.
    pub fn push(&mut self, position: Position, payload: &[u8]) {
        let words = payload_words(payload);
        let bytes = (HEADER_BYTES + payload.len()) as u64;
        self.check_entry(bytes);
        self.reserve(self.head + bytes);
        self.append(&header(payload.len(), position));
        self.append(words);
    }

    /// Appends all of these entries, as a [`push`](Self::push) of each would.
    pub fn push_entries(&mut self, entries: &StagedEntries) {
        self.check_entry(entries.longest_bytes);
        // In pieces, so that `oldest` stays below the head, as an entry of at most half of the capacity keeps it, too.
        let piece_words = self.shared.words.len() / 2;
        for piece in entries.bytes.as_chunks::<WORD_BYTES>().0.chunks(piece_words) {
            self.reserve(self.head + (piece.len() * WORD_BYTES) as u64);
            self.append(piece);
        }
    }

    /// Makes everything that was pushed visible: one store for the whole batch. A batch longer than the ring overwrites
    /// its own beginning, which the reader learns as an overrun.
    ///
    /// To wake a reader that sleeps, check its flag after a `SeqCst` fence that follows this.
    pub fn publish(&mut self) {
        // Release: partner of the Acquire loads of `published` in `Reader`, which so see all words below it.
        self.shared.published.store(self.head.0, Ordering::Release);
    }

    /// A view of how far the reader lags.
    pub fn gauge(&self) -> Gauge {
        Gauge { shared: self.shared.clone(), capacity: self.capacity }
    }

    fn check_entry(&self, bytes: u64) {
        assert!(
            bytes <= self.capacity / 2,
            "an entry of {bytes} bytes in a ring of {}: expected at most half",
            self.capacity
        );
    }

    /// Stores words at the head, which have been reserved, and moves the head behind them.
    fn append(&mut self, words: &[[u8; WORD_BYTES]]) {
        let (first, second) = self.shared.slices(self.head, words.len());
        let (words_first, words_second) = words.split_at(first.len());
        store_words(words_first, first);
        store_words(words_second, second);
        self.head = self.head + (words.len() * WORD_BYTES) as u64;
    }

    /// Gives up the oldest bytes where writing up to `end` would overwrite them.
    fn reserve(&mut self, end: RingOffset) {
        if end <= self.oldest + self.capacity {
            return;
        }
        self.oldest = RingOffset(end.0 - self.capacity + self.reserve_ahead);
        // Relaxed: ordered by the fence below.
        self.shared.oldest.store(self.oldest.0, Ordering::Relaxed);
        // Release: partner of the Acquire fence in `Shared::oldest_after_copy`. A thread that sees one of the words
        // that are stored after this fence sees the `oldest` before it, too.
        fence(Ordering::Release);
    }
}

/// One entry of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it starts in the ring.
    pub offset: RingOffset,
    /// As the producer pushed it.
    pub position: Position,
    /// Its payload is `batch.bytes[start..start + len]`; `start` and `len` are multiples of 8.
    pub start: u32,
    pub len: u32,
}

/// Entries that have been read. Kept by the caller, so that its memory is used again.
#[derive(Debug, Default)]
pub struct Batch {
    /// Payloads, and between them the entries' headers if they were copied with them.
    pub bytes: Vec<u8>,
    /// In the order of their offsets.
    pub entries: Vec<Entry>,
}

impl Entry {
    /// Where it ends in the ring.
    pub fn end(&self) -> RingOffset {
        self.offset + HEADER_BYTES as u64 + u64::from(self.len)
    }
}

impl Batch {
    /// Empties it, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The payload of one of its entries.
    pub fn payload(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start as usize..][..entry.len as usize]
    }
}

/// The producer has overwritten entries before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overrun: {lost} bytes were overwritten before they were read")]
pub struct Overrun {
    /// Bytes that can no longer be read, entry headers included.
    pub lost: u64,
}

/// The consuming end.
pub struct Reader {
    shared: Arc<Shared>,
    capacity: u64,
    offset: RingOffset,
    /// The shared `published` when it was last loaded. It is loaded again only if this offers too little.
    published: RingOffset,
}

impl Reader {
    /// True if nothing is published beyond [`offset`](Self::offset) at this moment.
    ///
    /// A thread that is about to sleep sets its flag first, then issues a `SeqCst` fence, then calls this: either this
    /// sees what was published, or the producer sees the flag (see [`Writer::publish`]).
    pub fn is_empty(&self) -> bool {
        // Relaxed: nothing is read because of it; `read` loads again with Acquire.
        self.shared.published.load(Ordering::Relaxed) == self.offset.0
    }

    /// Appends whole entries, some `bytes_max` with their headers at the most, but at least one if there is one, and
    /// moves behind them. On an overrun nothing is appended, and the reader moves to the newest boundary.
    pub fn read(&mut self, bytes_max: usize, batch: &mut Batch) -> Result<(), Overrun> {
        let span_max = (bytes_max / WORD_BYTES * WORD_BYTES).max(HEADER_BYTES) as u64;
        let available = self.available(span_max);
        if available == 0 {
            return Ok(());
        }
        let at = batch.bytes.len();
        // Not above `bytes_max` or a header, so it fits.
        let span = available.min(span_max) as usize;
        if available > self.capacity || !self.copy_entries(span, &mut batch.bytes) {
            batch.bytes.truncate(at);
            return Err(self.jump_to_newest());
        }
        let taken = list_entries(&batch.bytes, at, self.offset, &mut batch.entries);
        batch.bytes.truncate(at + taken);
        self.move_to(self.offset + taken as u64);
        Ok(())
    }

    /// Where the next read starts: an entry boundary.
    pub fn offset(&self) -> RingOffset {
        self.offset
    }

    /// Reads again the entries that begin in `range`, whose start is an entry boundary and whose end is not above
    /// [`offset`](Self::offset): appends the payload of each for which `wanted(position, first_payload_word)` is true
    /// (0 if the payload is empty), until that makes `bytes_max` or, by the last entry, somewhat more. Returns the
    /// boundary where to continue; when done, that is the first at or above the range's end. `wanted` never gets a torn
    /// value.
    ///
    /// Fails if the start has been overwritten, with nothing appended; `lost` then counts from there to the oldest byte
    /// that may still be alive, at most to `offset()`. That byte need not begin an entry, and reading cannot continue
    /// there. If the producer overtakes the scan in its middle, the entries before that are kept, and the call that
    /// continues there fails.
    pub fn history(
        &self,
        range: Range<RingOffset>,
        bytes_max: usize,
        mut wanted: impl FnMut(Position, u64) -> bool,
        batch: &mut Batch,
    ) -> Result<RingOffset, Overrun> {
        let Range { start: from, end } = range;
        assert!(from <= end && end <= self.offset, "history {from}..{end}: the reader is at {}", self.offset);
        let gathered_before = batch.bytes.len();
        let mut at = from;
        while at < end {
            let Some(head) = self.head_at(at) else { return self.history_lapped(from, at) };
            if wanted(head.position, head.first_word) {
                if !self.append_payload(at, &head, batch) {
                    return self.history_lapped(from, at);
                }
                if batch.bytes.len() - gathered_before >= bytes_max {
                    return Ok(at + head.entry_bytes());
                }
            }
            at = at + head.entry_bytes();
        }
        Ok(at)
    }

    /// The oldest offset that may still be read. It need not begin an entry.
    pub fn oldest(&self) -> RingOffset {
        // Relaxed: it may be raised right after; `history` checks again.
        RingOffset(self.shared.oldest.load(Ordering::Relaxed))
    }

    /// The ring's memory, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// Bytes that can be read, all of them only if there are fewer than `enough`.
    fn available(&mut self, enough: u64) -> u64 {
        if self.published - self.offset < enough {
            self.load_published();
        }
        self.published - self.offset
    }

    fn load_published(&mut self) {
        // Acquire: partner of the Release store in `Writer::publish`; every word below `published` is seen as written.
        self.published = RingOffset(self.shared.published.load(Ordering::Acquire));
    }

    /// Appends `span` bytes from the offset on, and the rest of the first entry if it is longer; false if overwritten.
    fn copy_entries(&self, span: usize, out: &mut Vec<u8>) -> bool {
        let at = out.len();
        self.shared.copy(self.offset, span, out);
        if !self.shared.is_alive(self.offset) {
            return false;
        }
        let entry = entry_bytes_at(out, at);
        if entry <= span {
            return true;
        }
        self.shared.copy(self.offset + span as u64, entry - span, out);
        self.shared.is_alive(self.offset)
    }

    fn jump_to_newest(&mut self) -> Overrun {
        self.load_published();
        let lost = self.published - self.offset;
        self.move_to(self.published);
        Overrun { lost }
    }

    /// Has the next read start at an entry boundary, which may be one that was read already, to read the entries behind
    /// it again. Those may have been overwritten by then: that read fails as any other.
    pub fn move_to(&mut self, offset: RingOffset) {
        self.offset = offset;
        // Release: partner of the Acquire load in `Gauge::backlog_bytes`: a thread that sees it knows that the copy is
        // done.
        self.shared.read.store(offset.0, Ordering::Release);
    }

    /// The header of the entry at a boundary below `offset()`; `None` if it has been overwritten.
    fn head_at(&self, offset: RingOffset) -> Option<Head> {
        // Relaxed: as in `load_words`. The third word belongs to the next entry if the payload is empty.
        let load = |bytes: usize| self.shared.words[self.shared.index(offset + bytes as u64)].load(Ordering::Relaxed);
        let (payload_bytes, position, first_word) = (load(0), Position::new(load(WORD_BYTES)), load(HEADER_BYTES));
        if !self.shared.is_alive(offset) {
            return None;
        }
        let head = Head { payload_bytes, position, first_word: if payload_bytes == 0 { 0 } else { first_word } };
        let fits = payload_bytes <= self.capacity / 2 && offset + head.entry_bytes() <= self.offset;
        assert!(fits && offset.0.is_multiple_of(WORD_BYTES as u64), "no entry begins at {offset}");
        Some(head)
    }

    /// Appends one entry without its header; false, with nothing appended, if it has been overwritten.
    fn append_payload(&self, offset: RingOffset, head: &Head, batch: &mut Batch) -> bool {
        let start = batch.bytes.len();
        // At most half of a capacity, as `head_at` has checked.
        let len = head.payload_bytes as usize;
        self.shared.copy(offset + HEADER_BYTES as u64, len, &mut batch.bytes);
        if !self.shared.is_alive(offset) {
            batch.bytes.truncate(start);
            return false;
        }
        batch.entries.push(Entry { offset, position: head.position, start: start as u32, len: len as u32 });
        true
    }

    /// What was read before the scan was overtaken is kept; if that is nothing, it is an overrun.
    fn history_lapped(&self, from: RingOffset, at: RingOffset) -> Result<RingOffset, Overrun> {
        if at > from {
            return Ok(at);
        }
        Err(Overrun { lost: self.shared.oldest_after_copy().min(self.offset) - from })
    }
}

/// What history checks before it copies.
struct Head {
    payload_bytes: u64,
    position: Position,
    first_word: u64,
}

impl Head {
    fn entry_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.payload_bytes
    }
}

/// Lists the whole entries of `bytes[at..]`, the first of which is at `offset`, and returns their length together.
fn list_entries(bytes: &[u8], at: usize, offset: RingOffset, entries: &mut Vec<Entry>) -> usize {
    let mut taken = 0;
    while bytes.len() - at - taken >= HEADER_BYTES {
        let here = at + taken;
        let entry_bytes = entry_bytes_at(bytes, here);
        if entry_bytes > bytes.len() - here {
            break;
        }
        entries.push(Entry {
            offset: offset + taken as u64,
            position: Position::new(word_at(bytes, here + WORD_BYTES)),
            // `Shared::copy` keeps a batch within 32 bits.
            start: (here + HEADER_BYTES) as u32,
            len: (entry_bytes - HEADER_BYTES) as u32,
        });
        taken += entry_bytes;
    }
    taken
}

/// The length of the entry whose header is at `at`.
fn entry_bytes_at(bytes: &[u8], at: usize) -> usize {
    HEADER_BYTES + word_at(bytes, at) as usize
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a validated copy holds whole headers"))
}
