//! What the subscribers of a floor have not been sent yet.
//!
//! Flushes that go to all subscribers are kept once, as one run of bytes: a subscriber that is behind is an offset into
//! it, and gets everything from there on in one send. With `--each` a subscriber has bytes of its own.
//!
//! What always holds: the bytes of a subscriber begin where its last send ended, so that no frame is torn. While no
//! subscriber is behind, nothing is kept or copied. Beyond `bytes_max` a subscriber gets the rest of the flush that it is
//! in, and then misses the messages up to the newest: these are counted as dropped.
//!
//! Cost: one copy of each flush while a subscriber is behind.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// The backlog of all subscribers.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The most bytes that are kept: of the flushes, and of subscribers of their own.
    bytes_max: usize,
    /// By slot.
    pending: HashMap<u32, Pending, FixedState>,
    /// The flushes that a subscriber still needs.
    flushes: Vec<u8>,
    /// The offset of the first of these bytes; offsets count all bytes that were ever flushed.
    start: u64,
    marks: Vec<FlushMark>,
    /// Messages flushed so far.
    messages: u64,
    /// Bytes in [`Pending::Own`], and how many subscribers have some.
    own_bytes: usize,
    own_count: u64,
    /// The length of `flushes` at which the bytes that no subscriber needs are removed.
    trim_at: usize,
}

/// What a subscriber has not been sent yet.
#[derive(Debug, PartialEq, Eq)]
enum Pending {
    /// Everything that was flushed from this offset on.
    From(u64),
    /// These bytes; what is flushed meanwhile is not for this subscriber.
    Own(Vec<u8>),
}

/// The start of a flush.
#[derive(Clone, Copy, Debug)]
struct FlushMark {
    offset: u64,
    /// Messages flushed before it.
    messages: u64,
}

/// The least length at which `flushes` is trimmed.
const TRIM_BYTES_MIN: usize = 1 << 20;

impl Backlog {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            pending: HashMap::default(),
            flushes: Vec::new(),
            start: 0,
            marks: Vec::new(),
            messages: 0,
            own_bytes: 0,
            own_count: 0,
            trim_at: TRIM_BYTES_MIN,
        }
    }

    /// How many subscribers do not get what is flushed now.
    pub(super) fn missing_count(&self) -> u64 {
        self.own_count
    }

    /// What this subscriber is to be sent next; `None` where it is not behind.
    pub(super) fn bytes(&self, slot: u32) -> Option<&[u8]> {
        match self.pending.get(&slot)? {
            Pending::From(offset) => Some(&self.flushes[(offset - self.start) as usize..]),
            Pending::Own(bytes) => Some(bytes),
        }
    }

    /// The subscriber has taken only so many bytes of the flush that is under way.
    pub(super) fn cut_flush(&mut self, slot: u32, sent: usize) {
        let from = self.end() + sent as u64;
        self.pending.insert(slot, Pending::From(from));
    }

    /// These bytes are to be sent to this subscriber alone, behind its own bytes where it has some. False where they
    /// would be too many; then they are not kept.
    pub(super) fn keep_own(&mut self, slot: u32, bytes: &[u8]) -> bool {
        if self.own_bytes + bytes.len() > self.bytes_max {
            return false;
        }
        self.own_bytes += bytes.len();
        match self.pending.get_mut(&slot) {
            Some(Pending::Own(own)) => own.extend_from_slice(bytes),
            _ => {
                self.own_count += 1;
                self.pending.insert(slot, Pending::Own(bytes.to_vec()));
            }
        }
        true
    }

    /// A flush to all has been sent. Keeps it where a subscriber is behind. Returns how many messages are dropped,
    /// counted for each subscriber.
    pub(super) fn end_flush(&mut self, bytes: &[u8], messages: u64) -> u64 {
        if self.pending.len() as u64 == self.own_count {
            self.start = self.end() + bytes.len() as u64;
            self.flushes.clear();
            self.marks.clear();
            self.messages += messages;
            return 0;
        }
        self.marks.push(FlushMark { offset: self.end(), messages: self.messages });
        self.messages += messages;
        self.flushes.extend_from_slice(bytes);
        if self.flushes.len() <= self.trim_at.min(self.bytes_max) {
            return 0;
        }
        self.trim();
        let dropped = if self.flushes.len() > self.bytes_max { self.drop_oldest() } else { 0 };
        self.trim_at = (2 * self.flushes.len()).max(TRIM_BYTES_MIN);
        dropped
    }

    /// The subscriber has taken so many of its bytes. True where it has nothing left, and is not behind any more.
    pub(super) fn advance(&mut self, slot: u32, sent: usize) -> bool {
        let end = self.end();
        let is_done = match self.pending.get_mut(&slot) {
            Some(Pending::From(offset)) => {
                *offset += sent as u64;
                *offset == end
            }
            Some(Pending::Own(bytes)) => {
                bytes.drain(..sent);
                self.own_bytes -= sent;
                bytes.is_empty()
            }
            None => return true,
        };
        if is_done {
            self.remove(slot);
        }
        is_done
    }

    /// The subscriber has gone, or has nothing left.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(Pending::Own(bytes)) = self.pending.remove(&slot) {
            self.own_bytes -= bytes.len();
            self.own_count -= 1;
        }
    }

    /// The offset behind the newest byte.
    fn end(&self) -> u64 {
        self.start + self.flushes.len() as u64
    }

    /// Removes the bytes that no subscriber needs.
    fn trim(&mut self) {
        let offsets = self.pending.values().filter_map(|pending| match pending {
            Pending::From(offset) => Some(*offset),
            Pending::Own(_) => None,
        });
        let needed = offsets.min().unwrap_or(self.end());
        self.flushes.drain(..(needed - self.start) as usize);
        self.start = needed;
        // The flush that a subscriber is in keeps its mark.
        let kept = self.marks.partition_point(|mark| mark.offset <= needed).saturating_sub(1);
        self.marks.drain(..kept);
    }

    /// Takes the subscribers that need the older half out of the flushes. Returns how many messages they miss.
    fn drop_oldest(&mut self) -> u64 {
        let kept_from = self.end() - self.bytes_max as u64 / 2;
        let mut dropped = 0;
        for pending in self.pending.values_mut() {
            let Pending::From(offset) = *pending else { continue };
            if offset >= kept_from {
                continue;
            }
            let next = self.marks.partition_point(|mark| mark.offset < offset);
            let end = self
                .marks
                .get(next)
                .copied()
                .unwrap_or(FlushMark { offset: self.start + self.flushes.len() as u64, messages: self.messages });
            let own = self.flushes[(offset - self.start) as usize..(end.offset - self.start) as usize].to_vec();
            dropped += self.messages - end.messages;
            self.own_bytes += own.len();
            self.own_count += 1;
            *pending = Pending::Own(own);
        }
        self.trim();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_that_are_behind_share_the_flushes_and_miss_nothing() {
        let mut backlog = Backlog::new(1000);
        assert_eq!((backlog.end_flush(b"live", 1), backlog.bytes(1)), (0, None));
        // Two subscribers do not take all of the second flush.
        backlog.cut_flush(1, 2);
        backlog.cut_flush(2, 0);
        assert_eq!(backlog.end_flush(b"abcd", 1), 0);
        assert_eq!((backlog.bytes(1), backlog.bytes(2)), (Some(&b"cd"[..]), Some(&b"abcd"[..])));
        assert_eq!(backlog.end_flush(b"ef", 1), 0);
        assert!(!backlog.advance(1, 3));
        assert_eq!(backlog.bytes(1), Some(&b"f"[..]));
        assert!(backlog.advance(1, 1) && backlog.bytes(1).is_none());
        assert!(backlog.advance(2, 6));
        // No subscriber is behind: nothing is kept.
        assert_eq!((backlog.end_flush(b"gh", 1), backlog.flushes.len(), backlog.marks.len()), (0, 0, 0));
        backlog.cut_flush(1, 1);
        backlog.end_flush(b"ij", 1);
        assert_eq!(backlog.bytes(1), Some(&b"j"[..]));
    }

    #[test]
    fn beyond_the_limit_whole_flushes_are_dropped_and_counted() {
        let mut backlog = Backlog::new(10);
        backlog.cut_flush(1, 1);
        assert_eq!(backlog.end_flush(b"abcd", 2), 0);
        backlog.cut_flush(2, 1);
        assert_eq!(backlog.end_flush(b"efgh", 2), 0);
        // The first misses the two later flushes, the second one only the last.
        assert_eq!(backlog.end_flush(b"ijkl", 2), 4 + 2);
        assert_eq!((backlog.bytes(1), backlog.bytes(2)), (Some(&b"bcd"[..]), Some(&b"fgh"[..])));
        assert_eq!((backlog.missing_count(), backlog.flushes.len()), (2, 0));
        assert_eq!(backlog.end_flush(b"mn", 1), 0);
        assert!(backlog.advance(1, 3));
        backlog.remove(2);
        assert_eq!((backlog.missing_count(), backlog.own_bytes), (0, 0));
    }

    #[test]
    fn bytes_of_a_subscriber_of_its_own_follow_one_another() {
        let mut backlog = Backlog::new(8);
        assert!(backlog.keep_own(1, b"abcd") && backlog.keep_own(1, b"ef") && backlog.keep_own(2, b"gh"));
        assert!(!backlog.keep_own(2, b"i"), "too many");
        assert!(!backlog.advance(1, 5));
        assert_eq!(backlog.bytes(1), Some(&b"f"[..]));
        assert!(backlog.advance(1, 1) && backlog.keep_own(2, b"i"));
        assert_eq!((backlog.bytes(2), backlog.missing_count()), (Some(&b"ghi"[..]), 1));
    }
}
