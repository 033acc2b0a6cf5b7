//! Venues, live: their codecs ([`tickcast_venues`]) over connections ([`transport`](super::transport)).
//!
//! ```text
//!  VenueSource ── waits, and passes on ──► Network        the connections and HTTP requests, as tasks
//!      │                                      │
//!      └── events, time ──► Driver ── commands, records
//!                             │ one or more
//!                            Lane      instruments that share a connection, or those that have all their channels
//!                             │ one, two while a connection is replaced
//!                            Line ──► Codec
//! ```
//!
//! * [`params`]: the `--feed` argument. `opener`: the schemes.
//! * [`driver`]: everything that is decided, as a state machine without I/O and clock.
//! * `lane`, `line`: its parts. `context`: what they share.
//! * [`source`]: the source, which waits for the network. [`observer`]: sees messages before they are read.

mod context;
pub mod driver;
mod lane;
mod line;
pub mod observer;
mod opener;
pub mod params;
pub mod source;

pub use self::opener::{BINANCE, BINANCE_COINM, BINANCE_USDM, BYBIT, COINBASE, KRAKEN, OKX, params_of};
