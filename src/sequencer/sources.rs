//! The sources of a sequencer, and the state of their instruments when a source falls silent, ends or is lost.
//!
//! What always holds:
//! * An instrument is live while one of the sources that defined it is. When the last of them falls silent, ends or is
//!   lost, a Status record reports the new state: `'S'` stale, or `'E'` ended.
//! * A batch of a silent source makes those instruments live again that were stale by silence alone. Instruments of a
//!   source that ended or was lost are live again with their first new record, not before. An instrument that was
//!   halted or has ended does not become stale by silence.
//! * The book of a lost source may be wrong. An empty delta flagged MAYBE_BAD_BOOK reports it at once, and later deltas
//!   carry the flag too, until a snapshot replaces the book.
//! * Instrument 0 is the feed as a whole: live while any source is.
//! * Only sources of one owner share an instrument, see [`owners`](super::owners), and only if they define it in the same
//!   way. Another definition is carried out if no other live source of the same or a better priority has it; the others
//!   then have it no more.
//! * Of the live sources of an instrument those with the lowest priority number feed it. The others are standby: what they
//!   send is left out and counted. When the feeding priority changes, the book may be wrong until a snapshot.
//! * A halt lasts until a Status of the owner says otherwise. If the source that reported it is gone, the next record of
//!   another source ends it.
//! * The instruments of a lost source end when it has not returned for a while ([`Sequencer::expire_instruments`]).

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::ended::EndedInstruments;
use super::owners::SourceIdentity;
use super::{Sequencer, SourceId};
use tickcast_protocol::record::{self, RecordHeader, flags};
use tickcast_protocol::{BookAction, Channel, FeedState};

/// How a source went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It has no more records, and said so.
    Ended,
    /// Its thread died, or its connection broke: it may come back.
    Lost,
}

impl SourceEnd {
    fn state(self) -> FeedState {
        match self {
            Self::Ended => FeedState::Ended,
            Self::Lost => FeedState::Stale,
        }
    }
}

#[derive(Debug, Default)]
struct SourceState {
    /// The source's instrument id → the node's, 0 where undefined.
    ids: Vec<u32>,
    /// Defined ids.
    instruments: usize,
    /// Records sequenced of its instruments.
    records: u64,
    last_batch_ns: u64,
    is_silent: bool,
    priority: u8,
}

/// A source, as the operator's view shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    pub id: SourceId,
    /// Instruments that it defined.
    pub instruments: usize,
    /// Records sequenced of its instruments since it came.
    pub records: u64,
    /// When its last batch came, heartbeats included.
    pub last_batch_ns: u64,
    /// That was too long ago: its instruments are stale.
    pub is_silent: bool,
}

/// No source has this priority.
const PRIORITY_NONE: u8 = u8::MAX;

/// Where a source's record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To this instrument.
    Active(u32),
    /// Nowhere: a source of a better priority is live.
    Standby,
}

/// All sources, and what they mean for the instruments.
#[derive(Debug, Default)]
pub(super) struct SourceTable {
    sources: HashMap<SourceId, SourceState, RandomState>,
    /// Of open sources; one that is missing is an owner by itself.
    identities: HashMap<SourceId, SourceIdentity, RandomState>,
    /// By instrument id: the best priority of its live sources.
    active: Vec<u8>,
    /// By instrument id: the priority of the source that its newest record came from.
    feeder: Vec<u8>,
    /// Halted instruments, and the source that reported it.
    halted_by: HashMap<u32, SourceId, RandomState>,
    /// When instruments lost their last source, the first first.
    losses: VecDeque<(u64, u32)>,
    /// The newest loss of an instrument that was not defined again since.
    lost_at: HashMap<u32, u64, RandomState>,
    /// By instrument id: the sources that have defined it, and their own ids of it.
    holders: Vec<Vec<(SourceId, u32)>>,
    /// By instrument id: how many definitions there are by sources that are not silent.
    live: Vec<u32>,
    /// By instrument id: its book may be wrong, as a source was lost, or a record was refused, or a level did not fit other
    /// exponents, or another source has taken the instrument.
    suspect: Vec<bool>,
    /// Instruments that have ended and were not defined again since.
    pub(super) ended: EndedInstruments,
    /// By instrument id: it is stale by silence alone, and live again with the next batch of one of its sources.
    stale_by_silence: Vec<bool>,
    /// Sources that are not silent, of those that have defined an instrument.
    live_sources: usize,
    /// Status records written of all instruments together.
    feed_states: u64,
}

impl SourceTable {
    pub(super) fn open(&mut self, source: SourceId, identity: SourceIdentity) {
        self.identities.insert(source, identity);
    }

    pub(super) fn identity(&self, source: SourceId) -> SourceIdentity {
        self.identities.get(&source).copied().unwrap_or(SourceIdentity::alone(source))
    }

    /// The node's instrument id for a source's own.
    fn global(&self, source: SourceId, local: u32) -> Option<u32> {
        let id = *self.sources.get(&source)?.ids.get(local as usize)?;
        (id != 0).then_some(id)
    }

    /// A source's own ids of the instruments that it has defined.
    pub(super) fn defined(&self, source: SourceId) -> Vec<u32> {
        let ids = self.sources.get(&source).map_or(&[][..], |state| &state.ids);
        ids.iter().zip(0..).filter(|(id, _)| **id != 0).map(|(_, local)| local).collect()
    }

    /// Where a record of a source's own instrument goes; `None` if the source has no such instrument.
    pub(super) fn route(&self, source: SourceId, local: u32) -> Option<Route> {
        let state = self.sources.get(&source)?;
        let id = *state.ids.get(local as usize).filter(|id| **id != 0)?;
        Some(if state.priority > self.active[id as usize] { Route::Standby } else { Route::Active(id) })
    }

    /// Notes the source of a record. True if the one before it came from a source of another priority.
    pub(super) fn note_feeder(&mut self, source: SourceId, id: u32) -> bool {
        let priority = self.sources.get(&source).map_or(0, |state| state.priority);
        let before = std::mem::replace(&mut self.feeder[id as usize], priority);
        before != priority && before != PRIORITY_NONE
    }

    /// True if an instrument is halted and the source that reported it is gone.
    pub(super) fn is_halt_orphaned(&self, id: u32) -> bool {
        self.halted_by.get(&id).is_none_or(|source| !self.sources.contains_key(source))
    }

    /// True if another source of the same or a better priority, which is not silent, has defined an instrument.
    pub(super) fn is_of_another(&self, source: SourceId, id: u32) -> bool {
        let own = self.identity(source).priority;
        let is_before =
            |holder: &SourceId| self.sources.get(holder).is_some_and(|state| !state.is_silent && state.priority <= own);
        self.holders_of(id).iter().any(|(holder, _)| *holder != source && is_before(holder))
    }

    /// Determines the best priority of the live sources of an instrument again. True if there is another one, and it
    /// differs.
    fn refresh_active(&mut self, id: u32) -> bool {
        let of_live = |(holder, _): &(SourceId, u32)| {
            self.sources.get(holder).filter(|state| !state.is_silent).map(|state| state.priority)
        };
        let best = self.holders_of(id).iter().filter_map(of_live).min().unwrap_or(PRIORITY_NONE);
        let before = std::mem::replace(&mut self.active[id as usize], best);
        best != before && best != PRIORITY_NONE
    }

    fn holders_of(&self, id: u32) -> &[(SourceId, u32)] {
        self.holders.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Takes an instrument from all sources, or from all but one. True if one of them had it.
    pub(super) fn withdraw_instrument(&mut self, id: u32, keep: Option<SourceId>) -> bool {
        let Some(holders) = self.holders.get_mut(id as usize) else { return false };
        let withdrawn: Vec<_> = holders.extract_if(.., |(source, _)| Some(*source) != keep).collect();
        for (source, local) in &withdrawn {
            let Some(state) = self.sources.get_mut(source) else { continue };
            state.ids[*local as usize] = 0;
            state.instruments -= 1;
            self.live[id as usize] -= u32::from(!state.is_silent);
        }
        self.refresh_active(id);
        !withdrawn.is_empty()
    }

    /// Has later changes of a book flagged until a snapshot replaces it. The present record says so itself.
    pub(super) fn note_suspect(&mut self, id: u32) {
        self.suspect[id as usize] = true;
    }

    /// Maps a source's own instrument id to the node's.
    pub(super) fn define(&mut self, source: SourceId, local: u32, id: u32) {
        let SourceState { ids, instruments, .. } = self.state_mut(source);
        let local = local as usize;
        let is_first = ids.is_empty();
        if ids.len() <= local {
            ids.resize(local + 1, 0);
        }
        let before = std::mem::replace(&mut ids[local], id);
        *instruments += usize::from(before == 0);
        self.live_sources += usize::from(is_first);
        self.lost_at.remove(&id);
        if self.live.len() <= id as usize {
            self.holders.resize(id as usize + 1, Vec::new());
            self.live.resize(id as usize + 1, 0);
            self.suspect.resize(id as usize + 1, false);
            self.stale_by_silence.resize(id as usize + 1, false);
            self.active.resize(id as usize + 1, PRIORITY_NONE);
            self.feeder.resize(id as usize + 1, PRIORITY_NONE);
        }
        if before != id {
            self.holders[before as usize].retain(|holder| *holder != (source, local as u32));
            self.holders[id as usize].push((source, local as u32));
        }
        self.live[id as usize] += 1;
        if before != 0 {
            self.live[before as usize] -= 1;
            self.refresh_active(before);
        }
        self.refresh_active(id);
    }

    /// The state of a source, which is new if it has none.
    fn state_mut(&mut self, source: SourceId) -> &mut SourceState {
        let priority = self.identity(source).priority;
        self.sources.entry(source).or_insert_with(|| SourceState { priority, ..SourceState::default() })
    }

    /// How many Status records were written of all instruments together.
    pub(super) fn feed_states(&self) -> u64 {
        self.feed_states
    }

    /// Counts records of a source.
    pub(super) fn count(&mut self, source: SourceId, records: u64) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.records += records;
        }
    }

    /// True if a book record has to be flagged MAYBE_BAD_BOOK. A snapshot ends that state.
    pub(super) fn is_book_suspect(&mut self, id: u32, bytes: &[u8]) -> bool {
        let suspect = &mut self.suspect[id as usize];
        *suspect &= record::read_book(bytes).is_none_or(|(action, _)| action != BookAction::Snapshot);
        *suspect
    }

    /// Counts a source as no longer live. Returns the instruments that have no live source left.
    fn withdraw(&mut self, ids: &[u32]) -> Vec<u32> {
        let mut left = Vec::new();
        for id in ids.iter().copied().filter(|id| *id != 0) {
            self.live[id as usize] -= 1;
            if self.live[id as usize] == 0 {
                left.push(id);
            }
        }
        self.live_sources -= usize::from(!ids.is_empty());
        left
    }
}

impl Sequencer {
    /// Removes a source. Its instruments stay; those without another live source become ended or stale.
    pub fn close_source(&mut self, source: SourceId, end: SourceEnd, now_ns: u64) {
        let gone = self.sources.sources.remove(&source);
        self.sources.identities.remove(&source);
        let Some(gone) = gone else { return };
        let left: Vec<u32> = match gone.is_silent {
            // Withdrawn already when it fell silent.
            true => gone.ids.iter().copied().filter(|id| *id != 0 && self.sources.live[*id as usize] == 0).collect(),
            false => self.sources.withdraw(&gone.ids),
        };
        for id in gone.ids.iter().copied().filter(|id| *id != 0) {
            self.sources.holders[id as usize].retain(|(holder, _)| *holder != source);
            if self.sources.refresh_active(id) {
                // A standby takes over.
                self.suspect_book(id, now_ns);
            }
        }
        self.counters.losses += u64::from(end == SourceEnd::Lost);
        for id in left {
            if end == SourceEnd::Lost {
                self.suspect_book(id, now_ns);
                self.sources.losses.push_back((now_ns, id));
                self.sources.lost_at.insert(id, now_ns);
            }
            self.push_status(id, end.state(), now_ns);
            self.sources.stale_by_silence[id as usize] = false;
        }
        if !gone.ids.is_empty() {
            self.push_feed_state(end.state(), now_ns);
        }
        self.publish();
    }

    /// All present sources, in the order of their ids.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let row = |(id, source): (&SourceId, &SourceState)| {
            let SourceState { instruments, records, last_batch_ns, is_silent, .. } = *source;
            SourceStatus { id: *id, instruments, records, last_batch_ns, is_silent }
        };
        let mut rows: Vec<_> = self.sources.sources.iter().map(row).collect();
        rows.sort_unstable_by_key(|row| row.id);
        rows
    }

    /// Makes instruments stale whose sources have sent nothing for `silence_ns`. To be called periodically. True if a
    /// source fell silent.
    pub fn check_sources(&mut self, silence_ns: u64, now_ns: u64) -> bool {
        let is_silent = |source: &SourceState| {
            !source.is_silent && !source.ids.is_empty() && now_ns.saturating_sub(source.last_batch_ns) >= silence_ns
        };
        let sources = self.sources.sources.iter();
        let mut silent: Vec<SourceId> = sources.filter(|(_, source)| is_silent(source)).map(|(id, _)| *id).collect();
        // Sorted, as the same input has to make the same stream, and a hash table has no order.
        silent.sort_unstable();
        silent.iter().for_each(|source| self.mark_silent(*source, now_ns));
        self.publish();
        !silent.is_empty()
    }

    /// Ends the instruments whose last source was lost `expire_ns` ago and has not defined them again since. To be called
    /// periodically. True if one has ended.
    pub fn expire_instruments(&mut self, expire_ns: u64, now_ns: u64) -> bool {
        let mut has_ended = false;
        while let Some((lost_ns, id)) =
            self.sources.losses.pop_front_if(|(lost_ns, _)| now_ns.saturating_sub(*lost_ns) >= expire_ns)
        {
            // One that was lost again since has another entry.
            if self.sources.lost_at.get(&id) != Some(&lost_ns) {
                continue;
            }
            self.sources.lost_at.remove(&id);
            if self.sources.live[id as usize] == 0 && self.values.status(id).state == FeedState::Stale {
                self.counters.expired += 1;
                self.push_status(id, FeedState::Ended, now_ns);
                has_ended = true;
            }
        }
        self.publish();
        has_ended
    }

    /// Moves the times of the last batches with the wall clock, which was set or corrected by `moved_ns`: that is no
    /// silence.
    pub fn shift_activity(&mut self, moved_ns: i64) {
        for source in self.sources.sources.values_mut() {
            source.last_batch_ns = source.last_batch_ns.saturating_add_signed(moved_ns);
        }
        let lost = self.sources.losses.iter_mut().map(|(lost_ns, _)| lost_ns).chain(self.sources.lost_at.values_mut());
        lost.for_each(|lost_ns| *lost_ns = lost_ns.saturating_add_signed(moved_ns));
    }

    fn mark_silent(&mut self, id: SourceId, now_ns: u64) {
        self.counters.silences += 1;
        let mut source = self.sources.sources.remove(&id).expect("its caller has just seen it");
        let left = self.sources.withdraw(&source.ids);
        for instrument in
            left.into_iter().filter(|id| self.values.status(*id).state == FeedState::Live).collect::<Vec<_>>()
        {
            self.push_status(instrument, FeedState::Stale, now_ns);
            self.sources.stale_by_silence[instrument as usize] = true;
        }
        source.is_silent = true;
        let ids = source.ids.clone();
        self.sources.sources.insert(id, source);
        for id in ids.into_iter().filter(|id| *id != 0) {
            self.sources.refresh_active(id);
        }
        self.push_feed_state(FeedState::Stale, now_ns);
    }

    /// Notes that a batch of a source came; ends its silence.
    pub(super) fn note_activity(&mut self, source: SourceId, now_ns: u64) {
        let source = self.sources.state_mut(source);
        source.last_batch_ns = now_ns;
        if !std::mem::take(&mut source.is_silent) {
            return;
        }
        let ids: Vec<u32> = source.ids.iter().copied().filter(|id| *id != 0).collect();
        self.sources.live_sources += 1;
        for id in ids {
            self.sources.live[id as usize] += 1;
            self.sources.refresh_active(id);
            if self.sources.stale_by_silence[id as usize] {
                self.push_status(id, FeedState::Live, now_ns);
            }
        }
        self.push_feed_state(FeedState::Stale, now_ns);
    }

    /// A source reports the state of an instrument, or, with instrument 0, of all of its own.
    pub(super) fn accept_status(&mut self, source: SourceId, header: &RecordHeader, bytes: &[u8], now_ns: u64) {
        let state = record::read_status(bytes).filter(|state| state.is_known() && *state != FeedState::Released);
        let locals = match header.instrument {
            0 => self.sources.sources.get(&source).map(|source| source.ids.len() as u32).map(|ids| 0..ids),
            local => self.sources.global(source, local).map(|_| local..local + 1),
        };
        let (Some(state), Some(locals)) = (state, locals) else {
            self.counters.undefined += 1;
            return;
        };
        for local in locals {
            let Some(route) = self.sources.route(source, local) else { continue };
            let Route::Active(id) = route else {
                self.counters.standby += 1;
                continue;
            };
            self.push_status(id, state, now_ns);
            if state == FeedState::Halted {
                self.sources.halted_by.insert(id, source);
            }
        }
    }

    /// Writes a Status record for an instrument if its state changed.
    pub(super) fn push_status(&mut self, id: u32, state: FeedState, now_ns: u64) {
        let is_stale = |state| matches!(state, FeedState::Stale | FeedState::Ended);
        let before = self.values.status(id).state;
        let header = RecordHeader { ts_recv: now_ns, ..RecordHeader::of_feed(record::RecordKind::Status, id, 0) }
            .with_flags(flags::LAST);
        let mut bytes = Vec::new();
        record::encode_status(&header, state, &mut bytes);
        // Also one that had ended, was defined again, and ends again without a record in between.
        if id != 0 && state == FeedState::Ended {
            self.sources.ended.add(id, self.owners.of(id));
        }
        if !self.values.apply_status(&header, &bytes, ()) {
            return;
        }
        if id != 0 {
            self.counters.stale += u64::from(is_stale(state));
            self.counters.stale -= u64::from(is_stale(before));
            if before == FeedState::Ended {
                self.sources.ended.remove(id);
            }
            if state != FeedState::Halted {
                self.sources.halted_by.remove(&id);
            }
            // Any other report of its state ends staleness by silence; `mark_silent` sets the mark afterwards.
            self.sources.stale_by_silence[id as usize] = false;
        } else {
            self.sources.feed_states += 1;
        }
        self.write(&bytes);
    }

    /// Writes the state of the feed as a whole: live while any source is, and `otherwise` without one.
    pub(super) fn push_feed_state(&mut self, otherwise: FeedState, now_ns: u64) {
        let state = if self.sources.live_sources > 0 { FeedState::Live } else { otherwise };
        self.counters.sources = self.sources.live_sources as u64;
        self.push_status(0, state, now_ns);
    }

    /// Marks a book as possibly wrong, and reports it by an empty delta flagged MAYBE_BAD_BOOK.
    pub(super) fn suspect_book(&mut self, id: u32, now_ns: u64) {
        let Some(row) = self.values.row(id) else { return };
        let Some(book) = row.book().filter(|_| !self.sources.suspect[id as usize]) else { return };
        let sequence = row.sequence(Channel::Book).next();
        let header = RecordHeader { sequence, ts_recv: now_ns, ..row.book_header(book, id, flags::MAYBE_BAD_BOOK) };
        let mut bytes = Vec::new();
        record::encode_book(&header, BookAction::Delta, std::iter::empty(), &mut bytes);
        self.sources.suspect[id as usize] = true;
        self.values.apply(&header, Channel::Book, &bytes, ());
        self.write(&bytes);
    }
}
