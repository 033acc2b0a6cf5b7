//! The wire formats without a server: frames, sessions, compression, the upgrade, and the golden bytes that every
//! client is held to.

mod deflate;
mod handshake;
mod session;
mod vectors;
