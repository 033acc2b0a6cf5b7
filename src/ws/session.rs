//! What a connected peer sends, turned into messages and control frames.
//!
//! * A frame that lies whole in the input is lent out of the input: unmasked in place, not copied, nothing allocated.
//! * What is cut, by TCP or into fragments, is gathered in a box that is freed when it is whole and was handed out.
//! * The verdict on a stream does not depend on how it was cut: the same events, then the same violation.
//! * After a close frame or a violation the session is deaf: it consumes and discards.
//!
//! It does not answer: pongs and close frames are the caller's to send. Cost: idle 16 bytes; some 20 ns for a small
//! text frame, unmasked and proven to be UTF-8.

use super::close::{CloseFrame, read_close};
use super::frame::{Expected, Header, Opcode, mask, parse_header};
use super::partial::{Kind, Partial, Progress};
pub use super::violation::Violation;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer is a client: its frames are masked.
    Server,
    /// The peer is a server: its frames are not masked.
    Client,
}

/// What a peer may make a session hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, its fragments summed.
    pub message_bytes_max: usize,
}

/// What the peer has sent. The slices live in the input or in the session, until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message, proven to be UTF-8; mutable for a parser that works in place.
    Text(&'a mut [u8]),
    /// A whole binary message.
    Binary(&'a mut [u8]),
    /// Asks for a pong with this payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or a heartbeat.
    Pong(&'a [u8]),
    /// The last event of a session.
    Close(Option<CloseFrame<'a>>),
}

/// The receiving half of a WebSocket connection.
#[derive(Debug)]
pub struct Session {
    partial: Option<Box<Partial>>,
    role: Role,
    ended: bool,
}

// One per connection, of which there are very many.
const _: () = assert!(size_of::<Session>() <= 24);

/// Where the payload of a whole frame or message lies.
enum Whole {
    /// `input[start..end]`.
    Input { opcode: Opcode, start: usize, end: usize },
    /// The control payload of the partial state.
    Control { opcode: Opcode },
    /// The message of the partial state.
    Message { kind: Kind },
}

impl Session {
    /// A session right after the handshake.
    pub fn new(role: Role) -> Self {
        Self { partial: None, role, ended: false }
    }

    /// Takes the next event out of `input`, from `*consumed` on, and advances `*consumed` behind it. `Ok(None)`: all of
    /// `input` is consumed; what was not whole is kept. Unmasks in place, so a byte must be fed once only.
    ///
    /// Call until `Ok(None)`: what the last event lent from the session is freed by the call after it.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        limits: &Limits,
        input: &'a mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Event<'a>>, Violation> {
        assert!(*consumed <= input.len(), "{consumed} bytes consumed of {}", input.len());
        if self.partial.as_deref().is_some_and(|partial| self.ended || partial.is_idle()) {
            self.partial = None;
        }
        //= RFC 6455 section 1.4
        //# "after receiving a control frame indicating the connection should be closed, a peer discards any further
        //# data received."
        if self.ended {
            *consumed = input.len();
            return Ok(None);
        }
        match self.advance(limits, input, consumed) {
            Ok(Some(whole)) => Ok(Some(self.lend(whole, input))),
            Ok(None) => Ok(None),
            Err(violation) => {
                //= RFC 6455 section 7.1.7
                //# "An endpoint MUST NOT continue to attempt to process data (including a responding Close frame) from
                //# the remote endpoint after being instructed to _Fail the WebSocket Connection_."
                self.ended = true;
                self.partial = None;
                Err(violation)
            }
        }
    }

    /// Bytes of memory that the peer makes this session hold beside its own 16.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, Partial::memory_bytes)
    }

    /// Goes through frames to the end of a message, of a control frame, or of the input.
    #[inline]
    fn advance(&mut self, limits: &Limits, input: &mut [u8], consumed: &mut usize) -> Result<Option<Whole>, Violation> {
        loop {
            if !self.partial.as_deref().is_some_and(Partial::is_mid_frame) {
                let Some(header) = self.take_header(input, consumed)? else { return Ok(None) };
                self.admit(&header, limits)?;
                if let Some(whole) = self.take_in_place(&header, input, consumed)? {
                    return Ok(Some(whole));
                }
                self.partial_mut().begin(header);
            }
            let (taken, progress) = self.partial_mut().absorb(&mut input[*consumed..], limits.message_bytes_max)?;
            *consumed += taken;
            match progress {
                Progress::Starved => return Ok(None),
                Progress::Fragment => {}
                Progress::Message(kind) => return Ok(Some(Whole::Message { kind })),
                Progress::Control(opcode) => return self.end_control(opcode).map(Some),
            }
        }
    }

    /// The next header, or `None` where the input ends before it does.
    #[inline]
    fn take_header(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<Header>, Violation> {
        let rest = &input[*consumed..];
        //= RFC 6455 section 5.4
        //# "An endpoint MUST be capable of handling control frames in the middle of a fragmented message."
        let continuation = self.partial.as_deref().is_some_and(Partial::is_mid_message);
        let expected = Expected { masked: self.role == Role::Server, continuation };
        let parsed = match self.partial.as_deref_mut().filter(|partial| partial.is_mid_header()) {
            Some(partial) => partial.finish_header(rest, expected)?,
            None => {
                let parsed = parse_header(rest, expected)?;
                if parsed.is_none() && !rest.is_empty() {
                    self.partial_mut().keep_header(rest);
                }
                parsed
            }
        };
        *consumed = parsed.map_or(input.len(), |(_, header_bytes)| *consumed + header_bytes);
        Ok(parsed.map(|(header, _)| header))
    }

    /// Refuses a message over the limit by what its headers announce, before a byte of it is kept.
    #[inline]
    fn admit(&self, header: &Header, limits: &Limits) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let open = self.partial.as_deref().filter(|partial| partial.is_mid_message());
        let held = open.map_or(0, Partial::message_bytes) as u64;
        let announced = held + header.payload_bytes;
        if announced > limits.message_bytes_max as u64 {
            return Err(Violation::TooBig { announced, max: limits.message_bytes_max });
        }
        Ok(())
    }

    /// The payload where it lies whole in the input and is all of its message.
    #[inline]
    fn take_in_place(
        &mut self,
        header: &Header,
        input: &mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Whole>, Violation> {
        let opcode = header.opcode;
        let is_alone = opcode != Opcode::Continuation && header.fin;
        if !is_alone || header.payload_bytes > (input.len() - *consumed) as u64 {
            return Ok(None);
        }
        let (start, end) = (*consumed, *consumed + header.payload_bytes as usize);
        let payload = &mut input[start..end];
        if let Some(key) = header.key {
            mask(key, 0, payload);
        }
        match opcode {
            //= RFC 6455 section 8.1
            //# "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact,
            //# a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
            Opcode::Text if std::str::from_utf8(payload).is_err() => return Err(Violation::TextNotUtf8),
            Opcode::Close => drop(read_close(payload)?),
            _ => {}
        }
        *consumed = end;
        Ok(Some(Whole::Input { opcode, start, end }))
    }

    /// A control frame is whole in the partial state.
    fn end_control(&mut self, opcode: Opcode) -> Result<Whole, Violation> {
        let partial = self.partial_mut();
        if opcode == Opcode::Close {
            read_close(partial.control())?;
            partial.drop_message();
        }
        Ok(Whole::Control { opcode })
    }

    /// Makes the event of what is whole.
    #[inline]
    fn lend<'a>(&'a mut self, whole: Whole, input: &'a mut [u8]) -> Event<'a> {
        match whole {
            Whole::Input { opcode: Opcode::Text, start, end } => Event::Text(&mut input[start..end]),
            Whole::Input { opcode: Opcode::Binary, start, end } => Event::Binary(&mut input[start..end]),
            Whole::Input { opcode, start, end } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, &input[start..end])
            }
            Whole::Control { opcode } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, self.partial_mut().control())
            }
            Whole::Message { kind: Kind::Text } => Event::Text(self.partial_mut().message()),
            Whole::Message { kind: Kind::Binary } => Event::Binary(self.partial_mut().message()),
        }
    }

    fn partial_mut(&mut self) -> &mut Partial {
        self.partial.get_or_insert_with(|| Box::new(Partial::new()))
    }
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Event<'_> {
    match opcode {
        Opcode::Close => Event::Close(read_close(payload).expect("it was read before")),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => unreachable!("{opcode:?} is no control frame"),
    }
}
