//! `/healthz`: the process answers. `/readyz`: the server accepts clients, and nothing it needs has failed.

use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::response::Response;
use crate::http::server::HttpServer;

pub(crate) fn healthz() -> Response {
    Response::json(r#"{"status":"ok"}"#).no_store()
}

pub(crate) fn readyz(server: &HttpServer) -> Result<Response, Refusal> {
    match server.state().lifecycle.not_ready() {
        Some(reason) => Err(Refusal::unavailable(reason, RETRY_AFTER)),
        None => Ok(Response::json(r#"{"status":"ready"}"#).no_store()),
    }
}
