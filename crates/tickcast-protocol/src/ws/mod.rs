//! WebSocket (RFC 6455) without a socket: bytes in, events and bytes out.
//!
//! * Receiving: a [`Session`] turns the bytes of a peer into [`SessionEvent`]s: whole messages and control frames.
//! * Sending: [`push_frame`], [`push_masked_frame`] and [`push_close`] append whole frames to a buffer.
//! * Answering: [`answer_control`] and [`answer_violation`] say what to send and whether to close, for endpoints that
//!   have a task or thread of their own.
//! * [`deflate`]: permessage-deflate (RFC 7692).
//!
//! What always holds: nothing that a peer sends panics; a peer makes a session hold no more than the message limit and
//! some 300 bytes; no connection keeps compression state. What it does not do: the HTTP upgrade, reading, writing, timers,
//! or answering pings by itself.
//!
//! Cost: an idle connection holds 16 bytes here. A small whole frame costs some 20 ns and no copy
//! (`benches/session.rs`).

mod close;
mod close_code;
mod control_frames;
pub mod deflate;
mod frame;
mod partial_message;
mod session;
mod violation;

pub use self::close::{CLOSE_REASON_BYTES_MAX, CloseFrame, push_close, push_masked_close, read_close};
pub use self::close_code::CloseCode;
pub use self::control_frames::{NextStep, answer_control, answer_violation, close_frame};
pub use self::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FrameExpectation, FrameHeader, Opcode, encode_frame_header,
    mask, parse_frame_header, push_frame, push_masked_frame,
};
pub use self::session::{Role, Session, SessionEvent, SessionLimits};
pub use self::violation::Violation;
