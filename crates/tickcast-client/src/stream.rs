//! The socket of a connection, encrypted or not.
//!
//! What always holds: the server's certificate is verified. A private authority is trusted by its file; there is no option
//! to trust whatever certificate a server has.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::error::Error;
use crate::target::Target;
#[cfg(feature = "tls")]
use crate::tls::Secured;
use crate::tls::TlsConfig;

/// A connected socket, encrypted where the URL asks for it. Reads and writes block if the socket blocks; a program that
/// waits with `epoll(7)` makes it nonblocking first, and reads by [`Self::read_once`].
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secured(Box<Secured>),
}

impl Stream {
    /// Secures a connected socket for `wss://`, and sends the first message of the handshake; the reads that follow
    /// complete it. What is written meanwhile is sent behind it.
    ///
    /// # Errors
    /// [`Error::Tls`] where the host cannot be that of a certificate, and where the feature `tls` is switched off; an error
    /// of the socket.
    pub fn open(target: &Target, socket: TcpStream, tls: &TlsConfig) -> Result<Self, Error> {
        if !target.is_secured() {
            return Ok(Self(Inner::Plain(socket)));
        }
        #[cfg(feature = "tls")]
        return Ok(Self(Inner::Secured(Box::new(Secured::open(target, socket, tls)?))));
        #[cfg(not(feature = "tls"))]
        {
            let _ = (socket, tls);
            Err(Error::Tls(format!("{target}: expected the feature `tls` of this crate, which is switched off")))
        }
    }

    /// Completes the handshake, on a socket that blocks; an error says what is wrong with the server's certificate.
    ///
    /// # Errors
    /// [`Error::Tls`] for a refused certificate or another failure, [`Error::Unanswered`] after 5 s.
    pub fn complete_handshake(&mut self, target: &Target, tls: &TlsConfig) -> Result<(), Error> {
        match &mut self.0 {
            Inner::Plain(_) => {
                let _ = (target, tls);
                Ok(())
            }
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.complete_handshake(target, tls),
        }
    }

    /// True until the handshake is complete.
    pub fn is_handshaking(&self) -> bool {
        match &self.0 {
            Inner::Plain(_) => false,
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.is_handshaking(),
        }
    }

    /// The socket, to wait for it.
    pub fn socket(&self) -> &TcpStream {
        match &self.0 {
            Inner::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.socket(),
        }
    }

    /// The socket of a connection without TLS.
    pub fn into_plain(self) -> Option<TcpStream> {
        match self.0 {
            Inner::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Inner::Secured(_) => None,
        }
    }

    /// Reads the socket once, and takes at most so many bytes from it. Over TLS, `buffer` has 64 KiB or more, and the bytes
    /// may be a part of a record: then it is [`io::ErrorKind::WouldBlock`] also on a socket that blocks.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for what the server may not send.
    pub fn read_once(&mut self, buffer: &mut [u8], bytes_max: usize) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => {
                let size = buffer.len().min(bytes_max);
                socket.read(&mut buffer[..size])
            }
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.read_once(buffer, bytes_max),
        }
    }

    /// True if the socket has not taken all that was written: [`Write::flush`] sends it.
    pub fn has_unsent(&self) -> bool {
        match &self.0 {
            Inner::Plain(_) => false,
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.has_unsent(),
        }
    }

    /// Tells the peer that nothing more is sent. A peer that is gone does not read it.
    pub fn end(&mut self) {
        #[cfg(feature = "tls")]
        if let Inner::Secured(secured) = &mut self.0 {
            secured.end();
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self(Inner::Plain(socket))
    }
}

/// Over TLS, reads the socket until there is something or it has no more. A buffer of less than 64 KiB may leave bytes of a
/// record for the next read, of which the socket shows nothing.
impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.read(buffer),
        }
    }
}

/// Over TLS, bytes count as written once they are sealed; a socket that is full before that is `WouldBlock`.
impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Inner::Secured(secured) => secured.flush(),
        }
    }
}
