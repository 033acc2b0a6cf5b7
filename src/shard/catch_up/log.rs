//! Missed log records for one client: from the ring, in their order; or one Gap a channel where the ring has been
//! overwritten or the client is too far behind.
//!
//! Records go no further than the values that the client has had: a trade must not overtake the quote before it.

use std::ops::Range;

use super::super::backlog::{Buffers, GapWalk, LogLag, OwnBacklog};
use super::super::market_view::RingCursor;
use super::super::subscription_index::AudienceId;
use super::{CatchUp, PacketFields, scan_range, split_records};
use crate::ring::{self, RingOffset};
use crate::stats::Counter;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, RecordPrefix, flags};
use tickcast_protocol::{GapReason, Position};

/// For how long late log records have to come no closer to the present.
const LAG_CHECK_NS: u64 = 500_000_000;
/// Where the Gaps of a client begin.
const FIRST: (u32, Channel) = (0, Channel::Quote);

impl CatchUp<'_> {
    /// Appends the next log records that the client has not had, some `piece_bytes` of them. True if it has had them all
    /// now.
    pub(super) fn push_log(
        &mut self,
        audience: AudienceId,
        backlog: &mut OwnBacklog,
        buffers: &mut Buffers,
        piece_bytes: usize,
    ) -> bool {
        let (newest, end) = (self.market.offset, backlog.state.read());
        if backlog.log == self.market.cursor() {
            return true;
        }
        if !self.index.keys(audience).any(|key| key.channel().is_log()) {
            // Without a log channel there is nothing to find: scanning the ring for each slow client would delay the
            // other clients. Its position is that of the values: it may resume from the packets of a walk.
            let position = backlog.log.position.max(end.position);
            backlog.log = RingCursor { position, offset: newest };
            return true;
        }
        if backlog.gaps.is_none() && backlog.log.offset >= end.offset {
            return false;
        }
        let is_too_slow = self.falls_behind(audience, backlog);
        let log = &mut backlog.log;
        let is_readable = backlog.gaps.is_none()
            && !is_too_slow
            && log.offset >= self.history.log_floor()
            && newest - log.offset <= self.settings.backlog_bytes_max;
        match is_readable.then(|| self.read_log(audience, log.offset..end.offset, piece_bytes, &mut buffers.batch)) {
            Some(Ok(next)) => self.push_log_records(audience, log, (next, end.position), &buffers.batch),
            Some(Err(ring::Overrun { .. })) | None => {
                self.push_gaps(audience, backlog, &mut buffers.records, piece_bytes);
            }
        }
        backlog.gaps.is_none() && backlog.log.offset == newest
    }

    /// True if the log records of a client that also gets values are late by more than `log_lag_ms`, and have not come
    /// closer to the present for a while although it was served: it is too slow for all of them. A client that was
    /// stalled, and now takes more than there is new, is given the time.
    fn falls_behind(&self, audience: AudienceId, own: &mut OwnBacklog) -> bool {
        let (now_ns, limit_ms) = (self.now.ns, self.settings.log_lag_ms);
        if limit_ms == 0 || own.gaps.is_some() || !self.index.has_state(audience) {
            return false;
        }
        let lag_ns = self.history.time_of(own.log.offset).map_or(0, |read_ns| now_ns.saturating_sub(read_ns));
        if lag_ns <= u64::from(limit_ms) * 1_000_000 {
            own.log_lag = None;
            return false;
        }
        let begins = LogLag { lag_ns, at_ns: now_ns, served_ns: now_ns };
        match &mut own.log_lag {
            Some(before) if now_ns.saturating_sub(before.served_ns) <= LAG_CHECK_NS => {
                before.served_ns = now_ns;
                if now_ns - before.at_ns < LAG_CHECK_NS {
                    return false;
                }
                let is_too_slow = lag_ns >= before.lag_ns;
                own.log_lag = Some(begins).filter(|_| !is_too_slow);
                is_too_slow
            }
            _ => {
                own.log_lag = Some(begins);
                false
            }
        }
    }

    /// Copies the next log records that the audience may want out of the ring. Returns where to continue.
    fn read_log(
        &mut self,
        audience: AudienceId,
        Range { start, end }: Range<RingOffset>,
        piece_bytes: usize,
        batch: &mut ring::Batch,
    ) -> Result<RingOffset, ring::Overrun> {
        batch.clear();
        let wanted = |_, word: u64| self.wants_log_record(audience, word);
        let next = self.ring.history(scan_range(start, end), piece_bytes, wanted, batch)?;
        self.charge_scan(next - start, batch);
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
                log.is_some_and(|channel| self.wants_log(audience, prefix.instrument(), channel))
            }
            None => false,
        }
    }

    /// Appends the records that were read and moves the cursor to `next`. Each packet states the position up to which
    /// the client has had everything, so that it can resume from any of them.
    fn push_log_records(
        &mut self,
        audience: AudienceId,
        log: &mut RingCursor,
        (next, position_max): (RingOffset, Position),
        batch: &ring::Batch,
    ) {
        let from = log.position;
        if next == self.market.offset {
            *log = self.market.cursor();
        } else {
            log.offset = next;
            log.position = batch.entries.last().map_or(from, |last| last.position.min(position_max));
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

    /// Appends Gaps for the log channels that went on while their records were lost to this client, some `piece_bytes`
    /// of them, and moves the cursor behind what they cover once all are there.
    fn push_gaps(&mut self, audience: AudienceId, own: &mut OwnBacklog, records: &mut Vec<u8>, piece_bytes: usize) {
        let trail = &self.market.log_trail;
        // Like records, no further than the values that it has had, so that no Gap comes before the Definition of its
        // instrument.
        let GapWalk { to, next } = own.gaps.unwrap_or(GapWalk { to: own.state.read(), next: FIRST });
        let (Ok(lost), Ok(kept)) = (trail.firsts_after(own.log.offset), trail.firsts_after(to.offset)) else {
            own.has_lost_log = true;
            return;
        };
        records.clear();
        own.gaps = None;
        for (&(instrument, channel), &from_sequence) in lost.range(next..) {
            if records.len() >= piece_bytes {
                own.gaps = Some(GapWalk { to, next: (instrument, channel) });
                break;
            }
            let newest = || self.market.values.sequence(instrument, channel);
            let to_sequence = kept.get(&(instrument, channel)).map_or_else(newest, |first| first.previous());
            // A channel that has not gone on before `to` is in both.
            if to_sequence >= from_sequence && self.wants_log(audience, instrument, channel) {
                Gap { instrument, channel, from_sequence, to_sequence, reason: GapReason::Slow }
                    .encode(self.now.wall_ns(), records);
                self.counters.add(Counter::GapsSent, 1);
            }
        }
        let from = own.log.position;
        if own.gaps.is_none() {
            own.log = to;
        }
        if !records.is_empty() {
            let fields = PacketFields { positions: (from, own.log.position), ..PacketFields::default() };
            self.push_packets(audience, fields, split_records(records).map(|record| (from, record)));
        }
    }

    /// False for an instrument that is released: the client has learned that, and may have another of that name.
    fn wants_log(&self, audience: AudienceId, instrument: u32, channel: Channel) -> bool {
        let is_there = self.index.is_defined(instrument) && !self.index.is_released(instrument);
        is_there && self.index.wants(audience, instrument, channel).is_some()
    }
}
