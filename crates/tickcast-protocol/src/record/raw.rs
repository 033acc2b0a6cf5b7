//! Raw: opaque bytes.
//!
//! ```text
//! 40 + payload, padded with zeros
//! 32 u32 payload bytes   36 u32 0   40 payload
//! ```

use super::bytes::u32_at;
use super::header::{HEADER_BYTES, RecordHeader};

/// Where the length of the payload begins.
pub(super) const PAYLOAD_BYTES_AT: usize = 32;
/// Where the payload begins.
pub(super) const PAYLOAD_AT: usize = 40;

/// Appends a Raw record.
///
/// # Panics
/// When the record would be longer than [`RECORD_BYTES_MAX`](super::RECORD_BYTES_MAX).
pub fn encode_raw(header: &RecordHeader, payload: &[u8], out: &mut Vec<u8>) {
    let length = (PAYLOAD_AT + payload.len()).next_multiple_of(8);
    header.write(length, out);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.resize(out.len() + length - PAYLOAD_AT - payload.len(), 0);
}

/// The payload of a whole Raw record.
pub fn read_raw(record: &[u8]) -> Option<&[u8]> {
    let head = record.get(HEADER_BYTES..PAYLOAD_AT)?;
    let length = u32_at(head, PAYLOAD_BYTES_AT - HEADER_BYTES) as usize;
    record.get(PAYLOAD_AT..PAYLOAD_AT.checked_add(length)?)
}
