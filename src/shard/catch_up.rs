//! Phase 6: serves the clients that are not on the live path.
//!
//! A client is sent, in this order and as far as its share of a tick goes: the rest of a send that was cut, answers,
//! the replay of a resume ([`replay`]), changed values ([`state`]), and log records from where they stopped, or a Gap
//! ([`log`]). When nothing is missing at the end of a tick, the client becomes a member of its audience again.
//!
//! What always holds:
//! * Clients are served in turn: one that is not done is queued again behind the others.
//! * A client that becomes a member has had everything that was dispatched up to the end of this tick. The next tick's
//!   records follow without a gap and without a repetition.
//! * Only the client's own backlog changes, and two caches: the collected log sequences and the encoder's buffers. The
//!   ring, the values and the subscriptions are read.
//!
//! Cost: encoding is done for each client alone. The phase stops at a budget for all clients of a tick, so that members
//! are not kept waiting.

mod log;
mod replay;
mod state;

use std::ops::Range;

use super::Settings;
use super::client_context::ClientContext;
use super::conflation::Conflator;
use super::encoding::Encoder;
use super::fan_out::FanOut;
use super::history::History;
use super::market_view::MarketView;
use super::packets::Packing;
use super::subscription_index::{AudienceId, SubscriptionIndex};
use super::tick_records::Now;
use crate::io::{Io, SlotId};
use crate::ring::{self, RingOffset};
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::Position;
use tickcast_protocol::record::RecordHeader;

/// Records that one client is sent from one source (replay, values, log) in one tick, so that a large snapshot does not
/// keep the others waiting. The last record may exceed it. For values the limit doubles
/// each time that all instruments have been visited, see [`state`].
const CHUNK_BYTES: usize = 64 * 1024;
/// Prepared bytes after which no further client is served in this tick. It bounds how many clients are served, not how
/// many bytes are sent: the last one may add its unsent rest, its answers and three chunks, and that of values may have
/// doubled. Members wait while this is sent; with 4 MiB, many subscriptions to the whole market at once doubled the
/// 99th percentile of their latency.
const TICK_SEND_BYTES: usize = 128 * 1024;
/// Bytes of the ring that are scanned for one client in one tick: some 0.1 ms, at 5 ns an entry.
const SCAN_BYTES: u64 = 2 * 1024 * 1024;
/// Scanned bytes after which no further client is served in this tick. Records that were copied count for more, see
/// [`scan_cost`].
const TICK_SCAN_BYTES: u64 = 16 * 1024 * 1024;

/// Serves the clients in the queue, as far as the budget of a tick goes. True if there were any.
pub(super) fn catch_up<I: Io>(clients: &mut ClientContext<'_, I>) -> bool {
    let mut served = Vec::new();
    let mut scanned_bytes = 0;
    for _ in 0..clients.backlog.queue.len() {
        let Some(slot_id) = clients.backlog.queue.pop_front() else { break };
        let Some(is_complete) = prepare(clients, slot_id, &mut scanned_bytes) else { continue };
        served.push((slot_id, is_complete));
        if clients.outbox.batch.arena.len() > TICK_SEND_BYTES || scanned_bytes > TICK_SCAN_BYTES {
            break;
        }
    }
    clients.outbox.send(clients.counters);
    clients.handle_stopped();
    for (slot_id, is_complete) in &served {
        conclude(clients, *slot_id, *is_complete);
    }
    !served.is_empty()
}

/// Prepares the next send of one client. True if the send completes the client; `None` if nothing is pending for it.
fn prepare<I: Io>(clients: &mut ClientContext<'_, I>, slot_id: SlotId, scanned_bytes: &mut u64) -> Option<bool> {
    let client = clients.connections.get(slot_id)?;
    let audience = client.audience;
    let (backlog, history, buffers) = clients.backlog.dequeued(slot_id)?;
    let FanOut { index, conflator, encoder, .. } = &mut *clients.fan_out;
    let batch = &mut clients.outbox.batch;
    let start = batch.arena.len();
    backlog.take_pending_bytes(&mut batch.arena);
    let mut catch_up = CatchUp {
        now: clients.now,
        settings: clients.settings,
        ring: clients.ring,
        history,
        market: clients.market,
        index,
        conflator,
        encoder,
        arena: &mut batch.arena,
        scanned_bytes,
        counters: clients.counters,
    };
    let is_complete = client.is_open() && catch_up.push_replay(audience, backlog, buffers) && {
        catch_up.push_state(audience, backlog, &mut buffers.records);
        // The log waits until no value is older than this tick: a trade must not overtake the quote before it.
        backlog.state.is_at(clients.now.tick) && catch_up.push_log(audience, backlog, buffers)
    };
    batch.push_send(client.slot_id, start);
    Some(is_complete)
}

/// After the send: the client becomes a member again, waits for the next tick or for its socket, or is closed.
fn conclude<I: Io>(clients: &mut ClientContext<'_, I>, slot_id: SlotId, is_complete: bool) {
    let (Some(client), Some(backlog)) = (clients.connections.get(slot_id), clients.backlog.get_mut(slot_id)) else {
        return;
    };
    // Set by `handle_stopped`: the socket is full, and the client waits for it.
    if backlog.is_blocked {
        return;
    }
    backlog.progress_ns = backlog.progress_ns.max(clients.now.ns);
    if !client.is_open() {
        clients.finish_close(slot_id);
    } else if is_complete && backlog.pending_bytes() == 0 {
        clients.join_live_path(slot_id);
    } else {
        clients.backlog.enqueue(slot_id);
    }
}

/// Inputs and output of the catch-up of one client.
struct CatchUp<'a> {
    now: Now,
    settings: &'a Settings,
    ring: &'a ring::Reader,
    history: &'a History,
    market: &'a mut MarketView,
    index: &'a SubscriptionIndex,
    conflator: &'a Conflator,
    encoder: &'a mut Encoder,
    arena: &'a mut Vec<u8>,
    /// Scanned for all clients of this tick.
    scanned_bytes: &'a mut u64,
    counters: &'a mut ShardCounters,
}

impl CatchUp<'_> {
    /// Appends records as packets for one client of an audience: positions and bytes. Returns how many records there
    /// were.
    fn push_packets<'r>(
        &mut self,
        audience: AudienceId,
        fields: PacketFields,
        records: impl Iterator<Item = (Position, &'r [u8])> + Clone,
    ) -> u64 {
        let packing = Packing {
            epoch: self.settings.epoch,
            ts_send: self.now.ns,
            flags: fields.flags,
            last_flags: fields.last_flags,
            from_position: fields.positions.0,
            to_position: fields.positions.1,
        };
        let encoding = self.index.encoding(audience);
        let (_, count) = self.encoder.push_packets(encoding, &packing, &self.market.directory, records, self.arena);
        self.counters.add(Counter::Records, count);
        count
    }

    /// Charges a scan of the ring to the tick's budget.
    fn charge_scan(&mut self, scanned_bytes: u64, copied: &ring::Batch) {
        *self.scanned_bytes += scanned_bytes + scan_cost(copied);
    }
}

/// Header fields of the packets of one chunk.
#[derive(Clone, Copy, Debug, Default)]
struct PacketFields {
    /// Position before the first record, and the one that the last packet states.
    positions: (Position, Position),
    /// Flags of every packet, and those that the last one has besides.
    flags: u8,
    last_flags: u8,
}

/// The cost of examining copied records one by one, in scanned bytes.
fn scan_cost(copied: &ring::Batch) -> u64 {
    /// A copied byte costs about as much as this many scanned ones.
    const COPIED_BYTE_COST: u64 = 32;
    COPIED_BYTE_COST * copied.bytes.len() as u64
}

/// The part of the ring up to `end` that is scanned for one client in one tick.
fn scan_range(from: RingOffset, end: RingOffset) -> Range<RingOffset> {
    from..end.min(from + SCAN_BYTES)
}

/// Splits bytes into the records that follow each other in them.
fn split_records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (record, tail) = rest.split_at_checked(RecordHeader::read(rest)?.bytes())?;
        rest = tail;
        Some(record)
    })
}
