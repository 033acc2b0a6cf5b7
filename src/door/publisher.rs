//! A publisher's connection, on a thread that blocks on it: text frames define instruments, binary packets carry records.
//!
//! * What one read brought is sequenced in one go, on this thread.
//! * A publisher may outrun the server: then its socket is not read until the rings have room, and TCP slows it down.
//! * A packet that breaks the layout ends the connection with 1008 and says where; the records before the break are kept.
//! * When the server stops, the publisher is told so with 1001.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Public;
use super::conversation::{Then, close_frame, on_control, on_violation};
use crate::market::record::{self, Malformed};
use crate::market::{Instrument, Kind};
use crate::runtime::BATCH_BYTES_MAX;
use crate::sequencer::{Farewell, SourceId};
use crate::wire::control::{Define, RequestError, parse_define, reply};
use crate::wire::packet::{self, PacketError, PacketHeader};
use crate::ws::close::CloseCode;
use crate::ws::deflate::Inflater;
use crate::ws::frame::{Opcode, push_frame};
use crate::ws::session::{Event, Limits, Role, Session};

/// How soon a publisher that has to wait for room looks again.
const WAIT: Duration = Duration::from_micros(500);
/// How long a read waits before it looks whether the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Time for a publisher to read an answer, and at the end to go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
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
    Record { record: usize, at: usize, why: Malformed },
    #[error("record {record} at byte {at}: instrument {instrument} was not defined on this connection")]
    Undefined { record: usize, at: usize, instrument: u32 },
    #[error("the header counts {count} records, and {bytes} bytes are left after them")]
    Left { count: usize, bytes: usize },
}

/// One publisher's connection.
pub(super) struct Publisher {
    stream: TcpStream,
    session: Session,
    limits: Limits,
    inflater: Inflater,
    source: Source,
}

impl Publisher {
    /// For a socket that blocks, right after its upgrade; `deflate`: the publisher may compress what it sends. Answers
    /// are short, and are not compressed.
    pub(super) fn new(public: Arc<Public>, source: SourceId, stream: TcpStream, deflate: bool) -> io::Result<Self> {
        stream.set_read_timeout(Some(LOOK_INTERVAL))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let limits = Limits { message_bytes_max: public.config.packet_bytes_max };
        let inflater = Inflater::new(public.config.shard.inflate_ratio_max);
        let session = if deflate { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) };
        let source = Source {
            public,
            id: source,
            instruments: HashMap::new(),
            taken: Vec::new(),
            batch: Vec::new(),
            farewell: Farewell::Lost,
        };
        Ok(Self { stream, session, limits, inflater, source })
    }

    /// Serves the connection to its end; `unread` is what came with the upgrade.
    pub(super) fn run(mut self, unread: &[u8]) {
        // What fails here is the peer's socket: it has gone, and nobody is left to be told.
        let _ = self.converse(unread);
        self.source.close();
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

    /// Goes through what was read. False if the connection was ended.
    fn take(&mut self, input: &mut [u8]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let then = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut at) {
                Ok(None) => break,
                Ok(Some(event)) => self.source.on_event(event),
                Err(violation) => on_violation(&violation),
            };
            match then {
                Then::GoOn => {}
                Then::Answer(frame) => self.stream.write_all(&frame)?,
                Then::Leave(frame) => {
                    self.source.flush();
                    return self.leave(&frame).map(|()| false);
                }
            }
        }
        self.source.flush();
        Ok(true)
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
    public: Arc<Public>,
    id: SourceId,
    /// Symbols to this connection's instrument ids, which are dense from 1.
    instruments: HashMap<String, u32>,
    /// By id, whether the sequencer has taken the definition: one that it refused has an id, and may have no records.
    taken: Vec<bool>,
    /// Records that were checked and not sequenced yet.
    batch: Vec<u8>,
    /// How it goes: it has ended once it has said so with a normal close.
    farewell: Farewell,
}

impl Source {
    fn on_event(&mut self, event: Event<'_>) -> Then {
        match event {
            Event::Text(text) => {
                self.flush();
                let mut frame = Vec::new();
                push_frame(Opcode::Text, &self.define(text), &mut frame);
                Then::Answer(frame)
            }
            Event::Binary(bytes) => match self.take_packet(bytes) {
                Ok(()) => Then::GoOn,
                Err(why) => Then::Leave(close_frame(CloseCode::POLICY, &why.to_string())),
            },
            control => {
                if matches!(&control, Event::Close(Some(frame)) if frame.code == CloseCode::NORMAL) {
                    self.farewell = Farewell::Ended;
                }
                on_control(&control)
            }
        }
    }

    /// The answer to a request to define instruments.
    fn define(&mut self, text: &mut [u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        match parse_define(text).and_then(|define| Ok((self.define_all(&define)?, define))) {
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
        let outcomes = self.public.desk.accept(self.id, &mut bytes);
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

    /// Takes the records of a packet, up to the first that breaks the layout.
    fn take_packet(&mut self, bytes: &[u8]) -> Result<(), Break> {
        let header = PacketHeader::read(bytes)?;
        let mut at = packet::HEADER_BYTES;
        for record in 0..usize::from(header.count) {
            let length = self.check(bytes, record, at)?;
            self.batch.extend_from_slice(&bytes[at..at + length]);
            at += length;
            if self.batch.len() >= BATCH_BYTES_MAX {
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
        if instrument == 0 && matches!(Kind::from_wire(header.kind), Some(Kind::Heartbeat | Kind::Status)) {
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
        while !self.public.desk.has_room() && !self.server_stops() {
            std::thread::sleep(WAIT);
        }
        self.public.desk.accept(self.id, &mut self.batch);
        self.batch.clear();
    }

    fn server_stops(&self) -> bool {
        // Relaxed: the flag stands for itself.
        self.public.stopping.load(Ordering::Relaxed)
    }

    fn close(&mut self) {
        self.flush();
        self.public.desk.close_source(self.id, self.farewell);
    }
}
