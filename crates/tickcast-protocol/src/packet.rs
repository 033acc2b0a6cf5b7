//! The packet: one WebSocket message of the data stream, a 24-byte header and `count` records, the oldest first.
//!
//! ```text
//!  0 u8  version = 1   1 u8 flags   2 u16 count   4 u32 epoch
//!  8 u64 position     16 u64 ts_send
//! 24 records
//! ```

use super::numbering::Position;

/// Bytes of a packet header.
pub const HEADER_BYTES: usize = 24;
/// The version of the wire format.
pub const VERSION: u8 = 1;
/// The WebSocket subprotocol that carries packets in binary frames.
pub const SUBPROTOCOL: &str = "tickcast.v1";
/// Records that one packet can hold.
pub const RECORDS_MAX: usize = u16::MAX as usize;

/// Flags of a packet, a bit each.
pub mod flags {
    /// State from before the live stream.
    pub const SNAPSHOT: u8 = 0x01;
    /// History after a resume.
    pub const REPLAY: u8 = 0x02;
    /// The last packet of either.
    pub const CAUGHT_UP: u8 = 0x04;
}

/// The 24 bytes that every packet begins with.
///
/// ```text
///  0 u8  version = 1   1 u8 flags   2 u16 count   4 u32 epoch
///  8 u64 position     16 u64 ts_send
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// See [`flags`].
    pub flags: u8,
    /// Records that follow.
    pub count: u16,
    /// Changes whenever instrument ids, sequences and positions start anew.
    pub epoch: u32,
    /// Position of the newest record that this packet covers; with the epoch it is the token to resume from.
    pub position: Position,
    /// When the packet was built, ns since the Unix epoch.
    pub ts_send: u64,
}

impl PacketHeader {
    /// The wire bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.count.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ts_send.to_le_bytes());
        bytes
    }

    /// Reads the header of a packet; the records follow it at byte 24.
    ///
    /// # Errors
    /// When the header is cut short, or of another version.
    pub fn read(packet: &[u8]) -> Result<Self, PacketError> {
        let head = packet.first_chunk::<HEADER_BYTES>().ok_or(PacketError::Short { have: packet.len() })?;
        if head[0] != VERSION {
            return Err(PacketError::Version(head[0]));
        }
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        Ok(Self {
            flags: head[1],
            count: u16::from_le_bytes([head[2], head[3]]),
            epoch: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
            position: Position::new(u64_at(8)),
            ts_send: u64_at(16),
        })
    }
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than a header has.
    #[error("packet: {have} bytes: expected at least 24")]
    Short {
        /// Bytes that are there.
        have: usize,
    },
    /// Another wire version.
    #[error("packet version {0}: expected 1")]
    Version(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PacketHeader = PacketHeader {
        flags: flags::SNAPSHOT | flags::CAUGHT_UP,
        count: 0x0102,
        epoch: 7,
        position: Position::new(91823),
        ts_send: 1_763_700_000_000_000_000,
    };
    /// [`HEADER`] as another program packs it: `struct.pack("<BBHIQQ", 1, 5, 0x0102, 7, 91823, 1763700000000000000)`.
    const GOLDEN: [u8; HEADER_BYTES] = [
        0x01, 0x05, 0x02, 0x01, 0x07, 0x00, 0x00, 0x00, 0xaf, 0x66, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40,
        0x5b, 0x36, 0xce, 0xeb, 0x79, 0x18,
    ];

    #[test]
    fn header_has_its_golden_bytes() {
        assert_eq!(HEADER.encode(), GOLDEN);
        assert_eq!(PacketHeader::read(&GOLDEN), Ok(HEADER));
    }

    #[test]
    fn extreme_values_round_trip() {
        let header =
            PacketHeader { flags: 255, count: u16::MAX, epoch: u32::MAX, position: Position::MAX, ts_send: u64::MAX };
        let bytes = header.encode();
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..], [0xff; HEADER_BYTES - 1]);
        assert_eq!(PacketHeader::read(&bytes), Ok(header));
    }

    #[test]
    fn header_is_read_regardless_of_the_records() {
        let mut packet = GOLDEN.to_vec();
        packet.extend([0xff; 64]);
        assert_eq!(PacketHeader::read(&packet), Ok(HEADER));
    }

    #[test]
    fn truncated_or_other_version_is_an_error() {
        for have in 0..HEADER_BYTES {
            assert_eq!(PacketHeader::read(&GOLDEN[..have]), Err(PacketError::Short { have }));
        }
        for version in [0, 2, 255] {
            let mut packet = GOLDEN;
            packet[0] = version;
            assert_eq!(PacketHeader::read(&packet), Err(PacketError::Version(version)));
        }
    }
}
