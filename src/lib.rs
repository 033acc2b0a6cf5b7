//! tickcast pushes live market data to very many WebSocket clients.

pub mod feed;
pub mod market;
