//! Definition: announces an instrument.
//!
//! ```text
//! 64 + symbol + venue, padded with zeros
//! 32 i8  px_exp        33 i8  sz_exp   34 u8 status 'T' 'H' 'C'   35 u8 symbol bytes
//! 36 u8  venue bytes   37 u8[3] 0
//! 40 i64 tick_size     48 i64 lot_size   56 u64 0
//! 64 symbol, then venue, UTF-8
//! ```

use super::bytes::{put, u64_at};
use super::header::{HEADER_BYTES, RecordHeader};
use super::instrument::Instrument;
use super::kind::RecordKind;
use super::letters::InstrumentStatus;

/// Where the symbol begins.
const SYMBOL_AT: usize = 64;

/// Appends a Definition record.
///
/// # Panics
/// When symbol or venue are longer than 255 bytes: requests and feeds are bounded to that.
pub fn encode_definition(instrument: &Instrument, out: &mut Vec<u8>) {
    let (symbol, venue) = (instrument.symbol.as_bytes(), instrument.venue.as_bytes());
    let symbol_bytes = u8::try_from(symbol.len()).expect("symbols have at most 255 bytes");
    let venue_bytes = u8::try_from(venue.len()).expect("venues have at most 255 bytes");
    let length = (SYMBOL_AT + symbol.len() + venue.len()).next_multiple_of(8);
    RecordHeader::of_feed(RecordKind::Definition, instrument.id, 0).write(length, out);
    let status = instrument.status.to_wire();
    out.extend_from_slice(&[instrument.px_exp as u8, instrument.sz_exp as u8, status, symbol_bytes]);
    out.extend_from_slice(&[venue_bytes, 0, 0, 0]);
    put(out, &[instrument.tick_size, instrument.lot_size, 0]);
    out.extend_from_slice(symbol);
    out.extend_from_slice(venue);
    out.resize(out.len() + length - SYMBOL_AT - symbol.len() - venue.len(), 0);
}

/// The instrument that a whole Definition record announces; `None` if it is cut short or not UTF-8.
pub fn read_definition(record: &[u8]) -> Option<Instrument> {
    let header = RecordHeader::read(record)?;
    let body = record.get(HEADER_BYTES..SYMBOL_AT)?;
    let symbol_end = SYMBOL_AT + usize::from(body[3]);
    let venue_end = symbol_end + usize::from(body[4]);
    Some(Instrument {
        id: header.instrument,
        symbol: std::str::from_utf8(record.get(SYMBOL_AT..symbol_end)?).ok()?.to_owned(),
        venue: std::str::from_utf8(record.get(symbol_end..venue_end)?).ok()?.to_owned(),
        px_exp: body[0] as i8,
        sz_exp: body[1] as i8,
        status: InstrumentStatus::from_wire(body[2]),
        tick_size: u64_at(body, 8) as i64,
        lot_size: u64_at(body, 16) as i64,
    })
}
