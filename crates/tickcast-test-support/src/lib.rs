//! Clients, servers and independent readings of the formats, shared by the tests of tickcast.
//!
//! * [`server`] starts the server's program; [`client`], [`sse`] and [`http`] talk to it over real sockets.
//! * [`market_state`] keeps what a client has of the instruments.
//! * [`publisher`] publishes records that are written byte by byte.
//! * [`scripted_server`] plays a script to a client under test, with packets from [`packets`].
//! * [`deflate`], [`sse`], [`http`], [`binance_oracle`] and [`python_oracle`] read the formats with none of the program's
//!   code, so that a mistake of the program is not repeated by its test.
//! * The feature `engine` adds the modules that link the server's library: `node`, `feed_stream` and `io_contract`. A unit
//!   test of that library must not use them: its own types are not those of the library that is linked here.
//! * The feature `tls` adds `tls`: certificates, and the client of rustls.
//!
//! Everything here panics where an expectation fails: the caller is a test.

pub mod binance_oracle;
pub mod client;
pub mod deflate;
pub mod exclusive;
#[cfg(feature = "engine")]
pub mod feed_stream;
pub mod http;
#[cfg(feature = "engine")]
pub mod io_contract;
pub mod market_state;
#[cfg(feature = "engine")]
pub mod node;
pub mod packets;
pub mod paths;
pub mod publisher;
pub mod python_oracle;
pub mod scripted_server;
pub mod server;
pub mod sse;
#[cfg(feature = "tls")]
pub mod tls;

use std::time::Duration;

/// An upper bound for every wait: no step of a test takes this long on a slow and busy machine.
pub const DEADLINE: Duration = Duration::from_secs(40);
