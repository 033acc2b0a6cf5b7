//! Quote: the best bid and offer.

use super::bytes::put;
use super::header::{RecordHeader, take};

/// Best bid and offer, 64 bytes. [`PRICE_NONE`](super::PRICE_NONE) if a side is empty.
///
/// ```text
/// 32 i64 bid_px   40 i64 bid_sz   48 i64 ask_px   56 i64 ask_sz
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Best bid.
    pub bid_px: i64,
    /// Size at the best bid.
    pub bid_sz: i64,
    /// Best offer.
    pub ask_px: i64,
    /// Size at the best offer.
    pub ask_sz: i64,
}

impl Quote {
    /// Length on the wire.
    pub const BYTES: usize = 64;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        put(out, &[self.bid_px, self.bid_sz, self.ask_px, self.ask_sz]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [bid_px, bid_sz, ask_px, ask_sz] = take(record)?;
        Some(Self { bid_px, bid_sz, ask_px, ask_sz })
    }
}
