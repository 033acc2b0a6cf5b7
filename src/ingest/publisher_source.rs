//! A publisher as a source: checks what it sends, gathers batches, and hands them to the sequencer at the pace of its
//! identity.
//!
//! What always holds: every record of a batch is whole and checked, and of an instrument that was defined on this
//! connection. A request to define instruments takes of the pace whether it is carried out or not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::identity::{Identity, Work};
use super::{BATCH_BYTES_MAX, Entered, Publishers, SequencerHandle, Unread};
use crate::clock::now_ns;
use crate::sequencer::{BatchFaults, RefusedGap, SKIPPED_FREE, SKIPPED_PER_RECORD, SourceEnd, SourceId};
use tickcast_protocol::control::{BAD_REQUEST, Define, LIMIT, RequestError, parse_define, reply};
use tickcast_protocol::packet::{self, PacketError, PacketHeader};
use tickcast_protocol::record::{self, RecordError, RecordPrefix};
use tickcast_protocol::ws::{CloseCode, NextStep, Opcode, SessionEvent, answer_control, close_frame, push_frame};
use tickcast_protocol::{Instrument, RecordKind};

/// Longest wait before the thread checks whether the server stops or the token is withdrawn.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How soon a publisher that waits for the rings checks them again.
const ROOM_INTERVAL: Duration = Duration::from_micros(500);
/// The same for one that waits for the shards to read what it has sent.
const READ_INTERVAL: Duration = Duration::from_micros(100);

/// Why a packet is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPacket {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("record {record} at byte {at}: {error}")]
    Record { record: usize, at: usize, error: RecordError },
    #[error("record {record} at byte {at}: instrument {instrument} was not defined on this connection")]
    Undefined { record: usize, at: usize, instrument: u32 },
    #[error("the book of {symbol} would have more than {max} levels (book_levels_max)")]
    Book { symbol: String, max: usize },
    #[error("{symbol} was released, or defined otherwise by another source, and is to be defined again")]
    Withdrawn { symbol: String },
    #[error(
        "{symbol}: a Gap of {missing} records of type {kind}: expected at most {allowed}, which is {SKIPPED_FREE} and \
         {SKIPPED_PER_RECORD} for each record, less what was skipped before"
    )]
    Gap { symbol: String, kind: u8, missing: u64, allowed: u64 },
    #[error("{bytes} bytes follow the {count} records that the header counts")]
    Trailing { count: usize, bytes: usize },
}

/// The limits of a publisher: the settings when it connected.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Longest packet, bytes.
    pub packet_bytes_max: usize,
    /// Longest symbol, bytes.
    pub symbol_bytes_max: usize,
    /// Longest request to define instruments, bytes.
    pub define_bytes_max: usize,
    /// Levels of one book.
    pub book_levels_max: usize,
    /// Bytes that a compressed message may inflate to, in multiples of its length.
    pub inflate_ratio_max: u32,
}

/// Why a publisher is not served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    Stopping,
    /// Its token was withdrawn.
    Withdrawn,
}

/// The publisher as a source: its instruments, and the batch that is being gathered.
pub(super) struct PublisherSource {
    sequencer: Arc<SequencerHandle>,
    publishers: Arc<Publishers>,
    settings: PublisherSettings,
    identity: Arc<Identity>,
    id: SourceId,
    is_withdrawn: Arc<AtomicBool>,
    /// Symbol → instrument id of this connection. Ids are dense from 1.
    instruments: HashMap<String, u32>,
    /// Checked records that are not sequenced yet.
    batch: Vec<u8>,
    unread: Unread,
    /// What the batch takes of the pace.
    work: Work,
    /// The source is lost unless the publisher sends a normal close.
    end: SourceEnd,
    /// What was left out of batches since [`Self::batch_error`] was called.
    faults: BatchFaults,
}

impl PublisherSource {
    pub(super) fn new(
        sequencer: Arc<SequencerHandle>,
        publishers: Arc<Publishers>,
        settings: PublisherSettings,
        identity: Arc<Identity>,
        Entered { source, is_withdrawn }: Entered,
    ) -> Self {
        sequencer.open_source(source, identity.source);
        Self {
            sequencer,
            publishers,
            settings,
            identity,
            id: source,
            is_withdrawn,
            instruments: HashMap::new(),
            batch: Vec::new(),
            unread: Unread::default(),
            work: Work::default(),
            end: SourceEnd::Lost,
            faults: BatchFaults::default(),
        }
    }

    pub(super) fn on_event(&mut self, event: SessionEvent<'_>) -> NextStep {
        match event {
            SessionEvent::Text(text) => {
                self.flush();
                let mut frame = Vec::new();
                push_frame(Opcode::Text, &self.define(text), &mut frame);
                NextStep::Send(frame)
            }
            SessionEvent::Binary(bytes) => match self.take_packet(bytes) {
                Ok(()) => NextStep::Continue,
                Err(error) => NextStep::Close(close_frame(CloseCode::POLICY, &error.to_string())),
            },
            control => {
                if matches!(&control, SessionEvent::Close(Some(frame)) if frame.code == CloseCode::NORMAL) {
                    self.end = SourceEnd::Ended;
                }
                answer_control(&control)
            }
        }
    }

    /// The reply to a request to define instruments.
    fn define(&mut self, text: &mut [u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let bytes = text.len() as u64;
        self.await_pace(Work { bytes, ..Work::default() });
        match self.parse(text).and_then(|define| Ok((self.define_all(&define)?, define))) {
            Ok((ids, define)) => {
                let named = define.instruments.iter().map(|instrument| instrument.symbol.as_str());
                let defined: Vec<(&str, u32)> = named.zip(ids).collect();
                reply::defined(&mut out, define.id, &defined);
            }
            Err(error) => reply::error(&mut out, error.id, error.code, &error.message),
        }
        out
    }

    /// Parses a request. Parsing takes some 30 times the text in memory: the text is limited, and one is parsed at a time.
    fn parse(&self, text: &mut [u8]) -> Result<Define, RequestError> {
        let max = self.settings.define_bytes_max;
        if text.len() > max {
            self.publishers.count_definitions_refused();
            let message = format!("request: {} bytes: expected at most {max} (define_bytes_max)", text.len());
            return Err(RequestError { id: None, code: LIMIT, message });
        }
        let _permit = self.publishers.parse_permit();
        parse_define(text, self.settings.symbol_bytes_max)
    }

    /// Defines the instruments, all or none; returns their ids in this connection, in order.
    fn define_all(&mut self, define: &Define) -> Result<Vec<u32>, RequestError> {
        self.await_pace(Work { definitions: define.instruments.len() as u64, ..Work::default() });
        self.check_limit(define)?;
        self.check_names(define)?;
        let mut ids = Vec::with_capacity(define.instruments.len());
        let mut bytes = Vec::new();
        let mut new: HashMap<&str, u32> = HashMap::new();
        for wanted in &define.instruments {
            let next = (self.instruments.len() + new.len()) as u32 + 1;
            let known = self.instruments.get(&wanted.symbol).copied();
            let id = known.unwrap_or_else(|| *new.entry(&wanted.symbol).or_insert(next));
            let mut instrument = Instrument::new(id, &wanted.symbol, &wanted.venue, wanted.px_exp, wanted.sz_exp);
            instrument.tick_size = wanted.tick_size.unwrap_or(instrument.tick_size);
            instrument.lot_size = wanted.lot_size.unwrap_or(instrument.lot_size);
            record::encode_definition(&instrument, &mut bytes);
            ids.push(id);
        }
        match self.sequencer.define_all(self.id, &bytes) {
            Ok(levels) => {
                // Books that were carried over to other exponents: the next request waits for it.
                self.await_pace(Work { levels, ..Work::default() });
                self.instruments.extend(new.into_iter().map(|(symbol, id)| (symbol.to_owned(), id)));
                Ok(ids)
            }
            Err((nth, error)) => {
                let code = if error.is_limit() { LIMIT } else { BAD_REQUEST };
                if error.is_limit() {
                    self.publishers.count_definitions_refused();
                }
                let message = format!("instruments[{nth}]: {error}; nothing of this request is defined");
                Err(RequestError { id: Some(define.id), code, message })
            }
        }
    }

    /// Checks the names against those of the identity.
    fn check_names(&self, define: &Define) -> Result<(), RequestError> {
        for (nth, instrument) in define.instruments.iter().enumerate() {
            if let Err(problem) = self.identity.settings.check_names(&instrument.symbol, &instrument.venue) {
                let message = format!("instruments[{nth}].{problem}; nothing of this request is defined");
                return Err(RequestError { id: Some(define.id), code: BAD_REQUEST, message });
            }
        }
        Ok(())
    }

    /// Checks `publisher_instruments_max`.
    fn check_limit(&self, define: &Define) -> Result<(), RequestError> {
        let new: HashSet<&str> = define.instruments.iter().map(|instrument| instrument.symbol.as_str()).collect();
        let new = new.into_iter().filter(|symbol| !self.instruments.contains_key(*symbol)).count();
        let (held, max) = (self.instruments.len(), self.identity.settings.limits.instruments_max);
        if held + new <= max {
            return Ok(());
        }
        self.publishers.count_definitions_refused();
        let message = format!(
            "instruments: {} in this connection: expected at most {max} (publisher_instruments_max)",
            held + new
        );
        Err(RequestError { id: Some(define.id), code: LIMIT, message })
    }

    /// Adds the records of a packet to the batch, up to the first invalid one.
    fn take_packet(&mut self, bytes: &[u8]) -> Result<(), InvalidPacket> {
        let header = PacketHeader::read(bytes)?;
        let mut at = packet::HEADER_BYTES;
        for record in 0..usize::from(header.count) {
            let length = self.check(bytes, record, at)?;
            self.batch.extend_from_slice(&bytes[at..at + length]);
            let is_of_all = RecordPrefix::read(&bytes[at..]).is_some_and(|prefix| prefix.instrument() == 0);
            // It becomes a record of each instrument.
            self.work.records += if is_of_all { self.instruments.len().max(1) as u64 } else { 1 };
            self.work.bytes += length as u64;
            self.work.levels += record::read_book(&bytes[at..at + length]).map_or(0, |(_, levels)| levels.len() as u64);
            at += length;
            if self.batch.len() >= BATCH_BYTES_MAX || is_of_all {
                self.flush();
            }
        }
        let left = bytes.len() - at;
        if left > 0 { Err(InvalidPacket::Trailing { count: header.count.into(), bytes: left }) } else { Ok(()) }
    }

    fn check(&self, bytes: &[u8], record: usize, at: usize) -> Result<usize, InvalidPacket> {
        let header = record::check(&bytes[at..]).map_err(|error| InvalidPacket::Record { record, at, error })?;
        let instrument = header.instrument;
        // Records of the publisher as a whole need no definition.
        if instrument == 0
            && matches!(RecordKind::from_wire(header.kind), Some(RecordKind::Heartbeat | RecordKind::Status))
        {
            return Ok(header.bytes());
        }
        if !(1..=self.instruments.len()).contains(&(instrument as usize)) {
            return Err(InvalidPacket::Undefined { record, at, instrument });
        }
        Ok(header.bytes())
    }

    /// Sequences the batch, once the pace allows it and the rings have room, or the wait for them is over. A publisher that
    /// is interrupted does not wait: records that the rings have no room for may then be lost, like all that follow.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let work = std::mem::take(&mut self.work);
        self.await_pace(work);
        let mut unread = std::mem::take(&mut self.unread);
        self.sequencer.wait_until_read(&mut unread, self.batch.len(), || {
            std::thread::sleep(READ_INTERVAL);
            self.interruption().is_none()
        });
        self.unread = unread;
        self.sequencer.wait_for_room(|| {
            std::thread::sleep(ROOM_INTERVAL);
            self.interruption().is_none()
        });
        let outcome = self.sequencer.accept(self.id, &mut self.batch);
        let before = std::mem::replace(&mut self.faults, outcome.faults);
        let now = &mut self.faults;
        now.refused_book = before.refused_book.or(now.refused_book.take());
        now.withdrawn = before.withdrawn.or(now.withdrawn);
        now.gap = before.gap.or(now.gap);
        self.batch.clear();
    }

    /// Waits while the identity exceeds its pace. The socket is not read meanwhile.
    fn await_pace(&self, work: Work) {
        let mut wait = self.identity.take(work, now_ns());
        if !wait.is_zero() {
            self.publishers.count_slowed(wait);
        }
        while !wait.is_zero() && self.interruption().is_none() {
            let step = wait.min(CHECK_INTERVAL);
            std::thread::sleep(step);
            wait -= step;
        }
    }

    /// The error of a record that was not sequenced: of a book that has reached `book_levels_max`, of an instrument that
    /// this connection has no more, or a Gap that skips too much.
    pub(super) fn batch_error(&mut self) -> Option<InvalidPacket> {
        let BatchFaults { refused_book, withdrawn, gap } = std::mem::take(&mut self.faults);
        if let Some(symbol) = refused_book {
            return Some(InvalidPacket::Book { symbol, max: self.settings.book_levels_max });
        }
        if let Some(RefusedGap { instrument, channel, missing, allowed }) = gap {
            let symbol = self.symbol(instrument)?;
            return Some(InvalidPacket::Gap { symbol, kind: channel.kind().to_wire(), missing, allowed });
        }
        Some(InvalidPacket::Withdrawn { symbol: self.symbol(withdrawn?)? })
    }

    /// The symbol of an instrument id of this connection.
    fn symbol(&self, instrument: u32) -> Option<String> {
        self.instruments.iter().find(|(_, id)| **id == instrument).map(|(symbol, _)| symbol.clone())
    }

    pub(super) fn interruption(&self) -> Option<Interruption> {
        if self.sequencer.lifecycle().is_stopping() {
            return Some(Interruption::Stopping);
        }
        // Relaxed: the flag orders nothing.
        self.is_withdrawn.load(Ordering::Relaxed).then_some(Interruption::Withdrawn)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.sequencer.lifecycle().is_draining()
    }

    pub(super) fn count_handed_in(&self) {
        self.publishers.count_handed_in();
    }

    pub(super) fn close(&mut self) {
        self.flush();
        self.sequencer.close_source(self.id, self.end);
    }
}
