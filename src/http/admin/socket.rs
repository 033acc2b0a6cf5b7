//! The socket of the admin listener: TCP, or a Unix socket that only the server's user may open.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::AdminListen;

/// Connections that wait to be accepted.
const ACCEPT_QUEUE: i32 = 128;
/// How often the loop that accepts connections looks whether the server stops.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Mode of a Unix socket: reading and writing by the server's user.
const MODE: u32 = 0o600;

/// Why the admin listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum AdminListenError {
    #[error("admin_listen: {0} is in use by another program: stop it, or choose another with --admin-listen")]
    InUse(AdminListen),
    #[error("admin_listen: {0} is a file and no socket: remove it, or choose another path with --admin-listen")]
    NoSocket(AdminListen),
    #[error("admin_listen: cannot listen on {listen}: {error}")]
    Other { listen: AdminListen, error: io::Error },
}

/// A bound socket.
#[derive(Debug)]
pub struct AdminSocket {
    /// With the port that the kernel chose, if 0 was asked for.
    pub listen: AdminListen,
    socket: Socket,
    /// `None` for TCP.
    pub file: Option<SocketFile>,
}

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that another server has put there meanwhile stays.
    identity: (u64, u64),
}

impl AdminSocket {
    pub fn bind(listen: &AdminListen) -> Result<Self, AdminListenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => AdminListenError::InUse(listen.clone()),
            _ => AdminListenError::Other { listen: listen.clone(), error },
        };
        let bound = match listen {
            AdminListen::Address(address) => bind_address(*address),
            AdminListen::Unix(path) => {
                if !remove_stale(path).map_err(failed)? {
                    return Err(AdminListenError::NoSocket(listen.clone()));
                }
                bind_path(path)
            }
        };
        let bound = bound.map_err(failed)?;
        bound.socket.set_read_timeout(Some(CHECK_INTERVAL)).map_err(failed)?;
        Ok(bound)
    }

    /// The next connection as a blocking stream, and its peer if it has an address; `None` if none has come for a while.
    pub(super) fn accept(&self) -> io::Result<Option<(TcpStream, Option<SocketAddr>)>> {
        match self.socket.accept() {
            // The operations in use are those of all stream sockets, also where it is a Unix socket.
            Ok((socket, peer)) => Ok(Some((TcpStream::from(OwnedFd::from(socket)), peer.as_socket()))),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn bind_address(address: SocketAddr) -> io::Result<AdminSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.listen(ACCEPT_QUEUE)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(AdminSocket { listen: AdminListen::Address(address), socket, file: None })
}

fn bind_path(path: &Path) -> io::Result<AdminSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = std::fs::symlink_metadata(path)?;
    let file = Some(SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) });
    let bound = AdminSocket { listen: AdminListen::Unix(path.to_owned()), socket, file };
    // Before the socket listens: until then no process can connect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    bound.socket.listen(ACCEPT_QUEUE)?;
    Ok(bound)
}

/// Removes a socket that a server has left behind. False if the path is a file of another kind.
fn remove_stale(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => Ok(false),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                Ok(true)
            }
            // It listens, or it is not known whether it does.
            _ => Err(io::ErrorKind::AddrInUse.into()),
        },
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("the admin socket {} could not be removed: {error}", self.path.display());
        }
    }
}
