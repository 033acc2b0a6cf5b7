//! What the tests of tickcast share: clients and servers to test against, independent readings of the formats, and
//! fixtures around the server's program and its parts.
//!
//! The readings (`oracle`, `unpack`, `events`, `http`) share no code with the program, so that both cannot have the same
//! mistake. The feature `engine` adds the modules that link the server's library; the unit tests of the library itself
//! use the modules without it, because the library that is under test is another one than the library that is linked here.

pub mod client;
pub mod events;
pub mod exclusive;
pub mod fake;
pub mod http;
#[cfg(feature = "engine")]
pub mod io_contract;
#[cfg(feature = "engine")]
pub mod node;
pub mod oracle;
pub mod paths;
pub mod server;
#[cfg(feature = "engine")]
pub mod stream;
pub mod unpack;
