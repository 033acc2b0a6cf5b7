//! One process of a load run: the hidden command `load-worker`.
//!
//! `process` takes a job and commands from stdin and writes progress and results to stdout, as [`messages`] define them.
//! It runs one [`thread`] for each share of the clients; a `thread` drives its [`connection`]s, and each connection holds
//! its packets to the sequence rule by a [`checker`].

pub mod checker;
mod connection;
pub mod messages;
pub mod process;
pub mod send;
mod thread;
