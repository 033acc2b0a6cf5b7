//! The instruments of one source: those that its messages or subscriptions name, and the venue's list.

use std::collections::HashMap;

use crate::error::{Malformed, SubscribeError};
use crate::listing::{self, Listing, Listings, NameStyle};
use crate::sink::Sink;
use crate::tracked::{Kept, Tracked};

/// The most instruments of one source. Each takes some 300 bytes without a book.
pub const INSTRUMENTS_MAX: usize = 20_000;

/// How instruments are named in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// The venue's symbols, or one form for all venues.
    pub style: NameStyle,
    /// Appended to every name, to distinguish copies.
    pub suffix: String,
}

/// The instruments of one source, by the venue's symbol.
#[derive(Debug)]
pub struct Instruments<K> {
    venue: &'static str,
    naming: Naming,
    /// The name of a symbol without a list.
    name_of: fn(&str) -> String,
    /// What is kept of an instrument that is new.
    fresh: fn() -> K,
    listings: Listings,
    tracked: Vec<Tracked<K>>,
    symbols: Vec<String>,
    by_symbol: HashMap<String, usize>,
}

impl<K: Kept> Instruments<K> {
    /// No instruments yet. `venue` is its name in the directory.
    pub fn new(venue: &'static str, naming: Naming, name_of: fn(&str) -> String, fresh: fn() -> K) -> Self {
        let (tracked, symbols, by_symbol) = (Vec::new(), Vec::new(), HashMap::new());
        Self { venue, naming, name_of, fresh, listings: Listings::default(), tracked, symbols, by_symbol }
    }

    /// The index of a symbol; a symbol that is new becomes an instrument.
    pub fn find(&mut self, symbol: &str) -> Result<usize, Malformed> {
        if let Some(index) = self.by_symbol.get(symbol) {
            return Ok(*index);
        }
        listing::check(symbol)?;
        if self.tracked.len() >= INSTRUMENTS_MAX {
            return Err(Malformed::TooManyInstruments(INSTRUMENTS_MAX));
        }
        let listed = self.listings.get(symbol).and_then(|listing| listing.name(self.naming.style));
        let listed = listed.filter(|name| listing::check(name).is_ok());
        let name = listed.unwrap_or_else(|| (self.name_of)(symbol)) + &self.naming.suffix;
        let index = self.tracked.len();
        self.tracked.push(Tracked::new(self.venue, name, (self.fresh)()));
        self.symbols.push(symbol.to_owned());
        self.by_symbol.insert(symbol.to_owned(), index);
        Ok(index)
    }

    /// The index of a symbol that is in use.
    pub fn index(&self, symbol: &str) -> Option<usize> {
        self.by_symbol.get(symbol).copied()
    }

    /// The index of a symbol that a user gives, which has to be in the venue's list, if there is one. An instrument whose
    /// tick and lot size are listed is defined at once.
    pub fn subscribe(&mut self, symbol: &str, sink: &mut Sink<'_>) -> Result<usize, SubscribeError> {
        self.listings.check(self.venue, symbol)?;
        let index = self.find(symbol)?;
        if let Some(listing) = self.listings.get(symbol) {
            self.tracked[index].list(listing, sink);
        }
        Ok(index)
    }

    /// Takes an entry of the venue's list. Of an instrument that is in use, a change is published.
    pub fn list(&mut self, listing: Listing, sink: &mut Sink<'_>) {
        if let Some(listing) = self.listings.insert(listing)
            && let Some(index) = self.by_symbol.get(&listing.symbol)
        {
            self.tracked[*index].list(listing, sink);
        }
    }

    /// An instrument by its symbol.
    pub fn get(&self, symbol: &str) -> Option<&Tracked<K>> {
        self.by_symbol.get(symbol).map(|index| &self.tracked[*index])
    }

    /// The instruments for the codec of the next connection.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self {
            naming: self.naming.clone(),
            listings: self.listings.clone(),
            tracked: self.tracked.iter().map(Tracked::successor).collect(),
            symbols: self.symbols.clone(),
            by_symbol: self.by_symbol.clone(),
            ..*self
        }
    }

    /// The venue's list.
    pub fn listings(&self) -> &Listings {
        &self.listings
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tracked.len()
    }

    /// An instrument by its index.
    pub fn at(&mut self, index: usize) -> &mut Tracked<K> {
        &mut self.tracked[index]
    }

    /// The venue's symbol of an instrument.
    pub fn symbol(&self, index: usize) -> &str {
        &self.symbols[index]
    }

    /// The entry of an instrument in the venue's list.
    pub fn listing(&self, index: usize) -> Option<&Listing> {
        self.listings.get(&self.symbols[index])
    }

    /// All instruments, in the order of their indexes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tracked<K>> {
        self.tracked.iter_mut()
    }
}
