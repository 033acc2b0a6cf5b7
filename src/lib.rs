//! tickcast pushes live market data to very many WebSocket clients.

pub mod load;
pub mod market;
pub mod wire;
