//! What the connections of clients are secured with: certificates, versions, tickets, authorities of client certificates.
//!
//! Built once and shared by all shards, so that a client resumes its TLS session at any of them. There is no early data
//! (0-RTT): a request in it could be replayed. TLS 1.3 sends one ticket of some 250 B; TLS 1.2 resumes by tickets only,
//! since a cache of sessions would be state for every client.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::certificates::{CertificateExpiry, CertificateFiles, CertificateTable, Certificates};
use super::client::roots_of_file;
use super::error::TlsError;
use super::session::Handshake;

/// The protocol that is spoken inside: HTTP/2 is not, and a client that offers others only is refused.
const HTTP: &[u8] = b"http/1.1";

/// The lowest version that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// The cryptography of a server. Its order of suites counts, and AES-128 is first: all suites are strong, and the keys of
/// this one are the smallest, in what every client keeps and in what a record touches.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128"));
    provider
}

/// What a server is secured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    pub pairs: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    /// Authorities whose certificates clients may present, PEM. `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// See the module.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    certificates: Arc<Certificates>,
    /// The files of the present table, and what they were like when they were last read.
    files: Mutex<(Vec<CertificateFiles>, Vec<FileStamp>)>,
    /// Times that pairs were read again and could not be used.
    reload_failures: AtomicU64,
}

/// What tells that a file has changed: inode, size, time of change. `None`: there is no such file.
type FileStamp = Option<(u64, u64, i64, i64)>;

impl TlsServer {
    /// Reads certificates and keys. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// The file that cannot be used, and what was expected.
    pub fn load(settings: &ServerSettings, now_s: i64) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let stamps = stamps_of(&settings.pairs);
        let certificates = Arc::new(Certificates::new(CertificateTable::load(&settings.pairs, &provider, now_s)?));
        let library = |error: rustls::Error| TlsError::Library(error.to_string());
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let builder = builder.map_err(library)?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots_of_file(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                // Subscribers and browsers have none.
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Library(error.to_string()))?)
            }
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![HTTP.to_vec()];
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(library)?;
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let files = Mutex::new((settings.pairs.clone(), stamps));
        Ok(Self { config: Arc::new(config), provider, certificates, files, reload_failures: AtomicU64::new(0) })
    }

    /// The handshake of a new connection.
    pub fn begin(&self) -> Handshake {
        let connection = UnbufferedServerConnection::new(self.config.clone());
        Handshake::new(connection.expect("the settings of the server have no limit of fragments that could be wrong"))
    }

    /// Reads these pairs in place of the present ones. Connections keep what they have.
    ///
    /// # Errors
    /// A file that cannot be used: the present pairs stay.
    pub fn reload(&self, pairs: &[CertificateFiles], now_s: i64) -> Result<(), TlsError> {
        // Before the files are read: a change in between is noticed later.
        let stamps = stamps_of(pairs);
        let loaded = CertificateTable::load(pairs, &self.provider, now_s);
        // A bad file is not read again until it changes.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        *files = (pairs.to_vec(), stamps);
        drop(files);
        match loaded {
            Ok(table) => self.certificates.replace(table),
            Err(error) => {
                // Relaxed: a number that is read by itself.
                self.reload_failures.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the pairs again if one of their files has changed. True if so.
    ///
    /// # Errors
    /// See [`Self::reload`].
    pub fn reload_if_changed(&self, now_s: i64) -> Result<bool, TlsError> {
        let (pairs, stamps) = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if stamps_of(&pairs) == stamps {
            return Ok(false);
        }
        self.reload(&pairs, now_s).map(|()| true)
    }

    /// Times that pairs were read again and could not be used.
    pub fn reload_failures(&self) -> u64 {
        // Relaxed: see `reload`.
        self.reload_failures.load(Ordering::Relaxed)
    }

    /// When the certificates expire.
    pub fn expiries(&self) -> Vec<CertificateExpiry> {
        self.certificates.table().expiries().cloned().collect()
    }
}

fn stamps_of(pairs: &[CertificateFiles]) -> Vec<FileStamp> {
    pairs.iter().flat_map(|pair| [stamp(&pair.cert), stamp(&pair.key)]).collect()
}

/// Follows links: certbot replaces the target of one.
fn stamp(path: &Path) -> FileStamp {
    let of = |file: Metadata| (file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    std::fs::metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests;
