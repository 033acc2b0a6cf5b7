//! How an audience's packets become frames.

use super::packets::{Packing, push_compressed, push_packets};
use crate::ws::deflate::{Compressor, WindowBits};

/// Packets below this stay as they are: a frame of one or two records shrinks by some tens of bytes, and a segment of
/// TCP has 66 bytes of headers anyway.
const COMPRESSED_BYTES_MIN: usize = 256;

/// What makes the bytes of two clients different, though they want the same records. A property of the audience: it
/// stands beside its items in what two audiences are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Packets are compressed, in this window.
    pub deflate: Option<WindowBits>,
}

impl Encoding {
    /// Binary packets as they are.
    pub const PLAIN: Self = Self { deflate: None };
}

/// What has been compressed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compressed {
    /// Packets, one for all members of an audience.
    pub(super) packets: u64,
    /// Their bytes before.
    pub(super) bytes_before: u64,
    /// And after.
    pub(super) bytes_after: u64,
}

/// Makes the frames of all audiences of a shard; holds the one compressor.
#[derive(Debug)]
pub(super) struct Encoder {
    compressor: Compressor,
    compressed: Compressed,
}

impl Encoder {
    /// Compresses at this level, where an audience asks for it.
    pub(super) fn new(level: u8) -> Self {
        Self { compressor: Compressor::new(level), compressed: Compressed::default() }
    }

    /// See [`push_packets`].
    #[inline]
    pub(super) fn push_packets<'a>(
        &mut self,
        encoding: Encoding,
        packing: &Packing,
        records: impl Iterator<Item = (u64, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        match encoding.deflate {
            None => push_packets(packing, records, out),
            Some(window) => push_compressed(packing, records, out, |out, frame| {
                let bytes_before = out.len() - frame.payload_start;
                if bytes_before < COMPRESSED_BYTES_MIN {
                    return;
                }
                if self.compressor.replace_frame(window, frame, out) {
                    self.compressed.packets += 1;
                    self.compressed.bytes_before += bytes_before as u64;
                    self.compressed.bytes_after += (out.len() - frame.start) as u64;
                }
            }),
        }
    }

    /// What has been compressed so far.
    pub(super) fn compressed(&self) -> Compressed {
        self.compressed
    }
}
