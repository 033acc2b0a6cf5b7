//! The listening sockets, one per shard on the same port, and the loop that accepts connections.
//!
//! With `SO_REUSEPORT` the kernel spreads new connections over the sockets by a hash of their addresses. Accepted sockets
//! inherit the options set here: `TCP_NODELAY`, since a flush must not wait for an acknowledgement, and the [`SendLimits`].
//!
//! A shard's core runs the accept loop and the fan-out. To keep very many new connections from delaying market data, the
//! loop accepts a batch of [`ACCEPT_BATCH`] connections (some 0.2 ms), then yields to the other tasks of the core, and
//! waits if connections arrive faster than the handshake rate allows. Connections that are not accepted wait in the
//! kernel's accept queue, which costs the server nothing.
//!
//! What it does not do: read from a connection. Each one gets a task of its own, see `exchange.rs`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::net::TcpStream;
use glommio::task::JoinHandle;
use socket2::{Domain, Protocol, Socket, Type};

use super::server::HttpServer;
use super::{Listener, exchange};
use crate::clock::now_ns;
use crate::fault;
use crate::io::descriptor;

/// Length of the accept queue; the kernel caps it at `net.core.somaxconn`.
const ACCEPT_QUEUE: i32 = 65_535;
/// Connections that are accepted before the other tasks of the core run.
const ACCEPT_BATCH: u32 = 8;
/// Connections that may be accepted for each handshake that `handshakes_per_s` allows: not every connection becomes a
/// handshake.
const ACCEPTS_PER_HANDSHAKE: u32 = 2;
/// Pause after a failed accept.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket per shard, all on one address.
#[derive(Debug)]
pub struct Listeners {
    /// With the port that the kernel chose, if 0 was asked for.
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listen: {address} is in use by another program: stop it, or choose another port with --listen ({error})")]
    InUse { address: SocketAddr, error: io::Error },
    #[error(
        "listen: {address} is not an address of this machine: expected 127.0.0.1, 0.0.0.0 for all, or one that 'ip addr' shows ({error})"
    )]
    NotLocal { address: SocketAddr, error: io::Error },
    #[error("listen: {address} is not permitted: ports below 1024 need CAP_NET_BIND_SERVICE ({error})")]
    Forbidden { address: SocketAddr, error: io::Error },
    #[error("listen: cannot listen on {address}: {error}")]
    Other { address: SocketAddr, error: io::Error },
}

impl ListenError {
    fn at(address: SocketAddr) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, error },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address, error },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address, error },
            _ => Self::Other { address, error },
        }
    }
}

/// What the kernel keeps for a connection until it is sent and acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    pub buffer_bytes: usize,
    /// Of data that has not been sent; 0 for the machine's value.
    pub notsent_lowat_bytes: u32,
}

/// Binds one listening socket per shard.
pub fn bind(address: SocketAddr, shards: usize, limits: SendLimits) -> Result<Listeners, ListenError> {
    let failed = ListenError::at(address);
    // SO_REUSEPORT would let a second server of the same user share the port silently. A plain bind detects it, unless
    // the other server binds between this probe and the binds below.
    let probe = bind_exclusively(address).map_err(&failed)?;
    let address = probe.local_addr().map_err(&failed)?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bind_socket(address, true).map_err(&failed)?;
        socket.set_tcp_nodelay(true).map_err(&failed)?;
        socket.set_send_buffer_size(limits.buffer_bytes).map_err(&failed)?;
        socket.set_tcp_notsent_lowat(limits.notsent_lowat_bytes).map_err(&failed)?;
        socket.listen(ACCEPT_QUEUE).map_err(&failed)?;
        socket.set_nonblocking(true).map_err(&failed)?;
        sockets.push(socket.into());
    }
    Ok(Listeners { address, sockets })
}

/// Binds without `SO_REUSEPORT`, retrying for a while: the kernel tears down the io_uring rings of a killed process, and
/// with them its sockets, after the process has ended. A server that is restarted at once has to wait for that.
fn bind_exclusively(address: SocketAddr) -> io::Result<Socket> {
    const INTERVAL: Duration = Duration::from_millis(50);
    const RETRY_MAX: Duration = Duration::from_secs(2);
    let began = Instant::now();
    let mut is_logged = false;
    loop {
        match bind_socket(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < RETRY_MAX => {
                if !std::mem::replace(&mut is_logged, true) {
                    tracing::info!("{address} is in use; retrying for {} s", RETRY_MAX.as_secs());
                }
                std::thread::sleep(INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

fn bind_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts connections on the calling shard's executor, whenever [`HttpServer::notify_listener`] says that some wait,
/// until the returned task is cancelled. The sockets do not block.
pub fn spawn(server: Rc<HttpServer>, sockets: Vec<(Listener, TcpListener)>) -> JoinHandle<()> {
    let accepting = async move {
        let mut accepted: u32 = 0;
        loop {
            server.accept_signal.wait().await;
            fault::point("listener");
            let _task = server.enter_task();
            while let Some((listener, outcome)) = accept_next(&sockets, accepted) {
                match outcome {
                    Ok(stream) => spawn_exchange(server.clone(), stream, listener),
                    Err(error) => {
                        // Usually out of descriptors: connections that exist are still served.
                        tracing::warn!("shard {}: accept failed: {error}; is 'ulimit -n' too low?", server.index());
                        glommio::timer::sleep(ERROR_PAUSE).await;
                    }
                }
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPT_BATCH) {
                    pause(&server).await;
                }
            }
        }
    };
    glommio::spawn_local(contain(accepting)).detach()
}

/// Ends a task that panics and keeps the executor: glommio would leak its other tasks, and with them all clients. The
/// panic itself is reported by the hook of `runtime`, and the server drains.
async fn contain(task: impl Future<Output = ()>) {
    let _ = AssertUnwindSafe(task).catch_unwind().await;
}

/// The next connection of any socket, each being first by `nth`; `None` if none waits.
fn accept_next(sockets: &[(Listener, TcpListener)], nth: u32) -> Option<(Listener, io::Result<TcpStream>)> {
    let first = nth as usize % sockets.len().max(1);
    let (before, after) = sockets.split_at(first);
    after.iter().chain(before).find_map(|(listener, socket)| Some((*listener, accept(socket)?)))
}

/// The next connection; `None` if none waits.
fn accept(socket: &TcpListener) -> Option<io::Result<TcpStream>> {
    loop {
        match socket.accept() {
            Ok((stream, _)) => return Some(Ok(descriptor::socket(stream.into()))),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return None,
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                _ => return Some(Err(error)),
            },
        }
    }
}

fn spawn_exchange(server: Rc<HttpServer>, stream: TcpStream, listener: Listener) {
    let task = server.enter_task();
    glommio::spawn_local(async move {
        contain(exchange::serve(server, stream, listener)).await;
        // Last: with it ends what the executor has to do for this connection.
        drop(task);
    })
    .detach();
}

/// Lets the other tasks of the core run, or waits if connections arrive too fast.
async fn pause(server: &HttpServer) {
    let accepts_per_s = server.config().handshakes_per_s.saturating_mul(ACCEPTS_PER_HANDSHAKE);
    let wait = server.admission.pace_accepts(accepts_per_s.div_ceil(ACCEPT_BATCH), now_ns());
    if wait.is_zero() {
        glommio::executor().yield_task_queue_now().await;
    } else {
        glommio::timer::sleep(wait).await;
    }
}
