//! The client side: what connects to a server, reads its stream and checks it.
//!
//! * [`target`]: where a server is: URLs, sources, descriptors, ports; the directory over HTTP.
//! * [`client`]: one connection, blocking: subscribe, then packets and replies one after another.
//! * [`decode`]: a packet's records, and the check that nothing is missing silently. Pure.
//! * [`mod@tap`]: `tickcast tap`, a stream on the terminal; `text` renders its lines.
//! * [`run`]: `tickcast load`, very many connections; `worker` is one thread of it, `peer` one connection and
//!   `lane` its socket; [`report`] is what it found.
//! * [`mod@floor`]: `tickcast floor`, what the server is measured against.
//! * [`plot`]: latencies of several runs as a picture.
//! * [`probe`]: what the system tells of a server: CPU time, memory, cores.
//! * [`meter`]: latency histograms for both.
//!
//! The WebSocket codec here is tungstenite, not the server's own: what the server sends is read by an independent
//! parser. Nothing here is used by the server.

pub mod client;
pub mod decode;
#[cfg(test)]
mod fake;
pub mod floor;
pub mod follow;
mod lane;
pub mod meter;
mod peer;
pub mod plot;
pub mod probe;
pub mod report;
pub mod run;
pub mod tap;
pub mod target;
mod text;
mod worker;

pub use client::{Client, ClientError, Received, Subscription};
pub use decode::Decoder;
pub use floor::{FloorArgs, floor};
pub use run::{LoadArgs, load};
pub use tap::{TapArgs, tap};
