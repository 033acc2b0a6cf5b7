//! Phase 1: from the ring to the audiences. Every record updates the last values; then it is marked for the audiences
//! that want it at once, and noted for those that want it conflated. Then the conflated values that are due are marked.
//!
//! Conflation intervals are applied here: a value becomes pending in [`Dispatch::note_conflated`] and is dispatched at
//! the interval's boundary in [`Dispatch::dispatch_due`].

use super::conflation::{PendingValue, QuoteOrder};
use super::depth_views::{BookChange, Immediate, Outcome};
use super::fan_out::FanOut;
use super::history::History;
use super::market_view::MarketView;
use super::subscription_index::{AudienceId, SubscriptionIndex};
use super::tick_records::{Now, Origin, Span};
use crate::last_value::{Applied, is_rescaled};
use crate::ring;
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::record::{self, Channel, Gap, Level, RecordHeader, RecordKind, flags};
use tickcast_protocol::{BookAction, ConflationInterval, FeedState, GapReason, Instrument, Sequence};

/// Bytes of conflated values that are dispatched in one tick.
const DUE_BYTES: usize = 64 * 1024;

/// Reads at most `bytes_max` from the ring and dispatches the records, and the conflated values that are due. True if
/// there were any.
pub(super) fn read_ring(
    now: Now,
    bytes_max: usize,
    ring: &mut ring::Reader,
    market: &mut MarketView,
    fan_out: &mut FanOut,
    history: &mut History,
    counters: &mut ShardCounters,
) -> bool {
    market.last_position = market.position;
    if let Err(overrun) = ring.read(bytes_max, &mut fan_out.records.batch) {
        counters.add(Counter::Overruns, 1);
        counters.add(Counter::OverrunBytes, overrun.lost);
        market.resync.begin();
        history.clear();
    }
    market.offset = ring.offset();
    let read = fan_out.records.batch.entries.len();
    let mut dispatch = Dispatch { now, market, fan_out, history, counters };
    let entries = (0..read).find(|index| !dispatch.dispatch_entry(*index)).unwrap_or(read);
    if entries < read {
        // The rest is for the next tick.
        ring.move_to(dispatch.fan_out.records.batch.entries[entries - 1].end());
        dispatch.market.offset = ring.offset();
    }
    dispatch.market.settle();
    dispatch.dispatch_due();
    if entries > 0 {
        history.note(market.newest, market.offset, now.ns);
    }
    counters.add(Counter::RecordsRead, entries as u64);
    entries > 0 || !fan_out.records.is_empty()
}

/// What dispatching a record may touch.
struct Dispatch<'a> {
    now: Now,
    market: &'a mut MarketView,
    fan_out: &'a mut FanOut,
    history: &'a mut History,
    counters: &'a mut ShardCounters,
}

/// A record that was read from the ring.
#[derive(Clone, Copy)]
struct Incoming {
    header: RecordHeader,
    span: Span,
    origin: Origin,
}

impl Dispatch<'_> {
    /// False for an entry that has to come first in a tick, and does not: a Definition that changes the exponents of a
    /// known instrument. In one tick so all records of an instrument have the exponents that the directory states: JSON
    /// is written from it.
    fn dispatch_entry(&mut self, index: usize) -> bool {
        let entry = self.fan_out.records.batch.entries[index];
        let span = Span { start: entry.start as usize, len: entry.len as usize };
        let header = RecordHeader::read(self.fan_out.records.bytes(span));
        let kind = header.and_then(|header| RecordKind::from_wire(header.kind));
        if index > 0 && kind == Some(RecordKind::Definition) && self.is_rescaling(span) {
            return false;
        }
        self.market.advance(entry.position);
        let Some(header) = header else { return true };
        let mut record = Incoming { header, span, origin: Origin { position: entry.position, ring_end: entry.end() } };
        match kind {
            Some(RecordKind::Definition) => self.dispatch_definition(&record),
            Some(RecordKind::Gap) => self.dispatch_gap(&record),
            Some(RecordKind::Status) => self.dispatch_status(&record),
            Some(RecordKind::Heartbeat) => self.market.resync.end(header.sequence),
            Some(kind) => {
                if let Some(channel) = kind.channel() {
                    self.dispatch_record(&mut record, channel);
                }
            }
            None => {}
        }
        true
    }

    fn is_rescaling(&self, span: Span) -> bool {
        let new = record::read_definition(self.fan_out.records.bytes(span));
        let known = new.as_ref().and_then(|new| self.market.directory.get(new.id));
        known.zip(new.as_ref()).is_some_and(|(known, new)| is_rescaled(known, new))
    }

    /// A new instrument is announced to the audiences whose patterns cover it.
    fn dispatch_definition(&mut self, record: &Incoming) {
        let Some(instrument) = record::read_definition(self.fan_out.records.bytes(record.span)) else { return };
        let id = instrument.id;
        if id as usize <= self.market.directory.len() {
            return self.dispatch_redefinition(instrument, record);
        }
        // Instruments before it were lost to an overrun: the resynchronisation sends all of them, in order.
        if id as usize != self.market.directory.len() + 1 {
            return;
        }
        let FanOut { index, audiences, records, .. } = &mut *self.fan_out;
        index.add_instrument(id, &instrument.symbol);
        self.market.directory.insert(instrument);
        self.market.values.add(id);
        let number = records.add(record.span, record.origin);
        index.each_pattern_watcher(id, |audience| audiences.mark(audience, number));
    }

    /// A known instrument is defined anew: it goes to all audiences that want any of its channels.
    fn dispatch_redefinition(&mut self, instrument: Instrument, record: &Incoming) {
        let Some(before) = self.market.directory.replace(instrument.clone()) else { return };
        self.market.values.redefine(&before, &instrument, record.origin.ring_end);
        if is_rescaled(&before, &instrument) {
            // Records from before have other exponents. They cannot follow this Definition.
            self.history.clear();
            self.history.raise_log_floor(record.origin.ring_end);
            self.history.raise_replay_floor(record.origin.ring_end);
            self.fan_out.conflator.forget_levels(instrument.id);
            self.fan_out.depth_views.forget(instrument.id);
        }
        let FanOut { index, audiences, records, .. } = &mut *self.fan_out;
        index.refresh(instrument.id);
        let number = records.add(record.span, record.origin);
        each_watcher_of_any(index, instrument.id, |audience| audiences.mark(audience, number));
    }

    /// A source reports that it has lost records of a log channel: the Gap is history like any record. Or the
    /// sequencer, in a resynchronisation, reports how far a channel has come.
    fn dispatch_gap(&mut self, record: &Incoming) {
        let Some(gap) = Gap::read(self.fan_out.records.bytes(record.span)) else { return };
        let is_resent = record.header.flags & flags::SNAPSHOT != 0;
        if is_resent {
            self.history.note_resent(record.origin.position);
        }
        let follows = gap.from_sequence == self.market.values.sequence(gap.instrument, gap.channel).next();
        let Some(new) = self.market.values.apply_gap(&gap, record.origin.ring_end) else { return };
        self.market.log_trail.note(record.origin.ring_end, new.instrument, new.channel, new.from_sequence);
        if follows && !is_resent {
            let number = self.fan_out.records.add(record.span, record.origin);
            self.mark_gap(&new, number);
        } else {
            self.announce_gap(&new, record.origin);
        }
    }

    /// The state of the feed (instrument 0) or of an instrument goes to all audiences that want any of its channels.
    fn dispatch_status(&mut self, record: &Incoming) {
        let Incoming { header, span, origin } = record;
        let FanOut { index, audiences, records, depth_views, .. } = &mut *self.fan_out;
        let state = record::read_status(records.bytes(*span));
        // Defined and released while the shard was overrun.
        if state == Some(FeedState::Released) && header.instrument as usize == self.market.directory.len() + 1 {
            self.market.directory.skip();
            self.market.values.add(header.instrument);
            index.add_released();
        }
        if !self.market.values.apply_status(header, records.bytes(*span), origin.ring_end) {
            return;
        }
        if state == Some(FeedState::Released) && self.market.directory.release(header.instrument).is_some() {
            self.market.values.release(header.instrument);
            depth_views.forget(header.instrument);
            index.release_instrument(header.instrument);
        }
        // In the ring, SNAPSHOT marks a resynchronisation; to clients the record is live.
        record::patch_flags(records.bytes_mut(*span), header.flags & !flags::SNAPSHOT);
        let number = records.add(*span, *origin);
        if header.instrument == 0 {
            (0..index.audience_ids() as u32)
                .filter(|audience| index.items(*audience) > 0)
                .for_each(|audience| audiences.mark(audience, number));
        } else {
            each_watcher_of_any(index, header.instrument, |audience| audiences.mark(audience, number));
        }
    }

    fn dispatch_record(&mut self, record: &mut Incoming, channel: Channel) {
        let Incoming { header, span, origin } = record;
        let (span, origin, records) = (*span, *origin, &mut self.fan_out.records);
        let is_resent = header.flags & flags::SNAPSHOT != 0;
        if is_resent {
            self.history.note_resent(origin.position);
            // As for a Status: to clients the record is live.
            header.flags &= !flags::SNAPSHOT;
            record::patch_flags(records.bytes_mut(span), header.flags);
        }
        let values = &mut self.market.values;
        let had_book =
            channel == Channel::Book && values.row(header.instrument).is_some_and(|row| row.book().is_some());
        let before = values.sequence(header.instrument, channel);
        let applied = values.apply(header, channel, records.bytes(span), origin.ring_end);
        if channel.is_log() {
            let first = match applied {
                Applied::Next => Some(header.sequence),
                Applied::AfterGap { from, .. } => Some(from),
                Applied::Ignored | Applied::Broken => None,
            };
            if let Some(first) = first {
                self.market.log_trail.note(origin.ring_end, header.instrument, channel, first);
            }
        }
        match applied {
            Applied::Broken if had_book => return self.suspect_book(header, origin),
            Applied::Ignored | Applied::Broken => return,
            // Slow clients skip resent records: to them a single lost record is a gap in the ring.
            Applied::Next if is_resent && channel.is_log() => self.history.raise_log_floor(self.market.offset),
            Applied::Next => {}
            Applied::AfterGap { from, to } if channel.is_log() => {
                let instrument = header.instrument;
                let gap = Gap { instrument, channel, from_sequence: from, to_sequence: to, reason: GapReason::Overrun };
                self.announce_gap(&gap, origin);
            }
            Applied::AfterGap { .. } => record::patch_flags(records.bytes_mut(span), header.flags | flags::CONFLATED),
        }
        if channel == Channel::Book && !self.fan_out.depth_views.is_empty() {
            self.follow_book(record, before);
        }
        self.mark_record(record, channel);
        if !channel.is_log() {
            self.note_conflated(record, channel, matches!(applied, Applied::AfterGap { .. }));
        }
    }

    /// Marks a record for the audiences that want it at once.
    fn mark_record(&mut self, record: &Incoming, channel: Channel) {
        let instrument = record.header.instrument;
        self.fan_out.index.refresh(instrument);
        if channel == Channel::Trade {
            self.dispatch_quote_before_trade(instrument);
        }
        let FanOut { index, audiences, records, .. } = &mut *self.fan_out;
        let number = records.add(record.span, record.origin);
        if channel == Channel::Book && index.limit_depth() {
            return self.mark_book(record, number);
        }
        // Log records are never conflated, whatever interval their items have.
        let intervals = if channel.is_log() { ConflationInterval::COUNT } else { 1 };
        for interval in (0..intervals).map(ConflationInterval::from_index).filter(|interval| index.uses(*interval)) {
            index.each_watcher(instrument, channel, interval, |audience| audiences.mark(audience, number));
        }
    }

    /// Has the views of a book follow a change of it.
    fn follow_book(&mut self, record: &Incoming, before: Sequence) {
        let FanOut { records, depth_views, .. } = &mut *self.fan_out;
        let (bytes, RecordHeader { instrument, sequence, .. }) = (records.bytes(record.span), record.header);
        let state = self.market.values.row(instrument).and_then(|row| row.book());
        if let (Some((action, _)), Some(state)) = (record::read_book(bytes), state) {
            depth_views.follow(instrument, &BookChange { before, sequence, action, record: bytes, state });
        }
    }

    /// Marks a change of a book where rights limit the depth: `number` is the whole of it.
    fn mark_book(&mut self, record: &Incoming, number: u32) {
        let FanOut { index, audiences, .. } = &mut *self.fan_out;
        let (instrument, mut limited) = (record.header.instrument, Vec::new());
        index.each_watcher(instrument, Channel::Book, ConflationInterval::IMMEDIATE, |audience| {
            match index.book_levels(audience, instrument) {
                None => audiences.mark(audience, number),
                Some(depth) => limited.push((depth, audience)),
            }
        });
        limited.sort_unstable();
        for same in limited.chunk_by(|one, other| one.0 == other.0) {
            if let Some(number) = self.make_newest(record, same[0].0) {
                same.iter().for_each(|(_, audience)| self.fan_out.audiences.mark(*audience, number));
            }
        }
    }

    /// Makes a record of what clients with a limited depth see of a change of a book, if they see anything of it.
    fn make_newest(&mut self, record: &Incoming, depth: usize) -> Option<u32> {
        let RecordHeader { instrument, sequence, .. } = record.header;
        let state = self.market.values.row(instrument)?.book()?;
        let FanOut { records, depth_views, .. } = &mut *self.fan_out;
        let record_flags = RecordHeader::read(records.bytes(record.span))?.flags;
        let newest = depth_views.take_newest(instrument, depth, (sequence, state), record_flags)?;
        let Immediate { outcome: Outcome { action, levels }, is_merged } = newest;
        let header = record.header.with_flags(record_flags | if is_merged { flags::CONFLATED } else { 0 });
        Some(records.make(record.origin, |out| record::encode_book(&header, action, levels.into_iter(), out)))
    }

    /// The same of the changes since the last boundary of an interval.
    fn make_gathered(&mut self, interval: ConflationInterval, instrument: u32, depth: usize) -> Option<u32> {
        let row = self.market.values.row(instrument)?;
        let state = row.book()?;
        let FanOut { records, depth_views, .. } = &mut *self.fan_out;
        let sequence = row.sequence(Channel::Book);
        let outcome = depth_views.take_gathered(instrument, depth, (sequence, state), interval)?;
        let Outcome { action, levels } = outcome;
        let origin = Origin { position: self.market.last_position, ring_end: row.origin(Channel::Book) };
        let header = row.book_header(state, instrument, flags::CONFLATED);
        self.counters.add(Counter::Conflated, 1);
        Some(records.make(origin, |out| record::encode_book(&header, action, levels.into_iter(), out)))
    }

    /// Changes of a book were lost to an overrun. Until the resynchronisation, its audiences have a wrong book, or, where
    /// it is conflated, an old one. They learn it by an empty change.
    fn suspect_book(&mut self, header: &RecordHeader, origin: Origin) {
        // The sequence is that of the change before the one that cannot be applied: the whole book comes after both.
        let header = RecordHeader { sequence: header.sequence.previous(), ..*header };
        let header = header.with_flags(flags::LAST | flags::CONFLATED | flags::MAYBE_BAD_BOOK);
        let FanOut { index, audiences, records, .. } = &mut *self.fan_out;
        let number =
            records.make(origin, |out| record::encode_book(&header, BookAction::Delta, std::iter::empty(), out));
        for interval in (0..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            index.each_watcher(header.instrument, Channel::Book, interval, |audience| audiences.mark(audience, number));
        }
    }

    /// Makes a state value pending at every interval at which it is watched. `jumped`: it stands for values that were
    /// lost.
    fn note_conflated(&mut self, record: &Incoming, channel: Channel, jumped: bool) {
        let FanOut { index, conflator, records, .. } = &mut *self.fan_out;
        let instrument = record.header.instrument;
        let intervals = (1..ConflationInterval::COUNT).map(ConflationInterval::from_index);
        // Most intervals are not in use at all, which costs less to find out.
        for interval in intervals.filter(|interval| index.uses(*interval)) {
            if !index.is_watched(instrument, channel, interval) {
                continue;
            }
            conflator.note(interval, instrument, channel, jumped);
            if channel == Channel::Book
                && let Some((action, levels)) = record::read_book(records.bytes(record.span))
            {
                conflator.note_levels(interval, instrument, action, levels);
            }
        }
    }

    /// A pending quote is sent before the trade that follows it, to the audiences that get the trade.
    fn dispatch_quote_before_trade(&mut self, instrument: u32) {
        for interval in (1..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            let FanOut { index, conflator, .. } = &mut *self.fan_out;
            if !conflator.is_pending(interval, instrument, Channel::Quote, QuoteOrder::BeforeTrade) {
                continue;
            }
            let mut with_trades = Vec::new();
            index.each_watcher(instrument, Channel::Quote, interval, |audience| {
                if index.wants(audience, instrument, Channel::Trade).is_some() {
                    with_trades.push(audience);
                }
            });
            if with_trades.is_empty() {
                continue;
            }
            let count = conflator.take_before_trade(interval, instrument, self.now.tick);
            if let Some(number) = self.make_value(instrument, Channel::Quote, count > 1) {
                with_trades.into_iter().for_each(|audience| self.fan_out.audiences.mark(audience, number));
            }
        }
    }

    /// Dispatches the pending values that are due, some [`DUE_BYTES`] of them: the others follow in the next tick. A flush
    /// so stays small, and a member that cannot take it is not made the rest.
    fn dispatch_due(&mut self) {
        let bytes_end = self.fan_out.records.batch.bytes.len() + DUE_BYTES;
        for interval in self.fan_out.conflator.due(self.now.ns) {
            while self.fan_out.records.batch.bytes.len() < bytes_end
                && let Some(value) = self.fan_out.conflator.take_due(interval, self.now.tick)
            {
                self.dispatch_conflated(interval, value);
            }
        }
    }

    /// A pending value is encoded once, or twice where it stands for several values to some audiences only, and marked
    /// for the audiences that have not had it.
    fn dispatch_conflated(&mut self, interval: ConflationInterval, value: PendingValue) {
        let PendingValue { instrument, channel, pending, levels } = value;
        self.fan_out.index.refresh(instrument);
        let index = &self.fan_out.index;
        let limits_depth = channel == Channel::Book && index.limit_depth();
        let (mut watchers, mut limited) = (Vec::new(), Vec::new());
        index.each_watcher(instrument, channel, interval, |audience| {
            if limits_depth && let Some(depth) = index.book_levels(audience, instrument) {
                return limited.push((depth, audience));
            }
            let is_before_trade = !pending.is_even() && index.wants(audience, instrument, Channel::Trade).is_some();
            let count = pending.count(if is_before_trade { QuoteOrder::BeforeTrade } else { QuoteOrder::Free });
            if count > 0 {
                watchers.push((audience, count > 1));
            }
        });
        limited.sort_unstable();
        for same in limited.chunk_by(|one, other| one.0 == other.0) {
            if let Some(number) = self.make_gathered(interval, instrument, same[0].0) {
                same.iter().for_each(|(_, audience)| self.fan_out.audiences.mark(*audience, number));
            }
        }
        let book = self.market.values.row(instrument).and_then(|row| row.book());
        let levels = levels.zip(book).and_then(|(levels, book)| levels.present(|side, px| book.levels.size(side, px)));
        // By whether it stands for several values.
        let mut made: [Option<Option<u32>>; 2] = [None, None];
        for (audience, is_merged) in watchers {
            let number = *made[usize::from(is_merged)].get_or_insert_with(|| match &levels {
                Some(levels) => self.make_levels(instrument, levels, is_merged),
                None => self.make_value(instrument, channel, is_merged),
            });
            if let Some(number) = number {
                self.fan_out.audiences.mark(audience, number);
            }
        }
    }

    /// Makes a record of the newest value of a state channel.
    fn make_value(&mut self, instrument: u32, channel: Channel, is_merged: bool) -> Option<u32> {
        let row = self.market.values.row(instrument)?;
        let origin = Origin { position: self.market.last_position, ring_end: row.origin(channel) };
        let flags = if is_merged { flags::CONFLATED } else { 0 };
        let number = self.fan_out.records.make_if(origin, |out| row.push(instrument, channel, flags, out))?;
        self.counters.add(Counter::Conflated, is_merged.into());
        Some(number)
    }

    /// Makes a record of the present sizes of some levels of a book.
    fn make_levels(&mut self, instrument: u32, levels: &[Level], is_merged: bool) -> Option<u32> {
        let row = self.market.values.row(instrument)?;
        let origin = Origin { position: self.market.last_position, ring_end: row.origin(Channel::Book) };
        let header = row.book_header(row.book()?, instrument, if is_merged { flags::CONFLATED } else { 0 });
        self.counters.add(Counter::Conflated, is_merged.into());
        let encode = |out: &mut Vec<u8>| record::encode_book(&header, BookAction::Delta, levels.iter().copied(), out);
        Some(self.fan_out.records.make(origin, encode))
    }

    /// Makes a Gap for the audiences that want a log channel of which records are missing.
    fn announce_gap(&mut self, gap: &Gap, origin: Origin) {
        // The same records are missing in the ring.
        self.history.raise_log_floor(self.market.offset);
        let number = self.fan_out.records.make(origin, |out| gap.encode(self.now.wall_ns(), out));
        self.mark_gap(gap, number);
    }

    fn mark_gap(&mut self, gap: &Gap, number: u32) {
        let FanOut { index, audiences, .. } = &mut *self.fan_out;
        let mut members = 0;
        for interval in (0..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            index.each_watcher(gap.instrument, gap.channel, interval, |audience| {
                audiences.mark(audience, number);
                members += audiences.members_len(audience) as u64;
            });
        }
        self.counters.add(Counter::GapsSent, members);
    }
}

fn each_watcher_of_any(index: &SubscriptionIndex, instrument: u32, mut each: impl FnMut(AudienceId)) {
    for channel in Channel::ALL {
        for interval in (0..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            index.each_watcher(instrument, channel, interval, &mut each);
        }
    }
}
