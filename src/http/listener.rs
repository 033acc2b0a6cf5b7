//! The listeners: one a shard on the same port (SO_REUSEPORT), so that the kernel spreads the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// One listener a shard, all on one address.
#[derive(Debug)]
pub struct Listeners {
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// Why the address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address} is in use by another program; stop it, or choose another port with --listen ({error})")]
    InUse { address: SocketAddr, error: io::Error },
    #[error(
        "{address} is not an address of this machine; have 127.0.0.1, 0.0.0.0 for all, or one that 'ip addr' shows ({error})"
    )]
    NotHere { address: SocketAddr, error: io::Error },
    #[error("listening on {address} is not permitted: ports below 1024 need CAP_NET_BIND_SERVICE ({error})")]
    Forbidden { address: SocketAddr, error: io::Error },
    #[error("cannot listen on {address}: {error}")]
    Other { address: SocketAddr, error: io::Error },
}

impl ListenError {
    fn of(address: SocketAddr) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, error },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address, error },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address, error },
            _ => Self::Other { address, error },
        }
    }
}

/// Binds as many listeners as there are shards. Accepted sockets inherit their options: no delay (a tick does not wait
/// for an acknowledgement) and the send buffer.
pub fn bind(address: SocketAddr, shards: usize, send_buffer_bytes: usize) -> Result<Listeners, ListenError> {
    let failed = ListenError::of(address);
    // SO_REUSEPORT would let a second server of the same user share the port in silence; a plain bind finds it out.
    let probe = bound_soon(address).map_err(&failed)?;
    let address = probe.local_addr().map_err(&failed)?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = bound(address, true).map_err(&failed)?;
        socket.set_tcp_nodelay(true).map_err(&failed)?;
        socket.set_send_buffer_size(send_buffer_bytes).map_err(&failed)?;
        socket.listen(BACKLOG).map_err(&failed)?;
        sockets.push(socket.into());
    }
    Ok(Listeners { address, sockets })
}

/// A plain bind, as soon as it succeeds. The kernel tears the rings of a process that was killed down after the process is
/// gone, and its listeners with them: whoever is started in its place at once has to wait for that.
fn bound_soon(address: SocketAddr) -> io::Result<Socket> {
    const INTERVAL: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    let began = Instant::now();
    let mut told = false;
    loop {
        match bound(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < LONGEST => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("{address} is in use; trying again for {} s", LONGEST.as_secs());
                }
                std::thread::sleep(INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
