//! The receiving half of a WebSocket connection: bytes in, messages and control frames out.
//!
//! * A frame that is complete in the input is lent from the input: unmasked in place, not copied, nothing allocated.
//! * A message in pieces, cut by TCP or fragmented, is gathered in a box, which is freed once the message was lent out.
//! * The result does not depend on how the stream was cut: the same events, then the same violation.
//! * After a close frame or a violation the session discards all input.
//! * A compressed message is gathered as it came, and inflated once it is complete, into the buffer of an [`Inflater`]
//!   that all sessions of a thread share.
//!
//! It does not answer: the caller sends pongs and close frames. Cost: 16 bytes if idle; some 20 ns for a small text frame,
//! unmasked and checked to be UTF-8.

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

/// How much a peer can make a session hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Bytes of one message, its fragments summed.
    pub message_bytes_max: usize,
}

/// What the peer has sent. The slices are in the input or in the session, until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionEvent<'a> {
    /// A whole text message, checked to be UTF-8; mutable for parsers that work in place.
    Text(&'a mut [u8]),
    /// A whole binary message.
    Binary(&'a mut [u8]),
    /// Asks for a pong with this payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or a heartbeat.
    Pong(&'a [u8]),
    /// The peer closes: the last event of a session.
    Close(Option<CloseFrame<'a>>),
}

/// The receiving half of a WebSocket connection.
#[derive(Debug)]
pub struct Session {
    partial: Option<Box<PartialMessage>>,
    /// Frames that have begun since they were last taken.
    frames: u32,
    role: Role,
    ended: bool,
    deflate: bool,
}

// One per connection, of which there are very many.
const _: () = assert!(size_of::<Session>() <= 24);

/// Where the payload of a complete frame or message is.
enum Payload {
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
        Self { partial: None, frames: 0, role, ended: false, deflate: false }
    }

    /// The same with permessage-deflate negotiated, without context takeover: messages may be compressed. Such a session is
    /// read with [`Self::next_inflating`].
    pub fn with_deflate(role: Role) -> Self {
        Self { deflate: true, ..Self::new(role) }
    }

    /// Returns the next event in `input`, from `*consumed` on, and advances `*consumed` behind it. `Ok(None)`: all of
    /// `input` is consumed, and an incomplete message is kept. Frames are unmasked in place, so each byte must be
    /// passed once only.
    ///
    /// Call until `Ok(None)`: the call after an event frees what the event lent from the session.
    ///
    /// # Errors
    /// The first rule that the peer broke; [`Violation::close_code`] is the code to close with.
    ///
    /// # Panics
    /// When permessage-deflate was negotiated.
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

    /// The same with an inflater for compressed messages.
    ///
    /// # Errors
    /// As [`Self::next`], and for messages that do not inflate or inflate too far.
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

    /// Bytes of memory that the peer makes this session hold, besides its own 16.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, PartialMessage::memory_bytes)
    }

    /// How many frames have begun since this was last called, fragments included: each is work, and most are no event.
    #[inline]
    pub fn take_frames(&mut self) -> u32 {
        std::mem::take(&mut self.frames)
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
            Ok(Some(payload)) => Ok(Some(self.lend(payload, inflater, input))),
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

    /// Reads frames up to the end of a message, of a control frame, or of the input.
    #[inline]
    fn advance(
        &mut self,
        limits: &SessionLimits,
        mut inflater: Option<&mut Inflater>,
        input: &mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Payload>, Violation> {
        let message_bytes_max = limits.message_bytes_max;
        loop {
            if !self.partial.as_deref().is_some_and(PartialMessage::is_mid_frame) {
                let Some(header) = self.take_header(input, consumed)? else { return Ok(None) };
                self.frames = self.frames.saturating_add(1);
                self.admit(&header, limits)?;
                if let Some(payload) = self.take_in_place(&header, input, consumed)? {
                    let inflater = inflater.as_deref_mut().filter(|_| header.compressed);
                    return inflate_in_place(payload, inflater, input, message_bytes_max).map(Some);
                }
                self.partial_mut().begin(header);
            }
            let compressed = self.partial_mut().is_compressed();
            let buffer_bytes_max = frames_bytes_max(compressed, message_bytes_max);
            let (taken, progress) = self.partial_mut().absorb(&mut input[*consumed..], buffer_bytes_max)?;
            *consumed += taken;
            match progress {
                Progress::NeedsInput => return Ok(None),
                Progress::Fragment => {}
                Progress::Message { kind, compressed: false } => return Ok(Some(Payload::Message { kind })),
                Progress::Message { kind, compressed: true } => {
                    let inflater = inflater.expect("messages are compressed only if that was negotiated");
                    inflate(kind, self.partial_mut().message(), inflater, message_bytes_max)?;
                    self.partial_mut().drop_message();
                    return Ok(Some(Payload::Inflated { kind }));
                }
                Progress::Control(opcode) => return self.end_control(opcode).map(Some),
            }
        }
    }

    /// The next header; `None` if the input ends before it does.
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

    /// Refuses a message over the limit by the length in its headers, before any of it is kept.
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

    /// The payload, if it is complete in the input and all of its message.
    #[inline]
    fn take_in_place(
        &mut self,
        header: &FrameHeader,
        input: &mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Payload>, Violation> {
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
        Ok(Some(Payload::Input { opcode, start, end }))
    }

    /// A control frame is complete in the partial state.
    fn end_control(&mut self, opcode: Opcode) -> Result<Payload, Violation> {
        let partial = self.partial_mut();
        if opcode == Opcode::Close {
            read_close(partial.control())?;
            partial.drop_message();
        }
        Ok(Payload::Control { opcode })
    }

    /// The event for a complete payload.
    #[inline]
    fn lend<'a>(
        &'a mut self,
        payload: Payload,
        inflater: Option<&'a mut Inflater>,
        input: &'a mut [u8],
    ) -> SessionEvent<'a> {
        match payload {
            Payload::Inflated { kind } => {
                let message = inflater.expect("an inflater has inflated it").message();
                if kind == MessageKind::Text { SessionEvent::Text(message) } else { SessionEvent::Binary(message) }
            }
            Payload::Input { opcode: Opcode::Text, start, end } => SessionEvent::Text(&mut input[start..end]),
            Payload::Input { opcode: Opcode::Binary, start, end } => SessionEvent::Binary(&mut input[start..end]),
            Payload::Input { opcode, start, end } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, &input[start..end])
            }
            Payload::Control { opcode } => {
                self.ended = opcode == Opcode::Close;
                control_event(opcode, self.partial_mut().control())
            }
            Payload::Message { kind: MessageKind::Text } => SessionEvent::Text(self.partial_mut().message()),
            Payload::Message { kind: MessageKind::Binary } => SessionEvent::Binary(self.partial_mut().message()),
        }
    }

    fn partial_mut(&mut self) -> &mut PartialMessage {
        self.partial.get_or_insert_with(|| Box::new(PartialMessage::new()))
    }
}

/// Bytes that the frames of a message may have together.
#[inline]
fn frames_bytes_max(compressed: bool, message_bytes_max: usize) -> usize {
    if compressed { Inflater::compressed_bytes_max(message_bytes_max) } else { message_bytes_max }
}

/// Inflates a message that is complete in the input, if there is an inflater for it.
#[inline]
fn inflate_in_place(
    payload: Payload,
    inflater: Option<&mut Inflater>,
    input: &[u8],
    message_bytes_max: usize,
) -> Result<Payload, Violation> {
    match (payload, inflater) {
        (Payload::Input { opcode, start, end }, Some(inflater)) => {
            let kind = if opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
            inflate(kind, &input[start..end], inflater, message_bytes_max)?;
            Ok(Payload::Inflated { kind })
        }
        (payload, _) => Ok(payload),
    }
}

/// Inflates a message, and checks it if it is text.
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
        Opcode::Close => SessionEvent::Close(read_close(payload).expect("checked before")),
        Opcode::Ping => SessionEvent::Ping(payload),
        Opcode::Pong => SessionEvent::Pong(payload),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => unreachable!("{opcode:?} is not a control frame"),
    }
}
