//! Phase 2: one packet for each audience for which something has gathered, one send per member.

use bytes::Bytes;

use super::packets::Packing;
use super::subscription_index::AudienceId;
use super::{Shard, connections};
use crate::io::{Io, SendOp, SendOutcome};
use crate::stats::Counter;

/// Packets are made and sent in portions of this size, so that the bytes are still in the cache when they are sent.
pub(super) const PORTION_BYTES: usize = 256 * 1024;

impl<I: Io> Shard<I> {
    /// Serves all audiences that this turn has something for.
    pub(super) fn flush(&mut self) -> bool {
        let touched = self.audiences.gather();
        for index in 0..touched {
            self.serve(self.audiences.touched_at(index));
            if self.scratch.arena.len() >= PORTION_BYTES {
                self.send_portion();
            }
        }
        self.send_portion();
        touched > 0
    }

    fn serve(&mut self, audience: AudienceId) {
        if self.audiences.members_len(audience) == 0 {
            return;
        }
        let records = self.make_sends(audience);
        self.audiences.served(audience, self.tick.now_ns);
        self.counters.add(Counter::Records, records);
    }

    /// Appends the audience's packets to the arena and a send for each member; returns how many records these are for
    /// all members together.
    fn make_sends(&mut self, audience: AudienceId) -> u64 {
        let tick = &self.tick;
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: tick.now_ns,
            flags: 0,
            last_flags: 0,
            from_position: tick.from_position,
            to_position: tick.position,
        };
        let gathered = self.audiences.gathered(audience);
        // Live records are newer than anyone's joining; only what was merged can be older.
        let oldest = match self.fresh.is_empty() {
            true => u64::MAX,
            false => gathered.iter().map(|number| tick.records[*number as usize].place).min().unwrap_or(u64::MAX),
        };
        let arena = &mut self.scratch.arena;
        let start = arena.len();
        let records = gathered.iter().map(|number| tick.record(*number));
        let encoding = self.audiences.encoding(audience);
        let (_, count) = self.encoder.push_packets(encoding, &packing, &self.directory, records, arena);
        let (start, len) = (start as u32, (arena.len() - start) as u32);
        let sends_before = self.scratch.sends.len();
        for slot_id in self.audiences.members(audience) {
            match self.fresh.get(&slot_id.index).filter(|fresh| oldest <= fresh.place) {
                Some(fresh) => self.scratch.own.push((fresh.place, slot_id)),
                None => self.scratch.sends.push(SendOp { slot_id, start, len }),
            }
        }
        let shared = count * (self.scratch.sends.len() - sends_before) as u64;
        shared + self.make_own_sends(audience, &packing)
    }

    /// Packets for members that had the present values when they joined: what was merged from before then they have
    /// had. Those who joined at the same place share one. Returns how many records these are together.
    fn make_own_sends(&mut self, audience: AudienceId, packing: &Packing) -> u64 {
        let mut records = 0;
        let mut own = std::mem::take(&mut self.scratch.own);
        own.sort_unstable();
        for same in own.chunk_by(|one, other| one.0 == other.0) {
            let had = same[0].0;
            let tick = &self.tick;
            let is_news = |number: &&u32| tick.records[**number as usize].place > had;
            let gathered = self.audiences.gathered(audience).iter();
            let news = gathered.filter(is_news).map(|number| tick.record(*number));
            if news.clone().next().is_none() {
                continue;
            }
            let start = self.scratch.arena.len();
            let encoding = self.audiences.encoding(audience);
            let (_, count) =
                self.encoder.push_packets(encoding, packing, &self.directory, news, &mut self.scratch.arena);
            records += count * same.len() as u64;
            let (start, len) = (start as u32, (self.scratch.arena.len() - start) as u32);
            self.scratch.sends.extend(same.iter().map(|(_, slot_id)| SendOp { slot_id: *slot_id, start, len }));
        }
        own.clear();
        self.scratch.own = own;
        records
    }

    /// Hands the gathered sends to the kernel. Whom a full socket stops is taken out, with the rest of the send.
    pub(super) fn send_portion(&mut self) {
        if self.scratch.sends.is_empty() {
            self.scratch.arena.clear();
            return;
        }
        let mut short = std::mem::take(&mut self.scratch.short);
        short.clear();
        self.io.send_batch(&self.scratch.arena, &self.scratch.sends, &mut short);
        self.counters.add(Counter::Packets, self.scratch.sends.len() as u64);
        self.counters.add(Counter::PacketBytes, self.scratch.sends.iter().map(|send| u64::from(send.len)).sum());
        self.counters.add(Counter::ShortSends, short.len() as u64);
        let mut shared: Option<(SendOp, Bytes)> = None;
        for stopped in &short {
            let send = self.scratch.sends[stopped.index as usize];
            match stopped.outcome {
                SendOutcome::Failed => self.drop_client(send.slot_id.index),
                SendOutcome::Took(taken) => {
                    let whole = match &shared {
                        Some((same, whole)) if (same.start, same.len) == (send.start, send.len) => whole.clone(),
                        _ => Bytes::copy_from_slice(&self.scratch.arena[send.start as usize..][..send.len as usize]),
                    };
                    shared = Some((send, whole.clone()));
                    self.block(send.slot_id.index, whole.slice(taken as usize..));
                }
            }
        }
        self.scratch.short = short;
        self.scratch.sends.clear();
        self.scratch.arena.clear();
    }

    /// A socket is full: the rest is kept, and the client is served again once there is room.
    pub(super) fn block(&mut self, slot: u32, rest: Bytes) {
        let now_ns = self.tick.now_ns;
        if self.client(slot).is_none() {
            return;
        }
        let catch_up: &mut connections::CatchUp = self.begin_catch_up(slot, now_ns);
        catch_up.tail = rest;
        catch_up.blocked = true;
        let slot_id = self.client(slot).expect("looked up above").slot_id;
        self.io.want_writable(slot_id);
    }
}
