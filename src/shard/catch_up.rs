//! Phase 6: serves the clients that are not on the live path.
//!
//! Lagging members come first: one send each, of bytes that exist already ([`shared`]). All others are served on their
//! own, in pieces. Such a client is sent, in this order: the rest of a send that was cut, answers, the replay of a resume
//! ([`replay`]), changed values ([`state`]), and log records from where they stopped, or a Gap ([`log`]). When nothing is
//! missing at the end of a tick, the client becomes a member of its audience again.
//!
//! What always holds:
//! * Nothing is made for a client that has an unsent rest. So what is kept for it is one piece at the most, of some
//!   [`PIECE_BYTES`], or a larger record; and what it is sent is as old as its buffers, not as the time that it has been
//!   slow.
//! * A client whose socket was full gets one piece each time that the socket has room: the kernel holds no more than half
//!   of `notsent_lowat_bytes` and a piece for it that has not been sent.
//! * Clients are served in turn: one that is not done is queued again behind the others.
//! * A client that becomes a member has had everything that was dispatched up to the end of this tick. The next tick's
//!   records follow without a gap and without a repetition.
//! * Only the client's own backlog changes, and the encoder's buffers. The ring, the values and the subscriptions are
//!   read.
//!
//! Cost: encoding is done for each client alone. The phase stops at a budget for all clients of a tick, so that members
//! are not kept waiting.

mod log;
mod replay;
mod shared;
mod state;

use std::ops::Range;

use super::Settings;
use super::client_context::ClientContext;
use super::conflation::Conflator;
use super::encoder::Encoder;
use super::encoding::Format;
use super::fan_out::FanOut;
use super::history::History;
use super::market_view::MarketView;
use super::outbox::SEND_COST_BYTES;
use super::packets::Packing;
use super::subscription_index::{AudienceId, SubscriptionIndex};
use super::tick_records::Now;
use crate::io::{Io, SlotId};
use crate::ring::{self, RingOffset};
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::Position;
use tickcast_protocol::record::RecordHeader;

/// Bytes of one piece, as they are sent. A single record may exceed it.
const PIECE_BYTES: usize = 16 * 1024;
/// Text takes about so many times the bytes of its records.
const TEXT_FACTOR: usize = 4;
/// Pieces that one client is sent in a tick while its socket takes them, so that a large snapshot does not keep the
/// others waiting. For values the number doubles each time that all instruments have been visited, see [`state`].
const PIECES: usize = 4;
/// How often the number of pieces doubles at the most.
const DOUBLINGS_MAX: u32 = 10;
/// What lagging members are sent in a tick, see [`Budget`]: some 0.3 ms.
const LAGGING_BYTES: usize = 1024 * 1024;
/// What other clients that are behind are sent in a tick. With 4 MiB, many subscriptions to the whole market at once
/// doubled the 99th percentile of the members' latency.
const OWN_BYTES: usize = 512 * 1024;
/// Where the live path is busy, clients that are behind get at least this part of what it took.
const LIVE_PART: usize = 8;
/// Bytes of the ring that are scanned for one piece: some 0.1 ms, at 5 ns an entry.
const SCAN_BYTES: u64 = 2 * 1024 * 1024;
/// Scanned bytes after which no further client is served in this tick. Records that were copied count for more, see
/// [`scan_cost`].
const TICK_SCAN_BYTES: u64 = 16 * 1024 * 1024;

/// What may be sent in one phase of a tick, in bytes. A send counts for [`SEND_COST_BYTES`] more. The last client may
/// exceed it.
struct Budget {
    left: usize,
}

impl Budget {
    fn has_left(&self) -> bool {
        self.left > 0
    }

    /// Sends that it suffices for, at least one.
    fn sends_left(&self) -> usize {
        (self.left / SEND_COST_BYTES).max(1)
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }
}

/// Serves the clients in the queues, as far as the budgets of a tick go. True if there were any.
pub(super) fn catch_up<I: Io>(clients: &mut ClientContext<'_, I>) -> bool {
    let live_part = clients.outbox.take_live_cost() / LIVE_PART;
    let had_lagging = shared::serve_lagging(clients, Budget { left: LAGGING_BYTES.max(live_part) });
    clients.fan_out.histories.free_unused();
    let had_own = serve_own(clients, Budget { left: OWN_BYTES.max(live_part) });
    had_lagging || had_own
}

/// A client that is served in this tick.
struct Served {
    slot_id: SlotId,
    pieces: usize,
    /// The last piece completes it.
    is_complete: bool,
}

/// Serves clients on their own, in rounds of one piece for each of them.
fn serve_own<I: Io>(clients: &mut ClientContext<'_, I>, mut budget: Budget) -> bool {
    let mut waiting = clients.backlog.queue.len();
    let had_any = waiting > 0;
    let mut scanned_bytes = 0;
    let mut active: Vec<Served> = Vec::new();
    loop {
        let may_admit = budget.has_left() && scanned_bytes <= TICK_SCAN_BYTES;
        while may_admit && waiting > 0 && active.len() < budget.sends_left() {
            waiting -= 1;
            let Some(slot_id) = clients.backlog.pop_own() else { break };
            active.push(Served { slot_id, pieces: 0, is_complete: false });
        }
        if active.is_empty() {
            return had_any;
        }
        for served in &mut active {
            served.is_complete = push_piece(clients, served.slot_id, &mut scanned_bytes);
            served.pieces += 1;
        }
        let cost = clients.outbox.batch.arena.len() + clients.outbox.batch.sends.len() * SEND_COST_BYTES;
        clients.outbox.send(clients.counters);
        clients.handle_stopped();
        budget.spend(cost);
        active.retain(|served| {
            let goes_on = conclude(clients, served);
            clients.note_sent_answers(served.slot_id);
            goes_on
        });
    }
}

/// Prepares the next send of one client. True if the send completes the client.
fn push_piece<I: Io>(clients: &mut ClientContext<'_, I>, slot_id: SlotId, scanned_bytes: &mut u64) -> bool {
    let Some(client) = clients.connections.get(slot_id) else { return false };
    let audience = client.audience;
    let Some((backlog, history, buffers)) = clients.backlog.served_mut(slot_id) else { return false };
    let FanOut { index, conflator, encoder, .. } = &mut *clients.fan_out;
    let batch = &mut clients.outbox.batch;
    let start = batch.arena.len();
    let has_unsent = !backlog.unsent.is_empty();
    let boundary = backlog.take_pending_bytes(&mut batch.arena);
    let mut catch_up = CatchUp {
        now: clients.now,
        settings: clients.settings,
        ring: clients.ring,
        history,
        market: &*clients.market,
        index,
        conflator,
        encoder,
        arena: &mut batch.arena,
        scanned_bytes,
        counters: clients.counters,
    };
    let piece_bytes = match client.encoding.format {
        Format::Binary => PIECE_BYTES,
        Format::Json | Format::Events => PIECE_BYTES / TEXT_FACTOR,
    };
    let is_complete = client.is_open() && !has_unsent && {
        let (is_replayed, replayed_bytes) = catch_up.push_replay(audience, backlog, buffers, piece_bytes);
        let piece_bytes = piece_bytes.saturating_sub(replayed_bytes).max(1);
        is_replayed && {
            // Half of a piece is left to log records that may be sent.
            let has_log = backlog.log.offset < backlog.state.read().offset;
            let state_bytes = if has_log { piece_bytes.div_ceil(2) } else { piece_bytes };
            let pushed = catch_up.push_state(audience, backlog, &mut buffers.records, state_bytes);
            catch_up.push_log(audience, backlog, buffers, piece_bytes.saturating_sub(pushed).max(1))
                && backlog.state.is_at(clients.now.tick)
        }
    };
    batch.push_send(client.slot_id, start, boundary);
    is_complete
}

/// After the send: the client becomes a member again, gets another piece (true), waits for the next tick or for its
/// socket, or is closed.
fn conclude<I: Io>(clients: &mut ClientContext<'_, I>, served: &Served) -> bool {
    let (slot_id, now) = (served.slot_id, clients.now);
    let (Some(client), Some(backlog)) = (clients.connections.get(slot_id), clients.backlog.get_mut(slot_id)) else {
        return false;
    };
    // Set by `handle_stopped`: the socket is full, and the client waits for it.
    if backlog.is_blocked {
        return false;
    }
    backlog.progress_ns = backlog.progress_ns.max(now.ns);
    let Some(own) = backlog.own() else { return false };
    // A walk that is not done in one tick may take more the next time, until values change more slowly than it goes.
    let pieces_max = match own.state.is_at(now.tick) {
        true => PIECES,
        false => PIECES << own.state.walks.min(DOUBLINGS_MAX),
    };
    if !client.is_open() {
        clients.finish_close(slot_id);
    } else if own.has_lost_log {
        clients.counters.add(Counter::BehindClosed, 1);
        clients.close_slow(slot_id, "too far behind to tell what is missing");
    } else if own.full_tick.is_some() {
        clients.wait_for_room(slot_id);
    } else if served.is_complete && own.pending_bytes() == 0 {
        clients.join_live_path(slot_id);
    } else if served.pieces < pieces_max {
        return true;
    } else {
        clients.backlog.enqueue(slot_id);
    }
    false
}

/// Inputs and output of the catch-up of one client.
struct CatchUp<'a> {
    now: Now,
    settings: &'a Settings,
    ring: &'a ring::Reader,
    history: &'a History,
    market: &'a MarketView,
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
            ts_send: self.now.wall_ns(),
            flags: fields.flags,
            last_flags: fields.last_flags,
            from_position: fields.positions.0,
            to_position: fields.positions.1,
        };
        let (encoding, hidden) = (self.index.encoding(audience), self.index.hidden_fields(audience));
        let directory = &self.market.directory;
        let (_, count) = self.encoder.push_packets(encoding, hidden, &packing, directory, records, self.arena);
        self.counters.add(Counter::Records, count);
        count
    }

    /// Charges a scan of the ring to the tick's budget.
    fn charge_scan(&mut self, scanned_bytes: u64, copied: &ring::Batch) {
        *self.scanned_bytes += scanned_bytes + scan_cost(copied);
    }
}

/// Header fields of the packets of one piece.
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

/// The part of the ring up to `end` that is scanned for one piece.
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
