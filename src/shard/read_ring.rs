//! Phase 1: from the ring to the audiences. Every record updates the last values, then goes to those who want it at
//! once, and is noted for those who want it merged.

use super::conflation::Lane;
use super::{Place, Shard, Tick};
use crate::io::Io;
use crate::last_value::Applied;
use crate::ring;
use crate::stats::Counter;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, flags};
use tickcast_protocol::{BookAction, GapReason};

impl<I: Io> Shard<I> {
    /// Reads what the ring has, up to the turn's budget, and dispatches it.
    pub(super) fn drain(&mut self) -> bool {
        if let Err(overrun) = self.ring.read(self.settings.tick_bytes_max, &mut self.tick.batch) {
            self.counters.add(Counter::Overruns, 1);
            self.counters.add(Counter::OverrunBytes, overrun.lost);
            self.resync_wanted = true;
            self.history.clear();
        }
        self.tick.ring_position = self.ring.position();
        let entries = std::mem::take(&mut self.tick.batch.entries);
        for entry in &entries {
            let start = entry.start as usize;
            self.tick.position = self.tick.position.max(entry.tag);
            let ring = entry.position + ring::HEADER_BYTES as u64 + u64::from(entry.len);
            self.dispatch(start, start + entry.len as usize, Place { position: entry.tag, ring });
        }
        if !entries.is_empty() {
            self.history.note(self.tick.position, self.tick.ring_position, self.tick.now_ns);
        }
        self.counters.add(Counter::RecordsRead, entries.len() as u64);
        self.tick.batch.entries = entries;
        for interval in self.conflator.due(self.tick.now_ns) {
            self.dispatch_merged(interval);
        }
        !self.tick.records.is_empty() || !self.tick.batch.entries.is_empty()
    }

    fn dispatch(&mut self, start: usize, end: usize, at: Place) {
        let bytes = &self.tick.batch.bytes[start..end];
        let Some(header) = RecordHeader::read(bytes) else { return };
        match RecordKind::from_wire(header.kind) {
            Some(RecordKind::Definition) => self.dispatch_definition(start, end, at),
            Some(RecordKind::Gap) => self.dispatch_gap(start, end, at, &header),
            Some(RecordKind::Status) => self.dispatch_status(start, end, at, &header),
            Some(kind) => {
                if let Some(channel) = kind.channel() {
                    self.dispatch_record(start, end, at, header, channel);
                }
            }
            None => {}
        }
    }

    /// A new instrument is announced to those whose patterns cover it. One that comes before its forerunners, which an
    /// overrun has swallowed, comes once more: they all do when the state is sent again.
    fn dispatch_definition(&mut self, start: usize, end: usize, at: Place) {
        let Some(instrument) = record::read_definition(&self.tick.batch.bytes[start..end]) else { return };
        let id = instrument.id;
        // Known already, or one whose predecessor was lost to an overrun: the whole state is on its way, in order.
        if id as usize != self.directory.len() + 1 {
            return;
        }
        self.interest.add_instrument(id, &instrument.symbol);
        self.directory.insert(instrument);
        self.values.add(id);
        let number = add_record(&mut self.tick, start, end, at);
        let (interest, audiences) = (&self.interest, &mut self.audiences);
        interest.each_pattern_watcher(id, |audience| audiences.mark(audience, number));
    }

    /// A source says that it has lost records of a log channel (the record is history as any other); or the sequencer
    /// tells how far one has come, as it sends the whole state again.
    fn dispatch_gap(&mut self, start: usize, end: usize, at: Place, header: &RecordHeader) {
        let Some(gap) = Gap::read(&self.tick.batch.bytes[start..end]) else { return };
        let is_sent_again = header.flags & flags::SNAPSHOT != 0;
        if is_sent_again {
            self.history.note_sent_again(at.position);
        }
        let is_whole = !is_sent_again && gap.from_sequence == self.values.sequence(gap.instrument, gap.channel).next();
        match self.values.apply_gap(&gap, at.ring) {
            Some(gap) if is_whole => self.pass_gap_on(&gap, start, end, at),
            Some(gap) => self.announce_gap(&gap, at),
            None => {}
        }
    }

    fn pass_gap_on(&mut self, gap: &Gap, start: usize, end: usize, at: Place) {
        let number = add_record(&mut self.tick, start, end, at);
        self.tell_gap(gap, number);
    }

    /// The state of a feed (instrument 0) or an instrument goes to all who watch any of its channels.
    fn dispatch_status(&mut self, start: usize, end: usize, at: Place, header: &RecordHeader) {
        if !self.values.apply_status(header, &self.tick.batch.bytes[start..end], at.ring) {
            return;
        }
        // What is sent again is live to clients.
        record::patch_flags(&mut self.tick.batch.bytes[start..], header.flags & !flags::SNAPSHOT);
        let number = add_record(&mut self.tick, start, end, at);
        let (interest, audiences) = (&self.interest, &mut self.audiences);
        if header.instrument == 0 {
            (0..interest.audience_ids() as u32)
                .filter(|audience| interest.items(*audience) > 0)
                .for_each(|audience| audiences.mark(audience, number));
        } else {
            each_watcher_of_any(interest, header.instrument, |audience| audiences.mark(audience, number));
        }
    }

    fn dispatch_record(&mut self, start: usize, end: usize, at: Place, mut header: RecordHeader, channel: Channel) {
        let sent_again = header.flags & flags::SNAPSHOT != 0;
        if sent_again {
            self.history.note_sent_again(at.position);
        }
        // SNAPSHOT says that the sequencer sends its state again; to clients it is live.
        header.flags &= !flags::SNAPSHOT;
        record::patch_flags(&mut self.tick.batch.bytes[start..], header.flags);
        let had_book =
            channel == Channel::Book && self.values.row(header.instrument).is_some_and(|row| row.book().is_some());
        let applied = self.values.apply(&header, channel, &self.tick.batch.bytes[start..end], at.ring);
        match applied {
            Applied::Broken if had_book => return self.suspect_book(&header, at),
            Applied::Ignored | Applied::Broken => return,
            // Stragglers pass over what was sent again: to them the one record that was lost is a hole.
            Applied::Next if sent_again && channel.is_log() => self.log_floor = self.tick.ring_position,
            Applied::Next => {}
            Applied::AfterGap { from, to } if channel.is_log() => {
                let instrument = header.instrument;
                self.announce_gap(
                    &Gap { instrument, channel, from_sequence: from, to_sequence: to, reason: GapReason::Overrun },
                    at,
                );
            }
            Applied::AfterGap { .. } => {
                record::patch_flags(&mut self.tick.batch.bytes[start..], header.flags | flags::CONFLATED);
            }
        }
        if channel == Channel::Trade {
            self.dispatch_quotes_before_trade(header.instrument);
        }
        let number = add_record(&mut self.tick, start, end, at);
        let intervals = if channel.is_log() { ConflationInterval::COUNT } else { 1 };
        let (interest, audiences) = (&self.interest, &mut self.audiences);
        for interval in (0..intervals).map(ConflationInterval::from_index).filter(|interval| interest.uses(*interval)) {
            interest.each_watcher(header.instrument, channel, interval, |audience| audiences.mark(audience, number));
        }
        if !channel.is_log() {
            let jumped = matches!(applied, Applied::AfterGap { .. });
            self.note_merged(start, end, header.instrument, channel, jumped);
        }
    }

    /// Changes of a book were lost to an overrun: those who follow it change by change have a wrong one until the sequencer
    /// has sent it again, and are told by a change of nothing. Who gets merged books has had a right one, of a while ago.
    fn suspect_book(&mut self, header: &RecordHeader, at: Place) {
        // In place of the change that cannot be applied, or the one before it: the whole book comes after both.
        let header = RecordHeader { sequence: header.sequence.previous(), ..*header };
        let header = header.with_flags(flags::LAST | flags::CONFLATED | flags::MAYBE_BAD_BOOK);
        let start = self.tick.batch.bytes.len();
        record::encode_book(&header, BookAction::Delta, std::iter::empty(), &mut self.tick.batch.bytes);
        let number = self.tick.add(start, at);
        let (interest, audiences) = (&self.interest, &mut self.audiences);
        let interval = ConflationInterval::IMMEDIATE;
        interest.each_watcher(header.instrument, Channel::Book, interval, |audience| audiences.mark(audience, number));
    }

    /// Trades and raw are never merged, whatever interval their items carry; state is noted for the ticks.
    fn note_merged(&mut self, start: usize, end: usize, instrument: u32, channel: Channel, jumped: bool) {
        for interval in (1..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            if !self.interest.is_watched(instrument, channel, interval) {
                continue;
            }
            self.conflator.note(interval, instrument, channel, jumped);
            if channel == Channel::Book
                && let Some((action, levels)) = record::read_book(&self.tick.batch.bytes[start..end])
            {
                self.conflator.note_levels(interval, instrument, action, levels);
            }
        }
    }

    /// A pending quote is sent before the trade that follows it, to those who get the trade.
    fn dispatch_quotes_before_trade(&mut self, instrument: u32) {
        for interval in (1..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            if !self.conflator.is_pending(interval, instrument, Channel::Quote, Lane::Safe) {
                continue;
            }
            let mut with_trades = Vec::new();
            self.interest.each_watcher(instrument, Channel::Quote, interval, |audience| {
                if self.interest.wants(audience, instrument, Channel::Trade).is_some() {
                    with_trades.push(audience);
                }
            });
            if with_trades.is_empty() {
                continue;
            }
            let count = self.conflator.take_safe(interval, instrument, self.tick.number);
            if let Some(number) = self.add_value(instrument, Channel::Quote, count > 1) {
                with_trades.into_iter().for_each(|audience| self.audiences.mark(audience, number));
            }
        }
    }

    /// The tick of a profile: every pending value is encoded once, and goes to those who have not had it.
    fn dispatch_merged(&mut self, interval: ConflationInterval) {
        let queue = self.conflator.take_queue(interval);
        for &(instrument, channel) in &queue {
            let pending = self.conflator.take(interval, instrument, channel, self.tick.number);
            // A value per meaning: alone, or standing for several.
            let mut made: [Option<Option<u32>>; 2] = [None, None];
            let mut watchers = Vec::new();
            self.interest.each_watcher(instrument, channel, interval, |audience| {
                let safe = !pending.is_even() && self.interest.wants(audience, instrument, Channel::Trade).is_some();
                let count = pending.count(if safe { Lane::Safe } else { Lane::Plain });
                if count > 0 {
                    watchers.push((audience, count > 1));
                }
            });
            let changed = (channel == Channel::Book)
                .then(|| self.conflator.take_levels(interval, instrument))
                .and_then(|changed| {
                    let book = &self.values.row(instrument)?.book()?.levels;
                    changed.present(book)
                });
            for (audience, merged) in watchers {
                let number = *made[usize::from(merged)]
                    .get_or_insert_with(|| self.add_merged(instrument, channel, merged, changed.as_deref()));
                if let Some(number) = number {
                    self.audiences.mark(audience, number);
                }
            }
        }
        self.conflator.return_queue(interval, queue);
    }

    fn add_merged(
        &mut self,
        instrument: u32,
        channel: Channel,
        merged: bool,
        changed: Option<&[record::Level]>,
    ) -> Option<u32> {
        let Some(levels) = changed else {
            return self.add_value(instrument, channel, merged);
        };
        let row = self.values.row(instrument)?;
        let extra = if merged { flags::CONFLATED } else { 0 };
        let header = row.book_header(row.book()?, instrument, extra);
        let start = self.tick.batch.bytes.len();
        record::encode_book(&header, BookAction::Delta, levels.iter().copied(), &mut self.tick.batch.bytes);
        self.counters.add(Counter::Conflated, merged.into());
        Some(self.tick.add(start, self.place_of(instrument, channel)?))
    }

    /// Where a value that is sent later than it came stands.
    fn place_of(&self, instrument: u32, channel: Channel) -> Option<Place> {
        let ring = self.values.row(instrument)?.position(channel);
        Some(Place { position: self.tick.from_position, ring })
    }

    /// Adds the newest value of a state channel to this turn's records.
    fn add_value(&mut self, instrument: u32, channel: Channel, merged: bool) -> Option<u32> {
        let row = self.values.row(instrument)?;
        let start = self.tick.batch.bytes.len();
        let extra = if merged { flags::CONFLATED } else { 0 };
        if !row.push(instrument, channel, extra, &mut self.tick.batch.bytes) {
            return None;
        }
        self.counters.add(Counter::Conflated, merged.into());
        Some(self.tick.add(start, self.place_of(instrument, channel)?))
    }

    /// Tells all who watch a log channel that records are missing.
    fn announce_gap(&mut self, gap: &Gap, at: Place) {
        // What stragglers would read from the ring has the same hole.
        self.log_floor = self.tick.ring_position;
        let start = self.tick.batch.bytes.len();
        gap.encode(self.tick.now_ns, &mut self.tick.batch.bytes);
        let number = self.tick.add(start, at);
        self.tell_gap(gap, number);
    }

    /// A gap goes to all who watch the log channel.
    fn tell_gap(&mut self, gap: &Gap, number: u32) {
        let (interest, audiences) = (&self.interest, &mut self.audiences);
        let mut told = 0;
        for interval in (0..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            interest.each_watcher(gap.instrument, gap.channel, interval, |audience| {
                audiences.mark(audience, number);
                told += audiences.members_len(audience) as u64;
            });
        }
        self.counters.add(Counter::GapsSent, told);
    }
}

fn add_record(tick: &mut Tick, start: usize, end: usize, at: Place) -> u32 {
    let (start, len) = (start as u32, (end - start) as u32);
    tick.records.push(super::TickRecord { start, len, position: at.position, place: at.ring });
    tick.records.len() as u32 - 1
}

fn each_watcher_of_any(
    interest: &super::subscription_index::SubscriptionIndex,
    instrument: u32,
    mut each: impl FnMut(super::subscription_index::AudienceId),
) {
    for channel in Channel::ALL {
        for interval in (0..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            interest.each_watcher(instrument, channel, interval, &mut each);
        }
    }
}
