//! An instrument: an entry of the directory, announced on the wire by a Definition record.

use super::PRICE_NONE;
use super::letters::InstrumentStatus;

/// One instrument. Ids are dense, start at 1, and are valid for the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instrument {
    /// Id for this epoch, from 1. In the stream of a feed: the feed's local id.
    pub id: u32,
    /// Its name, 1 to 255 bytes of UTF-8, unique in the directory.
    pub symbol: String,
    /// Where it is traded, at most 255 bytes of UTF-8.
    pub venue: String,
    /// A price is `px × 10^px_exp`.
    pub px_exp: i8,
    /// A size is `sz × 10^sz_exp`.
    pub sz_exp: i8,
    /// Whether it trades.
    pub status: InstrumentStatus,
    /// Smallest price step in mantissa units, or [`PRICE_NONE`].
    pub tick_size: i64,
    /// Smallest size step in mantissa units, or [`PRICE_NONE`].
    pub lot_size: i64,
}

impl Instrument {
    /// A trading instrument without a stated tick and lot size.
    pub fn new(id: u32, symbol: &str, venue: &str, px_exp: i8, sz_exp: i8) -> Self {
        Self {
            id,
            symbol: symbol.to_owned(),
            venue: venue.to_owned(),
            px_exp,
            sz_exp,
            status: InstrumentStatus::Trading,
            tick_size: PRICE_NONE,
            lot_size: PRICE_NONE,
        }
    }
}
