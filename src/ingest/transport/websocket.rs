//! WebSocket connections of a source to a server.
//!
//! A connection is a task. It waits for the server's budget of connects, connects, and then passes messages on, sends texts
//! at the pace that the server permits, answers pings, and sends one when nothing has come for [`PING_AFTER`]. A server
//! that does not send anything for [`SILENT_MAX`], not even an answer, has gone: the connection is given up.
//!
//! What is bounded: a message, by [`MESSAGE_BYTES_MAX`]; the texts that wait, by [`TEXTS_MAX`]; what was received and not
//! taken yet, by the [`Intake`] that all connections of a source share. While that is full nothing is read, and TCP slows
//! the server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tickcast_venues::RequestLimit;
use tokio::select;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::address::{Address, Duplex, Failure, dial};
use super::budget::{BUDGETS, Use};
use super::refusal;
use crate::clock::now_ns;
use crate::tls::Connector;

/// What clients of this server are called.
pub(super) const AGENT: &str = concat!("tickcast/", env!("CARGO_PKG_VERSION"));
/// The schemes of its URLs.
pub const SCHEMES: [&str; 2] = ["ws", "wss"];
/// Longer messages end the connection. The longest known, a book of all levels, have 3 MB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Texts that wait to be sent.
pub const TEXTS_MAX: usize = 1024;
/// Bytes that were received by all connections of a source, and not taken yet.
pub const INTAKE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Messages that were received by all connections of a source, and not taken yet.
pub const INTAKE_MESSAGES_MAX: usize = 4096;
/// The longest wait for the answer to the request of an upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for a text to be taken by the server's side.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// For the close frame of a connection that is not wanted any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A ping is sent when nothing has come for so long.
const PING_AFTER: Duration = Duration::from_secs(15);
/// The server has gone when nothing has come for so long.
const SILENT_MAX: Duration = Duration::from_secs(45);
/// Bytes that a permit of the intake stands for.
const PERMIT_BYTES: usize = 1024;

/// The number of a connection, within its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Where a connection goes, and what the server permits.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: Address,
    /// Attempts to connect, from all connections of this process.
    pub connects: RequestLimit,
    /// Messages on this connection.
    pub messages: RequestLimit,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Opened,
    Message(Bytes),
    Closed(Failure),
}

/// Events of all connections of a source, on the way to it, with the space that they take.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    pub(super) events: Sender<(LinkId, LinkEvent, Option<OwnedSemaphorePermit>)>,
    pub(super) space: Arc<Semaphore>,
}

impl Intake {
    /// The permits of an empty intake.
    pub(super) const PERMITS: usize = INTAKE_BYTES_MAX / PERMIT_BYTES;

    /// Waits for space, and passes an event on. An error says that the source has ended.
    async fn put(&self, link: LinkId, event: LinkEvent) -> Result<(), Failure> {
        let bytes = if let LinkEvent::Message(bytes) = &event { bytes.len() } else { 0 };
        let permits = (bytes / PERMIT_BYTES + 1).min(Self::PERMITS) as u32;
        let space = Arc::clone(&self.space).acquire_many_owned(permits).await.ok();
        let ended = |_| Failure { reason: "the source has ended".to_owned(), after: Duration::ZERO };
        self.events.send((link, event, space)).await.map_err(ended)
    }
}

/// Runs a connection, from the attempt to its end.
pub(super) async fn run(link: LinkId, target: Target, connector: Connector, texts: Receiver<String>, intake: Intake) {
    let Err(failure) = connect_and_pass(link, &target, &connector, texts, &intake).await;
    // It fails where the source itself has ended.
    drop(intake.put(link, LinkEvent::Closed(failure)).await);
}

async fn connect_and_pass(
    link: LinkId,
    target: &Target,
    connector: &Connector,
    mut texts: Receiver<String>,
    intake: &Intake,
) -> Result<std::convert::Infallible, Failure> {
    let address = &target.address;
    let at_ns = BUDGETS.take(&address.authority(), Use::Connect, target.connects, 1, now_ns());
    sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()))).await;
    let mut socket = upgrade(address, connector).await?;
    intake.put(link, LinkEvent::Opened).await?;
    let (mut heard, mut pinged) = (Instant::now(), false);
    let mut pace = Pace::new(target.messages);
    loop {
        let next_check = heard + if pinged { SILENT_MAX } else { PING_AFTER };
        select! {
            received = socket.next() => {
                (heard, pinged) = (Instant::now(), false);
                let message = received.unwrap_or(Err(Error::ConnectionClosed));
                if let Some(bytes) = content(message, address)? {
                    intake.put(link, LinkEvent::Message(bytes)).await?;
                    heard = Instant::now();
                }
            }
            text = paced(&mut texts, &pace) => {
                let Some(text) = text else {
                    // A server that does not take it learns of the end by the end of the connection.
                    let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                    return Err(Failure::at(address, "the source has closed the connection"));
                };
                pace.note();
                send(&mut socket, Message::text(text), address).await?;
            }
            () = sleep_until(next_check) => {
                if pinged {
                    let seconds = SILENT_MAX.as_secs();
                    return Err(Failure::at(address, format!("nothing came for {seconds} s, not even an answer to a ping")));
                }
                pinged = true;
                send(&mut socket, Message::Ping(Bytes::new()), address).await?;
            }
        }
    }
}

async fn paced(texts: &mut Receiver<String>, pace: &Pace) -> Option<String> {
    sleep_until(pace.open).await;
    texts.recv().await
}

async fn send(
    socket: &mut WebSocketStream<Box<dyn Duplex>>,
    message: Message,
    address: &Address,
) -> Result<(), Failure> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(result) => result.map_err(|error| Failure::at(address, problem(&error))),
        Err(_) => Err(Failure::at(address, format!("it took no message for {} s", SEND_TIMEOUT.as_secs()))),
    }
}

/// The content of a message for the source.
fn content(message: Result<Message, Error>, address: &Address) -> Result<Option<Bytes>, Failure> {
    match message.map_err(|error| Failure::at(address, problem(&error)))? {
        Message::Text(text) => Ok(Some(text.into())),
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Close(frame) => {
            let said = frame
                .map_or_else(|| "without a reason".to_owned(), |frame| close_text(&frame.reason, frame.code.into()));
            Err(Failure::at(address, format!("it closed the connection, {said}")))
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

fn close_text(reason: &str, code: u16) -> String {
    if reason.is_empty() { format!("with code {code}") } else { format!("with code {code} and {reason:?}") }
}

async fn upgrade(address: &Address, connector: &Connector) -> Result<WebSocketStream<Box<dyn Duplex>>, Failure> {
    let failed = |error: Error| match error {
        Error::Http(response) => refused(address, &response),
        error => Failure::at(address, problem(&error)),
    };
    let stream = dial(address, connector).await?;
    let mut request = address.url(SCHEMES).into_client_request().map_err(failed)?;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    match timeout(UPGRADE_TIMEOUT, client_async_with_config(request, stream, Some(config))).await {
        Ok(result) => result.map(|(socket, _)| socket).map_err(failed),
        Err(_) => {
            let seconds = UPGRADE_TIMEOUT.as_secs();
            Err(Failure::at(address, format!("no answer to the request of a WebSocket within {seconds} s")))
        }
    }
}

fn refused(address: &Address, response: &Response<Option<Vec<u8>>>) -> Failure {
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let body = response.body().as_deref().unwrap_or_default();
    refusal::of(address, "a WebSocket", response.status().as_u16(), retry_after, body, now_ns())
}

/// The words for an error of a connection.
fn problem(error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => "it closed the connection".to_owned(),
        Error::Io(error) => format!("the connection was lost: {error}"),
        Error::Capacity(_) => format!("a message of more than {MESSAGE_BYTES_MAX} bytes: {error}"),
        Error::Protocol(_) => format!("it does not speak WebSocket as it should: {error}"),
        _ => error.to_string(),
    }
}

/// So many messages a time: when the next one is permitted.
struct Pace {
    limit: RequestLimit,
    whole: Instant,
    open: Instant,
}

impl Pace {
    fn new(limit: RequestLimit) -> Self {
        Self { limit, whole: Instant::now(), open: Instant::now() }
    }

    fn note(&mut self) {
        let interval = Duration::from_nanos(self.limit.interval_ns);
        self.whole = self.whole.max(Instant::now()) + interval;
        self.open = self.whole.checked_sub(interval * self.limit.burst.saturating_sub(1)).unwrap_or(self.whole);
    }
}
