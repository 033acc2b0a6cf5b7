//! What comes before the first record that is played (`from=`): it is read and not played, and its outcome is published
//! in one piece, so that books and values are right from the first record on.

use tickcast_protocol::RecordKind;
use tickcast_protocol::record::{self, RecordHeader};
use tickcast_recording::MarketState;

/// The outcome of the records so far.
#[derive(Debug, Default)]
pub struct Skipped {
    state: MarketState,
}

impl Skipped {
    /// Adds records, and empties them.
    pub fn add(&mut self, records: &mut Vec<u8>) {
        for (header, record) in record::records(records) {
            self.state.apply(&header, record);
        }
        records.clear();
    }

    /// Appends definitions, states, books, quotes and statistics, and forgets them. Returns how many records these are.
    /// Trades are not among them: they happened before.
    pub fn publish(&mut self, batch: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        let state = std::mem::take(&mut self.state);
        let published = state.try_each_record(|record| {
            let is_kept =
                |header: &RecordHeader| !matches!(header.known_kind(), Some(RecordKind::Trade | RecordKind::Gap));
            if RecordHeader::read(record).as_ref().is_some_and(is_kept) {
                batch.extend_from_slice(record);
                count += 1;
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = published;
        count
    }
}
