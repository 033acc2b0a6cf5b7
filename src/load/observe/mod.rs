//! What the system reports about a server: [`process`] reads `/proc`, [`server`] samples one server over a run,
//! [`phases`] around an attack.

pub mod phases;
pub mod process;
pub mod server;
