//! Programs that are not part of the project, each against the real server: browsers, WebSocket and SSE clients, proxies,
//! issuers of tokens.
//!
//! A program that is not installed is reported as skipped. One test measures the page: the others hold the shared side of
//! `tickcast_test_support::exclusive`, so that none of them runs beside it.

mod browser;
mod interop;
mod issuers;
mod proxies;
mod tls;
mod tokens;
