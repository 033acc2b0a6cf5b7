//! How an endpoint replies to a control frame or a violation, for peers that are served by a task or thread of their own.

use super::close::{CloseCode, push_close};
use super::frame::{Opcode, push_frame};
use super::session::Event;
use super::violation::Violation;

/// What is to be done with a connection after a frame.
#[derive(Debug)]
pub enum Then {
    GoOn,
    Answer(Vec<u8>),
    /// A last frame, then the end.
    Leave(Vec<u8>),
}

/// What a control frame asks for.
pub fn on_control(event: &Event<'_>) -> Then {
    let mut frame = Vec::new();
    match event {
        Event::Ping(payload) => {
            push_frame(Opcode::Pong, payload, &mut frame);
            Then::Answer(frame)
        }
        Event::Close(Some(body)) => Then::Leave(close_frame(body.code, "")),
        Event::Close(None) => {
            push_frame(Opcode::Close, b"", &mut frame);
            Then::Leave(frame)
        }
        Event::Pong(_) | Event::Text(_) | Event::Binary(_) => Then::GoOn,
    }
}

/// A violation is told, and ends the connection.
pub fn on_violation(violation: &Violation) -> Then {
    Then::Leave(close_frame(violation.close_code(), &violation.to_string()))
}

pub fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    push_close(code, reason, &mut frame);
    frame
}
