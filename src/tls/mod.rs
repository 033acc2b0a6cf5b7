//! TLS. The only module that names rustls; nothing in it reads from a socket or writes to one.
//!
//! * [`client`]: connections that the server opens, to venues and brokers.
//! * [`server`]: what connections of clients are secured with: certificates, versions, tickets.
//! * [`session`]: one connection of a client: the handshake, then [`Session`], which seals and opens records.
//! * [`bare`]: the same with the least of rustls, to measure against.
//! * [`certificates`]: pairs of certificate and key, and which of them a server name gets.

mod bare;
mod certificates;
mod client;
mod error;
mod server;
mod session;

pub use self::bare::{BareServer, BareSession};
pub use self::certificates::{CertificateExpiry, CertificateFiles};
pub use self::client::{Connector, Identity, Roots, TlsConfig, client_config_as};
pub use self::error::TlsError;
pub use self::server::{ServerSettings, TlsServer, TlsVersion};
pub use self::session::{
    ClientCertificate, Fault, HANDSHAKE_INPUT_MAX, Handshake, RECORD_BYTES_MAX, Session, Step, sealed_bytes_max,
};
