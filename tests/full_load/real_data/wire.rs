//! An independent decoder of the wire format, by the offsets in the protocol's document. It shares no code with the
//! program.

/// Flags of a packet.
pub const PACKET_FLAGS: u8 = 0x07;
/// Flags of a record.
pub const SNAPSHOT: u8 = 0x20;
pub const CONFLATED: u8 = 0x10;

pub const QUOTE: u8 = 1;
pub const TRADE: u8 = 2;
pub const TICKER: u8 = 3;
pub const BOOK: u8 = 4;
pub const DEFINITION: u8 = 16;
pub const HEARTBEAT: u8 = 17;
pub const GAP: u8 = 18;
pub const STATUS: u8 = 19;

/// One WebSocket message of the data stream.
#[derive(Clone, Copy, Debug)]
pub struct WirePacket<'a> {
    pub epoch: u32,
    pub position: u64,
    pub ts_send: u64,
    rest: &'a [u8],
    left: u16,
}

/// One record of a packet, header included.
#[derive(Clone, Copy, Debug)]
pub struct WireRecord<'a> {
    pub kind: u8,
    pub flags: u8,
    pub instrument: u32,
    pub sequence: u64,
    pub bytes: &'a [u8],
}

/// The contents of a Definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub symbol: String,
    pub venue: String,
    pub px_exp: i8,
    pub sz_exp: i8,
}

/// A level of a book: price, size, side.
pub type WireLevel = (i64, i64, u8);

impl<'a> WirePacket<'a> {
    /// Reads a packet's header; the records follow as the packet is iterated.
    pub fn read(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() >= 24 && bytes.len().is_multiple_of(8), "a packet of {} bytes", bytes.len());
        assert_eq!(bytes[0], 1, "version");
        assert_eq!(bytes[1] & !PACKET_FLAGS, 0, "packet flags {:#x}", bytes[1]);
        Self {
            left: u16_at(bytes, 2),
            epoch: u32_at(bytes, 4),
            position: u64_at(bytes, 8),
            ts_send: u64_at(bytes, 16),
            rest: &bytes[24..],
        }
    }
}

/// The records, exactly as many as the header counts, without a byte left over.
impl<'a> Iterator for WirePacket<'a> {
    type Item = WireRecord<'a>;

    fn next(&mut self) -> Option<WireRecord<'a>> {
        if self.left == 0 {
            assert!(self.rest.is_empty(), "{} bytes after the last record", self.rest.len());
            return None;
        }
        self.left -= 1;
        let length = usize::from(u16_at(self.rest, 0)) * 8;
        assert!((32..=self.rest.len()).contains(&length), "a record of {length} bytes in {}", self.rest.len());
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(WireRecord {
            kind: bytes[2],
            flags: bytes[3],
            instrument: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            bytes,
        })
    }
}

impl WireRecord<'_> {
    /// `(bid_px, bid_sz, ask_px, ask_sz)`
    pub fn quote(&self) -> [i64; 4] {
        assert_eq!(self.bytes.len(), 64, "a quote's length");
        [32, 40, 48, 56].map(|at| i64_at(self.bytes, at))
    }

    /// `(px, sz, trade_id, side)`
    pub fn trade(&self) -> (i64, i64, u64, char) {
        assert_eq!(self.bytes.len(), 64, "a trade's length");
        (i64_at(self.bytes, 32), i64_at(self.bytes, 40), u64_at(self.bytes, 48), char::from(self.bytes[56]))
    }

    /// Action and levels.
    pub fn book(&self) -> (u8, impl Iterator<Item = WireLevel>) {
        let levels = usize::from(u16_at(self.bytes, 32));
        assert_eq!(self.bytes.len(), 40 + 24 * levels, "length of a book of {levels} levels");
        let level = |bytes: &[u8]| (i64_at(bytes, 0), i64_at(bytes, 8), bytes[16]);
        (self.bytes[34], self.bytes[40..].chunks_exact(24).map(level))
    }

    pub fn definition(&self) -> Definition {
        let (symbol, venue) = (usize::from(self.bytes[35]), usize::from(self.bytes[36]));
        let text = |from: usize, length: usize| {
            String::from_utf8(self.bytes[from..][..length].to_vec()).expect("names are UTF-8")
        };
        Definition {
            symbol: text(64, symbol),
            venue: text(64 + symbol, venue),
            px_exp: self.bytes[32] as i8,
            sz_exp: self.bytes[33] as i8,
        }
    }

    /// `(from_sequence, to_sequence, channel type)`
    pub fn gap(&self) -> (u64, u64, u8) {
        assert_eq!(self.bytes.len(), 56, "a gap's length");
        (u64_at(self.bytes, 32), u64_at(self.bytes, 40), self.bytes[48])
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
