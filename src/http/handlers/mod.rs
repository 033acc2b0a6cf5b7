//! One file for each endpoint. `router.rs` lists their paths.
//!
//! A handler returns a response, or takes the connection over: it becomes a client of the shard (`stream`, `sse`), gets a
//! thread (`publish`), or stays with its task (`echo`).

pub(super) mod bars;
pub(super) mod echo;
pub(super) mod health;
pub(super) mod instruments;
pub(super) mod market;
pub(super) mod metrics;
pub(super) mod operator;
pub(super) mod origin;
pub(super) mod publish;
pub(super) mod revoke;
pub(super) mod snapshot;
pub(super) mod sse;
pub(super) mod stream;
pub(super) mod trades;
