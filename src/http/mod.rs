//! The HTTP server of each shard: ordinary async code on glommio, one task per connection until it is upgraded.
//!
//! ```text
//! listener ─► exchange ─► router ─► handlers ─► client of the shard (stream, sse), thread (publish), response
//!             │ admission            │
//!             │ request, handshake   │ response, refusal, content
//! ```
//!
//! * [`admin`]: the admin listener, on threads of its own.
//! * [`listener`]: listening sockets and the accept loop.
//! * `exchange`: one connection: admission, request head, router.
//! * `admission`: pending connections, rate limits, address limits, forwarded headers, origins.
//! * `router`: all paths and their handlers. A GET endpoint is added there.
//! * `handlers`: one file for each endpoint.
//! * `secured`: the TLS handshake of a connection, and its limits.
//! * `server`: the state of one shard's HTTP server, and the hand-over of a socket to the shard.
//! * `credential`: who sends a request. `sessions`, `session_life`: the connections of users,
//!   counted and logged.
//! * `answers`: memory of responses that are not read yet. `portions`: work in short portions.
//! * `connection`: a socket that HTTP owns. [`request`], [`rules`], [`handshake`], `response`, [`refusal`], `content`:
//!   bytes only.
//!
//! What always holds: the shard is borrowed between awaits only. Every request gets a response or a close, and no peer is
//! waited for longer than a limit allows.

mod accept_signal;
pub mod admin;
mod admission;
mod answers;
mod assets;
mod connection;
mod content;
pub(crate) mod credential;
mod exchange;
mod handlers;
pub mod handshake;
pub mod listener;
mod listing;
mod portions;
mod questions;
pub mod refusal;
pub mod request;
mod response;
mod router;
pub mod rules;
mod secured;
mod server;
mod session_life;
mod sessions;
mod slots;
mod timer;

pub use self::server::{HttpServer, HttpShared, ShardIo};

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Plain,
    Tls,
}
