//! Bytes that are to be sent and the sends that point at them, handed to the kernel in batches.
//!
//! A send takes all its bytes, or the rest is kept: a client whose socket is full or broken is listed in `stopped`,
//! from which the shard takes it off the live path. Members of one audience share the bytes, also those that are kept.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::io::{Io, SendOp, SendOutcome, ShortSend, SlotId};
use crate::stats::{Counter, ShardCounters};

/// Packets are made and sent in portions of this size, so that the bytes are still in the cache when they are sent.
pub(super) const PORTION_BYTES: usize = 256 * 1024;

/// Sends that have been prepared, and their bytes.
#[derive(Debug, Default)]
pub(super) struct SendBatch {
    pub(super) arena: Vec<u8>,
    pub(super) sends: Vec<SendOp>,
}

impl SendBatch {
    /// Adds a send of the bytes from `start` on, unless there are none.
    pub(super) fn push_send(&mut self, slot_id: SlotId, start: usize) {
        let len = self.arena.len() - start;
        if len > 0 {
            self.sends.push(SendOp { slot_id, start: start as u32, len: len as u32 });
        }
    }
}

/// A client whose send did not take all its bytes.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The socket is full; `took` is true if it took some bytes.
    Full { slot_id: SlotId, rest: Bytes, took: bool },
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
}

impl<I: Io> Outbox<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, batch: SendBatch::default(), stopped: VecDeque::new(), short: Vec::new() }
    }

    /// Sends data packets of the live path once a portion is full.
    pub(super) fn send_full_portion(&mut self, counters: &mut ShardCounters) {
        if self.batch.arena.len() >= PORTION_BYTES {
            self.send_packets(counters);
        }
    }

    /// Sends data packets of the live path.
    pub(super) fn send_packets(&mut self, counters: &mut ShardCounters) {
        let sends = &self.batch.sends;
        counters.add(Counter::Packets, sends.len() as u64);
        counters.add(Counter::PacketBytes, sends.iter().map(|send| u64::from(send.len)).sum());
        self.send(counters);
    }

    /// Hands what was prepared to the kernel.
    pub(super) fn send(&mut self, counters: &mut ShardCounters) {
        let SendBatch { arena, sends } = &mut self.batch;
        if !sends.is_empty() {
            self.io.send_batch(arena, sends, &mut self.short);
            if !self.short.is_empty() {
                counters.add(Counter::ShortSends, self.short.len() as u64);
                keep_rests(arena, sends, &self.short, &mut self.stopped);
                self.short.clear();
            }
        }
        sends.clear();
        arena.clear();
    }
}

/// Lists the clients that stopped, with the bytes that were not taken: one copy for neighbours with the same packet.
fn keep_rests(arena: &[u8], sends: &[SendOp], short: &[ShortSend], stopped: &mut VecDeque<Stopped>) {
    let range = |short: &ShortSend| {
        let send = sends[short.index as usize];
        (send.start as usize, send.len as usize)
    };
    let taken = |short: &ShortSend| match short.outcome {
        SendOutcome::Took(taken) => Some(taken as usize),
        SendOutcome::Failed => None,
    };
    for same in short.chunk_by(|one, other| range(one) == range(other)) {
        let (start, len) = range(&same[0]);
        let skipped = same.iter().filter_map(taken).min().unwrap_or(len);
        let shared = Bytes::copy_from_slice(&arena[start + skipped..start + len]);
        stopped.extend(same.iter().map(|short| {
            let slot_id = sends[short.index as usize].slot_id;
            match taken(short) {
                Some(taken) => Stopped::Full { slot_id, rest: shared.slice(taken - skipped..), took: taken > 0 },
                None => Stopped::Broken { slot_id },
            }
        }));
    }
}
