//! A WebSocket that keeps its task: an echo. Pings, closes and violations are answered here, messages are
//! handed out whole.

use super::Door;
use super::stream::Peer;
use crate::ws::close::{CloseCode, push_close};
use crate::ws::deflate::{Compressor, Inflater, WindowBits};
use crate::ws::frame::{Opcode, push_frame};
use crate::ws::handshake::{Refusal, Spoken, upgrade};
use crate::ws::session::{Event, Limits, Role, Session, Violation};

/// The level of compression where none is configured.
const LEVEL: u8 = 1;

/// A whole message of the peer.
pub(super) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// An upgraded connection and its parser.
pub(super) struct Conversation {
    peer: Peer,
    session: Session,
    limits: Limits,
    inflater: Inflater,
    compressor: Option<(Compressor, WindowBits)>,
    input: Vec<u8>,
    at: usize,
}

/// What one step of the parser came to.
enum Step {
    Message(Message),
    Then(Then),
    More,
}

/// What is to be done with a connection after a frame.
pub(super) enum Then {
    GoOn,
    Answer(Vec<u8>),
    /// A last frame, then the end.
    Leave(Vec<u8>),
}

impl Conversation {
    /// Upgrades the connection; `None` if the peer has gone meanwhile.
    pub(super) async fn open(
        door: &Door,
        peer: &mut Option<Peer>,
        request: &http::Request<()>,
        spoken: &Spoken<'_>,
    ) -> Result<Option<Self>, Refusal> {
        let accepted = upgrade(request, spoken)?;
        let Some(mut peer) = peer.take() else { return Ok(None) };
        if peer.write(&accepted.response).await.is_err() {
            return Ok(None);
        }
        let config = &door.public.config;
        let level = config.shard.compression.unwrap_or(LEVEL);
        let session = if accepted.deflate.is_some() { Session::with_deflate } else { Session::new };
        Ok(Some(Self {
            input: peer.take_unread(),
            peer,
            session: session(Role::Server),
            limits: Limits { message_bytes_max: config.packet_bytes_max },
            inflater: Inflater::new(config.shard.inflate_ratio_max),
            compressor: accepted.deflate.map(|agreed| (Compressor::new(level), agreed.window())),
            at: 0,
        }))
    }

    /// The next message; `None` when the conversation is over.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            match self.step() {
                Step::Message(message) => return Some(message),
                Step::Then(Then::GoOn) => {}
                Step::Then(Then::Answer(frame)) => self.peer.write(&frame).await.ok()?,
                Step::Then(Then::Leave(frame)) => {
                    if self.peer.write(&frame).await.is_ok() {
                        self.peer.finish().await;
                    }
                    return None;
                }
                Step::More => {
                    self.input.clear();
                    self.at = 0;
                    if self.peer.read().await.ok()? == 0 {
                        return None;
                    }
                    self.input = self.peer.take_unread();
                }
            }
        }
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        match &mut self.compressor {
            Some((compressor, window)) => compressor.push_frame(*window, opcode, payload, &mut frame),
            None => push_frame(opcode, payload, &mut frame),
        }
        self.peer.write(&frame).await
    }

    fn step(&mut self) -> Step {
        let mut consumed = 0;
        let input = &mut self.input[self.at..];
        let step = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut consumed) {
            Ok(None) => Step::More,
            Ok(Some(Event::Text(text))) => Step::Message(Message::Text(text.to_vec())),
            Ok(Some(Event::Binary(bytes))) => Step::Message(Message::Binary(bytes.to_vec())),
            Ok(Some(control)) => Step::Then(on_control(&control)),
            Err(violation) => Step::Then(on_violation(&violation)),
        };
        self.at += consumed;
        step
    }
}

/// What a control frame asks for.
pub(super) fn on_control(event: &Event<'_>) -> Then {
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
pub(super) fn on_violation(violation: &Violation) -> Then {
    Then::Leave(close_frame(violation.close_code(), &violation.to_string()))
}

pub(super) fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    push_close(code, reason, &mut frame);
    frame
}
