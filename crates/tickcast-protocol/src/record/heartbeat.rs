//! Heartbeat: a bare header, 32 bytes, sent after a time without other records.

use super::header::{HEADER_BYTES, RecordHeader};
use super::kind::RecordKind;

/// Appends a Heartbeat.
pub fn encode_heartbeat(ts_recv: u64, out: &mut Vec<u8>) {
    let header = RecordHeader { ts_recv, ..RecordHeader::of_feed(RecordKind::Heartbeat, 0, 0) };
    header.write(HEADER_BYTES, out);
}
