//! The client side of the program: `tickcast load`, `tickcast tap`, `tickcast record` and `tickcast floor`. The server uses
//! nothing of it.
//!
//! * `run`: `tickcast load`. What each client does ([`args`], `run::plan`), the stages of a run, the run's own
//!   publisher, the servers that it starts and compares.
//! * `worker`: one process of a load run, its threads and their connections; started by `run::processes`.
//! * `report`: what a run found, as text, as JSON and as a picture; the comparison of runs.
//! * `observe`: what the system reports about a server's process: CPU time, memory, cores.
//! * `attack`: hostile clients beside the measured ones.
//! * `slow_clients`: clients that are slow on purpose.
//! * `record`: a stream in a file. `tap`: a stream on the terminal. `printable`: text of a server as a terminal may have
//!   it.
//! * `floor`: the bare loop that the server is measured against.
//! * `latency`, `format`: histograms, numbers with units. `machine`, `cores`, `signals`, `child`: this machine.
//!
//! Handshake, decoder and requests are those of [`tickcast_client`]. One in a hundred connections of a load run is read
//! by tungstenite and [`tickcast_client::decode::Decoder`]; the others by [`tickcast_protocol::ws::Session`] in the
//! client's role and the [`FastChecker`]. Tests hold both readers to the same result.

mod args;
mod attack;
mod child;
mod cores;
mod directory;
mod error;
mod floor;
mod format;
mod latency;
mod machine;
mod observe;
mod printable;
mod record;
mod report;
mod run;
mod servers;
mod signals;
mod slow_clients;
mod tap;
mod worker;

pub use args::LoadArgs;
pub use attack::attack_worker;
pub use error::LoadError;
pub use floor::{FloorArgs, floor};
pub use latency::{LatencyMeter, LatencyOrigin};
pub use observe::process::{CpuTime, ObservedProcess};
pub use printable::printable;
pub use record::{RecordArgs, record};
pub use run::load;
pub use signals::stop_flag;
pub use tap::{TapArgs, tap};
pub use worker::checker::{FastChecker, SequenceTable};
pub use worker::process::load_worker;
