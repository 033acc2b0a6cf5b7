//! tickcast pushes live market data to very many WebSocket clients.

pub mod io;
pub mod market;
pub mod ring;
mod sync;
