//! The admin listener: health, metrics, the operator's view and publishing on an address or Unix socket of their own.
//!
//! It is served by threads of its own, one for each connection, with limits of its own. So neither a flood of the public
//! port nor a busy shard takes `/readyz` or a publisher's handshake away. What always holds: a connection has a deadline
//! for its request and for its response, and at most [`CONNECTIONS_MAX`] are open besides publishers; a new one closes the
//! oldest.

mod connection;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::socket::{AdminListenError, AdminSocket, SocketFile};

use super::server::HttpShared;
use crate::affinity::keep_current_thread_on;
use crate::config::Config;

/// Connections at a time besides publishers: some scrapers, health checks and operators.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// The server of the admin listener.
pub struct AdminServer {
    shared: Arc<HttpShared>,
    socket: AdminSocket,
    /// The settings in effect.
    config: Mutex<Arc<Config>>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    /// In order of arrival; to close the oldest.
    open: VecDeque<(u64, TcpStream)>,
}

/// Counts a connection until it is dropped.
struct ConnectionGuard<'a> {
    server: &'a AdminServer,
    id: u64,
}

impl AdminServer {
    /// Accepts connections on a thread of its own until the server stops.
    pub fn spawn(socket: AdminSocket, shared: Arc<HttpShared>) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let config = Mutex::new(Arc::new(shared.state.config.clone()));
        let server = Arc::new(Self { shared, socket, config, connections: Mutex::default() });
        let serving = server.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || serving.run())?;
        Ok((server, thread))
    }

    /// Applies settings to new connections.
    pub fn change_settings(&self, config: Arc<Config>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(self: Arc<Self>) {
        // The threads of the connections as well.
        keep_current_thread_on(&self.shared.state.config.other_cores);
        while !self.shared.state.lifecycle.is_stopping() {
            let spawned = match self.socket.accept() {
                Ok(None) => continue,
                Ok(Some((stream, peer))) => {
                    let server = self.clone();
                    let thread = std::thread::Builder::new().name("admin-connection".to_owned());
                    thread.spawn(move || connection::serve(&server, stream, peer)).map(drop)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = spawned {
                tracing::warn!("admin listener: a connection could not be served: {error}");
                std::thread::sleep(ERROR_PAUSE);
            }
        }
    }

    /// Adds a connection; closes the oldest at the limit.
    fn enter(&self, stream: &TcpStream) -> io::Result<ConnectionGuard<'_>> {
        let closing = stream.try_clone()?;
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.open.len() >= CONNECTIONS_MAX
            && let Some((_, oldest)) = connections.open.pop_front()
        {
            // Its thread then reads the end of the stream. A failure is a connection that has ended.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let id = connections.next_id;
        connections.next_id += 1;
        connections.open.push_back((id, closing));
        Ok(ConnectionGuard { server: self, id })
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        let mut connections = self.server.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.open.retain(|(id, _)| *id != self.id);
    }
}
