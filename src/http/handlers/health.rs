//! `/healthz`: all shards run. `/readyz`: the server accepts clients, and nothing it needs has failed.

use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::response::Response;
use crate::state::{STALLED_S, ServerState};

pub(crate) fn healthz(state: &ServerState) -> Result<Response, Refusal> {
    refuse_stalled(state)?;
    Ok(Response::json(r#"{"status":"ok"}"#).no_store())
}

pub(crate) fn readyz(state: &ServerState) -> Result<Response, Refusal> {
    match state.lifecycle.not_ready() {
        Some(reason) => Err(Refusal::unavailable(reason, RETRY_AFTER)),
        None => {
            refuse_stalled(state)?;
            Ok(Response::json(r#"{"status":"ready"}"#).no_store())
        }
    }
}

fn refuse_stalled(state: &ServerState) -> Result<(), Refusal> {
    let Some(shard) = state.heartbeats.stalled() else { return Ok(()) };
    Err(Refusal::unavailable(format!("shard {shard} does not run: it has not ticked for {STALLED_S} s"), RETRY_AFTER))
}
