//! Resume: the records after a client's token are read from the ring, in order, before the client is sent anything
//! newer.
//!
//! A replay ends at the ring offset that the shard had read up to when the request was carried out. From there the
//! client is caught up like any other that is behind, so the two join without a gap, and a replay that takes many ticks
//! takes no more memory.
//!
//! `requests/subscribe.rs` begins a replay, at the ring offset that `history.rs` finds for the token.
//!
//! What always holds: log records, and state that is not conflated, are sent in their order. For conflated state, and for
//! state that may have been pending when the token was issued, only the newest value is sent, flagged CONFLATED. A client
//! may receive a value that it has: one that is not newer than its sequence is a repetition. The shard assumes that the
//! old stream used the conflation interval of the resume request.
//!
//! A replay that the sequencer overtakes ends in a snapshot, which a second answer announces. So does one from before a
//! Definition that changed exponents: a client is sent the present Definitions first.

use std::ops::{ControlFlow, Range};

use super::super::backlog::{Buffers, InitialValue, OwnBacklog, Replay};
use super::super::encoding::Format;
use super::super::subscription_index::{AudienceId, Key, SubscriptionIndex};
use super::{CatchUp, PacketFields, scan_range};
use crate::ring;
use crate::stats::Counter;
use tickcast_protocol::control::reply;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, RecordPrefix, flags};
use tickcast_protocol::{ConflationInterval, Position, packet};

/// Records of one piece of a replay: the position of each, and where it is in the piece's bytes.
struct Piece<'a> {
    bytes: &'a mut Vec<u8>,
    records: Vec<(Position, Range<usize>)>,
    bytes_max: usize,
}

impl Piece<'_> {
    /// Adds what `push` appends, if anything, as a record.
    fn add(&mut self, position: Position, push: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        push(self.bytes);
        if self.bytes.len() > start {
            self.records.push((position, start..self.bytes.len()));
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= self.bytes_max
    }
}

impl CatchUp<'_> {
    /// Appends the next piece of a replay. True if there is no replay, or no more of it; and the bytes of the records.
    pub(super) fn push_replay(
        &mut self,
        audience: AudienceId,
        backlog: &mut OwnBacklog,
        buffers: &mut Buffers,
        piece_bytes: usize,
    ) -> (bool, usize) {
        let Some(replay) = &mut backlog.replay else { return (true, 0) };
        buffers.records.clear();
        let mut piece = Piece { bytes: &mut buffers.records, records: Vec::new(), bytes_max: piece_bytes };
        self.push_definitions(audience, replay, &mut piece);
        let has_old_exponents = replay.range.start < self.history.replay_floor();
        let read = match piece.is_full() {
            _ if has_old_exponents => None,
            true => Some(()),
            false => self.read_replay(audience, replay, &mut buffers.batch, &mut piece).ok(),
        };
        match read {
            Some(()) => {
                let is_done = replay.is_done();
                self.push_replayed(audience, replay, &piece, is_done);
                if is_done {
                    backlog.replay = None;
                }
                (is_done, buffers.records.len())
            }
            None => {
                if let Some(replay) = backlog.replay.take() {
                    self.answer_overtaken(audience, &replay);
                    backlog.request(replay.keys.into_iter().map(|key| (key, InitialValue::Snapshot)));
                    backlog.snapshot = true;
                }
                (true, 0)
            }
        }
    }

    /// Announces the instruments that are replayed: to this connection they are all new.
    fn push_definitions(&self, audience: AudienceId, replay: &mut Replay, piece: &mut Piece<'_>) {
        let Some(first) = replay.announce else { return };
        let (market, after) = (self.market, replay.after);
        if first == 1 {
            piece.add(after, |out| market.values.status(0).push_if_received(0, out));
        }
        replay.announce = self.index.try_each_candidate(audience, first, |instrument| {
            if piece.is_full() {
                return ControlFlow::Break(());
            }
            let is_wanted =
                Channel::ALL.iter().any(|channel| self.index.wants(audience, instrument, *channel).is_some());
            if let Some(definition) = market.directory.get(instrument).filter(|_| is_wanted) {
                piece.add(after, |out| record::encode_definition(definition, out));
                piece.add(after, |out| market.values.status(instrument).push_if_received(instrument, out));
            }
            ControlFlow::Continue(())
        });
    }

    /// Reads the next part of the replay's range and adds the records that the client is sent.
    fn read_replay(
        &mut self,
        audience: AudienceId,
        replay: &mut Replay,
        batch: &mut ring::Batch,
        piece: &mut Piece<'_>,
    ) -> Result<(), ring::Overrun> {
        batch.clear();
        let index = self.index;
        let Range { start, end } = replay.range;
        let wanted = |position: Position, word: u64| {
            replayed_kind(index, audience, replay, position, RecordPrefix::from_word(word)).is_some()
        };
        let bytes_max = piece.bytes_max.saturating_sub(piece.bytes.len());
        let next = self.ring.history(scan_range(start, end), bytes_max, wanted, batch)?;
        self.charge_scan(next - start, batch);
        replay.range.start = next;
        for entry in &batch.entries {
            // A change of a book may become a whole book.
            if piece.is_full() {
                replay.range.start = entry.offset;
                break;
            }
            let bytes = batch.payload(entry);
            piece.add(replay.after.max(entry.position), |out| self.push_entry(audience, replay, entry, bytes, out));
        }
        Ok(())
    }

    fn push_entry(&self, audience: AudienceId, replay: &Replay, entry: &ring::Entry, bytes: &[u8], out: &mut Vec<u8>) {
        let (Some(header), Some(prefix)) = (RecordHeader::read(bytes), RecordPrefix::read(bytes)) else { return };
        let Some((kind, interval)) = replayed_kind(self.index, audience, replay, entry.position, prefix) else {
            return;
        };
        let Some(channel) = kind.channel() else {
            return self.push_event(audience, replay, kind, header.instrument, bytes, out);
        };
        // Of a book of a limited depth no change is replayed: the client is sent the present state behind the replay.
        if channel == Channel::Book && self.index.book_levels(audience, header.instrument).is_some() {
            return;
        }
        let is_resent = header.flags & flags::SNAPSHOT != 0;
        let is_new = entry.position > replay.after || (is_resent && entry.position == replay.after);
        if channel.is_log() || (is_new && interval == ConflationInterval::IMMEDIATE) {
            let start = out.len();
            out.extend_from_slice(bytes);
            if is_resent {
                // To clients it is no snapshot, but the newest of several values that the ring has lost.
                record::patch_flags(&mut out[start..], (header.flags & !flags::SNAPSHOT) | flags::CONFLATED);
            }
            return;
        }
        let values = self.market.values.row(header.instrument);
        if let Some(values) = values.filter(|values| values.origin(channel) == entry.end()) {
            values.push(header.instrument, channel, flags::CONFLATED, out);
        }
    }

    /// Appends a Status or a Gap that concerns the replayed items.
    fn push_event(
        &self,
        audience: AudienceId,
        replay: &Replay,
        kind: RecordKind,
        instrument: u32,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) {
        // If another item of the client covers the channel, the client has already had the Gap.
        let was_sent = |gap: Gap| is_covered_beside(self.index, audience, &replay.keys, instrument, gap.channel);
        let is_known =
            || kind == RecordKind::Gap && !replay.has_only_these_items && Gap::read(bytes).is_some_and(was_sent);
        if self.index.wants_event(audience, kind, instrument, bytes)
            && !is_known()
            && !self.is_of_namesake(audience, instrument)
        {
            out.extend_from_slice(bytes);
        }
    }

    /// True if an instrument is released, and the client knows by its name, as in JSON, the one that was defined since:
    /// the Definition of that precedes the replay.
    fn is_of_namesake(&self, audience: AudienceId, instrument: u32) -> bool {
        let directory = &self.market.directory;
        let is_defined_again = || {
            let released = directory.last_known(instrument).filter(|known| directory.get(known.id).is_none());
            released.is_some_and(|released| directory.find(&released.symbol).is_some())
        };
        self.index.encoding(audience).format != Format::Binary && is_defined_again()
    }

    fn push_replayed(&mut self, audience: AudienceId, replay: &Replay, piece: &Piece<'_>, is_done: bool) {
        if piece.records.is_empty() && !is_done {
            return;
        }
        let newest = piece.records.last().map_or(replay.after, |(position, _)| *position);
        let fields = PacketFields {
            positions: (replay.after, if is_done { replay.end_position } else { newest }),
            flags: packet::flags::REPLAY,
            last_flags: if is_done { packet::flags::CAUGHT_UP } else { 0 },
        };
        let records = piece.records.iter().map(|(position, range)| (*position, &piece.bytes[range.clone()]));
        let gaps = records.clone().filter(|(_, bytes)| record::kind_of(bytes) == Some(RecordKind::Gap)).count();
        let count = self.push_packets(audience, fields, records);
        self.counters.add(Counter::GapsSent, gaps as u64);
        self.counters.add(Counter::RecordsReplayed, count);
    }

    /// Answers a resume once more: the ring has been overwritten before it was replayed, and a snapshot follows.
    fn answer_overtaken(&mut self, audience: AudienceId, replay: &Replay) {
        self.counters.add(Counter::ReplaysLost, 1);
        let mut text = Vec::new();
        let Replay { id, conflate_ms, count, .. } = *replay;
        let from = self.market.position.next();
        let delay_s = self.index.delay_s();
        let answer =
            reply::Resumed { id, how: "snapshot", from, conflate_ms, count, delay_s, ..reply::Resumed::default() };
        reply::resumed(&mut text, &answer);
        self.index.encoding(audience).format.push_answer(&text, self.arena);
    }
}

/// The kind and interval of an entry of the ring, known by its position and its first word, if it may be part of a
/// replay.
fn replayed_kind(
    index: &SubscriptionIndex,
    audience: AudienceId,
    replay: &Replay,
    position: Position,
    prefix: RecordPrefix,
) -> Option<(RecordKind, ConflationInterval)> {
    let (kind, instrument) = (prefix.kind()?, prefix.instrument());
    let is_resent = prefix.flags() & flags::SNAPSHOT != 0;
    let is_new = position > replay.after;
    let Some(channel) = kind.channel() else {
        let is_event = matches!(kind, RecordKind::Status | RecordKind::Gap) && !is_resent;
        return (is_event && is_new).then_some((kind, ConflationInterval::IMMEDIATE));
    };
    if !index.is_defined(instrument) || index.is_released(instrument) {
        return None;
    }
    let interval = index.wants(audience, instrument, channel)?;
    if !replay.has_only_these_items && is_covered_beside(index, audience, &replay.keys, instrument, channel) {
        return None;
    }
    // Resent log records are not history: where one of them was new, the history begins after it.
    let is_history = !channel.is_log() || (is_new && !is_resent);
    is_history.then_some((kind, interval))
}

/// True if the audience wants a channel of an instrument by another item than these.
fn is_covered_beside(
    index: &SubscriptionIndex,
    audience: AudienceId,
    keys: &[Key],
    instrument: u32,
    channel: Channel,
) -> bool {
    index.any_covering(instrument, channel, |key| {
        index.interval_of(audience, key).is_some() && keys.binary_search(&key).is_err()
    })
}
