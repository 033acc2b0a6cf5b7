//! Why there is no configuration for TLS: the file, what is wrong with it, and what was expected.

use std::path::{Path, PathBuf};

/// Why there is no configuration for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    /// The file has no certificate.
    #[error("{}: no certificate: expected PEM with BEGIN CERTIFICATE", path.display())]
    Empty { path: PathBuf },
    /// The file has no private key.
    #[error("{}: no private key: expected PEM with BEGIN PRIVATE KEY, and no passphrase", path.display())]
    NoKey { path: PathBuf },
    /// The private key is of a kind that is not supported.
    #[error("{}: the key cannot be used: {error}: expected ECDSA (P-256, P-384), RSA or Ed25519", path.display())]
    BadKey { path: PathBuf, error: String },
    /// A certificate in the file is no certificate of an authority.
    #[error("{}: certificate {number} cannot be an authority: {error}", path.display())]
    Unusable { path: PathBuf, number: usize, error: String },
    /// A certificate in the file cannot be parsed.
    #[error("{}: certificate {number} cannot be parsed: {error}: expected X.509", path.display())]
    Malformed { path: PathBuf, number: usize, error: String },
    /// The first certificate is that of an authority.
    #[error("{}: the first certificate is that of an authority: expected the server's own first, then those that \
             lead to the authority", path.display())]
    Authority { path: PathBuf },
    /// The certificate has expired.
    #[error("{}: expired on {until}: expected one that is valid now; is the clock of this machine right?",
            path.display())]
    Expired { path: PathBuf, until: String },
    /// The certificate is not valid yet.
    #[error("{}: not valid before {from}: expected one that is valid now; is the clock of this machine right?",
            path.display())]
    NotYetValid { path: PathBuf, from: String },
    /// The certificate names no server.
    #[error("{}: the certificate names no server: expected one with subjectAltName, or 'names'", path.display())]
    Nameless { path: PathBuf },
    /// A configured name is not one of the certificate.
    #[error("{}: not for {name:?}, which 'names' has: expected one of {names}", path.display())]
    OtherName { path: PathBuf, name: String, names: String },
    /// Two pairs have the same name.
    #[error("{}: for {name:?}, as is {}: expected each name in one pair", path.display(), other.display())]
    SameName { path: PathBuf, other: PathBuf, name: String },
    /// There is no pair.
    #[error("no certificate is configured: expected at least one [[tls]] with cert and key")]
    NoPair,
    /// The certificate does not belong to the key.
    #[error("{}: not usable with the key {}: {error}", certificate.display(), key.display())]
    Identity { certificate: PathBuf, key: PathBuf, error: String },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

impl TlsError {
    pub(super) fn unreadable(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Unreadable { path: path.to_owned(), error: error.to_string() }
    }
}
