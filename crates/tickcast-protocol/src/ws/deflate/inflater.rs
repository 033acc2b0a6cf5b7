//! Inflates a peer's compressed messages, each whole.
//!
//! * The result never exceeds the message limit, nor a multiple of the compressed bytes (`inflate_ratio_max`): a bomb costs
//!   its sender more than the server. The buffer grows with the result, to the limit and one byte.
//! * A message is whole or an error: a message that ends within a DEFLATE block is not returned.
//!
//! Memory: nothing before the first compressed message; then some 40 KB, and up to 256 KB of the last message. Cost: some
//! 2 µs for a small message, and a few ns a byte.

use flate2::{Decompress, FlushDecompress, Status};

use crate::ws::violation::Violation;

/// A message may inflate to this size regardless of the ratio: short messages of one repeated word are legitimate.
pub const UNRATED_BYTES: usize = 64 * 1024;
/// Bytes of the buffer that are kept for the next message.
const KEPT_BYTES: usize = 256 * 1024;
/// The largest window: the bytes after a final block may refer back this far.
const WINDOW_BYTES: usize = 32 * 1024;
/// Final blocks before the end of a message. A compressor that cannot flush otherwise ends each of its pieces with one.
const FINAL_BLOCKS_MAX: usize = 64;
//= RFC 7692 section 7.2.2
//# "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the message."
/// And an empty final block: it is read as one only at the end of a block, which shows that the message is whole.
const TAIL: &[u8] = &[0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// Inflates messages, each by itself. One serves all connections of a thread.
pub struct Inflater {
    ratio_max: usize,
    state: Option<Box<Decompress>>,
    message: Vec<u8>,
    inflated_bytes: u64,
}

impl Inflater {
    /// For messages that inflate to at most `ratio_max` times their bytes, or to [`UNRATED_BYTES`].
    pub fn new(ratio_max: u32) -> Self {
        Self { ratio_max: ratio_max as usize, state: None, message: Vec::new(), inflated_bytes: 0 }
    }

    /// The most bytes that the frames of a compressed message may have if the message may have `message_bytes_max`: a
    /// compressor that always uses the fixed code takes at most nine bits for a byte.
    pub fn compressed_bytes_max(message_bytes_max: usize) -> usize {
        message_bytes_max + message_bytes_max / 8 + 64
    }

    /// The message whose compressed form these bytes are; lent until the next call.
    ///
    /// # Errors
    /// When the bytes are not whole DEFLATE blocks, or inflate to more than allowed.
    pub fn inflate(&mut self, compressed: &[u8], message_bytes_max: usize) -> Result<&mut [u8], Violation> {
        self.release();
        self.message.clear();
        // A compressor that flushes twice in a row makes no bytes at all of an empty message.
        if compressed.is_empty() {
            return Ok(&mut []);
        }
        let rated_bytes_max = compressed.len().saturating_mul(self.ratio_max).max(UNRATED_BYTES);
        let mut work = Work {
            state: self.state.get_or_insert_with(|| Box::new(Decompress::new(false))),
            message: &mut self.message,
            bytes_max: message_bytes_max.min(rated_bytes_max),
            final_blocks: 0,
        };
        work.state.reset(false);
        let whole = work.run(compressed).and_then(|ended| if ended { Ok(true) } else { work.run(TAIL) });
        self.inflated_bytes += self.message.len() as u64;
        match whole {
            Ok(true) => Ok(&mut self.message),
            Ok(false) | Err(Fault::Broken) => Err(Violation::NotDeflate),
            Err(Fault::Large) if message_bytes_max <= rated_bytes_max => {
                Err(Violation::InflatesTooBig { max: message_bytes_max })
            }
            Err(Fault::Large) => Err(Violation::InflatesTooFar { ratio_max: self.ratio_max }),
        }
    }

    /// Bytes that all messages have inflated to so far, those over a limit included.
    pub fn inflated_bytes(&self) -> u64 {
        self.inflated_bytes
    }

    /// Frees the memory of a large message.
    pub(in crate::ws) fn release(&mut self) {
        if self.message.capacity() > KEPT_BYTES {
            self.message = Vec::new();
        }
    }

    /// The last message that was inflated.
    pub(in crate::ws) fn message(&mut self) -> &mut [u8] {
        &mut self.message
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("ratio_max", &self.ratio_max).finish_non_exhaustive()
    }
}

/// Why a message cannot be inflated.
enum Fault {
    Large,
    Broken,
}

struct Work<'a> {
    state: &'a mut Decompress,
    message: &'a mut Vec<u8>,
    bytes_max: usize,
    final_blocks: usize,
}

impl Work<'_> {
    /// Inflates all of `input`. True if it ends exactly with a final block.
    fn run(&mut self, mut input: &[u8]) -> Result<bool, Fault> {
        loop {
            if self.message.len() == self.message.capacity() {
                self.grow(input.len());
            }
            let consumed_before = self.state.total_in();
            let status = self.state.decompress_vec(input, self.message, FlushDecompress::None);
            input = &input[(self.state.total_in() - consumed_before) as usize..];
            if self.message.len() > self.bytes_max {
                return Err(Fault::Large);
            }
            match status.map_err(|_| Fault::Broken)? {
                Status::StreamEnd if input.is_empty() => return Ok(true),
                Status::StreamEnd => self.continue_after_final_block()?,
                // All input is read, and room is left: there is no more output.
                Status::Ok | Status::BufError if input.is_empty() && self.message.len() < self.message.capacity() => {
                    return Ok(false);
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Prepares for the blocks after a final block, which may refer to the bytes before it.
    fn continue_after_final_block(&mut self) -> Result<(), Fault> {
        self.final_blocks += 1;
        if self.final_blocks > FINAL_BLOCKS_MAX {
            return Err(Fault::Broken);
        }
        let window = &self.message[self.message.len().saturating_sub(WINDOW_BYTES)..];
        self.state.reset(false);
        if !window.is_empty() {
            self.state.set_dictionary(window).map_err(|_| Fault::Broken)?;
        }
        Ok(())
    }

    /// Makes room: at first for a multiple of the input, then for twice as much, up to one byte over the limit, which shows
    /// that the limit is exceeded.
    fn grow(&mut self, input_bytes: usize) {
        let held = self.message.len();
        let wanted = if held == 0 { input_bytes.saturating_mul(4).max(256) } else { held.saturating_mul(2) };
        self.message.reserve_exact(wanted.min(self.bytes_max + 1).max(held + 1) - held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn inflated(bytes: &[u8]) -> Result<Vec<u8>, Violation> {
        Inflater::new(100).inflate(bytes, MAX).map(|message| message.to_vec())
    }

    #[test]
    fn examples_of_rfc_7692_section_7_2_3_inflate() {
        let once = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflated(&once), Ok(b"Hello".to_vec()), "7.2.3.1, one block");
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflated(&stored), Ok(b"Hello".to_vec()), "7.2.3.3, a block with no compression");
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflated(&last), Ok(b"Hello".to_vec()), "7.2.3.4, a final block");
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflated(&two), Ok(b"Hello".to_vec()), "7.2.3.5, two blocks");
        assert_eq!(inflated(&[0x00]), Ok(vec![]), "7.2.3.6, an empty message");
        assert_eq!(inflated(&[]), Ok(vec![]));
    }

    #[test]
    fn message_cannot_refer_to_the_previous_one() {
        let mut inflater = Inflater::new(100);
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflater.inflate(&hello, MAX).map(|message| message.to_vec()), Ok(b"Hello".to_vec()));
        // 7.2.3.2: with context takeover, the second "Hello" refers to the first.
        assert_eq!(inflater.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], MAX), Err(Violation::NotDeflate));
        assert_eq!(inflater.inflate(&hello, MAX).map(|message| message.to_vec()), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn blocks_after_a_final_block_may_refer_back() {
        let hello_again = [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]].concat();
        assert_eq!(inflated(&hello_again), Ok(b"HelloHello".to_vec()));
        let final_blocks = |count: usize| inflated(&[&[0x03, 0x00].repeat(count)[..], &[0x00]].concat());
        assert_eq!(final_blocks(FINAL_BLOCKS_MAX), Ok(vec![]));
        assert_eq!(
            final_blocks(FINAL_BLOCKS_MAX + 1),
            Err(Violation::NotDeflate),
            "each costs more than its two bytes"
        );
    }

    #[test]
    fn truncated_or_damaged_message_is_an_error() {
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        // If exactly four bytes are missing, the four that RFC 7692 appends replace them, and the message is whole.
        for cut in (2..stored.len()).filter(|cut| *cut != 6) {
            assert_eq!(inflated(&stored[..cut]), Err(Violation::NotDeflate), "cut at {cut}");
        }
        assert_eq!(inflated(&[0xff; 4]), Err(Violation::NotDeflate), "a reserved kind of block");
        assert_eq!(inflated(&[0x00, 0x05, 0x00, 0x00, 0x00]), Err(Violation::NotDeflate), "lengths that disagree");
    }
}
