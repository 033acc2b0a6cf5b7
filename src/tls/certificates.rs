//! Pairs of certificate and key, and which of them a server name gets.
//!
//! What always holds: a table has pairs that belong together and are valid now, or there is no table. A handshake that
//! has begun keeps the pair that it was given, whatever is read meanwhile.
//!
//! Cost: a look-up of a name for each full handshake, under a lock that is held to clone a reference.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::error::TlsError;

/// The files of a pair, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate of the server, and those between it and the authority.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Server names that get this pair; empty: those of the certificate.
    pub names: Vec<String>,
}

/// When the certificate of a pair expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The first name of the pair.
    pub name: String,
    /// Seconds since 1970.
    pub not_after_s: i64,
}

/// The present table, which [`Self::replace`] replaces while handshakes go on.
#[derive(Debug)]
pub(super) struct Certificates(RwLock<Arc<CertificateTable>>);

impl Certificates {
    pub(super) fn new(table: CertificateTable) -> Self {
        Self(RwLock::new(Arc::new(table)))
    }

    pub(super) fn replace(&self, table: CertificateTable) {
        // A panic leaves a whole table: it is replaced in one assignment.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    pub(super) fn table(&self) -> Arc<CertificateTable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table().find(hello.server_name())
    }
}

/// All pairs, and their names.
#[derive(Debug)]
pub(super) struct CertificateTable {
    pairs: Vec<Pair>,
    /// In lower case; a wildcard is `*.` and a domain.
    by_name: HashMap<String, usize, RandomState>,
    /// Every name gets the only pair: no names were configured.
    serves_all: bool,
}

#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    expiry: CertificateExpiry,
}

impl CertificateTable {
    /// Reads all pairs.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(super) fn load(files: &[CertificateFiles], provider: &CryptoProvider, now_s: i64) -> Result<Self, TlsError> {
        let serves_all = matches!(files, [only] if only.names.is_empty());
        let mut table = Self { pairs: Vec::new(), by_name: HashMap::default(), serves_all };
        for (index, pair) in files.iter().enumerate() {
            let (key, names, not_after_s) = load_pair(pair, provider, now_s)?;
            let name = names.first().cloned().unwrap_or_default();
            for name in names {
                if let Some(other) = table.by_name.insert(name.clone(), index).filter(|other| *other != index) {
                    let (path, other) = (pair.cert.clone(), files[other].cert.clone());
                    return Err(TlsError::SameName { path, other, name });
                }
            }
            table.pairs.push(Pair { key, expiry: CertificateExpiry { name, not_after_s } });
        }
        if table.pairs.is_empty() { Err(TlsError::NoPair) } else { Ok(table) }
    }

    /// The pair for a server name. A client without one, such as one that was given an address, gets the first pair;
    /// one with an unknown name gets none, unless there is a single pair without configured names.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name.filter(|_| !self.serves_all) else {
            return self.pairs.first().map(|pair| pair.key.clone());
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        let index = self.by_name.get(&name).or_else(wildcard)?;
        Some(self.pairs[*index].key.clone())
    }

    pub(super) fn expiries(&self) -> impl Iterator<Item = &CertificateExpiry> {
        self.pairs.iter().map(|pair| &pair.expiry)
    }
}

type LoadedPair = (Arc<CertifiedKey>, Vec<String>, i64);

fn load_pair(files: &CertificateFiles, provider: &CryptoProvider, now_s: i64) -> Result<LoadedPair, TlsError> {
    let CertificateFiles { cert, key, names } = files;
    let chain = load_chain(cert)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey { path: key.clone() },
        error => TlsError::unreadable(key, error),
    })?;
    let leaf = Leaf::parse(cert, &chain)?;
    leaf.check_time(cert, now_s)?;
    let names = leaf.names_for(cert, names)?;
    let signing = provider.key_provider.load_private_key(secret);
    let signing = signing.map_err(|error| TlsError::BadKey { path: key.clone(), error: error.to_string() })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => {
            let error = "the certificate is for another key: expected the key that it was requested with".to_owned();
            return Err(TlsError::Identity { certificate: cert.clone(), key: key.clone(), error });
        }
    }
    Ok((Arc::new(pair), names, leaf.not_after_s))
}

fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| TlsError::unreadable(path, error))?;
    let chain: Result<Vec<_>, _> = certificates.collect();
    let chain = chain.map_err(|error| TlsError::unreadable(path, error))?;
    if chain.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}

/// What is needed of the certificate of the server.
struct Leaf {
    names: Vec<String>,
    has_names: bool,
    not_before_s: i64,
    not_after_s: i64,
    not_before: String,
    not_after: String,
}

impl Leaf {
    fn parse(path: &Path, chain: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        for (number, der) in (1..).zip(chain).skip(1) {
            parse(path, number, der)?;
        }
        let leaf = parse(path, 1, &chain[0])?;
        // One that signs itself may be both: a test, or a private server.
        if leaf.is_ca() && chain.len() > 1 {
            return Err(TlsError::Authority { path: path.to_owned() });
        }
        let (validity, names) = (leaf.validity(), subject_names(&leaf));
        Ok(Self {
            has_names: leaf.subject_alternative_name().ok().flatten().is_some(),
            names,
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
            not_before: validity.not_before.to_string(),
            not_after: validity.not_after.to_string(),
        })
    }

    fn check_time(&self, path: &Path, now_s: i64) -> Result<(), TlsError> {
        let path = path.to_owned();
        if now_s > self.not_after_s {
            return Err(TlsError::Expired { path, until: self.not_after.clone() });
        }
        if now_s < self.not_before_s {
            return Err(TlsError::NotYetValid { path, from: self.not_before.clone() });
        }
        Ok(())
    }

    /// The names that get this pair: as configured, or those of the certificate.
    fn names_for(&self, path: &Path, configured: &[String]) -> Result<Vec<String>, TlsError> {
        if !self.has_names {
            return Err(TlsError::Nameless { path: path.to_owned() });
        }
        if configured.is_empty() {
            return Ok(self.names.clone());
        }
        let mut names = Vec::new();
        for name in configured {
            let name = name.to_ascii_lowercase();
            let is_covered = self.names.iter().any(|own| covers(own, &name));
            if !is_covered {
                let (path, names) = (path.to_owned(), self.names.join(", "));
                return Err(TlsError::OtherName { path, name, names });
            }
            names.push(name);
        }
        Ok(names)
    }
}

/// True if a name of a certificate is that of this server: the same, or a wildcard in place of its first label.
fn covers(own: &str, name: &str) -> bool {
    own == name || own.strip_prefix("*.").is_some_and(|rest| name.split_once('.').is_some_and(|(_, tail)| tail == rest))
}

fn parse<'a>(path: &Path, number: usize, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let parsed = X509Certificate::from_der(der.as_ref()).map(|(_, certificate)| certificate);
    parsed.map_err(|error| TlsError::Malformed { path: path.to_owned(), number, error: error.to_string() })
}

/// The DNS names and addresses of a certificate, in lower case.
pub(super) fn subject_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}
