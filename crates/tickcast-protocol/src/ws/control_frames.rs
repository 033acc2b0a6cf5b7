//! How an endpoint replies to a control frame or a violation, for peers that are served by a task or thread of their own.

use super::close::{CloseCode, push_close};
use super::frame::{Opcode, push_frame};
use super::session::SessionEvent;
use super::violation::Violation;

/// What is to be done with a connection after a frame.
#[derive(Debug)]
pub enum NextStep {
    Continue,
    Send(Vec<u8>),
    /// A last frame, then the end.
    Close(Vec<u8>),
}

/// What a control frame asks for.
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

/// A violation is told, and ends the connection.
pub fn answer_violation(violation: &Violation) -> NextStep {
    NextStep::Close(close_frame(violation.close_code(), &violation.to_string()))
}

pub fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    push_close(code, reason, &mut frame);
    frame
}
