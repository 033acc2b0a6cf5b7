//! Records of a server's stream as those of a source. They are played as they are; ids are those of the source, and the
//! server numbers and stamps them anew.
//!
//! What is not played: heartbeats, the state of the feed as a whole, releases, and what only repeats what is known, which
//! are the server's own to make. At another epoch the server of the stream was restarted: its instruments are reported
//! stale until their next record, as what came between is not known.

use std::collections::HashMap;

use super::track::Output;
use tickcast_protocol::record::{self, Gap, RecordHeader, encode_status, flags};
use tickcast_protocol::{FeedState, RecordKind, Sequence};

/// See the module.
#[derive(Debug, Default)]
pub struct Translation {
    epoch: Option<u32>,
    /// The epoch's id → the source's own.
    ids: HashMap<u32, u32>,
    /// Records are flagged DELAYED and keep the time at which they were received. Instruments that were released end.
    is_delayed: bool,
}

impl Translation {
    /// For a delayed market.
    pub fn delayed() -> Self {
        Self { is_delayed: true, ..Self::default() }
    }

    /// Appends a record of a packet of this epoch.
    ///
    /// # Errors
    /// What is wrong with the record, which is left out.
    pub fn play(&mut self, epoch: u32, record: &[u8], output: &mut Output<'_>) -> Result<(), String> {
        let Some(header) = RecordHeader::read(record) else { return Ok(()) };
        if self.epoch.replace(epoch).is_some_and(|before| before != epoch) {
            for id in std::mem::take(&mut self.ids).into_values() {
                let header = RecordHeader::of_feed(RecordKind::Status, id, 0);
                output.put(|batch| encode_status(&header, FeedState::Stale, batch));
            }
        }
        let Some(kind) = header.known_kind() else {
            output.report.ignored += 1;
            return Ok(());
        };
        match kind {
            RecordKind::Definition => {
                let instrument =
                    record::read_definition(record).ok_or("a Definition that is cut short, or not UTF-8")?;
                let id = output.define(instrument)?;
                self.ids.insert(header.instrument, id);
                return Ok(());
            }
            RecordKind::Status if record::read_status(record) == Some(FeedState::Released) => {
                if let Some(id) = self.ids.remove(&header.instrument).filter(|_| self.is_delayed) {
                    let header = RecordHeader::of_feed(RecordKind::Status, id, 0);
                    output.put(|batch| encode_status(&header, FeedState::Ended, batch));
                }
                return Ok(());
            }
            RecordKind::Status if header.instrument == 0 => return Ok(()),
            RecordKind::Gap if header.flags & flags::SNAPSHOT != 0 => return Ok(()),
            RecordKind::Heartbeat => return Ok(()),
            _ => {}
        }
        record::check(record).map_err(|error| error.to_string())?;
        if kind == RecordKind::Gap && Gap::read(record).is_none_or(|gap| gap.to_sequence < gap.from_sequence) {
            return Err("a Gap that ends before it begins".to_owned());
        }
        let id = *self.ids.get(&header.instrument).ok_or_else(|| {
            format!("a record of instrument {}, which no Definition has announced", header.instrument)
        })?;
        if kind == RecordKind::Book {
            output.note_book(id, true);
        }
        output.put(|batch| {
            let start = batch.len();
            batch.extend_from_slice(record);
            let (ts_recv, added) = if self.is_delayed { (header.ts_recv, flags::DELAYED) } else { (0, 0) };
            record::patch_sequenced(&mut batch[start..], id, Sequence::NONE, ts_recv);
            record::patch_flags(&mut batch[start..], header.flags & !flags::SNAPSHOT | added);
        });
        Ok(())
    }
}
