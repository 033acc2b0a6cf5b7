//! RFC 6455 without a socket: bytes in, events and bytes out.
//!
//! * [`frame`]: the header of a frame, masking, whole frames ready to be sent.
//! * [`session`]: what a connected peer sends, turned into messages and control frames.
//! * [`close`]: close codes and the frame that carries one.
//! * [`deflate`]: messages that are compressed one by one (RFC 7692).
//! * [`violation`]: every rule that a peer can break, and the close code that it earns.
//!
//! What always holds: nothing that a peer sends panics, and a peer makes this room hold no more than the message limit
//! and some 300 bytes; no connection keeps state of a compression. What it does not do: read, write, time out or answer
//! pings.
//!
//! Cost: an idle connection holds 16 bytes here. A small whole frame costs some 20 ns and no copy
//! (`benches/session.rs`).

mod close;
mod control_frames;
pub mod deflate;
mod frame;
mod partial_message;
mod session;
mod violation;

pub use close::{CLOSE_REASON_BYTES_MAX, CloseCode, CloseFrame, push_close, push_masked_close, read_close};
pub use control_frames::{NextStep, answer_control, answer_violation, close_frame};
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FrameExpectation, FrameHeader, Opcode, encode_frame_header,
    mask, parse_frame_header, push_frame, push_masked_frame,
};
pub use session::{Role, Session, SessionEvent, SessionLimits};
pub use violation::Violation;
