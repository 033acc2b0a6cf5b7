//! `/v1/echo`: returns every message through the codec that serves subscribers, compressed if the client offered it. For
//! conformance suites. The connection keeps its task and stays pending.

use std::time::Duration;

use futures_lite::future;

use crate::http::connection::Connection;
use crate::http::handshake::{Supported, Upgrade};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::server::HttpServer;
use crate::http::timer;
use crate::stats::Counter;
use tickcast_protocol::ws::deflate::{Compressor, Inflater, WindowBits};
use tickcast_protocol::ws::{
    CloseCode, NextStep, Opcode, Role, Session, SessionEvent, SessionLimits, answer_control, answer_violation,
    close_frame, push_frame,
};

/// The compression level if none is configured.
const LEVEL: u8 = 1;

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    check_limit(server)?;
    let supported = Supported { protocols: &[], deflate: true };
    let upgrade = server.upgrade(connection, request, &supported).await?;
    // Again: other echoes may have opened while this one waited for its permit.
    check_limit(server)?;
    connection.pending().set_echo();
    let mut echo = Echo::new(server, connection, &upgrade);
    if echo.write(&upgrade.response).await {
        echo.run().await;
    }
    Ok(())
}

fn check_limit(server: &HttpServer) -> Result<(), Refusal> {
    let config = server.config();
    let max = config.echoes_max;
    if server.echoes() < max.div_ceil(config.cores.len() as u32) as usize {
        return Ok(());
    }
    server.count(Counter::RefusedEchoes);
    Err(Refusal::unavailable(format!("too many echoes: echoes_max is {max}"), RETRY_AFTER))
}

/// An upgraded connection and its codec.
struct Echo<'a> {
    server: &'a HttpServer,
    connection: &'a mut Connection,
    session: Session,
    limits: SessionLimits,
    inflater: Inflater,
    compressor: Option<(Compressor, WindowBits)>,
    input: Vec<u8>,
    /// Bytes of `input` that are parsed.
    parsed: usize,
    idle_timeout: Duration,
}

/// A whole message of the client.
struct Message {
    opcode: Opcode,
    payload: Vec<u8>,
}

/// The outcome of parsing a step further.
enum Parsed {
    Message(Message),
    Control(NextStep),
    Incomplete,
}

/// The outcome of waiting for input.
enum Wait {
    Input,
    Closed,
    Idle,
    Stopping,
}

impl<'a> Echo<'a> {
    fn new(server: &'a HttpServer, connection: &'a mut Connection, upgrade: &Upgrade) -> Self {
        let config = server.config();
        let level = config.shard.compression.unwrap_or(LEVEL);
        let session = if upgrade.deflate.is_some() { Session::with_deflate } else { Session::new };
        Self {
            input: connection.take_unread(),
            server,
            connection,
            session: session(Role::Server),
            limits: SessionLimits { message_bytes_max: config.packet_bytes_max },
            inflater: Inflater::new(config.shard.inflate_ratio_max),
            compressor: upgrade.deflate.map(|agreed| (Compressor::new(level), agreed.window())),
            parsed: 0,
            idle_timeout: Duration::from_millis(config.shard.idle_timeout_ms.into()),
        }
    }

    async fn run(&mut self) {
        while let Some(message) = self.next_message().await {
            if !self.send(&message).await {
                return;
            }
        }
    }

    /// The next message; `None` after the connection is closed. Control frames are answered meanwhile.
    async fn next_message(&mut self) -> Option<Message> {
        loop {
            match self.parse() {
                Parsed::Message(message) => return Some(message),
                Parsed::Control(NextStep::Continue) => {}
                Parsed::Control(NextStep::Send(frame)) => self.write(&frame).await.then_some(())?,
                Parsed::Control(NextStep::Close(frame)) => {
                    self.close(&frame).await;
                    return None;
                }
                Parsed::Incomplete => self.read().await?,
            }
        }
    }

    fn parse(&mut self) -> Parsed {
        let mut consumed = 0;
        let input = &mut self.input[self.parsed..];
        let message = |opcode, payload: &[u8]| Parsed::Message(Message { opcode, payload: payload.to_vec() });
        let parsed = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut consumed) {
            Ok(None) => Parsed::Incomplete,
            Ok(Some(SessionEvent::Text(text))) => message(Opcode::Text, text),
            Ok(Some(SessionEvent::Binary(bytes))) => message(Opcode::Binary, bytes),
            Ok(Some(control)) => Parsed::Control(answer_control(&control)),
            Err(violation) => Parsed::Control(answer_violation(&violation)),
        };
        self.parsed += consumed;
        parsed
    }

    /// Reads more input; `None` after the connection is closed.
    async fn read(&mut self) -> Option<()> {
        self.input.clear();
        self.parsed = 0;
        match self.wait().await {
            Wait::Input => {
                self.input = self.connection.take_unread();
                return Some(());
            }
            Wait::Closed => {}
            Wait::Idle => {
                self.server.count(Counter::EchoesIdle);
                self.close(&close_frame(CloseCode::POLICY, "nothing was received for idle_timeout_ms")).await;
            }
            Wait::Stopping => self.close(&close_frame(CloseCode::GOING_AWAY, "the server is stopping")).await,
        }
        None
    }

    async fn wait(&mut self) -> Wait {
        let timeout = self.idle_timeout;
        let idle = async {
            timer::sleep(timeout).await;
            Wait::Idle
        };
        let (reading, pending) = self.connection.read_or_end();
        let reading = async {
            match reading.await {
                Ok(1..) => Wait::Input,
                Ok(0) | Err(_) => Wait::Closed,
            }
        };
        let stopping = async {
            pending.must_end().await;
            Wait::Stopping
        };
        future::or(reading, future::or(stopping, idle)).await
    }

    /// Sends one message; false if the client has closed or does not read.
    async fn send(&mut self, Message { opcode, payload }: &Message) -> bool {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        match &mut self.compressor {
            Some((compressor, window)) => {
                compressor.push_frame(*window, *opcode, payload, &mut frame);
            }
            None => push_frame(*opcode, payload, &mut frame),
        }
        self.write(&frame).await
    }

    /// Sends a close frame and closes.
    async fn close(&mut self, frame: &[u8]) {
        if self.write(frame).await {
            self.connection.close().await;
        }
    }

    /// False if the client has closed or does not read.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = self.connection.write(bytes).await;
        self.server.count_write(&written);
        written.is_ok()
    }
}
