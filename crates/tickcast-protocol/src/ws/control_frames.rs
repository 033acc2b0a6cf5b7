//! The answer of an endpoint to a control frame or a violation, for peers served by a task or thread of their own.

use super::close::push_close;
use super::close_code::CloseCode;
use super::frame::{Opcode, push_frame};
use super::session::SessionEvent;
use super::violation::Violation;

/// What to do with a connection after an event.
#[derive(Debug)]
pub enum NextStep {
    /// Nothing to send.
    Continue,
    /// Send this frame.
    Send(Vec<u8>),
    /// Send this frame, then close.
    Close(Vec<u8>),
}

/// The answer to a control frame; messages need none.
pub fn answer_control(event: &SessionEvent<'_>) -> NextStep {
    let mut frame = Vec::new();
    match event {
        SessionEvent::Ping(payload) => {
            push_frame(Opcode::Pong, payload, &mut frame);
            NextStep::Send(frame)
        }
        SessionEvent::Close(Some(body)) => NextStep::Close(close_frame(body.code, "")),
        SessionEvent::Close(None) => {
            push_frame(Opcode::Close, b"", &mut frame);
            NextStep::Close(frame)
        }
        SessionEvent::Pong(_) | SessionEvent::Text(_) | SessionEvent::Binary(_) => NextStep::Continue,
    }
}

/// A violation is reported to the peer and ends the connection.
pub fn answer_violation(violation: &Violation) -> NextStep {
    NextStep::Close(close_frame(violation.close_code(), &violation.to_string()))
}

/// A server's close frame.
pub fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    push_close(code, reason, &mut frame);
    frame
}
