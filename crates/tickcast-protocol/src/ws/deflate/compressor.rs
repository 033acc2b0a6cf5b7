//! Whole compressed frames.
//!
//! A frame does not depend on those before it, so all connections with the same window can share it. It is left
//! uncompressed if that is shorter: RFC 7692 lets a sender choose for each message.
//!
//! Memory: nothing before the first frame; then some 270 KB for a window of 15 bits, and less for smaller ones.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::WindowBits;
use crate::ws::frame::{COMPRESSED, Opcode, encode_frame_header, push_frame};

/// The smallest window that the library compresses with. Its back references reach at most the window less 262 bytes (the
/// longest match and its lookahead), which is 250 here. That is within the 256 of a window of 8 bits, so it serves for 8
/// bits too.
const LIBRARY_BITS_LEAST: u8 = 9;
/// Windows of 9 to 15 bits.
const WINDOWS: usize = 7;
//= RFC 7692 section 7.2.1
//# "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
const TAIL: &[u8] = &[0x00, 0x00, 0xff, 0xff];

/// A whole frame at the end of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFrame {
    /// Text or binary.
    pub opcode: Opcode,
    /// Where its header begins.
    pub start: usize,
    /// Where its payload begins.
    pub payload_start: usize,
}

/// Compresses messages, each by itself. One serves all connections of a thread.
pub struct Compressor {
    level: Compression,
    /// By window.
    states: [Option<Box<Compress>>; WINDOWS],
    compressed: Vec<u8>,
}

impl Compressor {
    /// A compressor of this level: 1 (fastest) to 9 (smallest).
    ///
    /// # Panics
    /// For any other level: the configuration has checked it.
    pub fn new(level: u8) -> Self {
        assert!((1..=9).contains(&level), "level {level}: expected 1 to 9");
        Self { level: Compression::new(level.into()), states: [const { None }; WINDOWS], compressed: Vec::new() }
    }

    /// Appends a whole server frame, compressed if that is shorter. True if it is.
    pub fn push_frame(&mut self, window: WindowBits, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let shorter = self.compress(window, payload);
        if shorter {
            self.push_compressed(opcode, out);
        } else {
            push_frame(opcode, payload, out);
        }
        shorter
    }

    /// Replaces the frame at the end of `out` by its compressed form, if that is shorter. True if it is.
    pub fn replace_frame(&mut self, window: WindowBits, frame: LastFrame, out: &mut Vec<u8>) -> bool {
        let shorter = self.compress(window, &out[frame.payload_start..]);
        if shorter {
            out.truncate(frame.start);
            self.push_compressed(frame.opcode, out);
        }
        shorter
    }

    fn push_compressed(&self, opcode: Opcode, out: &mut Vec<u8>) {
        let mut header = [0; 10];
        let header_bytes = encode_frame_header(opcode, self.compressed.len(), &mut header);
        //= RFC 7692 section 6.1
        //# "Set the "Per-Message Compressed" bit of the first frame to 1"
        header[0] |= COMPRESSED;
        out.extend_from_slice(&header[..header_bytes]);
        out.extend_from_slice(&self.compressed);
    }

    /// Compresses into `self.compressed`. False if the result would not be shorter.
    fn compress(&mut self, window: WindowBits, payload: &[u8]) -> bool {
        let bits = window.get().max(LIBRARY_BITS_LEAST);
        let slot = &mut self.states[usize::from(bits - LIBRARY_BITS_LEAST)];
        let state = slot.get_or_insert_with(|| Box::new(Compress::new_with_window_bits(self.level, false, bits)));
        state.reset();
        self.compressed.clear();
        // No more room than the payload needs: a result that does not fit is not shorter.
        self.compressed.reserve_exact(payload.len() + TAIL.len());
        let room = self.compressed.capacity();
        let status = state.compress_vec(payload, &mut self.compressed, FlushCompress::Sync);
        let flushed = matches!(status, Ok(Status::Ok)) && self.compressed.len() < room;
        let all = state.total_in() == payload.len() as u64;
        if !(flushed && all && self.compressed.ends_with(TAIL)) {
            // The state holds output that found no room. A reset of zlib-rs 0.6 does not clear where that begins: its room
            // for pending output shrinks each time, until it panics. Such a state is not used again.
            *slot = None;
            return false;
        }
        let length = self.compressed.len() - TAIL.len();
        self.compressed.truncate(length);
        length < payload.len()
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("level", &self.level).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::deflate::Inflater;

    /// Incompressible bytes.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn compressed_frame_inflates_to_its_message() {
        let message = b"bid 91402.50 ask 91402.60 ".repeat(40);
        for level in 1..=9 {
            let mut out = b"before".to_vec();
            Compressor::new(level).push_frame(WindowBits::MOST, Opcode::Text, &message, &mut out);
            let frame = &out[6..];
            assert_eq!(frame[0], 0xC1, "FIN, RSV1, text");
            assert!(frame.len() < 126, "{} bytes of {} at level {level}", frame.len(), message.len());
            assert_eq!(usize::from(frame[1]), frame.len() - 2);
            let mut inflater = Inflater::new(1100);
            assert_eq!(inflater.inflate(&frame[2..], message.len()).as_deref(), Ok(&message[..]));
        }
    }

    #[test]
    fn compressed_bytes_do_not_depend_on_earlier_messages() {
        let (message, other) = (b"the same ".repeat(20), b"another ".repeat(300));
        let mut compressor = Compressor::new(6);
        let mut frames: [Vec<u8>; 2] = Default::default();
        for frame in &mut frames {
            compressor.push_frame(WindowBits::MOST, Opcode::Binary, &message, frame);
            compressor.push_frame(WindowBits::MOST, Opcode::Binary, &other, &mut Vec::new());
            compressor.push_frame(WindowBits::MOST, Opcode::Binary, &noise(5000), &mut Vec::new());
        }
        assert_eq!(frames[0], frames[1]);
    }

    #[test]
    fn incompressible_messages_are_sent_uncompressed() {
        let mut compressor = Compressor::new(1);
        for length in [0, 1, 5, 1000, 20_000, 200_000] {
            // A state that is used again after running out of room fails after some messages.
            for _ in 0..20 {
                let (message, mut out, mut plain) = (noise(length), Vec::new(), Vec::new());
                compressor.push_frame(WindowBits::MOST, Opcode::Binary, &message, &mut out);
                push_frame(Opcode::Binary, &message, &mut plain);
                assert!(out == plain, "{length} bytes of noise are sent as they are");
            }
        }
    }

    #[test]
    fn last_frame_is_replaced_if_that_is_shorter() {
        let mut compressor = Compressor::new(6);
        for (message, replaced) in [(vec![7; 1000], true), (noise(1000), false)] {
            let mut out = b"before".to_vec();
            push_frame(Opcode::Binary, &message, &mut out);
            let before = out.clone();
            let frame = LastFrame { opcode: Opcode::Binary, start: 6, payload_start: 10 };
            assert_eq!(compressor.replace_frame(WindowBits::MOST, frame, &mut out), replaced);
            assert_eq!(out == before, !replaced);
            assert!(out.starts_with(b"before"));
        }
    }
}
