//! What a venue lists: its instruments with tick size, lot size and status, and their names in the directory.

use std::collections::BTreeMap;

use tickcast_protocol::{InstrumentStatus, check_symbol};

use crate::error::{Malformed, SubscribeError};
use crate::json::{Array, Object};

/// Venue symbols are at most this long: with the suffixes of markets and copies they keep to the default of
/// `symbol_bytes_max`, so that clients can name them.
pub const SYMBOL_BYTES_MAX: usize = 54;
/// Instruments of a list that are kept. Venues list up to some 5,000, options apart.
pub const LISTED_MAX: usize = 50_000;
/// Names that an error suggests.
const SIMILAR_MAX: usize = 3;

/// One entry of a venue's list of instruments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The venue's symbol.
    pub symbol: String,
    /// What is traded; empty if the venue does not say.
    pub base: String,
    /// What it is paid in; empty if the venue does not say.
    pub quote: String,
    /// Its kind.
    pub kind: Kind,
    /// The smallest step of a price, as the venue writes it.
    pub tick_size: Option<String>,
    /// The smallest step of a size, as the venue writes it.
    pub lot_size: Option<String>,
    /// Decimals of prices and sizes in a checksum, where the venue states them.
    pub precisions: Option<(u8, u8)>,
    /// Whether it trades.
    pub status: InstrumentStatus,
}

/// The kind of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bought for the other currency.
    Spot,
    /// A future without an end.
    Perpetual,
    /// A future or an option with an end, which its symbol names.
    Dated,
}

/// Which names the directory gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameStyle {
    /// The venue's own symbols.
    #[default]
    Venue,
    /// One form for all venues: `BTC-USD`, `BTC-USDT-PERP`. An instrument with an end keeps the venue's symbol, and so
    /// does one that the venue does not list.
    Common,
}

impl Listing {
    /// Its name in the directory.
    pub fn name(&self, style: NameStyle) -> Option<String> {
        let is_known = !self.base.is_empty() && !self.quote.is_empty();
        match (style, self.kind) {
            (NameStyle::Common, Kind::Spot) if is_known => Some(format!("{}-{}", self.base, self.quote)),
            (NameStyle::Common, Kind::Perpetual) if is_known => Some(format!("{}-{}-PERP", self.base, self.quote)),
            _ => None,
        }
    }
}

/// The venue's list of instruments, by symbol.
#[derive(Clone, Debug, Default)]
pub struct Listings {
    by_symbol: BTreeMap<String, Listing>,
}

impl Listings {
    /// Takes an entry of the list; one that cannot be a symbol, or is beyond [`LISTED_MAX`], is left out.
    pub fn insert(&mut self, listing: Listing) -> Option<&Listing> {
        let is_new = !self.by_symbol.contains_key(&listing.symbol);
        if check(&listing.symbol).is_err() || (is_new && self.by_symbol.len() >= LISTED_MAX) {
            return None;
        }
        let symbol = listing.symbol.clone();
        self.by_symbol.insert(symbol.clone(), listing);
        self.by_symbol.get(&symbol)
    }

    /// The entry of a symbol.
    pub fn get(&self, symbol: &str) -> Option<&Listing> {
        self.by_symbol.get(symbol)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_symbol.len()
    }

    /// True before a list came.
    pub fn is_empty(&self) -> bool {
        self.by_symbol.is_empty()
    }

    /// Checks a symbol that a user gives against the list. Without a list every symbol passes that can be one.
    pub fn check(&self, venue: &'static str, symbol: &str) -> Result<(), SubscribeError> {
        check(symbol)?;
        if self.is_empty() || self.by_symbol.contains_key(symbol) {
            return Ok(());
        }
        let (symbol, listed, similar) = (symbol.to_owned(), self.len(), self.similar(symbol));
        Err(SubscribeError::UnknownSymbol { venue, symbol, listed, similar })
    }

    /// Symbols of the list that are the same but for letters of another case and signs between, or begin alike.
    fn similar(&self, symbol: &str) -> Vec<String> {
        let plain = |text: &str| -> String {
            text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_uppercase).collect()
        };
        let wanted = plain(symbol);
        let start: String = wanted.chars().take(3).collect();
        let same = self.by_symbol.keys().filter(|name| plain(name) == wanted);
        let alike = self.by_symbol.keys().filter(|name| !start.is_empty() && plain(name).starts_with(&start));
        let mut similar: Vec<String> = Vec::new();
        for name in same.chain(alike) {
            if !similar.contains(name) {
                similar.push(name.clone());
            }
            if similar.len() == SIMILAR_MAX {
                break;
            }
        }
        similar
    }
}

/// Calls `each` with what `read` makes of the objects of a list; what it cannot read is left out.
pub fn read_all(list: &Array<'_, '_>, read: fn(&Object<'_, '_>) -> Option<Listing>, each: &mut dyn FnMut(Listing)) {
    for item in list {
        if let Some(listing) = item.as_object().and_then(|object| read(&object)) {
            each(listing);
        }
    }
}

/// Checks a symbol of a venue.
pub fn check(symbol: &str) -> Result<(), Malformed> {
    if symbol.is_empty() || symbol.len() > SYMBOL_BYTES_MAX {
        return Err(Malformed::Symbol(symbol.len()));
    }
    check_symbol(symbol).map_err(|error| Malformed::SymbolText { text: symbol.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(symbol: &str, base: &str, quote: &str, kind: Kind) -> Listing {
        let (base, quote) = (base.to_owned(), quote.to_owned());
        let status = InstrumentStatus::Trading;
        Listing {
            symbol: symbol.to_owned(),
            base,
            quote,
            kind,
            tick_size: None,
            lot_size: None,
            precisions: None,
            status,
        }
    }

    #[test]
    fn common_name_is_base_and_quote_where_the_venue_states_them() {
        let spot = listing("BTCUSDT", "BTC", "USDT", Kind::Spot);
        assert_eq!(spot.name(NameStyle::Common).as_deref(), Some("BTC-USDT"));
        assert_eq!(spot.name(NameStyle::Venue), None);
        let perpetual = listing("BTC-USDT-SWAP", "BTC", "USDT", Kind::Perpetual);
        assert_eq!(perpetual.name(NameStyle::Common).as_deref(), Some("BTC-USDT-PERP"));
        assert_eq!(listing("BTC-USD-220527", "BTC", "USD", Kind::Dated).name(NameStyle::Common), None);
        assert_eq!(listing("X", "", "", Kind::Spot).name(NameStyle::Common), None);
    }

    #[test]
    fn unknown_symbol_is_an_error_that_names_similar_ones() {
        let mut listings = Listings::default();
        assert_eq!(listings.check("kraken", "anything"), Ok(()), "there is no list yet");
        for symbol in ["BTC/USD", "BTC/EUR", "BTC/USDT", "ETH/USD", "币安人生/USD"] {
            assert!(listings.insert(listing(symbol, "", "", Kind::Spot)).is_some());
        }
        assert!(listings.insert(listing("bad*name", "", "", Kind::Spot)).is_none());
        assert_eq!(listings.check("kraken", "币安人生/USD"), Ok(()));
        let error = listings.check("kraken", "BTCUSD").expect_err("not in the list").to_string();
        assert_eq!(
            error,
            "kraken: unknown symbol \"BTCUSD\": expected one of its 5 instruments, such as BTC/USD, BTC/EUR, BTC/USDT"
        );
        assert!(listings.check("kraken", &"X".repeat(55)).is_err());
    }
}
