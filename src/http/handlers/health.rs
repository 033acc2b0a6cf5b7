//! `/healthz`: all shards run. `/readyz`: the server accepts clients, and every feed brings data. Both say what is wrong.

use serde_json::json;

use crate::clock::{now_ns, wall_ns};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::response::Response;
use crate::ingest::states::Detail;
use crate::state::{STALLED_S, ServerState};

pub(crate) fn healthz(state: &ServerState) -> Result<Response, Refusal> {
    refuse_stalled(state)?;
    Ok(Response::json(r#"{"status":"ok"}"#).no_store())
}

/// At the public listener. Where there is an admin listener, that one alone names files and hosts.
pub(crate) fn readyz(state: &ServerState) -> Result<Response, Refusal> {
    let detail = if state.config.admin_listen.is_some() { Detail::State } else { Detail::Reason };
    readiness(state, detail)
}

/// At the admin listener.
pub(crate) fn readyz_admin(state: &ServerState) -> Result<Response, Refusal> {
    readiness(state, Detail::Reason)
}

fn readiness(state: &ServerState, detail: Detail) -> Result<Response, Refusal> {
    let (not_ready, warnings) = state.readiness(&state.source_rows(now_ns(), wall_ns()), detail, now_ns(), wall_ns());
    if let Some(reason) = not_ready {
        return Err(Refusal::unavailable(reason, RETRY_AFTER));
    }
    refuse_stalled(state)?;
    let mut answer = json!({ "status": "ready" });
    if !warnings.is_empty() {
        answer["warnings"] = warnings.into();
    }
    Ok(Response::json(answer.to_string()).no_store())
}

fn refuse_stalled(state: &ServerState) -> Result<(), Refusal> {
    let Some(shard) = state.heartbeats.stalled() else { return Ok(()) };
    Err(Refusal::unavailable(format!("shard {shard} does not run: it has not ticked for {STALLED_S} s"), RETRY_AFTER))
}
