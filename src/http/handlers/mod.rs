//! One file for each endpoint.

pub mod assets;
pub(super) mod bars;
pub(super) mod echo;
pub(super) mod echo_session;
pub mod instruments;
pub(super) mod metrics;
pub(super) mod operator;
pub(super) mod publish;
pub(super) mod snapshot;
pub(super) mod sse;
