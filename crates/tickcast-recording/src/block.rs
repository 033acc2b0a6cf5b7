//! The layout of the file header and of blocks.

use tickcast_protocol::{Position, Token};

/// The first bytes of a file. The first of them is no ASCII, so that no text begins with it.
pub const FILE_MAGIC: [u8; 6] = *b"\x8aTCREC";
/// The version of the format.
pub const VERSION: u16 = 1;
/// Bytes of the file header: the magic bytes, and the version as a `u16`.
pub const FILE_HEADER_BYTES: usize = 8;
/// Bytes of a block header.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// A block is complete once it has this many bytes of packets.
pub const BLOCK_BYTES: usize = 1 << 20;
/// A block is complete once its records span this time.
pub const BLOCK_NS: u64 = 1_000_000_000;
/// The most bytes of packets in a block that a reader inflates.
pub const BLOCK_BYTES_MAX: usize = 32 << 20;
/// The longest packet.
pub const PACKET_BYTES_MAX: usize = BLOCK_BYTES_MAX - BLOCK_BYTES - LENGTH_BYTES;

/// Bytes of the length before each packet.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The magic number of the skippable frame that a block header is.
const BLOCK_MAGIC: u32 = 0x184D_2A5A;
/// Where the checksum of the header begins.
const HEADER_CRC_AT: usize = 60;

/// Flags of a block, a bit each.
pub mod flags {
    /// It repeats the state of the market at this point: readers that come from the start skip it.
    pub const CHECKPOINT: u8 = 0x01;
    /// It is the first block of a checkpoint.
    pub const FIRST: u8 = 0x02;
    /// It is the last block of a checkpoint.
    pub const LAST: u8 = 0x04;
    /// At its end no snapshot is under way: the stream can be resumed from its token.
    pub const RESUMABLE: u8 = 0x08;
}

/// The header of a block, and where the block is.
///
/// ```text
///  0 u32 0x184D2A5A (a zstd skippable frame)     4 u32 56, the bytes that follow
///  8 u32 bytes of the zstd frame                12 u32 bytes of packets
/// 16 u64 first_ns                               24 u64 last_ns
/// 32 u32 epoch                                  36 u32 packets
/// 40 u64 position
/// 48 u8  flags    49 u8[7] 0
/// 56 u32 CRC-32 of the zstd frame               60 u32 CRC-32 of bytes 0 to 59
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where its header begins in the file.
    pub offset: u64,
    /// Bytes of the zstd frame.
    pub frame_bytes: u32,
    /// Bytes of packets, with their lengths.
    pub packet_bytes: u32,
    /// The time of its first record, ns since the Unix epoch.
    pub first_ns: u64,
    /// The time of its last record.
    pub last_ns: u64,
    /// Epoch and position of its last packet.
    pub token: Token,
    /// How many packets it has.
    pub packets: u32,
    /// See [`flags`].
    pub flags: u8,
    /// CRC-32 of the zstd frame.
    pub(crate) frame_crc: u32,
}

impl Block {
    /// Where the block ends in the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(BLOCK_HEADER_BYTES as u64).saturating_add(u64::from(self.frame_bytes))
    }

    /// Whether it belongs to a checkpoint.
    pub fn is_checkpoint(&self) -> bool {
        self.flags & flags::CHECKPOINT != 0
    }

    /// Whether the stream can be resumed from its token.
    pub fn is_resumable(&self) -> bool {
        self.flags & flags::RESUMABLE != 0
    }

    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &BLOCK_MAGIC.to_le_bytes());
        put(4, &(BLOCK_HEADER_BYTES as u32 - 8).to_le_bytes());
        put(8, &self.frame_bytes.to_le_bytes());
        put(12, &self.packet_bytes.to_le_bytes());
        put(16, &self.first_ns.to_le_bytes());
        put(24, &self.last_ns.to_le_bytes());
        put(32, &self.token.epoch.to_le_bytes());
        put(36, &self.packets.to_le_bytes());
        put(40, &self.token.position.get().to_le_bytes());
        put(48, &[self.flags]);
        put(56, &self.frame_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the block at `offset`; `None` if it is none.
    pub(crate) fn read(bytes: &[u8; BLOCK_HEADER_BYTES], offset: u64) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let is_header = u32_at(0) == BLOCK_MAGIC && u32_at(4) as usize == BLOCK_HEADER_BYTES - 8;
        if !is_header || u32_at(HEADER_CRC_AT) != crc32fast::hash(&bytes[..HEADER_CRC_AT]) {
            return None;
        }
        Some(Self {
            offset,
            frame_bytes: u32_at(8),
            packet_bytes: u32_at(12),
            first_ns: u64_at(16),
            last_ns: u64_at(24),
            token: Token { epoch: u32_at(32), position: Position::new(u64_at(40)) },
            packets: u32_at(36),
            flags: bytes[48],
            frame_crc: u32_at(56),
        })
    }
}

/// The packets of an inflated block, in order. Ends at the first that is cut short.
pub fn packets(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (packet, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = tail;
        Some(packet)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_has_its_golden_bytes_and_any_changed_byte_is_noticed() {
        let block = Block {
            offset: 8,
            frame_bytes: 0x0102,
            packet_bytes: 0x0304,
            first_ns: 5,
            last_ns: 6,
            token: Token { epoch: 7, position: Position::new(8) },
            packets: 9,
            flags: flags::RESUMABLE,
            frame_crc: 0x0a0b_0c0d,
        };
        let bytes = block.encode();
        // `struct.pack("<IIIIQQIIQB7xI", 0x184D2A5A, 56, 0x0102, 0x0304, 5, 6, 7, 9, 8, 8, 0x0a0b0c0d)`
        let golden = "5a2a4d1838000000020100000403000005000000000000000600000000000000070000000900000008000000\
                      000000000800000000000000\
                      0d0c0b0a";
        let shown: String = bytes[..60].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, golden);
        assert_eq!(Block::read(&bytes, 8), Some(block));
        for at in 0..BLOCK_HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Block::read(&changed, 8), None, "byte {at}");
        }
    }

    #[test]
    fn packet_that_is_cut_short_ends_the_block() {
        let block = [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes(), &3u32.to_le_bytes(), b"cd"].concat();
        assert_eq!(packets(&block).collect::<Vec<_>>(), [&b"ab"[..], b""]);
    }
}
