//! JSON records of the protocol: a record or a list of records, see [`tickcast_venues::records`].

use super::{CodecSettings, Payload, SymbolFrom, Undecodable};
use tickcast_venues::Sink;
use tickcast_venues::records::{JsonRecords, SymbolAt};

/// Takes a message. Of a list, the records that can be read are taken.
pub fn take(
    records: &mut JsonRecords,
    settings: &CodecSettings,
    payload: &Payload<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), Undecodable> {
    if let SymbolFrom::Field(key) = &settings.symbol {
        return Ok(records.on_message(payload.bytes, SymbolAt::Field(key), sink)?);
    }
    let symbol = settings.symbol(payload)?;
    Ok(records.on_message(payload.bytes, SymbolAt::Given(&symbol), sink)?)
}
