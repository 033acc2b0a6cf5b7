//! Opaque bytes: each message is a Raw record of the instrument that its address or its key names.

use super::directory::Directory;
use super::{CodecSettings, Payload, Undecodable};
use tickcast_protocol::record::{RECORD_BYTES_MAX, RecordHeader, encode_raw};
use tickcast_protocol::{Instrument, RecordKind};
use tickcast_venues::Sink;

/// Longest payload: a Raw record has 40 bytes before it, and ends at a multiple of 8.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX - 40;

/// Takes a message.
pub fn take(
    directory: &mut Directory,
    settings: &CodecSettings,
    payload: &Payload<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), Undecodable> {
    let bytes = payload.bytes.len();
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(Undecodable::LongPayload { bytes, most: PAYLOAD_BYTES_MAX });
    }
    let symbol = settings.symbol(payload)?;
    let id = match directory.id(&symbol) {
        Some(id) => id,
        None => directory.define(Instrument::new(0, &symbol, &settings.venue, 0, 0), sink)?,
    };
    encode_raw(&RecordHeader::of_feed(RecordKind::Raw, id, 0), payload.bytes, sink.batch);
    sink.report.records += 1;
    Ok(())
}
