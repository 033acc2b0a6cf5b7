//! tickcast pushes live market data to very many WebSocket clients.

pub mod config;
pub mod door;
pub mod feed;
pub mod intake;
pub mod io;
pub mod load;
pub mod market;
pub mod ring;
pub mod runtime;
pub mod sequencer;
pub mod shard;
pub mod stats;
mod sync;
pub mod wire;
pub mod ws;
