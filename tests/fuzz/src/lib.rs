//! The fuzz targets: functions of the bytes of one input that panic if a rule is broken.
//!
//! Each target's program in `fuzz_targets/` passes them the fuzzer's inputs; `tests/engine/fuzz_corpus.rs` compiles
//! this very file and passes them the saved corpus. So they use only crates that the server's tests have.
//!
//! What always holds: a target has no clock, no randomness and no state from one input to the next, so that a saved
//! input has the same result again.

pub mod control;
pub mod deflate;
pub mod handshake;
pub mod packets;
pub mod payloads;
pub mod recording;
pub mod rights;
pub mod session;
pub mod shard;
pub mod tokens;

/// An input that is read as a list of decisions; after its end every decision is 0.
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

    /// The next `count` bytes, or all that are left.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Splits the stream into pieces of 1 to 64 bytes; the seed determines the lengths.
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
