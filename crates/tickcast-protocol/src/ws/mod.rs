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

pub mod close;
pub mod deflate;
pub mod frame;
mod partial;
pub mod reply;
pub mod session;
pub mod violation;

pub use close::{CloseCode, CloseFrame};
pub use frame::Opcode;
pub use session::{Role, Session, SessionEvent, SessionLimits};
pub use violation::Violation;
