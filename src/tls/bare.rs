//! The least of rustls that a server needs: the yardstick of [`super::Session`], with which it shares nothing, so that a
//! regression there does not slow its yardstick as well. For `tickcast floor`; it is told nothing that a server has to
//! know of its clients, such as why a handshake failed.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::error::TlsError;
use super::server::provider;

/// A flight of the handshake takes less.
const FLIGHT_BYTES: usize = 8 * 1024;

/// A certificate and its key, with the settings of [`super::TlsServer`].
#[derive(Clone, Debug)]
pub struct BareServer(Arc<ServerConfig>);

impl BareServer {
    /// Reads PEM files.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::unreadable(&path, error)
        };
        let library = |error: rustls::Error| TlsError::Library(error.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(unreadable(cert))?.collect();
        let (chain, secret) = (chain.map_err(unreadable(cert))?, PrivateKeyDer::from_pem_file(key));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(library)?.with_no_client_auth();
        let config = builder.with_single_cert(chain, secret.map_err(unreadable(key))?);
        let mut config = config.map_err(library)?;
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(library)?;
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(Arc::new(config)))
    }

    /// A new connection.
    pub fn begin(&self) -> BareSession {
        let connection = UnbufferedServerConnection::new(self.0.clone());
        BareSession { connection: connection.expect("no limit of fragments is set"), held: Vec::new() }
    }
}

/// One connection, from the first byte of its handshake on.
pub struct BareSession {
    connection: UnbufferedServerConnection,
    /// Input that is not a whole record.
    held: Vec<u8>,
}

impl std::fmt::Debug for BareSession {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("BareSession").finish_non_exhaustive()
    }
}

impl BareSession {
    /// Appends what has come to `plain`, and what is to be sent to `output`. False at the end of the connection.
    pub fn receive(&mut self, input: &[u8], plain: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
        self.held.extend_from_slice(input);
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut self.held);
            let is_open = match state {
                Ok(ConnectionState::ReadTraffic(mut reading)) => {
                    while let Some(Ok(record)) = reading.next_record() {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut encoding)) => {
                    let start = output.len();
                    output.resize(start + FLIGHT_BYTES, 0);
                    let len = encoding.encode(&mut output[start..]).unwrap_or(0);
                    output.truncate(start + len);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(transmitting)) => {
                    transmitting.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Some(true),
                Ok(_) | Err(_) => Some(false),
            };
            self.held.drain(..discard);
            if let Some(is_open) = is_open {
                return is_open;
            }
        }
    }

    /// Seals up to a record's plaintext at the start of `out`; how many bytes it took. `None` before the handshake's end.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        match self.connection.process_tls_records(&mut self.held).state {
            Ok(ConnectionState::WriteTraffic(mut writing)) => writing.encrypt(plain, out).ok(),
            _ => None,
        }
    }
}
