//! Ticker: statistics of the last 24 hours.

use super::bytes::put;
use super::header::{RecordHeader, take};

/// 24 h statistics, 96 bytes. [`PRICE_NONE`](super::PRICE_NONE) if a value is not known.
///
/// ```text
/// 32 i64 last_px   40 i64 open_px    48 i64 high_px   56 i64 low_px
/// 64 i64 volume    72 i64 turnover   80 i64 bid_px    88 i64 ask_px
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticker {
    /// Newest trade.
    pub last_px: i64,
    /// 24 hours ago.
    pub open_px: i64,
    /// Highest trade.
    pub high_px: i64,
    /// Lowest trade.
    pub low_px: i64,
    /// In the base, at the size exponent.
    pub volume: i64,
    /// In the quote currency, at the price exponent.
    pub turnover: i64,
    /// Best bid.
    pub bid_px: i64,
    /// Best offer.
    pub ask_px: i64,
}

impl Ticker {
    /// Length on the wire.
    pub const BYTES: usize = 96;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        put(out, &[self.last_px, self.open_px, self.high_px, self.low_px]);
        put(out, &[self.volume, self.turnover, self.bid_px, self.ask_px]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px] = take(record)?;
        Some(Self { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px })
    }
}
