//! A prototype of one ring for all shards with a cursor for each, measured beside one ring a shard
//! (`docs/decisions/ring-per-core.md`).
//!
//! The layout and the memory order are those of `src/ring.rs`: entries are stored word by word after `oldest` was
//! raised, `published` makes them visible, and a reader checks `oldest` after it has copied. Only the readers differ:
//! any number of them share the words, `oldest` and `published`, and each has its own cursor.
//!
//! What it does not do: history, an entry longer than a read, and a resynchronisation, which would need a second queue
//! for each reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;
use tickcast::ring::{Batch, Entry, HEADER_BYTES, Overrun, RingOffset};
use tickcast_protocol::Position;

const WORD_BYTES: usize = 8;
const RESERVE_AHEAD_BYTES: u64 = 4096;

/// A ring of `capacity_bytes`, a power of two, with this number of readers.
pub fn shared_ring(capacity_bytes: usize, readers: usize) -> (SharedWriter, Vec<SharedReader>) {
    let shared = Arc::new(Shared {
        words: (0..capacity_bytes / WORD_BYTES).map(|_| AtomicU64::new(0)).collect(),
        oldest: CachePadded::default(),
        published: CachePadded::default(),
        read: (0..readers).map(|_| CachePadded::default()).collect(),
    });
    // As `src/ring.rs` does, so that no page fault is measured.
    shared.words.iter().step_by(512).for_each(|word| word.store(0, Ordering::Relaxed));
    let reader = |index| SharedReader { shared: shared.clone(), index, offset: 0, published: 0 };
    let readers = (0..readers).map(reader).collect();
    (SharedWriter { shared, head: 0, oldest: 0 }, readers)
}

struct Shared {
    words: Box<[AtomicU64]>,
    oldest: CachePadded<AtomicU64>,
    published: CachePadded<AtomicU64>,
    /// The cursors.
    read: Box<[CachePadded<AtomicU64>]>,
}

impl Shared {
    fn capacity(&self) -> u64 {
        (self.words.len() * WORD_BYTES) as u64
    }

    fn slices(&self, offset: u64, count: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let index = (offset / WORD_BYTES as u64) as usize & (self.words.len() - 1);
        let (front, back) = self.words.split_at(index);
        match count.checked_sub(back.len()) {
            None => (&back[..count], &[]),
            Some(wrapped) => (back, &front[..wrapped]),
        }
    }
}

/// The producing end.
pub struct SharedWriter {
    shared: Arc<Shared>,
    head: u64,
    oldest: u64,
}

impl SharedWriter {
    pub fn push(&mut self, position: Position, payload: &[u8]) {
        let bytes = (HEADER_BYTES + payload.len()) as u64;
        assert!(bytes <= self.shared.capacity() / 2);
        self.reserve(self.head + bytes);
        self.append(&[(payload.len() as u64).to_le_bytes(), position.get().to_le_bytes()]);
        self.append(payload.as_chunks().0);
    }

    pub fn publish(&mut self) {
        // Release, Acquire and Relaxed here and below: as in `src/ring.rs`.
        self.shared.published.store(self.head, Ordering::Release);
    }

    fn append(&mut self, words: &[[u8; WORD_BYTES]]) {
        let (first, second) = self.shared.slices(self.head, words.len());
        for (bytes, word) in words.iter().zip(first.iter().chain(second)) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        self.head += (words.len() * WORD_BYTES) as u64;
    }

    fn reserve(&mut self, end: u64) {
        if end <= self.oldest + self.shared.capacity() {
            return;
        }
        self.oldest = end - self.shared.capacity() + RESERVE_AHEAD_BYTES;
        self.shared.oldest.store(self.oldest, Ordering::Relaxed);
        fence(Ordering::Release);
    }
}

/// One of the consuming ends.
pub struct SharedReader {
    shared: Arc<Shared>,
    index: usize,
    offset: u64,
    published: u64,
}

impl SharedReader {
    /// Appends whole entries, `bytes_max` at the most.
    pub fn read(&mut self, bytes_max: usize, batch: &mut Batch) -> Result<(), Overrun> {
        if self.published - self.offset < bytes_max as u64 {
            self.published = self.shared.published.load(Ordering::Acquire);
        }
        let available = self.published - self.offset;
        let (at, span) = (batch.bytes.len(), available.min(bytes_max as u64) as usize);
        if available <= self.shared.capacity() {
            self.copy(span, &mut batch.bytes);
        }
        fence(Ordering::Acquire);
        if available > self.shared.capacity() || self.shared.oldest.load(Ordering::Relaxed) > self.offset {
            batch.bytes.truncate(at);
            self.move_to(self.published);
            return Err(Overrun { lost: available });
        }
        let taken = list_entries(&batch.bytes, at, self.offset, &mut batch.entries);
        batch.bytes.truncate(at + taken);
        self.move_to(self.offset + taken as u64);
        Ok(())
    }

    fn copy(&self, span: usize, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + span, 0);
        let (first, second) = self.shared.slices(self.offset, span / WORD_BYTES);
        let (out_first, out_second) = out[at..].split_at_mut(first.len() * WORD_BYTES);
        for (words, out) in [(first, out_first), (second, out_second)] {
            for (word, bytes) in words.iter().zip(out.as_chunks_mut::<WORD_BYTES>().0) {
                *bytes = word.load(Ordering::Relaxed).to_le_bytes();
            }
        }
    }

    fn move_to(&mut self, offset: u64) {
        self.offset = offset;
        self.shared.read[self.index].store(offset, Ordering::Release);
    }
}

fn list_entries(bytes: &[u8], at: usize, offset: u64, entries: &mut Vec<Entry>) -> usize {
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("a copy holds whole headers"));
    let mut taken = 0;
    while bytes.len() - at - taken >= HEADER_BYTES {
        let here = at + taken;
        let payload_bytes = word(here) as usize;
        if HEADER_BYTES + payload_bytes > bytes.len() - here {
            break;
        }
        entries.push(Entry {
            offset: RingOffset::new(offset + taken as u64),
            position: Position::new(word(here + WORD_BYTES)),
            start: (here + HEADER_BYTES) as u32,
            len: payload_bytes as u32,
        });
        taken += HEADER_BYTES + payload_bytes;
    }
    taken
}
