//! tickcast pushes live market data to very many WebSocket clients.

pub mod market;
pub mod ws;
