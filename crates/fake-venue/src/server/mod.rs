//! The venue on a port: WebSockets and REST, with TLS or without. It runs in a thread of its own until it is dropped.

mod http;
mod tls;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::hub::connection::Out;
use crate::hub::faults::{Class, Fault};
use crate::hub::{Hub, ScriptedChange};
use crate::market::Market;
use crate::market::recording::{Recording, RecordingError};
use crate::options::{Options, Source};
use crate::truth::Truth;

/// A client has this long for the TLS handshake, a request, and its close frame.
const STEP: Duration = Duration::from_secs(10);
const CLOSE: Duration = Duration::from_secs(1);

/// Why a venue does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The recording cannot be used.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The port is taken, or the system has no descriptors left.
    #[error("port {port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        error: std::io::Error,
    },
    /// There is no certificate.
    #[error("certificate: {0}")]
    Certificate(String),
}

/// A running venue.
pub struct FakeVenue {
    shared: Arc<Shared>,
    address: SocketAddr,
    authority_pem: Option<String>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    hub: Mutex<Hub>,
    wakers: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type BoxedStream = Box<dyn Stream>;

impl FakeVenue {
    /// Starts a venue on a port of 127.0.0.1.
    ///
    /// # Errors
    /// The recording cannot be used, or the port.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let (market, session) = match &options.source {
            Source::Generate(seed) => Market::generated(options.venue, *seed),
            Source::Recording { path, limit_ms } => {
                let limit_ns = limit_ms.map(|ms| ms * 1_000_000);
                Market::recorded(options.venue, Recording::read(options.venue, path, limit_ns)?)
            }
        };
        let port = options.port;
        let listen_error = |error| StartError::Listen { port, error };
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let (acceptor, authority_pem) = match options.is_plain {
            true => (None, None),
            false => {
                let (acceptor, pem) = tls::acceptor()?;
                (Some(acceptor), Some(pem))
            }
        };
        let hub = Mutex::new(Hub::new(options, market, session));
        let shared = Arc::new(Shared { hub, wakers: Mutex::default() });
        let (stop, stopped) = watch::channel(false);
        let (served, result) = mpsc::channel();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let _ = served.send(Ok(()));
                    runtime.block_on(serve(of_thread, listener, acceptor, stopped));
                }
                Err(error) => drop(served.send(Err(error))),
            }
        });
        result.recv().unwrap_or(Ok(())).map_err(listen_error)?;
        Ok(Self { shared, address, authority_pem, stop, thread: Some(thread) })
    }

    /// Scheme, host and port of its WebSocket addresses: `wss://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        let scheme = if self.authority_pem.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority, with TLS.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority_pem.as_deref()
    }

    /// Makes a fault happen at the next message, request or subscription of this class.
    pub fn inject(&self, fault: Fault, class: Class) {
        self.shared.hub().inject(fault, class);
    }

    /// True while a fault waits for its place.
    pub fn is_fault_armed(&self) -> bool {
        self.shared.hub().is_fault_armed()
    }

    /// How many subscriptions are open.
    pub fn open_subscriptions(&self) -> usize {
        self.shared.hub().open_subscriptions()
    }

    /// Changes an instrument now.
    pub fn change(&self, change: &ScriptedChange) {
        self.shared.hub().change(change, now_ns());
        self.shared.wake();
    }

    /// Ends the faults and lets the session stand still, after two more changes of every book and two more trades of every
    /// instrument, by which clients notice what they miss. Requests are still answered.
    pub fn stop_session(&self) {
        self.shared.hub().stop_session(now_ns());
        self.shared.wake();
    }

    /// Lets the session go on.
    pub fn resume_session(&self) {
        self.shared.hub().resume_session(now_ns());
    }

    /// True if a recording was sent to its end.
    pub fn is_over(&self) -> bool {
        self.shared.hub().is_over()
    }

    /// What it truly was until now.
    pub fn truth(&self) -> Truth {
        self.shared.hub().truth()
    }
}

impl Drop for FakeVenue {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the tasks of the connections with something to be sent.
    fn wake(&self) {
        let ready: Vec<_> = self.hub().ready().collect();
        let wakers = self.wakers();
        ready.iter().filter_map(|id| wakers.get(id)).for_each(|waker| waker.notify_one());
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

async fn serve(
    shared: Arc<Shared>,
    listener: StdListener,
    acceptor: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let playing = tokio::spawn(play(shared.clone()));
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve_connection(shared.clone(), stream, acceptor.clone()));
                }
            }
        }
    }
    playing.abort();
}

async fn play(shared: Arc<Shared>) {
    loop {
        let now = now_ns();
        let next = shared.hub().advance(now);
        shared.wake();
        match next.saturating_sub(now) {
            0 => tokio::task::yield_now().await,
            wait_ns => sleep(Duration::from_nanos(wait_ns)).await,
        }
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let _ = stream.set_nodelay(true);
    let mut stream: BoxedStream = match acceptor {
        None => Box::new(stream),
        Some(acceptor) => match timeout(STEP, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            _ => return,
        },
    };
    let mut rest = Vec::new();
    while let Some(request) = http::read_request(&mut stream, std::mem::take(&mut rest)).await {
        let Some(key) = request.key else {
            let answer = shared.hub().rest(&request.target, now_ns());
            sleep(Duration::from_millis(answer.delay_ms)).await;
            let bytes = http::response(answer.status, &answer.headers, &answer.body);
            if write(&mut stream, &bytes).await.is_err() {
                return;
            }
            rest = request.rest;
            continue;
        };
        let connected = shared.hub().connect(&request.target, now_ns());
        match connected {
            Err(refusal) => {
                let headers: Vec<_> =
                    refusal.retry_after_s.map(|s| ("Retry-After", s.to_string())).into_iter().collect();
                let _ = write(&mut stream, &http::response(refusal.status, &headers, "{}")).await;
            }
            Ok(id) => {
                if write(&mut stream, &http::upgrade_response(&key)).await.is_ok() {
                    serve_socket(&shared, id, stream, request.rest).await;
                }
                shared.hub().disconnect(id);
                shared.wakers().remove(&id);
            }
        }
        return;
    }
}

async fn write(stream: &mut BoxedStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn serve_socket(shared: &Shared, id: u64, stream: BoxedStream, rest: Vec<u8>) {
    let waker = Arc::new(Notify::new());
    shared.wakers().insert(id, waker.clone());
    let config = WebSocketConfig::default();
    let mut socket = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
    loop {
        let Some(out) = shared.hub().take_out(id) else { return };
        if !send(&mut socket, out).await {
            return;
        }
        tokio::select! {
            () = waker.notified() => {}
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    shared.hub().text(id, &text, now_ns());
                    shared.wake();
                }
                Some(Ok(Message::Ping(_))) => shared.hub().control_frame(id, false, now_ns()),
                Some(Ok(Message::Pong(_))) => shared.hub().control_frame(id, true, now_ns()),
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// Sends what has waited; false if the connection is over.
async fn send(socket: &mut WebSocketStream<BoxedStream>, out: Vec<Out>) -> bool {
    for item in out {
        let sent = match item {
            Out::Text(text) => socket.feed(Message::text(text)).await,
            Out::Ping => socket.feed(Message::Ping(Vec::new().into())).await,
            Out::Close(code, reason) => {
                let frame = CloseFrame { code: code.into(), reason: reason.into() };
                if socket.close(Some(frame)).await.is_ok() {
                    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
                    let _ = timeout(CLOSE, rest).await;
                }
                return false;
            }
            Out::Cut(text) => {
                let _ = socket.flush().await;
                let _ = write(socket.get_mut(), &http::half_frame(&text)).await;
                return false;
            }
        };
        if sent.is_err() {
            return false;
        }
    }
    socket.flush().await.is_ok()
}
