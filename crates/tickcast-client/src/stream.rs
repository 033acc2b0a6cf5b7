//! The socket of a connection, encrypted or not.
//!
//! What always holds: the server's certificate is verified. A private authority is trusted by its file; there is no option
//! to trust whatever certificate a server has.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::error::Error;
use crate::target::Target;

/// See the module.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secured(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Stream {
    /// Secures a connected socket where the URL asks for it. `ca` has the authorities that are trusted, PEM; those of the
    /// system without it.
    pub(crate) fn open(target: &Target, socket: TcpStream, ca: Option<&Path>) -> Result<Self, Error> {
        if !target.is_secured() {
            return Ok(Self::Plain(socket));
        }
        #[cfg(feature = "tls")]
        return secured::open(target, socket, ca);
        #[cfg(not(feature = "tls"))]
        {
            let _ = (socket, ca);
            Err(Error::Tls(format!("{target}: expected the feature `tls` of this crate, which is switched off")))
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Secured(stream) => &stream.sock,
        }
    }

    /// The socket of a connection without TLS.
    pub(crate) fn into_plain(self) -> Option<TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Self::Secured(_) => None,
        }
    }

    /// Tells the peer that nothing more is sent. A peer that is gone does not read it.
    pub(crate) fn end(&mut self) {
        #[cfg(feature = "tls")]
        if let Self::Secured(stream) = self {
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Self::Secured(stream) => match stream.read(buffer) {
                // A server that ends without close_notify: a frame that was cut shows in the stream itself.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Self::Secured(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Self::Secured(stream) => stream.flush(),
        }
    }
}

#[cfg(feature = "tls")]
mod secured {
    use std::io;
    use std::net::TcpStream;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::Stream;
    use crate::error::Error;
    use crate::target::Target;

    pub(super) fn open(target: &Target, mut socket: TcpStream, ca: Option<&Path>) -> Result<Stream, Error> {
        let name = ServerName::try_from(target.host().to_owned());
        let name = name.map_err(|error| Error::Tls(format!("{}: {error}", target.host())))?;
        let refused = |error: rustls::Error| Error::Tls(error.to_string());
        let mut connection = ClientConnection::new(config(ca)?, name).map_err(refused)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| failure(target, ca, error))?;
        }
        Ok(Stream::Secured(Box::new(StreamOwned::new(connection, socket))))
    }

    fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
        let roots = match ca {
            None => system_roots(),
            Some(path) => roots_of(path).map_err(|problem| Error::Tls(format!("{}: {problem}", path.display())))?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Those of the system, or the list of Mozilla where there are none, such as in a container.
    fn system_roots() -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        store
    }

    fn roots_of(path: &Path) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
            store.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        if store.is_empty() {
            return Err("no certificate: expected PEM with BEGIN CERTIFICATE".to_owned());
        }
        Ok(store)
    }

    fn failure(target: &Target, ca: Option<&Path>, error: io::Error) -> Error {
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            // The server has closed, or does not answer: another attempt may have more success.
            return if error.kind() == io::ErrorKind::UnexpectedEof { Error::Dropped } else { error.into() };
        };
        Error::Tls(match inner {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match ca {
                None => "the server's certificate is from no authority that this system trusts: expected that of a \
                         private one as `ca`"
                    .to_owned(),
                Some(path) => format!("the server's certificate is from no authority in {}", path.display()),
            },
            rustls::Error::InvalidCertificate(problem) => format!("the server's certificate is refused: {problem}"),
            rustls::Error::InvalidMessage(_) => format!("{target} does not speak TLS: expected ws:// there"),
            other => other.to_string(),
        })
    }
}
