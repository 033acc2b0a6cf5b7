//! The request of publishers: define instruments, so that their packets can carry records of them.

use serde::Serialize;
use simd_json::prelude::*;
use simd_json::tape::{Object, Value};

use super::RequestError;
use super::field::{self, Field, bad, invalid, over_limit};
use crate::check_defined_name;

/// Instruments that one request can define.
pub const INSTRUMENTS_MAX: usize = 10_000;
/// Powers of ten in either direction: beyond them no 64-bit mantissa is a useful price.
const EXPONENT_MAX: u64 = 18;

/// A well-formed `define`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Define {
    /// The id that the reply carries.
    pub id: u64,
    /// The instruments, in the order given.
    pub instruments: Vec<DefineInstrument>,
}

/// One instrument that a publisher defines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DefineInstrument {
    /// See [`check_defined_name`].
    pub symbol: String,
    /// The same, or empty.
    pub venue: String,
    /// A price is `px × 10^px_exp`.
    pub px_exp: i8,
    /// A size is `sz × 10^sz_exp`.
    pub sz_exp: i8,
    /// Smallest price step, in units of `10^px_exp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick_size: Option<i64>,
    /// Smallest size step, in units of `10^sz_exp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lot_size: Option<i64>,
}

impl DefineInstrument {
    /// An instrument with no stated tick or lot size.
    pub fn new(symbol: &str, venue: &str, px_exp: i8, sz_exp: i8) -> Self {
        let (symbol, venue) = (symbol.to_owned(), venue.to_owned());
        Self { symbol, venue, px_exp, sz_exp, tick_size: None, lot_size: None }
    }
}

/// Reads one `define` whose symbols and venues have at most `name_bytes_max` bytes. The text is parsed in place.
///
/// # Errors
/// The first thing that is wrong, in the order: the text, `op`, `id`, then the instruments from the first on.
pub fn parse_define(text: &mut [u8], name_bytes_max: usize) -> Result<Define, RequestError> {
    field::with_object(text, |object| {
        let keys = ["op", "id", "instruments"];
        let [op, given_id, instruments] = field::collect(object, keys);
        let id = field::id(given_id);
        let known_id = id.as_ref().ok().copied().filter(|_| given_id.is_some());
        let known = check_op(&op, id).and_then(|id| field::refuse_unknown(object, &keys).map(|()| id));
        let defined = known.and_then(|id| define(id, instruments, name_bytes_max));
        defined.map_err(|error| RequestError { id: known_id, ..error })
    })
}

/// The id, if the op is right.
fn check_op(op: &Field, id: Result<u64, RequestError>) -> Result<u64, RequestError> {
    let op = field::text("op", op, "define")?;
    if op != "define" {
        return Err(bad("op", format_args!("unknown op {}: expected define", field::quote(op))));
    }
    id
}

fn define(id: u64, instruments: Field, name_bytes_max: usize) -> Result<Define, RequestError> {
    let list = field::list("instruments", instruments, "a list of instruments")?;
    if list.len() > INSTRUMENTS_MAX {
        let problem = format_args!("{} in one request: expected at most {INSTRUMENTS_MAX}", list.len());
        return Err(over_limit("instruments", problem));
    }
    let instruments = list
        .iter()
        .enumerate()
        .map(|(index, value)| instrument(index, &value, name_bytes_max))
        .collect::<Result<_, _>>()?;
    Ok(Define { id, instruments })
}

fn instrument(index: usize, value: &Value, name_bytes_max: usize) -> Result<DefineInstrument, RequestError> {
    let Some(object) = value.as_object() else {
        return Err(invalid(format_args!("instruments[{index}]"), value, "an object"));
    };
    instrument_fields(&object, name_bytes_max)
        .map_err(|error| RequestError { message: format!("instruments[{index}].{}", error.message), ..error })
}

fn instrument_fields(object: &Object, name_bytes_max: usize) -> Result<DefineInstrument, RequestError> {
    let keys = ["symbol", "venue", "px_exp", "sz_exp", "tick_size", "lot_size"];
    let [symbol, venue, px_exp, sz_exp, tick_size, lot_size] = field::collect(object, keys);
    field::refuse_unknown(object, &keys)?;
    Ok(DefineInstrument {
        symbol: name("symbol", &symbol, 1, name_bytes_max)?.to_owned(),
        venue: if venue.is_some() { name("venue", &venue, 0, name_bytes_max)?.to_owned() } else { String::new() },
        px_exp: exponent("px_exp", px_exp)?,
        sz_exp: exponent("sz_exp", sz_exp)?,
        tick_size: step("tick_size", tick_size)?,
        lot_size: step("lot_size", lot_size)?,
    })
}

fn name<'tape>(key: &str, field: &'tape Field, bytes_min: usize, bytes_max: usize) -> Result<&'tape str, RequestError> {
    let expected = format_args!("a text of {bytes_min} to {bytes_max} bytes");
    let text = field::text(key, field, expected)?;
    if text.len() < bytes_min || text.len() > bytes_max {
        let problem = format_args!("{} has {} bytes: expected {expected}", field::quote(text), text.len());
        return Err(bad(key, problem));
    }
    // The text is empty where it may be.
    if text.is_empty() {
        return Ok(text);
    }
    match check_defined_name(text) {
        Ok(()) => Ok(text),
        Err(problem) => Err(bad(key, format_args!("{} {problem}", field::quote(text)))),
    }
}

fn exponent(key: &str, field: Field) -> Result<i8, RequestError> {
    field::whole_number(key, field, -(EXPONENT_MAX as i64), EXPONENT_MAX).map(|number| number as i8)
}

/// A step; `None` if it is missing or null.
fn step(key: &str, field: Field) -> Result<Option<i64>, RequestError> {
    if field.is_none_or(|value| value.is_null()) {
        return Ok(None);
    }
    field::whole_number(key, field, 1, i64::MAX as u64).map(|number| Some(number as i64))
}

#[cfg(test)]
mod tests;
