//! What a connected peer sends, turned into messages and control frames.
//!
//! * A frame that lies whole in the input is lent out of the input: unmasked in place, not copied, nothing allocated.
//! * What is cut, by TCP or into fragments, is gathered in a box that is freed when it is whole and was handed out.
//! * The verdict on a stream does not depend on how it was cut: the same events, then the same violation.
//! * After a close frame or a violation the session is deaf: it consumes and discards.
//! * A compressed message is gathered as it came and inflated once it is whole, into the buffer of an [`Inflater`] that
//!   all sessions of a thread share.
//!
//! It does not answer: pongs and close frames are the caller's to send. Cost: idle 16 bytes; some 20 ns for a small
//! text frame, unmasked and proven to be UTF-8.

use super::close::{CloseFrame, read_close};
use super::deflate::Inflater;
use super::frame::{FrameExpectation, FrameHeader, Opcode, mask, parse_frame_header};
use super::partial_message::{MessageKind, PartialMessage, Progress};
use super::violation::Violation;

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
pub struct SessionLimits {
    /// Bytes of one message, its fragments summed.
    pub message_bytes_max: usize,
}

/// What the peer has sent. The slices live in the input or in the session, until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionEvent<'a> {
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
    partial: Option<Box<PartialMessage>>,
    role: Role,
    ended: bool,
    deflate: bool,
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
    Message { kind: MessageKind },
    /// The message that was inflated last.
    Inflated { kind: MessageKind },
}

impl Session {
    /// A session right after the handshake.
    pub fn new(role: Role) -> Self {
        Self { partial: None, role, ended: false, deflate: false }
    }

    /// The same where permessage-deflate was agreed on, neither side taking its window over: messages may be compressed.
    /// Such a session is read with [`Self::next_inflating`].
    pub fn with_deflate(role: Role) -> Self {
        Self { deflate: true, ..Self::new(role) }
    }

    /// Takes the next event out of `input`, from `*consumed` on, and advances `*consumed` behind it. `Ok(None)`: all of
    /// `input` is consumed; what was not whole is kept. Unmasks in place, so a byte must be fed once only.
    ///
    /// Call until `Ok(None)`: what the last event lent from the session is freed by the call after it.
    #[inline]
    pub fn next<'a>(
        &'a mut self,
        limits: &SessionLimits,
        input: &'a mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<SessionEvent<'a>>, Violation> {
        assert!(!self.deflate, "a session with permessage-deflate needs an inflater");
        self.step(limits, None, input, consumed)
    }

    /// The same with what inflates compressed messages.
    #[inline]
    pub fn next_inflating<'a>(
        &'a mut self,
        limits: &SessionLimits,
        inflater: &'a mut Inflater,
        input: &'a mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<SessionEvent<'a>>, Violation> {
        self.step(limits, Some(inflater), input, consumed)
    }

    /// Bytes of memory that the peer makes this session hold beside its own 16.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, PartialMessage::memory_bytes)
    }

    #[inline]
    fn step<'a>(
        &'a mut self,
        limits: &SessionLimits,
        mut inflater: Option<&'a mut Inflater>,
        input: &'a mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<SessionEvent<'a>>, Violation> {
        assert!(*consumed <= input.len(), "{consumed} bytes consumed of {}", input.len());
        if self.partial.as_deref().is_some_and(|partial| self.ended || partial.is_idle()) {
            self.partial = None;
        }
        if let Some(inflater) = inflater.as_deref_mut() {
            inflater.release();
        }
        //= RFC 6455 section 1.4
        //# "after receiving a control frame indicating the connection should be closed, a peer discards any further
        //# data received."
        if self.ended {
            *consumed = input.len();
            return Ok(None);
        }
        match self.advance(limits, inflater.as_deref_mut(), input, consumed) {
            Ok(Some(whole)) => Ok(Some(self.lend(whole, inflater, input))),
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

    /// Goes through frames to the end of a message, of a control frame, or of the input.
    #[inline]
    fn advance(
        &mut self,
        limits: &SessionLimits,
        mut inflater: Option<&mut Inflater>,
        input: &mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Whole>, Violation> {
        let message_bytes_max = limits.message_bytes_max;
        loop {
            if !self.partial.as_deref().is_some_and(PartialMessage::is_mid_frame) {
                let Some(header) = self.take_header(input, consumed)? else { return Ok(None) };
                self.admit(&header, limits)?;
                if let Some(whole) = self.take_in_place(&header, input, consumed)? {
                    let inflater = inflater.as_deref_mut().filter(|_| header.compressed);
                    return inflate_in_place(whole, inflater, input, message_bytes_max).map(Some);
                }
                self.partial_mut().begin(header);
            }
            let compressed = self.partial_mut().is_compressed();
            let buffer_bytes_max = frames_bytes_max(compressed, message_bytes_max);
            let (taken, progress) = self.partial_mut().absorb(&mut input[*consumed..], buffer_bytes_max)?;
            *consumed += taken;
            match progress {
                Progress::Starved => return Ok(None),
                Progress::Fragment => {}
                Progress::Message { kind, compressed: false } => return Ok(Some(Whole::Message { kind })),
                Progress::Message { kind, compressed: true } => {
                    let inflater = inflater.expect("only where it was agreed on is a message compressed");
                    inflate(kind, self.partial_mut().message(), inflater, message_bytes_max)?;
                    self.partial_mut().drop_message();
                    return Ok(Some(Whole::Inflated { kind }));
                }
                Progress::Control(opcode) => return self.end_control(opcode).map(Some),
            }
        }
    }

    /// The next header, or `None` where the input ends before it does.
    #[inline]
    fn take_header(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<FrameHeader>, Violation> {
        let rest = &input[*consumed..];
        //= RFC 6455 section 5.4
        //# "An endpoint MUST be capable of handling control frames in the middle of a fragmented message."
        let continuation = self.partial.as_deref().is_some_and(PartialMessage::is_mid_message);
        let expected = FrameExpectation { masked: self.role == Role::Server, continuation, deflate: self.deflate };
        let parsed = match self.partial.as_deref_mut().filter(|partial| partial.is_mid_header()) {
            Some(partial) => partial.finish_header(rest, expected)?,
            None => {
                let parsed = parse_frame_header(rest, expected)?;
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
    fn admit(&self, header: &FrameHeader, limits: &SessionLimits) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let open = self.partial.as_deref().filter(|partial| partial.is_mid_message());
        let held = open.map_or(0, PartialMessage::message_bytes) as u64;
        let announced = held + header.payload_bytes;
        let compressed = header.compressed || open.is_some_and(PartialMessage::is_compressed);
        let max = frames_bytes_max(compressed, limits.message_bytes_max);
        if announced > max as u64 {
            return Err(Violation::TooBig { announced, max });
        }
        Ok(())
    }

    /// The payload where it lies whole in the input and is all of its message.
    #[inline]
    fn take_in_place(
        &mut self,
        header: &FrameHeader,
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
            Opcode::Text if !header.compressed && std::str::from_utf8(payload).is_err() => {
                return Err(Violation::TextNotUtf8);
            }
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
    fn lend<'a>(
        &'a mut self,
        whole: Whole,
        inflater: Option<&'a mut Inflater>,
        input: &'a mut [u8],
    ) -> SessionEvent<'a> {
        match whole {
            Whole::Inflated { kind } => {
                let message = inflater.expect("it has inflated it").message();
                if kind == MessageKind::Text { SessionEvent::Text(message) } else { SessionEvent::Binary(message) }
            }
            Whole::Input { opcode: Opcode::Text, start, end } => SessionEvent::Text(&mut input[start..end]),
            Whole::Input { opcode: Opcode::Binary, start, end } => SessionEvent::Binary(&mut input[start..end]),
            Whole::Input { opcode, start, end } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, &input[start..end])
            }
            Whole::Control { opcode } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, self.partial_mut().control())
            }
            Whole::Message { kind: MessageKind::Text } => SessionEvent::Text(self.partial_mut().message()),
            Whole::Message { kind: MessageKind::Binary } => SessionEvent::Binary(self.partial_mut().message()),
        }
    }

    fn partial_mut(&mut self) -> &mut PartialMessage {
        self.partial.get_or_insert_with(|| Box::new(PartialMessage::new()))
    }
}

/// What the frames of a message may carry together.
#[inline]
fn frames_bytes_max(compressed: bool, message_bytes_max: usize) -> usize {
    if compressed { Inflater::compressed_bytes_max(message_bytes_max) } else { message_bytes_max }
}

/// Inflates a message that lies whole in the input, where there is an inflater for it.
#[inline]
fn inflate_in_place(
    whole: Whole,
    inflater: Option<&mut Inflater>,
    input: &[u8],
    message_bytes_max: usize,
) -> Result<Whole, Violation> {
    match (whole, inflater) {
        (Whole::Input { opcode, start, end }, Some(inflater)) => {
            let kind = if opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
            inflate(kind, &input[start..end], inflater, message_bytes_max)?;
            Ok(Whole::Inflated { kind })
        }
        (whole, _) => Ok(whole),
    }
}

/// Inflates a message, and proves it where it is text.
fn inflate(
    kind: MessageKind,
    compressed: &[u8],
    inflater: &mut Inflater,
    message_bytes_max: usize,
) -> Result<(), Violation> {
    let message = inflater.inflate(compressed, message_bytes_max)?;
    //= RFC 7692 section 6.1
    //# "The payload data portion in frames generated by a PMCE is not subject to the constraints for the original data
    //# type."
    if kind == MessageKind::Text && std::str::from_utf8(message).is_err() {
        return Err(Violation::TextNotUtf8);
    }
    Ok(())
}

fn control_event(opcode: Opcode, payload: &[u8]) -> SessionEvent<'_> {
    match opcode {
        Opcode::Close => SessionEvent::Close(read_close(payload).expect("it was read before")),
        Opcode::Ping => SessionEvent::Ping(payload),
        Opcode::Pong => SessionEvent::Pong(payload),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => unreachable!("{opcode:?} is no control frame"),
    }
}
