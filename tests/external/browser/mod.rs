//! What people see: the page and the JavaScript client in a real browser, on servers that each test starts for itself.
//!
//! `tests/external/browser/install` installs what drives the browser; where it or Chromium is absent, tests say that they are
//! skipped. Pictures of a run, and of what failed, are in `target/browser`.

mod chart;
mod chromium;
mod client;
mod connection;
mod events;
mod handling;
mod market;
mod measure;
mod operator;
mod prices;
mod wire;
