//! Phase 5: those who are owed something. First the rest of what was cut, then answers, then what is replayed after a
//! resume, then the newest values, then the log from where it stopped, or a Gap; and when nothing is missing at the end of
//! a turn, the client is a member again.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;

use super::conflation::Lane;
use super::connections::{CatchUp, Client, Ending, LogMark, Owed, StateMark};
use super::encoding::Encoder;
use super::packets::Packing;
use super::subscription_index::{AudienceId, Key, Target};
use super::{Fresh, Shard};
use crate::io::{Io, SendOp, SendOutcome};
use crate::last_value::InstrumentValues;
use crate::ring;
use crate::stats::Counter;
use tickcast_protocol::GapReason;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::packet;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, RecordPrefix, flags};

/// Records that one client gets in one turn, so that a large snapshot does not keep the others waiting.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// How often a piece doubles at the most.
const WALKS_MAX: u32 = 10;
/// The same for all clients together: two pieces. Members wait while it is sent; with 4 MiB, a storm of subscriptions to
/// a whole market doubled their 99th percentile.
const TURN_BYTES: usize = 128 * 1024;
/// History that is looked through for one client in one turn, bytes of the ring: some 0.1 ms, at 5 ns an entry.
const SCAN_BYTES: u64 = 2 * 1024 * 1024;
/// The same for all clients together.
const TURN_SCAN_BYTES: u64 = 16 * 1024 * 1024;

impl<I: Io> Shard<I> {
    /// Serves those who wait, as far as the turn's budget goes.
    pub(super) fn catch_up(&mut self) -> bool {
        let mut served = Vec::new();
        self.scratch.scanned_bytes = 0;
        for _ in 0..self.waiting.len() {
            let Some(slot) = self.waiting.pop_front() else { break };
            let start = self.scratch.arena.len();
            let Some(complete) = self.prepare(slot) else { continue };
            let len = self.scratch.arena.len() - start;
            if len > 0 {
                let slot_id = self.clients[slot as usize].as_ref().expect("prepared above").slot_id;
                self.scratch.sends.push(SendOp { slot_id, start: start as u32, len: len as u32 });
            }
            served.push((slot, complete));
            if self.scratch.arena.len() > TURN_BYTES || self.scratch.scanned_bytes > TURN_SCAN_BYTES {
                break;
            }
        }
        self.send_prepared();
        for (slot, complete) in &served {
            self.conclude(*slot, *complete);
        }
        !served.is_empty()
    }

    /// Appends the next piece of what a client is owed to the arena. Returns whether nothing is missing after it; `None`
    /// if nobody is owed anything there.
    fn prepare(&mut self, slot: u32) -> Option<bool> {
        let client = self.clients.get_mut(slot as usize)?.as_mut()?;
        let audience = client.audience;
        let ending = client.ending;
        let mut catch_up = client.catch_up.take()?;
        if !catch_up.queued {
            client.catch_up = Some(catch_up);
            return None;
        }
        catch_up.queued = false;
        let arena = &mut self.scratch.arena;
        arena.extend_from_slice(&std::mem::take(&mut catch_up.tail));
        arena.extend_from_slice(&std::mem::take(&mut catch_up.control));
        let complete = ending == Ending::No && self.push_replay(audience, &mut catch_up) && {
            self.push_state(audience, &mut catch_up);
            let walked = catch_up.state.is_at(self.tick.number);
            walked && self.push_log(audience, &mut catch_up)
        };
        self.clients[slot as usize].as_mut().expect("looked up above").catch_up = Some(catch_up);
        Some(complete)
    }

    fn send_prepared(&mut self) {
        let mut short = std::mem::take(&mut self.scratch.short);
        short.clear();
        if !self.scratch.sends.is_empty() {
            self.io.send_batch(&self.scratch.arena, &self.scratch.sends, &mut short);
        }
        self.counters.add(Counter::ShortSends, short.len() as u64);
        for stopped in &short {
            let send = self.scratch.sends[stopped.index as usize];
            match stopped.outcome {
                SendOutcome::Failed => self.drop_client(send.slot_id.index),
                SendOutcome::Took(taken) => {
                    let whole = &self.scratch.arena[send.start as usize..][..send.len as usize];
                    let rest = Bytes::copy_from_slice(&whole[taken as usize..]);
                    self.block(send.slot_id.index, rest);
                    // A full socket that took nothing is no progress, however often it said that it had room.
                    if taken > 0 {
                        self.note_progress(send.slot_id.index);
                    }
                }
            }
        }
        self.scratch.short = short;
        self.scratch.sends.clear();
        self.scratch.arena.clear();
    }

    fn note_progress(&mut self, slot: u32) {
        let now_ns = self.tick.now_ns;
        if let Some(catch_up) = self.client_mut(slot).and_then(|client| client.catch_up.as_mut()) {
            catch_up.progress_ns = catch_up.progress_ns.max(now_ns);
        }
    }

    /// After the send: the client is a member again, waits for the next turn or for its socket, or goes.
    fn conclude(&mut self, slot: u32, complete: bool) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if client.catch_up.as_ref().is_none_or(|catch_up| catch_up.blocked) {
            return;
        }
        self.note_progress(slot);
        let client = self.clients[slot as usize].as_mut().expect("looked up above");
        let owes_bytes = client.catch_up.as_ref().is_some_and(|catch_up| catch_up.owes_bytes());
        if client.ending != Ending::No {
            self.conclude_ending(slot);
        } else if complete && !owes_bytes {
            self.join(slot);
        } else {
            self.queue(slot);
        }
    }

    /// Nothing is missing: the client is a member of its audience from the next turn on.
    fn join(&mut self, slot: u32) {
        let (now_ns, place) = (self.tick.now_ns, self.tick.ring_position);
        let client = self.clients[slot as usize].as_mut().expect("only clients join");
        let catch_up = client.catch_up.take().expect("only those who were out join");
        self.catching_up -= 1;
        let audience = client.audience;
        client.place = self.audiences.join(audience, client.slot_id, self.interest.encoding(audience), now_ns);
        // It was not asked anything while it was out; that it took what it was owed is a sign of life.
        client.received_ns = client.received_ns.max(catch_up.progress_ns);
        // One that only had an answer has not had what waits for a tick.
        if catch_up.state.is_explicit() && self.interest.merges(audience) {
            /// The longest interval: by then every profile has had a tick.
            const LONGEST_NS: u64 = 1_000_000_000;
            self.fresh.insert(slot, Fresh { place, until_ns: now_ns + LONGEST_NS });
        }
        if catch_up.held_input.is_empty() {
            self.receive_if_ready(slot);
        } else {
            // Its requests go on in the next turn; the box is kept only for what they are.
            self.hold_input(slot, catch_up.held_input);
        }
    }

    /// Walks over the instruments from where the last piece ended, and appends what the client has not had.
    fn push_state(&mut self, audience: AudienceId, catch_up: &mut CatchUp) {
        if catch_up.job.is_empty() && !catch_up.snapshot && catch_up.state.is_at(self.tick.number) {
            return;
        }
        let place = self.tick.ring_position;
        let mark = StateMark { tick: self.tick.number, place, explicit: true, floor: place };
        let mut records = std::mem::take(&mut self.scratch.records);
        records.clear();
        let candidates = self.interest.candidates(audience, catch_up.state.cursor);
        // Values that change faster than pieces go out would keep the client walking: each walk takes larger pieces, until
        // one is a single piece.
        let piece_bytes = PIECE_BYTES << catch_up.state.walks.min(WALKS_MAX);
        self.push_feed_status(audience, catch_up, &mut records);
        let mut last = u32::MAX;
        for instrument in candidates {
            self.push_instrument(audience, catch_up, instrument, &mut records);
            if records.len() >= piece_bytes {
                last = instrument;
                break;
            }
        }
        let is_last = last == u32::MAX;
        catch_up.state.advance(last, mark);
        let snapshot = catch_up.snapshot;
        if !records.is_empty() || (is_last && snapshot) {
            let (flags, last_flags) = match (snapshot, is_last) {
                (false, _) => (0, 0),
                (true, false) => (packet::flags::SNAPSHOT, 0),
                (true, true) => (packet::flags::SNAPSHOT, packet::flags::CAUGHT_UP),
            };
            let position = catch_up.log.position;
            self.push_piece(audience, &records, position..=position, (flags, last_flags));
        }
        if is_last {
            catch_up.job = Vec::new();
            catch_up.snapshot = false;
            catch_up.directory_len = self.directory.len() as u32;
        }
        self.scratch.records = records;
    }

    /// The state of the feed as a whole stands at the head of a walk, for who has not had it.
    fn push_feed_status(&self, audience: AudienceId, catch_up: &CatchUp, out: &mut Vec<u8>) {
        if catch_up.state.cursor != 1 || self.interest.items(audience) == 0 {
            return;
        }
        let status = self.values.status(0);
        if status.place > catch_up.state.mark_of(1).place {
            status.push(0, 0, out);
        } else if catch_up.job.iter().any(|(_, owed)| *owed != Owed::Merged) {
            status.push_if_received(0, out);
        }
    }

    fn push_instrument(&mut self, audience: AudienceId, catch_up: &CatchUp, instrument: u32, out: &mut Vec<u8>) {
        let Some(row) = self.values.row(instrument) else { return };
        let mark = catch_up.state.mark_of(instrument);
        let wanted: Vec<(Channel, ConflationInterval, Option<Owed>)> =
            [Channel::Book, Channel::Ticker, Channel::Quote, Channel::Trade, Channel::Raw]
                .into_iter()
                .filter_map(|channel| {
                    let interval = self.interest.wants(audience, instrument, channel)?;
                    Some((channel, interval, self.owed(catch_up, instrument, channel)))
                })
                .collect();
        let announce = instrument > catch_up.directory_len
            || wanted.iter().any(|(_, _, owed)| owed.is_some_and(|owed| owed != Owed::Merged));
        if announce
            && !wanted.is_empty()
            && let Some(definition) = self.directory.get(instrument)
        {
            record::encode_definition(definition, out);
        }
        let status = self.values.status(instrument);
        if !wanted.is_empty() && status.place > mark.place {
            status.push(instrument, 0, out);
        } else if announce && !wanted.is_empty() {
            status.push_if_received(instrument, out);
        }
        let lane = self.lane(audience, instrument);
        for (channel, interval, owed) in wanted {
            let extra = match owed {
                // What has come since the request comes as history, in its order.
                Some(Owed::Snapshot) if channel.is_log() && !is_newest(row, instrument, channel, &catch_up.log) => {
                    continue;
                }
                Some(Owed::Snapshot) => flags::SNAPSHOT,
                Some(Owed::Merged) => flags::CONFLATED,
                None | Some(Owed::Definition)
                    if channel.is_log() || !self.missed(mark, instrument, channel, interval, lane) =>
                {
                    continue;
                }
                None | Some(Owed::Definition) => flags::CONFLATED,
            };
            let pushed = row.push(instrument, channel, extra, out);
            if pushed && channel == Channel::Trade && row.push_trades_lost(instrument, self.tick.now_ns, out) {
                self.counters.add(Counter::GapsSent, 1);
            }
        }
    }

    /// Which lane an audience's quote of an instrument is in.
    pub(super) fn lane(&self, audience: AudienceId, instrument: u32) -> Lane {
        match self.interest.wants(audience, instrument, Channel::Trade) {
            Some(_) => Lane::Safe,
            None => Lane::Plain,
        }
    }

    /// What the client's latest requests say of a channel of an instrument: the most that any covering item owes.
    fn owed(&self, catch_up: &CatchUp, instrument: u32, channel: Channel) -> Option<Owed> {
        if catch_up.job.is_empty() {
            return None;
        }
        let exact = Key::new(Target::Instrument(instrument), channel);
        let find = |key: Key| {
            let at = catch_up.job.binary_search_by_key(&key, |(of, _)| *of).ok()?;
            Some(catch_up.job[at].1)
        };
        let patterns = self.interest.patterns_of(instrument).iter();
        let keys = patterns.map(|pattern| Key::new(Target::Pattern(*pattern), channel));
        std::iter::once(exact).chain(keys).filter_map(find).max()
    }

    /// True if a state value has changed since the client had it.
    fn missed(
        &self,
        mark: StateMark,
        instrument: u32,
        channel: Channel,
        interval: ConflationInterval,
        lane: Lane,
    ) -> bool {
        let place = self.values.row(instrument).map_or(0, |row| row.position(channel));
        if mark.explicit || interval == ConflationInterval::IMMEDIATE {
            return place > mark.place;
        }
        let lane = if channel == Channel::Quote { lane } else { Lane::Plain };
        place > mark.floor && self.conflator.is_news(interval, instrument, channel, lane, mark.tick)
    }

    /// Appends log records that the client has not had. True if it has had them all now.
    fn push_log(&mut self, audience: AudienceId, catch_up: &mut CatchUp) -> bool {
        let here = self.tick.ring_position;
        if catch_up.log.ring_position == here {
            return true;
        }
        if !self.interest.keys(audience).any(|key| key.channel().is_log()) {
            // Nothing to look for: to read through a whole ring for each straggler would stop the others.
            (catch_up.log.ring_position, catch_up.log.position) = (here, self.tick.position);
            return true;
        }
        let mut history = std::mem::take(&mut self.scratch.history);
        history.clear();
        let from = catch_up.log.ring_position;
        let is_kept = from >= self.log_floor && here - from <= self.settings.backlog_bytes_max;
        let wanted = |_: u64, word: u64| self.wants_of_log(audience, word);
        let read = is_kept.then(|| self.ring.history(scan(from, here), PIECE_BYTES, wanted, &mut history).ok());
        let before = catch_up.log.position;
        match read.flatten() {
            Some(next) => {
                self.scratch.scanned_bytes += next - from;
                catch_up.log.ring_position = next;
                if next == here {
                    catch_up.log.position = self.tick.position;
                    catch_up.log.sequences = self.log_sequences();
                } else {
                    note_history(&history, &mut catch_up.log);
                }
                self.push_log_piece(audience, &history, before, catch_up.log.position);
            }
            None => self.push_gaps(audience, &mut catch_up.log),
        }
        self.scratch.history = history;
        catch_up.log.ring_position == here
    }

    /// Whether a record of the ring, known by its first word, is history of a log that the audience may want.
    fn wants_of_log(&self, audience: AudienceId, word: u64) -> bool {
        let prefix = RecordPrefix::from_word(word);
        let instrument = prefix.instrument();
        // What the sequencer sent again is not history: it was had before, or told as a Gap.
        if prefix.flags() & flags::SNAPSHOT != 0 || instrument == 0 || instrument as usize > self.directory.len() {
            return false;
        }
        match prefix.kind() {
            Some(RecordKind::Gap) => true,
            Some(kind) => {
                let log = kind.channel().filter(|channel| channel.is_log());
                log.is_some_and(|channel| self.wants_channel(audience, instrument, channel))
            }
            None => false,
        }
    }

    /// Appends history as packets for one client. Each states the position up to which the client has had everything, so
    /// that it can resume from whichever it got last.
    fn push_log_piece(&mut self, audience: AudienceId, history: &ring::Batch, from: u64, to: u64) {
        let mut arena = std::mem::take(&mut self.scratch.arena);
        // What is wanted is asked of the whole shard meanwhile.
        let mut encoder = std::mem::replace(&mut self.encoder, Encoder::new(1));
        let is_for = |entry: &&ring::Entry| {
            let bytes = history.payload(entry);
            RecordHeader::read(bytes).is_some_and(|header| match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Gap) => self.is_told(audience, RecordKind::Gap, header.instrument, bytes),
                _ => true,
            })
        };
        let each = history.entries.iter().filter(is_for).map(|entry| (entry.tag, history.payload(entry)));
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.tick.now_ns,
            flags: 0,
            last_flags: 0,
            from_position: from,
            to_position: to,
        };
        let is_empty = each.clone().next().is_none();
        let gaps = each.clone().filter(|(_, bytes)| record::kind_of(bytes) == Some(RecordKind::Gap)).count();
        let encoding = self.interest.encoding(audience);
        let count =
            if is_empty { 0 } else { encoder.push_packets(encoding, &packing, &self.directory, each, &mut arena).1 };
        self.scratch.arena = arena;
        self.encoder = encoder;
        self.counters.add(Counter::Records, count);
        self.counters.add(Counter::GapsSent, gaps as u64);
    }

    /// One Gap for every log channel that went on while its records were lost to this client.
    fn push_gaps(&mut self, audience: AudienceId, log: &mut LogMark) {
        let mut records = std::mem::take(&mut self.scratch.records);
        records.clear();
        for instrument in self.interest.candidates(audience, 1) {
            let had = log.sequences.get(instrument as usize - 1).copied().unwrap_or_default();
            for (channel, had) in [Channel::Trade, Channel::Raw].into_iter().zip(had) {
                let newest = self.values.sequence(instrument, channel);
                if newest > had && self.wants_channel(audience, instrument, channel) {
                    let gap = Gap {
                        instrument,
                        channel,
                        from_sequence: had.next(),
                        to_sequence: newest,
                        reason: GapReason::Slow,
                    };
                    gap.encode(self.tick.now_ns, &mut records);
                    self.counters.add(Counter::GapsSent, 1);
                }
            }
        }
        let before = log.position;
        *log = LogMark {
            position: self.tick.position,
            ring_position: self.tick.ring_position,
            sequences: self.log_sequences(),
        };
        if !records.is_empty() {
            self.push_piece(audience, &records, before..=log.position, (0, 0));
        }
        self.scratch.records = records;
    }

    /// Appends records as packets for one client of this audience. They state the position before them, the last one that
    /// after them. `flags` are those of every packet, and those that the last one has besides.
    fn push_piece(
        &mut self,
        audience: AudienceId,
        records: &[u8],
        positions: RangeInclusive<u64>,
        (flags, last_flags): (u8, u8),
    ) {
        let (from_position, to_position) = positions.into_inner();
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.tick.now_ns,
            flags,
            last_flags,
            from_position,
            to_position,
        };
        let mut rest = records;
        let each = std::iter::from_fn(move || {
            let (record, tail) = rest.split_at_checked(RecordHeader::read(rest)?.bytes())?;
            rest = tail;
            Some((from_position, record))
        });
        let encoding = self.interest.encoding(audience);
        let (_, count) = self.encoder.push_packets(encoding, &packing, &self.directory, each, &mut self.scratch.arena);
        self.counters.add(Counter::Records, count);
    }
}

/// True if the newest record of a log channel is the one that the client's mark stands at.
fn is_newest(row: &InstrumentValues, instrument: u32, channel: Channel, log: &LogMark) -> bool {
    let had = log.sequences.get(instrument as usize - 1).copied().unwrap_or_default();
    row.sequence(channel) == had[usize::from(channel == Channel::Raw)]
}

/// What was copied from the history and is looked at record by record, in bytes of looking through: some 30 times as
/// much work.
pub(super) fn cost_of(history: &ring::Batch) -> u64 {
    32 * history.bytes.len() as u64
}

/// The part of the history up to `end` that one turn looks through.
pub(super) fn scan(from: u64, end: u64) -> Range<u64> {
    from..end.min(from + SCAN_BYTES)
}

/// Moves a mark over history that was delivered, so that a Gap after it starts behind it.
fn note_history(history: &ring::Batch, log: &mut LogMark) {
    let Some(last) = history.entries.last() else { return };
    log.position = last.tag;
    let mut sequences = log.sequences.to_vec();
    for entry in &history.entries {
        let bytes = history.payload(entry);
        let Some(header) = RecordHeader::read(bytes) else { continue };
        let (channel, newest) = match RecordKind::from_wire(header.kind) {
            Some(RecordKind::Gap) => match Gap::read(bytes) {
                Some(gap) => (gap.channel, gap.to_sequence),
                None => continue,
            },
            Some(RecordKind::Raw) => (Channel::Raw, header.sequence),
            _ => (Channel::Trade, header.sequence),
        };
        if sequences.len() < header.instrument as usize {
            sequences.resize(header.instrument as usize, Default::default());
        }
        sequences[header.instrument as usize - 1][usize::from(channel == Channel::Raw)] = newest;
    }
    log.sequences = sequences.into();
}

impl Client {
    /// True if further requests have to wait: something of an earlier turn is still owed, or a replay, of which there is
    /// one at a time.
    pub(super) fn must_wait(&self, tick: u64) -> bool {
        let waits = |catch_up: &CatchUp| catch_up.since_tick != tick || catch_up.blocked || catch_up.replay.is_some();
        self.catch_up.as_deref().is_some_and(waits)
    }
}
