//! How a client is sent records and answers: binary or JSON WebSocket frames, compressed or not, or Server-Sent Events.

use tickcast_protocol::sse;
use tickcast_protocol::ws::deflate::WindowBits;
use tickcast_protocol::ws::{Opcode, push_frame};

/// The format in which a client is sent records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Packets in binary WebSocket frames.
    #[default]
    Binary,
    /// Packets as JSON in WebSocket text frames.
    Json,
    /// Packets as JSON, and answers, in Server-Sent Events.
    Events,
}

impl Format {
    /// How many there are.
    pub(super) const COUNT: usize = 3;

    /// Appends an answer: JSON in every format.
    pub(super) fn push_answer(self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Binary | Self::Json => push_frame(Opcode::Text, text, out),
            Self::Events => sse::push_event(text, out),
        }
    }

    /// True for WebSocket clients: they send requests, are pinged, and are sent a close frame.
    pub(super) fn is_websocket(self) -> bool {
        self != Self::Events
    }
}

/// What makes the bytes of two clients different although they want the same records. It identifies an audience
/// together with its items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoding {
    pub format: Format,
    /// WebSocket messages are compressed, with this window.
    pub deflate: Option<WindowBits>,
}

impl Encoding {
    /// Binary packets, not compressed.
    pub const PLAIN: Self = Self { format: Format::Binary, deflate: None };
    /// JSON in text frames, not compressed.
    pub const JSON: Self = Self { format: Format::Json, deflate: None };
    /// Server-Sent Events, which are never compressed.
    pub const EVENTS: Self = Self { format: Format::Events, deflate: None };
}
