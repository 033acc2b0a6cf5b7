//! Trade: one execution.

use super::bytes::put;
use super::header::{RecordHeader, take};
use super::letters::Side;

/// Where the side begins.
pub(super) const SIDE_AT: usize = 56;

/// One trade, 64 bytes.
///
/// ```text
/// 32 i64 px   40 i64 sz   48 u64 trade_id   56 u8 side of the aggressor   57 u8[7] 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Price.
    pub px: i64,
    /// Size.
    pub sz: i64,
    /// The venue's number of the trade.
    pub trade_id: u64,
    /// Side of the aggressor.
    pub side: Side,
}

impl Trade {
    /// Length on the wire.
    pub const BYTES: usize = 64;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        put(out, &[self.px, self.sz]);
        out.extend_from_slice(&self.trade_id.to_le_bytes());
        out.extend_from_slice(&[self.side.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [px, sz, trade_id, side] = take(record)?;
        Some(Self { px, sz, trade_id: trade_id as u64, side: Side::from_wire(side as u8) })
    }
}
