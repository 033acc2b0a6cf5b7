//! Phase 2: for each audience that records were marked for, its packets once, and one send for each member.
//!
//! Where an audience has lagging members, its packets are also appended to its history, see
//! [`sent_history`](super::sent_history). A member whose send is cut becomes a lagging member.
//!
//! A member that joined in the middle of a conflation interval has had some of the values that are due. Such members
//! get packets without those values; members that joined at the same ring offset share them.

use super::Settings;
use super::audiences::Audiences;
use super::fan_out::FanOut;
use super::market_view::MarketView;
use super::outbox::{AudiencePacket, Outbox, SendBatch};
use super::packets::Packing;
use super::sent_history::{MarkPoint, SentCount, SentFlush};
use super::subscription_index::AudienceId;
use super::tick_records::{Now, TickRecords};
use crate::io::{Io, SendOp, SlotId};
use crate::ring::RingOffset;
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::Position;
use tickcast_protocol::record::{self, RecordKind};

/// What the packets of one flush have in common.
struct Flush<'a> {
    packing: Packing,
    market: &'a MarketView,
    sent: SentFlush,
}

/// Serves all audiences that this tick has records for. True if there were any.
pub(super) fn flush<I: Io>(
    now: Now,
    settings: &Settings,
    market: &MarketView,
    fan_out: &mut FanOut,
    outbox: &mut Outbox<I>,
    counters: &mut ShardCounters,
) -> bool {
    let packing = Packing {
        epoch: settings.epoch,
        ts_send: now.wall_ns(),
        flags: 0,
        last_flags: 0,
        from_position: market.last_position,
        to_position: market.position,
    };
    let (position, announced) = (market.position, market.directory.len() as u32);
    let point = MarkPoint { tick: now.tick, ring_offset: market.offset, position, announced };
    let sent = SentFlush { ns: now.ns, point, history_bytes_max: settings.sent_history_bytes };
    let flush = Flush { packing, market, sent };
    let touched = fan_out.audiences.sort_marks();
    for index in 0..touched {
        let audience = fan_out.audiences.touched(index);
        if fan_out.audiences.served_len(audience) > 0 {
            let records = push_audience(audience, &flush, fan_out, &mut outbox.batch);
            counters.add(Counter::Records, records);
            fan_out.audiences.note_sent(audience, now.ns);
            if outbox.is_portion_full() {
                outbox.send_packets(&sent, fan_out, counters);
            }
        }
    }
    outbox.send_packets(&sent, fan_out, counters);
    touched > 0
}

/// Appends the packets of an audience and a send for each member, and the packets to the history of an audience with
/// lagging members. Returns how many records these are for all members together.
fn push_audience(audience: AudienceId, flush: &Flush<'_>, fan_out: &mut FanOut, batch: &mut SendBatch) -> u64 {
    let FanOut { index, audiences, encoder, records, join_marks, histories, marked_members, .. } = fan_out;
    let (encoding, marked) = (audiences.encoding(audience), audiences.marked(audience));
    let start = batch.arena.len();
    let each = marked.iter().map(|number| records.get(*number));
    let (hidden, directory) = (index.hidden_fields(audience), &flush.market.directory);
    let (_, count) = encoder.push_packets(encoding, hidden, &flush.packing, directory, each.clone(), &mut batch.arena);
    // Only for a history is it worth looking at each record once more.
    let gaps = match histories.get(audience) {
        None => 0,
        Some(_) => each.filter(|(_, bytes)| record::kind_of(bytes) == Some(RecordKind::Gap)).count() as u64,
    };
    let count = SentCount { records: count, gaps };
    histories.append(audience, &batch.arena[start..], count, &flush.sent);
    let members = audiences.members_len(audience);
    if members == 0 {
        batch.arena.truncate(start);
        return 0;
    }
    batch.push_packet(AudiencePacket { audience, start: start as u32, count });
    let (start, len) = (start as u32, (batch.arena.len() - start) as u32);
    let send = |slot_id| SendOp { slot_id, start, len };
    if join_marks.is_empty() {
        batch.sends.extend(audiences.members(audience).map(send));
        return count.records * members as u64;
    }
    // Live records are newer than any join mark; only conflated values may be older.
    let oldest = marked.iter().map(|number| records.ring_end(*number)).min();
    let sends_before = batch.sends.len();
    for slot_id in audiences.members(audience) {
        match join_marks.get(slot_id).filter(|mark| oldest.is_some_and(|oldest| oldest <= *mark)) {
            Some(mark) => marked_members.push((mark, slot_id)),
            None => batch.sends.push(send(slot_id)),
        }
    }
    let shared = count.records * (batch.sends.len() - sends_before) as u64;
    shared + push_marked_members(audience, flush, fan_out, batch)
}

/// Appends packets for the members that have had some of the records. Returns how many records these are together.
fn push_marked_members(audience: AudienceId, flush: &Flush<'_>, fan_out: &mut FanOut, batch: &mut SendBatch) -> u64 {
    let FanOut { index, audiences, encoder, records, marked_members, .. } = fan_out;
    let (encoding, hidden) = (audiences.encoding(audience), index.hidden_fields(audience));
    let directory = &flush.market.directory;
    let mut total = 0;
    marked_members.sort_unstable();
    for same in marked_members.chunk_by(|one, other| one.0 == other.0) {
        let newer = records_after(same[0].0, audience, audiences, records);
        if newer.clone().next().is_none() {
            continue;
        }
        let start = batch.arena.len();
        let (_, count) = encoder.push_packets(encoding, hidden, &flush.packing, directory, newer, &mut batch.arena);
        let (start, len) = (start as u32, (batch.arena.len() - start) as u32);
        batch.sends.extend(same.iter().map(|(_, slot_id): &(RingOffset, SlotId)| SendOp {
            slot_id: *slot_id,
            start,
            len,
        }));
        total += count * same.len() as u64;
    }
    marked_members.clear();
    total
}

/// The records that were marked for an audience and end behind this ring offset.
fn records_after<'a>(
    offset: RingOffset,
    audience: AudienceId,
    audiences: &'a Audiences,
    records: &'a TickRecords,
) -> impl Iterator<Item = (Position, &'a [u8])> + Clone {
    let newer = move |number: &&u32| records.ring_end(**number) > offset;
    audiences.marked(audience).iter().filter(newer).map(|number| records.get(*number))
}
