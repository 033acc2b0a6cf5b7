//! The socket of a publisher, encrypted or not, as its thread uses it: blocking, with a timeout for reads.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::tls::{Session, sealed_bytes_max};

/// Bytes of TLS of one read. What they are opened to, and a record that was held before, fit any buffer of a publisher.
const SEALED_BYTES: usize = 64 * 1024;
/// Bytes of a close_notify of TLS, and some.
const CLOSE_BYTES: usize = 256;

/// See the module.
pub struct PublisherStream {
    socket: TcpStream,
    secured: Option<Secured>,
}

struct Secured {
    session: Box<Session>,
    input: Vec<u8>,
    opened: Vec<u8>,
    has_ended: bool,
}

impl PublisherStream {
    /// A blocking socket, and its session if it is encrypted.
    pub fn new(socket: TcpStream, session: Option<Box<Session>>) -> Self {
        let secured = |session| Secured { session, input: vec![0; SEALED_BYTES], opened: Vec::new(), has_ended: false };
        Self { socket, secured: session.map(secured) }
    }

    pub(super) fn set_up(&self, read: Duration, write: Duration, keepalive: &TcpKeepalive) -> io::Result<()> {
        self.socket.set_read_timeout(Some(read))?;
        self.socket.set_write_timeout(Some(write))?;
        // A Unix socket has no address and needs no keep-alive: the kernel closes it with the publisher's process.
        if self.socket.peer_addr().is_ok() {
            SockRef::from(&self.socket).set_tcp_keepalive(keepalive)?;
        }
        Ok(())
    }

    /// Bytes that wait in the socket.
    pub(super) fn waiting_bytes(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.socket)?)
    }

    /// Reads what has come into `buffer`. Returns how many bytes that is, and how many it took of the socket; an empty
    /// read is the end.
    ///
    /// # Errors
    /// Also `WouldBlock`: nothing has come, or no whole record.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
        let Some(Secured { session, input, opened, has_ended }) = &mut self.secured else {
            let len = self.socket.read(buffer)?;
            return Ok((len, len));
        };
        if *has_ended {
            return Ok((0, 0));
        }
        let taken = self.socket.read(input)?;
        if taken == 0 {
            return Ok((0, 0));
        }
        let mut output = Vec::new();
        opened.clear();
        let is_end = session.open(&mut input[..taken], opened, &mut output);
        self.socket.write_all(&output)?;
        *has_ended = is_end.map_err(io::Error::other)?;
        if opened.is_empty() && !*has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..opened.len()].copy_from_slice(opened);
        Ok((opened.len(), taken))
    }

    /// Writes all bytes.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(Secured { session, .. }) = &mut self.secured else { return self.socket.write_all(bytes) };
        let mut out = vec![0; sealed_bytes_max(bytes.len())];
        let len = session.seal(bytes, &mut out).map_err(io::Error::other)?;
        self.socket.write_all(&out[..len])
    }

    /// Ends the sending side.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if let Some(Secured { session, .. }) = &mut self.secured {
            let mut notice = [0; CLOSE_BYTES];
            let len = session.close(&mut notice);
            self.socket.write_all(&notice[..len])?;
        }
        self.socket.shutdown(Shutdown::Write)
    }
}
