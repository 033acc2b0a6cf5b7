//! Missed log records for one client: from the ring, in their order; or one Gap a channel where the ring has been
//! overwritten or the client is too far behind.

use super::super::backlog::{Buffers, ClientBacklog};
use super::super::market_view::LogCursor;
use super::super::subscription_index::AudienceId;
use super::{CHUNK_BYTES, CatchUp, PacketFields, scan_range, split_records};
use crate::ring::{self, RingOffset};
use crate::stats::Counter;
use tickcast_protocol::GapReason;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, RecordPrefix, flags};

impl CatchUp<'_> {
    /// Appends the next chunk of log records that the client has not had. True if it has had them all now.
    pub(super) fn push_log(
        &mut self,
        audience: AudienceId,
        backlog: &mut ClientBacklog,
        buffers: &mut Buffers,
    ) -> bool {
        let (log, end) = (&mut backlog.log, self.market.offset);
        if log.offset == end {
            return true;
        }
        if !self.index.keys(audience).any(|key| key.channel().is_log()) {
            // Without a log channel there is nothing to find: scanning the ring for each slow client would delay the
            // other clients.
            (log.offset, log.position) = (end, self.market.position);
            return true;
        }
        let is_readable = log.offset >= self.history.log_floor() && end - log.offset <= self.settings.backlog_bytes_max;
        match is_readable.then(|| self.read_log(audience, log.offset, &mut buffers.batch)) {
            Some(Ok(next)) => self.push_log_chunk(audience, log, next, &buffers.batch),
            Some(Err(ring::Overrun { .. })) | None => self.push_gaps(audience, log, &mut buffers.records),
        }
        log.offset == end
    }

    /// Copies the next log records that the audience may want out of the ring. Returns where to continue.
    fn read_log(
        &mut self,
        audience: AudienceId,
        from: RingOffset,
        batch: &mut ring::Batch,
    ) -> Result<RingOffset, ring::Overrun> {
        batch.clear();
        let wanted = |_, word: u64| self.wants_log_record(audience, word);
        let next = self.ring.history(scan_range(from, self.market.offset), CHUNK_BYTES, wanted, batch)?;
        self.charge_scan(next - from, batch);
        Ok(next)
    }

    /// True if an entry of the ring, known by its first word, is a log record or Gap that the audience may want.
    fn wants_log_record(&self, audience: AudienceId, word: u64) -> bool {
        let prefix = RecordPrefix::from_word(word);
        // Records of a resynchronisation are not history: the client had them, or is sent a Gap.
        if prefix.flags() & flags::SNAPSHOT != 0 || !self.index.is_defined(prefix.instrument()) {
            return false;
        }
        match prefix.kind() {
            Some(RecordKind::Gap) => true,
            Some(kind) => {
                let log = kind.channel().filter(|channel| channel.is_log());
                log.is_some_and(|channel| self.index.wants(audience, prefix.instrument(), channel).is_some())
            }
            None => false,
        }
    }

    /// Appends the records that were read and moves the cursor to `next`. Each packet states the position up to which
    /// the client has had everything, so that it can resume from any of them.
    fn push_log_chunk(&mut self, audience: AudienceId, log: &mut LogCursor, next: RingOffset, batch: &ring::Batch) {
        let from = log.position;
        if next == self.market.offset {
            *log = self.market.log_cursor();
        } else {
            log.offset = next;
            advance_in_history(log, batch);
        }
        let index = self.index;
        let is_for = |entry: &&ring::Entry| {
            let bytes = batch.payload(entry);
            RecordHeader::read(bytes).is_some_and(|header| match RecordKind::from_wire(header.kind) {
                Some(RecordKind::Gap) => index.wants_event(audience, RecordKind::Gap, header.instrument, bytes),
                _ => true,
            })
        };
        let records = batch.entries.iter().filter(is_for).map(|entry| (entry.position, batch.payload(entry)));
        if records.clone().next().is_none() {
            return;
        }
        let gaps = records.clone().filter(|(_, bytes)| record::kind_of(bytes) == Some(RecordKind::Gap)).count();
        let fields = PacketFields { positions: (from, log.position), ..PacketFields::default() };
        self.push_packets(audience, fields, records);
        self.counters.add(Counter::GapsSent, gaps as u64);
    }

    /// Appends a Gap for every log channel that went on while its records were lost to this client, and moves the
    /// cursor to the end.
    fn push_gaps(&mut self, audience: AudienceId, log: &mut LogCursor, records: &mut Vec<u8>) {
        records.clear();
        for instrument in self.index.candidates(audience, 1) {
            let had = log.sequences.get(instrument as usize - 1).copied().unwrap_or_default();
            for (channel, had) in [Channel::Trade, Channel::Raw].into_iter().zip(had) {
                let newest = self.market.values.sequence(instrument, channel);
                if newest > had && self.index.wants(audience, instrument, channel).is_some() {
                    let gap = Gap {
                        instrument,
                        channel,
                        from_sequence: had.next(),
                        to_sequence: newest,
                        reason: GapReason::Slow,
                    };
                    gap.encode(self.now.ns, records);
                    self.counters.add(Counter::GapsSent, 1);
                }
            }
        }
        let from = log.position;
        *log = self.market.log_cursor();
        if !records.is_empty() {
            let fields = PacketFields { positions: (from, log.position), ..PacketFields::default() };
            self.push_packets(audience, fields, split_records(records).map(|record| (from, record)));
        }
    }
}

/// Moves a cursor behind records that were read from the middle of the history, so that a Gap after them starts there.
fn advance_in_history(log: &mut LogCursor, batch: &ring::Batch) {
    let Some(last) = batch.entries.last() else { return };
    log.position = last.position;
    let mut sequences = log.sequences.to_vec();
    for entry in &batch.entries {
        let bytes = batch.payload(entry);
        let Some(header) = RecordHeader::read(bytes) else { continue };
        let (channel, newest) = match RecordKind::from_wire(header.kind) {
            Some(RecordKind::Gap) => match Gap::read(bytes) {
                Some(gap) => (gap.channel, gap.to_sequence),
                None => continue,
            },
            Some(RecordKind::Raw) => (Channel::Raw, header.sequence),
            _ => (Channel::Trade, header.sequence),
        };
        if sequences.len() < header.instrument as usize {
            sequences.resize(header.instrument as usize, Default::default());
        }
        sequences[header.instrument as usize - 1][usize::from(channel == Channel::Raw)] = newest;
    }
    log.sequences = sequences.into();
}
