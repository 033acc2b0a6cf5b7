//! Resume: what came after a client's token is read from the ring, in order, before the client goes on with what is live.
//!
//! A replay ends at the place of the ring where the shard stood when it was asked for; from there the client is owed what
//! any other is that has fallen behind. So the two join without a seam, and a replay that takes many turns costs no memory.
//!
//! What always holds: log records, and state that is not merged, come in their order. Of state that is merged, or that may
//! have been under way when the token was given, the newest value comes, flagged CONFLATED. So a client may get a value
//! that it has: what is not newer than its sequence is a repetition. The interval asked for is taken for the one that the
//! stream had.
//!
//! A replay that the sequencer overtakes ends in a snapshot, and the client is told so by a second answer.

use super::Shard;
use super::catch_up::{PIECE_BYTES, cost_of, scan};
use super::connections::{CatchUp, Owed};
use super::packets::Packing;
use super::subscription_index::{AudienceId, Key, Target};
use crate::io::Io;
use crate::ring;
use crate::stats::Counter;
use tickcast_protocol::Token;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::control::reply;
use tickcast_protocol::packet;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, RecordPrefix, flags};

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replay {
    /// Of the request, for a second answer.
    pub(super) id: u64,
    pub(super) conflate_ms: u32,
    pub(super) count: usize,
    /// What is replayed, sorted.
    pub(super) keys: Vec<Key>,
    /// The client wants nothing beside it.
    pub(super) alone: bool,
    /// The token: what is newer than this position is replayed.
    pub(super) after: u64,
    /// The next instrument to be announced; above all of them when that is done.
    pub(super) announce: u32,
    /// Where the ring goes on, and where it ends.
    pub(super) next: u64,
    pub(super) end: u64,
    /// The position at that end.
    pub(super) end_position: u64,
}

/// A record of a piece: its position, and where it is in the piece's bytes.
type Piece = Vec<(u64, std::ops::Range<usize>)>;

impl<I: Io> Shard<I> {
    /// Where in the ring the records after a token begin, or somewhat before; `None` where they are not there any more,
    /// or were never.
    pub(super) fn find_token(&self, token: Token, interval: ConflationInterval) -> Option<u64> {
        let position = token.position.get();
        if token.epoch != self.settings.epoch || position > self.tick.position {
            return None;
        }
        let mark = self.history.after(position).ok()?;
        let from = self.history.pending_at(mark, interval).ok()?.place;
        (from >= self.log_floor && from >= self.ring.oldest()).then_some(from)
    }

    /// Appends the next piece of a replay to the arena. True if there is none, or no more of it.
    pub(super) fn push_replay(&mut self, audience: AudienceId, catch_up: &mut CatchUp) -> bool {
        let Some(mut replay) = catch_up.replay.take() else { return true };
        let mut records = std::mem::take(&mut self.scratch.records);
        records.clear();
        let mut piece = Piece::new();
        self.push_definitions(audience, &mut replay, &mut records, &mut piece);
        let read = match records.len() >= PIECE_BYTES {
            true => Ok(()),
            false => self.push_history(audience, &mut replay, &mut records, &mut piece),
        };
        let done = match read {
            Ok(()) => {
                let done = replay.announce == u32::MAX && replay.next >= replay.end;
                self.push_replayed(audience, &replay, &records, &piece, done);
                done
            }
            Err(ring::Overrun { .. }) => {
                self.fall_back(audience, &replay, catch_up);
                true
            }
        };
        if !done {
            catch_up.replay = Some(replay);
        }
        self.scratch.records = records;
        done
    }

    /// Announces the instruments of what is replayed: to this connection they are all new.
    fn push_definitions(&self, audience: AudienceId, replay: &mut Replay, records: &mut Vec<u8>, piece: &mut Piece) {
        if replay.announce == u32::MAX {
            return;
        }
        if replay.announce == 1 {
            let start = records.len();
            self.values.status(0).push_if_received(0, records);
            piece.extend((records.len() > start).then_some((replay.after, start..records.len())));
        }
        for instrument in self.interest.candidates(audience, replay.announce) {
            if records.len() >= PIECE_BYTES {
                replay.announce = instrument;
                return;
            }
            let is_wanted = Channel::ALL.iter().any(|channel| self.wants_channel(audience, instrument, *channel));
            if let Some(definition) = self.directory.get(instrument).filter(|_| is_wanted) {
                let start = records.len();
                record::encode_definition(definition, records);
                piece.push((replay.after, start..records.len()));
                let start = records.len();
                self.values.status(instrument).push_if_received(instrument, records);
                piece.extend((records.len() > start).then_some((replay.after, start..records.len())));
            }
        }
        replay.announce = u32::MAX;
    }

    fn push_history(
        &mut self,
        audience: AudienceId,
        replay: &mut Replay,
        records: &mut Vec<u8>,
        piece: &mut Piece,
    ) -> Result<(), ring::Overrun> {
        let mut history = std::mem::take(&mut self.scratch.history);
        history.clear();
        let wanted = |tag: u64, word: u64| self.replays(audience, replay, tag, RecordPrefix::from_word(word)).is_some();
        let range = scan(replay.next, replay.end);
        let read = self.ring.history(range, PIECE_BYTES, wanted, &mut history);
        if let Ok(next) = read {
            self.scratch.scanned_bytes += next - replay.next + cost_of(&history);
            for entry in &history.entries {
                let start = records.len();
                self.push_entry(audience, replay, entry, history.payload(entry), records);
                if records.len() > start {
                    piece.push((replay.after.max(entry.tag), start..records.len()));
                }
            }
            replay.next = next;
        }
        self.scratch.history = history;
        read.map(|_| ())
    }

    /// Whether an entry of the ring, known by its position and its first word, may be part of a replay; with its channel
    /// and interval, if it has them.
    fn replays(
        &self,
        audience: AudienceId,
        replay: &Replay,
        tag: u64,
        prefix: RecordPrefix,
    ) -> Option<(RecordKind, ConflationInterval)> {
        let (kind, instrument) = (prefix.kind()?, prefix.instrument());
        let sent_again = prefix.flags() & flags::SNAPSHOT != 0;
        let is_new = tag > replay.after;
        let Some(channel) = kind.channel() else {
            let is_told = matches!(kind, RecordKind::Status | RecordKind::Gap) && !sent_again;
            return (is_told && is_new).then_some((kind, ConflationInterval::IMMEDIATE));
        };
        if instrument == 0 || instrument as usize > self.directory.len() {
            return None;
        }
        let interval = self.interest.wants(audience, instrument, channel)?;
        if !replay.alone && self.is_covered_beside(audience, &replay.keys, instrument, channel) {
            return None;
        }
        // What was sent again of a log is no history: where a record of it was new, the history begins after it.
        let is_history = !channel.is_log() || (is_new && !sent_again);
        is_history.then_some((kind, interval))
    }

    /// True if the audience wants a channel of an instrument by another item than these.
    fn is_covered_beside(&self, audience: AudienceId, keys: &[Key], instrument: u32, channel: Channel) -> bool {
        let exact = Key::new(Target::Instrument(instrument), channel);
        let patterns = self.interest.patterns_of(instrument).iter();
        let covering = patterns.map(|pattern| Key::new(Target::Pattern(*pattern), channel));
        std::iter::once(exact)
            .chain(covering)
            .any(|key| self.interest.interval_of(audience, key).is_some() && keys.binary_search(&key).is_err())
    }

    fn push_entry(&self, audience: AudienceId, replay: &Replay, entry: &ring::Entry, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(header) = RecordHeader::read(bytes) else { return };
        let Some(prefix) = RecordPrefix::read(bytes) else { return };
        let Some((kind, interval)) = self.replays(audience, replay, entry.tag, prefix) else { return };
        let instrument = header.instrument;
        let Some(channel) = kind.channel() else {
            // A hole in what the client has had all along was told when it came.
            let beside = |gap: Gap| self.is_covered_beside(audience, &replay.keys, instrument, gap.channel);
            let is_known = || kind == RecordKind::Gap && !replay.alone && Gap::read(bytes).is_some_and(beside);
            if self.is_told(audience, kind, instrument, bytes) && !is_known() {
                out.extend_from_slice(bytes);
            }
            return;
        };
        let sent_again = header.flags & flags::SNAPSHOT != 0;
        let is_new = entry.tag > replay.after || (sent_again && entry.tag == replay.after);
        if channel.is_log() || (is_new && interval == ConflationInterval::IMMEDIATE) {
            let start = out.len();
            out.extend_from_slice(bytes);
            if sent_again {
                // To clients it is no snapshot, but the newest of several that the ring has lost.
                record::patch_flags(&mut out[start..], (header.flags & !flags::SNAPSHOT) | flags::CONFLATED);
            }
            return;
        }
        let end = entry.position + ring::HEADER_BYTES as u64 + u64::from(entry.len);
        if let Some(row) = self.values.row(instrument).filter(|row| row.position(channel) == end) {
            row.push(instrument, channel, flags::CONFLATED, out);
        }
    }

    /// True if a Status or a Gap of the ring is for this audience.
    pub(super) fn is_told(&self, audience: AudienceId, kind: RecordKind, instrument: u32, bytes: &[u8]) -> bool {
        match kind {
            RecordKind::Status if instrument == 0 => true,
            RecordKind::Status => Channel::ALL.iter().any(|channel| self.wants_known(audience, instrument, *channel)),
            RecordKind::Gap => Gap::read(bytes).is_some_and(|gap| self.wants_known(audience, instrument, gap.channel)),
            _ => false,
        }
    }

    fn wants_known(&self, audience: AudienceId, instrument: u32, channel: Channel) -> bool {
        let is_known = instrument != 0 && instrument as usize <= self.directory.len();
        is_known && self.wants_channel(audience, instrument, channel)
    }

    fn push_replayed(&mut self, audience: AudienceId, replay: &Replay, records: &[u8], piece: &Piece, done: bool) {
        if piece.is_empty() && !done {
            return;
        }
        let newest = piece.last().map_or(replay.after, |(position, _)| *position);
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.tick.now_ns,
            flags: packet::flags::REPLAY,
            last_flags: if done { packet::flags::CAUGHT_UP } else { 0 },
            from_position: replay.after,
            to_position: if done { replay.end_position } else { newest },
        };
        let each = piece.iter().map(|(position, range)| (*position, &records[range.clone()]));
        let gaps = each.clone().filter(|(_, bytes)| record::kind_of(bytes) == Some(RecordKind::Gap)).count();
        let encoding = self.interest.encoding(audience);
        let (_, count) = self.encoder.push_packets(encoding, &packing, &self.directory, each, &mut self.scratch.arena);
        self.counters.add(Counter::Records, count);
        self.counters.add(Counter::GapsSent, gaps as u64);
        self.counters.add(Counter::RecordsReplayed, count);
    }

    /// The ring has gone past what was still to be replayed: the client gets a snapshot, and is told so.
    fn fall_back(&mut self, audience: AudienceId, replay: &Replay, catch_up: &mut CatchUp) {
        self.counters.add(Counter::ReplaysLost, 1);
        let mut text = Vec::new();
        let Replay { id, conflate_ms, count, .. } = *replay;
        let from = (self.tick.position + 1).into();
        reply::resumed(&mut text, &reply::Resumed { id, how: "snapshot", from, conflate_ms, count, unknown: &[] });
        self.interest.encoding(audience).format.push_answer(&text, &mut self.scratch.arena);
        catch_up.owe(replay.keys.iter().map(|key| (*key, Owed::Snapshot)));
        catch_up.snapshot = true;
    }
}
