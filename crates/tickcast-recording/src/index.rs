//! The index at the end of a file: where its blocks are. It is optional, and nothing is lost without it.
//!
//! ```text
//!  0 u32 0x184D2A5B (a zstd skippable frame)   4 u32 bytes that follow
//!  8 n × entry, 32 bytes:  0 u64 offset   8 u64 first_ns   16 u64 last_ns   24 u32 bytes of the zstd frame   28 u8 flags
//!    n × 32 bytes further:  0 u32 n   4 u32 CRC-32 of the entries   8 "TCINDEX" and a 0
//! ```

use tickcast_protocol::{Position, Token};

use crate::block::Block;

/// Bytes of an entry.
const ENTRY_BYTES: usize = 32;
/// Bytes behind the entries.
pub(crate) const TRAILER_BYTES: usize = 16;
/// Bytes before the entries.
const HEAD_BYTES: usize = 8;
const INDEX_MAGIC: u32 = 0x184D_2A5B;
const TRAILER_MAGIC: [u8; 8] = *b"TCINDEX\0";

/// The index of these blocks; empty if there are more than a frame can list.
pub(crate) fn encode(blocks: &[Block]) -> Vec<u8> {
    let Ok(length) = u32::try_from(blocks.len() * ENTRY_BYTES + TRAILER_BYTES) else { return Vec::new() };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + length as usize);
    bytes.extend_from_slice(&INDEX_MAGIC.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    for block in blocks {
        bytes.extend_from_slice(&block.offset.to_le_bytes());
        bytes.extend_from_slice(&block.first_ns.to_le_bytes());
        bytes.extend_from_slice(&block.last_ns.to_le_bytes());
        bytes.extend_from_slice(&block.frame_bytes.to_le_bytes());
        bytes.extend_from_slice(&[block.flags, 0, 0, 0]);
    }
    let crc = crc32fast::hash(&bytes[HEAD_BYTES..]);
    bytes.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&TRAILER_MAGIC);
    bytes
}

/// How long the whole index is that ends with this trailer; `None` if it is no trailer.
pub(crate) fn length(trailer: &[u8; TRAILER_BYTES]) -> Option<u64> {
    let entries = u64::from(u32_at(trailer, 0));
    (trailer[8..] == TRAILER_MAGIC).then_some(HEAD_BYTES as u64 + entries * ENTRY_BYTES as u64 + TRAILER_BYTES as u64)
}

/// The blocks of a whole index that begins at `offset`; `None` if it is none, or if the blocks do not lie side by side
/// from `start` to it. What an index does not have is 0, and is read with the block.
pub(crate) fn read(bytes: &[u8], start: u64, offset: u64) -> Option<Vec<Block>> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (entries, trailer) = rest.split_at_checked(rest.len().checked_sub(TRAILER_BYTES)?)?;
    let is_index = u32_at(head, 0) == INDEX_MAGIC && u32_at(head, 4) as usize == rest.len();
    if !is_index || crc32fast::hash(entries) != u32_at(trailer, 4) {
        return None;
    }
    let mut end = start;
    let mut blocks = Vec::with_capacity(entries.len() / ENTRY_BYTES);
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let block = Block {
            offset: u64_at(entry, 0),
            frame_bytes: u32_at(entry, 24),
            packet_bytes: 0,
            first_ns: u64_at(entry, 8),
            last_ns: u64_at(entry, 16),
            token: Token { epoch: 0, position: Position::ZERO },
            packets: 0,
            flags: entry[28],
            frame_crc: 0,
        };
        if block.offset != end {
            return None;
        }
        end = block.end();
        blocks.push(block);
    }
    (end == offset).then_some(blocks)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
