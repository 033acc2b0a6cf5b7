//! A WebSocket that keeps its task: an echo. Pings, closes and violations are answered here, messages are
//! handed out whole.

use std::time::Duration;

use futures_lite::future;

use crate::http::connection::Peer;
use crate::http::handshake::{Refusal, Spoken};
use crate::http::response::unavailable;
use crate::http::server::HttpServer;
use crate::stats::Counter;
use tickcast_protocol::ws::deflate::{Compressor, Inflater, WindowBits};
use tickcast_protocol::ws::{
    CloseCode, NextStep, Opcode, Role, Session, SessionEvent, SessionLimits, answer_control, answer_violation,
    close_frame, push_frame,
};

/// The level of compression where none is configured.
const LEVEL: u8 = 1;

/// A whole message of the peer.
pub(crate) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// An upgraded connection and its parser.
pub(crate) struct Conversation {
    peer: Peer,
    session: Session,
    limits: SessionLimits,
    inflater: Inflater,
    compressor: Option<(Compressor, WindowBits)>,
    input: Vec<u8>,
    at: usize,
    idle_timeout: Duration,
    server: HttpServer,
}

/// What one step of the parser came to.
enum Step {
    Message(Message),
    Then(NextStep),
    More,
}

/// What a wait for more came to.
enum Wait {
    Input,
    Ended,
    Idle,
    Stopping,
}

impl Conversation {
    /// Upgrades the connection; `None` if the peer has gone meanwhile.
    pub(crate) async fn open(
        server: &HttpServer,
        peer: &mut Option<Peer>,
        request: &http::Request<()>,
        spoken: &Spoken<'_>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(waiting) = peer.as_ref() else { return Ok(None) };
        let accepted = server.upgrade(waiting, request, spoken).await?;
        refuse_crowd(server)?;
        let Some(mut peer) = peer.take() else { return Ok(None) };
        peer.visit().talks();
        let config = server.config();
        let level = config.shard.compression.unwrap_or(LEVEL);
        let session = if accepted.deflate.is_some() { Session::with_deflate } else { Session::new };
        let mut conversation = Self {
            input: peer.take_unread(),
            peer,
            session: session(Role::Server),
            limits: SessionLimits { message_bytes_max: config.packet_bytes_max },
            inflater: Inflater::new(config.shard.inflate_ratio_max),
            compressor: accepted.deflate.map(|agreed| (Compressor::new(level), agreed.window())),
            at: 0,
            idle_timeout: Duration::from_millis(config.shard.idle_timeout_ms.into()),
            server: server.clone(),
        };
        Ok(conversation.write(&accepted.response).await.then_some(conversation))
    }

    /// The next message; `None` when the conversation is over.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match self.step() {
                Step::Message(message) => return Some(message),
                Step::Then(NextStep::Continue) => {}
                Step::Then(NextStep::Send(frame)) => self.write(&frame).await.then_some(())?,
                Step::Then(NextStep::Close(frame)) => {
                    self.leave(&frame).await;
                    return None;
                }
                Step::More => self.read().await?,
            }
        }
    }

    /// Reads on; `None` where the peer has gone, or was sent away.
    async fn read(&mut self) -> Option<()> {
        self.input.clear();
        self.at = 0;
        match self.wait().await {
            Wait::Input => {
                self.input = self.peer.take_unread();
                return Some(());
            }
            Wait::Ended => {}
            Wait::Idle => {
                self.server.count(Counter::EchoesIdle);
                self.leave(&close_frame(CloseCode::POLICY, "nothing was received for too long")).await;
            }
            Wait::Stopping => self.leave(&close_frame(CloseCode::GOING_AWAY, "the server is stopping")).await,
        }
        None
    }

    async fn wait(&mut self) -> Wait {
        let timeout = self.idle_timeout;
        let idle = async {
            glommio::timer::sleep(timeout).await;
            Wait::Idle
        };
        let (reading, visit) = self.peer.read_or_visit();
        let reading = async {
            match reading.await {
                Ok(1..) => Wait::Input,
                Ok(0) | Err(_) => Wait::Ended,
            }
        };
        let stopping = async {
            visit.notice().await;
            Wait::Stopping
        };
        future::or(reading, future::or(stopping, idle)).await
    }

    /// Sends a last frame and ends the connection.
    async fn leave(&mut self, frame: &[u8]) {
        if self.write(frame).await {
            self.peer.finish().await;
        }
    }

    /// False where the peer has gone, or does not read.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = self.peer.write(bytes).await;
        let is_written = written.is_ok();
        self.server.note(written);
        is_written
    }

    /// Sends one message; false where the peer has gone, or does not read.
    pub(crate) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> bool {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        match &mut self.compressor {
            Some((compressor, window)) => {
                compressor.push_frame(*window, opcode, payload, &mut frame);
            }
            None => push_frame(opcode, payload, &mut frame),
        }
        self.write(&frame).await
    }

    fn step(&mut self) -> Step {
        let mut consumed = 0;
        let input = &mut self.input[self.at..];
        let step = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut consumed) {
            Ok(None) => Step::More,
            Ok(Some(SessionEvent::Text(text))) => Step::Message(Message::Text(text.to_vec())),
            Ok(Some(SessionEvent::Binary(bytes))) => Step::Message(Message::Binary(bytes.to_vec())),
            Ok(Some(control)) => Step::Then(answer_control(&control)),
            Err(violation) => Step::Then(answer_violation(&violation)),
        };
        self.at += consumed;
        step
    }
}

/// To be asked once more when the upgrade has waited for its turn: others have waited with it.
pub(crate) fn refuse_crowd(server: &HttpServer) -> Result<(), Refusal> {
    let config = server.config();
    let max = config.echoes_max;
    if server.own.lobby.talking() < max.div_ceil(config.cores.len() as u32) as usize {
        return Ok(());
    }
    server.count(Counter::RefusedEchoes);
    Err(unavailable(&format!("{max} echoes are connected, which is echoes_max")))
}
