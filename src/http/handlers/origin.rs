//! `/v1/origin`: whether the page that asks may open streams.
//!
//! A browser hides from a page why its WebSocket was refused: a server that does not admit the page looks like none. This
//! answer can be read by pages of every origin. It has nothing but the question's own origin and the verdict: a page learns
//! by it that a server of this kind is there, and nothing about its data, its other origins or its clients.

use http::{Request, header};
use serde_json::json;

use crate::config::Config;
use crate::http::admission::origin;
use crate::http::response::Response;

pub(crate) fn get(request: &Request<()>, config: &Config) -> Response {
    let given = request.headers().get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    let answer = json!({ "origin": given, "admitted": origin::admits(request, config) });
    Response::json(answer.to_string()).no_store()
}
