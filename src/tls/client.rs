//! TLS of connections that the server opens: to venues and brokers.
//!
//! A peer is authenticated by its certificate always: there is no option to trust whatever certificate it has. A peer with
//! a private certificate is trusted by its authority, see [`Roots::File`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Connect, TlsConnector};

use super::error::TlsError;

/// What clients of other libraries take.
pub use rustls::ClientConfig as TlsConfig;

/// The authorities that certificates of peers are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system, or of the file that `SSL_CERT_FILE` names. The list of Mozilla, which is built in, is used
    /// where there are none, such as in a container without the package `ca-certificates`.
    #[default]
    System,
    /// Those in a PEM file, and no others.
    File(PathBuf),
}

/// What a client authenticates itself with: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
}

/// Makes TLS connections to peers whose certificates verify.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    roots: Roots,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connector").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl Connector {
    /// One that trusts these authorities.
    ///
    /// # Errors
    /// The file of [`Roots::File`] cannot be used.
    pub fn new(roots: &Roots) -> Result<Self, TlsError> {
        Self::with_identity(roots, None)
    }

    /// The same for a client that authenticates itself.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn with_identity(roots: &Roots, identity: Option<&Identity>) -> Result<Self, TlsError> {
        Ok(Self { connector: client_config_as(roots, identity)?.into(), roots: roots.clone() })
    }

    /// The handshake with the peer of this name, or IP address, over a connection to it.
    ///
    /// # Errors
    /// The name cannot be that of a peer.
    pub fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> io::Result<Connect<S>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
        Ok(self.connector.connect(name, stream))
    }

    /// Why a handshake failed, and what may help.
    pub fn reason(&self, error: &io::Error) -> String {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return format!("the TLS handshake failed: {error}");
        };
        match error {
            Error::InvalidCertificate(problem) => {
                format!("its certificate does not verify: {}", self.certificate_problem(problem))
            }
            Error::InvalidMessage(_) => format!("it does not speak TLS: {error}"),
            _ => format!("the TLS handshake failed: {error}"),
        }
    }

    fn certificate_problem(&self, problem: &CertificateError) -> String {
        match problem {
            CertificateError::UnknownIssuer => match &self.roots {
                Roots::System => "it is from no authority that the system trusts; give that of a private one by \
                                  ca_file=FILE (PEM)"
                    .to_owned(),
                Roots::File(path) => format!("it is from no authority in {}", path.display()),
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("it is for another name: {problem}")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                format!("{problem}; is the clock of this machine right?")
            }
            _ => problem.to_string(),
        }
    }
}

/// The configuration of a client that authenticates its peers with these roots. TLS 1.2 and 1.3.
///
/// # Errors
/// The file of [`Roots::File`] cannot be used.
pub fn client_config_as(roots: &Roots, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match roots {
        Roots::System => system_roots(),
        Roots::File(path) => roots_of_file(path)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has suites for both versions");
    let builder = builder.with_root_certificates(roots);
    let Some(Identity { certificate, key }) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let unreadable = |path: &Path, error: String| TlsError::Unreadable { path: path.to_owned(), error };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable(certificate, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let config = builder.with_client_auth_cert(chain, secret).map_err(|error| TlsError::Identity {
        certificate: certificate.clone(),
        key: key.clone(),
        error: error.to_string(),
    })?;
    Ok(Arc::new(config))
}

fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    store
}

pub(super) fn roots_of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |error: String| TlsError::Unreadable { path: path.to_owned(), error };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        let added = store.add(certificate);
        added.map_err(|error| TlsError::Unusable { path: path.to_owned(), number, error: error.to_string() })?;
    }
    if store.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(store) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn roots_of_the_system_or_the_built_in_ones_are_there() {
        assert!(!system_roots().is_empty());
        client_config_as(&Roots::System, None).expect("a configuration");
    }

    #[test]
    fn file_without_a_usable_certificate_is_an_error_that_names_it() {
        let error_of = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
            file.write_all(text.as_bytes()).expect("written");
            let error =
                client_config_as(&Roots::File(file.path().to_owned()), None).expect_err("not usable").to_string();
            error.replace(&file.path().display().to_string(), "FILE")
        };
        assert_eq!(error_of("no PEM"), "FILE: no certificate: expected PEM with BEGIN CERTIFICATE");
        let not_a_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(error_of(not_a_certificate).starts_with("FILE: certificate 1 cannot be an authority: "));
        let missing =
            client_config_as(&Roots::File("/nonexistent/ca.pem".into()), None).expect_err("no file").to_string();
        assert!(missing.starts_with("/nonexistent/ca.pem: "), "{missing}");
    }
}
