//! What is known of a connection from its sends: whether it is behind, and how large its sends were.
//!
//! A secured connection has two of these: one of what its shard has sent, and one of what that was sealed as.

use crate::frames;
use tickcast::shard::Format;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sends {
    /// The last send was cut, so that the next begins with its rest.
    pub cut: bool,
    /// Bytes that were taken, and how many will have been at the end of the frame that was cut last.
    pub sent: u64,
    pub cut_frame_end: u64,
    /// The largest send that did not begin with a rest, the largest of them besides those of a flush, and the largest
    /// frame.
    pub largest_send: usize,
    pub largest_piece: usize,
    pub largest_frame: usize,
    /// The last send, and what it left.
    pub last_send: usize,
    pub unsent: usize,
    /// It has sent what it sends last.
    pub has_closed: bool,
    /// The tick in which the sender learnt that there is room, if it has sent nothing since.
    pub room_tick: Option<u64>,
}

impl Sends {
    /// Bytes of the frame that was cut, at the start of the next send.
    pub fn rest(&self) -> usize {
        if self.cut { (self.cut_frame_end - self.sent) as usize } else { 0 }
    }

    /// The tick since which what was cut could go on, and has not.
    pub fn waits_since(&self) -> Option<u64> {
        self.room_tick.filter(|_| self.unsent > 0)
    }

    /// True if something is left of the last send, or it was taken whole by a layer that keeps its rest, and the sender
    /// has not had `served_ticks` to learn that the rest is gone: it may send nothing then.
    pub fn is_behind(&self, tick: u64, served_ticks: u64) -> bool {
        self.cut && (self.unsent > 0 || self.room_tick.is_none_or(|room| tick - room <= served_ticks))
    }

    /// Notes a send of frames of which so many bytes are taken.
    pub fn note(&mut self, format: Format, payload: &[u8], taken: usize, is_piece: bool) {
        (self.room_tick, self.last_send) = (None, payload.len());
        // A rest comes first, of the frame that was cut.
        let mut end = self.rest();
        if !self.cut {
            self.largest_send = self.largest_send.max(payload.len());
            self.largest_piece = self.largest_piece.max(if is_piece { payload.len() } else { 0 });
        }
        let mut cut_end = end;
        while end < payload.len() {
            let len = frames::first_len(format, &payload[end..]);
            self.largest_frame = self.largest_frame.max(len);
            self.has_closed |= frames::is_close(format, &payload[end..end + len]);
            end += len;
            if cut_end < taken {
                cut_end = end;
            }
        }
        self.cut_frame_end = self.sent + cut_end.max(taken) as u64;
        self.sent += taken as u64;
        self.unsent = payload.len() - taken;
    }

    /// Notes a send that was sealed: it has no frames that can be seen.
    pub fn note_sealed(&mut self, payload: &[u8], taken: usize) {
        (self.room_tick, self.last_send) = (None, payload.len());
        self.sent += taken as u64;
        self.unsent = payload.len() - taken;
        self.cut_frame_end = self.sent + self.unsent as u64;
    }
}
