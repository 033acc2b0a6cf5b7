//! The state of a connection while a frame or a message is incomplete.
//!
//! What always holds: the buffer grows with the bytes that arrive, never with the bytes announced, and its capacity never
//! exceeds the message limit. Text is checked to be UTF-8 as it arrives; compressed text once it is inflated. The session
//! frees this state as soon as it is idle.

use super::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FrameExpectation, FrameHeader, Opcode, mask, parse_frame_header,
};
use super::violation::Violation;

/// Whether a message is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Text,
    Binary,
}

/// How far [`PartialMessage::absorb`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The frame needs more bytes.
    NeedsInput,
    /// The frame is complete, its message is not.
    Fragment,
    /// A control frame is complete, its payload is in [`PartialMessage::control`].
    Control(Opcode),
    /// A message is complete, in [`PartialMessage::message`], and possibly compressed.
    Message { kind: MessageKind, compressed: bool },
}

/// A frame whose header is complete and whose payload is not.
#[derive(Clone, Copy, Debug)]
struct PartialFrame {
    header: FrameHeader,
    received: usize,
}

/// Some 230 bytes, and the message so far.
#[derive(Debug)]
pub(super) struct PartialMessage {
    /// The message so far, unmasked, fragments joined.
    message: Vec<u8>,
    /// Bytes of a text message that are known to be UTF-8.
    checked_bytes: usize,
    /// Set from the first byte of a message to its last.
    kind: Option<MessageKind>,
    /// The message is compressed.
    compressed: bool,
    frame: Option<PartialFrame>,
    header: [u8; FRAME_HEADER_BYTES_MAX],
    header_len: u8,
    control_len: u8,
    control: [u8; CONTROL_PAYLOAD_BYTES_MAX],
}

impl PartialMessage {
    pub(super) fn new() -> Self {
        Self {
            message: Vec::new(),
            checked_bytes: 0,
            kind: None,
            compressed: false,
            frame: None,
            header: [0; FRAME_HEADER_BYTES_MAX],
            header_len: 0,
            control_len: 0,
            control: [0; CONTROL_PAYLOAD_BYTES_MAX],
        }
    }

    /// True if nothing is incomplete; the message that the last event lent out may still be here.
    pub(super) fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// True if a message has begun and not ended.
    pub(super) fn is_mid_message(&self) -> bool {
        self.kind.is_some()
    }

    /// True if a frame's header is complete and its payload is not.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// True if the beginning of a header is kept.
    pub(super) fn is_mid_header(&self) -> bool {
        self.header_len > 0
    }

    /// True if that message is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.message.capacity()
    }

    /// The payload of the last control frame.
    pub(super) fn control(&self) -> &[u8] {
        &self.control[..self.control_len.into()]
    }

    /// Bytes of the message so far.
    pub(super) fn message_bytes(&self) -> usize {
        self.message.len()
    }

    /// The message.
    pub(super) fn message(&mut self) -> &mut [u8] {
        &mut self.message
    }

    /// Frees the message, complete or not.
    pub(super) fn drop_message(&mut self) {
        self.message = Vec::new();
        self.kind = None;
    }

    /// Keeps the beginning of a header.
    pub(super) fn keep_header(&mut self, bytes: &[u8]) {
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_len = bytes.len() as u8;
    }

    /// Continues a kept header with `input`, and returns it with the number of bytes of `input` that belong to it; `None`
    /// if all of `input` is kept and the header is still incomplete.
    pub(super) fn finish_header(
        &mut self,
        input: &[u8],
        expected: FrameExpectation,
    ) -> Result<Option<(FrameHeader, usize)>, Violation> {
        let kept = usize::from(self.header_len);
        let more = input.len().min(FRAME_HEADER_BYTES_MAX - kept);
        self.header[kept..kept + more].copy_from_slice(&input[..more]);
        let parsed = parse_frame_header(&self.header[..kept + more], expected)?;
        self.header_len = if parsed.is_some() { 0 } else { (kept + more) as u8 };
        Ok(parsed.map(|(header, header_bytes)| (header, header_bytes - kept)))
    }

    /// Begins a frame; [`Self::absorb`] takes its payload.
    pub(super) fn begin(&mut self, header: FrameHeader) {
        match header.opcode {
            Opcode::Text => self.kind = Some(MessageKind::Text),
            Opcode::Binary => self.kind = Some(MessageKind::Binary),
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control_len = 0,
        }
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            self.compressed = header.compressed;
        }
        self.frame = Some(PartialFrame { header, received: 0 });
    }

    /// Takes the bytes of `input` that belong to the frame's payload, and returns how many. `message_bytes_max` bounds the
    /// buffer; the session has admitted the frame under it.
    pub(super) fn absorb(
        &mut self,
        input: &mut [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Progress), Violation> {
        let PartialFrame { header, received } = self.frame.expect("a frame was begun");
        let missing = header.payload_bytes as usize - received;
        let taken = missing.min(input.len());
        let payload = &mut input[..taken];
        if let Some(key) = header.key {
            mask(key, received, payload);
        }
        let complete = taken == missing;
        self.frame = if complete { None } else { Some(PartialFrame { header, received: received + taken }) };
        if header.opcode.is_control() {
            let start = usize::from(self.control_len);
            self.control[start..start + taken].copy_from_slice(payload);
            self.control_len += taken as u8;
            return Ok((taken, if complete { Progress::Control(header.opcode) } else { Progress::NeedsInput }));
        }
        // The final frame completes the size of the message; before it, only the limit is known.
        let size_max = if header.fin { self.message.len() + missing } else { message_bytes_max };
        self.grow(taken, size_max);
        self.message.extend_from_slice(payload);
        let ended = complete && header.fin;
        if self.kind == Some(MessageKind::Text) && !self.compressed {
            self.check_text(ended)?;
        }
        let progress = match (complete, ended) {
            (false, _) => Progress::NeedsInput,
            (true, false) => Progress::Fragment,
            (true, true) => {
                let kind = self.kind.take().expect("a data frame belongs to a message");
                Progress::Message { kind, compressed: self.compressed }
            }
        };
        Ok((taken, progress))
    }

    /// Makes room for `more` bytes: doubles the capacity, so that small pieces do not copy the message over and over, up to
    /// the largest size that the message can have.
    fn grow(&mut self, more: usize, size_max: usize) {
        let needed = self.message.len() + more;
        if needed > self.message.capacity() {
            let capacity = (2 * self.message.capacity()).min(size_max).max(needed);
            self.message.reserve_exact(capacity - self.message.len());
        }
    }

    /// Fails at the first byte that cannot belong to UTF-8 text. An incomplete character is valid until the text ends.
    fn check_text(&mut self, ended: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.message[self.checked_bytes..]) {
            Ok(text) => self.checked_bytes += text.len(),
            Err(error) if error.error_len().is_none() && !ended => self.checked_bytes += error.valid_up_to(),
            //= RFC 6455 section 5.6
            //# "Note that a particular text frame might include a partial UTF-8 sequence; however, the whole message
            //# MUST contain valid UTF-8."
            Err(_) => return Err(Violation::TextNotUtf8),
        }
        Ok(())
    }
}
