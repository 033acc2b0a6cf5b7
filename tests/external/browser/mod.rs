//! The page and the JavaScript client in a real browser. Each test starts its own servers.
//!
//! `tests/external/browser/install` installs the driver of the browser. Without it, or without Chromium, the tests are
//! reported as skipped. Screenshots of a run, and of failed tests, are in `target/browser`.

mod chart;
pub mod chromium;
mod client;
mod connection;
mod delayed;
mod events;
mod handling;
mod large;
mod layout;
mod lists;
mod login;
mod market;
mod measure;
mod operator;
mod prices;
mod proxy;
mod secured;
mod watchlist;
