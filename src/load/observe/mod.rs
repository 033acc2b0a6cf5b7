//! What the system reports about a server: [`process`] reads `/proc`, [`server`] samples one server over a run.

pub mod process;
pub mod server;
