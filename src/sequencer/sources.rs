//! Who sends, and what becomes of their instruments when they fall silent, end, or are lost.
//!
//! What always holds:
//! * An instrument is live as long as one of the sources that have defined it is. When the last of them falls silent,
//!   ends or is lost, its state is told by a Status: `'S'` stale, or `'E'` ended.
//! * A source that is heard again makes live what silence made stale. Values that another source has left behind are live
//!   again with the first record of theirs, not before. What was halted or has ended does not become stale by silence.
//! * A book that a lost source has left may be wrong: it says so at once, with a change of nothing that is flagged
//!   MAYBE_BAD_BOOK, and so do its changes, until one comes that replaces it whole.
//! * Instrument 0 is the feed as a whole: live as long as any source is.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Sequencer, SourceId};
use tickcast_protocol::Channel;
use tickcast_protocol::record::{self, BOOK_DELTA, BOOK_SNAPSHOT, RecordHeader, flags};

/// How a source goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It has said all that it had to say.
    Ended,
    /// Its thread has died, or its connection broke: it may come back.
    Lost,
}

impl SourceEnd {
    fn state(self) -> u8 {
        match self {
            Self::Ended => b'E',
            Self::Lost => b'S',
        }
    }
}

#[derive(Debug, Default)]
struct SourceState {
    /// Local instrument id → id of the epoch, 0 where unknown.
    ids: Vec<u32>,
    /// Ids that stand for an instrument.
    instruments: usize,
    /// Records that were written as it brought them.
    records: u64,
    heard_ns: u64,
    is_silent: bool,
}

/// A source, as those see it who run the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    pub id: SourceId,
    /// That it has defined.
    pub instruments: usize,
    /// Written since it came.
    pub records: u64,
    /// Its last sign of life.
    pub heard_ns: u64,
    /// That was too long ago.
    pub is_silent: bool,
}

/// All sources, and what they stand for.
#[derive(Debug, Default)]
pub(super) struct SourceTable {
    sources: HashMap<SourceId, SourceState, RandomState>,
    /// By instrument id: how many definitions of sources that are not silent there are.
    live: Vec<u32>,
    /// By instrument id: its book was left by a source that was lost.
    suspect: Vec<bool>,
    /// By instrument id: it is stale for nothing but silence, and live again with any of its sources.
    hushed: Vec<bool>,
    /// SourceTable that are not silent, of those that have defined an instrument.
    heard: usize,
}

impl SourceTable {
    /// The id of the epoch for a source's own.
    pub(super) fn global(&self, source: SourceId, local: u32) -> Option<u32> {
        let id = *self.sources.get(&source)?.ids.get(local as usize)?;
        (id != 0).then_some(id)
    }

    /// Notes that a source calls an instrument by an id of its own.
    pub(super) fn define(&mut self, source: SourceId, local: u32, id: u32) {
        let SourceState { ids, instruments, .. } = self.sources.entry(source).or_default();
        let local = local as usize;
        if ids.len() <= local {
            self.heard += usize::from(ids.is_empty());
            ids.resize(local + 1, 0);
        }
        let before = std::mem::replace(&mut ids[local], id);
        *instruments += usize::from(before == 0);
        if self.live.len() <= id as usize {
            self.live.resize(id as usize + 1, 0);
            self.suspect.resize(id as usize + 1, false);
            self.hushed.resize(id as usize + 1, false);
        }
        self.live[id as usize] += 1;
        if before != 0 {
            self.live[before as usize] -= 1;
        }
    }

    /// A source has brought so many records more.
    pub(super) fn count(&mut self, source: SourceId, records: u64) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.records += records;
        }
    }

    /// True if a record of a book has to say that the book may be wrong. One that replaces the book makes it good.
    pub(super) fn is_book_suspect(&mut self, id: u32, bytes: &[u8]) -> bool {
        let suspect = &mut self.suspect[id as usize];
        *suspect &= record::read_book(bytes).is_none_or(|(kind, _)| kind != BOOK_SNAPSHOT);
        *suspect
    }

    /// Takes the voice of a source away; returns the instruments that no other source stands for.
    fn mute(&mut self, ids: &[u32]) -> Vec<u32> {
        let mut left = Vec::new();
        for id in ids.iter().copied().filter(|id| *id != 0) {
            self.live[id as usize] -= 1;
            if self.live[id as usize] == 0 {
                left.push(id);
            }
        }
        self.heard -= usize::from(!ids.is_empty());
        left
    }
}

impl Sequencer {
    /// A source has gone. Its instruments stay; what no other source stands for is ended or stale.
    pub fn close_source(&mut self, source: SourceId, end: SourceEnd, now_ns: u64) {
        let Some(gone) = self.sources.sources.remove(&source) else { return };
        let left: Vec<u32> = match gone.is_silent {
            // Stale already; nobody stands for it now either.
            true => gone.ids.iter().copied().filter(|id| *id != 0 && self.sources.live[*id as usize] == 0).collect(),
            false => self.sources.mute(&gone.ids),
        };
        self.counters.losses += u64::from(end == SourceEnd::Lost);
        for id in left {
            if end == SourceEnd::Lost {
                self.suspect_book(id, now_ns);
            }
            self.push_status(id, end.state(), now_ns);
            self.sources.hushed[id as usize] = false;
        }
        if !gone.ids.is_empty() {
            self.push_feed_state(end.state(), now_ns);
        }
        self.publish();
    }

    /// All sources that are there, by their ids.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let row = |(id, source): (&SourceId, &SourceState)| {
            let SourceState { instruments, records, heard_ns, is_silent, .. } = *source;
            SourceStatus { id: *id, instruments, records, heard_ns, is_silent }
        };
        let mut rows: Vec<_> = self.sources.sources.iter().map(row).collect();
        rows.sort_unstable_by_key(|row| row.id);
        rows
    }

    /// Tells of sources that have not been heard for `silence_ns`. To be called now and then. True if there were any.
    pub fn check_sources(&mut self, silence_ns: u64, now_ns: u64) -> bool {
        let is_silent = |source: &SourceState| {
            !source.is_silent && !source.ids.is_empty() && now_ns.saturating_sub(source.heard_ns) >= silence_ns
        };
        let sources = self.sources.sources.iter();
        let mut silent: Vec<SourceId> = sources.filter(|(_, source)| is_silent(source)).map(|(id, _)| *id).collect();
        // In an order that does not depend on the table: the same input has to make the same stream.
        silent.sort_unstable();
        silent.iter().for_each(|source| self.silence(*source, now_ns));
        self.publish();
        !silent.is_empty()
    }

    fn silence(&mut self, id: SourceId, now_ns: u64) {
        self.counters.silences += 1;
        let mut source = self.sources.sources.remove(&id).expect("its caller has just seen it");
        let left = self.sources.mute(&source.ids);
        for instrument in left.into_iter().filter(|id| self.values.status(*id).state == b'L').collect::<Vec<_>>() {
            self.push_status(instrument, b'S', now_ns);
            self.sources.hushed[instrument as usize] = true;
        }
        source.is_silent = true;
        self.sources.sources.insert(id, source);
        self.push_feed_state(b'S', now_ns);
    }

    /// A source gave a sign of life.
    pub(super) fn hear(&mut self, source: SourceId, now_ns: u64) {
        let source = self.sources.sources.entry(source).or_default();
        source.heard_ns = now_ns;
        if !std::mem::take(&mut source.is_silent) {
            return;
        }
        let ids: Vec<u32> = source.ids.iter().copied().filter(|id| *id != 0).collect();
        self.sources.heard += 1;
        for id in ids {
            self.sources.live[id as usize] += 1;
            if self.sources.hushed[id as usize] {
                self.push_status(id, b'L', now_ns);
            }
        }
        self.push_feed_state(b'S', now_ns);
    }

    /// A source speaks of the state of an instrument, or, with instrument 0, of all of its own.
    pub(super) fn pass_status_on(&mut self, source: SourceId, header: &RecordHeader, bytes: &[u8], now_ns: u64) {
        let state = bytes.get(record::HEADER_BYTES).copied().filter(|state| b"LSHE".contains(state));
        let ids = match header.instrument {
            0 => self.sources.sources.get(&source).map(|source| source.ids.clone()),
            local => self.global(source, local).map(|id| vec![id]),
        };
        let (Some(state), Some(ids)) = (state, ids) else {
            self.counters.undefined += 1;
            return;
        };
        ids.into_iter().filter(|id| *id != 0).for_each(|id| self.push_status(id, state, now_ns));
    }

    /// Tells the state of an instrument to all who watch it, if it is another than before.
    pub(super) fn push_status(&mut self, id: u32, state: u8, now_ns: u64) {
        let is_stale = |state: u8| matches!(state, b'S' | b'E');
        let before = self.values.status(id).state;
        let header = RecordHeader { ts_recv: now_ns, ..RecordHeader::of_feed(record::RecordKind::Status, id, 0) }
            .with_flags(flags::LAST);
        let mut bytes = Vec::new();
        record::encode_status(&header, state, &mut bytes);
        if !self.values.apply_status(&header, &bytes, self.position + 1) {
            return;
        }
        if id != 0 {
            self.counters.stale += u64::from(is_stale(state));
            self.counters.stale -= u64::from(is_stale(before));
            // Whoever has said something of it since: it is no longer mere silence.
            self.sources.hushed[id as usize] = false;
        }
        self.write(&bytes);
    }

    /// The feed as a whole is live as long as any source is, and otherwise what the last one left.
    pub(super) fn push_feed_state(&mut self, left: u8, now_ns: u64) {
        let state = if self.sources.heard > 0 { b'L' } else { left };
        self.counters.sources = self.sources.heard as u64;
        self.push_status(0, state, now_ns);
    }

    /// The book of a source that was lost may be wrong from now on, and says so.
    pub(super) fn suspect_book(&mut self, id: u32, now_ns: u64) {
        let Some(row) = self.values.row(id) else { return };
        let Some(book) = row.book().filter(|_| !self.sources.suspect[id as usize]) else { return };
        let sequence = row.sequence(Channel::Book) + 1;
        let header = RecordHeader { sequence, ts_recv: now_ns, ..row.book_header(book, id, flags::MAYBE_BAD_BOOK) };
        let mut bytes = Vec::new();
        record::encode_book(&header, BOOK_DELTA, std::iter::empty(), &mut bytes);
        self.sources.suspect[id as usize] = true;
        self.values.apply(&header, Channel::Book, &bytes, self.position + 1);
        self.write(&bytes);
    }
}
