//! Which instruments there are: names to dense ids and back.
//!
//! The sequencer owns the one that gives ids; every shard keeps a copy, built from the Definitions in its ring. Ids are
//! dense and start at 1, an instrument is never removed within an epoch.

use std::collections::HashMap;
use std::sync::Arc;

use super::instrument::Instrument;

/// Names to instruments.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    instruments: Vec<Arc<Instrument>>,
    by_symbol: HashMap<String, u32, foldhash::fast::RandomState>,
}

/// Why an instrument was not defined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// The same symbol exists with another precision, and records of both could not be told apart.
    #[error(
        "{symbol} is defined already with px_exp {px_exp} and sz_exp {sz_exp}; define it the same, or choose another symbol"
    )]
    Conflict { symbol: String, px_exp: i8, sz_exp: i8 },
    /// The directory is full.
    #[error("the directory holds {max} instruments, and that is its limit (instruments_max)")]
    Full { max: usize },
}

impl Directory {
    /// Gives the instrument an id, or the one that its symbol already has. The flag says whether it is new.
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

    /// Takes over an instrument with the id that it has. Returns false for one that is there already.
    ///
    /// # Panics
    /// When ids do not come in order: Definitions are never lost without a resynchronisation, which sends them all.
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

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instrument>> {
        self.instruments.iter()
    }

    /// How many there are; also the highest id.
    pub fn len(&self) -> usize {
        self.instruments.len()
    }

    /// True before the first definition.
    pub fn is_empty(&self) -> bool {
        self.instruments.is_empty()
    }
}
