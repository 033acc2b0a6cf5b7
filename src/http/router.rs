//! The paths that are answered at once: pages, the directory, last values, health, metrics.

use std::net::SocketAddr;

use http::Method;

use super::admission::origin;
use super::handlers::{bars, instruments, metrics, operator, snapshot};
use super::response::{Response, not_found, shown, unavailable};
use super::server::HttpServer;
use crate::config::Config;
use crate::http::handshake::Refusal;

const PATHS: &str = "/, /v1/stream, /v1/sse, /v1/publish, /v1/instruments, /v1/snapshot/{symbol}, /v1/bars/{symbol}, \
                     /v1/operator, /metrics, /healthz, /readyz";

/// The answer to a request that is no upgrade, from this peer.
pub(super) async fn answer(
    server: &HttpServer,
    request: &http::Request<()>,
    from: Option<SocketAddr>,
) -> Result<Response, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!("method {} is not served; have GET, HEAD", request.method());
        let headers = vec![("Allow", "GET, HEAD".to_owned())];
        return Err(Refusal { status: 405, code: "method_not_allowed", message, headers });
    }
    let mut response = answer_get(server, request, from).await?;
    response.headers_only = request.method() == Method::HEAD;
    Ok(response)
}

/// Says what pages of other origins may do with it.
pub(super) fn share(config: &Config, request: &http::Request<()>, response: Response) -> Response {
    let headers = origin::headers(request, config).into_iter();
    let response = headers.fold(response, |response, (name, value)| response.with(name, value));
    let response = if origin::is_for_all(request, config) { response.for_all_origins() } else { response };
    if origin::varies(request, config) { response.vary("Origin") } else { response }
}

/// Lets a page that may read the answer read why there is none.
pub(super) fn share_refusal(config: &Config, request: &http::Request<()>, mut refusal: Refusal) -> Refusal {
    refusal.headers.extend(origin::headers(request, config));
    if origin::varies(request, config) { refusal.with_header("Vary", "Origin") } else { refusal }
}

async fn answer_get(
    server: &HttpServer,
    request: &http::Request<()>,
    from: Option<SocketAddr>,
) -> Result<Response, Refusal> {
    let (path, query, headers) = (request.uri().path(), request.uri().query().unwrap_or(""), request.headers());
    if let Some(page) = server.shared.pages.find(path, headers) {
        return Ok(page);
    }
    match path {
        "/v1/instruments" => Ok(instruments::answer(server, headers).await),
        "/v1/snapshot" => snapshot::several(server, query, headers).await,
        "/metrics" => {
            server.show();
            Ok(Response::new(metrics::CONTENT_TYPE, metrics::render(&server.state)).unstored())
        }
        "/healthz" => Ok(Response::json(r#"{"status":"ok"}"#).unstored()),
        "/readyz" => match server.state.lifecycle.not_ready() {
            Some(why) => Err(unavailable(&why)),
            None => Ok(Response::json(r#"{"status":"ready"}"#).unstored()),
        },
        "/v1/operator" => operator::answer(server, request, from),
        _ => match (path.strip_prefix("/v1/snapshot/"), path.strip_prefix("/v1/bars/")) {
            (Some(symbol), _) => snapshot::one(server, symbol, query, headers),
            (_, Some(symbol)) => bars::answer(server, symbol, query).await,
            _ => Err(not_found(format!("nothing is at {}; have {PATHS}", shown(path)))),
        },
    }
}
