//! A publisher's connection, on a thread that blocks on it: text frames define instruments, binary packets carry records.
//!
//! * The records of one read are sequenced as one batch, on this thread.
//! * Backpressure: the socket is not read while the rings have no room or the publisher exceeds its rate, so TCP slows the
//!   publisher down.
//! * An invalid packet closes the connection with 1008 and the place of the error. The records before it are kept.
//! * When the server stops, the connection is closed with 1001.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::{BATCH_BYTES_MAX, Publishers, SequencerHandle};
use crate::clock::now_ns;
use crate::rate_limit::RateLimiter;
use crate::sequencer::{SourceEnd, SourceId};
use tickcast_protocol::control::{Define, RequestError, parse_define, reply};
use tickcast_protocol::packet::{self, PacketError, PacketHeader};
use tickcast_protocol::record::{self, RecordError, RecordPrefix};
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{
    CloseCode, NextStep, Opcode, Role, Session, SessionEvent, SessionLimits, answer_control, answer_violation,
    close_frame, push_frame,
};
use tickcast_protocol::{Instrument, RecordKind};

/// How soon a publisher that waits for the rings checks them again.
const ROOM_INTERVAL: Duration = Duration::from_micros(500);
/// Longest wait for input before the thread checks whether the server stops.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Time for a publisher to read a reply.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Detects a publisher that has vanished after 35 s. It would keep its thread, and its instruments live, for ever.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(20)).with_interval(Duration::from_secs(5)).with_retries(3);
/// Time for a publisher to close after a close frame.
const LINGER: Duration = Duration::from_secs(1);
/// Least time between two reads while messages keep coming: what gathers meanwhile is sequenced as one batch, and the
/// shards are woken once. A message after a longer silence is sequenced at once.
const SPACING: Duration = Duration::from_micros(500);
/// Bytes of one read at most: some thousand records.
const READ_BYTES: usize = 256 * 1024;

/// Why a packet is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidPacket {
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
    /// Records a second; 0 for no limit.
    pub records_per_s: u32,
    /// Instruments that the connection may define.
    pub instruments_max: usize,
    /// Levels of one book.
    pub book_levels_max: usize,
    /// Bytes that a compressed message may inflate to, in multiples of its length.
    pub inflate_ratio_max: u32,
}

/// One publisher's connection.
pub struct Publisher {
    stream: TcpStream,
    session: Session,
    limits: SessionLimits,
    inflater: Inflater,
    source: PublisherSource,
    /// Bytes in the socket when the drain began that are not read yet; `None` before the drain.
    drain_bytes: Option<u64>,
    /// All of them are sequenced.
    handed_in: bool,
}

impl Publisher {
    /// `stream` is a blocking socket after its upgrade. With `deflate` the publisher may compress its messages. Replies are
    /// short and not compressed.
    pub fn new(
        sequencer: Arc<SequencerHandle>,
        publishers: Arc<Publishers>,
        settings: PublisherSettings,
        source: SourceId,
        stream: TcpStream,
        deflate: bool,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(CHECK_INTERVAL))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        let limits = SessionLimits { message_bytes_max: settings.packet_bytes_max };
        let inflater = Inflater::new(settings.inflate_ratio_max);
        let session = if deflate { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) };
        let source = PublisherSource {
            sequencer,
            publishers,
            settings,
            id: source,
            instruments: HashMap::new(),
            batch: Vec::new(),
            records: 0,
            limiter: RateLimiter::default(),
            end: SourceEnd::Lost,
            refused_book: None,
            withdrawn: None,
        };
        Ok(Self { stream, session, limits, inflater, source, drain_bytes: None, handed_in: false })
    }

    /// Serves the connection to its end. `unread` are bytes that came with the upgrade. Returns whether the publisher was
    /// counted by [`Publishers::count_handed_in`].
    pub fn run(mut self, unread: &[u8]) -> bool {
        // An error is one of the socket: the publisher has closed, and needs no report.
        let _ = self.serve(unread);
        self.source.close();
        self.handed_in
    }

    fn serve(&mut self, unread: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        buffer[..unread.len()].copy_from_slice(unread);
        let mut filled = unread.len();
        let mut read_at = Instant::now();
        loop {
            if !self.take(&mut buffer[..filled])? {
                return Ok(());
            }
            self.note_handed_in(filled)?;
            if read_at.elapsed() < SPACING && (1..READ_BYTES).contains(&filled) {
                std::thread::sleep(SPACING);
            }
            read_at = Instant::now();
            filled = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            if self.source.server_stops() {
                return self.close(&close_frame(CloseCode::GOING_AWAY, "the server is stopping"));
            }
        }
    }

    /// During a drain, counts this publisher once the bytes that were in its socket when the drain began are sequenced.
    fn note_handed_in(&mut self, read: usize) -> io::Result<()> {
        if self.handed_in || !self.source.sequencer.lifecycle().is_draining() {
            return Ok(());
        }
        let left = match self.drain_bytes {
            Some(left) => left.saturating_sub(read as u64),
            None => rustix::io::ioctl_fionread(&self.stream)?,
        };
        self.drain_bytes = Some(left);
        if left == 0 {
            self.handed_in = true;
            self.source.publishers.count_handed_in();
        }
        Ok(())
    }

    /// Handles the input of one read. False after the connection is closed.
    fn take(&mut self, input: &mut [u8]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let step = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut at) {
                Ok(None) => break,
                Ok(Some(event)) => self.source.on_event(event),
                Err(violation) => answer_violation(&violation),
            };
            match step {
                NextStep::Continue => {}
                NextStep::Send(frame) => self.stream.write_all(&frame)?,
                NextStep::Close(frame) => {
                    self.source.flush();
                    return self.close(&frame).map(|()| false);
                }
            }
        }
        self.source.flush();
        match self.source.batch_error() {
            Some(error) => self.close(&close_frame(CloseCode::POLICY, &error.to_string())).map(|()| false),
            None => Ok(true),
        }
    }

    /// Sends a close frame, shuts the sending side down, and waits a moment for the publisher to close: closing with unread
    /// input would send a reset, which could overtake the frame.
    fn close(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame)?;
        self.stream.shutdown(Shutdown::Write)?;
        let until = Instant::now() + LINGER;
        let mut rest = [0; 4096];
        while Instant::now() < until && !matches!(self.stream.read(&mut rest), Ok(0)) {}
        Ok(())
    }
}

/// The publisher as a source: its instruments, and the batch that is being gathered.
struct PublisherSource {
    sequencer: Arc<SequencerHandle>,
    publishers: Arc<Publishers>,
    settings: PublisherSettings,
    id: SourceId,
    /// Symbol → instrument id of this connection. Ids are dense from 1.
    instruments: HashMap<String, u32>,
    /// Checked records that are not sequenced yet.
    batch: Vec<u8>,
    /// Number of records in the batch.
    records: u64,
    limiter: RateLimiter,
    /// The source is lost unless the publisher sends a normal close.
    end: SourceEnd,
    /// Symbol of a book that has reached `book_levels_max`.
    refused_book: Option<String>,
    /// Id of an instrument that this connection has no more, and sent a record of.
    withdrawn: Option<u32>,
}

impl PublisherSource {
    fn on_event(&mut self, event: SessionEvent<'_>) -> NextStep {
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
        match parse_define(text, self.settings.symbol_bytes_max)
            .and_then(|define| Ok((self.define_all(&define)?, define)))
        {
            Ok((ids, define)) => {
                let named = define.instruments.iter().map(|instrument| instrument.symbol.as_str());
                let defined: Vec<(&str, u32)> = named.zip(ids).collect();
                reply::defined(&mut out, define.id, &defined);
            }
            Err(error) => reply::error(&mut out, error.id, error.code, &error.message),
        }
        out
    }

    /// Defines the instruments, all or none; returns their ids in this connection, in order.
    fn define_all(&mut self, define: &Define) -> Result<Vec<u32>, RequestError> {
        self.check_limit(define)?;
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
            Ok(()) => {
                self.instruments.extend(new.into_iter().map(|(symbol, id)| (symbol.to_owned(), id)));
                Ok(ids)
            }
            Err((nth, error)) => {
                let message = format!("instruments[{nth}]: {error}; nothing of this request is defined");
                Err(RequestError { id: Some(define.id), code: "bad_request", message })
            }
        }
    }

    /// Checks `publisher_instruments_max`.
    fn check_limit(&self, define: &Define) -> Result<(), RequestError> {
        let new: HashSet<&str> = define.instruments.iter().map(|instrument| instrument.symbol.as_str()).collect();
        let new = new.into_iter().filter(|symbol| !self.instruments.contains_key(*symbol)).count();
        let (held, max) = (self.instruments.len(), self.settings.instruments_max);
        if held + new <= max {
            return Ok(());
        }
        self.publishers.count_definitions_refused();
        let message = format!(
            "instruments: {} in this connection: expected at most {max} (publisher_instruments_max)",
            held + new
        );
        Err(RequestError { id: Some(define.id), code: "limit", message })
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
            self.records += if is_of_all { self.instruments.len().max(1) as u64 } else { 1 };
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

    /// Sequences the batch, once the rate limit allows it and the rings have room. A stopping server does not wait: records
    /// that the rings have no room for may then be lost, like all that follow.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.await_rate_limit();
        while !self.sequencer.has_room() && !self.server_stops() {
            std::thread::sleep(ROOM_INTERVAL);
        }
        let outcome = self.sequencer.accept(self.id, &mut self.batch);
        self.refused_book = outcome.refused_book.or(self.refused_book.take());
        self.withdrawn = outcome.withdrawn.or(self.withdrawn);
        self.batch.clear();
    }

    /// Waits while the publisher exceeds its rate. The socket is not read meanwhile.
    fn await_rate_limit(&mut self) {
        let (records, per_second) = (std::mem::take(&mut self.records), self.settings.records_per_s);
        let taken = self.limiter.take_many(records, per_second, now_ns(), Duration::MAX);
        let mut wait = taken.unwrap_or_default();
        if !wait.is_zero() {
            self.publishers.count_slowed(wait);
        }
        while !wait.is_zero() && !self.server_stops() {
            let step = wait.min(CHECK_INTERVAL);
            std::thread::sleep(step);
            wait -= step;
        }
    }

    /// The error of a record that was not sequenced: of a book that has reached `book_levels_max`, or of an instrument that
    /// this connection has no more.
    fn batch_error(&mut self) -> Option<InvalidPacket> {
        if let Some(symbol) = self.refused_book.take() {
            return Some(InvalidPacket::Book { symbol, max: self.settings.book_levels_max });
        }
        let withdrawn = self.withdrawn.take()?;
        let named = self.instruments.iter().find(|(_, id)| **id == withdrawn);
        named.map(|(symbol, _)| InvalidPacket::Withdrawn { symbol: symbol.clone() })
    }

    fn server_stops(&self) -> bool {
        self.sequencer.lifecycle().is_stopping()
    }

    fn close(&mut self) {
        self.flush();
        self.sequencer.close_source(self.id, self.end);
    }
}
