//! TLS of a connection, by rustls: what it trusts, and one connection.

#[cfg(feature = "tls")]
mod config;
#[cfg(feature = "tls")]
mod secured;
#[cfg(feature = "tls")]
mod tickets;

#[cfg(feature = "tls")]
pub use self::config::TlsConfig;
#[cfg(feature = "tls")]
pub(crate) use self::secured::Secured;

/// Nothing: the feature `tls` is switched off.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub struct TlsConfig;

#[cfg(not(feature = "tls"))]
impl TlsConfig {
    /// That of connections without TLS.
    ///
    /// # Errors
    /// None.
    pub fn new(_target: &crate::target::Target, _ca: Option<&std::path::Path>) -> Result<Self, crate::error::Error> {
        Ok(Self)
    }

    /// The same: there are no sessions to resume.
    #[must_use]
    pub fn resuming(self, _sessions_max: usize) -> Self {
        self
    }

    /// The same: there are no sessions to keep.
    #[must_use]
    pub fn only_keeping(self) -> Self {
        self
    }
}
