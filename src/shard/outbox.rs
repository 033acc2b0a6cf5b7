//! Bytes that are to be sent and the sends that point at them, handed to the kernel in batches.
//!
//! A send takes all its bytes, or the rest is kept: a client whose socket is full or broken is listed in `stopped`,
//! from which the shard takes it off the live path. Members of one audience share the bytes, also those that are kept: in
//! the history of what their audience was sent, or, where that is not possible, in one copy of the rest.

use std::collections::VecDeque;

use bytes::Bytes;

use super::boundary::boundary_after;
use super::fan_out::FanOut;
use super::sent_history::{SentCount, SentFlush, audience_limit};
use super::subscription_index::AudienceId;
use crate::io::{Io, SendOp, SendOutcome, ShortSend, SlotId};
use crate::stats::{Counter, ShardCounters};

/// Packets are made and sent in portions of this size, so that the bytes are still in the cache when they are sent.
pub(super) const PORTION_BYTES: usize = 256 * 1024;

/// What a send costs beside its bytes: as much as so many bytes more.
pub(super) const SEND_COST_BYTES: usize = 16 * 1024;

/// Sends that have been prepared, and their bytes.
#[derive(Debug, Default)]
pub(super) struct SendBatch {
    pub(super) arena: Vec<u8>,
    pub(super) sends: Vec<SendOp>,
    /// The packets of a flush that all members of their audiences are sent, in the order of the arena.
    packets: Vec<AudiencePacket>,
    /// The first boundary of a frame or event in each send; sends of whole frames have no entry.
    boundaries: Vec<u32>,
}

/// Packets that all members of an audience are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct AudiencePacket {
    pub(super) audience: AudienceId,
    /// Where they start in the arena.
    pub(super) start: u32,
    pub(super) count: SentCount,
}

impl SendBatch {
    /// Adds a send of the bytes from `start` on, unless there are none. `boundary` is the first boundary of a frame or
    /// event in them.
    pub(super) fn push_send(&mut self, slot_id: SlotId, start: usize, boundary: usize) {
        let len = self.arena.len() - start;
        if len > 0 {
            self.sends.push(SendOp { slot_id, start: start as u32, len: len as u32 });
            self.boundaries.push(boundary as u32);
        }
    }

    /// Notes that the sends from here on are of a packet for a whole audience.
    pub(super) fn push_packet(&mut self, packet: AudiencePacket) {
        self.packets.push(packet);
    }

    fn packet_at(&self, start: u32) -> Option<&AudiencePacket> {
        let at = self.packets.binary_search_by_key(&start, |packet| packet.start).ok()?;
        Some(&self.packets[at])
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.sends.clear();
        self.packets.clear();
        self.boundaries.clear();
    }
}

/// A client whose send did not take all its bytes.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The socket is full; the history of the audience has the rest from this offset on.
    Lagging { slot_id: SlotId, offset: u64, took: bool },
    /// The socket is full; `took` is true if it took some bytes. `boundary` is the first boundary of a frame or event in
    /// the rest.
    Full { slot_id: SlotId, rest: Bytes, boundary: usize, took: bool },
    /// The connection is broken.
    Broken { slot_id: SlotId },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox<I> {
    pub(super) io: I,
    pub(super) batch: SendBatch,
    /// Clients that stopped since the list was last emptied.
    pub(super) stopped: VecDeque<Stopped>,
    short: Vec<ShortSend>,
    live_cost_bytes: usize,
}

impl<I: Io> Outbox<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, batch: SendBatch::default(), stopped: VecDeque::new(), short: Vec::new(), live_cost_bytes: 0 }
    }

    /// True once a portion of packets should be sent.
    pub(super) fn is_portion_full(&self) -> bool {
        self.batch.arena.len() >= PORTION_BYTES
    }

    /// Sends data packets of the live path. Members that are cut go on in the history of their audience.
    pub(super) fn send_packets(&mut self, flush: &SentFlush, fan_out: &mut FanOut, counters: &mut ShardCounters) {
        let (sends, bytes) = self.count_packets(counters);
        self.live_cost_bytes += bytes + sends * SEND_COST_BYTES;
        self.hand_over(counters);
        if !self.short.is_empty() {
            let offset_of = |packet: &AudiencePacket, bytes: &[u8]| offset_in_history(packet, bytes, flush, fan_out);
            keep_rests(&self.batch, &self.short, offset_of, &mut self.stopped);
            self.short.clear();
        }
        self.batch.clear();
    }

    /// Sends heartbeats of the live path.
    pub(super) fn send_heartbeats(&mut self, counters: &mut ShardCounters) {
        self.count_packets(counters);
        self.send(counters);
    }

    /// What the live path has cost since this was last asked, in bytes.
    pub(super) fn take_live_cost(&mut self) -> usize {
        std::mem::take(&mut self.live_cost_bytes)
    }

    /// Sends what was prepared for single clients.
    pub(super) fn send(&mut self, counters: &mut ShardCounters) {
        self.hand_over(counters);
        if !self.short.is_empty() {
            keep_rests(&self.batch, &self.short, |_, _| None, &mut self.stopped);
            self.short.clear();
        }
        self.batch.clear();
    }

    /// Sends parts of `bytes`, which are kept elsewhere. Returns the short sends.
    pub(super) fn send_kept(&mut self, bytes: &[u8], sends: &[SendOp], counters: &mut ShardCounters) -> Vec<ShortSend> {
        let mut short = Vec::new();
        self.io.send_batch(bytes, sends, &mut short);
        counters.add(Counter::ShortSends, short.len() as u64);
        short
    }

    /// Counts the prepared sends of data packets; returns how many there are and their bytes.
    fn count_packets(&self, counters: &mut ShardCounters) -> (usize, usize) {
        let sends = &self.batch.sends;
        let bytes = sends.iter().map(|send| send.len as usize).sum();
        counters.add(Counter::Packets, sends.len() as u64);
        counters.add(Counter::PacketBytes, bytes as u64);
        (sends.len(), bytes)
    }

    fn hand_over(&mut self, counters: &mut ShardCounters) {
        let SendBatch { arena, sends, .. } = &self.batch;
        if !sends.is_empty() {
            self.io.send_batch(arena, sends, &mut self.short);
            counters.add(Counter::ShortSends, self.short.len() as u64);
        }
    }
}

/// Where packets of this flush start in the history of their audience; begins one if need be. `None` if there is no room.
fn offset_in_history(
    packet: &AudiencePacket,
    bytes: &[u8],
    flush: &SentFlush,
    FanOut { index, audiences, histories, .. }: &mut FanOut,
) -> Option<u64> {
    let AudiencePacket { audience, count, .. } = *packet;
    let limit = audience_limit(flush.history_bytes_max, audiences.served_len(audience));
    histories.offset_of(audience, bytes, (count, index.has_state(audience)), flush, limit)
}

/// Lists the clients that stopped: with an offset in the history of their audience, or with the bytes that were not
/// taken, one copy for neighbours with the same packet.
fn keep_rests(
    batch: &SendBatch,
    short: &[ShortSend],
    mut offset_of: impl FnMut(&AudiencePacket, &[u8]) -> Option<u64>,
    stopped: &mut VecDeque<Stopped>,
) {
    let range = |short: &ShortSend| {
        let send = batch.sends[short.index as usize];
        (send.start as usize, send.len as usize)
    };
    for same in short.chunk_by(|one, other| range(one) == range(other)) {
        let (start, len) = range(&same[0]);
        let bytes = &batch.arena[start..start + len];
        let is_open = same.iter().any(|short| taken(short).is_some());
        let offset = batch.packet_at(start as u32).filter(|_| is_open).and_then(|packet| offset_of(packet, bytes));
        let skipped = same.iter().filter_map(taken).min().unwrap_or(len);
        let rest = if offset.is_none() { Bytes::copy_from_slice(&bytes[skipped..]) } else { Bytes::new() };
        stopped.extend(same.iter().map(|short| {
            let slot_id = batch.sends[short.index as usize].slot_id;
            match (taken(short), offset) {
                (None, _) => Stopped::Broken { slot_id },
                (Some(taken), Some(offset)) => {
                    Stopped::Lagging { slot_id, offset: offset + taken as u64, took: taken > 0 }
                }
                (Some(taken), None) => {
                    let first = batch.boundaries.get(short.index as usize).map_or(0, |first| *first as usize);
                    let boundary = boundary_after(bytes, first, taken) - taken;
                    Stopped::Full { slot_id, rest: rest.slice(taken - skipped..), boundary, took: taken > 0 }
                }
            }
        }));
    }
}

/// Bytes that a socket took; `None` if the connection is broken.
pub(super) fn taken(short: &ShortSend) -> Option<usize> {
    match short.outcome {
        SendOutcome::Took(taken) => Some(taken as usize),
        SendOutcome::Failed => None,
    }
}
