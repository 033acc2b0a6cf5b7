//! A publisher's connection, on a thread that blocks on it: text frames define instruments, binary packets carry records.
//!
//! * What one read brought is sequenced in one go, on this thread.
//! * A publisher may outrun the server: then its socket is not read until the rings have room, and TCP slows it down.
//! * A packet that breaks the layout ends the connection with 1008 and says where; the records before the break are kept.
//! * When the server stops, the publisher is told so with 1001.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::{BATCH_BYTES_MAX, Publishers, SequencerHandle};
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

/// How soon a publisher that has to wait for room looks again.
const WAIT: Duration = Duration::from_micros(500);
/// How long a read waits before it looks whether the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Time for a publisher to read an answer, and at the end to go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A publisher that has vanished is found out after 35 s.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(20)).with_interval(Duration::from_secs(5)).with_retries(3);
const LINGER: Duration = Duration::from_secs(1);
/// Reads that come faster than this, one message after another, are spaced by it: what has gathered meanwhile is
/// sequenced in one go, and the shards are woken once. A message that comes after a longer silence goes on at once.
const SPACING: Duration = Duration::from_micros(500);
/// What one read takes at the most: some thousand records.
const READ_BYTES: usize = 256 * 1024;

/// Why a packet was not taken to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Break {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("record {record} at byte {at}: {why}")]
    Record { record: usize, at: usize, why: RecordError },
    #[error("record {record} at byte {at}: instrument {instrument} was not defined on this connection")]
    Undefined { record: usize, at: usize, instrument: u32 },
    #[error("the book of {symbol} would have more than {max} levels, which is book_levels_max")]
    Book { symbol: String, max: usize },
    #[error("the header counts {count} records, and {bytes} bytes are left after them")]
    Left { count: usize, bytes: usize },
}

/// The limits of a publisher, as of when it connected.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Longest packet, bytes.
    pub packet_bytes_max: usize,
    /// Longest symbol, bytes.
    pub symbol_bytes_max: usize,
    /// Records a second; 0 for no limit.
    pub records_per_s: u32,
    /// Instruments that one connection may define.
    pub instruments_max: usize,
    /// Levels of one book.
    pub book_levels_max: usize,
    /// How many times its bytes a compressed message may inflate to.
    pub inflate_ratio_max: u32,
}

/// One publisher's connection.
pub struct Publisher {
    stream: TcpStream,
    session: Session,
    limits: SessionLimits,
    inflater: Inflater,
    source: Source,
    /// What lay in the socket when the server was first seen to stop, and has not been read since.
    waiting_bytes: Option<u64>,
    /// All of that is sequenced.
    handed_in: bool,
}

impl Publisher {
    /// For a socket that blocks, right after its upgrade; `deflate`: the publisher may compress what it sends. Answers
    /// are short, and are not compressed.
    pub fn new(
        sequencer: Arc<SequencerHandle>,
        publishers: Arc<Publishers>,
        settings: PublisherSettings,
        source: SourceId,
        stream: TcpStream,
        deflate: bool,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(LOOK_INTERVAL))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        // A peer that vanished without a word would hold its thread, and its instruments live, for ever.
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        let limits = SessionLimits { message_bytes_max: settings.packet_bytes_max };
        let inflater = Inflater::new(settings.inflate_ratio_max);
        let session = if deflate { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) };
        let source = Source {
            sequencer,
            publishers,
            settings,
            id: source,
            instruments: HashMap::new(),
            taken: Vec::new(),
            batch: Vec::new(),
            end: SourceEnd::Lost,
            records: 0,
            pace: RateLimiter::default(),
            refused_book: None,
        };
        Ok(Self { stream, session, limits, inflater, source, waiting_bytes: None, handed_in: false })
    }

    /// Serves the connection to its end; `unread` is what came with the upgrade. Returns whether it was counted as one that
    /// had handed everything in.
    pub fn run(mut self, unread: &[u8]) -> bool {
        // What fails here is the peer's socket: it has gone, and nobody is left to be told.
        let _ = self.converse(unread);
        self.source.close();
        self.handed_in
    }

    fn converse(&mut self, unread: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        buffer[..unread.len()].copy_from_slice(unread);
        let mut filled = unread.len();
        let mut looked = Instant::now();
        loop {
            if !self.take(&mut buffer[..filled])? {
                return Ok(());
            }
            self.note_handed_in(filled)?;
            if looked.elapsed() < SPACING && (1..READ_BYTES).contains(&filled) {
                std::thread::sleep(SPACING);
            }
            looked = Instant::now();
            filled = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            if self.source.server_stops() {
                return self.leave(&close_frame(CloseCode::GOING_AWAY, "the server is stopping"));
            }
        }
    }

    /// As the server is to stop, counts this publisher once what it had handed in before is sequenced: what lay in its
    /// socket when that was first seen.
    fn note_handed_in(&mut self, read: usize) -> io::Result<()> {
        if self.handed_in || !self.source.sequencer.lifecycle().is_draining() {
            return Ok(());
        }
        let waiting = match self.waiting_bytes {
            Some(waiting) => waiting.saturating_sub(read as u64),
            None => rustix::io::ioctl_fionread(&self.stream)?,
        };
        self.waiting_bytes = Some(waiting);
        if waiting == 0 {
            self.handed_in = true;
            self.source.publishers.count_handed_in();
        }
        Ok(())
    }

    /// Goes through what was read. False if the connection was ended.
    fn take(&mut self, input: &mut [u8]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let then = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut at) {
                Ok(None) => break,
                Ok(Some(event)) => self.source.on_event(event),
                Err(violation) => answer_violation(&violation),
            };
            match then {
                NextStep::Continue => {}
                NextStep::Send(frame) => self.stream.write_all(&frame)?,
                NextStep::Close(frame) => {
                    self.source.flush();
                    return self.leave(&frame).map(|()| false);
                }
            }
        }
        self.source.flush();
        match self.source.broken_book() {
            Some(why) => self.leave(&close_frame(CloseCode::POLICY, &why.to_string())).map(|()| false),
            None => Ok(true),
        }
    }

    /// Sends a last frame, ends our side, and waits a moment for the peer's: a close with unread input would be a reset,
    /// and could take the frame with it.
    fn leave(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame)?;
        self.stream.shutdown(Shutdown::Write)?;
        let until = Instant::now() + LINGER;
        let mut rest = [0; 4096];
        while Instant::now() < until && !matches!(self.stream.read(&mut rest), Ok(0)) {}
        Ok(())
    }
}

/// What the publisher has defined, and its way to the sequencer.
struct Source {
    sequencer: Arc<SequencerHandle>,
    publishers: Arc<Publishers>,
    settings: PublisherSettings,
    id: SourceId,
    /// Symbols to this connection's instrument ids, which are dense from 1.
    instruments: HashMap<String, u32>,
    /// By id, whether the sequencer has taken the definition: one that it refused has an id, and may have no records.
    taken: Vec<bool>,
    /// Records that were checked and not sequenced yet.
    batch: Vec<u8>,
    /// How it goes: it has ended once it has said so with a normal close.
    end: SourceEnd,
    /// How many they are.
    records: u64,
    pace: RateLimiter,
    /// A book that would have had more levels than it may.
    refused_book: Option<String>,
}

impl Source {
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
                Err(why) => NextStep::Close(close_frame(CloseCode::POLICY, &why.to_string())),
            },
            control => {
                if matches!(&control, SessionEvent::Close(Some(frame)) if frame.code == CloseCode::NORMAL) {
                    self.end = SourceEnd::Ended;
                }
                answer_control(&control)
            }
        }
    }

    /// The answer to a request to define instruments.
    fn define(&mut self, text: &mut [u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        match parse_define(text, self.settings.symbol_bytes_max)
            .and_then(|define| Ok((self.define_all(&define)?, define)))
        {
            Ok((ids, define)) => {
                let named = define.instruments.iter().map(|instrument| instrument.symbol.as_str());
                let defined: Vec<(&str, u32)> = named.zip(ids).collect();
                reply::defined(&mut answer, define.id, &defined);
            }
            Err(error) => reply::error(&mut answer, error.id, error.code, &error.message),
        }
        answer
    }

    /// This connection's ids for the instruments, in their order. Those before one that is refused are defined.
    fn define_all(&mut self, define: &Define) -> Result<Vec<u32>, RequestError> {
        self.check_room(define)?;
        let mut ids = Vec::with_capacity(define.instruments.len());
        let mut bytes = Vec::new();
        for wanted in &define.instruments {
            let next = self.instruments.len() as u32 + 1;
            let id = *self.instruments.entry(wanted.symbol.clone()).or_insert(next);
            let mut instrument = Instrument::new(id, &wanted.symbol, &wanted.venue, wanted.px_exp, wanted.sz_exp);
            instrument.tick_size = wanted.tick_size.unwrap_or(instrument.tick_size);
            instrument.lot_size = wanted.lot_size.unwrap_or(instrument.lot_size);
            record::encode_definition(&instrument, &mut bytes);
            ids.push(id);
        }
        let outcomes = self.sequencer.accept(self.id, &mut bytes).definitions;
        self.taken.resize(self.instruments.len() + 1, false);
        for (id, _) in ids.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()) {
            self.taken[*id as usize] = true;
        }
        let refused = outcomes.into_iter().enumerate().find_map(|(nth, outcome)| Some((nth, outcome.err()?)));
        match refused {
            None => Ok(ids),
            Some((nth, error)) => {
                let message = format!("instruments[{nth}]: {error}");
                Err(RequestError { id: Some(define.id), code: "bad_request", message })
            }
        }
    }

    /// A name that was refused has an id all the same, so that what a connection may hold is bounded here.
    fn check_room(&self, define: &Define) -> Result<(), RequestError> {
        let new: HashSet<&str> = define.instruments.iter().map(|instrument| instrument.symbol.as_str()).collect();
        let new = new.into_iter().filter(|symbol| !self.instruments.contains_key(*symbol)).count();
        let (held, max) = (self.instruments.len(), self.settings.instruments_max);
        if held + new <= max {
            return Ok(());
        }
        self.publishers.count_crowded();
        let message = format!(
            "instruments: {} would be held; at most {max} a connection, which is publisher_instruments_max",
            held + new
        );
        Err(RequestError { id: Some(define.id), code: "limit", message })
    }

    /// Takes the records of a packet, up to the first that breaks the layout.
    fn take_packet(&mut self, bytes: &[u8]) -> Result<(), Break> {
        let header = PacketHeader::read(bytes)?;
        let mut at = packet::HEADER_BYTES;
        for record in 0..usize::from(header.count) {
            let length = self.check(bytes, record, at)?;
            self.batch.extend_from_slice(&bytes[at..at + length]);
            let speaks_of_all = RecordPrefix::read(&bytes[at..]).is_some_and(|prefix| prefix.instrument() == 0);
            // What it says of all of its instruments is a record of each.
            self.records += if speaks_of_all { self.instruments.len().max(1) as u64 } else { 1 };
            at += length;
            if self.batch.len() >= BATCH_BYTES_MAX || speaks_of_all {
                self.flush();
            }
        }
        let left = bytes.len() - at;
        if left > 0 { Err(Break::Left { count: header.count.into(), bytes: left }) } else { Ok(()) }
    }

    fn check(&self, bytes: &[u8], record: usize, at: usize) -> Result<usize, Break> {
        let header = record::check(&bytes[at..]).map_err(|why| Break::Record { record, at, why })?;
        let instrument = header.instrument;
        // Of all of its own instruments it may speak before it has any.
        if instrument == 0
            && matches!(RecordKind::from_wire(header.kind), Some(RecordKind::Heartbeat | RecordKind::Status))
        {
            return Ok(header.bytes());
        }
        if !self.taken.get(instrument as usize).is_some_and(|taken| *taken) {
            return Err(Break::Undefined { record, at, instrument });
        }
        Ok(header.bytes())
    }

    /// Has what has gathered sequenced, once the rings have room. What a server that stops has no room for is dropped
    /// with everything else that comes then.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.keep_pace();
        while !self.sequencer.has_room() && !self.server_stops() {
            std::thread::sleep(WAIT);
        }
        let accepted = self.sequencer.accept(self.id, &mut self.batch);
        self.refused_book = accepted.refused_book.or(self.refused_book.take());
        self.batch.clear();
    }

    /// Waits where records come faster than a publisher's may: its socket is not read meanwhile, and TCP slows it down.
    fn keep_pace(&mut self) {
        let (records, per_second) = (std::mem::take(&mut self.records), self.settings.records_per_s);
        let turn = self.pace.take_many(records, per_second, crate::clock::now_ns(), Duration::MAX);
        let mut wait = turn.unwrap_or_default();
        if !wait.is_zero() {
            self.publishers.count_slowed(wait);
        }
        while !wait.is_zero() && !self.server_stops() {
            let nap = wait.min(LOOK_INTERVAL);
            std::thread::sleep(nap);
            wait -= nap;
        }
    }

    /// Why the publisher has to go, where a book would not take a record.
    fn broken_book(&mut self) -> Option<Break> {
        let symbol = self.refused_book.take()?;
        Some(Break::Book { symbol, max: self.settings.book_levels_max })
    }

    fn server_stops(&self) -> bool {
        self.sequencer.lifecycle().is_stopping()
    }

    fn close(&mut self) {
        self.flush();
        self.sequencer.close_source(self.id, self.end);
    }
}
