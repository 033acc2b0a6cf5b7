//! The usual way to write such a server in Rust, to compare with: tokio, tokio-tungstenite, a broadcast channel, and a
//! task for each connection.
//!
//! It is written as well as that way allows: all messages that wait in the channel are fed to the socket before one
//! flush, payloads are shared, and the runtime has a thread for each core that the process may use. A subscriber that
//! the channel laps continues with the messages that are there; the missed ones are counted as dropped.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::tally::FloorTally;

/// Messages that the channel holds.
const CHANNEL_MESSAGES: usize = 1024;

/// Counters of all tasks. Relaxed throughout: sums that are read at the end.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    subscribers: AtomicU64,
}

/// Serves until `stop` becomes readable.
pub(super) fn run(listener: TcpListener, stop: UnixStream) -> io::Result<FloorTally> {
    let threads = std::thread::available_parallelism()?.get();
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_io().build()?;
    let counts = Arc::new(Counts::default());
    runtime.block_on(serve(listener, stop, Arc::clone(&counts)))?;
    runtime.shutdown_background();
    Ok(FloorTally {
        sent: counts.sent.load(Ordering::Relaxed),
        dropped: counts.dropped.load(Ordering::Relaxed),
        flushes: 0,
        subscribers: counts.subscribers.load(Ordering::Relaxed),
    })
}

async fn serve(listener: TcpListener, stop: UnixStream, counts: Arc<Counts>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    stop.set_nonblocking(true)?;
    let (listener, stop) = (tokio::net::TcpListener::from_std(listener)?, tokio::net::UnixStream::from_std(stop)?);
    let (channel, _) = broadcast::channel(CHANNEL_MESSAGES);
    loop {
        tokio::select! {
            // A connection may have ended before its accept.
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(stream, channel.clone(), Arc::clone(&counts)));
            },
            ready = stop.readable() => return ready,
        }
    }
}

/// One connection, from its upgrade to its end.
async fn connection(stream: TcpStream, channel: Sender<Message>, counts: Arc<Counts>) {
    let mut is_publisher = false;
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let upgrade = |request: &Request, response| -> Result<Response, ErrorResponse> {
        is_publisher = request.uri().path() == "/v1/publish";
        Ok(agree(request, response))
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await else { return };
    if is_publisher {
        return publish(socket, channel).await;
    }
    counts.subscribers.fetch_add(1, Ordering::Relaxed);
    // An error means that the subscriber has gone.
    let _ = subscriber(socket, channel.subscribe(), &counts).await;
    counts.subscribers.fetch_sub(1, Ordering::Relaxed);
}

/// A client that offers subprotocols requires one: it gets its first.
fn agree(request: &Request, mut response: Response) -> Response {
    let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|offered| offered.to_str().ok());
    let first = offered.and_then(|offered| offered.split(',').next());
    if let Some(protocol) = first.and_then(|first| first.trim().parse().ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

async fn publish(mut socket: WebSocketStream<TcpStream>, channel: Sender<Message>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() {
            // There may be no subscriber yet.
            let _ = channel.send(message);
        }
    }
}

async fn subscriber(
    socket: WebSocketStream<TcpStream>,
    mut messages: Receiver<Message>,
    counts: &Counts,
) -> Result<(), Error> {
    let (mut sink, mut input) = socket.split();
    loop {
        let mut next = tokio::select! {
            received = input.next() => match received {
                Some(Ok(_)) => continue,
                _ => return Ok(()),
            },
            message = messages.recv() => match message {
                Ok(message) => Some(message),
                Err(RecvError::Lagged(lost)) => {
                    counts.dropped.fetch_add(lost, Ordering::Relaxed);
                    continue;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        let mut sent = 0;
        while let Some(message) = next {
            sink.feed(message).await?;
            sent += 1;
            next = waiting(&mut messages, counts);
        }
        sink.flush().await?;
        counts.sent.fetch_add(sent, Ordering::Relaxed);
    }
}

/// The next message that is in the channel already.
fn waiting(messages: &mut Receiver<Message>, counts: &Counts) -> Option<Message> {
    loop {
        match messages.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Lagged(lost)) => {
                counts.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
        }
    }
}
