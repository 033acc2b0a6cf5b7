//! Checks of clients that are behind: what the shard keeps for each is bounded, each is served soon after its socket has
//! room, and what it gets is as old as its buffers make it, not as old as it has been slow.
//!
//! The age is checked without a rate. Let `T` be the last tick by which the value's bytes had not been made: they lay
//! beyond what the socket had taken and what was kept for the client. So the shard has made them after `T`, and the value
//! must have been the newest by then, but for what a shared history may lag.

use std::collections::VecDeque;

use tickcast::shard::Format;
use tickcast::tls::sealed_bytes_max;

use crate::client::Client;
use crate::feed::History;
use crate::io::Conn;
use crate::node::{Node, settings};
use crate::world::{MS, World};

/// Bytes of a catch-up piece, and of a part of a shared history that a client takes along. A single record, or a single
/// flush, may be larger.
const PIECE_BYTES: usize = 32 * 1024;
const SPAN_BYTES: usize = 4 * 1024;
/// Bytes of text for a byte of a record, at the most.
const TEXT_RATIO: usize = 6;
/// Largest answer, and what is sent without a request: the welcome, pings, pongs, the notice of a close.
const ANSWER_BYTES: usize = 512;
const UNASKED_BYTES: usize = 2048;
/// Plaintext that is sealed at once: two records.
const SEALED_PLAIN_BYTES: usize = 2 * 16 * 1024;
/// What a session answers to what a receive brings: updates of keys.
const SESSION_BYTES: usize = 256;
/// How much older than the shard's newest value a state value of a shared history may be.
pub const HISTORY_LAG_NS: u64 = 200 * MS;
/// A client whose socket has room is sent something within so many ticks, and one more for so many that are behind.
const SERVED_TICKS: u64 = 8;
const SERVED_A_TICK: u64 = 8;

/// Ticks after which a client whose socket has room was served, if so many wait when it is queued: the queues are served
/// in their order, so that those that come later do not count, nor does it help that those before it are gone.
pub fn served_ticks(waiting: u64) -> u64 {
    SERVED_TICKS + waiting / SERVED_A_TICK
}

/// What is known of one client's pending bytes.
#[derive(Default)]
pub struct Pending {
    /// The time of a tick, and all bytes that had been made for the client up to then: its socket had taken them, or
    /// the shard kept them.
    made: VecDeque<(u64, u64)>,
    pub read: u64,
    kept: usize,
    /// Since when it waits to be served.
    queued: Option<Queued>,
    /// What it took along from a shared history.
    taken_along: usize,
}

/// The end of a queue.
#[derive(Clone, Copy)]
struct Queued {
    /// When its socket had room.
    room_tick: u64,
    /// When it was queued, and how many were waiting at the end of that tick.
    tick: u64,
    waiting: u64,
}

impl Pending {
    /// Notes that its socket has room since `room_tick`, if it has not been served, and whether it now goes on alone:
    /// that is another queue. Returns how long it has waited, and the most ticks that it may.
    fn note_waiting(&mut self, room_tick: Option<u64>, goes_alone: bool, tick: u64, waiting: u64) -> (u64, u64) {
        let Some(room_tick) = room_tick else {
            self.queued = None;
            return (0, 0);
        };
        let same = self.queued.filter(|queued| queued.room_tick == room_tick && !goes_alone);
        let queued = *self.queued.insert(same.unwrap_or(Queued { room_tick, tick, waiting }));
        (tick - queued.tick, served_ticks(queued.waiting))
    }

    fn note_made(&mut self, now_ns: u64, bytes: u64) {
        match self.made.back_mut() {
            Some(last) if last.1 == bytes => last.0 = now_ns,
            _ => self.made.push_back((now_ns, bytes)),
        }
    }

    /// The last tick by which the next byte that the client reads had not been made.
    pub fn unmade_ns(&mut self) -> Option<u64> {
        let is_made = |(_, bytes): &&(u64, u64)| *bytes > self.read;
        let unmade = self.made.len() - self.made.iter().rev().take_while(is_made).count();
        self.made.drain(..unmade.saturating_sub(1));
        self.made.front().filter(|tick| !is_made(tick)).map(|(at_ns, _)| *at_ns)
    }
}

/// What a client makes a shard hold of its input: some 5 KB of short requests that were sent while it was not read, in a
/// vector that has doubled.
const INPUT_BYTES: usize = 12 << 10;

impl World {
    /// After a tick of a shard.
    pub fn check_slow_clients(&mut self, index: usize) {
        let node = &self.nodes[index];
        let (shard, io) = (&node.shard, node.shard.io().io());
        let (bytes, most) = (shard.sent_history_bytes(), settings(&self.plan).sent_history_bytes);
        assert!(bytes <= most, "{bytes} bytes of sent history, of {most}");
        let live = || io.conns.iter().filter(|conn| conn.slot_id.is_some());
        let waiting = live().filter(|conn| conn.of_shard().waits_since().is_some()).count() as u64;
        let most_ticks = served_ticks(live().count() as u64);
        assert!(
            bytes == 0 || live().any(|conn| conn.of_shard().is_behind(node.ticks, most_ticks)),
            "{bytes} bytes of sent history, and no client is behind"
        );
        self.seen.history += u64::from(bytes > 0);
        let (held, clients) = (shard.input_bytes(), live().count());
        // What a socket has not taken counts where it is more than answers may be, which may be less than one send.
        let kept: usize = live().filter_map(|conn| conn.slot_id).map(|slot_id| shard.kept_bytes(slot_id)).sum();
        assert!(held <= clients * INPUT_BYTES + kept, "{held} bytes of input are held for {clients} clients");
        for client in self.clients.iter_mut().filter(|client| client.node == index && !client.over) {
            let conn = &io.conns[client.conn];
            let Some(slot_id) = conn.slot_id else { continue };
            self.about = Some((index, client.conn));
            let (kept, tail) = (shard.kept_bytes(slot_id), shard.io().tail_bytes(slot_id));
            check_tail(conn, tail);
            self.seen.tails += u64::from(tail > 0);
            self.seen.kept += u64::from(kept > 0);
            let pending = &mut client.pending;
            let goes_alone = pending.kept == 0 && kept > 0;
            let (ticks, most) = pending.note_waiting(conn.of_shard().waits_since(), goes_alone, node.ticks, waiting);
            assert!(ticks <= most, "not served for {ticks} ticks, of {most}; {waiting} wait");
            check_kept(client, conn, kept, node, &self.history);
            // What a socket took beyond its capacity does not count as made.
            let sent = conn.socket.sent.min(client.pending.read + conn.capacity as u64);
            let kept = if conn.is_secured { tail + sealed_bytes_max(kept) } else { kept };
            client.pending.note_made(self.now_ns, (sent + kept as u64).max(conn.socket.cut_frame_end));
        }
        self.about = None;
    }
}

/// What was sealed and its socket has not taken is a rest of the first part of one send that does not fit, and what the
/// session has answered. It goes on as soon as there is room, and then the shard is told.
fn check_tail(conn: &Conn, tail: usize) {
    let unsent = if conn.is_secured { conn.socket.unsent } else { 0 };
    let most = sealed_bytes_max(conn.of_shard().last_send.min(SEALED_PLAIN_BYTES));
    assert!(unsent <= most, "{unsent} bytes are sealed for a full socket, of {most}");
    assert!((unsent..=unsent + SESSION_BYTES).contains(&tail) || conn.reset, "a tail of {tail} bytes, of {unsent}");
    let waits = conn.is_secured && conn.socket.waits_since().is_some();
    assert!(!waits || conn.reset, "a tail of {tail} bytes waits although there is room");
    let shard = conn.of_shard();
    let is_told = !shard.cut || shard.room_tick.is_some() || conn.wants_room;
    assert!(is_told || conn.reset, "the shard is not told that there is room");
}

/// Kept for a client are the rest of one send, of one frame or of one span of a shared history, and its answers.
fn check_kept(client: &mut Client, conn: &Conn, kept: usize, node: &Node, history: &History) {
    let ratio = if client.encoding.format == Format::Binary { 1 } else { TEXT_RATIO };
    let answers = client.oracle.unanswered() * ANSWER_BYTES + UNASKED_BYTES;
    let piece_max = ratio * (PIECE_BYTES + history.largest_record) + answers;
    let sends = conn.of_shard();
    assert!(sends.largest_piece <= piece_max, "a piece of {} bytes, of {piece_max}", sends.largest_piece);
    let own = sends.largest_send.max(sends.largest_frame);
    let pending = &mut client.pending;
    if pending.kept == 0 && kept > own {
        // A span ends with a flush, of which the client may have been sent nothing. Part of what is kept may be answers.
        let flush = ratio * (node.read_bytes(history) + history.state_bytes());
        let most = flush.max(SPAN_BYTES).max(own) + answers;
        assert!(kept <= most, "{kept} bytes are taken along, of {most}");
        pending.taken_along = kept;
    }
    let most = own.max(pending.taken_along) + answers;
    assert!(kept <= most, "{kept} bytes are kept for conn {}, of {most}", client.conn);
    pending.kept = kept;
}
