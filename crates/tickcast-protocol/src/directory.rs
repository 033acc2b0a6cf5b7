//! The directory of instruments: names to dense ids and back.
//!
//! The sequencer owns the directory that assigns ids; every shard has a copy, built from the Definitions in its ring. Ids
//! are dense, start at 1, and are not used again within an epoch: the symbol of a released
//! instrument may be defined again, under a new id.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::record::Instrument;

/// Instruments by id and by symbol.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// By id.
    entries: Vec<Entry>,
    by_symbol: HashMap<String, u32, foldhash::fast::RandomState>,
    /// Sum of the hashes of the instruments.
    digest: u64,
}

/// What an id stands for.
#[derive(Clone, Debug)]
enum Entry {
    Defined(Arc<Instrument>),
    Released(Arc<Instrument>),
    /// Released before this directory learned of it.
    Unknown,
}

/// Why an instrument was not defined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// Another source has defined the symbol otherwise: the records of both would be mixed.
    #[error(
        "{} is already defined by another source of the same publisher, with {}: expected the same, or another symbol",
        known.symbol,
        described(known)
    )]
    Taken {
        /// As defined before.
        known: Arc<Instrument>,
    },
    /// The symbol belongs to another publisher or feed.
    #[error("{symbol} belongs to another publisher or feed: expected a symbol of your own, or one that has ended")]
    Foreign {
        /// The symbol.
        symbol: String,
    },
    /// The symbol looks like one of another publisher or feed.
    #[error("{symbol:?} looks like {known:?} of another publisher or feed: expected a symbol that differs visibly")]
    Confusable {
        /// The symbol.
        symbol: String,
        /// The one that it looks like.
        known: String,
    },
    /// The publisher has as many instruments as it may.
    #[error("the publisher would have more than {max} instruments that have not ended: expected at most that many")]
    Quota {
        /// The limit.
        max: usize,
    },
    /// The publisher has defined as many instruments as it may since the server started.
    #[error(
        "the publisher would have defined more than {max} instruments since the server started, released ones \
        included: expected at most that many until the next start"
    )]
    Ids {
        /// The limit.
        max: u64,
    },
    /// One request defines the symbol twice, with different values.
    #[error("{symbol} is defined twice in this request, with different values: expected one of them")]
    Twice {
        /// The symbol.
        symbol: String,
    },
    /// The directory is full.
    #[error("the directory is full: expected at most {max} instruments that have not ended (instruments_max)")]
    Full {
        /// The limit.
        max: usize,
    },
}

impl DefineError {
    /// True if a limit of the publisher was met, and nothing is wrong with the definition itself.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Quota { .. } | Self::Ids { .. })
    }
}

fn described(instrument: &Instrument) -> String {
    let Instrument { venue, px_exp, sz_exp, tick_size, lot_size, .. } = instrument;
    let step = |step: i64| if step == super::record::PRICE_NONE { "none".to_owned() } else { step.to_string() };
    let (tick_size, lot_size) = (step(*tick_size), step(*lot_size));
    format!("venue {venue:?}, px_exp {px_exp}, sz_exp {sz_exp}, tick_size {tick_size} and lot_size {lot_size}")
}

impl Directory {
    /// Adds an instrument under the next id, and returns that. Its own `id` is not used.
    pub fn add(&mut self, instrument: &Instrument) -> u32 {
        let id = self.len() as u32 + 1;
        self.insert(Instrument { id, ..instrument.clone() });
        id
    }

    /// Adds an instrument with the id that it has. Returns false if that id is in use already, or was.
    ///
    /// # Panics
    /// When ids do not come in order: a lost Definition is always followed by a resynchronisation, which sends them all.
    pub fn insert(&mut self, instrument: Instrument) -> bool {
        if instrument.id as usize <= self.len() {
            return false;
        }
        assert_eq!(instrument.id as usize, self.len() + 1, "instrument ids are dense");
        self.by_symbol.insert(instrument.symbol.clone(), instrument.id);
        self.digest = self.digest.wrapping_add(digest_of(&instrument));
        self.entries.push(Entry::Defined(Arc::new(instrument)));
        true
    }

    /// Replaces all but the id and the symbol of an instrument. Returns what it was before; `None` if there is no
    /// instrument with this id and symbol, or if nothing changes.
    pub fn replace(&mut self, instrument: Instrument) -> Option<Arc<Instrument>> {
        let Entry::Defined(held) = self.entry_mut(instrument.id)? else { return None };
        if held.symbol != instrument.symbol || **held == instrument {
            return None;
        }
        let digest = digest_of(&instrument);
        let before = std::mem::replace(held, Arc::new(instrument));
        self.digest = self.digest.wrapping_sub(digest_of(&before)).wrapping_add(digest);
        Some(before)
    }

    /// Leaves an id empty for the rest of the epoch. Returns its instrument.
    pub fn release(&mut self, id: u32) -> Option<Arc<Instrument>> {
        let entry = self.entry_mut(id)?;
        let Entry::Defined(released) = entry else { return None };
        let released = released.clone();
        *entry = Entry::Released(released.clone());
        self.by_symbol.remove(&released.symbol);
        self.digest = self.digest.wrapping_sub(digest_of(&released));
        Some(released)
    }

    /// Leaves the next id empty: its instrument was released before this directory learned of it.
    pub fn skip(&mut self) {
        self.entries.push(Entry::Unknown);
    }

    /// The instrument with this id; `None` for one that was released.
    pub fn get(&self, id: u32) -> Option<&Arc<Instrument>> {
        match self.entry(id)? {
            Entry::Defined(instrument) => Some(instrument),
            Entry::Released(_) | Entry::Unknown => None,
        }
    }

    /// The same, or what was last known of one that was released.
    pub fn last_known(&self, id: u32) -> Option<&Arc<Instrument>> {
        match self.entry(id)? {
            Entry::Defined(instrument) | Entry::Released(instrument) => Some(instrument),
            Entry::Unknown => None,
        }
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get((id as usize).checked_sub(1)?)
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut((id as usize).checked_sub(1)?)
    }

    /// The instrument with this symbol.
    pub fn find(&self, symbol: &str) -> Option<&Arc<Instrument>> {
        self.get(*self.by_symbol.get(symbol)?)
    }

    /// Every instrument that is not released, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instrument>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Defined(instrument) => Some(instrument),
            Entry::Released(_) | Entry::Unknown => None,
        })
    }

    /// How many instruments there are.
    pub fn defined(&self) -> usize {
        self.by_symbol.len()
    }

    /// The same for directories with the same instruments, in any process, and most likely different for others.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The highest id that was ever in use.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True before the first definition.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn digest_of(instrument: &Instrument) -> u64 {
    foldhash::quality::FixedState::with_seed(0).hash_one(instrument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instrument(symbol: &str, px_exp: i8) -> Instrument {
        Instrument::new(0, symbol, "v", px_exp, -3)
    }

    #[test]
    fn released_id_stays_empty_and_its_symbol_gets_a_new_one() {
        let mut directory = Directory::default();
        assert_eq!([directory.add(&instrument("A", -2)), directory.add(&instrument("B", -2))], [1, 2]);
        assert_eq!(directory.release(1).map(|released| released.symbol.clone()), Some("A".to_owned()));
        assert!(directory.get(1).is_none() && directory.find("A").is_none() && directory.release(1).is_none());
        assert!(!directory.insert(Instrument { id: 1, ..instrument("A", -2) }), "an id is not used again");
        assert_eq!((directory.len(), directory.defined()), (2, 1));
        assert_eq!(directory.add(&instrument("A", -2)), 3);
        assert_eq!(directory.iter().map(|instrument| instrument.id).collect::<Vec<_>>(), [2, 3]);
        let mut other = Directory::default();
        other.skip();
        other.add(&instrument("B", -2));
        assert_ne!(directory.digest(), other.digest());
        other.add(&instrument("A", -2));
        assert_eq!(directory.digest(), other.digest());
    }

    #[test]
    fn definition_is_replaced_only_by_another_of_the_same_symbol() {
        let mut directory = Directory::default();
        directory.add(&instrument("A", -2));
        assert_eq!(directory.replace(Instrument { id: 1, ..instrument("A", -2) }), None, "the same");
        assert_eq!(directory.replace(Instrument { id: 1, ..instrument("B", -4) }), None, "another symbol");
        assert_eq!(directory.replace(Instrument { id: 2, ..instrument("A", -4) }), None, "an unknown id");
        let before = directory.replace(Instrument { id: 1, ..instrument("A", -4) });
        assert_eq!(before.map(|before| before.px_exp), Some(-2));
        assert_eq!(directory.find("A").map(|instrument| instrument.px_exp), Some(-4));
    }
}
