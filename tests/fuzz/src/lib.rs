//! What every fuzz target runs on one input: functions of bytes that panic where a promise is broken.
//!
//! Each target's program in `fuzz_targets/` hands them what the fuzzer makes up; `tests/engine/fuzz_corpus.rs` compiles this
//! very file and hands them the saved corpus. So they name only what the server's package has for its tests.
//!
//! What always holds of a target: no clock, no chance and no state from one input to the next, so that a saved input
//! does the same again.

pub mod control;
pub mod deflate;
pub mod handshake;
pub mod packets;
pub mod recording;
pub mod session;
pub mod shard;

/// An input that is read from the front as decisions; ended, it decides 0.
struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    fn short(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    /// At most so many bytes.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// The stream in pieces of up to 64 bytes whose lengths follow from the seed; every seed gives others.
fn pieces(mut stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut list = Vec::new();
    while !stream.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 1 + (state >> 26) as usize;
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        list.push(piece);
        stream = rest;
    }
    list
}
