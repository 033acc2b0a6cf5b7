//! The records of an audience whose rights hide fields: copies without the values of those, made once for all its clients.
//!
//! Every packet of records that a client is sent, live, as a snapshot, in a replay or when it has been slow, is encoded
//! from what comes out of here. Cost: a copy and a look-up a record, for such audiences only.

use std::ops::Range;

use super::subscription_index::HiddenFields;
use tickcast_protocol::Position;
use tickcast_protocol::record::RecordPrefix;

/// Memory that is kept from packet to packet.
const BYTES_KEPT: usize = 64 * 1024;

/// The copies of one piece.
#[derive(Debug, Default)]
pub(super) struct Projection {
    bytes: Vec<u8>,
    records: Vec<(Position, Range<usize>)>,
}

impl Projection {
    /// The records without the hidden fields.
    #[inline(never)]
    pub(super) fn project<'r>(
        &mut self,
        hidden: HiddenFields<'_>,
        records: impl Iterator<Item = (Position, &'r [u8])>,
    ) -> impl Iterator<Item = (Position, &[u8])> + Clone {
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.records.clear();
        for (position, record) in records {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(record);
            if let Some(prefix) = RecordPrefix::read(record) {
                hidden.of(prefix.instrument()).hide(&mut self.bytes[start..]);
            }
            self.records.push((position, start..self.bytes.len()));
        }
        self.records.iter().map(|(position, range)| (*position, &self.bytes[range.clone()]))
    }
}
