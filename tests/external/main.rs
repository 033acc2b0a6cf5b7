//! Programs that are not part of the project, each against the real server: browsers, WebSocket and SSE clients, proxies.
//!
//! A program that is not installed is reported as skipped.

mod browser;
mod interop;
mod proxies;
