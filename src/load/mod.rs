//! The client side: what connects to a server, reads its stream and checks it.
//!
//! * [`target`]: what a run needs beside a server's URL: sources, descriptors, ports; the directory over HTTP.
//! * [`mod@tap`]: `tickcast tap`, a stream on the terminal, read by [`tickcast_client`]; `text` renders its lines.
//! * [`run`]: `tickcast load`, very many connections, as [`args`] asks and [`report`] tells. `plan` is what each client
//!   does, `crew` the processes from the run's side and `hand` one of them, which talk as [`job`] says; `worker` is one
//!   thread of a process, `peer` one connection, `send` a part of it, [`follow`] its fast reader.
//! * [`publisher`]: the run's own publisher, on a [`schedule`] that nothing delays.
//! * [`compare`]: the same against several servers; [`rival`] starts them, [`observe`] looks at them.
//! * [`attack`]: what a hostile client does meanwhile.
//! * [`mod@floor`]: `tickcast floor`, what the server is measured against.
//! * [`plot`]: latencies of several runs as a picture.
//! * [`probe`]: what the system tells of a server: CPU time, memory, cores.
//! * [`meter`]: latency histograms for both.
//!
//! The handshake, the decoder and the requests are those of [`tickcast_client`]. What the server sends is read by
//! independent parsers: one in a hundred connections of a load run by tungstenite; the others by [`tickcast_protocol::ws::Session`]
//! in the client's role, which shares no code with what writes the server's frames, and which a test holds to
//! tungstenite's reading. Nothing here is used by the server.

pub mod args;
pub mod attack;
pub mod compare;
pub mod cores;
mod crew;
pub mod error;
pub mod floor;
pub mod follow;
mod hand;
pub mod job;
pub mod meter;
pub mod observe;
mod peer;
mod plan;
pub mod plot;
pub mod probe;
mod progress;
pub mod publisher;
pub mod report;
pub mod rival;
pub mod run;
pub mod schedule;
mod send;
pub mod tap;
pub mod target;
mod text;
mod worker;

pub use args::LoadArgs;
pub use attack::attack_worker;
pub use error::LoadError;
pub use floor::{FloorArgs, floor};
pub use hand::load_worker;
pub use run::load;
pub use tap::{TapArgs, tap};
