//! The ring between the sequencer and one shard: one producer, one consumer, bytes in place.
//!
//! A position counts bytes since the ring's beginning, without holes, and never wraps; its place in memory is the
//! position modulo the capacity. An entry is two words and its payload, and may lie across the end of the memory:
//!
//! ```text
//!  0 u64 payload bytes (a multiple of 8)   8 u64 tag   16 payload
//! ```
//!
//! What always holds:
//! * The producer never waits; it overwrites the oldest. A reader that was lapped learns how much it lost and goes on
//!   from the newest boundary.
//! * No reader is handed a byte that was overwritten while it was being copied. A seqlock sees to that: `oldest` is
//!   raised before a word is overwritten, words are copied first, and `oldest` is looked at afterwards. Since the words
//!   are atomics the race is a defined one; no length is believed before it has been checked so.
//! * What has been read stays readable through [`Reader::history`] until it is overwritten.
//!
//! What it does not do: wake a reader that sleeps, filter, or hold an entry longer than half of its capacity.
//!
//! Cost: `capacity` bytes, allocated and touched once by [`ring`], and a few cache lines. In batches on one thread, an
//! entry of 64 payload bytes costs some 10 ns to push and as much to read, where plain copies of the same bytes cost 7
//! together; history skips an entry in 5 ns (`benches/ring.rs`). The oldest eighth of a small ring, and 4 KiB of a
//! large one, are given up early, so that `oldest` need not be stored for each entry.

use std::ops::Range;

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Ordering, fence};

/// Bytes of an entry beside its payload: the payload's length and the tag.
pub const HEADER_BYTES: usize = 16;
/// The smallest ring: two entries of two payload words each.
pub const CAPACITY_BYTES_MIN: usize = 64;
/// The largest ring: a batch counts its bytes in 32 bits, and can so take all that a ring holds.
pub const CAPACITY_BYTES_MAX: usize = 1 << 31;
/// `oldest` is raised this far beyond what must be overwritten: fifty quotes share one store and one fence, and the
/// reader finds the line in its cache as often.
const RESERVE_AHEAD_BYTES_MAX: u64 = 4096;
const WORD_BYTES: usize = 8;

/// A ring of `capacity_bytes`, a power of two from [`CAPACITY_BYTES_MIN`] to [`CAPACITY_BYTES_MAX`].
pub fn ring(capacity_bytes: usize) -> (Writer, Reader) {
    ring_at(capacity_bytes, 0)
}

/// A ring whose first entry has the position `first`, a multiple of 8: for one that goes on where another ended.
pub fn ring_at(capacity_bytes: usize, first: u64) -> (Writer, Reader) {
    assert!(capacity_bytes.is_power_of_two(), "a ring of {capacity_bytes} bytes: want a power of two");
    assert!(
        (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&capacity_bytes),
        "a ring of {capacity_bytes} bytes: want {CAPACITY_BYTES_MIN} to {CAPACITY_BYTES_MAX}"
    );
    assert!(first.is_multiple_of(WORD_BYTES as u64), "a ring begins at a multiple of 8, not at {first}");
    let shared = Arc::new(Shared {
        words: (0..capacity_bytes / WORD_BYTES).map(|_| AtomicU64::new(0)).collect(),
        oldest: CachePadded::new(AtomicU64::new(first)),
        published: CachePadded::new(AtomicU64::new(first)),
        read: CachePadded::new(AtomicU64::new(first)),
    });
    let capacity = capacity_bytes as u64;
    let reserve_ahead = (capacity / 8).min(RESERVE_AHEAD_BYTES_MAX);
    let writer = Writer { shared: shared.clone(), capacity, reserve_ahead, head: first, oldest: first };
    (writer, Reader { shared, capacity, position: first, published: first })
}

/// What both ends share. Each position is written by one side alone and has its own cache lines.
struct Shared {
    words: Box<[AtomicU64]>,
    /// Nothing below it may be read any more: it may be overwritten at any time. Written by the producer.
    oldest: CachePadded<AtomicU64>,
    /// Everything below it has been written. Always an entry boundary. Written by the producer.
    published: CachePadded<AtomicU64>,
    /// Where the reader stands, for the gauge. Written by the reader.
    read: CachePadded<AtomicU64>,
}

impl Shared {
    /// The word at a position.
    fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[self.index(position)]
    }

    /// The words from `position` on, `count` of them, which is at most all: one piece, or two around the end.
    fn pieces(&self, position: u64, count: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let (front, back) = self.words.split_at(self.index(position));
        match count.checked_sub(back.len()) {
            None => (&back[..count], &[]),
            Some(wrapped) => (back, &front[..wrapped]),
        }
    }

    /// The number of words is a power of two, so the cut to `usize` takes off no bit that counts.
    fn index(&self, position: u64) -> usize {
        (position / WORD_BYTES as u64) as usize & (self.words.len() - 1)
    }

    /// Appends `bytes` bytes from `position` on. They may be torn until `is_alive(position)` has said otherwise.
    fn copy(&self, position: u64, bytes: usize, out: &mut Vec<u8>) {
        assert!(out.len() + bytes <= u32::MAX as usize, "a batch holds at most 4 GiB; it has to be cleared in between");
        let at = out.len();
        out.resize(at + bytes, 0);
        let (first, second) = self.pieces(position, bytes / WORD_BYTES);
        let (out_first, out_second) = out[at..].split_at_mut(first.len() * WORD_BYTES);
        load_words(first, out_first);
        load_words(second, out_second);
    }

    /// True if no word at or above `position` had been overwritten when it was last loaded by this thread.
    fn is_alive(&self, position: u64) -> bool {
        self.oldest_after_copy() <= position
    }

    fn oldest_after_copy(&self) -> u64 {
        // Acquire: partner of the Release fence in `Writer::reserve`. If one of the loads before this fence saw a word
        // that was stored after that one, the load below sees the `oldest` that was stored before that one.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence above.
        self.oldest.load(Ordering::Relaxed)
    }
}

fn load_words(words: &[AtomicU64], out: &mut [u8]) {
    for (word, bytes) in words.iter().zip(out.as_chunks_mut::<WORD_BYTES>().0) {
        // Relaxed: that the word was written is ordered by the Acquire load of `published`, that it was not overwritten
        // by the Acquire fence that follows the copy.
        *bytes = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

fn store_words(payload: &[[u8; WORD_BYTES]], words: &[AtomicU64]) {
    for (bytes, word) in payload.iter().zip(words) {
        // Relaxed: ordered after `oldest` by the Release fence of `Writer::reserve`, before `published` by its Release.
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

/// The producing end.
pub struct Writer {
    shared: Arc<Shared>,
    capacity: u64,
    reserve_ahead: u64,
    /// End of what has been pushed.
    head: u64,
    /// Own copy of the shared `oldest`.
    oldest: u64,
}

impl Writer {
    /// Appends one entry, which becomes visible with the next [`publish`](Self::publish). The payload's length is a
    /// multiple of 8, and the entry with its header takes at most half of the capacity.
    pub fn push(&mut self, tag: u64, payload: &[u8]) {
        let (chunks, rest) = payload.as_chunks::<WORD_BYTES>();
        assert!(rest.is_empty(), "a payload of {} bytes: want a multiple of 8", payload.len());
        let bytes = (HEADER_BYTES + payload.len()) as u64;
        assert!(bytes <= self.capacity / 2, "an entry of {bytes} bytes in a ring of {}: want half", self.capacity);
        self.reserve(self.head + bytes);
        let shared = &*self.shared;
        // Relaxed: as in `store_words`.
        shared.word(self.head).store(payload.len() as u64, Ordering::Relaxed);
        shared.word(self.head + WORD_BYTES as u64).store(tag, Ordering::Relaxed);
        let (first, second) = shared.pieces(self.head + HEADER_BYTES as u64, chunks.len());
        let (chunks_first, chunks_second) = chunks.split_at(first.len());
        store_words(chunks_first, first);
        store_words(chunks_second, second);
        self.head += bytes;
    }

    /// Makes everything that was pushed visible: one store for the whole batch. A batch longer than the ring overwrites
    /// its own beginning, which its reader learns as any other overrun.
    ///
    /// To wake a reader that sleeps, look at its flag after a `SeqCst` fence that follows this.
    pub fn publish(&mut self) {
        // Release: partner of the Acquire loads of `published` in `Reader`, which so see all words below it.
        self.shared.published.store(self.head, Ordering::Release);
    }

    /// A view of how far the reader lags.
    pub fn gauge(&self) -> Gauge {
        Gauge { shared: self.shared.clone(), capacity: self.capacity }
    }

    /// Gives up the oldest bytes where writing up to `end` would overwrite them.
    fn reserve(&mut self, end: u64) {
        if end <= self.oldest + self.capacity {
            return;
        }
        self.oldest = end - self.capacity + self.reserve_ahead;
        // Relaxed: ordered by the fence below.
        self.shared.oldest.store(self.oldest, Ordering::Relaxed);
        // Release: partner of the Acquire fence in `Shared::oldest_after_copy`. Whoever sees one of the words that are
        // stored after this fence sees the `oldest` before it, too.
        fence(Ordering::Release);
    }
}

/// A view, from any thread, of how far the reader lags.
#[derive(Clone)]
pub struct Gauge {
    shared: Arc<Shared>,
    capacity: u64,
}

impl Gauge {
    /// Published bytes that the reader has not read yet; more than the capacity if it is being lapped.
    ///
    /// On the producer's thread this never says too little, and what it says has been read may be overwritten without
    /// harm to the reader: a producer that keeps this, and what it is about to push, below half of the capacity
    /// laps nobody.
    pub fn backlog_bytes(&self) -> u64 {
        // Acquire: partner of the Release store in `Reader::stand_at`. What the reader has copied was copied before
        // anything that this thread stores from now on; and `published` below is not older than what the reader saw,
        // so the difference is never negative.
        let read = self.shared.read.load(Ordering::Acquire);
        // Relaxed: only the number is wanted, and the line above makes it new enough.
        self.shared.published.load(Ordering::Relaxed) - read
    }

    /// The ring's memory, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }
}

/// One entry of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it starts in the ring.
    pub position: u64,
    /// What the producer said of it.
    pub tag: u64,
    /// Its payload is `batch.bytes[start..start + len]`; `start` and `len` are multiples of 8.
    pub start: u32,
    pub len: u32,
}

/// What has been read. Kept by the caller, so that its memory is used again.
#[derive(Debug, Default)]
pub struct Batch {
    /// Payloads, and between them what else was copied with them.
    pub bytes: Vec<u8>,
    /// In the order of their positions.
    pub entries: Vec<Entry>,
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

/// The producer has overwritten what was to be read.
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
    position: u64,
    /// The shared `published`, as of the last look: looked at again only when it offers too little.
    published: u64,
}

impl Reader {
    /// True if nothing is published beyond [`position`](Self::position) at this moment.
    ///
    /// Who is about to sleep says so first, then puts a `SeqCst` fence, then asks this: either this sees what was
    /// published, or the producer sees the sleeper (see [`Writer::publish`]).
    pub fn is_empty(&self) -> bool {
        // Relaxed: nothing is read on the strength of it; `read` looks again with Acquire.
        self.shared.published.load(Ordering::Relaxed) == self.position
    }

    /// Appends whole entries, some `bytes_max` with their headers at the most, but at least one if there is one, and
    /// moves on. On an overrun nothing is appended, and the reader stands at the newest boundary.
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
        let taken = list_entries(&batch.bytes, at, self.position, &mut batch.entries);
        batch.bytes.truncate(at + taken);
        self.stand_at(self.position + taken as u64);
        Ok(())
    }

    /// Where the next read starts: an entry boundary.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Re-reads the entries that begin in `range`, whose start is an entry boundary and whose end is not above
    /// [`position`](Self::position): appends the payload of each for which `wanted(tag, first_payload_word)` holds (0
    /// where the payload is empty), until that makes `bytes_max` or, by the last entry, somewhat more. Returns the
    /// boundary where to go on, the first at or above the range's end when done. `wanted` is never shown a torn value.
    ///
    /// Fails if the start has been overwritten, with nothing appended; `lost` then counts from there to the oldest byte
    /// that may still be alive, at most to `position()`. That byte need not begin an entry: nothing goes on from it. If
    /// the producer comes by in mid-scan, what was good is kept, and the call that goes on from there fails.
    pub fn history(
        &self,
        range: Range<u64>,
        bytes_max: usize,
        mut wanted: impl FnMut(u64, u64) -> bool,
        batch: &mut Batch,
    ) -> Result<u64, Overrun> {
        let Range { start: from, end } = range;
        assert!(from <= end && end <= self.position, "history {from}..{end}: the reader stands at {}", self.position);
        let gathered_before = batch.bytes.len();
        let mut at = from;
        while at < end {
            let Some(head) = self.head_at(at) else { return self.history_lapped(from, at) };
            if wanted(head.tag, head.first_word) {
                if !self.append_payload(at, &head, batch) {
                    return self.history_lapped(from, at);
                }
                if batch.bytes.len() - gathered_before >= bytes_max {
                    return Ok(at + head.entry_bytes());
                }
            }
            at += head.entry_bytes();
        }
        Ok(at)
    }

    /// The oldest place that may still be read. It need not begin an entry.
    pub fn oldest(&self) -> u64 {
        // Relaxed: it may be raised right after; `history` looks again.
        self.shared.oldest.load(Ordering::Relaxed)
    }

    /// The ring's memory, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// Bytes that can be read, all of them only if there are fewer than `enough`.
    fn available(&mut self, enough: u64) -> u64 {
        if self.published - self.position < enough {
            self.look();
        }
        self.published - self.position
    }

    fn look(&mut self) {
        // Acquire: partner of the Release store in `Writer::publish`; every word below `published` is seen as written.
        self.published = self.shared.published.load(Ordering::Acquire);
    }

    /// Appends `span` bytes from here on, and the rest of the first entry where it is longer; false if overwritten.
    fn copy_entries(&self, span: usize, out: &mut Vec<u8>) -> bool {
        let at = out.len();
        self.shared.copy(self.position, span, out);
        if !self.shared.is_alive(self.position) {
            return false;
        }
        let entry = entry_bytes_at(out, at);
        if entry <= span {
            return true;
        }
        self.shared.copy(self.position + span as u64, entry - span, out);
        self.shared.is_alive(self.position)
    }

    fn jump_to_newest(&mut self) -> Overrun {
        self.look();
        let lost = self.published - self.position;
        self.stand_at(self.published);
        Overrun { lost }
    }

    fn stand_at(&mut self, position: u64) {
        self.position = position;
        // Release: partner of the Acquire load in `Gauge::backlog_bytes`; whoever sees it knows that the copy is done.
        self.shared.read.store(position, Ordering::Release);
    }

    /// The header of the entry at a boundary below `position()`; `None` if it has been overwritten.
    fn head_at(&self, position: u64) -> Option<Head> {
        // Relaxed: as in `load_words`. The third word belongs to the next entry where the payload is empty.
        let load = |offset: usize| self.shared.word(position + offset as u64).load(Ordering::Relaxed);
        let (payload_bytes, tag, first_word) = (load(0), load(WORD_BYTES), load(HEADER_BYTES));
        if !self.shared.is_alive(position) {
            return None;
        }
        let head = Head { payload_bytes, tag, first_word: if payload_bytes == 0 { 0 } else { first_word } };
        let fits = payload_bytes <= self.capacity / 2 && position + head.entry_bytes() <= self.position;
        assert!(fits && position.is_multiple_of(WORD_BYTES as u64), "no entry begins at {position}");
        Some(head)
    }

    /// Appends one entry without its header; false, with nothing appended, if it has been overwritten.
    fn append_payload(&self, position: u64, head: &Head, batch: &mut Batch) -> bool {
        let start = batch.bytes.len();
        // At most half of a capacity, as `head_at` has seen to.
        let len = head.payload_bytes as usize;
        self.shared.copy(position + HEADER_BYTES as u64, len, &mut batch.bytes);
        if !self.shared.is_alive(position) {
            batch.bytes.truncate(start);
            return false;
        }
        batch.entries.push(Entry { position, tag: head.tag, start: start as u32, len: len as u32 });
        true
    }

    /// Progress stands as it is; none is an overrun.
    fn history_lapped(&self, from: u64, at: u64) -> Result<u64, Overrun> {
        if at > from {
            return Ok(at);
        }
        Err(Overrun { lost: self.shared.oldest_after_copy().min(self.position) - from })
    }
}

/// What history looks at before it copies.
struct Head {
    payload_bytes: u64,
    tag: u64,
    first_word: u64,
}

impl Head {
    fn entry_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.payload_bytes
    }
}

/// Lists the whole entries of `bytes[at..]`, the first of which lies at `position`, and returns their length together.
fn list_entries(bytes: &[u8], at: usize, position: u64, entries: &mut Vec<Entry>) -> usize {
    let mut taken = 0;
    while bytes.len() - at - taken >= HEADER_BYTES {
        let here = at + taken;
        let entry_bytes = entry_bytes_at(bytes, here);
        if entry_bytes > bytes.len() - here {
            break;
        }
        entries.push(Entry {
            position: position + taken as u64,
            tag: word_at(bytes, here + WORD_BYTES),
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
