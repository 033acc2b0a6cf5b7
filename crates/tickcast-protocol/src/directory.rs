//! The directory of instruments: names to dense ids and back.
//!
//! The sequencer owns the directory that assigns ids; every shard has a copy, built from the Definitions in its ring. Ids
//! are dense and start at 1; an instrument is never removed within an epoch.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::Instrument;

/// Instruments by id and by symbol.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    instruments: Vec<Arc<Instrument>>,
    by_symbol: HashMap<String, u32, foldhash::fast::RandomState>,
}

/// Why an instrument was not defined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// The symbol exists with another precision: records of both would be indistinguishable.
    #[error(
        "{symbol} is already defined with px_exp {px_exp} and sz_exp {sz_exp}: expected the same exponents, or \
         another symbol"
    )]
    Conflict {
        /// The symbol.
        symbol: String,
        /// As defined before.
        px_exp: i8,
        /// As defined before.
        sz_exp: i8,
    },
    /// The directory is full.
    #[error("the directory is full: expected at most {max} instruments (instruments_max)")]
    Full {
        /// The limit.
        max: usize,
    },
}

impl Directory {
    /// Assigns an id to the instrument, or returns the id that its symbol already has. The flag is true for a new one.
    ///
    /// # Errors
    /// When the symbol is defined with other exponents, or the directory is full.
    pub fn define(&mut self, instrument: &Instrument, instruments_max: usize) -> Result<(u32, bool), DefineError> {
        if let Some(known) = self.find(&instrument.symbol) {
            if (known.px_exp, known.sz_exp) != (instrument.px_exp, instrument.sz_exp) {
                let (px_exp, sz_exp) = (known.px_exp, known.sz_exp);
                return Err(DefineError::Conflict { symbol: known.symbol.clone(), px_exp, sz_exp });
            }
            return Ok((known.id, false));
        }
        if self.len() >= instruments_max {
            return Err(DefineError::Full { max: instruments_max });
        }
        let id = self.len() as u32 + 1;
        self.insert(Instrument { id, ..instrument.clone() });
        Ok((id, true))
    }

    /// Adds an instrument with the id that it has. Returns false if that id is there already.
    ///
    /// # Panics
    /// When ids do not come in order: a lost Definition is always followed by a resynchronisation, which sends them all.
    pub fn insert(&mut self, instrument: Instrument) -> bool {
        if self.get(instrument.id).is_some() {
            return false;
        }
        assert_eq!(instrument.id as usize, self.len() + 1, "instrument ids are dense");
        self.by_symbol.insert(instrument.symbol.clone(), instrument.id);
        self.instruments.push(Arc::new(instrument));
        true
    }

    /// The instrument with this id.
    pub fn get(&self, id: u32) -> Option<&Arc<Instrument>> {
        self.instruments.get((id as usize).checked_sub(1)?)
    }

    /// The instrument with this symbol.
    pub fn find(&self, symbol: &str) -> Option<&Arc<Instrument>> {
        self.get(*self.by_symbol.get(symbol)?)
    }

    /// Every instrument, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instrument>> {
        self.instruments.iter()
    }

    /// Number of instruments; also the highest id.
    pub fn len(&self) -> usize {
        self.instruments.len()
    }

    /// True before the first definition.
    pub fn is_empty(&self) -> bool {
        self.instruments.is_empty()
    }
}
