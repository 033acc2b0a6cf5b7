//! `/healthz`: all shards run. `/readyz`: the server accepts clients, and nothing it needs has failed.

use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::state::STALLED_S;

pub(crate) fn healthz(server: &HttpServer) -> Result<Response, Refusal> {
    refuse_stalled(server)?;
    Ok(Response::json(r#"{"status":"ok"}"#).no_store())
}

pub(crate) fn readyz(server: &HttpServer) -> Result<Response, Refusal> {
    match server.state().lifecycle.not_ready() {
        Some(reason) => Err(Refusal::unavailable(reason, RETRY_AFTER)),
        None => {
            refuse_stalled(server)?;
            Ok(Response::json(r#"{"status":"ready"}"#).no_store())
        }
    }
}

fn refuse_stalled(server: &HttpServer) -> Result<(), Refusal> {
    let Some(shard) = server.state().heartbeats.stalled() else { return Ok(()) };
    Err(Refusal::unavailable(format!("shard {shard} does not run: it has not ticked for {STALLED_S} s"), RETRY_AFTER))
}
