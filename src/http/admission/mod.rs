//! Which connections and requests are admitted: pending connections, addresses, forwarded headers, origins.

pub mod addresses;
pub(super) mod forwarded;
pub(super) mod origin;
pub(super) mod pending;
