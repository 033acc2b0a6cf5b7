//! Whole compressed frames.
//!
//! A frame is made without regard to those before it, so that it can be shared by all connections with the same window,
//! and left uncompressed where that is shorter: RFC 7692 lets a sender choose message by message.
//!
//! Memory: nothing before the first frame; then some 270 KB for a window of 15 bits, and less for smaller ones.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::WindowBits;
use crate::ws::frame::{COMPRESSED, Opcode, encode_header, push_frame};

/// The least window that the library compresses in. It refers back by at most the window less 262 bytes (the longest
/// match and what it looks ahead), which is 250 here: within the 256 of a window of 8 bits, for which it serves as well.
const LIBRARY_BITS_LEAST: u8 = 9;
/// Windows of 9 to 15 bits.
const WINDOWS: usize = 7;
//= RFC 7692 section 7.2.1
//# "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
const TAIL: &[u8] = &[0x00, 0x00, 0xff, 0xff];

/// Compresses messages one after another; each stands by itself. One serves all connections of a thread.
pub struct Compressor {
    level: Compression,
    /// By window.
    states: [Option<Box<Compress>>; WINDOWS],
    compressed: Vec<u8>,
}

impl Compressor {
    /// A compressor of this level: 1, fast, to 9, small.
    pub fn new(level: u8) -> Self {
        assert!((1..=9).contains(&level), "level {level}; there are 1 to 9");
        Self { level: Compression::new(level.into()), states: [const { None }; WINDOWS], compressed: Vec::new() }
    }

    /// Appends a whole server frame, compressed where that is shorter.
    pub fn push_frame(&mut self, window: WindowBits, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        if self.compress(window, payload) {
            self.push_compressed(opcode, out);
        } else {
            push_frame(opcode, payload, out);
        }
    }

    /// Puts the compressed frame in the place of the frame at the end of `out`, whose payload begins at `payload_start`
    /// and whose header at `start`, where that is shorter. True if it is.
    pub fn replace_frame(
        &mut self,
        window: WindowBits,
        opcode: Opcode,
        out: &mut Vec<u8>,
        (start, payload_start): (usize, usize),
    ) -> bool {
        let shorter = self.compress(window, &out[payload_start..]);
        if shorter {
            out.truncate(start);
            self.push_compressed(opcode, out);
        }
        shorter
    }

    fn push_compressed(&self, opcode: Opcode, out: &mut Vec<u8>) {
        let mut header = [0; 10];
        let header_bytes = encode_header(opcode, self.compressed.len(), &mut header);
        //= RFC 7692 section 6.1
        //# "Set the "Per-Message Compressed" bit of the first frame to 1"
        header[0] |= COMPRESSED;
        out.extend_from_slice(&header[..header_bytes]);
        out.extend_from_slice(&self.compressed);
    }

    /// Compresses into `self.compressed`. False where the result would not be shorter.
    fn compress(&mut self, window: WindowBits, payload: &[u8]) -> bool {
        let bits = window.get().max(LIBRARY_BITS_LEAST);
        let state = self.states[usize::from(bits - LIBRARY_BITS_LEAST)]
            .get_or_insert_with(|| Box::new(Compress::new_with_window_bits(self.level, false, bits)));
        state.reset();
        self.compressed.clear();
        // No room for more than the payload: who does not fit into that is not shorter.
        self.compressed.reserve_exact(payload.len() + TAIL.len());
        let room = self.compressed.capacity();
        let status = state.compress_vec(payload, &mut self.compressed, FlushCompress::Sync);
        let flushed = matches!(status, Ok(Status::Ok)) && self.compressed.len() < room;
        if !flushed || state.total_in() < payload.len() as u64 {
            return false;
        }
        let length = self.compressed.len() - TAIL.len();
        assert!(self.compressed.ends_with(TAIL), "a flush ends with an empty block without compression");
        self.compressed.truncate(length);
        length < payload.len()
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("level", &self.level).finish_non_exhaustive()
    }
}
