//! What connections over TLS have in common: the authorities that they trust, and the sessions that they resume.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::tickets::Tickets;
use crate::error::Error;
use crate::target::Target;

/// See the module. A clone shares its sessions.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// `None` for connections without TLS.
    client: Option<Arc<ClientConfig>>,
    tickets: Option<Tickets>,
    ca: Option<PathBuf>,
}

impl TlsConfig {
    /// For connections to this server: trusts the authorities in `ca`, PEM, those of the system without it, and resumes no
    /// sessions. For `ws://` no file is read.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file and what was expected.
    pub fn new(target: &Target, ca: Option<&Path>) -> Result<Self, Error> {
        if !target.is_secured() {
            return Ok(Self { client: None, tickets: None, ca: None });
        }
        let roots = match ca {
            None => system_roots(),
            Some(path) => roots_of(path).map_err(|problem| Error::Tls(format!("{}: {problem}", path.display())))?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { client: Some(Arc::new(client)), tickets: None, ca: ca.map(Path::to_owned) })
    }

    /// Keeps up to so many tickets of servers, each of which one later connection uses: it resumes the session, and the
    /// server sends no certificate.
    #[must_use]
    pub fn resuming(self, sessions_max: usize) -> Self {
        self.with_tickets(Tickets::new(sessions_max))
    }

    /// The same for connections that leave their tickets to others and resume nothing: clients that come for the first
    /// time.
    #[must_use]
    pub fn only_keeping(self) -> Self {
        match &self.tickets {
            Some(tickets) => {
                let tickets = tickets.only_kept();
                self.with_tickets(tickets)
            }
            None => self,
        }
    }

    fn with_tickets(mut self, tickets: Tickets) -> Self {
        if let Some(client) = &mut self.client {
            Arc::make_mut(client).resumption = Resumption::store(Arc::new(tickets.clone()));
            self.tickets = Some(tickets);
        }
        self
    }

    pub(super) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.client.clone()
    }

    /// A failure of the handshake, as a person can act on it.
    pub(super) fn failure(&self, target: &Target, error: &rustls::Error) -> Error {
        Error::Tls(match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match &self.ca {
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
