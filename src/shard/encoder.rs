//! Makes the bytes of packets, in the encoding of the audience that is sent them.

use super::encoding::{Encoding, Format};
use super::packets::{Packing, push_compressed, push_messages, push_packets};
use super::projection::Projection;
use super::subscription_index::HiddenFields;
use tickcast_protocol::ws::deflate::{Compressor, WindowBits};
use tickcast_protocol::ws::{Opcode, push_frame};
use tickcast_protocol::{Directory, Position, sse};

/// Smaller packets are not compressed: a frame of one or two records shrinks by some tens of bytes, and a TCP segment
/// has 66 bytes of headers anyway.
const COMPRESSED_BYTES_MIN: usize = 256;
/// Memory for text that is kept from packet to packet. A record of a large book takes more, which is freed.
const TEXT_BYTES_KEPT: usize = 256 * 1024;

/// What has been compressed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compressed {
    /// Packets, one for all members of an audience.
    pub(super) packets: u64,
    /// Their bytes before.
    pub(super) bytes_before: u64,
    /// Their bytes after.
    pub(super) bytes_after: u64,
}

/// Encodes the packets of all audiences of a shard, with one compressor.
#[derive(Debug)]
pub(super) struct Encoder {
    projection: Projection,
    packets: PacketEncoder,
}

impl Encoder {
    /// `level` is that of compression, for audiences that negotiated it.
    pub(super) fn new(level: u8) -> Self {
        let packets = PacketEncoder {
            compressor: Compressor::new(level),
            compressed: Compressed::default(),
            text: String::new(),
        };
        Self { projection: Projection::default(), packets }
    }

    /// Appends the records as packets in this encoding, without the hidden fields, see [`push_packets`]; the directory has
    /// their instruments.
    #[inline]
    pub(super) fn push_packets<'a>(
        &mut self,
        encoding: Encoding,
        hidden: Option<HiddenFields<'_>>,
        packing: &Packing,
        directory: &Directory,
        records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        match hidden {
            None => self.packets.push(encoding, packing, directory, records, out),
            Some(hidden) => {
                let visible = self.projection.project(hidden, records);
                self.packets.push(encoding, packing, directory, visible, out)
            }
        }
    }

    /// What has been compressed so far.
    pub(super) fn compressed(&self) -> Compressed {
        self.packets.compressed
    }
}

#[derive(Debug)]
struct PacketEncoder {
    compressor: Compressor,
    compressed: Compressed,
    text: String,
}

impl PacketEncoder {
    #[inline]
    fn push<'a>(
        &mut self,
        encoding: Encoding,
        packing: &Packing,
        directory: &Directory,
        records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        match (encoding.format, encoding.deflate) {
            (Format::Binary, None) => push_packets(packing, records, out),
            (Format::Binary, Some(window)) => push_compressed(packing, records, out, |out, frame| {
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
            (Format::Json, deflate) => self.push_json(deflate, packing, directory, records, out),
            (Format::Events, _) => self.push_events(packing, directory, records, out),
        }
    }

    // Both are kept out of line: they take far longer than a call, and would enlarge the callers of the binary path.
    #[inline(never)]
    fn push_json<'a>(
        &mut self,
        deflate: Option<WindowBits>,
        packing: &Packing,
        directory: &Directory,
        records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        let (compressor, compressed) = (&mut self.compressor, &mut self.compressed);
        let pushed = push_messages(packing, directory, records, &mut self.text, |_, message| match deflate {
            Some(window) if message.len() >= COMPRESSED_BYTES_MIN => {
                let start = out.len();
                if compressor.push_frame(window, Opcode::Text, message, out) {
                    compressed.packets += 1;
                    compressed.bytes_before += message.len() as u64;
                    compressed.bytes_after += (out.len() - start) as u64;
                }
            }
            _ => push_frame(Opcode::Text, message, out),
        });
        self.text.shrink_to(TEXT_BYTES_KEPT);
        pushed
    }

    #[inline(never)]
    fn push_events<'a>(
        &mut self,
        packing: &Packing,
        directory: &Directory,
        records: impl Iterator<Item = (Position, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> (u64, u64) {
        let push = |header: &_, message: &[u8]| sse::push_packet_event(header, message, out);
        let pushed = push_messages(packing, directory, records, &mut self.text, push);
        self.text.shrink_to(TEXT_BYTES_KEPT);
        pushed
    }
}
