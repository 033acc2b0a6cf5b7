//! The HTTP server of each shard: ordinary async code on glommio, one task a connection until it is upgraded.
//!
//! accept → request head → answer or upgrade. The socket of a subscriber moves into the shard's registered-file table, its
//! descriptor closes and its task ends. A publisher gets a thread. An echo keeps its task.
//!
//! What always holds: the shard is borrowed between awaits only. Every request is answered or closed with a reason, and
//! never waited for longer than a limit says.

mod admission;
mod connection;
mod content;
mod handlers;
pub mod handshake;
pub mod listener;
pub mod refusal;
mod response;
mod router;
mod server;

pub use self::admission::addresses::Addresses;
pub use self::handlers::assets::Pages;
pub use self::handlers::instruments::Listings;
pub use self::server::{HttpServer, HttpShared};
