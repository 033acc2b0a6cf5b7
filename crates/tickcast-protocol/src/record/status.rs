//! Status: the state of a feed or an instrument.
//!
//! ```text
//! 40 bytes
//! 32 u8 state 'L' 'S' 'H' 'E'   33 u8[7] 0
//! ```

use super::header::RecordHeader;
use super::letters::FeedState;

/// Length of a Status record on the wire.
pub(super) const STATUS_BYTES: usize = 40;
/// Where the state begins.
pub(super) const STATE_AT: usize = 32;

/// Appends a Status record; instrument 0 is the feed as a whole.
pub fn encode_status(header: &RecordHeader, state: FeedState, out: &mut Vec<u8>) {
    header.write(STATUS_BYTES, out);
    out.extend_from_slice(&[state.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
}

/// The state that a whole Status record reports.
pub fn read_status(record: &[u8]) -> Option<FeedState> {
    record.get(STATE_AT).copied().map(FeedState::from_wire)
}
