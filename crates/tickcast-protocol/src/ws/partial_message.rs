//! What a connection holds while a frame or a message is not whole.
//!
//! Always: the buffer grows with the bytes that arrive, never with the bytes that are announced, and its capacity never
//! exceeds the message limit; text is proven to be UTF-8 as far as it has come, and where it is compressed once it is
//! inflated. It is put away as soon as it is idle.

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

/// How far [`PartialMessage::absorb`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The frame needs bytes that have not come.
    Starved,
    /// The frame is whole, its message is not.
    Fragment,
    /// A control frame is whole, its payload in [`PartialMessage::control`].
    Control(Opcode),
    /// A message is whole, in [`PartialMessage::message`], and compressed or not.
    Message { kind: MessageKind, compressed: bool },
}

/// A frame whose header is whole and whose payload is not.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    header: FrameHeader,
    received: usize,
}

/// Some 230 bytes, and the message so far.
#[derive(Debug)]
pub(super) struct PartialMessage {
    /// The message so far, unmasked, fragments joined.
    message: Vec<u8>,
    /// Bytes of a text message that are proven to be UTF-8.
    proven: usize,
    /// Set from the first byte of a message that is held here to its last.
    kind: Option<MessageKind>,
    /// The message is compressed.
    compressed: bool,
    frame: Option<Unfinished>,
    header: [u8; FRAME_HEADER_BYTES_MAX],
    header_len: u8,
    control_len: u8,
    control: [u8; CONTROL_PAYLOAD_BYTES_MAX],
}

impl PartialMessage {
    pub(super) fn new() -> Self {
        Self {
            message: Vec::new(),
            proven: 0,
            kind: None,
            compressed: false,
            frame: None,
            header: [0; FRAME_HEADER_BYTES_MAX],
            header_len: 0,
            control_len: 0,
            control: [0; CONTROL_PAYLOAD_BYTES_MAX],
        }
    }

    /// True where nothing is unfinished; what the last event lent out may still lie here.
    pub(super) fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// True where a message has begun and not ended.
    pub(super) fn is_mid_message(&self) -> bool {
        self.kind.is_some()
    }

    /// True where a frame's header is whole and its payload is not.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// True where the beginning of a header is kept.
    pub(super) fn is_mid_header(&self) -> bool {
        self.header_len > 0
    }

    /// True where that message is compressed.
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

    /// Frees the message, whole or not.
    pub(super) fn drop_message(&mut self) {
        self.message = Vec::new();
        self.kind = None;
    }

    /// Keeps the beginning of a header.
    pub(super) fn keep_header(&mut self, bytes: &[u8]) {
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_len = bytes.len() as u8;
    }

    /// Continues a kept header with `input`; `None` where all of it is kept and the header still not whole.
    /// Also tells how many bytes of `input` belong to it.
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

    /// Begins a frame whose payload is taken by [`Self::absorb`].
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
        self.frame = Some(Unfinished { header, received: 0 });
    }

    /// Takes what `input` has of the frame's payload, and tells how many bytes that were. `message_bytes_max` bounds
    /// the buffer; the frame has been admitted under it.
    pub(super) fn absorb(
        &mut self,
        input: &mut [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Progress), Violation> {
        let Unfinished { header, received } = self.frame.expect("a frame was begun");
        let missing = header.payload_bytes as usize - received;
        let taken = missing.min(input.len());
        let payload = &mut input[..taken];
        if let Some(key) = header.key {
            mask(key, received, payload);
        }
        let whole = taken == missing;
        self.frame = if whole { None } else { Some(Unfinished { header, received: received + taken }) };
        if header.opcode.is_control() {
            let start = usize::from(self.control_len);
            self.control[start..start + taken].copy_from_slice(payload);
            self.control_len += taken as u8;
            return Ok((taken, if whole { Progress::Control(header.opcode) } else { Progress::Starved }));
        }
        // The final frame tells the size of the message; before it, the limit is all that is known.
        let size_max = if header.fin { self.message.len() + missing } else { message_bytes_max };
        self.grow(taken, size_max);
        self.message.extend_from_slice(payload);
        let ended = whole && header.fin;
        if self.kind == Some(MessageKind::Text) && !self.compressed {
            self.prove_text(ended)?;
        }
        let progress = match (whole, ended) {
            (false, _) => Progress::Starved,
            (true, false) => Progress::Fragment,
            (true, true) => {
                let kind = self.kind.take().expect("a data frame belongs to a message");
                Progress::Message { kind, compressed: self.compressed }
            }
        };
        Ok((taken, progress))
    }

    /// Makes room for `more` bytes: twice what there was, so that small pieces do not copy the message again and
    /// again, yet no more than the message can come to.
    fn grow(&mut self, more: usize, size_max: usize) {
        let needed = self.message.len() + more;
        if needed > self.message.capacity() {
            let capacity = (2 * self.message.capacity()).min(size_max).max(needed);
            self.message.reserve_exact(capacity - self.message.len());
        }
    }

    /// Fails at the first byte that cannot belong to UTF-8 text; a character cut short is good until the text ends.
    fn prove_text(&mut self, ended: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.message[self.proven..]) {
            Ok(text) => self.proven += text.len(),
            Err(error) if error.error_len().is_none() && !ended => self.proven += error.valid_up_to(),
            //= RFC 6455 section 5.6
            //# "Note that a particular text frame might include a partial UTF-8 sequence; however, the whole message
            //# MUST contain valid UTF-8."
            Err(_) => return Err(Violation::TextNotUtf8),
        }
        Ok(())
    }
}
