//! One process of a load run: the hidden command `load-worker`.
//!
//! [`process`] reads a job and commands from stdin and writes progress and results to stdout, as [`messages`] define
//! them. It runs a `thread` for each share of the clients. A thread drives its `connection`s, and each connection
//! checks its packets with a [`checker`]. [`timeline`] has what a thread received, second by
//! second.

mod buffered_socket;
pub mod checker;
mod connection;
mod json_checker;
mod limiter;
pub mod messages;
pub mod process;
pub mod send;
mod shared;
mod stream_checker;
mod thread;
pub mod timeline;
