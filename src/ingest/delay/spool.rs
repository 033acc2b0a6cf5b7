//! The thread that writes what the live market broadcasts to the spool.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::files::Spool;
use crate::affinity::keep_current_thread_on;
use crate::clock::now_ns;
use crate::fault;
use crate::ingest::SequencerHandle;
use crate::lifecycle::Lifecycle;
use crate::ring::{Batch, Overrun, Reader};
use tickcast_protocol::packet::{self, RECORDS_MAX};
use tickcast_protocol::record::{self, RecordHeader, flags};
use tickcast_protocol::{PacketHeader, Position, RecordKind, Token};
use tickcast_recording::{MarketState, WriteError, Writer};

/// The ring between the sequencer and this thread: two seconds of 100,000 records.
pub const RING_BYTES: usize = 16 << 20;
/// Time between two looks at the ring.
const POLL: Duration = Duration::from_millis(50);
/// Bytes of the ring that are read at once.
const PORTION_BYTES: usize = 256 << 10;
/// A packet is written when it has grown to this.
const PACKET_BYTES: usize = 64 << 10;
/// Time after which what came is written.
const FLUSH_NS: u64 = 1_000_000_000;
/// Time until a disk that has refused something is tried again.
const RETRY_NS: u64 = 1_000_000_000;

/// Starts the thread. `ring` is that of the sequencer with this index.
pub fn spawn(
    spool: Arc<Spool>,
    ring: Reader,
    sequencer: Arc<SequencerHandle>,
    index: usize,
    epoch: u32,
    lifecycle: Arc<Lifecycle>,
    cores: Vec<usize>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("spool".to_owned()).spawn(move || {
        keep_current_thread_on(&cores);
        let _guard = lifecycle.fail_on_panic("the thread of the spool");
        let request_resync = move || sequencer.request_resync(index);
        let mut writer = SpoolWriter::new(spool, ring, epoch, request_resync);
        while !lifecycle.is_stopping() {
            fault::point("spool");
            writer.advance(now_ns());
            thread::park_timeout(POLL);
        }
        // What was sequenced last.
        writer.advance(now_ns());
        writer.close(now_ns());
    })
}

/// What is done with what comes.
enum Phase {
    /// It is written.
    Writing { log: Box<Writer<File>>, number: u64, begun_ns: u64, path: PathBuf },
    /// The disk is full or has failed: the state of the market is kept for the next segment.
    Waiting { state: MarketState, until_ns: u64 },
    /// Records were overwritten in the ring: the sequencer sends the state of all instruments.
    Resyncing { state: MarketState, is_requested: bool },
}

pub(super) struct SpoolWriter<R> {
    spool: Arc<Spool>,
    ring: Reader,
    batch: Batch,
    epoch: u32,
    request_resync: R,
    /// How many were requested: the end of a resynchronisation has the number of its request.
    resyncs: u64,
    phase: Phase,
    /// That of the newest record.
    position: Position,
    /// The packet that is being made, with its header.
    packet: Vec<u8>,
    packet_records: usize,
    /// Quotes and tickers that wait for the end of their interval, by instrument and kind.
    conflated: BTreeMap<(u32, u8), Vec<u8>>,
    conflated_ns: u64,
    /// When blocks were last written.
    flushed_ns: u64,
    /// The spool has reached its limit, and is not yet well below it.
    is_full: bool,
}

impl<R: Fn() -> bool> SpoolWriter<R> {
    pub(super) fn new(spool: Arc<Spool>, ring: Reader, epoch: u32, request_resync: R) -> Self {
        Self {
            spool,
            ring,
            batch: Batch::default(),
            epoch,
            request_resync,
            resyncs: 0,
            phase: Phase::Waiting { state: empty_state(epoch), until_ns: 0 },
            position: Position::ZERO,
            packet: vec![0; packet::HEADER_BYTES],
            packet_records: 0,
            conflated: BTreeMap::new(),
            conflated_ns: 0,
            flushed_ns: 0,
            is_full: false,
        }
    }

    /// Takes what the ring has, and ends a segment that is old enough.
    pub(super) fn advance(&mut self, now_ns: u64) {
        self.begin_segment(now_ns);
        while !self.ring.is_empty() {
            let mut batch = std::mem::take(&mut self.batch);
            batch.clear();
            match self.ring.read(PORTION_BYTES, &mut batch) {
                Ok(()) => self.take(&batch, now_ns),
                Err(Overrun { .. }) => self.lose(now_ns),
            }
            self.batch = batch;
        }
        if now_ns.saturating_sub(self.conflated_ns) >= self.spool.conflate_ns() {
            self.conflated_ns = now_ns;
            self.write_conflated(now_ns);
        }
        self.write_packet(now_ns);
        if let Phase::Resyncing { is_requested, .. } = &mut self.phase
            && !*is_requested
        {
            *is_requested = (self.request_resync)();
            self.resyncs += u64::from(*is_requested);
        }
        self.flush(now_ns);
        self.spool.remove_old(now_ns);
    }

    /// Writes what came, so that a crash loses no more than [`FLUSH_NS`], and ends a segment that is old enough.
    fn flush(&mut self, now_ns: u64) {
        let Phase::Writing { log, begun_ns, .. } = &mut self.phase else { return };
        if self.spool.is_full() {
            tracing::error!(
                "the spool has reached its limit (spool_bytes_max): records are missing in the delayed markets, as a gap"
            );
            self.is_full = true;
            self.write_conflated(now_ns);
            self.write_packet(now_ns);
            return self.end_segment(now_ns);
        }
        let is_over = now_ns.saturating_sub(*begun_ns) >= self.spool.segment_ns() && log.has_packets();
        if is_over {
            self.write_conflated(now_ns);
            self.write_packet(now_ns);
            self.end_segment(now_ns);
            return self.begin_segment(now_ns);
        }
        if now_ns.saturating_sub(self.flushed_ns) < FLUSH_NS {
            return;
        }
        self.flushed_ns = now_ns;
        let written = log.flush();
        self.spool.set_unfinished(log.written_bytes());
        if let Err(error) = written {
            self.fail(&error, now_ns);
        }
    }

    fn take(&mut self, batch: &Batch, now_ns: u64) {
        for entry in &batch.entries {
            let record = batch.payload(entry);
            let Some(header) = RecordHeader::read(record) else { continue };
            let is_lost = entry.position.get() > self.position.get() + 1;
            debug_assert!(!is_lost || !matches!(self.phase, Phase::Writing { .. }), "positions are contiguous");
            self.position = entry.position;
            match &mut self.phase {
                // The end of a resynchronisation.
                Phase::Resyncing { state, .. } if header.known_kind() == Some(RecordKind::Heartbeat) => {
                    if header.sequence.get() == self.resyncs {
                        let state = std::mem::take(state);
                        self.phase = Phase::Waiting { state, until_ns: 0 };
                        self.begin_segment(now_ns);
                    }
                }
                Phase::Resyncing { state, .. } => {
                    state.apply(&header, record);
                    self.spool.count_lost(u64::from(!is_resent(&header)));
                }
                Phase::Waiting { state, .. } => {
                    state.apply(&header, record);
                    self.spool.count_lost(1);
                }
                Phase::Writing { .. } => self.push(&header, record, now_ns),
            }
        }
    }

    fn push(&mut self, header: &RecordHeader, record: &[u8], now_ns: u64) {
        match header.known_kind() {
            Some(RecordKind::Heartbeat) => return,
            Some(RecordKind::Quote | RecordKind::Ticker) if self.spool.conflate_ns() > 0 => {
                return self.conflate(header, record);
            }
            // What waits has the exponents from before.
            Some(RecordKind::Definition | RecordKind::Status) => self.write_conflated(now_ns),
            _ => {}
        }
        self.push_record(record, now_ns);
    }

    /// Keeps the newest value of an instrument until the end of the interval.
    fn conflate(&mut self, header: &RecordHeader, record: &[u8]) {
        let kept = self.conflated.entry((header.instrument, header.kind)).or_default();
        let is_replaced = !kept.is_empty();
        kept.clear();
        kept.extend_from_slice(record);
        if is_replaced {
            record::patch_flags(kept, header.flags | flags::CONFLATED);
        }
    }

    fn write_conflated(&mut self, now_ns: u64) {
        for record in std::mem::take(&mut self.conflated).into_values() {
            self.push_record(&record, now_ns);
        }
    }

    fn push_record(&mut self, record: &[u8], now_ns: u64) {
        if self.packet_records == RECORDS_MAX || self.packet.len() + record.len() > PACKET_BYTES {
            self.write_packet(now_ns);
        }
        self.packet.extend_from_slice(record);
        self.packet_records += 1;
    }

    /// Writes the packet that is being made. Its stamp is not before its records were received.
    fn write_packet(&mut self, now_ns: u64) {
        let (count, epoch, position) = (self.packet_records as u16, self.epoch, self.position);
        if let Phase::Writing { log, .. } = &mut self.phase
            && count > 0
        {
            let header = PacketHeader { flags: 0, count, epoch, position, ts_send: now_ns };
            self.packet[..packet::HEADER_BYTES].copy_from_slice(&header.encode());
            match log.packet(&self.packet) {
                Ok(()) => self.spool.count(u64::from(count)),
                Err(WriteError::Io(error)) => {
                    self.spool.count_lost(u64::from(count));
                    self.fail(&error, now_ns);
                }
                Err(error) => self.fail(&io::Error::other(error.to_string()), now_ns),
            }
        }
        self.packet.truncate(packet::HEADER_BYTES);
        self.packet_records = 0;
    }

    /// Records were overwritten before they were read.
    fn lose(&mut self, now_ns: u64) {
        tracing::warn!("the spool was too slow for the market: records are missing in the delayed markets, as a gap");
        self.write_conflated(now_ns);
        self.write_packet(now_ns);
        self.end_segment(now_ns);
        self.phase = Phase::Resyncing { state: empty_state(self.epoch), is_requested: false };
    }

    /// Begins a segment, if none is being written and it can be.
    fn begin_segment(&mut self, now_ns: u64) {
        let Phase::Waiting { state, until_ns } = &mut self.phase else { return };
        if now_ns < *until_ns {
            return;
        }
        if self.is_full && !self.spool.has_space() {
            *until_ns = now_ns + RETRY_NS;
            return;
        }
        self.is_full = false;
        let state = std::mem::take(state);
        let (number, path) = self.spool.next(now_ns);
        let token = Token { epoch: self.epoch, position: self.position };
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        self.phase = match file.and_then(|file| Writer::begin_with(file, state.clone(), token, now_ns)) {
            Ok(log) => Phase::Writing { log: Box::new(log), number, begun_ns: now_ns, path },
            Err(error) => {
                self.spool.count_failure();
                tracing::error!(file = %path.display(), "the spool cannot be written: {error}");
                // If it is there, it is of no use.
                let _ = std::fs::remove_file(&path);
                Phase::Waiting { state, until_ns: now_ns + RETRY_NS }
            }
        };
    }

    /// Ends the segment that is being written: readers have it from now on.
    fn end_segment(&mut self, now_ns: u64) {
        let (log, number, begun_ns, path) =
            match std::mem::replace(&mut self.phase, Phase::Waiting { state: MarketState::default(), until_ns: 0 }) {
                Phase::Writing { log, number, begun_ns, path } => (log, number, begun_ns, path),
                other => {
                    self.phase = other;
                    return;
                }
            };
        let state = log.state().clone();
        let finished = log.finish().and_then(|file| file.sync_data());
        let finished = finished.and_then(|()| self.spool.finish(&path, number, begun_ns..now_ns));
        self.spool.set_unfinished(0);
        let mut until_ns = 0;
        if let Err(error) = finished {
            self.spool.count_failure();
            tracing::error!(file = %path.display(), "a segment of the spool cannot be finished: {error}");
            until_ns = now_ns + RETRY_NS;
        }
        self.phase = Phase::Waiting { state, until_ns };
    }

    /// The disk has refused something: the whole blocks before it are kept.
    fn fail(&mut self, error: &io::Error, now_ns: u64) {
        let waiting = Phase::Waiting { state: MarketState::default(), until_ns: 0 };
        let Phase::Writing { mut log, number, begun_ns, path } = std::mem::replace(&mut self.phase, waiting) else {
            return;
        };
        self.spool.count_failure();
        self.spool.set_unfinished(0);
        tracing::error!(
            file = %path.display(),
            "the spool cannot be written: {error}; records are missing in the delayed markets, as a gap"
        );
        let whole = log.written_bytes();
        let kept = log.output().set_len(whole).and_then(|()| self.spool.finish(&path, number, begun_ns..now_ns));
        if let Err(error) = kept {
            tracing::error!(file = %path.display(), "a segment of the spool cannot be kept: {error}");
        }
        // What waits is lost as a record, and not as a value.
        let mut state = log.into_state();
        for record in std::mem::take(&mut self.conflated).into_values() {
            if let Some(header) = RecordHeader::read(&record) {
                state.apply(&header, &record);
            }
        }
        self.phase = Phase::Waiting { state, until_ns: now_ns + RETRY_NS };
    }

    /// Ends the spool with the server.
    pub(super) fn close(&mut self, now_ns: u64) {
        self.write_conflated(now_ns);
        self.write_packet(now_ns);
        self.end_segment(now_ns);
    }
}

fn empty_state(epoch: u32) -> MarketState {
    let mut state = MarketState::default();
    state.begin_epoch(epoch);
    state
}

fn is_resent(header: &RecordHeader) -> bool {
    header.flags & flags::SNAPSHOT != 0
}
