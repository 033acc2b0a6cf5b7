//! The instruments that the messages of a feed have named, with the feed's own ids, which are dense from 1.

use std::collections::HashMap;

use super::Undecodable;
use tickcast_protocol::record::encode_definition;
use tickcast_protocol::{Instrument, check_defined_name};
use tickcast_venues::records::NAME_BYTES_MAX;
use tickcast_venues::{INSTRUMENTS_MAX, Sink};

/// The exponents that a Definition may have, either way.
const EXPONENT_MAX: u8 = 18;

/// Instruments by symbol.
#[derive(Debug, Default)]
pub struct Directory {
    by_symbol: HashMap<String, u32>,
    instruments: Vec<Instrument>,
}

impl Directory {
    /// The id of a symbol that is defined.
    pub fn id(&self, symbol: &str) -> Option<u32> {
        self.by_symbol.get(symbol).copied()
    }

    /// The instrument with this id.
    pub fn get(&self, id: u32) -> Option<&Instrument> {
        self.instruments.get((id as usize).checked_sub(1)?)
    }

    /// Takes a definition, whose id is not used, and publishes it if it is new or another. Returns the id.
    pub fn define(&mut self, instrument: Instrument, sink: &mut Sink<'_>) -> Result<u32, Undecodable> {
        let known = self.id(&instrument.symbol);
        if known.is_none() {
            if self.instruments.len() >= INSTRUMENTS_MAX {
                return Err(Undecodable::TooMany(INSTRUMENTS_MAX));
            }
            check(&instrument)?;
        } else if !instrument.venue.is_empty() {
            check_name(&instrument.venue)?;
        }
        check_exponents(&instrument)?;
        let id = known.unwrap_or(self.instruments.len() as u32 + 1);
        let instrument = Instrument { id, ..instrument };
        match self.instruments.get_mut(id as usize - 1) {
            Some(before) if *before == instrument => return Ok(id),
            Some(before) => *before = instrument,
            None => {
                self.by_symbol.insert(instrument.symbol.clone(), id);
                self.instruments.push(instrument);
            }
        }
        encode_definition(&self.instruments[id as usize - 1], sink.batch);
        sink.report.records += 1;
        Ok(id)
    }

    /// Publishes all definitions again.
    pub fn announce_again(&self, sink: &mut Sink<'_>) {
        self.instruments.iter().for_each(|instrument| encode_definition(instrument, sink.batch));
        sink.report.records += self.instruments.len() as u64;
    }
}

fn check(instrument: &Instrument) -> Result<(), Undecodable> {
    check_name(&instrument.symbol)?;
    if instrument.venue.is_empty() { Ok(()) } else { check_name(&instrument.venue) }
}

fn check_name(name: &str) -> Result<(), Undecodable> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Undecodable::LongName { bytes: name.len(), most: NAME_BYTES_MAX });
    }
    check_defined_name(name).map_err(|error| Undecodable::Name { name: name.to_owned(), error })
}

fn check_exponents(instrument: &Instrument) -> Result<(), Undecodable> {
    let bad =
        [instrument.px_exp, instrument.sz_exp].into_iter().find(|exponent| exponent.unsigned_abs() > EXPONENT_MAX);
    bad.map_or(Ok(()), |exponent| Err(Undecodable::Exponent(exponent)))
}
